package conn

import (
	"slices"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/seqnum"
)

// trace is a sender with plenty to send whose peer is the test. Segments are
// counted from the first that is in flight when it begins.
type trace struct {
	*scripted
	base seqnum.Value
	size int
	echo uint32 // what acknowledgements echo; 0: the present
}

// newTrace returns a Reno sender with flight segments out (10, 20, 40, …) and
// 2·flight written beyond.
func newTrace(t *testing.T, flight int, tune ...func(*Config)) *trace {
	tr := &trace{scripted: newScripted(t, append([]func(*Config){func(c *Config) {
		c.Congestion, c.GSOMax, c.SndBuf = "reno", 0, 1<<20
	}}, tune...)...)}
	tr.size = tr.c.segmentSize()
	tr.in(tr.seg(0, tr.c.snd.nxt, "")) // a window that is scaled
	total := 0
	for n := 10; n <= flight; n *= 2 {
		total += n
	}
	tr.write((total + 2*flight) * tr.size)
	for n := 10; ; n *= 2 {
		if got := len(tr.drain()); got != n {
			t.Fatalf("slow start sent %d segments, want %d", got, n)
		}
		tr.base = tr.c.snd.una
		if n == flight {
			break
		}
		tr.now = tr.now.Add(10 * time.Millisecond)
		tr.in(tr.seg(0, tr.c.snd.nxt, ""))
	}
	tr.now = tr.now.Add(10 * time.Millisecond)
	return tr
}

func (tr *trace) at(segment int) seqnum.Value {
	return tr.base.Add(seqnum.Size(segment * tr.size))
}

// ack acknowledges the segments before una, SACKs the ranges [from, to), and
// returns which segments are sent.
func (tr *trace) ack(una int, sacks ...[2]int) []int {
	g := tr.seg(0, tr.at(una), "")
	if g.Options.HasTS && tr.echo != 0 {
		g.Options.TSEcr = tr.echo
	}
	for _, r := range sacks {
		g.Options.SACK[g.Options.NumSACK] = header.SACKBlock{Start: tr.at(r[0]), End: tr.at(r[1])}
		g.Options.NumSACK++
	}
	tr.in(g)
	return tr.sent()
}

func (tr *trace) sent() (segments []int) {
	for _, o := range tr.drain() {
		if o.DataLen() > 0 {
			segments = append(segments, int(tr.base.Size(o.Seq))/tr.size)
		}
	}
	return segments
}

func (tr *trace) want(what string, got, want []int) {
	tr.t.Helper()
	if !slices.Equal(got, want) {
		tr.t.Fatalf("%s: segments %v are sent, want %v", what, got, want)
	}
}

// count is n consecutive segments.
func count(from, n int) (l []int) {
	for i := range n {
		l = append(l, from+i)
	}
	return l
}

func noSACK(c *Config)  { c.SACK, c.RACK = false, false }
func noRACK(c *Config)  { c.RACK = false }
func noStamp(c *Config) { c.Timestamps = false }

// Without SACK each duplicate acknowledgement takes a segment out of what is in
// flight, and new data goes when that is below the new window.
// https://www.rfc-editor.org/rfc/rfc6582#section-3.2
func TestNewRenoWindow(t *testing.T) {
	tr := newTrace(t, 20, noSACK)
	tr.want("first duplicate", tr.ack(0), nil) // plenty in flight: no limited transmit
	tr.want("second duplicate", tr.ack(0), nil)
	tr.want("third duplicate", tr.ack(0), []int{0})
	for range 7 {
		tr.want("a duplicate above the window", tr.ack(0), nil)
	}
	tr.want("a duplicate at the window", tr.ack(0), []int{20})
	for i := range 7 {
		tr.want("a duplicate below it", tr.ack(0), []int{21 + i})
	}
	tr.want("full acknowledgement", tr.ack(20), count(28, 2+1)) // a window of 10 and the increase it has earned
	if n := tr.c.Counters(); n.FastRecoveries != 1 || n.FastRetransmits != 1 {
		t.Errorf("%+v", n)
	}
}

// A partial acknowledgement retransmits the next hole at once, whatever is in
// flight, and duplicates that told of what is above the hole still count.
func TestNewRenoPartialAcknowledgement(t *testing.T) {
	tr := newTrace(t, 40, noSACK)
	for range 10 {
		tr.ack(0)
	}
	tr.want("partial acknowledgement", tr.ack(20), append([]int{20}, count(40, 10)...))
	if n := tr.c.Counters(); n.FastRetransmits != 2 {
		t.Errorf("%d fast retransmissions, want 2", n.FastRetransmits)
	}
}

// Duplicates after a recovery, with nothing beyond it acknowledged, begin no
// other. https://www.rfc-editor.org/rfc/rfc6582#section-3.2 (step 1)
func TestNewRenoIsNotEnteredTwice(t *testing.T) {
	tr := newTrace(t, 20, noSACK)
	for range 13 {
		tr.ack(0)
	}
	tr.ack(20)
	for range 5 {
		if slices.Contains(tr.ack(20), 20) {
			t.Fatal("a segment beyond the recovery is taken for lost by duplicates of it")
		}
	}
	tr.ack(21)
	for range 2 {
		tr.ack(21)
	}
	if !slices.Contains(tr.ack(21), 21) {
		t.Error("duplicates beyond the recovery begin none")
	}
}

// RACK switched off: three selective acknowledgements above a hole, one fast
// retransmission, and then what is in flight is held to the window.
// https://www.rfc-editor.org/rfc/rfc6675#section-5
func TestRecoveryWithoutRACK(t *testing.T) {
	tr := newTrace(t, 40, noRACK)
	tr.ack(0, [2]int{3, 4})
	tr.ack(0, [2]int{3, 5})
	tr.want("third", tr.ack(0, [2]int{3, 6}), []int{0})
	for i := range 7 {
		tr.want("more", tr.ack(0, [2]int{3, 7 + i}), nil)
	}
	got := tr.ack(20, [2]int{23, 29})
	tr.want("partial acknowledgement", got, append([]int{20, 21, 22}, count(40, 9)...))
	if n := tr.c.Counters(); n.FastRetransmits != 1 || n.Retransmits != 4 || n.SACKRecoveries != 1 {
		t.Errorf("%+v", n)
	}
}

// A closed window stops retransmissions; the timer alone repeats the oldest
// segment. When it opens, what was repeated in vain goes again at once.
// https://www.rfc-editor.org/rfc/rfc9293#section-3.8.6.1
func TestClosedWindowStopsRetransmissions(t *testing.T) {
	tr := newTrace(t, 10)
	tr.want("three selective acknowledgements", tr.ack(0, [2]int{4, 8})[:1], []int{0})
	tr.wnd = 0
	tr.now = tr.now.Add(10 * time.Millisecond)
	tr.want("a partial acknowledgement that closes the window", tr.ack(1, [2]int{4, 8}), nil)
	begun := tr.now
	for n := 0; n < 3; {
		if !tr.tick(tr.now.Add(time.Minute)) {
			t.Fatal("no timer")
		}
		if got := tr.sent(); len(got) > 0 {
			tr.want("the timer", got, []int{1})
			n++
			tr.want("an answer that keeps it closed", tr.ack(1, [2]int{4, 8}), nil)
		}
	}
	if took := tr.now.Sub(begun); took < 600*time.Millisecond {
		t.Errorf("three probes in %v", took)
	}
	tr.wnd = 0xffff
	tr.want("the window opens", tr.ack(1, [2]int{4, 8}), []int{1})
}

// An acknowledgement of the probe that comes too soon to be of the repetition
// still tells by what else it covers.
// https://www.rfc-editor.org/rfc/rfc8985#section-6.2 (step 2)
func TestRACKTakesTheOthersOfADelivery(t *testing.T) {
	tr := newTrace(t, 10)
	tr.want("nothing before the probe", tr.sent(), nil)
	tr.c.change().opts.Keepalive.On = false
	for !slices.Contains(tr.sent(), 0) && tr.c.Counters().TailLossProbes == 0 {
		if !tr.tick(tr.now.Add(time.Second)) {
			t.Fatal("no probe")
		}
	}
	end := int(tr.base.Size(tr.c.snd.nxt)) / tr.size
	tr.now = tr.now.Add(time.Millisecond) // less than any round trip
	tr.ack(0, [2]int{8, end})
	tr.tick(tr.now.Add(20 * time.Millisecond))
	if tr.c.loss.phase != phaseRecovery {
		t.Errorf("phase %d: two segments that were sent once overtook eight, and none is taken for lost", tr.c.loss.phase)
	}
}

// Without SACK an acknowledgement of the head that leaps over many segments
// tells that they waited for it: the timeout was no false alarm.
func TestLeapAfterTimeoutIsNoFalseAlarm(t *testing.T) {
	for _, tc := range []struct {
		una  int
		want []int
	}{
		{5, []int{5, 6, 7, 8, 9}},
		{1, []int{10, 11}}, // new data first, to see (RFC 5682 section 2.1 step 2b)
	} {
		tr := newTrace(t, 10, noSACK, noStamp)
		tr.tick(tr.now.Add(time.Minute))
		tr.want("timeout", tr.sent(), []int{0})
		tr.now = tr.now.Add(10 * time.Millisecond)
		got := tr.ack(tc.una)
		tr.want("acknowledgement", got[:min(len(got), len(tc.want))], tc.want)
	}
}

// What an acknowledgement that was overtaken SACKs is news all the same.
func TestOldAcknowledgementWithSACK(t *testing.T) {
	tr := newTrace(t, 10)
	tr.ack(2, [2]int{4, 5})
	before := tr.c.board.sacked.segs
	tr.ack(1, [2]int{6, 8})
	if got := tr.c.board.sacked.segs - before; got != 2 {
		t.Errorf("%d segments more are known to have arrived, want 2", got)
	}
	if tr.c.snd.una != tr.at(2) {
		t.Error("SND.UNA moved back")
	}
}

// The degree of reordering is the distance from the highest that was SACKed to
// the lowest that came after it without a retransmission.
func TestReorderingDegree(t *testing.T) {
	for _, tune := range []func(*Config){func(*Config) {}, noRACK} {
		tr := newTrace(t, 20, tune)
		for _, step := range []struct {
			sacks [][2]int
			want  int
		}{
			{[][2]int{{2, 3}}, 3},
			{[][2]int{{2, 3}, {8, 9}}, 3},
			{[][2]int{{2, 3}, {7, 9}}, 3},         // late by 2
			{[][2]int{{2, 4}, {7, 9}}, 6},         // 8:9 before 3:4
			{[][2]int{{2, 4}, {7, 9}, {5, 6}}, 6}, // a smaller distance changes nothing
		} {
			tr.ack(0, step.sacks...)
			if got := tr.c.Info(tr.now).ReorderingDegree; got != step.want {
				t.Errorf("after %v: %d, want %d", step.sacks, got, step.want)
			}
		}
	}
}

// The window grows by what an acknowledgement newly tells of, not by what
// selective or duplicate acknowledgements told of before.
func TestGrowthCountsDeliveriesOnce(t *testing.T) {
	for _, tune := range []func(*Config){func(*Config) {}, noSACK} {
		tr := newTrace(t, 10, tune)
		if tr.c.cfg.sack {
			tr.want("limited transmit", tr.ack(0, [2]int{1, 2}), []int{10})
			tr.want("limited transmit", tr.ack(0, [2]int{1, 3}), []int{11})
		} else {
			tr.want("limited transmit", tr.ack(0), []int{10})
			tr.want("limited transmit", tr.ack(0), []int{11})
		}
		tr.want("it was reordering", tr.ack(3), []int{12, 13}) // 9 in flight, a window of 11
	}
}

// A recovery that a late original proves needless is over, and the others that
// were called lost with it get the time to arrive.
func TestUndoGivesTheOthersTime(t *testing.T) {
	tr := newTrace(t, 10)
	first := tr.c.tstamp.value(tr.now.Add(-10 * time.Millisecond))
	tr.now = tr.now.Add(5 * time.Millisecond)
	got := tr.ack(0, [2]int{4, 8})
	tr.want("three and more overtook them", got[:2], []int{0, 1})
	tr.now = tr.now.Add(time.Millisecond)
	tr.echo = first
	if got := tr.ack(1, [2]int{4, 8}); slices.Contains(got, 3) {
		t.Errorf("%v are sent at once", got)
	}
	if tr.c.loss.phase >= phaseCWR || tr.c.Counters().SpuriousRecoveries != 1 {
		t.Errorf("phase %d, %+v", tr.c.loss.phase, tr.c.Counters())
	}
	tr.echo = 0
	for end := tr.now.Add(20 * time.Millisecond); !slices.Contains(tr.sent(), 3); {
		if !tr.tick(end) {
			t.Fatal("what did not come is not retransmitted after all")
		}
	}
}
