package conn

import (
	"math"
	"testing"
)

// A buffer grows as far as it may and no further, and one that is restored has no
// more than the new host gives.
func TestBufferSize(t *testing.T) {
	for _, tc := range []struct {
		name          string
		size, most    int
		change        func(*bufferSize)
		want, wantCap uint32
	}{
		{"as it is", 100, 1000, func(*bufferSize) {}, 100, 1000},
		{"may not grow", 100, 0, func(b *bufferSize) { b.grow(500) }, 100, 0},
		{"need not grow", 100, 100, func(b *bufferSize) { b.grow(500) }, 100, 0},
		{"grows", 100, 1000, func(b *bufferSize) { b.grow(500) }, 500, 1000},
		{"grows too far", 100, 1000, func(b *bufferSize) { b.grow(math.MaxInt64) }, 1000, 1000},
		{"does not shrink", 100, 1000, func(b *bufferSize) { b.grow(50) }, 100, 1000},
		{"is larger than can be", math.MaxInt, math.MaxInt, func(*bufferSize) {}, maxBuffer, 0},
		{"restored", 100, 1000, func(b *bufferSize) { b.restore(300, 600) }, 300, 600},
		{"restored, too large", 100, 1000, func(b *bufferSize) { b.restore(3000, 6000) }, 1000, 1000},
		{"restored, the user's", 100, 1000, func(b *bufferSize) { b.restore(300, 0) }, 300, 0},
		{"restored, not known", 100, 1000, func(b *bufferSize) { b.restore(0, 600) }, 100, 1000},
	} {
		b := sized(tc.size, tc.most)
		tc.change(&b)
		if b.max != tc.want || b.cap != tc.wantCap {
			t.Errorf("%s: %d, up to %d; want %d, up to %d", tc.name, b.max, b.cap, tc.want, tc.wantCap)
		}
	}
}
