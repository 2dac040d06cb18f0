package conn

import (
	"github.com/tcprepair/ustack/stack/tcp/cc"
)

// armRetransmit sets the retransmission timer for what is outstanding, or
// stops it.
// https://www.rfc-editor.org/rfc/rfc6298#section-5 (5.1 to 5.3)
func (c *Conn) armRetransmit(now Time) {
	if c.board.empty() {
		c.timers.stop(timerRTO)
		c.timers.stop(timerTailLoss)
		c.timers.stop(timerReorder)
		if c.loss.tail.due = false; !c.loss.tail.again {
			c.loss.tail = tailLoss{} // else what follows tells
		}
		return
	}
	c.timers.stop(timerPersist)
	c.timers.set(timerRTO, c.timeoutAt(now))
	c.armTailLoss(now)
}

// timeoutAt is when a timeout that begins now ends. Once data has been repeated
// the user's patience may end sooner (Linux tcp_clamp_rto_to_user_timeout).
func (c *Conn) timeoutAt(now Time) Time {
	at := now.Add(c.rtt.timeout(&c.cfg))
	if t := c.cfg.opts.UserTimeout; t > 0 && c.loss.retries > 0 {
		at = max(now, min(at, c.loss.stalled.Add(t)))
	}
	return at
}

// onRTO runs when the retransmission timer expires.
// https://www.rfc-editor.org/rfc/rfc6298#section-5 (5.4 to 5.7)
func (c *Conn) onRTO(now Time) {
	switch c.state {
	case StateSynSent, StateSynReceived:
		c.onSYNTimeout(now)
		return
	}
	if c.board.empty() {
		return
	}
	if c.givenUp(now) {
		c.giveUp()
		return
	}
	c.stats.count().Timeouts++
	c.enterLoss(now)
	c.rtt.backOff(&c.cfg)
	c.loss.retries++
	c.suspectBlackHole(now)
	c.timers.set(timerRTO, c.timeoutAt(now))
}

// givenUp reports whether the peer has been silent for too long. A peer that
// closed its window but still answers is never given up.
// https://www.rfc-editor.org/rfc/rfc9293#section-3.8.3
func (c *Conn) givenUp(now Time) bool {
	if t := c.cfg.opts.UserTimeout; t > 0 {
		return now.Sub(c.loss.stalled) >= t
	}
	if c.snd.wnd == 0 && now.Sub(c.rcv.last) <= c.cfg.maxRTO && !c.burden() {
		c.loss.retries = 0
	}
	return int(c.loss.retries) >= c.cfg.retries
}

// burden reports whether a peer has kept its window closed for long to a
// connection that nobody waits for: it may do so for ever, but not hold that
// (Linux tcp_probe_timer).
func (c *Conn) burden() bool {
	return c.userGone && c.rtt.timeout(&c.cfg) >= c.cfg.maxRTO
}

// onSYNTimeout repeats our SYN or SYN-ACK, or gives up.
func (c *Conn) onSYNTimeout(now Time) {
	late := c.cfg.opts.UserTimeout > 0 && now.Sub(c.loss.stalled) >= c.cfg.opts.UserTimeout
	if late || int(c.loss.retries) >= c.cfg.synRetries {
		c.giveUp()
		return
	}
	c.stats.count().Timeouts++
	c.loss.retries++
	c.owed.syn = true
}

// enterLoss judges everything outstanding lost and begins again with one
// segment. Whether the timeout was spurious may show later.
func (c *Conn) enterLoss(now Time) {
	l := &c.loss
	calm := l.phase < phaseRecovery
	if l.phase != phaseLoss || l.retries == 0 {
		// A repeated timeout of the same data is no news about congestion.
		// https://www.rfc-editor.org/rfc/rfc5681#section-3.1 (equation 4)
		c.cc.OnCongestion(cc.Congestion{Now: int64(now), Signal: cc.Timeout, Flight: c.flightBefore(), MSS: c.segmentSize()})
		l.mayUndo(c.snd.una)
		l.undo.armed = calm
	}
	// Only the first timeout of an undisturbed flight can be told from a
	// spurious one. https://www.rfc-editor.org/rfc/rfc5682#section-2.1 (1)
	l.frto = calm && l.retries == 0
	c.ecn.cwr = c.cfg.ecn
	l.phase = phaseLoss
	l.insist = true
	l.point, l.held = c.snd.nxt, true
	l.dupAcks = 0
	l.tail = tailLoss{}
	c.timers.stop(timerTailLoss)
	c.timers.stop(timerReorder)
	c.board.markAll(c.board.recs[0].is(recSacked)) // a SACKed head was reneged on
}
