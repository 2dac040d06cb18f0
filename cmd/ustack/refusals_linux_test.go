package main

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tcprepair/ustack/internal/repairtest"
	"github.com/tcprepair/ustack/stack/repair"
)

// What "ustack restore" must refuse it does, as a stack and the kernel do, with
// one line, and the connection that is there stays as it is.
func TestRestoreRefusals(t *testing.T) {
	ns, control := namespace(t)
	r := launch(t, ns, control, "--serve", "echo:7", "--serve", "discard:9")
	c := r.dial(peers[0], 7)
	checkEcho(t, c, "before")
	id := r.onlyConn()
	stdout, stderr, status := r.ustack("dump", id)
	if status != 0 {
		t.Fatalf("dump: status %d, %q", status, stderr)
	}
	snap, err := repair.Read(strings.NewReader(stdout), repair.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	snap.Extra.Passive = false
	look := func() string {
		t.Helper()
		list, stderr, status := r.ustack("conns")
		if status != 0 {
			t.Fatalf("conns: status %d, %q", status, stderr)
		}
		return list
	}
	before := look()
	file := filepath.Join(t.TempDir(), "conn.snap")
	repairtest.Refusals(t, &repairtest.Target{
		Snapshot: snap,
		Restore: func(b []byte) error {
			if err := os.WriteFile(file, b, 0o600); err != nil {
				t.Fatal(err)
			}
			stdout, stderr, status := r.ustack("restore", file)
			if status == 0 {
				return nil
			}
			if status != exitFail || stdout != "" || !strings.HasPrefix(stderr, "ustack: ") {
				t.Errorf("status %d, %q, %q", status, stdout, stderr)
			}
			return errors.New(stderr)
		},
		Foreign:   netip.MustParseAddr("10.77.0.9"),
		Nowhere:   netip.MustParseAddr("192.0.2.1"),
		Listening: 9,
		Unchanged: func(t *testing.T, after string) {
			t.Helper()
			if now := look(); now != before {
				t.Fatalf("after %q:\n%s\nbefore:\n%s", after, now, before)
			}
		},
	})
	var again bytes.Buffer
	if out, stderr, status := r.ustack("dump", id); status != 0 {
		t.Fatalf("dump: status %d, %q", status, stderr)
	} else {
		again.WriteString(out)
	}
	same, err := repair.Read(&again, repair.Limits{})
	if err != nil || same.SendSeq != snap.SendSeq || same.RecvSeq != snap.RecvSeq || same.State != snap.State {
		t.Errorf("the connection has moved: %+v, %v", same, err)
	}
	if _, stderr, status := r.ustack("repair", "off", id); status != 0 {
		t.Fatalf("repair off: status %d, %q", status, stderr)
	}
	checkEcho(t, c, "after the refusals")
}
