package conn

import (
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/seqnum"
)

// owed is what Output has still to pay for segments that came in.
type owed struct {
	acks    uint8 // pure acknowledgements; without SACK each counts as a duplicate
	syn     bool  // a SYN, or a SYN-ACK if the peer's SYN is known
	probe   probeKind
	refusal bool // the peer's SYN is to be answered as in CLOSED
	reset   bool
	abort   bool // the reset is ours to begin with, not an answer
	look    bool // at whether there is room for a writer now

	synSends uint8 // how often our SYN has been sent
	synSent  Time  // when last
}

// answerLimits are those of RFC 5961 section 7: per connection, so that nothing
// about others can be learnt from it.
type answerLimits struct {
	challenges    uint8
	challengesTil Time // when the present second ends
	outOfWindow   Time // when the last answer to an out-of-window segment was owed
}

// rst is what there is to the header of a RST.
type rst struct {
	seq, ack seqnum.Value
	flags    header.TCPFlags
}

// probeKind is an empty segment below SND.UNA that makes the peer say where it
// stands.
type probeKind uint8

const (
	noProbe        probeKind = iota
	windowProbe              // the peer's window is closed
	thawProbe                // we were thawed
	keepaliveProbe           // the peer has been silent
)

const (
	maxOwedAcks = 8
	// challengeLimit is how many challenge ACKs a connection sends a second.
	// RFC 5961 section 7 suggests ten in five seconds as a figure to configure.
	challengeLimit = 10
	// outOfWindowInterval is the least time between answers to segments that
	// carry no data and lie outside the window, so that two confused peers do
	// not answer each other for ever (Linux tcp_invalid_ratelimit).
	outOfWindowInterval = 500 * time.Millisecond
)

// interval is that time for this connection.
func (p *params) interval() time.Duration {
	return orDefault(p.invalidRateLimit, outOfWindowInterval)
}

// oweAck makes Output send an acknowledgement, alone or with data.
func (c *Conn) oweAck() {
	if c.owed.acks == 0 {
		c.owed.acks = 1
	}
}

// oweDuplicate owes an acknowledgement that must not merge with another: a
// peer without SACK counts them.
func (c *Conn) oweDuplicate() {
	if c.owed.acks == 0 || !c.cfg.sack && c.owed.acks < maxOwedAcks {
		c.owed.acks++
	}
}

// oweChallenge owes a challenge ACK, within the limit.
// https://www.rfc-editor.org/rfc/rfc5961#section-7
func (c *Conn) oweChallenge(now Time) {
	l := &c.odd().limits
	if now >= l.challengesTil {
		l.challengesTil = now.Add(time.Second)
		l.challenges = 0
	}
	if l.challenges < challengeLimit {
		l.challenges++
		c.stats.count().ChallengeACKs++
		c.oweAck()
	}
}

// oweOutOfWindow owes the acknowledgement that a segment outside the window
// draws.
// https://www.rfc-editor.org/rfc/rfc9293#section-3.10.7.4 (first)
func (c *Conn) oweOutOfWindow(now Time, s *Segment) {
	if s.Len() != 0 && c.rcv.nxt.LessThanEq(s.Seq) {
		c.oweBeyond(now, s.Len())
		return
	}
	if s.Len() == 0 {
		l := &c.odd().limits
		if l.outOfWindow != 0 && now < l.outOfWindow.Add(c.cfg.interval()) {
			return
		}
		l.outOfWindow = now
	}
	c.oweDuplicate()
}

// oweBeyond owes the acknowledgement that n sequence numbers beyond the right
// edge draw. A probe of a closed window, which is one octet, wants it at once.
// More was sent before the peer knew of the window; an acknowledgement of that
// may wait, as any of data may: perhaps the user reads, and it has better news.
// https://www.rfc-editor.org/rfc/rfc9293#section-3.8.6.1
func (c *Conn) oweBeyond(now Time, n seqnum.Size) {
	if n > 1 && c.window() == 0 && c.cfg.delayedACK {
		c.delayAck(now)
		return
	}
	c.oweDuplicate()
}

// oweResetFor owes the RST that answers an unacceptable acknowledgement. The
// connection itself stays as it is.
func (c *Conn) oweResetFor(s *Segment) {
	if r, ok := Reset(s); ok {
		c.owed.reset, c.owed.abort = true, false
		c.odd().rst = rst{r.Seq, r.Ack, r.Flags}
	}
}

// oweAbort owes the RST that tells the peer we have given up.
// https://www.rfc-editor.org/rfc/rfc9293#section-3.10.5
func (c *Conn) oweAbort() {
	c.owed.reset, c.owed.abort = true, true
	c.odd().rst = rst{c.snd.nxt, c.rcv.nxt, header.TCPFlagRst | header.TCPFlagAck}
}

// oweSYN owes our SYN, or SYN-ACK, from the start.
func (c *Conn) oweSYN() { c.owed.syn = true }

// probeSeq is a sequence number the peer has already acknowledged, so that a
// probe carrying it is answered and changes nothing.
func (c *Conn) probeSeq() seqnum.Value { return c.snd.una - 1 }
