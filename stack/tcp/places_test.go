package tcp_test

import (
	"bytes"
	"errors"
	"net/netip"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/tcprepair/ustack/stack/repair"
	"github.com/tcprepair/ustack/stack/tcp"
	"github.com/tcprepair/ustack/stack/tcp/conn"
)

// flow is the wire's connection as the stack sees it.
func (w *wire) flow() repair.Flow {
	at := func(a tcpip.Address, port uint16) netip.AddrPort {
		ip, _ := netip.AddrFromSlice(a.AsSlice())
		return netip.AddrPortFrom(ip, port)
	}
	return repair.Flow{Local: at(addr4[0], w.ports[0]), Remote: at(addr4[1], w.ports[1])}
}

func (w *wire) factory() *tcp.RepairFactory { return &tcp.RepairFactory{Stack: w.stack} }

// late are segments that a peer may still send to a connection that has gone.
var late = []segment{
	{seq: peerISN + 1, flags: header.TCPFlagAck, window: 65535, payload: "late"},
	{seq: peerISN + 1, flags: header.TCPFlagAck, window: 65535},
	{seq: peerISN + 1, flags: header.TCPFlagAck | header.TCPFlagFin, window: 65535},
	{seq: peerISN + 1, flags: header.TCPFlagRst},
	{seq: peerISN + 9999, flags: header.TCPFlagSyn, window: 65535},
}

// Where a frozen connection was closed a tombstone swallows what comes, beside a
// listener too, and only for its lifetime.
func TestTombstone(t *testing.T) {
	for _, lifetime := range []time.Duration{0, 5 * time.Second, -1} {
		t.Run(lifetime.String(), func(t *testing.T) {
			w := newWire(t)
			if err := tcp.SetTuning(w.stack, tcp.Tuning{Tombstone: lifetime}); err != nil {
				t.Fatal(err)
			}
			ep, iss := w.open() // and there is a listener on the port
			if err := ep.Repair().SetRepair(repair.On); err != nil {
				t.Fatal(err)
			}
			ep.Close()
			w.quiet("after closing in repair")
			data := late[0]
			data.ack = iss
			if lifetime < 0 {
				w.inject(data, nil)
				w.want(header.TCPFlagRst)
				return
			}
			for _, s := range late {
				s.ack = iss
				w.inject(s, nil)
				w.quiet("to a tombstone")
			}
			if n := tcp.DropCounts(w.stack)[conn.DropSocketTombstone]; n != uint64(len(late)) {
				t.Errorf("%d segments swallowed, want %d", n, len(late))
			}
			if lifetime == 0 {
				lifetime = tcp.DefaultTombstone
			}
			w.clock.Advance(lifetime - time.Millisecond)
			w.inject(data, nil)
			w.quiet("just before the end of a tombstone")
			w.clock.Advance(2 * time.Millisecond)
			w.inject(data, nil)
			w.want(header.TCPFlagRst)
		})
	}
}

// A place that is kept is not given to a new connection.
func TestPlaceIsTaken(t *testing.T) {
	w := newWire(t)
	f := w.factory()
	r, err := f.Reserve(w.flow(), 0, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Reserve(w.flow(), 0, time.Minute); !errors.Is(err, repair.ErrAddrInUse) {
		t.Errorf("reserved twice: %v", err)
	}
	if _, err := f.Bury(w.flow(), time.Minute); !errors.Is(err, repair.ErrAddrInUse) {
		t.Errorf("buried where there is a reservation: %v", err)
	}
	dial := func() tcpip.Error {
		ep := newEndpoint(t, w.stack, families[0], new(waiter.Queue))
		t.Cleanup(ep.Abort)
		if err := ep.Bind(tcpip.FullAddress{Port: w.ports[0]}); err != nil {
			t.Fatal(tcpipErr(err))
		}
		err := ep.Connect(tcpip.FullAddress{Addr: addr4[1], Port: w.ports[1]})
		if _, ok := err.(*tcpip.ErrConnectStarted); !ok {
			ep.Close()
		}
		return err
	}
	if _, ok := dial().(*tcpip.ErrPortInUse); !ok {
		t.Error("a connection was begun in a place that is kept")
	}
	r.Cancel()
	r.Cancel()
	if _, ok := dial().(*tcpip.ErrConnectStarted); !ok {
		t.Error("no connection can be begun where a reservation was cancelled")
	}
	w.want(header.TCPFlagSyn)
	if _, err := f.Reserve(w.flow(), 0, time.Minute); !errors.Is(err, repair.ErrAddrInUse) {
		t.Errorf("reserved where there is a connection: %v", err)
	}
}

// A reservation swallows what comes, or holds it for the connection that is to
// come, up to its bound and for its lifetime.
func TestReservation(t *testing.T) {
	w := newWire(t)
	ep, iss := w.open()
	if err := ep.Repair().SetRepair(repair.On); err != nil {
		t.Fatal(err)
	}
	snap, err := repair.Checkpoint(ep.Repair())
	if err != nil {
		t.Fatal(err)
	}
	ep.Close() // with a tombstone, which makes way
	f := w.factory()
	const room = 2*(20+5) + 10
	r, err := f.Reserve(w.flow(), room, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	ack := header.TCPFlagAck
	data := func(at uint32, payload string) segment {
		return segment{seq: peerISN + 1 + at, ack: iss, flags: ack, window: 65535, payload: payload}
	}
	w.inject(data(0, "first"), nil)
	w.inject(data(10, "third"), nil) // and it does not fit together with
	w.inject(data(15, "too much"), nil)
	w.quiet("to a reservation")
	if held, swallowed := r.Segments(); held != 2 || swallowed != 1 {
		t.Errorf("%d held and %d swallowed, want 2 and 1", held, swallowed)
	}
	if n := tcp.DropCounts(w.stack)[conn.DropSocketReserved]; n != 1 {
		t.Errorf("%d segments counted as swallowed, want 1", n)
	}

	s, err := repair.Restore(f, snap)
	if err != nil {
		t.Fatal(err)
	}
	moved := s.(*tcp.RepairSocket).Endpoint()
	defer moved.Close()
	w.quiet("restored, and frozen")
	if unread, _, _, _ := s.Queued(); unread != 0 {
		t.Errorf("%d bytes taken while frozen", unread)
	}
	if err := s.SetRepair(repair.OffNoProbe); err != nil {
		t.Fatal(err)
	}
	// All that was held is acknowledged at once; the hole is known.
	var last segment
	for {
		s, ok := w.next()
		if !ok {
			break
		}
		last = s
	}
	if last.ack != peerISN+1+5 {
		t.Errorf("acknowledged up to %d, want %d", last.ack, peerISN+1+5)
	}
	w.inject(data(5, "-2nd-"), nil)
	if s := w.want(ack); s.ack != peerISN+1+15 {
		t.Errorf("acknowledged up to %d, want %d", s.ack, peerISN+1+15)
	}
	var b bytes.Buffer
	if _, err := moved.Read(&b, tcpip.ReadOptions{}); err != nil || b.String() != "first-2nd-third" {
		t.Errorf("read %q, %s", b.String(), tcpipErr(err))
	}
	if _, err := f.Reserve(w.flow(), 0, time.Minute); !errors.Is(err, repair.ErrAddrInUse) {
		t.Errorf("reserved where there is a connection: %v", err)
	}
}

// Reservations end in the order of their lifetimes, by one timer.
func TestPlacesEnd(t *testing.T) {
	w := newWire(t)
	f := w.factory()
	lives := []time.Duration{30 * time.Second, 10 * time.Second, 20 * time.Second, 10 * time.Second}
	var list []repair.Reservation
	probe := func(i int) bool { // reports whether the place is kept
		w.ports[1] = uint16(5000 + i)
		w.inject(segment{seq: 1, ack: 1, flags: header.TCPFlagAck, window: 100, payload: "x"}, nil)
		s, ok := w.next()
		if ok && s.flags != header.TCPFlagRst {
			t.Errorf("%s was sent", s.flags)
		}
		return !ok
	}
	for i, life := range lives {
		w.ports[1] = uint16(5000 + i)
		r, err := f.Reserve(w.flow(), 100*(i%2), life)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, r)
	}
	for at := time.Duration(0); at <= 35*time.Second; at += 5 * time.Second {
		for i, life := range lives {
			if kept, want := probe(i), at < life; kept != want {
				t.Errorf("after %v place %d is kept: %t, its lifetime is %v", at, i, kept, life)
			}
		}
		w.clock.Advance(5 * time.Second)
	}
	if held, swallowed := list[3].Segments(); held+swallowed != 2 {
		t.Errorf("%d held, %d swallowed; want 2 in all", held, swallowed)
	}
	drops := tcp.DropCounts(w.stack)[conn.DropSocketReserved]
	if want := uint64(6 + 2 + 4 + 2); drops != want { // what was held is dropped in the end
		t.Errorf("%d segments dropped, want %d", drops, want)
	}
}
