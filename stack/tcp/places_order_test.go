package tcp_test

import (
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"

	"github.com/tcprepair/ustack/stack/repair"
	"github.com/tcprepair/ustack/stack/tcp"
)

// occupant is what is in a connection's place.
type occupant int

const (
	nobody occupant = iota
	tombstone
	reserved
	frozen
	alive
)

// A place, and what there should be in it.
type placeModel struct {
	*wire
	snap *repair.Snapshot
	iss  uint32

	is        occupant
	ends      time.Duration // of a tombstone or reservation
	tombUntil time.Duration // of the tombstone that a reservation is in the place of
	now       time.Duration

	ep     *tcp.Endpoint
	handle repair.Reservation // the last
}

// The operations that can follow each other in any order.
var placeOps = []struct {
	name string
	do   func(*placeModel)
}{
	{"reserve", func(m *placeModel) { m.keep(reserved, 60*time.Second) }},
	{"cancel", (*placeModel).cancel},
	{"bury", func(m *placeModel) { m.keep(tombstone, 30*time.Second) }},
	{"restore", (*placeModel).restore},
	{"freeze or thaw", (*placeModel).toggle},
	{"close in repair", (*placeModel).close},
	{"40 s", func(m *placeModel) { m.pass(40 * time.Second) }},
}

func (m *placeModel) keep(what occupant, lifetime time.Duration) {
	f := m.factory()
	do := f.Bury
	if what == reserved {
		do = func(flow repair.Flow, d time.Duration) (repair.Reservation, error) { return f.Reserve(flow, 1000, d) }
	}
	r, err := do(m.flow(), lifetime)
	if m.is == frozen || m.is == alive || m.is == reserved {
		if !errors.Is(err, repair.ErrAddrInUse) {
			m.t.Fatalf("where there is something already: %v", err)
		}
		return
	}
	if err != nil {
		m.t.Fatal(err)
	}
	m.tombUntil = 0
	if m.is == tombstone {
		m.tombUntil = m.ends
	}
	m.is, m.ends, m.handle = what, m.now+lifetime, r
	if what == tombstone {
		m.tombUntil = 0
	}
}

// cancel ends the last place that was kept, if it still is. A tombstone that a
// reservation took the place of goes on: the connection has left all the same.
func (m *placeModel) cancel() {
	if m.handle == nil {
		return
	}
	m.handle.Cancel()
	m.handle = nil
	if m.is == tombstone || m.is == reserved {
		m.is = nobody
		m.fallBack()
	}
}

// fallBack has the tombstone go on that a reservation took the place of.
func (m *placeModel) fallBack() {
	if m.tombUntil > m.now {
		m.is, m.ends = tombstone, m.tombUntil
	}
	m.tombUntil = 0
}

func (m *placeModel) restore() {
	s, err := repair.Restore(m.factory(), m.snap)
	if m.is == frozen || m.is == alive {
		if !errors.Is(err, repair.ErrAddrInUse) {
			m.t.Fatalf("restored beside itself: %v", err)
		}
		return
	}
	if err != nil {
		m.t.Fatal(err)
	}
	m.ep, m.is, m.handle, m.tombUntil = s.(*tcp.RepairSocket).Endpoint(), frozen, nil, 0
}

func (m *placeModel) toggle() {
	mode := repair.OffNoProbe
	switch m.is {
	case frozen:
		m.is = alive
	case alive:
		mode, m.is = repair.On, frozen
	default:
		return
	}
	if err := m.ep.Repair().SetRepair(mode); err != nil {
		m.t.Fatal(err)
	}
}

func (m *placeModel) close() {
	if m.is != frozen {
		return
	}
	m.ep.Close()
	m.is, m.ends, m.handle, m.tombUntil = tombstone, m.now+tcp.DefaultTombstone, nil, 0
}

func (m *placeModel) pass(d time.Duration) {
	m.clock.Advance(d)
	m.now += d
	if (m.is == tombstone || m.is == reserved) && m.now >= m.ends {
		m.is, m.handle = nobody, nil
		m.fallBack()
	}
}

// verify sends a segment to the place and judges the answer.
func (m *placeModel) verify() {
	for {
		s, ok := m.next()
		if !ok {
			break
		}
		if m.is != alive || s.flags&header.TCPFlagRst != 0 {
			m.t.Fatalf("%s was sent", s.flags)
		}
	}
	m.inject(segment{seq: peerISN + 1, ack: m.iss, flags: header.TCPFlagAck, window: 65535, payload: "again"}, nil)
	s, ok := m.next()
	switch m.is {
	case nobody:
		if !ok || s.flags&header.TCPFlagRst == 0 {
			m.t.Fatalf("%v, want a reset", s)
		}
	case alive:
		if !ok || s.flags != header.TCPFlagAck {
			m.t.Fatalf("%v, want an acknowledgement", s)
		}
	default:
		if ok {
			m.t.Fatalf("%v, want silence", s)
		}
	}
	m.pass(time.Second)
}

// clear leaves nobody in the place.
func (m *placeModel) clear() {
	if m.is == alive {
		m.toggle()
	}
	m.close()
	m.pass(10 * time.Minute)
	m.pass(10 * time.Minute) // for what came in the place of another
	m.is, m.handle, m.tombUntil = nobody, nil, 0
}

// Whatever the order in which a place is reserved, given up, buried, filled,
// thawed and left again: what is there answers as it should, and nothing else
// does.
func TestPlaceInAnyOrder(t *testing.T) {
	w := newWire(t)
	ep, iss := w.open()
	snap, err := repair.Checkpoint(ep.Repair())
	if err != nil {
		t.Fatal(err)
	}
	ep.Close()
	m := &placeModel{wire: w, snap: snap, iss: iss, is: tombstone}
	var order []int
	defer func() {
		if t.Failed() {
			for _, op := range order {
				t.Log(placeOps[op].name)
			}
		}
	}()
	try := func(ops ...int) {
		order = order[:0]
		m.clear()
		m.verify()
		for _, op := range ops {
			order = append(order, op)
			placeOps[op].do(m)
			m.verify()
		}
	}
	k := len(placeOps)
	for n := range k * k * k * k {
		try(n%k, n/k%k, n/k/k%k, n/k/k/k)
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for range 100 {
		ops := make([]int, 20)
		for i := range ops {
			ops[i] = r.IntN(k)
		}
		try(ops...)
	}
}
