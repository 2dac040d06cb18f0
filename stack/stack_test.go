package stack

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/link/pipe"
	gstack "gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/tcprepair/ustack/stack/repair"
	"github.com/tcprepair/ustack/stack/tcp/conn"
)

func prefixes(list ...string) (p []netip.Prefix) {
	for _, s := range list {
		p = append(p, netip.MustParsePrefix(s))
	}
	return p
}

// twoStacks joins two stacks by a link in memory.
func twoStacks(t *testing.T) (a, b *Stack) {
	t.Helper()
	one, two := pipe.New("\x02\x00\x00\x00\x00\x01", "\x02\x00\x00\x00\x00\x02", 1500)
	start := func(link gstack.LinkEndpoint, addrs ...string) *Stack {
		s, err := New(Config{Link: link, Addresses: prefixes(addrs...)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
	return start(one, "10.0.0.1/24", "fd00::1/64"), start(two, "10.0.0.2/24", "fd00::2/64")
}

func TestConfigErrors(t *testing.T) {
	link := func() gstack.LinkEndpoint {
		l, _ := pipe.New("\x02\x00\x00\x00\x00\x01", "\x02\x00\x00\x00\x00\x02", 1500)
		return l
	}
	for _, tt := range []struct {
		name string
		cfg  Config
		want string
	}{
		{"network", Config{Addresses: prefixes("10.0.0.0/24")}, "10.0.0.0/24"},
		{"broadcast", Config{Addresses: prefixes("10.0.0.255/24")}, "10.0.0.255/24"},
		{"broadcast of /30", Config{Addresses: prefixes("10.0.0.7/30")}, "10.0.0.7/30"},
		{"multicast", Config{Addresses: prefixes("ff02::1/64")}, "ff02::1"},
		{"mapped", Config{Addresses: prefixes("::ffff:10.0.0.1/120")}, "write an IPv4"},
		{"zero", Config{Addresses: []netip.Prefix{{}}}, "invalid"},
		{"twice", Config{Addresses: prefixes("10.0.0.1/24", "10.0.0.1/16")}, "twice"},
		{"gateway far", Config{Link: link(), Addresses: prefixes("10.0.0.1/24"), Gateways: []netip.Addr{netip.MustParseAddr("10.1.0.1")}}, "10.1.0.1 is not on"},
		{"two gateways", Config{Link: link(), Addresses: prefixes("10.0.0.1/24"), Gateways: []netip.Addr{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.3")}}, "already"},
		{"gateway without link", Config{Addresses: prefixes("10.0.0.1/24"), Gateways: []netip.Addr{netip.MustParseAddr("10.0.0.2")}}, "need a link"},
		{"congestion", Config{Congestion: "vegas"}, "vegas"},
		{"buffer", Config{SendBuffer: BufferSize{Default: 10, Max: 5}}, "send buffer"},
		{"backlog", Config{Backlog: -1}, "backlog"},
		{"name", Config{Link: link(), Name: "lo"}, "loopback"},
		{"mixed route", Config{Link: link(), Routes: []Route{{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParseAddr("fe80::1")}}}, "other IP version"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := New(tt.cfg)
			if err == nil {
				s.Close()
				t.Fatal("accepted")
			}
			if !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %q does not name %q in one line", err, tt.want)
			}
		})
	}
	for _, ok := range []Config{
		{Addresses: prefixes("10.0.0.0/31", "10.0.0.9/32", "2001:db8::/64")},
		{Link: link(), Addresses: prefixes("10.0.0.1/24"), Gateways: []netip.Addr{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("fe80::1")}},
		{Congestion: "reno", NoSACK: true, ReceiveBuffer: BufferSize{Default: 8192, Max: 1 << 20}},
	} {
		s, err := New(ok)
		if err != nil {
			t.Errorf("%+v: %v", ok, err)
			continue
		}
		s.Close()
	}
}

func TestTwoStacks(t *testing.T) {
	a, b := twoStacks(t)
	l, err := b.Listen("tcp", ":7")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); io.Copy(c, c) }()
		}
	}()
	for _, host := range []string{"10.0.0.2", "fd00::2"} {
		if err := echoOnce(testContext(t), a, net.JoinHostPort(host, "7"), 3<<20, 'x'); err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
}

// linkLocal finds the address that a stack made of its link's MAC.
func linkLocal(t *testing.T, s *Stack) netip.Addr {
	t.Helper()
	for _, pa := range s.NetStack().AllAddresses()[linkNIC] {
		if a := fromAddress(pa.AddressWithPrefix.Address); needsZone(a) {
			return a
		}
	}
	t.Fatal("no link-local address")
	return netip.Addr{}
}

func TestLinkLocalZones(t *testing.T) {
	a, b := twoStacks(t)
	l, err := b.Listen("tcp6", ":80")
	if err != nil {
		t.Fatal(err)
	}
	target := linkLocal(t, b)
	for _, zone := range []string{"", "ustack0", "1"} {
		c, err := a.Dial(testContext(t), "tcp", netip.AddrPortFrom(target.WithZone(zone), 80).String())
		if err != nil {
			t.Fatalf("zone %q: %v", zone, err)
		}
		defer c.Close()
		if z := c.RemoteAddr().(*net.TCPAddr).Zone; z != "ustack0" {
			t.Errorf("zone %q: the remote address has zone %q", zone, z)
		}
		s, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if z := s.LocalAddr().(*net.TCPAddr).Zone; z != "ustack0" {
			t.Errorf("accepted: the local address has zone %q", z)
		}
	}
	_, err = a.Dial(testContext(t), "tcp", netip.AddrPortFrom(target.WithZone("eth7"), 80).String())
	if err == nil || !strings.Contains(err.Error(), "eth7") {
		t.Errorf("unknown zone: %v", err)
	}
}

func TestListenNetworks(t *testing.T) {
	for _, tt := range []struct {
		network, address string
		v4, v6           bool
		addr             string
	}{
		{"tcp", ":80", true, true, "[::]:80"},
		{"tcp4", ":80", true, false, "0.0.0.0:80"},
		{"tcp6", ":80", false, true, "[::]:80"},
		{"tcp", "192.0.2.1:http", true, false, "192.0.2.1:80"},
		{"tcp", "[2001:db8::1]:80", false, true, "[2001:db8::1]:80"},
		{"tcp4", "0.0.0.0:80", true, false, "0.0.0.0:80"},
	} {
		t.Run(tt.network+" "+tt.address, func(t *testing.T) {
			s := newLoopback(t)
			l, err := s.Listen(tt.network, tt.address)
			if err != nil {
				t.Fatal(err)
			}
			if got := l.Addr().String(); got != tt.addr {
				t.Errorf("Addr is %s, want %s", got, tt.addr)
			}
			for target, want := range map[string]bool{"192.0.2.1:80": tt.v4, "[2001:db8::1]:80": tt.v6} {
				c, err := s.Dial(testContext(t), "tcp", target)
				if (err == nil) != want {
					t.Errorf("Dial %s: %v, want success %v", target, err, want)
				}
				if err != nil {
					continue
				}
				if got := c.RemoteAddr().String(); got != target {
					t.Errorf("RemoteAddr is %s, want %s", got, target)
				}
				peer, err := l.Accept()
				if err != nil {
					t.Fatal(err)
				}
				if peer.RemoteAddr().String() != c.LocalAddr().String() || peer.LocalAddr().String() != target {
					t.Errorf("accepted %v <- %v, dialed %v -> %v", peer.LocalAddr(), peer.RemoteAddr(), c.LocalAddr(), c.RemoteAddr())
				}
			}
		})
	}
}

func TestBadNames(t *testing.T) {
	s := newLoopback(t)
	for _, tt := range []struct{ network, address string }{
		{"udp", "192.0.2.1:80"},
		{"tcp4", "[2001:db8::1]:80"},
		{"tcp6", "192.0.2.1:80"},
		{"tcp", "192.0.2.1"},
		{"tcp", "192.0.2.1:70000"},
		{"tcp", "example.com:80"},
		{"tcp", "[::1%nope]:80"},
	} {
		if _, err := s.Dial(testContext(t), tt.network, tt.address); err == nil {
			t.Errorf("Dial %s %s: no error", tt.network, tt.address)
		}
		if _, err := s.Listen(tt.network, tt.address); err == nil {
			t.Errorf("Listen %s %s: no error", tt.network, tt.address)
		}
	}
	for _, address := range []string{"", ":80", "0.0.0.0:80", "192.0.2.1:0"} {
		if _, err := s.Dial(testContext(t), "tcp", address); err == nil {
			t.Errorf("Dial %q: no error", address)
		}
	}
}

func TestResolver(t *testing.T) {
	s, err := New(Config{Resolver: func(_ context.Context, host string) ([]netip.Addr, error) {
		if host != "here" {
			return nil, errors.New("who is " + host)
		}
		return []netip.Addr{netip.MustParseAddr("::1"), netip.MustParseAddr("127.0.0.1")}, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	l, err := s.Listen("tcp4", ":80")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := s.Dial(testContext(t), "tcp", "here:80")
	if err != nil {
		t.Fatalf("the second address answers: %v", err)
	}
	c.Close()
	if _, err := s.Dial(testContext(t), "tcp6", "here:80"); err == nil {
		t.Error("IPv6 only: no error")
	}
	if _, err := s.Dial(testContext(t), "tcp", "there:80"); err == nil || !strings.Contains(err.Error(), "who is there") {
		t.Errorf("unknown name: %v", err)
	}
}

func TestDialContext(t *testing.T) {
	a, _ := twoStacks(t)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() {
		_, err := a.Dial(ctx, "tcp", "10.0.0.9:80") // nobody has it
		done <- err
	}()
	cancel()
	wantErr(t, <-done, context.Canceled)
	ctx, cancel = context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	_, err := a.Dial(ctx, "tcp", "10.0.0.9:80")
	wantErr(t, err, context.DeadlineExceeded)
}

// Close ends an attempt to connect that nobody answers.
func TestCloseEndsDial(t *testing.T) {
	a, b := twoStacks(t)
	b.NetStack().RemoveNIC(linkNIC)
	done := make(chan error)
	go func() {
		_, err := a.Dial(testContext(t), "tcp", "10.0.0.2:80")
		done <- err
	}()
	for len(a.Conns()) == 0 { // until it is under way
		select {
		case err := <-done:
			t.Fatalf("Dial returned at once: %v", err)
		default:
			runtime.Gosched()
		}
	}
	if c := a.Conns()[0]; c.State != conn.StateSynSent || c.Remote.String() != "10.0.0.2:80" {
		t.Errorf("on its way: %+v", c)
	}
	a.Close()
	if err := <-done; err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestDialFrom(t *testing.T) {
	a, b := twoStacks(t)
	l, err := b.Listen("tcp", ":80")
	if err != nil {
		t.Fatal(err)
	}
	c, err := a.DialFrom(testContext(t), netip.MustParseAddrPort("10.0.0.1:1234"), netip.MustParseAddrPort("10.0.0.2:80"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	peer, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if got := peer.RemoteAddr().String(); got != "10.0.0.1:1234" {
		t.Errorf("the peer is %s", got)
	}
}

func TestConnsAndRepair(t *testing.T) {
	s := newLoopback(t)
	if n := len(s.Conns()); n != 0 {
		t.Fatalf("%d connections in a new stack", n)
	}
	client, server := s.pair(t, "192.0.2.1")
	list := s.Conns()
	if len(list) != 2 {
		t.Fatalf("%d connections, want both ends: %+v", len(list), list)
	}
	for _, end := range []*Conn{client, server} {
		i := end.Info()
		if i.ID != end.ID() || tcpAddr(i.Local).String() != end.LocalAddr().String() || tcpAddr(i.Remote).String() != end.RemoteAddr().String() {
			t.Errorf("Info %+v does not fit %v -> %v", i, end.LocalAddr(), end.RemoteAddr())
		}
		if i.State.String() != "ESTABLISHED" || i.Frozen {
			t.Errorf("state %v, frozen %v", i.State, i.Frozen)
		}
	}
	if list[0].ID == list[1].ID {
		t.Error("both ends have one ID")
	}

	if err := s.SetRepair(server.ID(), repair.On); err != nil {
		t.Fatal(err)
	}
	if !server.Info().Frozen {
		t.Fatal("not frozen")
	}
	if _, err := client.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	server.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if n, err := server.Read(make([]byte, 8)); n != 0 || err == nil {
		t.Fatalf("frozen: read %d bytes, %v", n, err)
	}
	if n := server.Info().Drops["SOCKET_REPAIR"]; n == 0 {
		t.Error("no segment was refused")
	}
	if n := s.Drops()["SOCKET_REPAIR"]; n == 0 || s.Drops().Total() < n {
		t.Errorf("the stack's count is %v", s.Drops())
	}
	if err := s.SetRepair(server.ID(), repair.Off); err != nil {
		t.Fatal(err)
	}
	server.SetReadDeadline(time.Time{})
	b := make([]byte, 5)
	if _, err := io.ReadFull(server, b); err != nil || string(b) != "hello" {
		t.Fatalf("thawed: %q, %v", b, err)
	}
	if err := s.SetRepair(1<<40, repair.On); !errors.Is(err, ErrNoConn) {
		t.Errorf("unknown ID: %v", err)
	}
	if err := s.SetRepair(server.ID(), repair.Mode(7)); err == nil {
		t.Error("mode 7: no error")
	}
	if st := s.Stats(); st.TCP.ActiveOpens != 1 || st.TCP.PassiveOpens != 1 || st.TCP.SegmentsSent == 0 {
		t.Errorf("stats %+v", st)
	}
}

func TestDrain(t *testing.T) {
	a, b := twoStacks(t)
	l, err := b.Listen("tcp", ":80")
	if err != nil {
		t.Fatal(err)
	}
	c, err := a.Dial(testContext(t), "tcp", "10.0.0.2:80")
	if err != nil {
		t.Fatal(err)
	}
	peer, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
	defer cancel()
	if err := a.Drain(ctx); err != context.DeadlineExceeded {
		t.Errorf("with an open connection: %v", err)
	}
	data := make([]byte, 512<<10)
	if _, err := c.Write(data); err != nil {
		t.Fatal(err)
	}
	c.Close()
	got := make(chan int64)
	go func() {
		n, _ := io.Copy(io.Discard, peer)
		peer.Close()
		got <- n
	}()
	if err := a.Drain(testContext(t)); err != nil {
		t.Fatal(err)
	}
	a.Close()
	if n := <-got; n != int64(len(data)) {
		t.Errorf("%d bytes arrived, of %d", n, len(data))
	}
}

// Close ends what is open, wakes what waits, and leaves no goroutine.
func TestCloseLeavesNothing(t *testing.T) {
	cycle := func() {
		one, two := pipe.New("\x02\x00\x00\x00\x00\x01", "\x02\x00\x00\x00\x00\x02", 1500)
		a, err := New(Config{Link: one, Addresses: prefixes("10.0.0.1/24")})
		if err != nil {
			t.Fatal(err)
		}
		b, err := New(Config{Link: two, Addresses: prefixes("10.0.0.2/24")})
		if err != nil {
			t.Fatal(err)
		}
		l, err := b.Listen("tcp", ":80")
		if err != nil {
			t.Fatal(err)
		}
		c, err := a.Dial(testContext(t), "tcp", "10.0.0.2:80")
		if err != nil {
			t.Fatal(err)
		}
		peer, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		ends := make(chan error, 3)
		go func() { _, err := l.Accept(); ends <- err }()
		go func() { _, err := peer.Read(make([]byte, 1)); ends <- err }()
		go func() { _, err := c.Read(make([]byte, 1)); ends <- err }()
		b.Close()
		b.Close()
		for range 3 {
			if err := <-ends; err == nil || err == io.EOF {
				t.Errorf("a waiting call ended with %v", err)
			}
		}
		if _, err := b.Listen("tcp", ":81"); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Listen after Close: %v", err)
		}
		if _, err := b.Dial(testContext(t), "tcp", "10.0.0.1:80"); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Dial after Close: %v", err)
		}
		a.Close()
	}
	cycle()
	before := runtime.NumGoroutine()
	for range 50 {
		cycle()
	}
	for i := 0; runtime.NumGoroutine() > before+5; i++ {
		if i == 200 {
			buf := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
		}
		timer := time.NewTimer(10 * time.Millisecond)
		<-timer.C
	}
}
