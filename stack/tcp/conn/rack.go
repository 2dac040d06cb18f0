package conn

import (
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/seqnum"
)

// rackState is RFC 8985's view: the last sent of all segments that were
// delivered, and how much reordering to expect.
type rackState struct {
	last      moment
	rtt       time.Duration
	dsackAt   seqnum.Value
	degree    uint16 // how many segments one was late by at most, 3..maxDegree
	reordered bool   // the path has been seen to reorder
	steps     uint8  // reordering window in quarters of the least round trip, 1..
	persist   uint8  // recoveries for which steps is kept
	dsackSeen bool   // a DSACK in this round trip widened the window already
}

const (
	rackMaxSteps = 255
	maxDegree    = 300 // Linux tcp_max_reordering
	rackPersist  = 16  // RFC 8985 section 6.2 step 4
	dupThresh    = 3   // RFC 5681
	// clockGranularity is added to a reordering window, lest on a path shorter
	// than the clock's tick everything sent in one tick be judged by it.
	clockGranularity = time.Microsecond
)

// update takes what an acknowledgement delivered.
// https://www.rfc-editor.org/rfc/rfc8985#section-6.2 (steps 1 to 3)
func (k *rackState) update(now Time, d *delivery, least time.Duration) {
	if d.reordered {
		k.reordered = true
	}
	last := d.last
	if last.valid() && d.lastEver && now.Sub(last.at) < least {
		last = d.once // the original's acknowledgement, not the retransmission's
	}
	if !last.valid() {
		return
	}
	k.rtt = now.Sub(last.at)
	if !k.last.valid() || last.after(k.last.at, k.last.end) {
		k.last = last
	}
}

// measure notes how late an original was, in segments (Linux tcpi_reordering). It
// is told to the user; RACK goes by time.
func (k *rackState) measure(d *delivery, size int) {
	n := (d.late + int64(size) - 1) / int64(size)
	k.degree = uint16(min(max(int64(k.degree), n), maxDegree))
}

// widen reacts to a DSACK: a segment was called lost too early.
// https://www.rfc-editor.org/rfc/rfc8985#section-6.2 (step 4)
func (k *rackState) widen(una, nxt seqnum.Value) {
	if k.dsackSeen && una.LessThan(k.dsackAt) {
		return
	}
	k.dsackSeen, k.dsackAt = true, nxt
	if k.steps < rackMaxSteps {
		k.steps++
	}
	k.persist = rackPersist
}

// settle is called when a recovery ends.
func (k *rackState) settle() {
	if k.persist > 0 {
		k.persist--
	}
	if k.persist == 0 {
		k.steps = 1
	}
}

// reorderWindow is how much later than its time a segment may still arrive.
// Three that overtook it are proof enough on a path that never reordered.
// https://www.rfc-editor.org/rfc/rfc8985#section-6.2 (step 4)
func (c *Conn) reorderWindow() time.Duration {
	k := &c.loss.rack
	if !k.reordered && (c.loss.phase >= phaseRecovery || c.board.sacked.segs >= dupThresh) {
		return 0
	}
	return min(time.Duration(max(k.steps, 1))*c.rtt.min/4, c.rtt.smoothed) + clockGranularity
}

// detectRACK marks as lost what was sent long enough before the last delivered
// segment, and sets the timer for what was not quite.
// https://www.rfc-editor.org/rfc/rfc8985#section-6.2 (step 5)
func (c *Conn) detectRACK(now Time) {
	k, b := &c.loss.rack, &c.board
	c.timers.stop(timerReorder)
	if !k.last.valid() {
		return
	}
	limit := k.rtt + c.reorderWindow()
	judge := func(r *record) (done bool) {
		if !k.last.after(r.sent, r.end()) || r.is(recRtx) && r.sent == k.last.at && int32(r.nth-k.last.nth) > 0 {
			return false // what was repeated in the tick of an original, but after it, is not late
		}
		if wait := r.sent.Add(limit).Sub(now); wait > 0 {
			if at := now.Add(wait); at < c.timers.at(timerReorder) {
				c.timers.set(timerReorder, at)
			}
			return false
		}
		b.markLost(r)
		return true
	}
	for i := b.find(b.scan); i < len(b.recs); i++ {
		r := &b.recs[i]
		if !r.is(recSacked|recLost|recEver) && !judge(r) {
			break
		}
		b.scan = r.end()
	}
	for len(b.rtxq) > 0 {
		x := b.rtxq[0]
		if i := b.find(x.seq); i < len(b.recs) {
			r := &b.recs[i]
			if r.seq == x.seq && r.sent == x.sent && !r.is(recSacked) && (r.is(recRtx) || !r.is(recLost)) && !judge(r) {
				break
			}
		}
		b.rtxq = b.rtxq[1:]
	}
}

// onReorder runs when the reordering window of some segment has closed, or the
// first retransmission has waited long enough for a delivery to make room.
func (c *Conn) onReorder(now Time) {
	calm := c.loss.phase < phaseRecovery
	c.detectRACK(now)
	if c.board.lostOut.segs == 0 {
		return
	}
	c.enterRecovery(now, 0)
	p := &c.loss.prr
	if calm {
		p.patience = now.Add(c.rtt.min / 4)
	}
	if p.waits(c.flight()) {
		if now >= p.patience {
			p.afford(c.flight())
		} else if p.patience < c.timers.at(timerReorder) {
			c.timers.set(timerReorder, p.patience)
		}
	}
	c.armRetransmit(now)
}
