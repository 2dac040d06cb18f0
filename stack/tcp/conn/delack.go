package conn

import (
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/seqnum"
)

// delayedACK decides whether an acknowledgement waits for company. It waits
// only once the exchange is interactive, that is when our own data has been
// following the peer's at once, so that it will probably carry the
// acknowledgement for free; a one-way stream is acknowledged as it comes.
// https://www.rfc-editor.org/rfc/rfc1122#page-96 (section 4.2.3.2)
type delayedACK struct {
	quick       uint8        // acknowledge this many more at once
	interactive bool         // our data answers the peer's
	holes       bool         // quick is because of holes
	packets     uint8        // of data since the last acknowledgement; 2: or more
	acked       seqnum.Value // RCV.NXT in the last segment we sent
	arrived     Time         // when data last came
}

const (
	// maxAckDelay is the longest an acknowledgement waits (Linux TCP_DELACK_MIN).
	maxAckDelay = 40 * time.Millisecond
	// quickAcks is how many are sent at once at the start and after trouble
	// (Linux TCP_MAX_QUICKACKS).
	quickAcks = 16
)

func (d *delayedACK) init() { d.startQuick() }

// startQuick acknowledges the next segments at once: the peer is in slow
// start, or is filling holes, and lives on our acknowledgements.
func (d *delayedACK) startQuick() { d.quick, d.interactive = quickAcks, false }

// startQuickForHoles is startQuick where holes are the reason: not even a batch
// is waited for then.
func (d *delayedACK) startQuickForHoles() {
	d.startQuick()
	d.holes = true
}

// acknowledgeData owes the acknowledgement of n bytes that came in order, now
// or a little later.
func (c *Conn) acknowledgeData(now Time, n seqnum.Size) {
	d := &c.delack
	if now.Sub(d.arrived) > c.rtt.timeout(&c.cfg) {
		d.startQuick()
	}
	d.arrived = now
	d.packets = min(d.packets+1, 2)
	if !c.cfg.delayedACK || d.quick > 0 || !d.interactive ||
		d.acked.Size(c.rcv.nxt) > seqnum.Size(c.rcv.mss) || c.window() < seqnum.Size(c.rcv.mss) {
		c.oweAck()
		return
	}
	c.delayAck(now)
}

// delayAck owes an acknowledgement that may wait for company.
func (c *Conn) delayAck(now Time) {
	if !c.timers.running(timerDelayedACK) {
		c.timers.set(timerDelayedACK, now.Add(maxAckDelay))
	}
}

// AckMore says that an acknowledgement which may wait (AckMayWait) should do so
// if it answers for one packet only: more are about to come, of which one may be
// ours. It waits no longer than any. https://www.rfc-editor.org/rfc/rfc1122#page-96
// asks for one in two.
func (c *Conn) AckMore(now Time) {
	d := &c.delack
	if d.packets > 1 || d.quick > 0 || !c.AckMayWait() || d.acked.Size(c.rcv.nxt) > c.window()/2 {
		return
	}
	c.owed.acks = 0
	c.delayAck(now)
}

// onDelayedACK: no data came to carry the acknowledgement.
func (c *Conn) onDelayedACK() {
	c.delack.interactive = false
	c.oweAck()
}

// AckMayWait reports whether all that Output has to yield is the acknowledgement
// of data that came in order, on a connection in full flow: if more is about to
// come, one acknowledgement can answer for all of it. A peer that is, or has just
// been, filling holes gets each at once.
func (c *Conn) AckMayWait() bool {
	return c.predicted != 0 && !c.delack.holes && c.owed.acks == 1 && !c.owed.reset && c.owed.probe == noProbe &&
		!c.hasUnsent() && c.board.lostOut.segs == 0 && !c.loss.tail.due
}

// acknowledged notes that a segment carrying RCV.NXT was sent.
func (c *Conn) acknowledged(now Time, withData bool) {
	c.owed.acks = 0
	c.timers.stop(timerDelayedACK)
	d := &c.delack
	d.acked = c.rcv.nxt
	d.packets = 0
	if d.quick > 0 {
		d.quick--
	}
	if d.quick == 0 {
		d.holes = false
	}
	if withData && now.Sub(d.arrived) < maxAckDelay {
		d.interactive = true
	}
}
