//go:build linux

package main

import (
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Peer is the process at the other end of the link, on the kernel's TCP. Its
// exported methods are called by RPC.
type Peer struct {
	held []int          // idle connections
	bulk []*net.TCPConn // busy ones
}

// Job says what the peer is to do.
type Job struct {
	Duration time.Duration
	Size     int // bytes of a request, or number of connections
}

// Latency is how long round trips took.
type Latency struct{ P50, P99 time.Duration }

// RoundTrips sends requests of job.Size bytes, one after another, and waits for
// each to come back. It does so with plain system calls that block, which is
// the quickest the kernel has.
func (p *Peer) RoundTrips(job Job, l *Latency) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	fd, err := connect(portEcho)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	buf := make([]byte, job.Size)
	took := make([]time.Duration, 0, 1<<20)
	end := time.Now().Add(job.Duration)
	for last := time.Now(); last.Before(end); {
		if _, err := unix.Write(fd, buf); err != nil {
			return os.NewSyscallError("write", err)
		}
		if err := readFull(fd, buf); err != nil {
			return err
		}
		now := time.Now()
		took = append(took, now.Sub(last))
		last = now
	}
	slices.Sort(took)
	l.P50, l.P99 = took[len(took)/2], took[len(took)*99/100]
	return nil
}

// connect opens a blocking socket to a port of the server's.
func connect(port int) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	to := &unix.SockaddrInet4{Port: port, Addr: address.Addr().As4()}
	for _, set := range []func() error{
		func() error { return setCongestion(uintptr(fd)) },
		func() error { return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1) },
		func() error {
			return unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: int64(patience / time.Second)})
		},
		func() error { return unix.Connect(fd, to) },
	} {
		if err := set(); err != nil {
			_ = unix.Close(fd)
			return -1, os.NewSyscallError("connect", err)
		}
	}
	return fd, nil
}

// setCongestion gives a kernel socket the congestion control that was asked for,
// if one was.
func setCongestion(fd uintptr) error {
	name := os.Getenv(congestionVariable)
	if name == "" {
		return nil
	}
	return unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, name)
}

// controlCongestion is setCongestion for the sockets of package net.
func controlCongestion(_, _ string, c syscall.RawConn) (err error) {
	cerr := c.Control(func(fd uintptr) { err = setCongestion(fd) })
	return errors.Join(cerr, err)
}

func readFull(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := unix.Read(fd, b)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return os.NewSyscallError("read", err)
		}
		if n == 0 {
			return io.ErrUnexpectedEOF
		}
		b = b[n:]
	}
	return nil
}

// Connects counts how many connections a second can be made, used for one byte
// each way and reset, one after another.
func (p *Peer) Connects(job Job, perSecond *float64) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	n := 0
	start := time.Now()
	for time.Since(start) < job.Duration {
		fd, err := connect(portOnce)
		if err != nil {
			return err
		}
		err = exchange(fd)
		resetSocket(fd)
		if err != nil {
			return err
		}
		n++
	}
	*perSecond = float64(n) / time.Since(start).Seconds()
	return nil
}

// exchange sends a byte and waits for one.
func exchange(fd int) error {
	b := [1]byte{1}
	if _, err := unix.Write(fd, b[:]); err != nil {
		return os.NewSyscallError("write", err)
	}
	return readFull(fd, b[:])
}

// Hold makes n idle connections.
func (p *Peer) Hold(n int, _ *None) error {
	if err := filesFor(n); err != nil {
		return err
	}
	for i := range n {
		fd, err := connect(portHold + i%holdPorts)
		if err != nil {
			return err
		}
		p.held = append(p.held, fd)
	}
	return nil
}

// Ask sends a byte on each idle connection, Answered waits for one.
func (p *Peer) Ask(None, *None) error {
	for _, fd := range p.held {
		if _, err := unix.Write(fd, []byte{1}); err != nil {
			return os.NewSyscallError("write", err)
		}
	}
	return nil
}

// Answered waits for a byte on each idle connection.
func (p *Peer) Answered(None, *None) error {
	var b [1]byte
	for _, fd := range p.held {
		if err := readFull(fd, b[:]); err != nil {
			return err
		}
	}
	return nil
}

// Drop ends all idle connections.
func (p *Peer) Drop(None, *None) error {
	for _, fd := range p.held {
		resetSocket(fd)
	}
	p.held = nil
	return nil
}
