//go:build linux

package tap

import (
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// rxSizes are the sizes of the views that a frame is read into, in order. The
// first holds an ordinary Ethernet frame; from there on they double, so that
// no frame pins more than twice its size. Together they hold more than the
// largest frame there is: 64 KiB of IP packet and a link header.
var rxSizes = [...]int{2048, 2048, 4096, 8192, 16384, 32768, 1024}

// rxCapacity is the sum of rxSizes. A frame that fills it has been truncated.
const rxCapacity = 2048 + 2048 + 4096 + 8192 + 16384 + 32768 + 1024

// rxCopyLimit is the size up to which a frame is copied into a view of its own
// size: acknowledgements, mostly. It keeps a few bytes of payload from pinning
// a view of 2 KiB, and is cheaper than replacing that view.
const rxCopyLimit = 256

// rxBuffer is where a queue's frames are read to.
type rxBuffer struct {
	header [vnetHeaderSize]byte
	views  [len(rxSizes)]*buffer.View // nil: to be replaced before the next read
	iov    [1 + len(rxSizes)]unix.Iovec
}

// vector replaces the views that were taken and returns the scatter list for
// one frame, with or without a virtio-net header.
func (b *rxBuffer) vector(vnet bool) []unix.Iovec {
	for i, v := range b.views {
		if v != nil {
			continue
		}
		v = buffer.NewViewSize(rxSizes[i])
		b.views[i] = v
		b.iov[1+i].Base = &v.AsSlice()[0]
		b.iov[1+i].SetLen(rxSizes[i])
	}
	if !vnet {
		return b.iov[1:]
	}
	b.iov[0].Base = &b.header[0]
	b.iov[0].SetLen(len(b.header))
	return b.iov[:]
}

// front is the first n bytes of the frame that was read last, as far as they
// are in one piece.
func (b *rxBuffer) front(n int) []byte { return b.views[0].AsSlice()[:min(n, rxSizes[0])] }

// take hands out the frame of n bytes that was read last.
func (b *rxBuffer) take(n int) buffer.Buffer {
	if n <= rxCopyLimit {
		return buffer.MakeWithView(buffer.NewViewWithData(b.front(n)))
	}
	var frame buffer.Buffer
	for i := 0; n > 0; i++ {
		v := b.views[i]
		b.views[i] = nil
		v.CapLength(n)
		n -= v.Size()
		frame.Append(v)
	}
	return frame
}

// release returns the views to their pool.
func (b *rxBuffer) release() {
	for i, v := range b.views {
		if v != nil {
			v.Release()
			b.views[i] = nil
		}
	}
}

// delivery is the time between two calls of Attach: the readers of all queues
// deliver to one dispatcher.
type delivery struct {
	dispatcher stack.NetworkDispatcher
	stopped    atomic.Bool   // no further frame may be delivered
	delivering atomic.Int32  // how many frames are, or are about to be, in the dispatcher
	done       chan struct{} // closed when the readers have gone
}

// reader is the goroutine that carries frames from a queue to the dispatcher.
type reader struct {
	*delivery
	queue *queue
	buf   rxBuffer
	batch batch
	spin  spinner
	fds   [2]unix.PollFd // what it waits for
}

// newDelivery makes the delivery to d.
func newDelivery(d stack.NetworkDispatcher) *delivery {
	return &delivery{dispatcher: d, done: make(chan struct{})}
}

// run reads and delivers until the reader is stopped, which is no error, or
// reading fails.
func (r *reader) run(e *Endpoint) error {
	defer r.buf.release()
	defer r.batch.end(false)
	r.batch.to = e.batcher.Load()
	r.spin.limit = e.spin
	for !r.stopped.Load() {
		switch n, err := r.queue.readv(r.buf.vector(e.offload.Header)); err {
		case nil:
			r.spin.found()
			r.batch.begin()
			r.receive(e, n)
		case unix.EAGAIN:
			r.empty()
		case os.ErrClosed:
			return nil
		case unix.EBADFD, unix.EFAULT, unix.ENODEV, unix.EIO:
			return ErrGone
		default:
			return err
		}
	}
	return nil
}

// empty is what the reader does when there is no frame: it settles the batch,
// and looks again, after a while of sleep if it is not worth while at once.
func (r *reader) empty() {
	r.batch.end(false)
	if !r.spin.again() {
		r.queue.wait(&r.fds)
		return
	}
	// The peer may be waiting for this very processor.
	unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
}

// receive takes the frame of n bytes in the buffer, virtio-net header included, as far
// as the dispatcher, or drops it and counts why.
func (r *reader) receive(e *Endpoint, n int) {
	b := &r.buf
	var vnet vnetHeader
	if e.offload.Header {
		n -= vnetHeaderSize
		vnet = decodeVnetHeader(b.header[:])
	}
	if n < header.EthernetMinimumSize {
		e.counters.rxShort.Add(1)
		return
	}
	if n >= rxCapacity {
		e.counters.rxTruncated.Add(1)
		return
	}
	eth := header.Ethernet(b.front(n))
	proto := eth.Type()
	if !vnet.check(n, proto) {
		e.counters.rxBadHeader.Add(1)
		return
	}
	kind := e.packetType(eth.DestinationAddress())
	if kind == tcpip.PacketOtherHost {
		e.counters.rxOtherHost.Add(1)
		return
	}
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: b.take(n)})
	defer pkt.DecRef()
	e.ParseHeader(pkt)
	pkt.NetworkProtocolNumber = proto
	pkt.PktType = kind
	pkt.RXChecksumValidated = vnet.trusted()
	e.counters.rxFrames.Add(1)
	e.counters.rxBytes.Add(uint64(n))
	r.deliver(e, proto, pkt)
}

// deliver hands pkt to the dispatcher unless the reader has been stopped.
// Setting delivering before looking at stopped is what lets Wait tell a
// delivery that began before the stop from one that cannot begin any more.
func (r *reader) deliver(e *Endpoint, proto tcpip.NetworkProtocolNumber, pkt *stack.PacketBuffer) {
	r.delivering.Add(1)
	defer r.delivering.Add(-1)
	if r.stopped.Load() {
		return
	}
	e.trust.begin(pkt.RXChecksumValidated)
	defer e.trust.end(pkt.RXChecksumValidated)
	r.dispatcher.DeliverNetworkPacket(proto, pkt)
}

// packetType says for whom a frame to dst is.
func (e *Endpoint) packetType(dst tcpip.LinkAddress) tcpip.PacketType {
	switch {
	case dst == e.LinkAddress():
		return tcpip.PacketHost
	case dst == header.EthernetBroadcastAddress:
		return tcpip.PacketBroadcast
	case header.IsMulticastEthernetAddress(dst):
		return tcpip.PacketMulticast
	}
	return tcpip.PacketOtherHost
}
