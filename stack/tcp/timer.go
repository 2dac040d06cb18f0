package tcp

import (
	"gvisor.dev/gvisor/pkg/tcpip"

	"github.com/tcprepair/ustack/stack/tcp/conn"
)

// timer is an endpoint's one timer on the stack's clock. It is lazy: a
// deadline that moves later leaves it alone, so that a busy connection, whose
// every acknowledgement moves the retransmission timeout, hardly ever touches
// it; it fires early once in a while, finds nothing due and sleeps on.
type timer struct {
	t  tcpip.Timer
	at conn.Time // when it will fire; zero: it is not set
}

// arm makes sure that the endpoint wakes at the deadline. e.mu is held.
func (t *timer) arm(e *Endpoint, now, deadline conn.Time) {
	if deadline == conn.Never || t.at != 0 && t.at <= deadline {
		return
	}
	wait := max(deadline.Sub(now), 0)
	t.at = deadline
	if t.t == nil {
		t.t = e.proto.stack.Clock().AfterFunc(wait, e.onTimer)
		return
	}
	t.t.Reset(wait)
}

// stop ends the timer and lets go of what it is made of. e.mu is held.
func (t *timer) stop() {
	if t.t != nil {
		t.t.Stop()
	}
	t.t, t.at = nil, 0
}

// onTimer is called by the clock, on a goroutine of its own.
func (e *Endpoint) onTimer() {
	e.mu.Lock()
	defer e.unlock()
	if e.released {
		return
	}
	e.timer.at = 0
	now := e.proto.now()
	e.drain(now)
	if e.conn.Deadline() <= now {
		e.conn.Tick(now)
	}
	if e.conn.Deadline() == conn.Never {
		e.timer.stop() // an idle connection has none
	}
}
