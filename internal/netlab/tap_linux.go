package netlab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

const tunDevice = "/dev/net/tun"

// TAPConfig describes a TAP device. Its zero value is a device without
// addresses, with the virtio-net header.
type TAPConfig struct {
	// Addresses are the kernel's own on the device. Without any the kernel
	// stays silent on it (no ARP, no IPv6).
	Addresses []netip.Prefix
	// MTU of the device; 0 means DefaultMTU.
	MTU int
	// Plain leaves IFF_VNET_HDR out: frames go bare, complete and no longer
	// than the MTU.
	Plain bool
	// MAC is the device's Ethernet address; nil: the kernel draws one.
	MAC net.HardwareAddr
	// Persist keeps the device when its descriptor is closed, until its
	// namespace goes, so that it can be opened by name again.
	Persist bool
}

// TAP is a TAP device together with the descriptor of its user-space side.
type TAP struct {
	Device
	// Plain says that frames carry no virtio-net header.
	Plain bool

	mu sync.Mutex
	fd int // -1 once given away or closed
}

// TAP makes a TAP device in the namespace and takes it up. Its user-space side
// is a non-blocking descriptor attached with IFF_TAP|IFF_NO_PI (and
// IFF_VNET_HDR unless cfg.Plain), no offload switched on yet: whoever takes it
// over (TakeFD, Port) may use it from any thread and namespace. Otherwise the
// lab closes it.
func (ns *Namespace) TAP(name string, cfg TAPConfig) (*TAP, error) {
	var fd int
	err := ns.Do(func() (err error) {
		fd, err = openTAP(name, cfg)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("netlab: TAP %s in %s: %w", name, ns.Name, err)
	}
	tap := &TAP{Plain: cfg.Plain, fd: fd}
	if err := ns.lab.own(tap); err != nil {
		return nil, err
	}
	if err := ns.setMAC(name, cfg.MAC); err != nil {
		_ = tap.Close()
		return nil, err
	}
	devices, err := bringUp(cfg.MTU, End{Namespace: ns, Name: name, Addresses: cfg.Addresses})
	if err != nil {
		_ = tap.Close()
		return nil, err
	}
	tap.Device = devices[0]
	return tap, nil
}

func openTAP(name string, cfg TAPConfig) (int, error) {
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return -1, fmt.Errorf("the name: %w", err)
	}
	fd, err := unix.Open(tunDevice, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: tunDevice, Err: err}
	}
	flags := uint16(unix.IFF_TAP | unix.IFF_NO_PI)
	if !cfg.Plain {
		flags |= unix.IFF_VNET_HDR
	}
	ifr.SetUint16(flags)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		_ = unix.Close(fd)
		return -1, os.NewSyscallError("TUNSETIFF", err)
	}
	if cfg.Persist {
		if err := unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1); err != nil {
			_ = unix.Close(fd)
			return -1, os.NewSyscallError("TUNSETPERSIST", err)
		}
	}
	return fd, nil
}

// errTaken says that a TAP's descriptor has another owner by now.
var errTaken = errors.New("netlab: the TAP's descriptor was taken or closed before")

// TakeFD hands the descriptor of the user-space side over: the caller owns and
// closes it from now on. It can be taken once.
func (t *TAP) TakeFD() (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.fd < 0 {
		return -1, errTaken
	}
	fd := t.fd
	t.fd = -1
	return fd, nil
}

// Close closes the descriptor unless it was taken over. A device that is not
// persistent goes with it.
func (t *TAP) Close() error {
	fd, err := t.TakeFD()
	if err != nil {
		return nil
	}
	return unix.Close(fd)
}
