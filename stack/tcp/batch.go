package tcp

import (
	"runtime"
	"sync"

	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// Batcher puts off acknowledgements while packets come in close succession, so
// that one answers for several, and with them the news that there is more to
// read. Whatever else a packet calls for is done at once. A link that reads several packets in a row calls Begin before the first
// and End after the last; links, or queues of one link, may do so at the same
// time.
type Batcher struct {
	mu   sync.Mutex
	open int // how many Begins await their End
	late []*Endpoint
	room []*Endpoint // an empty slice to be used again
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
	b.open++
}

// End says that no more are known to be coming. What was put off is done: first
// those who read are told and get their turn, for an answer of theirs carries
// the acknowledgement; then what is left to send is sent.
func (b *Batcher) End() {
	b.mu.Lock()
	late := b.late
	b.late, b.room = b.room, nil
	b.open--
	b.mu.Unlock()
	if len(late) == 0 {
		return
	}
	woken := false
	for _, e := range late {
		e.mu.Lock()
		e.late = false
		wake := e.wake
		e.wake = 0
		e.letGo()
		if wake != 0 {
			e.wq.Notify(wake)
			woken = true
		}
	}
	if woken {
		runtime.Gosched()
	}
	for _, e := range late {
		e.mu.Lock()
		e.endTurn(true)
	}
	clear(late)
	b.keep(late)
}

// keep keeps the room of a slice for another batch.
func (b *Batcher) keep(s []*Endpoint) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.room == nil {
		b.room = s[:0]
	}
}

// add notes that e is to send at the end of the batch. It reports false if
// there is none.
func (b *Batcher) add(e *Endpoint) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.open == 0 {
		return false
	}
	b.late = append(b.late, e)
	return true
}

// putOffTurns is how often in a batch an endpoint puts off what it has to say:
// the peer, and whoever reads, are not to wait for more packets than that.
const putOffTurns = 8

// putOff reports whether all that there is to send is an acknowledgement, and
// will be sent at the end of a batch. e.mu is held.
func (e *Endpoint) putOff() bool {
	if !e.started || !e.conn.AckMayWait() {
		return false
	}
	if !e.late {
		e.late, e.putOffs = e.proto.batcher.add(e), 0
	}
	if e.putOffs++; e.putOffs == putOffTurns {
		e.putOffs = 0
		return false
	}
	return e.late
}
