package netlab

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// patience is far more than anything here takes on a busy machine.
const patience = 60 * time.Second

// must(f())(t) is f's value; the test fails on its error.
func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func patient(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// payload is n bytes drawn from the seed.
func payload(seed uint64, n int) []byte {
	var key [32]byte
	copy(key[:], fmt.Sprint(seed))
	b := make([]byte, n)
	_, _ = rand.NewChaCha8(key).Read(b) // never fails
	return b
}

// transfer sends data from one namespace to an address of another over kernel
// TCP and compares digests.
func transfer(t testing.TB, from, to *Namespace, at netip.Addr, data []byte) {
	t.Helper()
	ln := must(to.ListenTCP(netip.AddrPortFrom(at, 0)))(t)
	defer ln.Close()
	type result struct {
		sum [32]byte
		n   int64
		err error
	}
	got := make(chan result, 1)
	go func() {
		var r result
		defer func() { got <- r }()
		conn, err := ln.Accept()
		if err != nil {
			r.err = err
			return
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(patience))
		h := sha256.New()
		r.n, r.err = io.Copy(h, conn)
		h.Sum(r.sum[:0])
	}()
	conn := must(from.DialTCP(patient(t), ln.Addr().(*net.TCPAddr).AddrPort()))(t)
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := conn.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	r := <-got
	if r.err != nil || r.n != int64(len(data)) || r.sum != sha256.Sum256(data) {
		t.Fatalf("to %v: %d of %d bytes arrived, digest right %v, error %v",
			at, r.n, len(data), r.sum == sha256.Sum256(data), r.err)
	}
}

// threadNS names the network namespace the calling thread is in.
func threadNS(t testing.TB) string {
	t.Helper()
	h := must(netns.Get())(t)
	defer h.Close()
	return h.UniqueId()
}

func TestDoStaysInNamespaceAndReturns(t *testing.T) {
	lab := New(t)
	a, b := must(lab.Namespace("a"))(t), must(lab.Namespace("b"))(t)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home := threadNS(t)
	err := a.Do(func() error {
		inA := threadNS(t)
		runtime.Gosched()
		if inA == home || inA != threadNS(t) {
			t.Errorf("in a: %s, then %s; home %s", inA, threadNS(t), home)
		}
		return b.Do(func() error {
			if inB := threadNS(t); inB == inA || inB == home {
				t.Errorf("in b: %s, a is %s, home %s", inB, inA, home)
			}
			return errors.New("from inside")
		})
	})
	if err == nil || err.Error() != "from inside" {
		t.Errorf("Do returned %v", err)
	}
	if now := threadNS(t); now != home {
		t.Errorf("after Do: %s, home %s", now, home)
	}
}

// A goroutine that leaves Do by Goexit must not leave its thread inside.
func TestDoSurvivesGoexit(t *testing.T) {
	lab := New(t)
	ns := must(lab.Namespace("a"))(t)
	home := make(chan string, 2)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		home <- threadNS(t)
		defer func() { home <- threadNS(t) }()
		_ = ns.Do(func() error { runtime.Goexit(); return nil })
	}()
	if before, after := <-home, <-home; before != after {
		t.Errorf("the thread was in %s, is in %s", before, after)
	}
}

func TestNamespacesAreApart(t *testing.T) {
	lab := New(t)
	a, b := must(lab.Namespace("a"))(t), must(lab.Namespace("b"))(t)
	devices := must(a.Devices())(t)
	if !slices.Contains(devices, "lo") {
		t.Errorf("devices %v, want lo among them", devices)
	}
	if err := a.SetSysctl("net.ipv4.tcp_sack", "0"); err != nil {
		t.Fatal(err)
	}
	if got := must(a.Sysctl("net.ipv4.tcp_sack"))(t); got != "0" {
		t.Errorf("in a: %q", got)
	}
	if got := must(b.Sysctl("net.ipv4.tcp_sack"))(t); got != "1" {
		t.Errorf("in b: %q, the change in a showed", got)
	}
	if err := a.SetSysctl("net.ipv4.no_such_setting", "1"); err == nil || !strings.Contains(err.Error(), "no_such_setting") {
		t.Errorf("unknown setting: %v", err)
	}
	// The loopback works at once, IPv6 too, and the same port is free in both.
	for _, ns := range []*Namespace{a, b} {
		for _, at := range []string{"127.0.0.1:777", "[::1]:777"} {
			addr := netip.MustParseAddrPort(at)
			ln := must(ns.ListenTCP(addr))(t)
			defer ln.Close()
			conn := must(ns.DialTCP(patient(t), addr))(t)
			defer conn.Close()
		}
	}
	if _, err := a.DialContext(patient(t), "tcp", "localhost:1"); err == nil {
		t.Error("DialContext took a name")
	}
}

func TestRoute(t *testing.T) {
	lab := New(t)
	n := must(lab.KernelPair(Link{}))(t)
	far := netip.MustParsePrefix("192.0.2.1/32")
	if err := n.Peer.AddAddress("lo", far); err != nil {
		t.Fatal(err)
	}
	if err := n.Kernel.AddRoute(netip.MustParsePrefix("192.0.2.0/24"), PeerAddresses[0].Addr()); err != nil {
		t.Fatal(err)
	}
	transfer(t, n.Kernel, n.Peer, far.Addr(), payload(1, 1000))
}

func TestCommandRunsInside(t *testing.T) {
	lab := New(t)
	ns := must(lab.Namespace("a"))(t)
	if err := ns.AddAddress("lo", netip.MustParsePrefix("198.51.100.7/32")); err != nil {
		t.Fatal(err)
	}
	out, err := ns.Command(patient(t), "cat", "/proc/net/fib_trie").CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("198.51.100.7")) {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestCloseKillsCommands(t *testing.T) {
	Require(t)
	lab := must(Open())(t)
	defer lab.Close()
	ns := must(lab.Namespace("a"))(t)
	// The child's child must go too.
	cmd := ns.Command(context.Background(), "sh", "-c", "sleep 1000 & echo started; wait")
	out := must(cmd.StdoutPipe())(t)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, len("started\n"))); err != nil {
		t.Fatal(err)
	}
	lab.Close()
	if _, err := io.ReadAll(out); err != nil { // ends when the last writer is gone
		t.Error(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("the process ended by itself")
	}
	if _, err := lab.Namespace("late"); err == nil {
		t.Error("a closed lab made a namespace")
	}
}

func TestTCPInfoAndQueues(t *testing.T) {
	lab := New(t)
	ns := must(lab.Namespace("a"))(t)
	ln := must(ns.ListenTCP(netip.MustParseAddrPort("127.0.0.1:0"), SetInt(unix.SOL_SOCKET, unix.SO_RCVBUF, 8192)))(t)
	defer ln.Close()
	conn := must(ns.DialTCP(patient(t), ln.Addr().(*net.TCPAddr).AddrPort(), SetString(unix.IPPROTO_TCP, unix.TCP_CONGESTION, "reno")))(t)
	defer conn.Close()
	peer := must(ln.AcceptTCP())(t)
	defer peer.Close()

	if _, err := conn.Write(make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	// On the loopback the segment and its acknowledgement pass before Write
	// returns, but softirq may finish elsewhere: wait for the reader's side.
	if n := must(waitInQueue(peer, 1000))(t); n != 1000 {
		t.Errorf("in queue: %d", n)
	}
	info := must(TCPInfo(peer))(t)
	if info.State != unix.BPF_TCP_ESTABLISHED || info.Bytes_received != 1000 {
		t.Errorf("state %d, %d bytes received", info.State, info.Bytes_received)
	}
	// More than both buffers take: something must stay unacknowledged.
	wrote := make(chan error, 1)
	go func() {
		_, err := conn.Write(make([]byte, 64<<20))
		wrote <- err
	}()
	for ctx := patient(t); must(OutQueue(conn))(t) == 0; runtime.Gosched() {
		if ctx.Err() != nil {
			t.Fatal("out queue stays empty")
		}
	}
	conn.Close()
	if err := <-wrote; err == nil {
		t.Error("64 MiB went to a reader that sleeps")
	}
}

func waitInQueue(c *net.TCPConn, n int) (int, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	got := 0
	err = raw.Read(func(fd uintptr) bool {
		got, err = unix.IoctlGetInt(int(fd), unix.SIOCINQ)
		return err != nil || got >= n
	})
	return got, err
}

func TestListenUDP(t *testing.T) {
	lab := New(t)
	n := must(lab.KernelPair(Link{}))(t)
	a := must(n.Kernel.ListenUDP(netip.MustParseAddrPort("0.0.0.0:0")))(t)
	defer a.Close()
	b := must(n.Peer.ListenUDP(netip.AddrPortFrom(PeerAddresses[0].Addr(), 53)))(t)
	defer b.Close()
	if _, err := a.WriteToUDPAddrPort([]byte("hello"), netip.AddrPortFrom(PeerAddresses[0].Addr(), 53)); err != nil {
		t.Fatal(err)
	}
	_ = b.SetDeadline(time.Now().Add(patience))
	buf := make([]byte, 10)
	if m, from, err := b.ReadFromUDPAddrPort(buf); err != nil || string(buf[:m]) != "hello" || from.Addr().Unmap() != KernelAddresses[0].Addr() {
		t.Errorf("%q from %v, %v", buf[:m], from, err)
	}
}
