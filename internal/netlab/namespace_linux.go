package netlab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path"
	"runtime"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Namespace is an anonymous network namespace: it lives by descriptors alone,
// without a file under /run/netns. It is safe for concurrent use.
type Namespace struct {
	// Name is for messages only.
	Name string

	lab    *Lab
	handle netns.NsHandle
	nl     *netlink.Handle
	close  func() error
}

// Namespace makes a network namespace with its loopback device up, and
// without the delays of IPv6 (duplicate address detection, router
// solicitation) that tests would wait for.
func (l *Lab) Namespace(name string) (*Namespace, error) {
	handle, err := newNetNS()
	if err != nil {
		return nil, fmt.Errorf("netlab: namespace %s: %w", name, err)
	}
	nl, err := netlink.NewHandleAt(handle, unix.NETLINK_ROUTE)
	if err != nil {
		_ = handle.Close()
		return nil, fmt.Errorf("netlab: namespace %s: netlink: %w", name, err)
	}
	ns := &Namespace{Name: name, lab: l, handle: handle, nl: nl}
	ns.close = sync.OnceValue(func() error {
		ns.nl.Close()
		return ns.handle.Close()
	})
	if err := l.own(ns); err != nil {
		return nil, err
	}
	if err := ns.prepare(); err != nil {
		_ = ns.Close()
		return nil, fmt.Errorf("netlab: namespace %s: %w", name, err)
	}
	return ns, nil
}

// Close gives up the namespace; its devices go with it once no socket or
// process is left inside. The lab does it if the caller does not.
func (ns *Namespace) Close() error { return ns.close() }

func (ns *Namespace) prepare() error {
	if ns.HasIPv6() {
		for _, s := range [][2]string{
			{"disable_ipv6", "0"}, {"accept_dad", "0"}, {"dad_transmits", "0"},
			{"accept_ra", "0"}, {"router_solicitations", "0"},
		} {
			if err := ns.SetSysctl("net.ipv6.conf.default."+s[0], s[1]); err != nil {
				return err
			}
		}
		if err := ns.SetSysctl("net.ipv6.conf.lo.disable_ipv6", "0"); err != nil {
			return err
		}
	}
	lo, err := ns.nl.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("loopback device: %w", err)
	}
	if err := ns.nl.LinkSetUp(lo); err != nil {
		return fmt.Errorf("loopback device up: %w", err)
	}
	return nil
}

// Do runs f on an operating system thread that is in the namespace. Sockets
// that f makes stay in it for good.
//
// The thread holds only for f's own goroutine. What f starts as goroutines
// runs elsewhere, and so does some of package net: name lookups, and dialling
// a name with more than one address. So give literal addresses, or use
// DialTCP, ListenTCP and Command, which are sure.
func (ns *Namespace) Do(f func() error) (err error) {
	runtime.LockOSThread()
	old, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("netlab: the thread's network namespace: %w", err)
	}
	defer old.Close()
	if err := netns.Set(ns.handle); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("netlab: entering namespace %s: %w", ns.Name, err)
	}
	// Deferred, for f may leave by Goexit (a test's FailNow).
	defer func() {
		if back := netns.Set(old); back != nil {
			// Still locked: the runtime ends the thread with its goroutine.
			err = errors.Join(err, fmt.Errorf("netlab: leaving namespace %s: %w", ns.Name, back))
			return
		}
		runtime.UnlockOSThread()
	}()
	return f()
}

// HasIPv6 reports whether the kernel speaks IPv6.
func (ns *Namespace) HasIPv6() bool {
	_, err := os.Stat("/proc/sys/net/ipv6")
	return err == nil
}

// Sysctl reads a setting, such as "net.ipv4.tcp_rmem", inside the namespace.
func (ns *Namespace) Sysctl(name string) (value string, err error) {
	err = ns.Do(func() error {
		b, err := os.ReadFile(sysctlPath(name))
		value = strings.TrimSpace(string(b))
		return err
	})
	if err != nil {
		return "", fmt.Errorf("netlab: sysctl %s: %w", name, err)
	}
	return value, nil
}

// SetSysctl changes a setting inside the namespace.
func (ns *Namespace) SetSysctl(name, value string) error {
	err := ns.Do(func() error {
		return os.WriteFile(sysctlPath(name), []byte(value), 0)
	})
	if err != nil {
		return fmt.Errorf("netlab: sysctl %s=%s: %w", name, value, err)
	}
	return nil
}

func sysctlPath(name string) string {
	return path.Join("/proc/sys", path.Clean("/"+strings.ReplaceAll(name, ".", "/")))
}

// AddAddress gives a device an address, usable at once.
func (ns *Namespace) AddAddress(device string, p netip.Prefix) error {
	link, err := ns.nl.LinkByName(device)
	if err != nil {
		return fmt.Errorf("netlab: device %s: %w", device, err)
	}
	addr := &netlink.Addr{IPNet: ipNet(p)}
	if p.Addr().Is6() {
		addr.Flags = unix.IFA_F_NODAD
	}
	if err := ns.nl.AddrAdd(link, addr); err != nil {
		return fmt.Errorf("netlab: address %v on %s: %w", p, device, err)
	}
	if p.Addr().Is6() && link.Attrs().Flags&(net.FlagUp|net.FlagLoopback) == net.FlagUp {
		return ns.awaitSolicited(device, p.Addr())
	}
	return nil
}

// AddRoute sends what goes to dst through the gateway via.
func (ns *Namespace) AddRoute(dst netip.Prefix, via netip.Addr) error {
	route := &netlink.Route{Dst: ipNet(dst.Masked()), Gw: via.AsSlice()}
	if err := ns.nl.RouteAdd(route); err != nil {
		return fmt.Errorf("netlab: route %v via %v: %w", dst, via, err)
	}
	return nil
}

// featureMicros is RTAX_FEATURE_TCP_USEC_TS, since Linux 6.7.
const featureMicros = 1 << 4

// MicrosecondTimestamps has TCP's timestamps tick in microseconds on connections
// with a network that is on the device's link. Kernels before 6.7 refuse.
func (ns *Namespace) MicrosecondTimestamps(device string, network netip.Prefix) error {
	link, err := ns.nl.LinkByName(device)
	if err == nil {
		err = ns.nl.RouteReplace(&netlink.Route{
			LinkIndex: link.Attrs().Index, Dst: ipNet(network.Masked()), Scope: netlink.SCOPE_LINK, Features: featureMicros,
		})
	}
	if err != nil {
		return fmt.Errorf("netlab: microsecond timestamps with %v: %w", network, err)
	}
	return nil
}

// SetUp takes a device up or down.
func (ns *Namespace) SetUp(device string, up bool) error {
	link, err := ns.nl.LinkByName(device)
	if err == nil && up {
		err = ns.nl.LinkSetUp(link)
	} else if err == nil {
		err = ns.nl.LinkSetDown(link)
	}
	if err != nil {
		return fmt.Errorf("netlab: device %s: %w", device, err)
	}
	return nil
}

// setMAC gives a device that is down an Ethernet address, or leaves it alone.
func (ns *Namespace) setMAC(device string, mac net.HardwareAddr) error {
	if mac == nil {
		return nil
	}
	link, err := ns.nl.LinkByName(device)
	if err == nil {
		err = ns.nl.LinkSetHardwareAddr(link, mac)
	}
	if err != nil {
		return fmt.Errorf("netlab: device %s: MAC %v: %w", device, mac, err)
	}
	return nil
}

// Devices lists the names of the namespace's devices, loopback included.
func (ns *Namespace) Devices() ([]string, error) {
	links, err := ns.nl.LinkList()
	if err != nil {
		return nil, fmt.Errorf("netlab: devices of %s: %w", ns.Name, err)
	}
	names := make([]string, len(links))
	for i, l := range links {
		names[i] = l.Attrs().Name
	}
	return names, nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
