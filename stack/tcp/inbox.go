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
	waiting atomic.Int32 // len(queue), to be read without the lock

	mu    sync.Mutex
	queue []packet
	spare []packet // an empty slice whose room is used again
	bytes int
}

// empty reports whether nothing waits.
func (in *inbox) empty() bool { return in.waiting.Load() == 0 }

// push appends a packet, unless the inbox is full.
func (in *inbox) push(p *packet) bool {
	size := int(p.seg.DataLen())
	in.mu.Lock()
	defer in.mu.Unlock()
	if len(in.queue) >= inboxSegments || in.bytes+size > inboxBytes {
		return false
	}
	if in.queue == nil {
		in.queue, in.spare = in.spare, nil
	}
	in.queue = append(in.queue, *p)
	in.bytes += size
	in.waiting.Add(1)
	return true
}

// take returns all that waits, in order. The slice goes back by giveBack.
func (in *inbox) take() []packet {
	in.mu.Lock()
	defer in.mu.Unlock()
	q := in.queue
	in.queue, in.bytes = nil, 0
	in.waiting.Store(0)
	return q
}

// giveBack returns a slice from take, so that its room can be used again. Its
// packets have been dealt with.
func (in *inbox) giveBack(q []packet) {
	const keep = 64 // a burst's worth of room; more would be memory for nothing
	if cap(q) == 0 || cap(q) > keep {
		return
	}
	clear(q)
	in.mu.Lock()
	defer in.mu.Unlock()
	in.spare = q[:0]
}
