package packetdrill

import (
	"fmt"
	"net/netip"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/waiter"
)

// doSocket is socket(domain, type, protocol).
func doSocket(r *runner, c *call) outcome {
	const typeMask = 0xf
	typ, proto := r.intArg(c, 1), r.intArg(c, 2)
	switch {
	case typ&typeMask == constants["SOCK_DGRAM"]:
		r.skip("SOCK_DGRAM sockets")
	case typ&typeMask != constants["SOCK_STREAM"]:
		return failed("EINVAL")
	case proto != 0 && proto != constants["IPPROTO_TCP"]:
		return failed("EPROTONOSUPPORT")
	}
	net := header.IPv4ProtocolNumber
	if r.set.ip != ipv4 {
		net = header.IPv6ProtocolNumber
	}
	if _, ok := c.arg(0).(Ellipsis); !ok {
		switch r.intArg(c, 0) {
		case constants["AF_INET"]:
			net = header.IPv4ProtocolNumber
		case constants["AF_INET6"]:
			net = header.IPv6ProtocolNumber
		default:
			return failed("EAFNOSUPPORT")
		}
	}
	s := &sock{wq: new(waiter.Queue), nonblock: typ&oNonblock != 0, former: r.under.flow}
	ep, err := r.stack.NewEndpoint(header.TCPProtocolNumber, net, s.wq)
	if err != nil {
		return failed(errnoOf(err))
	}
	s.ep = ep
	r.newSocket(s)
	r.under = under{sock: s}
	return returned(r.install(c, s))
}

// address is the socket address that the nth argument is.
func (r *runner) address(c *call, n int, usual netip.AddrPort) (a netip.AddrPort, family int64) {
	switch e := c.arg(n).(type) {
	case Ellipsis:
		return usual, -1
	case Struct:
		if len(e.Fields) == 0 {
			break
		}
		v, err := r.eval(e.Field("sa_family"))
		if err != nil {
			r.failCall(c, "%s: sa_family: %v", c.Name, err)
		}
		if v == constants["AF_UNSPEC"] {
			return usual, v
		}
		port, err := r.eval(e.Field("sin_port"))
		addr, ok := e.Field("sin_addr").(Call)
		if err != nil || !ok || len(addr.Args) != 1 {
			break
		}
		text, _ := addr.Args[0].(Str)
		ip, err := netip.ParseAddr(text.V)
		if err != nil {
			r.failCall(c, "%s: %q is no IP address", c.Name, text.V)
		}
		return netip.AddrPortFrom(ip.Unmap(), uint16(port)), v
	}
	r.failCall(c, "%s: %s is no socket address", c.Name, exprText(c.arg(n)))
	return usual, 0
}

// doBind is bind(fd, address, length).
func doBind(r *runner, c *call, s *sock) outcome {
	a, _ := r.address(c, 1, netip.AddrPortFrom(r.set.local, r.set.bind))
	if s.frozen() {
		return r.repairBind(s, a)
	}
	return done(s.ep.Bind(r.fullAddress(a)))
}

// done is the outcome of a call that returns 0 or an error.
func done(err tcpip.Error) outcome {
	if err != nil {
		return failed(errnoOf(err))
	}
	return returned(0)
}

// doListen is listen(fd, backlog).
func doListen(r *runner, c *call, s *sock) outcome {
	// Linux lets one connection more wait than the backlog says; a backlog in
	// gVisor's sense is exactly what may wait.
	const linuxExtra = 1
	out := done(s.ep.Listen(int(r.intArg(c, 1)) + linuxExtra))
	if out.err == "" {
		s.listening = true
		r.under = under{sock: s}
	}
	return out
}

// doAccept is accept(fd, address, length) and accept4(fd, address, length,
// flags).
func doAccept(r *runner, c *call) outcome {
	l, e := r.sock(c, 0)
	if e != "" {
		return failed(e)
	}
	var peer tcpip.FullAddress
	ep, wq, err := l.ep.Accept(&peer)
	switch {
	case wouldBlock(err):
		return r.wait(c, l, false, l.rcvTimeout)
	case err != nil:
		return failed(errnoOf(err))
	}
	s := &sock{ep: ep, wq: wq, inq: l.inq}
	if c.arg(3) != nil {
		s.nonblock = r.intArg(c, 3)&oNonblock != 0
	}
	local, _ := ep.GetLocalAddress()
	f := r.flowOf(addrPort(local), addrPort(peer))
	s.flow, f.sock = f, s
	if r.under.flow == f || r.under.flow == nil {
		r.under = under{flow: f, sock: s}
	}
	return returned(r.install(c, s))
}

// doConnect is connect(fd, address, length).
func doConnect(r *runner, c *call, s *sock) outcome {
	switch {
	case c.tried:
		return r.connected(c, s)
	case s.listening:
		return failed("EISCONN") // Linux's socket layer does not ask the protocol
	}
	a, family := r.address(c, 1, netip.AddrPortFrom(r.set.remote, r.set.connect))
	if family == constants["AF_UNSPEC"] {
		return done(s.ep.Disconnect())
	}
	if s.frozen() {
		return r.repairConnect(s, a)
	}
	err := s.ep.Connect(r.fullAddress(a))
	if _, started := err.(*tcpip.ErrConnectStarted); !started && err != nil {
		return failed(errnoOf(err))
	}
	if err == nil && connectsLater(s) {
		s.deferred = a
		return returned(0)
	}
	r.begin(s, a)
	if err == nil {
		return returned(0)
	}
	if s.connecting = true; s.nonblock {
		return failed("EINPROGRESS")
	}
	return r.connected(c, s)
}

// begin begins the flow of a socket that connects.
func (r *runner) begin(s *sock, remote netip.AddrPort) {
	local, _ := s.ep.GetLocalAddress()
	f := r.flowOf(addrPort(local), remote)
	f.fromConnect = true
	f.sock, s.flow = s, f
	r.under = under{flow: f, sock: s}
}

// connected is the outcome of a connect that waits.
func (r *runner) connected(c *call, s *sock) outcome {
	const over = waiter.EventOut | waiter.EventErr | waiter.EventHUp
	if s.ep.Readiness(over) == 0 {
		return r.wait(c, s, false, s.sndTimeout)
	}
	s.connecting = false
	err := s.ep.LastError()
	s.reported = s.reported || err != nil
	return done(err)
}

// doClose is close(fd).
func doClose(r *runner, c *call) outcome {
	fd := int(r.intArg(c, 0))
	f := r.files[fd]
	if f == nil {
		return failed("EBADF")
	}
	s, ok := f.(*sock)
	if !ok {
		f.abandon()
		delete(r.files, fd)
		return returned(0)
	}
	if !c.tried {
		s.ep.Close()
		if r.under.sock == s && s.listening {
			r.under = under{}
		}
	}
	// With SO_LINGER the program waits until all has been acknowledged.
	if l := s.ep.SocketOptions().GetLinger(); l.Enabled && l.Timeout > 0 && !s.nonblock && s.flow != nil {
		c.until = c.start + l.Timeout
		if s.ep.Readiness(waiter.EventHUp) == 0 && r.now() < c.until {
			return blocked
		}
	}
	delete(r.files, fd)
	return returned(0)
}

// doShutdown is shutdown(fd, how).
func doShutdown(r *runner, c *call, s *sock) outcome {
	var flags tcpip.ShutdownFlags
	switch r.intArg(c, 1) {
	case constants["SHUT_RD"]:
		flags = tcpip.ShutdownRead
	case constants["SHUT_WR"]:
		flags = tcpip.ShutdownWrite
	case constants["SHUT_RDWR"]:
		flags = tcpip.ShutdownRead | tcpip.ShutdownWrite
	default:
		return failed("EINVAL")
	}
	out := done(s.ep.Shutdown(flags))
	if out.err == "" && s.listening {
		s.listening = false
	}
	return out
}

// doGetsockname is getsockname(fd, address, length).
func doGetsockname(r *runner, c *call, s *sock) outcome {
	a, err := s.ep.GetLocalAddress()
	return r.named(c, a, err, netip.AddrPortFrom(r.set.local, r.set.bind))
}

// doGetpeername is getpeername(fd, address, length).
func doGetpeername(r *runner, c *call, s *sock) outcome {
	a, err := s.ep.GetRemoteAddress()
	return r.named(c, a, err, netip.AddrPortFrom(r.set.remote, r.set.connect))
}

// named compares an address with the one in the script.
func (r *runner) named(c *call, got tcpip.FullAddress, err tcpip.Error, usual netip.AddrPort) outcome {
	if err != nil {
		return failed(errnoOf(err))
	}
	if _, any := c.arg(1).(Ellipsis); !any {
		if want, _ := r.address(c, 1, usual); want != addrPort(got) {
			return wrong(want.String(), addrPort(got).String(), "the address is another")
		}
	}
	return returned(0)
}

// doFcntl is fcntl(fd, command, argument).
func doFcntl(r *runner, c *call, s *sock) outcome {
	switch r.intArg(c, 1) {
	case constants["F_GETFL"]:
		flags := int64(oRdwr)
		if s.nonblock {
			flags |= oNonblock
		}
		return returned(flags)
	case constants["F_SETFL"]:
		s.nonblock = r.intArg(c, 2)&oNonblock != 0
	case constants["F_GETFD"], constants["F_SETFD"]:
	default:
		return failed("EINVAL")
	}
	return returned(0)
}

// doIoctl is ioctl(fd, request, [value]).
func doIoctl(r *runner, c *call, s *sock) outcome {
	req, _ := c.arg(1).(Word)
	var n int
	var err tcpip.Error
	switch req.Name {
	case "SIOCINQ", "FIONREAD":
		n, err = s.ep.GetSockOptInt(tcpip.ReceiveQueueSizeOption)
	case "SIOCOUTQ", "TIOCOUTQ":
		n, err = s.ep.GetSockOptInt(tcpip.SendQueueSizeOption)
	case "SIOCOUTQNSD":
		info, ok := connInfo(s)
		if !ok {
			r.skip("%s with this TCP", req.Name)
		}
		n = info.Unsent
	case "FIONBIO":
		s.nonblock = r.intArg(c, 2) != 0
		return returned(0)
	default:
		r.skip("ioctl %s", exprText(c.arg(1)))
	}
	if err != nil {
		return failed(errnoOf(err))
	}
	if want := r.intArg(c, 2); want != int64(n) {
		return wrong(fmt.Sprint(want), fmt.Sprint(n), "%s is another", req.Name)
	}
	return returned(0)
}

// timeval is a duration from a struct timeval.
func (r *runner) timeval(c *call, e Expr) time.Duration {
	s, ok := e.(Struct)
	if !ok || s.Field("tv_sec") == nil {
		r.failCall(c, "%s is no time: {tv_sec=…, tv_usec=…}", exprText(e))
	}
	sec, err1 := r.eval(s.Field("tv_sec"))
	usec := int64(0)
	var err2 error
	if f := s.Field("tv_usec"); f != nil {
		usec, err2 = r.eval(f)
	}
	if err1 != nil || err2 != nil {
		r.failCall(c, "%s is no time", exprText(e))
	}
	return time.Duration(sec)*time.Second + time.Duration(usec)*time.Microsecond
}
