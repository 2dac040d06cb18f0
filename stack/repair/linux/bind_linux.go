package linux

import (
	"net"
	"net/netip"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tcprepair/ustack/stack/repair"
)

// Bind implements repair.Socket.
func (s *Socket) Bind(local netip.AddrPort) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bind(local)
}

func (s *Socket) bind(local netip.AddrPort) error {
	sa, err := sockaddr(local)
	if err != nil {
		return err
	}
	return failedAs("bind "+local.String(), unix.Bind(s.fd, sa), map[unix.Errno]error{
		unix.EADDRNOTAVAIL: repair.ErrAddress,
		unix.ENODEV:        repair.ErrAddress,
	})
}

// Connect implements repair.Socket.
func (s *Socket) Connect(remote netip.AddrPort) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.connect(remote)
}

func (s *Socket) connect(remote netip.AddrPort) error {
	sa, err := sockaddr(remote)
	if err != nil {
		return err
	}
	return failedAs("connect "+remote.String(), unix.Connect(s.fd, sa), map[unix.Errno]error{
		// The address is bound already, so it can only be the pair.
		unix.EADDRNOTAVAIL: repair.ErrAddrInUse,
	})
}

// disconnect takes a connection out of the kernel's tables, silently if it is
// frozen.
func disconnect(fd int) error {
	var unspecified unix.RawSockaddrInet4 // AF_UNSPEC is 0
	_, _, errno := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&unspecified)), unsafe.Sizeof(unspecified))
	if errno != 0 {
		return failed("disconnect", errno)
	}
	return nil
}

func sockaddr(a netip.AddrPort) (unix.Sockaddr, error) {
	addr := a.Addr()
	if addr.Is4() {
		return &unix.SockaddrInet4{Addr: addr.As4(), Port: int(a.Port())}, nil
	}
	sa := &unix.SockaddrInet6{Addr: addr.As16(), Port: int(a.Port())}
	if zone := addr.Zone(); zone != "" {
		index, err := zoneIndex(zone)
		if err != nil {
			return nil, err
		}
		sa.ZoneId = index
	}
	return sa, nil
}

// zoneIndex is the number of the device a zone names.
func zoneIndex(zone string) (uint32, error) {
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(n), nil
	}
	device, err := net.InterfaceByName(zone)
	if err != nil {
		return 0, failedAs("zone "+zone, unix.ENODEV, map[unix.Errno]error{unix.ENODEV: repair.ErrAddress})
	}
	return uint32(device.Index), nil
}

// addrPort is the address of a socket. An IPv6 socket that speaks IPv4 has an
// IPv4 address.
func addrPort(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		addr := netip.AddrFrom16(sa.Addr).Unmap()
		if sa.ZoneId != 0 {
			addr = addr.WithZone(strconv.FormatUint(uint64(sa.ZoneId), 10))
		}
		return netip.AddrPortFrom(addr, uint16(sa.Port))
	}
	return netip.AddrPort{}
}
