package tcp

import (
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/ports"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// Bind implements tcpip.Endpoint. An endpoint of IPv6 that is bound to no
// address in particular is bound for IPv4 too, unless it is v6only.
func (e *Endpoint) Bind(addr tcpip.FullAddress) tcpip.Error {
	e.mu.Lock()
	defer e.unlock()
	return e.bind(addr)
}

func (e *Endpoint) bind(addr tcpip.FullAddress) tcpip.Error {
	if e.EndpointState() != StateInitial {
		return &tcpip.ErrAlreadyBound{}
	}
	bindAddr := addr.Addr
	v6only := e.options().GetV6Only()
	addr, net, err := e.info.AddrNetProtoLocked(addr, v6only, true /* bind */)
	if err != nil {
		return err
	}
	wildcard := addr.Addr.BitLen() == 0
	both := net == header.IPv6ProtocolNumber && wildcard && bindAddr.BitLen() == 0 || addr.Addr == header.IPv6Any
	both = both && !v6only && e.stack.CheckNetworkProtocol(header.IPv4ProtocolNumber)
	if addr.Addr.Unspecified() {
		addr.Addr = tcpip.Address{}
	} else if e.stack.CheckLocalAddress(addr.NIC, net, addr.Addr) == 0 {
		return &tcpip.ErrBadLocalAddress{}
	}
	id := stack.TransportEndpointID{LocalAddress: addr.Addr}
	nets := only(net)
	if both {
		nets = bothNets
	}
	place := e.placeFor(nets)
	port, err := e.reserve(&place, addr.Addr, addr.Port, tcpip.FullAddress{}, func(p uint16) tcpip.Error {
		id.LocalPort = p
		return e.stack.CheckRegisterTransportEndpoint(place.nets.list(), ProtocolNumber, id, place.flags, place.device)
	})
	if err != nil {
		return err
	}
	e.place = place
	e.info.ID = stack.TransportEndpointID{LocalPort: port, LocalAddress: addr.Addr}
	e.info.BindAddr, e.info.BindNICID = addr.Addr, addr.NIC
	e.setState(StateBound)
	return nil
}

// placeFor is a place that is not taken yet, with the endpoint's options as
// they are now. e.mu is held.
func (e *Endpoint) placeFor(nets netSet) place {
	return place{
		nets: nets,
		flags: ports.Flags{
			LoadBalanced: e.options().GetReusePort(),
			TupleOnly:    e.options().GetReuseAddress(),
		},
		device: tcpip.NICID(e.options().GetBindToDevice()),
	}
}

// reserve takes a port, an ephemeral one of test's choice if port is 0, for
// addr and, if dest is set, for connections to it only. test's ErrPortInUse
// means that another one may do.
func (e *Endpoint) reserve(p *place, addr tcpip.Address, port uint16, dest tcpip.FullAddress, test func(uint16) tcpip.Error) (uint16, tcpip.Error) {
	p.addr, p.dest = addr, dest
	port, err := e.stack.ReservePort(e.stack.SecureRNG(), p.reservation(port), func(port uint16) (bool, tcpip.Error) {
		switch err := test(port).(type) {
		case nil:
			return true, nil
		case *tcpip.ErrPortInUse:
			return false, nil
		default:
			return false, err
		}
	})
	if err != nil {
		e.proto.stats.FailedPortReservations.Increment()
		return 0, err
	}
	p.portReserved = true
	return port, nil
}

// reservation is the place's entry in the table of ports.
func (p *place) reservation(port uint16) ports.Reservation {
	return ports.Reservation{
		Networks:     p.nets.list(),
		Transport:    ProtocolNumber,
		Addr:         p.addr,
		Port:         port,
		Flags:        p.flags,
		BindToDevice: p.device,
		Dest:         p.dest,
	}
}

// register puts the endpoint into the stack's table under id. e.mu is held.
func (e *Endpoint) register(p *place, nets netSet, id stack.TransportEndpointID) tcpip.Error {
	if id.RemotePort != 0 && e.proto.places.taken(id) {
		return &tcpip.ErrPortInUse{} // the connection between these ends is elsewhere
	}
	err := e.stack.RegisterTransportEndpoint(nets.list(), ProtocolNumber, id, e, p.flags, p.device)
	if err == nil {
		p.registered, p.listedFor = true, nets
	}
	return err
}

// leave takes the endpoint out of the stack's table: nothing arrives any more.
// e.mu is held.
func (e *Endpoint) leave() {
	if e.place.registered {
		e.place.registered = false
		e.stack.StartTransportEndpointCleanup(e.place.listedFor.list(), ProtocolNumber, e.info.ID, e, e.place.flags, e.place.device)
	}
}

// yieldTuple makes way for another connection of the same tuple. This one is
// in TIME-WAIT; it may wait on, out of the tables, for what its user still
// wants to read. e.mu is held.
func (e *Endpoint) yieldTuple() {
	if e.place.registered {
		e.place.registered = false
		e.stack.UnregisterTransportEndpoint(e.place.listedFor.list(), ProtocolNumber, e.info.ID, e, e.place.flags, e.place.device)
	}
	if e.place.portReserved {
		e.place.portReserved = false
		e.stack.ReleasePort(e.place.reservation(e.info.ID.LocalPort))
	}
}

// release gives back everything that the endpoint holds of the stack's. Its
// connection has ended and nothing is being sent, or it never had one. e.mu is
// held.
func (e *Endpoint) release() {
	if e.released {
		return
	}
	e.released = true
	e.leave()
	if e.place.portReserved {
		e.place.portReserved = false
		e.stack.ReleasePort(e.place.reservation(e.info.ID.LocalPort))
	}
	if e.route != nil {
		e.route.Release()
		e.route = nil
	}
	if e.kept != nil {
		e.kept.abandon()
		e.kept = nil
	}
	e.timer.stop()
	e.stack.CompleteTransportEndpointCleanup(e)
	tcpip.DeleteDanglingEndpoint(e)
	if e.done != nil {
		close(e.done)
	}
}

// GetLocalAddress implements tcpip.Endpoint.
func (e *Endpoint) GetLocalAddress() (tcpip.FullAddress, tcpip.Error) {
	e.mu.Lock()
	defer e.unlock()
	return tcpip.FullAddress{
		NIC:  e.info.RegisterNICID,
		Addr: e.info.ID.LocalAddress,
		Port: e.info.ID.LocalPort,
	}, nil
}

// GetRemoteAddress implements tcpip.Endpoint.
func (e *Endpoint) GetRemoteAddress() (tcpip.FullAddress, tcpip.Error) {
	e.mu.Lock()
	defer e.unlock()
	if !e.started || !e.EndpointState().connected() {
		return tcpip.FullAddress{}, &tcpip.ErrNotConnected{}
	}
	return e.remote(), nil
}

// remote is the peer's address. e.mu is held.
func (e *Endpoint) remote() tcpip.FullAddress {
	return tcpip.FullAddress{
		NIC:  e.info.RegisterNICID,
		Addr: e.info.ID.RemoteAddress,
		Port: e.info.ID.RemotePort,
	}
}

// connected reports whether there is a peer that has answered and not been
// given up.
func (s EndpointState) connected() bool {
	switch s {
	case StateEstablished, StateFinWait1, StateFinWait2, StateTimeWait, StateCloseWait, StateLastAck, StateClosing:
		return true
	}
	return false
}
