package stack

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
)

// toAddress converts an address to gVisor's form; the unspecified ones and the
// zero Addr become the empty Address, which is how gVisor says "any".
func toAddress(a netip.Addr) tcpip.Address {
	if !a.IsValid() || a.IsUnspecified() {
		return tcpip.Address{}
	}
	return tcpip.AddrFromSlice(a.Unmap().AsSlice())
}

// fromAddress converts back. The empty Address becomes the zero Addr.
func fromAddress(a tcpip.Address) netip.Addr {
	addr, _ := netip.AddrFromSlice(a.AsSlice())
	return addr.Unmap()
}

// netProto is the IP version that carries a.
func netProto(a netip.Addr) tcpip.NetworkProtocolNumber {
	if a.Unmap().Is4() {
		return ipv4.ProtocolNumber
	}
	return ipv6.ProtocolNumber
}

// toFull converts an address and port, finding the interface of its zone.
func (s *Stack) toFull(ap netip.AddrPort) (tcpip.FullAddress, error) {
	nic, err := s.zoneNIC(ap.Addr())
	return tcpip.FullAddress{NIC: nic, Addr: toAddress(ap.Addr()), Port: ap.Port()}, err
}

// fromFull converts back, giving link-local addresses their zone.
func (s *Stack) fromFull(f tcpip.FullAddress) netip.AddrPort {
	a := fromAddress(f.Addr)
	if needsZone(a) {
		nic := f.NIC
		if nic == 0 {
			nic = s.zoneless()
		}
		a = a.WithZone(s.names[nic])
	}
	return netip.AddrPortFrom(a, f.Port)
}

// needsZone reports whether a means something only together with an interface
// (RFC 4007 section 6).
func needsZone(a netip.Addr) bool {
	return a.Is6() && (a.IsLinkLocalUnicast() || a.IsLinkLocalMulticast())
}

// zoneNIC returns the interface that an address names by its zone, an interface
// name or number. A link-local address without one means the link, since there
// is only one. 0 leaves the choice to the route table.
func (s *Stack) zoneNIC(a netip.Addr) (tcpip.NICID, error) {
	zone := a.Zone()
	if zone == "" {
		if needsZone(a) {
			return s.zoneless(), nil
		}
		return 0, nil
	}
	for id, name := range s.names {
		if zone == name || zone == strconv.Itoa(int(id)) {
			return id, nil
		}
	}
	return 0, fmt.Errorf("no interface %q", zone)
}

// zoneless is the interface meant where none is named.
func (s *Stack) zoneless() tcpip.NICID {
	if _, ok := s.names[linkNIC]; ok {
		return linkNIC
	}
	return loopbackNIC
}

// tcpAddr converts to the form of package net.
func tcpAddr(ap netip.AddrPort) *net.TCPAddr { return net.TCPAddrFromAddrPort(ap) }

// family is a network's name taken apart: which IP versions it allows.
type family struct{ v4, v6 bool }

// parseNetwork accepts "tcp", "tcp4" and "tcp6".
func parseNetwork(network string) (family, error) {
	switch network {
	case "tcp":
		return family{v4: true, v6: true}, nil
	case "tcp4":
		return family{v4: true}, nil
	case "tcp6":
		return family{v6: true}, nil
	}
	return family{}, net.UnknownNetworkError(network)
}

// allows reports whether an address is of a version in f.
func (f family) allows(a netip.Addr) bool {
	if a.Unmap().Is4() {
		return f.v4
	}
	return f.v6
}
