package packetdrill

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// segment is a TCP segment as it was on the wire: addresses, ports and numbers
// are the live ones.
type segment struct {
	at        time.Duration // on the runner's clock
	src, dst  netip.AddrPort
	tos, ttl  uint8
	flowLabel uint32
	tcp       TCPSpec
	payload   []byte
}

// decodeSegment reads an IP packet that the stack has sent. Without checksum
// the one in the TCP header is only a partial one, to be completed by the link.
func decodeSegment(b []byte, at time.Duration, checksum bool) (*segment, error) {
	first := gopacket.LayerType(layers.LayerTypeIPv4)
	if len(b) > 0 && b[0]>>4 == 6 {
		first = layers.LayerTypeIPv6
	}
	pkt := gopacket.NewPacket(b, first, gopacket.DecodeOptions{NoCopy: true})
	if e := pkt.ErrorLayer(); e != nil {
		return nil, e.Error()
	}
	s := &segment{at: at}
	var src, dst netip.Addr
	switch ip := pkt.NetworkLayer().(type) {
	case *layers.IPv4:
		src, _ = netip.AddrFromSlice(ip.SrcIP)
		dst, _ = netip.AddrFromSlice(ip.DstIP)
		s.tos, s.ttl = ip.TOS, ip.TTL
		if ip.FragOffset != 0 || ip.Flags&layers.IPv4MoreFragments != 0 {
			return nil, errors.New("the stack sent an IP fragment")
		}
		if onesSum(ip.Contents) != 0xffff {
			return nil, errors.New("the IP header's checksum is wrong")
		}
	case *layers.IPv6:
		src, _ = netip.AddrFromSlice(ip.SrcIP)
		dst, _ = netip.AddrFromSlice(ip.DstIP)
		s.tos, s.ttl, s.flowLabel = ip.TrafficClass, ip.HopLimit, ip.FlowLabel
	}
	tcp, ok := pkt.TransportLayer().(*layers.TCP)
	if !ok {
		return nil, errNotTCP
	}
	s.src = netip.AddrPortFrom(src.Unmap(), uint16(tcp.SrcPort))
	s.dst = netip.AddrPortFrom(dst.Unmap(), uint16(tcp.DstPort))
	s.payload = append([]byte(nil), tcp.Payload...)
	if checksum && onesSum(pseudoHeader(src, dst, len(tcp.Contents)+len(tcp.Payload)), tcp.Contents, tcp.Payload) != 0xffff {
		return nil, errors.New("the TCP checksum is wrong")
	}
	s.tcp = specOf(tcp)
	return s, nil
}

// errNotTCP says that a packet of the stack's is none of TCP's.
var errNotTCP = errors.New("no TCP segment")

// specOf writes a segment down as a script would.
func specOf(t *layers.TCP) TCPSpec {
	s := TCPSpec{
		Seq: t.Seq, Len: len(t.Payload), End: t.Seq + uint32(len(t.Payload)),
		Ack: t.Ack, HasAck: t.ACK, Win: int(t.Window), Urg: t.Urgent,
	}
	for _, f := range []struct {
		on  bool
		bit Flags
	}{{t.FIN, FIN}, {t.SYN, SYN}, {t.RST, RST}, {t.PSH, PSH}, {t.ACK, ACK}, {t.URG, URG}, {t.ECE, ECE}, {t.CWR, CWR}, {t.NS, AE}} {
		if f.on {
			s.Flags |= f.bit
		}
	}
	for _, o := range t.Options {
		s.Options = append(s.Options, optionOf(o))
	}
	// An end-of-options that only pads is no option.
	for n := len(s.Options); n > 0 && s.Options[n-1].Kind == OptEOL; n = len(s.Options) {
		s.Options = s.Options[:n-1]
	}
	return s
}

func optionOf(o layers.TCPOption) TCPOption {
	out := TCPOption{Kind: OptionKind(o.OptionType)}
	b := o.OptionData
	switch {
	case out.Kind == OptMSS && len(b) == 2:
		out.MSS = binary.BigEndian.Uint16(b)
	case out.Kind == OptWScale && len(b) == 1:
		out.WScale = b[0]
	case out.Kind == OptTimestamp && len(b) == 8:
		out.Val, out.Ecr = binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])
	case out.Kind == OptSACK && len(b) > 0 && len(b)%8 == 0:
		for ; len(b) > 0; b = b[8:] {
			out.Blocks = append(out.Blocks, [2]uint32{binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])})
		}
	case out.Kind == OptFastOpen:
		out.Cookie = append([]byte(nil), b...)
	case out.Kind == OptExp && len(b) >= 2 && b[0] == fastOpenMagic[0] && b[1] == fastOpenMagic[1]:
		out.Cookie = append([]byte(nil), b[2:]...)
	case out.Kind == OptSACKOK, out.Kind == OptNOP, out.Kind == OptEOL:
	default:
		out.Raw = append([]byte(nil), b...)
	}
	return out
}

// fastOpenMagic tells Fast Open from other experiments (RFC 7413 section 7).
var fastOpenMagic = [2]byte{0xf9, 0x89}

// onesSum is the ones' complement sum of RFC 1071: 0xffff over anything that
// carries its right checksum.
func onesSum(parts ...[]byte) uint16 {
	var sum uint64
	odd := false
	for _, p := range parts {
		for _, b := range p {
			if odd {
				sum += uint64(b)
			} else {
				sum += uint64(b) << 8
			}
			odd = !odd
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

// pseudoHeader is what a TCP checksum covers of the IP header, for IPv4 and
// IPv6 alike: the fields are in other places, but the sum is the same.
func pseudoHeader(src, dst netip.Addr, n int) []byte {
	b := append(src.AsSlice(), dst.AsSlice()...)
	b = binary.BigEndian.AppendUint32(b, uint32(n))
	return binary.BigEndian.AppendUint32(b, uint32(layers.IPProtocolTCP))
}

// encodeSegment makes an IP packet of a segment.
func encodeSegment(s *segment) ([]byte, error) {
	tcp := &layers.TCP{
		SrcPort: layers.TCPPort(s.src.Port()), DstPort: layers.TCPPort(s.dst.Port()),
		Seq: s.tcp.Seq, Ack: s.tcp.Ack, Window: uint16(max(s.tcp.Win, 0)), Urgent: s.tcp.Urg,
	}
	f := s.tcp.Flags
	tcp.FIN, tcp.SYN, tcp.RST, tcp.PSH, tcp.ACK = f&FIN != 0, f&SYN != 0, f&RST != 0, f&PSH != 0, f&ACK != 0
	tcp.URG, tcp.ECE, tcp.CWR, tcp.NS = f&URG != 0, f&ECE != 0, f&CWR != 0, f&AE != 0
	for _, o := range s.tcp.Options {
		tcp.Options = append(tcp.Options, wireOption(o))
	}
	ip := ipLayer(s, layers.IPProtocolTCP)
	if err := tcp.SetNetworkLayerForChecksum(ip.(gopacket.NetworkLayer)); err != nil {
		return nil, err
	}
	return serialize(ip, tcp, gopacket.Payload(s.payload))
}

func serialize(l ...gopacket.SerializableLayer) ([]byte, error) {
	buf := gopacket.NewSerializeBuffer()
	err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, l...)
	return buf.Bytes(), err
}

func ipLayer(s *segment, proto layers.IPProtocol) gopacket.SerializableLayer {
	ttl := s.ttl
	if ttl == 0 {
		ttl = 255
	}
	if s.src.Addr().Is4() {
		return &layers.IPv4{
			Version: 4, IHL: 5, TOS: s.tos, TTL: ttl, Flags: layers.IPv4DontFragment, Protocol: proto,
			SrcIP: s.src.Addr().AsSlice(), DstIP: s.dst.Addr().AsSlice(),
		}
	}
	return &layers.IPv6{
		Version: 6, TrafficClass: s.tos, HopLimit: ttl, FlowLabel: s.flowLabel, NextHeader: proto,
		SrcIP: s.src.Addr().AsSlice(), DstIP: s.dst.Addr().AsSlice(),
	}
}

func wireOption(o TCPOption) layers.TCPOption {
	var b []byte
	switch o.Kind {
	case OptMSS:
		b = binary.BigEndian.AppendUint16(b, o.MSS)
	case OptWScale:
		b = []byte{o.WScale}
	case OptTimestamp:
		b = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, o.Val), o.Ecr)
	case OptSACK:
		for _, block := range o.Blocks {
			b = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, block[0]), block[1])
		}
	case OptFastOpen:
		b = o.Cookie
	case OptExp:
		b = append(fastOpenMagic[:], o.Cookie...)
	}
	return layers.TCPOption{OptionType: layers.TCPOptionKind(o.Kind), OptionLength: uint8(2 + len(b)), OptionData: b}
}

// encodeICMP makes an ICMP error about a segment that the stack has sent.
func encodeICMP(m *ICMPSpec, router netip.Addr, about *segment) ([]byte, error) {
	quoted, err := encodeSegment(about)
	if err != nil {
		return nil, err
	}
	// The payload's length is in the header, but the payload is not there.
	quoted = quoted[:len(quoted)-len(about.payload)]
	outer := &segment{src: netip.AddrPortFrom(router, 0), dst: about.src}
	if router.Is4() {
		kind, code, err := icmpType(icmp4Types, m)
		if err != nil {
			return nil, err
		}
		icmp := &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(kind, code), Seq: uint16(max(m.MTU, 0))}
		return serialize(ipLayer(outer, layers.IPProtocolICMPv4), icmp, gopacket.Payload(quoted))
	}
	kind, code, err := icmpType(icmp6Types, m)
	if err != nil {
		return nil, err
	}
	ip := ipLayer(outer, layers.IPProtocolICMPv6)
	icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(kind, code)}
	if err := icmp.SetNetworkLayerForChecksum(ip.(gopacket.NetworkLayer)); err != nil {
		return nil, err
	}
	body := binary.BigEndian.AppendUint32(nil, uint32(max(m.MTU, 0)))
	return serialize(ip, icmp, gopacket.Payload(append(body, quoted...)))
}

// icmpKind is a type of ICMP message and its codes by name.
type icmpKind struct {
	number uint8
	codes  map[string]uint8
}

var icmp4Types = map[string]icmpKind{
	"unreachable": {layers.ICMPv4TypeDestinationUnreachable, map[string]uint8{
		"net_unreachable": 0, "host_unreachable": 1, "protocol_unreachable": 2, "port_unreachable": 3,
		"frag_needed": 4, "source_route_failed": 5, "net_unknown": 6, "host_unknown": 7,
		"source_host_isolated": 8, "net_prohibited": 9, "host_prohibited": 10,
		"net_unreachable_for_tos": 11, "host_unreachable_for_tos": 12, "packet_filtered": 13,
		"precedence_violation": 14, "precedence_cutoff": 15,
	}},
	"source_quench":     {layers.ICMPv4TypeSourceQuench, nil},
	"redirect":          {layers.ICMPv4TypeRedirect, nil},
	"time_exceeded":     {layers.ICMPv4TypeTimeExceeded, nil},
	"parameter_problem": {layers.ICMPv4TypeParameterProblem, nil},
}

var icmp6Types = map[string]icmpKind{
	"unreachable": {layers.ICMPv6TypeDestinationUnreachable, map[string]uint8{
		"net_unreachable": 0, "no_route": 0, "admin_prohibited": 1, "not_neighbour": 2,
		"address_unreachable": 3, "port_unreachable": 4,
	}},
	"packet_too_big": {layers.ICMPv6TypePacketTooBig, nil},
	"time_exceeded": {layers.ICMPv6TypeTimeExceeded, map[string]uint8{
		"exceeded_hop_limit": 0, "exceeded_frag_time": 1,
	}},
	"parameter_problem": {layers.ICMPv6TypeParameterProblem, map[string]uint8{
		"header_field": 0, "unknown_next_header": 1, "unknown_option": 2,
	}},
}

func icmpType(types map[string]icmpKind, m *ICMPSpec) (kind, code uint8, err error) {
	k, ok := types[m.Type]
	if !ok {
		return 0, 0, fmt.Errorf("this IP version has no ICMP message %q", m.Type)
	}
	code, ok = k.codes[m.Code]
	if !ok && m.Code != "" {
		return 0, 0, fmt.Errorf("this IP version has no ICMP message %q with code %q", m.Type, m.Code)
	}
	return k.number, code, nil
}
