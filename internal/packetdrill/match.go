package packetdrill

import (
	"fmt"
	"slices"
	"time"
)

// match compares a segment, in the script's terms, with the expected one and
// names the first difference; empty if there is none.
func match(want *TCPSpec, ip IPInfo, got *TCPSpec, wire *segment, relax Relax) string {
	flags := want.Flags
	actual := got.Flags
	if relax.Push {
		flags, actual = flags&^PSH, actual&^PSH
	}
	switch {
	case flags != actual:
		return fmt.Sprintf("flags are %v, not %v", got.Flags, want.Flags)
	case want.Seq != got.Seq && !want.AnySeq:
		return fmt.Sprintf("sequence number is %d, not %d", got.Seq, want.Seq)
	case want.Len != got.Len:
		return fmt.Sprintf("payload is %d bytes, not %d", got.Len, want.Len)
	case want.Ack != got.Ack:
		return fmt.Sprintf("acknowledgement is %d, not %d", got.Ack, want.Ack)
	case want.Win >= 0 && want.Win != got.Win && !relax.Window:
		return fmt.Sprintf("window is %d, not %d", got.Win, want.Win)
	case want.Urg != got.Urg:
		return fmt.Sprintf("urgent pointer is %d, not %d", got.Urg, want.Urg)
	}
	if s := matchIP(ip, wire); s != "" {
		return s
	}
	if want.AnyOptions {
		return ""
	}
	return matchOptions(want.Options, got.Options, relax)
}

func matchIP(ip IPInfo, wire *segment) string {
	const ecnMask = 3
	switch ecn := wire.tos & ecnMask; {
	case ip.Check == TOSECN && ecn != ip.TOS, ip.Check == TOSECT01 && ecn != 1 && ecn != 2:
		return fmt.Sprintf("ECN bits are %02b", ecn)
	case ip.Check == TOSWhole && wire.tos != ip.TOS:
		return fmt.Sprintf("TOS is 0x%02x, not 0x%02x", wire.tos, ip.TOS)
	case ip.TTL >= 0 && int(wire.ttl) != ip.TTL:
		return fmt.Sprintf("TTL is %d, not %d", wire.ttl, ip.TTL)
	case ip.FlowLabel >= 0 && int(wire.flowLabel) != ip.FlowLabel:
		return fmt.Sprintf("flow label is 0x%x, not 0x%x", wire.flowLabel, ip.FlowLabel)
	}
	return ""
}

// matchOptions compares options. The values of timestamps are the business of
// matchTimestamp, because time has a tolerance.
func matchOptions(want, got []TCPOption, relax Relax) string {
	if relax.OptionOrder {
		want, got = ordered(want), ordered(got)
	}
	same := slices.EqualFunc(want, got, func(a, b TCPOption) bool {
		return a.Kind == b.Kind && a.MSS == b.MSS && a.WScale == b.WScale && a.Ecr == b.Ecr &&
			slices.Equal(a.Blocks, b.Blocks) && slices.Equal(a.Cookie, b.Cookie) && a.Raw == nil && b.Raw == nil
	})
	if !same {
		return "options differ"
	}
	return ""
}

// ordered sorts options by kind and leaves padding out.
func ordered(list []TCPOption) []TCPOption {
	list = slices.DeleteFunc(slices.Clone(list), func(o TCPOption) bool {
		return o.Kind == OptNOP || o.Kind == OptEOL
	})
	slices.SortStableFunc(list, func(a, b TCPOption) int { return int(a.Kind) - int(b.Kind) })
	return list
}

// matchTimestamp compares timestamp values, which may be off by as much as time
// may.
func matchTimestamp(want, got []TCPOption, tick, tolerance time.Duration) string {
	for _, w := range want {
		for _, g := range got {
			if w.Kind != OptTimestamp || g.Kind != OptTimestamp || tick == 0 {
				continue
			}
			if tsApart(w.Val, g.Val, tick) > tolerance {
				return fmt.Sprintf("timestamp is %d, not %d, give or take %v", g.Val, w.Val, tolerance)
			}
		}
	}
	return ""
}

// tsApart is the time between two timestamps of a clock.
func tsApart(a, b uint32, tick time.Duration) time.Duration {
	off := int32(b - a)
	return time.Duration(max(off, -off)) * tick
}

// follows tells whether a segment goes on where another one ended, so that the
// two may be the halves of one that the script expects.
func follows(a, b *segment) string {
	switch {
	case b.tcp.Seq != a.tcp.End:
		return "the segments do not follow each other"
	case (a.tcp.Flags^b.tcp.Flags)&^(PSH|FIN|CWR) != 0, a.tcp.Ack != b.tcp.Ack, a.tcp.Win != b.tcp.Win, a.tos != b.tos:
		return "the segments differ in more than their data"
	}
	return ""
}
