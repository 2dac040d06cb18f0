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
)

// chrono sums up the time spent on activity.
type chrono struct {
	since  Time
	opened Time          // when the handshake was over
	busy   time.Duration // see hindered for the other two
	doing  activity
}

// hindered is the time in which a sender might have sent more.
type hindered struct{ byWindow, byBuffer time.Duration }

// turn notes that the sender does something else from now on.
func (c *Conn) turn(now Time, to activity) {
	k := &c.chrono
	c.spend(k.doing, now.Sub(k.since))
	k.doing, k.since = to, now
}

// spend counts time as spent on an activity.
func (c *Conn) spend(a activity, d time.Duration) {
	switch {
	case d == 0:
	case a == busy:
		c.chrono.busy += d
	case a == windowLimited:
		c.odd().hindered.byWindow += d
	case a == bufferLimited:
		c.odd().hindered.byBuffer += d
	}
}

// spent is the time spent on an activity up to now. Being idle does not count.
func (c *Conn) spent(now Time, a activity) (d time.Duration) {
	switch a {
	case busy:
		d = c.chrono.busy
	case windowLimited:
		d = c.hindered.byWindow
	case bufferLimited:
		d = c.hindered.byBuffer
	default:
		return 0
	}
	if c.chrono.doing == a {
		d += now.Sub(c.chrono.since)
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
	case c.unsent() == 0 && c.user.wanted && !c.windowFull():
		to = bufferLimited
	}
	if to != c.chrono.doing {
		c.turn(now, to)
	}
}
