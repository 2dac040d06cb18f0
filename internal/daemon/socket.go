package daemon

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// DefaultControlPath is where the daemon and its clients meet unless told
// otherwise: $XDG_RUNTIME_DIR/ustack.sock, or /run/ustack.sock for root, or a
// file in the directory for temporary files with the user's number in its name.
func DefaultControlPath() string {
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "ustack.sock")
	}
	if os.Geteuid() == 0 {
		return "/run/ustack.sock"
	}
	return filepath.Join(os.TempDir(), fmt.Sprintf("ustack-%d.sock", os.Geteuid()))
}

// maxSocketPath is the longest path a unix socket's address holds, in bytes.
const maxSocketPath = len(unix.RawSockaddrUnix{}.Path) - 1

// controlSocket is a unix socket whose file only the owner may connect to, and
// which removes that file, if it is still its own, when it is closed.
type controlSocket struct {
	*net.UnixListener
	path string
	file os.FileInfo
}

// listenControl makes the socket's file. A file that a dead daemon left is
// replaced; a living daemon's, or one that is no socket, is an error.
func listenControl(path string) (*controlSocket, error) {
	s, err := listenUnix(path)
	if err == nil {
		return s, nil
	}
	err = fmt.Errorf("control socket %s: %w", path, err)
	if errors.Is(err, errPath) {
		err = &UsageError{err}
	}
	return nil, err
}

// errPath is a path that cannot be a control socket's on any machine.
var errPath = errors.New("bad path")

func listenUnix(path string) (*controlSocket, error) {
	if strings.HasPrefix(path, "@") {
		return nil, fmt.Errorf("%w: abstract sockets have no permissions", errPath)
	}
	dir, name := filepath.Split(path)
	if dir == "" {
		dir = "."
	}
	unlock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := checkStale(path); err != nil {
		return nil, err
	}
	// The socket is made where nobody else can reach it, given its mode, and
	// only then put in place: so it is never open to others, whatever the
	// umask, and a stale file is replaced in one step.
	tmp, err := os.MkdirTemp(dir, ".u")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	return bindAndMove(filepath.Join(tmp, "s"), filepath.Join(dir, name))
}

func bindAndMove(tmp, path string) (*controlSocket, error) {
	if n := max(len(tmp), len(path)); n > maxSocketPath {
		return nil, fmt.Errorf("%w: too long, by %d bytes", errPath, n-maxSocketPath)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: tmp, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	s := &controlSocket{UnixListener: l, path: path}
	if err = os.Chmod(tmp, 0o600); err == nil {
		if err = os.Rename(tmp, path); err == nil {
			s.file, err = os.Lstat(path)
		}
	}
	if err != nil {
		l.Close()
		return nil, err
	}
	return s, nil
}

// Close closes the socket and removes its file.
func (s *controlSocket) Close() error {
	if unlock, err := lockDir(filepath.Dir(s.path)); err == nil {
		defer unlock()
	}
	if now, err := os.Lstat(s.path); err == nil && os.SameFile(now, s.file) {
		os.Remove(s.path)
	}
	return s.UnixListener.Close()
}

// checkStale returns nil if nothing is at path, or a socket that nobody
// listens on.
func checkStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != os.ModeSocket {
		return errors.New("there is a file of that name, and it is not a socket")
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		c.Close()
		return errors.New("a daemon is running there")
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return err
	}
	return nil
}

// lockDir keeps other daemons from making or removing a control socket in dir
// until unlock is called.
func lockDir(dir string) (unlock func(), err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}
