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
	info := e.transportInfo()
	addr, net, err := info.AddrNetProtoLocked(addr, v6only, true /* bind */)
	if err != nil {
		return err
	}
	wildcard := addr.Addr.BitLen() == 0
	both := net == header.IPv6ProtocolNumber && wildcard && bindAddr.BitLen() == 0 || addr.Addr == header.IPv6Any
	both = both && !v6only && e.proto.stack.CheckNetworkProtocol(header.IPv4ProtocolNumber)
	if addr.Addr.Unspecified() {
		addr.Addr = tcpip.Address{}
	} else if e.proto.stack.CheckLocalAddress(addr.NIC, net, addr.Addr) == 0 {
		return &tcpip.ErrBadLocalAddress{}
	}
	id := stack.TransportEndpointID{LocalAddress: addr.Addr}
	nets := only(net)
	if both {
		nets = bothNets
	}
	place := e.placeFor(nets)
	port, err := e.reserve(&place, id, addr.Port, func(p uint16) tcpip.Error {
		id.LocalPort = p
		return e.proto.stack.CheckRegisterTransportEndpoint(place.nets.list(), ProtocolNumber, id, place.flags, place.device)
	})
	if err != nil {
		return err
	}
	e.place = place
	id.LocalPort = port
	e.bindTo(id, addr.NIC)
	e.setState(StateBound)
	return nil
}

// bindTo notes what the endpoint is bound to. e.mu is held.
func (e *Endpoint) bindTo(id stack.TransportEndpointID, nic tcpip.NICID) {
	e.ends, e.bound = endsOf(id), nic
	e.addressBound = e.ends.localLen != 0
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
// the local address of id, if it has one, and for connections to the remote one,
// likewise. test's ErrPortInUse means that another port may do.
func (e *Endpoint) reserve(p *place, id stack.TransportEndpointID, port uint16, test func(uint16) tcpip.Error) (uint16, tcpip.Error) {
	p.local, p.remote = id.LocalAddress.BitLen() != 0, id.RemoteAddress.BitLen() != 0
	id.LocalPort = port
	port, err := e.proto.stack.ReservePort(e.proto.stack.SecureRNG(), p.reservation(id), func(port uint16) (bool, tcpip.Error) {
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

// reservation is the place's entry in the table of ports, for an endpoint with
// these ends.
func (p *place) reservation(id stack.TransportEndpointID) ports.Reservation {
	r := ports.Reservation{
		Networks:     p.nets.list(),
		Transport:    ProtocolNumber,
		Port:         id.LocalPort,
		Flags:        p.flags,
		BindToDevice: p.device,
	}
	if p.local {
		r.Addr = id.LocalAddress
	}
	if p.remote {
		r.Dest = tcpip.FullAddress{Addr: id.RemoteAddress, Port: id.RemotePort}
	}
	return r
}

// freePort gives the endpoint's port back, if it has one. e.mu is held.
func (e *Endpoint) freePort() {
	if e.place.portReserved {
		e.place.portReserved = false
		e.proto.stack.ReleasePort(e.place.reservation(e.ends.id()))
	}
}

// register puts the endpoint into the stack's table under id. e.mu is held.
func (e *Endpoint) register(p *place, nets netSet, id stack.TransportEndpointID) tcpip.Error {
	if id.RemotePort != 0 && e.proto.places.taken(id) {
		return &tcpip.ErrPortInUse{} // the connection between these ends is elsewhere
	}
	err := e.proto.stack.RegisterTransportEndpoint(nets.list(), ProtocolNumber, id, e, p.flags, p.device)
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
		e.proto.stack.StartTransportEndpointCleanup(e.place.listedFor.list(), ProtocolNumber, e.ends.id(), e, e.place.flags, e.place.device)
	}
}

// yieldTuple makes way for another connection of the same tuple. This one is
// in TIME-WAIT; it may wait on, out of the tables, for what its user still
// wants to read. e.mu is held.
func (e *Endpoint) yieldTuple() {
	if e.place.registered {
		e.place.registered = false
		e.proto.stack.UnregisterTransportEndpoint(e.place.listedFor.list(), ProtocolNumber, e.ends.id(), e, e.place.flags, e.place.device)
	}
	e.freePort()
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
	e.freePort()
	if e.route != nil {
		e.route.Release()
		e.route = nil
	}
	if e.kept != nil {
		e.kept.abandon()
		e.kept = nil
	}
	e.timer.stop()
	e.proto.stack.CompleteTransportEndpointCleanup(e)
	tcpip.DeleteDanglingEndpoint(e)
	if w := e.waiting; w != nil && w.done != nil {
		close(w.done)
	}
}

// GetLocalAddress implements tcpip.Endpoint.
func (e *Endpoint) GetLocalAddress() (tcpip.FullAddress, tcpip.Error) {
	e.mu.Lock()
	defer e.unlock()
	return e.local(), nil
}

// local is the endpoint's own address. e.mu is held.
func (e *Endpoint) local() tcpip.FullAddress {
	return tcpip.FullAddress{
		NIC:  e.nic,
		Addr: e.ends.localAddress(),
		Port: e.ends.localPort,
	}
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
		NIC:  e.nic,
		Addr: e.ends.remoteAddress(),
		Port: e.ends.remotePort,
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
