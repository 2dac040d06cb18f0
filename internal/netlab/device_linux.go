package netlab

import (
	"fmt"
	"net"
	"net/netip"

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

// bringUp sets MTU and addresses of a fresh device, takes it up and describes
// it. A device without addresses (silent) gets no IPv6 of its own making either,
// so that the kernel never speaks on it.
func (ns *Namespace) bringUp(name string, mtu int, addresses []netip.Prefix) (Device, error) {
	if mtu == 0 {
		mtu = DefaultMTU
	}
	link, err := ns.nl.LinkByName(name)
	if err != nil {
		return Device{}, fmt.Errorf("netlab: device %s: %w", name, err)
	}
	if err := ns.nl.LinkSetMTU(link, mtu); err != nil {
		return Device{}, fmt.Errorf("netlab: device %s: MTU %d: %w", name, mtu, err)
	}
	if len(addresses) == 0 {
		if err := ns.silence(link); err != nil {
			return Device{}, err
		}
	}
	if err := ns.nl.LinkSetUp(link); err != nil {
		return Device{}, fmt.Errorf("netlab: device %s up: %w", name, err)
	}
	for _, a := range addresses {
		if err := ns.AddAddress(name, a); err != nil {
			return Device{}, err
		}
	}
	at := link.Attrs()
	return Device{Namespace: ns, Name: name, Index: at.Index, MAC: at.HardwareAddr, MTU: mtu, Addresses: addresses}, nil
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
