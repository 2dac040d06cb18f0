package netsim

import (
	"sync"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// linkEnd is a host's interface to a link. It carries IP packets as they are,
// without link headers, address resolution or offloads: each segment is a
// packet, with a checksum that is computed and verified, as corruption asks.
type linkEnd struct {
	out *pipe

	mu         sync.RWMutex
	dispatcher stack.NetworkDispatcher
	mtu        int
}

var _ stack.LinkEndpoint = (*linkEnd)(nil)

// WritePackets implements stack.LinkWriter.
func (e *linkEnd) WritePackets(pkts stack.PacketBufferList) (int, tcpip.Error) {
	for _, pkt := range pkts.AsSlice() {
		e.out.send(pkt)
	}
	return pkts.Len(), nil
}

// receive takes a packet from the link.
func (e *linkEnd) receive(b buffer.Buffer) {
	e.mu.RLock()
	d := e.dispatcher
	e.mu.RUnlock()
	if d == nil {
		b.Release()
		return
	}
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: b})
	d.DeliverNetworkPacket(header.IPv4ProtocolNumber, pkt)
	pkt.DecRef()
}

// Attach implements stack.NetworkLinkEndpoint.
func (e *linkEnd) Attach(d stack.NetworkDispatcher) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.dispatcher = d
}

// IsAttached implements stack.NetworkLinkEndpoint.
func (e *linkEnd) IsAttached() bool {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.dispatcher != nil
}

// MTU implements stack.NetworkLinkEndpoint.
func (e *linkEnd) MTU() uint32 {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return uint32(e.mtu)
}

// SetMTU implements stack.NetworkLinkEndpoint. It is the host's idea of the
// MTU; the link has its own.
func (e *linkEnd) SetMTU(mtu uint32) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.mtu = int(mtu)
}

// The rest of stack.NetworkLinkEndpoint: there is no link header, no link
// address and nothing that runs.

func (*linkEnd) MaxHeaderLength() uint16                      { return 0 }
func (*linkEnd) LinkAddress() tcpip.LinkAddress               { return "" }
func (*linkEnd) SetLinkAddress(tcpip.LinkAddress)             {}
func (*linkEnd) Capabilities() stack.LinkEndpointCapabilities { return stack.CapabilityNone }
func (*linkEnd) ARPHardwareType() header.ARPHardwareType      { return header.ARPHardwareNone }
func (*linkEnd) AddHeader(*stack.PacketBuffer)                {}
func (*linkEnd) ParseHeader(*stack.PacketBuffer) bool         { return true }
func (*linkEnd) Wait()                                        {}
func (*linkEnd) Close()                                       {}
func (*linkEnd) SetOnCloseAction(func())                      {}
