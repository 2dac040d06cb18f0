package netsim

import (
	"slices"
	"sync"
	"time"

	"github.com/tcprepair/ustack/internal/vtime"
)

// Net is hosts, links and applications that share a clock. Its methods, and
// those of what belongs to it, are for one goroutine.
type Net struct {
	// Rest, if set, returns once no goroutine of a host's has anything left
	// to do at the present time. It is for TCPs that run on goroutines of
	// their own.
	Rest func()

	seed  uint64
	clock *vtime.Clock
	hosts []*Host
	links []*Link

	unaccepted []*Bulk // whose connections have not come yet

	mu    sync.Mutex // stacks with goroutines notify from these
	ready []*socket  // something happened to, in order
	spare []*socket  // room for the next ready
}

// epoch is when every simulation begins.
var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// New returns an empty network. Everything random in it derives from seed.
func New(seed uint64) *Net {
	return &Net{seed: seed, clock: vtime.NewClock(epoch)}
}

// Clock is the clock of the network. The caller may set timers on it, and must
// not move it.
func (n *Net) Clock() *vtime.Clock { return n.clock }

// Now is the time since the simulation began.
func (n *Net) Now() time.Duration { return n.clock.Elapsed() }

// Run lets d pass.
func (n *Net) Run(d time.Duration) {
	n.RunUntil(d, func() bool { return false })
}

// RunUntil lets time pass until done, or for d at most, and reports whether
// done. It asks after each event.
func (n *Net) RunUntil(d time.Duration, done func() bool) bool {
	end := n.Now() + d
	for {
		n.settle()
		if done() {
			return true
		}
		if next, ok := n.clock.Next(); !ok || next > end {
			n.clock.RunUntil(end)
			return false
		}
		n.clock.Step()
	}
}

// Close ends all hosts. Connections are aborted.
func (n *Net) Close() {
	n.unaccepted = nil
	for _, l := range n.links {
		l.cut()
	}
	for _, h := range n.hosts {
		h.stack.Close()
	}
	n.settle()
	for _, h := range n.hosts {
		h.stack.Destroy()
	}
}

// settle runs the applications until all is quiet at the present time. Stacks
// tell of news from within, where an application may not act on it; so it acts
// here, with no lock held.
func (n *Net) settle() {
	for {
		if n.Rest != nil {
			n.Rest()
		}
		n.unaccepted = slices.DeleteFunc(n.unaccepted, (*Bulk).accept)
		ready := n.take()
		if len(ready) == 0 {
			return
		}
		for _, s := range ready {
			s.act()
		}
		n.spare = ready[:0]
	}
}

// take returns the sockets that something happened to.
func (n *Net) take() []*socket {
	n.mu.Lock()
	defer n.mu.Unlock()
	ready := n.ready
	n.ready, n.spare = n.spare, nil
	for _, s := range ready {
		s.due = false
	}
	return ready
}
