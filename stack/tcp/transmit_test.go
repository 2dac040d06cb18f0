package tcp_test

import (
	"bytes"
	"strings"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/tcprepair/ustack/stack/tcp"
	"github.com/tcprepair/ustack/stack/tcp/conn"
)

// On a link that cuts segments up, a burst leaves as one packet that says into
// what pieces, with the pseudo-header's checksum; what has no payload leaves
// complete.
func TestHostGSO(t *testing.T) {
	w := newWire(t)
	w.link.SupportedGSOKind = stack.HostGSOSupported
	ep, _ := w.open() // want checks the SYN-ACK's checksum
	const mss = 536   // the test's SYN offers none
	if _, err := ep.Write(bytes.NewReader(make([]byte, 10*mss)), tcpip.WriteOptions{}); err != nil {
		t.Fatal(tcpipErr(err))
	}
	pkt := w.link.Read()
	if pkt == nil {
		t.Fatal("nothing was sent")
	}
	defer pkt.DecRef()
	g := pkt.GSOOptions
	if g.Type != stack.GSOTCPv4 || !g.NeedsCsum || g.CsumOffset != 16 || g.MSS != mss || g.L3HdrLen != header.IPv4MinimumSize {
		t.Errorf("GSO options %+v", g)
	}
	if n := pkt.Data().Size(); n != 10*mss {
		t.Errorf("%d bytes in the packet, want the whole initial window of %d", n, 10*mss)
	}
	h := header.TCP(pkt.TransportHeader().Slice())
	want := header.PseudoHeaderChecksum(tcp.ProtocolNumber, addr4[0], addr4[1], uint16(len(h)+pkt.Data().Size()))
	if got := h.Checksum(); got != want {
		t.Errorf("checksum field %#x, want the pseudo-header's %#x", got, want)
	}
	if n := w.stack.Stats().TCP.SegmentsSent.Value(); n != 1+10 {
		t.Errorf("SegmentsSent = %d, want the SYN-ACK and ten pieces", n)
	}
}

// Time to live, type of service and the Don't Fragment bit are the socket's.
func TestNetworkParameters(t *testing.T) {
	w := newWire(t)
	ep, _ := w.open()
	check := func(when string, ttl, tos uint8, df bool) {
		t.Helper()
		if _, err := ep.Write(strings.NewReader("x"), tcpip.WriteOptions{}); err != nil {
			t.Fatal(tcpipErr(err))
		}
		pkt := w.link.Read()
		if pkt == nil {
			t.Fatal("nothing was sent")
		}
		defer pkt.DecRef()
		ip := header.IPv4(pkt.NetworkHeader().Slice())
		gotTOS, _ := ip.TOS()
		gotDF := ip.Flags()&header.IPv4FlagDontFragment != 0
		if ip.TTL() != ttl || gotTOS != tos || gotDF != df {
			t.Errorf("%s: TTL %d, TOS %#x, DF %t, want %d, %#x, %t", when, ip.TTL(), gotTOS, gotDF, ttl, tos, df)
		}
	}
	check("by default", 64, 0, true)
	for opt, v := range map[tcpip.SockOptInt]int{
		tcpip.IPv4TTLOption:     7,
		tcpip.IPv4TOSOption:     0x28,
		tcpip.MTUDiscoverOption: int(tcpip.PMTUDiscoveryDont),
	} {
		if err := ep.SetSockOptInt(opt, v); err != nil {
			t.Fatal(tcpipErr(err))
		}
	}
	check("when set", 7, 0x28, false)
}

// icmp sends an ICMPv4 error about a packet of the stack's.
func (w *wire) icmp(code header.ICMPv4Code, mtu uint16, about []byte) {
	quote := about[:min(len(about), header.IPv4MinimumSize+8)]
	b := make([]byte, header.IPv4MinimumSize+header.ICMPv4MinimumSize+len(quote))
	ip := header.IPv4(b)
	ip.Encode(&header.IPv4Fields{
		TotalLength: uint16(len(b)),
		TTL:         64,
		Protocol:    uint8(header.ICMPv4ProtocolNumber),
		SrcAddr:     addr4[1],
		DstAddr:     addr4[0],
	})
	ip.SetChecksum(^ip.CalculateChecksum())
	h := header.ICMPv4(b[header.IPv4MinimumSize:])
	h.SetType(header.ICMPv4DstUnreachable)
	h.SetCode(code)
	h.SetMTU(mtu)
	copy(h.Payload(), quote)
	h.SetChecksum(^checksum.Checksum(h, 0))
	w.injectRaw(b)
}

// packet returns the next packet that the stack has sent, whole.
func (w *wire) packet() []byte {
	w.t.Helper()
	pkt := w.link.Read()
	if pkt == nil {
		w.t.Fatal("nothing was sent")
	}
	defer pkt.DecRef()
	v := pkt.ToView()
	defer v.Release()
	return bytes.Clone(v.AsSlice())
}

// Fault 15: an ICMP error during the handshake is lost. It ends the attempt, its
// eight quoted bytes are enough, and the user learns which it was.
func TestICMPWhileConnecting(t *testing.T) {
	w := newWire(t)
	ep := newEndpoint(t, w.stack, families[0], new(waiter.Queue))
	defer ep.Close()
	ep.Connect(tcpip.FullAddress{Addr: addr4[1], Port: 7})
	w.icmp(header.ICMPv4HostUnreachable, 0, w.packet())
	if err, ok := ep.LastError().(*tcpip.ErrHostUnreachable); !ok {
		t.Errorf("LastError = %v, want ErrHostUnreachable", err)
	}
	if got := ep.EndpointState(); got != tcp.StateError {
		t.Errorf("state %s, want ERROR", got)
	}
}

// "Fragmentation needed" makes the connection send smaller segments, and what
// was lost again; one about a segment that is not in flight does nothing.
func TestPathMTU(t *testing.T) {
	w := newWire(t)
	l, _ := listenEndpoint(t, w.stack, families[0], 0, w.ports[0], 5)
	w.inject(segment{seq: peerISN, flags: header.TCPFlagSyn, window: 65535}, []byte{2, 4, 1460 >> 8, 1460 & 0xff})
	synAck := w.want(header.TCPFlagSyn | header.TCPFlagAck)
	w.inject(segment{seq: peerISN + 1, ack: synAck.seq + 1, flags: header.TCPFlagAck, window: 65535}, nil)
	ep, _, err := l.Accept(nil)
	if err != nil {
		t.Fatal(tcpipErr(err))
	}
	defer ep.Close()
	if _, err := ep.Write(strings.NewReader(strings.Repeat("x", 1460)), tcpip.WriteOptions{}); err != nil {
		t.Fatal(tcpipErr(err))
	}
	big := w.packet()

	forged := bytes.Clone(big)
	header.TCP(forged[header.IPv4MinimumSize:]).SetSequenceNumber(synAck.seq + 1<<20)
	w.icmp(header.ICMPv4FragmentationNeeded, 600, forged)
	w.quiet("after a forged ICMP error")

	w.icmp(header.ICMPv4FragmentationNeeded, 1000, big)
	sent := 0
	for s, ok := w.next(); ok; s, ok = w.next() {
		if len(s.payload) > 960 {
			t.Errorf("%d bytes in a segment for an MTU of 1000", len(s.payload))
		}
		sent += len(s.payload)
	}
	if sent != 1460 {
		t.Errorf("%d bytes were sent again, want 1460", sent)
	}
}

// What finds the inbox full is dropped and counted, and what found room is
// processed when the endpoint is free again.
func TestInboxOverflow(t *testing.T) {
	w := newWire(t)
	ep, iss := w.open()
	const room, more = 1024, 10
	ep.StopWork()
	for i := range uint32(room + more) {
		w.inject(segment{seq: peerISN + 1 + i, ack: iss, flags: header.TCPFlagAck, window: 65535, payload: "x"}, nil)
	}
	ep.ResumeWork()
	if n := ep.Drops()[conn.DropSocketBacklog]; n != more {
		t.Errorf("SOCKET_BACKLOG drops = %d, want %d", n, more)
	}
	if n := ep.Stats().(*tcp.Stats).ReceiveErrors.SegmentQueueDropped.Value(); n != more {
		t.Errorf("SegmentQueueDropped = %d, want %d", n, more)
	}
	if n, err := ep.GetSockOptInt(tcpip.ReceiveQueueSizeOption); n != room || err != nil {
		t.Errorf("%d bytes were received (%s), want %d", n, tcpipErr(err), room)
	}
}
