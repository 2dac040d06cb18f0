package conn

import (
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// enterTimeWait begins the wait in which the last acknowledgement may be lost
// and the FIN come again.
// https://www.rfc-editor.org/rfc/rfc9293#section-3.6.1
func (c *Conn) enterTimeWait(now Time) {
	c.timers.init()
	c.setState(StateTimeWait)
	c.releaseSend()
	c.startTimeWait(now)
}

func (c *Conn) startTimeWait(now Time) { c.timers.set(timerTimeWait, now.Add(c.cfg.timeWait)) }

// startFinWait2 bounds how long a connection nobody uses waits for the peer's
// FIN (Linux tcp_fin_timeout). While the user still may read, there is no bound.
func (c *Conn) startFinWait2(now Time) {
	if c.state != StateFinWait2 || !c.userGone {
		return
	}
	if c.cfg.finWait2 < 0 {
		c.finish()
		return
	}
	c.timers.set(timerFinWait2, now.Add(c.cfg.finWait2))
}

// Reusable reports whether a SYN that arrived for a connection in TIME-WAIT
// may begin a new one: its timestamp is later, or its sequence number lies
// beyond everything the old one received. iss is then the least initial
// sequence number for the new connection.
// https://www.rfc-editor.org/rfc/rfc6191#section-2
func (c *Conn) Reusable(s *Segment) (ok bool) {
	if c.state != StateTimeWait || c.frozen || s.Flags&flagsFINSYNRST != header.TCPFlagSyn || s.Has(header.TCPFlagAck) {
		return false
	}
	if c.tstamp.on && s.Options.HasTS {
		if s.Options.TSVal != c.tstamp.recent {
			return int32(s.Options.TSVal-c.tstamp.recent) > 0
		}
	}
	return c.rcv.nxt.LessThan(s.Seq)
}
