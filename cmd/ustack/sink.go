package main

import (
	"bufio"
	"errors"
	"io"
	"os"

	"github.com/tcprepair/ustack/internal/daemon"
)

// sink is where snapshots are written.
type sink struct {
	Output string `short:"o" placeholder:"FILE" help:"File to write, which must not exist yet (standard output)."`
}

var errTerminal = &daemon.UsageError{Err: errors.New("snapshots are not for a terminal: give --output, or redirect the output")}

// check reports what can be known to be wrong before anything is written.
func (c *sink) check(stdout io.Writer) error {
	if c.Output == "" && isTerminal(stdout) {
		return errTerminal
	}
	return nil
}

// write has f write to the sink. A file is on the disk when it returns; one
// that did not get whole is removed.
func (c *sink) write(stdout io.Writer, f func(io.Writer) error) (err error) {
	if err := c.check(stdout); err != nil {
		return err
	}
	if c.Output == "" {
		return buffered(stdout, f)
	}
	file, err := os.OpenFile(c.Output, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, file.Close()); err != nil {
			os.Remove(c.Output)
		}
	}()
	if err := buffered(file, f); err != nil {
		return err
	}
	return file.Sync()
}

func buffered(w io.Writer, f func(io.Writer) error) error {
	b := bufio.NewWriter(w)
	if err := f(b); err != nil {
		return err
	}
	return b.Flush()
}

// isTerminal reports whether what is written would end up on a screen.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return err != nil || !os.SameFile(info, null)
}
