package netlab

import (
	"container/heap"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tcprepair/ustack/internal/netlab/impair"
	"golang.org/x/sys/unix"
)

// DefaultInFlight is a wire's memory for frames under way, in bytes and each
// direction, where WireConfig.InFlight is 0.
const DefaultInFlight = 32 << 20

// WireConfig describes a wire. Its zero value passes everything at once.
type WireConfig struct {
	// AToB and BToA are what each direction does to frames.
	AToB, BToA impair.Config
	// Seed of all decisions. With the same seed the same frames in the same
	// order meet the same fate. 0 draws one; Wire.Seed tells it.
	Seed uint64
	// InFlight bounds the bytes under way in each direction; a frame that
	// finds no room is dropped and counted. 0 means DefaultInFlight.
	InFlight int
}

// Counters are what became of the frames of one direction.
type Counters struct {
	// Frames and Bytes came in; super-frames count as the frames cut from them.
	Frames, Bytes uint64
	// Delivered and DeliveredBytes went out, duplicates included.
	Delivered, DeliveredBytes uint64
	// Lost, QueueFull: dropped by the impairment. Filtered: dropped by the
	// filter. Overflowed: more under way than WireConfig.InFlight.
	Lost, QueueFull, Filtered, Overflowed uint64
	// Duplicated, Reordered and Corrupted count copies so treated.
	Duplicated, Reordered, Corrupted uint64
	// Malformed frames did not match their offload header.
	Malformed uint64
	// Refused frames were not taken by the far device (down, too long).
	Refused uint64
	// InFlight is how many copies are under way now.
	InFlight int
}

// Wire joins two ports and impairs what passes, each direction for itself. Its
// methods are safe for concurrent use.
type Wire struct {
	seed       uint64
	aToB, bToA *direction
	wg         sync.WaitGroup
}

// Wire connects two ports and owns them from now on, even when it fails: Close
// unplugs both. The lab closes it too.
func (l *Lab) Wire(a, b *Port, cfg WireConfig) (*Wire, error) {
	w := &Wire{seed: cfg.Seed}
	for w.seed == 0 {
		w.seed = rand.Uint64()
	}
	forth, err := impair.New(cfg.AToB, w.seed)
	if err == nil {
		var back *impair.Impairer
		if back, err = impair.New(cfg.BToA, w.seed+1); err == nil {
			room := cfg.InFlight
			if room == 0 {
				room = DefaultInFlight
			}
			w.aToB, w.bToA = newDirection(a, b, forth, room), newDirection(b, a, back, room)
		}
	}
	if err != nil {
		_, _ = a.Close(), b.Close()
		return nil, err
	}
	w.wg.Go(w.aToB.run)
	w.wg.Go(w.bToA.run)
	if err := l.own(w); err != nil {
		return nil, err
	}
	l.logf("wire %s - %s: seed %d", a.Name, b.Name, w.seed)
	return w, nil
}

// Seed is what the wire's decisions are drawn from.
func (w *Wire) Seed() uint64 { return w.seed }

// Impair changes what the two directions do, from the next frame on.
func (w *Wire) Impair(aToB, bToA impair.Config) error {
	if err := errors.Join(aToB.Validate(), bToA.Validate()); err != nil {
		return err
	}
	return errors.Join(w.aToB.setConfig(aToB), w.bToA.setConfig(bToA))
}

// Filter puts a predicate before each direction's impairment: frames for which
// it returns false are dropped. A nil function passes all. It is called on the
// wire's goroutine, one frame at a time, and must not keep the frame.
func (w *Wire) Filter(aToB, bToA func(frame []byte) bool) {
	w.aToB.setFilter(aToB)
	w.bToA.setFilter(bToA)
}

// Counters returns what has become of the frames of each direction.
func (w *Wire) Counters() (aToB, bToA Counters) { return w.aToB.counters(), w.bToA.counters() }

// Err is why a direction has stopped though the wire is open, or nil.
func (w *Wire) Err() error { return errors.Join(w.aToB.failure(), w.bToA.failure()) }

// Close unplugs both ports and waits until the wire's goroutines have ended.
// Frames under way are lost.
func (w *Wire) Close() error {
	w.aToB.closing.Store(true)
	w.bToA.closing.Store(true)
	err := errors.Join(w.aToB.from.Close(), w.bToA.from.Close())
	w.wg.Wait()
	return err
}

// direction carries frames one way. A single goroutine reads, waits and
// writes, so that frames keep the order the impairer gave them.
type direction struct {
	from, to *Port
	start    time.Time
	room     int // bytes that may still be put under way
	flight   flight
	sequence uint64
	armed    time.Duration // the read deadline in force; 0: none
	closing  atomic.Bool

	mu     sync.Mutex // guards what follows
	im     *impair.Impairer
	filter func([]byte) bool
	count  Counters
	err    error
}

func newDirection(from, to *Port, im *impair.Impairer, room int) *direction {
	return &direction{from: from, to: to, im: im, room: room, start: time.Now()}
}

func (d *direction) run() {
	buf := make([]byte, vnetHeaderLen+maxFrame)
	for {
		d.deliverDue()
		d.armRead()
		err := d.from.read(buf, d.accept)
		switch {
		case err == nil, errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, unix.ENETDOWN):
			// A packet socket reports once that its device went down, and
			// works again when it is up.
		case errors.Is(err, errBadOffload):
			d.tally(func(c *Counters) { c.Malformed++ })
		default:
			if !d.closing.Load() {
				d.fail(err)
			}
			return
		}
	}
}

// armRead lets the next read end when the first frame under way is due.
func (d *direction) armRead() {
	due := time.Duration(0)
	if len(d.flight) > 0 {
		due = d.flight[0].at
	}
	if due == d.armed {
		return
	}
	d.armed = due
	deadline := time.Time{}
	if due != 0 {
		deadline = d.start.Add(due)
	}
	// Fails only when the port is closed, which the read will find out.
	_ = d.from.file.SetReadDeadline(deadline)
}

// accept decides about one frame that has come in.
func (d *direction) accept(frame []byte) {
	d.mu.Lock()
	d.count.Frames++
	d.count.Bytes += uint64(len(frame))
	if d.filter != nil && !d.filter(frame) {
		d.count.Filtered++
		d.mu.Unlock()
		return
	}
	now := time.Since(d.start)
	verdict := d.im.Decide(now, len(frame))
	switch verdict.Cause {
	case impair.Lost:
		d.count.Lost++
	case impair.QueueFull:
		d.count.QueueFull++
	}
	copies := verdict.Deliveries()
	for i, c := range copies {
		if i > 0 {
			d.count.Duplicated++
		}
		if c.Late {
			d.count.Reordered++
		}
		if c.Flip != impair.NoFlip {
			d.count.Corrupted++
		}
	}
	d.mu.Unlock()
	for _, c := range copies {
		d.launch(now, frame, c)
	}
}

// launch puts a copy under way, or sends it at once if nothing is before it.
func (d *direction) launch(now time.Duration, frame []byte, c impair.Delivery) {
	if c.At <= now && len(d.flight) == 0 && c.Flip == impair.NoFlip {
		d.deliver(frame)
		return
	}
	if d.room < len(frame) {
		d.tally(func(c *Counters) { c.Overflowed++ })
		return
	}
	d.room -= len(frame)
	own := append([]byte(nil), frame...)
	c.Damage(own)
	d.sequence++
	heap.Push(&d.flight, item{at: c.At, sequence: d.sequence, frame: own})
	d.tally(func(c *Counters) { c.InFlight = len(d.flight) })
}

func (d *direction) deliverDue() {
	if len(d.flight) == 0 {
		return
	}
	for now := time.Since(d.start); len(d.flight) > 0 && d.flight[0].at <= now; {
		it := heap.Pop(&d.flight).(item)
		d.room += len(it.frame)
		d.deliver(it.frame)
	}
	d.tally(func(c *Counters) { c.InFlight = len(d.flight) })
}

func (d *direction) deliver(frame []byte) {
	err := d.to.write(frame)
	d.tally(func(c *Counters) {
		if err != nil {
			c.Refused++
			return
		}
		c.Delivered++
		c.DeliveredBytes += uint64(len(frame))
	})
}

func (d *direction) tally(f func(*Counters)) {
	d.mu.Lock()
	f(&d.count)
	d.mu.Unlock()
}

func (d *direction) fail(err error) {
	d.mu.Lock()
	d.err = fmt.Errorf("netlab: wire: reading %s: %w", d.from.Name, err)
	d.mu.Unlock()
}

func (d *direction) failure() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
}

func (d *direction) counters() Counters {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.count
}

func (d *direction) setConfig(cfg impair.Config) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.im.SetConfig(cfg)
}

func (d *direction) setFilter(f func([]byte) bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.filter = f
}

// item is a copy of a frame under way.
type item struct {
	at       time.Duration
	sequence uint64 // breaks ties in order of arrival
	frame    []byte
}

// flight is a heap of the copies under way, the next one due first.
type flight []item

func (f flight) Len() int { return len(f) }
func (f flight) Less(i, j int) bool {
	return f[i].at < f[j].at || f[i].at == f[j].at && f[i].sequence < f[j].sequence
}
func (f flight) Swap(i, j int) { f[i], f[j] = f[j], f[i] }
func (f *flight) Push(x any)   { *f = append(*f, x.(item)) }
func (f *flight) Pop() any {
	old := *f
	last := old[len(old)-1]
	old[len(old)-1] = item{}
	*f = old[:len(old)-1]
	return last
}
