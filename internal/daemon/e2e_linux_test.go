package daemon

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tcprepair/ustack/internal/netlab"
)

func TestMain(m *testing.M) { os.Exit(netlab.Main(withLoopback{m})) }

// withLoopback runs tests with the loopback interface up, which in a network
// namespace that netlab has just made it is not.
type withLoopback struct{ *testing.M }

// Run implements what netlab.Main wants.
func (m withLoopback) Run() int {
	lo, err := netlink.LinkByName("lo")
	if err == nil && lo.Attrs().Flags&net.FlagUp == 0 {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "loopback:", err)
		return 1
	}
	return m.M.Run()
}

// onTAP starts a daemon whose neighbour is the kernel of a namespace.
func onTAP(t *testing.T, link netlab.Link, services ...Service) (*Daemon, *netlab.Namespace) {
	t.Helper()
	netlab.RequireTAP(t)
	n, err := netlab.New(t).Direct(link)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := n.TAP.TakeFD()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	d, err := New(Config{
		TAPFD:     fd,
		Addresses: netlab.PeerAddresses,
		Services:  services,
		Control:   filepath.Join(t.TempDir(), "c.sock"),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close(timeout(t, time.Second)) })
	return d, n.Kernel
}

var tapPeers = []netip.Addr{netlab.PeerAddresses[0].Addr(), netlab.PeerAddresses[1].Addr()}

// webSite writes a random file to serve.
func webSite(t *testing.T, size int) (dir string, digest [sha256.Size]byte) {
	t.Helper()
	dir = t.TempDir()
	data := randomBytes(t, size)
	if err := os.WriteFile(filepath.Join(dir, "f"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir, sha256.Sum256(data)
}

// A hundred downloads at once by Go's client on kernel sockets.
func TestParallelDownloads(t *testing.T) {
	for _, link := range []netlab.Link{{}, {Plain: true}} {
		t.Run(fmt.Sprintf("plain=%v", link.Plain), func(t *testing.T) {
			dir, digest := webSite(t, 1<<20)
			d, ns := onTAP(t, link, Service{Name: "http", Port: 80, Dir: dir})
			client := http.Client{Transport: &http.Transport{DialContext: ns.DialContext, DisableKeepAlives: true}}
			ctx := timeout(t, 2*time.Minute)
			var wg sync.WaitGroup
			for i := range 100 {
				wg.Go(func() {
					if err := download(ctx, &client, tapPeers[i%2], digest); err != nil {
						t.Errorf("download %d: %v", i, err)
					}
				})
			}
			wg.Wait()
			if n := d.services[0].listener.accepted.Load(); n != 100 {
				t.Errorf("%d connections", n)
			}
		})
	}
}

func download(ctx context.Context, client *http.Client, from netip.Addr, digest [sha256.Size]byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(from.String(), "80")+"/f", nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	h := sha256.New()
	n, err := io.Copy(h, resp.Body)
	if err != nil {
		return fmt.Errorf("after %d bytes: %w", n, err)
	}
	if !bytes.Equal(h.Sum(nil), digest[:]) {
		return fmt.Errorf("the digest of %d bytes is wrong", n)
	}
	return nil
}

// curl, where there is one: whole, resumed by a byte range, and kept alive.
func TestCurl(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("no curl in CI")
		}
		t.Skip("no curl here")
	}
	dir, digest := webSite(t, 8<<20)
	data, err := os.ReadFile(filepath.Join(dir, "f"))
	if err != nil {
		t.Fatal(err)
	}
	_, ns := onTAP(t, netlab.Link{}, Service{Name: "http", Port: 80, Dir: dir})
	for _, a := range tapPeers {
		url := "http://" + net.JoinHostPort(a.String(), "80") + "/f"
		for _, tt := range []struct {
			args []string
			want []byte
		}{
			{[]string{url}, data},
			{[]string{"-r", "1000-1999", url}, data[1000:2000]},
			{[]string{url, url}, append(data[:len(data):len(data)], data...)},
			{[]string{"-I", "-o", "/dev/null", "-w", "%{http_code}", url}, []byte("200")},
		} {
			cmd := ns.Command(timeout(t, time.Minute), curl, append([]string{"-gsS", "--max-time", "50"}, tt.args...)...)
			got, err := cmd.CombinedOutput()
			if err != nil || !bytes.Equal(got, tt.want) {
				t.Errorf("curl %q: %v, %d bytes, want %d", tt.args, err, len(got), len(tt.want))
			}
		}
		out := filepath.Join(t.TempDir(), "part")
		os.WriteFile(out, data[:3<<20], 0o600)
		cmd := ns.Command(timeout(t, time.Minute), curl, "-gsS", "-C", "-", "-o", out, url)
		if msg, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("resuming: %v, %s", err, msg)
		}
		if got, _ := os.ReadFile(out); sha256.Sum256(got) != digest {
			t.Errorf("resumed: %d bytes, or others", len(got))
		}
	}
}

// The services over the kernel's TCP, both ways at once.
func TestServicesOverTAP(t *testing.T) {
	_, ns := onTAP(t, netlab.Link{},
		Service{Name: "echo", Port: 7}, Service{Name: "discard", Port: 9},
		Service{Name: "chargen", Port: 19}, Service{Name: "sink", Port: 1009})
	data := randomBytes(t, 8<<20)
	for _, a := range tapPeers {
		dial := func(port uint16) *net.TCPConn {
			c, err := ns.DialTCP(timeout(t, time.Minute), netip.AddrPortFrom(a, port))
			if err != nil {
				t.Fatalf("%v port %d: %v", a, port, err)
			}
			t.Cleanup(func() { c.Close() })
			c.SetDeadline(time.Now().Add(time.Minute))
			return c
		}
		if got := upload(t, dial(7), data); !bytes.Equal(got, data) {
			t.Errorf("%v: echo: %d bytes, or others", a, len(got))
		}
		if got := upload(t, dial(9), data); len(got) != 0 {
			t.Errorf("%v: discard said %d bytes", a, len(got))
		}
		if got, want := string(upload(t, dial(1009), data)), fmt.Sprintf("%d %x\n", len(data), sha256.Sum256(data)); got != want {
			t.Errorf("%v: sink: %q, want %q", a, got, want)
		}
		period := chargenPeriod()
		got := make([]byte, 100*len(period))
		if _, err := io.ReadFull(dial(19), got); err != nil || !bytes.Equal(got, bytes.Repeat(period, 100)) {
			t.Errorf("%v: chargen: %v", a, err)
		}
	}
}

// A port where nothing listens refuses, at once.
func TestRefusedOverTAP(t *testing.T) {
	_, ns := onTAP(t, netlab.Link{})
	for _, a := range tapPeers {
		if _, err := ns.DialTCP(timeout(t, 20*time.Second), netip.AddrPortFrom(a, 81)); !isRefused(err) {
			t.Errorf("%v: %v", a, err)
		}
	}
}

// A neighbour that does not exist is reported as such, as on every host, and
// not only when the SYN's retries run out.
func TestDialNobody(t *testing.T) {
	d, _ := onTAP(t, netlab.Link{})
	for _, addr := range []string{"10.77.0.99:80", "[fd77::99]:80"} {
		_, err := d.Stack().Dial(timeout(t, time.Minute), "tcp", addr)
		if !errors.Is(err, unix.EHOSTUNREACH) {
			t.Errorf("%s: %v", addr, err)
		}
	}
}

func isRefused(err error) bool {
	op, ok := err.(*net.OpError)
	return ok && op.Err.Error() == os.NewSyscallError("connect", unix.ECONNREFUSED).Error()
}

// The stack answers pings, which takes ARP and neighbour discovery too.
func TestPing(t *testing.T) {
	_, ns := onTAP(t, netlab.Link{})
	for i, a := range tapPeers {
		network := []string{"ip4:icmp", "ip6:ipv6-icmp"}[i]
		request, reply := []byte{8, 0, 0, 0, 0x12, 0x34, 0, 1}, byte(0)
		if a.Is6() {
			request[0], reply = 128, 129 // the kernel fills the checksum in
		}
		request = append(request, "are you there"...)
		if a.Is4() {
			binary.BigEndian.PutUint16(request[2:], internetChecksum(request))
		}
		var c net.Conn
		err := ns.Do(func() (err error) {
			c, err = net.Dial(network, a.String())
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(20 * time.Second))
		if _, err := c.Write(request); err != nil {
			t.Fatal(err)
		}
		for got := make([]byte, 1500); ; {
			n, _, err := c.(*net.IPConn).ReadFrom(got) // without the IPv4 header
			if err != nil {
				t.Fatalf("%v: %v", a, err)
			}
			if got[0] == reply && bytes.Equal(got[4:n], request[4:]) {
				break
			}
		}
	}
}

// internetChecksum is that of RFC 1071.
func internetChecksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		sum += uint32(b[i]) << 8
		if i+1 < len(b) {
			sum += uint32(b[i+1])
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
