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

// The race: bytes that arrive after the snapshot was taken. Without the filter
// an unpatched kernel acknowledges them, and the peer never sends them again.
// With it they come to where the connection has gone.
func TestRace(t *testing.T) {
	for _, fam := range families {
		t.Run(fam.name+"/with the filter nothing is lost", func(t *testing.T) {
			got, acked := race(t, fam.index, false)
			if acked != 0 || !bytes.Equal(got, late) {
				t.Errorf("%d bytes of %d were acknowledged by the origin; %d arrived", acked, len(late), len(got))
			}
		})
		t.Run(fam.name+"/without it bytes are lost", func(t *testing.T) {
			got, acked := race(t, fam.index, true)
			if acked == 0 {
				t.Log("this kernel protects sockets in repair mode itself")
				return
			}
			if acked != uint64(len(late)) || len(got) != 0 {
				t.Errorf("%d bytes of %d were acknowledged by the origin; %d arrived", acked, len(late), len(got))
			}
		})
	}
}

// late is what the peer sends too late: 50 segments of 1000 bytes.
var late = bytes.Repeat([]byte("0123456789"), 5000)

// race returns what has arrived of late after the move, and how much of it the
// frozen origin has acknowledged.
func race(t *testing.T, family int, noFilter bool) (got []byte, acked uint64) {
	w := newWorld(t)
	peer, host := w.connect(family)
	must(t, peer.SetNoDelay(true))
	warmUp(t, peer, host)
	f := w.factory(0)
	f.NoFilter = noFilter
	s, err := f.FromConn(host)
	must(t, err)
	must(t, host.Close())
	snap, err := repair.Checkpoint(s)
	must(t, err)
	before := bytesAcked(t, peer)
	next, err := s.QueueSeq(repair.RecvQueue)
	must(t, err)
	for sent := 0; sent < len(late); sent += 1000 {
		_, err := peer.Write(late[sent : sent+1000])
		must(t, err)
	}
	<-time.After(300 * time.Millisecond) // retransmissions, a delayed ACK: all would be over
	acked = bytesAcked(t, peer) - before
	now, err := s.QueueSeq(repair.RecvQueue)
	must(t, err)
	if uint64(now-next) != acked {
		t.Errorf("the receive sequence moved by %d, the bytes acknowledged by %d", now-next, acked)
	}

	restored, err := w.factory(1).Restore(snap)
	must(t, err)
	w.Switch.Move(1)
	must(t, s.Close())
	must(t, repair.Resume(restored, repair.Off))
	c := user(t, restored.(*linux.Socket))
	defer c.Close()
	defer restored.Close()
	while := limit
	if acked > 0 {
		while = time.Second // for ever would be the same
	}
	must(t, c.SetReadDeadline(time.Now().Add(while)))
	got = make([]byte, len(late))
	n, _ := io.ReadFull(c, got)
	if r := w.resets(); r > 0 {
		t.Errorf("%d RSTs on the wire", r)
	}
	return got[:n], acked
}

// warmUp sends 50 segments of 1000 bytes, so that what follows goes down the
// kernel's fast path.
func warmUp(t *testing.T, peer, host *net.TCPConn) {
	t.Helper()
	for range 50 {
		_, err := peer.Write(late[:1000])
		must(t, err)
	}
	_, err := io.ReadFull(host, make([]byte, 50*1000))
	must(t, err)
	eventually(t, "the warm-up acknowledged", func() bool {
		n, err := netlab.OutQueue(peer)
		return err == nil && n == 0
	})
}

func bytesAcked(t *testing.T, c *net.TCPConn) uint64 {
	t.Helper()
	i, err := netlab.TCPInfo(c)
	must(t, err)
	return i.Bytes_acked
}

// While frozen the kernel does not send what is in the queue either, and the
// snapshot says how much never left.
func TestFrozenSendsNothingNew(t *testing.T) {
	w := newWorld(t)
	peer, host := w.connect(0)
	data := bytes.Repeat([]byte("abcdefghij"), 400_000)
	sent := make(chan int, 1)
	go func() {
		n, _ := host.Write(data) // until the descriptor is closed
		sent <- n
	}()
	eventually(t, "data in flight", func() bool {
		n, err := netlab.OutQueue(host)
		return err == nil && n > 200_000
	})
	must(t, host.SetWriteDeadline(time.Unix(1, 0)))
	written := <-sent
	s := w.freeze(0, host)
	snap, err := s.Snapshot()
	must(t, err)
	if snap.Unsent == 0 || snap.Unsent == snap.SendQueue.Len() {
		t.Fatalf("of %d bytes %d never left: that shows nothing", snap.SendQueue.Len(), snap.Unsent)
	}
	left := snap.SendSeq + uint32(snap.SendQueue.Len()-snap.Unsent) // the sequence number after what has left
	<-time.After(300 * time.Millisecond)
	if n := w.capture.Count(func(c netlab.Captured) bool {
		tcp := c.TCP()
		return tcp != nil && !c.Out && int32(tcp.Seq+uint32(c.PayloadLen())-left) > 0
	}); n > 0 {
		t.Errorf("%d segments left that the snapshot has for unsent", n)
	}
	restored, err := w.factory(1).Restore(snap)
	must(t, err)
	w.Switch.Move(1)
	must(t, s.Close())
	must(t, repair.Resume(restored, repair.Off))
	must(t, restored.Close()) // a FIN follows the rest
	got, err := io.ReadAll(peer)
	must(t, err)
	if !bytes.Equal(got, data[:written]) {
		t.Errorf("%d bytes arrived, %d were written", len(got), written)
	}
	if n := w.resets(); n > 0 {
		t.Errorf("%d RSTs on the wire", n)
	}
}
