package linux_test

import (
	"net"
	"slices"
	"testing"
	"time"
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
