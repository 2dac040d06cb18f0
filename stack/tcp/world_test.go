package tcp_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/loopback"
	"gvisor.dev/gvisor/pkg/tcpip/link/pipe"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/tcprepair/ustack/stack/tcp"
)

const testNIC = 1

// addresses of the two hosts of a world.
var (
	addr4 = [2]tcpip.Address{tcpip.AddrFrom4([4]byte{10, 0, 0, 1}), tcpip.AddrFrom4([4]byte{10, 0, 0, 2})}
	addr6 = [2]tcpip.Address{
		tcpip.AddrFrom16([16]byte{0xfd, 15: 1}),
		tcpip.AddrFrom16([16]byte{0xfd, 15: 2}),
	}
)

// family is IPv4 or IPv6, for tests of both.
type family struct {
	name  string
	proto tcpip.NetworkProtocolNumber
	addrs [2]tcpip.Address
}

var families = []family{
	{"IPv4", ipv4.ProtocolNumber, addr4},
	{"IPv6", ipv6.ProtocolNumber, addr6},
}

// newStack makes a stack with one interface and the addresses of host i.
func newStack(t testing.TB, link stack.LinkEndpoint, i int, clock tcpip.Clock) *stack.Stack {
	t.Helper()
	s := stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol},
		Clock:              clock,
		HandleLocal:        true,
	})
	if err := s.CreateNIC(testNIC, link); err != nil {
		t.Fatalf("CreateNIC: %s", err)
	}
	for proto, a := range map[tcpip.NetworkProtocolNumber]tcpip.Address{
		ipv4.ProtocolNumber: addr4[i],
		ipv6.ProtocolNumber: addr6[i],
	} {
		pa := tcpip.ProtocolAddress{Protocol: proto, AddressWithPrefix: tcpip.AddressWithPrefix{Address: a, PrefixLen: a.BitLen() - 8}}
		if err := s.AddProtocolAddress(testNIC, pa, stack.AddressProperties{}); err != nil {
			t.Fatalf("AddProtocolAddress(%s): %s", a, err)
		}
	}
	s.SetRouteTable([]tcpip.Route{
		{Destination: header.IPv4EmptySubnet, NIC: testNIC},
		{Destination: header.IPv6EmptySubnet, NIC: testNIC},
	})
	return s
}

// pair is two stacks on one wire.
func pair(t testing.TB) [2]*stack.Stack {
	t.Helper()
	const mtu = 1500
	a, b := pipe.New("\x02\x00\x00\x00\x00\x01", "\x02\x00\x00\x00\x00\x02", mtu)
	s := [2]*stack.Stack{newStack(t, a, 0, nil), newStack(t, b, 1, nil)}
	t.Cleanup(func() {
		s[0].Destroy()
		s[1].Destroy()
	})
	return s
}

// alone is one stack on a loopback interface.
func alone(t testing.TB) *stack.Stack {
	t.Helper()
	s := newStack(t, loopback.New(), 0, nil)
	t.Cleanup(s.Destroy)
	return s
}

// listen listens on a stack through gonet.
func listen(t testing.TB, s *stack.Stack, f family, host int, port uint16) *gonet.TCPListener {
	t.Helper()
	l, err := gonet.ListenTCP(s, tcpip.FullAddress{Addr: f.addrs[host], Port: port}, f.proto)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// dial connects through gonet.
func dial(t testing.TB, s *stack.Stack, f family, host int, port uint16) *gonet.TCPConn {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := gonet.DialContextTCP(ctx, s, tcpip.FullAddress{Addr: f.addrs[host], Port: port}, f.proto)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// connect makes a connection from host 0 to host 1 and returns both ends.
func connect(t testing.TB, s [2]*stack.Stack, f family, port uint16) (client, server net.Conn) {
	t.Helper()
	l := listen(t, s[1], f, 1, port)
	client = dial(t, s[0], f, 1, port)
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	return client, server
}

// transfer writes n bytes to one end and checks that they come out at the other.
func transfer(t testing.TB, from, to net.Conn, n int) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		_, err := io.CopyN(from, &pattern{}, int64(n))
		done <- err
	}()
	if err := check(to, n); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// pattern is an endless stream whose bytes tell where they belong.
type pattern struct{ at int }

func (p *pattern) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = patternByte(p.at + i)
	}
	p.at += len(b)
	return len(b), nil
}

func patternByte(i int) byte { return byte(i ^ i>>8 ^ i>>16) }

// check reads n bytes of the pattern.
func check(r net.Conn, n int) error {
	r.SetReadDeadline(time.Now().Add(20 * time.Second))
	buf := make([]byte, 64<<10)
	for at := 0; at < n; {
		k, err := r.Read(buf[:min(len(buf), n-at)])
		for i, b := range buf[:k] {
			if b != patternByte(at+i) {
				return fmt.Errorf("byte %d is %#x, want %#x", at+i, b, patternByte(at+i))
			}
		}
		at += k
		if err != nil {
			return fmt.Errorf("after %d of %d bytes: %w", at, n, err)
		}
	}
	return nil
}
