package demo

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// stint is how many bytes a sender draws at once.
const stint = 16 << 10

// sender is one direction of a stream, seen from where it begins. It outlives
// the connections that its bytes go through.
type sender struct {
	source io.Reader
	sum    hash.Hash
	sent   atomic.Int64
	rest   []byte // drawn, and not yet taken by a connection
	closed bool   // the end was sent
	enough atomic.Bool
}

func newSender(name string) *sender {
	return &sender{source: newSource(name), sum: sha256.New()}
}

// run writes until there is enough, and then ends the stream. It returns early,
// with nil, when the connection's deadline passes.
func (s *sender) run(c net.Conn) error {
	for !s.enough.Load() || len(s.rest) > 0 {
		if len(s.rest) == 0 {
			s.rest = make([]byte, stint)
			if _, err := io.ReadFull(s.source, s.rest); err != nil {
				return err
			}
		}
		n, err := c.Write(s.rest)
		s.sum.Write(s.rest[:n])
		s.sent.Add(int64(n))
		s.rest = s.rest[n:]
		if err != nil {
			return unlessPaused(err)
		}
	}
	if s.closed {
		return nil
	}
	s.closed = true
	return c.(interface{ CloseWrite() error }).CloseWrite()
}

// receiver is one direction of a stream, seen from where it ends.
type receiver struct {
	sum      hash.Hash
	received atomic.Int64
	ended    bool
	buf      []byte
}

func newReceiver() *receiver {
	return &receiver{sum: sha256.New(), buf: make([]byte, chunk)}
}

// run reads up to the end of the stream, or returns early as sender.run does.
func (r *receiver) run(c net.Conn) error {
	for !r.ended {
		n, err := c.Read(r.buf)
		r.sum.Write(r.buf[:n])
		r.received.Add(int64(n))
		if err == io.EOF {
			r.ended = true
			break
		}
		if err != nil {
			return unlessPaused(err)
		}
	}
	return nil
}

func unlessPaused(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	return err
}

// party is what one end of the connection sends and receives.
type party struct {
	out *sender
	in  *receiver
}

func newParty(name string) *party { return &party{newSender(name), newReceiver()} }

// talk lets bytes flow both ways over a connection, until both streams have
// ended or the connection's deadline passes.
func (p *party) talk(c net.Conn) error {
	var (
		wg      sync.WaitGroup
		out, in error
	)
	wg.Go(func() { out = p.out.run(c) })
	wg.Go(func() { in = p.in.run(c) })
	wg.Wait()
	if out != nil {
		out = fmt.Errorf("sending: %w", out)
	}
	if in != nil {
		in = fmt.Errorf("receiving: %w", in)
	}
	return errors.Join(out, in)
}

// talkFor is talk that pauses when both ways have moved least bytes since it
// began, but not before shortest nor after longest.
func (p *party) talkFor(c net.Conn, least int64, shortest, longest time.Duration) error {
	if err := c.SetDeadline(time.Time{}); err != nil {
		return err
	}
	sent, received := p.out.sent.Load(), p.in.received.Load()
	done := make(chan error, 1)
	go func() { done <- p.talk(c) }()
	start := time.Now()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			return err
		case <-tick.C:
		}
		moved := min(p.out.sent.Load()-sent, p.in.received.Load()-received)
		if took := time.Since(start); took >= longest || took >= shortest && moved >= least {
			break
		}
	}
	if err := c.SetDeadline(time.Unix(1, 0)); err != nil {
		return err
	}
	return <-done
}

// same reports whether what one party sent is what the other received.
func same(s *sender, r *receiver) bool {
	return s.sent.Load() == r.received.Load() && string(s.sum.Sum(nil)) == string(r.sum.Sum(nil))
}
