package tcp

import (
	"math"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"github.com/tcprepair/ustack/stack/tcp/cc"
	"github.com/tcprepair/ustack/stack/tcp/conn"
)

// setUser changes the options that the connection keeps. e.mu is held.
func (e *Endpoint) setUser(now conn.Time, change func(*conn.UserOptions)) {
	change(&e.change().user)
	if e.started {
		e.conn.SetOptions(now, e.settings.user)
	}
}

// SetSockOptInt implements tcpip.Endpoint. Options that TCP does not have are
// ignored.
func (e *Endpoint) SetSockOptInt(opt tcpip.SockOptInt, v int) (err tcpip.Error) {
	e.do(func(now conn.Time) { err = e.setInt(now, opt, v) })
	return err
}

func (e *Endpoint) setInt(now conn.Time, opt tcpip.SockOptInt, v int) tcpip.Error {
	const (
		minMaxSeg = 88    // Linux TCP_MIN_MSS
		maxMaxSeg = 32767 // Linux MAX_TCP_WINDOW
	)
	invalid := false
	switch opt {
	case tcpip.KeepaliveCountOption:
		if invalid = v < 1 || v > 127; !invalid { // Linux MAX_TCP_KEEPCNT
			e.setUser(now, func(o *conn.UserOptions) { o.Keepalive.Count = v })
		}
	case tcpip.IPv4TOSOption:
		e.change().tos = uint8(v) &^ ecnMask
	case tcpip.IPv6TrafficClassOption:
		e.change().trafficClass = uint8(v) &^ ecnMask
	case tcpip.MaxSegOption:
		if invalid = v != 0 && v < minMaxSeg || v > maxMaxSeg; !invalid {
			e.setUser(now, func(o *conn.UserOptions) { o.MaxSegment = uint16(v) })
		}
	case tcpip.MTUDiscoverOption:
		if v < int(tcpip.PMTUDiscoveryWant) || v > int(tcpip.PMTUDiscoveryProbe) {
			return &tcpip.ErrNotSupported{}
		}
		e.change().mtuDiscover = mtuDiscovery(v)
	case tcpip.IPv4TTLOption:
		e.change().ttl = uint8(v)
	case tcpip.IPv6HopLimitOption:
		e.change().hopLimit = uint8(max(v, 0)) // -1 is the default's name
	case tcpip.TCPSynCountOption:
		if invalid = v < 1 || v > math.MaxUint8; !invalid {
			e.change().synCount = v
			e.conn.SetSYNRetries(v)
		}
	case tcpip.TCPWindowClampOption:
		return e.setClamp(now, v)
	}
	if invalid {
		return &tcpip.ErrInvalidOptionValue{}
	}
	return nil
}

// setClamp bounds the advertised window. No bound may be set only while there
// is no connection, and none is below half the least receive buffer, as Linux
// has it.
func (e *Endpoint) setClamp(now conn.Time, v int) tcpip.Error {
	if v <= 0 {
		if s := e.EndpointState(); s != StateInitial && s != StateBound && s != StateClose {
			return &tcpip.ErrInvalidOptionValue{}
		}
		v = 0
	} else if least := e.proto.options.snapshot().rcvBuf.Min / 2; v < least {
		v = least
	}
	e.setUser(now, func(o *conn.UserOptions) { o.Clamp = v })
	return nil
}

// GetSockOptInt implements tcpip.Endpoint.
func (e *Endpoint) GetSockOptInt(opt tcpip.SockOptInt) (v int, err tcpip.Error) {
	e.mu.Lock()
	defer e.unlock()
	s := e.settings
	switch opt {
	case tcpip.KeepaliveCountOption:
		return s.user.Keepalive.Count, nil
	case tcpip.IPv4TOSOption:
		return int(s.tos), nil
	case tcpip.IPv6TrafficClassOption:
		return int(s.trafficClass), nil
	case tcpip.MaxSegOption:
		return e.maxSegment(), nil
	case tcpip.MTUDiscoverOption:
		return int(s.mtuDiscover), nil
	case tcpip.ReceiveQueueSizeOption:
		return e.readQueue()
	case tcpip.SendQueueSizeOption:
		return e.conn.Unacked(), nil
	case tcpip.IPv4TTLOption:
		return int(s.ttl), nil
	case tcpip.IPv6HopLimitOption:
		if s.hopLimit == 0 {
			return tcpip.UseDefaultIPv6HopLimit, nil
		}
		return int(s.hopLimit), nil
	case tcpip.TCPSynCountOption:
		if s.synCount == 0 {
			return e.proto.options.snapshot().synRetries, nil
		}
		return s.synCount, nil
	case tcpip.TCPWindowClampOption:
		return s.user.Clamp, nil
	case tcpip.MulticastTTLOption:
		return 1, nil
	}
	return -1, &tcpip.ErrUnknownProtocolOption{}
}

// maxSegment is what TCP_MAXSEG reports: the connection's segment size, or
// what a new one would assume. Of a frozen connection it is what the peer's SYN
// allowed, as on Linux, so that it can be restored.
func (e *Endpoint) maxSegment() int {
	if e.started && e.conn.Frozen() {
		return int(e.conn.RepairOptions().MSS)
	}
	if e.started && e.EndpointState().connected() {
		return e.conn.Info(e.proto.now()).SndMSS
	}
	if m := e.settings.user.MaxSegment; m != 0 {
		return int(m)
	}
	return header.TCPDefaultMSS
}

// readQueue is how much there is to read.
func (e *Endpoint) readQueue() (int, tcpip.Error) {
	if e.EndpointState() == StateListen {
		return 0, &tcpip.ErrInvalidEndpointState{}
	}
	return e.conn.Unread(), nil
}

// SetSockOpt implements tcpip.Endpoint. Options that TCP does not have are
// ignored.
func (e *Endpoint) SetSockOpt(opt tcpip.SettableSocketOption) (err tcpip.Error) {
	e.do(func(now conn.Time) { err = e.setOpt(now, opt) })
	return err
}

func (e *Endpoint) setOpt(now conn.Time, opt tcpip.SettableSocketOption) tcpip.Error {
	switch v := opt.(type) {
	case *tcpip.KeepaliveIdleOption:
		e.setUser(now, func(o *conn.UserOptions) { o.Keepalive.Idle = time.Duration(*v) })
	case *tcpip.KeepaliveIntervalOption:
		e.setUser(now, func(o *conn.UserOptions) { o.Keepalive.Interval = time.Duration(*v) })
	case *tcpip.TCPUserTimeoutOption:
		e.setUser(now, func(o *conn.UserOptions) { o.UserTimeout = max(time.Duration(*v), 0) })
	case *tcpip.CongestionControlOption:
		return e.setCongestion(string(*v))
	case *tcpip.TCPLingerTimeoutOption:
		e.setFinWait2(time.Duration(*v))
	case *tcpip.TCPDeferAcceptOption:
		e.change().deferAccept = min(max(time.Duration(*v), 0), MaxRTO)
	case *tcpip.SocketDetachFilterOption:
		return nil
	}
	return nil
}

func (e *Endpoint) setCongestion(name string) tcpip.Error {
	if _, err := cc.New(name, 1); err != nil || name == "" {
		return &tcpip.ErrNoSuchFile{} // ENOENT, as Linux says
	}
	e.change().congestion = name
	if e.started {
		e.conn.SetCongestion(e.proto.now(), name) // the name is known
	}
	return nil
}

// setFinWait2 is TCP_LINGER2: 0 is the stack's timeout, a negative one none,
// and one beyond the maximum is the stack's too.
func (e *Endpoint) setFinWait2(d time.Duration) {
	if d > MaxTCPLingerTimeout {
		d = MaxTCPLingerTimeout
	}
	if d < 0 {
		d = -1
	}
	e.change().finWait2 = d
}

// GetSockOpt implements tcpip.Endpoint.
func (e *Endpoint) GetSockOpt(opt tcpip.GettableSocketOption) tcpip.Error {
	e.mu.Lock()
	defer e.unlock()
	s := e.settings
	switch v := opt.(type) {
	case *tcpip.TCPInfoOption:
		*v = e.tcpInfo()
	case *tcpip.KeepaliveIdleOption:
		*v = tcpip.KeepaliveIdleOption(s.user.Keepalive.Idle)
	case *tcpip.KeepaliveIntervalOption:
		*v = tcpip.KeepaliveIntervalOption(s.user.Keepalive.Interval)
	case *tcpip.TCPUserTimeoutOption:
		*v = tcpip.TCPUserTimeoutOption(s.user.UserTimeout)
	case *tcpip.CongestionControlOption:
		*v = tcpip.CongestionControlOption(s.congestion)
	case *tcpip.TCPLingerTimeoutOption:
		*v = tcpip.TCPLingerTimeoutOption(e.finWait2(e.proto.options.snapshot()))
	case *tcpip.TCPDeferAcceptOption:
		*v = tcpip.TCPDeferAcceptOption(s.deferAccept)
	case *tcpip.OriginalDestinationOption:
		return e.originalDestination(v)
	default:
		return &tcpip.ErrUnknownProtocolOption{}
	}
	return nil
}

// originalDestination is where the connection was headed before NAT.
func (e *Endpoint) originalDestination(v *tcpip.OriginalDestinationOption) tcpip.Error {
	net := e.net
	if e.route != nil {
		net = e.route.NetProto()
	}
	addr, port, err := e.proto.stack.IPTables().OriginalDst(e.ends.id(), net, ProtocolNumber)
	if err != nil {
		return err
	}
	*v = tcpip.OriginalDestinationOption{Addr: addr, Port: port}
	return nil
}

// tcpInfo is the connection in the words of gVisor's TCPInfoOption.
func (e *Endpoint) tcpInfo() tcpip.TCPInfoOption {
	o := tcpip.TCPInfoOption{State: tcpip.EndpointState(e.EndpointState()), CcState: tcpip.Open}
	if !e.started {
		return o
	}
	i := e.conn.Info(e.proto.now())
	o.RTT, o.RTTVar, o.RTO = i.RTT, i.RTTVar, i.RTO
	o.SndCwnd = segments(i.Cwnd, i.SndMSS)
	o.SndSsthresh = segments(i.Ssthresh, i.SndMSS)
	o.ReorderSeen = i.Reordering
	o.CcState = congestionState(&i)
	return o
}

// segments is how many whole segments n bytes are.
func segments(n int64, mss int) uint32 {
	return uint32(min(n/int64(max(mss, 1)), math.MaxUint32))
}

// congestionState translates Linux's tcp_ca_state.
func congestionState(i *conn.Info) tcpip.CongestionControlState {
	const disorder, recovery, loss = 1, 3, 4
	switch {
	case i.CongestionState == disorder:
		return tcpip.Disorder
	case i.CongestionState == recovery && i.SACK:
		return tcpip.SACKRecovery
	case i.CongestionState == recovery:
		return tcpip.FastRecovery
	case i.CongestionState == loss:
		return tcpip.RTORecovery
	}
	return tcpip.Open
}
