package conn

import (
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// Input takes a segment whose checksum was right. It owns the payload. The
// verdict says whether the segment was used or why it was refused; an answer,
// if one is due, is owed and comes from Output.
func (c *Conn) Input(now Time, s *Segment) DropReason {
	c.stats.SegsIn++
	verdict := c.input(now, s)
	if verdict != NotDropped {
		c.drops[verdict]++
	}
	s.Release() // what the queues took is no longer in it
	return verdict
}

func (c *Conn) input(now Time, s *Segment) DropReason {
	if c.state == StateEstablished {
		return c.established(now, s)
	}
	return c.stateProcess(now, s)
}

// established is the input routine of a connection in full flow. The fast path
// takes the segment that prediction expects: in order, inside the window,
// nothing unusual about it.
func (c *Conn) established(now Time, s *Segment) DropReason {
	if s.word() == c.predicted && s.Seq == c.rcv.nxt && c.fast(now, s) {
		return NotDropped
	}
	// The slow path begins here, and with it what the fast path need not ask.
	if c.frozen {
		return DropSocketRepair
	}
	return c.steps(now, s)
}

// fast takes the predicted segment, or reports false and has done nothing.
func (c *Conn) fast(now Time, s *Segment) bool {
	n := s.DataLen()
	if c.snd.nxt.LessThan(s.Ack) || s.Ack.LessThan(c.snd.una) || n > c.window() || !c.tstamp.fresh(s) {
		return false
	}
	c.rcv.last = now
	if n == 0 {
		if s.Ack == c.snd.una {
			return false // maybe a duplicate acknowledgement, or a keepalive's answer
		}
		c.updateTimestamp(now, s)
		c.ack(now, s)
		return true
	}
	c.updateTimestamp(now, s)
	c.snd.wl1 = s.Seq
	if s.Ack != c.snd.una {
		c.ack(now, s)
	}
	c.takeInOrder(now, s)
	return true
}

// stateProcess is the input routine of every state but ESTABLISHED.
func (c *Conn) stateProcess(now Time, s *Segment) DropReason {
	if c.frozen {
		return DropSocketRepair
	}
	switch c.State() {
	case StateClosed, StateListen:
		// https://www.rfc-editor.org/rfc/rfc9293#section-3.10.7.1
		// The caller answers with Reset; a listener is the caller's too.
		return DropClosed
	case StateSynSent:
		return c.synSent(now, s)
	}
	return c.steps(now, s)
}

// steps takes a segment through the eight steps for a connection that knows
// the peer's sequence numbers.
// https://www.rfc-editor.org/rfc/rfc9293#section-3.10.7.4
func (c *Conn) steps(now Time, s *Segment) DropReason {
	defer c.predict()
	if verdict := c.checkSequence(now, s); verdict != NotDropped {
		return verdict
	}
	if s.Has(header.TCPFlagRst) {
		return c.checkReset(now, s)
	}
	// The third step is about security labels, which nobody uses.
	if s.Has(header.TCPFlagSyn) {
		c.oweChallenge(now)
		return DropInvalidSYN
	}
	if !s.Has(header.TCPFlagAck) {
		return DropTCPFlags
	}
	c.rcv.last = now
	if verdict := c.checkAck(now, s); verdict != NotDropped {
		return verdict
	}
	c.updateTimestamp(now, s)
	// The sixth step is the urgent pointer: it is read and not acted upon, as
	// RFC 6093 advises new implementations; urgent data stays in the stream.
	fin := s.End() - 1
	verdict := c.takeText(now, s)
	c.takeFIN(now, s.Has(header.TCPFlagFin) && fin == c.rcv.nxt)
	return verdict
}

// checkSequence is the first step: is any of the segment inside the window?
// One that is not draws an acknowledgement, unless it is a reset.
func (c *Conn) checkSequence(now Time, s *Segment) DropReason {
	if c.state == StateSynReceived && s.Has(header.TCPFlagSyn) && s.Seq == c.rcv.irs {
		// The peer did not hear our SYN-ACK, or it opened at the same time as
		// we did and this is its SYN-ACK.
		return c.synAgain(now, s)
	}
	if c.tstamp.stale(now, s) && !s.Has(header.TCPFlagRst) {
		// https://www.rfc-editor.org/rfc/rfc7323#section-5.3 (R1)
		c.oweOutOfWindow(now, s)
		if c.state == StateTimeWait {
			return DropTimeWaitPAWS
		}
		return DropPAWS
	}
	verdict := c.position(s)
	if verdict == NotDropped {
		return NotDropped
	}
	if !s.Has(header.TCPFlagRst) {
		if verdict == DropOldData {
			c.sacks.duplicate(s.Seq, s.End(), c.rcv.nxt)
		}
		if c.state == StateTimeWait && s.Has(header.TCPFlagFin) {
			// "The only thing that can arrive in this state is a retransmission
			// of the remote FIN. Acknowledge it, and restart the 2 MSL timeout."
			c.startTimeWait(now)
		}
		c.oweOutOfWindow(now, s)
		return verdict
	}
	return DropReset
}

// position places a segment against the receive window and names what is wrong
// with it, if anything. The four cases are table 6 of RFC 9293 section 3.4.
func (c *Conn) position(s *Segment) DropReason {
	var (
		n     = s.Len()
		first = s.Seq
		edge  = c.rcv.nxt.Add(c.window())
	)
	switch {
	case n == 0 && first.LessThan(c.rcv.nxt):
		return DropOldSequence
	case n == 0 && edge.LessThan(first):
		return DropInvalidSequence
	case n == 0:
		// The edge itself counts as inside: a peer that has filled the window
		// acknowledges from there.
		return NotDropped
	case first.Add(n).LessThanEq(c.rcv.nxt):
		return DropOldData
	case first == c.rcv.nxt:
		return NotDropped // into a closed window it still brings its acknowledgement
	case edge.LessThanEq(first):
		if c.window() == 0 {
			return DropZeroWindow
		}
		return DropInvalidSequence
	}
	return NotDropped
}

// checkReset is the second step, with the care of RFC 5961: only a reset that
// names exactly the next sequence number is believed.
// https://www.rfc-editor.org/rfc/rfc9293#section-3.10.7.4 (second, "check the RST bit")
func (c *Conn) checkReset(now Time, s *Segment) DropReason {
	if s.Seq != c.rcv.nxt {
		c.oweChallenge(now)
		return DropReset
	}
	switch c.state {
	case StateSynReceived:
		if c.passive {
			c.fail(ErrReset)
		} else {
			c.fail(ErrRefused)
		}
	case StateTimeWait:
		// https://www.rfc-editor.org/rfc/rfc1337#section-3 (fix F1): a reset
		// does not cut TIME-WAIT short.
	case StateClosing, StateLastAck:
		c.finish()
	case StateCloseWait:
		c.fail(ErrClosedForSend) // reading has ended in order (Linux tcp_reset)
	default:
		c.fail(ErrReset)
	}
	return DropReset
}

// checkAck is the fifth step: is the acknowledgement one we could be given?
func (c *Conn) checkAck(now Time, s *Segment) DropReason {
	if c.state == StateSynReceived {
		if s.Ack.LessThanEq(c.snd.una) || c.snd.nxt.LessThan(s.Ack) {
			c.oweResetFor(s)
			return DropInvalidAckSequence
		}
		c.establish(now, s)
	}
	switch {
	case c.snd.nxt.LessThan(s.Ack):
		c.oweChallenge(now)
		return DropAckUnsentData
	case s.Ack.LessThan(c.snd.una.Add(-c.snd.maxWnd)):
		// https://www.rfc-editor.org/rfc/rfc5961#section-5.2
		c.oweChallenge(now)
		return DropTooOldAck
	}
	c.ack(now, s)
	switch c.state {
	case StateFinWait1:
		if c.finAcked() {
			c.setState(StateFinWait2)
			c.startFinWait2(now)
		}
	case StateClosing:
		if c.finAcked() {
			c.enterTimeWait(now)
		}
	case StateLastAck:
		if c.finAcked() {
			c.finish()
			return NotDropped
		}
	}
	return NotDropped
}

// takeFIN is the eighth step. A FIN counts once everything before it has come:
// next says that the segment at hand ends with a FIN that is due; one that came
// early may be due now.
func (c *Conn) takeFIN(now Time, next bool) {
	if !next && !c.reasm.finReached(c.rcv.nxt) || c.rcv.fin || c.state == StateClosed {
		return
	}
	c.rcv.fin = true
	c.rcv.nxt++
	c.reasm.release()
	c.oweAck()
	c.events |= EventPeerClosed | EventReadable
	switch c.state {
	case StateSynReceived, StateEstablished:
		c.setState(StateCloseWait)
	case StateFinWait1:
		if c.finAcked() {
			c.enterTimeWait(now)
		} else {
			c.setState(StateClosing)
		}
	case StateFinWait2:
		c.enterTimeWait(now)
	case StateTimeWait:
		c.startTimeWait(now)
	}
}
