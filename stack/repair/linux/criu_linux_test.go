package linux_test

import (
	"bytes"
	"net"
	"reflect"
	"slices"
	"testing"

	"github.com/tcprepair/ustack/internal/netlab"
	"github.com/tcprepair/ustack/stack/repair"
	"github.com/tcprepair/ustack/stack/repair/criu"
	"github.com/tcprepair/ustack/stack/repair/linux"
)

// throughImages writes a snapshot as CRIU's images and reads it back.
func throughImages(t *testing.T, snap *repair.Snapshot) *repair.Snapshot {
	t.Helper()
	dir := t.TempDir()
	_, err := criu.WriteDir(dir, criu.Connection{Inode: 4711, Snapshot: snap})
	must(t, err)
	list, err := criu.ReadDir(dir, repair.Limits{})
	must(t, err)
	if len(list) != 1 || list[0].Inode != 4711 {
		t.Fatalf("%d connections in the images", len(list))
	}
	return list[0].Snapshot
}

// A kernel's connection is in CRIU's images whole, and restored from these it
// goes on to its end.
func TestImages(t *testing.T) {
	toHost, toPeer := bytes.Repeat([]byte("to the host "), 1000), bytes.Repeat([]byte("to the peer "), 1000)
	for state, arrange := range map[repair.State]func(peer, host *net.TCPConn) error{
		repair.StateEstablished: func(peer, host *net.TCPConn) error { return nil },
		repair.StateCloseWait:   func(peer, host *net.TCPConn) error { return peer.CloseWrite() },
		repair.StateFinWait1:    func(peer, host *net.TCPConn) error { return host.CloseWrite() },
	} {
		for _, fam := range families {
			t.Run(state.String()+"/"+fam.name, func(t *testing.T) {
				w := newWorld(t)
				peer, host := w.connect(fam.index)
				_, err := peer.Write(toHost)
				must(t, err)
				eventually(t, "the data to the host", func() bool {
					n, err := netlab.InQueue(host)
					return err == nil && n == len(toHost)
				})
				// The peer's acknowledgements are lost, or nothing would be in
				// the send queue.
				w.Switch.Silence(state != repair.StateCloseWait, false)
				_, err = host.Write(toPeer)
				must(t, err)
				s, err := w.factory(0).FromConn(host)
				must(t, err)
				must(t, arrange(peer, host))
				eventually(t, "the state", func() bool {
					now, err := s.State()
					return err == nil && now == state
				})
				must(t, host.Close())
				snap, err := repair.Checkpoint(s)
				must(t, err)
				imaged := throughImages(t, snap)
				sameImage(t, &snap.Core, &imaged.Core)

				restored, err := repair.Restore(w.factory(1), imaged)
				must(t, err)
				follow(t, w, s, restored)
				finish(t, w, peer, restored.(*linux.Socket), toHost, toPeer)
			})
		}
	}
}

// sameImage compares cores. The timestamp may be one tick ahead, for its last
// bit says how long a tick is.
func sameImage(t *testing.T, want, got *repair.Core) {
	t.Helper()
	a, b := *want, *got
	if d := b.Timestamp - a.Timestamp; d > 1 {
		t.Errorf("the timestamp clock went from %d to %d", a.Timestamp, b.Timestamp)
	}
	b.Timestamp = a.Timestamp
	for _, c := range []*repair.Core{&a, &b} {
		c.SendQueue, c.RecvQueue = repair.Bytes{slices.Concat(c.SendQueue...)}, repair.Bytes{slices.Concat(c.RecvQueue...)}
	}
	if !reflect.DeepEqual(a, b) {
		a.SendQueue, a.RecvQueue, b.SendQueue, b.RecvQueue = nil, nil, nil, nil
		t.Errorf("was  %+v\nis now %+v", a, b)
	}
}
