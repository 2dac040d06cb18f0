package main

import (
	"context"
	"os/signal"
	"syscall"

	"github.com/tcprepair/ustack/internal/demo"
)

type demoCmd struct {
	Freeze demoFreezeCmd `cmd:"" default:"withargs" help:"A download, an echo, and an upload frozen midway that loses nothing. (this, if nothing is named)"`
	Move   demoMoveCmd   `cmd:"" help:"A connection under load that moves from a kernel to a ustack, to another, to a kernel, and so on, 100 times."`
}

type demoFreezeCmd struct {
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
func (c *demoFreezeCmd) Run(ctx context.Context, s streams) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	return once(demo.Run(ctx, s.out, demo.Options{Link: c.Link, Small: c.Small}))
}

type demoMoveCmd struct{}

// Run runs the demo of moves.
func (*demoMoveCmd) Run(ctx context.Context, s streams) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	return once(demo.RunMoves(ctx, s.out, demo.MoveOptions{}))
}

// once keeps a failure from being told twice: by the program in the demo's
// namespaces, and by this one.
func once(err error) error {
	if err == demo.ErrFailed {
		return told(exitFail)
	}
	return err
}
