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
	mu      sync.Mutex
	waiting atomic.Pointer[backlog] // nil: nothing; may be read without the lock
}

// backlog is what waits in an inbox.
type backlog struct {
	packets []packet
	bytes   int // of payload
}

// backlogs has empty ones with room: an endpoint that nothing waits for keeps
// none.
var backlogs = sync.Pool{New: func() any { return new(backlog) }}

// empty reports whether nothing waits.
func (in *inbox) empty() bool { return in.waiting.Load() == nil }

// push appends a packet, unless the inbox is full.
func (in *inbox) push(p *packet) bool {
	size := int(p.seg.DataLen())
	in.mu.Lock()
	defer in.mu.Unlock()
	b := in.waiting.Load()
	if b == nil {
		b = backlogs.Get().(*backlog)
		defer in.waiting.Store(b)
	}
	if len(b.packets) >= inboxSegments || b.bytes+size > inboxBytes {
		return false
	}
	b.packets = append(b.packets, *p)
	b.bytes += size
	return true
}

// take returns all that waits, in order; nil if nothing does. It goes back by
// giveBack.
func (in *inbox) take() *backlog {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.waiting.Swap(nil)
}

// giveBack returns a backlog from take. Its packets have been dealt with.
func giveBack(b *backlog) {
	const keep = 64 // a burst's worth of room; more would be memory for nothing
	if cap(b.packets) > keep {
		return
	}
	clear(b.packets)
	b.packets, b.bytes = b.packets[:0], 0
	backlogs.Put(b)
}
