package tcp_test

import (
	"bytes"
	"io"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/waiter"

	"gvisor.dev/gvisor/pkg/buffer"

	"github.com/tcprepair/ustack/stack/repair"
	"github.com/tcprepair/ustack/stack/tcp"
)

// A target is a whole stack under a fuzzer's hands: it listens, it dials, and
// the fuzzer is everyone else on its link.
type target struct {
	*wire
	in       []byte
	family   family
	listener tcpip.Endpoint
	eps      []tcpip.Endpoint // dialled and accepted
	last     [2]uint32        // sequence and acknowledgement number the stack last sent
	lastPort uint16           // and from where
	peerPort uint16
	written  int
}

// maxReplies bounds what one packet, or time, may draw from each endpoint
// besides data that was written.
const maxReplies = 64

func (x *target) byte() byte {
	if len(x.in) == 0 {
		return 0
	}
	b := x.in[0]
	x.in = x.in[1:]
	return b
}

func (x *target) word() uint16 { return uint16(x.byte())<<8 | uint16(x.byte()) }

// take returns up to n of the fuzzer's bytes.
func (x *target) take(n int) []byte {
	n = min(n, len(x.in))
	b := x.in[:n]
	x.in = x.in[n:]
	return b
}

func (x *target) dial() {
	var wq waiter.Queue
	ep, err := x.stack.NewEndpoint(tcp.ProtocolNumber, x.family.proto, &wq)
	if err != nil {
		x.t.Fatalf("NewEndpoint: %s", err)
	}
	ep.Connect(tcpip.FullAddress{Addr: x.family.addrs[1], Port: x.peerPort})
	x.eps = append(x.eps, ep)
}

// packet builds what the fuzzer asks for around where the conversation stands.
func (x *target) packet() []byte {
	flags := header.TCPFlags(x.byte())
	where := x.byte()
	h := header.TCP(make([]byte, header.TCPMinimumSize, 1500))
	seq := x.last[1] + uint32(int32(int8(x.byte())))<<(where&15)
	ack := x.last[0] + uint32(int32(int8(x.byte())))<<(where>>4)
	options := x.take(int(x.byte()) % 41)
	options = append(options, make([]byte, -len(options)&3)...)
	payload := make([]byte, int(x.byte())*5)
	h.Encode(&header.TCPFields{
		SrcPort: x.peerPort, DstPort: x.lastPort, SeqNum: seq, AckNum: ack,
		DataOffset: uint8(header.TCPMinimumSize + len(options)), Flags: flags, WindowSize: x.word(),
	})
	h = append(append(h, options...), payload...)
	src, dst := x.family.addrs[1], x.family.addrs[0]
	sum := header.PseudoHeaderChecksum(tcp.ProtocolNumber, src, dst, uint16(len(h)))
	h.SetChecksum(^checksum.Checksum(h, sum))
	return x.wrap(uint8(tcp.ProtocolNumber), h)
}

// tooBig is an ICMP error about the last packet the stack sent.
func (x *target) tooBig() []byte {
	quoted := header.TCP(make([]byte, header.TCPMinimumSize))
	quoted.Encode(&header.TCPFields{SrcPort: x.lastPort, DstPort: x.peerPort, SeqNum: x.last[0], DataOffset: 20})
	mtu := x.word()
	if x.family.proto == header.IPv6ProtocolNumber {
		ip := make([]byte, header.IPv6MinimumSize)
		header.IPv6(ip).Encode(&header.IPv6Fields{PayloadLength: 20, TransportProtocol: tcp.ProtocolNumber, HopLimit: 64, SrcAddr: x.family.addrs[0], DstAddr: x.family.addrs[1]})
		m := header.ICMPv6(append(make([]byte, 8), append(ip, quoted...)...))
		m.SetType(header.ICMPv6PacketTooBig)
		m.SetMTU(uint32(mtu))
		m.SetChecksum(header.ICMPv6Checksum(header.ICMPv6ChecksumParams{Header: m, Src: x.family.addrs[1], Dst: x.family.addrs[0]}))
		return x.wrap(uint8(header.ICMPv6ProtocolNumber), m)
	}
	ip := make([]byte, header.IPv4MinimumSize)
	header.IPv4(ip).Encode(&header.IPv4Fields{TotalLength: 40, TTL: 64, Protocol: uint8(tcp.ProtocolNumber), SrcAddr: x.family.addrs[0], DstAddr: x.family.addrs[1]})
	m := header.ICMPv4(append(make([]byte, 8), append(ip, quoted...)...))
	m.SetType(header.ICMPv4DstUnreachable)
	m.SetCode(header.ICMPv4FragmentationNeeded)
	m.SetMTU(mtu)
	m.SetChecksum(^checksum.Checksum(m, 0))
	return x.wrap(uint8(header.ICMPv4ProtocolNumber), m)
}

// wrap puts an IP header in front.
func (x *target) wrap(proto uint8, b []byte) []byte {
	src, dst := x.family.addrs[1], x.family.addrs[0]
	if x.family.proto == header.IPv6ProtocolNumber {
		ip := header.IPv6(make([]byte, header.IPv6MinimumSize))
		ip.Encode(&header.IPv6Fields{PayloadLength: uint16(len(b)), TransportProtocol: tcpip.TransportProtocolNumber(proto), HopLimit: 64, SrcAddr: src, DstAddr: dst})
		return append(ip, b...)
	}
	ip := header.IPv4(make([]byte, header.IPv4MinimumSize))
	ip.Encode(&header.IPv4Fields{TotalLength: uint16(len(ip) + len(b)), TTL: 64, Protocol: proto, SrcAddr: src, DstAddr: dst})
	ip.SetChecksum(^ip.CalculateChecksum())
	return append(ip, b...)
}

func (x *target) deliver(b []byte) {
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(b)})
	x.link.InjectInbound(x.family.proto, pkt)
	pkt.DecRef()
}

// drain looks at what the stack sends, and bounds it.
func (x *target) drain() {
	x.t.Helper()
	limit := maxReplies*(1+len(x.eps)) + 4*x.written/40
	for n := 0; ; n++ {
		pkt := x.link.Read()
		if pkt == nil {
			return
		}
		if pkt.TransportProtocolNumber == tcp.ProtocolNumber {
			h := header.TCP(pkt.TransportHeader().Slice())
			x.last = [2]uint32{h.SequenceNumber(), h.AckNumber()}
			x.lastPort, x.peerPort = h.SourcePort(), h.DestinationPort()
		}
		pkt.DecRef()
		if n > limit {
			x.t.Fatalf("more than %d packets in answer", limit)
		}
	}
}

func (x *target) step() {
	op := x.byte()
	pick := func() *tcp.Endpoint {
		if len(x.eps) == 0 {
			return nil
		}
		return x.eps[int(op>>4)%len(x.eps)].(*tcp.Endpoint)
	}
	switch op % 16 {
	default:
		x.deliver(x.packet())
	case 8:
		x.clock.Advance(time.Duration(x.word()) << (op >> 4) * time.Microsecond)
	case 9:
		x.deliver(x.take(int(x.byte()))) // anything at all
	case 10:
		if ep := pick(); ep != nil {
			n := int(x.word())
			if w, err := ep.Write(bytes.NewReader(make([]byte, n)), tcpip.WriteOptions{}); err == nil {
				x.written += int(w)
			}
		}
	case 11:
		if ep := pick(); ep != nil {
			ep.Read(io.Discard, tcpip.ReadOptions{Peek: op&128 != 0})
		}
	case 12:
		if ep, _, err := x.listener.Accept(nil); err == nil {
			x.eps = append(x.eps, ep)
		}
	case 13:
		if ep := pick(); ep != nil {
			switch op >> 6 {
			case 0:
				ep.Shutdown(tcpip.ShutdownWrite)
			case 1:
				ep.Close()
			case 2:
				ep.Abort()
			default:
				ep.SocketOptions().SetReceiveBufferSize(int64(x.word()), true)
			}
		}
	case 14:
		if ep := pick(); ep != nil {
			ep.SetRepair(repair.Mode(int(op>>4)%3 - 1))
		}
	case 15:
		switch op >> 6 {
		case 0:
			x.dial()
		case 1:
			x.deliver(x.tooBig())
		default:
			x.lastPort = x.ports[0] // back to the listener
		}
	}
	x.drain()
}

// FuzzPacket gives a whole stack packets of every kind, raw and well formed,
// time, and a user who does anything. It may not panic, hang, or answer
// without bound; and once everything is closed, nothing may be left.
func FuzzPacket(f *testing.F) {
	f.Add([]byte{0, 0x02, 0, 0, 0, 0, 0, 255, 255, 0, 0x10, 0, 1, 1, 0, 0, 255, 255, 12, 10, 4, 0, 13})
	f.Add([]byte{1, 15, 0, 0x12, 0, 0, 1, 4, 2, 4, 5, 180, 0, 255, 255, 10, 1, 0, 9, 3, 1, 2, 3, 15 + 64, 2, 0, 8, 255, 255})
	f.Fuzz(func(t *testing.T, b []byte) {
		x := &target{wire: newWire(t), in: b, peerPort: 5000}
		x.family = families[x.byte()&1]
		x.listener, _ = listenEndpoint(t, x.stack, x.family, 0, x.ports[0], 2)
		x.lastPort = x.ports[0]
		for n := 0; len(x.in) > 0 && n < 200; n++ {
			x.step()
		}
		for _, ep := range x.eps {
			ep.Close()
			ep.Abort()
		}
	})
}
