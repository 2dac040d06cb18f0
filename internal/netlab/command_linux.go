package netlab

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// Cmd is an exec.Cmd that starts inside a namespace. Use the methods of Cmd
// itself to start it; those of the embedded one would start it outside.
type Cmd struct {
	*exec.Cmd
	ns     *Namespace
	waited atomic.Bool
}

// Command describes a process that will run inside the namespace. The lab's
// Close kills it if it still runs, and so does the end of ctx.
func (ns *Namespace) Command(ctx context.Context, name string, args ...string) *Cmd {
	c := &Cmd{Cmd: exec.CommandContext(ctx, name, args...), ns: ns}
	// A process group of its own, so that its children go with it.
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = c.kill
	return c
}

func (c *Cmd) kill() error {
	err := unix.Kill(-c.Process.Pid, unix.SIGKILL)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

// Start starts the process inside the namespace.
func (c *Cmd) Start() error {
	if err := c.ns.Do(c.Cmd.Start); err != nil {
		return err
	}
	return c.ns.lab.own(closerFunc(func() error {
		if c.waited.Load() {
			return nil // its number may be another's by now
		}
		return c.kill()
	}))
}

// Wait waits for the process's end, as exec.Cmd.Wait does.
func (c *Cmd) Wait() error {
	defer c.waited.Store(true)
	return c.Cmd.Wait()
}

// Run starts the process and waits for its end.
func (c *Cmd) Run() error {
	if err := c.Start(); err != nil {
		return err
	}
	return c.Wait()
}

// CombinedOutput runs the process and returns what it wrote to both standard
// output and standard error.
func (c *Cmd) CombinedOutput() ([]byte, error) {
	var b bytes.Buffer
	c.Stdout, c.Stderr = &b, &b
	err := c.Run()
	return b.Bytes(), err
}

type closerFunc func() error

func (f closerFunc) Close() error { return f() }
