package repair

import "fmt"

const (
	// MaxQueue is the most bytes that either queue of a Snapshot may hold: the
	// largest window there is (RFC 7323 section 2.3) is a little below it.
	MaxQueue = 1 << 30
	// maxWindow is the largest window in bytes.
	maxWindow = 0xffff << MaxScale
	// maxHeld is the most runs of data that may wait for their turn.
	maxHeld = 1 << 16
	// maxPhase is the last of Linux's enum tcp_ca_state, Loss.
	maxPhase = 4
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

// Edge is the right-most edge of our window that the peer knows.
func (s *Snapshot) Edge() uint32 {
	edge := s.RcvNxt()
	if w := &s.Window; w.Known() && before(edge, w.RcvWup+w.RcvWnd) {
		edge = w.RcvWup + w.RcvWnd
	}
	if x := s.Extra; x != nil && before(edge, x.Advertised) {
		edge = x.Advertised
	}
	return edge
}

// Validate tells whether the Snapshot describes a connection that can be. The
// error wraps ErrInvalid (or ErrTooBig) and names what is wrong; everything
// that restores a Snapshot asks this first, so that a damaged or forged one
// changes nothing.
func (s *Snapshot) Validate() error {
	if s.State == StateListen {
		return s.validateListener()
	}
	if err := s.Flow().Validate(); err != nil {
		return err
	}
	return s.ValidateConnection()
}

// ValidateConnection is Validate of a connection whose two ends are somebody
// else's matter.
func (s *Snapshot) ValidateConnection() error {
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

// checks are what ValidateConnection asks, in this order: each may rely on those
// before it.
var checks = [...]func(*Snapshot) error{
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
	case !s.known() || s == StateClosed || s == StateListen:
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
	case c.FINQueued && s == StateSynSent, c.FINSent && s == StateSynReceived:
		return invalid("our FIN cannot be queued, or sent, in state %v", s)
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

// Known reports whether the window is known: the images of old kernels have none.
func (w *Window) Known() bool { return *w != Window{} }

// Validate holds a window to the rules of TCP_REPAIR_WINDOW, and to what the
// protocol can say; rcvNxt is RCV.NXT. The error wraps ErrInvalid.
func (w *Window) Validate(rcvNxt uint32) error {
	switch {
	case w.SndWnd > maxWindow || w.MaxWindow > maxWindow || w.RcvWnd > maxWindow:
		return invalid("a window is larger than %d bytes", maxWindow)
	case w.MaxWindow < w.SndWnd:
		return invalid("the peer's window of %d bytes is larger than its largest, %d", w.SndWnd, w.MaxWindow)
	case before(rcvNxt+w.RcvWnd, w.SndWl1):
		return invalid("the segment that updated the peer's window, %d, is beyond ours, %d+%d", w.SndWl1, rcvNxt, w.RcvWnd)
	case before(rcvNxt, w.RcvWup):
		return invalid("our window was last sent at %d, but only %d is received", w.RcvWup, rcvNxt)
	case before(w.SndWl1+MaxQueue, rcvNxt) || before(w.RcvWup+MaxQueue, rcvNxt):
		return invalid("the windows, of %d and %d, are long outdated at %d", w.SndWl1, w.RcvWup, rcvNxt)
	}
	return nil
}

func (c *Core) validateWindow() error {
	if c.State == StateSynSent || !c.Window.Known() {
		return nil
	}
	return c.Window.Validate(c.RcvNxt())
}

// validateExtra checks what the rest relies on: that segments and data stand
// in order, and within the two windows.
func (s *Snapshot) validateExtra() error {
	e := s.Extra
	if e == nil {
		return nil
	}
	switch r, g := &e.RTT, &e.Congestion; {
	case r.Smoothed < 0 || r.Variance < 0 || r.Min < 0:
		return invalid("a round trip time is negative")
	case g.Window < 0 || g.Threshold < 0 || g.Retries < 0:
		return invalid("congestion control has a negative window, threshold or number of retries")
	case g.Phase > maxPhase:
		return invalid("there is no phase %d of congestion control", g.Phase)
	case s.Edge()-s.RcvNxt() > MaxQueue:
		return invalid("our window ends at %d, and only %d is received", s.Edge(), s.RcvNxt())
	}
	if err := s.validateSent(); err != nil {
		return err
	}
	return s.validateHeld()
}

// validateSent holds the scoreboard to what was sent and not acknowledged, byte
// for byte. An empty one is no contradiction: it is not known.
func (s *Snapshot) validateSent() error {
	sent := s.Extra.Sent
	if len(sent) == 0 {
		return nil
	}
	at, end := s.SndUna(), s.SndNxt()
	if !s.State.Synchronized() {
		at = s.SendSeq // our SYN is not on it
	}
	for i := range sent {
		seg := &sent[i]
		if seg.Seq != at || seg.Len == 0 || seg.Len > end-at {
			return invalid("segment %d of the scoreboard, %d+%d, is out of order or was never sent", i, seg.Seq, seg.Len)
		}
		if !possibleFlags[seg.Flags&(segmentFlags-1)] || seg.Flags >= segmentFlags {
			return invalid("segment %d of the scoreboard has flags %#x", i, seg.Flags)
		}
		at += seg.Len
	}
	if at != end {
		return invalid("the scoreboard ends at %d, but %d was sent", at, end)
	}
	return nil
}

// segmentFlags is how many combinations of a segment's flags there are.
const segmentFlags = 2 * SegmentEverRetransmitted

// possibleFlags are those that can be: what the peer has is not lost, and what is
// retransmitted was.
var possibleFlags = func() (can [segmentFlags]bool) {
	for _, f := range []uint8{0, SegmentSACKed, SegmentLost, SegmentLost | SegmentRetransmitted} {
		can[f], can[f|SegmentEverRetransmitted] = true, true
	}
	return can
}()

// validateHeld holds what came before its turn to the window: in runs that
// neither touch nor overlap.
func (s *Snapshot) validateHeld() error {
	held, fin := s.Extra.Held, s.Extra.EarlyFIN
	switch {
	case len(held) == 0 && fin == nil:
		return nil
	case !s.State.in(StateEstablished, StateFinWait1, StateFinWait2):
		return invalid("data is held in state %v", s.State)
	case len(held) > maxHeld:
		return invalid("data is held in %d runs, more than %d", len(held), maxHeld)
	}
	at, edge := s.RcvNxt(), s.Edge()
	for i := range held {
		seq, n := held[i].Seq, held[i].Data.Len()
		if n == 0 || !before(at, seq) || !before(seq, edge) || n > int(edge-seq) {
			return invalid("held data %d, %d+%d, is out of order or out of our window, which ends at %d", i, seq, n, edge)
		}
		at = seq + uint32(n)
	}
	if fin != nil && (*fin == s.RcvNxt() || before(*fin, at) || before(edge, *fin)) {
		return invalid("the peer's early FIN at %d is before data that it follows, or out of our window, which ends at %d", *fin, edge)
	}
	return nil
}
