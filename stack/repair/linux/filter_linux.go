package linux

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tcprepair/ustack/stack/repair"
)

// dropAll is the filter of a frozen socket.
var dropAll = []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0}}

// Of the kernel's include/uapi/linux/filter.h: where a program finds a packet's
// mark (SKF_AD_OFF + SKF_AD_MARK).
const markOffset = 0xfffff000 + 20

// dropUnmarked is the filter of a socket that is being restored: what it is
// told itself passes, by its mark, and nothing else.
func dropUnmarked(mark uint32) []unix.SockFilter {
	return []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: markOffset},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: mark},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0xffffffff},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	}
}

// filter is what a frozen socket's own filter was.
type filter struct {
	attached bool              // dropAll, or dropUnmarked, is in place
	user     []unix.SockFilter // to be put back
}

// attach puts the program in the place of the user's filter, which it keeps.
func (f *filter) attach(fd int, program []unix.SockFilter) error {
	locked, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_LOCK_FILTER)
	if err != nil {
		return failed("SO_LOCK_FILTER", err)
	}
	if locked != 0 {
		return fmt.Errorf("linux: the socket's filter is locked (SO_LOCK_FILTER): %w", repair.ErrPermission)
	}
	user, err := userFilter(fd)
	if err != nil {
		return err
	}
	if err := setFilter(fd, program); err != nil {
		return err
	}
	*f = filter{attached: true, user: user}
	return nil
}

// detach puts things back as attach found them.
func (f *filter) detach(fd int) (err error) {
	switch {
	case !f.attached:
		return nil
	case len(f.user) > 0:
		err = setFilter(fd, f.user)
	default:
		err = failed("SO_DETACH_FILTER", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0))
	}
	if err == nil {
		*f = filter{}
	}
	return err
}

func setFilter(fd int, program []unix.SockFilter) error {
	p := &unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, p)
	if err == unix.EPERM {
		return fmt.Errorf("linux: this kernel lets nobody filter a socket without CAP_NET_ADMIN: %w", repair.ErrPermission)
	}
	return failed("SO_ATTACH_FILTER", err)
}

// userFilter reads the filter that a socket has. One of extended BPF cannot be
// read, so it could not be put back.
func userFilter(fd int) ([]unix.SockFilter, error) {
	n, err := getsockopt(fd, unix.SOL_SOCKET, unix.SO_GET_FILTER, nil, 0)
	if err == unix.EACCES {
		return nil, fmt.Errorf("linux: the socket has a filter of extended BPF, which could not be put back: %w", repair.ErrPermission)
	}
	if err != nil || n == 0 {
		return nil, failed("SO_GET_FILTER", err)
	}
	program := make([]unix.SockFilter, n)
	n, err = getsockopt(fd, unix.SOL_SOCKET, unix.SO_GET_FILTER, unsafe.Pointer(&program[0]), n)
	return program[:n], failed("SO_GET_FILTER", err)
}
