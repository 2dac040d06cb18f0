package conn

import (
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/seqnum"
)

// PathError tells of an ICMP error about a segment of ours that began at seq.
// err is ErrHostUnreachable, ErrNetUnreachable or ErrRefused. While the
// connection is being opened it ends the attempt; later it is only noted,
// because anyone could have forged it.
// https://www.rfc-editor.org/rfc/rfc5927#section-4.1 , rfc9293#section-3.9.2.2
func (c *Conn) PathError(now Time, seq seqnum.Value, err error) DropReason {
	if verdict := c.ours(seq); verdict != NotDropped {
		return verdict
	}
	if c.state == StateSynSent || c.state == StateSynReceived && (c.early.serves || c.cfg.likeLinux) {
		c.fail(err)
	}
	c.odd().soft = softError{now, err}
	return NotDropped
}

// softError is what the path said last.
type softError struct {
	at  Time
	err error
}

// giveUp ends a connection whose peer has been silent for too long. If the path
// has said why, and the peer nothing since, that is the reason.
// https://www.rfc-editor.org/rfc/rfc1122#page-103 (section 4.2.3.9)
func (c *Conn) giveUp() {
	if c.soft.err != nil && c.rcv.last <= c.soft.at {
		c.fail(c.soft.err)
		return
	}
	c.fail(ErrTimeout)
}

// PathMTU tells that a segment of ours that began at seq was too big; mss is
// what a packet of the path's MTU can carry, without options. What is in
// flight is cut anew and sent again.
// https://www.rfc-editor.org/rfc/rfc1191#section-6.4 , rfc8201#section-5.4
func (c *Conn) PathMTU(now Time, seq seqnum.Value, mss uint16) DropReason {
	if verdict := c.ours(seq); verdict != NotDropped {
		return verdict
	}
	mss = max(mss, min(leastMSS, c.cfg.pathMSS))
	if c.state == StateSynSent && mss < c.cfg.pathMSS {
		c.cfg.pathMSS, c.cfg.advMSS = mss, min(c.cfg.advMSS, mss)
		if !c.board.empty() {
			c.oweSYN() // at once, without the data that made it so large
		}
		return NotDropped
	}
	c.cfg.pathMSS = min(c.cfg.pathMSS, mss)
	if mss >= c.snd.mss {
		return NotDropped
	}
	c.snd.mss = mss
	if c.board.recut(uint32(c.segmentSize())) {
		// Not congestion: the window stays, and only its segments are lost.
		c.timers.set(timerRTO, c.timeoutAt(now))
	}
	return NotDropped
}

// leastMSS is the least that an ICMP error can talk us down to: a forged one
// would otherwise make headers of everything (Linux min_pmtu, 552 bytes).
const leastMSS = 552 - 20 - 20

// A path that swallows large packets without saying so is suspected after this
// many timeouts of the same data, and then segments shrink to baseMSS and by
// halves below it. Fewer would mistake heavy loss for it: at 10% loss three in a
// row come every few thousand segments.
const (
	blackHoleRetries = 5
	baseMSS          = 1024 // RFC 4821 section 7.2
	floorMSS         = 256
)

// blackHole is a suspicion of one. A path that was down for a while looks just the
// same, so full segments are tried again as soon as what timed out has come
// through. If they time out at once they stay small, and are tried again seldom.
type blackHole struct {
	full  uint16       // the segment size when it was suspected; 0: it is not
	retry Time         // not to be tried again before
	tried bool         // full segments are on trial,
	until seqnum.Value // which this acknowledgement ends
}

const (
	// trialRetries is blackHoleRetries for segments on trial.
	trialRetries = 2
	// blackHoleMemory is for how long a black hole that was found is believed.
	// https://www.rfc-editor.org/rfc/rfc1191#section-6.3
	blackHoleMemory = 10 * time.Minute
)

// suspectBlackHole makes segments smaller when full ones time out again and
// again. https://www.rfc-editor.org/rfc/rfc4821#section-7.7
func (c *Conn) suspectBlackHole(now Time) {
	h, patience := c.hole, blackHoleRetries
	again := h.tried
	if again {
		patience = trialRetries
	}
	if int(c.loss.retries) < patience || c.snd.mss <= floorMSS || c.board.recs[0].size < uint32(c.segmentSize()) {
		return
	}
	if h.full == 0 {
		h = blackHole{full: c.snd.mss}
		if again {
			h.retry = now.Add(blackHoleMemory)
		}
		c.odd().hole = h
	}
	c.snd.mss = max(min(c.snd.mss/2, baseMSS), floorMSS)
	c.board.recut(uint32(c.segmentSize()))
}

// tryFull makes segments full again after a black hole was suspected.
func (c *Conn) tryFull(now Time) {
	h := &c.hole
	switch {
	case c.loss.phase != phaseOpen:
	case h.full != 0 && now >= h.retry:
		c.snd.mss = min(h.full, c.cfg.pathMSS, orDefault(c.cfg.opts.MaxSegment, h.full))
		*h = blackHole{tried: true, until: c.snd.nxt.Add(seqnum.Size(c.snd.mss))}
	case h.tried && h.until.LessThanEq(c.snd.una):
		h.tried = false
	}
}

// ours reports whether seq could have been in flight; an error about anything
// else is forged or stale. https://www.rfc-editor.org/rfc/rfc5927#section-4.1
func (c *Conn) ours(seq seqnum.Value) DropReason {
	switch {
	case c.frozen:
		return DropSocketRepair
	case c.State() == StateClosed:
		return DropClosed
	case c.state == StateSynReceived && seq == c.snd.iss:
		// Our SYN-ACK, though what follows it may be on its way already.
	case seq.LessThan(c.snd.una) || c.snd.nxt.LessThanEq(seq):
		return DropInvalidSequence
	}
	return NotDropped
}

// lose judges record i lost, unless that is known and it waits to be sent.
func (b *scoreboard) lose(i int) {
	if r := &b.recs[i]; !r.is(recLost) || r.is(recRtx) {
		b.markLost(r)
	}
}

// requeue puts what is lost and waits to be sent in order again: cutting has
// put the tails last, and a peer without SACK can only use what comes in order.
func (b *scoreboard) requeue() {
	b.dig().lost = b.lost[:0]
	for i := range b.recs {
		if r := &b.recs[i]; r.is(recLost) && !r.is(recRtx) {
			b.lost = append(b.lost, r.seq)
		}
	}
}

// recut cuts records to size. From the first that was larger on, everything is
// judged lost: what follows it has probably waited in the same queue. It reports
// whether there was one.
func (b *scoreboard) recut(size uint32) (found bool) {
	for i := 0; i < len(b.recs); i++ {
		r := &b.recs[i]
		found = found || r.size > size
		if !found || r.is(recSacked) {
			continue
		}
		if r.size > size {
			b.cut(r.seq.Add(seqnum.Size(size)))
		}
		b.lose(i)
	}
	if found {
		b.requeue()
	}
	return found
}
