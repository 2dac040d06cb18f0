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

// TestBatch checks that each beginning has an end, and that a batch is bounded.
func TestBatch(t *testing.T) {
	open, begun := 0, 0
	b := batch{to: &batcher{
		begin: func() { open++; begun++ },
		end:   func() { open-- },
	}}
	if b.end() {
		t.Error("an empty batch counts as one")
	}
	for range 2*batchFrames + 1 {
		if b.begin(); open != 1 {
			t.Fatalf("%d batches are open", open)
		}
	}
	if begun != 3 {
		t.Errorf("%d batches, want 3", begun)
	}
	if !b.end() || open != 0 {
		t.Errorf("%d batches are open after the end", open)
	}
}
