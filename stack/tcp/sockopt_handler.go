package tcp

import (
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/tcprepair/ustack/stack/tcp/conn"
)

// The methods of tcpip.SocketOptionsHandler, which SocketOptions calls when a
// user sets an option, without the endpoint's lock.

// OnKeepAliveSet implements tcpip.SocketOptionsHandler.
func (e *Endpoint) OnKeepAliveSet(v bool) {
	e.do(func(now conn.Time) {
		e.setUser(now, func(o *conn.UserOptions) { o.Keepalive.On = v })
	})
}

// OnDelayOptionSet implements tcpip.SocketOptionsHandler. v is the opposite of
// TCP_NODELAY.
func (e *Endpoint) OnDelayOptionSet(v bool) {
	e.do(func(now conn.Time) {
		e.setUser(now, func(o *conn.UserOptions) { o.NoDelay = !v })
		if !v {
			e.conn.Push() // even if it was set before, as on Linux
		}
	})
}

// OnCorkOptionSet implements tcpip.SocketOptionsHandler.
func (e *Endpoint) OnCorkOptionSet(v bool) {
	e.do(func(now conn.Time) {
		e.setUser(now, func(o *conn.UserOptions) { o.Cork = v })
	})
}

// OnReuseAddressSet implements tcpip.SocketOptionsHandler. The option counts
// when the endpoint is bound.
func (*Endpoint) OnReuseAddressSet(bool) {}

// OnReusePortSet implements tcpip.SocketOptionsHandler. The option counts when
// the endpoint is bound.
func (*Endpoint) OnReusePortSet(bool) {}

// HasNIC implements tcpip.SocketOptionsHandler.
func (e *Endpoint) HasNIC(id int32) bool { return id == 0 || e.proto.stack.HasNIC(tcpip.NICID(id)) }

// GetAcceptConn implements tcpip.SocketOptionsHandler.
func (e *Endpoint) GetAcceptConn() bool { return e.EndpointState() == StateListen }

// OnSetSendBufferSize implements tcpip.SocketOptionsHandler.
func (e *Endpoint) OnSetSendBufferSize(v int64) int64 {
	lim := e.proto.options.snapshot().sndBuf
	v = min(max(v, int64(lim.Min)), int64(lim.Max))
	e.do(func(now conn.Time) {
		e.change().sndBufSet = true
		if e.started {
			e.conn.SetBuffers(now, 0, int(v))
		}
	})
	return v
}

// OnSetReceiveBufferSize implements tcpip.SocketOptionsHandler. A size that
// the user has chosen is not tuned any more.
func (e *Endpoint) OnSetReceiveBufferSize(v, _ int64) (int64, func()) {
	lim := e.proto.options.snapshot().rcvBuf
	v = min(max(v, int64(lim.Min)), int64(lim.Max))
	e.do(func(now conn.Time) {
		e.change().rcvBufSet = true
		if e.started {
			e.conn.SetBuffers(now, max(int(v)/SegOverheadFactor, 1), 0)
		}
	})
	return v, nil
}

// WakeupWriters implements tcpip.SocketOptionsHandler.
func (e *Endpoint) WakeupWriters() {
	if e.Readiness(waiter.WritableEvents)&waiter.WritableEvents != 0 {
		e.wq.Notify(waiter.WritableEvents)
	}
}

// ModerateRecvBuf implements tcpip.Endpoint. The connection tunes its buffer
// by itself when it is read from.
func (*Endpoint) ModerateRecvBuf(int) {}
