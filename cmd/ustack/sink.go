package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

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

// interruptible returns a context that a signal to end the program ends, until
// stop is called: so that what has been begun can be undone. A pipe that nobody
// reads any more is an error of the write from then on.
func interruptible(ctx context.Context) (_ context.Context, stop context.CancelFunc) {
	signal.Ignore(syscall.SIGPIPE)
	return signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
}

// interruptedWrite is how long a write may take to notice that the context has
// ended. One to a pipe that nobody reads never does.
const interruptedWrite = 300 * time.Millisecond

// write has f write to the sink. A file is on the disk when it returns; one
// that did not get whole is removed. When ctx ends it does not wait for f, which
// may then still be running.
func (c *sink) write(ctx context.Context, stdout io.Writer, f func(io.Writer) error) error {
	if err := c.check(stdout); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() {
		if c.Output == "" {
			done <- buffered(stdout, f)
		} else {
			done <- toNewFile(c.Output, f)
		}
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-done:
		if err == nil {
			return nil // it was all written
		}
	case <-time.After(interruptedWrite):
	}
	return context.Cause(ctx)
}

// toNewFile has f write a new file, or to a device or pipe.
func toNewFile(name string, f func(io.Writer) error) (err error) {
	if info, err := os.Stat(name); err == nil && !info.Mode().IsRegular() {
		return toDevice(name, f)
	}
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, file.Close()); err != nil {
			os.Remove(name)
		}
	}()
	if err := buffered(file, f); err != nil {
		return err
	}
	return file.Sync()
}

func toDevice(name string, f func(io.Writer) error) error {
	file, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(buffered(file, f), file.Close())
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
