package cc

import "time"

// HyStart++'s constants.
// https://www.rfc-editor.org/rfc/rfc9406#section-4.3
const (
	minRTTThresh     = 4000  // MIN_RTT_THRESH, microseconds
	maxRTTThresh     = 16000 // MAX_RTT_THRESH, microseconds
	minRTTDivisor    = 8
	nRTTSample       = 8
	cssGrowthDivisor = 4
	cssRounds        = 5
)

// hystart leaves the first slow start before it overflows the bottleneck's
// buffer: when the round-trip time grows from one round to the next, it slows
// growth down (Conservative Slow Start), and if that was no jitter it ends slow
// start some rounds later. The zero value is ready.
//
// It applies only while the threshold is Unlimited: later slow starts end at a
// threshold that congestion has found.
// https://www.rfc-editor.org/rfc/rfc9406#section-4.2
type hystart struct {
	// Smallest round-trip times, in microseconds; 0: none.
	round    uint32 // currentRoundMinRTT
	last     uint32 // lastRoundMinRTT
	baseline uint32 // cssBaselineMinRtt; 0: in slow start, not in CSS
	samples  uint8  // rttSampleCount of this round, up to nRTTSample
	rounds   uint8  // rounds of CSS begun, the partial first one included
}

// css reports whether growth is slowed down.
func (h *hystart) css() bool { return h.baseline != 0 }

// onAck takes an acknowledgement's sample and reports whether slow start is
// over. While the sender does not fill its window (limited), samples and rounds
// are kept but nothing is concluded: the delay is not of our making.
func (h *hystart) onAck(rtt time.Duration, newRound, limited bool) (exit bool) {
	if newRound {
		h.last, h.round, h.samples = h.round, 0, 0
		if h.css() && !limited {
			if h.rounds == cssRounds {
				return true
			}
			h.rounds++
		}
	}
	h.sample(rtt)
	if limited || h.samples < nRTTSample {
		return false
	}
	switch {
	case !h.css() && h.last != 0 && h.round >= h.last+rttThresh(h.last):
		h.baseline, h.rounds = h.round, 1
	case h.css() && h.round < h.baseline:
		h.baseline, h.rounds = 0, 0 // It was jitter: resume slow start.
	}
	return false
}

func (h *hystart) sample(rtt time.Duration) {
	if rtt <= 0 {
		return
	}
	us := uint32(min(max(rtt/time.Microsecond, 1), 1<<31))
	if h.round == 0 || us < h.round {
		h.round = us
	}
	h.samples = min(h.samples+1, nRTTSample)
}

// rttThresh is how much the round-trip time must grow to be a sign of a queue.
func rttThresh(last uint32) uint32 {
	return min(max(last/minRTTDivisor, minRTTThresh), maxRTTThresh)
}
