package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tcprepair/ustack/internal/netlab"
)

// binary is the program under test.
var binary string

func TestMain(m *testing.M) { os.Exit(netlab.Main(built{m})) }

// built runs tests with the program built for them.
type built struct{ *testing.M }

// Run implements what netlab.Main wants.
func (b built) Run() int {
	dir, err := os.MkdirTemp("", "ustack")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "ustack")
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building the program: %v\n%s", err, out)
		return 1
	}
	return b.M.Run()
}

const patience = 30 * time.Second

// running is `ustack run` in a namespace, with the kernel as its neighbour.
type running struct {
	t       *testing.T
	ns      *netlab.Namespace
	cmd     *netlab.Cmd
	control string

	mu    sync.Mutex
	lines []string
	wrote chan struct{} // capacity 1
	ended chan error    // delivers the end
}

// launch starts the program and waits until it serves. The kernel's side
// of the device has netlab's addresses.
func launch(t *testing.T, ns *netlab.Namespace, control string, args ...string) *running {
	t.Helper()
	r := begin(t, ns, control, args...)
	r.await("control socket") // comes last
	for _, a := range netlab.KernelAddresses {
		if err := ns.AddAddress("tap0", a); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// begin only starts the program.
func begin(t *testing.T, ns *netlab.Namespace, control string, args ...string) *running {
	t.Helper()
	addrs := []string{}
	for _, p := range netlab.PeerAddresses {
		addrs = append(addrs, p.String())
	}
	args = append([]string{"run", "--tap", "tap0", "--addr", strings.Join(addrs, ","), "--control", control, "--log-level", "debug"}, args...)
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{
		t: t, ns: ns, control: control,
		cmd:   ns.Command(ctx, binary, args...),
		wrote: make(chan struct{}, 1),
		ended: make(chan error, 1),
	}
	stderr, err := r.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		for s := bufio.NewScanner(stderr); s.Scan(); {
			r.mu.Lock()
			r.lines = append(r.lines, s.Text())
			r.mu.Unlock()
			select {
			case r.wrote <- struct{}{}:
			default:
			}
		}
		r.ended <- r.cmd.Wait()
		close(r.wrote)
	}()
	t.Cleanup(func() {
		cancel()
		<-finished
		if t.Failed() {
			t.Logf("the program said:\n%s", r.log())
		}
	})
	return r
}

func (r *running) log() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.lines, "\n")
}

// await waits for a log line with the text in it.
func (r *running) await(text string) {
	r.t.Helper()
	end := time.NewTimer(patience)
	defer end.Stop()
	for !strings.Contains(r.log(), text) {
		select {
		case _, ok := <-r.wrote:
			if !ok && !strings.Contains(r.log(), text) {
				r.t.Fatalf("it ended without saying %q", text)
			}
		case <-end.C:
			r.t.Fatalf("it did not say %q", text)
		}
	}
}

// status waits for the end and returns the exit status.
func (r *running) status() int {
	r.t.Helper()
	select {
	case err := <-r.ended:
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			r.t.Fatal(err)
		}
		return r.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
		r.t.Fatal("it does not end")
	}
	return 0
}

// ustack runs another command of the program against the same control socket.
func (r *running) ustack(args ...string) (stdout, stderr string, status int) {
	var out, errs bytes.Buffer
	status = run(append(args, "--control", r.control), &out, &errs)
	return out.String(), errs.String(), status
}

func (r *running) dial(to netip.Addr, port uint16) *net.TCPConn {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := r.ns.DialTCP(ctx, netip.AddrPortFrom(to, port))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c
}

// namespace is where a test's kernel lives.
func namespace(t *testing.T) (ns *netlab.Namespace, control string) {
	t.Helper()
	netlab.RequireTAP(t)
	ns, err := netlab.New(t).Namespace("kernel")
	if err != nil {
		t.Fatal(err)
	}
	return ns, filepath.Join(t.TempDir(), "ustack.sock")
}

var peers = []netip.Addr{netlab.PeerAddresses[0].Addr(), netlab.PeerAddresses[1].Addr()}

// checkEcho sends text and wants it back.
func checkEcho(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != text {
		t.Fatalf("echo said %q, %v", got, err)
	}
}

// SIGTERM ends connections in order and the program with status 0; a daemon
// that has a peer which stays waits no longer than its grace.
func TestSIGTERM(t *testing.T) {
	ns, control := namespace(t)
	r := launch(t, ns, control, "--serve", "echo:7", "--grace", "20s")
	var conns []*net.TCPConn
	for _, a := range peers {
		c := r.dial(a, 7)
		checkEcho(t, c, "hello")
		conns = append(conns, c)
	}
	if err := r.cmd.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for _, c := range conns {
		if n, err := io.Copy(io.Discard, c); n != 0 || err != nil {
			t.Errorf("the peer saw %d bytes, %v; want the end of the stream", n, err)
		}
		c.Close()
	}
	if status := r.status(); status != 0 {
		t.Errorf("status %d", status)
	}
	if _, err := os.Lstat(control); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the control socket's file: %v", err)
	}
	if devices, err := ns.Devices(); err != nil || strings.Contains(strings.Join(devices, " "), "tap0") {
		t.Errorf("devices left: %v, %v", devices, err)
	}
}

// A second signal does not wait for a peer that stays.
func TestSecondSignal(t *testing.T) {
	ns, control := namespace(t)
	r := launch(t, ns, control, "--serve", "echo:7", "--grace", "1h")
	c := r.dial(peers[0], 7)
	checkEcho(t, c, "hello")
	r.cmd.Process.Signal(unix.SIGINT)
	// The end of the stream shows that the first signal was understood.
	if _, err := io.Copy(io.Discard, c); err != nil {
		t.Errorf("after the first signal: %v", err)
	}
	select {
	case err := <-r.ended:
		t.Fatalf("the first signal alone ended it: %v", err)
	default:
	}
	r.cmd.Process.Signal(unix.SIGTERM)
	if status := r.status(); status != 0 {
		t.Errorf("status %d", status)
	}
	if _, err := os.Lstat(control); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the control socket's file: %v", err)
	}
}

// A killed daemon's socket file and device name do not stop the next.
func TestKilledAndRestarted(t *testing.T) {
	ns, control := namespace(t)
	r := launch(t, ns, control, "--serve", "echo:7")
	checkEcho(t, r.dial(peers[0], 7), "first")
	second := begin(t, ns, control)
	if status := second.status(); status != 1 || !strings.Contains(second.log(), "a daemon is running there") {
		t.Errorf("beside a living daemon: status %d, %s", status, second.log())
	}
	r.cmd.Process.Kill()
	r.status()
	if _, err := os.Lstat(control); err != nil {
		t.Fatalf("nothing left behind: %v", err)
	}
	if _, stderr, status := r.ustack("conns"); status != 1 || !strings.Contains(stderr, "nobody answers") {
		t.Errorf("conns: status %d, %q", status, stderr)
	}
	again := launch(t, ns, control, "--serve", "echo:7")
	for _, a := range peers {
		checkEcho(t, again.dial(a, 7), "second")
	}
	if _, stderr, status := again.ustack("conns"); status != 0 {
		t.Errorf("conns: status %d, %q", status, stderr)
	}
}

// The device's removal ends the program with an error.
func TestDeviceGone(t *testing.T) {
	ns, control := namespace(t)
	r := launch(t, ns, control, "--serve", "echo:7")
	err := ns.Do(func() error {
		device, err := netlink.LinkByName("tap0")
		if err != nil {
			return err
		}
		return netlink.LinkDel(device)
	})
	if err != nil {
		t.Fatal(err)
	}
	if status := r.status(); status != 1 || !strings.Contains(r.log(), "the device is gone") {
		t.Errorf("status %d", status)
	}
	if _, err := os.Lstat(control); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the control socket's file: %v", err)
	}
}

// The whole way by the command line: list, freeze, list, thaw.
func TestConnsAndRepair(t *testing.T) {
	for i, a := range peers {
		t.Run([]string{"IPv4", "IPv6"}[i], func(t *testing.T) {
			ns, control := namespace(t)
			r := launch(t, ns, control, "--serve", "echo:7")
			c := r.dial(a, 7)
			checkEcho(t, c, "before")

			var list []struct {
				ID     uint64         `json:"id"`
				Remote string         `json:"remote"`
				Frozen bool           `json:"frozen"`
				RcvNxt uint32         `json:"rcv_nxt"`
				Drops  map[string]int `json:"drops"`
			}
			read := func() {
				t.Helper()
				stdout, stderr, status := r.ustack("conns", "--json")
				if err := json.Unmarshal([]byte(stdout), &list); status != 0 || err != nil || len(list) != 1 {
					t.Fatalf("conns: status %d, %q, %q, %v", status, stdout, stderr, err)
				}
			}
			read()
			if list[0].Remote != c.LocalAddr().String() || list[0].Frozen {
				t.Fatalf("%+v", list)
			}
			id := fmt.Sprint(list[0].ID)
			if stdout, stderr, status := r.ustack("repair", "on", id); status != 0 || !strings.Contains(stdout, "frozen") {
				t.Fatalf("repair on: status %d, %q, %q", status, stdout, stderr)
			}
			read()
			frozen := list[0]
			acked := bytesAcked(t, c)
			if _, err := io.WriteString(c, "during"); err != nil {
				t.Fatal(err)
			}
			end := time.Now().Add(patience)
			for read(); list[0].Drops["SOCKET_REPAIR"] < 2; read() {
				if time.Now().After(end) {
					t.Fatalf("the kernel's segment and its retransmission are not refused: %+v", list)
				}
			}
			if !list[0].Frozen || list[0].RcvNxt != frozen.RcvNxt {
				t.Errorf("frozen: %+v, then %+v", frozen, list[0])
			}
			if now := bytesAcked(t, c); now != acked {
				t.Errorf("the peer has %d bytes acknowledged, %d before", now, acked)
			}
			if stdout, _, _ := r.ustack("conns"); !strings.Contains(stdout, "(frozen)") {
				t.Errorf("conns: %s", stdout)
			}
			if stdout, _, _ := r.ustack("drops"); !strings.Contains(stdout, "SOCKET_REPAIR") {
				t.Errorf("drops: %s", stdout)
			}
			if stdout, stderr, status := r.ustack("repair", "off", id); status != 0 || !strings.Contains(stdout, "thawed") {
				t.Fatalf("repair off: status %d, %q, %q", status, stdout, stderr)
			}
			got := make([]byte, len("during"))
			if _, err := io.ReadFull(c, got); err != nil || string(got) != "during" {
				t.Errorf("after: %q, %v", got, err)
			}
			checkEcho(t, c, "after")
			if _, stderr, status := r.ustack("repair", "on", "4000000000"); status != 1 || stderr != "ustack: no such connection: 4000000000\n" {
				t.Errorf("unknown ID: status %d, %q", status, stderr)
			}
			if stdout, stderr, status := r.ustack("status"); status != 0 || !strings.Contains(stdout, "1 open, 1 accepted") {
				t.Errorf("status: status %d, %q, %q", status, stdout, stderr)
			}
		})
	}
}

// bytesAcked is how much of what the kernel's socket sent was acknowledged.
func bytesAcked(t *testing.T, c *net.TCPConn) uint64 {
	t.Helper()
	info, err := netlab.TCPInfo(c)
	if err != nil {
		t.Fatal(err)
	}
	return info.Bytes_acked
}

// An inherited descriptor serves as well as a name.
func TestInheritedDescriptor(t *testing.T) {
	netlab.RequireTAP(t)
	n, err := netlab.New(t).Direct(netlab.Link{})
	if err != nil {
		t.Fatal(err)
	}
	fd, err := n.TAP.TakeFD()
	if err != nil {
		t.Fatal(err)
	}
	device := os.NewFile(uintptr(fd), "tap")
	defer device.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	cmd := n.Kernel.Command(ctx, binary, "run", "--tap-fd", "3", "--addr", netlab.PeerAddresses[0].String(), "--serve", "echo:7", "--control", "")
	cmd.ExtraFiles = []*os.File{device}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	dialing, stop := context.WithTimeout(ctx, patience)
	defer stop()
	// The kernel's first SYN may come before the program listens: refused,
	// or lost while nobody answers ARP. So ask again.
	var c *net.TCPConn
	for {
		if c, err = n.Kernel.DialTCP(dialing, netip.AddrPortFrom(peers[0], 7)); err == nil {
			break
		}
		if dialing.Err() != nil {
			t.Fatal(err)
		}
	}
	defer c.Close()
	checkEcho(t, c, "hello")
	cmd.Process.Signal(unix.SIGTERM)
	io.Copy(io.Discard, c)
	c.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}
