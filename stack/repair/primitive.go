package repair

import (
	"errors"
	"fmt"
)

// What follows does with Linux's primitives what a Snapshotter and a Restorer
// do in one step.

// ReadCore reads the core of a frozen connection by a Socket's primitives. For
// the FINs it goes by the state: an unacknowledged FIN of ours with no unsent
// data before it is taken to have left, and if it has not, it is sent again.
// SYN-SENT, SYN-RECEIVED, CLOSED and LISTEN are ErrState. NoDelay and Cork,
// which a Socket does not tell, are left off.
func ReadCore(s Socket) (*Snapshot, error) {
	var snap Snapshot
	var err error
	if snap.Local, snap.Remote, err = s.Addrs(); err != nil {
		return nil, fmt.Errorf("reading the addresses: %w", err)
	}
	before, err := look(s)
	if err != nil {
		return nil, err
	}
	if !before.state.Synchronized() {
		return nil, fmt.Errorf("state %v: %w", before.state, ErrState)
	}
	before.describe(&snap.Core)
	if snap.RecvQueue, err = peek(s, RecvQueue, before.unread); err != nil {
		return nil, err
	}
	if snap.SendQueue, err = peek(s, SendQueue, before.unacked); err != nil {
		return nil, err
	}
	if snap.Options, err = s.Options(); err != nil {
		return nil, fmt.Errorf("reading the options: %w", err)
	}
	if snap.Window, err = s.Window(); err != nil {
		return nil, fmt.Errorf("reading the window: %w", err)
	}
	if snap.Timestamp, snap.TimestampMicros, err = s.Timestamp(); err != nil {
		return nil, fmt.Errorf("reading the timestamp: %w", err)
	}
	after, err := look(s)
	if err != nil {
		return nil, err
	}
	if after != before {
		// Linux without the patch accepts data in repair mode.
		return nil, errMoved
	}
	return &snap, nil
}

var errMoved = errors.New("the connection moved while it was being read: it is not frozen")

// position is what may not change while a connection is read.
type position struct {
	state                   State
	writeSeq, rcvNxt        uint32
	unread, unacked, unsent int
}

func look(s Socket) (p position, err error) {
	if p.state, err = s.State(); err != nil {
		return p, fmt.Errorf("reading the state: %w", err)
	}
	if p.writeSeq, err = s.QueueSeq(SendQueue); err != nil {
		return p, fmt.Errorf("reading the sequence number of the send queue: %w", err)
	}
	if p.rcvNxt, err = s.QueueSeq(RecvQueue); err != nil {
		return p, fmt.Errorf("reading the sequence number of the receive queue: %w", err)
	}
	if p.unread, p.unacked, p.unsent, err = s.Queued(); err != nil {
		return p, fmt.Errorf("reading the lengths of the queues: %w", err)
	}
	return p, nil
}

// describe fills in what the position tells. The two sequence numbers count
// FINs, the lengths do not.
func (p position) describe(c *Core) {
	c.State = p.state
	c.FINQueued = p.state.in(finQueuedStates...)
	c.FINAcked = p.state.in(finAckedStates...)
	c.FINReceived = p.state.in(finReceivedStates...)
	c.Unsent = p.unsent
	c.FINSent = c.FINQueued && p.unsent == 0
	c.SendSeq = p.writeSeq - uint32(p.unacked) - count(c.FINQueued)
	c.RecvSeq = p.rcvNxt - count(c.FINReceived)
}

// peek reads the n bytes of a queue, no less: if there are fewer, what counted
// them has counted a FIN, and a byte of data would be lost unnoticed.
func peek(s Socket, q Queue, n int) (Bytes, error) {
	switch {
	case n == 0:
		return nil, nil
	case n < 0 || n > MaxQueue:
		return nil, fmt.Errorf("reading the %v queue: it cannot hold %d bytes", q, n)
	}
	data := make([]byte, n)
	got, err := s.Peek(q, data)
	if err != nil {
		return nil, fmt.Errorf("reading the %v queue: %w", q, err)
	}
	if got != n {
		return nil, fmt.Errorf("reading the %v queue: %d bytes of %d are there", q, got, n)
	}
	return Bytes{data}, nil
}

// RestoreCore sets down, by a Socket's primitives, what is the same in any
// state after the handshake: the two ends, the queues but for the Unsent bytes,
// options, window and clock. The Socket is frozen and ESTABLISHED, and both
// FINs are still to come. After an error it has been closed.
func RestoreCore(f Factory, snap *Snapshot) (Socket, error) {
	if !snap.State.Synchronized() {
		return nil, fmt.Errorf("state %v: %w", snap.State, ErrState)
	}
	s, err := f.Socket(snap.Local)
	if err != nil {
		return nil, fmt.Errorf("making a socket: %w", err)
	}
	if err := setDown(s, snap); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// setDown does the steps in the only order that works. Queue sequence numbers
// can be set in CLOSED only. Connect sets everything else to what a new
// connection has, so that comes after. The window goes last of all: only then is
// RCV.NXT where the rules compare it, and no byte may be sent, or be taken in,
// by the window of a new connection.
func setDown(s Socket, snap *Snapshot) error {
	sent := snap.SendQueue.Slice(0, snap.SendQueue.Len()-snap.Unsent)
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"freezing", func() error { return s.SetRepair(On) }},
		{"setting the send queue's sequence number", func() error { return s.SetQueueSeq(SendQueue, snap.SendSeq) }},
		{"setting the receive queue's sequence number", func() error {
			return s.SetQueueSeq(RecvQueue, snap.RecvSeq-uint32(snap.RecvQueue.Len()))
		}},
		{"binding to " + snap.Local.String(), func() error { return s.Bind(snap.Local) }},
		{"connecting to " + snap.Remote.String(), func() error { return s.Connect(snap.Remote) }},
		{"setting the options", func() error { return s.SetOptions(snap.Options) }},
		{"filling the receive queue", func() error { return fill(s, RecvQueue, snap.RecvQueue) }},
		{"filling the send queue", func() error { return fill(s, SendQueue, sent) }},
		{"setting the window", func() error {
			if !snap.Window.Known() {
				return nil
			}
			return s.SetWindow(snap.restoredWindow())
		}},
		{"setting the timestamp", func() error {
			if !snap.Options.Timestamps {
				return nil
			}
			return s.SetTimestamp(snap.Timestamp, snap.TimestampMicros)
		}},
	} {
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return nil
}

// fill writes the pieces into a queue.
func fill(s Socket, q Queue, data Bytes) error {
	for _, p := range data {
		for len(p) > 0 {
			n, err := s.WriteQueue(q, p)
			if err != nil {
				return err
			}
			if n <= 0 {
				return fmt.Errorf("%d bytes do not fit", len(p))
			}
			p = p[n:]
		}
	}
	return nil
}

// restoredWindow is the window for a connection on which the peer's FIN is
// still to come.
func (s *Snapshot) restoredWindow() Window {
	w := s.EdgeWindow()
	if s.FINReceived && w.RcvWup == s.RcvNxt() {
		w.RcvWup--
		w.RcvWnd++
	}
	return w
}

// EdgeWindow is Window, with an edge that is never to the left of the
// right-most one that the peer was ever told: what it has sent up to there must
// be taken (RFC 7323 section 2.4). It is for those that know the core only.
func (s *Snapshot) EdgeWindow() Window {
	w := s.Window
	if e := s.Extra; e != nil {
		if before(w.RcvWup+w.RcvWnd, e.Advertised) && e.Advertised-w.RcvWup <= maxWindow {
			w.RcvWnd = e.Advertised - w.RcvWup
		}
	}
	return w
}
