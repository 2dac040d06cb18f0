package conn

import (
	"math"
	"time"
)

// Time is a moment in nanoseconds on the caller's monotonic clock. Its zero is
// the caller's to choose; only differences mean anything here.
type Time int64

// Never is later than every moment: the deadline of a timer that is not set.
const Never Time = math.MaxInt64

// Add returns the moment d after t. Never stays Never.
func (t Time) Add(d time.Duration) Time {
	if t == Never {
		return Never
	}
	return t + Time(d)
}

// Sub returns how long u lies before t.
func (t Time) Sub(u Time) time.Duration { return time.Duration(t - u) }
