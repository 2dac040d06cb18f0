package stack

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/tcprepair/ustack/stack/repair"
	"github.com/tcprepair/ustack/stack/tcp"
)

// Conn is a TCP connection as a net.Conn, with the methods of net.TCPConn. All
// methods may be called concurrently. Errors are *net.OpError around a
// syscall.Errno, os.ErrDeadlineExceeded or net.ErrClosed, and io.EOF.
//
// While the connection is frozen (SetRepair), Read and Write wait, up to their
// deadlines.
type Conn struct {
	stack         *Stack
	ep            *tcp.Endpoint
	wq            *waiter.Queue
	local, remote netip.AddrPort
	closed        atomic.Bool

	rd, wr half
	dst    tcpip.SliceWriter // of the Read under way; guarded by rd.mu
	src    bytes.Reader      // of the Write under way; guarded by wr.mu
}

var _ net.Conn = (*Conn)(nil)

// What makes a waiting call try again. An error and a full close concern both
// directions.
const (
	bothEvents  = waiter.EventErr | waiter.EventHUp
	readEvents  = waiter.ReadableEvents | waiter.EventRdHUp | bothEvents
	writeEvents = waiter.WritableEvents | bothEvents
)

// newConn makes a Conn of a connected endpoint, which it then owns. If the
// stack is closed already, so is the endpoint.
func (s *Stack) newConn(ep *tcp.Endpoint, wq *waiter.Queue) (*Conn, error) {
	c := &Conn{stack: s, ep: ep, wq: wq}
	c.local, c.remote = s.addresses(ep)
	if !s.track(c) {
		ep.Abort()
		return nil, net.ErrClosed
	}
	c.rd.init(wq, readEvents)
	c.wr.init(wq, writeEvents)
	return c, nil
}

// Read implements net.Conn. It waits for data, and returns io.EOF after the
// peer's last byte.
func (c *Conn) Read(b []byte) (int, error) {
	c.rd.mu.Lock()
	defer c.rd.mu.Unlock()
	for {
		if err := c.blocked(&c.rd); err != nil {
			return 0, c.opErr("read", err)
		}
		if len(b) == 0 {
			return 0, nil
		}
		c.dst = b
		res, err := c.ep.Read(&c.dst, tcpip.ReadOptions{})
		c.dst = nil
		if err == nil {
			return res.Count, nil
		}
		if !wouldBlock(err) {
			return 0, c.opErr("read", c.orClosed(readErr(err)))
		}
		c.rd.wait()
	}
}

// Write implements net.Conn. It returns when all of b is in the send queue, not
// when the peer has it.
func (c *Conn) Write(b []byte) (int, error) {
	c.wr.mu.Lock()
	defer c.wr.mu.Unlock()
	done := 0
	for {
		if err := c.blocked(&c.wr); err != nil {
			return done, c.opErr("write", err)
		}
		if done == len(b) {
			return done, nil
		}
		c.src.Reset(b[done:])
		n, err := c.ep.Write(&c.src, tcpip.WriteOptions{})
		c.src.Reset(nil)
		done += int(n)
		switch {
		case done == len(b):
			return done, nil
		case err == nil && n > 0:
		case err == nil || wouldBlock(err):
			c.wr.wait()
		default:
			return done, c.opErr("write", c.orClosed(sysErr("write", err)))
		}
	}
}

// blocked reports why a call must not go on: the Conn is closed or the
// deadline has passed.
func (c *Conn) blocked(h *half) error {
	if c.closed.Load() {
		return net.ErrClosed
	}
	if h.timer.passed.Load() {
		return os.ErrDeadlineExceeded
	}
	return nil
}

// orClosed replaces the error of a call that Close overtook.
func (c *Conn) orClosed(err error) error {
	if c.closed.Load() {
		return net.ErrClosed
	}
	return err
}

func wouldBlock(err tcpip.Error) bool {
	_, ok := err.(*tcpip.ErrWouldBlock)
	return ok
}

// Close implements net.Conn. Blocked calls return net.ErrClosed. What was
// written is still delivered, in the background, and the peer then sees the
// end of the stream; if the peer's data was left unread, or more comes, it is
// reset instead.
func (c *Conn) Close() error {
	if !c.end(c.ep.Close) {
		return c.opErr("close", net.ErrClosed)
	}
	c.stack.untrack(c)
	return nil
}

// abort ends the Conn at once, by a reset.
func (c *Conn) abort() { c.end(c.ep.Abort) }

// end closes the Conn and runs closeEndpoint, unless it was closed before.
func (c *Conn) end(closeEndpoint func()) bool {
	if !c.closed.CompareAndSwap(false, true) {
		return false
	}
	c.wq.EventUnregister(&c.rd.entry)
	c.wq.EventUnregister(&c.wr.entry)
	c.rd.setDeadline(time.Time{})
	c.wr.setDeadline(time.Time{})
	closeEndpoint()
	return true
}

// CloseRead ends the reading side: Read returns io.EOF.
func (c *Conn) CloseRead() error { return c.shutdown(tcpip.ShutdownRead) }

// CloseWrite ends the writing side: the peer sees the end of the stream after
// what was written, and may go on sending.
func (c *Conn) CloseWrite() error { return c.shutdown(tcpip.ShutdownWrite) }

func (c *Conn) shutdown(how tcpip.ShutdownFlags) error {
	if c.closed.Load() {
		return c.opErr("close", net.ErrClosed)
	}
	return c.opErr("close", sysErr("shutdown", c.ep.Shutdown(how)))
}

// LocalAddr implements net.Conn. It is a *net.TCPAddr.
func (c *Conn) LocalAddr() net.Addr { return tcpAddr(c.local) }

// RemoteAddr implements net.Conn. It is a *net.TCPAddr.
func (c *Conn) RemoteAddr() net.Addr { return tcpAddr(c.remote) }

// SetDeadline implements net.Conn.
func (c *Conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline implements net.Conn. Data that comes after a deadline passed
// stays in the queue for the next Read.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.setDeadline(&c.rd, t) }

// SetWriteDeadline implements net.Conn. A Write that it ends reports how much
// was taken.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.setDeadline(&c.wr, t) }

func (c *Conn) setDeadline(h *half, t time.Time) error {
	if c.closed.Load() {
		return c.opErr("set", net.ErrClosed)
	}
	h.setDeadline(t)
	return nil
}

// ID is the connection's number, as Conns lists it.
func (c *Conn) ID() uint64 { return c.ep.ID() }

// Endpoint returns the connection's endpoint. It stays the Conn's: the caller
// must not close it.
func (c *Conn) Endpoint() *tcp.Endpoint { return c.ep }

// Info describes the connection now.
func (c *Conn) Info() ConnInfo { return c.stack.connInfo(c.ep) }

// SetRepair freezes (repair.On) or thaws the connection: repair.Off has the
// peer asked where it stands, repair.OffNoProbe has not. When it returns from
// repair.On nothing more is sent, nothing that arrives is taken, and no timer
// acts. The error wraps syscall.ENOTCONN or syscall.EINVAL (no such mode).
func (c *Conn) SetRepair(m repair.Mode) error {
	return c.opErr("set", setRepair(c.ep, m))
}

func (c *Conn) opErr(op string, err error) error {
	if err == nil {
		return nil
	}
	return opErr(op, c.LocalAddr(), c.RemoteAddr(), err)
}
