package stack

import (
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/waiter"
)

// half is what blocking calls in one direction share: a Conn's Reads, its
// Writes, a Listener's Accepts. At most one call runs at a time; it tries, and
// if the endpoint would block it waits for a poke and tries again. Whatever may
// change the outcome pokes: the endpoint, a deadline, Close. A poke with nobody
// waiting is kept for the next, so none is lost between the try and the wait.
type half struct {
	mu    sync.Mutex    // held from a call's first try to its return
	wake  chan struct{} // capacity 1
	entry waiter.Entry

	timer deadline
}

// init registers the half with the endpoint's queue.
func (h *half) init(wq *waiter.Queue, mask waiter.EventMask) {
	h.wake = make(chan struct{}, 1)
	h.entry.Init(h, mask)
	wq.EventRegister(&h.entry)
}

// NotifyEvent implements waiter.EventListener.
func (h *half) NotifyEvent(waiter.EventMask) { h.poke() }

func (h *half) poke() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// wait blocks until a poke. The caller holds mu.
func (h *half) wait() { <-h.wake }

// setDeadline sets when calls give up; the zero time means never. A call that
// is waiting takes notice.
func (h *half) setDeadline(t time.Time) {
	h.timer.set(t, h.poke)
	h.poke()
}

// deadline is a point in time that calls must not run past.
type deadline struct {
	passed atomic.Bool

	mu    sync.Mutex
	timer *time.Timer
	round uint64 // counts calls of set, so that an old timer knows it is old
}

// set replaces the deadline. fire is called when it passes, never before set
// has returned, and not if it has passed already.
func (d *deadline) set(t time.Time, fire func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.round++
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	left := time.Until(t)
	d.passed.Store(!t.IsZero() && left <= 0)
	if t.IsZero() || left <= 0 {
		return
	}
	round := d.round
	d.timer = time.AfterFunc(left, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.round == round {
			d.passed.Store(true)
			fire()
		}
	})
}
