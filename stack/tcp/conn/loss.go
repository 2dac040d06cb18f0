package conn

import (
	"gvisor.dev/gvisor/pkg/tcpip/seqnum"

	"github.com/tcprepair/ustack/stack/tcp/cc"
)

// phase is where a connection is in dealing with congestion, as tcp_info
// reports it (Linux enum tcp_ca_state).
type phase uint8

const (
	phaseOpen     phase = iota // all is well
	phaseDisorder              // duplicate acknowledgements, nothing judged lost
	phaseCWR                   // the window is being reduced, nothing was lost
	phaseRecovery              // segments were found lost and are retransmitted
	phaseLoss                  // the retransmission timer fired
)

// lossState is what a connection remembers while it recovers.
type lossState struct {
	phase   phase
	held    bool         // nothing beyond point was acknowledged since (RFC 6582's recover)
	insist  bool         // the oldest segment is to go again, whatever the window says
	counted bool         // this recovery's fast retransmission was counted
	frto    bool         // it is not known yet whether the timeout was spurious
	heard   uint16       // the window field of the last acknowledgement; 0: there was none
	point   seqnum.Value // SND.NXT when the phase began: it ends when this is acknowledged
	round   seqnum.Value // the round trip in progress ends when this is acknowledged
	usage   windowUsage
	stalled Time   // since when the oldest segment has been waiting
	retries uint32 // retransmission timeouts since anything was acknowledged
	dupAcks uint32 // duplicate acknowledgements in a row, without SACK
	tail    tailLoss
	rack    rackState
	*reduction
}

func (l *lossState) init(iss seqnum.Value) {
	l.point, l.round, l.usage.until = iss, iss, iss
	l.rack.steps, l.rack.degree = 1, dupThresh
}

// flight is how many bytes are in the network: sent, and neither acknowledged,
// SACKed, nor lost.
func (c *Conn) flight() int64 {
	b := &c.board
	n := int64(c.snd.una.Size(c.snd.nxt)) - b.sacked.bytes - b.lostOut.bytes + b.rtxOut.bytes
	if !c.cfg.sack {
		// Without SACK each duplicate acknowledgement says that one segment
		// left the network, but not which.
		n -= int64(c.loss.dupAcks) * int64(c.segmentSize())
	}
	return max(n, 0)
}

// packetsOut is how many packets are in the network, as flight is in bytes.
func (c *Conn) packetsOut() int64 {
	b := &c.board
	return int64(len(b.recs)) - b.sacked.segs - b.lostOut.segs + b.rtxOut.segs - int64(c.loss.dupAcks)
}

// cwnd is the congestion window in force.
func (c *Conn) cwnd() int64 {
	switch {
	case c.loss.phase == phaseRecovery && c.classic():
		if c.cfg.sack {
			// https://www.rfc-editor.org/rfc/rfc5681#section-3.2 (step 3)
			return c.cc.Window() + dupThresh*int64(c.segmentSize())
		}
	case c.loss.phase == phaseCWR, c.loss.phase == phaseRecovery:
		if c.flight() == 0 {
			// No delivery will come to raise it.
			return max(c.loss.prr.window, int64(c.segmentSize()))
		}
		return c.loss.prr.window
	case c.loss.phase == phaseDisorder:
		return c.cc.Window() - c.heldBack()
	}
	return c.cc.Window()
}

// classic reports whether recovery goes by the window and what is in flight,
// as it did before RACK and proportional rate reduction: for peers without SACK,
// and where the user switched RACK off.
func (c *Conn) classic() bool { return !c.cfg.sack || !c.cfg.rack }

// detect looks for losses after an acknowledgement.
func (c *Conn) detect(now Time, d *delivery) {
	switch {
	case c.cfg.sack && c.cfg.rack:
		c.detectRACK(now)
	case c.cfg.sack:
		c.detectSACKCount()
	default:
		c.detectDuplicates(d)
	}
	if c.board.lostOut.segs > 0 {
		// New losses, or ones that a recovery just over has left.
		c.enterRecovery(now, d.bytes)
	}
	if c.loss.phase == phaseOpen && (c.board.sacked.segs > 0 || c.loss.dupAcks > 0) {
		c.loss.phase = phaseDisorder
	}
}

// detectSACKCount judges lost what three later segments have overtaken.
// https://www.rfc-editor.org/rfc/rfc6675#section-4 (IsLost)
//
// A new recovery waits for an acknowledgement beyond the last, like one without
// SACK.
func (c *Conn) detectSACKCount() {
	b := &c.board
	if b.sacked.segs < dupThresh || c.loss.held && c.loss.phase < phaseRecovery {
		return
	}
	above := int64(0)
	i := b.find(b.high)
	for i--; i >= 0 && above < dupThresh; i-- {
		if b.recs[i].is(recSacked) {
			above++
		}
	}
	if above < dupThresh || i < 0 {
		return
	}
	limit := b.recs[i].end()
	for j := b.find(b.scan); j <= i; j++ {
		if r := &b.recs[j]; !r.is(recSacked | recLost | recEver) {
			b.markLost(r)
		}
	}
	if b.scan.LessThan(limit) {
		b.scan = limit
	}
}

// enterRecovery begins fast recovery, unless a recovery is under way already.
// news is what the acknowledgement at hand delivered.
// https://www.rfc-editor.org/rfc/rfc6675#section-5
func (c *Conn) enterRecovery(now Time, news int64) {
	if c.loss.phase >= phaseRecovery {
		return
	}
	if c.cfg.sack {
		c.stats.count().SACKRecoveries++
		if c.loss.tail.again {
			c.stats.count().TailLossRecoveries++
		}
	} else {
		c.stats.count().FastRecoveries++
	}
	c.loss.insist = c.classic()
	c.reduce(now, phaseRecovery, cc.Loss, news)
}

// reduce makes the congestion window smaller and remembers how to undo it. The
// rate is reduced over what is yet to be delivered, news included.
// https://www.rfc-editor.org/rfc/rfc9937#section-6.1 (RecoverFS)
func (c *Conn) reduce(now Time, to phase, why cc.Signal, news int64) {
	if c.loss.phase < phaseCWR {
		c.cc.OnCongestion(cc.Congestion{Now: int64(now), Signal: why, Flight: c.flightBefore(), MSS: c.segmentSize()})
		c.loss.mayUndo(c.snd.una)
		first := int64(0)
		if to == phaseRecovery {
			first = int64(c.segmentSize())
		}
		c.loss.prr.begin(c.cc.Threshold(), c.undelivered()+news, c.flight(), first, news > 0 || !c.loss.usage.limited)
	}
	c.loss.counted = false
	c.ecn.cwr = c.cfg.ecn // for whatever reason it was reduced (RFC 3168 section 6.1.2)
	c.loss.phase = to
	c.loss.point, c.loss.held = c.snd.nxt, to == phaseRecovery
	c.timers.stop(timerTailLoss)
}

// mayRetransmit reports whether a lost segment may go now. What lies beyond the
// window, because the peer took some of it back, waits for the window; only when
// the timer says so the oldest segment goes nevertheless, as a probe.
// https://www.rfc-editor.org/rfc/rfc9293#section-3.8.6.1
func (c *Conn) mayRetransmit(r *record) bool {
	insist := c.loss.insist && r.seq == c.snd.una
	if !c.inWindow(r) && !(insist && c.loss.phase == phaseLoss) {
		return false
	}
	flight := c.flight()
	return insist || flight == 0 || flight+int64(r.size) <= c.cwnd() && !c.packetsFull(c.segmentSize())
}

// inWindow reports whether a record begins within the peer's window. A FIN
// takes none.
func (c *Conn) inWindow(r *record) bool {
	return r.seq.LessThan(c.snd.una.Add(c.snd.wnd)) || c.finSent() && r.seq == c.finSeq()
}

// reopen is called when a closed window opens while something is outstanding.
// What was repeated while it was closed was dropped.
func (c *Conn) reopen() {
	if c.loss.phase == phaseLoss && !c.board.empty() {
		c.board.markAll(c.board.recs[0].is(recSacked))
	}
}

// countRetransmit counts a segment sent again, by what made it necessary. With
// SACK, one fast retransmission begins a recovery, and what follows it is not
// called so.
func (c *Conn) countRetransmit() {
	c.stats.count().Retransmits++
	switch c.loss.phase {
	case phaseRecovery:
		if !c.cfg.sack || !c.loss.counted {
			c.stats.count().FastRetransmits++
		}
		c.loss.counted = true
	case phaseLoss:
		c.stats.count().SlowStartRetransmit++
	}
}

// flightBefore is RFC 5681's FlightSize: all that is outstanding.
func (c *Conn) flightBefore() int64 { return int64(c.snd.una.Size(c.snd.nxt)) }

// undelivered is that less what the peer is known to have.
func (c *Conn) undelivered() int64 {
	return max(c.flightBefore()-c.board.sacked.bytes-int64(c.loss.dupAcks)*int64(c.segmentSize()), 0)
}

// leave ends a phase once everything sent before it began is acknowledged.
func (c *Conn) leave() {
	l := &c.loss
	l.held = l.held && !l.point.LessThan(c.snd.una)
	if l.phase == phaseOpen || l.phase == phaseDisorder {
		if c.board.sacked.segs == 0 && l.dupAcks == 0 {
			l.phase = phaseOpen
			if !l.held {
				l.point = c.snd.una // so that it never falls half the space behind
			}
		}
		return
	}
	if c.snd.una.LessThan(l.point) {
		return
	}
	if l.phase >= phaseRecovery {
		l.rack.settle()
	}
	l.phase, l.frto, l.insist, l.dupAcks = phaseOpen, false, false, 0
	l.undo.end()
}

// windowUsage tells whether the congestion window was what held the sender
// back. One that was not may not grow: nothing was learnt about the path.
// https://www.rfc-editor.org/rfc/rfc7661#section-4 (and Linux tcp_cwnd_validate)
type windowUsage struct {
	most    uint32       // the largest flight of the present round, in bytes
	until   seqnum.Value // which ends when this is acknowledged
	limited bool
}

// note records that flight bytes are out, and whether more would be if the
// congestion window allowed it.
func (u *windowUsage) note(una, nxt seqnum.Value, flight int64, limited bool) {
	if u.until.LessThanEq(una) || limited || !u.limited && flight > int64(u.most) {
		u.limited, u.most, u.until = limited, uint32(flight), nxt // no more than what is outstanding
	}
}

// mayGrow reports whether the window was used well enough to grow.
func (u *windowUsage) mayGrow(window, threshold int64) bool {
	return u.limited || window < threshold && window < 2*int64(u.most)
}
