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
	active bool         // a probe awaits its acknowledgement
	again  bool         // it repeated the last segment, rather than send a new one
	end    seqnum.Value // SND.NXT after it
	due    bool         // Output owes the probe
}

// armTailLoss sets the probe timeout after new data was sent or acknowledged.
func (c *Conn) armTailLoss(now Time) {
	c.timers.stop(timerTailLoss)
	t := &c.loss.tail
	if !c.cfg.sack || !c.cfg.rack || c.loss.phase != phaseOpen || t.active || t.due ||
		c.board.empty() || c.rtt.smoothed == 0 || c.board.sacked.segs > 0 {
		return
	}
	wait := 2 * c.rtt.smoothed
	if len(c.board.recs) == 1 {
		// The peer may be delaying the acknowledgement of a lone segment.
		wait += c.cfg.minRTO
	} else {
		wait += 2 * time.Millisecond
	}
	// The probe takes the place of the timeout, which begins anew after it.
	// https://www.rfc-editor.org/rfc/rfc8985#section-7.2
	rto := c.rtt.timeout(&c.cfg)
	at := min(now.Add(wait), max(now, c.board.recs[0].sent.Add(rto)))
	c.timers.set(timerTailLoss, at)
	c.timers.set(timerRTO, at.Add(rto))
}

// onTailLoss owes the probe.
func (c *Conn) onTailLoss(now Time) {
	if c.board.empty() || c.loss.phase != phaseOpen {
		return
	}
	c.loss.tail.due = true
	c.timers.set(timerRTO, now.Add(c.rtt.timeout(&c.cfg)))
}

// probed notes that the probe was sent.
func (c *Conn) probed(again bool) {
	c.stats.TailLossProbes++
	c.loss.tail = tailLoss{active: true, again: again, end: c.snd.nxt}
}

// tailAcked judges an acknowledgement while a probe is out. If the probe was a
// repetition that the peer needed, it repaired a loss, and the congestion
// control must hear of it.
// https://www.rfc-editor.org/rfc/rfc8985#section-7.4
func (c *Conn) tailAcked(now Time, ack seqnum.Value, dsack bool) {
	t := &c.loss.tail
	if !t.active || ack.LessThan(t.end) {
		return
	}
	repaired := t.again && !dsack
	*t = tailLoss{}
	if repaired && c.loss.phase < phaseCWR {
		c.cc.OnCongestion(cc.Congestion{Now: int64(now), Signal: cc.Loss, Flight: c.flightBefore(), MSS: c.segmentSize()})
	}
}
