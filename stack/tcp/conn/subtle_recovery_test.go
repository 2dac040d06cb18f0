package conn

import (
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/seqnum"
)

// sack acknowledges una and SACKs one block.
func (s *scripted) sack(una, start, end seqnum.Value) {
	g := s.seg(0, una, "")
	g.Options.SACK[0] = header.SACKBlock{Start: start, End: end}
	g.Options.NumSACK = 1
	s.in(g)
}

// A recovery that the reordering timer begins retransmits at once.
func TestSubtleReorderTimerRetransmits(t *testing.T) {
	s := newScripted(t)
	s.write(4 * 1448)
	if n := len(s.drain()); n != 1 && n != 4 {
		t.Fatal(n)
	}
	una := s.c.snd.una
	s.now = s.now.Add(10 * time.Millisecond)
	s.sack(una, una.Add(1448), una.Add(3*1448)) // the first is missing, the fourth is on its way
	start := s.now
	if len(s.drain()) > 0 {
		t.Log("retransmitted at once")
		return
	}
	for s.tick(start.Add(time.Second)) {
		for _, o := range s.drain() {
			if o.Seq == una {
				if d := s.now.Sub(start); d > 10*time.Millisecond {
					t.Errorf("retransmitted %v after the SACK, want the reordering window of 2.5 ms; phase %d, %d timeouts", d, s.c.loss.phase, s.c.stats.Timeouts)
				}
				return
			}
		}
	}
	t.Error("not retransmitted")
}

// A small segment is lost among small segments: it is retransmitted when it is
// found lost, not when the timeout comes.
func TestSubtleLossAmongSmallSegments(t *testing.T) {
	s := newScripted(t, func(c *Config) { c.Options.NoDelay = true })
	una := s.c.snd.una
	for range 8 {
		s.write(100)
		s.drain()
		s.now = s.now.Add(time.Millisecond)
	}
	s.now = s.now.Add(10 * time.Millisecond)
	start := s.now
	// Segments 2..5 have arrived, 6..8 are on their way.
	for i := range seqnum.Size(4) {
		s.sack(una, una.Add(100), una.Add(200+100*i))
		for _, o := range s.drain() {
			if o.Seq == una {
				return
			}
		}
	}
	for s.tick(start.Add(time.Second)) {
		for _, o := range s.drain() {
			if o.Seq == una {
				if d := s.now.Sub(start); d > 10*time.Millisecond {
					t.Errorf("retransmitted after %v; phase %d, %d timeouts, window %d, flight %d", d, s.c.loss.phase, s.c.stats.Timeouts, s.c.cwnd(), s.c.flight())
				}
				return
			}
		}
	}
	t.Error("not retransmitted")
}

// The same with a FIN in flight behind the hole.
func TestSubtleLossBeforeFIN(t *testing.T) {
	w := established(t)
	w.pump(w.a, noise(3000, 1), time.Minute)
	n := 0
	w.fate = func(from *host, s *Segment) (time.Duration, int) {
		if from == w.a && s.DataLen() > 0 {
			if n++; n == 1 {
				return 0, 0
			}
		}
		return 0, 1
	}
	start := w.now
	w.a.write(w, noise(9000, 2))
	w.settle(w.a)
	w.a.c.Shutdown(w.now, false, true)
	w.run(time.Minute, func() bool { w.b.read(w); return w.b.closed })
	if took := w.now.Sub(start); took > 100*time.Millisecond || w.a.c.stats.Timeouts > 0 {
		t.Errorf("took %v, %d timeouts; a round trip is 20 ms", took, w.a.c.stats.Timeouts)
	}
}

// A SYN-ACK that answers a repeated SYN echoes the timestamp of that one.
func TestSubtleRepeatedSYNTimestamp(t *testing.T) {
	w := newWorld(t)
	cfg := testConfig(issA)
	c := &w.a.c
	syn := Segment{Seq: 7000, Flags: header.TCPFlagSyn, Window: 65535, Options: Options{MSS: 1460, HasTS: true, TSVal: 5}}
	again := syn
	c.Accept(w.now, &cfg, &syn)
	var out Segment
	c.Output(w.now, &out)
	w.now = w.now.Add(time.Second)
	again.Options.TSVal = 1005
	c.Input(w.now, &again)
	if !c.Output(w.now, &out) || out.Options.TSEcr != 1005 {
		t.Errorf("answered by %s: the peer will take the second that its SYN was lost for a round trip", out.String())
	}
}

// Data with a FIN that come early count, both, when the hole is filled.
func TestSubtleEarlyDataWithFIN(t *testing.T) {
	s := newScripted(t)
	late := s.seg(header.TCPFlagFin, s.c.snd.nxt, "world")
	late.Seq = s.seq.Add(5)
	s.in(late)
	s.drain()
	s.in(s.seg(0, s.c.snd.nxt, "hello"))
	out := s.drain()
	if s.c.State() != StateCloseWait || s.c.Readable() != 10 {
		t.Errorf("%s, %d bytes, FIN noted at %d, it is at %d; answered %v", s.c.State(), s.c.Readable(), s.c.reasm.fin, s.seq.Add(10), out)
	}
}
