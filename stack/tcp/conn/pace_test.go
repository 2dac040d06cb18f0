package conn

import (
	"math"
	"testing"
	"time"
)

// sending is when a's data segments leave, and how large they are.
type sending struct {
	at   Time
	size int
}

// sendings records what a sends from now on.
func (w *world) sendings() *[]sending {
	list := new([]sending)
	w.wiretap = func(from *host, s *Segment) {
		if n := int(s.DataLen()); from == w.a && n > 0 {
			*list = append(*list, sending{w.now, n})
		}
	}
	return list
}

// pacedWorld is a world in which a paces, has a window, and is in slow start or
// not. The round trip is 20 ms.
func pacedWorld(t *testing.T, slowStart bool, tune ...func(a, b *Config)) *world {
	w := established(t, append([]func(a, b *Config){func(a, _ *Config) { a.Congestion, a.Options.Pacing = "reno", true }}, tune...)...)
	w.warm()
	if !slowStart {
		w.losing(func(n int) bool { return n == 0 })
		w.pump(w.a, noise(100_000, 3), time.Minute)
		w.fate = nil
	}
	if got := w.a.c.cc.Window() < w.a.c.cc.Threshold(); got != slowStart {
		t.Fatalf("slow start: %v, want %v", got, slowStart)
	}
	return w
}

// A window is spread over the round trip, at twice its rate in slow start and
// at 1.2 times it later; little leaves at once.
func TestPacing(t *testing.T) {
	for _, tc := range []struct {
		name      string
		slowStart bool
		gain      float64
	}{{"slow start", true, 2}, {"avoidance", false, 1.2}} {
		w := pacedWorld(t, tc.slowStart)
		window, rtt := float64(w.a.c.cc.Window()), w.a.c.rtt.smoothed
		list := w.sendings()
		begun := w.now
		w.a.write(w, noise(int(window), 2))
		w.run(2*w.delay-1, nil) // before the first acknowledgement
		w.b.read(w)
		var sent, burst, most int
		at := Never
		for _, s := range *list {
			if s.at != at {
				at, burst = s.at, 0
			}
			burst += s.size
			most = max(most, burst)
			sent += s.size
		}
		if sent < int(window)-w.a.c.segmentSize() {
			t.Fatalf("%s: %d bytes sent of a window of %.0f", tc.name, sent, window)
		}
		perSecond := window * tc.gain / rtt.Seconds()
		depth := int(perSecond*time.Millisecond.Seconds()) + w.a.c.segmentSize()
		if most > depth {
			t.Errorf("%s: %d bytes at once, want at most %d", tc.name, most, depth)
		}
		want := time.Duration((window - float64(depth)) / perSecond * float64(time.Second))
		if took := at.Sub(begun); took < want*95/100 || took > want*105/100 {
			t.Errorf("%s: the last of a window left after %v, want about %v of a round trip of %v", tc.name, took, want, rtt)
		}
	}
}

// Without the option everything leaves as soon as the window lets it, and
// switching it off lets go what it has held back.
func TestPacingIsOffByDefault(t *testing.T) {
	w := established(t)
	w.warm()
	list := w.sendings()
	begun := w.now
	w.a.write(w, noise(int(w.a.c.cc.Window()), 2))
	w.run(time.Millisecond, nil)
	if n := len(*list); n == 0 || (*list)[n-1].at != begun || w.a.c.unsent() > 0 {
		t.Errorf("%d segments have left at once, %d bytes have not", n, w.a.c.unsent())
	}

	w = pacedWorld(t, true)
	w.a.write(w, noise(int(w.a.c.cc.Window()), 2))
	w.run(0, nil)
	if w.a.c.unsent() == 0 || !w.a.c.timers.running(timerPace) {
		t.Fatalf("%d bytes are held back, timer: %v", w.a.c.unsent(), w.a.c.timers.running(timerPace))
	}
	o := w.a.c.Options()
	o.Pacing = false
	w.a.c.SetOptions(w.now, o)
	w.run(0, nil)
	if int(w.a.c.unsent()) >= w.a.c.segmentSize() || w.a.c.timers.running(timerPace) {
		t.Errorf("%d bytes are held back without pacing, timer: %v", w.a.c.unsent(), w.a.c.timers.running(timerPace))
	}
}

// A timer that comes late is made up for, by a millisecond and no more.
func TestPacingMakesUpForALateTimer(t *testing.T) {
	for _, late := range []time.Duration{0, 500 * time.Microsecond, time.Millisecond, 5 * time.Millisecond} {
		w := pacedWorld(t, false)
		c := &w.a.c
		w.a.write(w, noise(int(c.cc.Window()), 2))
		w.run(0, nil)
		list := w.sendings()
		w.now = c.Deadline().Add(late)
		c.Tick(w.now)
		w.settle(w.a)
		got := 0
		for _, s := range *list {
			got += s.size
		}
		perSecond := float64(c.cc.Window()) * 1.2 / c.rtt.smoothed.Seconds()
		want := int(perSecond*min(late, time.Millisecond).Seconds()) + c.segmentSize()
		if got > want || got <= want-c.segmentSize() {
			t.Errorf("%v late: %d bytes leave, want %d less a part of a segment", late, got, want)
		}
	}
}

// Retransmissions are paced too, and the window's growth is not held back.
func TestPacedTransferKeepsItsRate(t *testing.T) {
	took := func(pacing bool) time.Duration {
		w := established(t, func(a, _ *Config) { a.Options.Pacing = pacing })
		w.losing(func(n int) bool { return n%200 == 100 || n > 1000 && n < 1010 })
		begun := w.now
		w.pump(w.a, noise(4_000_000, 1), time.Minute)
		if n := w.a.c.Counters(); n.Timeouts != 0 {
			t.Errorf("pacing %v: %+v", pacing, n)
		}
		return w.now.Sub(begun)
	}
	without, with := took(false), took(true)
	if with > without*5/4 {
		t.Errorf("4 MB took %v with pacing, %v without", with, without)
	}
}

// Rates times times need more than 64 bits in between.
func TestMuldiv(t *testing.T) {
	for _, tc := range []struct{ a, b, d, want int64 }{
		{0, 5, 1, 0}, {7, 3, 2, 10}, {1 << 40, 1 << 40, 1 << 40, 1 << 40}, {1 << 62, 4, 1, math.MaxInt64},
		{math.MaxInt64, math.MaxInt64, math.MaxInt64, math.MaxInt64}, {1 << 31, 1 << 37, 1 << 20, 1 << 48},
	} {
		if got := muldiv(tc.a, tc.b, tc.d); got != tc.want {
			t.Errorf("%d*%d/%d is %d, want %d", tc.a, tc.b, tc.d, got, tc.want)
		}
	}
}
