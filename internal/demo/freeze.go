package demo

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"

	"github.com/tcprepair/ustack/stack"
	"github.com/tcprepair/ustack/stack/repair"
	"github.com/tcprepair/ustack/stack/tcp/conn"
)

const (
	// frozenFor is how long the peer pushes at a frozen connection.
	frozenFor = time.Second
	// settle is time for acknowledgements that left before the freeze to
	// arrive at the peer: they are not the frozen connection's.
	settle = 50 * time.Millisecond
)

// freeze is the race that TCP_REPAIR in Linux loses: a connection is frozen
// while its peer sends at full speed, the peer goes on for a second, and then
// the connection is thawed. No byte may be taken or acknowledged meanwhile, and
// none may be missing in the end.
func (s *session) freeze(ctx context.Context, to netip.Addr) error {
	c, err := s.dial(ctx, to, portSink)
	if err != nil {
		return err
	}
	defer c.Close()
	u := newUpload(c, s.sizes.upload)
	go u.run()
	err = s.freezeMidway(ctx, c, u)
	if err != nil {
		_ = c.SetDeadline(time.Unix(1, 0)) // ends the upload
	}
	u.release()
	if err := errors.Join(err, <-u.done); err != nil {
		return err
	}
	return s.verify(c, u, to)
}

func (s *session) freezeMidway(ctx context.Context, c stream, u *upload) error {
	select {
	case <-u.underWay:
	case err := <-u.done:
		u.done <- err
		return errors.New("the upload ended before it was under way")
	}
	before, err := s.conn(c)
	if err != nil {
		return err
	}
	if err := s.daemon.Stack().SetRepair(before.ID, repair.On); err != nil {
		return err
	}
	u.release()
	at, err := s.conn(c)
	if err != nil {
		return err
	}
	s.printf("(c) Froze connection %d in the middle of an upload, at receive sequence %d.", at.ID, at.RcvNxt)
	if err := s.watch(ctx, c, at); err != nil {
		return err
	}
	return s.daemon.Stack().SetRepair(at.ID, repair.Off)
}

// watch lets the peer push at a frozen connection and records what moved.
func (s *session) watch(ctx context.Context, c stream, at stack.ConnInfo) error {
	if err := pause(ctx, settle); err != nil {
		return err
	}
	acked, err := s.peer.bytesAcked(c)
	if err != nil {
		return err
	}
	if err := pause(ctx, frozenFor); err != nil {
		return err
	}
	ackedAfter, err := s.peer.bytesAcked(c)
	if err != nil {
		return err
	}
	after, err := s.conn(c)
	if err != nil {
		return err
	}
	reason := conn.DropSocketRepair.String()
	moved, ackedMoved := int64(int32(after.RcvNxt-at.RcvNxt)), int64(int32(ackedAfter-acked))
	dropped := after.Drops[reason]
	s.result.RcvNxtMoved += moved
	s.result.BytesAckedMoved += ackedMoved
	s.result.Dropped += dropped
	s.printf("    The peer pushed for %v: the receive sequence moved by %d, its acknowledged bytes by %d; %d segments were dropped (%s).",
		frozenFor, moved, ackedMoved, dropped, reason)
	switch {
	case !at.Frozen || !after.Frozen:
		return errors.New("the connection does not say that it is frozen")
	case moved != 0:
		return fmt.Errorf("the receive sequence moved by %d while frozen", moved)
	case ackedMoved != 0:
		return fmt.Errorf("%d bytes were acknowledged while frozen", ackedMoved)
	case dropped == 0:
		return errors.New("the peer sent nothing while the connection was frozen")
	}
	return nil
}

// verify reads the sink's answer and compares it with what was sent.
func (s *session) verify(c stream, u *upload, to netip.Addr) error {
	answer, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return fmt.Errorf("the sink's answer: %w", err)
	}
	if want := fmt.Sprintf("%d %x\n", u.size, u.sum); answer != want {
		return fmt.Errorf("the sink has %q, sent was %q", answer, want)
	}
	s.result.UploadBytes += u.size
	s.printf("    Thawed: the upload of %s over %s arrived whole. SHA-256 is right.", mib(u.size), family(to))
	return nil
}

// pause waits, for time itself is what the demo shows here.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// upload is the peer's side of the transfer to the sink. It does not finish
// before release: however fast the machine, the freeze comes midway.
type upload struct {
	c        stream
	size     int64
	sum      [sha256.Size]byte // once done
	underWay chan struct{}     // closed when a quarter is written
	free     chan struct{}     // closed by release
	done     chan error        // capacity 1
}

func newUpload(c stream, size int64) *upload {
	return &upload{c: c, size: size, underWay: make(chan struct{}), free: make(chan struct{}), done: make(chan error, 1)}
}

// release lets the upload go past its first half. It may be called again, by
// the same goroutine.
func (u *upload) release() {
	select {
	case <-u.free:
	default:
		close(u.free)
	}
}

func (u *upload) run() { u.done <- u.send() }

func (u *upload) send() error {
	h := sha256.New()
	source, to := newSource("upload"), io.MultiWriter(u.c, h)
	for part := range int64(4) {
		switch part {
		case 1:
			close(u.underWay)
		case 2:
			<-u.free
		}
		if _, err := io.CopyBuffer(to, io.LimitReader(source, u.size/4), make([]byte, chunk)); err != nil {
			return err
		}
	}
	h.Sum(u.sum[:0])
	return u.c.CloseWrite()
}
