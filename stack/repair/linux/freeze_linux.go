package linux

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/tcprepair/ustack/stack/repair"
)

// SetRepair implements repair.Socket. When it returns from repair.On nothing
// that arrives reaches the connection any more, unless Factory.NoFilter. Off and
// OffNoProbe also send what a restored connection had left to send.
func (s *Socket) SetRepair(m repair.Mode) error {
	if m != repair.On {
		return s.Resume(m)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.freeze(dropAll); err != nil {
		return err
	}
	settle()
	return nil
}

// FreezeAll freezes many, all of them or none. That is faster than one by one:
// they wait for the packets under way together.
func FreezeAll(sockets ...*Socket) error {
	for i, s := range sockets {
		s.mu.Lock()
		err := s.freeze(dropAll)
		s.mu.Unlock()
		if err != nil {
			for _, s := range sockets[:i] {
				err = errors.Join(err, s.Resume(repair.OffNoProbe))
			}
			return err
		}
	}
	settle()
	return nil
}

var errListener = fmt.Errorf("linux: a listener cannot be frozen: %w", repair.ErrPermission)

// freeze gives the socket the filter and then enters repair.
func (s *Socket) freeze(program []unix.SockFilter) error {
	state, err := s.state()
	if err != nil {
		return err
	}
	if state == repair.StateListen {
		return errListener
	}
	attached := !s.factory.NoFilter && !s.filter.attached
	if attached {
		if err := s.filter.attach(s.fd, program); err != nil {
			return err
		}
	}
	if err := s.setRepair(repair.On); err != nil {
		if attached {
			err = errors.Join(err, s.filter.detach(s.fd))
		}
		return err
	}
	if state == repair.StateClosed {
		return nil
	}
	return errors.Join(s.hush(), s.register())
}

// settle waits until no processor is between having looked at a socket's
// filters and locking the socket. Those stretches are read-side critical
// sections of RCU, which membarrier waits for. Kernels that refuse it (with
// nohz_full) leave a gap of nanoseconds.
func settle() {
	_, _, _ = unix.Syscall(unix.SYS_MEMBARRIER, membarrierGlobal, 0, 0)
}

const membarrierGlobal = 1 // MEMBARRIER_CMD_GLOBAL of include/uapi/linux/membarrier.h

// setRepair is TCP_REPAIR, by the helper where the right to it is lacking.
func (s *Socket) setRepair(m repair.Mode) error {
	err := unix.SetsockoptInt(s.fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, int(m))
	if err != unix.EPERM {
		return failed("TCP_REPAIR", err)
	}
	if s.factory.Helper != "" {
		return (&Helper{Path: s.factory.Helper}).SetRepair(m, s.fd)
	}
	return fmt.Errorf("linux: TCP_REPAIR takes CAP_NET_ADMIN in the user namespace of the socket's network namespace: %w", repair.ErrPermission)
}

// Resume implements repair.Resumer. What never left is written, whatever the
// size of the send buffer, and then a FIN follows that was to follow. After an
// error it may be called again.
func (s *Socket) Resume(m repair.Mode) error {
	if !m.Valid() || m == repair.On {
		return fmt.Errorf("linux: no way to resume is %v: %w", m, repair.ErrInvalid)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.idle = repair.NoQueue
	if on, err := s.repair(); err != nil {
		return err
	} else if on {
		if err := s.selectQueue(repair.NoQueue); err != nil {
			return err
		}
	}
	if err := s.open(m); err != nil {
		return err
	}
	s.unbury()
	s.unregister()
	return errors.Join(s.sendRest(), s.dropCatch())
}

// open leaves repair and takes the filter off. Without segments to give to the
// connection the filter goes first, so that it does not drop the answer to the
// probe. With some, they go first, and what is kept after them is what the
// filter dropped: given twice it does no harm.
func (s *Socket) open(m repair.Mode) error {
	if s.catch == nil {
		if err := s.filter.detach(s.fd); err != nil {
			return err
		}
		return s.setRepair(m)
	}
	if err := s.setRepair(m); err != nil {
		return err
	}
	return errors.Join(s.catch.replay(), s.filter.detach(s.fd), s.catch.replay())
}

// sendRest sends what a restored connection had left to send.
func (s *Socket) sendRest() error {
	for len(s.unsent) > 0 {
		n, err := unix.SendmsgN(s.fd, s.unsent[0], nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		if err == unix.EAGAIN {
			err = s.roomToSend(s.unsent.Len())
		}
		if err != nil {
			return failed(fmt.Sprintf("sending the %d bytes that never left", s.unsent.Len()), err)
		}
		s.unsent = s.unsent.Slice(max(n, 0), s.unsent.Len())
	}
	if err := s.trimSendBuffer(); err != nil {
		return err
	}
	if s.finish {
		if err := unix.Shutdown(s.fd, unix.SHUT_WR); err != nil {
			return failed("shutdown", err)
		}
		s.finish = false
	}
	return nil
}

// Repair implements repair.Socket.
func (s *Socket) Repair() (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.repair()
}

func (s *Socket) repair() (bool, error) {
	v, err := s.tcpOption("TCP_REPAIR", unix.TCP_REPAIR)
	return v != 0, err
}
