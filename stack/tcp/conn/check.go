package conn

import (
	"fmt"
)

// check verifies what must be true of a connection between any two calls.
// Tests and fuzzers call it after every step; it finds the fault near its
// cause.
func (c *Conn) check() error {
	if !sharedIntact() {
		return fmt.Errorf("what stands for nothing was written to")
	}
	if c.illegal != [2]State{} {
		return fmt.Errorf("illegal transition %s -> %s", c.illegal[0], c.illegal[1])
	}
	if c.State() == StateClosed {
		return nil
	}
	for _, f := range []func() error{c.checkSend, c.checkBoard, c.checkReceive, c.checkTimers, c.checkPrediction} {
		if err := f(); err != nil {
			return fmt.Errorf("%s in %s", err, c.state)
		}
	}
	return nil
}

func (c *Conn) checkSend() error {
	if c.snd.nxt.LessThan(c.snd.una) {
		return fmt.Errorf("SND.NXT %d before SND.UNA %d", c.snd.nxt, c.snd.una)
	}
	if !c.state.Synchronized() || c.state == StateTimeWait {
		return nil
	}
	limit := c.finSeq()
	if finQueued.has(c.state) {
		limit++
	}
	if limit.LessThan(c.snd.nxt) {
		return fmt.Errorf("SND.NXT %d after the end of what was written, %d", c.snd.nxt, limit)
	}
	if want := c.snd.una; c.sendq.start != want && !(c.finAcked() && c.sendq.start == c.finSeq()) {
		return fmt.Errorf("send queue begins at %d, SND.UNA is %d", c.sendq.start, want)
	}
	var n int
	at := c.sendq.start
	for i := range c.sendq.chunks {
		k := &c.sendq.chunks[i]
		if i > 0 && k.start != at {
			return fmt.Errorf("send chunk %d begins at %d, want %d", i, k.start, at)
		}
		at = k.end()
		n += k.used
	}
	if n < c.sendq.size() {
		return fmt.Errorf("send queue of %d bytes has %d", c.sendq.size(), n)
	}
	return nil
}

func (c *Conn) checkBoard() error {
	b := &c.board
	if !c.state.Synchronized() {
		return nil
	}
	var sacked, lost, rtxOut tally
	at := c.snd.una
	for i := range b.recs {
		r := &b.recs[i]
		if r.seq != at || r.size == 0 {
			return fmt.Errorf("record %d is %d+%d, want it at %d", i, r.seq, r.size, at)
		}
		at = r.end()
		switch {
		case r.is(recSacked) && r.is(recLost|recRtx):
			return fmt.Errorf("record %d is SACKed and lost", i)
		case r.is(recRtx) && !r.is(recLost):
			return fmt.Errorf("record %d is retransmitted and not lost", i)
		}
		for _, t := range []struct {
			flag recordFlags
			sum  *tally
		}{{recSacked, &sacked}, {recLost, &lost}, {recRtx, &rtxOut}} {
			if r.is(t.flag) {
				t.sum.add(r)
			}
		}
	}
	if len(b.recs) > 0 && at != c.snd.nxt {
		return fmt.Errorf("records end at %d, SND.NXT is %d", at, c.snd.nxt)
	}
	if len(b.recs) == 0 && c.snd.una != c.snd.nxt {
		return fmt.Errorf("no record of %d:%d", c.snd.una, c.snd.nxt)
	}
	if sacked != b.sacked || lost != b.lostOut || rtxOut != b.rtxOut {
		return fmt.Errorf("tallies %v %v %v, counted %v %v %v", b.sacked, b.lostOut, b.rtxOut, sacked, lost, rtxOut)
	}
	if out := int64(c.snd.una.Size(c.snd.nxt)) - b.sacked.bytes - b.lostOut.bytes + b.rtxOut.bytes; out < 0 {
		return fmt.Errorf("flight is %d", out)
	}
	return nil
}

func (c *Conn) checkReceive() error {
	if c.rcv.irs == 0 && c.rcv.nxt == 0 {
		return nil // SYN-SENT
	}
	edge := c.rcv.adv
	at := c.rcv.nxt
	for i := range c.reasm.spans {
		p := &c.reasm.spans[i]
		if !at.LessThan(p.seq) {
			return fmt.Errorf("span %d at %d touches %d", i, p.seq, at)
		}
		if p.data.Size() == 0 {
			return fmt.Errorf("span %d is empty", i)
		}
		at = p.end()
	}
	if len(c.reasm.spans) > 0 && edge.LessThan(at) {
		return fmt.Errorf("out-of-order data ends at %d, beyond the window's edge %d", at, edge)
	}
	if c.cfg.sack && !c.reasm.empty() && len(c.sacks.recent) == 0 {
		return fmt.Errorf("%d spans and no SACK block", len(c.reasm.spans))
	}
	for _, k := range c.sacks.recent {
		if !k.Start.LessThan(k.End) || k.End.LessThanEq(c.rcv.nxt) {
			return fmt.Errorf("SACK block %d:%d with RCV.NXT %d", k.Start, k.End, c.rcv.nxt)
		}
	}
	return nil
}

func (c *Conn) checkTimers() error {
	if !c.board.empty() && !c.timers.running(timerRTO) {
		return fmt.Errorf("%d segments outstanding and no retransmission timer", len(c.board.recs))
	}
	if c.state == StateTimeWait && !c.timers.running(timerTimeWait) {
		return fmt.Errorf("TIME-WAIT without end")
	}
	return nil
}

func (c *Conn) checkPrediction() error {
	was := c.predicted
	c.predict()
	if want := c.predicted; was != want && was != 0 {
		return fmt.Errorf("prediction word is %#x, want %#x", was, want)
	}
	c.predicted = was
	if c.frozen && was != 0 {
		return fmt.Errorf("frozen with prediction word %#x", was)
	}
	return nil
}
