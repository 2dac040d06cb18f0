//go:build linux

package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/fdbased"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	gstack "gvisor.dev/gvisor/pkg/tcpip/stack"
	gtcp "gvisor.dev/gvisor/pkg/tcpip/transport/tcp"

	"github.com/tcprepair/ustack/internal/netlab"
	"github.com/tcprepair/ustack/stack"
	"github.com/tcprepair/ustack/stack/tap"
)

// The stacks that are compared, as latest.json names them.
const (
	stackOurs    = "ours"
	stackGvisor  = "gvisor_tap"
	stackFdbased = "gvisor_fdbased"
	stackKernel  = "kernel_veth"
)

// allStacks is in the order of the report.
var allStacks = []string{stackOurs, stackGvisor, stackFdbased, stackKernel}

// address is where every stack serves.
var address = netlab.PeerAddresses[0]

// hostStack is a stack to serve on.
type hostStack interface {
	// listen listens on a port for an ordinary Go program.
	listen(port uint16) (net.Listener, error)
	// hold accepts connections to the ports for idle ones and keeps them, with
	// as little around them as the stack allows.
	hold() (holder, error)
}

// newHostStack makes the stack of that name.
func newHostStack(name string) (hostStack, error) {
	switch name {
	case stackOurs:
		return newOurStack()
	case stackGvisor:
		link, err := openTAP()
		if err != nil {
			return nil, err
		}
		return newGvisorStack(link)
	case stackFdbased:
		link, err := openFdbased()
		if err != nil {
			return nil, err
		}
		return newGvisorStack(link)
	case stackKernel:
		return kernelStack{}, nil
	}
	return nil, fmt.Errorf("no stack %q", name)
}

// openTAP is our link.
func openTAP() (*tap.Endpoint, error) {
	defer unix.Close(tapDescriptor)
	return tap.Adopt(tapDescriptor, tap.Config{})
}

// openFdbased is gVisor's own link on a TAP device, with the options its own
// sample programs use there. It has no offloads on a device.
func openFdbased() (gstack.LinkEndpoint, error) {
	return fdbased.New(&fdbased.Options{
		FDs:            []int{tapDescriptor},
		MTU:            netlab.DefaultMTU,
		EthernetHeader: true,
		Address:        "\x02\x00\x00\x00\x00\x02",
	})
}

// ourStack is package stack, as embedders use it.
type ourStack struct{ *stack.Stack }

func newOurStack() (ourStack, error) {
	link, err := openTAP()
	if err != nil {
		return ourStack{}, err
	}
	s, err := stack.New(stack.Config{Link: link, Addresses: []netip.Prefix{address}})
	return ourStack{s}, err
}

func (s ourStack) listen(port uint16) (net.Listener, error) {
	l, err := s.Listen("tcp4", fmt.Sprintf(":%d", port))
	if err != nil {
		return nil, err
	}
	return l, nil
}

func (s ourStack) hold() (holder, error) { return holdEndpoints(s.NetStack()) }

// gvisorStack is gVisor's stack with its own TCP, as embedders use it: with
// gonet.
type gvisorStack struct{ *gstack.Stack }

// newGvisorStack sets gVisor's TCP to what ours does by default.
func newGvisorStack(link gstack.LinkEndpoint) (gvisorStack, error) {
	const nic = 1
	s := gvisorStack{gstack.New(gstack.Options{
		NetworkProtocols:   []gstack.NetworkProtocolFactory{ipv4.NewProtocol, arp.NewProtocol},
		TransportProtocols: []gstack.TransportProtocolFactory{gtcp.NewProtocolCUBIC},
		HandleLocal:        true,
	})}
	sack, moderate := tcpip.TCPSACKEnabled(true), tcpip.TCPModerateReceiveBufferOption(true)
	for _, o := range []tcpip.SettableTransportProtocolOption{&sack, &moderate} {
		if err := s.SetTransportProtocolOption(gtcp.ProtocolNumber, o); err != nil {
			return s, fmt.Errorf("TCP option %T: %v", o, err)
		}
	}
	if err := s.CreateNIC(nic, link); err != nil {
		return s, fmt.Errorf("interface: %v", err)
	}
	a := tcpip.AddressWithPrefix{Address: tcpip.AddrFrom4(address.Addr().As4()), PrefixLen: address.Bits()}
	if err := s.AddProtocolAddress(nic, tcpip.ProtocolAddress{Protocol: header.IPv4ProtocolNumber, AddressWithPrefix: a}, gstack.AddressProperties{}); err != nil {
		return s, fmt.Errorf("address: %v", err)
	}
	s.AddRoute(tcpip.Route{Destination: a.Subnet(), NIC: nic})
	return s, nil
}

func (s gvisorStack) listen(port uint16) (net.Listener, error) {
	return gonet.ListenTCP(s.Stack, tcpip.FullAddress{Port: port}, header.IPv4ProtocolNumber)
}

func (s gvisorStack) hold() (holder, error) { return holdEndpoints(s.Stack) }

// kernelStack is the kernel's TCP in the process's network namespace, as Go
// programs use it.
type kernelStack struct{}

func (kernelStack) listen(port uint16) (net.Listener, error) {
	// Multipath TCP, which Go asks for, is another protocol.
	cfg := net.ListenConfig{Control: controlCongestion}
	cfg.SetMultipathTCP(false)
	return cfg.Listen(context.Background(), "tcp4", fmt.Sprintf(":%d", port))
}

func (kernelStack) hold() (holder, error) { return holdSockets() }
