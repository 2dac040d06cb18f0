package linux

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Of include/uapi/linux/inet_diag.h and sock_diag.h.
const (
	sockDiagByFamily = 20
	diagRequestLen   = 56 // struct inet_diag_req_v2
	diagMessageLen   = 72 // struct inet_diag_msg
	diagOnlyIPv6     = 11 // INET_DIAG_SKV6ONLY
	stateListen      = 10
)

// listenerHolds reports whether a listener would take connections to the
// address. If the kernel does not tell, there is none.
func listenerHolds(local netip.AddrPort) (found bool) {
	families := []byte{unix.AF_INET6}
	if local.Addr().Unmap().Is4() {
		families = append(families, unix.AF_INET)
	}
	for _, family := range families {
		body := make([]byte, diagRequestLen)
		body[0], body[1] = family, unix.IPPROTO_TCP
		binary.NativeEndian.PutUint32(body[4:], 1<<stateListen)
		binary.BigEndian.PutUint16(body[8:], local.Port())
		_ = askKernel(unix.NETLINK_SOCK_DIAG, netlinkRequest(sockDiagByFamily, unix.NLM_F_DUMP, body), func(kind uint16, m []byte) bool {
			found = found || kind == sockDiagByFamily && covers(m, local)
			return !found
		})
	}
	return found
}

// covers reports whether a struct inet_diag_msg, with its attributes, is of a
// listener that takes connections to the address.
func covers(m []byte, local netip.AddrPort) bool {
	if len(m) < diagMessageLen || binary.BigEndian.Uint16(m[4:]) != local.Port() {
		return false
	}
	want := local.Addr().Unmap().WithZone("")
	six := m[0] == unix.AF_INET6
	at := netip.AddrFrom4([4]byte(m[8:12]))
	if six {
		at = netip.AddrFrom16([16]byte(m[8:24])).Unmap()
	}
	if !at.IsUnspecified() {
		return at == want
	}
	only := attribute(m[diagMessageLen:], diagOnlyIPv6)
	return six == want.Is6() || six && (len(only) == 0 || only[0] == 0)
}
