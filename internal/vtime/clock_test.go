package vtime_test

import (
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"

	"github.com/tcprepair/ustack/internal/vtime"
)

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func TestClockStandsStill(t *testing.T) {
	c := vtime.NewClock(epoch)
	if got := c.Now(); !got.Equal(epoch) {
		t.Errorf("Now() = %v, want %v", got, epoch)
	}
	if c.NowMonotonic() == (tcpip.MonotonicTime{}) {
		t.Error("NowMonotonic() is zero, which users take for no time")
	}
	start := c.NowMonotonic()
	if c.Elapsed() != 0 || c.NowMonotonic() != start {
		t.Error("the clock moved by itself")
	}
	c.Advance(3 * time.Second)
	if got := c.Now(); !got.Equal(epoch.Add(3 * time.Second)) {
		t.Errorf("Now() after 3 s = %v", got)
	}
	if got := c.NowMonotonic().Sub(start); got != 3*time.Second {
		t.Errorf("NowMonotonic() moved by %v, want 3s", got)
	}
	c.RunUntil(time.Second) // has passed
	if got := c.Elapsed(); got != 3*time.Second {
		t.Errorf("RunUntil a time that has passed moved the clock to %v", got)
	}
}

func TestTimersRunInOrder(t *testing.T) {
	c := vtime.NewClock(epoch)
	var got []string
	at := func(name string, d time.Duration) tcpip.Timer {
		return c.AfterFunc(d, func() {
			if c.Elapsed() != max(d, 0) {
				t.Errorf("%s ran at %v, want %v", name, c.Elapsed(), d)
			}
			got = append(got, name)
		})
	}
	at("late", 2*time.Second)
	at("first of two", time.Second)
	at("second of two", time.Second)
	at("overdue", -time.Second)
	at("now", 0)
	if n := c.Pending(); n != 5 {
		t.Errorf("Pending() = %d, want 5", n)
	}
	c.Advance(0)
	if want := []string{"overdue", "now"}; !slices.Equal(got, want) {
		t.Errorf("due at once: %q, want %q", got, want)
	}
	if next, ok := c.Next(); !ok || next != time.Second {
		t.Errorf("Next() = %v, %v, want 1s", next, ok)
	}
	if !c.Step() {
		t.Error("Step() = false with timers set")
	}
	c.RunUntil(2 * time.Second) // inclusive
	if want := []string{"overdue", "now", "first of two", "second of two", "late"}; !slices.Equal(got, want) {
		t.Errorf("ran %q, want %q", got, want)
	}
	if _, ok := c.Next(); ok || c.Step() || c.Pending() != 0 {
		t.Error("timers are left")
	}
}

func TestTimersSetByTimers(t *testing.T) {
	c := vtime.NewClock(epoch)
	var ticks []time.Duration
	var tick func()
	tick = func() {
		ticks = append(ticks, c.Elapsed())
		c.AfterFunc(time.Second, tick)
	}
	c.AfterFunc(time.Second, tick)
	c.Advance(3*time.Second + time.Millisecond)
	want := []time.Duration{time.Second, 2 * time.Second, 3 * time.Second}
	if !reflect.DeepEqual(ticks, want) {
		t.Errorf("ticks at %v, want %v", ticks, want)
	}
	if got := c.Elapsed(); got != 3*time.Second+time.Millisecond {
		t.Errorf("clock at %v", got)
	}
}

func TestStopAndReset(t *testing.T) {
	c := vtime.NewClock(epoch)
	ran := 0
	tm := c.AfterFunc(time.Second, func() { ran++ })
	if !tm.Stop() {
		t.Error("Stop of a timer that is set = false")
	}
	if tm.Stop() {
		t.Error("Stop of a stopped timer = true")
	}
	c.Advance(2 * time.Second)
	if ran != 0 {
		t.Error("a stopped timer ran")
	}
	tm.Reset(time.Second)
	tm.Reset(3 * time.Second) // while set: only the last counts
	c.Advance(2 * time.Second)
	if ran != 0 || c.Pending() != 1 {
		t.Errorf("ran %d times, %d timers set; want 0, 1", ran, c.Pending())
	}
	c.Advance(time.Second)
	if ran != 1 {
		t.Errorf("ran %d times, want 1", ran)
	}
	if tm.Stop() {
		t.Error("Stop of a timer that ran = true")
	}
	// A timer may set itself again from its own function.
	var self tcpip.Timer
	self = c.AfterFunc(time.Second, func() {
		ran++
		if ran < 4 {
			self.Reset(time.Second)
		}
	})
	c.Advance(time.Minute)
	if ran != 4 {
		t.Errorf("ran %d times, want 4", ran)
	}
}

// TestAgainstModel sets, resets and stops timers at random and compares what
// runs with a sorted list.
func TestAgainstModel(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	type entry struct {
		id int
		at time.Duration
	}
	c := vtime.NewClock(epoch)
	var model []entry // in the order of setting
	var ran, want []entry
	timers := make([]tcpip.Timer, 20)
	forget := func(id int) bool {
		n := len(model)
		model = slices.DeleteFunc(model, func(e entry) bool { return e.id == id })
		return len(model) < n
	}
	for range 5000 {
		id := r.IntN(len(timers))
		d := time.Duration(r.IntN(50)) * time.Millisecond
		switch r.IntN(4) {
		case 0, 1:
			if timers[id] == nil {
				timers[id] = c.AfterFunc(d, func() { ran = append(ran, entry{id, c.Elapsed()}) })
			} else {
				timers[id].Reset(d)
			}
			forget(id)
			model = append(model, entry{id, c.Elapsed() + d})
		case 2:
			if timers[id] != nil {
				if got, want := timers[id].Stop(), forget(id); got != want {
					t.Fatalf("Stop() = %v, want %v", got, want)
				}
			}
		case 3:
			c.Advance(d)
			due := slices.Clone(model)
			slices.SortStableFunc(due, func(a, b entry) int { return int(a.at - b.at) })
			for _, e := range due {
				if e.at <= c.Elapsed() {
					want = append(want, e)
					forget(e.id)
				}
			}
			if !slices.Equal(ran, want) {
				t.Fatalf("ran %v, want %v", ran, want)
			}
			if c.Pending() != len(model) {
				t.Fatalf("Pending() = %d, want %d", c.Pending(), len(model))
			}
		}
	}
	if len(ran) == 0 {
		t.Error("nothing ever ran")
	}
}

// TestConcurrentUse sets timers from many goroutines while one moves the
// clock: nothing is lost. Run it with the race detector.
func TestConcurrentUse(t *testing.T) {
	c := vtime.NewClock(epoch)
	var mu sync.Mutex
	ran := 0
	var setters sync.WaitGroup
	const each = 200
	for range 4 {
		setters.Go(func() {
			for i := range each {
				c.AfterFunc(time.Duration(i)*time.Microsecond, func() {
					mu.Lock()
					defer mu.Unlock()
					ran++
				})
				c.AfterFunc(time.Hour, func() { t.Error("a stopped timer ran") }).Stop()
			}
		})
	}
	for range 100 {
		c.Advance(time.Microsecond)
	}
	setters.Wait()
	c.Advance(time.Second)
	if ran != 4*each {
		t.Errorf("%d timers ran, want %d", ran, 4*each)
	}
}
