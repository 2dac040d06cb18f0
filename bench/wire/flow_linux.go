package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcprepair/ustack/internal/netlab"
	"github.com/tcprepair/ustack/internal/netlab/impair"
	"github.com/tcprepair/ustack/stack"
	"github.com/tcprepair/ustack/stack/tap"
)

// A pairing is who sends to whom.
type pairing int

const (
	kernelToKernel pairing = iota
	oursToKernel
	kernelToOurs
	numPairings
)

func (p pairing) String() string {
	return [...]string{"kernel to kernel", "ours to kernel", "kernel to ours"}[p]
}

// cell is a path.
type cell struct {
	loss float64 // percent of packets, each way
	rtt  time.Duration
}

// rate is the bottleneck's, bits per second, with a queue of one
// bandwidth-delay product. No cell comes near it but at its start.
const rate = 100e6

func (c cell) config(seed uint64) netlab.WireConfig {
	one := impair.Config{
		Loss: c.loss / 100, Delay: c.rtt / 2,
		Rate: rate, Queue: int(rate / 8 * c.rtt.Seconds()),
	}
	return netlab.WireConfig{AToB: one, BToA: one, Seed: seed}
}

// result is what a flow did.
type result struct {
	mbps   float64
	detail string // about the sender
}

const patience = 30 * time.Second

// cubic is for every kernel socket: many kernels have another default.
var cubic = netlab.SetString(unix.IPPROTO_TCP, unix.TCP_CONGESTION, "cubic")

// measure has one sender send as much as it can.
func (c cell) measure(p pairing, seed uint64, settle, measured time.Duration) (r result, err error) {
	lab, err := netlab.Open()
	if err != nil {
		return r, err
	}
	defer lab.Close()
	from, to, stop, err := connect(lab, p, c.config(seed))
	if err != nil {
		return r, err
	}
	defer stop()
	var (
		got  atomic.Int64
		ends sync.WaitGroup
	)
	ends.Go(func() { pour(from) })
	ends.Go(func() { drain(to, &got) })
	defer ends.Wait()
	defer func() { err = errors.Join(err, from.Close(), to.Close()) }()
	<-time.After(settle)
	begun, had := time.Now(), got.Load()
	<-time.After(measured)
	r.mbps = float64(got.Load()-had) * 8 / time.Since(begun).Seconds() / 1e6
	r.detail, err = describe(from)
	return r, err
}

// pour sends until the connection is closed.
func pour(c net.Conn) {
	data := make([]byte, 256<<10)
	for {
		if _, err := c.Write(data); err != nil {
			return
		}
	}
}

// drain counts what comes until the connection is closed.
func drain(c net.Conn, got *atomic.Int64) {
	data := make([]byte, 256<<10)
	for {
		n, err := c.Read(data)
		got.Add(int64(n))
		if err != nil {
			return
		}
	}
}

// connect makes both ends. The sender dials.
func connect(lab *netlab.Lab, p pairing, wire netlab.WireConfig) (from, to net.Conn, stop func(), err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	near, far := netip.AddrPortFrom(netlab.KernelAddresses[0].Addr(), 0), netip.AddrPortFrom(netlab.PeerAddresses[0].Addr(), 0)
	stop = func() {}
	if p == kernelToKernel {
		n, err := lab.KernelWire(netlab.Link{}, wire)
		if err != nil {
			return nil, nil, stop, err
		}
		l, err := n.Peer.ListenTCP(far, cubic)
		if err != nil {
			return nil, nil, stop, err
		}
		defer l.Close()
		from, to, err = meet(l, func() (net.Conn, error) { return n.Kernel.DialTCP(ctx, port(l), cubic) })
		return from, to, stop, err
	}
	n, err := lab.Impaired(netlab.Link{}, wire)
	if err != nil {
		return nil, nil, stop, err
	}
	s, err := adopt(n.TAP)
	if err != nil {
		return nil, nil, stop, err
	}
	stop = func() { s.Close() }
	if p == oursToKernel {
		l, err := n.Kernel.ListenTCP(near, cubic)
		if err != nil {
			return nil, nil, stop, err
		}
		defer l.Close()
		from, to, err = meet(l, func() (net.Conn, error) { return s.Dial(ctx, "tcp", l.Addr().String()) })
		return from, to, stop, err
	}
	l, err := s.Listen("tcp", far.String())
	if err != nil {
		return nil, nil, stop, err
	}
	defer l.Close()
	from, to, err = meet(l, func() (net.Conn, error) { return n.Kernel.DialTCP(ctx, port(l), cubic) })
	return from, to, stop, err
}

func port(l net.Listener) netip.AddrPort { return l.Addr().(*net.TCPAddr).AddrPort() }

// meet returns both ends of what is dialled.
func meet(l net.Listener, dial func() (net.Conn, error)) (dialled, accepted net.Conn, err error) {
	if dialled, err = dial(); err != nil {
		return nil, nil, err
	}
	if accepted, err = l.Accept(); err != nil {
		return nil, nil, errors.Join(err, dialled.Close())
	}
	return dialled, accepted, nil
}

// adopt makes a stack on a TAP.
func adopt(t *netlab.TAP) (*stack.Stack, error) {
	fd, err := t.TakeFD()
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd) // Adopt works on a duplicate
	link, err := tap.Adopt(fd, tap.Config{})
	if err != nil {
		return nil, err
	}
	s, err := stack.New(stack.Config{Link: link, Addresses: netlab.PeerAddresses, Congestion: "cubic"})
	if err != nil {
		link.Close()
	}
	return s, err
}

// describe says how the sender came through.
func describe(c net.Conn) (string, error) {
	switch c := c.(type) {
	case *stack.Conn:
		i := c.Info()
		return fmt.Sprintf("retransmitted %d, window %d, RTT %v, timeouts %d, recoveries %d, undone %d", i.Counters.Retransmits,
			i.Cwnd, i.RTT, i.Counters.Timeouts, i.Counters.SACKRecoveries, i.Counters.SpuriousRecoveries+i.Counters.SpuriousTimeouts), nil
	case *net.TCPConn:
		i, err := netlab.TCPInfo(c)
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("retransmitted %d, window %d, RTT %v", i.Total_retrans, i.Snd_cwnd, time.Duration(i.Rtt)*time.Microsecond), nil
	}
	return "", nil
}
