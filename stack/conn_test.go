package stack

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/nettest"
	"gvisor.dev/gvisor/pkg/tcpip"
)

// newLoopback makes a stack without a link.
func newLoopback(t testing.TB) *Stack {
	t.Helper()
	s, err := New(Config{Addresses: []netip.Prefix{
		netip.MustParsePrefix("192.0.2.1/24"),
		netip.MustParsePrefix("2001:db8::1/64"),
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// connect makes a connection within s, from Dial and from Accept.
func (s *Stack) pair(t testing.TB, host string) (client, server *Conn) {
	t.Helper()
	l, err := s.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := s.Dial(testContext(t), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err = l.AcceptConn()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); server.Close() })
	return c.(*Conn), server
}

// testContext ends before the test binary is killed, so that a hang says where.
func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestNettest(t *testing.T) {
	for _, host := range []string{"192.0.2.1", "2001:db8::1"} {
		t.Run(host, func(t *testing.T) {
			nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
				s := newLoopback(t)
				c1, c2 = s.pair(t, host)
				return c1, c2, func() { c1.Close(); c2.Close(); s.Close() }, nil
			})
		})
	}
}

// Fault 17 of other stacks: a Read deadline that fires while data is on its way
// loses some of it.
func TestReadDeadlineLosesNothing(t *testing.T) {
	s := newLoopback(t)
	client, server := s.pair(t, "192.0.2.1")
	const total = 1 << 20
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	sent := sha256.New()
	errs := make(chan error, 1)
	go func() {
		rnd := rand.New(rand.NewPCG(seed, 1))
		for left := total; left > 0; {
			b := make([]byte, min(left, 1+rnd.IntN(3000)))
			for i := range b {
				b[i] = byte(rnd.Uint32())
			}
			sent.Write(b)
			if _, err := client.Write(b); err != nil {
				errs <- err
				return
			}
			left -= len(b)
		}
		errs <- client.CloseWrite()
	}()
	rnd := rand.New(rand.NewPCG(seed, 2))
	got := sha256.New()
	timeouts := 0
	buf := make([]byte, 4096)
	for {
		server.SetReadDeadline(time.Now().Add(time.Duration(rnd.IntN(60)) * time.Microsecond))
		n, err := server.Read(buf)
		got.Write(buf[:n])
		if errors.Is(err, os.ErrDeadlineExceeded) {
			if n != 0 {
				t.Fatalf("Read returned %d bytes and a timeout", n)
			}
			timeouts++
			continue
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := <-errs; err != nil {
		t.Fatal(err)
	}
	if string(got.Sum(nil)) != string(sent.Sum(nil)) {
		t.Fatal("the stream is not whole")
	}
	if timeouts == 0 {
		t.Error("no deadline fired: the test tested nothing")
	}
}

// Fault 16 of other stacks: connections beyond twenty or so at once hang in the
// net.Conn adapter. All make progress, both ways.
func TestManyConnections(t *testing.T) {
	s := newLoopback(t)
	l, err := s.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(c, c)
			}()
		}
	}()
	const conns, size = 200, 64 << 10
	port := l.Addr().(*net.TCPAddr).Port
	var wg sync.WaitGroup
	for i := range conns {
		host := [...]string{"192.0.2.1", "2001:db8::1", "127.0.0.1", "::1"}[i%4]
		wg.Go(func() {
			if err := echoOnce(testContext(t), s, net.JoinHostPort(host, fmt.Sprint(port)), size, byte(i)); err != nil {
				t.Errorf("connection %d: %v", i, err)
			}
		})
	}
	wg.Wait()
}

// echoOnce sends size bytes of one value and wants them back.
func echoOnce(ctx context.Context, s *Stack, addr string, size int, fill byte) error {
	c, err := s.Dial(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	until, _ := ctx.Deadline()
	c.SetDeadline(until)
	out := make([]byte, size)
	for i := range out {
		out[i] = fill
	}
	go func() {
		c.Write(out)
		c.(*Conn).CloseWrite()
	}()
	in, err := io.ReadAll(c)
	if err != nil {
		return err
	}
	if string(in) != string(out) {
		return fmt.Errorf("%d bytes came back, of %d", len(in), size)
	}
	return nil
}

func TestErrors(t *testing.T) {
	t.Run("refused", func(t *testing.T) {
		s := newLoopback(t)
		_, err := s.Dial(testContext(t), "tcp", "192.0.2.1:9")
		wantErr(t, err, syscall.ECONNREFUSED)
	})
	t.Run("unreachable", func(t *testing.T) {
		s := newLoopback(t)
		_, err := s.Dial(testContext(t), "tcp", "203.0.113.1:9")
		if !errors.Is(err, syscall.ENETUNREACH) && !errors.Is(err, syscall.EHOSTUNREACH) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("reset", func(t *testing.T) {
		client, server := newLoopback(t).pair(t, "192.0.2.1")
		server.SetLinger(0)
		server.Close()
		_, err := client.Read(make([]byte, 1))
		wantErr(t, err, syscall.ECONNRESET)
	})
	t.Run("pipe", func(t *testing.T) {
		client, _ := newLoopback(t).pair(t, "192.0.2.1")
		if err := client.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		_, err := client.Write([]byte("x"))
		wantErr(t, err, syscall.EPIPE)
	})
	t.Run("eof", func(t *testing.T) {
		client, server := newLoopback(t).pair(t, "192.0.2.1")
		server.CloseWrite()
		if _, err := client.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("got %v, want io.EOF itself", err)
		}
		if _, err := client.Write([]byte("x")); err != nil {
			t.Errorf("half closed: %v", err)
		}
		if n, err := server.Read(make([]byte, 4)); n != 1 || err != nil {
			t.Errorf("half closed: %d, %v", n, err)
		}
	})
	t.Run("closeread", func(t *testing.T) {
		client, _ := newLoopback(t).pair(t, "192.0.2.1")
		client.CloseRead()
		if _, err := client.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("got %v, want io.EOF", err)
		}
	})
	t.Run("closed", func(t *testing.T) {
		client, _ := newLoopback(t).pair(t, "192.0.2.1")
		client.Close()
		_, err := client.Read(make([]byte, 1))
		wantErr(t, err, net.ErrClosed)
		_, err = client.Write(nil)
		wantErr(t, err, net.ErrClosed)
		wantErr(t, client.Close(), net.ErrClosed)
		wantErr(t, client.CloseWrite(), net.ErrClosed)
		wantErr(t, client.SetNoDelay(true), net.ErrClosed)
		wantErr(t, client.SetReadDeadline(time.Time{}), net.ErrClosed)
	})
	t.Run("in use", func(t *testing.T) {
		s := newLoopback(t)
		l, err := s.Listen("tcp4", "192.0.2.1:80")
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Listen("tcp4", "192.0.2.1:80")
		wantErr(t, err, syscall.EADDRINUSE)
		l.Close()
		if l, err = s.Listen("tcp4", "192.0.2.1:80"); err != nil {
			t.Fatalf("after Close: %v", err)
		}
		l.Close()
	})
	t.Run("not ours", func(t *testing.T) {
		_, err := newLoopback(t).Listen("tcp", "198.51.100.1:80")
		wantErr(t, err, syscall.EADDRNOTAVAIL)
	})
}

func wantErr(t *testing.T, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Errorf("got %v, want one that is %v", err, target)
		return
	}
	var op *net.OpError
	if !errors.As(err, &op) {
		t.Errorf("%v is a %T, want a *net.OpError", err, err)
	}
}

// Close ends calls that are waiting, several in each direction.
func TestCloseWakesCalls(t *testing.T) {
	client, _ := newLoopback(t).pair(t, "192.0.2.1")
	// Fill the queues, so that the next Write has to wait.
	client.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	for {
		if _, err := client.Write(make([]byte, 1<<20)); err != nil {
			wantErr(t, err, os.ErrDeadlineExceeded)
			break
		}
	}
	client.SetWriteDeadline(time.Time{})
	var wg, started sync.WaitGroup
	for range 2 {
		started.Add(2)
		wg.Go(func() {
			started.Done()
			_, err := client.Read(make([]byte, 1))
			wantErr(t, err, net.ErrClosed)
		})
		wg.Go(func() {
			started.Done()
			_, err := client.Write(make([]byte, 16<<20))
			wantErr(t, err, net.ErrClosed)
		})
	}
	started.Wait()
	client.Close()
	wg.Wait()
}

// A deadline moved while a call waits counts for that call.
func TestDeadlineMoved(t *testing.T) {
	client, _ := newLoopback(t).pair(t, "192.0.2.1")
	client.SetReadDeadline(time.Now().Add(time.Hour))
	done := make(chan error)
	go func() {
		_, err := client.Read(make([]byte, 1))
		done <- err
	}()
	client.SetReadDeadline(time.Now().Add(5 * time.Millisecond))
	wantErr(t, <-done, os.ErrDeadlineExceeded)
	_, err := client.Read(make([]byte, 1))
	wantErr(t, err, os.ErrDeadlineExceeded)
	if ne, ok := err.(net.Error); !ok || !ne.Timeout() {
		t.Errorf("%v does not say that it is a timeout", err)
	}
}

func TestListenerDeadlineAndClose(t *testing.T) {
	s := newLoopback(t)
	l, err := s.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	l.SetDeadline(time.Now().Add(time.Millisecond))
	_, err = l.Accept()
	wantErr(t, err, os.ErrDeadlineExceeded)
	l.SetDeadline(time.Time{})
	done := make(chan error)
	go func() {
		_, err := l.Accept()
		done <- err
	}()
	l.Close()
	wantErr(t, <-done, net.ErrClosed)
	wantErr(t, l.Close(), net.ErrClosed)
}

func TestSocketOptions(t *testing.T) {
	client, _ := newLoopback(t).pair(t, "192.0.2.1")
	o := client.ep.SocketOptions()
	if o.GetDelayOption() {
		t.Error("Nagle's algorithm is on from the start")
	}
	for _, err := range []error{
		client.SetNoDelay(false),
		client.SetLinger(3),
		client.SetUserTimeout(9 * time.Second),
		client.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 7 * time.Second, Interval: -1, Count: 5}),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	if !o.GetDelayOption() || !o.GetKeepAlive() || o.GetLinger() != (tcpip.LingerOption{Enabled: true, Timeout: 3 * time.Second}) {
		t.Errorf("options: delay %v, keepalive %v, linger %v", o.GetDelayOption(), o.GetKeepAlive(), o.GetLinger())
	}
	var idle tcpip.KeepaliveIdleOption
	var user tcpip.TCPUserTimeoutOption
	client.ep.GetSockOpt(&idle)
	client.ep.GetSockOpt(&user)
	count, _ := client.ep.GetSockOptInt(tcpip.KeepaliveCountOption)
	if time.Duration(idle) != 7*time.Second || time.Duration(user) != 9*time.Second || count != 5 {
		t.Errorf("idle %v, user timeout %v, count %d", time.Duration(idle), time.Duration(user), count)
	}
	client.SetKeepAlivePeriod(time.Minute)
	var interval tcpip.KeepaliveIntervalOption
	client.ep.GetSockOpt(&interval)
	if time.Duration(interval) != time.Minute {
		t.Errorf("interval %v", time.Duration(interval))
	}
	wantErr(t, client.SetReadBuffer(0), syscall.EINVAL)
	if err := client.SetReadBuffer(8192); err != nil {
		t.Error(err)
	}
}
