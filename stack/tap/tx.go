//go:build linux

package tap

import (
	"errors"
	"os"
	"sync"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// maxVector is how many pieces the kernel takes in one writev (IOV_MAX).
const maxVector = 1024

// maxTxFrame is the largest frame that can hold an IP packet.
const maxTxFrame = 65535 + header.EthernetMinimumSize

// txBuffer is a writer's scratch space, pooled so that sending allocates
// nothing.
type txBuffer struct {
	header [vnetHeaderSize]byte
	iov    []unix.Iovec
}

var txPool = sync.Pool{
	New: func() any { return &txBuffer{iov: make([]unix.Iovec, 0, 64)} },
}

// add appends p to the gather list.
func (b *txBuffer) add(p []byte) {
	if len(p) == 0 {
		return
	}
	v := unix.Iovec{Base: &p[0]}
	v.SetLen(len(p))
	b.iov = append(b.iov, v)
}

// gather lists pkt, and h before it if vnet is set. It returns a view that
// must outlive the list's use, and be released after it, if pkt was in too
// many pieces for the kernel and had to be copied into one.
func (b *txBuffer) gather(pkt *stack.PacketBuffer, vnet bool, h *vnetHeader) *buffer.View {
	b.iov = b.iov[:0]
	if vnet {
		h.encode(b.header[:])
		b.add(b.header[:])
	}
	prefix := len(b.iov)
	views, skip := pkt.AsViewList()
	for v := views.Front(); v != nil; v = v.Next() {
		p := v.AsSlice()
		if skip >= len(p) {
			skip -= len(p)
			continue
		}
		b.add(p[skip:])
		skip = 0
	}
	if len(b.iov) <= maxVector {
		return nil
	}
	clear(b.iov[prefix:])
	b.iov = b.iov[:prefix]
	flat := pkt.ToView()
	b.add(flat.AsSlice())
	return flat
}

// reset forgets the packet, so that the pool keeps none alive.
func (b *txBuffer) reset() {
	clear(b.iov)
	b.iov = b.iov[:0]
}

// WritePackets implements stack.LinkWriter. A packet that cannot be sent is
// dropped and counted, and does not keep those after it from being tried. n is
// how many the device took; the error is that of the first drop.
func (e *Endpoint) WritePackets(pkts stack.PacketBufferList) (n int, err tcpip.Error) {
	b := txPool.Get().(*txBuffer)
	for _, pkt := range pkts.AsSlice() {
		switch werr := e.writePacket(b, pkt); {
		case werr == nil:
			n++
		case err == nil:
			err = werr
		}
	}
	b.reset()
	txPool.Put(b)
	return n, err
}

// writePacket sends one packet, which remains the caller's.
func (e *Endpoint) writePacket(b *txBuffer, pkt *stack.PacketBuffer) tcpip.Error {
	h, ok := outboundHeader(pkt)
	size := pkt.Size()
	if !ok || size > maxTxFrame || (!e.offload.Header && h != vnetHeader{}) {
		e.counters.txMalformed.Add(1)
		return &tcpip.ErrMalformedHeader{}
	}
	flat := b.gather(pkt, e.offload.Header, &h)
	err := e.queueFor(pkt.Hash).writev(b.iov)
	if flat != nil {
		flat.Release()
	}
	if err != nil {
		return e.dropped(err)
	}
	e.counters.txFrames.Add(1)
	e.counters.txBytes.Add(uint64(size))
	if e.down.Load() && e.down.CompareAndSwap(true, false) {
		e.log.Info("device is up again", "device", e.name)
	}
	return nil
}

// dropped counts a frame that the device did not take, and says why in the
// stack's terms.
func (e *Endpoint) dropped(err error) tcpip.Error {
	switch {
	case errors.Is(err, os.ErrClosed), err == unix.EBADFD, err == unix.ENODEV:
		e.counters.txClosed.Add(1)
		return &tcpip.ErrClosedForSend{}
	case err == unix.EAGAIN, err == unix.ENOBUFS, err == unix.ENOMEM:
		e.counters.txNoBuffer.Add(1)
		return &tcpip.ErrNoBufferSpace{}
	case err == unix.EIO, err == unix.ENETDOWN:
		e.counters.txDown.Add(1)
		if !e.down.Swap(true) {
			e.log.Warn("device is down, dropping what is sent", "device", e.name)
		}
		return &tcpip.ErrNetworkUnreachable{}
	}
	e.counters.txRejected.Add(1)
	return &tcpip.ErrMalformedHeader{}
}
