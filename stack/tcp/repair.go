package tcp

import (
	"cmp"
	"slices"
	"sync"

	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/tcprepair/ustack/stack/repair"
	"github.com/tcprepair/ustack/stack/tcp/conn"
)

// SetRepair freezes (On) or thaws (Off, OffNoProbe) the endpoint's connection.
// When it returns from On the connection is silent and still: what arrives,
// and what had arrived and not been processed, is dropped and counted as
// DropSocketRepair, nothing is sent any more, no timer acts. Off sends a window
// probe, so that the peer tells where it stands.
//
// The error is conn.ErrNotConnected without a connection, conn.ErrInvalid for
// a listener or a mode there is not. SetRepair must not be called from a
// waiter's notification.
func (e *Endpoint) SetRepair(m repair.Mode) error {
	e.mu.Lock()
	switch {
	case e.listening.Load() != nil:
		e.letGo()
		return conn.ErrInvalid
	case !e.started:
		e.letGo()
		return conn.ErrNotConnected
	}
	return e.setRepair(m)
}

// setRepair is SetRepair of an endpoint with a connection. e.mu is held, and
// let go.
func (e *Endpoint) setRepair(m repair.Mode) error {
	if m == repair.On && e.inbox.empty() && !e.sending {
		defer e.settled() // there is nothing to be told, or sent
		return e.conn.SetRepair(e.proto.now(), m)
	}
	defer e.unlock()
	now := e.proto.now()
	if m != repair.On {
		e.forbidReuse()
		e.drain(now) // what came during the freeze must not act after it
	}
	if err := e.conn.SetRepair(now, m); err != nil {
		return err
	}
	e.drain(now) // nor what came before it and has not been looked at
	if m != repair.On {
		e.replay(now)
	}
	for m == repair.On && e.sending {
		// Packets made before are still on their way out.
		q := &e.forWaiting().quiet
		if *q == nil {
			*q = sync.NewCond(&e.mu)
		}
		(*q).Wait()
	}
	return nil
}

// forbidReuse takes SO_REUSEADDR away, as Linux does at the end of repair. The
// place that the endpoint has stays as it was taken. e.mu is held.
func (e *Endpoint) forbidReuse() {
	if e.options().GetReuseAddress() {
		e.ownOptions().SetReuseAddress(false)
	}
}

// replay gives the connection, which has been thawed, what was held for it. It
// counts as arriving now: how long it was held is nothing to do with the path.
// e.mu is held.
func (e *Endpoint) replay(now conn.Time) {
	if e.kept == nil {
		return
	}
	list := e.kept.replay()
	e.kept = nil
	for i := range list {
		list[i].seg.Arrived = now
		e.input(now, &list[i])
	}
}

// Frozen reports whether the endpoint's connection is in repair mode.
func (e *Endpoint) Frozen() bool {
	e.mu.Lock()
	defer e.unlock()
	return e.started && e.conn.Frozen()
}

// QueueSeq is the sequence number after the last byte of a queue of the
// connection's, as Linux's TCP_QUEUE_SEQ reports it. The error is
// conn.ErrNotConnected without a connection, conn.ErrInvalid for NoQueue.
func (e *Endpoint) QueueSeq(q repair.Queue) (uint32, error) {
	e.mu.Lock()
	defer e.unlock()
	if !e.started {
		return 0, conn.ErrNotConnected
	}
	seq, err := e.conn.QueueSeq(q)
	return uint32(seq), err
}

// Drops counts the segments that the endpoint has refused, by reason.
func (e *Endpoint) Drops() (d [conn.NumDropReasons]uint32) {
	e.mu.Lock()
	defer e.unlock()
	d = *e.conn.Drops()
	if a := e.stats.full.Load(); a != nil {
		for i := range d {
			d[i] += a.refused[i].Load()
		}
	}
	return d
}

// ConnInfo describes the endpoint's connection. Without one its state is
// conn.StateListen for a listener, conn.StateClosed for the rest.
func (e *Endpoint) ConnInfo() conn.Info {
	e.mu.Lock()
	defer e.unlock()
	if e.listening.Load() != nil {
		return conn.Info{State: conn.StateListen}
	}
	return e.conn.Info(e.proto.now())
}

// Endpoints lists the TCP endpoints that packets of a stack are delivered to,
// listeners and connections, by ID.
func Endpoints(s *stack.Stack) []*Endpoint {
	var list []*Endpoint
	for _, t := range s.RegisteredEndpoints() {
		if e, ok := t.(*Endpoint); ok {
			list = append(list, e)
		}
	}
	slices.SortFunc(list, func(a, b *Endpoint) int { return cmp.Compare(a.number, b.number) })
	return slices.Compact(list) // one that serves IPv4 and IPv6 is listed twice
}

// records are for snapshots to be written to.
var records sync.Pool

func newRecord() *conn.Record {
	if r, ok := records.Get().(*conn.Record); ok {
		return r
	}
	return conn.NewRecord(keepRecord)
}

func keepRecord(r *conn.Record) { records.Put(r) }
