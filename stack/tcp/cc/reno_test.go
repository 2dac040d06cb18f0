package cc

import (
	"testing"
	"time"
)

func TestRenoTrajectory(t *testing.T) {
	for name, steps := range map[string][]step{
		"loss": {
			{"slow start doubles", rounds(1), 20, -1},
			{"and again", rounds(2), 80, -1},
			{"loss halves", signal(Loss), 40, 40},
			{"one segment a round", rounds(1), 41, 40},
			{"for five rounds", rounds(4), 45, 40},
			{"ECN halves too", signal(ECN), 22, 22},
		},
		"timeout": {
			{"slow start", rounds(2), 40, -1},
			{"one segment is left", signal(Timeout), 1, 20},
			{"slow start to a power of two", rounds(4), 16, 20},
			// 4 of the 16 segments take it to the threshold; 12 count for
			// avoidance, which needs 20.
			{"stops at the threshold", rounds(1), 20, 20},
			{"the rest counts", ackSegments(8), 21, 20},
		},
		"one acknowledgement for all after a timeout": {
			{"slow start", rounds(2), 40, -1},
			{"timeout", signal(Timeout), 1, 20},
			// 19 to the threshold, 20 for the next segment, and no more than one.
			{"slow start and avoidance in one", ackSegments(60), 21, 20},
			{"one is missing", ackSegments(20), 21, 20},
			{"it comes", ackSegments(1), 22, 20},
		},
		"one acknowledgement for all after a recovery": {
			{"slow start", rounds(2), 40, -1},
			{"loss", signal(Loss), 20, 20},
			{"counts as one round", ackSegments(40), 21, 20},
			{"the next is whole", ackSegments(20), 21, 20},
			{"and then over", ackSegments(1), 22, 20},
		},
		"undo": {
			{"slow start", rounds(2), 40, -1},
			{"loss", signal(Loss), 20, 20},
			{"undo", undoIt, 40, -1},
			{"undo again does nothing", undoIt, 40, -1},
			{"loss", signal(Loss), 20, 20},
			{"timeout", signal(Timeout), 1, 10},
			{"undo takes back the latest", undoIt, 20, 20},
			{"loss", signal(Loss), 10, 10},
			{"growth past what it was", rounds(11), 21, 10},
			{"undo keeps the larger window", undoIt, 21, 20},
		},
		"floor": {
			{"loss", signal(Loss), 5, 5},
			{"timeout", signal(Timeout), 1, 2},
			{"loss at one segment", signal(Loss), 2, 2},
			{"and again", signal(Loss), 2, 2},
		},
		"idle": {
			{"slow start", rounds(4), 160, -1},
			{"shorter than the timeout", idle(999 * time.Millisecond), 160, -1},
			{"one timeout", idle(time.Second), 80, -1},
			{"loss", signal(Loss), 40, 40},
			{"two timeouts", idle(2 * time.Second), 10, 40},
			{"a year", idle(365 * 24 * time.Hour), 10, 40},
		},
		"idle remembers": {
			{"slow start", rounds(4), 160, -1},
			{"loss", signal(Loss), 80, 80},
			{"avoidance", rounds(40), 120, 80},
			{"idle", idle(3 * time.Second), 15, 90},
			{"slow start after idle", rounds(2), 60, 90},
			{"ends", rounds(1), 90, 90},
		},
		"application limited": {
			{"no slow start", limited, 10, -1},
			{"loss", signal(Loss), 5, 5},
			{"no avoidance", limited, 5, 5},
			{"the limited bytes do not count later", ackSegments(4), 5, 5},
		},
	} {
		t.Run(name, func(t *testing.T) { runSteps(t, "reno", steps) })
	}
}

// A byte at a time makes the same window as a segment at a time.
func TestRenoCountsBytes(t *testing.T) {
	f := newFlow(t, "reno", time.Millisecond, 1)
	f.signal(Loss)
	for range 5 * mss {
		f.wantSegments(t, "before the last byte", 5, 5)
		f.ack(1, false)
	}
	f.wantSegments(t, "after it", 6, 5)
}

// What was sent beyond the window must not raise the threshold above it, and
// what was not sent lowers it.
func TestRenoHalvesFlight(t *testing.T) {
	for _, tt := range []struct{ flight, want int64 }{
		{10 * mss, 5 * mss},
		{6 * mss, 3 * mss},
		{100 * mss, 5 * mss},
		{0, 2 * mss},
		{-5, 2 * mss},
	} {
		f := newFlow(t, "reno", time.Millisecond, 1)
		f.OnCongestion(Congestion{Now: f.now, Flight: tt.flight, MSS: mss})
		if f.Threshold() != tt.want || f.Window() != tt.want {
			t.Errorf("flight %d: window %d, threshold %d, want %d", tt.flight, f.Window(), f.Threshold(), tt.want)
		}
	}
}
