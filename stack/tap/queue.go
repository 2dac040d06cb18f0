//go:build linux

package tap

import (
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Deadlines for the reader: none, and one that is long past.
var (
	noDeadline = time.Time{}
	longPast   = time.Unix(1, 0)
)

// queue is one descriptor of a TAP device, through which frames come and go.
//
// Reading goes through the runtime's poller: a waiting reader costs no thread,
// and what it wakes when a frame comes runs on the thread that read the frame.
// Writing to a TAP device never waits, so it needs no poller.
//
// As neither call waits, the runtime is not told of them: to hand the processor
// on in the meantime would take longer than they do.
type queue struct {
	file *os.File
	raw  syscall.RawConn
	vnet bool // frames carry a virtio-net header

	// writers is held for reading during a write, so that the descriptor is
	// not closed, and its number reused, under a writer.
	writers sync.RWMutex
	fd      int // -1: closed
}

// newQueue makes a queue of d and owns its descriptor from then on.
func newQueue(d *device) (*queue, error) {
	file, err := d.file()
	if err != nil {
		return nil, err
	}
	raw, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return nil, err
	}
	return &queue{file: file, raw: raw, vnet: d.offload.Header, fd: d.fd}, nil
}

// close wakes the reader and waits for writers in the kernel to come out. It
// may be called again.
func (q *queue) close() {
	q.writers.Lock()
	defer q.writers.Unlock()
	q.fd = -1
	q.file.Close()
}

// readv reads one frame into iov without waiting.
func readv(fd uintptr, iov []unix.Iovec) (int, error) {
	for {
		n, _, errno := unix.RawSyscall(unix.SYS_READV, fd, uintptr(unsafe.Pointer(&iov[0])), uintptr(len(iov)))
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
			continue
		}
		return 0, errno
	}
}

// writev writes one frame from iov. os.ErrClosed means that the
// queue is closed.
func (q *queue) writev(iov []unix.Iovec) error {
	q.writers.RLock()
	defer q.writers.RUnlock()
	if q.fd < 0 {
		return os.ErrClosed
	}
	for {
		_, _, errno := unix.RawSyscall(unix.SYS_WRITEV, uintptr(q.fd), uintptr(unsafe.Pointer(&iov[0])), uintptr(len(iov)))
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
			continue
		}
		return errno
	}
}
