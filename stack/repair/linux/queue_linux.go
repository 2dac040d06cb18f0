package linux

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/tcprepair/ustack/stack/repair"
)

// selectQueue is TCP_REPAIR_QUEUE.
func (s *Socket) selectQueue(q repair.Queue) error {
	return s.setTCPOption("TCP_REPAIR_QUEUE", unix.TCP_REPAIR_QUEUE, int(q))
}

// onQueue runs f with a queue selected.
func (s *Socket) onQueue(q repair.Queue, f func() error) error {
	if err := s.selectQueue(q); err != nil {
		return err
	}
	return errors.Join(f(), s.selectQueue(s.idle))
}

// QueueSeq implements repair.Socket.
func (s *Socket) QueueSeq(q repair.Queue) (uint32, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.queueSeq(q)
}

func (s *Socket) queueSeq(q repair.Queue) (seq uint32, err error) {
	if on, err := s.repair(); err != nil {
		return 0, err
	} else if !on {
		return 0, fmt.Errorf("linux: TCP_QUEUE_SEQ of a socket that is not frozen: %w", repair.ErrInvalid)
	}
	err = s.onQueue(q, func() error {
		v, err := s.tcpOption("TCP_QUEUE_SEQ", unix.TCP_QUEUE_SEQ)
		seq = uint32(v)
		return err
	})
	return seq, err
}

// SetQueueSeq implements repair.Socket.
func (s *Socket) SetQueueSeq(q repair.Queue, seq uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.setQueueSeq(q, seq)
}

func (s *Socket) setQueueSeq(q repair.Queue, seq uint32) error {
	return s.onQueue(q, func() error {
		return s.setTCPOption("TCP_QUEUE_SEQ", unix.TCP_QUEUE_SEQ, int(int32(seq)))
	})
}

// Peek implements repair.Socket.
func (s *Socket) Peek(q repair.Queue, b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.peek(q, b)
}

func (s *Socket) peek(q repair.Queue, b []byte) (n int, err error) {
	err = s.onQueue(q, func() error {
		n, _, err = unix.Recvfrom(s.fd, b, unix.MSG_PEEK|unix.MSG_DONTWAIT)
		switch err {
		case unix.EAGAIN, unix.ENOTCONN: // the queue is empty
			n, err = 0, nil
		}
		return failed("peeking at the "+q.String()+" queue", err)
	})
	// For the send queue the kernel counts all of the last segment it touched.
	return min(max(n, 0), len(b)), err
}

// peekAll reads n bytes of a queue, or a few more if there are more.
func (s *Socket) peekAll(q repair.Queue, n int) ([]byte, error) {
	for b := make([]byte, n+1); ; b = make([]byte, 2*len(b)) {
		got, err := s.peek(q, b)
		if err != nil {
			return nil, err
		}
		if got < len(b) {
			return b[:got:got], nil
		}
	}
}

// peekOffset sets SO_PEEK_OFF aside, by which a user makes each look begin
// where the last one ended, and returns how to put it back.
func (s *Socket) peekOffset() (restore func() error, err error) {
	offset, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_PEEK_OFF)
	if err != nil || offset < 0 {
		return func() error { return nil }, failed("SO_PEEK_OFF", err)
	}
	set := func(v int) error {
		return failed("SO_PEEK_OFF", unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_PEEK_OFF, v))
	}
	return func() error { return set(offset) }, set(-1)
}

// WriteQueue implements repair.Socket. It takes what the buffer of that queue
// has room for, and says so; with no room at all the error is unix.EAGAIN or
// unix.ENOMEM.
func (s *Socket) WriteQueue(q repair.Queue, b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.writeQueue(q, b)
}

// queueChunk is how much goes into a queue at once: the kernel keeps what is
// written to the receive queue in one packet.
const queueChunk = 32 << 10

func (s *Socket) writeQueue(q repair.Queue, b []byte) (done int, err error) {
	err = s.onQueue(q, func() error {
		for {
			n, err := unix.SendmsgN(s.fd, b[done:min(len(b), done+queueChunk)], nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
			done += max(n, 0)
			if err != nil && done > 0 || done == len(b) {
				return nil
			}
			if err != nil {
				return failed("writing to the "+q.String()+" queue", err)
			}
		}
	})
	return done, err
}

// Queued implements repair.Socket. What is unsent stays so from then on, unless
// the receive queue is looked at once more.
func (s *Socket) Queued() (unread, unacked, unsent int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	state, err := s.state()
	if err != nil || state == repair.StateListen {
		return 0, 0, 0, err
	}
	return s.queued(finQueued(state))
}

// finQueued reports whether our FIN is, or has been, among what is to be sent
// and is not acknowledged. The kernel counts it as a byte then.
func finQueued(state repair.State) bool {
	return state == repair.StateFinWait1 || state == repair.StateClosing || state == repair.StateLastAck
}

func (s *Socket) queued(fin bool) (unread, unacked, unsent int, err error) {
	for _, q := range []struct {
		name    string
		request uint
		n       *int
	}{
		{"SIOCINQ", unix.SIOCINQ, &unread},
		{"SIOCOUTQ", unix.SIOCOUTQ, &unacked},
	} {
		if *q.n, err = unix.IoctlGetInt(s.fd, q.request); err != nil {
			return 0, 0, 0, failed(q.name, err)
		}
	}
	unsent, err = s.neverSent()
	if fin {
		unacked, unsent = max(unacked-1, 0), max(unsent-1, 0)
	}
	return unread, unacked, unsent, err
}
