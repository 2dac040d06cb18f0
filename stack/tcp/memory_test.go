package tcp_test

import (
	"bytes"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"

	"github.com/tcprepair/ustack/stack/tcp"
)

// Go allocates in sizes of its own, and puts eight bytes before what has pointers
// and is larger than 512: an endpoint of a byte more than this takes an eighth
// more memory. Where room is wanted, records that most connections do without are
// in package conn (ordinary.go) and in Endpoint.
func TestEndpointFitsItsSizeClass(t *testing.T) {
	const class, before = 1152, 8
	if n := unsafe.Sizeof(tcp.Endpoint{}); n+before > class {
		t.Errorf("an endpoint takes %d bytes, want at most %d", n, class-before)
	}
}

// An established connection that does nothing has little memory, no timer and no
// goroutine, whether or not it was ever used.
func TestIdleConnectionsTakeLittle(t *testing.T) {
	const connections = 2000
	clock := newTimeKeeper()
	w := &wire{t: t, clock: clock.ManualClock, link: channel.New(16, 1500, ""), ports: [2]uint16{7, 0}}
	w.stack = newStack(t, w.link, 0, clock)
	t.Cleanup(w.stack.Destroy)
	l, _ := listenEndpoint(t, w.stack, families[0], 0, w.ports[0], 5)
	before := takeStock(clock)

	crowd := make([]guest, connections)
	for i := range crowd {
		crowd[i] = w.admit(l, uint16(10_000+i))
	}
	clock.Advance(50 * time.Millisecond) // for the listener's reminder, not for a connection
	before.compare(t, clock, connections, "before the first use")

	for _, g := range crowd {
		w.greet(g)
	}
	clock.Advance(time.Second)
	before.compare(t, clock, connections, "after use")
	for _, g := range crowd {
		g.ep.Abort()
	}
}

// stock is what there is of what connections might take.
type stock struct {
	memory     int64 // bytes
	timers     int64
	goroutines int
}

func takeStock(clock *timeKeeper) stock {
	runtime.GC()
	runtime.GC() // what pools have let go in the first
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return stock{int64(m.HeapAlloc), clock.set.Load(), runtime.NumGoroutine()}
}

// compare verifies that n idle connections have come and no more.
func (s stock) compare(t *testing.T, clock *timeKeeper, n int64, when string) {
	t.Helper()
	const most = 2560 // bytes, a third of them gVisor's tables
	eventually(t, when+": goroutines run", func() bool { return runtime.NumGoroutine() <= s.goroutines })
	now := takeStock(clock)
	if now.timers > s.timers {
		t.Errorf("%s: %d timers are set", when, now.timers-s.timers)
	}
	if each := (now.memory - s.memory) / n; each > most {
		t.Errorf("%s: a connection takes %d bytes, want at most %d", when, each, most)
	}
}

// guest is a connection of a crowd.
type guest struct {
	ep   *tcp.Endpoint
	port uint16
	ack  uint32
}

// admit opens a connection to a listener.
func (w *wire) admit(l *tcp.Endpoint, port uint16) guest {
	w.t.Helper()
	w.ports[1] = port
	w.inject(segment{seq: peerISN, flags: header.TCPFlagSyn, window: 65535}, nil)
	ack := w.want(header.TCPFlagSyn|header.TCPFlagAck).seq + 1
	w.inject(segment{seq: peerISN + 1, ack: ack, flags: header.TCPFlagAck, window: 65535}, nil)
	ep, _, err := l.Accept(nil)
	if err != nil {
		w.t.Fatalf("Accept: %s", err)
	}
	return guest{ep.(*tcp.Endpoint), port, ack}
}

// greet has a byte go each way.
func (w *wire) greet(g guest) {
	w.t.Helper()
	w.ports[1] = g.port
	w.inject(segment{seq: peerISN + 1, ack: g.ack, flags: header.TCPFlagAck, window: 65535, payload: "?"}, nil)
	w.want(header.TCPFlagAck)
	if _, err := g.ep.Read(new(bytes.Buffer), tcpip.ReadOptions{}); err != nil {
		w.t.Fatalf("Read: %s", err)
	}
	if _, err := g.ep.Write(bytes.NewReader([]byte("!")), tcpip.WriteOptions{}); err != nil {
		w.t.Fatalf("Write: %s", err)
	}
	w.want(header.TCPFlagAck)
	w.inject(segment{seq: peerISN + 2, ack: g.ack + 1, flags: header.TCPFlagAck, window: 65535}, nil)
}
