package conn

import (
	"slices"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// timedOut returns a trace of ten segments, the last of which was SACKed, in
// which all else was lost and the head has just been repeated by the timer.
func timedOut(t *testing.T) *trace {
	tr := newTrace(t, 10)
	tr.ack(0, [2]int{9, 10})
	for end := tr.now.Add(time.Minute); tr.c.loss.phase != phaseLoss; tr.drain() {
		if !tr.tick(end) {
			t.Fatal("no timeout")
		}
	}
	tr.now = tr.now.Add(10 * time.Millisecond)
	return tr
}

// After a timeout each acknowledgement lets one segment more go. One that is
// silent about what was SACKed tells that the peer may have thrown that away: it
// takes the place of one segment only, and all is sent again.
// https://www.rfc-editor.org/rfc/rfc2018#section-8
func TestSilenceAboutSACKAfterTimeout(t *testing.T) {
	tr := timedOut(t)
	tr.want("an acknowledgement with its block", tr.ack(1, [2]int{9, 10}), []int{1, 2})

	tr = timedOut(t)
	tr.want("one without", tr.ack(1), []int{1})
	if n := tr.c.board.sacked.segs; n != 0 {
		t.Errorf("%d segments still count as SACKed", n)
	}
	tr.want("the next", tr.ack(2), []int{2, 3})
	var again []int
	for una := 3; una < 9; una++ {
		tr.now = tr.now.Add(10 * time.Millisecond)
		again = append(again, tr.ack(una)...)
	}
	if !slices.Contains(again, 9) {
		t.Errorf("what was thrown away is not sent again: %v", again)
	}
	if err := tr.c.check(); err != nil {
		t.Error(err)
	}
}

// In a recovery as well, an acknowledgement that is silent about what was SACKed,
// or tells of what is not outstanding, lets one segment go.
func TestDoubtfulAcknowledgementInRecovery(t *testing.T) {
	for _, tc := range []struct {
		name  string
		una   int
		sacks [][2]int
		want  int
	}{
		{"in order", 4, [][2]int{{11, 20}}, 4},
		{"silent", 4, nil, 1},
		{"a block below the acknowledgement, not as a DSACK", 4, [][2]int{{11, 20}, {0, 2}}, 1},
		{"a block of what was never sent", 4, [][2]int{{11, 20}, {30, 31}}, 1},
	} {
		tr := newTrace(t, 20, func(c *Config) { c.SndBuf = 1 << 20 })
		tr.ack(0, [2]int{11, 20}) // more than half: below the threshold, it is one for one
		if tr.c.loss.phase != phaseRecovery {
			t.Fatal("no recovery")
		}
		tr.now = tr.now.Add(10 * time.Millisecond)
		if got := tr.ack(tc.una, tc.sacks...); len(got) != tc.want {
			t.Errorf("%s: segments %v are sent, want %d", tc.name, got, tc.want)
		}
	}
}

// What the peer had once, and threw away, it may have again.
func TestSACKedAgainAfterReneging(t *testing.T) {
	var b scoreboard
	b.reset()
	b.sent(1, 0, 10_000, 1000)
	block := []header.SACKBlock{{Start: 5000, End: 6000}}
	d := b.expect()
	b.take(block, 0, 10_000, &d)
	b.markAll(true)
	if b.sacked.segs != 0 || b.lostOut.segs != 10 {
		t.Fatalf("%d SACKed, %d lost", b.sacked.segs, b.lostOut.segs)
	}
	d = b.expect()
	b.take(block, 0, 10_000, &d)
	if b.sacked.segs != 1 || b.lostOut.segs != 9 {
		t.Errorf("%d SACKed and %d lost after it was SACKed again", b.sacked.segs, b.lostOut.segs)
	}
}
