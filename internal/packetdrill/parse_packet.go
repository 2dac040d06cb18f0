package packetdrill

import (
	"encoding/hex"
	"math"
	"strings"
)

// packet reads a packet, from its direction on.
func (p *parser) packet() *Packet {
	t := p.next()
	pkt := &Packet{Line: t.line, Outbound: t.text == ">", IP: IPInfo{TTL: -1, FlowLabel: -1}}
	p.ipInfo(pkt)
	switch t := p.peek(); {
	case t.kind == tokWord && t.text == "icmp":
		p.next()
		pkt.ICMP = p.icmp()
		return pkt
	case t.kind == tokWord:
		if what, ok := refusedPackets[t.text]; ok {
			p.refuse(t.line, what)
		}
	case t.kind == tokInt:
		const port = "a port"
		pkt.SrcPort = uint16(p.number(port, 0, math.MaxUint16))
		p.want(">")
		pkt.DstPort = uint16(p.number(port, 0, math.MaxUint16))
	}
	pkt.TCP = p.tcp(pkt)
	if t := p.peek(); p.skip("/") {
		p.refuse(t.line, "TCP in UDP")
	}
	return pkt
}

// refusedPackets are the words with which packets begin that are left out.
var refusedPackets = map[string]string{
	"udp":   "UDP packets",
	"gre":   "GRE encapsulation",
	"GREv0": "GRE encapsulation",
	"mpls":  "MPLS encapsulation",
	"ipv4":  "IP in IP encapsulation",
	"ipv6":  "IP in IP encapsulation",
	"encap": "PSP encapsulation",
}

// ipInfo reads what the script says about the IP header, if anything.
func (p *parser) ipInfo(pkt *Packet) {
	end := ""
	switch {
	case p.skip("["):
		end = "]"
	case p.skip("("):
		end = ")"
	default:
		return
	}
	for {
		p.ipField(pkt)
		if p.skip(end) {
			return
		}
		p.want(",")
	}
}

func (p *parser) ipField(pkt *Packet) {
	ecn := func(bits uint8) { pkt.IP.Check, pkt.IP.TOS = TOSECN, bits }
	switch t := p.next(); t.text {
	case "noecn":
		ecn(0)
	case "ect1":
		ecn(1)
	case "ect0":
		ecn(2)
	case "ce":
		ecn(3)
	case "ect01":
		if !pkt.Outbound {
			p.failf(t.line, "ect01 is for packets from the stack only")
		}
		pkt.IP.Check = TOSECT01
	case "tos", "class": // of IPv4 and of IPv6
		pkt.IP.Check = TOSWhole
		pkt.IP.TOS = uint8(p.number(t.text, 0, math.MaxUint8))
	case "ttl", "hlim":
		pkt.IP.TTL = int(p.number(t.text, 0, math.MaxUint8))
	case "flowlabel":
		pkt.IP.FlowLabel = int(p.number("flowlabel", 0, 1<<20-1))
	default:
		p.failf(t.line, "%v says nothing about an IP header", t)
	}
}

// tcp reads a TCP segment from its flags on.
func (p *parser) tcp(pkt *Packet) *TCPSpec {
	s := &TCPSpec{Win: -1}
	s.Flags = p.flags()
	if t := p.peek(); t.kind == tokDots {
		if !pkt.Outbound {
			p.failf(t.line, "any sequence number is for packets from the stack only")
		}
		p.next()
		s.AnySeq, s.Len = true, p.length()
	} else {
		s.Seq, s.End, s.Len = p.sequence()
		s.Absolute = p.skip("!")
	}
	if p.word("ack") {
		s.Ack, s.HasAck = uint32(p.number("ack", 0, math.MaxUint32)), true
	}
	if p.word("win") {
		s.Win = int(p.number("win", 0, math.MaxUint16))
	}
	if p.word("urg") {
		s.Urg = uint16(p.number("urg", 0, math.MaxUint16))
	}
	t := p.peek()
	if !p.skip("<") {
		return s
	}
	if p.peek().kind == tokDots {
		if !pkt.Outbound {
			p.failf(t.line, "<...> is for packets from the stack only")
		}
		p.next()
		s.AnyOptions = true
	} else {
		for {
			s.Options = append(s.Options, p.tcpOption())
			if !p.skip(",") {
				break
			}
		}
	}
	p.want(">")
	if n := optionsLen(s.Options); n > maxOptions {
		p.failf(t.line, "the options take %d bytes, of %d that there is room for", n, maxOptions)
	}
	return s
}

// maxOptions is the room for options in a TCP header.
const maxOptions = 40

var flagLetters = map[rune]Flags{
	'F': FIN, 'S': SYN, 'R': RST, 'P': PSH, '.': ACK, 'U': URG, 'E': ECE, 'W': CWR, 'A': AE,
}

// flags reads the flags of a segment, "-" for none.
func (p *parser) flags() (f Flags) {
	line := p.peek().line
	var text string
	// What has been peeked is the beginning of the flags.
	if p.ahead != nil {
		p.pos, p.line, p.ahead = p.ahead.pos, p.ahead.line, nil
	}
	if text = p.raw(); text == "-" {
		return 0
	}
	for _, r := range text {
		bit, ok := flagLetters[r]
		switch {
		case '0' <= r && r <= '7':
			p.refuse(line, "AccECN (RFC 9768)")
		case !ok || f&bit != 0:
			p.failf(line, "%q is no set of TCP flags", text)
		}
		f |= bit
	}
	if f == 0 {
		p.failf(line, "TCP flags are missing")
	}
	return f
}

// sequence reads start:end(length).
func (p *parser) sequence() (seq, end uint32, n int) {
	line := p.peek().line
	seq = uint32(p.number("a sequence number", 0, math.MaxUint32))
	p.want(":")
	end = uint32(p.number("a sequence number", 0, math.MaxUint32))
	n = p.length()
	if seq+uint32(n) != end {
		p.failf(line, "%d:%d does not hold %d bytes", seq, end, n)
	}
	return seq, end, n
}

// length reads (length).
func (p *parser) length() int {
	p.want("(")
	n := int(p.number("a length", 0, math.MaxUint16))
	p.want(")")
	return n
}

// tcpOption reads one TCP option.
func (p *parser) tcpOption() (o TCPOption) {
	t := p.next()
	switch t.text {
	case "nop":
		o.Kind = OptNOP
	case "eol":
		o.Kind = OptEOL
	case "mss":
		o.Kind = OptMSS
		o.MSS = uint16(p.number("mss", 0, math.MaxUint16))
	case "wscale":
		o.Kind = OptWScale
		o.WScale = uint8(p.number("wscale", 0, math.MaxUint8))
	case "sackOK":
		o.Kind = OptSACKOK
	case "sack":
		o.Kind = OptSACK
		for k := p.peek().kind; k == tokInt; k = p.peek().kind {
			left := uint32(p.number("a SACK edge", 0, math.MaxUint32))
			p.want(":")
			o.Blocks = append(o.Blocks, [2]uint32{left, uint32(p.number("a SACK edge", 0, math.MaxUint32))})
		}
		if len(o.Blocks) == 0 {
			p.failf(t.line, "sack without blocks")
		}
	case "TS":
		o.Kind = OptTimestamp
		p.wantWord("val")
		o.Val = uint32(p.number("a timestamp", 0, math.MaxUint32))
		p.wantWord("ecr")
		o.Ecr = uint32(p.number("a timestamp", 0, math.MaxUint32))
	case "FO":
		o.Kind, o.Cookie = OptFastOpen, p.cookie()
	case "FOEXP":
		o.Kind, o.Cookie = OptExp, p.cookie()
	case "md5":
		p.refuse(t.line, "TCP MD5 signatures (RFC 2385)")
	case "ECN":
		p.refuse(t.line, "AccECN (RFC 9768)")
	default:
		p.failf(t.line, "%v is no TCP option", t)
	}
	return o
}

// cookie reads a Fast Open cookie, if there is one.
func (p *parser) cookie() []byte {
	t := p.peek()
	if t.kind != tokWord && t.kind != tokInt {
		return nil
	}
	t = p.defined(p.next())
	b, err := hex.DecodeString(strings.ToLower(t.text))
	if err != nil || len(b) > maxOptions {
		p.failf(t.line, "%v is no Fast Open cookie", t)
	}
	return b
}

// optionsLen is the length of options on the wire, without padding.
func optionsLen(opts []TCPOption) (n int) {
	for _, o := range opts {
		switch o.Kind {
		case OptEOL, OptNOP:
			n++
		case OptMSS:
			n += 4
		case OptWScale:
			n += 3
		case OptSACKOK:
			n += 2
		case OptSACK:
			n += 2 + 8*len(o.Blocks)
		case OptTimestamp:
			n += 10
		case OptFastOpen:
			n += 2 + len(o.Cookie)
		case OptExp:
			n += 4 + len(o.Cookie)
		}
	}
	return n
}

// icmp reads an ICMP message after the word itself.
func (p *parser) icmp() *ICMPSpec {
	t := p.next()
	if t.kind != tokWord {
		p.failf(t.line, "%v where a type of ICMP message should stand", t)
	}
	m := &ICMPSpec{Type: t.text, MTU: -1}
	if t := p.peek(); t.kind == tokWord && t.text != "mtu" && t.text != "id" {
		m.Code = p.defined(p.next()).text
	}
	if p.word("mtu") {
		m.MTU = int(p.number("mtu", 0, math.MaxUint32))
	}
	if t := p.peek(); p.word("id") {
		p.refuse(t.line, "ICMP echo")
	}
	if !p.skip("[") {
		return m
	}
	if t := p.peek(); t.kind == tokWord {
		p.refuse(t.line, "ICMP messages about "+t.text+" packets")
	}
	m.HasEcho = true
	m.Seq, m.End, m.Len = p.sequence()
	p.want("]")
	return m
}
