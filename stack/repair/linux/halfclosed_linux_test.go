package linux_test

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"

	"github.com/tcprepair/ustack/internal/netlab"
	"github.com/tcprepair/ustack/stack/repair"
	"github.com/tcprepair/ustack/stack/repair/linux"
)

// Every state that the kernel can be brought into is read out, restored
// elsewhere, and carried to its end: data whole, both FINs exchanged, no RST
// that cuts it off.
func TestStates(t *testing.T) {
	toHost, toPeer := bytes.Repeat([]byte("to the host "), 1000), bytes.Repeat([]byte("to the peer "), 1000)
	closeHost := func(t *testing.T, peer, host *net.TCPConn) { must(t, host.CloseWrite()) }
	closePeer := func(t *testing.T, peer, host *net.TCPConn) { must(t, peer.CloseWrite()) }
	heard := func(t *testing.T, peer, host *net.TCPConn) {
		eventually(t, "the peer's FIN", func() bool {
			i, err := netlab.TCPInfo(host)
			return err == nil && repair.State(i.State) == repair.StateCloseWait
		})
	}
	for _, tc := range []struct {
		state repair.State
		// deaf drops what the peer sends, mute what the host sends, while
		// the state comes about.
		deaf, mute bool
		arrange    []func(t *testing.T, peer, host *net.TCPConn)
	}{
		{repair.StateEstablished, false, false, nil},
		{repair.StateCloseWait, false, false, []func(*testing.T, *net.TCPConn, *net.TCPConn){closePeer}},
		{repair.StateFinWait2, false, false, []func(*testing.T, *net.TCPConn, *net.TCPConn){closeHost}},
		{repair.StateFinWait1, true, false, []func(*testing.T, *net.TCPConn, *net.TCPConn){closeHost}},
		{repair.StateLastAck, false, true, []func(*testing.T, *net.TCPConn, *net.TCPConn){closePeer, heard, closeHost}},
		{repair.StateClosing, false, true, []func(*testing.T, *net.TCPConn, *net.TCPConn){closeHost, closePeer}},
	} {
		for _, fam := range families {
			t.Run(tc.state.String()+"/"+fam.name, func(t *testing.T) {
				w := newWorld(t)
				peer, host := w.connect(fam.index)
				_, err := peer.Write(toHost)
				must(t, err)
				eventually(t, "the data to the host", func() bool {
					n, err := netlab.InQueue(host)
					return err == nil && n == len(toHost)
				})
				w.Switch.Silence(tc.deaf, tc.mute)
				_, err = host.Write(toPeer)
				must(t, err)
				s, err := w.factory(0).FromConn(host)
				must(t, err)
				for _, f := range tc.arrange {
					f(t, peer, host)
				}
				eventually(t, "the state", func() bool {
					state, err := s.State()
					return err == nil && state == tc.state
				})
				must(t, host.Close())
				snap, err := repair.Checkpoint(s)
				must(t, err)
				if snap.State != tc.state || !bytes.Equal(join(snap.RecvQueue), toHost) {
					t.Errorf("the snapshot has %v and %d bytes received", snap.State, snap.RecvQueue.Len())
				}
				if (tc.deaf || tc.mute) && !bytes.Equal(join(snap.SendQueue), toPeer) {
					t.Errorf("the snapshot has %d bytes to be acknowledged", snap.SendQueue.Len())
				}
				restored, err := w.factory(1).Restore(snap)
				must(t, err)
				if state, err := restored.State(); err != nil || state != tc.state {
					t.Errorf("restored to %v, %v", state, err)
				}
				again, err := restored.(*linux.Socket).Snapshot()
				must(t, err)
				sameCore(t, &snap.Core, &again.Core)
				follow(t, w, s, restored)
				finish(t, w, peer, restored.(*linux.Socket), toHost, toPeer)
			})
		}
	}
}

// follow lets the peer's frames go to the second host and the connection with
// them. Nothing of the first host's is under way any more when it goes on: a
// kernel repeats what is not acknowledged to a frozen connection too, and a FIN
// that came again after the end would draw a reset.
func follow(t *testing.T, w *world, from repair.Socket, restored repair.Socket) {
	t.Helper()
	w.Switch.Move(1)
	must(t, from.Close())
	w.Switch.Silence(false, false)
	w.arrived(0)
	must(t, repair.Resume(restored, repair.Off))
}

// finish closes both ends and verifies what they have received.
func finish(t *testing.T, w *world, peer *net.TCPConn, s *linux.Socket, toHost, toPeer []byte) {
	t.Helper()
	c := user(t, s).(*net.TCPConn)
	must(t, c.SetDeadline(time.Now().Add(limit)))
	_ = c.CloseWrite() // may be closed already
	_ = peer.CloseWrite()
	got, err := io.ReadAll(peer)
	if err != nil || !bytes.Equal(got, toPeer) {
		t.Errorf("the peer has received %d bytes of %d, %v", len(got), len(toPeer), err)
	}
	got, err = io.ReadAll(c)
	if err != nil || !bytes.Equal(got, toHost) {
		t.Errorf("the host has received %d bytes of %d, %v", len(got), len(toHost), err)
	}
	if strays := w.capture.StrayResets(); len(strays) > 0 {
		t.Errorf("RSTs on the wire: %q", strays)
	}
	eventually(t, "the end", func() bool {
		for _, end := range []*net.TCPConn{peer, c} {
			i, err := netlab.TCPInfo(end)
			if err != nil || repair.State(i.State) != repair.StateClosed {
				return false
			}
		}
		return true
	})
	must(t, c.Close())
	must(t, s.Close())
}

// sameCore compares what a kernel was told with what it tells.
func sameCore(t *testing.T, want, got *repair.Core) {
	t.Helper()
	if d := got.Timestamp - want.Timestamp; int32(d) < 0 || d > 60_000_000 {
		t.Errorf("the timestamp clock went from %d to %d", want.Timestamp, got.Timestamp)
	}
	a, b := *want, *got
	if !bytes.Equal(join(a.SendQueue), join(b.SendQueue)) || !bytes.Equal(join(a.RecvQueue), join(b.RecvQueue)) {
		t.Errorf("the queues changed from %d and %d bytes to %d and %d", a.SendQueue.Len(), a.RecvQueue.Len(), b.SendQueue.Len(), b.RecvQueue.Len())
	}
	if edge := func(c repair.Core) uint32 { return c.Window.RcvWup + c.Window.RcvWnd }; int32(edge(b)-edge(a)) < 0 {
		t.Errorf("the right edge of the window moved by %d", int32(edge(b)-edge(a)))
	}
	if a.Window.SndWnd != b.Window.SndWnd {
		t.Errorf("the peer's window went from %d to %d", a.Window.SndWnd, b.Window.SndWnd)
	}
	for _, c := range []*repair.Core{&a, &b} {
		c.Timestamp, c.SendQueue, c.RecvQueue, c.Window = 0, nil, nil, repair.Window{}
	}
	if a.State != b.State || a.Options != b.Options || a.SendSeq != b.SendSeq || a.RecvSeq != b.RecvSeq ||
		a.Unsent != b.Unsent || a.FINSent != b.FINSent || a.FINQueued != b.FINQueued || a.FINAcked != b.FINAcked ||
		a.FINReceived != b.FINReceived || a.TimestampMicros != b.TimestampMicros || a.NoDelay != b.NoDelay ||
		a.Cork != b.Cork || a.Flow() != b.Flow() {
		t.Errorf("was  %+v\nis now %+v", a, b)
	}
}

func join(b repair.Bytes) (all []byte) {
	for _, p := range b {
		all = append(all, p...)
	}
	return all
}
