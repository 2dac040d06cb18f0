package netlab

import (
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Veth makes a pair of joined devices and takes both up. An MTU of 0 means
// DefaultMTU. The two ends may be in one namespace or in two.
func (l *Lab) Veth(a, b End, mtu int) (Device, Device, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = a.Name
	veth := netlink.NewVeth(attrs)
	veth.PeerName = b.Name
	veth.PeerNamespace = netlink.NsFd(int(b.Namespace.handle))
	if err := a.Namespace.nl.LinkAdd(veth); err != nil {
		return Device{}, Device{}, fmt.Errorf("netlab: veth %s/%s - %s/%s: %w",
			a.Namespace.Name, a.Name, b.Namespace.Name, b.Name, err)
	}
	devices, err := bringUp(mtu, a, b)
	if err != nil {
		_ = a.Namespace.nl.LinkDel(veth) // the pair goes together
		return Device{}, Device{}, err
	}
	return devices[0], devices[1], nil
}

// ethtoolValue is the kernel's struct ethtool_value.
type ethtoolValue struct{ cmd, data uint32 }

// offloads are the switches SetOffload turns, in the order that works both
// ways: segmentation needs scatter-gather, which needs checksums.
var offloads = []struct {
	name string
	cmd  uint32
}{
	{"receive checksum", unix.ETHTOOL_SRXCSUM},
	{"transmit checksum", unix.ETHTOOL_STXCSUM},
	{"scatter-gather", unix.ETHTOOL_SSG},
	{"TCP segmentation", unix.ETHTOOL_STSO},
	{"generic segmentation", unix.ETHTOOL_SGSO},
	{"generic receive merging", unix.ETHTOOL_SGRO},
}

// SetOffload switches checksum, segmentation and merging offloads of a device
// on or off. Off, each frame it sends is complete and no longer than the MTU.
// Switches that the device does not have are left alone.
func (ns *Namespace) SetOffload(device string, on bool) error {
	return ns.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return os.NewSyscallError("socket", err)
		}
		defer unix.Close(fd)
		for _, o := range offloads {
			v := &ethtoolValue{cmd: o.cmd}
			if on {
				v.data = 1
			}
			if err := ethtool(fd, device, unsafe.Pointer(v)); err != nil && err != unix.EOPNOTSUPP {
				return fmt.Errorf("netlab: %s: %s offload: %w", device, o.name, err)
			}
		}
		return nil
	})
}

func ethtool(fd int, device string, arg unsafe.Pointer) error {
	var ifr struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte // the rest of the kernel's union
	}
	if len(device) >= len(ifr.name) {
		return unix.EINVAL
	}
	copy(ifr.name[:], device)
	ifr.data = arg
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&ifr)))
	runtime.KeepAlive(arg)
	if errno != 0 {
		return errno
	}
	return nil
}
