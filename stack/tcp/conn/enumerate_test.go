package conn

import (
	"container/heap"
	"fmt"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/refs"

	"github.com/tcprepair/ustack/stack/repair"
)

// A whole conversation, handshake and both closes included, is some thirty
// packets. So every single mishap can be tried, and every pair: each packet in
// turn is lost, doubled, or so late that others overtake it; the connection is
// frozen at each packet in turn. Whatever befalls them, both ends must come to
// CLOSED without an error, every byte must arrive, and soon.

// part is what one end's user does.
type part struct {
	data    int           // bytes to write
	after   bool          // only once the peer has finished
	echo    bool          // write back what is read, until the peer has finished
	abrupt  bool          // Close, rather than half-close and read on
	hasty   bool          // half-close while the handshake is under way
	late    time.Duration // read nothing until this long after the start
	bitwise bool          // write in small pieces, waiting for each to be acknowledged
	pieces  bool          // write in small pieces, one after the other
}

// A play is what both ends do. Unless both dial, a dials b.
type play struct {
	name     string
	a, b     part
	bothDial bool
	tune     func(a, b *Config)
}

func plays() []play {
	plain := func(a, b *Config) {
		a.SACK, a.Timestamps, a.WindowScaling, a.RACK, b.RACK, a.DelayedACK, b.DelayedACK = false, false, false, false, false, false, false
	}
	noRACK := func(a, b *Config) { a.RACK, b.RACK = false, false }
	small := func(a, b *Config) { a.RcvBuf, b.RcvBuf = 4000, 4000 }
	noDelay := func(a, b *Config) { a.Options.NoDelay, b.Options.NoDelay = true, true }
	ecn := func(a, b *Config) { a.ECN, b.ECN = true, true }
	list := []play{
		{name: "client finishes first", a: part{data: 9000}, b: part{data: 6000, after: true}},
		{name: "server finishes first", a: part{data: 6000, after: true}, b: part{data: 9000}},
		{name: "both at once", a: part{data: 9000}, b: part{data: 9000}},
		{name: "nothing said", a: part{}, b: part{}},
		{name: "client closes outright", a: part{data: 9000, abrupt: true}, b: part{after: true}},
		{name: "server closes outright", a: part{after: true}, b: part{data: 9000, abrupt: true}},
		{name: "server shuts in SYN-RECEIVED", a: part{data: 5000}, b: part{hasty: true}},
		{name: "echo", a: part{data: 4000, bitwise: true}, b: part{echo: true}},
		{name: "both dial", a: part{data: 5000}, b: part{data: 5000}, bothDial: true},
		{name: "late readers, small buffers", a: part{data: 9000, late: 300 * time.Millisecond},
			b: part{data: 9000, late: 500 * time.Millisecond}, tune: small},
		{name: "small pieces", a: part{data: 2000, pieces: true}, b: part{data: 1500, pieces: true}},
		{name: "small pieces, no delay", a: part{data: 1500, pieces: true}, b: part{data: 500, pieces: true}, tune: noDelay},
		{name: "congestion marks", a: part{data: 9000}, b: part{data: 9000, after: true}, tune: ecn},
	}
	for _, p := range list {
		q := p
		tune := q.tune
		q.name += ", no options"
		q.tune = func(a, b *Config) {
			plain(a, b)
			if tune != nil {
				tune(a, b)
			}
		}
		list = append(list, q)
	}
	return append(list, play{name: "both at once, no RACK", a: part{data: 9000}, b: part{data: 9000}, tune: noRACK})
}

// mishap is what befalls one packet, counted from 0 in the order of sending, or
// whoever it is for.
type mishap struct {
	packet int
	kind   mishapKind
}

type mishapKind uint8

const (
	lost mishapKind = iota
	doubled
	doubledLate // and the copy comes much later
	overtaken   // by what is sent right behind it
	veryLate    // after a timeout has repeated it
	frozen      // the receiver freezes for a while, as the packet arrives
	frozenLong
	marked // by a router that is congested, if the packet may be
	numMishaps
)

func (k mishapKind) String() string {
	return [...]string{"lost", "doubled", "doubled late", "overtaken", "very late", "frozen", "frozen long", "marked"}[k]
}

// performance is a play under way.
type performance struct {
	*world
	play   play
	cb     Config // b's, which listens until a SYN comes
	listen bool
	mis    []mishap
	packet int
	left   [2][]byte // what is still to be written
	shut   [2]bool
	done   [2]bool // the user has seen and done all
	start  Time
	took   time.Duration // until both were
	thaw   map[*host]Time
	doom   []string // what went wrong
}

// streams is what the two users write, as much of it as their parts say.
var streams = [2][]byte{noise(10_000, 1), noise(10_000, 2)}

// perform runs a play to its end.
func perform(t *testing.T, p play, mis ...mishap) *performance {
	f := &performance{world: newWorld(t), play: p, mis: mis, thaw: map[*host]Time{}}
	f.start = f.now
	f.fate = f.befall
	ca := testConfig(issA)
	f.cb = testConfig(issB)
	if p.tune != nil {
		p.tune(&ca, &f.cb)
	}
	f.left = [2][]byte{streams[0][:p.a.data:p.a.data], streams[1][:p.b.data:p.b.data]}
	f.a.c.Connect(f.now, &ca)
	if p.bothDial {
		f.b.c.Connect(f.now, &f.cb)
	} else {
		f.listen = true
	}
	end := f.now.Add(10 * time.Minute)
	for f.step(end) && len(f.doom) == 0 {
	}
	f.verdict()
	return f
}

// befall decides about a packet.
func (f *performance) befall(from *host, s *Segment) (late time.Duration, copies int) {
	n := f.packet
	f.packet++
	copies = 1
	for _, m := range f.mis {
		if m.packet != n {
			continue
		}
		switch m.kind {
		case lost:
			copies = 0
		case doubled:
			copies = 2
		case doubledLate:
			f.order++
			heap.Push(&f.path, packet{f.now.Add(f.delay), f.order, from.peer, clone(s)})
			late = 70 * time.Millisecond
		case overtaken:
			late = 3 * time.Millisecond
		case veryLate:
			late = 1500 * time.Millisecond
		case frozen:
			f.thaw[from.peer] = f.now.Add(f.delay + 30*time.Millisecond)
		case marked:
			s.CE = s.ECT
		case frozenLong:
			f.thaw[from.peer] = f.now.Add(f.delay + 2*time.Second)
		}
	}
	return late, copies
}

// clone copies a segment.
func clone(s *Segment) *Segment {
	c := *s
	c.Payload = s.Payload.Clone()
	return &c
}

// step lets both users act and time pass to the next event. It reports whether
// there is one.
func (f *performance) step(end Time) bool {
	for i, h := range []*host{f.a, f.b} {
		f.act(h, i)
		f.settle(h)
	}
	if f.done == [2]bool{true, true} && f.took == 0 {
		f.took = f.now.Sub(f.start)
	}
	next := min(f.a.c.Deadline(), f.b.c.Deadline())
	if len(f.path) > 0 {
		next = min(next, f.path[0].at)
	}
	for _, p := range []part{f.play.a, f.play.b} {
		if at := f.start.Add(p.late); at > f.now {
			next = min(next, at)
		}
	}
	for _, at := range f.thaw {
		next = min(next, at)
	}
	if next > end {
		return false
	}
	f.now = max(f.now, next)
	for h, at := range f.thaw {
		if h.c.Frozen() && at <= f.now {
			h.c.SetRepair(f.now, repair.Off)
			delete(f.thaw, h)
		}
	}
	f.a.c.Tick(f.now)
	f.b.c.Tick(f.now)
	for len(f.path) > 0 && f.path[0].at <= f.now {
		p := heap.Pop(&f.path).(packet)
		f.arrive(p.to, p.s)
	}
	return true
}

// arrive gives a packet to a host as a stack would: to the connection, to the
// listener, or to nobody, who resets.
func (f *performance) arrive(h *host, s *Segment) {
	if at, ok := f.thaw[h]; ok && !h.c.Frozen() {
		if at <= f.now || h.c.State() == StateClosed {
			delete(f.thaw, h)
		} else {
			h.c.SetRepair(f.now, repair.On)
		}
	}
	switch {
	case h == f.b && f.listen:
		if action, _ := ListenVerdict(s); action == ListenOpen {
			f.listen = false
			h.c.Accept(f.now, &f.cb, s)
			return
		}
		fallthrough
	case h.c.State() == StateClosed:
		if rst, ok := Reset(s); ok {
			f.emit(h, &rst)
		}
		s.Release()
	default:
		h.c.Input(f.now, s)
	}
}

// act is a user's turn.
func (f *performance) act(h *host, i int) {
	c := &h.c
	p := [...]part{f.play.a, f.play.b}[i]
	switch {
	case c.Frozen() || f.done[i] || h == f.b && f.listen:
		return
	case c.State() == StateSynReceived && p.hasty && !f.shut[i]:
		f.shut[i] = true
		c.Shutdown(f.now, false, true)
		return
	case c.State() == StateSynSent || c.State() == StateSynReceived:
		return
	}
	if f.now.Sub(f.start) >= p.late {
		had := len(h.got)
		h.read(f.world)
		if p.echo {
			f.left[i] = append(f.left[i], h.got[had:]...)
		}
	}
	if f.shut[i] || p.after && !h.closed {
		f.done[i] = f.shut[i] && h.closed
	} else {
		f.speak(h, i, p)
	}
	if f.done[i] {
		c.Close(f.now)
	}
}

// speak writes what is left, and then ends this direction.
func (f *performance) speak(h *host, i int, p part) {
	for len(f.left[i]) > 0 && h.c.Err() == nil {
		next := f.left[i]
		if p.bitwise {
			if h.c.Unacked() > 0 {
				return
			}
			next = next[:min(len(next), 1000)]
		}
		if p.pieces {
			next = next[:min(len(next), 200)]
		}
		n := h.write(f.world, next)
		f.left[i] = f.left[i][n:]
		if n == 0 {
			return
		}
		f.settle(h)
	}
	if len(f.left[i]) > 0 || p.echo && !h.closed {
		return
	}
	f.shut[i] = true
	if p.abrupt {
		h.c.Close(f.now)
		f.done[i] = true
		return
	}
	h.c.Shutdown(f.now, false, true)
	f.done[i] = h.closed
}

// verdict says what went wrong, if anything.
func (f *performance) verdict() {
	for i, h := range []*host{f.a, f.b} {
		c := &h.c
		if c.Err() != nil {
			f.doom = append(f.doom, fmt.Sprintf("%s: %v", h.name, c.Err()))
		}
		if s := c.State(); s != StateClosed {
			f.doom = append(f.doom, fmt.Sprintf("%s ends in %s", h.name, s))
		}
		if !f.done[i] {
			f.doom = append(f.doom, fmt.Sprintf("%s's user is not done: read %d bytes, %d to write", h.name, len(h.got), len(f.left[i])))
		}
		if c.Deadline() != Never {
			f.doom = append(f.doom, fmt.Sprintf("%s has a timer left", h.name))
		}
		if len(c.sendq.chunks) != 0 || !c.board.empty() || !c.reasm.empty() {
			f.doom = append(f.doom, fmt.Sprintf("%s keeps memory", h.name))
		}
		if string(h.wrote) != string(h.peer.got) {
			f.doom = append(f.doom, fmt.Sprintf("%s wrote %d bytes, the peer read %d, which differ", h.name, len(h.wrote), len(h.peer.got)))
		}
	}
}

// report fails the test if a performance went wrong or took too long.
func (f *performance) report(t *testing.T, base, limit time.Duration) {
	t.Helper()
	late := f.took - base
	if len(f.doom) == 0 && late <= limit {
		return
	}
	what := ""
	for _, m := range f.mis {
		what += fmt.Sprintf(" %d %s", m.packet, m.kind)
	}
	if len(f.doom) > 0 {
		t.Errorf("packet%s: %v", what, f.doom)
		return
	}
	t.Errorf("packet%s: took %v longer than the %v without, want at most %v", what, late, base, limit)
}

// Every mishap to every packet of every play.
func TestEveryMishap(t *testing.T) {
	for _, p := range plays() {
		t.Run(p.name, func(t *testing.T) {
			still := perform(t, p)
			still.report(t, 0, 2*time.Second)
			for k := range still.packet + 2 {
				for kind := range numMishaps {
					m := mishap{k, kind}
					perform(t, p, m).report(t, still.took, patience(m))
				}
			}
		})
	}
}

// patience is how much longer than without it a play with one mishap may take:
// a SYN is repeated after a second, data after a fifth of one and its round
// trips, and twice that if it was a probe that was lost.
func patience(m mishap) time.Duration {
	const handshake = 3 // packets
	switch {
	case m.kind == frozenLong:
		return 4 * time.Second
	case m.kind == veryLate:
		return 1600 * time.Millisecond
	case m.kind == frozen || m.packet <= handshake:
		return 1100 * time.Millisecond
	}
	return 450 * time.Millisecond
}

// pairPatience is how much longer a play with two mishaps may take. Where the
// SYN-ACK is lost, its repetition may echo the first SYN's timestamp (Linux's
// does): the second in between counts as a round trip, and the next timeout
// comes accordingly late.
const pairPatience = 7 * time.Second

// Every other pair of losses, and of a loss with a delay, a freeze or a mark. A
// short run tries a tenth.
func TestPairsOfMishaps(t *testing.T) {
	stride := 2
	if testing.Short() {
		stride = 10
	}
	pairs := [][2]mishapKind{{lost, lost}, {lost, overtaken}, {overtaken, lost}, {lost, frozen}, {frozen, lost}, {marked, lost}}
	for _, p := range plays() {
		t.Run(p.name, func(t *testing.T) {
			still := perform(t, p)
			for k := range still.packet + 2 {
				for j := k % stride; j < k; j += stride {
					for _, kinds := range pairs {
						perform(t, p, mishap{j, kinds[0]}, mishap{k, kinds[1]}).report(t, still.took, pairPatience)
					}
				}
			}
		})
	}
}

// No reference to a byte of payload is left behind, whatever happened.
func TestMishapsLeakNoReferences(t *testing.T) {
	was := refs.GetLeakMode()
	refs.SetLeakMode(refs.LeaksPanic)
	defer func() {
		refs.SetLeakMode(was)
		if r := recover(); r != nil {
			t.Error(r)
		}
	}()
	for _, p := range plays() {
		n := perform(t, p).packet
		for k := range n + 2 {
			for kind := range numMishaps {
				f := perform(t, p, mishap{k, kind})
				f.a.c.Release()
				f.b.c.Release()
				for _, q := range f.path {
					q.s.Release()
				}
			}
		}
	}
	refs.DoRepeatedLeakCheck()
}
