package linux_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/tcprepair/ustack/internal/netlab"
	"github.com/tcprepair/ustack/stack/repair"
	"github.com/tcprepair/ustack/stack/repair/linux"
)

// much is more than the peer's window takes.
var much = bytes.Repeat([]byte("much more than fits"), 400_000)

// stuffed returns a connection whose host has written until no more went in,
// because the peer does not read: a closed window, and data that never left.
// What the queue took is returned too.
func stuffed(t *testing.T, w *world, family int) (peer, host *net.TCPConn, written []byte) {
	t.Helper()
	peer, host = w.connect(family)
	must(t, host.SetWriteDeadline(time.Now().Add(500*time.Millisecond)))
	n, err := host.Write(much)
	if err == nil {
		t.Fatal("the peer's window took everything")
	}
	return peer, host, much[:n]
}

// A FIN that waits behind data which never left follows it where the connection
// goes, from FIN-WAIT-1 and from LAST-ACK.
func TestUnsentFIN(t *testing.T) {
	for _, fam := range families {
		for _, state := range []repair.State{repair.StateFinWait1, repair.StateLastAck, repair.StateClosing} {
			t.Run(state.String()+"/"+fam.name, func(t *testing.T) {
				w := newWorld(t)
				peer, host, written := stuffed(t, w, fam.index)
				s, err := w.factory(0).FromConn(host)
				must(t, err)
				reach := func(want repair.State) {
					eventually(t, want.String(), func() bool {
						state, err := s.State()
						return err == nil && state == want
					})
				}
				switch state {
				case repair.StateFinWait1:
					must(t, host.CloseWrite())
				case repair.StateLastAck:
					must(t, peer.CloseWrite())
					reach(repair.StateCloseWait)
					must(t, host.CloseWrite())
				case repair.StateClosing:
					must(t, host.CloseWrite())
					must(t, peer.CloseWrite())
				}
				reach(state)
				must(t, host.Close())
				snap, err := repair.Checkpoint(s)
				must(t, err)
				if snap.State != state || snap.Unsent == 0 || !snap.FINQueued || snap.FINSent {
					t.Errorf("%v, %d unsent, FIN queued %v, sent %v", snap.State, snap.Unsent, snap.FINQueued, snap.FINSent)
				}
				restored, err := w.factory(1).Restore(snap)
				must(t, err)
				again, err := restored.(*linux.Socket).Snapshot()
				must(t, err)
				if again.Unsent != snap.Unsent || again.SendQueue.Len() != snap.SendQueue.Len() || !again.FINQueued || again.FINSent {
					t.Errorf("was %d of %d unsent, is %d of %d; FIN queued %v, sent %v", snap.Unsent, snap.SendQueue.Len(),
						again.Unsent, again.SendQueue.Len(), again.FINQueued, again.FINSent)
				}
				follow(t, w, s, restored)
				finish(t, w, peer, restored.(*linux.Socket), nil, written)
			})
		}
	}
}

// A window that the host keeps closed stays closed where the connection goes,
// and opens there.
func TestClosedWindow(t *testing.T) {
	w := newWorld(t)
	peer, host := w.connect(0)
	must(t, peer.SetWriteDeadline(time.Now().Add(500*time.Millisecond)))
	written, err := peer.Write(much)
	if err == nil {
		t.Fatal("the host's window took everything")
	}
	must(t, peer.SetWriteDeadline(time.Time{}))
	s := w.freeze(0, host)
	moved := w.move(s, 1)
	c := user(t, moved)
	defer c.Close()
	must(t, c.SetReadDeadline(time.Now().Add(limit)))
	must(t, peer.CloseWrite())
	got, err := io.ReadAll(c)
	must(t, err)
	if !bytes.Equal(got, much[:written]) {
		t.Errorf("%d bytes came of %d", len(got), written)
	}
	must(t, moved.Close())
	if n := w.resets(); n > 0 {
		t.Errorf("%d RSTs on the wire", n)
	}
}

// An origin that could not go goes on, with all that it had to send: the kernel
// took some of that for sent while it was frozen.
func TestOriginGoesOn(t *testing.T) {
	w := newWorld(t)
	peer, host := w.connect(1)
	sent, received := make(chan error, 1), make(chan error, 1)
	var got []byte
	go func() {
		_, err := host.Write(much)
		sent <- err
	}()
	go func() {
		var err error
		got, err = io.ReadAll(peer)
		received <- err
	}()
	s, err := w.factory(0).FromConn(host)
	must(t, err)
	defer s.Close()
	for range 10 {
		eventually(t, "data in flight", func() bool {
			n, err := netlab.OutQueue(host)
			return err == nil && n > 0
		})
		if _, err := repair.Move(s, w.factory(0)); !errors.Is(err, repair.ErrAddrInUse) {
			t.Fatalf("moved to where it was: %v", err)
		}
	}
	must(t, <-sent)
	must(t, host.CloseWrite())
	must(t, <-received)
	if !bytes.Equal(got, much) {
		t.Errorf("%d bytes came of %d", len(got), len(much))
	}
}

// Many are frozen at once, or none.
func TestFreezeAll(t *testing.T) {
	w := newWorld(t)
	var sockets []*linux.Socket
	for range 5 {
		peer, host := w.connect(0)
		s, err := w.factory(0).FromConn(host)
		must(t, err)
		defer s.Close()
		defer exchange(t, peer, host)
		sockets = append(sockets, s)
	}
	must(t, linux.FreezeAll(sockets...))
	for _, s := range sockets {
		if on, err := s.Repair(); !on || err != nil {
			t.Errorf("frozen: %v, %v", on, err)
		}
		must(t, s.Resume(repair.OffNoProbe))
	}
	closed, err := w.factory(0).FromFD(sockets[0].FD())
	must(t, err)
	must(t, closed.Close())
	if err := linux.FreezeAll(append(sockets, closed)...); err == nil {
		t.Error("a closed one was frozen")
	}
	for _, s := range sockets {
		if on, err := s.Repair(); on || err != nil {
			t.Errorf("left frozen: %v, %v", on, err)
		}
	}
}
