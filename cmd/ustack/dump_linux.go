package main

import (
	"fmt"
	"io"

	"github.com/tcprepair/ustack/stack/repair"
	"github.com/tcprepair/ustack/stack/repair/linux"
)

// dumpKernel dumps a socket of another process's.
func (c *dumpCmd) dumpKernel(s streams) error {
	socket, err := linux.FromProcess(c.PID, c.FD)
	if err != nil {
		return err
	}
	defer socket.Close() // our descriptor of it; the process keeps its own
	snap, err := repair.Checkpoint(socket)
	if err != nil {
		return err
	}
	defer snap.Release()
	err = c.write(s.out, func(w io.Writer) error {
		_, err := snap.WriteTo(w)
		return err
	})
	if err != nil {
		if thaw := repair.Resume(socket, repair.Off); thaw != nil {
			return fmt.Errorf("%w; and the socket may still be frozen: %w", err, thaw)
		}
		return err
	}
	if c.Then == thenResume {
		return repair.Resume(socket, repair.Off)
	}
	_, err = fmt.Fprintf(s.err, "the socket stays frozen for as long as process %d keeps it\n", c.PID)
	return err
}
