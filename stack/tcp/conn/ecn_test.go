package conn

import (
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/seqnum"
)

func withECN(a, b *Config) { a.ECN, b.ECN = true, true }

// The acknowledgement that echoes a mark delivers, and as much may go. It is no
// sign that all is well, so not more.
// https://www.rfc-editor.org/rfc/rfc9937#section-6.2
func TestMarkedDeliveryLetsOneGo(t *testing.T) {
	s := newScripted(t, func(c *Config) { c.ECN, c.Congestion = true, "cubic" })
	size := s.c.segmentSize()
	s.write(4 * size)
	s.drain()
	g := s.seg(header.TCPFlagEce, s.c.snd.una.Add(seqnum.Size(size)), "")
	s.in(g)
	if got, want := int(s.c.cwnd()), 4*size; got != want || s.c.loss.phase != phaseCWR {
		t.Errorf("phase %d, window %d, want %d and %d", s.c.loss.phase, got, phaseCWR, want)
	}
}

// One mark reduces the window once, is echoed until CWR, and CWR is said once.
func TestOneMarkReducesOnce(t *testing.T) {
	w := established(t, withECN)
	if !w.a.c.Info(w.now).ECN || !w.b.c.Info(w.now).ECN {
		t.Fatal("ECN was not agreed on")
	}
	w.pump(w.a, noise(200_000, 1), time.Minute)
	before := w.a.c.cc.Window()
	marked, cwr, ect := 0, 0, 0
	w.wiretap = func(from *host, s *Segment) {
		if from != w.a || s.DataLen() == 0 {
			return
		}
		if s.ECT {
			ect++
		}
		if s.Has(header.TCPFlagCwr) {
			cwr++
		}
		if marked == 0 && s.ECT {
			marked++
			s.CE = true
		}
	}
	w.pump(w.a, noise(400_000, 2), time.Minute)
	if marked != 1 || ect < 200 {
		t.Fatalf("%d marked of %d ECN-capable segments", marked, ect)
	}
	if cwr != 1 {
		t.Errorf("CWR on %d segments, want 1", cwr)
	}
	if after := w.a.c.cc.Threshold(); after >= before || after < before/2 {
		t.Errorf("threshold %d after a mark at a window of %d; want one reduction", after, before)
	}
	if n := w.a.c.Counters().Retransmits; n != 0 {
		t.Errorf("%d retransmissions", n)
	}
}

// An echo on the acknowledgement that empties the flight does not stall what
// is still to be sent.
func TestEchoWithNothingInFlight(t *testing.T) {
	w := established(t, withECN)
	c := &w.a.c
	w.a.write(w, noise(1000, 1))
	var out Segment
	c.Output(w.now, &out)
	out.Release()
	w.a.write(w, noise(1000, 2))
	s := Segment{Seq: c.rcv.nxt, Ack: c.snd.nxt, Flags: header.TCPFlagAck | header.TCPFlagEce, Window: c.snd.raw}
	s.Options.HasTS, s.Options.TSVal, s.Options.TSEcr = true, c.tstamp.recent, c.tstamp.value(w.now)
	c.Input(w.now, &s)
	if !c.Output(w.now, &out) || out.DataLen() == 0 {
		t.Fatalf("nothing is sent: %+v", c.Info(w.now))
	}
	out.Release()
}

func TestECNIsOffUnlessBothWant(t *testing.T) {
	for _, tc := range []struct{ a, b bool }{{true, false}, {false, true}} {
		w := established(t, func(a, b *Config) { a.ECN, b.ECN = tc.a, tc.b })
		w.wiretap = func(from *host, s *Segment) {
			if s.ECT || s.Flags&(header.TCPFlagEce|header.TCPFlagCwr) != 0 {
				t.Errorf("%s sent %s, ECT %v", from.name, s.String(), s.ECT)
			}
		}
		w.pump(w.a, noise(10_000, 1), time.Minute)
		w.pump(w.b, noise(10_000, 1), time.Minute)
	}
}

// Data with CWR is acknowledged at once, even where acknowledgements wait: the
// peer's window may have room for no more.
func TestCWRIsAcknowledgedAtOnce(t *testing.T) {
	for _, tc := range []struct {
		flags header.TCPFlags
		want  int
	}{{0, 0}, {header.TCPFlagCwr, 1}} {
		s := newScripted(t, func(c *Config) { c.ECN = true })
		s.c.delack = delayedACK{interactive: true, acked: s.c.rcv.nxt, arrived: s.now}
		s.in(s.seg(tc.flags, s.c.snd.nxt, "hello"))
		if got := len(s.drain()); got != tc.want {
			t.Errorf("flags %v: %d segments in answer, want %d", tc.flags, got, tc.want)
		}
	}
}

// A tail loss probe is sent while the window is being reduced, too.
// https://www.rfc-editor.org/rfc/rfc8985#section-7.2 (the sender is not in fast or RTO recovery)
func TestTailLossProbeInCWR(t *testing.T) {
	s := newScripted(t, func(c *Config) { c.ECN = true })
	size := s.c.segmentSize()
	s.write(4 * size)
	s.drain()
	s.in(s.seg(header.TCPFlagEce, s.c.snd.una.Add(seqnum.Size(size)), ""))
	s.drain()
	if s.c.loss.phase != phaseCWR {
		t.Fatalf("phase %d", s.c.loss.phase)
	}
	s.tick(s.now.Add(time.Second))
	sent := len(s.drain())
	if n := s.c.Counters(); sent != 1 || n.TailLossProbes != 1 || n.Timeouts != 0 {
		t.Errorf("no probe before the timeout: %+v", n)
	}
}

// A loss that a tail loss probe repaired reduces the window, and that is said
// with CWR like any reduction.
// https://www.rfc-editor.org/rfc/rfc3168#section-6.1.2
func TestRepairedTailLossSaysCWR(t *testing.T) {
	s := newScripted(t, func(c *Config) { c.ECN = true })
	size := s.c.segmentSize()
	s.write(2 * size)
	s.drain()
	s.tick(s.now.Add(time.Second))
	if len(s.drain()) != 1 || s.c.Counters().TailLossProbes != 1 {
		t.Fatal("no probe")
	}
	end := s.c.snd.nxt
	s.now = s.now.Add(10 * time.Millisecond)
	s.in(s.seg(0, end, ""))
	s.write(size)
	s.drain()
	s.now = s.now.Add(10 * time.Millisecond)
	s.in(s.seg(0, s.c.snd.nxt, ""))
	s.write(size)
	out := s.drain()
	if len(out) != 1 || !out[0].Has(header.TCPFlagCwr) {
		t.Errorf("%d segments, and no CWR after the window was reduced", len(out))
	}
}
