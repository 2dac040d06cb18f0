package cc

import "time"

// window is what every algorithm holds.
type window struct {
	cwnd     int64
	ssthresh int64
}

func newWindow(mss int) window {
	return window{cwnd: InitialWindow(clampMSS(mss)), ssthresh: Unlimited}
}

func (w *window) Window() int64    { return w.cwnd }
func (w *window) Threshold() int64 { return w.ssthresh }

// slowStart grows the window by n acknowledged bytes, as far as the threshold,
// and returns those left for congestion avoidance.
//
// There is no limit on what one acknowledgement may add (the L of RFC 3465 and
// RFC 9406), after a timeout either: receivers that merge segments acknowledge
// 64 KiB at once, and a limit of a few segments would turn their slow start
// into a crawl. Linux has none for the same reason.
func (w *window) slowStart(n int64) (left int64) {
	grow := min(n, min(w.ssthresh, maxWindow)-w.cwnd)
	w.cwnd += grow
	return n - grow
}

// set puts the window within its bounds.
func (w *window) set(cwnd, mss int64) { w.cwnd = min(max(cwnd, mss), maxWindow) }

// reduce answers a signal of congestion by the new threshold.
func (w *window) reduce(ssthresh int64, s Signal, mss int64) {
	w.ssthresh = min(max(ssthresh, 2*mss), maxWindow)
	w.cwnd = w.ssthresh
	if s == Timeout {
		w.cwnd = mss
	}
}

// decay halves the window for every rto that nothing was sent, down to the
// restart window, and says whether it did. The threshold remembers most of
// what was lost, so that slow start soon brings it back.
// https://www.rfc-editor.org/rfc/rfc2861#section-2
// https://www.rfc-editor.org/rfc/rfc5681#section-4.1
func (w *window) decay(idle, rto time.Duration, mss int) bool {
	if rto <= 0 || idle < rto {
		return false
	}
	floor := min(InitialWindow(clampMSS(mss)), w.cwnd)
	cwnd := max(w.cwnd>>min(int64(idle/rto), 62), floor)
	if cwnd == w.cwnd {
		return false
	}
	if w.ssthresh != Unlimited {
		w.ssthresh = max(w.ssthresh, w.cwnd/4*3)
	}
	w.cwnd = cwnd
	return true
}

// clampMSS bounds a segment's payload to what an IP packet can carry.
func clampMSS(mss int) int { return min(max(mss, 1), 65535) }

// clampAcked bounds an acknowledgement to what can have been in flight.
func clampAcked(n int64) int64 { return min(max(n, 0), maxWindow) }
