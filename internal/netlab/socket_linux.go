package netlab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// Control changes a socket between its making and its bind or connect.
type Control func(fd int) error

// DialTCP connects a kernel socket of the namespace to the address. Controls
// run before it connects, for socket options. The socket is plain TCP: the
// multipath kind that Go may prefer has no TCP_REPAIR and another tcp_info.
func (ns *Namespace) DialTCP(ctx context.Context, to netip.AddrPort, controls ...Control) (*net.TCPConn, error) {
	d := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: false}, KeepAlive: -1, Control: rawControl(controls)}
	d.SetMultipathTCP(false)
	var conn net.Conn
	// A literal address is dialled on the calling goroutine: the socket is made
	// on this thread.
	err := ns.Do(func() (err error) {
		conn, err = d.DialContext(ctx, "tcp", to.String())
		return err
	})
	if err != nil {
		return nil, err
	}
	return conn.(*net.TCPConn), nil
}

// ListenTCP listens with a kernel socket of the namespace. The address may be
// unspecified and the port 0. Connections it accepts belong to the namespace.
func (ns *Namespace) ListenTCP(at netip.AddrPort, controls ...Control) (*net.TCPListener, error) {
	lc := net.ListenConfig{KeepAlive: -1, Control: rawControl(controls)}
	lc.SetMultipathTCP(false)
	var ln net.Listener
	err := ns.Do(func() (err error) {
		ln, err = lc.Listen(context.Background(), "tcp", at.String())
		return err
	})
	if err != nil {
		return nil, err
	}
	return ln.(*net.TCPListener), nil
}

// ListenUDP opens a UDP socket of the namespace.
func (ns *Namespace) ListenUDP(at netip.AddrPort) (*net.UDPConn, error) {
	var conn *net.UDPConn
	err := ns.Do(func() (err error) {
		conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
		return err
	})
	return conn, err
}

// DialContext is DialTCP in the shape that http.Transport wants. The address
// must be literal.
func (ns *Namespace) DialContext(ctx context.Context, _, address string) (net.Conn, error) {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, fmt.Errorf("netlab: %w", err)
	}
	return ns.DialTCP(ctx, to)
}

func rawControl(controls []Control) func(string, string, syscall.RawConn) error {
	return func(_, _ string, raw syscall.RawConn) error {
		return onFD(raw, func(fd int) error {
			for _, c := range controls {
				if err := c(fd); err != nil {
					return err
				}
			}
			return nil
		})
	}
}

// SetInt is a Control that sets an integer socket option.
func SetInt(level, option, value int) Control {
	return func(fd int) error {
		return unix.SetsockoptInt(fd, level, option, value)
	}
}

// SetString is a Control that sets a string socket option, for instance
// TCP_CONGESTION.
func SetString(level, option int, value string) Control {
	return func(fd int) error {
		return unix.SetsockoptString(fd, level, option, value)
	}
}

// TCPInfo reads the kernel's view of a connection (tcpi_bytes_acked, …).
func TCPInfo(c syscall.Conn) (info *unix.TCPInfo, err error) {
	err = withFD(c, func(fd int) (err error) {
		info, err = unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		return err
	})
	return info, err
}

// InQueue is how many bytes a kernel socket has received and not yet given to
// its program (SIOCINQ).
func InQueue(c syscall.Conn) (int, error) { return queueLen(c, unix.SIOCINQ) }

// OutQueue is how many bytes a kernel socket holds that its peer has not
// acknowledged (SIOCOUTQ).
func OutQueue(c syscall.Conn) (int, error) { return queueLen(c, unix.SIOCOUTQ) }

func queueLen(c syscall.Conn, request uint) (n int, err error) {
	err = withFD(c, func(fd int) (err error) {
		n, err = unix.IoctlGetInt(fd, request)
		return err
	})
	return n, err
}

func withFD(c syscall.Conn, f func(fd int) error) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	return onFD(raw, f)
}

func onFD(raw syscall.RawConn, f func(fd int) error) error {
	var inner error
	outer := raw.Control(func(fd uintptr) { inner = f(int(fd)) })
	return errors.Join(outer, inner)
}
