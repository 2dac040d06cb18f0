package conn

import (
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/seqnum"
)

// takeText is the seventh step: the segment's data.
// https://www.rfc-editor.org/rfc/rfc9293#section-3.10.7.4 (seventh)
func (c *Conn) takeText(now Time, s *Segment) DropReason {
	c.takeCE(s)
	if s.DataLen() == 0 {
		if s.Has(header.TCPFlagFin) && s.Seq != c.rcv.nxt && canReceive.has(c.state) {
			return c.takeOutOfOrder(now, s)
		}
		return NotDropped
	}
	if !canReceive.has(c.state) {
		// Data after the peer's own FIN: ignored, as the RFC says.
		return NotDropped
	}
	if c.userGone && c.rcv.nxt.LessThan(s.Seq.Add(s.DataLen())) {
		// Nobody will ever read this: tell the peer so.
		// https://www.rfc-editor.org/rfc/rfc1122#page-88 (section 4.2.2.13)
		c.oweResetFor(s)
		c.fail(ErrAborted)
		return DropAbortOnData
	}
	n := s.DataLen()
	if verdict := c.trim(s); verdict != NotDropped {
		c.oweBeyond(now, n)
		return verdict
	}
	if s.Seq != c.rcv.nxt {
		return c.takeOutOfOrder(now, s)
	}
	c.takeInOrder(now, s)
	return NotDropped
}

// trim cuts off what was received before and what lies beyond the window; the
// FIN goes with a cut tail.
func (c *Conn) trim(s *Segment) DropReason {
	if s.Seq.LessThan(c.rcv.nxt) {
		have := s.Seq.Size(c.rcv.nxt)
		c.duplicate(s.Seq, c.rcv.nxt)
		if have > s.DataLen() {
			have = s.DataLen()
		}
		s.Payload.TrimFront(int64(have))
		s.Seq = s.Seq.Add(have)
	}
	room := s.Seq.Size(c.rcv.nxt.Add(c.window()))
	if s.DataLen() <= room || room > 0 && s.Seq == c.rcv.nxt && c.recvq.size() == 0 {
		// With nothing unread there is memory for a segment that only begins
		// inside the window (Linux tcp_sequence).
		return NotDropped
	}
	if room == 0 && c.window() == 0 {
		return DropZeroWindow
	}
	s.Payload.Truncate(int64(room))
	s.Flags &^= header.TCPFlagFin
	if room == 0 {
		return DropOverWindow
	}
	return NotDropped
}

// takeInOrder queues data that begins at RCV.NXT, and what had been waiting
// for it.
func (c *Conn) takeInOrder(now Time, s *Segment) {
	n := s.DataLen()
	c.measureMSS(s)
	c.timeReceiver(now, s)
	c.rcv.nxt = c.rcv.nxt.Add(n)
	if c.reasm.hasFIN && c.reasm.fin.LessThan(c.rcv.nxt) {
		c.reasm.hasFIN = false // data came where it was said to stand
		c.tidy()
	}
	c.deliver(s)
	if c.reasm.empty() {
		c.acknowledgeData(now, n)
		return
	}
	for c.reasm.next(&c.rcv.nxt, s) {
		c.deliver(s)
	}
	c.sacks.advance(c.rcv.nxt, &c.reasm)
	c.tidy()
	// https://www.rfc-editor.org/rfc/rfc5681#section-4.2 : "SHOULD send an
	// immediate ACK when it receives a segment that fills in all or part of a
	// gap".
	c.oweAck()
}

// deliver hands a segment's data to the user's queue.
func (c *Conn) deliver(s *Segment) {
	c.stats.BytesReceived += uint64(s.DataLen())
	c.recvq.append(&s.Payload)
	c.events |= EventReadable
}

// minReassembly is the memory, in bytes, that out-of-order data may take in any
// case, however small the receive buffer.
const minReassembly = 64 << 10

// takeOutOfOrder keeps data that came early, and a FIN that came early.
func (c *Conn) takeOutOfOrder(now Time, s *Segment) DropReason {
	verdict := NotDropped
	fin := s.End() - 1
	c.disordered()
	defer c.tidy()
	if s.DataLen() != 0 {
		c.stats.count().OutOfOrder++
		if !c.reasm.tidy(&s.Payload, max(int(c.recvq.max), minReassembly)) {
			c.oweDuplicate()
			return DropOfoQueuePrune
		}
		c.measureMSS(s)
		r := c.reasm.insert(s)
		if r.added == 0 {
			verdict = DropOfoMerge
		}
		if c.cfg.sack {
			c.sacks.add(r.start, r.end)
			if r.dupStart != r.dupEnd {
				c.duplicate(r.dupStart, r.dupEnd)
			}
		}
	}
	if s.Has(header.TCPFlagFin) {
		c.reasm.setFIN(fin)
	}
	c.delack.startQuickForHoles()
	c.oweDuplicate()
	return verdict
}

// measureMSS learns the peer's segment size from what it sends. A segment
// larger than we ever offered was merged on its way; the link may know of what.
func (c *Conn) measureMSS(s *Segment) {
	n := s.DataLen()
	if s.GSOSize != 0 {
		n = min(n, seqnum.Size(s.GSOSize))
	}
	if n > seqnum.Size(c.rcv.mss) {
		c.rcv.mss = uint16(min(n, seqnum.Size(c.cfg.advMSS)))
	}
}
