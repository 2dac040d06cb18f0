package linux

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/tcprepair/ustack/stack/repair"
)

// ipOptions are the names of the same options for a family of addresses. A
// socket of IPv6 that speaks IPv4 has both, and those of IPv4 count.
type ipOptions struct {
	level, ttl, tos, discover int
}

func ipOptionsFor(a netip.Addr) ipOptions {
	if a.Unmap().Is4() {
		return ipOptions{unix.IPPROTO_IP, unix.IP_TTL, unix.IP_TOS, unix.IP_MTU_DISCOVER}
	}
	return ipOptions{unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, unix.IPV6_TCLASS, unix.IPV6_MTU_DISCOVER}
}

// ecnBits of the type of service are TCP's own business.
const ecnBits = 3

// ipSettings are those in force. The kernel does not tell which of them the user
// has chosen.
func (s *Socket) ipSettings(local netip.Addr) (x repair.IPSettings, err error) {
	o := ipOptionsFor(local)
	get := func(name string, option int) (v int) {
		if err == nil {
			v, err = unix.GetsockoptInt(s.fd, o.level, option)
			err = failed(name, err)
		}
		return v
	}
	x.TTL = uint8(get("IP_TTL", o.ttl))
	x.TOS = uint8(get("IP_TOS", o.tos)) &^ ecnBits
	x.MTUDiscovery = repair.MTUDiscovery(get("IP_MTU_DISCOVER", o.discover) + 1)
	if err == nil {
		x.Device, err = unix.GetsockoptString(s.fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE)
		err = failed("SO_BINDTODEVICE", err)
	}
	return x, err
}

// applyIP gives a fresh socket the settings of another; what the kernel refuses
// keeps its default.
func (s *Socket) applyIP(local netip.Addr, x *repair.IPSettings) {
	o := ipOptionsFor(local)
	set := func(option, value int) { _ = unix.SetsockoptInt(s.fd, o.level, option, value) }
	if x.TTL != 0 {
		set(o.ttl, int(x.TTL))
	}
	if x.TOS&^ecnBits != 0 {
		set(o.tos, int(x.TOS&^ecnBits))
	}
	if x.MTUDiscovery != repair.MTUDiscoveryDefault {
		set(o.discover, int(x.MTUDiscovery)-1)
	}
}

// applyDevice binds a socket to the device that it was bound to, if there is one
// of that name. To the kernel this is part of its place: it comes before connect
// where the place is free, and after it where somebody gives way.
func (s *Socket) applyDevice(p *plan) {
	if p.Extra != nil && p.Extra.IP.Device != "" {
		_ = unix.BindToDevice(s.fd, p.Extra.IP.Device)
	}
}
