package impair

import (
	"math"
	"math/rand/v2"
	"time"
)

// Cause says what became of a packet.
type Cause uint8

const (
	// Passed: it arrives, once or more often.
	Passed Cause = iota
	// Lost: the link lost it.
	Lost
	// QueueFull: the rate limiter's queue had no room.
	QueueFull
)

// String names the cause.
func (c Cause) String() string {
	switch c {
	case Passed:
		return "passed"
	case Lost:
		return "lost"
	case QueueFull:
		return "queue full"
	}
	return "unknown"
}

// NoFlip is the Delivery.Flip of an undamaged copy.
const NoFlip = -1

// Delivery is one arrival of a packet at the far end.
type Delivery struct {
	// At is when, on the caller's clock. Never before the packet was sent.
	At time.Duration
	// Flip is the bit to invert, counted from the first byte's lowest bit,
	// or NoFlip.
	Flip int
	// Late is set when the packet was held back so that others pass it.
	Late bool
}

// Damage inverts the bit that the delivery names, if it lies in b.
func (d Delivery) Damage(b []byte) {
	if d.Flip >= 0 && d.Flip/8 < len(b) {
		b[d.Flip/8] ^= 1 << (d.Flip % 8)
	}
}

// Verdict is what becomes of one packet.
type Verdict struct {
	// Cause is Passed, or why there are no deliveries.
	Cause  Cause
	copies [2]Delivery
	n      int
}

// Deliveries lists the arrivals in the order they were made: none for a packet
// that was dropped, two for a duplicated one. The slice is the verdict's own.
func (v *Verdict) Deliveries() []Delivery { return v.copies[:v.n] }

// Impairer decides for one direction of a link. It is not safe for concurrent
// use.
type Impairer struct {
	cfg Config
	// One generator a feature: changing one rate leaves what happens to be
	// drawn for the other features alone.
	loss, jitter, reorder, duplicate, corrupt *rand.Rand

	inBurst bool
	busy    time.Duration // when the rate limiter will be free
	last    time.Duration // the latest in-order arrival handed out
}

// New returns an Impairer; cfg is checked as by Config.Validate.
func New(cfg Config, seed uint64) (*Impairer, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	stream := func(i uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, i)) }
	return &Impairer{
		cfg:  cfg,
		loss: stream(1), jitter: stream(2), reorder: stream(3), duplicate: stream(4), corrupt: stream(5),
		busy: math.MinInt64, last: math.MinInt64,
	}, nil
}

// Config returns what is in force.
func (im *Impairer) Config() Config { return im.cfg }

// SetConfig changes the link from the next packet on. Packets already decided
// keep their times, and the generators go on where they are.
func (im *Impairer) SetConfig(cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	im.cfg = cfg
	return nil
}

// Decide takes a packet of size bytes that is sent at now and says what
// becomes of it. Calls must come with now not running backwards.
func (im *Impairer) Decide(now time.Duration, size int) Verdict {
	late := im.reorder.Float64() < im.cfg.Reorder
	twice := im.duplicate.Float64() < im.cfg.Duplicate
	lost := im.drawLoss()
	jitter := time.Duration(im.jitter.Float64() * float64(im.cfg.Jitter))

	sent, ok := im.transmit(now, size)
	if !ok {
		return Verdict{Cause: QueueFull}
	}
	if lost {
		return Verdict{Cause: Lost}
	}

	at := max(sent+im.cfg.Delay+jitter, im.last)
	if late {
		at += im.reorderBy()
	} else {
		im.last = at
	}
	v := Verdict{n: 1}
	if twice {
		v.n = 2
	}
	for i := range v.Deliveries() {
		v.copies[i] = Delivery{At: at, Flip: im.drawFlip(size), Late: late}
	}
	return v
}

func (im *Impairer) reorderBy() time.Duration {
	if im.cfg.ReorderBy == 0 {
		return DefaultReorderBy
	}
	return im.cfg.ReorderBy
}

// drawLoss moves Gilbert's two-state chain one packet on. The chance to leave
// a burst sets its mean length; the chance to enter one then follows from the
// overall share of losses.
func (im *Impairer) drawLoss() bool {
	x := im.loss.Float64()
	if im.cfg.BurstLength == 0 || im.cfg.Loss == 1 {
		im.inBurst = false
		return x < im.cfg.Loss
	}
	leave := 1 / im.cfg.BurstLength
	if im.inBurst {
		im.inBurst = x >= leave
	} else {
		im.inBurst = x < leave*im.cfg.Loss/(1-im.cfg.Loss)
	}
	return im.inBurst
}

// drawFlip draws both numbers whatever the outcome, to keep later packets'
// draws independent of this one's.
func (im *Impairer) drawFlip(size int) int {
	hit, where := im.corrupt.Float64() < im.cfg.Corrupt, im.corrupt.Float64()
	if !hit || size <= 0 {
		return NoFlip
	}
	return int(where * float64(size) * 8)
}

// transmit passes the packet through the rate limiter: it reports when the
// packet's last bit has left, or that the queue is full.
func (im *Impairer) transmit(now time.Duration, size int) (time.Duration, bool) {
	if im.cfg.Rate == 0 {
		return now, true
	}
	room := im.cfg.Queue
	if room == 0 {
		room = DefaultQueue
	}
	start := now
	if im.busy > now {
		start = im.busy
		waiting := (im.busy - now).Seconds() * float64(im.cfg.Rate) / 8
		if waiting+float64(size) > float64(room) {
			return 0, false
		}
	}
	took := float64(size) * 8 / float64(im.cfg.Rate) * float64(time.Second)
	im.busy = start + time.Duration(min(took, float64(24*time.Hour)))
	return im.busy, true
}
