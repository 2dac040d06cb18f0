package stack

import (
	"fmt"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/link/loopback"
	gstack "gvisor.dev/gvisor/pkg/tcpip/stack"
)

// The stack's interfaces.
const (
	linkNIC     tcpip.NICID = 1
	loopbackNIC tcpip.NICID = 2

	loopbackName = "lo"
)

// addInterfaces makes the loopback interface and the link's, gives them their
// addresses and fills the route table.
func (s *Stack) addInterfaces() error {
	if s.cfg.Name == loopbackName {
		return fmt.Errorf("interface name %q is the loopback's", s.cfg.Name)
	}
	local := []netip.Prefix{netip.MustParsePrefix("127.0.0.1/8"), netip.MustParsePrefix("::1/128")}
	if s.cfg.Link == nil {
		local = append(local, s.cfg.Addresses...)
	}
	if err := s.addInterface(loopbackNIC, loopbackName, loopback.New(), local); err != nil {
		return err
	}
	if s.cfg.Link != nil {
		if err := s.addInterface(linkNIC, s.cfg.Name, s.cfg.Link, s.cfg.Addresses); err != nil {
			return err
		}
	}
	s.net.SetRouteTable(s.routes(local))
	return nil
}

func (s *Stack) addInterface(id tcpip.NICID, name string, link gstack.LinkEndpoint, addrs []netip.Prefix) error {
	if err := s.net.CreateNICWithOptions(id, link, gstack.NICOptions{Name: name}); err != nil {
		return fmt.Errorf("interface %s: %v", name, err)
	}
	s.names[id] = name
	for _, p := range addrs {
		pa := tcpip.ProtocolAddress{
			Protocol: netProto(p.Addr()),
			AddressWithPrefix: tcpip.AddressWithPrefix{
				Address:   toAddress(p.Addr()),
				PrefixLen: p.Bits(),
			},
		}
		if err := s.net.AddProtocolAddress(id, pa, gstack.AddressProperties{}); err != nil {
			return fmt.Errorf("interface %s: address %v: %v", name, p, err)
		}
	}
	return nil
}

// routes lists the networks on either interface, the configured routes and the
// gateways. The route table sorts them, longest prefix first.
func (s *Stack) routes(local []netip.Prefix) []tcpip.Route {
	var table []tcpip.Route
	add := func(id tcpip.NICID, p netip.Prefix, gw netip.Addr) {
		table = append(table, tcpip.Route{
			Destination: subnet(p),
			Gateway:     toAddress(gw),
			NIC:         id,
		})
	}
	for _, p := range local {
		add(loopbackNIC, p, netip.Addr{})
	}
	if s.cfg.Link == nil {
		return table
	}
	for _, p := range s.cfg.Addresses {
		add(linkNIC, p, netip.Addr{})
	}
	for _, r := range s.cfg.Routes {
		add(linkNIC, r.Network, r.Gateway)
	}
	add(linkNIC, netip.MustParsePrefix("fe80::/10"), netip.Addr{})
	for _, gw := range s.cfg.Gateways {
		all := netip.MustParsePrefix("::/0")
		if gw.Is4() {
			all = netip.MustParsePrefix("0.0.0.0/0")
		}
		add(linkNIC, all, gw)
	}
	return table
}

// subnet converts a prefix. Unlike toAddress it keeps an unspecified address.
func subnet(p netip.Prefix) tcpip.Subnet {
	p = p.Masked()
	return tcpip.AddressWithPrefix{
		Address:   tcpip.AddrFromSlice(p.Addr().AsSlice()),
		PrefixLen: p.Bits(),
	}.Subnet()
}
