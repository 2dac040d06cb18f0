package daemon

import (
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tcprepair/ustack/stack"
)

// keepalive finds out in under three minutes that a peer is gone, so that its
// place goes to another.
var keepalive = net.KeepAliveConfig{Enable: true, Idle: time.Minute, Interval: 15 * time.Second, Count: 6}

// limiter is a listener that has at most so many connections open. Where the
// limit is reached Accept waits for one to close.
type limiter struct {
	net.Listener
	places chan struct{}
	done   chan struct{}
	once   sync.Once

	accepted atomic.Uint64
	active   atomic.Int64 // connections open now
}

func limit(l net.Listener, conns int) *limiter {
	return &limiter{Listener: l, places: make(chan struct{}, conns), done: make(chan struct{})}
}

// Accept implements net.Listener.
func (l *limiter) Accept() (net.Conn, error) {
	select {
	case l.places <- struct{}{}:
	case <-l.done:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.places
		return nil, err
	}
	l.accepted.Add(1)
	l.active.Add(1)
	if sc, ok := c.(*stack.Conn); ok {
		sc.SetKeepAliveConfig(keepalive)
	}
	return &limited{duplex: c.(duplex), leave: sync.OnceFunc(l.leave)}, nil
}

// Close implements net.Listener.
func (l *limiter) Close() error {
	l.once.Do(func() { close(l.done) })
	return l.Listener.Close()
}

func (l *limiter) leave() {
	l.active.Add(-1)
	<-l.places
}

// limited is a connection that gives its place back when it is closed.
type limited struct {
	duplex
	leave func()
}

// Close implements net.Conn.
func (c *limited) Close() error {
	defer c.leave()
	return c.duplex.Close()
}

// limitPatience has a connection end once the peer has taken nothing of what
// was written for so long.
func limitPatience(c net.Conn, d time.Duration) {
	l, ok := c.(*limited)
	if !ok {
		return
	}
	if sc, ok := l.duplex.(*stack.Conn); ok {
		sc.SetUserTimeout(d) // it fails on a closed connection only
	}
}
