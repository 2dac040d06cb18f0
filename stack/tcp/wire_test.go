package tcp_test

import (
	"testing"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/faketime"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/tcprepair/ustack/stack/tcp"
)

// wire is one stack in virtual time, and the test as its peer, segment by
// segment.
type wire struct {
	t     testing.TB
	clock *faketime.ManualClock
	link  *channel.Endpoint
	stack *stack.Stack
	ports [2]uint16 // the stack's and the test's
}

func newWire(t testing.TB) *wire {
	w := &wire{
		t:     t,
		clock: faketime.NewManualClock(),
		link:  channel.New(1000, 1500, ""),
		ports: [2]uint16{7, 5000},
	}
	w.stack = newStack(t, w.link, 0, w.clock)
	t.Cleanup(func() {
		w.stack.Destroy()
		w.link.Close()
	})
	return w
}

// segment is what a test looks at of a TCP segment.
type segment struct {
	seq, ack uint32
	flags    header.TCPFlags
	window   uint16
	payload  string
}

// inject sends a segment to the stack.
func (w *wire) inject(s segment, options []byte) {
	w.t.Helper()
	w.injectAs(s, options, false)
}

// injectAs is inject, with a wrong checksum if corrupt.
func (w *wire) injectAs(s segment, options []byte, corrupt bool) {
	hdr := header.TCPMinimumSize + len(options)
	b := make([]byte, header.IPv4MinimumSize+hdr+len(s.payload))
	ip := header.IPv4(b)
	ip.Encode(&header.IPv4Fields{
		TotalLength: uint16(len(b)),
		TTL:         64,
		Protocol:    uint8(tcp.ProtocolNumber),
		SrcAddr:     addr4[1],
		DstAddr:     addr4[0],
	})
	ip.SetChecksum(^ip.CalculateChecksum())
	h := header.TCP(b[header.IPv4MinimumSize:])
	h.Encode(&header.TCPFields{
		SrcPort:    w.ports[1],
		DstPort:    w.ports[0],
		SeqNum:     s.seq,
		AckNum:     s.ack,
		DataOffset: uint8(hdr),
		Flags:      s.flags,
		WindowSize: s.window,
	})
	copy(h[header.TCPMinimumSize:], options)
	copy(h[hdr:], s.payload)
	sum := header.PseudoHeaderChecksum(tcp.ProtocolNumber, addr4[1], addr4[0], uint16(len(h)))
	h.SetChecksum(^checksum.Checksum(h, sum))
	if corrupt {
		h.SetChecksum(h.Checksum() + 1)
	}
	w.injectRaw(b)
}

// injectRaw sends an IPv4 packet to the stack.
func (w *wire) injectRaw(b []byte) {
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(b)})
	defer pkt.DecRef()
	w.link.InjectInbound(ipv4.ProtocolNumber, pkt)
}

// next returns the next segment that the stack has sent, if there is one.
func (w *wire) next() (s segment, ok bool) {
	w.t.Helper()
	pkt := w.link.Read()
	if pkt == nil {
		return s, false
	}
	defer pkt.DecRef()
	v := pkt.ToView()
	defer v.Release()
	ip := header.IPv4(v.AsSlice())
	h := header.TCP(ip.Payload())
	if !h.IsChecksumValid(ip.SourceAddress(), ip.DestinationAddress(), checksum.Checksum(h.Payload(), 0), uint16(len(h.Payload()))) {
		w.t.Errorf("the stack sent a wrong checksum")
	}
	return segment{
		seq: h.SequenceNumber(), ack: h.AckNumber(), flags: h.Flags(),
		window: h.WindowSize(), payload: string(h.Payload()),
	}, true
}

// want returns the next segment, which must be there and have these flags.
func (w *wire) want(flags header.TCPFlags) segment {
	w.t.Helper()
	s, ok := w.next()
	if !ok {
		w.t.Fatalf("nothing was sent, want %s", flags)
	}
	if s.flags&^header.TCPFlagPsh != flags {
		w.t.Fatalf("%s was sent, want %s", s.flags, flags)
	}
	return s
}

// quiet checks that nothing more was sent.
func (w *wire) quiet(when string) {
	w.t.Helper()
	if s, ok := w.next(); ok {
		w.t.Errorf("%s: %s seq %d ack %d (%d bytes) was sent", when, s.flags, s.seq, s.ack, len(s.payload))
	}
}

// peerISN is the initial sequence number the test uses as a peer.
const peerISN = 1000

// open opens a connection from the test to the stack, and returns its endpoint
// and the sequence number after the stack's SYN.
func (w *wire) open() (ep *tcp.Endpoint, iss uint32) {
	w.t.Helper()
	ep, iss, _ = w.openWaiting()
	return ep, iss
}

// openWaiting is open, and returns the endpoint's queue of waiters too.
func (w *wire) openWaiting() (ep *tcp.Endpoint, iss uint32, wq *waiter.Queue) {
	w.t.Helper()
	l, _ := listenEndpoint(w.t, w.stack, families[0], 0, w.ports[0], 5)
	w.inject(segment{seq: peerISN, flags: header.TCPFlagSyn, window: 65535}, nil)
	synAck := w.want(header.TCPFlagSyn | header.TCPFlagAck)
	iss = synAck.seq + 1
	w.inject(segment{seq: peerISN + 1, ack: iss, flags: header.TCPFlagAck, window: 65535}, nil)
	child, wq, err := l.Accept(nil)
	if err != nil {
		w.t.Fatalf("Accept: %s", err)
	}
	ep = child.(*tcp.Endpoint)
	w.t.Cleanup(ep.Close)
	return ep, iss, wq
}

// tcpipErr names an error, nil included.
func tcpipErr(err tcpip.Error) string {
	if err == nil {
		return "no error"
	}
	return err.String()
}
