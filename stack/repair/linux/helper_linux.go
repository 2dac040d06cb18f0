package linux

import (
	"fmt"
	"net"

	"golang.org/x/sys/unix"

	"github.com/tcprepair/ustack/stack/repair"
)

// helperBatch is how many descriptors one message carries (SCM_MAX_FD).
const helperBatch = 253

// Helper is a program that has CAP_NET_ADMIN and sets TCP_REPAIR for those who
// have not, such as passt-repair(1): it listens on a Unix socket, takes messages
// of one byte, the mode, with descriptors, and answers with the same byte.
type Helper struct {
	Path string // of its socket
}

// SetRepair has the helper switch repair on sockets. The error wraps
// repair.ErrPermission if it refuses; then some of them may be switched.
func (h *Helper) SetRepair(m repair.Mode, fds ...int) error {
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: h.Path, Net: "unix"})
	if err != nil {
		return fmt.Errorf("linux: the helper for TCP_REPAIR: %w", err)
	}
	defer c.Close()
	for len(fds) > 0 {
		batch := fds[:min(len(fds), helperBatch)]
		fds = fds[len(batch):]
		if err := h.ask(c, m, batch); err != nil {
			return err
		}
	}
	return nil
}

func (h *Helper) ask(c *net.UnixConn, m repair.Mode, fds []int) error {
	if _, _, err := c.WriteMsgUnix([]byte{byte(m)}, unix.UnixRights(fds...), nil); err != nil {
		return fmt.Errorf("linux: the helper for TCP_REPAIR: %w", err)
	}
	var answer [1]byte
	if _, err := c.Read(answer[:]); err != nil {
		return fmt.Errorf("linux: the helper for TCP_REPAIR at %s refuses: %w (%w)", h.Path, repair.ErrPermission, err)
	}
	if answer[0] != byte(m) {
		return fmt.Errorf("linux: the helper for TCP_REPAIR at %s answers %d to %d", h.Path, int8(answer[0]), int8(m))
	}
	return nil
}
