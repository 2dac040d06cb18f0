package conn

import (
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/seqnum"

	"github.com/tcprepair/ustack/stack/tcp/cc"
)

// ack takes an acknowledgement that lies within what was sent. This is the
// established case of RFC 9293 section 3.10.7.4, fifth step, and what loss
// recovery and congestion control make of it.
func (c *Conn) ack(now Time, s *Segment) {
	if s.Ack.LessThan(c.snd.una) {
		c.oldAck(now, s)
		return
	}
	var (
		d        = c.board.expect()
		advanced = c.snd.una.LessThan(s.Ack)
		flight   = c.flight()
		lost     = c.board.lostOut.segs
		closed   = c.snd.wnd == 0
		changed  = s.Window != c.snd.field
		windowed = c.updateWindow(s)
	)
	if windowed && c.board.empty() {
		c.rtt.backoff, c.loss.retries = 0, 0 // the persist timer's
	}
	if advanced {
		c.advance(now, s.Ack, &d)
	}
	dsack := c.takeSACK(s, &d)
	// What left before a freeze was under way for some part of it.
	d.sampled = d.sampled && d.sample > c.thawed
	if !advanced {
		c.countDuplicate(s, windowed || changed, &d)
	}
	c.loss.heard = s.Window
	c.sampleRTT(now, s, &d, advanced, dsack)
	empty := !advanced && !windowed && d.bytes == 0 && s.Len() == 0 && s.Options.NumSACK == 0
	c.tailAcked(now, s.Ack, dsack, d.bytes > 0, empty)
	c.loss.rack.measure(&d, c.segmentSize())
	if c.cfg.rack {
		c.loss.rack.update(s.arrival(now), &d, c.rtt.min)
	}
	if k := &c.loss.rack; k.dsackSeen && k.dsackAt.LessThanEq(c.snd.una) {
		k.dsackSeen = false // its round trip is over
	}
	c.stats.BytesDelivered += uint64(d.bytes)
	c.stats.Delivered += d.news
	if d.reordered {
		c.stats.count().Reordered++
	}
	phase := c.loss.phase
	undone := c.recover(now, s, &d, advanced)
	c.leave()
	c.tryFull(now)
	if closed && c.snd.wnd > 0 {
		c.reopen()
	}
	if undone {
		c.waitForOthers(now)
	} else {
		c.detect(now, &d)
	}
	c.control(now, s, &d, flight, c.board.lostOut.segs > lost, phase)
	if advanced {
		c.tuneSend()
	}
	switch {
	case advanced || c.board.empty():
		c.armRetransmit(now)
	case d.bytes > 0:
		c.armTailLoss(now)
	}
}

// oldAck takes an acknowledgement that came after a later one. What it tells of
// SACKed data may be news all the same (Linux tcp_ack, old_ack).
func (c *Conn) oldAck(now Time, s *Segment) {
	d, lost := c.board.expect(), c.board.lostOut.segs
	c.takeSACK(s, &d)
	if d.bytes == 0 {
		return
	}
	c.loss.rack.measure(&d, c.segmentSize())
	if c.cfg.rack {
		c.loss.rack.update(s.arrival(now), &d, c.rtt.min)
	}
	c.stats.BytesDelivered += uint64(d.bytes)
	c.detect(now, &d)
	c.control(now, s, &d, c.flight(), c.board.lostOut.segs > lost, c.loss.phase)
	c.armTailLoss(now)
}

// advance moves SND.UNA.
func (c *Conn) advance(now Time, una seqnum.Value, d *delivery) {
	c.stats.BytesAcked += uint64(c.snd.una.Size(una))
	c.board.ack(una, d)
	c.snd.una = una
	c.sendq.ack(una)
	c.loss.retries = 0
	c.loss.stalled = now
	if !c.cfg.sack {
		c.forgetDuplicates(d)
	}
	if c.snd.small.LessThan(una) {
		c.snd.small = una
	}
}

// updateWindow takes the window from a segment that is newer than the one we
// have it from. It reports whether the window changed.
// https://www.rfc-editor.org/rfc/rfc9293#section-3.10.7.4 (fifth, "the send window should be updated")
func (c *Conn) updateWindow(s *Segment) bool {
	wnd := seqSize(s.Window) << c.snd.wscale
	if s.Has(header.TCPFlagSyn) {
		wnd = seqSize(s.Window)
	} else {
		c.snd.field = s.Window
	}
	newer := c.snd.una.LessThan(s.Ack) || c.snd.wl1.LessThan(s.Seq) ||
		c.snd.wl1 == s.Seq && (c.snd.wnd < wnd || wnd == 0)
	if !newer {
		return false
	}
	c.snd.wl1 = s.Seq
	return c.setWindow(wnd, s.Window)
}

func (c *Conn) setWindow(wnd seqnum.Size, raw uint16) bool {
	if c.snd.wnd == wnd && c.snd.raw == raw {
		return false
	}
	c.snd.wnd, c.snd.raw = wnd, raw
	c.snd.maxWnd = max(c.snd.maxWnd, wnd)
	return true
}

// takeSACK reads the SACK blocks. It reports whether the first was a DSACK.
func (c *Conn) takeSACK(s *Segment, d *delivery) (dsack bool) {
	if !c.cfg.sack {
		return false
	}
	if s.Options.NumSACK == 0 {
		d.doubtful = c.board.sacked.segs > 0 && d.acked > 0
		return false
	}
	blocks := s.Options.Blocks()
	first := seqRange{blocks[0].Start, blocks[0].End}
	if isDSACK(s.Ack, first, blocks) {
		dsack = true
		blocks = blocks[1:]
		c.loss.rack.widen(c.snd.una, c.snd.nxt)
		c.loss.undo.duplicate(first)
		c.stats.count().DSACKs++
	}
	strays := c.board.take(blocks, c.snd.una, c.snd.nxt, d)
	d.doubtful = strays && s.Ack == c.snd.una
	return dsack
}

// isDSACK reports whether the first block tells of a duplicate: it lies below
// the acknowledgement or inside the second block.
// https://www.rfc-editor.org/rfc/rfc2883#section-4
func isDSACK(ack seqnum.Value, first seqRange, blocks []header.SACKBlock) bool {
	if !first.start.LessThan(first.end) {
		return false
	}
	if first.end.LessThanEq(ack) {
		return true
	}
	return len(blocks) > 1 && blocks[1].Start.LessThanEq(first.start) && first.end.LessThanEq(blocks[1].End)
}

// take marks what the blocks newly report. Blocks outside what is outstanding
// are not believed; it reports whether there were any. What the last
// acknowledgement reported is not walked again.
func (b *scoreboard) take(blocks []header.SACKBlock, una, nxt seqnum.Value, d *delivery) (strays bool) {
	var done [maxSACKBlocks]seqRange
	n := 0
	for _, k := range blocks {
		blk := seqRange{k.Start, k.End}
		if !blk.start.LessThan(blk.end) || nxt.LessThan(blk.end) || blk.end.LessThanEq(una) {
			strays = true
			continue
		}
		if blk.start.LessThan(una) {
			blk.start = una
		}
		done[n] = blk
		for _, old := range b.reported[:b.numReported] {
			// The common case: the same hole, and the block above it grew.
			if old.start == blk.start && old.end.LessThanEq(blk.end) && una.LessThanEq(old.start) {
				blk.start = old.end
			}
		}
		done[n].end = b.sack(blk, d)
		n++
	}
	h := b.dig()
	h.reported, h.numReported = done, n
	return strays
}

// sampleRTT takes a round trip from what was delivered: from a segment sent
// once, or from the echoed timestamp. Where a retransmission was acknowledged
// too, the other may have been waiting for it.
// https://www.rfc-editor.org/rfc/rfc6298#section-3
func (c *Conn) sampleRTT(now Time, s *Segment, d *delivery, advanced, dsack bool) {
	at := s.arrival(now)
	switch {
	case d.sampled && !d.repeated:
		c.rtt.sample(at, at.Sub(d.sample))
		return
	case advanced && c.tstamp.on && s.Options.HasTS && s.Options.TSEcr != 0 && d.fresh:
		if rtt, ok := c.elapsed(at, s.Options.TSEcr); ok && !c.lateEcho(at, s, d, dsack) {
			c.rtt.sample(at, rtt)
			return
		}
	}
	if d.sampled && c.loss.phase == phaseOpen {
		// A tail loss probe was sent, perhaps because the path has become longer.
		// The next waits for as long as this took, or no flight would ever end
		// without one, and give a sample.
		c.rtt.latest = max(at.Sub(d.sample), minRTT)
	}
}

// lateEcho reports whether a timestamp tells how long a lost acknowledgement
// was missed, rather than the round trip. A segment that arrives twice is
// answered twice, with the timestamp of the first: if the first answer is lost,
// the second looks very late. It can only be told from a late one by coming
// sooner than an answer to the retransmission could, or, where the peer has told of
// duplicates before, by not telling of one. To take it would make the timeout
// feed on itself: the longer it is, the longer the next sample.
func (c *Conn) lateEcho(at Time, s *Segment, d *delivery, dsack bool) bool {
	if c.stats.DSACKs > 0 && !dsack {
		return false
	}
	return d.repeated && int32(s.Options.TSEcr-c.tstamp.value(d.resent)) < 0 && max(at.Sub(d.resent), minRTT) >= c.rtt.min
}

// arrival is when the segment reached the host.
func (s *Segment) arrival(now Time) Time {
	if s.Arrived != 0 {
		return s.Arrived
	}
	return now
}

// recover moves a recovery along before new losses are looked for. It reports
// whether the recovery was found to have been needless.
func (c *Conn) recover(now Time, s *Segment, d *delivery, advanced bool) (undone bool) {
	switch c.loss.phase {
	case phaseRecovery, phaseCWR:
		return c.tryUndo(now, s, advanced)
	case phaseLoss:
		return c.afterTimeout(now, s, d, advanced)
	}
	return false
}

// control tells the congestion controller, or moves PRR along. The window grows
// by what is acknowledged; but after reordering, only by what nothing has told of
// before (Linux counts so always). found is the phase that the acknowledgement found.
// A doubtful one lets a segment go and no more: what RFC 5681 and RFC 9937 grant
// is a limit.
func (c *Conn) control(now Time, s *Segment, d *delivery, flight int64, lost bool, found phase) {
	reduced := c.takeECE(now, s, d.bytes)
	switch c.loss.phase {
	case phaseRecovery, phaseCWR:
		safe := d.acked > 0 && !lost && !(c.cfg.ecn && s.Has(header.TCPFlagEce))
		c.loss.prr.update(d.bytes, c.flight(), c.segmentSize(), safe && !d.doubtful)
		if d.doubtful {
			c.loss.prr.window = min(c.loss.prr.window, c.flight()+int64(c.segmentSize()))
		}
		return
	}
	if d.acked == 0 || reduced || d.doubtful {
		return
	}
	var rtt time.Duration
	if d.sampled && !d.repeated {
		rtt = c.rtt.latest
	}
	acked := d.acked
	if found == phaseDisorder || found == phaseRecovery && c.cfg.sack && !c.cfg.rack {
		acked = d.bytes // the rest let new data go when it was SACKed
	}
	round := c.loss.round.LessThanEq(c.snd.una)
	if round {
		c.loss.round = c.snd.nxt
	}
	c.cc.OnAck(cc.Ack{
		Now:        int64(now),
		Acked:      acked,
		Flight:     flight,
		MSS:        c.segmentSize(),
		RTT:        rtt,
		SRTT:       c.rtt.smoothed,
		NewRound:   round,
		AppLimited: !c.loss.usage.mayGrow(c.cc.Window(), c.cc.Threshold()),
	})
}
