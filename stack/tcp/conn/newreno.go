package conn

// Loss recovery for peers without SACK, where duplicate acknowledgements are
// all there is to go by.
//
// https://www.rfc-editor.org/rfc/rfc6582 lets the window grow by a segment for
// each duplicate and deflates it on a partial acknowledgement. Here the window
// is what it is to be in the end, and what is in flight shrinks instead, which
// comes to the same.

// fewInFlight is how many segments there may be for limited transmit: with more,
// three duplicates come of themselves if one is lost.
// https://www.rfc-editor.org/rfc/rfc3042#section-1
const fewInFlight = 16

// countDuplicate counts a duplicate acknowledgement, for peers without SACK:
// one more segment is delivered. After a timeout it may as well be a segment
// that was sent twice, so it tells nothing.
// https://www.rfc-editor.org/rfc/rfc5681#section-2 (DUPLICATE ACKNOWLEDGMENT)
// https://www.rfc-editor.org/rfc/rfc6937#section-2 (DeliveredData)
func (c *Conn) countDuplicate(s *Segment, windowed bool, d *delivery) {
	changed := c.loss.heard != 0 && s.Window != c.loss.heard
	if c.cfg.sack || windowed || changed || c.board.empty() || s.Len() != 0 || c.loss.phase == phaseLoss {
		return
	}
	if c.loss.dupAcks < uint32(len(c.board.recs)) {
		c.loss.dupAcks++
		d.bytes += int64(c.segmentSize())
	}
}

// forgetDuplicates is called when an acknowledgement advances without SACK. It
// covers one segment that was missing; the others are those that duplicates
// have counted. What duplicates told beyond it stands while the recovery lasts.
//
// A partial acknowledgement comes a round trip after the retransmission that it
// answers. By then everything that was in flight when the recovery began has
// arrived or is lost, whether or not each duplicate that told of it came back.
// So duplicates are taken to tell of what is still missing its acknowledgement,
// as far as there is something, and then of what has just been acknowledged.
func (c *Conn) forgetDuplicates(d *delivery) {
	told := min(c.loss.dupAcks, uint32(max(d.segs-1, 0)))
	if c.loss.phase == phaseRecovery {
		above := uint32(max(c.board.find(c.loss.point)-1, 0)) // less the next hole
		told = min(told, c.loss.dupAcks-min(c.loss.dupAcks, above))
	}
	d.bytes = max(d.bytes-int64(told)*int64(c.segmentSize()), 0)
	c.loss.dupAcks -= told
	if c.loss.phase != phaseRecovery {
		c.loss.dupAcks = 0
	}
	// Data that waited for the retransmission cannot be told from data that
	// needed none.
	d.original = d.original && !d.repeated
}

// heldBack is what duplicates that have not led to a recovery took out of the
// network, if it makes no room for new data.
// https://www.rfc-editor.org/rfc/rfc3042#section-2
func (c *Conn) heldBack() int64 {
	if !c.classic() || c.loss.dupAcks < dupThresh && len(c.board.recs) <= fewInFlight {
		return 0
	}
	return c.board.sacked.bytes + int64(c.loss.dupAcks)*int64(c.segmentSize())
}

// detectDuplicates is fast retransmit without SACK.
// https://www.rfc-editor.org/rfc/rfc6582#section-3.2
func (c *Conn) detectDuplicates(d *delivery) {
	if c.board.empty() {
		return
	}
	head := &c.board.recs[0]
	switch {
	case c.loss.phase == phaseRecovery && d.acked > 0 && !head.is(recLost):
		// A partial acknowledgement: the next hole.
	case c.loss.phase < phaseRecovery && c.loss.dupAcks >= dupThresh && !c.loss.held:
	default:
		return
	}
	c.board.markLost(head)
	c.loss.insist = true
}
