package stack

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	gstack "gvisor.dev/gvisor/pkg/tcpip/stack"
)

// Defaults that New uses for zero fields of Config.
const (
	// DefaultName is the name of the link's interface, and so the zone of its
	// link-local addresses.
	DefaultName = "ustack0"
	// DefaultBacklog is how many connections may wait for Accept, and as many
	// again may be in their handshake, per listener (Linux somaxconn).
	DefaultBacklog = 4096
)

// Config says what a Stack is made of. The zero value is a stack that reaches
// only itself, over its loopback interface.
type Config struct {
	// Link carries the stack's packets. The Stack owns it from the moment New
	// succeeds, and closes it in Close. Nil: loopback only.
	Link gstack.LinkEndpoint
	// Name is the link's interface name. Empty: DefaultName.
	Name string

	// Addresses are the stack's own, each with the length of the network that
	// is reachable on the link without a gateway. IPv4 and IPv6 may be mixed.
	// 127.0.0.1 and ::1 are always there.
	Addresses []netip.Prefix
	// Gateways are the default routers, at most one for IPv4 and one for IPv6.
	// Each is on one of the networks of Addresses, or link-local.
	Gateways []netip.Addr
	// Routes are further routes, tried before the gateways. The longest
	// prefix wins.
	Routes []Route

	// NoHandleLocal sends packets for the stack's own addresses out on the
	// link. Without it they are delivered inside, as every host does.
	NoHandleLocal bool

	// Congestion is the congestion control of new connections, "cubic" or
	// "reno". Empty: "cubic".
	Congestion string
	// NoSACK does not offer selective acknowledgements (RFC 2018).
	NoSACK bool
	// NoAutoTuning keeps receive buffers at their first size.
	NoAutoTuning bool
	// ReceiveBuffer and SendBuffer size a connection's two queues. Zero
	// fields: TCP's defaults.
	ReceiveBuffer, SendBuffer BufferSize
	// Backlog is how many connections a listener keeps for Accept. 0:
	// DefaultBacklog.
	Backlog int

	// Resolver looks up the host names given to Dial. Nil: Dial takes
	// addresses only, because the names the operating system knows need not
	// be those of the stack's network.
	Resolver func(ctx context.Context, host string) ([]netip.Addr, error)
}

// Route says that a network is reached by way of a gateway on the link.
type Route struct {
	Network netip.Prefix
	Gateway netip.Addr // the zero Addr: the network is on the link itself
}

// BufferSize is a queue's size in bytes: what a connection starts with, and how
// far auto-tuning may take it.
type BufferSize struct {
	Default, Max int
}

// set reports whether the caller chose a size.
func (b BufferSize) set() bool { return b != BufferSize{} }

// Validate reports the first thing that makes c impossible, in one line that
// names the value. New calls it; Congestion and Link are for New to judge.
func (c *Config) Validate() error {
	if err := validAddresses(c.Addresses); err != nil {
		return err
	}
	if err := c.validGateways(); err != nil {
		return err
	}
	for _, r := range c.Routes {
		if !r.Network.IsValid() {
			return errors.New("route without a network")
		}
		if r.Gateway.IsValid() && r.Gateway.Is4() != r.Network.Addr().Is4() {
			return fmt.Errorf("route to %v: gateway %v is of the other IP version", r.Network, r.Gateway)
		}
	}
	if (len(c.Gateways) > 0 || len(c.Routes) > 0) && c.Link == nil {
		return errors.New("routes need a link")
	}
	for _, b := range []struct {
		name string
		size BufferSize
	}{{"receive", c.ReceiveBuffer}, {"send", c.SendBuffer}} {
		if b.size.set() && (b.size.Default <= 0 || b.size.Max < b.size.Default) {
			return fmt.Errorf("%s buffer: want 0 < default <= max, have %d and %d", b.name, b.size.Default, b.size.Max)
		}
	}
	if c.Backlog < 0 {
		return fmt.Errorf("backlog %d is negative", c.Backlog)
	}
	return nil
}

// validAddresses accepts what a host can own: unicast, each once, and in IPv4
// neither the first nor the last address of its network.
func validAddresses(list []netip.Prefix) error {
	seen := make(map[netip.Addr]bool)
	for _, p := range list {
		a := p.Addr()
		switch {
		case !p.IsValid():
			return errors.New("invalid address")
		case a.Is4In6():
			return fmt.Errorf("address %v: write an IPv4 address as IPv4", p)
		case a.IsUnspecified(), a.IsMulticast(), p.Bits() == 0:
			return fmt.Errorf("address %v: not an address a host can have", p)
		case a.Is4() && p.Bits() < 31 && (a == p.Masked().Addr() || a == lastAddr(p)):
			return fmt.Errorf("address %v: it stands for the network, not for a host", p)
		case seen[a]:
			return fmt.Errorf("address %v: given twice", a)
		}
		seen[a] = true
	}
	return nil
}

// lastAddr returns the broadcast address of an IPv4 network.
func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Addr().As4()
	for bit := p.Bits(); bit < 32; bit++ {
		b[bit/8] |= 0x80 >> (bit % 8)
	}
	return netip.AddrFrom4(b)
}

// validGateways wants one router for each IP version at most, and wants it
// where packets can get to it.
func (c *Config) validGateways() error {
	var v4, v6 bool
	for _, g := range c.Gateways {
		if !g.IsValid() || g.IsUnspecified() || g.IsMulticast() || g.Is4In6() {
			return fmt.Errorf("gateway %v: not a router's address", g)
		}
		have := &v6
		if g.Is4() {
			have = &v4
		}
		if *have {
			return fmt.Errorf("gateway %v: there is one for that IP version already", g)
		}
		*have = true
		for _, p := range c.Addresses {
			if p.Addr() == g {
				return fmt.Errorf("gateway %v: this is an address of the stack itself", g)
			}
		}
		if !c.onLink(g) {
			return fmt.Errorf("gateway %v is not on the network of any address", g)
		}
	}
	return nil
}

func (c *Config) onLink(a netip.Addr) bool {
	if a.Is6() && a.IsLinkLocalUnicast() {
		return true
	}
	for _, p := range c.Addresses {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
