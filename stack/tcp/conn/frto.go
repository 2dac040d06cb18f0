package conn

// afterTimeout looks at an acknowledgement while the connection is in the loss
// phase, first of all for signs that the timeout was spurious. It reports whether
// it was.
// https://www.rfc-editor.org/rfc/rfc5682#section-3
func (c *Conn) afterTimeout(now Time, s *Segment, d *delivery, advanced bool) (undone bool) {
	l := &c.loss
	if l.frto {
		switch {
		case d.original && l.undo.armed:
			// Something sent before the timeout, and not since, arrived: the
			// timeout came too early (3.b).
			c.undo(now)
			return true
		case !c.cfg.sack && d.segs > dupThresh:
			// A leap: segments waited for the one that was repeated.
			l.frto = false
		case l.point.LessThan(c.snd.nxt):
			// New data went out after the head was retransmitted. If it is
			// SACKed, or draws a duplicate, the loss was real (3.a).
			if !advanced {
				l.frto = false
			}
		case advanced && c.snd.una.LessThan(l.point):
			// Send new data rather than retransmit, and see (2.b).
			l.point = c.snd.nxt
			l.frto = c.hasUnsent() && c.usableWindow() > 0
		default:
			l.frto = false
		}
	}
	if d.doubtful && s.Options.NumSACK == 0 {
		// The peer has forgotten what it had, it seems; a timeout is what that
		// looks like. https://www.rfc-editor.org/rfc/rfc2018#section-8
		c.board.retract()
	}
	return c.tryUndo(now, s, advanced)
}

// prefersNew reports whether F-RTO wants new data sent before anything is
// retransmitted.
func (c *Conn) prefersNew() bool {
	return c.loss.phase == phaseLoss && c.loss.frto && c.loss.undo.from.LessThan(c.snd.una) && c.hasUnsent()
}
