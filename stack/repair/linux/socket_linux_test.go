package linux_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcprepair/ustack/internal/netlab"
	"github.com/tcprepair/ustack/stack/repair"
	"github.com/tcprepair/ustack/stack/repair/linux"
)

// A filter of the user's is put back; one that cannot be is left alone, and the
// socket is not frozen.
func TestUserFilter(t *testing.T) {
	w := newWorld(t)
	peer, host := w.connect(0)
	s, err := w.factory(0).FromConn(host)
	must(t, err)
	defer s.Close()
	// One that passes everything, in a way that can be told.
	pass := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0x7777777}}
	must(t, unix.SetsockoptSockFprog(s.FD(), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &pass[0]}))
	must(t, s.SetRepair(repair.On))
	if got := linux.UserFilter(t, s); reflect.DeepEqual(got, pass) {
		t.Errorf("frozen with the filter %v", got)
	}
	must(t, s.SetRepair(repair.On)) // again
	must(t, s.SetRepair(repair.Off))
	if got := linux.UserFilter(t, s); !reflect.DeepEqual(got, pass) {
		t.Errorf("thawed with the filter %v", got)
	}
	exchange(t, peer, host)

	must(t, unix.SetsockoptInt(s.FD(), unix.SOL_SOCKET, unix.SO_LOCK_FILTER, 1))
	if err := s.SetRepair(repair.On); !errors.Is(err, repair.ErrPermission) || !strings.Contains(err.Error(), "SO_LOCK_FILTER") {
		t.Errorf("a locked filter: %v", err)
	}
	if on, err := s.Repair(); on || err != nil {
		t.Errorf("frozen all the same: %v, %v", on, err)
	}
	exchange(t, peer, host)
}

// What is no TCP socket, or one that cannot be frozen, is refused in words.
func TestRefusesOtherSockets(t *testing.T) {
	netlab.Require(t)
	lab := netlab.New(t)
	ns, err := lab.Namespace("any")
	must(t, err)
	must(t, ns.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_MPTCP)
		if err != nil {
			t.Logf("no multipath TCP here: %v", err)
			return nil
		}
		defer unix.Close(fd)
		if _, err := linux.FromFD(fd); !errors.Is(err, repair.ErrInvalid) || !strings.Contains(err.Error(), "MultipathTCP(false)") {
			t.Errorf("multipath TCP: %v", err)
		}
		return nil
	}))
	u, err := ns.ListenUDP(netip.AddrPortFrom(netip.IPv4Unspecified(), 0))
	must(t, err)
	defer u.Close()
	if _, err := linux.FromConn(u); !errors.Is(err, repair.ErrInvalid) {
		t.Errorf("UDP: %v", err)
	}
	f, err := os.Open(os.DevNull)
	must(t, err)
	defer f.Close()
	if _, err := linux.FromFD(int(f.Fd())); !errors.Is(err, repair.ErrInvalid) {
		t.Errorf("a file: %v", err)
	}
	if _, err := linux.FromFD(1 << 20); err == nil {
		t.Error("no such descriptor, and no error")
	}
	l, err := ns.ListenTCP(netip.AddrPortFrom(netip.IPv4Unspecified(), 0))
	must(t, err)
	defer l.Close()
	s, err := linux.FromConn(l)
	must(t, err)
	defer s.Close()
	if err := s.SetRepair(repair.On); !errors.Is(err, repair.ErrPermission) || !strings.Contains(err.Error(), "listener") {
		t.Errorf("freezing a listener: %v", err)
	}
	if err := s.SetRepair(7); !errors.Is(err, repair.ErrInvalid) {
		t.Errorf("mode 7: %v", err)
	}
}

// A connection of another process is frozen and carried away.
func TestFromProcess(t *testing.T) {
	w := newWorld(t)
	peer, host := w.connect(0)
	file, err := host.File()
	must(t, err)
	defer file.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	other := exec.CommandContext(ctx, "sleep", "60")
	other.ExtraFiles = []*os.File{file} // 3
	must(t, other.Start())
	defer func() { cancel(); _ = other.Wait() }()
	must(t, host.Close())
	must(t, file.Close())
	if _, err := w.factory(0).FromProcess(other.Process.Pid, 1000); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a descriptor that the process has not: %v", err)
	}
	s, err := w.factory(0).FromProcess(other.Process.Pid, 3)
	must(t, err)
	moved := w.move(s, 1)
	cancel() // the other process ends with the connection in its hands
	_ = other.Wait()
	c := user(t, moved)
	defer c.Close()
	exchange(t, peer, c)
	must(t, moved.Close())
	if n := w.resets(); n > 0 {
		t.Errorf("%d RSTs on the wire", n)
	}
}

// withoutCapability runs f on a thread that has lost CAP_NET_ADMIN.
func withoutCapability(t *testing.T, f func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and the thread ends with the goroutine
		head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		err := unix.Capget(&head, &data[0])
		if err == nil {
			data[0].Effective &^= 1 << unix.CAP_NET_ADMIN
			err = unix.Capset(&head, &data[0])
		}
		if err == nil {
			f()
		}
		done <- err
	}()
	must(t, <-done)
}

// Without the capability the error says so, and the filter is off again. A
// helper that has it is asked.
func TestHelper(t *testing.T) {
	w := newWorld(t)
	peer, host := w.connect(0)
	path := filepath.Join(t.TempDir(), "helper.sock")
	serveHelper(t, path)
	alone, helped := w.factory(0), w.factory(0)
	helped.Helper = path
	helped.NoFilter = true // some kernels want the capability for filters too
	s, err := alone.FromConn(host)
	must(t, err)
	withoutCapability(t, func() {
		if err := s.SetRepair(repair.On); !errors.Is(err, repair.ErrPermission) || !strings.Contains(err.Error(), "CAP_NET_ADMIN") {
			t.Errorf("without the capability: %v", err)
		}
	})
	must(t, s.Close())
	exchange(t, peer, host)
	s, err = helped.FromConn(host)
	must(t, err)
	withoutCapability(t, func() {
		if err := s.SetRepair(repair.On); err != nil {
			t.Errorf("with the helper: %v", err)
		}
		if on, err := s.Repair(); !on || err != nil {
			t.Errorf("with the helper: %v, %v", on, err)
		}
		if err := s.SetRepair(repair.OffNoProbe); err != nil {
			t.Errorf("with the helper: %v", err)
		}
	})
	exchange(t, peer, host)
	must(t, s.Close())

	many := make([]int, 600) // more than one message carries
	raw, err := host.SyscallConn()
	must(t, err)
	must(t, raw.Control(func(fd uintptr) {
		for i := range many {
			many[i] = int(fd)
		}
		h := &linux.Helper{Path: path}
		must(t, h.SetRepair(repair.On, many...))
		must(t, h.SetRepair(repair.Off, many...))
		if err := h.SetRepair(7, many[0]); !errors.Is(err, repair.ErrPermission) {
			t.Errorf("a mode that the helper refuses: %v", err)
		}
	}))
	if err := (&linux.Helper{Path: path + "x"}).SetRepair(repair.On); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no helper: %v", err)
	}
	exchange(t, peer, host)
}

// serveHelper is a helper as small as can be, which does as passt-repair does.
func serveHelper(t *testing.T, path string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	must(t, err)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			c, err := l.AcceptUnix()
			if err != nil {
				return
			}
			for serveOne(c) == nil {
			}
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-ended })
}

func serveOne(c *net.UnixConn) error {
	b, oob := make([]byte, 1), make([]byte, unix.CmsgSpace(4*253))
	n, oobn, _, _, err := c.ReadMsgUnix(b, oob)
	if err != nil || n != 1 {
		return fmt.Errorf("%d bytes, %w", n, err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return err
	}
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			return err
		}
		for _, fd := range fds {
			err = errors.Join(err, unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, int(int8(b[0]))))
			_ = unix.Close(fd)
		}
		if err != nil {
			return err
		}
	}
	_, err = c.Write(b)
	return err
}

// What is no socket of another process's is said in words, and larger numbers
// are not cut down to ones that there are.
func TestFromProcessRefuses(t *testing.T) {
	netlab.Require(t)
	file, err := os.Open(os.DevNull)
	must(t, err)
	defer file.Close()
	me := os.Getpid()
	for _, tt := range []struct {
		pid, fd int
		is      error
		want    string
	}{
		{0, 0, os.ErrProcessDone, "no such process"},
		{-1, 0, os.ErrProcessDone, "no such process"},
		{1<<32 + me, 0, os.ErrProcessDone, "no such process"},
		{1<<31 - 1, 0, os.ErrProcessDone, "no such process"},
		{me, 4000, os.ErrNotExist, fmt.Sprintf("descriptor 4000 of process %d", me)},
		{me, -1, os.ErrNotExist, "none of that number"},
		{me, 1<<32 + int(file.Fd()), os.ErrNotExist, "none of that number"},
		{me, int(file.Fd()), repair.ErrInvalid, "not a socket"},
	} {
		_, err := linux.FromProcess(tt.pid, tt.fd)
		if !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("process %d, descriptor %d: %v", tt.pid, tt.fd, err)
		}
	}
	plain := net.ListenConfig{}
	plain.SetMultipathTCP(false)
	l, err := plain.Listen(context.Background(), "tcp4", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	s, err := linux.FromConn(l.(*net.TCPListener))
	must(t, err)
	defer s.Close()
	if _, err := repair.Checkpoint(s); !errors.Is(err, repair.ErrPermission) || !strings.Contains(err.Error(), "a listener cannot be frozen") {
		t.Errorf("a listener: %v", err)
	}
}
