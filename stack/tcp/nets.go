package tcp

import (
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// netSet says which network protocols an endpoint receives from. It is a byte
// for what gVisor wants as a slice, which each endpoint would have to keep.
type netSet uint8

const (
	onlyIPv4 netSet = iota
	onlyIPv6
	bothNets // an IPv6 wildcard that is not v6only
)

var netLists = [...][]tcpip.NetworkProtocolNumber{
	onlyIPv4: {header.IPv4ProtocolNumber},
	onlyIPv6: {header.IPv6ProtocolNumber},
	bothNets: {header.IPv6ProtocolNumber, header.IPv4ProtocolNumber},
}

// list is what gVisor wants; it is not to be written to.
func (s netSet) list() []tcpip.NetworkProtocolNumber { return netLists[s] }

// has reports whether the set has a protocol.
func (s netSet) has(net tcpip.NetworkProtocolNumber) bool { return s == bothNets || s == only(net) }

// only is the set of one protocol.
func only(net tcpip.NetworkProtocolNumber) netSet {
	if net == header.IPv6ProtocolNumber {
		return onlyIPv6
	}
	return onlyIPv4
}
