package conn

import "gvisor.dev/gvisor/pkg/tcpip/seqnum"

// maxUnscaledWindow is what the window field can say without a scale.
const maxUnscaledWindow seqnum.Size = 65535

// windowScale is the smallest shift with which the window field can express
// size bytes, as Linux picks it (tcp_select_initial_window).
func windowScale(size int) uint8 {
	var shift uint8
	for shift < maxWindowScale && size>>shift > int(maxUnscaledWindow) {
		shift++
	}
	return shift
}

func seqSize(v uint16) seqnum.Size { return seqnum.Size(v) }

// window is the receive window as the peer may use it: from RCV.NXT to the
// right-most edge we ever advertised.
func (c *Conn) window() seqnum.Size {
	if c.rcv.adv.LessThan(c.rcv.nxt) {
		return 0 // the peer's FIN took the last of it
	}
	return c.rcv.nxt.Size(c.rcv.adv)
}

// advertise chooses the window to put into the next segment and moves the
// advertised edge. The edge never retreats, and it does not creep.
//
// https://www.rfc-editor.org/rfc/rfc9293#section-3.8.6.2.2 : the edge moves
// when it can move by a segment or half the buffer.
// https://www.rfc-editor.org/rfc/rfc7323#section-2.4 : rounding to the scale
// may not take back what was offered.
func (c *Conn) advertise() uint16 {
	unit := seqnum.Size(1) << c.rcv.wscale
	now, next := c.window(), c.offer()
	if next < now || next-now < c.sillyWindow() && !c.mayCreep(now) {
		next = now &^ (unit - 1)
		// Rounding up lest the edge retreat pushes it on a little. A peer that
		// sends less than a unit at a time could do so for ever, so there is a
		// bound, which a peer that fills its segments does not reach.
		if up := c.rcv.nxt.Add(next + unit); next < now && up.LessThanEq(c.rcv.base.Add(c.recvq.limit()/16+unit)) {
			next = min(next+unit, maxUnscaledWindow<<c.rcv.wscale)
		}
	} else {
		c.rcv.base = c.rcv.nxt.Add(next)
	}
	if edge := c.rcv.nxt.Add(next); c.rcv.adv.LessThan(edge) {
		c.rcv.adv = edge
	}
	c.user.hasRead = false
	return uint16(next >> c.rcv.wscale)
}

// offer is the window the buffer has room for, in whole units of the scale.
func (c *Conn) offer() seqnum.Size {
	free := c.recvq.space()
	if clamp := c.cfg.opts.Clamp; clamp != 0 {
		free = min(free, seqnum.Size(clamp))
	}
	free = min(free, maxUnscaledWindow<<c.rcv.wscale)
	unit := seqnum.Size(1) << c.rcv.wscale
	if free < unit && free >= max(c.sillyWindow(), 1) && c.recvq.size() == 0 {
		// The buffer is smaller than what the scale can say, and empty.
		return unit
	}
	return free &^ (unit - 1)
}

// mayCreep reports whether the edge may move by less than a silly window: the
// user has made room since it was last advertised, and the window is large
// anyway, so that no sender is tempted to send small segments.
func (c *Conn) mayCreep(now seqnum.Size) bool {
	return c.user.hasRead && now >= min(c.recvq.limit(), maxUnscaledWindow<<c.rcv.wscale)/2
}

// sillyWindow is the least step by which the right edge may move.
func (c *Conn) sillyWindow() seqnum.Size {
	return min(seqnum.Size(c.rcv.mss), c.recvq.limit()/2)
}

// widen owes a window update if a larger buffer has opened a window that was
// all but closed. The next acknowledgement will tell of any other.
func (c *Conn) widen() {
	if c.window() < c.sillyWindow() {
		c.reopenWindow()
	}
}

// reopenWindow owes a window update if the user's reading made enough room
// that the peer should know of it at once: a window that was all but closed
// has opened, or a small one has doubled (Linux tcp_cleanup_rbuf). A peer that
// has sent its FIN has no use for it, and may be gone already.
func (c *Conn) reopenWindow() {
	if !canReceive.has(c.state) {
		return
	}
	now, next := c.window(), c.offer()
	silly := c.sillyWindow()
	switch {
	case next <= now || next-now < silly:
		return
	case now < silly, now <= c.recvq.limit()/2 && next >= 2*now:
		c.oweAck()
	}
}
