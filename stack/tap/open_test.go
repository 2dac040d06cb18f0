//go:build linux

package tap

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// wantError checks that err is of the kind want and one line that names the
// device.
func wantError(t *testing.T, err, want error, name string) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got error %v, want %v", err, want)
		return
	}
	if s := err.Error(); strings.Contains(s, "\n") || !strings.Contains(s, name) {
		t.Errorf("not one line that names %s: %q", name, s)
	}
}

func TestBadConfig(t *testing.T) {
	for _, tt := range []struct {
		cfg  Config
		want error
	}{
		{Config{Name: "sixteen-bytes-16"}, ErrName},
		{Config{Name: "a/b"}, ErrName},
		{Config{Name: "a b"}, ErrName},
		{Config{Name: "a:1"}, ErrName},
		{Config{Name: "a\x00"}, ErrName},
		{Config{Name: "a\xa0"}, ErrName},
		{Config{Name: ".."}, ErrName},
		{Config{Name: "tap0", MTU: 67}, ErrMTU},
		{Config{Name: "tap0", MTU: 65522}, ErrMTU},
		{Config{Name: "tap0", Address: "\x02\x00"}, ErrAddress},
		{Config{Name: "tap0", Address: "\x03\x00\x00\x00\x00\x01"}, ErrAddress},
		{Config{Name: "tap0", Address: "\x00\x00\x00\x00\x00\x00"}, ErrAddress},
	} {
		_, err := Open(tt.cfg)
		wantError(t, err, tt.want, tt.cfg.Name[:1])
		_, err = Adopt(0, tt.cfg)
		wantError(t, err, tt.want, tt.cfg.Name[:1])
	}
	for _, cfg := range []Config{
		{}, {Name: "fifteen-bytes15"}, {Name: "tap%d"}, {Name: "tap0", MTU: 68}, {Name: "tap0", MTU: 65521},
		{Name: "tap0", Address: ourMAC},
	} {
		if err := cfg.validate(); err != nil {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
}

func TestRandomAddress(t *testing.T) {
	seen := make(map[tcpip.LinkAddress]bool)
	for range 100 {
		a := randomAddress()
		if !header.IsValidUnicastEthernetAddress(a) || a[0]&2 == 0 || seen[a] {
			t.Errorf("%s: not unicast, not locally administered, or not new", a)
		}
		seen[a] = true
	}
}

func TestNoTUN(t *testing.T) {
	_, err := open(filepath.Join(t.TempDir(), "tun"), Config{Name: "tap0"})
	wantError(t, err, ErrNoTUN, "tap0")
}

func TestCloneDeviceIsNone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tun")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := open(path, Config{Name: "tap0"}); err == nil || !strings.Contains(err.Error(), "tap0") {
		t.Errorf("a plain file for a clone device: got %v", err)
	}
}

func TestOpenCreates(t *testing.T) {
	enterNamespace(t)
	e := openTAP(t, Config{Name: "ours", MTU: 9000})
	attrs := link(t, "ours").Attrs()
	if attrs.Flags&net.FlagUp == 0 || attrs.MTU != 9000 || e.MTU() != 9000 {
		t.Errorf("flags %v, MTU %d, endpoint's MTU %d", attrs.Flags, attrs.MTU, e.MTU())
	}
	if want := (Offload{Header: true, Checksum: true, TSO: true, ECN: true}); e.Offload() != want {
		t.Errorf("granted %v, want %v", e.Offload(), want)
	}
	if e.Name() != "ours" || e.SupportedGSO() != stack.HostGSOSupported || e.GSOMaxSize() != 65535 {
		t.Errorf("name %q, GSO %d up to %d", e.Name(), e.SupportedGSO(), e.GSOMaxSize())
	}
	if string(e.LinkAddress()) == string(attrs.HardwareAddr) || len(e.LinkAddress()) != 6 {
		t.Errorf("address %s beside the kernel's %s", e.LinkAddress(), attrs.HardwareAddr)
	}

	any := openTAP(t, Config{})
	if any.Name() == "" || link(t, any.Name()).Attrs().Flags&net.FlagUp == 0 {
		t.Errorf("unnamed device: name %q", any.Name())
	}
	numbered := openTAP(t, Config{Name: "gw%d", Address: ourMAC})
	if numbered.Name() != "gw0" || numbered.LinkAddress() != ourMAC || numbered.MTU() != 1500 {
		t.Errorf("name %q, address %s, MTU %d", numbered.Name(), numbered.LinkAddress(), numbered.MTU())
	}

	e.Close()
	eventually(t, "the device goes with its endpoint", func() bool {
		_, err := netlink.LinkByName("ours")
		return errors.As(err, new(netlink.LinkNotFoundError))
	})
}

func TestNoOffload(t *testing.T) {
	enterNamespace(t)
	e := openTAP(t, Config{Name: "plain", NoOffload: true})
	if e.Offload() != (Offload{}) || e.SupportedGSO() != stack.GSONotSupported {
		t.Errorf("offload %v, GSO %v", e.Offload(), e.SupportedGSO())
	}
}

func TestBusy(t *testing.T) {
	enterNamespace(t)
	openTAP(t, Config{Name: "one"})
	_, err := Open(Config{Name: "one"})
	wantError(t, err, ErrBusy, "one")
}

func TestNotTAP(t *testing.T) {
	enterNamespace(t)
	addPersistent(t, "tun0", netlink.TUNTAP_MODE_TUN, netlink.TUNTAP_NO_PI, 0, true)
	for _, name := range []string{"lo", "tun0"} {
		_, err := Open(Config{Name: name})
		wantError(t, err, ErrNotTAP, name)
	}
}

func TestDown(t *testing.T) {
	enterNamespace(t)
	addPersistent(t, "down", netlink.TUNTAP_MODE_TAP, netlink.TUNTAP_DEFAULTS, 0, false)
	_, err := Open(Config{Name: "down"})
	wantError(t, err, ErrDown, "down")
	if link(t, "down").Attrs().Flags&net.FlagUp != 0 {
		t.Error("a refused device was brought up")
	}
}

func TestOwnAddressIsDevices(t *testing.T) {
	enterNamespace(t)
	addPersistent(t, "tap0", netlink.TUNTAP_MODE_TAP, netlink.TUNTAP_DEFAULTS, 0, true)
	mac := tcpip.LinkAddress(link(t, "tap0").Attrs().HardwareAddr)
	_, err := Open(Config{Name: "tap0", Address: mac})
	wantError(t, err, ErrAddress, "tap0")
	// Whatever was refused has let go of the device.
	openTAP(t, Config{Name: "tap0"})
}

// TestPersistent opens devices that were made beforehand with various flags,
// whatever those are, and finds their settings respected.
func TestPersistent(t *testing.T) {
	full := Offload{Header: true, Checksum: true, TSO: true, ECN: true}
	for _, tt := range []struct {
		name   string
		flags  netlink.TuntapFlag
		queues int
	}{
		{"default", netlink.TUNTAP_DEFAULTS, 0},
		{"no vnet", netlink.TUNTAP_NO_PI, 0},
		{"vnet", netlink.TUNTAP_NO_PI | netlink.TUNTAP_VNET_HDR, 0},
		{"multiqueue", netlink.TUNTAP_MULTI_QUEUE_DEFAULTS, 2},
		{"multiqueue vnet", netlink.TUNTAP_MULTI_QUEUE_DEFAULTS | netlink.TUNTAP_VNET_HDR, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			enterNamespace(t)
			addPersistent(t, "tap0", netlink.TUNTAP_MODE_TAP, tt.flags, tt.queues, true)
			if err := netlink.LinkSetMTU(link(t, "tap0"), 1280); err != nil {
				t.Fatal(err)
			}
			e := openTAP(t, Config{Name: "tap0"})
			if e.MTU() != 1280 || e.Offload() != full {
				t.Errorf("MTU %d, offload %v", e.MTU(), e.Offload())
			}
			e.Close()
			e.Wait()
			link(t, "tap0") // still there

			plain := openTAP(t, Config{Name: "tap0", NoOffload: true, MTU: 1400})
			if plain.Offload() != (Offload{}) || plain.MTU() != 1400 || link(t, "tap0").Attrs().MTU != 1280 {
				t.Errorf("plain: offload %v, MTU %d", plain.Offload(), plain.MTU())
			}
		})
	}
}

// TestPermission opens a device as a user who may not: one thread of the test
// gives up its rights for a while.
func TestPermission(t *testing.T) {
	enterNamespace(t)
	path := filepath.Join(t.TempDir(), "tun")
	if err := unix.Mknod(path, unix.S_IFCHR|0o666, int(unix.Mkdev(10, 200))); err != nil {
		cannot(t, "make a clone device that anyone may open: %v", err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{filepath.Dir(path), filepath.Dir(filepath.Dir(path))} {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// Set back at the end, so that the files can be removed.
	const nobody = 65534
	defer unix.RawSyscall(unix.SYS_SETRESUID, 0, 0, 0)
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, nobody, nobody, 0); errno != 0 {
		t.Fatalf("become nobody: %v", errno)
	}
	// The clone device opens, the TAP device does not.
	_, err := open(path, Config{Name: "tap0"})
	wantError(t, err, ErrPermission, "tap0")
	if !errors.Is(err, unix.EPERM) {
		t.Errorf("create a device: got %v, want %v", err, unix.EPERM)
	}
	if unix.Access(clonePath, unix.R_OK|unix.W_OK) != nil {
		_, err := Open(Config{Name: "tap0"})
		wantError(t, err, ErrPermission, "tap0")
	}
}

// attachedFD is a descriptor that is attached to a new device.
func attachedFD(t *testing.T, name string, flags uint16) int {
	t.Helper()
	fd, err := unix.Open(clonePath, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := setIff(fd, name, flags); err != nil {
		t.Fatalf("attach to %s: %v", name, err)
	}
	return fd
}

func TestAdopt(t *testing.T) {
	enterNamespace(t)
	const tapFlags = unix.IFF_TAP | unix.IFF_NO_PI
	fd := attachedFD(t, "tap0", tapFlags|unix.IFF_VNET_HDR)
	_, err := Adopt(fd, Config{})
	wantError(t, err, ErrDown, "tap0")
	_, err = Adopt(fd, Config{Name: "tap1"})
	wantError(t, err, ErrName, "tap1")

	l := link(t, "tap0")
	if err := errors.Join(netlink.LinkSetMTU(l, 1300), netlink.LinkSetUp(l)); err != nil {
		t.Fatal(err)
	}
	e, err := Adopt(fd, Config{Name: "tap0"})
	if err != nil {
		t.Fatal(err)
	}
	if e.Name() != "tap0" || e.MTU() != 1300 || !e.Offload().TSO {
		t.Errorf("name %q, MTU %d, offload %v", e.Name(), e.MTU(), e.Offload())
	}
	e.Close()
	if _, _, err := attachment(fd); err != nil {
		t.Errorf("the caller's descriptor went with the endpoint: %v", err)
	}

	// A device without virtio-net headers is used as it is.
	plain := attachedFD(t, "tap2", tapFlags)
	if err := netlink.LinkSetUp(link(t, "tap2")); err != nil {
		t.Fatal(err)
	}
	p, err := Adopt(plain, Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if p.Offload() != (Offload{}) {
		t.Errorf("offload %v without headers", p.Offload())
	}
}

func TestAdoptRefuses(t *testing.T) {
	enterNamespace(t)
	pi := attachedFD(t, "tap0", unix.IFF_TAP)
	_, err := Adopt(pi, Config{})
	wantError(t, err, ErrFlags, "tap0")
	tun := attachedFD(t, "tun0", unix.IFF_TUN|unix.IFF_NO_PI)
	_, err = Adopt(tun, Config{})
	wantError(t, err, ErrNotTAP, "tun0")

	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	unattached, err := os.OpenFile(clonePath, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unattached.Close()
	for _, fd := range []int{int(w.Fd()), int(unattached.Fd()), -1} {
		_, err = Adopt(fd, Config{})
		wantError(t, err, ErrNotTAP, "descriptor")
	}
}

// TestAdoptAbroad adopts a device from another network namespace, where one of
// the same name would be a trap.
func TestAdoptAbroad(t *testing.T) {
	enterNamespace(t)
	addPersistent(t, "tap0", netlink.TUNTAP_MODE_TAP, netlink.TUNTAP_DEFAULTS, 0, false)
	type remote struct {
		fd  int
		err error
	}
	c := make(chan remote)
	go func() {
		fd, err := abroad()
		c <- remote{fd, err}
	}()
	r := <-c
	if r.err != nil {
		t.Fatal(r.err)
	}
	defer unix.Close(r.fd)
	e, err := Adopt(r.fd, Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if e.MTU() != 1280 {
		t.Errorf("MTU %d, want the device's", e.MTU())
	}
}

// abroad makes a device in a new network namespace, up and with an MTU of 1280.
// It uses up its goroutine's thread.
func abroad() (int, error) {
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return -1, err
	}
	fd, err := unix.Open(clonePath, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := setIff(fd, "tap0", unix.IFF_TAP|unix.IFF_NO_PI|unix.IFF_VNET_HDR); err != nil {
		return -1, err
	}
	l, err := netlink.LinkByName("tap0")
	if err == nil {
		err = errors.Join(netlink.LinkSetMTU(l, 1280), netlink.LinkSetUp(l))
	}
	return fd, err
}
