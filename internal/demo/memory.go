package demo

import (
	"context"
	"fmt"
	"net/netip"
	"sync"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/pipe"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	gstack "gvisor.dev/gvisor/pkg/tcpip/stack"
	gtcp "gvisor.dev/gvisor/pkg/tcpip/transport/tcp"

	"github.com/tcprepair/ustack/internal/daemon"
	"github.com/tcprepair/ustack/internal/netlab"
)

const memoryNIC = 1

// memoryPeer is gVisor's own netstack and TCP at the other end of a pipe.
type memoryPeer struct {
	stack *gstack.Stack

	mu  sync.Mutex
	una map[netip.AddrPort]uint32 // SND.UNA of each connection, by its own end
}

// newMemoryPeer makes the peer's stack and hands its pipe's other end to cfg.
func newMemoryPeer(cfg *daemon.Config) (peer, error) {
	ours, theirs := pipe.New("\x02\x00\x00\x00\x00\x01", "\x02\x00\x00\x00\x00\x02", netlab.DefaultMTU)
	p := &memoryPeer{una: make(map[netip.AddrPort]uint32)}
	p.stack = gstack.New(gstack.Options{
		NetworkProtocols:   []gstack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol, arp.NewProtocol},
		TransportProtocols: []gstack.TransportProtocolFactory{gtcp.NewProtocolProbe(p.probe)},
	})
	// With RACK, gVisor's sender can crawl after a long silence: two segments
	// a timeout until all that was in flight is repaired.
	recovery := tcpip.TCPRecovery(0)
	if err := p.stack.SetTransportProtocolOption(gtcp.ProtocolNumber, &recovery); err != nil {
		p.close()
		return nil, fmt.Errorf("the peer's loss recovery: %v", err)
	}
	if err := p.stack.CreateNIC(memoryNIC, theirs); err != nil {
		p.close()
		return nil, fmt.Errorf("the peer's interface: %v", err)
	}
	for _, a := range netlab.KernelAddresses {
		protocol := tcpip.ProtocolAddress{
			Protocol: protocolOf(a.Addr()),
			AddressWithPrefix: tcpip.AddressWithPrefix{
				Address:   tcpip.AddrFromSlice(a.Addr().AsSlice()),
				PrefixLen: a.Bits(),
			},
		}
		if err := p.stack.AddProtocolAddress(memoryNIC, protocol, gstack.AddressProperties{}); err != nil {
			p.close()
			return nil, fmt.Errorf("the peer's address %v: %v", a, err)
		}
		p.stack.AddRoute(tcpip.Route{Destination: protocol.AddressWithPrefix.Subnet(), NIC: memoryNIC})
	}
	cfg.Link = ours
	return p, nil
}

func protocolOf(a netip.Addr) tcpip.NetworkProtocolNumber {
	if a.Is4() {
		return header.IPv4ProtocolNumber
	}
	return header.IPv6ProtocolNumber
}

// probe is called with a connection's state for each segment it receives.
func (p *memoryPeer) probe(s *gtcp.TCPEndpointState) {
	a, ok := netip.AddrFromSlice(s.ID.LocalAddress.AsSlice())
	if !ok {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.una[netip.AddrPortFrom(a, s.ID.LocalPort)] = uint32(s.Sender.SndUna)
}

func (p *memoryPeer) dial(ctx context.Context, to netip.AddrPort) (stream, error) {
	c, err := gonet.DialContextTCP(ctx, p.stack, tcpip.FullAddress{
		NIC:  memoryNIC,
		Addr: tcpip.AddrFromSlice(to.Addr().AsSlice()),
		Port: to.Port(),
	}, protocolOf(to.Addr()))
	if err != nil {
		return nil, err
	}
	return c, nil
}

// bytesAcked is SND.UNA, for gVisor keeps no count.
func (p *memoryPeer) bytesAcked(c stream) (uint32, error) {
	local, err := netip.ParseAddrPort(c.LocalAddr().String())
	if err != nil {
		return 0, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	una, ok := p.una[local]
	if !ok {
		return 0, fmt.Errorf("the peer has no connection from %v", local)
	}
	return una, nil
}

func (p *memoryPeer) close() {
	p.stack.Close()
	p.stack.Wait()
}
