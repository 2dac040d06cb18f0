package conn

import (
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/seqnum"

	"github.com/tcprepair/ustack/stack/tcp/cc"
)

// tailLoss is a probe for losses at the end of a flight, which no later
// segment could reveal.
// https://www.rfc-editor.org/rfc/rfc8985#section-7
type tailLoss struct {
	active  bool         // a probe awaits its acknowledgement
	again   bool         // it repeated the last segment, rather than send a new one
	due     bool         // Output owes the probe
	counted bool         // it was counted as a recovery
	end     seqnum.Value // SND.NXT after it
}

// armTailLoss sets the probe timeout after new data was sent or acknowledged.
func (c *Conn) armTailLoss(now Time) {
	c.timers.stop(timerTailLoss)
	t := &c.loss.tail
	if t.active || t.due || c.board.empty() || c.rtt.smoothed == 0 || c.rtt.backoff > 0 || !c.inWindow(&c.board.recs[0]) {
		// While the timeout is backed off the round trip is not known: a probe
		// would spoil the measure that is waited for. And to probe a closed
		// window is the timeout's.
		return
	}
	// A path that has just become slower shows in the latest sample first, and
	// a probe sent too early would leave it the last.
	rtt := max(c.rtt.smoothed, c.rtt.latest)
	wait := 2*rtt + 2*time.Millisecond
	switch c.loss.phase {
	case phaseOpen, phaseCWR:
		if !c.cfg.sack || !c.cfg.rack || c.board.sacked.segs > 0 {
			return
		}
		if len(c.board.recs) == 1 {
			// The peer may be delaying the acknowledgement of a lone segment.
			wait = 2*rtt + c.cfg.minRTO
		}
	case phaseRecovery:
	default:
		return
	}
	// The probe takes the place of the timeout, which begins anew after it.
	// https://www.rfc-editor.org/rfc/rfc8985#section-7.2
	rto := c.rtt.timeout(&c.cfg)
	at := min(now.Add(wait), max(now, c.board.recs[0].sent.Add(rto)))
	c.timers.set(timerTailLoss, at)
	c.timers.set(timerRTO, at.Add(rto))
}

// onTailLoss owes the probe, or, in recovery, repeats the oldest segment.
func (c *Conn) onTailLoss(now Time) {
	if c.board.empty() {
		return
	}
	switch c.loss.phase {
	case phaseOpen, phaseCWR:
		c.loss.tail.due = true
	case phaseRecovery:
		c.probeRecovery()
	default:
		return
	}
	c.timers.set(timerRTO, c.timeoutAt(now))
}

// probeRecovery takes the oldest segment for lost after a silence in recovery,
// in which the acknowledgement of a retransmission must have come. When what
// was lost is the last that was retransmitted, nothing later could tell of it,
// and only the timeout would be left, which throws away what recovery knows.
//
// RFC 8985 probes in the open state only. QUIC does at any time:
// https://www.rfc-editor.org/rfc/rfc9002#section-6.2
func (c *Conn) probeRecovery() {
	r := &c.board.recs[0]
	if r.is(recSacked) {
		return // a peer that lies, or reneges; the timeout will see to it
	}
	if r.is(recRtx) || !r.is(recLost) {
		c.board.markLost(r)
		c.board.requeue()
	}
	c.loss.tail = tailLoss{active: true, end: c.snd.nxt}
	c.loss.insist = true
	c.stats.count().TailLossProbes++
}

// probed notes that the probe was sent.
func (c *Conn) probed(again bool) {
	c.stats.count().TailLossProbes++
	c.loss.tail = tailLoss{active: true, again: again, end: c.snd.nxt}
}

// tailAcked judges an acknowledgement while a probe is out. If the probe was a
// repetition that the peer needed, it repaired a loss, and the congestion
// control must hear of it. That shows when something after it is acknowledged
// and no duplicate has been reported; the first acknowledgement of the end may
// as well be the original's, come late. empty is one that tells nothing: both
// have arrived. In recovery any news ends the silence.
// https://www.rfc-editor.org/rfc/rfc8985#section-7.4.2
func (c *Conn) tailAcked(now Time, ack seqnum.Value, dsack, news, empty bool) {
	t := &c.loss.tail
	if c.loss.phase == phaseRecovery {
		t.active = t.active && !news
		return
	}
	if !t.active || ack.LessThan(t.end) {
		return
	}
	repaired := t.again && !dsack && t.end.LessThan(ack)
	if t.again && !dsack && !t.counted {
		t.counted = true // it most likely was one; what it costs is for what follows to tell
		c.stats.count().SACKRecoveries++
	}
	if t.again && !dsack && !empty && !repaired {
		return // not known yet
	}
	*t = tailLoss{}
	if repaired && c.loss.phase < phaseCWR {
		c.ecn.cwr = c.cfg.ecn
		c.cc.OnCongestion(cc.Congestion{Now: int64(now), Signal: cc.Loss, Flight: c.flightBefore(), MSS: c.segmentSize()})
	}
}
