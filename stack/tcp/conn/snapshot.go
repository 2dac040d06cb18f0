package conn

import (
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/seqnum"

	"github.com/tcprepair/ustack/stack/repair"
)

// Record is a Snapshot with everything of a fixed size that it refers to, so
// that an idle connection takes no other allocation, and with NewRecord none.
type Record struct {
	snap     repair.Snapshot
	extra    repair.Extra
	counters [numCounters]uint64
	timers   [numTimers]repair.Timer
	held     []buffer.Buffer // what the queues refer to, until Release
	released func()
}

// NewRecord returns a Record that is given to again when its Snapshot is
// released, and then may be used for another.
func NewRecord(again func(*Record)) *Record {
	r := new(Record)
	r.released = func() {
		r.release()
		again(r)
	}
	return r
}

// release makes the record an empty one.
func (r *Record) release() {
	for i := range r.held {
		r.held[i].Release()
	}
	clear(r.held)
	r.held = r.held[:0]
	r.extra = repair.Extra{}
}

// Snapshot reads a frozen connection out: everything but its addresses, which
// the caller fills in. The queues refer to the connection's memory, which stays
// as it is whatever becomes of the connection. Outside repair mode the error is
// repair.ErrPermission; without a connection, or with a SYN that carries data and has not left yet, it
// is repair.ErrState. r is where the Snapshot is; nil makes one.
func (c *Conn) Snapshot(now Time, r *Record) (*repair.Snapshot, error) {
	switch {
	case c.State() == StateClosed || c.state == StateListen:
		return nil, repair.ErrState
	case !c.frozen:
		return nil, repair.ErrPermission
	case !c.state.Synchronized() && c.owed.synSends == 0 && (c.early.serves || c.sendq.size() > 0):
		return nil, repair.ErrState // our SYN is about to leave, with data (RFC 7413)
	}
	if r == nil {
		r = new(Record)
	}
	r.snap.Extra = &r.extra
	c.readCore(now, r)
	c.readExtra(now, r)
	c.readRecovery(&r.extra.Recovery)
	c.readActivity(&r.extra.Activity)
	c.readTimers(r)
	switch {
	case r.released != nil:
		r.snap.OnRelease(r.released)
	case len(r.held) > 0:
		r.snap.OnRelease(r.release)
	}
	return &r.snap, nil
}

// refer returns the bytes of b, which stay alive with the snapshot.
func (r *Record) refer(b *buffer.Buffer) (p repair.Bytes) {
	if b.Size() == 0 {
		return nil
	}
	clone := b.Clone()
	list := clone.AsViewList()
	for v := list.Front(); v != nil; v = v.Next() {
		p = append(p, v.AsSlice())
	}
	r.held = append(r.held, clone)
	return p
}

func (c *Conn) readCore(now Time, r *Record) {
	var queued buffer.Buffer
	c.sendq.slice(c.sendq.start, seqnum.Size(c.sendq.size()), &queued)
	s := &r.snap
	s.Core = repair.Core{
		State:     c.state,
		SendSeq:   uint32(c.sendq.start),
		SendQueue: r.refer(&queued),
		RecvSeq:   uint32(c.rcv.nxt),
		RecvQueue: r.refer(&c.recvq.data),

		FINQueued:   c.FINQueued(),
		FINSent:     c.finSent(),
		FINAcked:    c.finAcked(),
		FINReceived: c.rcv.fin,

		Options: c.RepairOptions(),
		Window:  c.Window(),

		Timestamp:       c.tstamp.value(now),
		TimestampMicros: c.tstamp.micros,
		NoDelay:         c.cfg.opts.NoDelay,
		Cork:            c.cfg.opts.Cork,
	}
	if queued.Size() > 0 {
		queued.Release()
	}
	if c.state.Synchronized() || c.owed.synSends > 0 {
		s.Unsent = int(c.unsent())
	}
	if c.rcv.fin {
		s.RecvSeq--
	}
}

// Window is what Linux's TCP_REPAIR_WINDOW reports.
func (c *Conn) Window() repair.Window {
	w := repair.Window{
		SndWl1:    uint32(c.snd.wl1),
		SndWnd:    uint32(c.snd.wnd),
		MaxWindow: uint32(c.snd.maxWnd),
		RcvWup:    uint32(c.delack.acked),
	}
	if c.delack.acked.LessThan(c.rcv.adv) {
		w.RcvWnd = uint32(c.delack.acked.Size(c.rcv.adv))
	}
	return w
}

func (c *Conn) readExtra(now Time, s *Record) {
	x := &s.extra
	x.ISS, x.IRS = uint32(c.snd.iss), uint32(c.rcv.irs)
	x.Congestion = repair.Congestion{
		Name:    c.cfg.congestion,
		Phase:   uint8(c.loss.phase),
		Point:   uint32(c.loss.point),
		DupACKs: c.loss.dupAcks,
		Retries: int(c.loss.retries),
	}
	if c.cc != nil {
		st := c.cc.State()
		x.Congestion.Name, x.Congestion.Window, x.Congestion.Threshold, x.Congestion.State = st.Name, st.Window, st.Threshold, st.Extra
	}
	x.RTT = repair.RTT{
		Smoothed: c.rtt.smoothed,
		Variance: c.rtt.variance,
		Min:      c.rtt.min,
		Backoff:  c.rtt.backoff,
		Latest:   c.rtt.latest,
	}
	if n := len(c.board.recs); n > 0 {
		x.Sent = make([]repair.SentSegment, n)
		for i := range c.board.recs {
			r := &c.board.recs[i]
			x.Sent[i] = repair.SentSegment{Seq: uint32(r.seq), Len: r.size, Flags: uint8(r.flags &^ recPushed), Age: c.frozenAt.Sub(r.sent)}
		}
	}
	for i := range c.reasm.spans {
		p := &c.reasm.spans[i]
		x.Held = append(x.Held, repair.Span{Seq: uint32(p.seq), Data: s.refer(&p.data)})
	}
	if c.reasm.hasFIN && c.heldEnd().LessThanEq(c.reasm.fin) {
		fin := uint32(c.reasm.fin)
		x.EarlyFIN = &fin
	}
	for _, b := range c.sacks.recent {
		x.Blocks = append(x.Blocks, repair.Range{Start: uint32(b.Start), End: uint32(b.End)})
	}
	x.TSRecent = c.tstamp.recent
	if c.tstamp.on {
		x.TSRecentAge = now.Sub(c.tstamp.since)
	}
	for _, at := range c.sendq.records {
		x.Records = append(x.Records, uint32(at))
	}
	x.Advertised = uint32(c.rcv.adv)
	x.ECN = repair.ECN{Agreed: c.cfg.ecn, Echo: c.ecn.echo, CWR: c.ecn.cwr}
	x.PathMSS = c.cfg.pathMSS
	x.Socket = c.readSocket()
	x.SYNSends = c.owed.synSends
	e := &c.early
	x.FastOpen = repair.FastOpen{Serves: e.serves, Asks: e.asks, More: e.more, Quiet: e.quiet, Taken: e.taken}
	x.Passive, x.Orphan, x.ReadShut = c.passive, c.userGone, c.user.readShut
	k := c.Counters()
	for i, n := range k.list() {
		s.counters[i] = *n
	}
	x.Counters = s.counters[:]
}

// readSocket reads the user's settings, as far as they are the connection's.
func (c *Conn) readSocket() repair.SocketOptions {
	o := &c.cfg.opts
	return repair.SocketOptions{
		Keepalive:         o.Keepalive.On,
		KeepaliveIdle:     o.Keepalive.Idle,
		KeepaliveInterval: o.Keepalive.Interval,
		KeepaliveCount:    o.Keepalive.Count,
		UserTimeout:       o.UserTimeout,
		SendBuffer:        int(c.sendq.max),
		SendBufferMax:     int(c.sendq.cap),
		RecvBuffer:        int(c.recvq.max),
		RecvBufferMax:     int(c.recvq.cap),
		MaxSegment:        o.MaxSegment,
		WindowClamp:       o.Clamp,
		NotSentLowat:      o.NotSentLowat,
		Pacing:            o.Pacing,
	}
}

func (c *Conn) readRecovery(r *repair.Recovery) {
	l := &c.loss
	*r = repair.Recovery{
		Threshold: l.prr.threshold,
		Before:    l.prr.before,
		Delivered: l.prr.delivered,
		Sent:      l.prr.out,
		Window:    l.prr.window,
		First:     l.prr.first,

		Seen:      l.rack.last.valid(),
		Reordered: l.rack.reordered,
		Steps:     l.rack.steps,
		Persist:   l.rack.persist,

		Undo:          l.undo.armed,
		UndoFrom:      uint32(l.undo.from),
		UndoCount:     l.undo.count,
		UndoResent:    l.undo.resent,
		UndoTimestamp: l.undo.first,
		Doubtful:      l.frto,

		ProbeDue:      l.tail.due,
		Probing:       l.tail.active,
		ProbeRepeated: l.tail.again,
		ProbeEnd:      uint32(l.tail.end),

		Round:        uint32(l.round),
		Limited:      l.usage.limited,
		MostInFlight: int64(l.usage.most),
		LimitedUntil: uint32(l.usage.until),
	}
	if r.Seen {
		r.SeenEnd, r.SeenAge, r.SeenRTT = uint32(l.rack.last.end), c.frozenAt.Sub(l.rack.last.at), l.rack.rtt
	}
	if !c.board.empty() || l.retries > 0 {
		r.Stalled = c.frozenAt.Sub(l.stalled)
	}
}

// never is the age of what never happened.
const never time.Duration = -1

func (c *Conn) readActivity(a *repair.Activity) {
	ago := func(at Time) time.Duration {
		if at == 0 {
			return never
		}
		return max(c.frozenAt.Sub(at), 0)
	}
	*a = repair.Activity{
		DataSent:      ago(c.snd.last),
		DataReceived:  ago(c.delack.arrived),
		Received:      ago(c.rcv.last),
		SmallEnd:      uint32(c.snd.small),
		RecvMSS:       c.rcv.mss,
		QuickACKs:     c.delack.quick,
		Interactive:   c.delack.interactive,
		OwedACKs:      c.owed.acks,
		Probes:        c.user.keepalives,
		RecvRTT:       c.tune.rtt,
		Taken:         int(c.tune.copied),
		TakenSince:    ago(c.tune.begun),
		MostTaken:     int(c.tune.most),
		Opened:        ago(c.chrono.opened),
		Busy:          c.spent(c.frozenAt, busy),
		WindowLimited: c.spent(c.frozenAt, windowLimited),
		BufferLimited: c.spent(c.frozenAt, bufferLimited),

		More: c.user.more && c.user.moreAt == c.snd.una,
	}
}

// timerKinds names our timers in a snapshot; that of pacing is of no account.
var timerKinds = [numTimers]repair.TimerKind{
	timerRTO:        repair.TimerRetransmit,
	timerReorder:    repair.TimerReordering,
	timerTailLoss:   repair.TimerTailLoss,
	timerPersist:    repair.TimerPersist,
	timerDelayedACK: repair.TimerDelayedACK,
	timerCork:       repair.TimerCork,
	timerKeepalive:  repair.TimerKeepalive,
	timerFinWait2:   repair.TimerFinWait2,
	timerTimeWait:   repair.TimerTimeWait,
}

func (c *Conn) readTimers(s *Record) {
	n := 0
	for k := range numTimers {
		if at := c.timers.at(k); at != Never && timerKinds[k] != 0 {
			s.timers[n] = repair.Timer{Kind: timerKinds[k], Left: at.Sub(c.frozenAt)}
			n++
		}
	}
	if n > 0 {
		s.extra.Timers = s.timers[:n]
	}
}
