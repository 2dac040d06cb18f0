package interop

import (
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"

	"github.com/tcprepair/ustack/internal/netlab"
	"github.com/tcprepair/ustack/stack"
	"github.com/tcprepair/ustack/stack/tcp"
	"github.com/tcprepair/ustack/stack/tcp/conn"
)

// reuses is how often a tuple is used, each time in the last one's TIME-WAIT.
const reuses = 20

// bindTo is a control that gives a kernel socket its address.
func bindTo(at netip.AddrPort) netlab.Control {
	return func(fd int) error {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
		var sa unix.Sockaddr = &unix.SockaddrInet6{Port: int(at.Port()), Addr: at.Addr().As16()}
		if at.Addr().Is4() {
			sa = &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}
		}
		return os.NewSyscallError("bind", unix.Bind(fd, sa))
	}
}

// eachClock runs f with timestamps, which tell a new connection from an old
// one, and without, where the initial sequence number has to.
func eachClock(t *testing.T, f func(t *testing.T, s *site, family int)) {
	eachFamily(t, func(t *testing.T, family int) {
		for _, tc := range []struct{ name, on string }{{"timestamps", "1"}, {"no timestamps", "0"}} {
			t.Run(tc.name, func(t *testing.T) {
				t.Parallel()
				s := newSite(t, nil)
				s.sysctl("net.ipv4.tcp_timestamps", tc.on)
				f(t, s, family)
			})
		}
	})
}

// firstTime verifies that each of the handshakes came about by its first SYN.
func firstTime(t *testing.T, c *netlab.Capture) {
	t.Helper()
	if n := c.Count(isSYN); n != reuses {
		t.Errorf("%d SYNs for %d connections", n, reuses)
	}
}

// untilOurTimeWait has a connection's ends say something and close, ours first,
// until ours is in TIME-WAIT and the kernel's is gone.
func (s *site) untilOurTimeWait(k *net.TCPConn, u *stack.Conn) {
	t := s.t
	t.Helper()
	s.bounded(k, u)
	exchange(t, k, u)
	must(t, u.CloseWrite())
	wantEOF(t, "the kernel", k)
	must(t, k.CloseWrite())
	wantState(t, u, conn.StateTimeWait)
	wantKernelState(t, k, conn.StateClosed) // it has our last ACK
	must(t, k.Close())
	must(t, u.Close())
}

// Our TIME-WAIT makes room for a new connection of the same tuple.
// https://www.rfc-editor.org/rfc/rfc6191#section-2 , rfc9293#section-3.6.1
func TestKernelReusesOurTimeWait(t *testing.T) {
	eachClock(t, func(t *testing.T, s *site, family int) {
		l, err := s.ustack.Listen("tcp", netip.AddrPortFrom(netlab.PeerAddresses[family].Addr(), 0).String())
		must(t, err)
		defer l.Close()
		to := l.Addr().(*net.TCPAddr).AddrPort()
		from := netip.AddrPortFrom(s.near[family].Addr(), 40404)
		capture := s.capture()
		for range reuses {
			k, err := s.kernel.DialTCP(s.ctx(), to, bindTo(from))
			must(t, err)
			u, err := l.AcceptConn()
			must(t, err)
			s.untilOurTimeWait(k, u)
		}
		firstTime(t, capture)
		waiting := 0
		for _, c := range s.ustack.Conns() {
			if c.State == conn.StateTimeWait {
				waiting++
			}
		}
		if waiting != 1 {
			t.Errorf("%d connections in TIME-WAIT, want the last", waiting)
		}
	})
}

// The kernel's TIME-WAIT takes our new SYN for what it is: our timestamps of a
// tuple go on where they were, and our initial sequence numbers only grow.
func TestWeReuseTheKernelsTimeWait(t *testing.T) {
	eachClock(t, func(t *testing.T, s *site, family int) {
		l, err := s.kernel.ListenTCP(netip.AddrPortFrom(s.near[family].Addr(), 0))
		must(t, err)
		defer l.Close()
		to := l.Addr().(*net.TCPAddr).AddrPort()
		from := netip.AddrPortFrom(netlab.PeerAddresses[family].Addr(), 40404)
		capture := s.capture()
		for range reuses {
			u, err := s.ustack.DialFrom(s.ctx(), from, to)
			must(t, err)
			k, err := l.AcceptTCP()
			must(t, err)
			s.bounded(k, u)
			exchange(t, k, u)
			must(t, k.CloseWrite())
			wantEOF(t, "ustack", u)
			must(t, u.Close())
			wantEOF(t, "the kernel", k)
			must(t, k.Close())
			s.gone()
			// The clock in initial sequence numbers ticks every 4 us, and has
			// to outrun the 102 numbers that were used.
			// https://www.rfc-editor.org/rfc/rfc9293#section-3.4.1
			pause(2 * time.Millisecond)
		}
		firstTime(t, capture)
	})
}

// As a client with no other port left we reuse a tuple that is in TIME-WAIT on
// our own side, where that is allowed.
func TestWeReuseOurOwnTimeWait(t *testing.T) {
	eachClock(t, func(t *testing.T, s *site, family int) {
		capture := s.capture()
		ns := s.ustack.NetStack()
		if err := ns.SetPortRange(50000, 50000); err != nil {
			t.Fatal(err)
		}
		reuse := tcpip.TCPTimeWaitReuseOption(tcpip.TCPTimeWaitReuseGlobal)
		if err := ns.SetTransportProtocolOption(tcp.ProtocolNumber, &reuse); err != nil {
			t.Fatal(err)
		}
		l, err := s.kernel.ListenTCP(netip.AddrPortFrom(s.near[family].Addr(), 0))
		must(t, err)
		defer l.Close()
		for range reuses {
			c, err := s.ustack.Dial(s.ctx(), "tcp", l.Addr().String())
			must(t, err)
			k, err := l.AcceptTCP()
			must(t, err)
			s.untilOurTimeWait(k, c.(*stack.Conn))
			pause(2 * time.Millisecond) // as above
		}
		firstTime(t, capture)
	})
}

// A reset does not end TIME-WAIT, nor does anything else of the old connection.
// https://www.rfc-editor.org/rfc/rfc1337
func TestTimeWaitIsNotAssassinated(t *testing.T) {
	each(t, func(t *testing.T, family int, open opener) {
		s := newSite(t, nil)
		k, u := open(s, family)
		exchange(t, k, u)
		must(t, u.CloseWrite())
		wantEOF(t, "the kernel", k)
		wantState(t, u, conn.StateFinWait2)
		ours, theirs := u.LocalAddr().(*net.TCPAddr).AddrPort(), u.RemoteAddr().(*net.TCPAddr).AddrPort()
		must(t, k.Close())
		wantState(t, u, conn.StateTimeWait)
		i := u.Info()
		capture := s.capture()
		// The kernel has forgotten the connection. An old FIN of its draws an
		// ACK, and that one the kernel's reset, right at the edge of our window.
		must(t, s.kernel.Do(func() error {
			f, err := newForger(family)
			if err != nil {
				return err
			}
			defer f.close()
			return f.send(theirs, ours, &layers.TCP{Seq: uint32(i.RcvNxt) - 1, Ack: uint32(i.SndNxt), FIN: true, ACK: true, Window: 1000})
		}))
		eventually(t, "our answer to the old FIN", func() bool {
			return capture.Count(func(p netlab.Captured) bool { return !p.Out && isBareACK(p) }) > 0
		})
		eventually(t, "the kernel's reset", func() bool { return s.ustack.Stats().TCP.ResetsReceived > 0 })
		if got := u.Info().State; got != conn.StateTimeWait {
			t.Errorf("%v, want TIME-WAIT", got)
		}
	})
}
