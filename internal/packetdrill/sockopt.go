package packetdrill

import (
	"math"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
)

// option is a socket option whose value is a number.
type option struct {
	level string
	set   func(r *runner, s *sock, v int64) tcpip.Error
	get   func(r *runner, s *sock) (int64, tcpip.Error)
}

// switchOption is an option of tcpip.SocketOptions that is on or off.
func switchOption(level string, set func(*tcpip.SocketOptions, bool), get func(*tcpip.SocketOptions) bool) option {
	return option{level,
		func(_ *runner, s *sock, v int64) tcpip.Error { set(s.ep.SocketOptions(), v != 0); return nil },
		func(_ *runner, s *sock) (int64, tcpip.Error) {
			if get(s.ep.SocketOptions()) {
				return 1, nil
			}
			return 0, nil
		},
	}
}

// intOption is an option of the endpoint's that is a number there too.
func intOption(level string, opt tcpip.SockOptInt) option {
	return option{level,
		func(_ *runner, s *sock, v int64) tcpip.Error { return s.ep.SetSockOptInt(opt, int(v)) },
		func(_ *runner, s *sock) (int64, tcpip.Error) {
			v, err := s.ep.GetSockOptInt(opt)
			return int64(v), err
		},
	}
}

// settable is a pointer to an option of the endpoint's that is a duration.
type settable[T any] interface {
	*T
	tcpip.SettableSocketOption
	tcpip.GettableSocketOption
}

// durationOption is an option that programs count in units.
func durationOption[T ~int64, P settable[T]](unit time.Duration, least int64) option {
	return option{"SOL_TCP",
		func(_ *runner, s *sock, v int64) tcpip.Error {
			if v < least || v > math.MaxInt64/int64(unit) {
				return &tcpip.ErrInvalidOptionValue{}
			}
			d := T(v * int64(unit))
			return s.ep.SetSockOpt(P(&d))
		},
		func(_ *runner, s *sock) (int64, tcpip.Error) {
			var d T
			err := s.ep.GetSockOpt(P(&d))
			return int64(d) / int64(unit), err
		},
	}
}

// constantOption is an option that reads as a constant and is set without
// effect.
func constantOption(level string, v int64) option {
	return option{level,
		func(*runner, *sock, int64) tcpip.Error { return nil },
		func(*runner, *sock) (int64, tcpip.Error) { return v, nil },
	}
}

// bufferOption is SO_SNDBUF or SO_RCVBUF: what a program asks for is doubled,
// as Linux does to allow for what the bytes cost besides themselves.
func bufferOption(set func(*tcpip.SocketOptions, int64, bool), get func(*tcpip.SocketOptions) int64) option {
	return option{"SOL_SOCKET",
		func(_ *runner, s *sock, v int64) tcpip.Error {
			set(s.ep.SocketOptions(), min(max(v, 0), math.MaxInt32/2)*2, true)
			return nil
		},
		func(_ *runner, s *sock) (int64, tcpip.Error) { return get(s.ep.SocketOptions()), nil },
	}
}

var (
	sndbufOption = bufferOption((*tcpip.SocketOptions).SetSendBufferSize, (*tcpip.SocketOptions).GetSendBufferSize)
	rcvbufOption = bufferOption((*tcpip.SocketOptions).SetReceiveBufferSize, (*tcpip.SocketOptions).GetReceiveBufferSize)
)

// options are the socket options by name.
var options = map[string]option{
	"SO_REUSEADDR":   switchOption("SOL_SOCKET", (*tcpip.SocketOptions).SetReuseAddress, (*tcpip.SocketOptions).GetReuseAddress),
	"SO_REUSEPORT":   switchOption("SOL_SOCKET", (*tcpip.SocketOptions).SetReusePort, (*tcpip.SocketOptions).GetReusePort),
	"SO_KEEPALIVE":   switchOption("SOL_SOCKET", (*tcpip.SocketOptions).SetKeepAlive, (*tcpip.SocketOptions).GetKeepAlive),
	"SO_BROADCAST":   switchOption("SOL_SOCKET", (*tcpip.SocketOptions).SetBroadcast, (*tcpip.SocketOptions).GetBroadcast),
	"SO_OOBINLINE":   switchOption("SOL_SOCKET", (*tcpip.SocketOptions).SetOutOfBandInline, (*tcpip.SocketOptions).GetOutOfBandInline),
	"SO_SNDBUF":      sndbufOption,
	"SO_SNDBUFFORCE": sndbufOption,
	"SO_RCVBUF":      rcvbufOption,
	"SO_RCVBUFFORCE": rcvbufOption,
	"SO_TYPE":        constantOption("SOL_SOCKET", 1),
	"SO_PROTOCOL":    constantOption("SOL_SOCKET", 6),
	"SO_PRIORITY":    constantOption("SOL_SOCKET", 0),
	"SO_ERROR": {"SOL_SOCKET", nil, func(_ *runner, s *sock) (int64, tcpip.Error) {
		err := s.ep.LastError()
		s.reported = s.reported || err != nil
		return constants[string(errnoOf(err))], nil
	}},
	"SO_ACCEPTCONN": {"SOL_SOCKET", nil, func(_ *runner, s *sock) (int64, tcpip.Error) {
		if s.listening {
			return 1, nil
		}
		return 0, nil
	}},
	"SO_MARK": {"SOL_SOCKET",
		func(_ *runner, s *sock, v int64) tcpip.Error { s.ep.SocketOptions().SetMark(uint32(v)); return nil },
		func(_ *runner, s *sock) (int64, tcpip.Error) { return int64(s.ep.SocketOptions().GetMark()), nil },
	},
	"SO_RCVLOWAT": {"SOL_SOCKET",
		func(_ *runner, s *sock, v int64) tcpip.Error { return s.ep.SocketOptions().SetRcvlowat(int32(v)) },
		func(_ *runner, s *sock) (int64, tcpip.Error) {
			return int64(s.ep.SocketOptions().GetRcvlowat()), nil
		},
	},
	"TCP_NODELAY": switchOption("SOL_TCP",
		func(o *tcpip.SocketOptions, v bool) { o.SetDelayOption(!v) },
		func(o *tcpip.SocketOptions) bool { return !o.GetDelayOption() }),
	"TCP_CORK":             switchOption("SOL_TCP", (*tcpip.SocketOptions).SetCorkOption, (*tcpip.SocketOptions).GetCorkOption),
	"TCP_QUICKACK":         switchOption("SOL_TCP", (*tcpip.SocketOptions).SetQuickAck, (*tcpip.SocketOptions).GetQuickAck),
	"TCP_MAXSEG":           intOption("SOL_TCP", tcpip.MaxSegOption),
	"TCP_KEEPCNT":          intOption("SOL_TCP", tcpip.KeepaliveCountOption),
	"TCP_SYNCNT":           intOption("SOL_TCP", tcpip.TCPSynCountOption),
	"TCP_WINDOW_CLAMP":     intOption("SOL_TCP", tcpip.TCPWindowClampOption),
	"TCP_KEEPIDLE":         durationOption[tcpip.KeepaliveIdleOption](time.Second, 1),
	"TCP_KEEPINTVL":        durationOption[tcpip.KeepaliveIntervalOption](time.Second, 1),
	"TCP_USER_TIMEOUT":     durationOption[tcpip.TCPUserTimeoutOption](time.Millisecond, 0),
	"TCP_LINGER2":          durationOption[tcpip.TCPLingerTimeoutOption](time.Second, math.MinInt32),
	"TCP_DEFER_ACCEPT":     durationOption[tcpip.TCPDeferAcceptOption](time.Second, 0),
	"TCP_NOTSENT_LOWAT":    {"SOL_TCP", setNotsentLowat, func(_ *runner, s *sock) (int64, tcpip.Error) { return s.notsentLowat, nil }},
	"TCP_FASTOPEN":         {"SOL_TCP", setFastOpen, getFastOpen},
	"TCP_FASTOPEN_CONNECT": {"SOL_TCP", setFastOpenConnect, getFastOpenConnect},
	"TCP_INQ": {"SOL_TCP",
		func(_ *runner, s *sock, v int64) tcpip.Error { s.inq = v != 0; return nil },
		func(_ *runner, s *sock) (int64, tcpip.Error) {
			if s.inq {
				return 1, nil
			}
			return 0, nil
		},
	},
	"IP_TOS":            intOption("SOL_IP", tcpip.IPv4TOSOption),
	"IP_TTL":            intOption("SOL_IP", tcpip.IPv4TTLOption),
	"IP_MTU_DISCOVER":   intOption("SOL_IP", tcpip.MTUDiscoverOption),
	"IP_RECVERR":        switchOption("SOL_IP", (*tcpip.SocketOptions).SetIPv4RecvError, (*tcpip.SocketOptions).GetIPv4RecvError),
	"IP_FREEBIND":       constantOption("SOL_IP", 0),
	"IP_TRANSPARENT":    constantOption("SOL_IP", 0),
	"IPV6_TCLASS":       intOption("SOL_IPV6", tcpip.IPv6TrafficClassOption),
	"IPV6_UNICAST_HOPS": intOption("SOL_IPV6", tcpip.IPv6HopLimitOption),
	"IPV6_MTU_DISCOVER": intOption("SOL_IPV6", tcpip.MTUDiscoverOption),
	"IPV6_V6ONLY":       switchOption("SOL_IPV6", (*tcpip.SocketOptions).SetV6Only, (*tcpip.SocketOptions).GetV6Only),
	"IPV6_RECVERR":      switchOption("SOL_IPV6", (*tcpip.SocketOptions).SetIPv6RecvError, (*tcpip.SocketOptions).GetIPv6RecvError),
}

// setNotsentLowat sets the bound on what is unsent, which is unsigned.
func setNotsentLowat(r *runner, s *sock, v int64) tcpip.Error {
	s.notsentLowat = v
	if e, ok := s.ep.(interface{ SetNotSentLowat(int64) tcpip.Error }); ok {
		return e.SetNotSentLowat(int64(uint32(v)))
	}
	if v != 0 && uint32(v) != math.MaxUint32 {
		r.skip("TCP_NOTSENT_LOWAT with this TCP")
	}
	return nil
}

// optionOf finds the option that a call names.
func (r *runner) optionOf(c *call) (name string, o option, known bool, e errno) {
	w, ok := c.arg(2).(Word)
	if !ok {
		r.failCall(c, "%s: %s is no name of an option", c.Name, exprText(c.arg(2)))
	}
	o, known = options[w.Name]
	level := map[string]string{
		"SO_LINGER": "SOL_SOCKET", "SO_SNDTIMEO": "SOL_SOCKET", "SO_RCVTIMEO": "SOL_SOCKET",
		"SO_BINDTODEVICE": "SOL_SOCKET", "TCP_CONGESTION": "SOL_TCP",
		"TCP_FASTOPEN_KEY": "SOL_TCP",
	}[w.Name]
	if known {
		level = o.level
	} else if repairNumbers[w.Name] != 0 {
		level = "SOL_TCP"
	}
	if level == "" {
		r.skip("socket option %s", w.Name)
	}
	if r.intArg(c, 1) != constants[level] {
		return w.Name, o, known, "ENOPROTOOPT"
	}
	return w.Name, o, known, ""
}

// doSetsockopt is setsockopt(fd, level, option, value, length).
func doSetsockopt(r *runner, c *call, s *sock) outcome {
	name, o, known, e := r.optionOf(c)
	switch {
	case e != "":
		return failed(e)
	case !known:
		return r.setSpecial(c, s, name)
	case o.set == nil:
		return failed("ENOPROTOOPT")
	case c.arg(4) != nil && r.intArg(c, 4) < 4 && o.level != "SOL_IP":
		return failed("EINVAL")
	}
	return done(o.set(r, s, int64(int32(r.intArg(c, 3)))))
}

// doGetsockopt is getsockopt(fd, level, option, [value], [length]).
func doGetsockopt(r *runner, c *call, s *sock) outcome {
	name, o, known, e := r.optionOf(c)
	switch {
	case e != "":
		return failed(e)
	case !known:
		return r.getSpecial(c, s, name)
	}
	v, err := o.get(r, s)
	if err != nil {
		return failed(errnoOf(err))
	}
	if _, any := c.arg(3).(Ellipsis); any {
		return returned(0)
	}
	if want := r.intArg(c, 3); uint32(want) != uint32(v) {
		return wrong(exprText(Int{want}), exprText(Int{v}), "%s is another", name)
	}
	return returned(0)
}

// setSpecial sets an option whose value is no number.
func (r *runner) setSpecial(c *call, s *sock, name string) outcome {
	if repairNumbers[name] != 0 {
		return r.setRepair(c, s, name)
	}
	switch v := c.arg(3).(type) {
	case Str:
		if name == "TCP_FASTOPEN_KEY" {
			n := r.intArg(c, 4)
			if n < 0 || n > int64(len(v.V)) {
				return failed("EINVAL")
			}
			return done(setFastOpenKey(r, s, v.V[:n]))
		}
		return done(r.setText(s, name, v.V))
	case Struct, Array:
		switch name {
		case "SO_SNDTIMEO":
			s.sndTimeout = r.timeval(c, v)
			return returned(0)
		case "SO_RCVTIMEO":
			s.rcvTimeout = r.timeval(c, v)
			return returned(0)
		case "SO_LINGER":
			if st, ok := v.(Struct); ok {
				return r.setLinger(c, s, st)
			}
		}
	}
	r.failCall(c, "setsockopt: %s is no value for %s", exprText(c.arg(3)), name)
	return outcome{}
}

func (r *runner) setText(s *sock, name, v string) tcpip.Error {
	switch name {
	case "TCP_CONGESTION":
		o := tcpip.CongestionControlOption(v)
		return s.ep.SetSockOpt(&o)
	case "SO_BINDTODEVICE":
		switch v {
		case "":
			return s.ep.SocketOptions().SetBindToDevice(0)
		case nicName:
			return s.ep.SocketOptions().SetBindToDevice(nicID)
		}
		return &tcpip.ErrUnknownDevice{}
	}
	return &tcpip.ErrInvalidOptionValue{}
}

func (r *runner) setLinger(c *call, s *sock, st Struct) outcome {
	on, err1 := r.eval(st.Field("onoff"))
	sec, err2 := r.eval(st.Field("linger"))
	if err1 != nil || err2 != nil {
		r.failCall(c, "%s is no {onoff=…, linger=…}", exprText(st))
	}
	s.ep.SocketOptions().SetLinger(tcpip.LingerOption{Enabled: on != 0, Timeout: time.Duration(sec) * time.Second})
	return returned(0)
}

// getSpecial compares an option whose value is no number.
func (r *runner) getSpecial(c *call, s *sock, name string) outcome {
	if repairNumbers[name] != 0 {
		return r.getRepair(c, s, name)
	}
	switch name {
	case "TCP_CONGESTION":
		var v tcpip.CongestionControlOption
		if err := s.ep.GetSockOpt(&v); err != nil {
			return failed(errnoOf(err))
		}
		if want, ok := c.arg(3).(Str); ok && want.V != string(v) {
			return wrong(want.V, string(v), "TCP_CONGESTION is another")
		}
		return returned(0)
	case "SO_LINGER":
		l := s.ep.SocketOptions().GetLinger()
		on := int64(0)
		if l.Enabled {
			on = 1
		}
		got := Struct{[]Field{{Name: "onoff", V: Int{on}}, {Name: "linger", V: Int{int64(l.Timeout / time.Second)}}}}
		if want := exprText(c.arg(3)); want != exprText(got) {
			return wrong(want, exprText(got), "SO_LINGER is another")
		}
		return returned(0)
	}
	r.skip("getsockopt of %s", name)
	return outcome{}
}
