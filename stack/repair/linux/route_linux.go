package linux

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// deviceTowards is the number of the device by which packets leave for an
// address.
func deviceTowards(to netip.Addr) (device int, err error) {
	to = to.Unmap()
	err = askKernel(unix.NETLINK_ROUTE, routeRequest(to), func(kind uint16, m []byte) bool {
		if kind != unix.RTM_NEWROUTE || len(m) < unix.SizeofRtMsg {
			return false
		}
		if oif := attribute(m[unix.SizeofRtMsg:], unix.RTA_OIF); len(oif) == 4 {
			device = int(binary.NativeEndian.Uint32(oif))
		}
		return false
	})
	return device, err
}

func routeRequest(to netip.Addr) []byte {
	family := byte(unix.AF_INET)
	if to.Is6() {
		family = unix.AF_INET6
	}
	addr := to.WithZone("").AsSlice()
	body := append([]byte{family, byte(to.BitLen())}, make([]byte, unix.SizeofRtMsg-2)...)
	body = binary.NativeEndian.AppendUint16(body, uint16(unix.SizeofRtAttr+len(addr)))
	body = binary.NativeEndian.AppendUint16(body, unix.RTA_DST)
	return netlinkRequest(unix.RTM_GETROUTE, 0, append(body, addr...))
}

// netlinkRequest puts the header before a request.
func netlinkRequest(kind, flags uint16, body []byte) []byte {
	b := binary.NativeEndian.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+len(body)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST|flags)
	b = append(b, make([]byte, 8)...) // sequence number, port
	return append(b, body...)
}

// askKernel sends a netlink request and hands the answers to f, until f is
// content with one (true wants more), or there are no more.
func askKernel(protocol int, request []byte, f func(kind uint16, message []byte) (more bool)) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return failed("netlink", err)
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return failed("netlink", err)
	}
	for buf := make([]byte, 16<<10); ; {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err != nil {
			return failed("netlink", err)
		}
		for b := buf[:n]; len(b) >= unix.SizeofNlMsghdr; {
			h := (*unix.NlMsghdr)(unsafe.Pointer(&b[0]))
			if h.Len < unix.SizeofNlMsghdr || int(h.Len) > len(b) {
				return failed("netlink", unix.EBADMSG)
			}
			message := b[unix.SizeofNlMsghdr:h.Len]
			switch h.Type {
			case unix.NLMSG_DONE:
				return nil
			case unix.NLMSG_ERROR:
				if len(message) < 4 {
					return failed("netlink", unix.EBADMSG)
				}
				return failed("netlink", unix.Errno(-int32(binary.NativeEndian.Uint32(message))))
			}
			if !f(h.Type, message) {
				return nil
			}
			b = b[aligned(int(h.Len), len(b)):]
		}
	}
}

// aligned is where the next message or attribute starts.
func aligned(length, limit int) int { return min(limit, (length+3)&^3) }

// attribute finds an attribute by its kind, nil if there is none.
func attribute(list []byte, kind uint16) []byte {
	for len(list) >= unix.SizeofNlAttr {
		length := int(binary.NativeEndian.Uint16(list))
		if length < unix.SizeofNlAttr || length > len(list) {
			return nil
		}
		if binary.NativeEndian.Uint16(list[2:]) == kind {
			return list[unix.SizeofNlAttr:length]
		}
		list = list[aligned(length, len(list)):]
	}
	return nil
}
