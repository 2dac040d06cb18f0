package linux_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"hash"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"

	"github.com/tcprepair/ustack/internal/netlab"
	"github.com/tcprepair/ustack/stack/repair"
	"github.com/tcprepair/ustack/stack/repair/linux"
)

func TestMain(m *testing.M) { os.Exit(netlab.Main(m)) }

// limit bounds everything a test waits for.
const limit = 30 * time.Second

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually waits, in steps, for what only the kernel's clock decides.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !cond(); <-time.After(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v", what, limit)
		}
	}
}

// families are indices into netlab's addresses.
var families = []struct {
	name  string
	index int
}{{"ipv4", 0}, {"ipv6", 1}}

// world is a peer and two kernels between which connections move.
type world struct {
	*netlab.Cluster
	t       testing.TB
	capture *netlab.Capture
}

func newWorld(t testing.TB) *world {
	t.Helper()
	lab := netlab.New(t)
	c, err := lab.Cluster(netlab.Link{}, 2, 0)
	must(t, err)
	capture, err := c.Peer.Capture(c.PeerDevice.Name, netlab.CaptureConfig{Snap: 128, MaxPackets: 1 << 20})
	must(t, err)
	return &world{Cluster: c, t: t, capture: capture}
}

// factory makes sockets of a host.
func (w *world) factory(host int) *linux.Factory {
	f := w.bare(host)
	f.Tombstone = limit
	return f
}

// bare is a Factory with nothing set beyond where it is.
func (w *world) bare(host int) *linux.Factory {
	return &linux.Factory{Do: w.Hosts[host].Kernel.Do}
}

// connect returns a connection that the peer has opened to the first host: the
// peer's end and the host's. There is no listener any more.
func (w *world) connect(family int) (peer, host *net.TCPConn) {
	w.t.Helper()
	l, err := w.Hosts[0].Kernel.ListenTCP(netip.AddrPortFrom(netlab.PeerAddresses[family].Addr(), 0))
	must(w.t, err)
	defer l.Close()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	// What a test writes must fit the peer's queue whole.
	peer, err = w.Peer.DialTCP(ctx, l.Addr().(*net.TCPAddr).AddrPort(), netlab.SetInt(unix.SOL_SOCKET, unix.SO_SNDBUF, 1<<20))
	must(w.t, err)
	host, err = l.AcceptTCP()
	must(w.t, err)
	w.t.Cleanup(func() { peer.Close(); host.Close() })
	must(w.t, peer.SetDeadline(time.Now().Add(limit)))
	return peer, host
}

// resets counts the RSTs in the capture, both ways.
func (w *world) resets() int {
	if n := w.capture.Missed(); n > 0 {
		w.t.Errorf("the capture has missed %d frames", n)
	}
	return w.capture.Count(func(c netlab.Captured) bool {
		tcp := c.TCP()
		return tcp != nil && tcp.RST
	})
}

// arrived waits until the peer has all that a host has sent. The switch keeps
// one host's frames in order, but not those of several.
func (w *world) arrived(host int) {
	w.t.Helper()
	mark, err := w.Hosts[host].Kernel.ListenUDP(netip.AddrPort{})
	must(w.t, err)
	defer mark.Close()
	_, err = mark.WriteToUDPAddrPort([]byte("so far"), netip.AddrPortFrom(netlab.KernelAddresses[0].Addr(), 9))
	must(w.t, err)
	port := mark.LocalAddr().(*net.UDPAddr).Port
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	_, err = w.capture.WaitFor(ctx, func(c netlab.Captured) bool {
		udp, ok := c.Packet().Layer(layers.LayerTypeUDP).(*layers.UDP)
		return ok && int(udp.SrcPort) == port
	})
	must(w.t, err)
}

// hold is how many bytes of segments a reservation keeps, the kernel's overhead
// included.
const hold = 4 << 20

// move carries a connection to another host: first its place there is reserved,
// and what the peer sends goes there, then it is frozen and follows.
func (w *world) move(s *linux.Socket, to int) *linux.Socket {
	w.t.Helper()
	local, remote, err := s.Addrs()
	must(w.t, err)
	_, err = w.factory(to).Reserve(repair.Flow{Local: local, Remote: remote}, hold, limit)
	must(w.t, err)
	w.Switch.Move(to)
	moved, err := repair.Move(s, w.factory(to))
	must(w.t, err)
	return moved.(*linux.Socket)
}

// freeze takes a host's connection out of its user's hands.
func (w *world) freeze(host int, c *net.TCPConn) *linux.Socket {
	w.t.Helper()
	s, err := w.factory(host).FromConn(c)
	must(w.t, err)
	must(w.t, s.SetRepair(repair.On))
	must(w.t, c.Close())
	return s
}

// user returns the connection of a Socket for a program to use.
func user(t testing.TB, s *linux.Socket) net.Conn {
	t.Helper()
	c, err := s.Conn()
	must(t, err)
	return c
}

// traffic is one direction of a stream: bytes that look random, and their sum.
type traffic struct {
	source io.Reader
	sum    hash.Hash
	left   int64
	rest   []byte // drawn, and not yet taken by the connection
}

func newTraffic(size int64, seed byte) *traffic {
	return &traffic{source: rand.NewChaCha8([32]byte{seed}), sum: sha256.New(), left: size}
}

// sendOn writes until all is sent or the connection's deadline passes.
func (f *traffic) sendOn(c net.Conn) error {
	for f.left > 0 || len(f.rest) > 0 {
		if len(f.rest) == 0 {
			f.rest = make([]byte, min(f.left, 16<<10))
			if _, err := io.ReadFull(f.source, f.rest); err != nil {
				return err
			}
			f.left -= int64(len(f.rest))
			f.sum.Write(f.rest)
		}
		n, err := c.Write(f.rest)
		f.rest = f.rest[n:]
		if err != nil {
			return err
		}
	}
	return nil
}

// receiveFrom reads until all has come or the deadline passes.
func (f *traffic) receiveFrom(c net.Conn) error {
	for buf := make([]byte, 64<<10); f.left > 0; {
		n, err := c.Read(buf[:min(f.left, int64(len(buf)))])
		f.sum.Write(buf[:n])
		f.left -= int64(n)
		if err != nil && f.left > 0 {
			return err
		}
	}
	return nil
}

// duplex is the traffic of one end.
type duplex struct{ in, out *traffic }

// run moves bytes both ways until all is done or stop.
func (d duplex) run(c net.Conn) (done bool, err error) {
	var wg sync.WaitGroup
	var in, out error
	wg.Go(func() { in = d.in.receiveFrom(c) })
	wg.Go(func() { out = d.out.sendOn(c) })
	wg.Wait()
	if errors.Is(in, os.ErrDeadlineExceeded) || errors.Is(out, os.ErrDeadlineExceeded) {
		return false, nil
	}
	return true, errors.Join(in, out)
}

// runFor lets bytes flow for a while.
func (d duplex) runFor(c net.Conn, while time.Duration) (done bool, err error) {
	if err := c.SetDeadline(time.Now().Add(while)); err != nil {
		return false, err
	}
	return d.run(c)
}

func digest(f *traffic) [32]byte { return [32]byte(f.sum.Sum(nil)) }
