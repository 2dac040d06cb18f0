package main

import (
	"context"
	"os/signal"
	"syscall"

	"github.com/tcprepair/ustack/internal/demo"
)

type demoCmd struct {
	Link  string `enum:"tap,memory," default:"" placeholder:"LINK" help:"tap: the peer is the kernel's TCP. memory: it is gVisor's. (tap, where the machine allows it)"`
	Small bool   `help:"Move a sixteenth of the bytes."`
}

// Help implements kong.HelpProvider.
func (*demoCmd) Help() string {
	return `Needs no set-up, neither as root nor as anyone else: the demo starts itself again in network
namespaces of its own, and leaves nothing behind. The last line is JSON.
`
}

// Run runs the demo.
func (c *demoCmd) Run(ctx context.Context, s streams) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	return demo.Run(ctx, s.out, demo.Options{Link: c.Link, Small: c.Small})
}
