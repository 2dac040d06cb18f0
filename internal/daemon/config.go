package daemon

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	gstack "gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/tcprepair/ustack/stack"
)

// Defaults that New uses for zero fields of Config.
const (
	DefaultGrace    = 3 * time.Second
	DefaultMaxConns = 1024
)

// Config says what a Daemon does. Exactly one of TAP, TAPFD and Link is set.
type Config struct {
	// TAP is the name of the TAP device to open, made if it does not exist.
	TAP string
	// TAPFD is an inherited descriptor of a TAP device. It stays the caller's.
	TAPFD int
	// Link is a link that is open already. The daemon owns it once New has
	// succeeded; if New fails it is the caller's to close.
	Link gstack.LinkEndpoint
	// MTU is the link's, in bytes. 0: what the device has.
	MTU int
	// Queues is how many of the device's queues to use; 0 is 1. See tap.Config.
	Queues int

	// Addresses and Gateways are the stack's; see stack.Config.
	Addresses []netip.Prefix
	Gateways  []netip.Addr

	// Services are what listens, each on a port of its own.
	Services []Service
	// MaxConns is how many connections a service serves at once; more wait in
	// the listener's queue. 0: DefaultMaxConns.
	MaxConns int

	// Control is the path of the control socket. Empty: there is none.
	Control string
	// Grace is how long connections may take to end in order when the daemon
	// is told to. 0: DefaultGrace.
	Grace time.Duration
	// Logger hears what happens. Nil: nobody does.
	Logger *slog.Logger
}

// UsageError is an error in the configuration, as against one in carrying it
// out.
type UsageError struct{ Err error }

// Error implements error.
func (e *UsageError) Error() string { return e.Err.Error() }

// Unwrap returns what is wrong.
func (e *UsageError) Unwrap() error { return e.Err }

// validate returns a *UsageError for the first thing wrong with c.
func (c *Config) validate() error {
	if err := c.check(); err != nil {
		return &UsageError{err}
	}
	return nil
}

func (c *Config) check() error {
	links := 0
	for _, given := range []bool{c.TAP != "", c.TAPFD != 0, c.Link != nil} {
		if given {
			links++
		}
	}
	switch {
	case links == 0:
		return errors.New("no link: name a TAP device or give its descriptor")
	case links > 1:
		return errors.New("more than one link: choose a TAP device or a descriptor")
	case c.TAPFD < 0:
		return fmt.Errorf("TAP descriptor %d is negative", c.TAPFD)
	case c.MTU < 0 || c.MTU > 65521:
		return fmt.Errorf("MTU %d is out of range (68 to 65521)", c.MTU)
	case len(c.Addresses) == 0:
		return errors.New("no address: give at least one, like 10.0.0.2/24")
	case c.MaxConns < 0:
		return fmt.Errorf("limit of %d connections is negative", c.MaxConns)
	case c.Grace < 0:
		return fmt.Errorf("grace of %v is negative", c.Grace)
	}
	ports := make(map[uint16]Service)
	for _, s := range c.Services {
		if err := s.validate(); err != nil {
			return err
		}
		if other, ok := ports[s.Port]; ok {
			return fmt.Errorf("service %v: port %d is taken by %v", s, s.Port, other)
		}
		ports[s.Port] = s
	}
	for _, a := range c.Addresses {
		switch {
		case a.Addr().IsLoopback() && c.Link == nil:
			return fmt.Errorf("address %v: a loopback address is not for a link", a)
		case a.Addr().Is6() && c.MTU != 0 && c.MTU < header.IPv6MinimumMTU:
			return fmt.Errorf("MTU %d is less than the %d that IPv6 needs", c.MTU, header.IPv6MinimumMTU)
		}
	}
	sc := c.stackConfig(placeholder{})
	return sc.Validate()
}

// placeholder stands for the link before it is opened, where only whether
// there is one counts.
type placeholder struct{ gstack.LinkEndpoint }

// stackConfig is the part of c that concerns the stack.
func (c *Config) stackConfig(link gstack.LinkEndpoint) stack.Config {
	return stack.Config{Link: link, Addresses: c.Addresses, Gateways: c.Gateways}
}

// withDefaults fills in what the caller left open.
func (c Config) withDefaults() Config {
	if c.MaxConns == 0 {
		c.MaxConns = DefaultMaxConns
	}
	if c.Grace == 0 {
		c.Grace = DefaultGrace
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}
