//go:build linux

package tap

import (
	"testing"
	"time"
)

// TestSpin checks that a reader spins only while frames follow closely.
func TestSpin(t *testing.T) {
	s := spinner{limit: time.Hour}
	for i := range spinAfter {
		if s.again() {
			t.Fatalf("spins after %d short waits", i)
		}
		s.found()
	}
	if !s.again() {
		t.Fatalf("sleeps after %d short waits", spinAfter)
	}
	s.since = s.since.Add(-2 * time.Hour)
	if s.again() {
		t.Error("spins past its limit")
	}
	s.found()
	if s.again() {
		t.Error("spins after a long wait")
	}
	// Being woken takes a while, which does not make a wait long.
	short := spinner{limit: time.Microsecond}
	for range spinAfter {
		short.again()
		short.since = time.Now()
		short.found()
	}
	short.since, short.slept = time.Now().Add(-wakeTime/2), true
	if short.found(); short.quick <= spinAfter {
		t.Error("a wait is long that ended in being woken")
	}
	if never := (spinner{limit: -1, quick: spinAfter}); never.again() {
		t.Error("spins though told not to")
	}
}

// TestBatch checks that each beginning has an end, that a batch is bounded, and
// that others have their turn in a long one.
func TestBatch(t *testing.T) {
	open, begun, turns, full := 0, 0, 0, 0
	b := batch{to: &batcher{
		begin: func() { open++; begun++ },
		turn: func() {
			if turns++; open != 1 {
				t.Errorf("a turn in %d batches", open)
			}
		},
		end: func(more bool) {
			if open--; more {
				full++
			}
		},
	}}
	b.end(false)
	if open != 0 {
		t.Fatal("a batch ended that had not begun")
	}
	for range 2*batchFrames + 1 {
		if b.begin(); open != 1 {
			t.Fatalf("%d batches are open", open)
		}
	}
	if begun != 3 {
		t.Errorf("%d batches, want 3", begun)
	}
	if want := 2 * (batchFrames/turnFrames - 1); turns != want {
		t.Errorf("%d turns, want %d", turns, want)
	}
	if full != begun-1 {
		t.Errorf("%d batches ended with more to come, want %d", full, begun-1)
	}
	b.end(false)
	b.end(false)
	if full != begun-1 {
		t.Error("a batch ended with more to come, of which there was none")
	}
	if open != 0 {
		t.Errorf("%d batches are open after the end", open)
	}
}
