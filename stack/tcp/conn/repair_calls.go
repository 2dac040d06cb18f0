package conn

import (
	"bytes"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/seqnum"

	"github.com/tcprepair/ustack/stack/repair"
)

// The calls of Linux's TCP_REPAIR, one by one, with its rules (net/ipv4/tcp.c,
// do_tcp_setsockopt). Their errors are package repair's. A connection that
// moves in one step needs none of them: it has Snapshot and Restore.

// SetQueueSeq sets where a queue of a connection begins that has not been
// opened: the first step of a restoration call by call.
func (c *Conn) SetQueueSeq(q repair.Queue, seq seqnum.Value) error {
	if !c.frozen || c.State() != StateClosed {
		return repair.ErrPermission
	}
	switch q {
	case repair.RecvQueue:
		c.rcv.nxt = seq
	case repair.SendQueue:
		c.sendq.start, c.sendq.end = seq, seq
	default:
		return repair.ErrInvalid
	}
	return nil
}

// RepairConnect makes a frozen connection that has not been opened ESTABLISHED,
// without a segment, between the queues' beginnings that SetQueueSeq chose.
// Everything else is as little as it can be, until the other calls say more.
func (c *Conn) RepairConnect(now Time, cfg *Config, mss uint16) error {
	if !c.frozen || c.State() != StateClosed {
		return repair.ErrPermission
	}
	ts, micros := c.Timestamp(now) // TCP_TIMESTAMP may have come first
	return c.Restore(now, cfg, &repair.Snapshot{Core: repair.Core{
		State:           repair.StateEstablished,
		SendSeq:         uint32(c.sendq.end),
		RecvSeq:         uint32(c.rcv.nxt),
		Options:         repair.Options{MSS: mss},
		Timestamp:       ts,
		TimestampMicros: micros,
		NoDelay:         cfg.Options.NoDelay,
		Cork:            cfg.Options.Cork,
	}})
}

// WriteQueue appends to a queue: to what was received, without an
// acknowledgement, or to what counts as sent, without a segment. The buffers'
// sizes do not bound it.
func (c *Conn) WriteQueue(now Time, q repair.Queue, p []byte) (int, error) {
	switch {
	case !c.frozen:
		return 0, repair.ErrPermission
	case !canSend.has(c.State()), q == repair.RecvQueue && c.rcv.fin:
		return 0, repair.ErrClosed
	}
	switch q {
	case repair.RecvQueue:
		p = p[:min(int64(len(p)), maxRun-c.recvq.size())]
		eachChunk(p, func(b *buffer.Buffer) {
			s := Segment{Payload: *b}
			c.rcv.nxt = c.rcv.nxt.Add(s.DataLen())
			c.deliver(&s)
			for c.reasm.next(&c.rcv.nxt, &s) {
				c.deliver(&s)
			}
		})
		if c.disorder != &inOrder {
			c.sacks.advance(c.rcv.nxt, &c.reasm)
			c.tidy()
		}
		if c.rcv.adv.LessThan(c.rcv.nxt) {
			c.rcv.adv = c.rcv.nxt
		}
	case repair.SendQueue:
		p = p[:min(len(p), maxRun-c.sendq.size())]
		c.sendq.write(bytes.NewReader(p), len(p)) // which cannot fail
		c.countAsSent(now, c.snd.nxt, c.sendq.end)
		c.snd.nxt, c.user.pushed = c.sendq.end, c.sendq.end
		c.ensureTimers(now)
	default:
		return 0, repair.ErrInvalid
	}
	return len(p), nil
}

// countAsSent takes everything from one sequence number to another for sent, and
// for repeated, so that no round-trip sample comes of it.
func (c *Conn) countAsSent(now Time, from, to seqnum.Value) {
	b := &c.board
	if b.empty() {
		c.loss.stalled = now
	}
	had, end := len(b.recs), to
	if c.finSeq().LessThan(end) {
		end = c.finSeq()
	}
	if from.LessThan(end) {
		b.sent(now, from, uint32(from.Size(end)), uint32(c.segmentSize()))
	}
	if end.LessThan(to) && from.LessThan(to) {
		b.sent(now, end, 1, 1)
	}
	for i := had; i < len(b.recs); i++ {
		r := &b.recs[i]
		r.flags |= recEver
		h := b.dig()
		h.rtxq = append(h.rtxq, rtx{r.seq, now})
	}
}

// PeekQueue copies from the front of a queue: what was received and not read,
// or what was written and not acknowledged, sent or not.
func (c *Conn) PeekQueue(q repair.Queue, p []byte) (int, error) {
	if !c.frozen {
		return 0, repair.ErrPermission
	}
	switch q {
	case repair.RecvQueue:
		n, _ := c.recvq.data.ReadAt(p[:min(int64(len(p)), c.recvq.size())], 0) // never more than there is
		return n, nil
	case repair.SendQueue:
		n := min(len(p), c.sendq.size())
		var b buffer.Buffer
		c.sendq.slice(c.sendq.start, seqnum.Size(n), &b)
		if n > 0 {
			b.ReadAt(p[:n], 0) // likewise
			b.Release()
		}
		return n, nil
	}
	return 0, repair.ErrInvalid
}

// RepairOptions is what the two sides agreed on.
func (c *Conn) RepairOptions() repair.Options {
	return repair.Options{
		MSS:        c.snd.mss,
		Scaling:    c.cfg.scaling,
		SendScale:  c.snd.wscale,
		RecvScale:  c.rcv.wscale,
		SACK:       c.cfg.sack,
		Timestamps: c.tstamp.on,
	}
}

// SetRepairOptions sets what the two sides agreed on, before anything was sent.
func (c *Conn) SetRepairOptions(now Time, o repair.Options) error {
	switch {
	case !c.frozen:
		return repair.ErrInvalid
	case c.state != StateEstablished || c.stats.BytesSent > 0:
		return repair.ErrPermission
	case o.Scaling && (o.SendScale > repair.MaxScale || o.RecvScale > repair.MaxScale):
		return repair.ErrTooBig
	}
	c.restoreOptions(o)
	c.restoreCongestion(now, &repair.Congestion{})
	return nil
}

// SetWindow sets what TCP_REPAIR_WINDOW does.
func (c *Conn) SetWindow(w repair.Window) error {
	switch {
	case !c.frozen:
		return repair.ErrPermission
	case !c.state.Synchronized():
		return repair.ErrInvalid
	}
	if err := w.Validate(uint32(c.rcv.nxt)); err != nil {
		return err
	}
	c.snd.wl1 = seqnum.Value(w.SndWl1)
	c.snd.wnd, c.snd.maxWnd = seqnum.Size(w.SndWnd), seqnum.Size(w.MaxWindow)
	c.expectWindow()
	c.delack.acked = seqnum.Value(w.RcvWup)
	c.rcv.adv = c.delack.acked.Add(seqnum.Size(w.RcvWnd))
	if at := c.heldEnd(); c.rcv.adv.LessThan(at) {
		c.rcv.adv = at // what was taken was within some window
	}
	c.rcv.base = c.rcv.adv
	return nil
}

// heldEnd is the end of what has been received, in order or not.
func (c *Conn) heldEnd() seqnum.Value {
	if n := len(c.reasm.spans); n > 0 {
		return c.reasm.spans[n-1].end()
	}
	return c.rcv.nxt
}

// Timestamp is our timestamp clock's value, and whether it ticks in
// microseconds rather than milliseconds.
func (c *Conn) Timestamp(now Time) (value uint32, micros bool) {
	return c.tstamp.value(now), c.tstamp.micros
}

// SetTimestamp makes the clock go on from value.
func (c *Conn) SetTimestamp(now Time, value uint32, micros bool) error {
	if !c.frozen {
		return repair.ErrPermission
	}
	c.tstamp.set(now, value, micros)
	return nil
}
