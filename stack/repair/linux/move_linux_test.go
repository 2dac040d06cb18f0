package linux_test

import (
	"net"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/tcprepair/ustack/internal/netlab"
	"github.com/tcprepair/ustack/stack/repair"
	"github.com/tcprepair/ustack/stack/repair/linux"
)

// A connection under load both ways moves between two kernels, again and again,
// and the peer notices nothing.
func TestMoveUnderLoad(t *testing.T) {
	for _, fam := range families {
		t.Run(fam.name, func(t *testing.T) {
			const moves, size = 30, 24 << 20
			w := newWorld(t)
			peer, first := w.connect(fam.index)
			atPeer := duplex{in: newTraffic(size, 1), out: newTraffic(size, 2)}
			atHost := duplex{in: newTraffic(size, 2), out: newTraffic(size, 1)}
			result := make(chan error, 1)
			go func() {
				_, err := atPeer.run(peer)
				result <- err
			}()
			var c net.Conn = first
			s, err := w.factory(0).FromConn(first)
			must(t, err)
			var took []time.Duration
			for i := range moves {
				done, err := atHost.runFor(c, 20*time.Millisecond)
				must(t, err)
				if done {
					t.Logf("all was sent after %d moves", i)
					break
				}
				must(t, c.Close())
				start := time.Now()
				s = w.move(s, 1-i%2)
				took = append(took, time.Since(start))
				c = user(t, s)
			}
			_, err = atHost.runFor(c, limit)
			must(t, err)
			must(t, <-result)
			if digest(atPeer.in) != digest(atHost.out) || digest(atHost.in) != digest(atPeer.out) || atHost.in.left+atPeer.in.left > 0 {
				t.Error("what arrived is not what was sent")
			}
			if n := w.resets(); n > 0 {
				t.Errorf("%d RSTs on the wire", n)
			}
			slices.Sort(took)
			t.Logf("%d moves, p50 %v, max %v", len(took), took[len(took)/2], took[len(took)-1])
			must(t, s.Close())
			must(t, c.Close())
		})
	}
}

// Timestamps that tick in microseconds go on ticking so.
func TestMicrosecondTimestamps(t *testing.T) {
	w := newWorld(t)
	if err := w.Hosts[0].Kernel.MicrosecondTimestamps(w.Hosts[0].Device.Name, netlab.KernelAddresses[0]); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err) // a kernel before 6.7
	}
	peer, host := w.connect(0)
	exchange(t, peer, host)
	s := w.freeze(0, host)
	snap, err := s.Snapshot()
	must(t, err)
	if !snap.TimestampMicros {
		t.Fatal("the clock ticks in milliseconds")
	}
	restored, err := w.factory(1).Restore(snap) // whose route knows nothing of it
	must(t, err)
	value, micros, err := restored.Timestamp()
	must(t, err)
	if ago := value - snap.Timestamp; !micros || ago > 5_000_000 {
		t.Errorf("microseconds: %v, the clock went from %d to %d", micros, snap.Timestamp, value)
	}
	w.Switch.Move(1)
	must(t, s.Close())
	must(t, repair.Resume(restored, repair.Off))
	c := user(t, restored.(*linux.Socket))
	defer c.Close()
	exchange(t, peer, c)
	must(t, restored.Close())
}
