package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/tcprepair/ustack/stack/repair"
)

// describe prints what a person wants to know of a snapshot.
func describe(w io.Writer, s *repair.Snapshot) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	describeConn(t, s, "")
	for _, c := range s.Children {
		describeConn(t, c, "  ")
	}
	return t.Flush()
}

func describeConn(w io.Writer, s *repair.Snapshot, indent string) {
	line := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%s%s\t%s\n", indent, name, fmt.Sprintf(format, args...))
	}
	if s.State == repair.StateListen {
		line("listener", "%v", s.Local)
		if s.Extra != nil {
			line("backlog", "%d, waiting: %d", s.Extra.Backlog, len(s.Children))
		}
		return
	}
	line("connection", "%v", s.Flow())
	line("state", "%s", stateText(&s.Core))
	line("received", "up to %d, of which %d bytes are not read", s.RecvSeq, s.RecvQueue.Len())
	line("to send", "from %d, %d bytes not acknowledged, %d of them never sent", s.SendSeq, s.SendQueue.Len(), s.Unsent)
	line("windows", "ours %d from %d, the peer's %d, at most %d", s.Window.RcvWnd, s.Window.RcvWup, s.Window.SndWnd, s.Window.MaxWindow)
	line("options", "%s", optionsText(&s.Core))
	if e := s.Extra; e != nil {
		describeExtra(line, e)
	}
}

// stateText is the state and what became of the FINs.
func stateText(c *repair.Core) string {
	text := c.State.String()
	switch {
	case c.FINAcked:
		text += ", our FIN is acknowledged"
	case c.FINSent:
		text += ", our FIN is sent"
	case c.FINQueued:
		text += ", our FIN waits"
	}
	if c.FINReceived {
		text += ", the peer's FIN is received"
	}
	return text
}

func optionsText(c *repair.Core) string {
	words := []string{fmt.Sprintf("MSS %d", c.Options.MSS)}
	if c.Options.Scaling {
		words = append(words, fmt.Sprintf("window scale %d and %d", c.Options.SendScale, c.Options.RecvScale))
	}
	if c.Options.SACK {
		words = append(words, "SACK")
	}
	if c.Options.Timestamps {
		tick := "ms"
		if c.TimestampMicros {
			tick = "us"
		}
		words = append(words, fmt.Sprintf("timestamps at %d %s", c.Timestamp, tick))
	}
	if c.NoDelay {
		words = append(words, "no delay")
	}
	if c.Cork {
		words = append(words, "cork")
	}
	return strings.Join(words, ", ")
}

func describeExtra(line func(name, format string, args ...any), e *repair.Extra) {
	g := e.Congestion
	threshold := "no threshold"
	if g.Threshold != 0 {
		threshold = fmt.Sprintf("threshold %d", g.Threshold)
	}
	line("congestion", "%s, window %d bytes, %s", g.Name, g.Window, threshold)
	round := func(d time.Duration) time.Duration { return d.Round(time.Microsecond) }
	line("round trip", "%v, varies by %v, at least %v", round(e.RTT.Smoothed), round(e.RTT.Variance), round(e.RTT.Min))
	if len(e.Sent) > 0 {
		var sacked, lost int
		for _, seg := range e.Sent {
			if seg.Flags&repair.SegmentSACKed != 0 {
				sacked++
			}
			if seg.Flags&repair.SegmentLost != 0 {
				lost++
			}
		}
		line("in flight", "segments: %d, received out of order: %d, lost: %d", len(e.Sent), sacked, lost)
	}
	if len(e.Held) > 0 {
		n := 0
		for _, span := range e.Held {
			n += span.Data.Len()
		}
		line("held", "%d bytes before their turn, in %d places", n, len(e.Held))
	}
	if ip := e.IP; ip != (repair.IPSettings{}) {
		line("IP", "%s", ipText(&ip))
	}
	for _, timer := range e.Timers {
		line("timer", "%v in %v", timer.Kind, timer.Left.Round(time.Millisecond))
	}
}

// ipText says what the user has chosen of IP.
func ipText(ip *repair.IPSettings) string {
	var words []string
	if ip.TTL != 0 {
		words = append(words, fmt.Sprintf("TTL %d", ip.TTL))
	}
	if ip.TOS != 0 {
		words = append(words, fmt.Sprintf("TOS %#x", ip.TOS))
	}
	switch ip.MTUDiscovery {
	case repair.MTUDiscoveryDefault, repair.MTUDiscoveryWant:
	case repair.MTUDiscoveryDont, repair.MTUDiscoveryInterface, repair.MTUDiscoveryOmit:
		words = append(words, "no path MTU discovery")
	default:
		words = append(words, "never fragmented")
	}
	if ip.Device != "" {
		words = append(words, "bound to "+ip.Device)
	}
	if len(words) == 0 {
		return "the host's"
	}
	return strings.Join(words, ", ")
}
