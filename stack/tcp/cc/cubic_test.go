package cc

import (
	"fmt"
	"math"
	"testing"
	"time"
)

// Slow start has no samples from which HyStart++ could conclude anything here:
// the round trip is constant.
func TestCubicTrajectory(t *testing.T) {
	for name, steps := range map[string][]step{
		"loss": {
			{"slow start doubles", rounds(3), 80, -1},
			{"loss leaves 0.7", signal(Loss), 56, 56},
			{"ECN too", signal(ECN), 39, 39}, // 39.2
		},
		"timeout": {
			{"slow start", rounds(2), 40, -1},
			{"one segment is left", signal(Timeout), 1, 28},
			{"slow start", rounds(4), 16, 28},
			{"ends at the threshold", ackSegments(12), 28, 28},
		},
		"undo": {
			{"slow start", rounds(2), 40, -1},
			{"loss", signal(Loss), 28, 28},
			{"undo", undoIt, 40, -1},
			{"undo again does nothing", undoIt, 40, -1},
			{"timeout", signal(Timeout), 1, 28},
			{"undo", undoIt, 40, -1},
			{"slow start goes on", rounds(1), 80, -1},
		},
		"floor": {
			{"timeout", signal(Timeout), 1, 7},
			{"loss at one segment", signal(Loss), 2, 2},
		},
		"idle": {
			{"slow start", rounds(4), 160, -1},
			{"one timeout", idle(time.Second), 80, -1},
			{"loss", signal(Loss), 56, 56},
			{"two timeouts", idle(2 * time.Second), 14, 56},
			{"slow start after idle", rounds(2), 56, 56},
		},
		"application limited": {
			{"no slow start", limited, 10, -1},
			{"loss", signal(Loss), 7, 7},
			{"no avoidance", limited, 7, 7},
		},
	} {
		t.Run(name, func(t *testing.T) { runSteps(t, "cubic", steps) })
	}
}

// cubicAt returns a CUBIC flow whose window is w bytes, out of slow start.
func cubicAt(t *testing.T, w int64, rtt time.Duration, acks int64) (*flow, *cubic) {
	t.Helper()
	c, err := Restore(State{Name: "cubic", Window: w, Threshold: w}, int64(time.Hour), mss)
	if err != nil {
		t.Fatal(err)
	}
	return &flow{Controller: c, now: int64(time.Hour), rtt: rtt, mss: mss, acks: acks}, c.(*cubic)
}

// closedForm is RFC 9438 written down anew, in segments and seconds: the larger
// of W_cubic and W_est, t seconds after a stage began at w.
func closedForm(t, w, wmax, prior, rtt float64) (window float64, concave bool) {
	k := math.Cbrt((wmax - w) / 0.4)
	curve := 0.4*math.Pow(t-k, 3) + wmax
	alpha := 3 * 0.3 / 1.7
	est := w + alpha*t/rtt
	if est > prior {
		est = prior + (t/rtt - (prior-w)/alpha)
	}
	return max(curve, est), t < k
}

// The window follows the closed form through its concave and its convex part,
// on paths where the cubic curve matters and on those where Reno's does.
func TestCubicFollowsClosedForm(t *testing.T) {
	for _, rtt := range []time.Duration{1, 5, 20, 50, 100, 300} {
		for _, segments := range []int64{20, 1000, 30000, 200000} {
			rtt := rtt * time.Millisecond
			t.Run(fmt.Sprintf("%v/%d", rtt, segments), func(t *testing.T) {
				f, c := cubicAt(t, segments*mss, rtt, 16)
				f.signal(Loss)
				start := float64(f.Window()) / mss
				f.now += int64(rtt)
				f.ack(0, true) // The stage begins at the first acknowledgement.
				began := f.now
				k := math.Cbrt(float64(segments) * 0.3 / 0.4)
				if got := float64(c.k) / 1e9; math.Abs(got-k) > 0.001*k {
					t.Fatalf("K is %v s, want %v s", got, k)
				}
				var sawConcave, sawConvex bool
				for next := 0.1; next <= 1.8; {
					f.round()
					at := float64(f.now-began) / 1e9
					if at < next*k {
						continue
					}
					next += 0.1
					want, concave := closedForm(at, start, float64(segments), float64(segments), rtt.Seconds())
					if want > maxWindow/mss {
						break
					}
					sawConcave, sawConvex = sawConcave || concave, sawConvex || !concave
					got := float64(f.Window()) / mss
					// Growth aims one round trip ahead and takes one to get there;
					// what is left is a part of what the curve does in that time.
					ahead, _ := closedForm(at+rtt.Seconds(), start, float64(segments), float64(segments), rtt.Seconds())
					if tolerance := 0.002*want + 0.3*(ahead-want) + 1.5; math.Abs(got-want) > tolerance {
						t.Fatalf("%.2f s (K %.2f s): window %.2f segments, want %.2f", at, k, got, want)
					}
				}
				if !sawConcave || !sawConvex {
					t.Fatalf("concave part seen: %v, convex part seen: %v", sawConcave, sawConvex)
				}
			})
		}
	}
}

// With the same bytes between losses, CUBIC has at least Reno's window on short
// paths, and far more on long ones.
func TestCubicIsNoSlowerThanReno(t *testing.T) {
	average := func(name string, rtt time.Duration, between int64) float64 {
		f := newFlow(t, name, rtt, 8)
		f.signal(Loss)
		var delivered, sum, n int64
		for losses := 0; losses < 60; {
			w := f.round()
			if delivered += w; delivered >= between {
				delivered -= between
				f.signal(Loss)
				losses++
			}
			if losses >= 10 {
				sum += w
				n++
			}
		}
		return float64(sum) / float64(n) / mss
	}
	for _, tt := range []struct {
		rtt     time.Duration
		between int64 // segments
		least   float64
	}{
		{time.Millisecond, 500, 0.97},
		{time.Millisecond, 20000, 0.97},
		{10 * time.Millisecond, 1000, 0.97},
		{20 * time.Millisecond, 2000, 0.97},
		{100 * time.Millisecond, 200000, 1.5},
		{300 * time.Millisecond, 200000, 2.5},
	} {
		reno := average("reno", tt.rtt, tt.between*mss)
		cubic := average("cubic", tt.rtt, tt.between*mss)
		if cubic < tt.least*reno {
			t.Errorf("%v, a loss in %d segments: CUBIC's mean window is %.1f segments, Reno's %.1f; want at least %.2f of it",
				tt.rtt, tt.between, cubic, reno, tt.least)
		}
	}
}

// Once W_est is back at cwnd_prior it grows by a segment a round, as Reno does.
func TestCubicGrowsAsRenoPastPrior(t *testing.T) {
	f, c := cubicAt(t, 20*mss, time.Millisecond, 20)
	f.signal(Loss)
	for c.west < c.prior {
		f.round()
	}
	before := f.Window()
	for range 100 {
		f.round()
	}
	if got := float64(f.Window()-before) / mss; math.Abs(got-100) > 1.5 {
		t.Errorf("grew by %.2f segments in 100 rounds", got)
	}
}

func TestCubicFastConvergence(t *testing.T) {
	f, c := cubicAt(t, 1000*mss, 50*time.Millisecond, 1)
	f.signal(Loss)
	if c.wmax != 1000*mss {
		t.Fatalf("W_max %d segments after the first loss, want 1000", c.wmax/mss)
	}
	f.signal(Loss) // At 700, below the plateau.
	if want := int64(700 * mss * 17 / 20); c.wmax != want {
		t.Fatalf("W_max %d after a loss below it, want %d", c.wmax, want)
	}
	f, c = cubicAt(t, 1000*mss, 50*time.Millisecond, 4)
	f.signal(Loss)
	for f.Window() < 1100*mss {
		f.round()
	}
	w := f.Window()
	f.signal(Loss)
	if c.wmax != w {
		t.Fatalf("W_max %d after a loss above it, want the window, %d", c.wmax, w)
	}
}

// After a timeout the plateau is where slow start ended, so K is 0.
func TestCubicStageAfterTimeout(t *testing.T) {
	f, c := cubicAt(t, 1000*mss, 50*time.Millisecond, 4)
	f.signal(Timeout)
	for c.elapsed == noEpoch {
		f.round()
	}
	if c.k != 0 || c.wmax < 700*mss || c.wmax > 701*mss {
		t.Errorf("K %d ns, W_max %.1f segments; want 0 and 700", c.k, float64(c.wmax)/mss)
	}
}

// An idle period that costs window ends the stage: the next one begins where
// slow start ends, with the old plateau before it.
func TestCubicStageAfterIdle(t *testing.T) {
	f, c := cubicAt(t, 1000*mss, 50*time.Millisecond, 4)
	f.signal(Loss)
	rounds(20)(f)
	w := f.Window()
	idle(10 * time.Second)(f)
	for f.Window() < f.Threshold() {
		if c.elapsed != noEpoch {
			t.Fatal("a stage goes on in slow start")
		}
		f.round()
	}
	f.round()
	if c.wmax != 1000*mss || f.Threshold() >= w || c.elapsed > int64(2*f.rtt) {
		t.Errorf("W_max %d segments, threshold %d, t %d ns", c.wmax/mss, f.Threshold()/mss, c.elapsed)
	}
	if want := math.Cbrt(float64(1000*mss-f.Threshold()) / mss / 0.4); math.Abs(float64(c.k)/1e9-want) > 0.05 {
		t.Errorf("K %d ns, want %.3f s", c.k, want)
	}
}

// Time in which the window could not grow does not move the curve.
func TestCubicTimeStandsStill(t *testing.T) {
	gap := 30 * time.Second
	for name, pause := range map[string]func(*flow){
		"application limited": func(f *flow) {
			f.now += int64(gap)
			limited(f)
		},
		"idle without decay": func(f *flow) {
			f.now += int64(gap)
			f.OnIdle(f.now, gap, time.Hour, mss)
		},
		"false alarm": func(f *flow) {
			f.signal(Loss)
			f.now += int64(gap)
			f.Undo(f.now)
		},
		"frozen": func(f *flow) {
			f.now = 7
			c, err := Restore(f.State(), f.now, mss)
			if err != nil {
				t.Fatal(err)
			}
			f.Controller = c
		},
	} {
		t.Run(name, func(t *testing.T) {
			run := func(pause func(*flow)) (windows []int64) {
				f, _ := cubicAt(t, 2000*mss, 50*time.Millisecond, 4)
				f.signal(Loss)
				for range 40 {
					f.round()
				}
				pause(f)
				for range 40 {
					f.round()
					windows = append(windows, f.Window())
				}
				return windows
			}
			with, without := run(pause), run(func(*flow) {})
			for i := range with {
				if d := with[i] - without[i]; d < -2 || d > 2 { // Undo drops remainders.
					t.Fatalf("round %d: window %d with a pause, %d without", i, with[i], without[i])
				}
			}
		})
	}
}

// Growth does not depend on how acknowledgements cut up the bytes, but for the
// little that comes of the window growing in between.
func TestCubicLosesNoBytes(t *testing.T) {
	grow := func(piece int64) int64 {
		f, _ := cubicAt(t, 50*mss, 50*time.Millisecond, 1)
		f.signal(Loss)
		f.ack(0, true)
		f.now += int64(time.Second)
		for n := int64(0); n < 7*mss; n += piece {
			f.ack(piece, false)
		}
		return f.Window() - 35*mss
	}
	whole := grow(mss)
	for _, piece := range []int64{1, 2, 5, 10, 73, 292} {
		if got := grow(piece); math.Abs(float64(got-whole)) > 0.02*float64(whole) {
			t.Errorf("%d bytes at a time: grew by %d, want %d", piece, got, whole)
		}
	}
	if whole < 100 {
		t.Errorf("grew by %d only: this tests nothing", whole)
	}
}

// However far off the curve is, a round trip grows the window by half at most.
func TestCubicTargetIsBounded(t *testing.T) {
	f, _ := cubicAt(t, 100*mss, 10*time.Millisecond, 1)
	f.signal(Loss)
	f.ack(0, true)
	f.now += int64(1000 * time.Hour)
	before := f.Window()
	f.ack(1<<40, false)
	if got := f.Window(); got != before+before/2 {
		t.Errorf("window %d after one acknowledgement, want %d", got, before+before/2)
	}
}

// A clock that goes back stands still, and then goes on from there.
func TestCubicClockGoesBack(t *testing.T) {
	f, c := cubicAt(t, 1000*mss, 50*time.Millisecond, 4)
	f.signal(Loss)
	rounds(10)(f)
	before := c.elapsed
	for _, now := range []int64{f.now - int64(time.Hour), math.MinInt64} {
		f.now = now
		f.ack(mss, false)
		if c.elapsed != before {
			t.Fatalf("t went from %d to %d ns as the clock went back", before, c.elapsed)
		}
	}
	f.now += int64(time.Second)
	f.ack(mss, false)
	if got := c.elapsed - before; got != int64(time.Second) {
		t.Fatalf("t went on by %d ns in a second", got)
	}
}

// Before there is a smoothed round trip, the sample serves.
func TestCubicWithoutSRTT(t *testing.T) {
	grow := func(a Ack) int64 {
		f, _ := cubicAt(t, 1000*mss, 300*time.Millisecond, 4)
		f.signal(Loss)
		f.ack(0, true)
		a.Now, a.Acked, a.MSS = f.now+int64(time.Second), 700*mss, mss
		f.OnAck(a)
		return f.Window() - 700*mss
	}
	rtt := 300 * time.Millisecond
	smoothed, sample, none := grow(Ack{RTT: rtt, SRTT: rtt}), grow(Ack{RTT: rtt}), grow(Ack{})
	if sample != smoothed || none >= sample {
		t.Errorf("grew by %d with SRTT, %d with RTT, %d with neither", smoothed, sample, none)
	}
}

// After a timeout the acknowledgement that ends slow start is slow start's alone,
// and the one that begins congestion avoidance, whatever it covers, was not
// earned in it: growth begins a round trip after slow start has ended.
func TestStageBeginsWithoutGrowth(t *testing.T) {
	c, err := New("cubic", mss)
	if err != nil {
		t.Fatal(err)
	}
	now := int64(time.Hour)
	ack := func(segments int64) float64 {
		now += int64(50 * time.Millisecond)
		c.OnAck(Ack{Now: now, Acked: segments * mss, MSS: mss, RTT: 50 * time.Millisecond, SRTT: 50 * time.Millisecond})
		return float64(c.Window()) / mss
	}
	for c.Window() < 40*mss {
		ack(10)
	}
	c.OnCongestion(Congestion{Now: now, Signal: Timeout, Flight: 40 * mss, MSS: mss})
	if got := ack(40); got != 28 {
		t.Errorf("slow start ends at %v segments, want 28", got)
	}
	if got := ack(28); got != 28 {
		t.Errorf("the stage begins at %v segments, want 28", got)
	}
	if got, want := ack(28), 28+9.0/17; math.Abs(got-want) > 0.01 {
		t.Errorf("after a round trip the window is %v segments, want %v", got, want)
	}
}
