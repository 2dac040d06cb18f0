package tcp_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/tcprepair/ustack/stack/repair"
	"github.com/tcprepair/ustack/stack/tcp"
)

// endpointOf finds the endpoint of a connection by its local port.
func endpointOf(t testing.TB, s *stack.Stack, c net.Conn) *tcp.Endpoint {
	t.Helper()
	local := c.LocalAddr().(*net.TCPAddr).AddrPort().Port()
	remote := c.RemoteAddr().(*net.TCPAddr).AddrPort().Port()
	for _, e := range tcp.Endpoints(s) {
		id := e.Info().(*stack.TransportEndpointInfo).ID
		if id.LocalPort == local && id.RemotePort == remote {
			return e
		}
	}
	t.Fatalf("no endpoint for %s", c.LocalAddr())
	return nil
}

// A connection is moved within its stack, over its own tombstone.
func TestMoveWithinAStack(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			s := pair(t)
			client, server := connect(t, s, f, 80)
			factory := &tcp.RepairFactory{Stack: s[0]}
			before := s[0].Stats().TCP.CurrentEstablished.Value()
			for range 20 {
				transfer(t, client, server, 50_000)
				client = carryWithin(t, endpointOf(t, s[0], client), factory)
				transfer(t, server, client, 50_000)
			}
			if n := s[0].Stats().TCP.CurrentEstablished.Value(); n != before {
				t.Errorf("%d connections established, want %d", n, before)
			}
			client.Close()
			server.SetReadDeadline(time.Now().Add(10 * time.Second))
			if n, err := server.Read(make([]byte, 1)); n != 0 || err != io.EOF {
				t.Errorf("at the end: %d, %v", n, err)
			}
			for i := range s {
				if n := s[i].Stats().TCP.ResetsSent.Value(); n != 0 {
					t.Errorf("host %d sent %d resets", i, n)
				}
			}
		})
	}
}

// carryWithin moves a connection to its own stack: the origin has to go before
// the target comes.
func carryWithin(t testing.TB, from *tcp.Endpoint, to *tcp.RepairFactory) net.Conn {
	t.Helper()
	snap, err := repair.Checkpoint(from.Repair())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := to.Restore(snap); !errors.Is(err, repair.ErrAddrInUse) {
		t.Fatalf("restored beside the origin: %v", err)
	}
	from.Close()
	s, err := repair.Restore(to, snap)
	if err != nil {
		t.Fatal(err)
	}
	snap.Release()
	if err := repair.Resume(s, repair.Off); err != nil {
		t.Fatal(err)
	}
	r := s.(*tcp.RepairSocket)
	c := gonet.NewTCPConn(r.WaiterQueue(), r.Endpoint())
	t.Cleanup(func() { c.Close() })
	return c
}

// A connection under load both ways is moved again and again, within its stack,
// and neither stream misses a byte.
func TestMoveUnderLoad(t *testing.T) {
	s := pair(t)
	client, server := connect(t, s, families[0], 80)
	const size = 8 << 20
	errs := make(chan error, 4)
	go func() { _, err := io.CopyN(server, &pattern{}, size); errs <- err }()
	go func() { errs <- check(server, size) }()

	factory := &tcp.RepairFactory{Stack: s[0]}
	out, in := &pattern{}, 0
	sent := 0
	for round := 0; sent < size || in < size; round++ {
		client.SetDeadline(time.Now().Add(20 * time.Millisecond))
		if sent < size {
			b := make([]byte, min(100_000, size-sent))
			at := *out
			out.Read(b)
			n, err := client.Write(b)
			sent += n
			*out = at
			out.at += n
			if err != nil && !isTimeout(err) {
				t.Fatal(err)
			}
		}
		b := make([]byte, min(300_000, max(size-in, 1)))
		n, err := client.Read(b)
		for i, x := range b[:n] {
			if x != patternByte(in+i) {
				t.Fatalf("byte %d is wrong", in+i)
			}
		}
		in += n
		if err != nil && !isTimeout(err) {
			t.Fatal(err)
		}
		if round%8 == 3 {
			client = carryWithin(t, endpointOf(t, s[0], client), factory)
		}
		if round > 50_000 {
			t.Fatalf("sent %d and received %d bytes of %d", sent, in, size)
		}
	}
	for range 2 {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	for i := range s {
		if n := s[i].Stats().TCP.ResetsSent.Value(); n != 0 {
			t.Errorf("host %d sent %d resets", i, n)
		}
	}
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}

// A restored connection is as the embedder's own: it notifies the queue that
// the embedder gave, and is a gonet connection.
func TestRestoreNotifies(t *testing.T) {
	s := pair(t)
	client, server := connect(t, s, families[0], 80)
	wq := new(waiter.Queue)
	factory := &tcp.RepairFactory{Stack: s[0], Queue: func() *waiter.Queue { return wq }}
	entry, wake := waiter.NewChannelEntry(waiter.ReadableEvents)
	wq.EventRegister(&entry)
	defer wq.EventUnregister(&entry)
	moved := carryWithin(t, endpointOf(t, s[0], client), factory)
	<-wake // the thaw
	server.Write([]byte("hello"))
	select {
	case <-wake:
	case <-time.After(10 * time.Second):
		t.Fatal("no notification")
	}
	b := make([]byte, 5)
	if _, err := io.ReadFull(moved, b); err != nil || string(b) != "hello" {
		t.Errorf("%q, %v", b, err)
	}
}

// What cannot be restored is refused with a line that says why, and leaves
// nothing behind.
func TestRestoreRefusals(t *testing.T) {
	s := pair(t)
	client, server := connect(t, s, families[0], 80)
	ep := endpointOf(t, s[0], client)
	if err := ep.Repair().SetRepair(repair.On); err != nil {
		t.Fatal(err)
	}
	second := pair(t)
	here := &tcp.RepairFactory{Stack: second[0]}
	local := netip.MustParseAddrPort(client.LocalAddr().String())
	for _, tc := range []struct {
		name  string
		to    *tcp.RepairFactory
		spoil func(*repair.Snapshot)
		want  error
	}{
		{"existing 4-tuple", &tcp.RepairFactory{Stack: s[0]}, nil, repair.ErrAddrInUse},
		{"another host's address", &tcp.RepairFactory{Stack: s[1]}, nil, repair.ErrAddress},
		{"no state", here, func(k *repair.Snapshot) { k.State = repair.StateClosed }, repair.ErrInvalid},
		{"window scale", here, func(k *repair.Snapshot) { k.Options.SendScale = 15 }, repair.ErrTooBig},
		{"no peer", here, func(k *repair.Snapshot) { k.Remote = netip.AddrPort{} }, repair.ErrInvalid},
		{"two families", here, func(k *repair.Snapshot) { k.Remote = netip.MustParseAddrPort("[fd00::2]:80") }, repair.ErrInvalid},
		{"no route", here, func(k *repair.Snapshot) { second[0].SetRouteTable(nil) }, repair.ErrNoRoute},
	} {
		t.Run(tc.name, func(t *testing.T) {
			snap, err := ep.Repair().Snapshot()
			if err != nil {
				t.Fatal(err)
			}
			defer snap.Release()
			if tc.spoil != nil {
				tc.spoil(snap)
			}
			before := len(tcp.Endpoints(tc.to.Stack))
			_, err = tc.to.Restore(snap)
			if !errors.Is(err, tc.want) {
				t.Fatalf("%v, want %v", err, tc.want)
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("more than one line: %v", err)
			}
			if n := len(tcp.Endpoints(tc.to.Stack)); n != before {
				t.Errorf("%d endpoints, were %d", n, before)
			}
		})
	}
	second[0].SetRouteTable(second[1].GetRouteTable())

	// A port that a listener holds.
	l := listen(t, second[0], families[0], 0, local.Port())
	snap, err := ep.Repair().Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := here.Restore(snap); !errors.Is(err, repair.ErrAddrInUse) || !strings.Contains(err.Error(), "listener") {
		t.Errorf("beside a listener: %v", err)
	}
	// It lives beside one if it came of one, or the user wants it.
	share := &tcp.RepairFactory{Stack: second[0], Share: true}
	r, err := share.Restore(snap)
	if err != nil {
		t.Errorf("beside a listener on purpose: %v", err)
	} else {
		r.Close()
	}
	snap.Extra.Passive = true
	if r, err = here.Restore(snap); err != nil {
		t.Errorf("of a listener, beside a listener: %v", err)
	} else {
		r.Close()
	}
	snap.Extra.Passive = false
	l.Close()

	// Nothing of the refusals is left: it can be restored, and the port is free
	// for a listener when it has gone.
	r, err = here.Restore(snap)
	if err != nil {
		t.Fatalf("after the refusals: %v", err)
	}
	r.Close()
	listen(t, second[0], families[0], 0, local.Port())

	// And the origin goes on.
	if err := ep.Repair().SetRepair(repair.Off); err != nil {
		t.Fatal(err)
	}
	transfer(t, client, server, 10_000)
}

// Whoever knows the way to the peer need not have it looked up: the connection
// takes what it is given, and gives it back.
func TestRestoreByGivenRoute(t *testing.T) {
	s := pair(t)
	client, server := connect(t, s, families[0], 80)
	defer client.Close()
	snap, err := repair.Checkpoint(endpointOf(t, s[1], server).Repair())
	if err != nil {
		t.Fatal(err)
	}
	target := newStack(t, channel.New(1, 1500, ""), 1, nil)
	t.Cleanup(target.Destroy)
	asked := 0
	var nowhere tcpip.Error = &tcpip.ErrHostUnreachable{}
	f := &tcp.RepairFactory{Stack: target, Route: func(local, remote tcpip.Address) (*stack.Route, tcpip.Error) {
		asked++
		if nowhere != nil {
			return nil, nowhere
		}
		return target.FindRoute(1, local, remote, header.IPv4ProtocolNumber, false)
	}}
	if _, err := repair.Restore(f, snap); !errors.Is(err, repair.ErrNoRoute) {
		t.Errorf("without a route: %v", err)
	}
	nowhere = nil
	moved, err := repair.Restore(f, snap)
	if err != nil {
		t.Fatal(err)
	}
	moved.Close()
	if asked != 2 {
		t.Errorf("asked %d times, want 2", asked)
	}
	server.Close()
}

// What the user wants of IP goes with a connection and with a listener, and so
// does the interface it is bound to, by its name.
func TestIPSettingsMove(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			s := pair(t)
			client, server := connect(t, s, f, 80)
			defer server.Close()
			named := func(name string, id tcpip.NICID) *stack.Stack {
				target := newStack(t, channel.New(1, 1500, ""), 0, nil)
				t.Cleanup(target.Destroy)
				if err := target.SetNICName(id, name); err != nil {
					t.Fatal(tcpipErr(err))
				}
				return target
			}
			if err := s[0].SetNICName(1, "uplink"); err != nil {
				t.Fatal(tcpipErr(err))
			}
			ep := endpointOf(t, s[0], client)
			l := listen(t, s[0], f, 0, 81)
			defer l.Close()
			ttl, tos := tcpip.IPv4TTLOption, tcpip.IPv4TOSOption
			if f.proto == header.IPv6ProtocolNumber {
				ttl, tos = tcpip.IPv6HopLimitOption, tcpip.IPv6TrafficClassOption
			}
			want := map[tcpip.SockOptInt]int{ttl: 17, tos: 0x48, tcpip.MTUDiscoverOption: int(tcpip.PMTUDiscoveryDont)}
			listener := listenerOf(t, s[0], 81)
			for _, e := range []*tcp.Endpoint{ep, listener} {
				for opt, v := range want {
					if err := e.SetSockOptInt(opt, v); err != nil {
						t.Fatal(tcpipErr(err))
					}
				}
				if err := e.SocketOptions().SetBindToDevice(1); err != nil {
					t.Fatal(tcpipErr(err))
				}
			}
			for _, tc := range []struct {
				device string
				bound  int32
			}{{"uplink", 1}, {"another", 0}} {
				target := &tcp.RepairFactory{Stack: named(tc.device, 1)}
				for name, origin := range map[string]*tcp.Endpoint{"connection": ep, "listener": listener} {
					snap, err := repair.Checkpoint(origin.Repair())
					if err != nil {
						t.Fatal(err)
					}
					var file bytes.Buffer
					if _, err := snap.WriteTo(&file); err != nil {
						t.Fatal(err)
					}
					snap.Release()
					snap, err = repair.Read(&file, repair.Limits{})
					if err != nil {
						t.Fatal(err)
					}
					r, err := repair.Restore(target, snap)
					if err != nil {
						t.Fatal(err)
					}
					moved := r.(*tcp.RepairSocket).Endpoint()
					defer moved.Close()
					for opt, v := range want {
						if got, err := moved.GetSockOptInt(opt); err != nil || got != v {
							t.Errorf("%s: option %d is %d, %s, want %d", name, opt, got, tcpipErr(err), v)
						}
					}
					if got := moved.SocketOptions().GetBindToDevice(); got != tc.bound {
						t.Errorf("%s: bound to interface %d where there is %q, want %d", name, got, tc.device, tc.bound)
					}
				}
			}
		})
	}
}

// listenerOf finds the listener on a port.
func listenerOf(t *testing.T, s *stack.Stack, port uint16) *tcp.Endpoint {
	t.Helper()
	for _, e := range tcp.Endpoints(s) {
		if id := e.Info().(*stack.TransportEndpointInfo).ID; id.LocalPort == port && e.EndpointState() == tcp.StateListen {
			return e
		}
	}
	t.Fatalf("no listener on %d", port)
	return nil
}
