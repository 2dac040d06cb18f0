package conn

import (
	"slices"
	"sort"

	"gvisor.dev/gvisor/pkg/tcpip/seqnum"
)

// scoreboard is what we know of every segment that was sent and not yet
// acknowledged: when it last left, and whether the peer has it, or it is lost.
//
// Records stand in sequence order, and that is also the order of their first
// transmission. So what RFC 8985 wants done in order of time needs no second
// index: first transmissions are judged by a cursor that only moves forward,
// retransmissions by a queue of their own. Every step costs what it newly
// learns, however many holes there are.
type scoreboard struct {
	recs []record
	mem  fifo[record] // of recs
	*holes

	scan  seqnum.Value // first transmissions before it have been judged
	sends uint32       // transmissions so far
}

// record is one segment's worth of what was sent; a FIN is a record of one.
type record struct {
	seq   seqnum.Value
	size  uint32
	flags recordFlags
	nth   uint32 // which transmission the last was
	sent  Time   // when
}

func (r *record) end() seqnum.Value         { return r.seq.Add(seqnum.Size(r.size)) }
func (r *record) is(flags recordFlags) bool { return r.flags&flags != 0 }

type recordFlags uint8

const (
	recSacked recordFlags = 1 << iota // the peer has it
	recLost                           // judged lost
	recRtx                            // judged lost, and a retransmission is under way
	recEver                           // was ever retransmitted: no round-trip sample (Karn)
	recPushed                         // asks the peer to deliver at once
)

type rtx struct {
	seq  seqnum.Value
	sent Time
}

type seqRange struct{ start, end seqnum.Value }

// tally counts records and their bytes.
type tally struct{ bytes, segs int64 }

func (t *tally) add(r *record) { t.bytes += int64(r.size); t.segs++ }
func (t *tally) sub(r *record) { t.bytes -= int64(r.size); t.segs-- }

// moment is when a segment was sent. Segments sent at the same time are told
// apart by sequence.
// https://www.rfc-editor.org/rfc/rfc8985#section-6.2 (RACK_sent_after)
type moment struct {
	at  Time // 0: there was none
	end seqnum.Value
	nth uint32 // which transmission it was; 0: not known
}

func (m moment) valid() bool { return m.at != 0 }

// after reports whether m came after the sending, at at, of a segment that
// ends at end.
func (m moment) after(at Time, end seqnum.Value) bool {
	return m.valid() && (m.at > at || m.at == at && end.LessThan(m.end))
}

// delivery is what one acknowledgement newly told.
type delivery struct {
	bytes     int64 // delivered: acknowledged or SACKed for the first time
	acked     int64 // cumulatively acknowledged, SACKed before or not
	segs      int   // segments of that
	sample    Time  // the latest transmission that may be timed, by Karn's algorithm
	sampled   bool
	fresh     bool   // something was delivered
	news      uint64 // how many segments
	original  bool   // a segment that was never retransmitted was
	repeated  bool   // a segment that was retransmitted was acknowledged
	resent    Time   // when such a one last was
	reordered bool   // an original lay below the highest delivered before it
	late      int64  // how far, in bytes, the lowest of them
	last      moment // the last sent of all that was delivered
	lastEver  bool   // that one had been retransmitted
	once      moment // the last sent of what was never retransmitted

	// It moved on and is silent about what was SACKed above it, which every one
	// is to repeat, or has a block of what is not outstanding.
	// https://www.rfc-editor.org/rfc/rfc2018#section-4
	doubtful bool

	// The highest that was SACKed before this acknowledgement, if anything.
	high   seqnum.Value
	sacked bool
}

// expect returns the delivery of an acknowledgement that is yet to be looked at.
func (b *scoreboard) expect() delivery {
	return delivery{high: b.high, sacked: b.sacked.segs > 0}
}

// keptRecords is how much room an empty scoreboard keeps, so that a
// conversation of single segments does not allocate.
const keptRecords = 16

func (b *scoreboard) reset() {
	recs := b.mem.empty(keptRecords)
	*b = scoreboard{recs: recs, mem: b.mem, holes: &noHoles, sends: b.sends}
}

func (b *scoreboard) empty() bool { return len(b.recs) == 0 }

// sent appends the record of a first transmission, cut into segments of mss.
func (b *scoreboard) sent(now Time, seq seqnum.Value, n, mss uint32) {
	if len(b.recs) == 0 {
		b.scan = seq // what it was may be half the sequence space away
	}
	b.sends++
	for n > 0 {
		size := min(n, mss)
		b.recs = b.mem.push(b.recs, record{seq: seq, size: size, sent: now, nth: b.sends})
		seq = seq.Add(seqnum.Size(size))
		n -= size
	}
}

// find returns the index of the record that holds seq, or of the first after it.
func (b *scoreboard) find(seq seqnum.Value) int {
	return sort.Search(len(b.recs), func(i int) bool { return seq.LessThan(b.recs[i].end()) })
}

// cut makes seq a boundary between records.
func (b *scoreboard) cut(seq seqnum.Value) {
	i := b.find(seq)
	if i == len(b.recs) || seq.LessThanEq(b.recs[i].seq) {
		return
	}
	tail := b.recs[i]
	head := uint32(tail.seq.Size(seq))
	b.recs[i].size = head
	tail.seq, tail.size = seq, tail.size-head
	b.recs[i].flags &^= recPushed // the end is the tail's
	b.recs = slices.Insert(b.recs, i+1, tail)
	switch {
	case tail.is(recSacked):
		b.sacked.segs++
	case tail.is(recLost):
		b.lostOut.segs++
		if tail.is(recRtx) {
			b.rtxOut.segs++
			b.rtxq = append(b.rtxq, rtx{seq, tail.sent})
		} else {
			b.lost = append(b.lost, seq)
		}
	}
}

// ack drops what una covers and tells what of it is news.
func (b *scoreboard) ack(una seqnum.Value, d *delivery) {
	b.cut(una)
	n := 0
	for n < len(b.recs) && b.recs[n].seq.LessThan(una) {
		r := &b.recs[n]
		n++
		d.segs++
		d.acked += int64(r.size)
		if r.is(recSacked) {
			b.sacked.sub(r)
			continue
		}
		b.note(r, d)
		b.deliver(r, d)
	}
	b.drop(n)
	// Whatever points behind una would in time point ahead of it.
	if len(b.recs) > 0 && b.scan.LessThan(una) {
		b.scan = una
	}
	for len(b.rtxq) > 0 && b.rtxq[0].seq.LessThan(una) {
		b.rtxq = b.rtxq[1:]
	}
	for len(b.lost) > 0 && b.lost[0].LessThan(una) {
		b.lost = b.lost[1:]
	}
}

// drop removes the first n records.
func (b *scoreboard) drop(n int) {
	b.recs = b.recs[n:]
	if len(b.recs) == 0 {
		b.reset()
	}
}

// note tells whether a record about to be delivered is one that was sent once,
// and whether a later one was delivered before it: before this acknowledgement,
// that is, which tells of several in no order.
func (b *scoreboard) note(r *record, d *delivery) {
	if r.is(recEver) {
		d.repeated = true
		d.resent = max(d.resent, r.sent)
		return
	}
	d.original = true
	if d.sacked && r.end().LessThan(d.high) {
		d.reordered = true
		d.late = max(d.late, int64(r.seq.Size(d.high)))
	}
}

// deliver counts a record as having reached the peer.
func (b *scoreboard) deliver(r *record, d *delivery) {
	d.bytes += int64(r.size)
	d.news++
	d.fresh = true
	b.unlose(r)
	if !r.is(recEver) && (!d.sampled || d.sample < r.sent) {
		d.sample, d.sampled = r.sent, true
	}
	m := moment{r.sent, r.end(), r.nth}
	if !d.last.after(m.at, m.end) {
		d.last, d.lastEver = m, r.is(recEver)
	}
	if !r.is(recEver) && !d.once.after(m.at, m.end) {
		d.once = m
	}
}

// unlose takes a record out of the lost.
func (b *scoreboard) unlose(r *record) {
	if r.is(recLost) {
		b.lostOut.sub(r)
	}
	if r.is(recRtx) {
		b.rtxOut.sub(r)
	}
	r.flags &^= recLost | recRtx
}

// sack marks what lies in the block, which the caller has found to be within
// what is outstanding, and returns where the last record marked ends. Only whole
// records count: a peer could otherwise have them cut into single bytes.
func (b *scoreboard) sack(blk seqRange, d *delivery) (end seqnum.Value) {
	end = blk.start
	i := b.find(blk.start)
	if i < len(b.recs) && b.recs[i].seq.LessThan(blk.start) {
		i++
	}
	for ; i < len(b.recs) && b.recs[i].end().LessThanEq(blk.end); i++ {
		r := &b.recs[i]
		end = r.end()
		if r.is(recSacked) {
			continue
		}
		b.note(r, d)
		b.deliver(r, d)
		b.dig()
		r.flags |= recSacked
		b.sacked.add(r)
		if b.sacked.segs == 1 || b.high.LessThan(r.end()) {
			b.high = r.end()
		}
	}
	return end
}

// markLost judges a record lost. If a retransmission of it was under way, that
// is lost as well.
func (b *scoreboard) markLost(r *record) {
	b.dig()
	if r.is(recRtx) {
		b.rtxOut.sub(r)
		r.flags &^= recRtx
	}
	if !r.is(recLost) {
		b.lostOut.add(r)
		r.flags |= recLost
	}
	b.lost = append(b.lost, r.seq)
}

// markAll judges everything lost that the peer is not known to have; with
// renege also what it once said it had.
// https://www.rfc-editor.org/rfc/rfc2018#section-8
func (b *scoreboard) markAll(renege bool) {
	if renege {
		b.retract()
	}
	b.dig()
	b.lost, b.rtxq = b.lost[:0], b.rtxq[:0]
	for i := range b.recs {
		if r := &b.recs[i]; !r.is(recSacked) {
			b.markLost(r)
		}
	}
	if n := len(b.recs); n > 0 {
		b.scan = b.recs[n-1].end()
	}
}

// retract takes what the peer once said it had for lost.
func (b *scoreboard) retract() {
	for i := range b.recs {
		if r := &b.recs[i]; r.is(recSacked) {
			r.flags &^= recSacked
			b.sacked.sub(r)
			b.markLost(r)
		}
	}
	b.dig().numReported = 0 // it may say so again
}

// unmarkAll takes every judgement of loss back; all will be judged anew.
func (b *scoreboard) unmarkAll() {
	for i := range b.recs {
		b.unlose(&b.recs[i])
	}
	b.dig().lost = b.lost[:0]
	if len(b.recs) > 0 {
		b.scan = b.recs[0].seq
	}
}

// nextLost returns the record to retransmit next, nil if there is none.
func (b *scoreboard) nextLost() *record {
	for len(b.lost) > 0 {
		if i := b.find(b.lost[0]); i < len(b.recs) {
			if r := &b.recs[i]; r.seq == b.lost[0] && r.is(recLost) && !r.is(recRtx) {
				return r
			}
		}
		b.lost = b.lost[1:]
	}
	return nil
}

// resent notes that a record was retransmitted.
func (b *scoreboard) resent(now Time, r *record) {
	b.dig()
	b.sends++
	r.sent, r.nth = now, b.sends
	r.flags |= recEver
	if r.is(recLost) && !r.is(recRtx) {
		r.flags |= recRtx
		b.rtxOut.add(r)
	}
	b.rtxq = append(b.rtxq, rtx{r.seq, now})
}

// shift moves every transmission d later: time that does not count.
func (b *scoreboard) shift(d Time) {
	for i := range b.recs {
		b.recs[i].sent += d
	}
	for i := range b.rtxq {
		b.rtxq[i].sent += d
	}
}
