//go:build linux

package tap

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// control reads and changes a device's settings. It is a socket in the
// device's network namespace, which need not be the caller's: descriptors of
// TAP devices travel.
type control struct {
	sock int
	name string
}

// openControl opens the control of the device called name, to which fd is
// attached.
func openControl(fd int, name string) (*control, error) {
	ns, err := unix.IoctlRetInt(fd, unix.TUNGETDEVNETNS)
	if err != nil {
		// The kernel cannot tell or will not: the device is ours if there is
		// one of that name here and it is a TAP device.
		sock, err := controlSocket()
		if err != nil {
			return nil, err
		}
		info, err := unix.IoctlGetEthtoolDrvinfo(sock, name)
		if err != nil || unix.ByteSliceToString(info.Bus_info[:]) != "tap" {
			unix.Close(sock)
			return nil, fmt.Errorf("no TAP device %s in this network namespace", name)
		}
		return &control{sock, name}, nil
	}
	defer unix.Close(ns)
	var sock int
	if sameNamespace(ns) {
		sock, err = controlSocket()
	} else {
		sock, err = controlSocketIn(ns)
	}
	if err != nil {
		return nil, err
	}
	return &control{sock, name}, nil
}

// controlSocket opens a socket for interface ioctls, for which any will do.
func controlSocket() (int, error) {
	return unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
}

// controlSocketIn opens a socket in the network namespace ns, from a thread
// that is thrown away rather than trusted to find its way back.
func controlSocketIn(ns int) (int, error) {
	type result struct {
		sock int
		err  error
	}
	c := make(chan result)
	go func() {
		runtime.LockOSThread()
		var r result
		if r.err = unix.Setns(ns, unix.CLONE_NEWNET); r.err == nil {
			r.sock, r.err = controlSocket()
		}
		c <- r
	}()
	r := <-c
	return r.sock, r.err
}

// sameNamespace reports whether ns is the calling thread's network namespace.
func sameNamespace(ns int) bool {
	var a, b unix.Stat_t
	if unix.Fstat(ns, &a) != nil || unix.Stat("/proc/thread-self/ns/net", &b) != nil {
		return false
	}
	return a.Dev == b.Dev && a.Ino == b.Ino
}

func (c *control) close() { unix.Close(c.sock) }

// request runs an ioctl on the device. prepare, if there is one, completes the
// request; the answer is returned.
func (c *control) request(req uint, prepare func(*unix.Ifreq)) (*unix.Ifreq, error) {
	ifr, err := unix.NewIfreq(c.name)
	if err != nil {
		return nil, err
	}
	if prepare != nil {
		prepare(ifr)
	}
	if err := unix.IoctlIfreq(c.sock, req, ifr); err != nil {
		return nil, os.NewSyscallError("ioctl", err)
	}
	return ifr, nil
}

// mtu is the device's MTU in bytes.
func (c *control) mtu() (uint32, error) {
	ifr, err := c.request(unix.SIOCGIFMTU, nil)
	if err != nil {
		return 0, err
	}
	return ifr.Uint32(), nil
}

// setMTU changes the device's MTU.
func (c *control) setMTU(mtu uint32) error {
	_, err := c.request(unix.SIOCSIFMTU, func(ifr *unix.Ifreq) { ifr.SetUint32(mtu) })
	return err
}

// setQueueLength changes how many frames wait in the device for its reader.
func (c *control) setQueueLength(frames uint32) error {
	_, err := c.request(unix.SIOCSIFTXQLEN, func(ifr *unix.Ifreq) { ifr.SetUint32(frames) })
	return err
}

// isUp reports whether the device is administratively up.
func (c *control) isUp() (bool, error) {
	ifr, err := c.request(unix.SIOCGIFFLAGS, nil)
	if err != nil {
		return false, err
	}
	return ifr.Uint16()&unix.IFF_UP != 0, nil
}

// bringUp sets the device administratively up.
func (c *control) bringUp() error {
	ifr, err := c.request(unix.SIOCGIFFLAGS, nil)
	if err != nil {
		return err
	}
	flags := ifr.Uint16() | unix.IFF_UP
	_, err = c.request(unix.SIOCSIFFLAGS, func(ifr *unix.Ifreq) { ifr.SetUint16(flags) })
	return err
}
