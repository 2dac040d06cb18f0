//go:build linux

package main

import (
	"io"
	"net"
	"runtime"
	"sync/atomic"
	"time"
)

// Ports of the services.
const (
	portSink   = 9001 + iota // reads
	portSource               // writes
	portBoth                 // does both
	portCrowd                // reads, as one among many
	portEcho                 // sends back what comes
	portOnce                 // sends one byte back, then waits for the end
)

// bulkBuffer is how much is read and written at once.
const (
	bulkBuffer  = 256 << 10
	crowdBuffer = 64 << 10 // of one among many
)

// services are what every stack offers.
var services = map[uint16]func(net.Conn) error{
	portSink:   drain,
	portSource: fill,
	portBoth:   fillAndDrain,
	portCrowd:  drainInTurn,
	portEcho:   serveEcho,
	portOnce:   serveOnce,
}

// serve accepts for good.
func serve(l net.Listener, service func(net.Conn) error) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			_ = service(c) // a peer that is in a hurry resets
		}()
	}
}

// read is how much all bulk connections of this process have read.
var read atomic.Int64

var started = time.Now()

func counted(c *Count) error {
	*c = Count{Bytes: read.Load(), At: time.Since(started)}
	return nil
}

// drain reads to the end.
func drain(c net.Conn) error { return drainBy(c, bulkBuffer, func() {}) }

// fill writes until the other end has enough.
func fill(c net.Conn) error { return fillBy(c, bulkBuffer, func() {}) }

// drainInTurn and fillInTurn are for one connection among many: after each call
// others get their turn. Where calls hardly ever block, a goroutine would go on
// until it is preempted, for ten milliseconds.
func drainInTurn(c net.Conn) error { return drainBy(c, crowdBuffer, runtime.Gosched) }

func fillInTurn(c net.Conn) error { return fillBy(c, crowdBuffer, runtime.Gosched) }

func drainBy(c net.Conn, size int, then func()) error {
	buf := make([]byte, size)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return err
		}
		read.Add(int64(n))
		then()
	}
}

func fillBy(c net.Conn, size int, then func()) error {
	buf := make([]byte, size)
	for {
		if _, err := c.Write(buf); err != nil {
			return err
		}
		then()
	}
}

func fillAndDrain(c net.Conn) error {
	go fill(c)
	return drain(c)
}

func serveEcho(c net.Conn) error {
	buf := make([]byte, 64<<10)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return err
		}
		if _, err := c.Write(buf[:n]); err != nil {
			return err
		}
	}
}

func serveOnce(c net.Conn) error {
	var b [1]byte
	if _, err := io.ReadFull(c, b[:]); err != nil {
		return err
	}
	if _, err := c.Write(b[:]); err != nil {
		return err
	}
	_, err := c.Read(b[:])
	return err
}
