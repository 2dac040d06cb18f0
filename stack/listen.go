package stack

import (
	"context"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/tcprepair/ustack/stack/tcp"
)

// Listener is a listening TCP socket as a net.Listener. All methods may be
// called concurrently.
type Listener struct {
	stack  *Stack
	ep     *tcp.Endpoint
	wq     *waiter.Queue
	addr   netip.AddrPort
	closed atomic.Bool
	acc    half
}

var _ net.Listener = (*Listener)(nil)

// Listen waits for connections to an address of the stack. network is "tcp",
// "tcp4" or "tcp6"; address is "host:port" with an IP address or nothing for
// host, and 0 for a port of the stack's choice. Without a host, "tcp" takes
// IPv4 and IPv6 connections alike.
func (s *Stack) Listen(network, address string) (*Listener, error) {
	l, err := s.listen(network, address)
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: network, Addr: literal(address), Err: err}
	}
	return l, nil
}

func (s *Stack) listen(network, address string) (*Listener, error) {
	fam, err := parseNetwork(network)
	if err != nil {
		return nil, err
	}
	ap, err := listenAddr(network, address)
	if err != nil {
		return nil, err
	}
	if ap.Addr().IsValid() && !fam.allows(ap.Addr()) {
		return nil, &net.AddrError{Err: "address is not of network " + network, Addr: address}
	}
	full, err := s.toFull(ap)
	if err != nil {
		return nil, err
	}
	proto := netProto(ap.Addr())
	switch {
	case ap.Addr().IsValid():
	case fam.v6:
		proto = ipv6.ProtocolNumber
	default:
		proto = ipv4.ProtocolNumber
	}
	if s.isClosed() {
		return nil, net.ErrClosed
	}
	l := &Listener{stack: s, wq: new(waiter.Queue), addr: anyAddr(proto)}
	if l.ep, err = s.newEndpoint(proto, l.wq); err != nil {
		return nil, err
	}
	if err := l.start(full, !fam.v4); err != nil {
		l.ep.Close()
		return nil, err
	}
	return l, nil
}

// start binds and listens. v6Only keeps a socket for all addresses from taking
// IPv4 connections.
func (l *Listener) start(at tcpip.FullAddress, v6Only bool) error {
	l.ep.SocketOptions().SetV6Only(v6Only)
	// As package net does: a restarted server gets its port back while old
	// connections are in TIME-WAIT.
	l.ep.SocketOptions().SetReuseAddress(true)
	if err := l.ep.Bind(at); err != nil {
		return sysErr("bind", err)
	}
	if err := l.ep.Listen(l.stack.cfg.Backlog); err != nil {
		return sysErr("listen", err)
	}
	bound, err := l.ep.GetLocalAddress()
	if err != nil {
		return sysErr("getsockname", err)
	}
	if addr := l.stack.fromFull(bound); addr.Addr().IsValid() {
		l.addr = addr
	} else {
		l.addr = netip.AddrPortFrom(l.addr.Addr(), addr.Port())
	}
	l.acc.init(l.wq, readEvents)
	if !l.stack.track(l) {
		l.wq.EventUnregister(&l.acc.entry)
		return net.ErrClosed
	}
	return nil
}

// anyAddr is the unspecified address of an IP version, with no port yet.
func anyAddr(proto tcpip.NetworkProtocolNumber) netip.AddrPort {
	if proto == ipv4.ProtocolNumber {
		return netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.AddrPortFrom(netip.IPv6Unspecified(), 0)
}

// listenAddr parses host:port where host may be missing.
func listenAddr(network, address string) (netip.AddrPort, error) {
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return netip.AddrPort{}, err
	}
	port, err := net.DefaultResolver.LookupPort(context.Background(), network, service)
	if err != nil {
		return netip.AddrPort{}, err
	}
	var addr netip.Addr
	if host != "" {
		if addr, err = netip.ParseAddr(host); err != nil {
			return netip.AddrPort{}, &net.AddrError{Err: "not an IP address", Addr: host}
		}
		addr = addr.Unmap()
	}
	return netip.AddrPortFrom(addr, uint16(port)), nil
}

// Accept implements net.Listener. The result is a *Conn.
func (l *Listener) Accept() (net.Conn, error) {
	c, err := l.AcceptConn()
	if err != nil {
		return nil, err
	}
	return c, nil
}

// AcceptConn waits for the next connection.
func (l *Listener) AcceptConn() (*Conn, error) {
	l.acc.mu.Lock()
	defer l.acc.mu.Unlock()
	for {
		if l.closed.Load() {
			return nil, l.opErr("accept", net.ErrClosed)
		}
		if l.acc.timer.passed.Load() {
			return nil, l.opErr("accept", os.ErrDeadlineExceeded)
		}
		ep, wq, err := l.ep.Accept(nil)
		if err == nil {
			c, err := l.stack.newConn(ep.(*tcp.Endpoint), wq)
			if err != nil {
				return nil, l.opErr("accept", err)
			}
			return c, nil
		}
		if !wouldBlock(err) {
			if l.closed.Load() {
				return nil, l.opErr("accept", net.ErrClosed)
			}
			return nil, l.opErr("accept", sysErr("accept", err))
		}
		l.acc.wait()
	}
}

// Close implements net.Listener. Blocked Accepts return net.ErrClosed;
// connections that were accepted live on.
func (l *Listener) Close() error {
	if !l.closed.CompareAndSwap(false, true) {
		return l.opErr("close", net.ErrClosed)
	}
	l.end()
	l.stack.untrack(l)
	return nil
}

// abort is Close for Stack.Close, which does the bookkeeping.
func (l *Listener) abort() {
	if l.closed.CompareAndSwap(false, true) {
		l.end()
	}
}

func (l *Listener) end() {
	l.wq.EventUnregister(&l.acc.entry)
	l.ep.Close()
	l.acc.setDeadline(time.Time{})
}

// SetDeadline sets when Accept gives up. The zero time means never.
func (l *Listener) SetDeadline(t time.Time) error {
	l.acc.setDeadline(t)
	return nil
}

// Addr implements net.Listener. It is a *net.TCPAddr.
func (l *Listener) Addr() net.Addr { return tcpAddr(l.addr) }

func (l *Listener) opErr(op string, err error) error {
	return &net.OpError{Op: op, Net: "tcp", Addr: l.Addr(), Err: err}
}

// literal is an address as the user wrote it, for error messages.
type literal string

// Network implements net.Addr.
func (literal) Network() string { return "tcp" }

// String implements net.Addr.
func (a literal) String() string { return strings.TrimSpace(string(a)) }
