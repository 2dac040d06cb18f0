package impair

import (
	"math"
	"slices"
	"testing"
	"time"
)

const (
	testSeed = 42
	ms       = time.Millisecond
)

func newImpairer(t *testing.T, cfg Config, seed uint64) *Impairer {
	t.Helper()
	im, err := New(cfg, seed)
	if err != nil {
		t.Fatal(err)
	}
	return im
}

func TestPerfectLinkPassesAtOnce(t *testing.T) {
	im := newImpairer(t, Config{}, testSeed)
	for i := range 1000 {
		now := time.Duration(i) * ms
		v := im.Decide(now, 1500)
		want := []Delivery{{At: now, Flip: NoFlip}}
		if v.Cause != Passed || !slices.Equal(v.Deliveries(), want) {
			t.Fatalf("packet %d: %v %v", i, v.Cause, v.Deliveries())
		}
	}
	if !(Config{}).Perfect() || (Config{Queue: 1}).Perfect() == false || (Config{Rate: 1}).Perfect() {
		t.Error("Perfect is wrong")
	}
}

func TestSameSeedSameVerdicts(t *testing.T) {
	cfg := Config{Loss: 0.1, BurstLength: 3, Delay: 5 * ms, Jitter: 2 * ms, Reorder: 0.1,
		Duplicate: 0.1, Corrupt: 0.1, Rate: 10e6, Queue: 20000}
	a, b, c := newImpairer(t, cfg, 7), newImpairer(t, cfg, 7), newImpairer(t, cfg, 8)
	differs := false
	for i := range 5000 {
		now := time.Duration(i) * ms
		va, vb, vc := a.Decide(now, 1000+i%500), b.Decide(now, 1000+i%500), c.Decide(now, 1000+i%500)
		if va != vb {
			t.Fatalf("packet %d: %+v and %+v from the same seed", i, va, vb)
		}
		differs = differs || va != vc
	}
	if !differs {
		t.Error("another seed gave the very same verdicts")
	}
}

// One feature's draws must not shift another's.
func TestFeaturesAreIndependent(t *testing.T) {
	lossy := newImpairer(t, Config{Loss: 0.2}, testSeed)
	both := newImpairer(t, Config{Loss: 0.2, Duplicate: 0.5, Jitter: ms, Corrupt: 0.3, Reorder: 0.2}, testSeed)
	for i := range 2000 {
		now := time.Duration(i) * ms
		if a, b := lossy.Decide(now, 100), both.Decide(now, 100); a.Cause != b.Cause {
			t.Fatalf("packet %d: %v alone, %v with other features on", i, a.Cause, b.Cause)
		}
	}
}

func TestLossShareAndBursts(t *testing.T) {
	for _, tc := range []struct {
		name  string
		cfg   Config
		burst float64
	}{
		{"independent 1%", Config{Loss: 0.01}, 1 / 0.99},
		{"independent 30%", Config{Loss: 0.3}, 1 / 0.7},
		{"bursts of 4 at 5%", Config{Loss: 0.05, BurstLength: 4}, 4},
		{"bursts of 1 at 20%", Config{Loss: 0.2, BurstLength: 1}, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			im := newImpairer(t, tc.cfg, testSeed)
			const n = 400_000
			lost, bursts, before := 0, 0, false
			for range n {
				v := im.Decide(0, 1)
				now := v.Cause == Lost
				if now {
					lost++
					if !before {
						bursts++
					}
				}
				before = now
			}
			if share := float64(lost) / n; math.Abs(share-tc.cfg.Loss) > 0.05*tc.cfg.Loss+0.001 {
				t.Errorf("seed %d: share lost %.4f, want %.4f", testSeed, share, tc.cfg.Loss)
			}
			if mean := float64(lost) / float64(bursts); math.Abs(mean-tc.burst) > 0.05*tc.burst {
				t.Errorf("seed %d: mean burst %.3f, want %.3f", testSeed, mean, tc.burst)
			}
		})
	}
}

func TestTotalLoss(t *testing.T) {
	for _, burst := range []float64{0, 5} {
		im := newImpairer(t, Config{Loss: 1, BurstLength: burst}, testSeed)
		for i := range 100 {
			if v := im.Decide(0, 1); v.Cause != Lost || len(v.Deliveries()) != 0 {
				t.Fatalf("burst %v, packet %d passed", burst, i)
			}
		}
	}
}

func TestDelayAndJitterKeepOrder(t *testing.T) {
	im := newImpairer(t, Config{Delay: 5 * ms, Jitter: 10 * ms}, testSeed)
	var last time.Duration
	spread := map[time.Duration]bool{}
	for i := range 5000 {
		now := time.Duration(i) * 100 * time.Microsecond
		v := im.Decide(now, 100)
		at := v.Deliveries()[0].At
		if at < now+5*ms || at > now+15*ms {
			t.Fatalf("packet %d sent at %v arrives at %v", i, now, at)
		}
		if at < last {
			t.Fatalf("packet %d arrives at %v, before its predecessor at %v", i, at, last)
		}
		last = at
		spread[(at-now)/ms] = true
	}
	if len(spread) < 5 {
		t.Errorf("delays fall into %d of the milliseconds 5..15 only", len(spread))
	}
}

func TestReorderLetsOthersPass(t *testing.T) {
	im := newImpairer(t, Config{Delay: ms, Reorder: 0.1, ReorderBy: 3 * ms}, testSeed)
	late := 0
	for i := range 10000 {
		now := time.Duration(i) * ms
		v := im.Decide(now, 100)
		d := v.Deliveries()[0]
		want := now + ms
		if d.Late {
			late++
			want += 3 * ms
		}
		if d.At != want {
			t.Fatalf("packet %d (late %v) sent at %v arrives at %v, want %v", i, d.Late, now, d.At, want)
		}
	}
	if late < 900 || late > 1100 {
		t.Errorf("seed %d: %d of 10000 were held back, want about 1000", testSeed, late)
	}
}

func TestDuplicateAndCorrupt(t *testing.T) {
	im := newImpairer(t, Config{Duplicate: 0.25, Corrupt: 0.5}, testSeed)
	twice, damaged, copies := 0, 0, 0
	for range 10000 {
		v := im.Decide(0, 40)
		if len(v.Deliveries()) == 2 {
			twice++
		}
		for _, d := range v.Deliveries() {
			copies++
			b := make([]byte, 40)
			d.Damage(b)
			if d.Flip == NoFlip {
				continue
			}
			damaged++
			if ones := slices.IndexFunc(b, func(x byte) bool { return x != 0 }); ones != d.Flip/8 {
				t.Fatalf("flip %d changed byte %d", d.Flip, ones)
			}
		}
	}
	if twice < 2300 || twice > 2700 {
		t.Errorf("seed %d: %d of 10000 doubled, want about 2500", testSeed, twice)
	}
	if share := float64(damaged) / float64(copies); share < 0.48 || share > 0.52 {
		t.Errorf("seed %d: %.3f of the copies damaged, want about a half", testSeed, share)
	}
	Delivery{Flip: 1000}.Damage(make([]byte, 4)) // out of range: nothing
}

func TestRateSpacesPacketsAndQueueDrops(t *testing.T) {
	// 1 Mbit/s: 1250 bytes take 10 ms. Room for three of them waiting.
	im := newImpairer(t, Config{Rate: 1e6, Queue: 3750}, testSeed)
	for i := range 3 {
		v := im.Decide(0, 1250)
		if want := time.Duration(i+1) * 10 * ms; v.Cause != Passed || v.Deliveries()[0].At != want {
			t.Fatalf("packet %d: %v %v, want arrival at %v", i, v.Cause, v.Deliveries(), want)
		}
	}
	if v := im.Decide(0, 1250); v.Cause != QueueFull {
		t.Fatalf("the fourth packet: %v, want the queue to be full", v.Cause)
	}
	// Ten milliseconds on, one has left: one more fits.
	v := im.Decide(10*ms, 1250)
	if v.Cause != Passed || v.Deliveries()[0].At != 40*ms {
		t.Fatalf("after 10 ms: %v %v", v.Cause, v.Deliveries())
	}
	// After a silence the link is free at once; no credit was saved up.
	v = im.Decide(time.Second, 1250)
	if v.Deliveries()[0].At != time.Second+10*ms {
		t.Fatalf("after a silence: %v", v.Deliveries())
	}
}

// A packet larger than the whole queue still passes an idle link.
func TestQueueSmallerThanPacket(t *testing.T) {
	im := newImpairer(t, Config{Rate: 1e6, Queue: 100}, testSeed)
	if v := im.Decide(0, 1500); v.Cause != Passed {
		t.Errorf("idle link: %v", v.Cause)
	}
	if v := im.Decide(0, 1500); v.Cause != QueueFull {
		t.Errorf("busy link: %v", v.Cause)
	}
}

func TestValidate(t *testing.T) {
	bad := map[string]Config{
		"negative loss":  {Loss: -0.1},
		"loss over one":  {Loss: 1.1},
		"NaN":            {Corrupt: math.NaN()},
		"reorder":        {Reorder: 2},
		"duplicate":      {Duplicate: -1},
		"delay":          {Delay: -1},
		"jitter":         {Jitter: 2 * time.Hour},
		"reorder by":     {ReorderBy: -ms},
		"rate":           {Rate: -1},
		"queue":          {Queue: -1},
		"burst below 1":  {Loss: 0.1, BurstLength: 0.5},
		"burst infinite": {Loss: 0.1, BurstLength: math.Inf(1)},
		"burst too rare": {Loss: 0.9, BurstLength: 2},
	}
	for name, cfg := range bad {
		if _, err := New(cfg, 1); err == nil {
			t.Errorf("%s: %+v was accepted", name, cfg)
		}
		im := newImpairer(t, Config{Delay: ms}, 1)
		if err := im.SetConfig(cfg); err == nil {
			t.Errorf("%s: SetConfig took it", name)
		}
		if im.Config() != (Config{Delay: ms}) {
			t.Errorf("%s: a refused SetConfig changed the link", name)
		}
	}
	im := newImpairer(t, Config{}, 1)
	if err := im.SetConfig(Config{Loss: 1}); err != nil {
		t.Fatal(err)
	}
	if v := im.Decide(0, 1); v.Cause != Lost {
		t.Error("SetConfig had no effect")
	}
}

func TestCauseString(t *testing.T) {
	for c, want := range map[Cause]string{Passed: "passed", Lost: "lost", QueueFull: "queue full", 99: "unknown"} {
		if got := c.String(); got != want {
			t.Errorf("%d: %q, want %q", c, got, want)
		}
	}
}

func BenchmarkDecide(b *testing.B) {
	im, err := New(Config{Loss: 0.01, Delay: 5 * ms, Jitter: ms, Rate: 1e9, Queue: 1 << 30}, testSeed)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	now := time.Duration(0)
	for b.Loop() {
		now += 12 * time.Microsecond
		im.Decide(now, 1500)
	}
}
