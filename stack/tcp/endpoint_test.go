package tcp_test

import (
	"errors"
	"io"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/faketime"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/tcprepair/ustack/stack/tcp"
	"github.com/tcprepair/ustack/stack/tcp/conn"
)

// A connection to a port where nobody listens is refused.
func TestRefused(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			s := pair(t)
			_, err := gonet.DialTCP(s[0], tcpip.FullAddress{Addr: f.addrs[1], Port: 9}, f.proto)
			if err == nil || !strings.Contains(err.Error(), "refused") {
				t.Fatalf("dial = %v, want refused", err)
			}
			if n := tcp.DropCounts(s[1])[conn.DropNoSocket]; n != 1 {
				t.Errorf("NO_SOCKET drops = %d, want 1", n)
			}
			if n := s[1].Stats().TCP.ResetsSent.Value(); n != 1 {
				t.Errorf("resets sent = %d, want 1", n)
			}
		})
	}
}

// A dialer with nobody at the other end gives up, in virtual time, and leaves
// no port behind.
func TestConnectTimeout(t *testing.T) {
	clock := faketime.NewManualClock()
	link := channel.New(100, 1500, "")
	s := newStack(t, link, 0, clock)
	defer s.Destroy()

	var wq waiter.Queue
	ep := newEndpoint(t, s, families[0], &wq)
	defer ep.Close()
	hup, done := waiter.NewChannelEntry(waiter.EventHUp)
	wq.EventRegister(&hup)
	defer wq.EventUnregister(&hup)
	err := ep.Connect(tcpip.FullAddress{Addr: addr4[1], Port: 7})
	if _, ok := err.(*tcpip.ErrConnectStarted); !ok {
		t.Fatalf("Connect = %v, want ErrConnectStarted", err)
	}
	clock.Advance(10 * time.Minute)
	select {
	case <-done:
	default:
		t.Fatalf("still %s after ten minutes", ep.EndpointState())
	}
	if err, ok := ep.LastError().(*tcpip.ErrTimeout); !ok {
		t.Errorf("LastError = %v, want ErrTimeout", err)
	}
	if n := link.NumQueued(); n < 4 || n > 10 {
		t.Errorf("%d SYNs were sent, want about 7", n)
	}
	link.Drain()
	if list := tcp.Endpoints(s); len(list) != 0 {
		t.Errorf("the endpoint is still registered: %v", list[0].EndpointState())
	}
}

// newEndpoint makes a bare endpoint.
func newEndpoint(t testing.TB, s *stack.Stack, f family, wq *waiter.Queue) *tcp.Endpoint {
	t.Helper()
	ep, err := s.NewEndpoint(tcp.ProtocolNumber, f.proto, wq)
	if err != nil {
		t.Fatal(err)
	}
	return ep.(*tcp.Endpoint)
}

// A thousand connections, opened and closed in every way, leave no endpoint,
// no port and no goroutine when their stacks are gone.
func TestNothingLeft(t *testing.T) {
	before := runtime.NumGoroutine()
	s := pair(t)
	const n = 1000
	for i := range n {
		f := families[i%len(families)]
		port := uint16(1000 + i)
		client, server := connect(t, s, f, port)
		switch i % 4 {
		case 0: // in order
			client.Close()
			io.Copy(io.Discard, server)
			server.Close()
		case 1: // with something unread: a reset
			server.Write([]byte("x"))
			client.Close()
		case 2: // both at once
			client.Close()
			server.Close()
		case 3: // not at all
		}
	}
	for i, st := range s {
		st.Close()
		st.Wait()
		if left := tcp.Endpoints(st); len(left) != 0 {
			t.Errorf("stack %d: %d endpoints left, the first %s", i, len(left), left[0].EndpointState())
		}
		if left := st.CleanupEndpoints(); len(left) != 0 {
			t.Errorf("stack %d: %d endpoints in cleanup", i, len(left))
		}
		if v := st.Stats().TCP.CurrentConnected.Value(); v != 0 {
			t.Errorf("stack %d: CurrentConnected = %d", i, v)
		}
		if v := st.Stats().TCP.CurrentEstablished.Value(); v != 0 {
			t.Errorf("stack %d: CurrentEstablished = %d", i, v)
		}
	}
	eventually(t, "goroutines are left", func() bool { return runtime.NumGoroutine() <= before })
}

// eventually waits for what another goroutine is about to do.
func eventually(t testing.TB, complaint string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatal(complaint)
		}
	}
}

// A bound port is free again when its endpoint is closed.
func TestPortReleased(t *testing.T) {
	s := pair(t)
	l := listen(t, s[1], families[0], 1, 7)
	for i := range 100 {
		ep := newEndpoint(t, s[0], families[0], new(waiter.Queue))
		if err := ep.Bind(tcpip.FullAddress{Addr: addr4[0], Port: 4000}); err != nil {
			t.Fatalf("bind #%d: %s", i, err)
		}
		ep.Close()
	}
	// A listener that is gone makes way for the next.
	l.Close()
	listen(t, s[1], families[0], 1, 7)
}

// Reading what a closed peer left, and only then the end.
func TestReadAfterPeerClosed(t *testing.T) {
	s := pair(t)
	client, server := connect(t, s, families[0], 7)
	if _, err := client.Write([]byte("last words")); err != nil {
		t.Fatal(err)
	}
	client.Close()
	server.SetReadDeadline(time.Now().Add(10 * time.Second))
	got, err := io.ReadAll(server)
	if string(got) != "last words" || err != nil {
		t.Fatalf("ReadAll = %q, %v", got, err)
	}
}

// A read that waits when the endpoint is closed returns.
func TestCloseUnblocksRead(t *testing.T) {
	s := pair(t)
	client, _ := connect(t, s, families[0], 7)
	done := make(chan error, 1)
	go func() {
		_, err := client.Read(make([]byte, 1))
		done <- err
	}()
	client.Close()
	select {
	case err := <-done:
		if err == nil {
			t.Error("Read on a closed connection succeeded")
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Read does not return")
	}
}

// A peer that resets is noticed by reader and writer.
func TestReset(t *testing.T) {
	s := pair(t)
	client, server := connect(t, s, families[0], 7)
	server.Write([]byte("unread"))
	eventually(t, "the data does not arrive", func() bool {
		return conns(s[0])[0].ConnInfo().Unread > 0
	})
	client.Close() // with unread data: a reset, RFC 1122 section 4.2.2.13
	server.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := server.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("Read after a reset = %v, want an error", err)
	}
	if _, err := server.Write([]byte("x")); err == nil {
		t.Error("Write after a reset succeeded")
	}
}

// conns lists a stack's connections, without its listeners.
func conns(s *stack.Stack) (list []*tcp.Endpoint) {
	for _, e := range tcp.Endpoints(s) {
		if e.EndpointState() != tcp.StateListen {
			list = append(list, e)
		}
	}
	return list
}

// An IPv6 listener on the wildcard takes IPv4 too, unless it is v6only.
func TestDualStack(t *testing.T) {
	for _, v6only := range []bool{false, true} {
		s := pair(t)
		ep := newEndpoint(t, s[1], families[1], new(waiter.Queue))
		defer ep.Close()
		ep.SocketOptions().SetV6Only(v6only)
		if err := ep.Bind(tcpip.FullAddress{Port: 7}); err != nil {
			t.Fatal(err)
		}
		if err := ep.Listen(1); err != nil {
			t.Fatal(err)
		}
		_, err := gonet.DialTCP(s[0], tcpip.FullAddress{Addr: addr4[1], Port: 7}, header.IPv4ProtocolNumber)
		if (err != nil) != v6only {
			t.Errorf("v6only %t: dial = %v", v6only, err)
		}
	}
}

// IDs are stable, distinct and in order of creation.
func TestIDs(t *testing.T) {
	s := pair(t)
	connect(t, s, families[0], 7)
	connect(t, s, families[1], 8)
	list := tcp.Endpoints(s[1])
	if len(list) != 4 {
		t.Fatalf("%d endpoints, want two listeners and two connections", len(list))
	}
	for i, e := range list {
		if e.ID() == 0 || i > 0 && list[i-1].ID() >= e.ID() {
			t.Errorf("ID #%d = %d, not in order", i, e.ID())
		}
	}
}

// muteClock is a clock in virtual time whose timers are not heard while it is
// mute, as on a machine that is too busy for them.
type muteClock struct {
	*faketime.ManualClock
	mute atomic.Bool
}

// AfterFunc implements tcpip.Clock.
func (c *muteClock) AfterFunc(d time.Duration, f func()) tcpip.Timer {
	return c.ManualClock.AfterFunc(d, func() {
		if !c.mute.Load() {
			f()
		}
	})
}

// TIME-WAIT is over when its time is, whether or not its timer has been heard:
// what comes then finds no connection.
func TestTimeWaitEndsInTime(t *testing.T) {
	clock := &muteClock{ManualClock: faketime.NewManualClock()}
	w := &wire{t: t, clock: clock.ManualClock, link: channel.New(1000, 1500, ""), ports: [2]uint16{7, 5000}}
	w.stack = newStack(t, w.link, 0, clock)
	t.Cleanup(func() {
		w.stack.Destroy()
		w.link.Close()
	})
	ep, iss := w.open()
	ep.Close()
	w.want(header.TCPFlagFin | header.TCPFlagAck)
	w.inject(segment{seq: peerISN + 1, ack: iss + 1, flags: header.TCPFlagFin | header.TCPFlagAck, window: 65535}, nil)
	w.want(header.TCPFlagAck)
	if got := ep.EndpointState(); got != tcp.StateTimeWait {
		t.Fatalf("state %s, want TIME-WAIT", got)
	}
	clock.mute.Store(true)
	late := segment{seq: peerISN + 1, ack: iss + 1, flags: header.TCPFlagFin | header.TCPFlagAck, window: 65535}
	clock.Advance(tcp.DefaultTCPTimeWaitTimeout - time.Second)
	w.inject(late, nil)
	w.want(header.TCPFlagAck) // and it begins anew
	clock.Advance(tcp.DefaultTCPTimeWaitTimeout)
	w.inject(late, nil)
	w.want(header.TCPFlagRst)
	if got := ep.EndpointState(); got != tcp.StateClose {
		t.Errorf("state %s, want CLOSED", got)
	}
}
