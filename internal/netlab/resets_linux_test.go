package netlab

import (
	"net"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// Only a reset that answers a later acknowledgement of a FIN is in order, where
// acknowledgements are recorded.
func TestStrayResets(t *testing.T) {
	const here, there = 1000, 2000 // where the two sides' streams end
	fin := segment{out: false, tcp: layers.TCP{Seq: here, Ack: there, FIN: true, ACK: true}, payload: 10}
	ack := segment{out: true, tcp: layers.TCP{Seq: there, Ack: here + 11, ACK: true}}
	partial := segment{out: true, tcp: layers.TCP{Seq: there, Ack: here + 10, ACK: true}}
	reset := segment{out: false, tcp: layers.TCP{Seq: here + 11, RST: true}}
	for _, tc := range []struct {
		name     string
		segments []segment
		want     int
	}{
		{"none", []segment{fin, ack}, 0},
		{"second acknowledgement", []segment{fin, fin, ack, ack, reset}, 0},
		{"one for each", []segment{fin, ack, ack, reset, ack, reset}, 0},
		{"first acknowledgement", []segment{fin, ack, reset}, 1},
		{"acknowledged in part before", []segment{fin, partial, ack, reset}, 1},
		{"no FIN", []segment{ack, ack, reset}, 1},
		{"of the FIN's receiver", []segment{fin, ack, ack, {out: true, tcp: layers.TCP{Seq: there, RST: true}}}, 1},
		{"elsewhere", []segment{fin, ack, ack, {out: false, tcp: layers.TCP{Seq: here, RST: true}}}, 1},
		{"with an acknowledgement", []segment{fin, ack, ack, {out: false, tcp: layers.TCP{Seq: here + 11, RST: true, ACK: true}}}, 1},
	} {
		for _, ipv6 := range []bool{false, true} {
			var packets []Captured
			for _, s := range tc.segments {
				packets = append(packets, s.captured(t, ipv6))
			}
			if strays := strayResets(packets, false); len(strays) != tc.want {
				t.Errorf("%s, IPv6 %t: %d stray, want %d: %q", tc.name, ipv6, len(strays), tc.want, strays)
			}
		}
	}
	if strays := strayResets([]Captured{fin.captured(t, false), reset.captured(t, false)}, true); len(strays) != 0 {
		t.Errorf("of ends only: %q", strays)
	}
}

// segment is a segment of one connection as a capture sees it.
type segment struct {
	out     bool
	tcp     layers.TCP // its ports are given to it
	payload int
}

func (s segment) captured(t *testing.T, ipv6 bool) Captured {
	t.Helper()
	tcp := s.tcp
	tcp.SrcPort, tcp.DstPort = 80, 40000
	if s.out {
		tcp.SrcPort, tcp.DstPort = tcp.DstPort, tcp.SrcPort
	}
	eth := &layers.Ethernet{SrcMAC: SharedMAC, DstMAC: SharedMAC, EthernetType: layers.EthernetTypeIPv4}
	var ip gopacket.SerializableLayer = &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolTCP,
		SrcIP: net.IPv4(10, 0, 0, 1), DstIP: net.IPv4(10, 0, 0, 2)}
	if ipv6 {
		eth.EthernetType = layers.EthernetTypeIPv6
		ip = &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: layers.IPProtocolTCP,
			SrcIP: net.ParseIP("fd00::1"), DstIP: net.ParseIP("fd00::2")}
	}
	buf := gopacket.NewSerializeBuffer()
	err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true}, eth, ip, &tcp, gopacket.Payload(make([]byte, s.payload)))
	if err != nil {
		t.Fatal(err)
	}
	return Captured{Out: s.out, Length: len(buf.Bytes()), Data: buf.Bytes()}
}
