package conn

import (
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/seqnum"
)

// corkTime is how long a corked segment waits at most (Linux's TCP_CORK).
const corkTime = 200 * time.Millisecond

// maySendSmall decides whether a segment of n bytes, less than a full one, may
// go now. piece is what there is to send, up to where a record ends; last, that
// nothing follows it.
func (c *Conn) maySendSmall(n, piece seqnum.Size, last bool) bool {
	switch {
	case n < piece:
		// The peer's window is what makes it small: sender's silly window
		// syndrome avoidance.
		// https://www.rfc-editor.org/rfc/rfc9293#section-3.8.6.2.1
		return n > 0 && (n >= c.snd.maxWnd/2 || c.user.force)
	case !last:
		return true // it will never be more
	case c.finPending() && (n < c.usableWindow() || n == 0):
		return true // the FIN goes with it
	}
	return n > 0 && !c.holdSmall()
}

// holdSmall is Nagle's algorithm as Minshall refined it: at most one small
// segment is unacknowledged at any time.
// https://www.rfc-editor.org/rfc/rfc9293#section-3.7.4 , and Linux tcp_nagle_test
func (c *Conn) holdSmall() bool {
	if c.corked() {
		return !c.user.uncork
	}
	if c.cfg.opts.NoDelay {
		return false
	}
	return c.snd.una.LessThan(c.snd.small) && c.snd.small.LessThanEq(c.snd.nxt)
}

// corked reports whether the user wants small segments held back: by an option,
// or because the last Write said that another follows. The latter holds only
// until the peer acknowledges something, as on Linux, where an acknowledgement
// sends what is there.
func (c *Conn) corked() bool {
	return c.cfg.opts.Cork || c.user.more && c.user.moreAt == c.snd.una
}

// Push sends what is held back for want of a full segment (setting TCP_NODELAY,
// and removing TCP_CORK).
func (c *Conn) Push() {
	c.user.uncork = c.unsent() > 0
	c.user.more = false
}

// armCork bounds how long data waits in a corked connection.
func (c *Conn) armCork(now Time) {
	if c.corked() && c.unsent() > 0 && !c.timers.running(timerCork) {
		c.timers.set(timerCork, now.Add(corkTime))
	}
}
