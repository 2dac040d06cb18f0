package daemon

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/link/pipe"
	gstack "gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/tcprepair/ustack/stack"
	"github.com/tcprepair/ustack/stack/repair"
)

func links() (near, far gstack.LinkEndpoint) {
	return pipe.New("\x02\x00\x00\x00\x00\x01", "\x02\x00\x00\x00\x00\x02", 1500)
}

var daemonAddresses = []netip.Prefix{netip.MustParsePrefix("10.0.0.2/24"), netip.MustParsePrefix("fd00::2/64")}

// inMemory starts a daemon and, on the other end of its link, a stack to talk
// to it from.
func inMemory(t *testing.T, services ...Service) (*Daemon, *stack.Stack) {
	t.Helper()
	near, far := links()
	d, err := New(Config{
		Link:      far,
		Addresses: daemonAddresses,
		Services:  services,
		Control:   filepath.Join(t.TempDir(), "c.sock"),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close(timeout(t, time.Millisecond)) })
	peer, err := stack.New(stack.Config{Link: near, Addresses: []netip.Prefix{
		netip.MustParsePrefix("10.0.0.1/24"), netip.MustParsePrefix("fd00::1/64"),
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { peer.Close() })
	return d, peer
}

func timeout(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func dial(t *testing.T, s *stack.Stack, addr string) *stack.Conn {
	t.Helper()
	c, err := s.Dial(timeout(t, 20*time.Second), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return c.(*stack.Conn)
}

func TestConfigErrors(t *testing.T) {
	good := func() Config {
		_, far := links()
		return Config{Link: far, Addresses: daemonAddresses}
	}
	for _, tt := range []struct {
		change func(*Config)
		want   string
	}{
		{func(c *Config) { c.Link = nil }, "no link"},
		{func(c *Config) { c.TAP = "tap0" }, "more than one link"},
		{func(c *Config) { c.TAPFD, c.Link = -3, nil }, "-3"},
		{func(c *Config) { c.MTU = 70000 }, "70000"},
		{func(c *Config) { c.Addresses = nil }, "no address"},
		{func(c *Config) { c.Addresses = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")} }, "10.0.0.0/24"},
		{func(c *Config) { c.Gateways = []netip.Addr{netip.MustParseAddr("10.9.9.9")} }, "10.9.9.9"},
		{func(c *Config) { c.Gateways = []netip.Addr{netip.MustParseAddr("10.0.0.2")} }, "10.0.0.2"},
		{func(c *Config) {
			c.Link, c.TAP, c.Addresses = nil, "t", []netip.Prefix{netip.MustParsePrefix("127.0.0.1/8")}
		}, "127.0.0.1"},
		{func(c *Config) {
			c.Link, c.TAP, c.Addresses = nil, "t", []netip.Prefix{netip.MustParsePrefix("::1/128")}
		}, "::1"},
		{func(c *Config) { c.MTU = 1279 }, "1280"},
		{func(c *Config) { c.Link, c.TAP, c.Control = nil, "t", "@abstract" }, "abstract"},
		{func(c *Config) { c.Control = "/tmp/" + strings.Repeat("x", 200) }, "too long"},
		{func(c *Config) { c.MaxConns = -1 }, "-1"},
		{func(c *Config) { c.Grace = -time.Second }, "-1s"},
		{func(c *Config) { c.Services = []Service{{Name: "echo", Port: 7}, {Name: "sink", Port: 7}} }, "taken by echo:7"},
		{func(c *Config) { c.Services = []Service{{Name: "http", Port: 80, Dir: "/nowhere/at/all"}} }, "/nowhere/at/all"},
	} {
		cfg := good()
		tt.change(&cfg)
		d, err := New(cfg)
		if err == nil {
			d.Close(timeout(t, 0))
			t.Errorf("accepted; want an error about %q", tt.want)
			continue
		}
		var usage *UsageError
		if !errors.As(err, &usage) || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("error %v (%T), want a UsageError of one line about %q", err, err, tt.want)
		}
	}
}

func TestDaemonServes(t *testing.T) {
	dir := t.TempDir()
	data := randomBytes(t, 2<<20)
	if err := os.WriteFile(filepath.Join(dir, "f"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	d, peer := inMemory(t, Service{Name: "sink", Port: 9}, Service{Name: "http", Port: 80, Dir: dir})
	for _, host := range []string{"10.0.0.2", "fd00::2"} {
		c := dial(t, peer, net.JoinHostPort(host, "9"))
		go func() {
			c.Write(data)
			c.CloseWrite()
		}()
		got, err := io.ReadAll(c)
		if want := fmt.Sprintf("%d %x\n", len(data), sha256.Sum256(data)); err != nil || string(got) != want {
			t.Errorf("%s: sink says %q, %v", host, got, err)
		}
		client := http.Client{Transport: &http.Transport{DialContext: peer.Dial, DisableKeepAlives: true}}
		resp, err := client.Get("http://" + net.JoinHostPort(host, "80") + "/f")
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || sha256.Sum256(body) != sha256.Sum256(data) {
			t.Errorf("%s: %d bytes over http, %v", host, len(body), err)
		}
	}
	st, err := NewClient(d.cfg.Control).Status(timeout(t, 20*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	if st.PID != os.Getpid() || len(st.Services) != 2 || st.Services[0].Accepted != 2 || st.Stats.TCP.PassiveOpens != 4 {
		t.Errorf("status %+v", st)
	}
}

func TestControl(t *testing.T) {
	d, peer := inMemory(t, Service{Name: "echo", Port: 7})
	ctx := timeout(t, 30*time.Second)
	client := NewClient(d.cfg.Control)
	if list, err := client.Conns(ctx); err != nil || len(list) != 0 {
		t.Fatalf("at first: %v, %v", list, err)
	}
	c := dial(t, peer, "10.0.0.2:7")
	say := func(s string) {
		t.Helper()
		if _, err := io.WriteString(c, s); err != nil {
			t.Fatal(err)
		}
	}
	hear := func(s string) {
		t.Helper()
		b := make([]byte, len(s))
		if _, err := io.ReadFull(c, b); err != nil || string(b) != s {
			t.Fatalf("got %q, %v", b, err)
		}
	}
	say("one")
	hear("one")
	list, err := client.Conns(ctx)
	if err != nil || len(list) != 1 {
		t.Fatalf("%v, %v", list, err)
	}
	conn := list[0]
	if conn.Local.String() != "10.0.0.2:7" || conn.Remote.String() != c.LocalAddr().String() || conn.State != "ESTABLISHED" || conn.Frozen || conn.BytesReceived != 3 {
		t.Errorf("%+v", conn)
	}

	frozen, err := client.Repair(ctx, conn.ID, repair.On)
	if err != nil || !frozen.Frozen {
		t.Fatalf("%+v, %v", frozen, err)
	}
	say("two")
	waitFor(t, "a segment to be refused", func() bool {
		drops, err := client.Drops(ctx)
		return err == nil && drops["SOCKET_REPAIR"] > 0
	})
	if list, err = client.Conns(ctx); err != nil || list[0].RcvNxt != frozen.RcvNxt || list[0].Drops["SOCKET_REPAIR"] == 0 {
		t.Errorf("while frozen: %+v, %v", list, err)
	}
	for _, mode := range []repair.Mode{repair.Off, repair.On, repair.OffNoProbe} {
		if got, err := client.Repair(ctx, conn.ID, mode); err != nil || got.Frozen != (mode == repair.On) {
			t.Fatalf("%v: %+v, %v", mode, got, err)
		}
	}
	hear("two")
}

// What the control socket refuses, it refuses in one line.
func TestControlErrors(t *testing.T) {
	d, peer := inMemory(t, Service{Name: "echo", Port: 7})
	dial(t, peer, "10.0.0.2:7")
	client := NewClient(d.cfg.Control)
	ctx := timeout(t, 20*time.Second)
	list, err := client.Conns(ctx)
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	path := fmt.Sprintf("/v1/conns/%d/repair", list[0].ID)
	for _, tt := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"POST", "/v1/conns/999999/repair", `{"mode":"on"}`, 404, "no such connection: 999999"},
		{"POST", "/v1/conns/first/repair", `{"mode":"on"}`, 400, `"first" is not a number`},
		{"POST", "/v1/conns/-1/repair", `{"mode":"on"}`, 400, `"-1" is not a number`},
		{"POST", path, `{"mode":"maybe"}`, 400, `"maybe"`},
		{"POST", path, `{}`, 400, `mode ""`},
		{"POST", path, `{"mood":"on"}`, 400, "mood"},
		{"POST", path, ``, 400, "request"},
		{"POST", path, `{"mode":"` + strings.Repeat("x", 1<<20) + `"}`, 400, "request"},
		{"GET", path, ``, 404, "no such call"},
		{"GET", "/v2/conns", ``, 404, "no such call: GET /v2/conns"},
	} {
		req, err := http.NewRequest(tt.method, "http://ustack"+tt.path, strings.NewReader(tt.body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != tt.status || !strings.Contains(string(body), strings.ReplaceAll(tt.want, `"`, `\"`)) {
			t.Errorf("%s %s %.40s: %d %s", tt.method, tt.path, tt.body, resp.StatusCode, body)
		}
	}
	if _, err := client.Repair(ctx, 999999, repair.On); err == nil || err.Error() != "no such connection: 999999" {
		t.Errorf("unknown ID: %v", err)
	}
	if now, err := client.Conns(ctx); err != nil || now[0].Frozen {
		t.Errorf("after all that: %+v, %v", now, err)
	}
}

func TestClientWithoutDaemon(t *testing.T) {
	dir := t.TempDir()
	left := filepath.Join(dir, "left")
	stale(t, left)
	file := filepath.Join(dir, "file")
	os.WriteFile(file, nil, 0o600)
	for path, want := range map[string]string{
		filepath.Join(dir, "none"): "no such file",
		left:                       "nobody answers",
		file:                       "not a socket",
	} {
		_, err := NewClient(path).Conns(timeout(t, 5*time.Second))
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// A second daemon finds the first, and its link stays the caller's.
func TestTwoDaemons(t *testing.T) {
	d, _ := inMemory(t)
	_, far := links()
	cfg := Config{Link: far, Addresses: daemonAddresses, Control: d.cfg.Control}
	if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), "running") {
		t.Fatalf("%v", err)
	}
	cfg.Control = ""
	second, err := New(cfg)
	if err != nil {
		t.Fatalf("without a control socket: %v", err)
	}
	second.Close(timeout(t, time.Second))
}

// Close ends connections in order, removes the socket and leaves nothing.
func TestDaemonClose(t *testing.T) {
	before := runtime.NumGoroutine()
	d, peer := inMemory(t, Service{Name: "echo", Port: 7}, Service{Name: "chargen", Port: 19})
	c := dial(t, peer, "10.0.0.2:7")
	if _, err := io.WriteString(c, "hello"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	g := dial(t, peer, "[fd00::2]:19")
	if _, err := io.ReadFull(g, make([]byte, 1)); err != nil { // it is accepted
		t.Fatal(err)
	}
	ended := make(chan error, 2)
	for _, conn := range []*stack.Conn{c, g} {
		go func() {
			_, err := io.Copy(io.Discard, conn)
			conn.Close()
			ended <- err
		}()
	}
	d.Close(timeout(t, 20*time.Second))
	d.Close(timeout(t, 20*time.Second))
	for range 2 {
		if err := <-ended; err != nil {
			t.Errorf("a client saw %v, want the end of the stream", err)
		}
	}
	if _, err := os.Lstat(d.cfg.Control); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket's file: %v", err)
	}
	peer.Close()
	waitFor(t, "goroutines to end", func() bool { return runtime.NumGoroutine() <= before+2 })
}

// Close does not wait longer than it is told to for a peer that stays.
func TestDaemonCloseHurried(t *testing.T) {
	d, peer := inMemory(t, Service{Name: "echo", Port: 7})
	c := dial(t, peer, "10.0.0.2:7")
	start := time.Now()
	d.Close(timeout(t, 50*time.Millisecond))
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("the connection is alive")
	}
}
