package linux

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/tcprepair/ustack/stack/repair"
)

// Snapshot implements repair.Snapshotter. The queues are copies. Data that the
// kernel holds ahead of a gap, and an urgent mark, cannot be read out: the peer
// sends the one again.
func (s *Socket) Snapshot() (*repair.Snapshot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if on, err := s.repair(); err != nil {
		return nil, err
	} else if !on {
		if state, err := s.state(); err == nil && state == repair.StateListen {
			return nil, errListener
		}
		return nil, fmt.Errorf("linux: a snapshot of a socket that is not frozen: %w", repair.ErrPermission)
	}
	i, err := s.info()
	if err != nil {
		return nil, err
	}
	snap := new(repair.Snapshot)
	if err := s.readCore(&snap.Core, i); err != nil {
		return nil, err
	}
	snap.Extra, err = s.extra(i, &snap.Core)
	return snap, err
}

func (s *Socket) readCore(c *repair.Core, i *info) (err error) {
	c.State = repair.State(i.State)
	if !possible(c.State) {
		return fmt.Errorf("linux: a connection in state %v cannot be read out: %w", c.State, repair.ErrState)
	}
	if c.Local, c.Remote, err = s.addrs(); err != nil {
		return err
	}
	if err := s.readQueues(c); err != nil {
		return err
	}
	if c.Options, err = s.options(i); err != nil {
		return err
	}
	if c.Window, err = s.window(); err != nil {
		return err
	}
	if c.Timestamp, c.TimestampMicros, err = s.timestamp(i); err != nil {
		return err
	}
	c.Timestamp |= 1 // the kernel keeps that bit for itself; the clock may be there
	for _, flag := range []struct {
		name   string
		option int
		to     *bool
	}{{"TCP_NODELAY", unix.TCP_NODELAY, &c.NoDelay}, {"TCP_CORK", unix.TCP_CORK, &c.Cork}} {
		v, err := s.tcpOption(flag.name, flag.option)
		if err != nil {
			return err
		}
		*flag.to = v != 0
	}
	s.addRest(c)
	return nil
}

// readQueues reads both queues, with the sequence numbers and the FINs. The
// receive queue comes first: while it is selected the connection can send.
func (s *Socket) readQueues(c *repair.Core) (err error) {
	c.FINAcked = c.State == repair.StateFinWait2
	c.FINQueued = finQueued(c.State) || c.FINAcked
	c.FINReceived = c.State == repair.StateCloseWait || c.State == repair.StateClosing || c.State == repair.StateLastAck
	restore, err := s.peekOffset()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, restore()) }()
	if err := s.readReceived(c); err != nil {
		return err
	}
	return s.readSent(c)
}

func (s *Socket) readReceived(c *repair.Core) error {
	unread, err := unix.IoctlGetInt(s.fd, unix.SIOCINQ)
	if err != nil {
		return failed("SIOCINQ", err)
	}
	next, err := s.queueSeq(repair.RecvQueue)
	if err != nil {
		return err
	}
	data, err := s.peekAll(repair.RecvQueue, unread)
	c.RecvSeq, c.RecvQueue = next-count(c.FINReceived), pieces(data)
	return err
}

func (s *Socket) readSent(c *repair.Core) error {
	fin := finQueued(c.State)
	_, unacked, unsent, err := s.queued(fin)
	if err != nil {
		return err
	}
	if fin {
		left, err := s.neverSent()
		if err != nil {
			return err
		}
		// One that went with the last of the data is not counted. To take it
		// for sent costs a retransmission at worst.
		c.FINSent = left == 0 || left == 1 && s.base.unsent > 1
	}
	c.FINSent = c.FINSent || c.FINAcked
	end, err := s.queueSeq(repair.SendQueue)
	if err != nil {
		return err
	}
	data, err := s.peekAll(repair.SendQueue, unacked)
	if err == nil && len(data) != unacked {
		err = fmt.Errorf("linux: the send queue has %d bytes and not %d: it changed meanwhile", len(data), unacked)
	}
	c.SendSeq = end - uint32(unacked) - count(c.FINQueued)
	c.SendQueue, c.Unsent = pieces(data), unsent
	return err
}

// addRest adds what Resume would have sent.
func (s *Socket) addRest(c *repair.Core) {
	c.SendQueue = append(c.SendQueue, s.unsent...)
	c.Unsent += s.unsent.Len()
	if !s.finish {
		return
	}
	c.FINQueued = true
	c.State = repair.StateFinWait1
	if c.FINReceived {
		c.State = repair.StateLastAck
	}
}

func pieces(b []byte) repair.Bytes {
	if len(b) == 0 {
		return nil
	}
	return repair.Bytes{b}
}

// count is how many sequence numbers a FIN takes.
func count(fin bool) uint32 {
	if fin {
		return 1
	}
	return 0
}
