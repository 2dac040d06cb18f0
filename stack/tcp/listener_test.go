package tcp_test

import (
	"context"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/tcprepair/ustack/stack/tcp"
	"github.com/tcprepair/ustack/stack/tcp/conn"
)

// listenEndpoint listens with a backlog.
func listenEndpoint(t testing.TB, s *stack.Stack, f family, host int, port uint16, backlog int) (*tcp.Endpoint, *waiter.Queue) {
	t.Helper()
	wq := new(waiter.Queue)
	ep := newEndpoint(t, s, f, wq)
	t.Cleanup(ep.Close)
	if err := ep.Bind(tcpip.FullAddress{Addr: f.addrs[host], Port: port}); err != nil {
		t.Fatal(err)
	}
	if err := ep.Listen(backlog); err != nil {
		t.Fatal(err)
	}
	return ep, wq
}

// tryDial dials and gives up soon.
func tryDial(s *stack.Stack, f family, port uint16, patience time.Duration) (*gonet.TCPConn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return gonet.DialContextTCP(ctx, s, tcpip.FullAddress{Addr: f.addrs[1], Port: port}, f.proto)
}

// A listener completes as many handshakes as its backlog says, drops the SYNs
// beyond, and takes new ones when a connection has been accepted.
func TestBacklog(t *testing.T) {
	s := pair(t)
	const backlog = 3
	ep, _ := listenEndpoint(t, s[1], families[0], 1, 7, backlog)
	for i := range backlog {
		c, err := tryDial(s[0], families[0], 7, 10*time.Second)
		if err != nil {
			t.Fatalf("dial #%d: %v", i, err)
		}
		defer c.Close()
	}
	if c, err := tryDial(s[0], families[0], 7, 50*time.Millisecond); err == nil {
		c.Close()
		t.Fatal("a connection beyond the backlog was taken")
	}
	if n := s[1].Stats().TCP.ListenOverflowSynDrop.Value(); n == 0 {
		t.Error("ListenOverflowSynDrop = 0")
	}
	if n := tcp.DropCounts(s[1])[conn.DropListenOverflow]; n == 0 {
		t.Error("no TCP_LISTEN_OVERFLOW drops")
	}
	if _, _, err := ep.Accept(nil); err != nil {
		t.Fatalf("Accept: %s", err)
	}
	c, err := tryDial(s[0], families[0], 7, 10*time.Second)
	if err != nil {
		t.Fatalf("after an Accept: %v", err)
	}
	c.Close()
}

// With SYN cookies the listener remembers nothing until the handshake is
// complete, and the connection carries data all the same.
func TestCookies(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			s := pair(t)
			always := tcpip.TCPAlwaysUseSynCookies(true)
			if err := s[1].SetTransportProtocolOption(tcp.ProtocolNumber, &always); err != nil {
				t.Fatal(err)
			}
			client, server := connect(t, s, f, 7)
			transfer(t, client, server, 256<<10)
			transfer(t, server, client, 256<<10)
			if n := s[1].Stats().TCP.ListenOverflowSynCookieRcvd.Value(); n != 1 {
				t.Errorf("cookies received = %d, want 1", n)
			}
		})
	}
}

// Closing a listener resets what nobody has accepted.
func TestListenerClose(t *testing.T) {
	s := pair(t)
	ep, _ := listenEndpoint(t, s[1], families[0], 1, 7, 5)
	client, err := tryDial(s[0], families[0], 7, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	eventually(t, "the connection does not become acceptable", func() bool {
		return ep.Readiness(waiter.ReadableEvents) != 0
	})
	ep.Close()
	client.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := client.Read(make([]byte, 1)); err == nil {
		t.Error("Read from a connection that was reset succeeded")
	}
	if list := conns(s[1]); len(list) != 0 {
		t.Errorf("the unaccepted connection is still there: %s", list[0].EndpointState())
	}
}

// A forwarder accepts what no listener takes, whatever the address, or refuses
// it.
func TestForwarder(t *testing.T) {
	for _, f := range families {
		for _, accept := range []bool{true, false} {
			name := f.name + map[bool]string{true: "/accept", false: "/refuse"}[accept]
			t.Run(name, func(t *testing.T) {
				s := pair(t)
				got := make(chan tcpip.Endpoint, 1)
				fwd := tcp.NewForwarder(s[1], 0, 10, func(r *tcp.ForwarderRequest) {
					if !accept {
						r.Complete(true)
						return
					}
					ep, err := r.CreateEndpoint(new(waiter.Queue))
					r.Complete(false)
					if err != nil {
						t.Errorf("CreateEndpoint: %s", err)
						return
					}
					got <- ep
				})
				s[1].SetTransportProtocolHandler(tcp.ProtocolNumber, fwd.HandlePacket)
				c, err := tryDial(s[0], f, 80, 10*time.Second)
				if (err == nil) != accept {
					t.Fatalf("dial = %v", err)
				}
				if !accept {
					return
				}
				defer c.Close()
				ep := <-got
				defer ep.Close()
				if id := ep.Info().(*stack.TransportEndpointInfo).ID; id.LocalAddress != f.addrs[1] || id.LocalPort != 80 {
					t.Errorf("forwarded endpoint is at %s:%d", id.LocalAddress, id.LocalPort)
				}
			})
		}
	}
}

// Requests beyond the forwarder's bound are dropped and counted.
func TestForwarderBound(t *testing.T) {
	s := pair(t)
	release := make(chan struct{})
	fwd := tcp.NewForwarder(s[1], 0, 1, func(r *tcp.ForwarderRequest) {
		<-release
		r.Complete(true)
	})
	s[1].SetTransportProtocolHandler(tcp.ProtocolNumber, fwd.HandlePacket)
	for range 2 {
		ep := newEndpoint(t, s[0], families[0], new(waiter.Queue))
		defer ep.Close()
		ep.Connect(tcpip.FullAddress{Addr: addr4[1], Port: 80})
	}
	dropped := s[1].Stats().TCP.ForwardMaxInFlightDrop
	eventually(t, "nothing was dropped", func() bool { return dropped.Value() >= 1 })
	close(release)
}

// TCP_DEFER_ACCEPT holds a connection back until data comes.
func TestDeferAccept(t *testing.T) {
	s := pair(t)
	ep, _ := listenEndpoint(t, s[1], families[0], 1, 7, 5)
	wait := tcpip.TCPDeferAcceptOption(time.Minute)
	if err := ep.SetSockOpt(&wait); err != nil {
		t.Fatal(err)
	}
	c := dial(t, s[0], families[0], 1, 7)
	if _, _, err := ep.Accept(nil); err == nil {
		t.Fatal("accepted before there were data")
	}
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "not acceptable although there are data", func() bool {
		return ep.Readiness(waiter.ReadableEvents) != 0
	})
}

// What belongs to no connection is answered as RFC 9293 says: a SYN with a
// reset that acknowledges it, an ACK with one at its number, a reset not at all.
func TestStrays(t *testing.T) {
	h := newWire(t)
	tests := []struct {
		flags header.TCPFlags
		want  header.TCPFlags // 0: no answer
	}{
		{header.TCPFlagSyn, header.TCPFlagRst | header.TCPFlagAck},
		{header.TCPFlagAck, header.TCPFlagRst},
		{header.TCPFlagFin | header.TCPFlagAck, header.TCPFlagRst},
		{header.TCPFlagRst, 0},
		{header.TCPFlagRst | header.TCPFlagAck, 0},
	}
	for _, tt := range tests {
		h.inject(segment{seq: 100, ack: 200, flags: tt.flags, window: 1000}, nil)
		got, ok := h.next()
		if ok != (tt.want != 0) || ok && got.flags != tt.want {
			t.Errorf("%s was answered with %s (%t), want %s", tt.flags, got.flags, ok, tt.want)
			continue
		}
		switch tt.want {
		case header.TCPFlagRst | header.TCPFlagAck:
			if got.ack != 101 || got.seq != 0 {
				t.Errorf("%s: reset has seq %d ack %d, want 0 and 101", tt.flags, got.seq, got.ack)
			}
		case header.TCPFlagRst:
			if got.seq != 200 {
				t.Errorf("%s: reset has seq %d, want 200", tt.flags, got.seq)
			}
		}
	}
}

// A user who begins to wait just after the notification of a connection is
// told of it again; one who has taken the connection is not.
func TestLateWaiterIsTold(t *testing.T) {
	for _, accept := range []bool{false, true} {
		w := newWire(t)
		l, wq := listenEndpoint(t, w.stack, families[0], 0, w.ports[0], 5)
		wait := func() (waiter.Entry, chan struct{}) {
			e, ch := waiter.NewChannelEntry(waiter.ReadableEvents)
			wq.EventRegister(&e)
			return e, ch
		}
		early, first := wait()
		w.inject(segment{seq: peerISN, flags: header.TCPFlagSyn, window: 65535}, nil)
		synAck := w.want(header.TCPFlagSyn | header.TCPFlagAck)
		w.inject(segment{seq: peerISN + 1, ack: synAck.seq + 1, flags: header.TCPFlagAck, window: 65535}, nil)
		<-first
		wq.EventUnregister(&early)
		_, late := wait()
		if accept {
			child, _, err := l.Accept(nil)
			if err != nil {
				t.Fatalf("Accept: %s", err)
			}
			defer child.Close()
		}
		w.clock.Advance(50 * time.Millisecond)
		select {
		case <-late:
			if accept {
				t.Error("told of a connection that was accepted")
			}
		default:
			if !accept {
				t.Error("a connection is waiting, and the user was not told")
			}
		}
	}
}
