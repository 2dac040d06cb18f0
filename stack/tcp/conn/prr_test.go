package conn

import (
	"testing"
	"time"
)

// When the reordering timer begins a recovery nothing has just left the
// network. With more in flight than there is to be, the retransmission then
// waits for a delivery, lest it meet the queue that has overflowed; with none
// coming it waits no longer than the timer's window. Where the congestion window
// was not used up there is nothing to wait for.
func TestTimersRetransmissionWaitsForRoom(t *testing.T) {
	const window = 5 * time.Millisecond // a quarter of the round trip
	for _, tc := range []struct {
		name string
		full bool          // the window is; of what is in flight the first is lost, and two come as they should
		late time.Duration // how much later the others come; 0: never
		want time.Duration // from the first selective acknowledgement to the retransmission, about
	}{
		{"a delivery makes room", true, window + 3*time.Millisecond, window + 3*time.Millisecond},
		{"none comes", true, 0, 2 * window},
		{"the window is not used up", false, window + 3*time.Millisecond, window},
	} {
		w := established(t, func(a, _ *Config) { a.Congestion = "reno" })
		flight := w.warm()
		write := 2 * flight
		if !tc.full {
			flight, write = 8, 8
		}
		w.fated(func(_ *host, _ *Segment, n int) (time.Duration, int) {
			switch {
			case n == 0 || n >= 3 && n < flight && tc.late == 0:
				return 0, 0
			case n >= 3 && n < flight:
				return tc.late, 1
			}
			return 0, 1
		})
		hole, begun := w.a.c.snd.nxt, w.now
		var resent Time
		w.wiretap = func(from *host, s *Segment) {
			if from == w.a && s.Seq == hole && w.now > begun && resent == 0 {
				resent = w.now
			}
		}
		w.a.write(w, noise(write*w.a.c.segmentSize(), 2))
		w.run(time.Minute, func() bool { w.b.read(w); return w.a.c.Unacked() == 0 })
		w.same(w.a)
		took := resent.Sub(begun) - 2*w.delay
		if slack := time.Millisecond; took < tc.want-slack || took > tc.want+slack {
			t.Errorf("%s: retransmitted after %v, want about %v", tc.name, took, tc.want)
		}
		if n := w.a.c.Counters(); n.Timeouts != 0 {
			t.Errorf("%s: %d timeouts", tc.name, n.Timeouts)
		}
	}
}
