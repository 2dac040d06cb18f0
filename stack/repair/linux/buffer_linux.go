package linux

import (
	"fmt"

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

// resize sets a buffer's size to twice n bytes. It does not pass for the user's
// choice, which would end the kernel's tuning of it (before Linux 5.15 that
// cannot be helped). EPERM means that it is not larger than the system's limit
// now: past that takes CAP_NET_ADMIN in the first user namespace.
func (s *Socket) resize(size, force, n int) error {
	lock := s.bufferLock()
	err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, force, n)
	if err == unix.EPERM && unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, size, n) != nil {
		err = unix.EINVAL
	}
	_ = unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_BUF_LOCK, lock)
	return err
}

func (s *Socket) resizeSend(n int) error {
	if err := s.resize(unix.SO_SNDBUF, unix.SO_SNDBUFFORCE, n); err != unix.EPERM {
		return err
	}
	return nil // as far as it goes
}

// resizeRecv has a second way where there is a limit: a mark of so many bytes
// that the user wants to have before it is woken. The kernel makes room for
// them, up to the limit of its tuning.
func (s *Socket) resizeRecv(n int) error {
	err := s.resize(unix.SO_RCVBUF, unix.SO_RCVBUFFORCE, n)
	if err != unix.EPERM {
		return err
	}
	if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVLOWAT, n); err != nil {
		return err
	}
	return unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVLOWAT, 1) // the default
}

// applySizes gives a fresh socket the sizes that its user chose.
func (s *Socket) applySizes(o *repair.SocketOptions) {
	if o.SendBuffer > 0 && o.SendBufferMax == 0 {
		_ = unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_SNDBUF, o.SendBuffer/bufferShare)
	}
	if o.RecvBuffer > 0 && o.RecvBufferMax == 0 {
		_ = unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, o.RecvBuffer/bufferShare)
	}
}

// roomToReceive enlarges the receive buffer to what the snapshot puts into it,
// and to what the peer may send at once.
func (s *Socket) roomToReceive(snap *repair.Snapshot) error {
	now, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
	if err != nil {
		return failed("SO_RCVBUF", err)
	}
	need := snap.RecvQueue.Len() + int(snap.Window.RcvWnd) + bufferSlack
	if need <= now/bufferShare {
		return nil
	}
	// Little more than it takes, or it would grow with every move.
	return failed("SO_RCVBUF", s.resizeRecv(need*5/8))
}

// roomToSend enlarges the send buffer by what n more bytes take. What it was is
// for trimSendBuffer.
func (s *Socket) roomToSend(n int) error {
	now, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_SNDBUF)
	if err != nil {
		return err
	}
	if s.sendSize == 0 {
		s.sendSize = now
	}
	if err := s.resizeSend(now/bufferShare + n + bufferSlack); err != nil {
		return err
	}
	larger, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_SNDBUF)
	if err == nil && larger <= now {
		return fmt.Errorf("the send buffer takes %d bytes and no more (net.core.wmem_max; more takes CAP_NET_ADMIN in the first user namespace): %w", now, unix.ENOBUFS)
	}
	return err
}

// trimSendBuffer makes the send buffer what it was before roomToSend. What is
// in it stays, and the kernel's tuning goes on from there; without this it
// would grow with every move.
func (s *Socket) trimSendBuffer() error {
	if s.sendSize == 0 {
		return nil
	}
	size := s.sendSize
	s.sendSize = 0
	return failed("SO_SNDBUF", s.resizeSend(size/bufferShare))
}
