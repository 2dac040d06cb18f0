package conn

import (
	"slices"
	"sort"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/seqnum"
)

// reassembly keeps data that arrived before its turn: disjoint spans in
// ascending order, none of them touching another. All of them lie inside the
// window, so the receive buffer bounds them; nothing less does.
type reassembly struct {
	spans  []span
	fin    seqnum.Value // where the peer's early FIN stands
	hasFIN bool
	mem    keeper
}

// span is a run of received bytes.
type span struct {
	seq  seqnum.Value
	data buffer.Buffer
}

func (p *span) end() seqnum.Value { return p.seq.Add(seqnum.Size(p.data.Size())) }

// inserted says what insert did.
type inserted struct {
	start, end       seqnum.Value // the span that now holds the segment
	added            seqnum.Size  // bytes that were not there before
	dupStart, dupEnd seqnum.Value // the first bytes that were; equal: none
}

func (r *reassembly) empty() bool { return len(r.spans) == 0 }

// bytes is how much is kept.
func (r *reassembly) bytes() (n int64) {
	for i := range r.spans {
		n += r.spans[i].data.Size()
	}
	return n
}

// spanCost is what a span takes besides its data, in bytes: itself, a view and
// the least chunk.
const spanCost = 256

// tidy makes room for a segment in size bytes of memory: it makes the spans
// tight if they retain much more than they hold. It reports whether there may
// be another span.
func (r *reassembly) tidy(p *buffer.Buffer, size int) bool {
	if r.mem.keep(p, size) {
		held := int64(0)
		for i := range r.spans {
			d := &r.spans[i].data
			if wasteful(d, spanCost) {
				collapse(d)
			}
			held += retained(d)
		}
		r.mem.seen(held, size)
	}
	return len(r.spans)*spanCost < size
}

// insert takes the segment's payload. Bytes that are already there win over
// the new ones.
func (r *reassembly) insert(s *Segment) inserted {
	piece := span{seq: s.Seq, data: s.Payload}
	s.Payload = buffer.Buffer{}
	res := inserted{added: seqnum.Size(piece.data.Size())}
	// The first span that the piece touches or overlaps, or that follows it.
	i := sort.Search(len(r.spans), func(i int) bool { return !r.spans[i].end().LessThan(piece.seq) })
	if i == len(r.spans) || piece.end().LessThan(r.spans[i].seq) {
		res.start, res.end = piece.seq, piece.end()
		r.spans = slices.Insert(r.spans, i, piece)
		return res
	}
	at := &r.spans[i]
	if piece.seq.LessThan(at.seq) {
		front := piece.split(at.seq)
		front.data.Merge(&at.data)
		at.seq, at.data = front.seq, front.data
	}
	for {
		piece.skip(at.end(), &res)
		if piece.data.Size() == 0 {
			piece.data.Release()
			break
		}
		if i+1 == len(r.spans) || piece.end().LessThan(r.spans[i+1].seq) {
			at.data.Merge(&piece.data)
			break
		}
		next := &r.spans[i+1]
		gap := piece.split(next.seq)
		at.data.Merge(&gap.data)
		at.data.Merge(&next.data)
		r.spans = slices.Delete(r.spans, i+1, i+2)
	}
	res.start, res.end = at.seq, at.end()
	return res
}

// split cuts off and returns the part before seq, which must lie inside p or
// at its end.
func (p *span) split(seq seqnum.Value) span {
	n := int64(p.seq.Size(seq))
	front := span{seq: p.seq, data: p.data.Clone()}
	front.data.Truncate(n)
	p.data.TrimFront(n)
	p.seq = seq
	return front
}

// skip drops p's bytes before to, which are duplicates.
func (p *span) skip(to seqnum.Value, res *inserted) {
	if !p.seq.LessThan(to) {
		return
	}
	n := min(int64(p.seq.Size(to)), p.data.Size())
	if res.dupStart == res.dupEnd {
		res.dupStart, res.dupEnd = p.seq, p.seq.Add(seqnum.Size(n))
	}
	res.added -= seqnum.Size(n)
	p.data.TrimFront(n)
	p.seq = p.seq.Add(seqnum.Size(n))
}

// next moves the first span into s if its turn has come, trimming what *nxt
// has passed already, and moves *nxt to its end.
func (r *reassembly) next(nxt *seqnum.Value, s *Segment) bool {
	for len(r.spans) > 0 && r.spans[0].seq.LessThanEq(*nxt) {
		p := r.spans[0]
		r.spans[0].data = buffer.Buffer{}
		r.spans = r.spans[1:]
		if len(r.spans) == 0 {
			r.spans = nil
		}
		if p.end().LessThanEq(*nxt) {
			p.data.Release()
			continue
		}
		end := p.end()
		p.data.TrimFront(int64(p.seq.Size(*nxt)))
		s.Seq, s.Payload = *nxt, p.data
		*nxt = end
		return true
	}
	return false
}

func (r *reassembly) setFIN(seq seqnum.Value) { r.fin, r.hasFIN = seq, true }

// finReached reports whether an early FIN is next.
func (r *reassembly) finReached(nxt seqnum.Value) bool { return r.hasFIN && r.fin == nxt }

// release drops everything.
func (r *reassembly) release() {
	for i := range r.spans {
		r.spans[i].data.Release()
	}
	*r = reassembly{}
}
