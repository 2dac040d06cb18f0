package conn

import (
	"slices"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/seqnum"
)

// sackGenerator chooses the SACK blocks we report: a duplicate first (RFC
// 2883), then the span that last grew, then those before it.
// https://www.rfc-editor.org/rfc/rfc2018#section-4
type sackGenerator struct {
	recent []header.SACKBlock // most recent first, at most maxSACKBlocks
	dup    header.SACKBlock   // empty: none
}

const maxSACKBlocks = 4

// add records that the bytes from start to end, all of one span, are held.
func (g *sackGenerator) add(start, end seqnum.Value) {
	g.recent = slices.DeleteFunc(g.recent, func(b header.SACKBlock) bool {
		return start.LessThanEq(b.Start) && b.End.LessThanEq(end)
	})
	if len(g.recent) == maxSACKBlocks {
		g.recent = g.recent[:maxSACKBlocks-1]
	}
	g.recent = slices.Insert(g.recent, 0, header.SACKBlock{Start: start, End: end})
}

// duplicate records that bytes arrived which were there already. The part
// below nxt and the part above are not told apart by one block, so a block
// never spans it.
// https://www.rfc-editor.org/rfc/rfc2883#section-4
func (g *sackGenerator) duplicate(start, end, nxt seqnum.Value) {
	if start.LessThan(nxt) && nxt.LessThan(end) {
		end = nxt
	}
	g.dup = header.SACKBlock{Start: start, End: end}
}

// advance forgets what the cumulative acknowledgement now covers. If that was
// all we remembered and more is held, the lowest spans come next.
func (g *sackGenerator) advance(nxt seqnum.Value, held *reassembly) {
	g.recent = slices.DeleteFunc(g.recent, func(b header.SACKBlock) bool { return b.End.LessThanEq(nxt) })
	if len(g.recent) == 0 {
		g.recent = nil
		for i := min(len(held.spans), maxSACKBlocks) - 1; i >= 0; i-- {
			g.add(held.spans[i].seq, held.spans[i].end())
		}
	}
}

// fill puts as many blocks into o as fit beside its other options. A
// duplicate is reported once.
func (g *sackGenerator) fill(o *Options) {
	if g.dup.Start != g.dup.End {
		o.addSACK(g.dup)
		g.dup = header.SACKBlock{}
	}
	for _, b := range g.recent {
		o.addSACK(b)
	}
}

// addSACK adds a block if it fits beside the other options of a segment that is
// not a SYN.
func (o *Options) addSACK(b header.SACKBlock) {
	room := maxSACKBlocks
	if o.HasTS {
		room--
	}
	if int(o.NumSACK) < room {
		o.SACK[o.NumSACK] = b
		o.NumSACK++
	}
}

// fillFIN reports a FIN that came early, which takes a sequence number like a
// byte: with the block that it follows, or in one of its own.
func (r *reassembly) fillFIN(o *Options) {
	n := len(r.spans)
	if !r.hasFIN || n > 0 && r.fin.LessThan(r.spans[n-1].end()) {
		return // none, or the peer contradicts itself
	}
	if n == 0 || r.spans[n-1].end() != r.fin {
		o.addSACK(header.SACKBlock{Start: r.fin, End: r.fin + 1})
		return
	}
	for i, b := range o.Blocks() {
		if b.Start == r.spans[n-1].seq && b.End == r.fin {
			o.SACK[i].End++
		}
	}
}

// reportsSACK reports whether segments carry SACK blocks.
func (c *Conn) reportsSACK() bool { return c.cfg.sack && (c.sacks.any() || c.reasm.hasFIN) }

// any reports whether there is anything to tell.
func (g *sackGenerator) any() bool { return len(g.recent) != 0 || g.dup.Start != g.dup.End }
