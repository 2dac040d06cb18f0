package conn

import (
	"math"
	"math/bits"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/seqnum"
)

// pacer spreads what the congestion window allows over the round trip, so that
// a burst need not fit into the bottleneck's buffer. It is a token bucket that
// is kept as a time: each byte sent moves due on by what it takes at the pacing
// rate, and the bucket is full when due lies paceDepth behind.
//
// The rate is a little above the window per round trip, so that it is still
// the window that is used up, and twice that while the window doubles.
// https://www.rfc-editor.org/rfc/rfc9002#section-7.7 (and Linux
// tcp_update_pacing_rate, for the two figures)
type pacer struct {
	due Time // when the next segment may leave
}

// Pacing gains, in fifths.
const (
	paceSlowStart = 10
	paceAvoidance = 6
	paceUnit      = 5
)

// paceDepth bounds what may leave at once beyond a segment, as time at the
// pacing rate: what a late timer keeps back is made up for, as far as that.
// A short round trip has less.
const (
	paceDepth      = time.Millisecond
	paceDepthShare = 8 // of the round trip
)

// pacing reports whether what is sent is paced. Before there is a round trip
// there is no rate.
func (c *Conn) pacing() bool {
	return c.cfg.opts.Pacing && c.rtt.smoothed > 0 && c.cc != nil
}

// perRoundTrip is the pacing rate, in bytes for each smoothed round trip and
// paceUnit times that.
func (c *Conn) perRoundTrip() int64 {
	gain := int64(paceAvoidance)
	if c.cc.Window() < c.cc.Threshold() {
		gain = paceSlowStart
	}
	return c.cc.Window() * gain
}

// mayPace returns how many of n bytes the pacing lets leave now, in segments of
// size, and sets the timer if that is none.
func (c *Conn) mayPace(now Time, n, size seqnum.Size) seqnum.Size {
	if !c.pacing() || n == 0 {
		return n
	}
	if c.pace.due > now {
		c.timers.set(timerPace, c.pace.due)
		return 0
	}
	c.timers.stop(timerPace)
	saved := min(now.Sub(c.pace.due), c.paceDepth())
	most := seqnum.Size(min(muldiv(c.perRoundTrip(), int64(saved), paceUnit*int64(c.rtt.smoothed)), math.MaxInt32))
	return min(n, most/size*size+size)
}

// paced notes that n bytes were sent.
func (c *Conn) paced(now Time, n int64) {
	if !c.pacing() {
		return
	}
	from := max(c.pace.due, now.Add(-c.paceDepth()))
	c.odd().pace.due = from.Add(time.Duration(muldiv(n, paceUnit*int64(c.rtt.smoothed), max(c.perRoundTrip(), 1))))
}

func (c *Conn) paceDepth() time.Duration {
	return min(paceDepth, c.rtt.smoothed/paceDepthShare)
}

// muldiv is a*b/d, of numbers that are not negative, d not zero; what is too
// large becomes the largest there is.
func muldiv(a, b, d int64) int64 {
	hi, lo := bits.Mul64(uint64(a), uint64(b))
	if hi >= uint64(d) {
		return math.MaxInt64
	}
	q, _ := bits.Div64(hi, lo, uint64(d))
	return int64(min(q, math.MaxInt64))
}
