//go:build linux

package tap

import (
	"encoding/binary"
	"fmt"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// queue is one descriptor of a TAP device, through which frames come and go.
//
// It is not registered with the runtime's poller: that is told of every frame,
// whether somebody waits for one or not, and each time a thread is woken to hear
// of it, by the peer and at the peer's expense. So a reader with nothing to read
// waits in a system call of its own, on a thread of its own.
//
// Neither reading nor writing ever waits. So the runtime is not told of them: to
// hand the processor on in the meantime would take longer than they do.
type queue struct {
	bell int // an eventfd that ends waiting while it is set

	// users is held for reading during a call on fd, so that the
	// descriptor is not closed, and its number reused, under it.
	users sync.RWMutex
	fd    int // -1: closed
}

// newQueues makes queues of d's descriptors and owns these from then on.
func newQueues(d *device) ([]*queue, error) {
	var queues []*queue
	for i, fd := range d.fds() {
		bell, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
		if err != nil {
			for _, q := range queues {
				q.close()
			}
			for _, rest := range d.fds()[i:] {
				unix.Close(rest)
			}
			return nil, fmt.Errorf("tap %s: %w", d.name, os.NewSyscallError("eventfd2", err))
		}
		queues = append(queues, &queue{bell: bell, fd: fd})
	}
	return queues, nil
}

// close wakes the reader and waits for calls in the kernel to come out. It
// may be called again.
func (q *queue) close() {
	q.ring()
	q.users.Lock()
	defer q.users.Unlock()
	if q.fd < 0 {
		return
	}
	unix.Close(q.fd)
	unix.Close(q.bell)
	q.fd, q.bell = -1, -1
}

// ring ends the wait for a frame, and every later one until hush.
func (q *queue) ring() {
	q.users.RLock()
	defer q.users.RUnlock()
	if q.fd < 0 {
		return
	}
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	unix.Write(q.bell, one[:]) // fails only if it has rung for ages
}

// hush undoes all that rang.
func (q *queue) hush() {
	q.users.RLock()
	defer q.users.RUnlock()
	if q.fd < 0 {
		return
	}
	var count [8]byte
	unix.Read(q.bell, count[:]) // fails only if it has not rung
}

// wait returns when there may be a frame, or the bell rings.
func (q *queue) wait(fds *[2]unix.PollFd) {
	q.users.RLock()
	defer q.users.RUnlock()
	if q.fd < 0 {
		return
	}
	fds[0] = unix.PollFd{Fd: int32(q.fd), Events: unix.POLLIN}
	fds[1] = unix.PollFd{Fd: int32(q.bell), Events: unix.POLLIN}
	// An error is for reading to find out; EINTR is not one.
	unix.Ppoll(fds[:], nil, nil)
}

// readv reads one frame into iov. os.ErrClosed means that the queue is closed.
func (q *queue) readv(iov []unix.Iovec) (int, error) { return q.vector(unix.SYS_READV, iov) }

// writev writes one frame from iov. os.ErrClosed means that the queue is closed.
func (q *queue) writev(iov []unix.Iovec) error {
	_, err := q.vector(unix.SYS_WRITEV, iov)
	return err
}

// vector is readv or writev.
func (q *queue) vector(call uintptr, iov []unix.Iovec) (int, error) {
	q.users.RLock()
	defer q.users.RUnlock()
	if q.fd < 0 {
		return 0, os.ErrClosed
	}
	for {
		n, _, errno := unix.RawSyscall(call, uintptr(q.fd), uintptr(unsafe.Pointer(&iov[0])), uintptr(len(iov)))
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
			continue
		}
		return 0, errno
	}
}
