package tcp

import (
	"runtime"
	"sync"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/waiter"
)

// Batcher puts off what can wait while packets come in close succession:
// acknowledgements, so that one answers for several, and the news that there is
// something to read, room to write or a connection to accept, so that those whom
// it concerns find more. Whatever else a packet calls for is done at once.
//
// A link that reads several packets in a row calls Begin before the first and
// End after the last, and in a long row Turn now and then. Links, or queues of
// one link, may do so at the same time.
type Batcher struct {
	open atomic.Int32 // how many Begins await their End; changed with mu held

	mu    sync.Mutex
	late  roster[*Endpoint] // have acknowledgements to send
	news  roster[*Endpoint] // have waiters to be told
	ready roster[*listener] // have connections that came
}

// roster is a list that is used up at once and then begun anew.
type roster[T any] struct {
	names []T
	room  []T // an empty slice to be used again
}

func (r *roster[T]) add(v T) { r.names = append(r.names, v) }

// take returns the list, to be given back after use; nil if nobody is on it.
func (r *roster[T]) take() []T {
	names := r.names
	if len(names) == 0 {
		return nil
	}
	r.names, r.room = r.room, nil
	return names
}

func (r *roster[T]) giveBack(names []T) {
	if clear(names); r.room == nil {
		r.room = names[:0] // of nil, still nil
	}
}

// BatcherOf returns the batcher of a stack, nil if the stack's TCP is not this
// package's.
func BatcherOf(s *stack.Stack) *Batcher {
	if p := protocolOf(s); p != nil {
		return &p.batcher
	}
	return nil
}

// Begin says that packets are about to be delivered.
func (b *Batcher) Begin() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.open.Add(1)
}

// Turn gives those whom the packets so far concern their turn. The
// acknowledgements wait on.
func (b *Batcher) Turn() {
	b.mu.Lock()
	news, ready := b.news.take(), b.ready.take()
	b.mu.Unlock()
	if news == nil && ready == nil {
		return
	}
	for _, l := range ready {
		l.notify()
	}
	for _, e := range news {
		e.tellNews()
	}
	runtime.Gosched()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.news.giveBack(news)
	b.ready.giveBack(ready)
}

// End says that no more are known to be coming or, with more set, that there
// have been many. First those whom they concern are told and get their turn, for
// an answer of theirs carries the acknowledgement; then what is left to send is
// sent. Where more are waiting, a connection that received only one packet may
// find its next among them, and acknowledge both.
func (b *Batcher) End(more bool) {
	b.mu.Lock()
	b.open.Add(-1)
	late := b.late.take()
	b.mu.Unlock()
	b.Turn()
	if late == nil {
		return
	}
	for _, e := range late {
		e.mu.Lock()
		e.late = false
		if more {
			e.conn.AckMore(e.proto.now())
		}
		e.endTurn(true)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.late.giveBack(late)
}

// addTo adds a name to one of b's rosters, which is also reported. It does not
// if there is no batch.
func addTo[T any](b *Batcher, r *roster[T], name T) bool {
	if b.open.Load() == 0 {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.open.Load() == 0 {
		return false
	}
	r.add(name)
	return true
}

// putOffTurns is how often in a batch an endpoint puts off what it has to say:
// the peer, and whoever waits, are not to wait for more packets than that.
const putOffTurns = 8

// putOff reports whether all that there is to send is an acknowledgement, and
// will be sent at the end of a batch. e.mu is held.
func (e *Endpoint) putOff() bool {
	if !e.started || !e.conn.AckMayWait() {
		return false
	}
	if !e.late {
		b := &e.proto.batcher
		e.late, e.putOffs = addTo(b, &b.late, e), 0
	}
	if e.putOffs++; e.putOffs == putOffTurns {
		e.putOffs = 0
		return false
	}
	return e.late
}

// putOffNews reports whether waiters will be told by the batcher. That a
// connection has ended does not wait. e.mu is held.
func (e *Endpoint) putOffNews(wake waiter.EventMask) bool {
	if wake == 0 || wake&(waiter.EventErr|waiter.EventHUp) != 0 {
		return false
	}
	if !e.news {
		b := &e.proto.batcher
		e.news = addTo(b, &b.news, e)
	}
	if e.news {
		e.wake = wake
	}
	return e.news
}

// tellNews tells the waiters what was put off.
func (e *Endpoint) tellNews() {
	e.mu.Lock()
	wake := e.wake
	e.news, e.wake = false, 0
	e.letGo()
	if wake != 0 {
		e.wq.Notify(wake)
	}
}
