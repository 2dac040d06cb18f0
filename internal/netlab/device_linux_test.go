package netlab

import (
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestTAPAttributes(t *testing.T) {
	RequireTAP(t)
	lab := New(t)
	ns := must(lab.Namespace("a"))(t)
	for _, tc := range []struct {
		name string
		cfg  TAPConfig
		want uint16
	}{
		{"vnet0", TAPConfig{Addresses: KernelAddresses}, unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR},
		{"plain0", TAPConfig{Plain: true, MTU: 9000}, unix.IFF_TAP | unix.IFF_NO_PI},
	} {
		tap := must(ns.TAP(tc.name, tc.cfg))(t)
		if want := max(tc.cfg.MTU, 1500); tap.MTU != want || len(tap.MAC) != 6 || tap.Index == 0 {
			t.Errorf("%s: %+v", tc.name, &tap.Device)
		}
		fd := must(tap.TakeFD())(t)
		defer unix.Close(fd)
		ifr := must(unix.NewIfreq(""))(t)
		if err := unix.IoctlIfreq(fd, unix.TUNGETIFF, ifr); err != nil {
			t.Fatal(err)
		}
		if ifr.Name() != tc.name || ifr.Uint16()&(unix.IFF_TAP|unix.IFF_NO_PI|unix.IFF_VNET_HDR) != tc.want {
			t.Errorf("%s: the descriptor is %q with flags %#x", tc.name, ifr.Name(), ifr.Uint16())
		}
		if _, err := tap.TakeFD(); err == nil {
			t.Errorf("%s: the descriptor could be taken twice", tc.name)
		}
		if _, err := tap.Port(); err == nil {
			t.Errorf("%s: a port was made of a descriptor that was taken", tc.name)
		}
	}
}

func TestTAPGoesWithItsDescriptor(t *testing.T) {
	RequireTAP(t)
	lab := New(t)
	ns := must(lab.Namespace("a"))(t)
	tap := must(ns.TAP("gone0", TAPConfig{}))(t)
	kept := must(ns.TAP("kept0", TAPConfig{Persist: true}))(t)
	for _, c := range []*TAP{tap, tap, kept} { // closing twice is no harm
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	devices := must(ns.Devices())(t)
	if slices.Contains(devices, "gone0") || !slices.Contains(devices, "kept0") {
		t.Errorf("devices %v", devices)
	}
}

func TestTAPErrorsAreClear(t *testing.T) {
	RequireTAP(t)
	lab := New(t)
	ns := must(lab.Namespace("a"))(t)
	must(ns.TAP("tap0", TAPConfig{}))(t)
	for name, cfg := range map[string]TAPConfig{
		"tap0":                        {},
		"a-name-that-is-far-too-long": {},
		"mtu0":                        {MTU: 1 << 30},
		"addr0":                       {Addresses: []netip.Prefix{KernelAddresses[0], KernelAddresses[0]}},
	} {
		_, err := ns.TAP(name, cfg)
		if err == nil || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if devices := must(ns.Devices())(t); slices.Contains(devices, "mtu0") || slices.Contains(devices, "addr0") {
		t.Errorf("failed devices were left: %v", devices)
	}
}

func TestVethCarriesTCP(t *testing.T) {
	lab := New(t)
	n := must(lab.KernelPair(Link{}))(t)
	for i, p := range PeerAddresses {
		transfer(t, n.Kernel, n.Peer, p.Addr(), payload(uint64(i), 1<<20))
	}
	if _, _, err := lab.Veth(End{Namespace: n.Kernel, Name: "veth0"}, End{Namespace: n.Peer, Name: "veth1"}, 0); err == nil || !strings.Contains(err.Error(), "veth0") {
		t.Errorf("a second veth0: %v", err)
	}
}

// The largest frame shows whether segmentation was left to the device.
func TestSetOffload(t *testing.T) {
	lab := New(t)
	n := must(lab.KernelPair(Link{}))(t)
	largest := func() int {
		capture := must(n.Kernel.Capture("veth0", CaptureConfig{}))(t)
		defer capture.Close()
		transfer(t, n.Kernel, n.Peer, PeerAddresses[0].Addr(), payload(1, 4<<20))
		longest := 0
		for _, p := range capture.Packets() {
			longest = max(longest, p.Length)
		}
		return longest
	}
	if got := largest(); got <= 1514 {
		t.Errorf("with offloads the longest frame is %d", got)
	}
	for _, e := range []*Namespace{n.Kernel, n.Peer} {
		if err := e.SetOffload("veth0", false); err != nil {
			t.Fatal(err)
		}
	}
	if got := largest(); got > 1514 {
		t.Errorf("without offloads a frame is %d long", got)
	}
	if err := n.Kernel.SetOffload("veth0", true); err != nil {
		t.Fatal(err)
	}
	if got := largest(); got <= 1514 {
		t.Errorf("with offloads again the longest frame is %d", got)
	}
	if err := n.Kernel.SetOffload("no-such-device", false); err == nil {
		t.Error("an unknown device was accepted")
	}
	if err := n.Kernel.SetOffload("a-name-that-is-far-too-long", false); err == nil {
		t.Error("a name that is too long was accepted")
	}
}

func TestSetUp(t *testing.T) {
	lab := New(t)
	n := must(lab.KernelPair(Link{}))(t)
	up := func() bool {
		var flags net.Flags
		err := n.Kernel.Do(func() error {
			i, err := net.InterfaceByName("veth0")
			if err == nil {
				flags = i.Flags
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return flags&net.FlagUp != 0
	}
	for _, want := range []bool{false, true} {
		if err := n.Kernel.SetUp("veth0", want); err != nil || up() != want {
			t.Errorf("SetUp(%v): %v, up %v", want, err, up())
		}
	}
	if err := n.Kernel.SetUp("nothing", true); err == nil {
		t.Error("an unknown device was accepted")
	}
}

// Everything lives by descriptors: when they are closed, nothing is left.
func TestNothingIsLeft(t *testing.T) {
	RequireTAP(t)
	before := openFDs(t)
	lab := must(Open())(t)
	n := must(lab.Impaired(Link{}, WireConfig{}))(t)
	must(n.Kernel.Capture("tap0", CaptureConfig{}))(t)
	must(lab.KernelPair(Link{}))(t)
	must(lab.KernelWire(Link{}, WireConfig{}))(t)
	lab.Close()
	lab.Close()
	if after := openFDs(t); after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
	if entries, err := os.ReadDir("/run/netns"); err == nil {
		for _, e := range entries {
			t.Logf("/run/netns/%s exists (not of our making)", e.Name())
		}
	}
}

func openFDs(t *testing.T) int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
