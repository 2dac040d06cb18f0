//go:build linux

package tap

import (
	"testing"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

func TestVnetHeaderLayout(t *testing.T) {
	h := vnetHeader{flags: 1, gsoType: 0x84, hdrLen: 0x0203, gsoSize: 0x0405, csumStart: 0x0607, csumOffset: 0x0809}
	var b [vnetHeaderSize]byte
	h.encode(b[:])
	// struct virtio_net_hdr, little endian.
	want := [vnetHeaderSize]byte{1, 0x84, 3, 2, 5, 4, 7, 6, 9, 8}
	if b != want {
		t.Errorf("encode: got % x, want % x", b, want)
	}
	if got := decodeVnetHeader(b[:]); got != h {
		t.Errorf("decode: got %+v, want %+v", got, h)
	}
}

func TestVnetHeaderCheck(t *testing.T) {
	const v4, v6, arp = header.IPv4ProtocolNumber, header.IPv6ProtocolNumber, header.ARPProtocolNumber
	csum := func(start, offset uint16) vnetHeader {
		return vnetHeader{flags: vnetNeedsCsum, csumStart: start, csumOffset: offset}
	}
	gso := func(kind uint8, hdrLen, size uint16) vnetHeader {
		return vnetHeader{flags: vnetNeedsCsum, gsoType: kind, hdrLen: hdrLen, gsoSize: size, csumStart: 34, csumOffset: 16}
	}
	for _, tt := range []struct {
		name  string
		h     vnetHeader
		frame int
		proto tcpip.NetworkProtocolNumber
		want  bool
	}{
		{"plain", vnetHeader{}, 14, arp, true},
		{"verified", vnetHeader{flags: vnetDataValid}, 60, v4, true},
		{"hdr_len of a plain frame means nothing", vnetHeader{hdrLen: 65535, gsoSize: 9}, 60, v4, true},
		{"csum of the last two bytes", csum(34, 6), 42, v4, true},
		{"csum one byte past the end", csum(34, 7), 42, v4, false},
		{"csum_start inside the link header", csum(12, 16), 100, v4, false},
		{"csum_start inside the network header", csum(33, 16), 100, v4, false},
		{"csum_start past the end", csum(101, 0), 100, v4, false},
		{"csum sum beyond 16 bits", csum(65535, 65535), 100, v4, false},
		{"csum fields without the flag", vnetHeader{csumStart: 9999, csumOffset: 9999}, 60, v4, true},
		{"TSO4", gso(vnetGSOTCPv4, 54, 1460), 65549, v4, true},
		{"TSO4 with CWR", gso(vnetGSOTCPv4|vnetGSOECN, 54, 1460), 65549, v4, true},
		{"TSO6", gso(vnetGSOTCPv6, 74, 1440), 65549, v6, true},
		{"TSO hdr_len unset", gso(vnetGSOTCPv4, 0, 1460), 3000, v4, true},
		{"TSO hdr_len is the frame", gso(vnetGSOTCPv4, 3000, 1460), 3000, v4, true},
		{"TSO hdr_len beyond the frame", gso(vnetGSOTCPv4, 3001, 1460), 3000, v4, false},
		{"TSO gso_size 0", gso(vnetGSOTCPv4, 54, 0), 3000, v4, false},
		{"TSO4 without payload", gso(vnetGSOTCPv4, 54, 1460), 54, v4, false},
		{"TSO6 without payload", gso(vnetGSOTCPv6, 74, 1460), 74, v6, false},
		{"TSO4 on IPv6", gso(vnetGSOTCPv4, 54, 1460), 3000, v6, false},
		{"TSO6 on IPv4", gso(vnetGSOTCPv6, 54, 1460), 3000, v4, false},
		{"TSO4 on ARP", gso(vnetGSOTCPv4, 54, 1460), 3000, arp, false},
		{"UFO", gso(3, 54, 1460), 3000, v4, false},
		{"USO", gso(5, 54, 1460), 3000, v4, false},
		{"unknown GSO type", gso(0x7f, 54, 1460), 3000, v4, false},
		{"ECN without a type", gso(vnetGSOECN, 54, 1460), 3000, v4, false},
	} {
		if got := tt.h.check(tt.frame, tt.proto); got != tt.want {
			t.Errorf("%s: check(%d, %#x) of %+v: got %v, want %v", tt.name, tt.frame, tt.proto, tt.h, got, tt.want)
		}
	}
}

// FuzzVnetHeader feeds arbitrary bytes as header and frame through the whole
// receive path, whose dispatcher looks at what the header speaks of.
func FuzzVnetHeader(f *testing.F) {
	f.Add(make([]byte, vnetHeaderSize), tcpFrame(header.IPv4ProtocolNumber, 100))
	f.Add([]byte{1, 1, 54, 0, 100, 0, 34, 0, 16, 0}, tcpFrame(header.IPv4ProtocolNumber, 1000))
	f.Add([]byte{1, 0x84, 74, 0, 100, 0, 54, 0, 16, 0}, tcpFrame(header.IPv6ProtocolNumber, 1000))
	f.Add([]byte{1, 0, 0, 0, 0, 0, 255, 255, 255, 255}, []byte{})
	f.Fuzz(func(t *testing.T, head, frame []byte) {
		if len(head) < vnetHeaderSize || len(frame) >= rxCapacity {
			return
		}
		h := decodeVnetHeader(head)
		var again [vnetHeaderSize]byte
		h.encode(again[:])
		if string(again[:]) != string(head[:vnetHeaderSize]) {
			t.Fatalf("header % x came back as % x", head[:vnetHeaderSize], again)
		}
		e := bareEndpoint()
		var got int
		receive(e, head, frame, func(pkt *stack.PacketBuffer) {
			got++
			if pkt.Size() != len(frame) {
				t.Errorf("delivered %d bytes of %d", pkt.Size(), len(frame))
			}
			if h.flags&vnetNeedsCsum != 0 && int(h.csumStart)+int(h.csumOffset)+2 > len(frame) {
				t.Errorf("delivered a frame of %d bytes with %+v", len(frame), h)
			}
			if h.gsoType != 0 && (h.gsoSize == 0 || int(h.hdrLen) > len(frame)) {
				t.Errorf("delivered a frame of %d bytes with %+v", len(frame), h)
			}
		})
		s := e.Stats()
		if s.RxFrames != uint64(got) || s.RxFrames+s.RxShort+s.RxBadHeader+s.RxOtherHost != 1 {
			t.Errorf("delivered %d, counted %+v", got, s)
		}
	})
}

func TestOutboundHeader(t *testing.T) {
	const mss = 1000
	gso := stack.GSO{Type: stack.GSOTCPv4, NeedsCsum: true, CsumOffset: header.TCPChecksumOffset, MSS: mss, L3HdrLen: header.IPv4MinimumSize}
	with := func(change func(*stack.GSO)) stack.GSO {
		g := gso
		change(&g)
		return g
	}
	for _, tt := range []struct {
		name     string
		gso      stack.GSO
		network  int // bytes of network header
		flags    header.TCPFlags
		payload  int
		want     vnetHeader
		rejected bool
	}{
		{name: "no options", network: 20, payload: 100, want: vnetHeader{}},
		{name: "no payload", gso: gso, network: 20,
			want: vnetHeader{flags: vnetNeedsCsum, csumStart: 34, csumOffset: 16}},
		{name: "one MSS", gso: gso, network: 20, payload: mss,
			want: vnetHeader{flags: vnetNeedsCsum, csumStart: 34, csumOffset: 16}},
		{name: "one byte more", gso: gso, network: 20, payload: mss + 1,
			want: vnetHeader{flags: vnetNeedsCsum, gsoType: vnetGSOTCPv4, hdrLen: 54, gsoSize: mss, csumStart: 34, csumOffset: 16}},
		{name: "IPv4 options", gso: gso, network: 24, payload: 5000,
			want: vnetHeader{flags: vnetNeedsCsum, gsoType: vnetGSOTCPv4, hdrLen: 58, gsoSize: mss, csumStart: 38, csumOffset: 16}},
		{name: "CWR", gso: gso, network: 20, payload: 5000, flags: header.TCPFlagCwr,
			want: vnetHeader{flags: vnetNeedsCsum, gsoType: vnetGSOTCPv4 | vnetGSOECN, hdrLen: 54, gsoSize: mss, csumStart: 34, csumOffset: 16}},
		{name: "IPv6 with an extension header", gso: with(func(g *stack.GSO) { g.Type = stack.GSOTCPv6 }), network: 48, payload: 5000,
			want: vnetHeader{flags: vnetNeedsCsum, gsoType: vnetGSOTCPv6, hdrLen: 82, gsoSize: mss, csumStart: 62, csumOffset: 16}},
		{name: "whole checksum", gso: with(func(g *stack.GSO) { g.NeedsCsum = false }), network: 20, payload: 10, want: vnetHeader{}},
		{name: "whole checksum, to be cut", gso: with(func(g *stack.GSO) { g.NeedsCsum = false }), network: 20, payload: 5000, rejected: true},
		{name: "MSS 0", gso: with(func(g *stack.GSO) { g.MSS = 0 }), network: 20, payload: 10, rejected: true},
		{name: "software GSO", gso: with(func(g *stack.GSO) { g.Type = stack.GSOGvisor }), network: 20, payload: 5000, rejected: true},
		{name: "checksum beyond the header", gso: with(func(g *stack.GSO) { g.CsumOffset = 19 }), network: 20, payload: 10, rejected: true},
	} {
		pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{
			ReserveHeaderBytes: 200,
			Payload:            buffer.MakeWithData(make([]byte, tt.payload)),
		})
		tcp := header.TCP(pkt.TransportHeader().Push(header.TCPMinimumSize))
		tcp.Encode(&header.TCPFields{DataOffset: header.TCPMinimumSize, Flags: tt.flags})
		pkt.NetworkHeader().Push(tt.network)
		pkt.LinkHeader().Push(header.EthernetMinimumSize)
		pkt.GSOOptions = tt.gso
		got, ok := outboundHeader(pkt)
		if ok == tt.rejected || (ok && got != tt.want) {
			t.Errorf("%s: got %+v, %v, want %+v, %v", tt.name, got, ok, tt.want, !tt.rejected)
		}
		pkt.DecRef()
	}

	short := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(make([]byte, 100))})
	defer short.DecRef()
	short.GSOOptions = gso
	if h, ok := outboundHeader(short); ok {
		t.Errorf("a packet without a transport header: got %+v", h)
	}
}
