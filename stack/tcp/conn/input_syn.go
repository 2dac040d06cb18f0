package conn

import (
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/seqnum"

	"github.com/tcprepair/ustack/stack/tcp/cc"
)

// synSent takes a segment while our SYN is unanswered.
// https://www.rfc-editor.org/rfc/rfc9293#section-3.10.7.3
func (c *Conn) synSent(now Time, s *Segment) DropReason {
	defer c.predict()
	ack := s.Has(header.TCPFlagAck)
	if ack && (s.Ack.LessThanEq(c.snd.iss) || c.snd.nxt.LessThan(s.Ack)) {
		if !s.Has(header.TCPFlagRst) {
			c.oweResetFor(s)
			c.trySYNAgain(now)
		}
		return DropInvalidAckSequence
	}
	if ack && c.cfg.likeLinux && c.foreignEcho(now, s) {
		c.oweResetFor(s)
		return DropPAWS
	}
	if s.Has(header.TCPFlagRst) {
		if ack {
			c.fail(ErrRefused)
		}
		return DropReset
	}
	if !s.Has(header.TCPFlagSyn) {
		return DropTCPFlags
	}
	c.takeSYN(s)
	c.rcv.last = now
	if !ack {
		// Simultaneous open: both SYNs crossed.
		// https://www.rfc-editor.org/rfc/rfc9293#section-3.5-4
		c.setState(StateSynReceived)
		c.oweSYN()
		return NotDropped
	}
	c.ackSYN(now, s)
	c.setState(StateEstablished)
	c.updateWindow(s)
	c.startKeepalive(now)
	c.oweFirstAck(now)
	c.takeSYNACKData(now, s)
	return NotDropped
}

// resetDelay gives a reset time to end a half-open connection of the peer's
// before our SYN goes again (Linux TCP_TIMEOUT_MIN).
const resetDelay = 2 * time.Millisecond

// trySYNAgain sends our SYN again soon, if it was sent once: what answered it
// is a connection that the peer has from before, and will not have any more.
// https://www.rfc-editor.org/rfc/rfc9293#section-3.5.1
func (c *Conn) trySYNAgain(now Time) {
	if c.loss.retries == 0 && c.owed.synSends > 0 {
		c.timers.set(timerRTO, min(c.timers.at(timerRTO), now.Add(resetDelay)))
	}
}

// foreignEcho reports whether a segment that answers our SYN echoes a timestamp
// that none of our SYNs carried (Linux tcp_rcv_synsent_state_process).
func (c *Conn) foreignEcho(now Time, s *Segment) bool {
	echo := s.Options.TSEcr
	return c.tstamp.on && s.Options.HasTS && echo != 0 && !s.Has(header.TCPFlagRst) &&
		(int32(echo-c.tstamp.value(c.loss.stalled)) < 0 || int32(c.tstamp.value(now)-echo) < 0)
}

// takeSYN learns what the peer's SYN says: its sequence numbers and options.
func (c *Conn) takeSYN(s *Segment) {
	o := &s.Options
	c.rcv.irs = s.Seq
	c.rcv.nxt = s.Seq.Add(1)
	c.delack.acked = c.rcv.nxt
	// What our SYN or SYN-ACK offers, never scaled.
	window := min(c.recvq.limit(), c.clamp(), maxUnscaledWindow)
	c.rcv.adv = c.rcv.nxt.Add(window)
	c.startTuning(window)
	c.snd.wl1 = s.Seq
	c.snd.mss = min(c.cfg.pathMSS, max(orDefault(o.MSS, DefaultMSS), minMSS))
	if m := c.cfg.opts.MaxSegment; m != 0 {
		c.snd.mss = min(c.snd.mss, m)
	}
	c.cfg.sack = c.cfg.sack && o.SACKPermitted
	c.cfg.scaling = c.cfg.scaling && o.HasWScale
	if c.cfg.scaling {
		c.snd.wscale = o.WScale
	} else {
		c.rcv.wscale = 0
	}
	c.cfg.ecn = c.cfg.ecn && ecnAgreed(s)
	c.tstamp.on = c.tstamp.on && o.HasTS
	if c.tstamp.on {
		c.tstamp.start(o.TSVal, c.rcv.last)
	}
	c.snd.wnd, c.snd.raw = c.synWindow(s)
	c.snd.field = c.snd.raw
	c.snd.maxWnd = c.snd.wnd
	c.rcv.base = c.rcv.adv
	c.startCongestion()
}

// synWindow is the window that a SYN offers, which is never scaled (RFC 7323
// section 2.2), and the field with which a later segment would say the same:
// prediction compares that, and the SYN's own would mean more.
func (c *Conn) synWindow(s *Segment) (seqnum.Size, uint16) {
	return seqSize(s.Window), s.Window >> c.snd.wscale
}

// ackSYN counts the acknowledgement of our SYN and takes its round trip.
func (c *Conn) ackSYN(now Time, s *Segment) {
	c.snd.una = c.snd.iss.Add(1)
	c.stats.Delivered++
	if c.owed.synSends == 1 {
		c.rtt.sample(now, s.arrival(now).Sub(c.owed.synSent))
	} else if c.tstamp.on && s.Options.HasTS && s.Options.TSEcr != 0 {
		// Sent again, or by a cookie: the echo tells which was answered.
		if rtt, ok := c.elapsed(s.arrival(now), s.Options.TSEcr); ok {
			c.rtt.sample(now, rtt)
		}
	}
	c.timers.stop(timerRTO)
	c.rtt.backoff = 0
	c.rtt.unsure = c.loss.retries > 0 && c.rtt.smoothed == 0
	if c.loss.retries > 1 {
		c.startGently(now)
	}
	c.loss.retries = 0
	c.chrono.opened = now
	c.ackSYNData(now, s)
	if c.cfg.likeLinux {
		c.growLinux()
	}
}

// startGently begins with a congestion window of one segment: once a SYN may
// time out because the path is slow, but not twice.
// https://www.rfc-editor.org/rfc/rfc6928#section-2
func (c *Conn) startGently(now Time) {
	mss := c.segmentSize()
	one := cc.State{Name: c.cc.Name(), Window: int64(mss), Threshold: c.cc.Threshold()}
	if ctl, err := cc.Restore(one, int64(now), mss); err == nil {
		c.cc = ctl
	}
}

// establish completes a passive or simultaneous open with the peer's ACK.
func (c *Conn) establish(now Time, s *Segment) {
	c.ackSYN(now, s)
	c.owed.syn = false
	c.setState(StateEstablished)
	c.snd.wl1 = s.Seq
	if s.Has(header.TCPFlagSyn) {
		c.setWindow(c.synWindow(s))
	} else {
		c.setWindow(seqSize(s.Window)<<c.snd.wscale, s.Window)
	}
	c.startKeepalive(now)
	if !c.board.empty() {
		c.armRetransmit(now) // the timer was the SYN-ACK's
	}
	if c.user.finWanted {
		c.queueFIN(now)
		c.startFinWait2(now)
	}
}

// checkSYN is the fourth step: a SYN when the peer's is known already. In a
// synchronized state it draws a challenge ACK, wherever it lies.
// https://www.rfc-editor.org/rfc/rfc5961#section-4.2
func (c *Conn) checkSYN(now Time, s *Segment) DropReason {
	if c.state == StateSynReceived {
		again, ack := s.Seq == c.rcv.irs, s.Has(header.TCPFlagAck)
		switch {
		case again && ack && !c.passive && c.snd.iss.LessThan(s.Ack) && s.Ack.LessThanEq(c.snd.nxt):
			// Simultaneous open: the peer's SYN-ACK acknowledges our SYN.
			c.establish(now, s)
			if c.cfg.likeLinux {
				c.duplicate(s.Seq, s.Seq.Add(1)) // its SYN came twice
			}
			c.oweAck()
			return NotDropped
		case again && !ack:
			// The peer did not hear our SYN-ACK. The answer echoes this SYN, or
			// the peer would take its own timeout for a round trip.
			if c.tstamp.on && s.Options.HasTS && c.tstamp.fresh(s) {
				c.tstamp.start(s.Options.TSVal, now)
			}
			c.oweSYN()
			return DropInvalidSYN
		case c.passive && c.position(s) == NotDropped:
			// "If the connection was initiated with a passive OPEN, then return
			// this connection to the LISTEN state and return."
			// https://www.rfc-editor.org/rfc/rfc9293#section-3.10.7.4 (fourth)
			c.fail(ErrReset)
			return DropInvalidSYN
		}
	}
	if c.state == StateTimeWait && !s.Has(header.TCPFlagAck) && !c.cfg.likeLinux {
		// One that Reusable would not have: "silently drop the incoming SYN
		// segment". To challenge it would be in vain, as the peer's reset that
		// answers is ignored here. https://www.rfc-editor.org/rfc/rfc6191#section-2
		return DropInvalidSYN
	}
	c.oweChallenge(now)
	return DropInvalidSYN
}

// minMSS is the least segment we let a peer's MSS option talk us into; a tiny
// one would make headers of everything (Linux TCP_MIN_SND_MSS).
const minMSS = 48

// Reset returns the RST that answers a segment for which there is no
// connection, and whether there is one to send: a RST is never answered.
// https://www.rfc-editor.org/rfc/rfc9293#section-3.10.7.1
func Reset(s *Segment) (Segment, bool) {
	if s.Has(header.TCPFlagRst) {
		return Segment{}, false
	}
	if s.Has(header.TCPFlagAck) {
		return Segment{Seq: s.Ack, Flags: header.TCPFlagRst}, true
	}
	return Segment{Ack: s.End(), Flags: header.TCPFlagRst | header.TCPFlagAck}, true
}
