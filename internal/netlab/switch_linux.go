package netlab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Switch joins a peer with several hosts that share one MAC address and one set
// of IP addresses, as hosts do between which a connection moves. The peer's
// frames go to the host that owns the addresses at present; what resolves
// addresses goes to all. Whatever a host sends goes to the peer: one that no
// longer owns the addresses is not silenced. Its methods are safe for concurrent
// use.
type Switch struct {
	peer  *trunk
	hosts []*trunk
	owner atomic.Int32
	// Whether the hosts hear nothing of the peer, and the peer nothing of them.
	deaf, mute atomic.Bool
	close      func() error
}

// trunk is a port of a switch, which many may write to.
type trunk struct {
	*Port
	mu sync.Mutex
}

// Switch connects ports and owns them from now on, even when it fails. All
// frames must carry virtio-net headers: they pass as they are, super-frames
// included. The first host owns the addresses. The lab closes the switch.
func (l *Lab) Switch(peer *Port, hosts ...*Port) (*Switch, error) {
	s := &Switch{peer: &trunk{Port: peer}}
	for _, h := range hosts {
		s.hosts = append(s.hosts, &trunk{Port: h})
	}
	var wg sync.WaitGroup
	s.close = sync.OnceValue(func() error {
		err := s.peer.Close()
		for _, h := range s.hosts {
			err = errors.Join(err, h.Close())
		}
		wg.Wait()
		return err
	})
	for _, p := range append([]*trunk{s.peer}, s.hosts...) {
		if !p.vnet {
			return nil, errors.Join(fmt.Errorf("netlab: switch: frames of %s have no virtio-net header", p.Name), s.Close())
		}
	}
	wg.Go(func() { s.peer.forward(s.fromPeer) })
	for _, h := range s.hosts {
		wg.Go(func() { h.forward(s.toPeer) })
	}
	return s, l.own(s)
}

// Move makes a host the owner of the addresses. Frames that have reached its
// predecessor are not called back.
func (s *Switch) Move(host int) { s.owner.Store(int32(host)) }

// Silence drops what the hosts would hear of the peer (deaf), and what the peer
// would hear of them (mute), from now on.
func (s *Switch) Silence(deaf, mute bool) {
	s.deaf.Store(deaf)
	s.mute.Store(mute)
}

// Close unplugs all ports and waits until the switch's goroutines have ended.
func (s *Switch) Close() error { return s.close() }

// fromPeer passes a frame of the peer's on.
func (s *Switch) fromPeer(b []byte) {
	if s.deaf.Load() {
		return
	}
	if !resolves(b[vnetHeaderLen:]) {
		s.hosts[s.owner.Load()].send(b)
		return
	}
	for _, h := range s.hosts {
		h.send(b)
	}
}

// toPeer passes a host's frame on.
func (s *Switch) toPeer(b []byte) {
	if !s.mute.Load() {
		s.peer.send(b)
	}
}

// resolves reports whether a frame is of those by which neighbours find each
// other: a group's, ARP, or ICMPv6.
func resolves(frame []byte) bool {
	const ethernet, nextHeader = 14, 6
	if len(frame) < ethernet || frame[0]&1 != 0 {
		return true
	}
	switch binary.BigEndian.Uint16(frame[12:]) {
	case unix.ETH_P_ARP:
		return true
	case unix.ETH_P_IPV6:
		return len(frame) > ethernet+nextHeader && frame[ethernet+nextHeader] == unix.IPPROTO_ICMPV6
	}
	return false
}

// forward hands what comes in at the port out, with its header, until the port
// is closed.
func (t *trunk) forward(emit func([]byte)) {
	for buf := make([]byte, vnetHeaderLen+maxFrame); ; {
		n, err := t.file.Read(buf)
		switch {
		case err == nil && n >= vnetHeaderLen:
			emit(buf[:n])
		case err == nil, errors.Is(err, unix.ENETDOWN):
		default:
			return
		}
	}
}

// send drops a frame that the far device does not take, as a switch does.
func (t *trunk) send(b []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, _ = t.file.Write(b)
}

// Host is one of those behind a switch, all with PeerAddresses and the same MAC
// address.
type Host struct {
	// Kernel is its namespace, with Device, where it is a kernel.
	Kernel *Namespace
	Device Device
	// TAP is for a stack to adopt (TakeFD) as the host, with the MAC address
	// SharedMAC. It is nil where the host is a kernel.
	TAP *TAP
}

// SharedMAC is the MAC address of all hosts behind a switch.
var SharedMAC = net.HardwareAddr{0x02, 0x77, 0, 0, 0, 2}

// Cluster is a peer, and hosts that share their addresses.
type Cluster struct {
	// Peer is a kernel with KernelAddresses on PeerDevice.
	Peer       *Namespace
	PeerDevice Device
	// Hosts are in the order of the switch.
	Hosts  []Host
	Switch *Switch
}

// Cluster makes a peer and, behind a switch, as many kernels and then as many
// TAPs for stacks.
func (l *Lab) Cluster(link Link, kernels, stacks int) (*Cluster, error) {
	c := new(Cluster)
	peer, err := l.clusterKernel("peer", TAPConfig{Addresses: KernelAddresses, MTU: link.MTU})
	if err != nil {
		return nil, err
	}
	c.Peer, c.PeerDevice = peer.ns, peer.tap.Device
	ports := []*Port{peer.port}
	for i := range kernels {
		k, err := l.clusterKernel(fmt.Sprint("kernel", i), TAPConfig{Addresses: PeerAddresses, MTU: link.MTU, MAC: SharedMAC})
		if err != nil {
			return nil, err
		}
		c.Hosts, ports = append(c.Hosts, Host{Kernel: k.ns, Device: k.tap.Device}), append(ports, k.port)
	}
	for range stacks {
		tap, port, err := l.clusterStack(link)
		if err != nil {
			return nil, err
		}
		c.Hosts, ports = append(c.Hosts, Host{TAP: tap}), append(ports, port)
	}
	c.Switch, err = l.Switch(ports[0], ports[1:]...)
	return c, err
}

type clusterKernel struct {
	ns   *Namespace
	tap  *TAP
	port *Port
}

// clusterKernel makes a namespace whose device a switch is to hold, with the
// offloads that its super-frames need.
func (l *Lab) clusterKernel(name string, cfg TAPConfig) (k clusterKernel, err error) {
	if k.ns, err = l.Namespace(name); err != nil {
		return k, err
	}
	if k.tap, err = k.ns.TAP("tap0", cfg); err != nil {
		return k, err
	}
	if k.port, err = k.tap.Port(); err != nil {
		return k, err
	}
	if err = l.own(k.port); err != nil {
		return k, err
	}
	err = withFD(k.port.file, func(fd int) error {
		return os.NewSyscallError("TUNSETOFFLOAD", unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, unix.TUN_F_CSUM|unix.TUN_F_TSO4|unix.TUN_F_TSO6))
	})
	return k, err
}

// clusterStack makes a TAP for a stack, and a port at the kernel's side of it,
// which else keeps silent.
func (l *Lab) clusterStack(link Link) (*TAP, *Port, error) {
	ns, err := l.Namespace("middle")
	if err != nil {
		return nil, nil, err
	}
	tap, err := ns.TAP("tap1", TAPConfig{MTU: link.MTU})
	if err != nil {
		return nil, nil, err
	}
	port, err := ns.PacketPort("tap1")
	if err != nil {
		return nil, nil, err
	}
	return tap, port, l.own(port)
}
