package cc

// The names in State.Extra. Sizes are in bytes, times in nanoseconds unless the
// name says otherwise. They are part of stored snapshots: do not rename them.
const (
	keyAcked    = "acked" // reno: bytes acknowledged since the window grew
	keyOwed     = "owed"  // cubic: remainders of growth
	keyWestOwed = "w_est_owed"

	keyWmax    = "w_max"
	keyPrior   = "cwnd_prior"
	keyK       = "k"
	keyElapsed = "t" // absent: no stage of congestion avoidance
	keyWest    = "w_est"

	keyRound    = "hystart_round_min_us"
	keyLast     = "hystart_last_min_us"
	keyBaseline = "hystart_baseline_us"
	keySamples  = "hystart_samples"
	keyRounds   = "hystart_css_rounds"

	keyUndoWindow    = "undo_window" // absent: nothing to take back
	keyUndoThreshold = "undo_threshold"
	undo             = "undo_" // before an epoch's names
)

func (r *reno) State() State {
	var x extra
	x.put(keyAcked, r.acked)
	x.putBefore(r.before)
	return r.state("reno", x)
}

func (r *reno) restore(s State, _, mss int64) {
	x := extra(s.Extra)
	r.load(s, mss)
	r.acked = x.get(keyAcked, 0, r.cwnd)
	r.before = x.before(mss)
}

func (c *cubic) State() State {
	var x extra
	x.put(keyOwed, c.owed)
	x.put(keyWestOwed, c.westOwed)
	x.putEpoch("", c.epoch)
	x.putHystart(c.hystart) // Undo may bring the first slow start back.
	x.putBefore(c.before)
	if c.before.cwnd != 0 {
		x.putEpoch(undo, c.beforeEpoch)
	}
	return c.state("cubic", x)
}

func (c *cubic) restore(s State, now, mss int64) {
	x := extra(s.Extra)
	c.load(s, mss)
	c.now = now
	if c.hystart = x.hystart(); len(x) == 0 {
		return
	}
	c.steer()
	c.epoch = x.epoch("")
	c.owed = x.get(keyOwed, 0, c.cwnd-1)
	c.westOwed = x.get(keyWestOwed, 0, alphaDen*c.cwnd-1)
	c.before = x.before(mss)
	if c.before.cwnd != 0 {
		c.beforeEpoch = x.epoch(undo)
	}
}

func (w *window) state(name string, x extra) State {
	s := State{Name: name, Window: w.cwnd, Threshold: w.ssthresh, Extra: x}
	if s.Threshold == Unlimited {
		s.Threshold = 0
	}
	return s
}

// load takes a State's window; one without keeps the initial window.
func (w *window) load(s State, mss int64) {
	if s.Window != 0 {
		w.set(s.Window, mss)
	}
	w.ssthresh = threshold(s.Threshold, mss)
}

// threshold brings a stored threshold into range; 0 and whatever no window can
// reach mean Unlimited.
func threshold(v, mss int64) int64 {
	if v == 0 || v > maxWindow {
		return Unlimited
	}
	return max(v, 2*mss)
}

// extra is State.Extra with what reading and writing it needs. A nil one reads
// as empty.
type extra map[string]int64

// put leaves out zeros, which is what get gives for what is not there.
func (x *extra) put(key string, v int64) {
	if v != 0 {
		x.set(key, v)
	}
}

func (x *extra) set(key string, v int64) {
	if *x == nil {
		*x = make(extra)
	}
	(*x)[key] = v
}

func (x extra) get(key string, lo, hi int64) int64 {
	return min(max(x[key], lo), hi)
}

func (x *extra) putBefore(w window) {
	if w.cwnd == 0 {
		return
	}
	x.set(keyUndoWindow, w.cwnd)
	if w.ssthresh != Unlimited {
		x.set(keyUndoThreshold, w.ssthresh)
	}
}

func (x extra) before(mss int64) (w window) {
	if v := x[keyUndoWindow]; v != 0 {
		w.set(v, mss)
		w.ssthresh = threshold(x[keyUndoThreshold], mss)
	}
	return w
}

func (x *extra) putEpoch(prefix string, e epoch) {
	x.put(prefix+keyWmax, e.wmax)
	x.put(prefix+keyPrior, e.prior)
	x.put(prefix+keyK, e.k)
	x.put(prefix+keyWest, e.west)
	if e.elapsed != noEpoch {
		x.set(prefix+keyElapsed, e.elapsed)
	}
}

func (x extra) epoch(prefix string) epoch {
	e := epoch{
		wmax:    x.get(prefix+keyWmax, 0, maxWindow),
		prior:   x.get(prefix+keyPrior, 0, maxWindow),
		k:       x.get(prefix+keyK, 0, maxK),
		west:    x.get(prefix+keyWest, 0, maxWindow),
		elapsed: noEpoch,
	}
	if _, ok := x[prefix+keyElapsed]; ok {
		e.elapsed = x.get(prefix+keyElapsed, 0, maxElapsed)
	}
	return e
}

func (x *extra) putHystart(h hystart) {
	x.put(keyRound, int64(h.round))
	x.put(keyLast, int64(h.last))
	x.put(keyBaseline, int64(h.baseline))
	x.put(keySamples, int64(h.samples))
	x.put(keyRounds, int64(h.rounds))
}

func (x extra) hystart() hystart {
	return hystart{
		round:    uint32(x.get(keyRound, 0, 1<<31)),
		last:     uint32(x.get(keyLast, 0, 1<<31)),
		baseline: uint32(x.get(keyBaseline, 0, 1<<31)),
		samples:  uint8(x.get(keySamples, 0, nRTTSample)),
		rounds:   uint8(x.get(keyRounds, 0, cssRounds)),
	}
}
