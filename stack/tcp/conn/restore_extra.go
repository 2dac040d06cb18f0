package conn

import (
	"slices"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/seqnum"

	"github.com/tcprepair/ustack/stack/repair"
	"github.com/tcprepair/ustack/stack/tcp/cc"
)

// The flags of a snapshot's scoreboard are the scoreboard's.
var _ = [1]struct{}{}[recSacked-repair.SegmentSACKed|recLost-repair.SegmentLost|
	recRtx-repair.SegmentRetransmitted|recEver-repair.SegmentEverRetransmitted]

// before is the moment that lies age back. It is never zero, which stands for
// what never happened.
func (t Time) before(age time.Duration) Time {
	return orDefault(t.Add(-min(max(age, 0), maxAge)), -1)
}

// happened is the moment that lies age back, or zero if that never was.
func (t Time) happened(age time.Duration) Time {
	if age < 0 {
		return 0
	}
	return t.before(age)
}

// within returns v if it lies from lo to hi, and otherwise def.
func within(v uint32, lo, hi, def seqnum.Value) seqnum.Value {
	if x := seqnum.Value(v); lo.LessThanEq(x) && x.LessThanEq(hi) {
		return x
	}
	return def
}

// longestRTT bounds a stored round trip.
const longestRTT = 10 * time.Minute

func boundRTT(d time.Duration) time.Duration { return min(max(d, 0), longestRTT) }

// restoreExtra sets what only a TCP like this one can have told.
func (c *Conn) restoreExtra(now Time, x *repair.Extra) {
	if c.state.Synchronized() {
		c.snd.iss = seqnum.Value(x.ISS)
	}
	if c.state != StateSynSent {
		c.rcv.irs = seqnum.Value(x.IRS)
	}
	c.passive, c.userGone, c.user.readShut = x.Passive, x.Orphan, x.ReadShut
	if c.userGone {
		c.recvq.release()
	}
	if c.tstamp.on {
		c.tstamp.recent, c.tstamp.since = x.TSRecent, now.before(x.TSRecentAge)
	}
	c.cfg.ecn = x.ECN.Agreed
	c.ecn = ecnState{echo: c.cfg.ecn && x.ECN.Echo, cwr: c.cfg.ecn && x.ECN.CWR}
	c.restoreSocket(&x.Socket)
	if x.PathMSS != 0 {
		c.cfg.pathMSS = min(c.cfg.pathMSS, max(x.PathMSS, minMSS))
	}
	c.restoreMSS(c.snd.mss)
	c.rtt = rttState{
		smoothed: boundRTT(x.RTT.Smoothed),
		variance: boundRTT(x.RTT.Variance),
		min:      boundRTT(x.RTT.Min),
		recent:   boundRTT(x.RTT.Min),
		turn:     now.Add(minRTTWindow / 2),
		latest:   boundRTT(x.RTT.Latest),
		backoff:  min(x.RTT.Backoff, 32),
	}
	c.restoreRecords(x.Records)
	c.restoreHeld(x)
	c.owed.synSends = x.SYNSends
	c.restoreFastOpen(&x.FastOpen)
	var k Counters
	for i, at := range k.list() {
		if i < len(x.Counters) {
			*at = x.Counters[i]
		}
	}
	c.stats.restore(&k)
}

// restoreFastOpen takes what matters of Fast Open until the handshake is over. A
// cookie that has not left yet is not worth it.
func (c *Conn) restoreFastOpen(f *repair.FastOpen) {
	if *f == (repair.FastOpen{}) {
		return
	}
	e := &c.odd().early
	e.taken = f.Taken
	if c.state.Synchronized() {
		return
	}
	e.asks, e.more = f.Asks, f.More
	e.serves = f.Serves && c.state == StateSynReceived && c.owed.synSends > 0
	e.quiet = f.Quiet && e.serves
	if e.serves {
		c.snd.una = c.snd.iss.Add(1) // as when the SYN-ACK left
	}
}

// restoreSocket takes the user's settings. A buffer's size is what the user or
// auto-tuning made of it, within what this host allows.
func (c *Conn) restoreSocket(o *repair.SocketOptions) {
	u := c.cfg.opts
	u.Keepalive = Keepalive{
		On:       o.Keepalive,
		Idle:     min(o.KeepaliveIdle, maxAge),
		Interval: min(o.KeepaliveInterval, maxAge),
		Count:    o.KeepaliveCount,
	}.normal()
	u.UserTimeout = min(max(o.UserTimeout, 0), maxAge)
	u.MaxSegment = o.MaxSegment
	if o.MaxSegment != 0 {
		u.MaxSegment = max(o.MaxSegment, minMSS)
	}
	u.Clamp = min(max(o.WindowClamp, 0), maxRun)
	u.Pacing = o.Pacing
	u.NotSentLowat = min(max(o.NotSentLowat, 0), maxRun)
	c.setOptions(&u)
	c.sendq.restore(o.SendBuffer, o.SendBufferMax)
	c.recvq.restore(o.RecvBuffer, o.RecvBufferMax)
}

// restoreRecords takes the ends of records that lie within the send queue.
func (c *Conn) restoreRecords(ends []uint32) {
	at := c.sendq.start
	for _, v := range ends {
		if end := seqnum.Value(v); at.LessThan(end) && end.LessThanEq(c.sendq.end) {
			c.sendq.broken().records = append(c.sendq.records, end)
			at = end
		}
	}
}

// restoreHeld takes the data that came before its turn.
func (c *Conn) restoreHeld(x *repair.Extra) {
	if len(x.Held) == 0 && x.EarlyFIN == nil {
		return // then there are no blocks either
	}
	c.disordered()
	defer c.tidy()
	for i := range x.Held {
		p := span{seq: seqnum.Value(x.Held[i].Seq)}
		for _, piece := range x.Held[i].Data {
			eachChunk(piece, func(b *buffer.Buffer) {
				c.reasm.mem.keep(b, int(c.recvq.max))
				p.data.Merge(b)
			})
		}
		c.reasm.spans = append(c.reasm.spans, p)
	}
	if x.EarlyFIN != nil {
		c.reasm.setFIN(seqnum.Value(*x.EarlyFIN))
	}
	if !c.cfg.sack || c.reasm.empty() {
		return
	}
	for _, b := range slices.Backward(x.Blocks[:min(len(x.Blocks), maxSACKBlocks)]) {
		if start, end := seqnum.Value(b.Start), seqnum.Value(b.End); c.holds(start, end) {
			c.sacks.add(start, end)
		}
	}
	c.sacks.advance(c.rcv.nxt, &c.reasm)
}

// holds reports whether the bytes from start to end are held, all of one span.
func (c *Conn) holds(start, end seqnum.Value) bool {
	for i := range c.reasm.spans {
		p := &c.reasm.spans[i]
		if p.seq.LessThanEq(start) && start.LessThan(end) && end.LessThanEq(p.end()) {
			return true
		}
	}
	return false
}

// restoreCongestion goes on where the controller left off. One that this host
// does not know gives its window to the one that it uses.
func (c *Conn) restoreCongestion(now Time, g *repair.Congestion) {
	if g.Name != "" && g.Name != orDefault(c.cfg.congestion, cc.Default) {
		c.change().congestion = g.Name
	}
	if c.state == StateSynSent {
		return // it begins when the segment size is agreed
	}
	st := cc.State{Name: c.cfg.congestion, Window: max(g.Window, 0), Threshold: max(g.Threshold, 0), Extra: g.State}
	ctl, err := cc.Restore(st, int64(now), c.segmentSize())
	if err != nil {
		st.Name, st.Extra = cc.Default, nil
		ctl, _ = cc.Restore(st, int64(now), c.segmentSize()) // which is always known
		c.change().congestion = cc.Default
	}
	c.cc = ctl
}

// restoreSent fills the scoreboard. Without records what was sent counts as
// sent now, and as repeated, so that no round-trip sample comes of it.
func (c *Conn) restoreSent(now Time, sent []repair.SentSegment) {
	b := &c.board
	if len(sent) == 0 {
		from := c.snd.una
		if from == c.snd.iss && !c.state.Synchronized() {
			from++ // our SYN is not on the scoreboard
		}
		if c.state.Synchronized() || from.LessThan(c.snd.nxt) {
			c.countAsSent(now, from, c.snd.nxt)
		}
		return
	}
	b.scan = seqnum.Value(sent[0].Seq)
	b.recs = slices.Grow(b.recs, len(sent))
	for _, s := range sent {
		b.restore(record{seq: seqnum.Value(s.Seq), size: s.Len, flags: recordFlags(s.Flags), sent: now.before(s.Age)})
	}
	slices.SortStableFunc(b.rtxq, func(x, y rtx) int {
		switch {
		case x.sent < y.sent:
			return -1
		case x.sent > y.sent:
			return 1
		}
		return 0
	})
}

// restore appends a record with whatever is known of it.
func (b *scoreboard) restore(r record) {
	b.recs = append(b.recs, r)
	if r.flags != 0 {
		b.dig()
	}
	switch {
	case r.is(recSacked):
		b.sacked.add(&r)
		b.high = r.end()
	case r.is(recRtx):
		b.lostOut.add(&r)
		b.rtxOut.add(&r)
		b.rtxq = append(b.rtxq, rtx{r.seq, r.sent})
	case r.is(recLost):
		b.lostOut.add(&r)
		b.lost = append(b.lost, r.seq)
	case r.is(recEver):
		b.rtxq = append(b.rtxq, rtx{r.seq, r.sent})
	}
}

// restoreLoss sets how far loss recovery is. Its phase does not outlive the
// flight that it is about.
func (c *Conn) restoreLoss(now Time, x *repair.Extra) {
	l, r, g := &c.loss, &x.Recovery, &x.Congestion
	una, nxt := c.snd.una, c.snd.nxt
	l.retries = uint32(min(max(g.Retries, 0), 255))
	l.stalled = now.before(r.Stalled)
	l.round = within(r.Round, una, nxt, una)
	l.usage = windowUsage{limited: r.Limited, most: uint32(min(max(r.MostInFlight, 0), maxRun)), until: within(r.LimitedUntil, una, nxt, una)}
	l.rack.reordered, l.rack.steps, l.rack.persist = r.Reordered, max(r.Steps, 1), r.Persist
	if r.Seen {
		l.rack.rtt = boundRTT(r.SeenRTT)
		l.rack.last = moment{at: now.before(r.SeenAge), end: within(r.SeenEnd, una-maxRun, nxt, una)}
	}
	if c.board.empty() {
		return
	}
	l.phase = phase(g.Phase)
	l.point, l.held = within(g.Point, una, nxt, nxt), l.phase >= phaseRecovery
	head := &c.board.recs[0]
	l.insist = l.held && (c.classic() || l.phase == phaseLoss) && head.is(recLost) && !head.is(recRtx)
	if !c.cfg.sack {
		l.dupAcks = min(g.DupACKs, uint32(len(c.board.recs)))
	}
	most := func(n int64) int64 { return min(max(n, 0), maxRun) }
	again := l.reduced()
	again.prr = prrState{
		threshold: most(r.Threshold),
		before:    max(most(r.Before), 1),
		delivered: most(r.Delivered),
		out:       most(r.Sent),
		window:    most(r.Window),
		first:     most(r.First),
	}
	again.undo = undoState{
		armed:  r.Undo,
		from:   within(r.UndoFrom, una-maxRun, nxt, una),
		count:  min(max(r.UndoCount, 0), maxRun),
		resent: r.UndoResent,
		first:  r.UndoTimestamp,
	}
	l.frto = r.Doubtful && l.phase == phaseLoss
	if r.Probing || r.ProbeDue {
		l.tail = tailLoss{active: r.Probing, again: r.ProbeRepeated, due: r.ProbeDue, end: within(r.ProbeEnd, una, nxt, nxt)}
	}
}

// restoreActivity sets when things last happened.
func (c *Conn) restoreActivity(now Time, a *repair.Activity) {
	c.snd.last = now.happened(a.DataSent)
	c.delack.arrived = now.happened(a.DataReceived)
	c.rcv.last = now.before(a.Received)
	c.snd.small = within(a.SmallEnd, c.snd.una-1, c.snd.nxt, c.snd.una)
	c.rcv.mss = min(orDefault(a.RecvMSS, DefaultMSS), max(c.cfg.advMSS, DefaultMSS))
	c.delack.quick, c.delack.interactive = min(a.QuickACKs, quickAcks), a.Interactive
	if c.state != StateSynSent {
		c.owed.acks = min(a.OwedACKs, maxOwedAcks)
	}
	c.user.keepalives = a.Probes
	if a.Probes > 0 {
		c.user.probed = now // the probes were the last that happened
	}
	c.tune.rtt = boundRTT(a.RecvRTT)
	c.tune.copied, c.tune.most = uint32(min(max(a.Taken, 0), maxRun)), uint32(min(max(a.MostTaken, 0), maxRun))
	c.tune.begun = now.happened(a.TakenSince)
	c.chrono.opened = now.happened(a.Opened)
	c.spend(busy, max(a.Busy, 0))
	c.spend(windowLimited, max(a.WindowLimited, 0))
	c.spend(bufferLimited, max(a.BufferLimited, 0))
	if a.More {
		c.user.more, c.user.moreAt = true, c.snd.una
	}
}
