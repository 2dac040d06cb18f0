package conn

import (
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// synSent takes a segment while our SYN is unanswered.
// https://www.rfc-editor.org/rfc/rfc9293#section-3.10.7.3
func (c *Conn) synSent(now Time, s *Segment) DropReason {
	defer c.predict()
	ack := s.Has(header.TCPFlagAck)
	if ack && (s.Ack.LessThanEq(c.snd.iss) || c.snd.nxt.LessThan(s.Ack)) {
		if !s.Has(header.TCPFlagRst) {
			c.oweResetFor(s)
		}
		return DropInvalidAckSequence
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
	if ack && c.tstamp.on && s.Options.HasTS && !c.tstamp.echoes(now, s.Options.TSEcr, c.rcv.last) {
		// An echo of a timestamp we did not send: not an answer to this SYN.
		// https://www.rfc-editor.org/rfc/rfc7323#section-3.2
		c.oweResetFor(s)
		return DropPAWS
	}
	c.takeSYN(s)
	c.rcv.last = now
	if !ack {
		// Simultaneous open: both SYNs crossed.
		// https://www.rfc-editor.org/rfc/rfc9293#section-3.5-4
		c.setState(StateSynReceived)
		c.oweSYN(now)
		return NotDropped
	}
	c.ackSYN(now, s)
	c.setState(StateEstablished)
	c.updateWindow(s)
	c.startKeepalive(now)
	c.oweAck()
	return NotDropped
}

// takeSYN learns what the peer's SYN says: its sequence numbers and options.
func (c *Conn) takeSYN(s *Segment) {
	o := &s.Options
	c.rcv.irs = s.Seq
	c.rcv.nxt = s.Seq.Add(1)
	c.delack.acked = c.rcv.nxt
	// What our SYN or SYN-ACK offers, never scaled.
	c.rcv.adv = c.rcv.nxt.Add(min(c.recvq.limit(), c.clamp(), maxUnscaledWindow))
	c.snd.wl1 = s.Seq
	c.snd.mss = min(c.cfg.pathMSS, max(orDefault(o.MSS, DefaultMSS), minMSS))
	if m := c.user.opts.MaxSegment; m != 0 {
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
	// The window of a SYN is never scaled (RFC 7323 section 2.2).
	c.snd.wnd = seqSize(s.Window)
	c.snd.maxWnd = c.snd.wnd
	c.snd.raw = s.Window
	c.rcv.base = c.rcv.adv
	c.startCongestion()
}

// ackSYN counts the acknowledgement of our SYN and takes its round trip.
func (c *Conn) ackSYN(now Time, s *Segment) {
	c.snd.una = s.Ack
	if c.owed.synSends == 1 {
		c.rtt.sample(s.arrival(now).Sub(c.owed.synSent))
	} else if c.tstamp.on && s.Options.HasTS && s.Options.TSEcr != 0 {
		// Sent again, or by a cookie: the echo tells which was answered.
		if rtt, ok := c.tstamp.elapsed(s.arrival(now), s.Options.TSEcr); ok {
			c.rtt.sample(rtt)
		}
	}
	c.timers.stop(timerRTO)
	c.rtt.backoff = 0
	c.loss.retries = 0
}

// establish completes a passive or simultaneous open with the peer's ACK.
func (c *Conn) establish(now Time, s *Segment) {
	c.ackSYN(now, s)
	c.owed.syn = false
	c.setState(StateEstablished)
	c.snd.wl1, c.snd.wl2 = s.Seq, s.Ack
	c.setWindow(seqSize(s.Window)<<c.snd.wscale, s.Window)
	c.startKeepalive(now)
	if c.user.finWanted {
		c.queueFIN(now)
		c.startFinWait2(now)
	}
}

// synAgain handles the peer's SYN seen again while ours awaits its ACK.
func (c *Conn) synAgain(now Time, s *Segment) DropReason {
	if s.Has(header.TCPFlagAck) && s.Ack == c.snd.iss.Add(1) {
		// Simultaneous open: the peer's SYN-ACK acknowledges our SYN.
		c.establish(now, s)
		c.oweAck()
		return NotDropped
	}
	c.oweSYN(now)
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
