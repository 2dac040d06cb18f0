package conn

import (
	"bytes"
	"fmt"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/seqnum"

	"github.com/tcprepair/ustack/stack/repair"
)

// A snapshot may come from anywhere. What contradicts itself is refused before
// anything is touched, by repair's rules; what is only out of range is brought
// into range where it is used.

const (
	// maxRun bounds what counts sequence numbers: comparisons of these are sound
	// within it.
	maxRun = repair.MaxQueue
	// maxAge bounds how long ago something can have been, or be to come.
	maxAge = 400 * 24 * time.Hour
)

// Restore sets a snapshot down on a connection that has not been used, in
// whatever state it names, and leaves it frozen: nothing leaves before it is
// thawed. cfg is the new host's; what the two sides agreed on is the
// snapshot's. The queues are copied.
//
// Without the extra part the connection begins in slow start, as on Linux: all
// that was sent counts as in flight, sent when the connection was restored.
//
// The error wraps one of package repair's; nothing has changed then. No
// snapshot makes Restore panic.
func (c *Conn) Restore(now Time, cfg *Config, s *repair.Snapshot) error {
	if c.State() != StateClosed || c.userGone {
		return fmt.Errorf("%w: the connection is in use", repair.ErrInvalid)
	}
	if err := s.ValidateConnection(); err != nil {
		return err
	}
	if err := checkHandshake(s); err != nil {
		return err
	}
	c.init(now, cfg)
	c.frozen, c.odd().frozenAt = true, now
	c.restoreState(s.State)
	c.restoreCore(now, s)
	if x := s.Extra; x != nil {
		c.restoreExtra(now, x)
		c.restoreCongestion(now, &x.Congestion)
		c.restoreSent(now, x.Sent)
		c.restoreLoss(now, x)
		c.restoreActivity(now, &x.Activity)
		c.restoreTimers(now, x.Timers)
	} else {
		c.startTuning(c.window())
		if c.state.Synchronized() {
			c.chrono.opened = now
		}
		c.restoreCongestion(now, &repair.Congestion{})
		c.restoreSent(now, nil)
	}
	c.ensureTimers(now)
	c.events |= EventReadable | EventWritable
	return nil
}

// checkHandshake refuses data before the handshake is over, unless it is known
// how it came to be there (RFC 7413).
func checkHandshake(s *repair.Snapshot) error {
	sending, x := s.SendQueue.Len() > 0, s.Extra
	known := true
	switch s.State {
	case StateSynSent:
		known = !sending || x == nil || x.SYNSends > 0
	case StateSynReceived:
		known = !sending && s.RecvQueue.Len() == 0 || x != nil && x.FastOpen.Serves && x.SYNSends > 0
	}
	if !known {
		return fmt.Errorf("%w: data in %s", repair.ErrState, s.State)
	}
	return nil
}

// restoreCore sets what every snapshot has.
func (c *Conn) restoreCore(now Time, s *repair.Snapshot) {
	k := &s.Core
	c.snd.iss = seqnum.Value(k.SendSeq) - 1
	c.sendq.start, c.sendq.end = seqnum.Value(k.SendSeq), seqnum.Value(k.SendSeq)
	for _, p := range k.SendQueue {
		c.sendq.write(bytes.NewReader(p), len(p)) // neither can fail
	}
	c.user.pushed = c.sendq.end
	una, nxt := seqnum.Value(k.SndUna()), seqnum.Value(k.SndNxt())
	c.snd.una, c.snd.nxt, c.snd.small = una, nxt, una
	c.loss.init(una)

	if c.state != StateSynSent {
		c.rcv.irs = seqnum.Value(k.RecvSeq) - 1
		c.rcv.nxt, c.rcv.fin = seqnum.Value(k.RcvNxt()), k.FINReceived
		c.rcv.adv = seqnum.Value(s.Edge())
		c.rcv.base = c.rcv.adv
		c.restoreWindow(&k.Window)
		for _, p := range k.RecvQueue {
			eachChunk(p, func(b *buffer.Buffer) { c.recvq.append(b) })
		}
	}
	c.user.finWanted = k.FINQueued && c.state == StateSynReceived
	u := c.cfg.opts
	u.NoDelay, u.Cork = k.NoDelay, k.Cork
	c.setOptions(&u)
	c.restoreOptions(k.Options)
	c.cfg.ecn = false // which Linux cannot restore
	c.tstamp.set(now, k.Timestamp, k.TimestampMicros)
	c.tstamp.recent, c.tstamp.since = 0, now.Add(-pawsIdle) // not to be believed
	if !c.state.Synchronized() {
		c.owed.synSends = 2 // not to be timed
		c.passive = c.state == StateSynReceived
	}
}

// restoreWindow takes the windows. If they are not known, the probe at the thaw
// will bring the peer's.
func (c *Conn) restoreWindow(w *repair.Window) {
	c.snd.wl1, c.delack.acked = c.rcv.nxt-1, c.rcv.nxt
	if w.Known() {
		c.snd.wl1, c.delack.acked = seqnum.Value(w.SndWl1), seqnum.Value(w.RcvWup)
	}
	c.snd.wnd, c.snd.maxWnd = seqnum.Size(w.SndWnd), seqnum.Size(w.MaxWindow)
	c.expectWindow()
}

// expectWindow sets the field with which the peer would repeat its window.
func (c *Conn) expectWindow() {
	c.snd.raw = uint16(min(c.snd.wnd>>c.snd.wscale, maxUnscaledWindow))
	c.snd.field = c.snd.raw
}

// restoreOptions takes what the two sides agreed on, or, before they have, what
// we offered.
func (c *Conn) restoreOptions(o repair.Options) {
	c.cfg.scaling, c.cfg.sack, c.tstamp.on = o.Scaling, o.SACK, o.Timestamps
	c.snd.wscale, c.rcv.wscale = 0, 0
	if o.Scaling {
		c.snd.wscale, c.rcv.wscale = o.SendScale, o.RecvScale
	}
	c.restoreMSS(o.MSS)
	c.expectWindow()
}

// restoreMSS takes the peer's segment size, as far as this path takes it.
func (c *Conn) restoreMSS(mss uint16) {
	c.snd.mss = min(c.cfg.pathMSS, max(orDefault(mss, DefaultMSS), minMSS))
	if m := c.cfg.opts.MaxSegment; m != 0 {
		c.snd.mss = min(c.snd.mss, m)
	}
}

// eachChunk copies p into buffers of a size that is pooled.
func eachChunk(p []byte, f func(*buffer.Buffer)) {
	for len(p) > 0 {
		n := min(len(p), maxChunk)
		b := buffer.MakeWithView(buffer.NewViewWithData(p[:n]))
		f(&b)
		p = p[n:]
	}
}

// restoreTimers sets the timers that were running. None gets more than this
// host would give it.
func (c *Conn) restoreTimers(now Time, list []repair.Timer) {
	for _, t := range list {
		for k := range numTimers {
			if timerKinds[k] == t.Kind && c.mayRun(k) {
				c.timers.set(k, now.Add(min(max(t.Left, -maxAge), c.longest(k))))
			}
		}
	}
}

// mayRun reports whether a timer has something to wait for.
func (c *Conn) mayRun(k timer) bool {
	switch k {
	case timerTimeWait:
		return c.state == StateTimeWait
	case timerFinWait2:
		return c.state == StateFinWait2 && c.userGone
	case timerRTO:
		return !c.state.Synchronized() || !c.board.empty()
	case timerTailLoss, timerReorder:
		return !c.board.empty()
	case timerPersist:
		return c.state.Synchronized() && c.board.empty() && c.hasUnsent()
	case timerKeepalive:
		return c.state.Synchronized() && c.state != StateTimeWait && c.cfg.opts.Keepalive.On
	case timerDelayedACK, timerCork:
		return c.state.Synchronized() && c.state != StateTimeWait
	}
	return false
}

// longest is the most that a timer can have left.
func (c *Conn) longest(k timer) time.Duration {
	switch k {
	case timerTimeWait:
		return c.cfg.timeWait
	case timerFinWait2:
		return max(c.cfg.finWait2, 0)
	case timerDelayedACK:
		return maxAckDelay
	case timerCork:
		return corkTime
	case timerKeepalive:
		return max(c.cfg.opts.Keepalive.Idle, c.cfg.opts.Keepalive.Interval)
	}
	return 2 * c.cfg.maxRTO // a tail loss probe, and the timeout after it
}

// ensureTimers sets the timers without which a connection would never end.
func (c *Conn) ensureTimers(now Time) {
	switch {
	case !c.state.Synchronized():
		c.restoreSYN(now)
		return
	case c.state == StateTimeWait:
		if !c.timers.running(timerTimeWait) {
			c.startTimeWait(now)
		}
		return
	case c.state == StateFinWait2 && c.userGone && !c.timers.running(timerFinWait2):
		c.timers.set(timerFinWait2, now.Add(max(c.cfg.finWait2, 0)))
	}
	if !c.board.empty() && !c.timers.running(timerRTO) {
		c.timers.set(timerRTO, c.timeoutAt(now))
	}
	if !c.timers.running(timerKeepalive) {
		c.startKeepalive(now)
	}
}

// restoreSYN says where our SYN is. Without a timer it waits to be sent.
func (c *Conn) restoreSYN(now Time) {
	sent := c.owed.synSends > 0
	if !sent {
		c.snd.nxt = c.snd.iss
	}
	c.owed.syn = !c.timers.running(timerRTO)
	if c.owed.syn && !c.board.empty() {
		c.timers.set(timerRTO, now.Add(InitialRTO)) // as long as data is in flight
	}
	if sent && !c.owed.syn {
		c.owed.synSent = c.timers.at(timerRTO).Add(-min(InitialRTO<<min(c.loss.retries, 16), c.cfg.maxRTO))
	}
}
