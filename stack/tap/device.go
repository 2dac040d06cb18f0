//go:build linux

package tap

import (
	"fmt"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
)

// clonePath is the device that makes TAP devices.
const clonePath = "/dev/net/tun"

// Offload is what the kernel grants a device.
type Offload struct {
	// Header: every frame carries a virtio-net header, and the endpoint may
	// leave checksums and cutting to the kernel.
	Header bool
	// Checksum: the kernel may leave checksums to the endpoint, so that the
	// payload of packets from this machine is not verified at all.
	Checksum bool
	// TSO: TCP packets larger than the MTU cross the device both ways, over
	// IPv4 and IPv6.
	TSO bool
	// ECN: such packets may carry CWR.
	ECN bool
}

// String names the offloads in a word, for logs.
func (o Offload) String() string {
	var s []string
	for _, f := range []struct {
		on   bool
		name string
	}{{o.Header, "vnet"}, {o.Checksum, "csum"}, {o.TSO, "tso"}, {o.ECN, "ecn"}} {
		if f.on {
			s = append(s, f.name)
		}
	}
	if len(s) == 0 {
		return "none"
	}
	return strings.Join(s, "+")
}

// device is an attached TAP device, up and ready to carry frames.
type device struct {
	fd      int
	more    []int // of the same device, if it has several queues
	name    string
	flags   uint16 // as TUNSETIFF takes them
	offload Offload
	mtu     uint32
	address tcpip.LinkAddress // the kernel's side
}

// openDevice creates the device that cfg names, or attaches to it, through the
// clone device at path.
func openDevice(path string, cfg *Config) (*device, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, openError(cfg.label(), path, err)
	}
	created, err := attach(fd, cfg)
	if err == nil {
		var d *device
		if d, err = setUp(fd, cfg, created); err == nil {
			if err = d.addQueues(path, cfg.Queues-1); err == nil {
				return d, nil
			}
		}
	}
	unix.Close(fd)
	return nil, err
}

// addQueues attaches n more descriptors to the device. It needs the flags of the
// first. If it fails, it leaves none.
func (d *device) addQueues(path string, n int) error {
	for range n {
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err == nil {
			if err = setIff(fd, d.name, d.flags); err != nil {
				unix.Close(fd)
			}
		}
		if err != nil {
			for _, fd := range d.more {
				unix.Close(fd)
			}
			d.more = nil
			return deviceError(d.name, ErrQueues, err)
		}
		d.more = append(d.more, fd)
	}
	return nil
}

// fds are the device's descriptors, one a queue.
func (d *device) fds() []int { return append([]int{d.fd}, d.more...) }

// close closes all of them.
func (d *device) close() {
	for _, fd := range d.fds() {
		unix.Close(fd)
	}
}

// adoptDevice takes over the device that fd is attached to.
func adoptDevice(fd int, cfg *Config) (*device, error) {
	name, flags, err := attachment(fd)
	if err != nil {
		return nil, deviceError(fmt.Sprintf("descriptor %d", fd), ErrNotTAP, err)
	}
	if flags&unix.IFF_TAP == 0 {
		return nil, deviceError(name, ErrNotTAP, nil)
	}
	if pi, err := hasPacketInfo(fd); err != nil {
		return nil, fmt.Errorf("tap %s: read the device's flags: %w", name, err)
	} else if pi {
		return nil, deviceError(name, ErrFlags, nil)
	}
	if cfg.Name != "" && cfg.Name != name {
		return nil, fmt.Errorf("tap %s: %w: descriptor %d is attached to %s", cfg.Name, ErrName, fd, name)
	}
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("tap %s: duplicate descriptor %d: %w", name, fd, err)
	}
	err = unix.SetNonblock(own, true)
	if err == nil {
		var d *device
		if d, err = setUp(own, cfg, false); err == nil {
			return d, nil
		}
	}
	unix.Close(own)
	return nil, err
}

// attach attaches fd to the device that cfg names and reports whether that
// created it.
func attach(fd int, cfg *Config) (created bool, err error) {
	const plain = unix.IFF_TAP | unix.IFF_NO_PI
	want := uint16(plain | unix.IFF_VNET_HDR)
	if cfg.NoOffload {
		want = plain
	}
	candidates := []uint16{want, want | unix.IFF_MULTI_QUEUE, plain, plain | unix.IFF_MULTI_QUEUE}
	if cfg.Queues > 1 {
		want |= unix.IFF_MULTI_QUEUE
		candidates = []uint16{want, plain | unix.IFF_MULTI_QUEUE}
	}
	err = setIff(fd, cfg.Name, want|unix.IFF_TUN_EXCL)
	if err == nil {
		return true, nil
	}
	if err != unix.EBUSY {
		return false, attachError(cfg.label(), err)
	}
	// The device exists, and the kernel wants to see the flags it was made
	// with: EINVAL means they are others, or that it is no TAP device at all.
	for _, flags := range candidates {
		if err = setIff(fd, cfg.Name, flags); err != unix.EINVAL {
			break
		}
	}
	switch err {
	case nil:
		return false, nil
	case unix.EINVAL:
		if cfg.Queues > 1 {
			return false, deviceError(cfg.label(), ErrQueues, nil)
		}
		return false, deviceError(cfg.label(), ErrNotTAP, nil)
	}
	return false, attachError(cfg.label(), err)
}

// setUp agrees with the kernel on offloads and makes sure that frames will
// flow. Both when it succeeds and when it fails fd remains the caller's.
func setUp(fd int, cfg *Config, created bool) (*device, error) {
	name, flags, err := attachment(fd)
	if err != nil {
		return nil, deviceError(cfg.label(), ErrNotTAP, err)
	}
	d := &device{fd: fd, name: name, mtu: cfg.MTU, flags: flags & (unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR | unix.IFF_MULTI_QUEUE)}
	if err := d.negotiate(flags&unix.IFF_VNET_HDR != 0, cfg.NoOffload); err != nil {
		return nil, err
	}
	if d.address, err = hardwareAddress(fd); err != nil {
		return nil, fmt.Errorf("tap %s: read the device's address: %w", name, err)
	}
	ctl, err := openControl(fd, name)
	if err != nil {
		// The device is in a network namespace that is closed to us: what is
		// needed from it cannot be known, only assumed.
		if d.mtu == 0 {
			d.mtu = defaultMTU
		}
		return d, nil
	}
	defer ctl.close()
	if err := d.prepare(ctl, created); err != nil {
		return nil, err
	}
	return d, nil
}

// queueLength is how many frames a device of our making keeps for its reader.
// The kernel's default of 1,000 is one each for so many connections; what finds
// no room is lost.
const queueLength = 10_000

// prepare brings up a device of our own making and checks that any other is.
func (d *device) prepare(ctl *control, created bool) error {
	if created && d.mtu != 0 {
		if err := ctl.setMTU(d.mtu); err != nil {
			return fmt.Errorf("tap %s: set the MTU to %d: %w", d.name, d.mtu, err)
		}
	}
	if d.mtu == 0 {
		mtu, err := ctl.mtu()
		if err != nil {
			return fmt.Errorf("tap %s: read the MTU: %w", d.name, err)
		}
		d.mtu = mtu
	}
	if created {
		if err := ctl.setQueueLength(queueLength); err != nil {
			return fmt.Errorf("tap %s: set the length of its queue: %w", d.name, err)
		}
		if err := ctl.bringUp(); err != nil {
			return fmt.Errorf("tap %s: bring the device up: %w", d.name, err)
		}
		return nil
	}
	up, err := ctl.isUp()
	if err != nil {
		return fmt.Errorf("tap %s: read the device's flags: %w", d.name, err)
	}
	if !up {
		return deviceError(d.name, ErrDown, nil)
	}
	return nil
}

// negotiate fixes the format of the header, if frames have one, and asks for
// as much offload as the kernel will grant. The device remembers what its last
// user asked for, so that wanting nothing must be said too.
func (d *device) negotiate(header, noOffload bool) error {
	if header {
		if err := setInt(d.fd, unix.TUNSETVNETHDRSZ, vnetHeaderSize); err != nil {
			return fmt.Errorf("tap %s: set the header size: %w", d.name, err)
		}
		if err := setInt(d.fd, unix.TUNSETVNETLE, 1); err != nil {
			return fmt.Errorf("tap %s: set the header's byte order: %w", d.name, err)
		}
	}
	d.offload.Header = header
	grants := []Offload{{}}
	if header && !noOffload {
		grants = []Offload{
			{Header: true, Checksum: true, TSO: true, ECN: true},
			{Header: true, Checksum: true, TSO: true},
			{Header: true, Checksum: true},
			{Header: true},
		}
	}
	for _, o := range grants {
		if unix.IoctlSetInt(d.fd, unix.TUNSETOFFLOAD, o.tunFlags()) == nil {
			o.Header = header
			d.offload = o
			break
		}
	}
	return nil
}

// tunFlags is o as TUNSETOFFLOAD takes it.
func (o Offload) tunFlags() int {
	var f int
	if o.Checksum {
		f |= unix.TUN_F_CSUM
	}
	if o.TSO {
		f |= unix.TUN_F_TSO4 | unix.TUN_F_TSO6
	}
	if o.ECN {
		f |= unix.TUN_F_TSO_ECN
	}
	return f
}

// setIff is TUNSETIFF: it attaches fd to a device.
func setIff(fd int, name string, flags uint16) error {
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	ifr.SetUint16(flags)
	return unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
}

// hasPacketInfo reports whether the frames of the TAP device that fd is
// attached to have packet information before them (no IFF_NO_PI).
//
// TUNGETIFF has one bit for two things, IFF_NO_PI and the absence of a socket
// filter, so it tells the truth about the first only while there is a filter.
func hasPacketInfo(fd int) (bool, error) {
	_, flags, err := attachment(fd)
	if err != nil || flags&unix.IFF_NO_PI == 0 {
		return true, err
	}
	passAll := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 1<<32 - 1}
	program := unix.SockFprog{Len: 1, Filter: &passAll}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TUNATTACHFILTER, uintptr(unsafe.Pointer(&program))); errno != 0 {
		return false, errno
	}
	_, flags, err = attachment(fd)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TUNDETACHFILTER, uintptr(unsafe.Pointer(&program))); err == nil && errno != 0 {
		err = errno
	}
	return flags&unix.IFF_NO_PI == 0, err
}

// attachment is TUNGETIFF: which device fd is attached to, and its flags.
func attachment(fd int) (name string, flags uint16, err error) {
	ifr, err := unix.NewIfreq("")
	if err != nil {
		return "", 0, err
	}
	if err := unix.IoctlIfreq(fd, unix.TUNGETIFF, ifr); err != nil {
		return "", 0, err
	}
	return ifr.Name(), ifr.Uint16(), nil
}

// hardwareAddress asks the TAP descriptor itself for the device's MAC, which
// works from any network namespace.
func hardwareAddress(fd int) (tcpip.LinkAddress, error) {
	var ifr struct {
		name   [unix.IFNAMSIZ]byte
		family uint16
		addr   [6]byte
		_      [16]byte
	}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCGIFHWADDR, uintptr(unsafe.Pointer(&ifr)))
	if errno != 0 {
		return "", errno
	}
	return tcpip.LinkAddress(ifr.addr[:]), nil
}

// setInt is an ioctl that takes a pointer to an int.
func setInt(fd int, req uint, v int) error { return unix.IoctlSetPointerInt(fd, req, v) }
