// Package impair decides what a bad network does to each packet: lose it,
// delay it, double it, damage it. It is pure: time and sizes go in as values,
// a verdict comes out, and the same seed with the same arrivals always gives
// the same verdicts, so a wire in real time and a simulator in virtual time
// can share it.
package impair

import (
	"fmt"
	"math"
	"time"
)

const (
	// DefaultQueue is the room of the rate limiter's queue, in bytes, where
	// Config.Queue is 0.
	DefaultQueue = 256 << 10
	// DefaultReorderBy is how far a reordered packet is held back where
	// Config.ReorderBy is 0.
	DefaultReorderBy = time.Millisecond
)

// Config is what one direction of a link does to packets. Its zero value is a
// perfect link. Probabilities are in [0, 1] and apply to each packet.
type Config struct {
	// Loss is the share of packets lost in the long run.
	Loss float64
	// BurstLength is the mean number of packets lost in a row (Gilbert's
	// two-state model, with Loss still the overall share). 0: losses are
	// independent of each other.
	BurstLength float64
	// Delay is added to every packet.
	Delay time.Duration
	// Jitter is the upper end of a further delay, drawn evenly from
	// [0, Jitter]. It does not change the order of packets.
	Jitter time.Duration
	// Reorder is the probability that a packet is held back by ReorderBy
	// while those behind it pass.
	Reorder float64
	// ReorderBy is how long a reordered packet is held back; 0 means
	// DefaultReorderBy.
	ReorderBy time.Duration
	// Duplicate is the probability that a packet arrives twice.
	Duplicate float64
	// Corrupt is the probability that one bit of a copy is flipped.
	Corrupt float64
	// Rate is the link's speed in bits per second; 0: without limit.
	Rate int64
	// Queue is how many bytes may wait for the link at that Rate; a packet
	// that finds no room is dropped. 0 means DefaultQueue.
	Queue int
}

// Perfect reports whether nothing at all happens to packets.
func (c Config) Perfect() bool {
	return c.Loss == 0 && c.Delay == 0 && c.Jitter == 0 && c.Reorder == 0 &&
		c.Duplicate == 0 && c.Corrupt == 0 && c.Rate == 0
}

// Validate reports the first value that is out of range or impossible.
func (c Config) Validate() error {
	for _, p := range []struct {
		name  string
		value float64
	}{{"loss", c.Loss}, {"reorder", c.Reorder}, {"duplicate", c.Duplicate}, {"corrupt", c.Corrupt}} {
		if !(p.value >= 0 && p.value <= 1) { // NaN fails both
			return fmt.Errorf("impair: %s is %v, want a probability from 0 to 1", p.name, p.value)
		}
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{{"delay", c.Delay}, {"jitter", c.Jitter}, {"reorder-by", c.ReorderBy}} {
		if d.value < 0 || d.value > time.Hour {
			return fmt.Errorf("impair: %s is %v, want 0 to 1h", d.name, d.value)
		}
	}
	if c.Rate < 0 || c.Queue < 0 {
		return fmt.Errorf("impair: rate %d and queue %d must not be negative", c.Rate, c.Queue)
	}
	return c.validateBurst()
}

func (c Config) validateBurst() error {
	if c.BurstLength == 0 {
		return nil
	}
	if !(c.BurstLength >= 1) || math.IsInf(c.BurstLength, 0) {
		return fmt.Errorf("impair: burst length is %v, want 0 or at least 1 packet", c.BurstLength)
	}
	if c.Loss < 1 && c.Loss/(1-c.Loss) > c.BurstLength {
		return fmt.Errorf("impair: a loss of %v cannot be had in bursts of %v packets", c.Loss, c.BurstLength)
	}
	return nil
}
