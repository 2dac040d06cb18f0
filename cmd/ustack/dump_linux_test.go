package main

import (
	"bytes"

	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/tcprepair/ustack/internal/netlab"
	"github.com/tcprepair/ustack/stack/repair"
)

// onlyConn is the ID of the one connection there is.
func (r *running) onlyConn() string {
	r.t.Helper()
	stdout, stderr, _ := r.ustack("conns")
	lines := strings.Split(strings.TrimSpace(stdout), "\n")
	if len(lines) != 2 {
		r.t.Fatalf("not one connection: %q, %q", stdout, stderr)
	}
	return strings.Fields(lines[1])[0]
}

// A connection outlives the program: it is dumped, the program ends, another
// one begins and the connection is restored into it. The kernel, its peer,
// does not notice.
func TestDumpAndRestore(t *testing.T) {
	for i, a := range peers {
		t.Run([]string{"IPv4", "IPv6"}[i], func(t *testing.T) {
			ns, control := namespace(t)
			r := launch(t, ns, control, "--serve", "echo:7")
			c := r.dial(a, 7)
			checkEcho(t, c, "before")
			file := filepath.Join(t.TempDir(), "conn.snap")
			id := r.onlyConn()
			if stdout, stderr, status := r.ustack("dump", id, "-o", file, "--then", "bury"); status != 0 || stdout != "" {
				t.Fatalf("dump: status %d, %q, %q", status, stdout, stderr)
			}
			if stdout, _, _ := r.ustack("conns"); strings.Contains(stdout, "ESTABLISHED") {
				t.Errorf("a buried connection is still listed:\n%s", stdout)
			}
			r.cmd.Process.Signal(syscall.SIGTERM)
			if status := r.status(); status != 0 {
				t.Fatalf("the first program ended with status %d", status)
			}
			r = launch(t, ns, control, "--serve", "echo:7")
			if stdout, stderr, status := r.ustack("restore", file); status != 0 || !strings.Contains(stdout, c.LocalAddr().String()) {
				t.Fatalf("restore: status %d, %q, %q", status, stdout, stderr)
			}
			checkEcho(t, c, "after")
			if _, stderr, status := r.ustack("restore", file); status != 1 || strings.Count(stderr, "\n") != 1 {
				t.Errorf("restored a second time: status %d, %q", status, stderr)
			}
			checkEcho(t, c, "still")
		})
	}
}

// full is a disk with room for so many bytes.
type full int

func (f *full) Write(p []byte) (int, error) {
	if len(p) > int(*f) {
		n := int(*f)
		*f = 0
		return n, syscall.ENOSPC
	}
	*f -= full(len(p))
	return len(p), nil
}

// What cannot be written down goes on as before.
func TestDumpFailures(t *testing.T) {
	ns, control := namespace(t)
	r := launch(t, ns, control, "--serve", "echo:7")
	c := r.dial(peers[0], 7)
	checkEcho(t, c, "before")
	id := r.onlyConn()
	for room := range 3 {
		disk := full(room * 40)
		var stderr bytes.Buffer
		if status := run([]string{"dump", id, "--control", control}, &disk, &stderr); status != 1 || !strings.Contains(stderr.String(), "no space left") {
			t.Errorf("onto a full disk: status %d, %q", status, stderr.String())
		}
		checkEcho(t, c, "after the full disk")
	}
	nowhere := filepath.Join(t.TempDir(), "none", "file")
	if _, stderr, status := r.ustack("dump", id, "-o", nowhere); status != 1 || !strings.Contains(stderr, "no such file") {
		t.Errorf("into no directory: status %d, %q", status, stderr)
	}
	checkEcho(t, c, "after the missing directory")
	if _, stderr, status := r.ustack("dump", "4000000000", "-o", os.DevNull); status != 1 || !strings.Contains(stderr, "no such connection") {
		t.Errorf("unknown ID: status %d, %q", status, stderr)
	}
	stdout, stderr, status := r.ustack("dump", id)
	if status != 0 || !strings.Contains(stderr, "stays frozen") {
		t.Fatalf("dump: status %d, %q", status, stderr)
	}
	cut := filepath.Join(t.TempDir(), "cut")
	if err := os.WriteFile(cut, []byte(stdout[:len(stdout)/2]), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, stderr, status := r.ustack("restore", cut); status != 1 || !strings.HasPrefix(stderr, "ustack: "+cut+": ") || strings.Count(stderr, "\n") != 1 {
		t.Errorf("half a snapshot: status %d, %q", status, stderr)
	}
	if _, stderr, status := r.ustack("repair", "off", id); status != 0 {
		t.Fatalf("repair off: status %d, %q", status, stderr)
	}
	checkEcho(t, c, "after the dump")
}

// A socket of a process of the kernel's is dumped by number.
func TestDumpKernelSocket(t *testing.T) {
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
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	if _, err := io.WriteString(far, "unread"); err != nil {
		t.Fatal(err)
	}
	fd := descriptor(t, c)
	var stdout, stderr bytes.Buffer
	args := []string{"dump", "--pid", strconv.Itoa(os.Getpid()), "--fd", strconv.Itoa(fd), "--then", "resume"}
	if status := run(args, &stdout, &stderr); status != 0 {
		t.Fatalf("status %d, %q", status, stderr.String())
	}
	snap, err := repair.Read(&stdout, repair.Limits{})
	if err != nil || snap.Local.String() != c.LocalAddr().String() || snap.State != repair.StateEstablished {
		t.Fatalf("%+v, %v", snap, err)
	}
	var unread bytes.Buffer
	if snap.RecvQueue.WriteTo(&unread); unread.String() != "unread" {
		t.Errorf("receive queue: %q", unread.String())
	}
	if got := make([]byte, 6); !reads(c, got) || string(got) != "unread" {
		t.Errorf("after the dump: %q", got)
	}
	stderr.Reset()
	if status := run([]string{"dump", "--pid", "999999999", "--fd", "3"}, &stdout, &stderr); status != 1 || strings.Count(stderr.String(), "\n") != 1 {
		t.Errorf("no such process: status %d, %q", status, stderr.String())
	}
}

func reads(r io.Reader, p []byte) bool {
	_, err := io.ReadFull(r, p)
	return err == nil
}

func descriptor(t *testing.T, c net.Conn) (fd int) {
	t.Helper()
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(d uintptr) { fd = int(d) }); err != nil {
		t.Fatal(err)
	}
	return fd
}

func TestDumpUsage(t *testing.T) {
	for _, args := range [][]string{
		{"dump"}, {"dump", "--pid", "1"}, {"dump", "--fd", "1"}, {"dump", "3", "--pid", "1", "--fd", "1"}, {"dump", "x"}, {"dump", "3", "--then", "burn"}, {"restore"},
	} {
		var stdout, stderr bytes.Buffer
		if status := run(args, &stdout, &stderr); status != exitUsage || strings.Count(stderr.String(), "\n") != 1 {
			t.Errorf("%q: status %d, %q", args, status, stderr.String())
		}
	}
	var stdout, stderr bytes.Buffer
	if status := run([]string{"restore", "/none"}, &stdout, &stderr); status != exitFail || !strings.Contains(stderr.String(), "no such file") {
		t.Errorf("no file: status %d, %q", status, stderr.String())
	}
}
