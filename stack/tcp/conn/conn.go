package conn

import (
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/seqnum"

	"github.com/tcprepair/ustack/stack/tcp/cc"
)

// Conn is one TCP connection. The zero value is CLOSED and waits for Connect,
// Accept, AcceptCookie or Restore. A Conn must not be copied once it has started.
type Conn struct {
	// predicted is the header of the segment we expect next, or zero; see
	// predict.go. The established fast path tests this and nothing else.
	predicted uint32
	state     State
	frozen    bool // in repair mode
	passive   bool // opened by Accept
	userGone  bool // Close was called: nobody will read or write again
	events    Event
	illegal   [2]State // a transition figure 5 does not have, for check
	err       error

	// What a segment that comes in order touches stands before what sending and
	// its acknowledgements do.

	snd    sendVars
	rcv    receiveVars
	tstamp timestampState
	delack delayedACK
	owed   owed
	user   userState
	cfg    params
	stats  counters
	timers timers
	ecn    ecnState

	recvq recvQueue
	*disorder
	tune tuning

	*oddities

	rtt    rttState
	board  scoreboard
	sendq  sendQueue
	loss   lossState
	cc     cc.Controller
	chrono chrono
}

// sendVars are the send sequence variables of RFC 9293 section 3.3.1 and what
// the handshake agreed on for this direction.
type sendVars struct {
	iss seqnum.Value
	una seqnum.Value // oldest unacknowledged
	nxt seqnum.Value // next to be sent for the first time; never moves back
	wnd seqnum.Size  // the peer's window, scaled, counted from una
	wl1 seqnum.Value // segment sequence number of the last window update

	maxWnd seqnum.Size // the largest window the peer ever offered
	raw    uint16      // the window field that wnd is from, for prediction
	field  uint16      // the window field of the last acknowledgement
	wscale uint8
	mss    uint16       // payload of a full segment, before options
	small  seqnum.Value // end of the last segment sent that was not full (RFC 896)
	last   Time         // when data was last sent
}

// receiveVars are the receive sequence variables of RFC 9293 section 3.3.1.
type receiveVars struct {
	irs seqnum.Value
	nxt seqnum.Value
	adv seqnum.Value // the right-most window edge ever advertised; it never retreats

	base seqnum.Value // the edge before rounding to the window scale

	wscale uint8
	mss    uint16 // the largest payload the peer has sent, an estimate of its segment size
	fin    bool   // the peer's FIN has been received in order
	last   Time   // when a segment of the peer last arrived
}

// params are the parts of Config that a connection keeps.
type params struct {
	*Profile
	advMSS             uint16
	pathMSS            uint16
	scaling, sack, ecn bool // offered; after the handshake: agreed
}

// Connect begins an active open: CLOSED to SYN-SENT. Output yields the SYN.
func (c *Conn) Connect(now Time, cfg *Config) {
	c.init(now, cfg)
	c.setState(StateSynSent)
	c.snd.nxt = cfg.ISS
	c.oweSYN()
}

// Accept begins a passive open with the SYN that a listener received: CLOSED
// to SYN-RECEIVED. Output yields the SYN-ACK. The SYN's payload is released
// unless cfg.Early: data on a SYN is not acknowledged, so the peer sends it again.
func (c *Conn) Accept(now Time, cfg *Config, syn *Segment) {
	c.init(now, cfg)
	c.passive = true
	c.takeSYN(syn)
	c.setState(StateSynReceived)
	c.snd.nxt = cfg.ISS
	c.oweSYN()
	if cfg.Early {
		c.takeSYNData(now, syn)
	}
	syn.Release()
}

// AcceptCookie makes a connection of the ACK that returned a SYN cookie: its
// SYN-ACK left before the Conn was. syn is the SYN as it was reconstructed:
// Seq one less than the ACK's, with the options the cookie carried. cfg.ISS is
// one less than the ACK's acknowledgement number. The caller then gives the
// ACK to Input, which completes the handshake.
func (c *Conn) AcceptCookie(now Time, cfg *Config, syn *Segment) {
	c.init(now, cfg)
	c.passive = true
	c.takeSYN(syn)
	c.setState(StateSynReceived)
	c.snd.nxt = cfg.ISS.Add(1)
}

// init prepares a CLOSED connection for either open.
func (c *Conn) init(now Time, cfg *Config) {
	*c = Conn{state: StateClosed}
	c.beOrdinary()
	mss := orDefault(cfg.MSS, DefaultMSS)
	c.cfg = params{
		Profile: cfg.Share(),
		advMSS:  orDefault(cfg.AdvertisedMSS, mss),
		pathMSS: mss,
		scaling: cfg.WindowScaling,
		sack:    cfg.SACK,
		ecn:     cfg.ECN,
	}
	c.user.pushed = cfg.ISS.Add(1)
	c.snd.iss, c.snd.una, c.snd.small = cfg.ISS, cfg.ISS, cfg.ISS
	c.snd.mss = min(mss, DefaultMSS)
	c.sendq.init(cfg.ISS.Add(1), orDefault(cfg.SndBuf, DefaultBuffer), cfg.SndBufMax)
	c.recvq.bufferSize = sized(orDefault(cfg.RcvBuf, DefaultBuffer), cfg.RcvBufMax)
	c.rcv.wscale = windowScale(max(int(max(c.recvq.max, c.recvq.cap)), cfg.ScaleFor))
	c.rcv.last = now
	c.rcv.mss = DefaultMSS
	c.tstamp = timestampState{on: cfg.Timestamps, offset: cfg.TSOffset}
	c.rtt.init()
	c.delack.init()
	c.loss.init(cfg.ISS)
	if cfg.FastOpen != nil || cfg.SYNData > 0 {
		c.odd().early = earlyData{option: cfg.FastOpen, room: cfg.SYNData, asks: true}
	}
}

// startCongestion begins congestion control once the segment size is agreed.
func (c *Conn) startCongestion() {
	var err error
	if c.cc, err = cc.New(c.cfg.congestion, c.segmentSize()); err != nil {
		c.cc, _ = cc.New(cc.Default, c.segmentSize()) // which is always known
	}
}

// setState moves to another state. But for restoreState it is the only writer of
// the state; an arrow that RFC 9293 figure 5 does not have is a bug, which check reports.
func (c *Conn) setState(to State) {
	if c.state == to {
		return
	}
	if !successors[c.state].has(to) {
		c.illegal = [2]State{c.state, to}
	}
	c.state = to
	switch to {
	case StateEstablished:
		c.events |= EventEstablished | EventWritable
	case StateClosed:
		c.events |= EventClosed | EventReadable | EventWritable
		c.timers.init()
		c.owed.syn, c.owed.probe, c.owed.acks = false, noProbe, 0
	}
	c.predict()
}

// fail ends the connection for a reason the user will see.
func (c *Conn) fail(err error) {
	if c.err == nil {
		c.err = err
		c.events |= EventError
	}
	c.releaseSend()
	c.noDisorder()
	c.setState(StateClosed)
}

// finish ends the connection in good order.
func (c *Conn) finish() {
	c.releaseSend()
	c.noDisorder()
	c.setState(StateClosed)
}

// releaseSend frees what was not delivered.
func (c *Conn) releaseSend() {
	c.sendq.release()
	c.board.reset()
}

// State returns the connection's state.
func (c *Conn) State() State {
	if c.state == 0 {
		return StateClosed
	}
	return c.state
}

// Err returns why the connection ended early, nil if it has not.
func (c *Conn) Err() error { return c.err }

// Events returns what happened since the last call.
func (c *Conn) Events() Event {
	e := c.events
	c.events = 0
	return e
}

// Drops counts refused segments by reason. The array is not to be
// written to.
func (c *Conn) Drops() *[NumDropReasons]uint32 {
	if c.begun(); c.drops == nil {
		return &noDrops
	}
	return c.drops
}

// noDrops is for connections that have refused nothing.
var noDrops [NumDropReasons]uint32

// finSeq is the sequence number our FIN has or will have: after everything
// that was written.
func (c *Conn) finSeq() seqnum.Value { return c.sendq.end }

// FINQueued reports whether our FIN follows, or has followed, what was written.
func (c *Conn) FINQueued() bool { return finQueued.has(c.state) || c.user.finWanted }

// finSent reports whether our FIN has been sent at least once.
func (c *Conn) finSent() bool {
	return finQueued.has(c.state) && c.finSeq().LessThan(c.snd.nxt)
}

// finAcked reports whether the peer has acknowledged our FIN.
func (c *Conn) finAcked() bool {
	return finQueued.has(c.state) && c.finSeq().LessThan(c.snd.una)
}

const flagsFINSYNRST = header.TCPFlagFin | header.TCPFlagSyn | header.TCPFlagRst
