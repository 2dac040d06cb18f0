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
	patience  Time  // until when that waits for a delivery, where it has to
}

// begin starts a reduction with flight bytes in the network. first is a
// segment where there is one to retransmit. It leaves at once if there is room
// for it: where a delivery began the reduction or the window was not used up,
// which room says, or no more is in flight than there is to be. Else a timer
// began it, which frees no room in a queue that our window has just overflowed;
// see afford.
func (p *prrState) begin(threshold, before, flight, first int64, room bool) {
	*p = prrState{threshold: threshold, before: max(before, 1), window: flight, first: first}
	if room || flight <= threshold {
		p.afford(flight)
	}
}

// waits reports whether the first retransmission waits for room.
func (p *prrState) waits(flight int64) bool { return p.out == 0 && p.window < flight+p.first }

// afford lets the first retransmission go.
func (p *prrState) afford(flight int64) { p.window = max(p.window, flight+p.first) }

// update sets the window after delivered bytes were delivered with flight
// bytes left in the network. safe says that the acknowledgement advanced and
// showed no new loss. A network with nothing left in it is safe as well: after
// a tail loss probe one segment alone might wait for a delayed acknowledgement.
// https://www.rfc-editor.org/rfc/rfc9937#section-6.2
func (p *prrState) update(delivered, flight int64, mss int, safe bool) {
	if delivered == 0 {
		return
	}
	p.delivered += delivered
	var n int64
	if flight > p.threshold {
		n = (p.delivered*p.threshold+p.before-1)/p.before - p.out
	} else {
		n = max(p.delivered-p.out, delivered)
		if safe || flight == 0 {
			n += int64(mss)
		}
		n = min(p.threshold-flight, n)
	}
	if p.out == 0 {
		n = max(n, p.first)
	}
	p.window = flight + max(n, 0)
}
