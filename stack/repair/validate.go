package repair

import "fmt"

const (
	// MaxQueue is the most bytes that either queue of a Snapshot may hold: the
	// largest window there is (RFC 7323 section 2.3) is a little below it.
	MaxQueue = 1 << 30
	// maxWindow is the largest window in bytes.
	maxWindow = 0xffff << MaxScale
)

// before reports whether sequence number a is before b.
func before(a, b uint32) bool { return int32(a-b) < 0 }

// RcvNxt is RCV.NXT: the sequence number expected next, FIN included.
func (c *Core) RcvNxt() uint32 { return c.RecvSeq + count(c.FINReceived) }

// SndUna is SND.UNA: the oldest sequence number not acknowledged. In SYN-SENT
// and SYN-RECEIVED it is our SYN's.
func (c *Core) SndUna() uint32 {
	if c.State.in(StateSynSent, StateSynReceived) {
		return c.SendSeq - 1
	}
	return c.SendSeq + count(c.FINAcked)
}

// SndNxt is SND.NXT, if all that ever left counts: the sequence number after
// the last that has been sent, FIN included.
func (c *Core) SndNxt() uint32 {
	return c.SendSeq + uint32(c.SendQueue.Len()-c.Unsent) + count(c.FINSent)
}

// WriteSeq is the sequence number after the last byte that the user has
// written, FIN included: Linux's TCP_QUEUE_SEQ of the send queue.
func (c *Core) WriteSeq() uint32 {
	return c.SendSeq + uint32(c.SendQueue.Len()) + count(c.FINQueued)
}

// count is how many sequence numbers a flag takes.
func count(flag bool) uint32 {
	if flag {
		return 1
	}
	return 0
}

// Validate tells whether the Snapshot describes a connection that can be. The
// error wraps ErrInvalid (or ErrTooBig) and names what is wrong; everything
// that restores a Snapshot asks this first, so that a damaged or forged one
// changes nothing.
func (s *Snapshot) Validate() error {
	if s.State == StateListen {
		return s.validateListener()
	}
	if len(s.Children) != 0 {
		return invalid("a connection in state %v cannot have children", s.State)
	}
	for _, check := range checks {
		if err := check(s); err != nil {
			return err
		}
	}
	return nil
}

// checks are what Validate asks of a connection, in this order: each may rely
// on those before it.
var checks = [...]func(*Snapshot) error{
	func(s *Snapshot) error { return s.Flow().Validate() },
	(*Snapshot).validateState,
	(*Snapshot).validateQueues,
	(*Snapshot).validateOptions,
	(*Snapshot).validateWindow,
	(*Snapshot).validateExtra,
}

func (s *Snapshot) validateListener() error {
	if err := validateLocal(s.Local); err != nil {
		return err
	}
	switch {
	case s.Remote.IsValid():
		return invalid("a listener has no peer, but this one has %v", s.Remote)
	case s.SendQueue.Len() != 0 || s.RecvQueue.Len() != 0 || s.Unsent != 0:
		return invalid("a listener has no data")
	case s.FINQueued || s.FINSent || s.FINAcked || s.FINReceived:
		return invalid("a listener has no FINs")
	case s.Options.SendScale > MaxScale || s.Options.RecvScale > MaxScale:
		return ErrTooBig
	}
	flows := make(map[Flow]bool, len(s.Children))
	for i, child := range s.Children {
		if err := s.validateChild(child, flows); err != nil {
			return fmt.Errorf("child %d: %w", i, err)
		}
	}
	return nil
}

// validateChild checks one connection of a listener; flows are those of the
// children before it.
func (s *Snapshot) validateChild(child *Snapshot, flows map[Flow]bool) error {
	switch {
	case child == nil:
		return invalid("there is none")
	case !child.State.in(StateSynReceived, StateEstablished, StateCloseWait):
		return invalid("a connection in state %v waits for no accept", child.State)
	case child.Local.Port() != s.Local.Port():
		return invalid("its port %d is not the listener's", child.Local.Port())
	case !s.Local.Addr().IsUnspecified() && child.Local.Addr().Unmap() != s.Local.Addr().Unmap():
		return invalid("its address %v is not the listener's", child.Local.Addr())
	case flows[child.Flow()]:
		return invalid("%v is there twice", child.Flow())
	}
	flows[child.Flow()] = true
	return child.Validate()
}

// validateState checks that the FINs are those of the state.
func (c *Core) validateState() error {
	s := c.State
	switch {
	case !s.known() || s == StateClosed:
		return invalid("there is no connection in state %v", s)
	case c.FINSent && !c.FINQueued, c.FINAcked && !c.FINSent:
		return invalid("a FIN cannot be sent before it is queued, nor acknowledged before it is sent")
	case c.FINAcked != s.in(finAckedStates...):
		return invalid("our FIN being acknowledged or not does not go with state %v", s)
	case c.FINReceived != s.in(finReceivedStates...):
		return invalid("the peer's FIN being received or not does not go with state %v", s)
	case c.FINQueued && s.in(StateEstablished, StateCloseWait):
		return invalid("our FIN cannot be queued in state %v", s)
	case !c.FINQueued && s.in(finQueuedStates...):
		return invalid("our FIN has to be queued in state %v", s)
	case c.FINSent && s.in(StateSynSent, StateSynReceived):
		return invalid("our FIN cannot have been sent in state %v", s)
	}
	return nil
}

// validateQueues checks the queues' lengths.
func (c *Core) validateQueues() error {
	sent, received := c.SendQueue.Len(), c.RecvQueue.Len()
	switch {
	case sent > MaxQueue:
		return invalid("the send queue of %d bytes is larger than %d", sent, MaxQueue)
	case received > MaxQueue:
		return invalid("the receive queue of %d bytes is larger than %d", received, MaxQueue)
	case c.Unsent < 0 || c.Unsent > sent:
		return invalid("%d bytes of a send queue of %d are said to be unsent", c.Unsent, sent)
	case c.FINSent && c.Unsent != 0:
		return invalid("our FIN cannot have been sent before the %d bytes ahead of it", c.Unsent)
	case c.FINAcked && sent != 0:
		return invalid("the FIN is acknowledged, the %d bytes ahead of it are not", sent)
	case c.State == StateSynSent && received != 0:
		return invalid("%d bytes are received in state %v", received, c.State)
	}
	return nil
}

// validateOptions checks what was agreed on.
func (c *Core) validateOptions() error {
	o := c.Options
	switch {
	case o.SendScale > MaxScale || o.RecvScale > MaxScale:
		return ErrTooBig
	case c.State == StateSynSent:
		return nil // nothing is agreed on yet
	case !o.Scaling && (o.SendScale != 0 || o.RecvScale != 0):
		return invalid("windows are scaled by %d and %d, but no scaling was agreed on", o.SendScale, o.RecvScale)
	case o.MSS == 0:
		return invalid("the maximum segment size is 0")
	}
	return nil
}

// validateWindow holds the window to the rules of TCP_REPAIR_WINDOW.
func (c *Core) validateWindow() error {
	w := c.Window
	if w.SndWnd > maxWindow || w.MaxWindow > maxWindow || w.RcvWnd > maxWindow {
		return invalid("a window is larger than %d bytes", maxWindow)
	}
	if !c.State.Synchronized() {
		return nil
	}
	switch {
	case w.MaxWindow < w.SndWnd:
		return invalid("the peer's window of %d bytes is larger than its largest, %d", w.SndWnd, w.MaxWindow)
	case before(c.RcvNxt()+w.RcvWnd, w.SndWl1):
		return invalid("the segment that updated the peer's window, %d, is beyond ours, %d+%d", w.SndWl1, c.RcvNxt(), w.RcvWnd)
	case before(c.RcvNxt(), w.RcvWup):
		return invalid("our window was last sent at %d, but only %d is received", w.RcvWup, c.RcvNxt())
	}
	return nil
}

// validateExtra checks what the rest relies on: that segments and data stand
// in order, and within the two windows.
func (s *Snapshot) validateExtra() error {
	e := s.Extra
	if e == nil {
		return nil
	}
	if r := e.RTT; r.Smoothed < 0 || r.Variance < 0 || r.Min < 0 {
		return invalid("a round trip time is negative")
	}
	if e.Congestion.Window < 0 || e.Congestion.Threshold < 0 || e.Congestion.Retries < 0 {
		return invalid("congestion control has a negative window, threshold or number of retries")
	}
	if err := s.validateSent(); err != nil {
		return err
	}
	return s.validateHeld()
}

func (s *Snapshot) validateSent() error {
	at, end := s.SndUna(), s.SndNxt()
	for i, seg := range s.Extra.Sent {
		if seg.Len == 0 || seg.Len > MaxQueue || before(seg.Seq, at) || before(end, seg.Seq+seg.Len) {
			return invalid("segment %d of the scoreboard, %d+%d, is out of order or was never sent", i, seg.Seq, seg.Len)
		}
		at = seg.Seq + seg.Len
	}
	return nil
}

func (s *Snapshot) validateHeld() error {
	if s.FINReceived && (len(s.Extra.Held) != 0 || s.Extra.EarlyFIN != nil) {
		return invalid("data is held after the peer's FIN")
	}
	at := s.RcvNxt()
	end := at + maxWindow
	for i, span := range s.Extra.Held {
		n := span.Data.Len()
		inTurn := i == 0 && span.Seq == at // it would not have to wait
		if n == 0 || n > maxWindow || inTurn || before(span.Seq, at) || before(end, span.Seq+uint32(n)) {
			return invalid("held data %d, %d+%d, is out of order or out of any window", i, span.Seq, n)
		}
		at = span.Seq + uint32(n)
	}
	if fin := s.Extra.EarlyFIN; fin != nil && (before(*fin, at) || before(end, *fin)) {
		return invalid("the peer's early FIN at %d is before data that it follows, or out of any window", *fin)
	}
	return nil
}
