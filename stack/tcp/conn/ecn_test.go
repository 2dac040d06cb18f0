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
