package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcprepair/ustack/internal/netlab"
	"github.com/tcprepair/ustack/stack/repair"
)

// frozen reports whether the one connection there is, is.
func (r *running) frozen() bool {
	r.t.Helper()
	stdout, stderr, _ := r.ustack("conns", "--json")
	var list []struct{ Frozen bool }
	if err := json.Unmarshal([]byte(stdout), &list); err != nil || len(list) != 1 {
		r.t.Fatalf("not one connection: %q, %q, %v", stdout, stderr, err)
	}
	return list[0].Frozen
}

// A dump that fails leaves a connection frozen that was frozen before it: it
// may live elsewhere by now, and two of it must not speak.
func TestFailedDumpOfFrozenConnection(t *testing.T) {
	ns, control := namespace(t)
	r := launch(t, ns, control, "--serve", "echo:7")
	c := r.dial(peers[0], 7)
	checkEcho(t, c, "before")
	id := r.onlyConn()
	if _, stderr, status := r.ustack("repair", "on", id); status != 0 {
		t.Fatal(stderr)
	}
	exists := filepath.Join(t.TempDir(), "exists")
	if err := os.WriteFile(exists, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{exists, "/dev/full", filepath.Join(exists, "no", "directory")} {
		if _, stderr, status := r.ustack("dump", id, "-o", to); status != 1 || strings.Count(stderr, "\n") != 1 || strings.Contains(stderr, "frozen") {
			t.Errorf("%s: status %d, %q", to, status, stderr)
		}
		if !r.frozen() {
			t.Fatalf("%s: the dump that failed has thawed it", to)
		}
	}
	if _, stderr, status := r.ustack("dump", id, "-o", os.DevNull); status != 0 {
		t.Errorf("to %s: status %d, %q", os.DevNull, status, stderr)
	}
	if _, err := os.Stat(os.DevNull); err != nil {
		t.Error(err)
	}
}

// A dump that is interrupted, or whose reader goes away, leaves the connection
// as it was.
func TestInterruptedDump(t *testing.T) {
	ns, control := namespace(t)
	r := launch(t, ns, control, "--serve", "chargen:19")
	c := r.dial(peers[0], 19)
	if err := c.SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	id := r.onlyConn()
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE} {
		reader, writer, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(binary, "dump", id, "--control", control)
		var stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = writer, &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		writer.Close()
		if _, err := io.ReadFull(reader, make([]byte, 1000)); err != nil {
			t.Fatalf("%v: %v, %q", s, err, stderr.String())
		}
		if !r.frozen() {
			t.Fatalf("%v: not frozen while it is dumped", s)
		}
		if s == syscall.SIGPIPE {
			reader.Close() // which sends it
		} else {
			cmd.Process.Signal(s)
		}
		cmd.Wait()
		reader.Close()
		if status := cmd.ProcessState.ExitCode(); status != 1 || strings.Count(stderr.String(), "\n") != 1 {
			t.Errorf("%v: status %d, %q", s, status, stderr.String())
		}
		if r.frozen() {
			t.Errorf("%v: it stays frozen; the program said %q", s, stderr.String())
		}
	}
}

// Several snapshots in one file are all restored; "ustack bury" ends what
// "ustack dump" has left frozen.
func TestBuryAndRestoreSeveral(t *testing.T) {
	ns, control := namespace(t)
	r := launch(t, ns, control, "--serve", "echo:7")
	var all bytes.Buffer
	var conns []net.Conn
	for _, a := range peers {
		c := r.dial(a, 7)
		checkEcho(t, c, "before")
		conns = append(conns, c)
		id := r.onlyConn()
		if _, stderr, status := r.ustack("bury", id); status != 1 || !strings.Contains(stderr, "not frozen") {
			t.Errorf("buried alive: status %d, %q", status, stderr)
		}
		stdout, stderr, status := r.ustack("dump", id)
		if status != 0 {
			t.Fatal(stderr)
		}
		all.WriteString(stdout)
		if stdout, stderr, status := r.ustack("bury", id); status != 0 || stdout+stderr != "" {
			t.Fatalf("bury: status %d, %q, %q", status, stdout, stderr)
		}
	}
	file := filepath.Join(t.TempDir(), "both")
	if err := os.WriteFile(file, all.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if stdout, stderr, status := r.ustack("restore", file); status != 0 || strings.Count(stdout, "\n") != 2 {
		t.Fatalf("restore: status %d, %q, %q", status, stdout, stderr)
	}
	for _, c := range conns {
		checkEcho(t, c, "after")
	}
	if _, stderr, status := r.ustack("restore", file); status != 1 || !strings.Contains(stderr, "snapshot 1 of 2") {
		t.Errorf("once more: status %d, %q", status, stderr)
	}
}

// A failed dump of a socket of the kernel's leaves that as it was, too.
func TestFailedDumpOfFrozenSocket(t *testing.T) {
	netlab.Require(t)
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fd := descriptor(t, c)
	dump := func(more ...string) (stderr string, status int) {
		var stdout, errs bytes.Buffer
		args := append([]string{"dump", "--pid", strconv.Itoa(os.Getpid()), "--fd", strconv.Itoa(fd)}, more...)
		status = run(args, &stdout, &errs)
		return errs.String(), status
	}
	inRepair := func() bool {
		v, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR)
		if err != nil {
			t.Fatal(err)
		}
		return v == 1
	}
	if stderr, status := dump("-o", "/dev/full"); status != 1 || inRepair() {
		t.Errorf("status %d, frozen: %v, %q", status, inRepair(), stderr)
	}
	if stderr, status := dump(); status != 0 || !inRepair() || !strings.Contains(stderr, "--then resume") {
		t.Errorf("status %d, frozen: %v, %q", status, inRepair(), stderr)
	}
	if stderr, status := dump("-o", "/dev/full"); status != 1 || !inRepair() {
		t.Errorf("a failed dump has thawed it: status %d, %q", status, stderr)
	}
	if stderr, status := dump("--then", "resume"); status != 0 || inRepair() {
		t.Errorf("status %d, frozen: %v, %q", status, inRepair(), stderr)
	}
}

// stuck is a pipe that nobody reads.
type stuck chan struct{}

func (s stuck) Write([]byte) (int, error) {
	<-s
	return 0, io.ErrClosedPipe
}

// What cannot be interrupted is not waited for.
func TestInterruptedWrite(t *testing.T) {
	ctx, cancel := context.WithCancelCause(context.Background())
	s := make(stuck)
	defer close(s)
	begun := time.Now()
	cancel(io.ErrNoProgress)
	err := new(sink).write(ctx, s, func(w io.Writer) error {
		_, err := (&repair.Snapshot{}).WriteTo(w)
		return err
	})
	if err != io.ErrNoProgress || time.Since(begun) > patience {
		t.Errorf("%v after %v", err, time.Since(begun))
	}
}
