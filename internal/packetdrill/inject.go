package packetdrill

import (
	"net/netip"
	"time"
)

// inject plays a packet to the stack.
func (r *runner) inject(p *Packet) {
	f := r.flowTo(p)
	if p.ICMP != nil {
		r.injectICMP(f, p)
		return
	}
	spec := p.TCP
	if spec.Flags&SYN != 0 && !f.haveRemote {
		f.haveRemote, f.remoteISN = true, spec.Seq
	}
	live, err := f.toLive(spec)
	if err != nil {
		r.fail("%v", err)
	}
	if live.Len > maxInbound {
		r.fail("a payload of %d bytes does not fit into an IP packet", live.Len)
	}
	s := &segment{src: f.remote, dst: f.local, tos: p.IP.TOS, ttl: uint8(max(p.IP.TTL, 0)), flowLabel: uint32(max(p.IP.FlowLabel, 0))}
	s.tcp = live
	s.payload = f.inboundPayload(&live)
	b, err := encodeSegment(s)
	if err != nil {
		r.fail("%v", err)
	}
	mss := 0
	if live.Len > r.set.mss {
		mss = r.set.mss
	}
	r.link.inject(b, mss)
}

// maxInbound is the largest payload that fits beside the largest headers.
const maxInbound = 65535 - 40 - 60

// flowTo finds the flow that a packet to the stack belongs to. The first packet
// that reaches a listener begins one, from a port of its own.
func (r *runner) flowTo(p *Packet) *flow {
	if p.SrcPort != 0 || p.DstPort != 0 {
		f := r.flowOf(netip.AddrPortFrom(r.set.local, or(p.DstPort, r.set.bind)), netip.AddrPortFrom(r.set.remote, or(p.SrcPort, r.set.connect)))
		r.under.flow, r.under.sock = f, f.sock
		return f
	}
	if f := r.under.flow; f != nil {
		return f
	}
	if p.ICMP != nil {
		r.fail("there is no connection that the message could be about")
	}
	r.port++
	f := r.flowOf(netip.AddrPortFrom(r.set.local, r.set.bind), netip.AddrPortFrom(r.set.remote, r.port))
	r.under = under{flow: f}
	return f
}

func or(port, def uint16) uint16 {
	if port != 0 {
		return port
	}
	return def
}

// injectICMP plays an ICMP error about a segment of the flow's.
func (r *runner) injectICMP(f *flow, p *Packet) {
	about := &segment{src: f.local, dst: f.remote}
	about.tcp = TCPSpec{Flags: ACK, Seq: f.ackToLive(p.ICMP.Seq, false), Win: -1, Len: p.ICMP.Len}
	about.payload = make([]byte, p.ICMP.Len)
	b, err := encodeICMP(p.ICMP, r.set.remote, about)
	if err != nil {
		r.fail("%v", err)
	}
	r.link.inject(b, 0)
}

// window is when a packet must come.
type window struct {
	from, to time.Duration
	any      bool
}

func (w window) String() string {
	switch {
	case w.any:
		return "*"
	case w.from != w.to:
		return clockText(w.from) + "~" + clockText(w.to)
	}
	return clockText(w.from)
}

// How much longer than expected a packet is waited for: long enough to tell
// what came instead.
const (
	patience       = 2 * time.Second
	patienceForAny = 10 * time.Minute
)

// expect waits for a packet from the stack and compares it with the script's.
func (r *runner) expect(p *Packet, w window) {
	if p.ICMP != nil {
		r.skip("ICMP messages from the stack")
	}
	f := r.flowFrom(p)
	tolerance := r.set.toleranceFor(w.from - r.last)
	limit := w.to + tolerance + patience
	if w.any {
		limit = r.now() + patienceForAny
	}
	pieces := r.gather(f, p, w, limit)
	s := join(pieces)
	got := f.toScript(s.tcp, p.TCP)
	expected := w.String() + " > " + p.IP.String() + p.TCP.String()
	actual := clockText(s.at) + " > " + shownIP(p.IP, s).String() + got.String()
	diff := match(p.TCP, p.IP, &got, s, r.cfg.Relax)
	if diff == "" && !p.TCP.AnyOptions {
		diff = matchTimestamp(p.TCP.Options, got.Options, r.set.tsTick, r.set.toleranceFor(w.from))
	}
	if diff != "" {
		r.mismatch(expected, actual, "%s", diff)
	}
	if err := f.checkPayload(&s.tcp, s.payload); err != nil {
		r.mismatch(expected, actual, "%v", err)
	}
	for _, piece := range pieces {
		if !w.any && (piece.at < w.from-tolerance || piece.at > w.to+tolerance) {
			actual = clockText(piece.at) + actual[len(clockText(s.at)):]
			r.mismatch(expected, actual, "it came at %s, not at %v, give or take %v", clockText(piece.at), w, tolerance)
		}
	}
}

// flowFrom finds the flow that an expected packet must belong to.
func (r *runner) flowFrom(p *Packet) *flow {
	if p.SrcPort != 0 || p.DstPort != 0 {
		f := r.flowOf(netip.AddrPortFrom(r.set.local, or(p.SrcPort, r.set.bind)), netip.AddrPortFrom(r.set.remote, or(p.DstPort, r.set.connect)))
		r.under.flow, r.under.sock = f, f.sock
		return f
	}
	if r.under.flow == nil {
		r.fail("there is no connection that the packet could belong to")
	}
	return r.under.flow
}

// gather takes the segments that make up the expected one: one, or several
// that follow each other if it is larger than the stack cares to send at once.
func (r *runner) gather(f *flow, p *Packet, w window, limit time.Duration) (pieces []*segment) {
	total := 0
	for {
		for len(f.sent) == 0 {
			if !r.step(limit) {
				r.missing(f, p, w, pieces)
			}
		}
		s := f.sent[0]
		if n := len(pieces); n > 0 {
			if why := follows(pieces[n-1], s); why != "" {
				r.mismatch(w.String()+" > "+p.TCP.String(), r.shown(f, append(pieces, s)), "%s", why)
			}
		}
		f.sent = f.sent[1:]
		pieces = append(pieces, s)
		total += len(s.payload)
		if total >= p.TCP.Len || r.set.strictSegments || len(s.payload) == 0 {
			return pieces
		}
	}
}

// missing ends the run because a packet has not come.
func (r *runner) missing(f *flow, p *Packet, w window, pieces []*segment) {
	expected := w.String() + " > " + p.IP.String() + p.TCP.String()
	if len(pieces) > 0 {
		r.mismatch(expected, r.shown(f, pieces), "the rest of the payload has not come")
	}
	r.mismatch(expected, "nothing", "the packet has not come")
}

// shown writes segments down in the script's terms, side by side.
func (r *runner) shown(f *flow, list []*segment) (text string) {
	for i, s := range list {
		spec := f.toScript(s.tcp, &TCPSpec{})
		if i > 0 {
			text += ", "
		}
		text += clockText(s.at) + " > " + spec.String()
	}
	return text
}

// join makes one segment of several.
func join(pieces []*segment) *segment {
	first, last := pieces[0], pieces[len(pieces)-1]
	if first == last {
		return first
	}
	s := *last
	s.at = first.at
	s.tcp.Seq = first.tcp.Seq
	s.tcp.Flags |= first.tcp.Flags & CWR
	s.payload = nil
	for _, p := range pieces {
		s.payload = append(s.payload, p.payload...)
	}
	s.tcp.Len = len(s.payload)
	return &s
}

// shownIP is what the IP header of a segment has where the script says
// something about it.
func shownIP(want IPInfo, s *segment) IPInfo {
	got := want
	got.TOS = s.tos
	if want.Check == TOSECT01 {
		got.Check = TOSECN
	}
	if want.TTL >= 0 {
		got.TTL = int(s.ttl)
	}
	if want.FlowLabel >= 0 {
		got.FlowLabel = int(s.flowLabel)
	}
	return got
}
