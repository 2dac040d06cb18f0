package tcp

import (
	"container/heap"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/tcprepair/ustack/stack/repair"
	"github.com/tcprepair/ustack/stack/tcp/conn"
)

// places are the ends of connections that are elsewhere: that have gone
// (tombstones) or are to come (reservations). What is sent there draws no
// reset, and no listener sees it. They are looked at only where no connection
// was found, so that they cost the ordinary packet nothing.
//
// mu is a leaf: nothing else is taken under it.
type places struct {
	n     atomic.Int32 // len(at), to be read without the lock
	clock tcpip.Clock

	mu    sync.Mutex
	at    map[stack.TransportEndpointID]*reservation
	until expiries
	timer tcpip.Timer         // the only one, for the earliest
	fires tcpip.MonotonicTime // when; meaningful while until is not empty
}

// reservation is a place that is kept. Its fields are guarded by places.mu.
type reservation struct {
	in    *places
	proto *protocol
	id    stack.TransportEndpointID
	tomb  bool
	nets  netSet // of a listener's tombstone, whose id has no remote end
	until tcpip.MonotonicTime
	// tombUntil is how long the tombstone goes on in whose place a reservation
	// is: the connection that left has left, whether or not another comes.
	tombUntil tcpip.MonotonicTime
	index     int // in places.until; -1: it is not there any more

	room      int // bytes of segments that may yet be held
	packets   []packet
	held      uint64 // segments, so far
	swallowed uint64
}

// expiries is a heap, the first to end on top.
type expiries []*reservation

func (h expiries) Len() int           { return len(h) }
func (h expiries) Less(i, j int) bool { return h[i].until.Before(h[j].until) }
func (h expiries) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}
func (h *expiries) Push(x any) {
	r := x.(*reservation)
	r.index = len(*h)
	*h = append(*h, r)
}
func (h *expiries) Pop() any {
	last := len(*h) - 1
	r := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	r.index = -1
	return r
}

// put keeps a place. A tombstone gives way; ErrAddrInUse if there is a
// reservation.
func (p *places) put(proto *protocol, id stack.TransportEndpointID, tomb bool, hold int, lifetime time.Duration) (*reservation, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.clock.NowMonotonic()
	r := &reservation{in: p, proto: proto, id: id, tomb: tomb, room: hold, until: now.Add(lifetime)}
	if old := p.at[id]; old != nil {
		if !old.tomb {
			return nil, repair.ErrAddrInUse
		}
		p.remove(old)
		if !tomb {
			r.tombUntil = old.until
		}
	}
	p.add(r)
	p.arm(now)
	return r, nil
}

// buryListener leaves a tombstone where a listener was.
func (p *places) buryListener(proto *protocol, id stack.TransportEndpointID, nets netSet, lifetime time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if old := p.at[id]; old != nil {
		p.remove(old)
	}
	now := p.clock.NowMonotonic()
	p.add(&reservation{in: p, proto: proto, id: id, tomb: true, nets: nets, until: now.Add(lifetime)})
	p.arm(now)
}

// add puts a place into the table. p.mu is held.
func (p *places) add(r *reservation) {
	if p.at == nil {
		p.at = make(map[stack.TransportEndpointID]*reservation)
	}
	p.at[r.id] = r
	p.n.Store(int32(len(p.at)))
	heap.Push(&p.until, r)
}

// remove ends a place; what it holds stays with it. p.mu is held.
func (p *places) remove(r *reservation) {
	if r.index < 0 {
		return
	}
	heap.Remove(&p.until, r.index)
	delete(p.at, r.id)
	p.n.Store(int32(len(p.at)))
}

// arm sets the timer for the first that ends. p.mu is held.
func (p *places) arm(now tcpip.MonotonicTime) {
	if len(p.until) == 0 {
		return // if it fires it finds nothing
	}
	first := p.until[0].until
	switch {
	case p.timer == nil:
		p.timer = p.clock.AfterFunc(first.Sub(now), p.expire)
	case p.fires.Before(now) || first.Before(p.fires):
		p.timer.Reset(first.Sub(now))
	default:
		return // it fires early, and sleeps on
	}
	p.fires = first
}

// expire ends what has lived long enough. The clock calls it.
func (p *places) expire() {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.clock.NowMonotonic()
	for len(p.until) > 0 && !now.Before(p.until[0].until) {
		p.end(p.until[0], now)
	}
	p.fires = tcpip.MonotonicTime{} // it has fired
	p.arm(now)
}

// end ends a place that nobody has filled. p.mu is held.
func (p *places) end(r *reservation, now tcpip.MonotonicTime) {
	p.remove(r)
	r.discard()
	if now.Before(r.tombUntil) {
		p.add(&reservation{in: p, proto: r.proto, id: r.id, tomb: true, until: r.tombUntil})
	}
}

// discard drops what is held. p.mu is held.
func (r *reservation) discard() {
	for i := range r.packets {
		r.packets[i].release()
		r.proto.drop(conn.DropSocketReserved)
	}
	r.packets, r.room = nil, 0
}

// close ends all places: the stack goes.
func (p *places) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.until) > 0 {
		r := p.until[0]
		p.remove(r)
		r.discard()
	}
	if p.timer != nil {
		p.timer.Stop()
	}
}

// taken reports whether the place is kept for another connection.
func (p *places) taken(id stack.TransportEndpointID) bool {
	if p.n.Load() == 0 {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.at[id] != nil
}

// swallow takes a packet that was sent to a place that is kept, and owns it
// then. It reports false if the place is not.
func (p *places) swallow(s *packet) bool {
	if p.n.Load() == 0 {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.at[s.id]
	if r == nil {
		return false
	}
	r.take(s)
	return true
}

// swallowStray is swallow for a packet that no listener would take either: then
// the tombstone of a listener that has gone counts too.
func (p *places) swallowStray(s *packet) bool {
	if p.n.Load() == 0 {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.at[s.id]
	for _, addr := range [...]tcpip.Address{s.id.LocalAddress, {}} {
		if r != nil {
			break
		}
		r = p.at[stack.TransportEndpointID{LocalAddress: addr, LocalPort: s.id.LocalPort}]
		if r != nil && !r.nets.has(s.net) {
			r = nil
		}
	}
	if r == nil {
		return false
	}
	r.take(s)
	return true
}

// take holds a packet, if there is room, and swallows it if not. p.mu is held.
func (r *reservation) take(s *packet) {
	size := header.TCPMinimumSize + int(s.seg.DataLen())
	if s.icmp == nil && size <= r.room {
		r.room -= size
		r.held++
		r.packets = append(r.packets, *s)
		return
	}
	r.swallowed++
	s.release()
	if r.tomb {
		r.proto.drop(conn.DropSocketTombstone)
	} else {
		r.proto.drop(conn.DropSocketReserved)
	}
}

// fill gives a place to the connection, or the listener, that has come. It
// returns whose the place was, nil if nobody's: to be put back if the connection
// does not stay after all.
func (p *places) fill(id stack.TransportEndpointID) *reservation {
	if p.n.Load() == 0 {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.at[id]
	if r == nil {
		return nil
	}
	p.remove(r)
	return r
}

// putBack undoes fill; r may be nil.
func (p *places) putBack(r *reservation) {
	if r == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.at[r.id] != nil {
		r.discard()
		return
	}
	p.add(r)
	p.arm(p.clock.NowMonotonic())
}

// holds reports whether what comes for a restored connection, while it is
// frozen, is to be held for it; r may be nil.
func (r *reservation) holds() bool {
	if r == nil {
		return false
	}
	r.in.mu.Lock()
	defer r.in.mu.Unlock()
	return !r.tomb && (r.room > 0 || len(r.packets) > 0)
}

// hold keeps a packet for a connection that is here, but frozen. It reports
// false if there is no room.
func (r *reservation) hold(s *packet) bool {
	r.in.mu.Lock()
	defer r.in.mu.Unlock()
	if size := header.TCPMinimumSize + int(s.seg.DataLen()); s.icmp != nil || size > r.room {
		return false
	}
	r.take(s)
	return true
}

// replay returns what is held, in order of arrival. Nothing more is.
func (r *reservation) replay() []packet {
	r.in.mu.Lock()
	defer r.in.mu.Unlock()
	list := r.packets
	r.packets, r.room = nil, 0
	return list
}

// abandon drops what is held for a connection that has ended.
func (r *reservation) abandon() {
	r.in.mu.Lock()
	defer r.in.mu.Unlock()
	r.discard()
}

// Cancel implements repair.Reservation.
func (r *reservation) Cancel() {
	r.in.mu.Lock()
	defer r.in.mu.Unlock()
	if r.index >= 0 {
		now := r.in.clock.NowMonotonic()
		r.in.end(r, now)
		r.in.arm(now)
	}
}

// Segments implements repair.Reservation.
func (r *reservation) Segments() (held, swallowed uint64) {
	r.in.mu.Lock()
	defer r.in.mu.Unlock()
	return r.held, r.swallowed
}
