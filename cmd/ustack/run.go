package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"github.com/tcprepair/ustack/internal/daemon"
)

type runCmd struct {
	TAP      string           `name:"tap" placeholder:"NAME" xor:"link" required:"" help:"TAP device to use; made, and removed at the end, if there is none of that name."`
	TAPFD    int              `name:"tap-fd" placeholder:"N" xor:"link" required:"" help:"Inherited descriptor of a TAP device, instead of --tap."`
	Addr     []cidr           `placeholder:"CIDR" required:"" help:"The stack's addresses, IPv4 and IPv6, each with the length of its network: 10.0.0.2/24. Separated by commas, or repeated."`
	Gateway  []address        `placeholder:"IP" help:"Default router, one for each IP version."`
	MTU      int              `name:"mtu" placeholder:"BYTES" help:"Largest packet (the device's)."`
	Queues   int              `default:"1" placeholder:"N" help:"Queues of the device to use, each with a reader of its own; for machines with many processors and connections (${default})."`
	Serve    []daemon.Service `sep:"none" placeholder:"SERVICE" help:"A service to run: echo:PORT, discard:PORT, chargen:PORT, sink:PORT or http:PORT=DIR. May be repeated."`
	MaxConns int              `default:"${max_conns}" placeholder:"N" help:"Connections that each service serves at once (${default})."`
	Control  string           `default:"${control}" placeholder:"PATH" help:"Control socket (${default}). Empty: none."`
	Grace    time.Duration    `default:"${grace}" placeholder:"TIME" help:"How long connections may take to end after SIGTERM or SIGINT (${default}). A second signal ends them at once."`
	LogLevel slog.Level       `default:"info" placeholder:"LEVEL" help:"debug, info, warn or error (${default})."`
	LogJSON  bool             `name:"log-json" help:"Log in JSON."`
}

// Help implements kong.HelpProvider.
func (*runCmd) Help() string {
	var b strings.Builder
	b.WriteString("Services:\n\n")
	for _, s := range daemon.ServiceNames {
		fmt.Fprintf(&b, "  %-8s %s\n", s.Name, s.Help)
	}
	b.WriteString(`
Examples:

  # A stack at 10.0.0.2 that echoes and serves the files of the current directory.
  ustack run --tap tap0 --addr 10.0.0.2/24,fd00::2/64 --serve echo:7 --serve http:80=.

  # In another terminal: the kernel becomes its neighbour at 10.0.0.1.
  ip addr add 10.0.0.1/24 dev tap0
  curl http://10.0.0.2/

  # What is connected, and freeze one of it.
  ustack conns
  ustack repair on 3
`)
	return b.String()
}

// Validate is called by kong.
func (c *runCmd) Validate() error {
	switch {
	case c.MaxConns < 1:
		return fmt.Errorf("--max-conns: %d is less than 1", c.MaxConns)
	case c.Grace < 0:
		return fmt.Errorf("--grace: %v is negative", c.Grace)
	}
	return nil
}

// Run runs the daemon to its end.
func (c *runCmd) Run(ctx context.Context, s streams) error {
	options := &slog.HandlerOptions{Level: c.LogLevel}
	var handler slog.Handler = slog.NewTextHandler(s.err, options)
	if c.LogJSON {
		handler = slog.NewJSONHandler(s.err, options)
	}
	cfg := daemon.Config{
		TAP:      c.TAP,
		TAPFD:    c.TAPFD,
		MTU:      c.MTU,
		Queues:   c.Queues,
		Services: c.Serve,
		MaxConns: c.MaxConns,
		Control:  c.Control,
		Grace:    max(c.Grace, 1), // none at all is not the default
		Logger:   slog.New(handler),
	}
	for _, a := range c.Addr {
		cfg.Addresses = append(cfg.Addresses, a.Prefix)
	}
	for _, g := range c.Gateway {
		cfg.Gateways = append(cfg.Gateways, g.Addr)
	}
	return daemon.Run(ctx, cfg)
}

// cidr is an address with the length of its network.
type cidr struct{ netip.Prefix }

// UnmarshalText implements encoding.TextUnmarshaler.
func (c *cidr) UnmarshalText(text []byte) error {
	p, err := netip.ParsePrefix(string(text))
	if err != nil {
		return fmt.Errorf("%q is not an address with a network length, like 10.0.0.2/24 or fd00::2/64", text)
	}
	c.Prefix = p
	return nil
}

// address is an IP address.
type address struct{ netip.Addr }

// UnmarshalText implements encoding.TextUnmarshaler.
func (a *address) UnmarshalText(text []byte) error {
	addr, err := netip.ParseAddr(string(text))
	if err != nil {
		return fmt.Errorf("%q is not an IP address", text)
	}
	a.Addr = addr
	return nil
}
