package conn

import (
	"gvisor.dev/gvisor/pkg/tcpip/seqnum"

	"github.com/tcprepair/ustack/stack/repair"
)

// Repair mode. While it is on, the connection is silent and still: Output
// yields nothing, Input refuses everything with DropSocketRepair, no timer
// acts, and neither queue changes. It costs the established fast path nothing:
// switching it on clears the prediction word, so that no segment is predicted,
// and the test stands at the head of the slow path (input.go).
//
// Linux, from which the name comes, goes on acknowledging data in this mode,
// so what is read out of a socket may be stale before it is written down.

// Frozen reports whether the connection is in repair mode.
func (c *Conn) Frozen() bool { return c.frozen }

// SetRepair freezes (On) or thaws (Off, OffNoProbe) the connection. Off owes
// the peer a window probe; its answer tells what happened meanwhile. A
// listener, which has nothing to freeze, and an unknown mode are ErrInvalid.
func (c *Conn) SetRepair(now Time, m repair.Mode) error {
	if !m.Valid() || c.state == StateListen {
		return ErrInvalid
	}
	switch {
	case m == repair.On && !c.frozen:
		c.frozen = true
		c.begun()
		c.odd().frozenAt = now
	case m != repair.On && c.frozen:
		c.thaw(now)
		if m == repair.Off && c.state == StateEstablished {
			c.owed.probe = thawProbe
		}
	}
	c.predict()
	return nil
}

// thaw lets time go on where it stood: timers keep what they had left, and
// what was in flight is not taken to have been under way all the while.
func (c *Conn) thaw(now Time) {
	still := now.Sub(c.frozenAt)
	c.frozen = false
	c.timers.shift(still)
	c.board.shift(Time(still))
	c.rcv.last += Time(still)
	c.delack.arrived += Time(still)
	c.loss.stalled += Time(still)
	c.chrono.since += Time(still)
	if c.chrono.opened != 0 {
		c.chrono.opened += Time(still)
	}
	c.owed.synSent += Time(still)
	if c.tune.begun != 0 {
		c.tune.begun += Time(still)
	}
	if c.snd.last != 0 {
		c.snd.last += Time(still)
	}
	if c.loss.rack.last.valid() {
		c.loss.rack.last.at += Time(still)
	}
	if c.cc != nil {
		// It did nothing meanwhile, and shall not think that it might have.
		c.cc.OnIdle(int64(now), 0, c.rtt.timeout(&c.cfg), c.segmentSize())
	}
	// Echoes of timestamps from before the freeze would measure it too.
	c.odd().thawed = now
	c.widen() // the buffer may have been enlarged meanwhile
	// Waiters were told to wait while it was frozen; let them look again.
	c.events |= EventReadable | EventWritable
}

// QueueSeq is the sequence number after the last byte of a queue: RCV.NXT for
// the receive queue, the end of what was written for the send queue, as
// Linux's TCP_QUEUE_SEQ reports them. NoQueue is ErrInvalid.
func (c *Conn) QueueSeq(q repair.Queue) (seqnum.Value, error) {
	switch q {
	case repair.RecvQueue:
		return c.rcv.nxt, nil
	case repair.SendQueue:
		return c.sendq.end, nil
	}
	return 0, ErrInvalid
}
