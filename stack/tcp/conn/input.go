package conn

import (
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/seqnum"
)

// Input takes a segment whose checksum was right. It owns the payload. The
// verdict says whether the segment was used or why it was refused; an answer,
// if one is due, is owed and comes from Output.
func (c *Conn) Input(now Time, s *Segment) DropReason {
	c.stats.SegsIn++
	c.owed.look = true
	verdict := c.input(now, s)
	if verdict != NotDropped {
		c.countDrop(verdict)
	}
	s.Release() // what the queues took is no longer in it
	return verdict
}

// countDrop counts a refused segment. Most connections never refuse any.
func (c *Conn) countDrop(r DropReason) {
	o := c.odd()
	if o.drops == nil {
		o.drops = new([NumDropReasons]uint32)
	}
	o.drops[r]++
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
	// RFC 5961 has a RST and a SYN judged by rules of their own wherever they
	// lie, so the second step and the fourth come before the first. The third
	// is about security labels, which nobody uses.
	switch {
	case s.Has(header.TCPFlagRst):
		return c.checkReset(now, s)
	case s.Has(header.TCPFlagSyn):
		return c.checkSYN(now, s)
	}
	if verdict := c.checkSequence(now, s); verdict != NotDropped {
		return verdict
	}
	if !s.Has(header.TCPFlagAck) {
		return DropTCPFlags
	}
	if verdict := c.checkAck(now, s); verdict != NotDropped {
		return verdict
	}
	c.rcv.last = now
	c.updateTimestamp(now, s)
	// The sixth step is the urgent pointer: it is read and not acted upon, as
	// RFC 6093 advises new implementations; urgent data stays in the stream.
	fin := s.End() - 1
	verdict := c.takeText(now, s)
	c.takeFIN(now, s, fin)
	return verdict
}

// checkSequence is the first step: is any of the segment inside the window?
// One that is not draws an acknowledgement.
func (c *Conn) checkSequence(now Time, s *Segment) DropReason {
	if c.tstamp.stale(now, s) {
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
	if verdict == DropOldData {
		c.duplicate(s.Seq, s.End())
	}
	if c.state == StateTimeWait && s.Has(header.TCPFlagFin|header.TCPFlagAck) && s.End() == c.rcv.nxt {
		// "The only thing that can arrive in this state is a retransmission
		// of the remote FIN. Acknowledge it, and restart the 2 MSL timeout."
		c.startTimeWait(now)
	}
	c.oweOutOfWindow(now, s)
	return verdict
}

// position places a segment against the receive window and names what is wrong
// with it, if anything. The four cases are table 6 of RFC 9293 section 3.4; the
// names on the right are Linux's, which tells the edge from what is beyond.
func (c *Conn) position(s *Segment) DropReason {
	var (
		n     = s.Len()
		first = s.Seq
		edge  = c.rcv.nxt.Add(c.window())
	)
	switch {
	case n == 0 && first.LessThan(c.rcv.nxt):
		return DropOldSequence
	case n != 0 && first.Add(n).LessThanEq(c.rcv.nxt):
		return DropOldData
	case edge.LessThan(first):
		return DropInvalidSequence
	case n == 0 && first == edge && edge != c.rcv.nxt && c.state == StateSynReceived:
		return DropInvalidSequence
	case n == 0:
		// Once data may flow the edge itself counts as inside: a peer that has
		// filled the window acknowledges from there.
		return NotDropped
	case edge != c.rcv.nxt && first == edge:
		return DropOverWindow
	case edge == c.rcv.nxt && c.rcv.fin:
		return DropZeroWindow
	}
	// Into a closed window a segment still brings its acknowledgement.
	return NotDropped
}

// checkReset is the second step, with the care of RFC 5961: only a reset that
// names exactly the next sequence number is believed, one that lies elsewhere
// in the window is asked for again, and one outside is ignored.
// https://www.rfc-editor.org/rfc/rfc9293#section-3.10.7.4 (second, "check the RST bit")
func (c *Conn) checkReset(now Time, s *Segment) DropReason {
	switch {
	case s.Seq.LessThan(c.rcv.nxt):
		return DropOldSequence
	case s.Seq != c.rcv.nxt && c.rcv.nxt.Add(c.window()).LessThanEq(s.Seq):
		return DropInvalidSequence
	case c.state == StateTimeWait:
		// https://www.rfc-editor.org/rfc/rfc1337#section-3 (fix F1): a reset
		// does not cut TIME-WAIT short.
	case s.Seq != c.rcv.nxt:
		c.oweChallenge(now)
	case c.state == StateSynReceived && !c.passive:
		c.fail(ErrRefused)
	case c.state == StateClosing, c.state == StateLastAck:
		c.finish()
	case c.state == StateCloseWait:
		c.fail(ErrClosedForSend) // reading has ended in order (Linux tcp_reset)
	default:
		c.fail(ErrReset)
	}
	return DropReset
}

// checkAck is the fifth step: is the acknowledgement one we could be given?
func (c *Conn) checkAck(now Time, s *Segment) DropReason {
	if c.state == StateSynReceived {
		if s.Ack.LessThanEq(c.snd.iss) || c.snd.nxt.LessThan(s.Ack) {
			c.oweResetFor(s)
			return DropInvalidAckSequence
		}
		c.establish(now, s)
	}
	switch {
	case c.snd.nxt.LessThan(s.Ack):
		if !c.cfg.likeLinux || c.state != StateEstablished {
			c.oweChallenge(now)
		}
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
		}
	case StateTimeWait:
		if s.Len() != 0 || s.Seq != c.rcv.nxt {
			// Nothing of the kind can arrive here; Linux, too, says where we
			// stand (tcp_timewait_state_process).
			c.oweOutOfWindow(now, s)
		}
	}
	return NotDropped
}

// takeFIN is the eighth step. A FIN counts once everything before it has come:
// the segment at hand may end with a FIN at sequence number fin that is due, or
// one that came early may be due now.
func (c *Conn) takeFIN(now Time, s *Segment, fin seqnum.Value) {
	has := s.Has(header.TCPFlagFin)
	switch {
	case c.state == StateClosed:
		return
	case c.rcv.fin:
		// The peer's sequence space has ended: another FIN is acknowledged,
		// and not counted.
		if has {
			c.oweAck()
			if c.state == StateTimeWait {
				c.startTimeWait(now)
			}
		}
		return
	case !(has && fin == c.rcv.nxt) && !c.reasm.finReached(c.rcv.nxt):
		return
	}
	c.rcv.fin = true
	c.rcv.nxt++
	c.noDisorder()
	c.oweAck()
	c.events |= EventPeerClosed | EventReadable
	switch c.state {
	case StateEstablished:
		c.setState(StateCloseWait)
	case StateFinWait1:
		c.setState(StateClosing)
	case StateFinWait2:
		c.enterTimeWait(now)
	}
}
