package tcp_test

import (
	"strings"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"github.com/tcprepair/ustack/stack/repair"
	"github.com/tcprepair/ustack/stack/tcp"
)

// A connection that its user has closed goes on delivering what was written. It
// is moved like others: the origin ends without a word, and the target delivers
// the rest and ends.
func TestMoveOrphan(t *testing.T) {
	w := newWire(t)
	ep, iss := w.open()
	if _, err := ep.Write(strings.NewReader("the rest"), tcpip.WriteOptions{}); err != nil {
		t.Fatal(tcpipErr(err))
	}
	w.want(header.TCPFlagAck)
	ep.Close()
	w.want(header.TCPFlagAck | header.TCPFlagFin)
	listed := func() (n int) {
		for _, e := range tcp.Endpoints(w.stack) {
			if e.EndpointState() != tcp.StateListen {
				n++
			}
		}
		return n
	}
	for range 3 {
		snap, err := repair.Checkpoint(ep.Repair())
		if err != nil {
			t.Fatal(err)
		}
		if err := ep.Repair().Close(); err != nil {
			t.Fatal(err)
		}
		if n := listed(); n != 0 {
			t.Fatalf("%d connections are left at the origin", n)
		}
		ep.Wait()
		w.quiet("closed in repair")
		s, err := repair.Restore(w.factory(), snap)
		if err != nil {
			t.Fatal(err)
		}
		ep = s.(*tcp.RepairSocket).Endpoint()
		if err := repair.Resume(s, repair.OffNoProbe); err != nil {
			t.Fatal(err)
		}
	}
	w.clock.Advance(time.Minute)
	sent := ""
	for {
		s, ok := w.next()
		if !ok {
			break
		}
		sent = s.payload
	}
	if sent != "the rest" {
		t.Errorf("sent again: %q", sent)
	}
	end := iss + uint32(len("the rest")) + 1
	w.inject(segment{seq: peerISN + 1, ack: end, flags: header.TCPFlagAck | header.TCPFlagFin, window: 65535}, nil)
	for s, ok := w.next(); ok; s, ok = w.next() {
		if s.flags&header.TCPFlagRst != 0 {
			t.Errorf("%s was sent", s.flags)
		}
	}
	w.clock.Advance(5 * time.Minute)
	if n := listed(); n != 0 {
		t.Errorf("%d connections are left at the end", n)
	}
}
