package tcp_test

import (
	"bytes"
	"errors"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"

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
