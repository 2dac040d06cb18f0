package packetdrill

import (
	"math/rand"
	randv2 "math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	netv4 "gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	netv6 "gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"

	"github.com/tcprepair/ustack/internal/vtime"
)

// The interface that a script's stack has.
const (
	nicID   = 1
	nicName = "tun0"
)

// firstPeerPort is one less than the port from which the peer's first
// connection comes.
const firstPeerPort = 49151

// epoch is what the clock says when a script begins.
var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// newRunner makes the stack that a script is played against.
func newRunner(s *Script, cfg Config, set settings) *runner {
	if cfg.MaxSteps == 0 {
		cfg.MaxSteps = DefaultMaxSteps
	}
	r := &runner{
		cfg: cfg, script: s, set: set,
		clock: vtime.NewClock(epoch),
		files: make(map[int]file),
		flows: make(map[flowKey]*flow),
		port:  firstPeerPort,
		line:  1,
	}
	r.scope = scope{
		vars:  map[string]value{},
		look:  r.look,
		print: func(text string) { r.note("%s", text) },
	}
	r.link = &link{gso: cfg.GSO, mtu: uint32(set.mtu), clock: r.now}
	r.stack = stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{netv4.NewProtocol, netv6.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{cfg.Protocol, icmp.NewProtocol4, icmp.NewProtocol6},
		Clock:              r.clock,
		RandSource:         newSource(cfg.Seed),
		SecureRNG:          newSource(cfg.Seed + 1),
	})
	r.check("interface", r.stack.CreateNICWithOptions(nicID, r.link, stack.NICOptions{Name: nicName}))
	proto := tcpip.NetworkProtocolNumber(netv4.ProtocolNumber)
	if set.local.Is6() {
		proto = netv6.ProtocolNumber
	}
	addr := tcpip.AddrFromSlice(set.local.AsSlice())
	r.check("address", r.stack.AddProtocolAddress(nicID, tcpip.ProtocolAddress{
		Protocol: proto, AddressWithPrefix: addr.WithPrefix(),
	}, stack.AddressProperties{}))
	r.stack.SetRouteTable([]tcpip.Route{
		{Destination: header.IPv4EmptySubnet, NIC: nicID},
		{Destination: header.IPv6EmptySubnet, NIC: nicID},
	})
	if cfg.Setup != nil {
		if err := cfg.Setup(r.stack); err != nil {
			r.fail("the stack: %v", err)
		}
	}
	// Linux's Nagle algorithm is on unless a program switches it off.
	delay := tcpip.TCPDelayEnabled(true)
	r.check("TCP", r.stack.SetTransportProtocolOption(header.TCPProtocolNumber, &delay))
	for _, s := range kernelSysctls {
		r.sysctl(s[0], s[1])
	}
	r.settle()
	return r
}

// check ends the run if the stack could not be set up.
func (r *runner) check(what string, err tcpip.Error) {
	if err != nil {
		r.fail("%s: %v", what, err)
	}
}

// close ends the stack and everything in it.
func (r *runner) close() {
	r.link.choke(true)
	for _, f := range r.files {
		f.abandon()
	}
	for _, f := range r.nameless {
		f.abandon()
	}
	r.stack.Destroy()
}

// fullAddress is an address as gVisor has it.
func (r *runner) fullAddress(a netip.AddrPort) tcpip.FullAddress {
	addr := a.Addr()
	if r.set.ip == ipv4Mapped && addr.Is4() {
		addr = netip.AddrFrom16(addr.As16())
	}
	out := tcpip.FullAddress{Port: a.Port()}
	if !addr.IsUnspecified() {
		out.Addr = tcpip.AddrFromSlice(addr.AsSlice())
	}
	return out
}

// addrPort is an address as Go has it.
func addrPort(a tcpip.FullAddress) netip.AddrPort {
	addr, _ := netip.AddrFromSlice(a.Addr.AsSlice())
	return netip.AddrPortFrom(addr.Unmap(), a.Port)
}

// source is a random number generator that says the same every time.
type source struct {
	mu sync.Mutex
	g  *randv2.ChaCha8
}

var _ rand.Source = (*source)(nil)

func newSource(seed uint64) *source {
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	return &source{g: randv2.NewChaCha8(key)}
}

// Int63 implements rand.Source.
func (s *source) Int63() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return int64(s.g.Uint64() >> 1)
}

// Seed implements rand.Source. The seed is fixed.
func (*source) Seed(int64) {}

// Read implements io.Reader.
func (s *source) Read(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.g.Read(b)
}
