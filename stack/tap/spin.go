//go:build linux

package tap

import "time"

// DefaultSpin is how long a reader looks for the next frame before it sleeps,
// where Config.Spin is 0. It is a little more than it takes to sleep and be
// woken, several times more than a peer on the same machine takes to answer.
const DefaultSpin = 50 * time.Microsecond

// spinner decides whether a reader that found no frame looks again or sleeps.
// Looking again pays where frames follow each other closely: there is no thread
// to wake. So it spins only while that has been so, and stops at once when it
// was in vain.
type spinner struct {
	limit time.Duration // the longest it spins; not positive: never
	since time.Time     // when the queue was found empty; zero: it was not
	slept bool          // since then
	quick int           // how many waits in a row were short
}

// wakeTime is what sleeping and being woken adds to a wait at most, usually.
const wakeTime = 50 * time.Microsecond

// spinAfter is how many short waits in a row make spinning worth a try.
const spinAfter = 3

// again reports whether to look again.
func (s *spinner) again() bool {
	if s.limit <= 0 {
		return false
	}
	if s.since.IsZero() {
		s.since = time.Now()
		s.slept = s.quick < spinAfter
	} else if time.Since(s.since) >= s.limit {
		s.slept = true
	}
	return !s.slept
}

// found notes that there is a frame.
func (s *spinner) found() {
	if s.since.IsZero() {
		return
	}
	limit := s.limit
	if s.slept {
		limit += wakeTime
	}
	if time.Since(s.since) < limit {
		s.quick++
	} else {
		s.quick = 0
	}
	s.since = time.Time{}
}
