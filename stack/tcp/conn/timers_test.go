package conn

import (
	"testing"

	"pgregory.net/rapid"
)

// Timers are what a list of deadlines is, and those that are unusual take memory
// only once one has been set.
func TestTimersAreAList(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var c timers
		c.init()
		var want [numTimers]Time
		for k := range want {
			want[k] = Never
		}
		unusual := false
		for range rapid.IntRange(0, 50).Draw(t, "steps") {
			k := timer(rapid.IntRange(0, int(numTimers)-1).Draw(t, "timer"))
			switch rapid.IntRange(0, 2).Draw(t, "what") {
			case 0:
				want[k] = Time(rapid.Int64Range(0, 1000).Draw(t, "at"))
				c.set(k, want[k])
				unusual = unusual || k >= numUsual
			case 1:
				want[k] = Never
				c.stop(k)
			case 2:
				for k, at := range want {
					want[k] = at.Add(7)
				}
				c.shift(7)
			}
			least := Never
			for k := range numTimers {
				least = min(least, want[k])
				if c.at(k) != want[k] || c.running(k) != (want[k] != Never) {
					t.Fatalf("timer %d is at %d, want %d", k, c.at(k), want[k])
				}
			}
			if got := c.earliest(); got != least {
				t.Fatalf("the earliest is at %d, want %d", got, least)
			}
			if made := c.unusual != &noUnusual; made != unusual {
				t.Fatalf("there is a record of unusual timers: %t", made)
			}
		}
	})
	if noUnusual != neverUnusual() {
		t.Error("what all connections share was written to")
	}
}
