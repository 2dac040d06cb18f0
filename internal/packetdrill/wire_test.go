package packetdrill

import (
	"bytes"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// testSegment is a segment with everything on it.
func testSegment(src, dst string) *segment {
	s := &segment{
		at:  time.Second,
		src: netip.MustParseAddrPort(src), dst: netip.MustParseAddrPort(dst),
		tos: 0x12, ttl: 77,
		tcp: TCPSpec{
			Flags: ACK | PSH | ECE | CWR | URG | AE, Seq: 1<<32 - 2, End: 3, Len: 5, Ack: 7, HasAck: true, Win: 1234, Urg: 3,
			Options: []TCPOption{
				{Kind: OptMSS, MSS: 1460}, {Kind: OptSACKOK}, {Kind: OptWScale, WScale: 7}, {Kind: OptNOP},
				{Kind: OptTimestamp, Val: 8, Ecr: 9}, {Kind: OptSACK, Blocks: [][2]uint32{{10, 20}}},
				{Kind: OptFastOpen, Cookie: []byte{1, 2, 3, 4}},
			},
		},
		payload: []byte("hello"),
	}
	if s.src.Addr().Is6() {
		s.flowLabel = 0xabcde
	}
	return s
}

func TestWireRoundTrip(t *testing.T) {
	for _, want := range []*segment{
		testSegment("192.0.2.1:80", "192.168.0.1:8080"), testSegment("[2001:db8::1]:80", "[fd00::1]:8080"),
	} {
		b, err := encodeSegment(want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := decodeSegment(b, time.Second, true)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%+v, want\n%+v", got, want)
		}
	}
}

// TestChecksumAgreesWithGopacket computes checksums both ways.
func TestChecksumAgreesWithGopacket(t *testing.T) {
	b, err := encodeSegment(testSegment("192.0.2.1:80", "192.168.0.1:8080"))
	if err != nil {
		t.Fatal(err)
	}
	p := gopacket.NewPacket(b, layers.LayerTypeIPv4, gopacket.Default)
	ip := p.NetworkLayer().(*layers.IPv4)
	tcp := p.TransportLayer().(*layers.TCP)
	src, _ := netip.AddrFromSlice(ip.SrcIP)
	dst, _ := netip.AddrFromSlice(ip.DstIP)
	if got := onesSum(pseudoHeader(src, dst, len(tcp.Contents)+len(tcp.Payload)), tcp.Contents, tcp.Payload); got != 0xffff {
		t.Errorf("the sum over gopacket's checksum is %#x", got)
	}
}

func TestDamagedPackets(t *testing.T) {
	good := func() []byte {
		b, err := encodeSegment(testSegment("192.0.2.1:80", "192.168.0.1:8080"))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for name, c := range map[string]struct {
		damage func(b []byte) []byte
		want   string
	}{
		"payload":     {func(b []byte) []byte { b[len(b)-1]++; return b }, "the TCP checksum is wrong"},
		"TCP header":  {func(b []byte) []byte { b[24]++; return b }, "the TCP checksum is wrong"},
		"IP header":   {func(b []byte) []byte { b[8]++; return b }, "the IP header's checksum is wrong"},
		"fragment":    {func(b []byte) []byte { b[7]++; return b }, "the stack sent an IP fragment"},
		"cut":         {func(b []byte) []byte { return b[:30] }, ""},
		"empty":       {func([]byte) []byte { return nil }, ""},
		"one byte":    {func([]byte) []byte { return []byte{0x60} }, ""},
		"another one": {func(b []byte) []byte { b[9] = 17; return b }, ""},
	} {
		_, err := decodeSegment(c.damage(good()), 0, true)
		if err == nil || c.want != "" && err.Error() != c.want {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	b := good()
	b[len(b)-1]++
	if _, err := decodeSegment(b, 0, false); err != nil {
		t.Errorf("a partial checksum: %v", err)
	}
}

func TestOptionsOnTheWire(t *testing.T) {
	for _, c := range []struct {
		raw  layers.TCPOption
		want TCPOption
	}{
		{layers.TCPOption{OptionType: 2, OptionData: []byte{1}}, TCPOption{Kind: OptMSS, Raw: []byte{1}}},
		{layers.TCPOption{OptionType: 5, OptionData: make([]byte, 7)}, TCPOption{Kind: OptSACK, Raw: make([]byte, 7)}},
		{layers.TCPOption{OptionType: 77, OptionData: []byte{1, 2}}, TCPOption{Kind: 77, Raw: []byte{1, 2}}},
		{layers.TCPOption{OptionType: 254, OptionData: []byte{0xf9, 0x89, 5}}, TCPOption{Kind: OptExp, Cookie: []byte{5}}},
		{layers.TCPOption{OptionType: 254, OptionData: []byte{1, 2, 3}}, TCPOption{Kind: OptExp, Raw: []byte{1, 2, 3}}},
	} {
		if got := optionOf(c.raw); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%v: %+v, want %+v", c.raw, got, c.want)
		}
	}
	if got := (TCPOption{Kind: 77, Raw: []byte{1, 2}}).String(); got != "option 77 0102" {
		t.Errorf("an unknown option reads %q", got)
	}
}

func TestCutSegments(t *testing.T) {
	s := &segment{payload: []byte("abcdefgh")}
	s.tcp = TCPSpec{Flags: ACK | PSH | FIN | CWR, Seq: 100, End: 108, Len: 8}
	var text []string
	var whole []byte
	for _, p := range cut(s, 3) {
		text = append(text, p.tcp.String())
		whole = append(whole, p.payload...)
		if len(p.payload) != p.tcp.Len {
			t.Errorf("%v carries %d bytes", &p.tcp, len(p.payload))
		}
	}
	if got, want := strings.Join(text, "; "), "W. 100:103(3) win 0; . 103:106(3) win 0; FP. 106:108(2) win 0"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if !bytes.Equal(whole, []byte("abcdefgh")) {
		t.Errorf("the pieces hold %q", whole)
	}
}

func TestICMPMessages(t *testing.T) {
	about := testSegment("192.168.0.1:8080", "192.0.2.1:80")
	b, err := encodeICMP(&ICMPSpec{Type: "unreachable", Code: "frag_needed", MTU: 800}, netip.MustParseAddr("10.0.0.1"), about)
	if err != nil {
		t.Fatal(err)
	}
	p := gopacket.NewPacket(b, layers.LayerTypeIPv4, gopacket.Default)
	icmp, ok := p.Layer(layers.LayerTypeICMPv4).(*layers.ICMPv4)
	if !ok || icmp.TypeCode != layers.CreateICMPv4TypeCode(3, 4) || icmp.Seq != 800 {
		t.Errorf("%+v", icmp)
	}
	quoted := gopacket.NewPacket(icmp.Payload, layers.LayerTypeIPv4, gopacket.Lazy)
	if ip, ok := quoted.NetworkLayer().(*layers.IPv4); !ok || ip.SrcIP.String() != "192.168.0.1" || int(ip.Length) != len(icmp.Payload)+5 {
		t.Errorf("the quoted packet is %v", quoted)
	}

	about = testSegment("[fd00::1]:8080", "[2001:db8::1]:80")
	b, err = encodeICMP(&ICMPSpec{Type: "packet_too_big", MTU: 1300}, netip.MustParseAddr("fd00::2"), about)
	if err != nil {
		t.Fatal(err)
	}
	p = gopacket.NewPacket(b, layers.LayerTypeIPv6, gopacket.Default)
	icmp6, ok := p.Layer(layers.LayerTypeICMPv6).(*layers.ICMPv6)
	if !ok || icmp6.TypeCode != layers.CreateICMPv6TypeCode(2, 0) || !bytes.HasPrefix(icmp6.Payload, []byte{0, 0, 1300 >> 8, 1300 & 0xff}) {
		t.Errorf("%+v", icmp6)
	}
	for _, m := range []ICMPSpec{{Type: "unreachable", Code: "frag_needed"}, {Type: "source_quench"}, {Type: "what"}} {
		if _, err := encodeICMP(&m, netip.MustParseAddr("fd00::2"), about); err == nil {
			t.Errorf("IPv6 has %+v", m)
		}
	}
}
