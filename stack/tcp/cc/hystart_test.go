package cc

import (
	"testing"
	"time"
)

// A round of a table: its round-trip times, and where it must leave HyStart++.
type hystartRound struct {
	ms      []int // samples, milliseconds
	limited bool
	css     bool // in Conservative Slow Start when the round is over
	exit    bool // slow start ends in this round
}

// times is n samples of ms milliseconds.
func times(n, ms int) []int {
	s := make([]int, n)
	for i := range s {
		s[i] = ms
	}
	return s
}

func TestHystartRounds(t *testing.T) {
	for name, table := range map[string][]hystartRound{
		"constant delay": {
			{ms: times(10, 50)}, {ms: times(20, 50)}, {ms: times(40, 50)}, {ms: times(80, 50)},
		},
		"delay grows by an eighth": {
			{ms: times(10, 80)},
			{ms: times(8, 90), css: true},
			{ms: times(8, 90), css: true},
			{ms: times(8, 91), css: true},
			{ms: times(8, 92), css: true},
			{ms: times(8, 95), css: true}, // The fifth, the one it began in included.
			{ms: times(8, 95), exit: true},
		},
		"delay grows by less": {
			{ms: times(10, 80)}, {ms: times(8, 89)}, {ms: times(8, 98)},
		},
		"at least 4 ms": {
			{ms: times(10, 1)}, {ms: times(8, 4)}, {ms: times(8, 7)}, {ms: times(8, 11), css: true},
		},
		"at most 16 ms": {
			{ms: times(10, 400)}, {ms: times(8, 415)}, {ms: times(8, 431), css: true},
		},
		"seven samples are too few": {
			{ms: times(10, 50)}, {ms: times(7, 100)}, {ms: times(8, 120), css: true},
		},
		"one low sample in eight is enough": {
			{ms: times(10, 50)}, {ms: append(times(7, 100), 50)},
		},
		"one low round was jitter": {
			{ms: times(10, 50)},
			{ms: times(8, 60), css: true},
			{ms: times(8, 59)},
			{ms: times(8, 59)},
			// The count begins anew.
			{ms: times(8, 70), css: true},
			{ms: times(8, 70), css: true},
			{ms: times(8, 70), css: true},
			{ms: times(8, 70), css: true},
			{ms: times(8, 70), css: true},
			{ms: times(8, 70), exit: true},
		},
		"equal to the baseline is no jitter": {
			{ms: times(10, 50)}, {ms: times(8, 60), css: true}, {ms: times(8, 60), css: true},
		},
		"a round without samples compares with nothing": {
			{ms: times(10, 50)}, {ms: []int{0, 0}}, {ms: times(8, 100)}, {ms: times(8, 120), css: true},
		},
		"application limited": {
			{ms: times(10, 50)}, {ms: times(8, 100), limited: true}, {ms: times(8, 100)},
		},
		"application limited rounds do not count": {
			{ms: times(10, 50)},
			{ms: times(8, 60), css: true},
			{ms: times(8, 60), css: true, limited: true},
			{ms: times(8, 60), css: true, limited: true},
			{ms: times(8, 60), css: true},
			{ms: times(8, 60), css: true},
			{ms: times(8, 60), css: true},
			{ms: times(8, 60), css: true},
			{ms: times(8, 60), exit: true},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var h hystart
			for i, r := range table {
				exit := false
				for j, ms := range r.ms {
					if exit = h.onAck(time.Duration(ms)*time.Millisecond, j == 0, r.limited); exit {
						break
					}
				}
				if exit != r.exit || !exit && h.css() != r.css {
					t.Fatalf("round %d: exit %v, CSS %v; want %v, %v", i, exit, h.css(), r.exit, r.css)
				}
			}
		})
	}
}

// A queue that builds up ends the first slow start: growth drops to a quarter
// for five rounds, and then congestion avoidance begins at the window reached.
func TestHystartEndsSlowStart(t *testing.T) {
	f := newFlow(t, "cubic", 50*time.Millisecond, 16)
	f.round()
	f.round()
	f.wantSegments(t, "slow start", 40, -1)
	f.rtt = 60 * time.Millisecond
	f.round() // Half of it in slow start, half in CSS.
	if w := f.Window(); w <= 50*mss || w >= 80*mss {
		t.Fatalf("window %d segments in the round that CSS begins", w/mss)
	}
	for i := range 4 {
		w := f.Window()
		f.round()
		if got, want := f.Window()-w, w/4; got < want-1 || got > want+1 {
			t.Fatalf("CSS round %d: grew by %d, want a quarter of %d", i, got, w)
		}
		if f.Threshold() != Unlimited {
			t.Fatalf("slow start ended in round %d of CSS", i)
		}
	}
	w := f.Window()
	f.round()
	if f.Threshold() != w {
		t.Fatalf("threshold %d after five rounds of CSS, want the window, %d", f.Threshold(), w)
	}
	if c := f.Controller.(*cubic); c.prior != w || c.wmax != w || c.k != 0 {
		t.Fatalf("cwnd_prior %d, W_max %d, K %d; want %d, %d, 0", c.prior, c.wmax, c.k, w, w)
	}
	if got := f.Window() - w; got < 0 || got > mss+1 {
		t.Fatalf("grew by %d in the first round of congestion avoidance", got)
	}
}

// flowInCSS is a flow in Conservative Slow Start.
func flowInCSS(t *testing.T) *flow {
	t.Helper()
	f := newFlow(t, "cubic", 50*time.Millisecond, 16)
	rounds(4)(f)
	f.rtt = 80 * time.Millisecond
	f.round()
	if !f.Controller.(*cubic).hystart.css() {
		t.Fatal("not in CSS")
	}
	return f
}

func wantDoubling(t *testing.T, f *flow, rounds int) {
	t.Helper()
	for i := range rounds {
		w := f.Window()
		f.round()
		if f.Window() != 2*w {
			t.Fatalf("round %d: window %d, want twice %d", i, f.Window(), w)
		}
	}
}

// A slow start whose end is known does without.
func TestHystartOnlyFirst(t *testing.T) {
	f := flowInCSS(t)
	f.signal(Timeout)
	wantDoubling(t, f, 2)
	f.rtt *= 2
	wantDoubling(t, f, 2)
}

// After a long silence nothing is known of the path's delay.
func TestHystartForgetsWhenIdle(t *testing.T) {
	f := flowInCSS(t)
	idle(10 * time.Second)(f)
	f.rtt *= 2
	wantDoubling(t, f, 2)
}

func TestHystartTakesAnyRTT(t *testing.T) {
	for _, rtt := range []time.Duration{-1 << 63, -1, 0, 1, 999, 1 << 62, 1<<63 - 1} {
		var h hystart
		for i := range 100 {
			h.onAck(rtt, i%10 == 0, false)
			h.onAck(1<<63-1, false, false)
		}
		if h.css() {
			t.Errorf("%d ns: CSS without a change of delay", rtt)
		}
	}
}
