package stack

import (
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip"
	gstack "gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/tcprepair/ustack/stack/repair"
	"github.com/tcprepair/ustack/stack/tcp"
	"github.com/tcprepair/ustack/stack/tcp/conn"
)

// ConnInfo is a picture of a connection.
type ConnInfo struct {
	// ID is the connection's number, the same for as long as it lives and
	// never used again in its stack.
	ID            uint64
	Local, Remote netip.AddrPort
	// Info is what Linux's tcp_info would say.
	conn.Info
	// Drops counts the segments that the connection refused.
	Drops Drops
}

// Drops counts refused segments by conn.DropReason's name. Reasons that did not
// occur are missing.
type Drops map[string]uint64

// Total is the number of segments refused, for whatever reason.
func (d Drops) Total() (n uint64) {
	for _, c := range d {
		n += c
	}
	return n
}

// Conns lists the connections of the stack, by ID: those of Dial and Listen and
// those made on NetStack, from SYN-SENT to TIME-WAIT, closed by their user or
// not. Listeners are not among them.
func (s *Stack) Conns() []ConnInfo {
	var list []ConnInfo
	for _, ep := range tcp.Endpoints(s.net) {
		if isConn(ep) {
			list = append(list, s.connInfo(ep))
		}
	}
	return list
}

// isConn reports whether an endpoint is, or was, on its way to a peer.
func isConn(ep *tcp.Endpoint) bool { return endpointID(ep).ID.RemotePort != 0 }

// endpointID says whose an endpoint is. Unlike GetRemoteAddress it knows the
// peer in every state.
func endpointID(ep *tcp.Endpoint) *gstack.TransportEndpointInfo {
	return ep.Info().(*gstack.TransportEndpointInfo)
}

// addresses returns both ends of an endpoint's connection.
func (s *Stack) addresses(ep *tcp.Endpoint) (local, remote netip.AddrPort) {
	i := endpointID(ep)
	full := func(a tcpip.Address, port uint16) netip.AddrPort {
		return s.fromFull(tcpip.FullAddress{NIC: i.RegisterNICID, Addr: a, Port: port})
	}
	return full(i.ID.LocalAddress, i.ID.LocalPort), full(i.ID.RemoteAddress, i.ID.RemotePort)
}

func (s *Stack) connInfo(ep *tcp.Endpoint) ConnInfo {
	c := ConnInfo{ID: ep.ID(), Info: ep.ConnInfo(), Drops: make(Drops)}
	c.Local, c.Remote = s.addresses(ep)
	for r, n := range ep.Drops() {
		c.Drops.add(conn.DropReason(r), uint64(n))
	}
	return c
}

func (d Drops) add(r conn.DropReason, n uint64) {
	if n > 0 && r != conn.NotDropped {
		d[r.String()] = n
	}
}

// Drops counts the segments that the stack's TCP refused since New, those that
// belonged to no connection included.
func (s *Stack) Drops() Drops {
	d := make(Drops)
	for r, n := range tcp.DropCounts(s.net) {
		d.add(conn.DropReason(r), n)
	}
	return d
}

// SetRepair freezes (repair.On) or thaws a connection by its ID. For an ID that
// is not in Conns the error wraps ErrNoConn.
func (s *Stack) SetRepair(id uint64, m repair.Mode) error {
	ep, err := s.endpoint(id)
	if err != nil {
		return err
	}
	return setRepair(ep, m)
}

func setRepair(ep *tcp.Endpoint, m repair.Mode) error {
	if !m.Valid() {
		return sysErr("setsockopt", &tcpip.ErrInvalidOptionValue{})
	}
	switch err := ep.SetRepair(m); err {
	case conn.ErrNotConnected:
		return sysErr("setsockopt", &tcpip.ErrNotConnected{})
	case conn.ErrInvalid:
		return sysErr("setsockopt", &tcpip.ErrInvalidOptionValue{})
	default:
		return err
	}
}
