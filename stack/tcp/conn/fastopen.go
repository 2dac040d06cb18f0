package conn

import (
	"io"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/seqnum"
)

// TCP Fast Open: data on the SYN, and from a server before the handshake is
// over. Cookies are the caller's business; a connection only carries them.
// https://www.rfc-editor.org/rfc/rfc7413

// FastOpen is the Fast Open option of a SYN or SYN-ACK.
type FastOpen struct {
	// Cookie is 4 to 16 bytes; empty asks for one.
	Cookie []byte
	// Experimental says that it stands in the option that Fast Open used
	// before it had a number of its own (RFC 6994).
	Experimental bool
}

// Sizes of a cookie in bytes. https://www.rfc-editor.org/rfc/rfc7413#section-4.1.1
const (
	MinFastOpenCookie = 4
	MaxFastOpenCookie = 16
)

// fastOpenMagic tells Fast Open from other experiments.
const fastOpenMagic = 0xf989

// parseFastOpen reads a cookie. One of a size that there is not is ignored.
func (o *Options) parseFastOpen(cookie []byte, experimental bool) {
	n := len(cookie)
	if n == 0 || n >= MinFastOpenCookie && n <= MaxFastOpenCookie && n%2 == 0 {
		o.FastOpen = &FastOpen{Cookie: append([]byte(nil), cookie...), Experimental: experimental}
	}
}

// size is what the option takes in a header, with padding.
func (f *FastOpen) size() int {
	n := 2 + len(f.Cookie)
	if f.Experimental {
		n += 2
	}
	return (n + 3) &^ 3
}

// encode writes the option and its padding.
func (f *FastOpen) encode(b []byte) int {
	size := f.size()
	n := 2
	if f.Experimental {
		b[0], b[2], b[3] = optExperiment, fastOpenMagic>>8, fastOpenMagic&0xff
		n += 2
	} else {
		b[0] = optFastOpen
	}
	n += copy(b[n:], f.Cookie)
	b[1] = byte(n)
	for ; n < size; n++ {
		b[n] = optNOP
	}
	return size
}

// earlyData is what a connection knows of data before the handshake is over.
type earlyData struct {
	option *FastOpen // on our first SYN, or SYN-ACK
	serves bool      // we accepted Fast Open: data flows in SYN-RECEIVED
	asks   bool      // we asked for it, or used it: data on the SYN-ACK counts
	room   int       // how many bytes our SYN may still carry
	more   bool      // the user will write at once when the handshake is over
	quiet  bool      // the peer knows our window from our SYN-ACK only
	taken  bool      // all of the SYN's data was taken, ours or the peer's
}

// WriteSYN copies up to n bytes from r to our SYN, which has not left yet, and
// reports how many it took: no more than Config.SYNData. more says that what it
// does not take is written as soon as the handshake is over.
func (c *Conn) WriteSYN(r io.Reader, n int, more bool) (int, error) {
	if c.frozen || c.state != StateSynSent || c.owed.synSends > 0 {
		return 0, ErrWouldBlock
	}
	e := &c.odd().early
	done, err := c.sendq.write(r, min(n, e.room))
	e.room -= done
	e.more = more && done < n
	c.user.pushed = c.sendq.end
	return done, err
}

// Early reports whether data may be written and read although the handshake is
// not over: a server's that accepted Fast Open.
func (c *Conn) Early() bool { return c.state == StateSynReceived && c.early.serves }

// maySend reports whether the user may write.
func (c *Conn) maySend() bool { return canSend.has(c.state) || c.Early() }

// takeSYNData takes the data on a SYN that brought a good cookie.
func (c *Conn) takeSYNData(now Time, s *Segment) {
	e := &c.odd().early
	e.serves, e.quiet = true, true
	n := min(s.DataLen(), c.window())
	if n == 0 {
		return
	}
	s.Payload.Truncate(int64(n))
	c.measureMSS(s)
	c.delack.arrived = now
	c.rcv.nxt = c.rcv.nxt.Add(n)
	c.rcv.adv = c.rcv.adv.Add(n) // the SYN-ACK's window counts from what it acknowledges
	c.rcv.base = c.rcv.adv
	c.deliver(s)
	e.taken = true
}

// fillSYN puts into our first SYN what Fast Open adds to it.
func (c *Conn) fillSYN(now Time, out *Segment) {
	out.Options.FastOpen = c.early.option
	if c.early.serves {
		c.snd.una = c.snd.iss.Add(1) // so that what follows counts as data does
	}
	n := seqnum.Size(c.sendq.size())
	if c.state != StateSynSent || n == 0 {
		return
	}
	c.sendq.slice(c.sendq.start, n, &out.Payload)
	c.board.sent(now, c.snd.nxt, uint32(n), uint32(n))
	c.board.recs[len(c.board.recs)-1].flags |= recPushed
	c.snd.nxt = c.snd.nxt.Add(n)
	c.snd.last = now
	c.stats.BytesSent += uint64(n)
}

// ackSYNData takes what a SYN-ACK says of our SYN's data. What it does not
// acknowledge was refused, or lost with the first SYN, and is sent again at once.
// https://www.rfc-editor.org/rfc/rfc7413#section-4.2.2
func (c *Conn) ackSYNData(now Time, s *Segment) {
	if c.board.empty() || c.early.serves {
		return
	}
	var d delivery
	c.stats.BytesAcked += uint64(c.snd.una.Size(s.Ack))
	c.board.ack(s.Ack, &d)
	c.sendq.ack(s.Ack)
	c.snd.una = s.Ack
	c.odd().early.taken = c.board.empty()
	c.board.recut(uint32(c.segmentSize()))
	for i := range c.board.recs {
		c.board.lose(i)
	}
	c.armRetransmit(now)
}

// oweFirstAck owes the acknowledgement of a SYN-ACK; data that is about to be
// written may carry it.
func (c *Conn) oweFirstAck(now Time) {
	if c.early.more && c.board.empty() {
		c.delack = delayedACK{interactive: true, acked: c.delack.acked, arrived: now}
		c.timers.set(timerDelayedACK, now.Add(maxAckDelay))
		return
	}
	c.oweAck()
}

// takeSYNACKData takes data and FIN of a SYN-ACK that answers Fast Open.
// https://www.rfc-editor.org/rfc/rfc9293#section-3.10.7.3 (fourth)
func (c *Conn) takeSYNACKData(now Time, s *Segment) {
	if !c.early.asks {
		return
	}
	s.Flags &^= header.TCPFlagSyn
	s.Seq++
	fin := s.End() - 1
	c.takeText(now, s)
	c.takeFIN(now, s, fin)
}
