package interop

import (
	"context"
	"flag"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/tcprepair/ustack/internal/netlab"
	"github.com/tcprepair/ustack/internal/netlab/impair"
	"github.com/tcprepair/ustack/stack"
	"github.com/tcprepair/ustack/stack/tap"
)

// Most of these tests wait for a kernel's timers, so more of them run at once
// than there are processors. The command line's -parallel goes before.
func TestMain(m *testing.M) {
	if err := flag.Set("test.parallel", "16"); err != nil {
		panic(err)
	}
	os.Exit(netlab.Main(m))
}

// limit bounds everything a test waits for.
const limit = 30 * time.Second

// site is a kernel and a ustack that are neighbours.
type site struct {
	t      *testing.T
	kernel *netlab.Namespace
	device string
	wire   *netlab.Wire
	ustack *stack.Stack
	near   []netip.Prefix   // the kernel's addresses
	tune   []netlab.Control // for every kernel socket
	hello  func() []byte    // what a client writes when it is connected; nil: nothing
}

// families are the two ways the sites can talk: index into the addresses of
// netlab's topologies.
var families = []struct {
	name  string
	index int
}{{"ipv4", 0}, {"ipv6", 1}}

// newSite makes neighbours; with an impairment there is a wire between them.
func newSite(t *testing.T, bad *impair.Config, tune ...func(*stack.Config)) *site {
	t.Helper()
	return newSiteOn(t, tap.Config{}, bad, tune...)
}

// newSiteOn is newSite with settings for the ustack's link.
func newSiteOn(t *testing.T, on tap.Config, bad *impair.Config, tune ...func(*stack.Config)) *site {
	t.Helper()
	lab := netlab.New(t)
	var (
		near *netlab.Neighbours
		err  error
	)
	if bad == nil {
		near, err = lab.Direct(netlab.Link{})
	} else {
		near, err = lab.Impaired(netlab.Link{}, netlab.WireConfig{AToB: *bad, BToA: *bad, Seed: 1})
	}
	must(t, err)
	fd, err := near.TAP.TakeFD()
	must(t, err)
	link, err := tap.Adopt(fd, on)
	must(t, err)
	cfg := stack.Config{Link: link, Addresses: netlab.PeerAddresses}
	for _, f := range tune {
		f(&cfg)
	}
	s, err := stack.New(cfg)
	must(t, err)
	t.Cleanup(func() { s.Close() })
	return &site{t: t, kernel: near.Kernel, device: near.Device.Name, wire: near.Wire, near: netlab.KernelAddresses, ustack: s}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (s *site) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	s.t.Cleanup(cancel)
	return ctx
}

// dialled returns a connection that the kernel opened to a ustack listener:
// the kernel's end, and ours.
func (s *site) dialled(family int) (*net.TCPConn, *stack.Conn) {
	s.t.Helper()
	l, err := s.ustack.Listen("tcp", netip.AddrPortFrom(netlab.PeerAddresses[family].Addr(), 0).String())
	must(s.t, err)
	defer l.Close()
	k, err := s.kernel.DialTCP(s.ctx(), l.Addr().(*net.TCPAddr).AddrPort(), s.tune...)
	must(s.t, err)
	s.greet(k)
	u, err := l.Accept()
	must(s.t, err)
	return s.bounded(k, u.(*stack.Conn))
}

// accepted returns a connection that ustack opened to a kernel listener.
func (s *site) accepted(family int) (*net.TCPConn, *stack.Conn) {
	s.t.Helper()
	l, err := s.kernel.ListenTCP(netip.AddrPortFrom(s.near[family].Addr(), 0), s.tune...)
	must(s.t, err)
	defer l.Close()
	u, err := s.ustack.Dial(s.ctx(), "tcp", l.Addr().String())
	must(s.t, err)
	s.greet(u)
	k, err := l.AcceptTCP()
	must(s.t, err)
	return s.bounded(k, u.(*stack.Conn))
}

// greet has a client say hello.
func (s *site) greet(client net.Conn) {
	s.t.Helper()
	if s.hello == nil {
		return
	}
	_, err := client.Write(s.hello())
	must(s.t, err)
}

// bounded gives both ends a deadline, so that no test hangs, and an end.
func (s *site) bounded(k *net.TCPConn, u *stack.Conn) (*net.TCPConn, *stack.Conn) {
	k.SetDeadline(time.Now().Add(limit))
	u.SetDeadline(time.Now().Add(limit))
	s.t.Cleanup(func() { k.Close(); u.Close() })
	return k, u
}

// eventually waits, in steps, for something only the kernel's clock decides.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !cond(); {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v", what, limit)
		}
		pause(5 * time.Millisecond)
	}
}

// pause lets real time pass: the kernel's timers are what is being watched.
func pause(d time.Duration) { <-time.After(d) }
