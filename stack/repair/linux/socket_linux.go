package linux

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/tcprepair/ustack/stack/repair"
)

// Socket is a TCP socket of the kernel. It has a descriptor of its own, which
// shares the socket with the one it was made of. Methods may be called
// concurrently.
type Socket struct {
	factory Factory

	mu     sync.Mutex
	fd     int // -1 once closed
	filter filter
	at     *key         // where it is registered while frozen
	idle   repair.Queue // the queue that is selected between calls
	base   baseline     // what it had sent when it was frozen
	catch  *catch       // keeps the segments that Resume gives to the connection
	// What Resume still has to send: bytes that never left, and a FIN.
	unsent   repair.Bytes
	sendSize int // of the send buffer, if it was enlarged for them
	finish   bool
}

var (
	_ repair.Snapshotter = (*Socket)(nil)
	_ repair.Resumer     = (*Socket)(nil)
)

// FromFD makes a Socket of a descriptor, which stays the caller's. The error
// wraps repair.ErrInvalid unless it is a TCP socket; one of multipath TCP, which
// is what Go's listeners make unless told otherwise, is not.
func (f *Factory) FromFD(fd int) (*Socket, error) {
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, failed("F_DUPFD_CLOEXEC", err)
	}
	return f.adopt(own)
}

// FromConn is FromFD for a *net.TCPConn, or anything else with a descriptor.
// The net.Conn must not be used while the Socket is frozen.
func (f *Factory) FromConn(c syscall.Conn) (s *Socket, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	var inner error
	outer := raw.Control(func(fd uintptr) { s, inner = f.FromFD(int(fd)) })
	return s, errors.Join(outer, inner)
}

// FromProcess is FromFD for a descriptor of another process, which takes the
// right to trace it (PTRACE_MODE_ATTACH_REALCREDS). The error wraps
// os.ErrProcessDone if there is no such process, and os.ErrNotExist if it has no
// such descriptor.
func (f *Factory) FromProcess(pid, fd int) (*Socket, error) {
	// The kernel would look at the lower half of larger numbers.
	if pid <= 0 || pid > math.MaxInt32 {
		return nil, fmt.Errorf("linux: process %d: %w", pid, errNoProcess)
	}
	if fd < 0 || fd > math.MaxInt32 {
		return nil, fmt.Errorf("linux: descriptor %d of process %d: %w", fd, pid, errNoDescriptor)
	}
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, failedAs(fmt.Sprintf("process %d", pid), err, map[unix.Errno]error{unix.ESRCH: errNoProcess})
	}
	defer unix.Close(pidfd)
	own, err := unix.PidfdGetfd(pidfd, fd, 0)
	if err != nil {
		return nil, failedAs(fmt.Sprintf("descriptor %d of process %d", fd, pid), err,
			map[unix.Errno]error{unix.EBADF: errNoDescriptor, unix.ESRCH: errNoProcess})
	}
	return f.adopt(own)
}

// worded is an error that says it in words of its own.
type worded struct {
	text string
	err  error
}

func (w *worded) Error() string { return w.text }
func (w *worded) Unwrap() error { return w.err }

var (
	errNoProcess    = &worded{"there is no such process", os.ErrProcessDone}
	errNoDescriptor = &worded{"it has none of that number", os.ErrNotExist}
	errNoSocket     = &worded{"this is not a socket", repair.ErrInvalid}
)

// FromFD is Factory.FromFD with a Factory's defaults.
func FromFD(fd int) (*Socket, error) { return new(Factory).FromFD(fd) }

// FromConn is Factory.FromConn with a Factory's defaults.
func FromConn(c syscall.Conn) (*Socket, error) { return new(Factory).FromConn(c) }

// FromProcess is Factory.FromProcess with a Factory's defaults.
func FromProcess(pid, fd int) (*Socket, error) { return new(Factory).FromProcess(pid, fd) }

// adopt makes a Socket of a descriptor, and closes it if it cannot.
func (f *Factory) adopt(fd int) (*Socket, error) {
	if err := checkTCP(fd); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return &Socket{factory: *f, fd: fd}, nil
}

func checkTCP(fd int) error {
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return failedAs("SO_DOMAIN", err, map[unix.Errno]error{unix.ENOTSOCK: errNoSocket})
	}
	protocol, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	switch {
	case err != nil:
		return failed("SO_PROTOCOL", err)
	case domain != unix.AF_INET && domain != unix.AF_INET6:
		return fmt.Errorf("linux: not a TCP socket: %w", repair.ErrInvalid)
	case protocol == unix.IPPROTO_MPTCP:
		return fmt.Errorf("linux: a socket of multipath TCP, which has no TCP_REPAIR (in Go, SetMultipathTCP(false) on the net.ListenConfig or net.Dialer avoids it): %w", repair.ErrInvalid)
	case protocol != unix.IPPROTO_TCP:
		return fmt.Errorf("linux: not a TCP socket: %w", repair.ErrInvalid)
	}
	return nil
}

// Conn returns the connection as a net.Conn, with a descriptor of its own. It
// should be thawed.
func (s *Socket) Conn() (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	own, err := unix.FcntlInt(uintptr(s.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, failed("F_DUPFD_CLOEXEC", err)
	}
	file := os.NewFile(uintptr(own), "tcp")
	defer file.Close() // net.FileConn has its own
	return net.FileConn(file)
}

// FD is the Socket's own descriptor, for options that this package does not
// know. It is valid until Close.
func (s *Socket) FD() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fd
}

// Addrs implements repair.Socket.
func (s *Socket) Addrs() (local, remote netip.AddrPort, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addrs()
}

func (s *Socket) addrs() (local, remote netip.AddrPort, err error) {
	sa, err := unix.Getsockname(s.fd)
	if err != nil {
		return local, remote, failed("getsockname", err)
	}
	local = addrPort(sa)
	sa, err = unix.Getpeername(s.fd)
	if err == unix.ENOTCONN {
		return local, remote, nil
	}
	if err == nil {
		remote = addrPort(sa)
	}
	return local, remote, failed("getpeername", err)
}

// State implements repair.Socket.
func (s *Socket) State() (repair.State, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state()
}

func (s *Socket) state() (repair.State, error) {
	i, err := s.info()
	if err != nil {
		return 0, err
	}
	return repair.State(i.State), nil
}

// dropCatch gives up what was kept for the connection.
func (s *Socket) dropCatch() error {
	c := s.catch
	if s.catch = nil; c == nil {
		return nil
	}
	return c.close()
}

// Close implements repair.Socket. A frozen connection ends without a FIN or a
// RST once all descriptors of it are closed, and the peer's next segment then
// draws a RST unless a tombstone holds its place (Factory.Tombstone,
// Factory.Bury).
func (s *Socket) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 {
		return nil
	}
	if s.factory.Tombstone > 0 && s.at != nil && s.filter.attached {
		// If the place is kept already, so much the better.
		_, _ = s.entomb(s.factory.Tombstone)
	}
	tomb := s.tombstone()
	s.unregister()
	err := s.dropCatch()
	err = errors.Join(err, failed("close", unix.Close(s.fd)))
	s.fd = -1
	if tomb != nil {
		tomb.rest()
	}
	return err
}
