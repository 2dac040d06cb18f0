package stack

import (
	"net"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
)

// SetNoDelay says whether small segments leave at once (true, as in package
// net it is from the start) or wait for acknowledgements (Nagle's algorithm).
func (c *Conn) SetNoDelay(noDelay bool) error {
	return c.setOption(func() tcpip.Error {
		c.ep.SocketOptions().SetDelayOption(!noDelay)
		return nil
	})
}

// SetKeepAlive says whether a silent peer is asked if it is there.
func (c *Conn) SetKeepAlive(on bool) error {
	return c.setOption(func() tcpip.Error {
		c.ep.SocketOptions().SetKeepAlive(on)
		return nil
	})
}

// SetKeepAlivePeriod sets how long a peer is silent before it is asked, and how
// long between questions.
func (c *Conn) SetKeepAlivePeriod(d time.Duration) error {
	return c.setOption(func() tcpip.Error { return c.setKeepAliveTimes(d, d) })
}

// SetKeepAliveConfig sets everything about keepalive. As in package net, a zero
// field means 15 s or 9 probes, and a negative one leaves the setting as it is.
func (c *Conn) SetKeepAliveConfig(k net.KeepAliveConfig) error {
	return c.setOption(func() tcpip.Error {
		if err := c.setKeepAliveTimes(orKeepAlive(k.Idle), orKeepAlive(k.Interval)); err != nil {
			return err
		}
		if k.Count >= 0 {
			count := k.Count
			if count == 0 {
				count = 9
			}
			if err := c.ep.SetSockOptInt(tcpip.KeepaliveCountOption, count); err != nil {
				return err
			}
		}
		c.ep.SocketOptions().SetKeepAlive(k.Enable)
		return nil
	})
}

func orKeepAlive(d time.Duration) time.Duration {
	if d == 0 {
		return 15 * time.Second
	}
	return d
}

func (c *Conn) setKeepAliveTimes(idle, interval time.Duration) tcpip.Error {
	if idle > 0 {
		o := tcpip.KeepaliveIdleOption(idle)
		if err := c.ep.SetSockOpt(&o); err != nil {
			return err
		}
	}
	if interval > 0 {
		o := tcpip.KeepaliveIntervalOption(interval)
		return c.ep.SetSockOpt(&o)
	}
	return nil
}

// SetUserTimeout sets how long written data may go unacknowledged before the
// connection is given up (RFC 5482). 0: as long as retransmission lasts.
func (c *Conn) SetUserTimeout(d time.Duration) error {
	return c.setOption(func() tcpip.Error {
		o := tcpip.TCPUserTimeoutOption(d)
		return c.ep.SetSockOpt(&o)
	})
}

// SetLinger says what Close does with data not yet delivered: sec < 0 goes on
// in the background, 0 discards it and resets the peer, more gives it that
// many seconds.
func (c *Conn) SetLinger(sec int) error {
	return c.setOption(func() tcpip.Error {
		o := tcpip.LingerOption{Enabled: sec >= 0}
		if sec >= 0 {
			o.Timeout = time.Duration(sec) * time.Second
		}
		c.ep.SocketOptions().SetLinger(o)
		return nil
	})
}

// SetReadBuffer sets the receive queue's size in bytes, and ends its tuning.
func (c *Conn) SetReadBuffer(bytes int) error {
	return c.setOption(func() tcpip.Error {
		if bytes <= 0 {
			return &tcpip.ErrInvalidOptionValue{}
		}
		c.ep.SocketOptions().SetReceiveBufferSize(int64(bytes), true)
		return nil
	})
}

// SetWriteBuffer sets the send queue's size in bytes, and ends its tuning.
func (c *Conn) SetWriteBuffer(bytes int) error {
	return c.setOption(func() tcpip.Error {
		if bytes <= 0 {
			return &tcpip.ErrInvalidOptionValue{}
		}
		c.ep.SocketOptions().SetSendBufferSize(int64(bytes), true)
		return nil
	})
}

// setOption runs set on an open connection.
func (c *Conn) setOption(set func() tcpip.Error) error {
	if c.closed.Load() {
		return c.opErr("set", net.ErrClosed)
	}
	return c.opErr("set", sysErr("setsockopt", set()))
}
