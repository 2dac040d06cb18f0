//go:build linux

package tap

import (
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

// enterNamespace moves the test to a thread with a network namespace of its
// own. The thread ends with the test, and the namespace with its devices goes
// when the last descriptor from it is closed. What belongs to the namespace
// must be opened from the test's own goroutine.
func enterNamespace(t testing.TB) {
	t.Helper()
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		cannot(t, "no network namespace: %v", err)
	}
	if _, err := os.Stat(clonePath); err != nil {
		cannot(t, "no TAP devices: %v", err)
	}
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		t.Fatalf("bring up the loopback device: %v", err)
	}
}

// cannot ends a test that the machine does not allow to run: that is a failure
// where the machine is meant to allow it.
func cannot(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// openTAP opens a device and closes it when the test ends.
func openTAP(t testing.TB, cfg Config) *Endpoint {
	t.Helper()
	e, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		e.Close()
		e.Wait()
	})
	return e
}

// link is the kernel's side of e.
func link(t testing.TB, name string) netlink.Link {
	t.Helper()
	l, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatalf("look up %s: %v", name, err)
	}
	return l
}

// addPersistent makes a TAP device that exists on its own, as an administrator
// would, and leaves it up or down.
func addPersistent(t *testing.T, name string, mode netlink.TuntapMode, flags netlink.TuntapFlag, queues int, up bool) {
	t.Helper()
	l := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: name}, Mode: mode, Flags: flags, Queues: queues}
	if err := netlink.LinkAdd(l); err != nil {
		t.Fatalf("make %s: %v", name, err)
	}
	for _, f := range l.Fds {
		f.Close()
	}
	if up {
		if err := netlink.LinkSetUp(link(t, name)); err != nil {
			t.Fatalf("bring up %s: %v", name, err)
		}
	}
}

// addAddress gives the kernel's side of a device an address, usable at once.
func addAddress(t testing.TB, name, cidr string) {
	t.Helper()
	ip, ipnet, err := net.ParseCIDR(cidr)
	if err != nil {
		t.Fatal(err)
	}
	ipnet.IP = ip
	addr := &netlink.Addr{IPNet: ipnet, Flags: unix.IFA_F_NODAD}
	if err := netlink.AddrAdd(link(t, name), addr); err != nil {
		t.Fatalf("give %s to %s: %v", cidr, name, err)
	}
}

// eventually waits until cond holds. It yields between looks, and gives up with
// what after a while.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !cond(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("timed out waiting: %s", what)
		}
	}
}
