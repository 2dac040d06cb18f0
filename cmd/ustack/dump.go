package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

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
	control
	ID  uint64 `arg:"" optional:"" help:"The connection's number in \"ustack conns\"."`
	PID int    `name:"pid" placeholder:"PID" help:"Dump a socket of the kernel instead: one of this process ..."`
	FD  int    `name:"fd" default:"-1" placeholder:"FD" help:"... with this descriptor number."`
	sink
	Then string `enum:"freeze,resume,bury" default:"freeze" help:"What becomes of the connection once it is written: ${enum} (${default})."`
}

// Help implements kong.HelpProvider.
func (*dumpCmd) Help() string {
	return `The connection is frozen and read out. It then stays frozen: whoever has set it down elsewhere ends it
here with "ustack bury ID", or lets it go on here with "ustack repair off ID". If the dump cannot be written,
or is interrupted, the connection is as it was before.

A socket of the kernel ends with its process. To let it go on, dump it once more, with "--then resume".

Examples:

  ustack dump 3 -o conn.snap
  ustack dump 3 | ssh other ustack restore - && ustack bury 3 || ustack repair off 3
  ustack dump --pid 4242 --fd 7 -o conn.snap
`
}

// Run dumps a connection.
func (c *dumpCmd) Run(ctx context.Context, s streams) error {
	if err := c.usage(); err != nil {
		return err
	}
	if err := c.check(s.out); err != nil {
		return err
	}
	ctx, stop := interruptible(ctx)
	defer stop()
	if c.PID != 0 {
		return c.dumpKernel(ctx, s)
	}
	return c.dump(ctx, s)
}

// usage reports what is wrong with the arguments.
func (c *dumpCmd) usage() error {
	switch {
	case c.PID != 0 && c.ID != 0:
		return usage("a connection's ID and --pid exclude each other")
	case c.PID < 0:
		return usage("--pid is negative")
	case c.PID != 0 && c.FD < 0, c.PID == 0 && c.FD >= 0:
		return usage("--pid and --fd go together")
	case c.PID == 0 && c.ID == 0:
		return usage("which connection? an ID of \"ustack conns\", or --pid and --fd")
	}
	return nil
}

// dump dumps a connection of a running stack.
func (c *dumpCmd) dump(ctx context.Context, s streams) error {
	d := daemon.NewClient(c.Control)
	var froze atomic.Bool
	err := c.write(ctx, s.out, func(w io.Writer) error {
		snapshot, changed, err := d.Checkpoint(ctx, c.ID)
		if err != nil {
			return err
		}
		defer snapshot.Close()
		froze.Store(changed)
		_, err = io.Copy(w, snapshot)
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = errors.New("the daemon did not send all of the snapshot")
		}
		return err
	})
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerTime)
	defer cancel()
	if err == nil {
		return c.settle(ctx, s, d)
	}
	if froze.Load() {
		if _, thaw := d.Repair(ctx, c.ID, repair.Off); thaw != nil {
			return fmt.Errorf("%w; and connection %d may still be frozen: %w", err, c.ID, thaw)
		}
	}
	return err
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
	_, err := fmt.Fprintf(s.err, "connection %d stays frozen: \"ustack repair off %d\" lets it go on, \"ustack bury %d\" ends it\n", c.ID, c.ID, c.ID)
	return err
}

func usage(text string) error { return &daemon.UsageError{Err: errors.New(text)} }

type restoreCmd struct {
	client
	source
}

// Help implements kong.HelpProvider.
func (*restoreCmd) Help() string {
	return `The running stack must have the connection's local address, and a service on its local port: it goes on with
the connection from where the snapshot stands.

Example:

  ustack restore conn.snap
`
}

// Run restores the connections.
func (c *restoreCmd) Run(ctx context.Context, s streams) error {
	// All are read first: a file that is none should not trouble the daemon.
	var list []*repair.Snapshot
	err := c.each(func(snap *repair.Snapshot) error {
		list = append(list, snap)
		return nil
	})
	if err != nil {
		return err
	}
	d := daemon.NewClient(c.Control)
	for i, snap := range list {
		conn, err := d.Restore(ctx, snap)
		if err != nil && len(list) > 1 {
			err = fmt.Errorf("snapshot %d of %d: %w", i+1, len(list), err)
		}
		if err != nil {
			return err
		}
		if err := c.print(s.out, conn); err != nil {
			return err
		}
	}
	return nil
}

func (c *restoreCmd) print(w io.Writer, conn daemon.Conn) error {
	if c.JSON {
		return printJSON(w, conn)
	}
	_, err := fmt.Fprintf(w, "connection %d, %v to %v: %s\n", conn.ID, conn.Local, conn.Remote, conn.State)
	return err
}
