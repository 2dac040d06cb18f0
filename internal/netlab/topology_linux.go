package netlab

import "net/netip"

// Addresses of the two ends in the ready-made topologies, IPv4 and IPv6.
var (
	// KernelAddresses are the kernel's: the near end.
	KernelAddresses = []netip.Prefix{netip.MustParsePrefix("10.77.0.1/24"), netip.MustParsePrefix("fd77::1/64")}
	// PeerAddresses are for the other end: a stack on a TAP, or a second kernel
	// namespace.
	PeerAddresses = []netip.Prefix{netip.MustParsePrefix("10.77.0.2/24"), netip.MustParsePrefix("fd77::2/64")}
)

// Link describes a ready-made topology. Its zero value is a link of MTU 1500.
type Link struct {
	// MTU of all its devices; 0 means DefaultMTU.
	MTU int
	// Plain makes the TAP that the stack adopts one without virtio-net header,
	// so without any offload.
	Plain bool
}

// Neighbours is a kernel namespace and what it is linked to.
type Neighbours struct {
	// Kernel is the near namespace, with KernelAddresses on Device.
	Kernel *Namespace
	// Device is the near namespace's device.
	Device Device
	// TAP is for a stack to adopt (TakeFD) as the far end, which then should
	// have PeerAddresses. It is nil where the far end is a kernel too.
	TAP *TAP
	// Peer is the far namespace, with PeerAddresses on PeerDevice, where the far
	// end is a kernel too. Else it is nil.
	Peer *Namespace
	// PeerDevice is the far namespace's device.
	PeerDevice Device
	// Wire lies between the two ends, the kernel at A, or is nil.
	Wire *Wire
}

// Direct makes a kernel namespace with a TAP: a stack that adopts the TAP is the
// kernel's neighbour, with nothing between.
func (l *Lab) Direct(link Link) (*Neighbours, error) {
	ns, err := l.Namespace("kernel")
	if err != nil {
		return nil, err
	}
	tap, err := ns.TAP("tap0", TAPConfig{Addresses: KernelAddresses, MTU: link.MTU, Plain: link.Plain})
	if err != nil {
		return nil, err
	}
	return &Neighbours{Kernel: ns, Device: tap.Device, TAP: tap}, nil
}

// Impaired makes a kernel namespace, a wire, and a TAP at the wire's far end for
// a stack to adopt. The TAP lives in a namespace of its own where the kernel
// keeps silent.
func (l *Lab) Impaired(link Link, cfg WireConfig) (*Neighbours, error) {
	n, near, err := l.wireEnd("kernel", KernelAddresses, link)
	if err != nil {
		return nil, err
	}
	middle, err := l.Namespace("middle")
	if err != nil {
		return nil, err
	}
	n.TAP, err = middle.TAP("tap1", TAPConfig{MTU: link.MTU, Plain: link.Plain})
	if err != nil {
		return nil, err
	}
	far, err := middle.PacketPort("tap1")
	if err != nil {
		_ = near.Close()
		return nil, err
	}
	n.Wire, err = l.Wire(near, far, cfg)
	return n, err
}

// KernelPair makes two kernel namespaces joined by a veth pair.
func (l *Lab) KernelPair(link Link) (*Neighbours, error) {
	a, err := l.Namespace("kernel")
	if err != nil {
		return nil, err
	}
	b, err := l.Namespace("peer")
	if err != nil {
		return nil, err
	}
	n := &Neighbours{Kernel: a, Peer: b}
	n.Device, n.PeerDevice, err = l.Veth(
		End{Namespace: a, Name: "veth0", Addresses: KernelAddresses},
		End{Namespace: b, Name: "veth0", Addresses: PeerAddresses},
		link.MTU)
	return n, err
}

// KernelWire makes two kernel namespaces joined by a wire.
func (l *Lab) KernelWire(link Link, cfg WireConfig) (*Neighbours, error) {
	n, near, err := l.wireEnd("kernel", KernelAddresses, link)
	if err != nil {
		return nil, err
	}
	peer, far, err := l.wireEnd("peer", PeerAddresses, link)
	if err != nil {
		_ = near.Close()
		return nil, err
	}
	n.Peer, n.PeerDevice = peer.Kernel, peer.Device
	n.Wire, err = l.Wire(near, far, cfg)
	return n, err
}

// wireEnd makes a kernel namespace whose TAP is for a wire.
func (l *Lab) wireEnd(name string, addresses []netip.Prefix, link Link) (*Neighbours, *Port, error) {
	ns, err := l.Namespace(name)
	if err != nil {
		return nil, nil, err
	}
	tap, err := ns.TAP("tap0", TAPConfig{Addresses: addresses, MTU: link.MTU, Plain: true})
	if err != nil {
		return nil, nil, err
	}
	port, err := tap.Port()
	if err != nil {
		return nil, nil, err
	}
	return &Neighbours{Kernel: ns, Device: tap.Device}, port, nil
}
