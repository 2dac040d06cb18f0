package conn

import (
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/seqnum"
)

// Output fills out with the next segment to send, up to Config.GSOMax bytes of
// payload, and reports whether there is one. The payload belongs to the
// caller. Call it until it reports false, or until the link has no more room.
//
// A retransmission goes before new data, data before an empty probe, and an
// acknowledgement goes alone only if nothing else carries it.
func (c *Conn) Output(now Time, out *Segment) bool {
	if c.frozen || c.state == 0 {
		return false
	}
	*out = Segment{}
	if !c.output(now, out) {
		c.clockActivity(now)
		c.wakeWriter()
		return false
	}
	c.stats.SegsOut++
	return true
}

func (c *Conn) output(now Time, out *Segment) bool {
	if c.owed.refusal {
		c.owed.refusal = false
		*out, _ = Reset(&Segment{Seq: c.rcv.irs, Flags: header.TCPFlagSyn})
		return true
	}
	if c.owed.reset {
		c.owed.reset = false
		out.Seq, out.Ack, out.Flags = c.rst.seq, c.rst.ack, c.rst.flags
		if c.owed.abort {
			c.options(now, &out.Options)
		}
		return true
	}
	if c.owed.syn && !c.state.Synchronized() {
		return c.outputSYN(now, out)
	}
	early := c.Early() && c.owed.synSends > 0
	if c.state == StateSynReceived && !early && c.owed.acks > 0 && c.snd.nxt != c.snd.iss {
		c.outputEmpty(now, out, c.snd.nxt)
		return true
	}
	if !c.state.Synchronized() && !early {
		return false
	}
	if c.owed.acks > 1 {
		left := c.owed.acks - 1
		c.outputEmpty(now, out, c.snd.nxt)
		c.owed.acks = left
		return true
	}
	if c.prefersNew() && c.outputNew(now, out) {
		return true
	}
	if c.outputLost(now, out) || c.outputNew(now, out) || c.outputProbe(now, out) {
		return true
	}
	if c.loss.tail.due && !c.board.empty() {
		// The probe was to be new data, and that is held back.
		c.repeatLast(now, out)
		return true
	}
	if c.owed.acks > 0 {
		c.outputEmpty(now, out, c.snd.nxt)
		return true
	}
	return false
}

// outputSYN sends our SYN, or SYN-ACK once the peer's SYN is known.
func (c *Conn) outputSYN(now Time, out *Segment) bool {
	c.owed.syn = false
	out.Seq = c.snd.iss
	out.Flags = header.TCPFlagSyn
	if c.state == StateSynReceived {
		out.Flags |= header.TCPFlagAck
		out.Ack = c.rcv.nxt
		c.delack.acked = c.rcv.nxt
		if c.cfg.ecn {
			out.Flags |= header.TCPFlagEce
		}
	} else if c.cfg.ecn && c.owed.synSends == 0 {
		// Only the first asks: it may be why there was no answer.
		// https://www.rfc-editor.org/rfc/rfc3168#section-6.1.1.1
		out.Flags |= header.TCPFlagEce | header.TCPFlagCwr
	}
	// https://www.rfc-editor.org/rfc/rfc7323#section-2.2 : the window of a SYN
	// is not scaled.
	out.Window = uint16(min(c.recvq.limit(), c.clamp(), maxUnscaledWindow))
	out.Options = Options{
		MSS:           c.advertisedMSS(),
		HasWScale:     c.cfg.scaling,
		WScale:        c.rcv.wscale,
		SACKPermitted: c.cfg.sack,
		HasTS:         c.tstamp.on,
	}
	if c.tstamp.on {
		out.Options.TSVal = c.tstamp.value(now)
		out.Options.TSEcr = c.tstamp.recent
	}
	if c.snd.nxt == c.snd.iss {
		c.snd.nxt = c.snd.iss.Add(1)
		c.loss.stalled = now
	}
	if c.owed.synSends == 0 {
		c.fillSYN(now, out)
	}
	if c.owed.synSends < 255 {
		c.owed.synSends++
	}
	c.owed.synSent = now
	c.timers.set(timerRTO, now.Add(min(InitialRTO<<min(c.loss.retries, 16), c.cfg.maxRTO)))
	return true
}

// advertisedMSS is what our SYN asks the peer to send at most.
func (c *Conn) advertisedMSS() uint16 {
	return min(c.cfg.advMSS, orDefault(c.cfg.opts.MaxSegment, c.cfg.advMSS))
}

// head fills in what every segment of a synchronized connection carries.
func (c *Conn) head(now Time, out *Segment, seq seqnum.Value) {
	out.Seq = seq
	out.Ack = c.rcv.nxt
	out.Flags |= header.TCPFlagAck
	out.Window = c.advertise()
	if c.early.quiet {
		c.early.quiet = false
	}
	if out.Window == 0 {
		c.stats.count().ZeroWindows++
	}
	c.options(now, &out.Options)
	if c.ecn.echo {
		out.Flags |= header.TCPFlagEce
	}
}

// options fills in the options of a segment that is not a SYN.
func (c *Conn) options(now Time, o *Options) {
	if c.tstamp.on {
		o.HasTS = true
		o.TSVal = c.tstamp.value(now)
		o.TSEcr = c.tstamp.recent
	}
	if c.reportsSACK() {
		c.sacks.fill(o)
		c.reasm.fillFIN(o)
		c.tidy()
	}
}

// outputEmpty sends a segment without data.
func (c *Conn) outputEmpty(now Time, out *Segment, seq seqnum.Value) {
	c.head(now, out, seq)
	c.acknowledged(now, false)
}

// segmentSize is the payload of a full segment with the options that every
// segment carries. https://www.rfc-editor.org/rfc/rfc6691#section-2
func (c *Conn) segmentSize() int {
	n := int(c.snd.mss)
	switch {
	case c.setsRoomAside():
		n -= MaxOptionsLen
	case c.tstamp.on:
		n -= 12
	}
	return max(n, 1)
}

// setsRoomAside reports whether every segment leaves room for all options.
func (c *Conn) setsRoomAside() bool {
	return c.cfg.sack && c.snd.mss < tinyMSS && c.snd.mss > MaxOptionsLen
}

// tinyMSS is a segment so small that SACK blocks would take most of it. Below
// it room for all options is set aside in every segment, so that segments are
// of one size whether or not something is to be SACKed.
const tinyMSS = 128

// hasUnsent reports whether there are data or a FIN that were never sent.
func (c *Conn) hasUnsent() bool {
	return c.snd.nxt.LessThan(c.sendq.end) || c.finPending()
}

// finPending reports whether a FIN waits to be sent for the first time.
func (c *Conn) finPending() bool {
	return finQueued.has(c.state) && c.snd.nxt.LessThanEq(c.finSeq())
}

// usableWindow is how much the peer's window lets us send now.
func (c *Conn) usableWindow() seqnum.Size {
	edge := c.snd.una.Add(c.snd.wnd)
	if edge.LessThanEq(c.snd.nxt) {
		return 0
	}
	return c.snd.nxt.Size(edge)
}

// outputNew sends data for the first time, and the FIN behind it.
func (c *Conn) outputNew(now Time, out *Segment) bool {
	if !c.hasUnsent() {
		return false
	}
	c.restartIdle(now)
	probe := c.loss.tail.due
	n, fin := c.mayCarry(now, probe)
	if n == 0 && !fin {
		c.armCork(now)
		c.armPersist(now)
		return false
	}
	if !probe {
		most := c.mayPace(now, n, seqnum.Size(c.segmentSize()))
		if most == 0 && n > 0 {
			return false
		}
		n, fin = most, fin && most == n
	}
	c.head(now, out, c.snd.nxt)
	c.fillData(out, c.snd.nxt, n, fin)
	pushed := c.push(out, n)
	c.markECN(out, true)
	c.sentNew(now, n, fin, pushed)
	if probe {
		c.probed(false)
	}
	return true
}

// mayCarry decides how much new data may go into a segment now, and whether
// the FIN goes with it. probe is a tail loss probe, which the congestion
// window does not hold back.
func (c *Conn) mayCarry(now Time, probe bool) (n seqnum.Size, fin bool) {
	var (
		size   = seqnum.Size(max(c.segmentSize()-int(c.sackRoom()), 1))
		unsent = c.unsent()
		piece  = c.sendq.toBurstEnd(c.snd.nxt, c.sendq.toRecordEnd(c.snd.nxt, unsent))
		usable = c.usableWindow()
		room   = c.cwnd() - c.flight()
		last   = piece == unsent // of what there is to send
	)
	if c.cfg.likeLinux && last && c.finPending() && piece <= size {
		room = max(room, int64(size)) // the congestion window does not hold back the end
		probe = true
	}
	if probe {
		room = max(room, int64(size))
	}
	if c.flight() > 0 && (room < int64(min(size, max(piece, 1))) || c.packetsFull(int(size))) && !probe || room <= 0 {
		c.loss.usage.note(c.snd.una, c.snd.nxt, c.flight(), true)
		return 0, false
	}
	most := size
	if c.cfg.gsoMax >= 2*int(size) && c.sackRoom() == 0 {
		most = c.maxBurst(size)
	}
	n = min(piece, usable, most, seqnum.Size(max(room, int64(size))))
	if n > size && n%size != 0 && (n < piece || last && !c.finPending() && c.holdSmall()) {
		n -= n % size // the tail waits, like any small segment
	}
	if n < size && !(probe && n > 0) && !c.maySendSmall(n, piece, last) {
		return 0, false
	}
	// A FIN behind no data goes even into a closed window: what keeps a peer
	// from reading need not keep it from knowing.
	fin = n == unsent && c.finPending() && (n < usable || n == 0)
	return n, fin
}

// packetsFull reports whether as many packets are in flight as the congestion
// window has segments: small ones are not for free (Linux counts only packets).
func (c *Conn) packetsFull(size int) bool {
	if c.loss.phase == phaseCWR || c.loss.phase == phaseRecovery {
		return false // the window is what is in flight and a little more, in bytes
	}
	return c.packetsOut() >= max(c.cwnd()/int64(max(size, 1)), 1)
}

// unsent is how many bytes were written and never sent.
func (c *Conn) unsent() seqnum.Size {
	if c.sendq.end.LessThan(c.snd.nxt) {
		return 0 // our FIN is out
	}
	return c.snd.nxt.Size(c.sendq.end)
}

// sackRoom is what SACK blocks will take from a segment's payload.
func (c *Conn) sackRoom() seqnum.Size {
	if !c.reportsSACK() || c.setsRoomAside() {
		return 0
	}
	var o Options
	o.HasTS = c.tstamp.on
	g := c.sacks
	g.fill(&o)
	c.reasm.fillFIN(&o)
	return seqnum.Size(4 + 8*int(o.NumSACK))
}

// fillData puts n bytes from seq on into out, and the FIN.
func (c *Conn) fillData(out *Segment, seq seqnum.Value, n seqnum.Size, fin bool) {
	if n > 0 {
		c.sendq.slice(seq, n, &out.Payload)
		if size := c.segmentSize(); int(n) > size {
			out.GSOSize = uint16(size)
		}
	}
	if fin {
		out.Flags |= header.TCPFlagFin
	}
}

// sentNew moves SND.NXT over what was just sent.
func (c *Conn) sentNew(now Time, n seqnum.Size, fin, pushed bool) {
	size := uint32(c.segmentSize())
	if c.board.empty() {
		c.loss.stalled = now
	}
	c.board.sent(now, c.snd.nxt, uint32(n), size)
	if pushed {
		c.board.recs[len(c.board.recs)-1].flags |= recPushed
	}
	c.snd.nxt = c.snd.nxt.Add(n)
	if n > 0 && uint32(n)%size != 0 {
		c.snd.small = c.snd.nxt
	}
	if fin {
		c.board.sent(now, c.snd.nxt, 1, 1)
		c.snd.nxt++
	}
	c.snd.last = now
	c.stats.BytesSent += uint64(n)
	c.user.uncork, c.user.force = false, false
	c.timers.stop(timerCork)
	c.armCork(now)
	c.acknowledged(now, n > 0)
	c.loss.sent(int64(n))
	c.paced(now, int64(n))
	c.loss.usage.note(c.snd.una, c.snd.nxt, c.flight(), false)
	if !c.timers.running(timerRTO) || c.timers.running(timerTailLoss) {
		c.armRetransmit(now)
	}
	c.timers.stop(timerPersist)
}

// restartIdle lets the congestion window decay if nothing was sent for longer
// than the retransmission timeout.
// https://www.rfc-editor.org/rfc/rfc5681#section-4.1
func (c *Conn) restartIdle(now Time) {
	if !c.board.empty() || c.snd.last == 0 || c.cfg.noIdleRestart {
		return
	}
	rto := c.rtt.timeout(&c.cfg)
	if idle := now.Sub(c.snd.last); idle > rto {
		c.cc.OnIdle(int64(now), idle, rto, c.segmentSize())
		c.snd.last = now
	}
}

// outputLost retransmits what was found lost, as the congestion window allows,
// or the last segment as a tail loss probe.
func (c *Conn) outputLost(now Time, out *Segment) bool {
	if c.board.lostOut.segs > 0 {
		if r := c.board.nextLost(); r != nil && c.mayRetransmit(r) {
			if c.mayPace(now, 1, 1) == 0 {
				return false
			}
			c.retransmit(now, out, r)
			return true
		}
	}
	if c.loss.tail.due && !(c.hasUnsent() && c.usableWindow() > 0) && !c.board.empty() {
		c.repeatLast(now, out)
		return true
	}
	return false
}

// repeatLast sends the last segment again, as a tail loss probe.
func (c *Conn) repeatLast(now Time, out *Segment) {
	c.retransmit(now, out, &c.board.recs[len(c.board.recs)-1])
	c.probed(true)
}

// retransmit sends a record again.
func (c *Conn) retransmit(now Time, out *Segment, r *record) {
	seq, size := r.seq, r.size
	fin := c.finSent() && r.end() == c.finSeq().Add(1)
	c.head(now, out, seq)
	n := seqnum.Size(size)
	if fin {
		n--
	}
	c.fillData(out, seq, n, fin)
	if end := seq.Add(n); r.is(recPushed) || n > 0 && (end == c.user.pushed || c.sendq.endsRecord(end)) {
		out.Flags |= header.TCPFlagPsh
	}
	for out.Options.NumSACK > 0 && int(n)+out.Options.Len() > int(c.snd.mss) {
		out.Options.NumSACK-- // the data fills the packet
	}
	c.markECN(out, false)
	c.board.resent(now, r)
	c.loss.insist = c.loss.insist && seq != c.snd.una
	again := c.loss.reduced()
	again.undo.sent(c.tstamp.value(now))
	again.resentTS = again.undo.first
	again.prr.out += int64(size)
	c.paced(now, int64(size))
	c.stats.BytesSent += uint64(n)
	c.stats.count().BytesRetransmitted += uint64(n)
	c.snd.last = now // nobody idles who repeats (RFC 5681 section 4.1)
	c.countRetransmit()
	c.acknowledged(now, n > 0)
	if !c.timers.running(timerRTO) {
		c.timers.set(timerRTO, c.timeoutAt(now))
	}
}
