package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/tcprepair/ustack/internal/daemon"
	"github.com/tcprepair/ustack/stack/repair"
)

// What becomes of a connection that was dumped.
const (
	thenFreeze = "freeze"
	thenResume = "resume"
	thenBury   = "bury"
)

type dumpCmd struct {
	client
	ID  uint64 `arg:"" optional:"" help:"The connection's number in \"ustack conns\"."`
	PID int    `name:"pid" placeholder:"PID" help:"Dump a socket of the kernel instead: one of this process ..."`
	FD  int    `name:"fd" default:"-1" placeholder:"FD" help:"... with this descriptor number."`
	sink
	Then string `enum:"freeze,resume,bury" default:"freeze" help:"What becomes of the connection once it is written: ${enum} (${default})."`
}

// Help implements kong.HelpProvider.
func (*dumpCmd) Help() string {
	return `The connection is frozen and read out. It then stays frozen: whoever sets it down elsewhere ends it here
with "ustack dump --then bury", or lets it go on here with "ustack repair off ID". If the dump cannot be
written the connection goes on as before.

Examples:

  ustack dump 3 -o conn.snap
  ustack dump 3 --then bury | ssh other ustack restore -
  ustack dump --pid 4242 --fd 7 -o conn.snap
`
}

// Run dumps a connection.
func (c *dumpCmd) Run(ctx context.Context, s streams) error {
	switch {
	case c.PID != 0 && c.ID != 0:
		return usage("a connection's ID and --pid exclude each other")
	case c.PID != 0 && c.FD < 0, c.PID == 0 && c.FD >= 0:
		return usage("--pid and --fd go together")
	case c.PID == 0 && c.ID == 0:
		return usage("which connection? an ID of \"ustack conns\", or --pid and --fd")
	}
	if err := c.check(s.out); err != nil {
		return err
	}
	if c.PID != 0 {
		return c.dumpKernel(s)
	}
	d := daemon.NewClient(c.Control)
	err := c.write(s.out, func(w io.Writer) error {
		_, err := d.Checkpoint(ctx, c.ID, w)
		return err
	})
	if err != nil {
		var no *daemon.Refusal
		if errors.As(err, &no) {
			return err // it was not frozen
		}
		if _, thaw := d.Repair(ctx, c.ID, repair.Off); thaw != nil {
			return fmt.Errorf("%w; and connection %d may still be frozen: %w", err, c.ID, thaw)
		}
		return err
	}
	return c.settle(ctx, s, d)
}

// settle does with the connection what --then says.
func (c *dumpCmd) settle(ctx context.Context, s streams, d *daemon.Client) error {
	switch c.Then {
	case thenResume:
		_, err := d.Repair(ctx, c.ID, repair.Off)
		return err
	case thenBury:
		return d.Bury(ctx, c.ID)
	}
	_, err := fmt.Fprintf(s.err, "connection %d stays frozen: \"ustack repair off %d\" lets it go on\n", c.ID, c.ID)
	return err
}

func usage(text string) error { return &daemon.UsageError{Err: errors.New(text)} }

type restoreCmd struct {
	client
	File string `arg:"" help:"A file that \"ustack dump\" wrote; - is standard input."`
}

// Help implements kong.HelpProvider.
func (*restoreCmd) Help() string {
	return `The running stack must have the connection's local address, and a service on its local port: it goes on with
the connection from where the snapshot stands.

Example:

  ustack restore conn.snap
`
}

// Run restores a connection.
func (c *restoreCmd) Run(ctx context.Context, s streams) error {
	in := io.Reader(os.Stdin)
	if c.File != "-" {
		f, err := os.Open(c.File)
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	// Read here first: a file that is none should not trouble the daemon.
	snap, err := repair.Read(in, repair.Limits{})
	if err != nil {
		return fmt.Errorf("%s: %w", c.File, err)
	}
	conn, err := daemon.NewClient(c.Control).Restore(ctx, snap)
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(s.out, conn)
	}
	_, err = fmt.Fprintf(s.out, "connection %d, %v to %v: %s\n", conn.ID, conn.Local, conn.Remote, conn.State)
	return err
}
