package netsim

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// Host is one stack. It has an interface, with an IPv4 address, for each link.
type Host struct {
	net   *Net
	stack *stack.Stack
	nics  tcpip.NICID // so far
}

// NewHost adds a host that speaks the given TCP.
func (n *Net) NewHost(tcp stack.TransportProtocolFactory) *Host {
	r := newRandom(n.seed, uint64(len(n.hosts)))
	h := &Host{net: n, stack: stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp},
		Clock:              n.clock,
		RandSource:         r,
		SecureRNG:          r,
	})}
	n.hosts = append(n.hosts, h)
	return h
}

// Stack is the host's stack. It belongs to the host.
func (h *Host) Stack() *stack.Stack { return h.stack }

// attach gives the host an interface with an address on a network of two.
func (h *Host) attach(end *linkEnd, addr tcpip.Address) error {
	const hostBits = 30
	h.nics++
	if err := h.stack.CreateNIC(h.nics, end); err != nil {
		return fmt.Errorf("netsim: interface %d: %s", h.nics, err)
	}
	pa := tcpip.ProtocolAddress{
		Protocol:          header.IPv4ProtocolNumber,
		AddressWithPrefix: tcpip.AddressWithPrefix{Address: addr, PrefixLen: hostBits},
	}
	if err := h.stack.AddProtocolAddress(h.nics, pa, stack.AddressProperties{}); err != nil {
		return fmt.Errorf("netsim: address %s: %s", addr, err)
	}
	h.stack.AddRoute(tcpip.Route{Destination: pa.AddressWithPrefix.Subnet(), NIC: h.nics})
	return nil
}

// random is a source of numbers that derive from a seed, for all that a stack
// takes randomness for. It may be used from any goroutine.
type random struct {
	mu  sync.Mutex
	rng *rand.ChaCha8
}

func newRandom(seed, stream uint64) *random {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	binary.LittleEndian.PutUint64(key[8:], stream)
	return &random{rng: rand.NewChaCha8(key)}
}

// Read implements io.Reader; it never fails.
func (r *random) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.rng.Read(p)
}

// Uint64 implements math/rand's Source64.
func (r *random) Uint64() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.rng.Uint64()
}

// Int63 implements math/rand's Source.
func (r *random) Int63() int64 { return int64(r.Uint64() >> 1) }

// Seed implements math/rand's Source. The seed is the network's; there is no other.
func (r *random) Seed(int64) {}
