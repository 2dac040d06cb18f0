package tcp

import (
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/tcprepair/ustack/stack/tcp/conn"
)

// Connect implements tcpip.Endpoint. It sends the SYN and returns
// ErrConnectStarted; when the endpoint becomes writable another call, or
// LastError, tells how the handshake went.
func (e *Endpoint) Connect(addr tcpip.FullAddress) (err tcpip.Error) {
	e.do(func(now conn.Time) {
		if e.EndpointState() != StateInitial && e.EndpointState() != StateBound {
			err = e.connectAgain()
			return
		}
		if err = e.connect(now, addr); err != nil {
			e.failedAttempt()
			return
		}
		err = &tcpip.ErrConnectStarted{}
	})
	return err
}

// connectAgain says what to answer to Connect when there was one before, or
// nothing to connect. e.mu is held.
func (e *Endpoint) connectAgain() tcpip.Error {
	if !e.started {
		return &tcpip.ErrInvalidEndpointState{}
	}
	switch s := e.conn.State(); {
	case s == conn.StateSynSent || s == conn.StateSynReceived:
		return &tcpip.ErrAlreadyConnecting{}
	case s == conn.StateClosed:
		if err := e.failure(); err != nil {
			return err
		}
		return &tcpip.ErrInvalidEndpointState{}
	case e.connectDone:
		return &tcpip.ErrAlreadyConnected{}
	}
	e.connectDone = true
	return nil
}

// failure is why the connection ended, nil if it has not or ended well. e.mu
// is held.
func (e *Endpoint) failure() tcpip.Error {
	if e.hardErr != nil {
		return e.hardErr
	}
	return tcpipError(e.conn.Err())
}

// connect takes what a connection needs and begins the handshake. After an
// error the endpoint is as it was. e.mu is held.
func (e *Endpoint) connect(now conn.Time, addr tcpip.FullAddress) tcpip.Error {
	addr, net, err := e.info.AddrNetProtoLocked(addr, e.ops.GetV6Only(), false /* bind */)
	if err != nil {
		return err
	}
	nic, err := e.outgoingNIC(addr.NIC)
	if err != nil {
		return err
	}
	route, err := e.findRoute(nic, addr.NIC, addr.Addr, net)
	if err != nil {
		return err
	}
	id := stack.TransportEndpointID{
		LocalPort:     e.info.ID.LocalPort,
		LocalAddress:  route.LocalAddress(),
		RemotePort:    addr.Port,
		RemoteAddress: route.RemoteAddress(),
	}
	place, err := e.claim(&id, route)
	if err != nil {
		route.Release()
		return err
	}
	e.place, e.route, e.info.ID = place, route, id
	e.info.RegisterNICID = nic
	cfg := e.config(now)
	e.conn.Connect(now, &cfg)
	e.started = true
	return nil
}

// findRoute finds the way to a peer. If none leads by the device the endpoint
// is bound to, another one is taken, as gVisor does: the device then bounds
// what is received only. e.mu is held.
func (e *Endpoint) findRoute(nic, asked tcpip.NICID, to tcpip.Address, net tcpip.NetworkProtocolNumber) (*stack.Route, tcpip.Error) {
	from := e.info.ID.LocalAddress
	route, err := e.stack.FindRoute(nic, from, to, net, false /* multicastLoop */)
	if err != nil && asked == 0 && e.info.BindNICID == 0 && nic != 0 {
		return e.stack.FindRoute(0, from, to, net, false)
	}
	return route, err
}

// outgoingNIC is the interface to connect by: the one asked for in connect, in
// bind, or by SO_BINDTODEVICE, which must not contradict each other; 0 leaves
// it to the routes. e.mu is held.
func (e *Endpoint) outgoingNIC(asked tcpip.NICID) (tcpip.NICID, tcpip.Error) {
	nic := asked
	for _, n := range []tcpip.NICID{e.info.BindNICID, tcpip.NICID(e.ops.GetBindToDevice())} {
		if n == 0 {
			continue
		}
		if nic != 0 && nic != n {
			return 0, &tcpip.ErrHostUnreachable{}
		}
		nic = n
	}
	return nic, nil
}

// claim registers the endpoint for its connection, id, and finds it a local
// port if it is not bound to one. e.mu is held.
func (e *Endpoint) claim(id *stack.TransportEndpointID, route *stack.Route) (place, tcpip.Error) {
	nets := []tcpip.NetworkProtocolNumber{route.NetProto()}
	if id.LocalPort != 0 {
		p := e.place // with the port that Bind reserved
		err := e.register(&p, nets, *id)
		return p, err
	}
	p := e.placeFor(nets)
	dest := tcpip.FullAddress{Addr: id.RemoteAddress, Port: id.RemotePort}
	try := func(port uint16) tcpip.Error {
		if port == id.RemotePort && id.LocalAddress == id.RemoteAddress {
			return &tcpip.ErrPortInUse{} // a connection to itself by accident
		}
		id.LocalPort = port
		return e.register(&p, nets, *id)
	}
	_, err := e.reserve(&p, id.LocalAddress, 0, dest, try)
	if _, full := err.(*tcpip.ErrNoPortAvailable); full {
		if port := e.recycle(*id, nets[0], route); port != 0 {
			_, err = e.reserve(&p, id.LocalAddress, port, dest, try)
		}
	}
	if err != nil {
		id.LocalPort = 0
		return place{}, err
	}
	return p, nil
}

// recycle frees the local port of a connection to the same peer that is in
// TIME-WAIT, if the stack allows that, and returns it; 0 if there is none.
// Timestamps, or else the clock in the initial sequence number, keep the two
// connections' segments apart (RFC 6191).
func (e *Endpoint) recycle(id stack.TransportEndpointID, net tcpip.NetworkProtocolNumber, route *stack.Route) uint16 {
	switch e.proto.options.snapshot().timeWaitReuse {
	case tcpip.TCPTimeWaitReuseGlobal:
	case tcpip.TCPTimeWaitReuseLoopbackOnly:
		if !isLoopback(id.LocalAddress) && route.Loop()&stack.PacketLoop == 0 {
			return 0
		}
	default:
		return 0
	}
	port, err := e.stack.PickEphemeralPort(e.stack.SecureRNG(), func(port uint16) (bool, tcpip.Error) {
		id.LocalPort = port
		old, ok := e.stack.FindTransportEndpoint(net, ProtocolNumber, id, route.NICID()).(*Endpoint)
		if !ok || old == e {
			return false, nil
		}
		yielded, useless := old.yieldTimeWait(id)
		if useless {
			e.abandon = append(e.abandon, old)
		}
		return yielded, nil
	})
	if err != nil {
		return 0
	}
	return port
}

// yieldTimeWait gives up the tuple of a connection in TIME-WAIT, and reports
// whether the endpoint is of no use to anybody after that. It does not wait for
// a busy endpoint: the caller holds another one's lock.
func (e *Endpoint) yieldTimeWait(id stack.TransportEndpointID) (yielded, useless bool) {
	if !e.mu.TryLock() {
		return false, false
	}
	// Not e.unlock, which may run far. What arrives in this moment waits for
	// the timer.
	defer e.mu.Unlock()
	if !e.started || e.info.ID != id || e.conn.State() != conn.StateTimeWait {
		return false, false
	}
	e.yieldTuple()
	return true, e.userGone
}

// isLoopback reports whether an address is of the host itself.
func isLoopback(a tcpip.Address) bool {
	return header.IsV4LoopbackAddress(a) || a == header.IPv6Loopback
}

// Disconnect implements tcpip.Endpoint. TCP has no such thing.
func (*Endpoint) Disconnect() tcpip.Error { return &tcpip.ErrNotSupported{} }

// ConnectEndpoint is not for TCP.
func (*Endpoint) ConnectEndpoint(tcpip.Endpoint) tcpip.Error {
	return &tcpip.ErrInvalidEndpointState{}
}
