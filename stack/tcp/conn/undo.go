package conn

import "gvisor.dev/gvisor/pkg/tcpip/seqnum"

// undoState lets a reduction be taken back when the losses it answered turn
// out not to have been.
// https://www.rfc-editor.org/rfc/rfc3522 (Eifel detection), rfc4015 (response),
// rfc3708 (DSACK detection)
type undoState struct {
	armed  bool
	from   seqnum.Value // SND.UNA when the reduction was made
	count  int          // retransmissions since, less those a DSACK has excused
	first  uint32       // our timestamp on the first of them
	resent bool
}

// mayUndo remembers a reduction made when una was the oldest unacknowledged.
func (l *lossState) mayUndo(una seqnum.Value) {
	r := l.reduced()
	r.undo = undoState{armed: true, from: una}
	r.undone, r.resentTS = false, 0
}

func (u *undoState) end() { *u = undoState{} }

// sent counts a retransmission, which carried the timestamp ts.
func (u *undoState) sent(ts uint32) {
	u.count++
	if !u.resent {
		u.resent, u.first = true, ts
	}
}

// duplicate counts a DSACK for a segment that was retransmitted.
func (u *undoState) duplicate(blk seqRange) {
	if u.armed && u.count > 0 && u.from.LessThanEq(blk.start) {
		u.count--
	}
}

// tryUndo takes the reduction back if the acknowledgement proves it wrong:
// every retransmission was a duplicate, or the first acknowledgement after it
// echoes a timestamp from before it.
func (c *Conn) tryUndo(now Time, s *Segment, advanced bool) bool {
	u := &c.loss.undo
	if !u.armed || !u.resent {
		return false
	}
	early := advanced && c.tstamp.on && s.Options.HasTS && s.Options.TSEcr != 0 &&
		int32(s.Options.TSEcr-u.first) < 0
	if u.count != 0 && !early {
		return false
	}
	c.undo(now)
	return true
}

// waitForOthers follows when a segment was called lost and was only late. The
// others that were called so with it may be late too: they are given as long
// again as the path has been seen to reorder.
func (c *Conn) waitForOthers(now Time) {
	if c.cfg.sack && c.cfg.rack {
		c.loss.rack.reordered = true
		c.timers.set(timerReorder, now.Add(c.reorderWindow()))
	}
}

// undo restores the congestion window and forgets the losses.
func (c *Conn) undo(now Time) {
	if c.loss.phase == phaseLoss {
		c.stats.count().SpuriousTimeouts++
	} else {
		c.stats.count().SpuriousRecoveries++
	}
	c.cc.Undo(int64(now))
	c.loss.undone = true
	c.board.unmarkAll()
	c.loss.undo.end()
	c.loss.frto, c.loss.held, c.loss.insist = false, false, false
	c.loss.phase = phaseOpen
}
