package cc

import (
	"math"
	"time"
)

// CUBIC's constants. Ratios are kept as such, to be exact in integers.
const (
	cubicC                     = 0.4   // segments per cubed second, RFC 9438 section 5
	betaNum, betaDen           = 7, 10 // beta_cubic, RFC 9438 section 4.6
	alphaNum, alphaDen         = 9, 17 // alpha_cubic = 3(1-beta)/(1+beta), section 4.3
	noEpoch                    = -1    // no congestion avoidance stage has begun
	maxElapsed                 = 1 << 50
	maxK                       = 1 << 41 // above what any window and segment can give
	second             float64 = 1e9
)

// epoch describes a stage of congestion avoidance.
type epoch struct {
	wmax  int64 // W_max; 0: none, the stage will begin at its own plateau
	prior int64 // cwnd_prior: the window when the threshold was last set
	k     int64 // K, nanoseconds
	// elapsed is t, the time that the stage has lasted, or noEpoch.
	// It is counted up and not taken from a start, so that time in which the
	// window could not grow (idle, application-limited, frozen) does not count
	// and a stored stage means the same on another clock.
	elapsed int64
	west    int64 // W_est
}

// cubic is congestion control as RFC 9438 has it, with HyStart++ (RFC 9406).
//
// It reduces the window itself and not FlightSize, which section 4.6 allows to
// those that do not grow a window the sender does not fill.
type cubic struct {
	window
	*course // not to be written to if it is untouched; see steer
	hystart hystart
	now     int64 // when the last event happened
}

// course is what a flow that is past its first slow start remembers. Most
// connections never are.
type course struct {
	epoch
	// What growth owes: the remainders of the divisions that make cwnd and
	// W_est, so that no byte is lost however small an acknowledgement is.
	owed, westOwed int64

	// What the latest OnCongestion replaced; before.cwnd is 0 if there is
	// nothing to take back.
	before      window
	beforeEpoch epoch
}

// untouched is the course of all flows in their first slow start.
var untouched = course{epoch: epoch{elapsed: noEpoch}}

func newCubic(mss int) *cubic { return &cubic{window: newWindow(mss), course: &untouched} }

// steer returns the flow's course to be written to.
func (c *cubic) steer() *course {
	if c.course == &untouched {
		own := untouched
		c.course = &own
	}
	return c.course
}

func (c *cubic) Name() string { return "cubic" }

func (c *cubic) OnAck(a Ack) {
	mss := int64(clampMSS(a.MSS))
	c.cwnd = max(c.cwnd, mss)
	passed := c.advance(a.Now)
	if c.ssthresh == Unlimited && c.hystart.onAck(a.RTT, a.NewRound, a.AppLimited) {
		// https://www.rfc-editor.org/rfc/rfc9438#section-4.10
		c.ssthresh, c.steer().prior = c.cwnd, c.cwnd
	}
	if a.AppLimited {
		return
	}
	n := clampAcked(a.Acked)
	// Of what ends slow start, and begins the stage of congestion avoidance that
	// follows, nothing was sent in that stage, at whose beginning W_cubic and
	// W_est are the window as it is.
	fresh := c.elapsed == noEpoch && c.wmax == 0
	if c.cwnd < c.ssthresh {
		if n = c.startSlowly(n); c.cwnd < c.ssthresh || fresh {
			return
		}
	}
	if c.elapsed == noEpoch {
		if c.begin(mss); fresh {
			return
		}
	} else {
		c.elapsed = min(c.elapsed+passed, maxElapsed)
	}
	rtt := a.SRTT
	if rtt <= 0 {
		rtt = a.RTT
	}
	c.avoid(n, mss, min(max(int64(rtt), 0), maxElapsed))
}

// advance moves to the time of an event and returns how long it has been since
// the one before. A clock that goes back stands still.
func (c *cubic) advance(now int64) (passed int64) {
	if now > c.now {
		// A difference that overflows is a very long time too.
		passed = int64(min(uint64(now)-uint64(c.now), maxElapsed))
	}
	c.now = now
	return passed
}

// startSlowly is slow start, standard or conservative.
func (c *cubic) startSlowly(n int64) (left int64) {
	if c.ssthresh == Unlimited && c.hystart.css() {
		c.steer().owed += n
		n, c.owed = c.owed/cssGrowthDivisor, c.owed%cssGrowthDivisor
	}
	return c.slowStart(n)
}

// begin begins a stage of congestion avoidance at the present window.
// https://www.rfc-editor.org/rfc/rfc9438#section-4.2
func (c *cubic) begin(mss int64) {
	c.steer()
	c.elapsed, c.k, c.west = 0, 0, c.cwnd
	c.owed, c.westOwed = 0, 0
	if c.wmax <= c.cwnd {
		// After a timeout, after HyStart++, and when slow start went past an
		// old plateau, this is the plateau (sections 4.8 and 4.10).
		c.wmax = c.cwnd
		return
	}
	c.k = int64(math.Cbrt(float64(c.wmax-c.cwnd)/(cubicC*float64(mss))) * second)
}

// leave ends a stage of congestion avoidance. Another begins where slow start or
// recovery, which follow, end.
func (c *cubic) leave() {
	if c.course == &untouched {
		return
	}
	c.elapsed, c.k, c.west = noEpoch, 0, 0
	c.owed, c.westOwed = 0, 0
}

// avoid grows the window by n acknowledged bytes in congestion avoidance: along
// W_cubic, or along W_est where Reno would be faster.
// https://www.rfc-editor.org/rfc/rfc9438#section-4.3
// https://www.rfc-editor.org/rfc/rfc9438#section-4.4
func (c *cubic) avoid(n, mss, rtt int64) {
	n = min(n, c.cwnd) // More than a window takes the window to its target at once.
	c.estimate(n, mss)
	if c.at(c.elapsed, mss) < c.west {
		c.set(max(c.cwnd, c.west), mss)
		return
	}
	target := min(max(c.at(c.elapsed+rtt, mss), c.cwnd), c.cwnd+c.cwnd/2)
	// At most 2^29 * 2^30 and a remainder below 2^30.
	c.owed += (target - c.cwnd) * n
	grow := c.owed / c.cwnd
	c.owed -= grow * c.cwnd
	c.set(c.cwnd+grow, mss)
}

// estimate moves W_est on: it grows as Reno would if Reno reduced by beta_cubic
// too, and like Reno itself once it has regained what it had.
func (c *cubic) estimate(n, mss int64) {
	num := int64(alphaNum)
	if c.west >= c.prior {
		num = alphaDen
	}
	// At most 17 * 2^16 * 2^30.
	c.westOwed += num * mss * n
	den := alphaDen * c.cwnd
	grow := c.westOwed / den
	c.westOwed -= grow * den
	c.west = min(c.west+grow, maxWindow)
}

// at is W_cubic, t nanoseconds into the stage.
// https://www.rfc-editor.org/rfc/rfc9438#section-4.2 figure 1
func (c *cubic) at(t, mss int64) int64 {
	d := float64(t-c.k) / second
	grown := cubicC * float64(mss) * d * d * d
	// Beyond this the window is at a bound whatever W_max is.
	return c.wmax + int64(min(max(grown, -2*maxWindow), 2*maxWindow))
}

// OnCongestion multiplies by beta_cubic. A flow that did not get back to its
// plateau aims lower, to make room for others (fast convergence).
// https://www.rfc-editor.org/rfc/rfc9438#section-4.6
// https://www.rfc-editor.org/rfc/rfc9438#section-4.7
func (c *cubic) OnCongestion(e Congestion) {
	c.advance(e.Now)
	c.steer()
	c.before, c.beforeEpoch = c.window, c.epoch
	c.leave()
	c.prior = c.cwnd
	switch {
	case e.Signal == Timeout:
		c.wmax = 0 // https://www.rfc-editor.org/rfc/rfc9438#section-4.8
	case c.cwnd < c.wmax:
		c.wmax = c.cwnd * (betaDen + betaNum) / (2 * betaDen)
	default:
		c.wmax = c.cwnd
	}
	c.reduce(c.cwnd*betaNum/betaDen, e.Signal, int64(clampMSS(e.MSS)))
}

func (c *cubic) OnIdle(now int64, idle, rto time.Duration, mss int) {
	c.advance(now)
	if c.decay(idle, rto, mss) {
		c.leave()
		c.hystart = hystart{} // The path may have changed: old delays mean little.
	}
}

// Undo goes on with the stage that was broken off, as if no time had passed.
// https://www.rfc-editor.org/rfc/rfc9438#section-4.9
func (c *cubic) Undo(now int64) {
	if c.before.cwnd == 0 {
		return
	}
	c.advance(now)
	c.cwnd = max(c.cwnd, c.before.cwnd)
	c.ssthresh, c.epoch = c.before.ssthresh, c.beforeEpoch
	c.owed, c.westOwed = 0, 0
	c.before, c.beforeEpoch = window{}, epoch{}
}
