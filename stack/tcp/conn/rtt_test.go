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
	w := established(t)
	w.pump(w.a, noise(20_000, 1), time.Minute)
	w.delay = 50 * time.Millisecond
	for range 40 {
		w.run(10*time.Second, nil)
		w.pump(w.a, noise(2000, 2), time.Minute)
	}
	if got := w.a.c.Info(w.now).MinRTT; got != 100*time.Millisecond {
		t.Errorf("least round trip %v on a path of 100ms, of 20ms long ago", got)
	}
}
