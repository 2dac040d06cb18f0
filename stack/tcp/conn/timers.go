package conn

import "time"

// timer names one of a connection's deadlines.
type timer uint8

const (
	timerRTO        timer = iota // RFC 6298
	timerReorder                 // RFC 8985 section 6.2: the reordering window closes
	timerTailLoss                // RFC 8985 section 7: probe timeout
	timerDelayedACK              // RFC 1122 section 4.2.3.2
	// The rest never run on most connections, or only at their end.
	timerPersist   // RFC 9293 section 3.8.6.1: zero-window probe
	timerCork      // a corked segment has waited long enough
	timerPace      // the next segment may leave; see pace.go
	timerKeepalive // RFC 1122 section 4.2.3.6
	timerFinWait2  // an orphan waits for the peer's FIN
	timerTimeWait  // RFC 9293 section 3.6: 2 MSL
	numTimers
	numUsual = timerPersist
)

// timers is the only home of deadlines. There is no queue: the caller asks for
// the earliest and ticks.
type timers struct {
	usual   [numUsual]Time
	unusual *unusualTimers // made when one is first set
}

// unusualTimers are those from numUsual on.
type unusualTimers [numTimers - numUsual]Time

// noUnusual is what connections have that have set none. It is never written to.
var noUnusual = neverUnusual()

func neverUnusual() (u unusualTimers) {
	for i := range u {
		u[i] = Never
	}
	return u
}

func (t *timers) init() {
	t.unusual = &noUnusual
	for i := range t.usual {
		t.usual[i] = Never
	}
}

// at is when a timer expires; Never: it does not run.
func (t *timers) at(k timer) Time {
	if k < numUsual {
		return t.usual[k]
	}
	return t.unusual[k-numUsual]
}

// slot is where that is written to.
func (t *timers) slot(k timer) *Time {
	if k < numUsual {
		return &t.usual[k]
	}
	if t.unusual == &noUnusual {
		t.unusual = new(unusualTimers)
		*t.unusual = noUnusual
	}
	return &t.unusual[k-numUsual]
}

func (t *timers) set(k timer, at Time) { *t.slot(k) = at }

func (t *timers) stop(k timer) {
	if t.running(k) {
		t.set(k, Never)
	}
}

func (t *timers) running(k timer) bool { return t.at(k) != Never }

// earliest is when the next expires, Never if none runs.
func (t *timers) earliest() Time {
	next := Never
	for _, at := range t.usual {
		next = min(next, at)
	}
	if t.unusual != &noUnusual {
		for _, at := range t.unusual {
			next = min(next, at)
		}
	}
	return next
}

// shift moves every running timer d later: time that does not count.
func (t *timers) shift(d time.Duration) {
	for k := range numTimers {
		if t.running(k) {
			t.set(k, t.at(k).Add(d))
		}
	}
}

// Deadline is when Tick wants to be called next, Never if no timer is set.
func (c *Conn) Deadline() Time {
	if c.frozen || c.state == 0 {
		return Never
	}
	return c.timers.earliest()
}

// Tick runs the timers that have expired.
func (c *Conn) Tick(now Time) {
	if c.frozen || c.state == 0 {
		return
	}
	for c.timers.earliest() <= now {
		for k := range numTimers {
			if c.timers.at(k) <= now {
				c.timers.stop(k)
				c.expire(now, k)
			}
		}
	}
	c.predict()
}

// expire acts on one timer, which is already stopped.
func (c *Conn) expire(now Time, k timer) {
	switch k {
	case timerRTO:
		c.onRTO(now)
	case timerReorder:
		c.onReorder(now)
	case timerTailLoss:
		c.onTailLoss(now)
	case timerPersist:
		c.onPersist(now)
	case timerDelayedACK:
		c.onDelayedACK()
	case timerCork:
		c.user.uncork = true
		c.user.pushed = c.sendq.end
	case timerPace:
		// Output will see that it may go on.
	case timerKeepalive:
		c.onKeepalive(now)
	case timerFinWait2, timerTimeWait:
		c.finish()
	}
}
