package interop

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcprepair/ustack/internal/netlab"
	"github.com/tcprepair/ustack/stack"
	"github.com/tcprepair/ustack/stack/tcp/conn"
)

// opener makes a connection: the kernel's end and ours.
type opener func(s *site, family int) (*net.TCPConn, *stack.Conn)

// roles are the two ways a connection begins.
var roles = []struct {
	name string
	open opener
}{{"server", (*site).dialled}, {"client", (*site).accepted}}

// each runs f with ustack in both roles and over both IP versions, all at the
// same time.
func each(t *testing.T, f func(t *testing.T, family int, open opener)) {
	t.Parallel()
	for _, fam := range families {
		for _, role := range roles {
			t.Run(fam.name+"/"+role.name, func(t *testing.T) {
				t.Parallel()
				f(t, fam.index, role.open)
			})
		}
	}
}

// eachFamily is each for tests that know the roles themselves.
func eachFamily(t *testing.T, f func(t *testing.T, family int)) {
	t.Parallel()
	for _, fam := range families {
		t.Run(fam.name, func(t *testing.T) {
			t.Parallel()
			f(t, fam.index)
		})
	}
}

// sysctl changes a setting of the kernel's namespace.
func (s *site) sysctl(name, value string) {
	s.t.Helper()
	must(s.t, s.kernel.SetSysctl(name, value))
}

// kernelCount reads a counter of the kernel's namespace, such as TCPTimeouts.
func (s *site) kernelCount(name string) (n int) {
	s.t.Helper()
	must(s.t, s.kernel.Do(func() error {
		list, err := os.ReadFile("/proc/thread-self/net/netstat")
		if err != nil {
			return err
		}
		// Pairs of lines: names, then values.
		var names []string
		for line := range strings.Lines(string(list)) {
			fields := strings.Fields(line)
			if len(names) == 0 || names[0] != fields[0] {
				names = fields
				continue
			}
			for i, f := range names {
				if f == name {
					n, err = strconv.Atoi(fields[i])
					return err
				}
			}
			names = nil
		}
		return fmt.Errorf("no counter %s", name)
	}))
	return n
}

// capture records what passes the kernel's device.
func (s *site) capture() *netlab.Capture {
	s.t.Helper()
	c, err := s.kernel.Capture(s.device, netlab.CaptureConfig{})
	must(s.t, err)
	return c
}

// kernelState is the kernel's state of a socket; the numbers are those of
// conn.State.
func kernelState(t *testing.T, k *net.TCPConn) conn.State {
	t.Helper()
	i, err := netlab.TCPInfo(k)
	must(t, err)
	return conn.State(i.State)
}

// wantState waits for a state of ours.
func wantState(t *testing.T, u *stack.Conn, want conn.State) {
	t.Helper()
	eventually(t, "ustack in "+want.String(), func() bool { return u.Info().State == want })
}

// wantKernelState waits for a state of the kernel's.
func wantKernelState(t *testing.T, k *net.TCPConn, want conn.State) {
	t.Helper()
	eventually(t, "the kernel in "+want.String(), func() bool { return kernelState(t, k) == want })
}

// wantErrno verifies that a call failed as the system call would.
func wantErrno(t *testing.T, what string, err error, want syscall.Errno) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

// unread waits until the kernel holds n bytes for its user.
func unread(t *testing.T, k *net.TCPConn, n int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d bytes in the kernel's queue", n), func() bool {
		have, err := netlab.InQueue(k)
		return err == nil && have == n
	})
}

// loser is a wire's filter that drops the first frames of a kind.
type loser struct {
	left  atomic.Int32
	match func(netlab.Captured) bool
}

// lose drops n frames for which match is true.
func lose(n int32, match func(netlab.Captured) bool) *loser {
	l := &loser{match: match}
	l.left.Store(n)
	return l
}

func (l *loser) pass(frame []byte) bool {
	return l.left.Load() == 0 || !l.match(netlab.Captured{Data: frame}) || l.left.Add(-1) < 0
}

// done verifies that everything that was to be lost was.
func (l *loser) done(t *testing.T) {
	t.Helper()
	if n := l.left.Load(); n != 0 {
		t.Errorf("%d frames that should have been lost never came", n)
	}
}

// receiveBuffer fixes the size of a kernel socket's queue. The kernel doubles
// it.
func receiveBuffer(n int) netlab.Control { return netlab.SetInt(unix.SOL_SOCKET, unix.SO_RCVBUF, n) }

// deadline gives both ends of a connection another time limit.
func deadline(d time.Duration, ends ...net.Conn) {
	for _, c := range ends {
		c.SetDeadline(time.Now().Add(d))
	}
}
