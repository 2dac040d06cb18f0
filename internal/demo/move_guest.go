package demo

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"

	"github.com/tcprepair/ustack/internal/netlab"
	"github.com/tcprepair/ustack/stack"
	"github.com/tcprepair/ustack/stack/repair"
	"github.com/tcprepair/ustack/stack/repair/linux"
	"github.com/tcprepair/ustack/stack/tap"
)

const (
	// holdBytes is how much of what the peer sends is kept for a connection
	// that is to come.
	holdBytes = 4 << 20
	// holdFor is far longer than a move takes.
	holdFor = 10 * time.Second
	// buryFor is far longer than a frame takes to get to a kernel that the
	// connection has left.
	buryFor = time.Second
)

// inn is a TCP that connections move to and from.
type inn interface {
	// String is "kernel" or "ustack".
	String() string
	accept(dial func(netip.AddrPort) error, at netip.Addr) (guest, error)
	reserve(repair.Flow) (repair.Reservation, error)
	restore(*repair.Snapshot) (guest, error)
	close() error
}

// guest is a connection where it is at present.
type guest interface {
	// conn is for its user, while it is not frozen.
	conn() net.Conn
	checkpoint() (*repair.Snapshot, error)
	resume() error
	// leave ends it. A frozen one ends without a word to the peer.
	leave() error
}

// kernelInn is the kernel's TCP in a namespace.
type kernelInn struct {
	ns      *netlab.Namespace
	factory *linux.Factory
}

func newKernelInn(ns *netlab.Namespace) *kernelInn {
	return &kernelInn{ns: ns, factory: &linux.Factory{Do: ns.Do, Tombstone: buryFor}}
}

func (*kernelInn) String() string { return "kernel" }
func (*kernelInn) close() error   { return nil }

func (k *kernelInn) accept(dial func(netip.AddrPort) error, at netip.Addr) (guest, error) {
	l, err := k.ns.ListenTCP(netip.AddrPortFrom(at, 0))
	if err != nil {
		return nil, err
	}
	defer l.Close()
	if err := dial(l.Addr().(*net.TCPAddr).AddrPort()); err != nil {
		return nil, err
	}
	c, err := l.AcceptTCP()
	if err != nil {
		return nil, err
	}
	s, err := k.factory.FromConn(c)
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return &kernelGuest{socket: s, user: c}, nil
}

func (k *kernelInn) reserve(f repair.Flow) (repair.Reservation, error) {
	return repair.Reserve(k.factory, f, holdBytes, holdFor)
}

func (k *kernelInn) restore(snap *repair.Snapshot) (guest, error) {
	s, err := repair.Restore(k.factory, snap)
	if err != nil {
		return nil, err
	}
	return &kernelGuest{socket: s.(*linux.Socket)}, nil
}

type kernelGuest struct {
	socket *linux.Socket
	user   net.Conn // nil until it is thawed
}

func (g *kernelGuest) conn() net.Conn                        { return g.user }
func (g *kernelGuest) checkpoint() (*repair.Snapshot, error) { return repair.Checkpoint(g.socket) }

func (g *kernelGuest) resume() error {
	err := repair.Resume(g.socket, repair.Off)
	if err == nil && g.user == nil {
		g.user, err = g.socket.Conn()
	}
	return err
}

func (g *kernelGuest) leave() error {
	err := g.socket.Close()
	if g.user != nil {
		err = errors.Join(err, g.user.Close())
	}
	return err
}

// ustackInn is a ustack on a TAP device.
type ustackInn struct{ stack *stack.Stack }

func newUstackInn(device *netlab.TAP) (*ustackInn, error) {
	fd, err := device.TakeFD()
	if err != nil {
		return nil, err
	}
	link, err := tap.Adopt(fd, tap.Config{Address: tcpip.LinkAddress(netlab.SharedMAC)})
	if err != nil {
		return nil, err
	}
	s, err := stack.New(stack.Config{
		Link: link, Addresses: netlab.PeerAddresses,
		SendBuffer:    stack.BufferSize{Default: sendBuffer / 4, Max: sendBuffer},
		ReceiveBuffer: stack.BufferSize{Default: sendBuffer / 2, Max: 2 * sendBuffer},
	})
	if err != nil {
		return nil, fmt.Errorf("a stack on the TAP device: %w", err)
	}
	return &ustackInn{s}, nil
}

func (*ustackInn) String() string { return "ustack" }
func (u *ustackInn) close() error { return u.stack.Close() }

func (u *ustackInn) accept(dial func(netip.AddrPort) error, at netip.Addr) (guest, error) {
	l, err := u.stack.Listen("tcp", netip.AddrPortFrom(at, 0).String())
	if err != nil {
		return nil, err
	}
	defer l.Close()
	if err := dial(l.Addr().(*net.TCPAddr).AddrPort()); err != nil {
		return nil, err
	}
	c, err := l.Accept()
	if err != nil {
		return nil, err
	}
	return ustackGuest{c.(*stack.Conn)}, nil
}

func (u *ustackInn) reserve(f repair.Flow) (repair.Reservation, error) {
	return u.stack.Reserve(f, holdBytes, holdFor)
}

func (u *ustackInn) restore(snap *repair.Snapshot) (guest, error) {
	c, err := u.stack.Restore(snap)
	if err != nil {
		return nil, err
	}
	return ustackGuest{c}, nil
}

type ustackGuest struct{ c *stack.Conn }

func (g ustackGuest) conn() net.Conn                        { return g.c }
func (g ustackGuest) checkpoint() (*repair.Snapshot, error) { return g.c.Checkpoint() }
func (g ustackGuest) resume() error                         { return g.c.SetRepair(repair.Off) }
func (g ustackGuest) leave() error                          { return g.c.Close() }
