package conn

import "time"

// rttState is the round-trip time and the retransmission timeout made of it.
// https://www.rfc-editor.org/rfc/rfc6298
type rttState struct {
	smoothed time.Duration // SRTT; 0: no sample yet
	variance time.Duration // RTTVAR
	latest   time.Duration
	min      time.Duration // the least of late, see minRTTWindow; 0: none
	recent   time.Duration // the least since half a window before turn
	turn     Time          // when the next half begins
	backoff  uint8         // doublings of the timeout in force
	unsure   bool          // the handshake timed out, and gave no sample
}

// minRTTWindow is for how long the least round trip counts, so that a path that
// has become longer shows: half of it at least (Linux tcp_min_rtt_wlen).
// https://www.rfc-editor.org/rfc/rfc8985#section-6.2 (step 1)
const minRTTWindow = 300 * time.Second

// minRTT floors a sample: in virtual time, and on a coarse clock, an answer
// can come at the very moment of the question.
const minRTT = time.Microsecond

// unsureRTO is the timeout of the first data after a handshake that timed out:
// the path may be slower than InitialRTO supposes.
// https://www.rfc-editor.org/rfc/rfc6298#section-5 (5.7)
const unsureRTO = 3 * time.Second

func (r *rttState) init() { *r = rttState{} }

// sample takes a round trip that is not ambiguous (Karn's algorithm is the
// caller's). https://www.rfc-editor.org/rfc/rfc6298#section-2
func (r *rttState) sample(now Time, d time.Duration) {
	d = max(d, minRTT)
	r.latest = d
	r.backoff = 0 // which stays until this: the second half of Karn's algorithm
	r.least(now, d)
	if r.smoothed == 0 {
		r.smoothed, r.variance = d, d/2
		return
	}
	diff := r.smoothed - d
	if diff < 0 {
		diff = -diff
	}
	r.variance += (diff - r.variance) / 4
	r.smoothed += (d - r.smoothed) / 8
}

// least keeps the least sample of this half of a window and the one before.
func (r *rttState) least(now Time, d time.Duration) {
	switch {
	case now < r.turn:
		r.recent = min(r.recent, d)
		r.min = min(r.min, d)
		return
	case r.recent == 0 || now.Sub(r.turn) >= minRTTWindow/2:
		r.min = d // what there was is too old
	default:
		r.min = min(r.recent, d)
	}
	r.recent, r.turn = d, now.Add(minRTTWindow/2)
}

// base is the timeout without backoff. The minimum bounds the variance term
// rather than the sum, as Linux does: on a path whose round trip is steady the
// timeout must still leave room for a delayed acknowledgement.
func (r *rttState) base(p *params) time.Duration {
	if r.smoothed == 0 {
		first := InitialRTO
		if r.unsure {
			first = unsureRTO
		}
		return min(max(first, p.minRTO), p.maxRTO)
	}
	return min(r.smoothed+max(4*r.variance, p.minRTO), p.maxRTO)
}

// timeout is the retransmission timeout in force.
// https://www.rfc-editor.org/rfc/rfc6298#section-5 (5.5)
func (r *rttState) timeout(p *params) time.Duration {
	rto := r.base(p)
	for range r.backoff {
		if rto >= p.maxRTO {
			return p.maxRTO
		}
		rto *= 2
	}
	return min(rto, p.maxRTO)
}

// backOff doubles the timeout, up to its maximum.
func (r *rttState) backOff(p *params) {
	if r.timeout(p) < p.maxRTO {
		r.backoff++
	}
}
