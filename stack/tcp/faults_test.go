package tcp_test

import (
	"runtime"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/tcprepair/ustack/stack/tcp"
)

// Faults that users of other userspace stacks have reported, those that show in
// whole stacks; the numbers are those of conn's. Fault 12, what is left after
// Close, is in leak_test.go, 16 and 17 in stress_test.go.

// heapInUse is how many bytes are reachable.
func heapInUse() int64 {
	runtime.GC()
	runtime.GC() // what finalizers and pools let go of
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// Fault 11: forwards that the peer aborts, with a reset right after the SYN-ACK,
// pile up memory.
func TestFaultAbortedForwards(t *testing.T) {
	const count, warm = 4000, 1000
	w := newWire(t)
	failed := make(chan tcpip.Error)
	fwd := tcp.NewForwarder(w.stack, 0, 10, func(r *tcp.ForwarderRequest) {
		_, err := r.CreateEndpoint(new(waiter.Queue))
		r.Complete(false)
		failed <- err
	})
	w.stack.SetTransportProtocolHandler(tcp.ProtocolNumber, fwd.HandlePacket)
	var before int64
	for n := range count {
		if n == warm {
			before = heapInUse()
		}
		w.ports[1] = uint16(10_000 + n)
		w.inject(segment{seq: peerISN, flags: header.TCPFlagSyn, window: 65535}, nil)
		eventually(t, "no SYN-ACK", func() bool { return w.link.NumQueued() > 0 })
		w.want(header.TCPFlagSyn | header.TCPFlagAck)
		w.inject(segment{seq: peerISN + 1, flags: header.TCPFlagRst}, nil)
		if err := <-failed; err == nil {
			t.Fatal("CreateEndpoint made a connection of a reset one")
		}
	}
	if n := len(tcp.Endpoints(w.stack)); n != 0 {
		t.Errorf("%d endpoints are left", n)
	}
	if grown := heapInUse() - before; grown > 256<<10 {
		t.Errorf("%d aborted forwards have left %d bytes", count-warm, grown)
	}
}

// Fault 11 again: so do attempts to connect where nobody answers.
func TestFaultConnectsToABlackHole(t *testing.T) {
	const count, most = 2000, 8 << 10
	w := newWire(t)
	eps := make([]*tcp.Endpoint, count)
	attempt := func() {
		for i := range eps {
			eps[i] = newEndpoint(t, w.stack, families[0], new(waiter.Queue))
			if _, ok := eps[i].Connect(tcpip.FullAddress{Addr: addr4[1], Port: 7}).(*tcpip.ErrConnectStarted); !ok {
				t.Fatal("Connect did not start")
			}
			w.want(header.TCPFlagSyn)
		}
	}
	giveUp := func() {
		for range 300 {
			w.clock.Advance(time.Second)
			for w.link.NumQueued() > 0 {
				w.next()
			}
		}
		for _, ep := range eps {
			if _, ok := ep.LastError().(*tcpip.ErrTimeout); !ok {
				t.Fatalf("after five minutes %s", ep.EndpointState())
			}
			ep.Close()
		}
		clear(eps)
	}
	attempt()
	giveUp()
	before := heapInUse()
	attempt()
	if grown := heapInUse() - before; grown > count*most {
		t.Errorf("an attempt takes %d bytes, want %d at most", grown/count, most)
	}
	giveUp()
	if n := len(tcp.Endpoints(w.stack)); n != 0 {
		t.Errorf("%d endpoints are left", n)
	}
	if grown := heapInUse() - before; grown > 256<<10 {
		t.Errorf("%d attempts have left %d bytes", count, grown)
	}
}

// Fault 14: a listener is deaf after the stack was saved and restored, and so is
// whoever waits for it.
func TestFaultListenerAfterPauseAndResume(t *testing.T) {
	w := newWire(t)
	l, wq := listenEndpoint(t, w.stack, families[0], 0, w.ports[0], 5)
	entry, told := waiter.NewChannelEntry(waiter.ReadableEvents)
	wq.EventRegister(&entry)
	defer wq.EventUnregister(&entry)
	// One handshake is under way meanwhile.
	w.inject(segment{seq: peerISN, flags: header.TCPFlagSyn, window: 65535}, nil)
	iss := w.want(header.TCPFlagSyn|header.TCPFlagAck).seq + 1
	w.stack.Pause()
	w.stack.Resume()
	for n := range 3 {
		if n > 0 {
			w.ports[1]++
			w.inject(segment{seq: peerISN, flags: header.TCPFlagSyn, window: 65535}, nil)
			iss = w.want(header.TCPFlagSyn|header.TCPFlagAck).seq + 1
		}
		w.inject(segment{seq: peerISN + 1, ack: iss, flags: header.TCPFlagAck, window: 65535}, nil)
		select {
		case <-told:
		case <-time.After(10 * time.Second):
			t.Fatal("nobody is told of the connection")
		}
		c, _, err := l.Accept(nil)
		if err != nil {
			t.Fatalf("Accept: %s", err)
		}
		c.Close()
		w.want(header.TCPFlagFin | header.TCPFlagAck)
	}
}
