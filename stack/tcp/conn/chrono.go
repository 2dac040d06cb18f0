package conn

import "time"

// activity is what a sender is doing, for tcp_info's *_time and *_limited
// fields (Linux enum tcp_chrono).
type activity uint8

const (
	idle          activity = iota // nothing written is unacknowledged
	busy                          // sending, or waiting for acknowledgements
	windowLimited                 // the peer's window holds it back
	bufferLimited                 // the send buffer is too small for the path
	numActivities
)

// chrono sums up the time spent on each activity.
type chrono struct {
	doing  activity
	since  Time
	opened Time // when the handshake was over
	spent  [numActivities]time.Duration
}

// turn notes what the sender does from now on.
func (k *chrono) turn(now Time, to activity) {
	if k.doing == to {
		return
	}
	k.spent[k.doing] += now.Sub(k.since)
	k.doing, k.since = to, now
}

// total is the time spent on an activity up to now.
func (k *chrono) total(now Time, a activity) time.Duration {
	d := k.spent[a]
	if k.doing == a && a != idle {
		d += now.Sub(k.since)
	}
	return d
}

// windowFull reports whether the congestion window is used up.
func (c *Conn) windowFull() bool {
	return c.flight() >= c.cwnd() || c.packetsFull(c.segmentSize())
}

// clockActivity notes what the sender does, once Output has nothing more.
func (c *Conn) clockActivity(now Time) {
	to := busy
	switch {
	case !c.state.Synchronized() || c.board.empty() && !c.hasUnsent():
		to = idle
	case c.unsent() > 0 && c.usableWindow() < min(c.unsent(), 1+c.snd.maxWnd/2) && c.flight() < c.cwnd():
		to = windowLimited
	case c.unsent() == 0 && c.sendq.wanted && !c.windowFull():
		to = bufferLimited
	}
	c.chrono.turn(now, to)
}
