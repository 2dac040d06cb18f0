package cc

import (
	"testing"
	"time"
)

const mss = 1460

// flow drives a controller as a sender with always enough to send would: it
// delivers a window in each round trip, spread over a number of
// acknowledgements.
type flow struct {
	Controller
	now  int64
	rtt  time.Duration
	mss  int
	acks int64 // acknowledgements in each round trip
}

func newFlow(t *testing.T, name string, rtt time.Duration, acks int64) *flow {
	t.Helper()
	c, err := New(name, mss)
	if err != nil {
		t.Fatal(err)
	}
	return &flow{Controller: c, now: int64(time.Hour), rtt: rtt, mss: mss, acks: acks}
}

// round is one round trip. It returns the bytes delivered.
func (f *flow) round() int64 {
	w := f.Window()
	for i := range f.acks {
		f.now += int64(f.rtt) / f.acks
		// The parts add up to exactly the window.
		f.ack(w*(i+1)/f.acks-w*i/f.acks, i == 0)
	}
	return w
}

func (f *flow) ack(n int64, newRound bool) {
	f.OnAck(Ack{Now: f.now, Acked: n, Flight: f.Window(), MSS: f.mss, RTT: f.rtt, SRTT: f.rtt, NewRound: newRound})
}

func (f *flow) signal(s Signal) {
	f.OnCongestion(Congestion{Now: f.now, Signal: s, Flight: f.Window(), MSS: f.mss})
}

// wantSegments checks the window and the threshold, in whole segments;
// threshold -1 is Unlimited.
func (f *flow) wantSegments(t *testing.T, what string, window, threshold int64) {
	t.Helper()
	th := f.Threshold() / int64(f.mss)
	if f.Threshold() == Unlimited {
		th = -1
	}
	if f.Window()/int64(f.mss) != window || th != threshold {
		t.Fatalf("%s: window %.2f, threshold %d; want %d and %d segments",
			what, float64(f.Window())/float64(f.mss), th, window, threshold)
	}
}

// A step of a trajectory: what happens, and the window and threshold after it.
type step struct {
	name              string
	do                func(f *flow)
	window, threshold int64 // whole segments; threshold -1: Unlimited
}

func runSteps(t *testing.T, algorithm string, steps []step) {
	t.Helper()
	f := newFlow(t, algorithm, 20*time.Millisecond, 10)
	f.wantSegments(t, "at the start", 10, -1)
	for _, s := range steps {
		s.do(f)
		f.wantSegments(t, s.name, s.window, s.threshold)
	}
}

func rounds(n int) func(*flow) {
	return func(f *flow) {
		for range n {
			f.round()
		}
	}
}

func signal(s Signal) func(*flow) { return func(f *flow) { f.signal(s) } }

func ackSegments(n int64) func(*flow) {
	return func(f *flow) { f.ack(n*mss, false) }
}

func idle(d time.Duration) func(*flow) {
	return func(f *flow) {
		f.now += int64(d)
		f.OnIdle(f.now, d, time.Second, f.mss)
	}
}

func undoIt(f *flow) { f.Undo(f.now) }

func limited(f *flow) {
	f.OnAck(Ack{Now: f.now, Acked: 100 * mss, MSS: mss, RTT: f.rtt, SRTT: f.rtt, AppLimited: true})
}
