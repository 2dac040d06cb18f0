//go:build linux

package main

import (
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"github.com/tcprepair/ustack/stack"
	"github.com/tcprepair/ustack/stack/repair"
	"github.com/tcprepair/ustack/stack/repair/linux"
	"github.com/tcprepair/ustack/stack/tcp"
)

// portRepair is where the connection that is frozen and moved comes to.
const portRepair = 9100

// repairer is a stack whose connections can be frozen and moved.
type repairer interface {
	hostStack
	// repair returns a connection of the stack's, and who makes others.
	repair(net.Conn) (repair.Socket, repair.Factory, error)
}

func (s ourStack) repair(c net.Conn) (repair.Socket, repair.Factory, error) {
	return c.(*stack.Conn).Endpoint().Repair(), &tcp.RepairFactory{Stack: s.NetStack()}, nil
}

func (kernelStack) repair(c net.Conn) (repair.Socket, repair.Factory, error) {
	f := &linux.Factory{}
	s, err := f.FromConn(c.(syscall.Conn))
	return s, f, err
}

// Expect listens for one connection to be frozen and moved.
func (c *Contestant) Expect(None, *None) error {
	s, ok := c.stack.(repairer)
	if !ok {
		return errors.New("connections cannot be frozen")
	}
	l, err := s.listen(portRepair)
	if err != nil {
		return err
	}
	c.expected = make(chan net.Conn, 1)
	go func() {
		conn, err := l.Accept()
		l.Close() // it would be in the way of the restored connection
		if err == nil {
			c.expected <- conn
		}
		close(c.expected)
	}()
	return nil
}

// Repaired is how long freezing and thawing takes, and how long reading out a
// connection, dropping it and setting it down again.
type Repaired struct{ Freeze, Move time.Duration }

// Repair measures both on the connection that has come, for half the time each.
func (c *Contestant) Repair(job Job, r *Repaired) error {
	conn, ok := <-c.expected
	if !ok {
		return errors.New("no connection has come")
	}
	sock, factory, err := c.stack.(repairer).repair(conn)
	if err != nil {
		return err
	}
	r.Freeze, err = perRound(job.Duration/2, func() error {
		if err := sock.SetRepair(repair.On); err != nil {
			return err
		}
		return sock.SetRepair(repair.OffNoProbe)
	})
	if err != nil {
		return fmt.Errorf("freeze: %w", err)
	}
	first := true
	r.Move, err = perRound(job.Duration/2, func() error {
		snap, err := repair.Checkpoint(sock)
		if err != nil {
			return err
		}
		if first {
			// The net.Conn has a descriptor of its own on the old one.
			err, first = conn.Close(), false
		}
		if err := errors.Join(err, sock.Close()); err != nil {
			return err
		}
		if sock, err = repair.Restore(factory, snap); err != nil {
			return err
		}
		return sock.SetRepair(repair.OffNoProbe)
	})
	if err != nil {
		return fmt.Errorf("move: %w", err)
	}
	return sock.Close()
}

// perRound repeats f for that long, at least once, and says how long one took.
func perRound(d time.Duration, f func() error) (time.Duration, error) {
	n, start := time.Duration(0), time.Now()
	for n == 0 || time.Since(start) < d {
		if err := f(); err != nil {
			return 0, err
		}
		n++
	}
	return time.Since(start) / n, nil
}

// Arrive opens the connection that Expect waits for.
func (p *Peer) Arrive(None, *None) error {
	fd, err := connect(portRepair)
	if err != nil {
		return err
	}
	p.held = append(p.held, fd)
	return nil
}

// freeze is what freezing and moving a connection takes.
func freeze(p *pair, d time.Duration) ([]value, error) {
	m := &measurement{pair: p, peers: []*child{p.peer}}
	var r Repaired
	m.tell("Expect", None{}, &None{})
	m.tellPeers("Arrive", None{})
	m.tell("Repair", Job{Duration: d}, &r)
	m.tellPeers("Drop", None{})
	return []value{
		{"freeze_thaw", unitTime, float64(r.Freeze.Nanoseconds()) / 1e3},
		{"checkpoint_restore", unitTime, float64(r.Move.Nanoseconds()) / 1e3},
	}, m.err
}
