package cc

import "time"

// reno is congestion control as RFC 5681 has it, counting bytes (RFC 3465).
// It does without HyStart++, so that it stays the plain textbook algorithm to
// compare others with, which is also what Linux runs under this name.
type reno struct {
	window
	// acked counts the bytes acknowledged in congestion avoidance since the
	// window last grew.
	acked int64
	// before is the window before the latest OnCongestion; its cwnd is 0 if
	// there is nothing to take back.
	before window
}

func newReno(mss int) *reno { return &reno{window: newWindow(mss)} }

func (r *reno) Name() string { return "reno" }

func (r *reno) OnAck(a Ack) {
	mss := int64(clampMSS(a.MSS))
	r.cwnd = max(r.cwnd, mss)
	if a.AppLimited {
		return
	}
	n := clampAcked(a.Acked)
	if r.cwnd < r.ssthresh {
		if n = r.slowStart(n); r.cwnd < r.ssthresh {
			return
		}
	}
	r.avoid(n, mss)
}

// avoid adds a segment for every window's worth of bytes acknowledged. What one
// acknowledgement covers counts as a window at most: where a recovery has just
// ended it is what was outstanding before the window was halved, which would
// make two segments for one round trip.
// https://www.rfc-editor.org/rfc/rfc5681#section-3.1
func (r *reno) avoid(n, mss int64) {
	r.acked += min(n, r.cwnd)
	if r.acked < r.cwnd {
		return
	}
	r.acked -= r.cwnd
	r.set(r.cwnd+mss, mss)
}

// OnCongestion halves. FlightSize and not the window is halved because the
// window may have been larger than what the sender used; what was sent beyond
// it (limited transmit) does not count.
// https://www.rfc-editor.org/rfc/rfc5681#section-3.1 equation 4
func (r *reno) OnCongestion(e Congestion) {
	r.before = r.window
	r.acked = 0
	r.reduce(min(e.Flight, r.cwnd)/2, e.Signal, int64(clampMSS(e.MSS)))
}

func (r *reno) OnIdle(_ int64, idle, rto time.Duration, mss int) {
	if r.decay(idle, rto, mss) {
		r.acked = 0
	}
}

func (r *reno) Undo(int64) {
	if r.before.cwnd == 0 {
		return
	}
	r.cwnd = max(r.cwnd, r.before.cwnd)
	r.ssthresh = r.before.ssthresh
	r.before = window{}
}
