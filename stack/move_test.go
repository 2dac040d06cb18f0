package stack

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/tcprepair/ustack/stack/repair"
)

// A connection is written down, buried, and set down again over its tombstone;
// what was in either queue arrives, once and in order.
func TestMove(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		t.Run(host, func(t *testing.T) {
			s := newLoopback(t)
			client, server := s.pair(t, host)
			must := func(_ int, err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			must(server.Write([]byte("unread ")))
			snap, err := client.Checkpoint()
			if err != nil {
				t.Fatal(err)
			}
			must(server.Write([]byte("sent while it was away")))
			var file bytes.Buffer
			if _, err := snap.WriteTo(&file); err != nil {
				t.Fatal(err)
			}
			snap.Release()
			if snap, err = repair.Read(&file, repair.Limits{}); err != nil {
				t.Fatal(err)
			}

			if _, err := s.Restore(snap); !errors.Is(err, repair.ErrAddrInUse) {
				t.Errorf("restored beside itself: %v, want %v", err, repair.ErrAddrInUse)
			}
			if err := s.Bury(server.ID()); !errors.Is(err, ErrNotFrozen) {
				t.Errorf("a living connection was buried: %v, want %v", err, ErrNotFrozen)
			}
			if err := s.Bury(client.ID()); err != nil {
				t.Fatal(err)
			}
			if _, err := client.Read(make([]byte, 1)); err == nil {
				t.Error("read from a buried connection")
			}
			if _, err := s.Checkpoint(client.ID()); !errors.Is(err, ErrNoConn) {
				t.Errorf("a buried connection was read out: %v, want %v", err, ErrNoConn)
			}

			moved, err := s.Restore(snap)
			if err != nil {
				t.Fatal(err)
			}
			defer moved.Close()
			if err := moved.SetRepair(repair.Off); err != nil {
				t.Fatal(err)
			}
			must(moved.Write([]byte("answer")))
			if err := moved.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(server); string(got) != "answer" || err != nil {
				t.Errorf("the peer read %q, %v", got, err)
			}
			if err := server.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(moved); string(got) != "unread sent while it was away" || err != nil {
				t.Errorf("the moved connection read %q, %v", got, err)
			}
		})
	}
}

// A connection that its user has closed is buried, too.
func TestBuryOrphan(t *testing.T) {
	s := newLoopback(t)
	client, _ := s.pair(t, "127.0.0.1")
	id := client.ID()
	client.Close()
	if _, err := s.Checkpoint(id); err != nil {
		t.Fatal(err)
	}
	if err := s.Bury(id); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Checkpoint(id); !errors.Is(err, ErrNoConn) {
		t.Errorf("after it was buried: %v, want %v", err, ErrNoConn)
	}
}

func TestRestoreRefusesListener(t *testing.T) {
	s := newLoopback(t)
	if _, err := s.Restore(&repair.Snapshot{Core: repair.Core{State: repair.StateListen}}); !errors.Is(err, repair.ErrState) {
		t.Errorf("a listener was restored as a connection: %v, want %v", err, repair.ErrState)
	}
}

// A listener moves with a connection that nobody has accepted.
func TestMoveListener(t *testing.T) {
	s := newLoopback(t)
	l, err := s.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	client, err := s.Dial(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := client.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	snap, err := l.Checkpoint()
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Resume(); err != nil {
		t.Fatal(err)
	}
	snap.Release()
	if snap, err = l.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	if len(snap.Children) != 1 {
		t.Fatalf("%d connections wait", len(snap.Children))
	}
	if _, err := s.RestoreListener(snap); !errors.Is(err, repair.ErrAddrInUse) {
		t.Errorf("restored beside itself: %v, want %v", err, repair.ErrAddrInUse)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.RestoreListener(snap.Children[0]); !errors.Is(err, repair.ErrState) {
		t.Errorf("a connection restored as a listener: %v, want %v", err, repair.ErrState)
	}
	moved, err := s.RestoreListener(snap)
	if err != nil {
		t.Fatal(err)
	}
	defer moved.Close()
	if moved.Addr().String() != l.Addr().String() {
		t.Errorf("it listens on %s, was on %s", moved.Addr(), l.Addr())
	}
	if err := moved.Resume(); err != nil {
		t.Fatal(err)
	}
	server, err := moved.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	b := make([]byte, 5)
	if _, err := io.ReadFull(server, b); err != nil || string(b) != "hello" {
		t.Errorf("%q, %v", b, err)
	}
}
