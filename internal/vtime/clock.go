// Package vtime is time that passes only when it is told to: a clock for a
// network stack whose tests, scripts and simulations must come out the same
// every time and must not wait.
package vtime

import (
	"container/heap"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
)

// Clock is a tcpip.Clock that stands still between calls of Step, RunUntil and
// Advance.
//
// Timers run in the order of their times; those of one time in the order in
// which they were set. Their functions run on the goroutine that moves the
// clock, one after another, and may use the clock freely, but must not move it.
//
// All methods may be called from any goroutine. Only one at a time may move the
// clock; the others wait.
type Clock struct {
	moving sync.Mutex // held by who moves the clock

	mu     sync.Mutex
	epoch  time.Time           // what Now says at the beginning
	start  tcpip.MonotonicTime // what NowMonotonic says at the beginning
	now    tcpip.MonotonicTime
	timers timerHeap
	set    uint64 // timers set so far
}

var _ tcpip.Clock = (*Clock)(nil)

// startAfter is the monotonic time at which a clock begins. It is not zero so
// that times before the beginning can be told from no time at all.
const startAfter = time.Hour

// NewClock returns a clock that says it is epoch.
func NewClock(epoch time.Time) *Clock {
	start := tcpip.MonotonicTime{}.Add(startAfter)
	return &Clock{epoch: epoch.Round(0), start: start, now: start}
}

// Now implements tcpip.Clock.
func (c *Clock) Now() time.Time { return c.epoch.Add(c.Elapsed()) }

// NowMonotonic implements tcpip.Clock.
func (c *Clock) NowMonotonic() tcpip.MonotonicTime {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Elapsed is the time that has passed since the clock was made.
func (c *Clock) Elapsed() time.Duration { return c.NowMonotonic().Sub(c.start) }

// AfterFunc implements tcpip.Clock, but for the goroutine: f is called by who
// moves the clock. A d of zero or less is due at once, which is when the clock
// is next moved, even by nothing.
func (c *Clock) AfterFunc(d time.Duration, f func()) tcpip.Timer {
	t := &timer{clock: c, f: f, index: idle}
	t.Reset(d)
	return t
}

// Next is the time of the earliest timer, as a duration since the clock was
// made; false if none is set.
func (c *Clock) Next() (time.Duration, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.timers) == 0 {
		return 0, false
	}
	return c.timers[0].at.Sub(c.start), true
}

// Pending is the number of timers that are set.
func (c *Clock) Pending() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.timers)
}

// Step moves the clock to the earliest timer and runs it, and reports whether
// there was one.
func (c *Clock) Step() bool {
	c.moving.Lock()
	defer c.moving.Unlock()
	return c.runOne(tcpip.MonotonicTimeInfinite())
}

// RunUntil moves the clock to elapsed, counted from when it was made, and runs
// the timers up to and including that time, those set on the way too. It does
// not move the clock back: a time that has passed runs what is due now.
func (c *Clock) RunUntil(elapsed time.Duration) {
	c.moving.Lock()
	defer c.moving.Unlock()
	c.runUntil(c.start.Add(elapsed))
}

// Advance moves the clock by d, like RunUntil.
func (c *Clock) Advance(d time.Duration) {
	c.moving.Lock()
	defer c.moving.Unlock()
	c.runUntil(c.NowMonotonic().Add(d))
}

func (c *Clock) runUntil(limit tcpip.MonotonicTime) {
	if now := c.NowMonotonic(); limit.Before(now) {
		limit = now
	}
	for c.runOne(limit) {
	}
	c.mu.Lock()
	c.now = limit
	c.mu.Unlock()
}

// runOne runs the earliest timer if it is not after limit.
func (c *Clock) runOne(limit tcpip.MonotonicTime) bool {
	c.mu.Lock()
	if len(c.timers) == 0 || c.timers[0].at.After(limit) {
		c.mu.Unlock()
		return false
	}
	t := heap.Pop(&c.timers).(*timer)
	if t.at.After(c.now) {
		c.now = t.at
	}
	f := t.f
	c.mu.Unlock()
	f()
	return true
}

// timer is one AfterFunc. Its fields but f are guarded by clock.mu.
type timer struct {
	clock *Clock
	f     func()
	at    tcpip.MonotonicTime
	order uint64 // breaks ties of at
	index int    // in the clock's heap, or idle
}

// idle is the index of a timer that is not set.
const idle = -1

// Stop implements tcpip.Timer.
func (t *timer) Stop() bool {
	t.clock.mu.Lock()
	defer t.clock.mu.Unlock()
	return t.stop()
}

func (t *timer) stop() bool {
	if t.index == idle {
		return false
	}
	heap.Remove(&t.clock.timers, t.index)
	return true
}

// Reset implements tcpip.Timer. A timer that is still set is set anew.
func (t *timer) Reset(d time.Duration) {
	c := t.clock
	c.mu.Lock()
	defer c.mu.Unlock()
	t.stop()
	t.at = c.now.Add(max(d, 0))
	t.order = c.set
	c.set++
	heap.Push(&c.timers, t)
}

// timerHeap is a heap of timers, the earliest on top.
type timerHeap []*timer

func (h timerHeap) Len() int { return len(h) }

func (h timerHeap) Less(i, j int) bool {
	if h[i].at != h[j].at {
		return h[i].at.Before(h[j].at)
	}
	return h[i].order < h[j].order
}

func (h timerHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *timerHeap) Push(x any) {
	t := x.(*timer)
	t.index = len(*h)
	*h = append(*h, t)
}

func (h *timerHeap) Pop() any {
	old := *h
	t := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	t.index = idle
	return t
}
