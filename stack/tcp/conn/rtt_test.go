package conn

import (
	"testing"
	"time"
)

// The least round trip is the least of the last minutes: on a path that has
// become longer, the old one would make the reordering window too small for ever.
// https://www.rfc-editor.org/rfc/rfc8985#section-6.2 (step 1, "SHOULD track a windowed min-filtered estimate")
func TestLeastRoundTripIsOfLate(t *testing.T) {
	var r rttState
	now := Time(time.Hour)
	sample := func(wait, d time.Duration) time.Duration {
		now = now.Add(wait)
		r.sample(now, d)
		return r.min
	}
	for _, tc := range []struct {
		wait, d, want time.Duration
	}{
		{0, 30 * time.Millisecond, 30 * time.Millisecond},
		{time.Second, 20 * time.Millisecond, 20 * time.Millisecond},
		{time.Second, 40 * time.Millisecond, 20 * time.Millisecond},
		{minRTTWindow / 2, 50 * time.Millisecond, 20 * time.Millisecond}, // the half before still counts
		{minRTTWindow / 2, 60 * time.Millisecond, 50 * time.Millisecond},
		{time.Second, 55 * time.Millisecond, 50 * time.Millisecond},
		{minRTTWindow, 70 * time.Millisecond, 70 * time.Millisecond}, // nothing came in between
		{time.Second, 10 * time.Millisecond, 10 * time.Millisecond},
	} {
		if got := sample(tc.wait, tc.d); got != tc.want {
			t.Errorf("after %v of %v: least %v, want %v", tc.wait, tc.d, got, tc.want)
		}
	}
}

// So it is on a connection.
func TestLeastRoundTripFollowsALongerPath(t *testing.T) {
	for _, stamps := range []bool{true, false} {
		w := established(t, func(a, _ *Config) { a.Timestamps = stamps })
		w.pump(w.a, noise(20_000, 1), time.Minute)
		w.delay = 50 * time.Millisecond
		for range 40 {
			w.run(10*time.Second, nil)
			w.pump(w.a, noise(2000, 2), time.Minute)
		}
		i := w.a.c.Info(w.now)
		if i.MinRTT != 100*time.Millisecond {
			t.Errorf("timestamps %v: least round trip %v on a path of 100ms, of 20ms long ago", stamps, i.MinRTT)
		}
		// The first flight must think that it is lost; the others know better.
		if n := i.Counters.TailLossProbes; n > 3 {
			t.Errorf("timestamps %v: %d needless probes of 40 flights", stamps, n)
		}
	}
}

// The timeout is never below the minimum above the round trip, nor above the
// maximum, doubles in between, and a sample ends its doubling.
// https://www.rfc-editor.org/rfc/rfc6298#section-2 (2.4, 2.5), section 5 (5.5)
func TestTimeoutBounds(t *testing.T) {
	p := params{Profile: &Profile{minRTO: DefaultMinRTO, maxRTO: DefaultMaxRTO}}
	now := Time(time.Hour)
	for _, tc := range []struct {
		rtt, want time.Duration
	}{
		{0, DefaultMinRTO + minRTT},
		{10 * time.Millisecond, 210 * time.Millisecond},
		{time.Second, 3 * time.Second}, // the first sample: SRTT + 4 * RTT/2
		{time.Minute, DefaultMaxRTO},
		{1 << 62, DefaultMaxRTO},
	} {
		var r rttState
		if got := r.timeout(&p); got != InitialRTO {
			t.Errorf("%v before a sample", got)
		}
		r.sample(now, tc.rtt)
		if got := r.timeout(&p); got != tc.want {
			t.Errorf("round trip %v: timeout %v, want %v", tc.rtt, got, tc.want)
		}
		want := tc.want
		for range 300 {
			r.backOff(&p)
			want = min(2*want, DefaultMaxRTO)
			if got := r.timeout(&p); got != want {
				t.Fatalf("round trip %v: backed off to %v, want %v", tc.rtt, got, want)
			}
		}
		r.sample(now, tc.rtt)
		if r.backoff != 0 {
			t.Error("a sample does not end the backoff")
		}
	}
}

// A steady round trip: RTTVAR goes to zero, and the minimum is what is left.
func TestTimeoutOfASteadyPath(t *testing.T) {
	p := params{Profile: &Profile{minRTO: DefaultMinRTO, maxRTO: DefaultMaxRTO}}
	var r rttState
	for i := range 200 {
		r.sample(Time(time.Hour).Add(time.Duration(i)*time.Second), 300*time.Millisecond)
	}
	if got := r.timeout(&p); got < 500*time.Millisecond || got > 501*time.Millisecond {
		t.Errorf("timeout %v, want 500ms", got)
	}
}
