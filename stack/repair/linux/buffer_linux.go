package linux

import (
	"golang.org/x/sys/unix"

	"github.com/tcprepair/ustack/stack/repair"
)

// The kernel's buffers hold at least half their size in payload, and setting a
// size doubles it.
const (
	bufferShare = 2
	bufferSlack = 64 << 10
)

// bufferLock tells which of the two sizes the user has chosen (SOCK_SNDBUF_LOCK,
// SOCK_RCVBUF_LOCK). Before Linux 5.15 nobody knows.
func (s *Socket) bufferLock() int {
	lock, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_BUF_LOCK)
	if err != nil {
		return 0
	}
	return lock
}

// resize makes a buffer large enough for n bytes of payload. It does not pass
// for the user's choice, which would end the kernel's tuning of it (before
// Linux 5.15 that cannot be helped).
func (s *Socket) resize(size, force, n int) error {
	lock := s.bufferLock()
	err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, force, n)
	if err == unix.EPERM { // as far as the system's limit, then
		err = unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, size, n)
	}
	_ = unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_BUF_LOCK, lock)
	return err
}

func (s *Socket) resizeSend(n int) error { return s.resize(unix.SO_SNDBUF, unix.SO_SNDBUFFORCE, n) }
func (s *Socket) resizeRecv(n int) error { return s.resize(unix.SO_RCVBUF, unix.SO_RCVBUFFORCE, n) }

// makeRoom enlarges a fresh socket's buffers to what the snapshot puts into
// them, and to what the peer may send at once.
func (s *Socket) makeRoom(snap *repair.Snapshot) error {
	if e := snap.Extra; e != nil {
		if o := &e.Socket; o.SendBuffer > 0 && o.SendBufferMax == 0 {
			_ = unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_SNDBUF, o.SendBuffer/2)
		}
		if o := &e.Socket; o.RecvBuffer > 0 && o.RecvBufferMax == 0 {
			_ = unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, o.RecvBuffer/2)
		}
	}
	for _, b := range []struct {
		option int
		need   int
		resize func(int) error
	}{
		{unix.SO_SNDBUF, snap.SendQueue.Len(), s.resizeSend},
		{unix.SO_RCVBUF, snap.RecvQueue.Len() + int(snap.Window.RcvWnd), s.resizeRecv},
	} {
		now, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, b.option)
		if err != nil {
			return failed("the size of a buffer", err)
		}
		if need := b.need + bufferSlack; need > now/bufferShare {
			// No more than it takes, lest it double with every move.
			if err := b.resize(need * 5 / 8); err != nil {
				return failed("the size of a buffer", err)
			}
		}
	}
	return nil
}

// growSendBuffer makes room for what could not be written.
func (s *Socket) growSendBuffer() error {
	now, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_SNDBUF)
	if err == nil {
		err = s.resizeSend(now/bufferShare + s.unsent.Len() + bufferSlack)
	}
	if err != nil {
		return err
	}
	larger, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_SNDBUF)
	if err == nil && larger <= now {
		err = unix.EAGAIN
	}
	return err
}
