package conn

import (
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// armPersist sets the timer that probes a window too small to send into, when
// nothing is outstanding that would be retransmitted instead.
// https://www.rfc-editor.org/rfc/rfc9293#section-3.8.6.1
func (c *Conn) armPersist(now Time) {
	if !c.board.empty() || c.timers.running(timerPersist) || c.holdSmall() && c.usableWindow() > c.unsent() {
		return
	}
	if c.loss.retries == 0 {
		c.loss.stalled = now // the user's patience begins with the first probe's wait
	}
	c.timers.set(timerPersist, c.timeoutAt(now))
}

// onPersist owes a probe. The interval doubles; a peer that answers is probed
// for ever, one that does not is given up like one that acknowledges nothing.
func (c *Conn) onPersist(now Time) {
	if !c.hasUnsent() || !c.board.empty() {
		return
	}
	if c.givenUp(now) {
		c.giveUp()
		return
	}
	if c.burden() {
		c.oweAbort()
		c.giveUp()
		return
	}
	c.loss.retries++
	c.rtt.backOff(&c.cfg)
	if c.usableWindow() > 0 {
		c.user.force = true // a silly window is better than none
		return
	}
	c.owed.probe = windowProbe
	c.timers.set(timerPersist, c.timeoutAt(now))
}

// outputProbe sends a segment below SND.UNA, which the peer must answer. Into a
// closed window it carries an octet, one that was acknowledged long ago, so that
// it counts as data: some peers limit how often they answer empty segments, and
// some do not answer them at all (RFC 1122 section 4.2.3.6).
func (c *Conn) outputProbe(now Time, out *Segment) bool {
	if c.owed.probe == noProbe {
		return false
	}
	kind := c.owed.probe
	c.owed.probe = noProbe
	c.outputEmpty(now, out, c.probeSeq())
	if kind == windowProbe && !c.cfg.likeLinux {
		out.Payload = buffer.MakeWithData([]byte{0})
	}
	return true
}

// startKeepalive sets the keepalive timer if it is on.
// https://www.rfc-editor.org/rfc/rfc9293#section-3.8.4
func (c *Conn) startKeepalive(now Time) {
	c.timers.stop(timerKeepalive)
	if k := &c.cfg.opts.Keepalive; k.On && c.state.Synchronized() && c.state != StateTimeWait {
		c.timers.set(timerKeepalive, now.Add(k.Idle))
	}
}

// onKeepalive asks a silent peer whether it is there.
func (c *Conn) onKeepalive(now Time) {
	k := &c.cfg.opts.Keepalive
	if !k.On {
		return
	}
	silent := now.Sub(c.rcv.last)
	if c.rcv.last > c.user.probed {
		c.user.keepalives = 0 // it has answered
	}
	switch {
	case !c.board.empty() || c.hasUnsent():
		// Retransmissions and window probes ask already.
		c.timers.set(timerKeepalive, now.Add(k.Idle))
	case silent < k.Idle:
		c.timers.set(timerKeepalive, c.rcv.last.Add(k.Idle))
	case c.user.keepalives > 0 && c.keptTooLong(silent, k):
		c.giveUp()
		// https://www.rfc-editor.org/rfc/rfc9293#section-3.10.5 : <SEQ=SND.NXT><CTL=RST>
		c.owed.reset = true
		c.odd().rst = rst{seq: c.snd.nxt, flags: header.TCPFlagRst}
	default:
		c.user.keepalives++
		c.user.probed = now
		c.owed.probe = keepaliveProbe
		c.stats.count().KeepaliveProbes++
		c.timers.set(timerKeepalive, now.Add(k.Interval))
	}
}

// keptTooLong reports whether the peer has left enough probes unanswered. A
// user timeout overrides the count, as on Linux.
func (c *Conn) keptTooLong(silent time.Duration, k *Keepalive) bool {
	if t := c.cfg.opts.UserTimeout; t > 0 {
		return silent >= t
	}
	return int(c.user.keepalives) >= k.Count
}

// probesOut is how many probes the peer has not answered.
func (c *Conn) probesOut() int {
	if c.board.empty() && c.hasUnsent() {
		return int(c.loss.retries)
	}
	return int(c.user.keepalives)
}
