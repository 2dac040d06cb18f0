package daemon

import (
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func TestControlSocketMode(t *testing.T) {
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	dir := t.TempDir()
	path := filepath.Join(dir, "c.sock")
	s, err := listenControl(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode(); got != os.ModeSocket|0o600 {
		t.Errorf("mode %v", got)
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	s.Close()
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// stale leaves a socket file that nobody listens on, as a killed daemon does.
func stale(t *testing.T, path string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
}

func TestControlSocketInTheWay(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "c.sock")
	wantErr := func(path, want string) {
		t.Helper()
		s, err := listenControl(path)
		if err == nil {
			s.Close()
			t.Errorf("%s: accepted", path)
		} else if !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "\n") {
			t.Errorf("error %q does not say %q and the path in one line", err, want)
		}
	}

	stale(t, path)
	s, err := listenControl(path)
	if err != nil {
		t.Fatalf("a dead daemon's file: %v", err)
	}
	wantErr(path, "running")
	if c, err := net.Dial("unix", path); err != nil {
		t.Errorf("the living daemon lost its socket: %v", err)
	} else {
		c.Close()
	}
	s.Close()

	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	wantErr(path, "not a socket")
	if b, _ := os.ReadFile(path); string(b) != "precious" {
		t.Error("the file is gone")
	}
	wantErr(filepath.Join(dir, "missing", "c.sock"), "no such file")
	wantErr(filepath.Join(dir, strings.Repeat("x", 120)), "too long")
	wantErr("@abstract", "abstract")
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}

// A daemon that was replaced does not take its successor's file with it.
func TestControlSocketNotMine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.sock")
	first, err := listenControl(path)
	if err != nil {
		t.Fatal(err)
	}
	os.Remove(path)
	second, err := listenControl(path)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	first.Close()
	if _, err := os.Lstat(path); err != nil {
		t.Error(err)
	}
}

// Of daemons that start at once, one gets the path.
func TestControlSocketRace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.sock")
	for range 20 {
		stale(t, path)
		var wg sync.WaitGroup
		got := make(chan *controlSocket, 8)
		for range cap(got) {
			wg.Go(func() {
				if s, err := listenControl(path); err == nil {
					got <- s
				}
			})
		}
		wg.Wait()
		if n := len(got); n != 1 {
			t.Fatalf("%d daemons at one path", n)
		}
		(<-got).Close()
	}
}

func TestDefaultControlPath(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", "/run/user/7")
	if got := DefaultControlPath(); got != "/run/user/7/ustack.sock" {
		t.Error(got)
	}
	for _, bad := range []string{"", "relative"} {
		t.Setenv("XDG_RUNTIME_DIR", bad)
		if got := DefaultControlPath(); !filepath.IsAbs(got) {
			t.Errorf("XDG_RUNTIME_DIR=%q: %s", bad, got)
		}
	}
}

// A daemon that hangs, or a file that is none of a daemon's, is told in one
// line.
func TestClientOfNoDaemon(t *testing.T) {
	dir := t.TempDir()
	silent, err := net.Listen("unix", filepath.Join(dir, "silent"))
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"silent": "the daemon does not answer",
		"file":   "this is not a socket",
		"":       "this is not a socket",
		"none":   "no such file",
	} {
		c := NewClient(filepath.Join(dir, name))
		c.http.Transport.(*http.Transport).ResponseHeaderTimeout = 10 * time.Millisecond
		if _, _, err := c.Checkpoint(context.Background(), 1); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v, want %q", name, err, want)
		}
	}
	c := NewClient(filepath.Join(dir, "silent"))
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if _, err := c.Conns(ctx); err == nil || !strings.Contains(err.Error(), "does not answer") {
		t.Error(err)
	}
}
