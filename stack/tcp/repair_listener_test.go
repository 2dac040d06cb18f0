package tcp_test

import (
	"bytes"
	"cmp"
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

// A listener moves with those that nobody has accepted: one whose handshake is
// under way, and one that is ready and has data.
func TestMoveListener(t *testing.T) {
	w := newWire(t)
	l, _ := listenEndpoint(t, w.stack, families[0], 0, w.ports[0], 5)
	hello := func(port uint16) (iss uint32) {
		w.ports[1] = port
		w.inject(segment{seq: peerISN, flags: header.TCPFlagSyn, window: 65535}, nil)
		return w.want(header.TCPFlagSyn|header.TCPFlagAck).seq + 1
	}
	ready := hello(5000)
	w.inject(segment{seq: peerISN + 1, ack: ready, flags: header.TCPFlagAck, window: 65535, payload: "early"}, nil)
	w.want(header.TCPFlagAck)
	half := hello(5001)

	sock := l.Repair()
	if err := sock.SetRepair(repair.On); !errors.Is(err, repair.ErrPermission) {
		t.Errorf("freezing a listener by hand: %v", err)
	}
	snap, err := sock.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	if err := snap.Validate(); err != nil {
		t.Fatal(err)
	}
	if len(snap.Children) != 2 || snap.Children[0].State != repair.StateEstablished || snap.Children[1].State != repair.StateSynReceived {
		t.Fatalf("children %+v", snap.Children)
	}
	// Frozen, it is silent, and nothing can be accepted.
	w.ports[1] = 5002
	w.inject(segment{seq: peerISN, flags: header.TCPFlagSyn, window: 65535}, nil)
	w.ports[1] = 5001
	w.inject(segment{seq: peerISN + 1, ack: half, flags: header.TCPFlagAck, window: 65535}, nil)
	w.quiet("to a frozen listener")
	if _, _, err := l.Accept(nil); !wouldBlock(err) {
		t.Errorf("accepted from a frozen listener: %s", tcpipErr(err))
	}
	if n := l.Drops()[conn.DropSocketRepair]; n != 1 {
		t.Errorf("%d SYNs refused, want 1", n)
	}
	f := w.factory()
	if _, err := f.Restore(snap); !errors.Is(err, repair.ErrAddrInUse) {
		t.Errorf("restored beside the origin: %v", err)
	}
	w.quiet("after a refusal")
	l.Close()
	w.quiet("after closing a frozen listener")
	w.ports[1] = 5000
	w.inject(segment{seq: peerISN + 6, ack: ready, flags: header.TCPFlagAck, window: 65535, payload: "more"}, nil)
	w.quiet("to the tombstone of a connection that was not accepted")

	r, err := f.Restore(snap)
	if err != nil {
		t.Fatal(err)
	}
	moved := r.(*tcp.RepairSocket).Endpoint()
	defer moved.Close()
	w.quiet("restored, and frozen")
	if err := r.SetRepair(repair.OffNoProbe); err != nil {
		t.Fatal(err)
	}
	w.quiet("thawed without a probe")
	accept := func() *tcp.Endpoint {
		t.Helper()
		c, _, err := moved.Accept(nil)
		if err != nil {
			t.Fatalf("Accept: %s", err)
		}
		ep := c.(*tcp.Endpoint)
		t.Cleanup(ep.Close)
		return ep
	}
	first := accept()
	var b bytes.Buffer
	if _, err := first.Read(&b, tcpip.ReadOptions{}); err != nil || b.String() != "early" {
		t.Errorf("read %q, %s", b.String(), tcpipErr(err))
	}
	w.ports[1] = 5001
	w.inject(segment{seq: peerISN + 1, ack: half, flags: header.TCPFlagAck, window: 65535}, nil)
	if second := accept(); second.EndpointState() != tcp.StateEstablished {
		t.Errorf("the second is in %s", second.EndpointState())
	}
	// And new ones may come.
	w.ports[1] = 5003
	w.inject(segment{seq: peerISN, flags: header.TCPFlagSyn, window: 65535}, nil)
	w.want(header.TCPFlagSyn | header.TCPFlagAck)
}

// A listener that is frozen and thawed goes on.
func TestThawListener(t *testing.T) {
	w := newWire(t)
	l, _ := listenEndpoint(t, w.stack, families[0], 0, w.ports[0], 5)
	w.inject(segment{seq: peerISN, flags: header.TCPFlagSyn, window: 65535}, nil)
	iss := w.want(header.TCPFlagSyn|header.TCPFlagAck).seq + 1
	snap, err := l.Repair().Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	snap.Release()
	if on, _ := l.Repair().Repair(); !on {
		t.Error("it is not frozen")
	}
	if err := l.Repair().SetRepair(repair.Off); err != nil {
		t.Fatal(err)
	}
	w.inject(segment{seq: peerISN + 1, ack: iss, flags: header.TCPFlagAck, window: 65535}, nil)
	c, _, terr := l.Accept(nil)
	if terr != nil {
		t.Fatalf("Accept: %s", terr)
	}
	c.Close()
}

// Where a frozen listener was closed a tombstone swallows what still comes to
// its port, for its lifetime, and gives way to another listener.
func TestListenerTombstone(t *testing.T) {
	for _, tc := range []struct {
		name     string
		addr     tcpip.Address
		lifetime time.Duration
	}{{"any address", tcpip.Address{}, 0}, {"one address", addr4[0], 5 * time.Second}, {"none", addr4[0], -1}} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWire(t)
			if err := tcp.SetTuning(w.stack, tcp.Tuning{Tombstone: tc.lifetime}); err != nil {
				t.Fatal(err)
			}
			start := func() *tcp.Endpoint {
				ep := newEndpoint(t, w.stack, families[0], new(waiter.Queue))
				t.Cleanup(ep.Close)
				if err := ep.Bind(tcpip.FullAddress{Addr: tc.addr, Port: w.ports[0]}); err != nil {
					t.Fatal(tcpipErr(err))
				}
				if err := ep.Listen(5); err != nil {
					t.Fatal(tcpipErr(err))
				}
				return ep
			}
			syn := func() {
				w.ports[1]++
				w.inject(segment{seq: peerISN, flags: header.TCPFlagSyn, window: 65535}, nil)
			}
			l := start()
			if _, err := l.Repair().Snapshot(); err != nil {
				t.Fatal(err)
			}
			l.Close()
			syn()
			if tc.lifetime < 0 {
				w.want(header.TCPFlagRst | header.TCPFlagAck)
				return
			}
			w.quiet("to a tombstone")
			if n := tcp.DropCounts(w.stack)[conn.DropSocketTombstone]; n != 1 {
				t.Errorf("%d segments swallowed, want 1", n)
			}
			w.ports[0]++
			syn()
			w.want(header.TCPFlagRst | header.TCPFlagAck) // another port is nobody's
			w.ports[0]--

			lifetime := cmp.Or(tc.lifetime, tcp.DefaultTombstone)
			w.clock.Advance(lifetime - time.Millisecond)
			syn()
			w.quiet("just before the end of a tombstone")
			w.clock.Advance(2 * time.Millisecond)
			syn()
			w.want(header.TCPFlagRst | header.TCPFlagAck)

			// Another listener takes the place of a tombstone.
			l = start()
			if _, err := l.Repair().Snapshot(); err != nil {
				t.Fatal(err)
			}
			l.Close()
			l = start()
			syn()
			w.want(header.TCPFlagSyn | header.TCPFlagAck)
			l.Close()
			syn()
			w.want(header.TCPFlagRst | header.TCPFlagAck)
		})
	}
}

// A listener that cannot be restored whole is not restored at all: what was kept
// for its connections, and its own tombstone, are there as before.
func TestRestoreListenerUndone(t *testing.T) {
	w := newWire(t)
	l, _ := listenEndpoint(t, w.stack, families[0], 0, w.ports[0], 5)
	var isn [3]uint32
	for i := range isn {
		w.ports[1] = uint16(5000 + i)
		w.inject(segment{seq: peerISN, flags: header.TCPFlagSyn, window: 65535}, nil)
		isn[i] = w.want(header.TCPFlagSyn|header.TCPFlagAck).seq + 1
		w.inject(segment{seq: peerISN + 1, ack: isn[i], flags: header.TCPFlagAck, window: 65535}, nil)
	}
	snap, err := repair.Checkpoint(l.Repair())
	if err != nil {
		t.Fatal(err)
	}
	if len(snap.Children) != 3 {
		t.Fatalf("%d children", len(snap.Children))
	}
	l.Close()
	f := w.factory()
	held := repair.Flow{Local: snap.Children[0].Local, Remote: snap.Children[0].Remote}
	r, err := f.Reserve(held, 1000, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	w.ports[1] = 5000
	w.inject(segment{seq: peerISN + 1, ack: isn[0], flags: header.TCPFlagAck, window: 65535, payload: "one "}, nil)

	before := len(tcp.Endpoints(w.stack))
	last := snap.Children[2].Local
	snap.Children[2].Local = netip.AddrPortFrom(netip.MustParseAddr("192.0.2.99"), last.Port())
	snap.Local = netip.AddrPortFrom(netip.IPv4Unspecified(), last.Port())
	if _, err := repair.Restore(f, snap); !errors.Is(err, repair.ErrAddress) {
		t.Fatalf("with a child of another host's address: %v", err)
	}
	w.quiet("after the refusal")
	if n := len(tcp.Endpoints(w.stack)); n != before {
		t.Errorf("%d endpoints, were %d", n, before)
	}
	// The reservation goes on, the tombstones of the others and of the listener
	// do.
	w.inject(segment{seq: peerISN + 5, ack: isn[0], flags: header.TCPFlagAck, window: 65535, payload: "two"}, nil)
	if n, _ := r.Segments(); n != 2 {
		t.Errorf("%d segments held, want 2", n)
	}
	w.ports[1] = 5001
	w.inject(segment{seq: peerISN + 1, ack: isn[1], flags: header.TCPFlagAck, window: 65535, payload: "late"}, nil)
	w.ports[1] = 6000
	w.inject(segment{seq: peerISN, flags: header.TCPFlagSyn, window: 65535}, nil)
	w.quiet("to the places that were kept")

	snap.Children[2].Local = last
	sock, err := repair.Restore(f, snap)
	if err != nil {
		t.Fatal(err)
	}
	moved := sock.(*tcp.RepairSocket).Endpoint()
	defer moved.Close()
	if err := repair.Resume(sock, repair.OffNoProbe); err != nil {
		t.Fatal(err)
	}
	c, _, terr := moved.Accept(nil)
	if terr != nil {
		t.Fatal(tcpipErr(terr))
	}
	defer c.Close()
	var b bytes.Buffer
	if _, err := c.Read(&b, tcpip.ReadOptions{}); err != nil || b.String() != "one two" {
		t.Errorf("read %q, %s", b.String(), tcpipErr(err))
	}
}

// A connection that data came with before its handshake was over (RFC 7413)
// moves with the listener that it waits in, and counts there.
func TestMoveEarly(t *testing.T) {
	w := newWire(t)
	if err := tcp.SetTuning(w.stack, tcp.Tuning{FastOpen: tcp.FastOpenServer | tcp.FastOpenServerNoCookie}); err != nil {
		t.Fatal(err)
	}
	l, _ := listenEndpoint(t, w.stack, families[0], 0, w.ports[0], 5)
	if err := l.SetFastOpenBacklog(1); err != nil {
		t.Fatal(tcpipErr(err))
	}
	syn := segment{seq: peerISN, flags: header.TCPFlagSyn, window: 65535, payload: "early"}
	w.inject(syn, nil)
	answer := w.want(header.TCPFlagSyn | header.TCPFlagAck)
	if answer.ack != peerISN+6 {
		t.Fatalf("the data was not taken: acknowledged up to %d", answer.ack)
	}
	snap, err := repair.Checkpoint(l.Repair())
	if err != nil {
		t.Fatal(err)
	}
	if len(snap.Children) != 1 || snap.Children[0].State != repair.StateSynReceived {
		t.Fatalf("children %+v", snap.Children)
	}
	l.Close()
	w.quiet("after closing a frozen listener")
	sock, err := repair.Restore(w.factory(), snap)
	if err != nil {
		t.Fatal(err)
	}
	moved := sock.(*tcp.RepairSocket).Endpoint()
	defer moved.Close()
	if err := repair.Resume(sock, repair.OffNoProbe); err != nil {
		t.Fatal(err)
	}
	w.quiet("thawed without a probe")
	// There is room for one, and it is taken.
	first := w.ports[1]
	w.ports[1]++
	w.inject(syn, nil)
	if s := w.want(header.TCPFlagSyn | header.TCPFlagAck); s.ack != peerISN+1 {
		t.Errorf("the data of another was taken: acknowledged up to %d", s.ack)
	}
	w.ports[1] = first
	c, _, terr := moved.Accept(nil)
	if terr != nil {
		t.Fatal(tcpipErr(terr))
	}
	defer c.Close()
	var b bytes.Buffer
	if _, err := c.Read(&b, tcpip.ReadOptions{}); err != nil || b.String() != "early" {
		t.Errorf("read %q, %s", b.String(), tcpipErr(err))
	}
	w.inject(segment{seq: peerISN + 6, ack: answer.seq + 1, flags: header.TCPFlagAck, window: 65535, payload: " and late"}, nil)
	if st := c.(*tcp.Endpoint).EndpointState(); st != tcp.StateEstablished {
		t.Errorf("in %s", st)
	}
	w.want(header.TCPFlagAck)
	// The handshake is over: there is room for another.
	w.ports[1] += 2
	w.inject(syn, nil)
	if s := w.want(header.TCPFlagSyn | header.TCPFlagAck); s.ack != peerISN+6 {
		t.Errorf("the data of one after it was not taken: acknowledged up to %d", s.ack)
	}
}
