package main

import (
	"context"
	"fmt"
	"io"

	"github.com/tcprepair/ustack/stack/repair"
	"github.com/tcprepair/ustack/stack/repair/linux"
)

// dumpKernel dumps a socket of another process's.
func (c *dumpCmd) dumpKernel(ctx context.Context, s streams) error {
	socket, err := linux.FromProcess(c.PID, c.FD)
	if err != nil {
		return err
	}
	defer socket.Close() // our descriptor of it; the process keeps its own
	before, err := socket.Repair()
	if err != nil {
		return err
	}
	snap, err := repair.Checkpoint(socket)
	if err != nil {
		return err
	}
	err = c.write(ctx, s.out, func(w io.Writer) error {
		_, err := snap.WriteTo(w)
		return err
	})
	switch {
	case err != nil && before: // and it stays so
	case err != nil:
		if thaw := repair.Resume(socket, repair.Off); thaw != nil {
			err = fmt.Errorf("%w; and the socket may still be frozen: %w", err, thaw)
		}
	case c.Then == thenResume:
		err = repair.Resume(socket, repair.Off)
	default:
		_, err = fmt.Fprintf(s.err, "the socket stays frozen for as long as process %d keeps it; \"--then resume\" lets it go on\n", c.PID)
	}
	return err
}
