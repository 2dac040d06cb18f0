package conn

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// A fifo's slice holds what a plain one would, whatever is pushed and cut off.
func TestFifo(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var f fifo[int]
		var q, want []int
		for i := range rapid.IntRange(1, 200).Draw(t, "steps") {
			if n := rapid.IntRange(0, 3).Draw(t, "cut"); n > 0 && n <= len(q) {
				q, want = q[n:], want[n:]
				if len(q) == 0 {
					q = f.empty(8)
				}
			}
			q, want = f.push(q, i), append(want, i)
			if !slices.Equal(q, want) {
				t.Fatalf("%v, want %v", q, want)
			}
		}
	})
}

// A queue that stays short does not allocate, however much passes through it.
func TestFifoDoesNotAllocate(t *testing.T) {
	var f fifo[int]
	var q []int
	for range 10 {
		q = f.push(q, 1)
	}
	if n := testing.AllocsPerRun(1000, func() { q = f.push(q[1:], 1) }); n != 0 {
		t.Errorf("%v allocations for each element", n)
	}
	if q = f.empty(4); cap(q) != 0 {
		t.Errorf("an empty queue keeps room for %d", cap(q))
	}
}
