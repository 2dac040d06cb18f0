package cc

import (
	"testing"
	"time"
)

// controllerIn returns a controller in slow start or congestion avoidance.
func controllerIn(tb testing.TB, name string, avoidance bool) Controller {
	tb.Helper()
	s := State{Name: name, Window: 100 * mss}
	if avoidance {
		s.Threshold = s.Window
	}
	c, err := Restore(s, 0, mss)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

func forEachPhase(f func(name, phase string, avoidance bool)) {
	for _, name := range Names() {
		f(name, "slow start", false)
		f(name, "avoidance", true)
	}
}

func BenchmarkOnAck(b *testing.B) {
	forEachPhase(func(name, phase string, avoidance bool) {
		b.Run(name+"/"+phase, func(b *testing.B) {
			c := controllerIn(b, name, avoidance)
			a := Ack{Acked: 2 * mss, Flight: 100 * mss, MSS: mss, RTT: 20 * time.Millisecond, SRTT: 20 * time.Millisecond}
			b.ReportAllocs()
			for b.Loop() {
				a.Now += int64(time.Microsecond)
				c.OnAck(a)
			}
		})
	})
}

// Nothing that happens to a connection allocates, its loss included.
func TestNoAllocations(t *testing.T) {
	forEachPhase(func(name, phase string, avoidance bool) {
		c := controllerIn(t, name, avoidance)
		now := int64(0)
		n := testing.AllocsPerRun(100, func() {
			now += int64(time.Millisecond)
			c.OnAck(Ack{Now: now, Acked: 2 * mss, MSS: mss, RTT: 20 * time.Millisecond, NewRound: true})
			c.OnCongestion(Congestion{Now: now, MSS: mss, Flight: 50 * mss})
			c.OnIdle(now, time.Second, time.Second, mss)
			c.Undo(now)
		})
		if n != 0 {
			t.Errorf("%s, %s: %v allocations", name, phase, n)
		}
	})
}
