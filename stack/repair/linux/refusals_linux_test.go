package linux_test

import (
	"bytes"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/tcprepair/ustack/internal/repairtest"
	"github.com/tcprepair/ustack/stack/repair"
)

// What must be refused is, as by a stack of ours and the command line, and
// neither the origin nor the kernel's sockets have changed.
func TestRefusalsFromFiles(t *testing.T) {
	w := newWorld(t)
	peer, host := w.connect(0)
	s := w.freeze(0, host)
	defer s.Close()
	snap, err := s.Snapshot()
	must(t, err)
	snap.Extra.Passive = false
	l, err := w.Hosts[0].Kernel.ListenTCP(netip.AddrPortFrom(netip.IPv4Unspecified(), 0))
	must(t, err)
	defer l.Close()
	factory := w.factory(0)
	type state struct {
		conn    string
		sockets string // that are in use
		files   int    // descriptors of this process
	}
	look := func() (now state) {
		again, err := s.Snapshot()
		must(t, err)
		again.Timestamp = 0 // it goes on
		text, err := again.JSON(true)
		must(t, err)
		now.conn = string(text)
		must(t, w.Hosts[0].Kernel.Do(func() error {
			b, err := os.ReadFile("/proc/thread-self/net/sockstat")
			_, tcp, _ := strings.Cut(string(b), "TCP: ")
			tcp, _, _ = strings.Cut(tcp, " orphan")
			now.sockets = tcp
			return err
		}))
		open, err := os.ReadDir("/proc/self/fd")
		must(t, err)
		now.files = len(open)
		return now
	}
	before := look()
	repairtest.Refusals(t, &repairtest.Target{
		Snapshot: snap,
		Restore: func(file []byte) error {
			got, err := repair.Read(bytes.NewReader(file), repair.Limits{})
			if err != nil {
				return err
			}
			_, err = repair.Restore(factory, got)
			return err
		},
		Foreign:   netip.MustParseAddr("10.77.0.9"),
		Nowhere:   netip.MustParseAddr("192.0.2.1"),
		Listening: netip.MustParseAddrPort(l.Addr().String()).Port(),
		Unchanged: func(t *testing.T, after string) {
			t.Helper()
			now := look()
			// Tombstones of other tests come to their end meanwhile.
			before.files = min(before.files, now.files)
			if now != before {
				t.Fatalf("after %q: %+v, was %+v", after, now, before)
			}
		},
	})
	must(t, repair.Resume(s, repair.Off))
	c := user(t, s)
	defer c.Close()
	exchange(t, peer, c)
	if n := w.resets(); n > 0 {
		t.Errorf("%d RSTs on the wire", n)
	}
}
