package packetdrill

import (
	"fmt"
	"strings"
	"time"
)

// String writes flags as scripts do.
func (f Flags) String() string {
	if f == 0 {
		return "-"
	}
	var b strings.Builder
	for _, l := range []struct {
		bit    Flags
		letter byte
	}{{FIN, 'F'}, {SYN, 'S'}, {RST, 'R'}, {PSH, 'P'}, {URG, 'U'}, {ECE, 'E'}, {CWR, 'W'}, {AE, 'A'}, {ACK, '.'}} {
		if f&l.bit != 0 {
			b.WriteByte(l.letter)
		}
	}
	return b.String()
}

// String writes an option as scripts do.
func (o TCPOption) String() string {
	switch o.Kind {
	case OptEOL:
		return "eol"
	case OptNOP:
		return "nop"
	case OptMSS:
		return fmt.Sprintf("mss %d", o.MSS)
	case OptWScale:
		return fmt.Sprintf("wscale %d", o.WScale)
	case OptSACKOK:
		return "sackOK"
	case OptSACK:
		s := "sack"
		for _, b := range o.Blocks {
			s += fmt.Sprintf(" %d:%d", b[0], b[1])
		}
		return s
	case OptTimestamp:
		return fmt.Sprintf("TS val %d ecr %d", o.Val, o.Ecr)
	case OptFastOpen, OptExp:
		if o.Raw != nil {
			break
		}
		name := "FO"
		if o.Kind == OptExp {
			name = "FOEXP"
		}
		return strings.TrimSpace(fmt.Sprintf("%s %x", name, o.Cookie))
	}
	return fmt.Sprintf("option %d %x", o.Kind, o.Raw)
}

// String writes a segment as scripts do, without direction.
func (s *TCPSpec) String() string {
	var b strings.Builder
	switch {
	case s.AnySeq:
		fmt.Fprintf(&b, "%v ...(%d)", s.Flags, s.Len)
	case s.Absolute:
		fmt.Fprintf(&b, "%v %d:%d(%d)!", s.Flags, s.Seq, s.End, s.Len)
	default:
		fmt.Fprintf(&b, "%v %d:%d(%d)", s.Flags, s.Seq, s.End, s.Len)
	}
	if s.HasAck {
		fmt.Fprintf(&b, " ack %d", s.Ack)
	}
	if s.Win >= 0 {
		fmt.Fprintf(&b, " win %d", s.Win)
	}
	if s.Urg != 0 {
		fmt.Fprintf(&b, " urg %d", s.Urg)
	}
	switch {
	case s.AnyOptions:
		b.WriteString(" <...>")
	case len(s.Options) > 0:
		b.WriteString(" <")
		for i, o := range s.Options {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString(o.String())
		}
		b.WriteByte('>')
	}
	return b.String()
}

// String writes what is said about the IP header, with a space behind it.
func (i IPInfo) String() string {
	var parts []string
	switch i.Check {
	case TOSECN:
		parts = append(parts, [...]string{"noecn", "ect1", "ect0", "ce"}[i.TOS&3])
	case TOSECT01:
		parts = append(parts, "ect01")
	case TOSWhole:
		parts = append(parts, fmt.Sprintf("tos 0x%02x", i.TOS))
	}
	if i.TTL >= 0 {
		parts = append(parts, fmt.Sprintf("ttl %d", i.TTL))
	}
	if i.FlowLabel >= 0 {
		parts = append(parts, fmt.Sprintf("flowlabel 0x%x", i.FlowLabel))
	}
	if parts == nil {
		return ""
	}
	return "[" + strings.Join(parts, ", ") + "] "
}

// clockText writes a time as seconds, to the microsecond.
func clockText(d time.Duration) string { return fmt.Sprintf("%.6f", d.Seconds()) }
