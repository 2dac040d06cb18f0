package conn

// prrState is Proportional Rate Reduction: while the window is being reduced,
// each delivery lets a proportional part be sent.
// https://www.rfc-editor.org/rfc/rfc6937
type prrState struct {
	threshold int64 // where the window is to end up
	before    int64 // what was outstanding when it began (RecoverFS)
	delivered int64 // since it began
	out       int64 // sent since it began
	window    int64
	first     int64 // what may be sent at once, whatever the proportion says
}

// begin starts a reduction with flight bytes in the network. first is a
// segment where there is one to retransmit.
func (p *prrState) begin(threshold, before, flight, first int64) {
	*p = prrState{threshold: threshold, before: max(before, 1), window: flight + first, first: first}
}

// update sets the window after delivered bytes were delivered with flight
// bytes left in the network. safe says that the acknowledgement advanced and
// showed no new loss.
// https://www.rfc-editor.org/rfc/rfc6937#section-3 (the slow-start bound is
// used when it is safe, the conservative one when not: RFC 9937)
func (p *prrState) update(delivered, flight int64, mss int, safe bool) {
	p.delivered += delivered
	var n int64
	if flight > p.threshold {
		n = (p.delivered*p.threshold+p.before-1)/p.before - p.out
	} else {
		limit := p.delivered - p.out
		if safe {
			limit = max(limit, delivered) + int64(mss)
		}
		n = min(p.threshold-flight, limit)
	}
	if p.out == 0 {
		n = max(n, p.first)
	}
	p.window = flight + max(n, 0)
}
