package tcp

import (
	"sync"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/tcprepair/ustack/stack/tcp/conn"
)

// Bounds of an inbox. Linux bounds its backlog by the socket's buffers; ours
// is counted, and weighed so that a few GSO-sized segments cannot fill the
// memory.
const (
	inboxSegments = 1024
	inboxBytes    = 8 << 20
)

// packet is a segment on its way to an endpoint, with what the endpoint has to
// know of the packet that carried it. Exactly one of seg and icmp counts.
type packet struct {
	seg  conn.Segment
	id   stack.TransportEndpointID // as the receiver sees it: local is the destination
	net  tcpip.NetworkProtocolNumber
	nic  tcpip.NICID
	icmp stack.TransportError
}

// release lets go of the payload.
func (p *packet) release() { p.seg.Release() }

// inbox is where packets wait for whoever has the endpoint locked. It has a
// lock of its own, which nothing else is taken under.
type inbox struct {
	waiting atomic.Int32 // how many, to be read without the lock

	mu    sync.Mutex
	queue *[]packet // nil: empty
	bytes int
}

// inboxPool has empty slices with room: an endpoint that nothing waits for keeps
// none.
var inboxPool = sync.Pool{New: func() any { return new([]packet) }}

// empty reports whether nothing waits.
func (in *inbox) empty() bool { return in.waiting.Load() == 0 }

// push appends a packet, unless the inbox is full.
func (in *inbox) push(p *packet) bool {
	size := int(p.seg.DataLen())
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.queue == nil {
		in.queue = inboxPool.Get().(*[]packet)
	}
	if len(*in.queue) >= inboxSegments || in.bytes+size > inboxBytes {
		return false
	}
	*in.queue = append(*in.queue, *p)
	in.bytes += size
	in.waiting.Add(1)
	return true
}

// take returns all that waits, in order; nil if nothing does. The slice goes
// back by giveBack.
func (in *inbox) take() *[]packet {
	in.mu.Lock()
	defer in.mu.Unlock()
	q := in.queue
	in.queue, in.bytes = nil, 0
	in.waiting.Store(0)
	return q
}

// giveBack returns a slice from take. Its packets have been dealt with.
func giveBack(q *[]packet) {
	const keep = 64 // a burst's worth of room; more would be memory for nothing
	if cap(*q) > keep {
		return
	}
	clear(*q)
	*q = (*q)[:0]
	inboxPool.Put(q)
}
