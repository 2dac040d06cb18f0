package tcp

import (
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/tcpip"
)

// socketOptions are an endpoint's tcpip.SocketOptions. An endpoint does with
// some that it shares with others, a connection that a listener made with a copy
// of the listener's, until somebody asks for its own.
type socketOptions struct {
	values atomic.Pointer[tcpip.SocketOptions]
	own    atomic.Bool // the values are nobody else's, and may be written to
	// Whether auto-tuning has changed a buffer's size since they were shared, and
	// the connection's sizes as last seen.
	rcvTuned, sndTuned bool
	rcvBuf, sndBuf     uint32
}

// options returns the endpoint's options to be read.
func (e *Endpoint) options() *tcpip.SocketOptions { return e.ops.values.Load() }

// ownOptions returns the endpoint's options to be changed. e.mu is held.
func (e *Endpoint) ownOptions() *tcpip.SocketOptions {
	if e.ops.own.Load() {
		return e.options()
	}
	o := e.copyOptions(e.options())
	if e.ops.rcvTuned {
		o.SetReceiveBufferSize(int64(e.ops.rcvBuf)*SegOverheadFactor, false)
	}
	if e.ops.sndTuned {
		o.SetSendBufferSize(int64(e.ops.sndBuf), false)
	}
	e.ops.values.Store(o)
	e.ops.own.Store(true)
	return o
}

// SocketOptions implements tcpip.Endpoint.
func (e *Endpoint) SocketOptions() *tcpip.SocketOptions {
	if e.ops.own.Load() {
		return e.options()
	}
	e.mu.Lock()
	defer e.letGo()
	return e.ownOptions()
}

// shareOptions returns the endpoint's options as they are now, for connections
// of its.
func (e *Endpoint) shareOptions() *tcpip.SocketOptions {
	src := e.options()
	l := e.listening.Load()
	if l == nil {
		return src // a forwarder's, which is done with
	}
	o := l.options.Load()
	if o == nil || !sameOptions(o, src) {
		o = e.copyOptions(src)
		l.options.Store(o)
	}
	return o
}

// copyOptions copies what a listener's connections have from it.
func (e *Endpoint) copyOptions(src *tcpip.SocketOptions) *tcpip.SocketOptions {
	dst := new(tcpip.SocketOptions)
	// The handlers would lock e for what its settings have already.
	dst.InitHandler(&nicChecker{stack: e.proto.stack}, e.proto.stack, GetTCPSendBufferLimits, GetTCPReceiveBufferLimits)
	dst.SetMulticastLoop(true)
	dst.SetReuseAddress(src.GetReuseAddress())
	dst.SetReusePort(src.GetReusePort())
	dst.SetV6Only(src.GetV6Only())
	dst.SetKeepAlive(src.GetKeepAlive())
	dst.SetDelayOption(src.GetDelayOption())
	dst.SetCorkOption(src.GetCorkOption())
	dst.SetQuickAck(src.GetQuickAck())
	dst.SetLinger(src.GetLinger())
	dst.SetMark(src.GetMark())
	dst.SetExperimentOptionValue(src.GetExperimentOptionValue())
	dst.SetSendBufferSize(src.GetSendBufferSize(), false)
	dst.SetReceiveBufferSize(src.GetReceiveBufferSize(), false)
	dst.SetBindToDevice(src.GetBindToDevice())
	dst.InitHandler(e, e.proto.stack, GetTCPSendBufferLimits, GetTCPReceiveBufferLimits)
	return dst
}

// sameOptions reports whether copyOptions would find the same in both.
func sameOptions(a, b *tcpip.SocketOptions) bool {
	return a.GetReuseAddress() == b.GetReuseAddress() &&
		a.GetReusePort() == b.GetReusePort() &&
		a.GetV6Only() == b.GetV6Only() &&
		a.GetKeepAlive() == b.GetKeepAlive() &&
		a.GetDelayOption() == b.GetDelayOption() &&
		a.GetCorkOption() == b.GetCorkOption() &&
		a.GetQuickAck() == b.GetQuickAck() &&
		a.GetLinger() == b.GetLinger() &&
		a.GetMark() == b.GetMark() &&
		a.GetExperimentOptionValue() == b.GetExperimentOptionValue() &&
		a.GetSendBufferSize() == b.GetSendBufferSize() &&
		a.GetReceiveBufferSize() == b.GetReceiveBufferSize() &&
		a.GetBindToDevice() == b.GetBindToDevice()
}
