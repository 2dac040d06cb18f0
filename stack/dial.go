package stack

import (
	"context"
	"net"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/tcprepair/ustack/stack/tcp"
)

// Dial connects to an address. network is "tcp", "tcp4" or "tcp6"; address is
// "host:port". A host that is not an IP address goes to Config.Resolver, and
// its addresses are tried in turn. When ctx ends first the attempt is given up
// and the error wraps ctx.Err(); afterwards ctx means nothing to the connection.
//
// Dial has the signature of net.Dialer.DialContext; the result is a *Conn.
func (s *Stack) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	targets, err := s.resolve(ctx, network, address)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Addr: literal(address), Err: err}
	}
	var first error
	for _, t := range targets {
		c, err := s.DialFrom(ctx, netip.AddrPort{}, t)
		if err == nil {
			return c, nil
		}
		if first == nil {
			first = err
		}
	}
	return nil, first
}

// DialFrom connects to remote from the given address of the stack. The zero
// AddrPort, or its zero half, leaves the choice to the stack.
func (s *Stack) DialFrom(ctx context.Context, local, remote netip.AddrPort) (*Conn, error) {
	c, err := s.dial(ctx, local, remote)
	if err != nil {
		var source net.Addr
		if local.IsValid() {
			source = tcpAddr(local)
		}
		return nil, &net.OpError{Op: "dial", Net: "tcp", Source: source, Addr: tcpAddr(remote), Err: err}
	}
	return c, nil
}

func (s *Stack) dial(ctx context.Context, local, remote netip.AddrPort) (*Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if !remote.IsValid() || remote.Addr().IsUnspecified() || remote.Port() == 0 {
		return nil, sysErr("connect", &tcpip.ErrBadLocalAddress{})
	}
	to, err := s.toFull(remote)
	if err != nil {
		return nil, err
	}
	from, err := s.toFull(local)
	if err != nil {
		return nil, err
	}
	if s.isClosed() {
		return nil, net.ErrClosed
	}
	wq := new(waiter.Queue)
	ep, err := s.newEndpoint(netProto(remote.Addr()), wq)
	if err != nil {
		return nil, err
	}
	if err := connect(ctx, ep, wq, from, to); err != nil {
		ep.Close()
		return nil, err
	}
	return s.newConn(ep, wq)
}

// connect binds, if asked to, and waits out the handshake.
func connect(ctx context.Context, ep *tcp.Endpoint, wq *waiter.Queue, from, to tcpip.FullAddress) error {
	if from != (tcpip.FullAddress{}) {
		if err := ep.Bind(from); err != nil {
			return sysErr("bind", err)
		}
	}
	var h half
	h.init(wq, writeEvents)
	defer wq.EventUnregister(&h.entry)

	switch err := ep.Connect(to).(type) {
	case nil:
		return nil
	case *tcpip.ErrConnectStarted:
	default:
		return sysErr("connect", err)
	}
	for {
		select {
		case <-h.wake:
		case <-ctx.Done():
			return ctx.Err()
		}
		if ep.Readiness(writeEvents) == 0 {
			continue
		}
		return sysErr("connect", ep.LastError())
	}
}

// newEndpoint makes a TCP socket.
func (s *Stack) newEndpoint(proto tcpip.NetworkProtocolNumber, wq *waiter.Queue) (*tcp.Endpoint, error) {
	ep, err := s.net.NewEndpoint(tcp.ProtocolNumber, proto, wq)
	if err != nil {
		return nil, sysErr("socket", err)
	}
	return ep.(*tcp.Endpoint), nil
}

// resolve turns host:port into the addresses that a network allows.
func (s *Stack) resolve(ctx context.Context, network, address string) ([]netip.AddrPort, error) {
	fam, err := parseNetwork(network)
	if err != nil {
		return nil, err
	}
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	port, err := net.DefaultResolver.LookupPort(ctx, network, service)
	if err != nil {
		return nil, err
	}
	addrs, err := s.lookup(ctx, host)
	if err != nil {
		return nil, err
	}
	var list []netip.AddrPort
	for _, a := range addrs {
		if fam.allows(a) {
			list = append(list, netip.AddrPortFrom(a.Unmap(), uint16(port)))
		}
	}
	if len(list) == 0 {
		return nil, &net.AddrError{Err: "no suitable address", Addr: host}
	}
	return list, nil
}

// lookup returns a host's addresses.
func (s *Stack) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a}, nil
	}
	if s.cfg.Resolver == nil || host == "" {
		return nil, &net.AddrError{Err: "not an IP address", Addr: host}
	}
	return s.cfg.Resolver(ctx, host)
}
