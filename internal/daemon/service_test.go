package daemon

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestParseService(t *testing.T) {
	for _, tt := range []struct {
		spec string
		want Service
		err  string
	}{
		{spec: "echo:7", want: Service{Name: "echo", Port: 7}},
		{spec: "sink:65535", want: Service{Name: "sink", Port: 65535}},
		{spec: "http:80=/srv/a=b,c", want: Service{Name: "http", Port: 80, Dir: "/srv/a=b,c"}},
		{spec: "", err: "NAME:PORT"},
		{spec: "echo", err: "NAME:PORT"},
		{spec: "echo:", err: `port ""`},
		{spec: "echo:0", err: `port "0"`},
		{spec: "echo:65536", err: `port "65536"`},
		{spec: "echo:-1", err: `port "-1"`},
		{spec: "echo:seven", err: `port "seven"`},
		{spec: "gopher:70", err: "echo, discard, chargen, sink, http"},
		{spec: "echo:7=/srv", err: "only http"},
		{spec: "http:80", err: "which directory"},
		{spec: "http:80=", err: "which directory"},
	} {
		got, err := ParseService(tt.spec)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%q: error %v, want one line with %q", tt.spec, err, tt.err)
			}
			continue
		}
		if err != nil || got != tt.want {
			t.Errorf("%q: %+v, %v", tt.spec, got, err)
		}
		if got.String() != tt.spec {
			t.Errorf("%q comes back as %q", tt.spec, got)
		}
	}
}

// hosted is a service on a loopback socket of the kernel's.
type hosted struct {
	server
	limiter *limiter
	addr    string
	err     chan error
}

func host(t *testing.T, s Service, conns int) *hosted {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &hosted{limiter: limit(l, conns), addr: l.Addr().String(), err: make(chan error, 1)}
	if h.server, err = newServer(s, h.limiter, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	go func() { h.err <- h.serve() }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
		defer cancel()
		h.shutdown(ctx)
	})
	return h
}

func (h *hosted) dial(t *testing.T) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", h.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return c.(*net.TCPConn)
}

// randomBytes logs its seed.
func randomBytes(t *testing.T, n int) []byte {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	b := make([]byte, n)
	rand.NewChaCha8(key).Read(b)
	return b
}

// upload sends data, ends its side and returns the whole answer.
func upload(t *testing.T, c *net.TCPConn, data []byte) []byte {
	t.Helper()
	go func() {
		c.Write(data)
		c.CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestEcho(t *testing.T) {
	data := randomBytes(t, 3<<20)
	if got := upload(t, host(t, Service{Name: "echo"}, 4).dial(t), data); !bytes.Equal(got, data) {
		t.Errorf("%d bytes came back, of %d, or others", len(got), len(data))
	}
}

func TestDiscard(t *testing.T) {
	if got := upload(t, host(t, Service{Name: "discard"}, 4).dial(t), randomBytes(t, 1<<20)); len(got) != 0 {
		t.Errorf("it said %q", got)
	}
}

func TestSink(t *testing.T) {
	data := randomBytes(t, 1<<20+7)
	got := string(upload(t, host(t, Service{Name: "sink"}, 4).dial(t), data))
	if want := fmt.Sprintf("%d %x\n", len(data), sha256.Sum256(data)); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// The pattern of RFC 864: 72 characters a line, each line one further on.
func TestChargen(t *testing.T) {
	h := host(t, Service{Name: "chargen"}, 4)
	c := h.dial(t)
	const lines = 500
	b := make([]byte, lines*74)
	if _, err := io.ReadFull(c, b); err != nil {
		t.Fatal(err)
	}
	for i := range lines {
		line := b[i*74 : i*74+74]
		if string(line[72:]) != "\r\n" {
			t.Fatalf("line %d ends in %q", i, line[72:])
		}
		for j, ch := range line[:72] {
			if want := byte(32 + (i+j)%95); ch != want {
				t.Fatalf("line %d, column %d: %q, want %q", i, j, ch, want)
			}
		}
	}
	// A user that only ends its own side still gets characters.
	c.CloseWrite()
	if _, err := io.ReadFull(c, b); err != nil {
		t.Errorf("half closed: %v", err)
	}
	c.Close()
	waitFor(t, "the connection to be given up", func() bool { return h.limiter.active.Load() == 0 })
}

// waitFor polls, because nothing says when the condition comes true.
func waitFor(t *testing.T, what string, condition func() bool) {
	t.Helper()
	end := time.NewTimer(20 * time.Second)
	defer end.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-end.C:
			t.Fatalf("waited in vain for %s", what)
		case <-tick.C:
		}
	}
}

// Shutdown answers what was received, ends every connection without a reset,
// and returns when the peers have done the same.
func TestShutdownInOrder(t *testing.T) {
	for _, name := range []string{"echo", "discard", "sink", "chargen"} {
		t.Run(name, func(t *testing.T) {
			h := host(t, Service{Name: name}, 4)
			c := h.dial(t)
			if _, err := c.Write([]byte("hello")); err != nil {
				t.Fatal(err)
			}
			if name == "echo" {
				b := make([]byte, 5)
				if _, err := io.ReadFull(c, b); err != nil {
					t.Fatal(err)
				}
			}
			waitFor(t, "the connection to be served", func() bool { return h.limiter.accepted.Load() == 1 })
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			done := make(chan error, 1)
			go func() { done <- h.shutdown(ctx) }()
			if _, err := io.Copy(io.Discard, c); err != nil {
				t.Errorf("the peer saw %v, want an end in order", err)
			}
			// More from the peer must not turn into a reset either.
			if _, err := c.Write([]byte("late")); err != nil {
				t.Errorf("writing while the server waits: %v", err)
			}
			select {
			case err := <-done:
				t.Fatalf("shutdown returned before the peer had closed: %v", err)
			default:
			}
			c.Close()
			if err := <-done; err != nil {
				t.Errorf("shutdown: %v", err)
			}
			if err := <-h.err; !ended(err) {
				t.Errorf("serve: %v", err)
			}
			if _, err := net.Dial("tcp", h.addr); err == nil {
				t.Error("still accepting")
			}
		})
	}
}

// Shutdown does not wait for ever.
func TestShutdownPatience(t *testing.T) {
	h := host(t, Service{Name: "echo"}, 4)
	h.dial(t)
	waitFor(t, "the connection to be served", func() bool { return h.limiter.accepted.Load() == 1 })
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	start := time.Now()
	err := h.shutdown(ctx)
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
}

// A service at its limit serves the next connection when one has ended.
func TestLimit(t *testing.T) {
	h := host(t, Service{Name: "echo"}, 2)
	first, second, third := h.dial(t), h.dial(t), h.dial(t)
	say := func(c *net.TCPConn) error {
		c.Write([]byte("x"))
		_, err := io.ReadFull(c, make([]byte, 1))
		return err
	}
	for _, c := range []*net.TCPConn{first, second} {
		if err := say(c); err != nil {
			t.Fatal(err)
		}
	}
	third.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if err := say(third); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("the third of two: %v", err)
	}
	if n := h.limiter.active.Load(); n != 2 {
		t.Errorf("%d active", n)
	}
	first.Close()
	third.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.ReadFull(third, make([]byte, 1)); err != nil {
		t.Errorf("after one has ended: %v", err)
	}
}

func TestManyAtOnce(t *testing.T) {
	h := host(t, Service{Name: "sink"}, DefaultMaxConns)
	data := randomBytes(t, 64<<10)
	want := fmt.Sprintf("%d %x\n", len(data), sha256.Sum256(data))
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			c, err := net.Dial("tcp", h.addr)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			c.Write(data)
			c.(*net.TCPConn).CloseWrite()
			if got, err := io.ReadAll(c); err != nil || string(got) != want {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
	wg.Wait()
}

func TestServiceValidate(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, s := range []Service{
		{Name: "echo"},
		{Name: "nothing", Port: 1},
		{Name: "http", Port: 80, Dir: filepath.Join(t.TempDir(), "missing")},
		{Name: "http", Port: 80, Dir: file},
	} {
		if err := s.validate(); err == nil {
			t.Errorf("%+v: accepted", s)
		}
	}
	if err := (Service{Name: "http", Port: 80, Dir: t.TempDir()}).validate(); err != nil {
		t.Error(err)
	}
}
