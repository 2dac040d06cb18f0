//go:build linux

package main

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

// Traffic is what connections are to carry.
type Traffic struct {
	// Send makes the stack under test receive, Receive makes it send.
	Send, Receive bool
	// Crowd is how many connections it is that send, if more than one.
	Crowd int
}

// Count is how many bytes a process has read from bulk connections, at a moment
// of its own clock.
type Count struct {
	Bytes int64
	At    time.Duration
}

// Begin opens connections and lets them run until End.
func (p *Peer) Begin(t Traffic, _ *None) error {
	port := uint16(portBoth)
	send := fill
	switch {
	case t.Crowd > 0:
		port, send = portCrowd, fillInTurn
	case !t.Receive:
		port = portSink
	case !t.Send:
		port = portSource
	}
	to := netip.AddrPortFrom(address.Addr(), port).String()
	dialer := net.Dialer{Control: controlCongestion}
	for range max(t.Crowd, 1) {
		c, err := dialer.Dial("tcp4", to)
		if err != nil {
			return err
		}
		p.bulk = append(p.bulk, c.(*net.TCPConn))
	}
	for _, c := range p.bulk {
		if t.Send {
			go send(c)
		}
		if t.Receive {
			go drain(c)
		}
	}
	return nil
}

// Counted says how much has come.
func (p *Peer) Counted(None, c *Count) error { return counted(c) }

// Counted says how much has come.
func (c *Contestant) Counted(None, n *Count) error { return counted(n) }

// End resets all that Begin opened.
func (p *Peer) End(None, *None) error {
	// All at once: closing waits for a write under way, and that for its turn
	// among a thousand.
	var wg sync.WaitGroup
	for _, c := range p.bulk {
		wg.Go(func() {
			_ = c.SetLinger(0)
			_ = c.Close()
		})
	}
	wg.Wait()
	p.bulk = nil
	return nil
}

// bulk is traffic on connections, and how fast it reaches the programs that
// read it. What is under way at either end of the measurement does not count.
func bulk(name string, t Traffic) func(*pair, time.Duration) ([]value, error) {
	return func(p *pair, d time.Duration) (values []value, err error) {
		var readers []*child
		if t.Send {
			readers = append(readers, p.contestant)
		}
		if t.Receive {
			readers = append(readers, p.peer)
		}
		if err := p.peer.call("Begin", t, &None{}); err != nil {
			return nil, err
		}
		time.Sleep(d/4 + time.Duration(t.Crowd)*d/1000) // slow start, and a crowd's goes on for longer
		before := make([]Count, len(readers))
		after := make([]Count, len(readers))
		for i, c := range readers {
			if err := c.call("Counted", None{}, &before[i]); err != nil {
				return nil, err
			}
		}
		time.Sleep(d)
		rate := 0.0
		for i, c := range readers {
			if err := c.call("Counted", None{}, &after[i]); err != nil {
				return nil, err
			}
			const bitsPerByte, giga = 8, 1e9
			rate += float64(after[i].Bytes-before[i].Bytes) * bitsPerByte / giga / (after[i].At - before[i].At).Seconds()
		}
		return []value{{name, unitRate, rate}}, p.peer.call("End", None{}, &None{})
	}
}
