//go:build linux

package tap

import (
	"bytes"
	"log/slog"
	"testing"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// Addresses of the two sides in tests without a device.
const (
	ourMAC    = tcpip.LinkAddress("\x02\x00\x00\x00\x00\x02")
	kernelMAC = tcpip.LinkAddress("\x02\x00\x00\x00\x00\x01")
	otherMAC  = tcpip.LinkAddress("\x02\x00\x00\x00\x00\x03")
)

// bareEndpoint is an endpoint that expects virtio-net headers and has no
// device.
func bareEndpoint() *Endpoint {
	e := &Endpoint{offload: Offload{Header: true}, queues: []*queue{{fd: -1}}, log: slog.New(slog.DiscardHandler), done: make(chan struct{})}
	e.SetLinkAddress(ourMAC)
	return e
}

// dispatcher is a stack.NetworkDispatcher that runs a function.
type dispatcher func(pkt *stack.PacketBuffer)

func (d dispatcher) DeliverNetworkPacket(_ tcpip.NetworkProtocolNumber, pkt *stack.PacketBuffer) {
	d(pkt)
}
func (dispatcher) DeliverLinkPacket(tcpip.NetworkProtocolNumber, *stack.PacketBuffer) {}

// bareReader is a reader of e that has nothing to read.
func bareReader(e *Endpoint, d dispatcher) *reader {
	return &reader{delivery: newDelivery(d), queue: e.queues[0]}
}

// receive passes one frame and its virtio-net header through e, as though they
// had been read from a device.
func receive(e *Endpoint, head, frame []byte, deliver func(*stack.PacketBuffer)) {
	r := bareReader(e, dispatcher(deliver))
	defer r.buf.release()
	load(&r.buf, head, frame)
	r.receive(e, vnetHeaderSize+len(frame))
}

// load fills b as readv would.
func load(b *rxBuffer, head, frame []byte) {
	b.vector(true)
	copy(b.header[:], head)
	for _, v := range b.views {
		frame = frame[copy(v.AsSlice(), frame):]
	}
}

// ethernetFrame is a frame of n bytes from the kernel to dst.
func ethernetFrame(dst tcpip.LinkAddress, proto tcpip.NetworkProtocolNumber, n int) []byte {
	b := pattern(n)
	header.Ethernet(b).Encode(&header.EthernetFields{SrcAddr: kernelMAC, DstAddr: dst, Type: proto})
	return b
}

// tcpFrame is a frame to us of n bytes whose EtherType is that of IP.
func tcpFrame(proto tcpip.NetworkProtocolNumber, n int) []byte {
	return ethernetFrame(ourMAC, proto, n)
}

// pattern is n bytes of which no two neighbourhoods look alike.
func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i ^ i>>8*7 ^ i>>16*13)
	}
	return b
}

func TestReceiveSizes(t *testing.T) {
	for _, n := range []int{14, 15, 60, rxCopyLimit, rxCopyLimit + 1, 1514, 2047, 2048, 2049, 4096, 4097, 8192, 30000, 65535, 65549, rxCapacity - 1} {
		frame := ethernetFrame(ourMAC, header.IPv4ProtocolNumber, n)
		e := bareEndpoint()
		var got []byte
		receive(e, make([]byte, vnetHeaderSize), frame, func(pkt *stack.PacketBuffer) {
			if len(pkt.LinkHeader().Slice()) != header.EthernetMinimumSize || pkt.Data().Size() != n-header.EthernetMinimumSize {
				t.Errorf("%d bytes: link header %d, data %d", n, len(pkt.LinkHeader().Slice()), pkt.Data().Size())
			}
			v := pkt.ToView()
			got = v.ToSlice()
			v.Release()
		})
		if !bytes.Equal(got, frame) {
			t.Errorf("%d bytes: the frame came out as another of %d", n, len(got))
		}
		if s := e.Stats(); s != (Stats{RxFrames: 1, RxBytes: uint64(n)}) {
			t.Errorf("%d bytes: counted %+v", n, s)
		}
	}
}

// TestReceiveReuse checks that a frame that was kept is not overwritten by the
// frames read after it.
func TestReceiveReuse(t *testing.T) {
	e := bareEndpoint()
	var kept []buffer.Buffer
	r := bareReader(e, func(pkt *stack.PacketBuffer) { kept = append(kept, pkt.ToBuffer()) })
	defer r.buf.release()
	var want [][]byte
	for i, n := range []int{100, 1514, 9000, 100, 65000, 257, 2048, 60} {
		frame := ethernetFrame(ourMAC, header.IPv4ProtocolNumber, n)
		for j := header.EthernetMinimumSize; j < n; j++ {
			frame[j] += byte(i)
		}
		want = append(want, frame)
		load(&r.buf, make([]byte, vnetHeaderSize), frame)
		r.receive(e, vnetHeaderSize+n)
	}
	for i := range want {
		if !bytes.Equal(kept[i].Flatten(), want[i]) {
			t.Errorf("frame %d of %d bytes changed after it was delivered", i, len(want[i]))
		}
		kept[i].Release()
	}
}

func TestReceiveDrops(t *testing.T) {
	plain := make([]byte, vnetHeaderSize)
	for _, tt := range []struct {
		name  string
		head  []byte
		frame []byte
		want  Stats
	}{
		{"empty", plain, nil, Stats{RxShort: 1}},
		{"short", plain, pattern(header.EthernetMinimumSize - 1), Stats{RxShort: 1}},
		{"truncated", plain, ethernetFrame(ourMAC, header.IPv4ProtocolNumber, rxCapacity), Stats{RxTruncated: 1}},
		{"other host", plain, ethernetFrame(otherMAC, header.IPv4ProtocolNumber, 60), Stats{RxOtherHost: 1}},
		{"bad header", []byte{1, 0, 0, 0, 0, 0, 100, 0, 16, 0}, ethernetFrame(ourMAC, header.IPv4ProtocolNumber, 60), Stats{RxBadHeader: 1}},
	} {
		e := bareEndpoint()
		receive(e, tt.head, tt.frame, func(*stack.PacketBuffer) { t.Errorf("%s: delivered", tt.name) })
		if got := e.Stats(); got != tt.want {
			t.Errorf("%s: counted %+v, want %+v", tt.name, got, tt.want)
		}
	}

	// Fewer bytes than a virtio-net header.
	e := bareEndpoint()
	r := bareReader(e, nil)
	defer r.buf.release()
	r.buf.vector(true)
	r.receive(e, vnetHeaderSize-1)
	if got := e.Stats(); got != (Stats{RxShort: 1}) {
		t.Errorf("no whole virtio-net header: counted %+v", got)
	}
}

// TestReceiveKinds checks what the stack is told about a frame: for whom it
// is, of what protocol, and whether its checksums can be relied on.
func TestReceiveKinds(t *testing.T) {
	needs := []byte{1, 0, 0, 0, 0, 0, 34, 0, 16, 0}
	valid := []byte{2, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	plain := make([]byte, vnetHeaderSize)
	for _, tt := range []struct {
		name    string
		head    []byte
		dst     tcpip.LinkAddress
		proto   tcpip.NetworkProtocolNumber
		kind    tcpip.PacketType
		trusted bool
	}{
		{"unicast", plain, ourMAC, header.IPv4ProtocolNumber, tcpip.PacketHost, false},
		{"broadcast", plain, header.EthernetBroadcastAddress, header.ARPProtocolNumber, tcpip.PacketBroadcast, false},
		{"multicast", plain, "\x33\x33\x00\x00\x00\x01", header.IPv6ProtocolNumber, tcpip.PacketMulticast, false},
		{"needs a checksum", needs, ourMAC, header.IPv6ProtocolNumber, tcpip.PacketHost, true},
		{"has a valid checksum", valid, ourMAC, header.IPv4ProtocolNumber, tcpip.PacketHost, true},
	} {
		e := bareEndpoint()
		delivered := false
		receive(e, tt.head, ethernetFrame(tt.dst, tt.proto, 100), func(pkt *stack.PacketBuffer) {
			delivered = true
			// The stack overwrites the packet's mark with the capability.
			capable := e.Capabilities()&stack.CapabilityRXChecksumOffload != 0
			if pkt.PktType != tt.kind || pkt.NetworkProtocolNumber != tt.proto || pkt.RXChecksumValidated != tt.trusted || capable != tt.trusted {
				t.Errorf("%s: type %d, protocol %#x, validated %v, capability %v", tt.name, pkt.PktType, pkt.NetworkProtocolNumber, pkt.RXChecksumValidated, capable)
			}
		})
		if !delivered {
			t.Errorf("%s: not delivered: %+v", tt.name, e.Stats())
		}
	}
}
