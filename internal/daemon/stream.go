package daemon

import (
	"context"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"
)

// duplex is a connection whose two directions close one by one: a *stack.Conn
// or a *net.TCPConn.
type duplex interface {
	net.Conn
	CloseWrite() error
}

// handler serves one connection, up to but without its close. When ctx ends
// it stops after what it has read so far; its Reads are interrupted.
type handler func(ctx context.Context, c duplex) error

// streamServer serves connections with a handler, a goroutine each.
type streamServer struct {
	handle   handler
	listener net.Listener
	log      *slog.Logger

	ctx    context.Context // ends when shutdown begins
	cancel context.CancelFunc
	conns  sync.WaitGroup

	mu    sync.Mutex
	until time.Time // when shutdown's patience ends; zero before shutdown
}

func newStreamServer(h handler, l net.Listener, log *slog.Logger) *streamServer {
	s := &streamServer{handle: h, listener: l, log: log}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

func (s *streamServer) serve() error {
	for {
		c, err := s.listener.Accept()
		if err != nil {
			return err
		}
		s.conns.Go(func() { s.run(c.(duplex)) })
	}
}

// run serves c and closes it.
func (s *streamServer) run(c duplex) {
	defer c.Close()
	log := s.log.With("peer", c.RemoteAddr().String())
	log.Debug("connection opened")
	interrupted := make(chan struct{})
	stop := context.AfterFunc(s.ctx, func() {
		defer close(interrupted)
		c.SetReadDeadline(time.Unix(1, 0))
	})
	err := s.handle(s.ctx, c)
	switch {
	case !stop():
		<-interrupted
		s.linger(c)
		log.Debug("connection ended by shutdown")
	case err != nil:
		log.Debug("connection failed", "error", err)
	default:
		log.Debug("connection closed")
	}
}

// linger ends c in order though the peer has not ended its side: a close with
// the peer's data unread would reset the connection and take what is on its
// way with it. So the peer is told, and given until patience ends.
func (s *streamServer) linger(c duplex) {
	if c.CloseWrite() != nil {
		return
	}
	c.SetReadDeadline(s.patience())
	io.Copy(io.Discard, c)
}

func (s *streamServer) patience() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.until
}

func (s *streamServer) shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.until, _ = ctx.Deadline()
	s.mu.Unlock()
	s.listener.Close()
	s.cancel()
	done := make(chan struct{})
	go func() {
		s.conns.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
