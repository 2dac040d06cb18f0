//go:build linux

package main

import (
	"fmt"
	"net"
	"os"
	"runtime/pprof"
)

// Contestant is the process that serves on a stack. Its exported methods are
// called by RPC.
type Contestant struct {
	stack   hostStack
	held    holder
	profile *os.File
	before  memory // before the connections that are held
	// expected is the connection to be frozen and moved, once it has come.
	expected chan net.Conn
}

// None is for a call without arguments or result.
type None struct{}

func newContestant(name string) (*Contestant, error) {
	s, err := newHostStack(name)
	if err != nil {
		return nil, err
	}
	c := &Contestant{stack: s}
	for port, service := range services {
		l, err := s.listen(port)
		if err != nil {
			return nil, fmt.Errorf("port %d: %w", port, err)
		}
		go serve(l, service)
	}
	c.held, err = s.hold()
	return c, err
}

// StartProfile writes a CPU profile to the file until StopProfile.
func (c *Contestant) StartProfile(path string, _ *None) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	c.profile = f
	return pprof.StartCPUProfile(f)
}

// StopProfile ends what StartProfile began.
func (c *Contestant) StopProfile(None, *None) error {
	pprof.StopCPUProfile()
	return c.profile.Close()
}

// Mark notes the memory in use before connections come.
func (c *Contestant) Mark(None, *None) error {
	c.before = memoryInUse()
	return nil
}

// Held waits until n connections have come since Mark, and says how many bytes
// each costs.
func (c *Contestant) Held(n int, bytes *float64) error {
	if err := c.held.wait(n); err != nil {
		return err
	}
	*bytes = c.held.cost(c.before, memoryInUse()) / float64(n)
	return nil
}

// Exercise answers a byte on each connection held.
func (c *Contestant) Exercise(None, *None) error { return c.held.exercise() }

// Drop ends all connections held.
func (c *Contestant) Drop(None, *None) error { return c.held.drop() }
