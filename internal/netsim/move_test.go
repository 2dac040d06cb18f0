package netsim_test

import (
	"bytes"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"

	"github.com/tcprepair/ustack/internal/netsim"
	"github.com/tcprepair/ustack/stack/repair"
	"github.com/tcprepair/ustack/stack/tcp"
)

// moved is what became of a transfer whose sender was moved in the middle.
type moved struct {
	before float64   // what the receiver got in a round trip, on average, bytes
	after  []float64 // in each round trip after the move
	resets int
}

// moveMidTransfer moves the sender of a transfer from one host to another, whose
// place is kept meanwhile with room for hold bytes, and counts what arrives.
func moveMidTransfer(t *testing.T, core bool, hold int) (m moved) {
	t.Helper()
	const (
		rtt   = 100 * time.Millisecond
		pause = 10 * time.Millisecond // between the freeze and the thaw
		trips = 12                    // fewer than until the next loss of its own making
	)
	w, err := newArena(ours, "cubic", path{mbps: 50, rtt: rtt, buffer: 1}, cellSeed)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	w.link.Tap = func(p netsim.Packet) {
		if header.TCP(header.IPv4(p.Bytes).Payload()).Flags()&header.TCPFlagRst != 0 {
			m.resets++
		}
	}
	f, err := w.StartBulk(w.link, w.a, w.b, 5001, netsim.Endless)
	if err != nil {
		t.Fatal(err)
	}
	w.Run(10 * time.Second)
	was := f.Received()
	const window = 20
	w.Run(window * rtt)
	m.before = float64(f.Received()-was) / window

	snap, err := repair.Checkpoint(f.Sender().(*tcp.Endpoint).Repair())
	if err != nil {
		t.Fatal(err)
	}
	target := w.NewHost(ours.factory)
	factory := &tcp.RepairFactory{Stack: target.Stack()}
	if _, err := repair.Reserve(factory, snap.Flow(), hold, time.Minute); err != nil {
		t.Fatal(err)
	}
	if err := w.link.Takeover(target); err != nil {
		t.Fatal(err)
	}
	w.Run(pause)
	var file bytes.Buffer
	if _, err := snap.WriteTo(&file); err != nil {
		t.Fatal(err)
	}
	if snap, err = repair.Read(&file, repair.Limits{}); err != nil {
		t.Fatal(err)
	}
	if core {
		snap.Extra = nil
	}
	s, err := repair.Restore(factory, snap)
	if err != nil {
		t.Fatal(err)
	}
	f.Sender().Close()
	sock := s.(*tcp.RepairSocket)
	f.MoveSender(sock.Endpoint(), sock.WaiterQueue())
	if err := repair.Resume(s, repair.Off); err != nil {
		t.Fatal(err)
	}
	for range trips {
		was := f.Received()
		w.Run(rtt)
		m.after = append(m.after, float64(f.Received()-was))
	}
	if err := f.Err(); err != nil {
		t.Fatal(err)
	}
	w.link.Tap = nil // closing all hosts resets their connections
	return m
}

// back is how many round trips it takes until as much arrives as before, less a
// tenth, and goes on arriving.
func (m *moved) back() (n int) {
	for i, got := range m.after {
		if got < 0.9*m.before {
			n = i + 1
		}
	}
	return n
}

// A sender that is moved in the middle of a transfer over 100 ms is back at 90%
// of its throughput within two round trips, where all that is known of it moves
// along; with what Linux can restore it starts slowly again.
func TestMoveKeepsThroughput(t *testing.T) {
	for _, tc := range []struct {
		name string
		core bool
		hold int
		most int // round trips
	}{
		{"all, segments held", false, 1 << 20, 2},
		{"all, segments swallowed", false, 0, 2},
		{"core only, segments held", true, 1 << 20, 11},
		{"core only, segments swallowed", true, 0, 11},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := moveMidTransfer(t, tc.core, tc.hold)
			t.Logf("%.0f bytes in a round trip before; then %.0f; back after %d", m.before, m.after, m.back())
			if m.resets > 0 {
				t.Errorf("%d resets", m.resets)
			}
			if b := m.back(); b > tc.most {
				t.Errorf("back after %d round trips, want %d at most", b, tc.most)
			}
		})
	}
}
