//go:build linux

package tap

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// The ways in which opening a device fails. Open and Adopt return them
// wrapped, with the device's name before and the system's error after, where
// there is one: match with errors.Is.
var (
	// ErrNoTUN: the kernel offers no TAP devices here.
	ErrNoTUN = errors.New("/dev/net/tun is missing (load the tun module, or pass the device into the container)")
	// ErrPermission: the caller may not open /dev/net/tun, or may not create or
	// attach to the device.
	ErrPermission = errors.New("not permitted (needs CAP_NET_ADMIN, or a device that was made for this user)")
	// ErrName: the name cannot be a network device's.
	ErrName = errors.New("bad device name (1 to 15 bytes, no space, '/' or ':')")
	// ErrBusy: somebody else has the device.
	ErrBusy = errors.New("busy: another process holds the device")
	// ErrDown: the device existed before, and is administratively down. A
	// device that Open creates is brought up by Open.
	ErrDown = errors.New("the device is down (bring it up first: ip link set DEVICE up)")
	// ErrNotTAP: the name or the descriptor is some other kind of thing.
	ErrNotTAP = errors.New("not a TAP device")
	// ErrFlags: the device was made with flags that the endpoint cannot work
	// with, such as packet information before each frame.
	ErrFlags = errors.New("the device was made with other flags (needs IFF_NO_PI)")
	// ErrAddress: Config.Address cannot be the endpoint's.
	ErrAddress = errors.New("bad link address")
	// ErrMTU: Config.MTU is out of range.
	ErrMTU = fmt.Errorf("bad MTU (%d to %d)", minMTU, maxMTU)
	// ErrQueues: the device was made for one queue, or fewer than Config.Queues
	// can be had.
	ErrQueues = errors.New("the device cannot have so many queues")
	// ErrGone: the device was removed while the endpoint used it.
	ErrGone = errors.New("the device is gone")
)

// deviceError wraps one of the errors above, and the system's if there is one,
// in a line that starts with the device's name.
func deviceError(name string, kind, cause error) error {
	if cause == nil {
		return fmt.Errorf("tap %s: %w", name, kind)
	}
	return fmt.Errorf("tap %s: %w: %w", name, kind, cause)
}

// openError is why the clone device at path could not be opened.
func openError(name, path string, err error) error {
	switch err {
	case unix.ENOENT, unix.ENODEV, unix.ENXIO:
		return deviceError(name, ErrNoTUN, nil)
	case unix.EACCES, unix.EPERM:
		return deviceError(name, ErrPermission, err)
	}
	return fmt.Errorf("tap %s: open %s: %w", name, path, err)
}

// attachError is why TUNSETIFF refused the device, other than for its flags.
func attachError(name string, err error) error {
	switch err {
	case unix.EACCES, unix.EPERM:
		return deviceError(name, ErrPermission, err)
	case unix.EBUSY:
		return deviceError(name, ErrBusy, nil)
	}
	return fmt.Errorf("tap %s: attach: %w", name, err)
}
