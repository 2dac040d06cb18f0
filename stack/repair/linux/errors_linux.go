package linux

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/tcprepair/ustack/stack/repair"
)

// sentinels are what the kernel's errors mean where they have one meaning.
var sentinels = map[unix.Errno]error{
	unix.EPERM:        repair.ErrPermission,
	unix.EACCES:       repair.ErrPermission,
	unix.EINVAL:       repair.ErrInvalid,
	unix.EFBIG:        repair.ErrTooBig,
	unix.EPIPE:        repair.ErrClosed,
	unix.EADDRINUSE:   repair.ErrAddrInUse,
	unix.ENETUNREACH:  repair.ErrNoRoute,
	unix.EHOSTUNREACH: repair.ErrNoRoute,
}

// failure is an error of the kernel's, and what it means in the vocabulary of
// package repair.
type failure struct {
	call    string
	meaning error
	errno   unix.Errno
}

func (f *failure) Error() string {
	if f.meaning == nil {
		return fmt.Sprintf("linux: %s: %v", f.call, f.errno)
	}
	return fmt.Sprintf("linux: %s: %v (%v)", f.call, f.meaning, unix.ErrnoName(f.errno))
}

func (f *failure) Unwrap() []error {
	if f.meaning == nil {
		return []error{f.errno}
	}
	return []error{f.meaning, f.errno}
}

// failed words an error of a system call; nil stays nil.
func failed(call string, err error) error { return failedAs(call, err, nil) }

// failedAs is failed where some errors mean something else than usual.
func failedAs(call string, err error, other map[unix.Errno]error) error {
	errno, ok := err.(unix.Errno)
	if !ok {
		if err != nil {
			err = fmt.Errorf("linux: %s: %w", call, err)
		}
		return err
	}
	meaning, ok := other[errno]
	if !ok {
		meaning = sentinels[errno]
	}
	return &failure{call, meaning, errno}
}
