package conn

import (
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/seqnum"
)

// perPacket is how far apart packets arrive in tests of this file, so that each
// is acknowledged by itself.
const perPacket = 10 * time.Microsecond

// fated makes the path deliver packets one by one. fate, if not nil, decides
// about the data segments of a, counted from 0 in the order in which they are
// sent from now on, and about the rest, with n < 0.
func (w *world) fated(fate func(from *host, s *Segment, n int) (late time.Duration, copies int)) {
	n := -1
	free := map[*host]Time{}
	w.fate = func(from *host, s *Segment) (late time.Duration, copies int) {
		free[from] = max(free[from], w.now).Add(perPacket)
		this := -1
		if from == w.a && s.DataLen() > 0 {
			n++
			this = n
		}
		late, copies = fate(from, s, this)
		return late + free[from].Sub(w.now), copies
	}
}

// losing drops those data segments of a that pick says.
func (w *world) losing(pick func(n int) bool) {
	w.fated(func(_ *host, _ *Segment, n int) (time.Duration, int) {
		if n >= 0 && pick(n) {
			return 0, 0
		}
		return 0, 1
	})
}

// segmentsSent is how many segments of data a has sent, repetitions included.
func (w *world) segmentsSent() int {
	return int(w.a.c.Counters().BytesSent) / w.a.c.segmentSize()
}

// warm gives a a window to speak of, and returns it in segments.
func (w *world) warm() int {
	w.pump(w.a, noise(300_000, 1), time.Minute)
	return int(w.a.c.cwnd()) / w.a.c.segmentSize()
}

// A loss is found whatever the sequence numbers are.
func TestLossIsFoundAtAnySequenceNumber(t *testing.T) {
	for _, iss := range []uint32{0, 1000, 1<<31 - 5000, 0x90000000, 0xffffe000} {
		for _, rack := range []bool{true, false} {
			w := established(t, func(a, b *Config) { a.ISS, a.RACK = seqnum.Value(iss), rack })
			w.losing(func(n int) bool { return n == 3 })
			w.pump(w.a, noise(200_000, 1), time.Minute)
			if n := w.a.c.Counters(); n.Timeouts != 0 || n.Retransmits != 1 {
				t.Errorf("ISS %#x, RACK %v: one segment was lost: %+v", iss, rack, n)
			}
		}
	}
}

// Recovery sends on at the reduced rate, rather than stop and then burst. With
// SACK and without: there duplicate acknowledgements tell what has arrived.
func TestRecoveryKeepsSending(t *testing.T) {
	for _, sack := range []bool{true, false} {
		w := established(t, func(a, b *Config) { a.SACK, a.Congestion = sack, "reno" })
		flight := w.warm()
		w.losing(func(n int) bool { return n == 0 })
		before := w.segmentsSent()
		w.a.write(w, noise(4*flight*w.a.c.segmentSize(), 2))
		w.run(2*w.delay+time.Duration(flight)*perPacket+time.Millisecond, nil) // the duplicates have come
		if w.a.c.loss.phase != phaseRecovery {
			t.Fatalf("SACK %v: phase %d, want recovery", sack, w.a.c.loss.phase)
		}
		extra := w.segmentsSent() - before - flight - 1
		if want := flight / 2; extra < want-3 || extra > want+1 {
			t.Errorf("SACK %v: %d new segments in recovery's first round trip with %d in flight, want about half", sack, extra, flight)
		}
		w.run(time.Minute, func() bool { w.b.read(w); return w.a.c.Unacked() == 0 })
		w.same(w.a)
		if n := w.a.c.Counters(); n.Timeouts != 0 || n.Retransmits != 1 {
			t.Errorf("SACK %v: one segment was lost: %+v", sack, n)
		}
	}
}

// Several holes in one flight are filled, one in each round trip, without SACK
// (RFC 6582); a partial acknowledgement does not forget what duplicates told.
func TestNewRenoFillsSeveralHoles(t *testing.T) {
	w := established(t, func(a, b *Config) { a.SACK, a.Congestion = false, "reno" })
	w.warm()
	w.losing(func(n int) bool { return n == 1 || n == 5 || n == 9 })
	begun := w.now
	w.pump(w.a, noise(100_000, 2), time.Minute)
	if n := w.a.c.Counters(); n.Timeouts != 0 || n.Retransmits != 3 || n.FastRecoveries != 1 {
		t.Errorf("three segments were lost: %+v", n)
	}
	if took, most := w.now.Sub(begun), 8*2*w.delay; took > most {
		t.Errorf("took %v, want at most %v", took, most)
	}
}

// A retransmission that is lost when nothing was sent after it shows by the
// silence, long before the timeout.
func TestLostLastRetransmissionIsProbed(t *testing.T) {
	for _, sack := range []bool{true, false} {
		w := established(t, func(a, b *Config) { a.SACK = sack })
		w.warm()
		w.losing(func(n int) bool { return n == 0 || n == 8 }) // n == 8 is the retransmission
		begun := w.now
		w.pump(w.a, noise(8*w.a.c.segmentSize(), 2), time.Minute)
		n := w.a.c.Counters()
		if n.Timeouts != 0 || n.TailLossProbes != 1 {
			t.Errorf("SACK %v: a segment and its retransmission were lost: %+v", sack, n)
		}
		if took, most := w.now.Sub(begun), 6*2*w.delay; took > most {
			t.Errorf("SACK %v: took %v, want at most %v", sack, took, most)
		}
	}
}

// If the probe is lost too, the timeout comes, a timeout after the probe.
func TestLostProbeInRecoveryTimesOut(t *testing.T) {
	w := established(t)
	w.warm()
	w.losing(func(n int) bool { return n == 0 || n == 8 || n == 9 })
	w.pump(w.a, noise(8*w.a.c.segmentSize(), 2), time.Minute)
	if n := w.a.c.Counters(); n.Timeouts != 1 || n.TailLossProbes != 1 {
		t.Errorf("a segment, its retransmission and the probe were lost: %+v", n)
	}
}

// Lost acknowledgements are no reordering: the next one tells of several
// blocks, and lists the latest first.
func TestLostAcknowledgementsAreNoReordering(t *testing.T) {
	w := established(t)
	w.warm()
	acks := 0
	w.fated(func(from *host, s *Segment, n int) (time.Duration, int) {
		if n == 2 || n == 4 || n == 6 {
			return 0, 0
		}
		if from == w.b && s.Options.NumSACK > 0 {
			if acks++; acks <= 4 {
				return 0, 0
			}
		}
		return 0, 1
	})
	w.pump(w.a, noise(12*w.a.c.segmentSize(), 2), time.Minute)
	if w.a.c.loss.rack.reordered {
		t.Error("reordering was seen where nothing was reordered")
	}
	if n := w.a.c.Counters(); n.Retransmits != 3 {
		t.Errorf("three segments were lost: %+v", n)
	}
}

// Reordering that does happen is seen.
func TestReorderingIsSeen(t *testing.T) {
	w := established(t)
	w.warm()
	w.fated(func(_ *host, _ *Segment, n int) (time.Duration, int) {
		if n == 9 { // so that two pass it, no reason to retransmit at once
			return w.delay / 5, 1
		}
		return 0, 1
	})
	var sacked bool
	w.wiretap = func(from *host, s *Segment) { sacked = sacked || from == w.b && s.Options.NumSACK > 0 }
	w.pump(w.a, noise(12*w.a.c.segmentSize(), 2), time.Minute)
	if !sacked || !w.a.c.loss.rack.reordered {
		t.Errorf("a segment came late: SACKed %v, reordering seen %v", sacked, w.a.c.loss.rack.reordered)
	}
	if w.a.c.loss.phase != phaseOpen || w.a.c.Info(w.now).Cwnd < 10*1448 {
		t.Errorf("phase %d, window %d: the reduction was not undone", w.a.c.loss.phase, w.a.c.Info(w.now).Cwnd)
	}
}

// What a tail loss probe may not do is hide a loss from congestion control.
func TestTailLossProbe(t *testing.T) {
	w := established(t, func(a, b *Config) { a.Congestion = "reno" })
	flight := w.warm()
	w.losing(func(n int) bool { return n == 2 || n == 3 }) // the last of four
	begun := w.now
	w.pump(w.a, noise(4*w.a.c.segmentSize(), 2), time.Minute)
	n := w.a.c.Counters()
	if n.Timeouts != 0 || n.TailLossProbes != 1 {
		t.Errorf("the last segments were lost: %+v", n)
	}
	if took := w.now.Sub(begun); took > 105*time.Millisecond {
		t.Errorf("took %v, want four round trips or so", took)
	}
	if got := int(w.a.c.cc.Window()) / w.a.c.segmentSize(); got >= flight {
		t.Errorf("window %d segments after the loss, %d before", got, flight)
	}
}

// A probe that the peer acknowledges without having reported a duplicate counts
// as a recovery, once; the window is reduced for it when more is acknowledged.
func TestTailLossProbeIsCountedOnce(t *testing.T) {
	for _, needless := range []bool{false, true} {
		tr := newTrace(t, 10)
		tr.want("the rest", tr.ack(10), count(10, 20))
		tr.now = tr.now.Add(10 * time.Millisecond)
		tr.ack(29)
		for end := tr.now.Add(time.Second); len(tr.sent()) == 0; {
			if !tr.tick(end) {
				t.Fatal("no probe")
			}
		}
		window := tr.c.cc.Window()
		tr.now = tr.now.Add(10 * time.Millisecond)
		if needless {
			tr.ack(30, [2]int{29, 30})
		} else {
			tr.ack(30)
		}
		recoveries := map[bool]uint64{false: 1, true: 0}[needless]
		if got := tr.c.Counters().SACKRecoveries; got != recoveries {
			t.Errorf("needless %v: %d recoveries, want %d", needless, got, recoveries)
		}
		if got := tr.c.cc.Window(); got < window {
			t.Errorf("needless %v: window %d before it is known, want %d", needless, got, window)
		}
		tr.write(tr.size)
		tr.drain()
		tr.ack(31)
		if got := tr.c.Counters().SACKRecoveries; got != recoveries {
			t.Errorf("needless %v: %d recoveries in the end, want %d", needless, got, recoveries)
		}
		if got := tr.c.cc.Window(); (got < window) == needless {
			t.Errorf("needless %v: window %d in the end, %d before", needless, got, window)
		}
	}
}

// A lost acknowledgement is no long round trip, though the timestamp it would
// have echoed comes late: the timeout must not feed on itself.
func TestLostAcknowledgementsDoNotStretchTheTimeout(t *testing.T) {
	w := established(t, func(a, b *Config) { a.SACK = false })
	w.warm()
	acks := 0
	w.fated(func(from *host, s *Segment, _ int) (time.Duration, int) {
		if from == w.b {
			if acks++; acks%3 == 1 { // the first answer of every second exchange
				return 0, 0
			}
		}
		return 0, 1
	})
	for range 40 {
		w.pump(w.a, noise(100, 2), time.Minute)
	}
	if rto := w.a.c.rtt.base(&w.a.c.cfg); rto > 300*time.Millisecond {
		t.Errorf("timeout %v on a path of %v", rto, 2*w.delay)
	}
	if n := w.a.c.Counters(); n.Timeouts < 20 {
		t.Errorf("%d timeouts: this tests nothing", n.Timeouts)
	}
}

// When the path becomes longer than the timeout, the timeout follows.
func TestTimeoutFollowsALongerPath(t *testing.T) {
	for _, stamps := range []bool{true, false} {
		w := established(t, func(a, b *Config) { a.Timestamps = stamps })
		w.warm()
		w.delay = time.Second
		for range 10 {
			w.pump(w.a, noise(100, 2), time.Minute)
		}
		before := w.a.c.Counters().Timeouts
		for range 10 {
			w.pump(w.a, noise(100, 2), time.Minute)
		}
		if n := w.a.c.Counters().Timeouts - before; n > 0 {
			t.Errorf("timestamps %v: %d timeouts in ten round trips of 2 s, timeout %v", stamps, n, w.a.c.rtt.timeout(&w.a.c.cfg))
		}
	}
}

// A long transfer with losses keeps no list of all its retransmissions.
func TestRetransmissionsAreForgotten(t *testing.T) {
	for _, able := range []bool{true, false} {
		w := established(t, func(a, b *Config) { a.SACK, a.RACK = able, able })
		w.losing(func(n int) bool { return n%50 == 7 })
		most := 0
		w.wiretap = func(*host, *Segment) { most = max(most, len(w.a.c.board.rtxq), len(w.a.c.board.lost)) }
		w.pump(w.a, noise(10<<20, 1), time.Hour)
		if n := w.a.c.Counters().Retransmits; n < 100 || most > 50 {
			t.Errorf("SACK and RACK %v: %d of %d retransmissions remembered at once", able, most, n)
		}
	}
}
