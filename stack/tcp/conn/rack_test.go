package conn

import (
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/seqnum"
)

// The reordering window: a quarter of the least round trip, one quarter more for
// each round trip with a DSACK, never more than SRTT, and back after sixteen
// recoveries without one.
// https://www.rfc-editor.org/rfc/rfc8985#section-6.2 (step 4)
func TestReorderingWindowAdapts(t *testing.T) {
	s := newScripted(t)
	c := &s.c
	k := &c.loss.rack
	const rtt = 40 * time.Millisecond
	c.rtt = rttState{smoothed: rtt, min: rtt}
	want := func(what string, quarters int) {
		t.Helper()
		if got, want := c.reorderWindow(), min(time.Duration(quarters)*rtt/4, rtt)+clockGranularity; got != want {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	want("at first", 1)
	una, nxt := c.snd.una, c.snd.nxt.Add(1000)
	k.widen(una, nxt)
	want("a DSACK", 2)
	k.widen(una.Add(500), nxt.Add(500))
	want("another in the same round trip", 2)
	k.widen(nxt, nxt.Add(1000))
	want("one in the next", 3)
	for i := range 10 {
		k.widen(nxt.Add(seqnum.Size(1000*(i+1))), nxt.Add(seqnum.Size(1000*(i+2))))
	}
	want("many: at most the smoothed round trip", 13)
	for range rackPersist - 1 {
		k.settle()
	}
	want("fifteen recoveries", 13)
	k.settle()
	want("sixteen", 1)

	// Without reordering three that overtook are proof enough, and so is being
	// in recovery.
	c.loss.phase = phaseRecovery
	if got := c.reorderWindow(); got != 0 {
		t.Errorf("in recovery on a path that never reordered: %v", got)
	}
	k.reordered = true
	want("in recovery on a path that reorders", 1)
	c.loss.phase = phaseOpen
}

// Everything wraps: both ends' sequence numbers and timestamp clocks overflow in
// a transfer both ways with losses, at each of the last places before the edge.
func TestTransfersAcrossTheWrap(t *testing.T) {
	for back := uint32(0); back < 6000; back += 331 {
		w := established(t, func(a, b *Config) {
			hour := uint32(time.Hour / time.Millisecond) // what the worlds' clocks stand at
			a.ISS, b.ISS = ^seqnum.Value(back), -seqnum.Value(6000-back)
			a.TSOffset, b.TSOffset = -hour-back%50, -hour-30
		})
		n := 0
		w.fate = func(*host, *Segment) (time.Duration, int) {
			if n++; n%13 == 5 {
				return 0, 0
			}
			return 0, 1
		}
		w.pump(w.a, noise(30_000, uint64(back)), time.Minute)
		w.pump(w.b, noise(30_000, uint64(back)+1), time.Minute)
		if timeouts := w.a.c.Counters().Timeouts + w.b.c.Counters().Timeouts; timeouts > 4 {
			t.Errorf("%d before the edge: %d timeouts", back, timeouts)
		}
	}
}
