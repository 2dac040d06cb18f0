package linux

import (
	"golang.org/x/sys/unix"

	"github.com/tcprepair/ustack/stack/repair"
)

// baseline is what a connection had sent at a moment when it was frozen already
// and still could send.
type baseline struct {
	sent   uint64 // bytes of payload, each counted once
	unsent int    // bytes, a FIN included
}

// hush keeps a frozen connection from sending more of its queue. The kernel
// goes on with that in repair mode, as its own queues below TCP drain; what left
// after a snapshot was taken would be acknowledged to someone who has not sent
// it, who must take such an acknowledgement for forged, and the connection would
// be stuck. With the send queue selected the kernel counts what is next as sent
// and does not send it. How much really left tells the sum of all that was sent.
func (s *Socket) hush() error {
	if s.idle == repair.SendQueue {
		return nil
	}
	i, err := s.info()
	if err != nil {
		return err
	}
	s.base = baseline{sent: sentOnce(i), unsent: int(i.Notsent_bytes)}
	if err := s.selectQueue(repair.SendQueue); err != nil {
		return err
	}
	s.idle = repair.SendQueue
	return nil
}

// sentOnce is the payload sent, without repetitions.
func sentOnce(i *info) uint64 { return i.Bytes_sent - i.Bytes_retrans }

// neverSent is how many bytes in the send queue never left, a FIN included.
func (s *Socket) neverSent() (int, error) {
	if s.idle != repair.SendQueue {
		n, err := unix.IoctlGetInt(s.fd, unix.SIOCOUTQNSD)
		return n, failed("SIOCOUTQNSD", err)
	}
	i, err := s.info()
	if err != nil {
		return 0, err
	}
	return max(0, s.base.unsent-int(sentOnce(i)-s.base.sent)), nil
}
