package tcp

import (
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/tcprepair/ustack/stack/repair"
)

// What a user wants of IP moves with a connection.

// ipSettings reads the endpoint's. e.mu is held.
func (e *Endpoint) ipSettings() repair.IPSettings {
	s := e.settings
	x := repair.IPSettings{TTL: s.ttl, TOS: s.tos, MTUDiscovery: mtuDiscoveries[s.mtuDiscover]}
	if e.net == header.IPv6ProtocolNumber {
		x.TTL, x.TOS = s.hopLimit, s.trafficClass
	}
	if nic := e.options().GetBindToDevice(); nic != 0 {
		x.Device = e.proto.stack.FindNICNameFromID(tcpip.NICID(nic))
	}
	return x
}

// setIP takes a snapshot's, but for the device.
func (s *settings) setIP(net tcpip.NetworkProtocolNumber, x *repair.IPSettings) {
	if net == header.IPv6ProtocolNumber {
		s.hopLimit, s.trafficClass = x.TTL, x.TOS&^ecnMask
	} else {
		s.ttl, s.tos = x.TTL, x.TOS&^ecnMask
	}
	switch x.MTUDiscovery {
	case repair.MTUDiscoveryDont, repair.MTUDiscoveryInterface, repair.MTUDiscoveryOmit:
		s.mtuDiscover = mtuDiscovery(tcpip.PMTUDiscoveryDont) // none of these believes in a path's MTU
	case repair.MTUDiscoveryDo:
		s.mtuDiscover = mtuDiscovery(tcpip.PMTUDiscoveryDo)
	case repair.MTUDiscoveryProbe:
		s.mtuDiscover = mtuDiscovery(tcpip.PMTUDiscoveryProbe)
	}
}

// mtuDiscoveries translates gVisor's strategies. The first is what an endpoint
// has whose user has asked for none.
var mtuDiscoveries = [...]repair.MTUDiscovery{
	tcpip.PMTUDiscoveryWant:  repair.MTUDiscoveryDefault,
	tcpip.PMTUDiscoveryDont:  repair.MTUDiscoveryDont,
	tcpip.PMTUDiscoveryDo:    repair.MTUDiscoveryDo,
	tcpip.PMTUDiscoveryProbe: repair.MTUDiscoveryProbe,
}

// device is the interface that a snapshot's socket was bound to, if there is one
// of that name here; 0 if there is none.
func device(s *stack.Stack, x *repair.Extra) tcpip.NICID {
	if x == nil || x.IP.Device == "" {
		return 0
	}
	for id, nic := range s.NICInfo() {
		if nic.Name == x.IP.Device {
			return id
		}
	}
	return 0
}
