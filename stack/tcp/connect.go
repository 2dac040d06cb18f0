package tcp

import (
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/tcprepair/ustack/stack/tcp/conn"
)

// Connect implements tcpip.Endpoint. It sends the SYN and returns
// ErrConnectStarted; when the endpoint becomes writable another call, or
// LastError, tells how the handshake went. With SetFastOpenConnect it may put
// all of that off, and returns nil.
func (e *Endpoint) Connect(addr tcpip.FullAddress) tcpip.Error {
	return e.untilNotBusy(func(now conn.Time) tcpip.Error { return e.tryConnect(now, addr) })
}

// untilNotBusy calls try, with the endpoint locked, until it does not have to
// wait for another endpoint any more.
func (e *Endpoint) untilNotBusy(try func(now conn.Time) tcpip.Error) (err tcpip.Error) {
	const patience = 100 // with connections that always have something to do
	for range patience {
		e.do(func(now conn.Time) { err = try(now) })
		busy, ok := err.(*errBusy)
		if !ok {
			return err
		}
		busy.endpoint.do(func(conn.Time) {}) // once whoever has it locked is done
	}
	e.do(func(conn.Time) { e.failedAttempt() })
	return &tcpip.ErrNoPortAvailable{}
}

// tryConnect is Connect, but for having to wait for another endpoint, which is
// an errBusy. e.mu is held.
func (e *Endpoint) tryConnect(now conn.Time, addr tcpip.FullAddress) tcpip.Error {
	switch {
	case e.isDeferred():
		return &tcpip.ErrAlreadyConnected{}
	case e.EndpointState() != StateInitial && e.EndpointState() != StateBound:
		return e.connectAgain()
	case e.deferConnect(addr):
		return nil
	}
	return e.startConnect(now, addr)
}

// startConnect sends the SYN. e.mu is held.
func (e *Endpoint) startConnect(now conn.Time, addr tcpip.FullAddress) tcpip.Error {
	switch err := e.connect(now, addr).(type) {
	case nil:
		return &tcpip.ErrConnectStarted{}
	case *errBusy:
		return err
	default:
		e.failedAttempt()
		return err
	}
}

// errBusy says that every port is taken, but that it is worth trying again once
// an endpoint has been let go of.
type errBusy struct {
	tcpip.ErrNoPortAvailable
	endpoint *Endpoint
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
	if err := e.givenUp.err(); err != nil {
		return err
	}
	return tcpipError(e.conn.Err())
}

// connect takes what a connection needs and begins the handshake. After an
// error the endpoint is as it was. e.mu is held.
func (e *Endpoint) connect(now conn.Time, addr tcpip.FullAddress) tcpip.Error {
	info := e.transportInfo()
	addr, net, err := info.AddrNetProtoLocked(addr, e.options().GetV6Only(), false /* bind */)
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
		LocalPort:     e.ends.localPort,
		LocalAddress:  route.LocalAddress(),
		RemotePort:    addr.Port,
		RemoteAddress: route.RemoteAddress(),
	}
	place, err := e.claim(&id, route)
	if err != nil {
		route.Release()
		return err
	}
	e.place, e.route, e.ends, e.nic = place, route, endsOf(id), nic
	cfg := e.config(now)
	e.fastOpenSYN(&cfg)
	e.conn.Connect(now, &cfg)
	e.started = true
	return nil
}

// findRoute finds the way to a peer. If none leads by the device the endpoint
// is bound to, another one is taken, as gVisor does: the device then bounds
// what is received only. e.mu is held.
func (e *Endpoint) findRoute(nic, asked tcpip.NICID, to tcpip.Address, net tcpip.NetworkProtocolNumber) (*stack.Route, tcpip.Error) {
	from := e.ends.localAddress()
	route, err := e.proto.stack.FindRoute(nic, from, to, net, false /* multicastLoop */)
	if err != nil && asked == 0 && e.bound == 0 && nic != 0 {
		return e.proto.stack.FindRoute(0, from, to, net, false)
	}
	return route, err
}

// outgoingNIC is the interface to connect by: the one asked for in connect, in
// bind, or by SO_BINDTODEVICE, which must not contradict each other; 0 leaves
// it to the routes. e.mu is held.
func (e *Endpoint) outgoingNIC(asked tcpip.NICID) (tcpip.NICID, tcpip.Error) {
	nic := asked
	for _, n := range []tcpip.NICID{e.bound, tcpip.NICID(e.options().GetBindToDevice())} {
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
	nets := only(route.NetProto())
	if id.LocalPort != 0 {
		p := e.place // with the port that Bind reserved
		err := e.register(&p, nets, *id)
		return p, err
	}
	p := e.placeFor(nets)
	try := func(port uint16) tcpip.Error {
		if port == id.RemotePort && id.LocalAddress == id.RemoteAddress {
			return &tcpip.ErrPortInUse{} // a connection to itself by accident
		}
		id.LocalPort = port
		return e.register(&p, nets, *id)
	}
	_, err := e.reserve(&p, *id, 0, try)
	if _, full := err.(*tcpip.ErrNoPortAvailable); full {
		port, busy := e.recycle(*id, route.NetProto(), route)
		switch {
		case port != 0:
			if _, err = e.reserve(&p, *id, port, try); err != nil {
				err = &errBusy{endpoint: e} // somebody was quicker: there may be another
			}
		case busy != nil:
			err = &errBusy{endpoint: busy}
		}
	}
	if err != nil {
		id.LocalPort = 0
		return place{}, err
	}
	return p, nil
}

// recycle frees the local port of a connection to the same peer that is in
// TIME-WAIT, if the stack allows that, and returns it. If there is none, it is
// 0, and busy may be an endpoint that had no time to say. Timestamps, or else
// the clock in the initial sequence number, keep the two connections' segments
// apart (RFC 6191).
func (e *Endpoint) recycle(id stack.TransportEndpointID, net tcpip.NetworkProtocolNumber, route *stack.Route) (port uint16, busy *Endpoint) {
	switch e.proto.options.snapshot().timeWaitReuse {
	case tcpip.TCPTimeWaitReuseGlobal:
	case tcpip.TCPTimeWaitReuseLoopbackOnly:
		if !isLoopback(id.LocalAddress) && route.Loop()&stack.PacketLoop == 0 {
			return 0, nil
		}
	default:
		return 0, nil
	}
	port, err := e.proto.stack.PickEphemeralPort(e.proto.stack.SecureRNG(), func(port uint16) (bool, tcpip.Error) {
		id.LocalPort = port
		old, ok := e.proto.stack.FindTransportEndpoint(net, ProtocolNumber, id, route.NICID()).(*Endpoint)
		if !ok || old == e || !old.mayYield() {
			return false, nil
		}
		// Not waiting for it, with another endpoint's lock held.
		if !old.mu.TryLock() {
			busy = old
			return false, nil
		}
		yielded := old.yieldTimeWait(id)
		if yielded && old.userGone {
			o := e.forOthers()
			o.abandon = append(o.abandon, old)
		}
		// Not old.unlock, which may run far. What arrived in this moment, and
		// found it locked, is somebody else's work.
		old.mu.Unlock()
		if !old.inbox.empty() {
			busy = old
			go old.do(func(conn.Time) {})
		}
		return yielded, nil
	})
	if err != nil {
		return 0, busy
	}
	return port, nil
}

// mayYield reports whether the endpoint is in TIME-WAIT, or might be once it
// has seen what has arrived.
func (e *Endpoint) mayYield() bool {
	switch e.EndpointState() {
	case StateTimeWait, StateFinWait1, StateFinWait2, StateClosing:
		return true
	}
	return false
}

// yieldTimeWait gives up the tuple of a connection in TIME-WAIT, and reports
// whether it has. e.mu is held.
func (e *Endpoint) yieldTimeWait(id stack.TransportEndpointID) bool {
	if !e.started || e.ends != endsOf(id) || e.conn.State() != conn.StateTimeWait {
		return false
	}
	e.yieldTuple()
	return true
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
