package netlab

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
)

// DefaultMTU is a device's MTU where a configuration says 0.
const DefaultMTU = 1500

// Device is the kernel's side of a network device.
type Device struct {
	// Namespace is where the device lives.
	Namespace *Namespace
	// Name and Index are the kernel's name and number of the device there.
	Name  string
	Index int
	// MAC is the device's own Ethernet address.
	MAC net.HardwareAddr
	// MTU is the largest IP packet it takes, in bytes.
	MTU int
	// Addresses are those given to it, each with the length of its subnet.
	Addresses []netip.Prefix
}

// End names a device to be made: one end of a veth pair, for instance.
type End struct {
	// Namespace is where the end lives.
	Namespace *Namespace
	// Name of the device there.
	Name string
	// Addresses of the device; without any the kernel stays silent on it.
	Addresses []netip.Prefix
}

// bringUp sets the MTU of fresh devices, takes them up, waits until the kernel
// has noticed that they have a carrier (the ends of a pair only have one
// together), and then gives them their addresses. A device without addresses
// is silent: no ARP, and no IPv6 of its own making.
func bringUp(mtu int, ends ...End) ([]Device, error) {
	if mtu == 0 {
		mtu = DefaultMTU
	}
	for _, e := range ends {
		if err := e.Namespace.takeUp(e.Name, mtu, len(e.Addresses) == 0); err != nil {
			return nil, err
		}
	}
	devices := make([]Device, len(ends))
	for i, e := range ends {
		link, err := e.Namespace.awaitCarrier(e.Name)
		if err != nil {
			return nil, err
		}
		for _, a := range e.Addresses {
			if err := e.Namespace.AddAddress(e.Name, a); err != nil {
				return nil, err
			}
		}
		at := link.Attrs()
		devices[i] = Device{Namespace: e.Namespace, Name: e.Name, Index: at.Index, MAC: at.HardwareAddr, MTU: mtu, Addresses: e.Addresses}
	}
	return devices, nil
}

// tapQueue is how many frames a TAP keeps for its reader, as stack/tap has it for
// devices that it makes.
const tapQueue = 10_000

func (ns *Namespace) takeUp(name string, mtu int, silent bool) error {
	link, err := ns.nl.LinkByName(name)
	if err != nil {
		return fmt.Errorf("netlab: device %s: %w", name, err)
	}
	if err := ns.nl.LinkSetMTU(link, mtu); err != nil {
		return fmt.Errorf("netlab: device %s: MTU %d: %w", name, mtu, err)
	}
	if link.Type() == "tuntap" {
		if err := ns.nl.LinkSetTxQLen(link, tapQueue); err != nil {
			return fmt.Errorf("netlab: device %s: queue length %d: %w", name, tapQueue, err)
		}
	}
	if silent {
		if err := ns.silence(link); err != nil {
			return err
		}
	}
	if err := ns.nl.LinkSetUp(link); err != nil {
		return fmt.Errorf("netlab: device %s up: %w", name, err)
	}
	return nil
}

func (ns *Namespace) silence(link netlink.Link) error {
	name := link.Attrs().Name
	if ns.HasIPv6() {
		if err := ns.SetSysctl("net.ipv6.conf."+name+".disable_ipv6", "1"); err != nil {
			return err
		}
	}
	if err := ns.nl.LinkSetARPOff(link); err != nil {
		return fmt.Errorf("netlab: device %s: no ARP: %w", name, err)
	}
	return nil
}

// readyTimeout is far longer than the kernel's workqueues take.
const readyTimeout = 10 * time.Second

// awaitCarrier waits until the kernel sends on the device. What is sent before
// is dropped, and a dropped SYN costs a second. A TAP has its carrier from the
// start, and its state stays unknown.
func (ns *Namespace) awaitCarrier(device string) (netlink.Link, error) {
	var link netlink.Link
	err := poll(func() (ready bool, err error) {
		link, err = ns.nl.LinkByName(device)
		if err != nil {
			return false, err
		}
		_, tap := link.(*netlink.Tuntap)
		return tap || link.Attrs().OperState == netlink.OperUp, nil
	})
	if err != nil {
		return nil, fmt.Errorf("netlab: device %s: waiting for its carrier: %w", device, err)
	}
	return link, nil
}

// awaitSolicited waits until the device hears the neighbour solicitations for
// an IPv6 address. The kernel joins that group in the background, and a
// solicitation that comes before costs its sender a second.
// https://www.rfc-editor.org/rfc/rfc4291#section-2.7.1
func (ns *Namespace) awaitSolicited(device string, a netip.Addr) error {
	b := a.As16()
	group := fmt.Sprintf("ff0200000000000000000001ff%x", b[13:])
	err := poll(func() (joined bool, err error) {
		err = ns.Do(func() error {
			// Lines of: index, device, group, users, flags, timer.
			list, err := os.ReadFile("/proc/thread-self/net/igmp6")
			for line := range strings.Lines(string(list)) {
				f := strings.Fields(line)
				joined = joined || len(f) > 2 && f[1] == device && f[2] == group
			}
			return err
		})
		return joined, err
	})
	if err != nil {
		return fmt.Errorf("netlab: address %v on %s: waiting for its multicast group: %w", a, device, err)
	}
	return nil
}

// poll asks every millisecond, which is about as long as the kernel's
// background work takes, and gives up in the end.
func poll(ready func() (bool, error)) error {
	for deadline := time.Now().Add(readyTimeout); ; time.Sleep(time.Millisecond) {
		ok, err := ready()
		if ok || err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return os.ErrDeadlineExceeded
		}
	}
}
