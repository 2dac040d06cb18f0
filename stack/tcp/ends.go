package tcp

import (
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// ends are the two ends of a connection, as far as they are known: what a
// stack.TransportEndpointID says, in three fifths of its size.
type ends struct {
	local, remote         [header.IPv6AddressSize]byte
	localPort, remotePort uint16
	localLen, remoteLen   uint8 // of the addresses, in bytes; 0: there is none
}

func endsOf(id stack.TransportEndpointID) (x ends) {
	x.localPort, x.remotePort = id.LocalPort, id.RemotePort
	x.localLen = uint8(copy(x.local[:], id.LocalAddress.AsSlice()))
	x.remoteLen = uint8(copy(x.remote[:], id.RemoteAddress.AsSlice()))
	return x
}

func (x *ends) id() stack.TransportEndpointID {
	return stack.TransportEndpointID{
		LocalPort:     x.localPort,
		LocalAddress:  x.localAddress(),
		RemotePort:    x.remotePort,
		RemoteAddress: x.remoteAddress(),
	}
}

func (x *ends) localAddress() tcpip.Address { return address(&x.local, x.localLen) }

func (x *ends) remoteAddress() tcpip.Address { return address(&x.remote, x.remoteLen) }

func address(a *[header.IPv6AddressSize]byte, size uint8) tcpip.Address {
	switch size {
	case header.IPv4AddressSize:
		return tcpip.AddrFrom4([header.IPv4AddressSize]byte(a[:]))
	case header.IPv6AddressSize:
		return tcpip.AddrFrom16(*a)
	}
	return tcpip.Address{}
}

// flowHash spreads flows over a link's queues. It is the same for all of a
// flow's packets and not zero, which would mean no hash.
func (x *ends) flowHash() uint32 {
	const prime = 16777619 // FNV-1a's
	h := uint32(2166136261)
	mix := func(b byte) { h = (h ^ uint32(b)) * prime }
	for _, b := range x.remote[:x.remoteLen] {
		mix(b)
	}
	for _, b := range [...]byte{
		byte(x.localPort >> 8), byte(x.localPort),
		byte(x.remotePort >> 8), byte(x.remotePort),
	} {
		mix(b)
	}
	return h | 1
}
