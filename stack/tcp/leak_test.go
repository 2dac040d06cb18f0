package tcp_test

import (
	"bytes"
	"fmt"
	"io"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/refs"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/faketime"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/loopback"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/tcprepair/ustack/stack/repair"
	"github.com/tcprepair/ustack/stack/tcp"
)

// What came before a reset and was not read is freed by Close.
func TestUnreadDataIsFreedAfterAReset(t *testing.T) {
	w := newWire(t)
	ep, iss := w.open()
	countBuffers(t)
	const data = "unread"
	w.inject(segment{seq: peerISN + 1, ack: iss, flags: header.TCPFlagAck | header.TCPFlagPsh, window: 65535, payload: data}, nil)
	w.want(header.TCPFlagAck)
	w.inject(segment{seq: peerISN + 1 + uint32(len(data)), flags: header.TCPFlagRst}, nil)
	w.quiet("after the reset")
	ep.Close()
	noBuffers(t)
}

// countBuffers has gVisor remember who holds its reference-counted buffers,
// from here to the end of the test.
func countBuffers(t testing.TB) {
	was := refs.GetLeakMode()
	refs.SetLeakMode(refs.LeaksPanic)
	t.Cleanup(func() { refs.SetLeakMode(was) })
}

// noBuffers verifies that none of those are left.
func noBuffers(t testing.TB) {
	t.Helper()
	defer func() {
		if r := recover(); r != nil {
			t.Errorf("buffers are left: %.2000s", fmt.Sprint(r))
		}
	}()
	refs.DoRepeatedLeakCheck()
}

// timeKeeper is a clock in virtual time that knows how many timers are set.
type timeKeeper struct {
	*faketime.ManualClock
	set atomic.Int64
}

func newTimeKeeper() *timeKeeper { return &timeKeeper{ManualClock: faketime.NewManualClock()} }

// AfterFunc implements tcpip.Clock.
func (k *timeKeeper) AfterFunc(d time.Duration, f func()) tcpip.Timer {
	t := &keptTimer{keeper: k}
	t.mark(true)
	t.Timer = k.ManualClock.AfterFunc(d, func() {
		t.mark(false)
		f()
	})
	return t
}

// keptTimer is a timer of a timeKeeper.
type keptTimer struct {
	tcpip.Timer
	keeper *timeKeeper
	isSet  atomic.Bool
}

func (t *keptTimer) mark(set bool) {
	switch was := t.isSet.Swap(set); {
	case set && !was:
		t.keeper.set.Add(1)
	case !set && was:
		t.keeper.set.Add(-1)
	}
}

// Stop implements tcpip.Timer.
func (t *keptTimer) Stop() bool {
	t.mark(false)
	return t.Timer.Stop()
}

// Reset implements tcpip.Timer.
func (t *keptTimer) Reset(d time.Duration) {
	t.mark(true)
	t.Timer.Reset(d)
}

// short is how long the tests of leaks let virtual time go on for what is to
// end by itself: TIME-WAIT, and the patience with a peer that is gone.
const short = time.Hour

// fates are the ways in which a connection ends.
var fates = []struct {
	name string
	end  func(t *testing.T, o *orphanage)
}{
	{"the client closes first", func(t *testing.T, o *orphanage) {
		client, server := o.talk(t)
		client.Close()
		server.Close()
	}},
	{"the server closes first", func(t *testing.T, o *orphanage) {
		client, server := o.talk(t)
		server.Close()
		client.Close()
	}},
	{"half closes", func(t *testing.T, o *orphanage) {
		client, server := o.talk(t)
		client.Shutdown(tcpip.ShutdownWrite)
		write(t, server, "the rest")
		server.Shutdown(tcpip.ShutdownWrite)
		client.Close()
		server.Close()
	}},
	{"both with unread data", func(t *testing.T, o *orphanage) {
		client, server := o.talk(t)
		write(t, client, "unread")
		write(t, server, "unread")
		client.Close()
		server.Close()
	}},
	{"no lingering", func(t *testing.T, o *orphanage) {
		client, server := o.talk(t)
		server.SocketOptions().SetLinger(tcpip.LingerOption{Enabled: true})
		server.Close()
		client.Close()
	}},
	{"aborted", func(t *testing.T, o *orphanage) {
		client, server := o.talk(t)
		write(t, server, "unread")
		client.Abort()
		server.Close()
	}},
	{"refused", func(t *testing.T, o *orphanage) {
		o.connect(t, addr4[0], 8).Close()
	}},
	{"unanswered and closed", func(t *testing.T, o *orphanage) {
		o.connect(t, addr4[1], 7).Close()
	}},
	{"closed before it is accepted", func(t *testing.T, o *orphanage) {
		client := o.connect(t, addr4[0], 7)
		write(t, client, "unread")
		client.Close()
		o.accept(t).Close()
	}},
	{"frozen and closed, the peer as well", func(t *testing.T, o *orphanage) {
		client, server := o.talk(t)
		write(t, client, "before the freeze")
		client.SetRepair(repair.On)
		write(t, server, "to a frozen peer")
		client.Close()
		server.Close()
	}},
	{"only the peer closes", func(t *testing.T, o *orphanage) {
		client, server := o.talk(t)
		client.SetRepair(repair.On)
		write(t, server, "to a frozen peer")
		server.Close() // gives up in time
		o.later = append(o.later, client)
	}},
}

// orphanage is a stack on which connections are made, and given up.
type orphanage struct {
	clock    *timeKeeper
	stack    *stack.Stack
	listener *tcp.Endpoint
	later    []*tcp.Endpoint // to be closed once time has passed
}

func newOrphanage(t *testing.T) *orphanage {
	t.Helper()
	o := &orphanage{clock: newTimeKeeper()}
	o.stack = newStack(t, loopback.New(), 0, o.clock)
	return o
}

// open opens the listener.
func (o *orphanage) open(t *testing.T) {
	t.Helper()
	ep := newEndpoint(t, o.stack, families[0], new(waiter.Queue))
	if err := ep.Bind(tcpip.FullAddress{Addr: addr4[0], Port: 7}); err != nil {
		t.Fatal(err)
	}
	if err := ep.Listen(5); err != nil {
		t.Fatal(err)
	}
	o.listener = ep
}

// connect begins a connection. On a loopback it has come about, or not, when
// the function returns.
func (o *orphanage) connect(t *testing.T, to tcpip.Address, port uint16) *tcp.Endpoint {
	t.Helper()
	// The port may be that of a connection whose other end is in TIME-WAIT,
	// and by the clock it tells the two apart.
	o.clock.Advance(time.Millisecond)
	ep := newEndpoint(t, o.stack, families[0], new(waiter.Queue))
	if err := ep.Connect(tcpip.FullAddress{Addr: to, Port: port}); tcpipErr(err) != tcpipErr(&tcpip.ErrConnectStarted{}) {
		t.Fatalf("Connect: %s", tcpipErr(err))
	}
	return ep
}

func (o *orphanage) accept(t *testing.T) *tcp.Endpoint {
	t.Helper()
	ep, _, err := o.listener.Accept(nil)
	if err != nil {
		t.Fatalf("Accept: %s", err)
	}
	return ep.(*tcp.Endpoint)
}

// talk makes a connection on which something has been said both ways.
func (o *orphanage) talk(t *testing.T) (client, server *tcp.Endpoint) {
	t.Helper()
	client = o.connect(t, addr4[0], 7)
	server = o.accept(t)
	for _, way := range []struct{ from, to *tcp.Endpoint }{{client, server}, {server, client}} {
		write(t, way.from, "a few words")
		if _, err := way.to.Read(io.Discard, tcpip.ReadOptions{}); err != nil {
			t.Fatalf("Read: %s", err)
		}
	}
	return client, server
}

// settle lets time pass until everything has ended that ends by itself.
func (o *orphanage) settle() {
	o.clock.Advance(short)
	for _, ep := range o.later {
		ep.Close()
	}
	o.later = nil
	o.clock.Advance(short)
}

func write(t *testing.T, ep *tcp.Endpoint, s string) {
	t.Helper()
	if _, err := ep.Write(bytes.NewReader([]byte(s)), tcpip.WriteOptions{}); err != nil {
		t.Fatalf("Write: %s", err)
	}
}

// Fault 12: something is left after Close. A hundred thousand connections that end
// in every way there is leave nothing:
// no endpoint, port, timer, goroutine, buffer or other memory.
func TestConnectionsLeaveNothing(t *testing.T) {
	const connections, batch = 100_000, 2_000
	goroutines := runtime.NumGoroutine()
	countBuffers(t)
	o := newOrphanage(t)
	timers := o.clock.set.Load()
	o.open(t)
	var before, after runtime.MemStats
	for n := 0; n < connections; {
		for range batch {
			fates[n%len(fates)].end(t, o)
			n++
		}
		o.settle()
		if n == batch { // tables are as large as they get
			runtime.GC()
			runtime.ReadMemStats(&before)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 4<<20 {
		t.Errorf("%d connections have left %d bytes of memory", connections, grown)
	}
	if list := conns(o.stack); len(list) != 0 {
		t.Errorf("%d endpoints are left, the first %s", len(list), list[0].EndpointState())
	}
	o.listener.Close()
	o.empty(t)
	if n := o.clock.set.Load(); n != timers {
		t.Errorf("%d timers are set, were %d", n, timers)
	}
	for port := 1; port <= 0xffff; port++ {
		ep := newEndpoint(t, o.stack, families[0], new(waiter.Queue))
		if err := ep.Bind(tcpip.FullAddress{Port: uint16(port)}); err != nil {
			t.Fatalf("port %d is still taken: %s", port, err)
		}
		ep.Close()
	}
	o.stack.Destroy()
	noBuffers(t)
	eventually(t, "goroutines are left", func() bool { return runtime.NumGoroutine() <= goroutines })
}

// empty verifies that a stack has no endpoint any more, whatever its state.
func (o *orphanage) empty(t *testing.T) {
	t.Helper()
	if n := len(tcp.Endpoints(o.stack)); n != 0 {
		t.Errorf("%d endpoints are left", n)
	}
	if n := len(o.stack.CleanupEndpoints()); n != 0 {
		t.Errorf("%d endpoints are in cleanup", n)
	}
	s := o.stack.Stats().TCP
	if c, e := s.CurrentConnected.Value(), s.CurrentEstablished.Value(); c != 0 || e != 0 {
		t.Errorf("CurrentConnected %d, CurrentEstablished %d", c, e)
	}
}

// A thousand stacks that are destroyed while connections end in every way, or
// have not ended, leave nothing of TCP's.
func TestStacksLeaveNothing(t *testing.T) {
	goroutines := runtime.NumGoroutine()
	countBuffers(t)
	idle := newOrphanage(t)
	idle.stack.Destroy()
	timers := idle.clock.set.Load() // not ours
	for n := range 1000 {
		o := newOrphanage(t)
		o.open(t)
		fates[n%len(fates)].end(t, o)
		if n%3 == 0 {
			client, server := o.talk(t)
			write(t, client, "in a queue")
			write(t, server, "in a queue")
		}
		o.stack.Destroy()
		o.empty(t)
		if got := o.clock.set.Load(); got > timers {
			t.Errorf("%s: %d timers are left, %d of a stack without a connection", fates[n%len(fates)].name, got, timers)
		}
		for _, ep := range o.later {
			ep.Close()
		}
		if t.Failed() {
			return
		}
	}
	noBuffers(t)
	eventually(t, "goroutines are left", func() bool { return runtime.NumGoroutine() <= goroutines })
}
