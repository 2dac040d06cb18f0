package interop

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/tcprepair/ustack/internal/netlab"
	"github.com/tcprepair/ustack/internal/netlab/impair"
	"github.com/tcprepair/ustack/stack"
	"github.com/tcprepair/ustack/stack/tcp/conn"
)

func isSYN(p netlab.Captured) bool {
	tcp := p.TCP()
	return tcp != nil && tcp.SYN && !tcp.ACK
}

func isSYNACK(p netlab.Captured) bool {
	tcp := p.TCP()
	return tcp != nil && tcp.SYN && tcp.ACK
}

func isBareACK(p netlab.Captured) bool {
	tcp := p.TCP()
	return tcp != nil && tcp.ACK && !tcp.SYN && !tcp.FIN && !tcp.RST && p.PayloadLen() == 0
}

// Each segment of the handshake is lost once, or twice. Who waits for it
// repeats what went before after a second, and after three; the connection
// comes about and works.
func TestHandshakeSegmentLost(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name    string
		match   func(netlab.Captured) bool
		times   int32
		atLeast time.Duration
	}{
		{"SYN", isSYN, 1, 900 * time.Millisecond},
		{"SYN twice", isSYN, 2, 2900 * time.Millisecond},
		// Both ends have a timer for this one, so the third may be early.
		{"SYN-ACK", isSYNACK, 1, 900 * time.Millisecond},
		{"SYN-ACK twice", isSYNACK, 2, 900 * time.Millisecond},
		{"last ACK", isBareACK, 1, 900 * time.Millisecond},
		{"last ACK twice", isBareACK, 2, 2900 * time.Millisecond},
	} {
		t.Run(tc.name, func(t *testing.T) {
			each(t, func(t *testing.T, family int, open opener) {
				s := newSite(t, &impair.Config{})
				s.sysctl("net.ipv4.tcp_syn_linear_timeouts", "0") // double from the start
				lost := lose(tc.times, tc.match)
				s.wire.Filter(lost.pass, lost.pass)
				began := time.Now()
				k, u := open(s, family)
				took := time.Since(began)
				lost.done(t)
				if took < tc.atLeast || took > tc.atLeast+3*time.Second {
					t.Errorf("the handshake took %v, want %v or a little more", took, tc.atLeast)
				}
				exchange(t, k, u)
			})
		})
	}
}

// The client's first data completes a handshake whose last ACK was lost: nobody
// has to wait for a repetition.
func TestDataInPlaceOfALostLastACK(t *testing.T) {
	each(t, func(t *testing.T, family int, open opener) {
		s := newSite(t, &impair.Config{})
		const hello = "hello"
		lost := lose(1, isBareACK)
		s.hello = func() []byte {
			// Data that follows at once may take the place of the ACK.
			eventually(t, "the last ACK is lost", func() bool { return lost.left.Load() == 0 })
			return []byte(hello)
		}
		s.wire.Filter(lost.pass, lost.pass)
		capture := s.capture()
		k, u := open(s, family)
		lost.done(t)
		if n := capture.Count(isSYNACK); n != 1 {
			t.Errorf("%d SYN-ACKs, as if the data had not counted", n)
		}
		server := net.Conn(k)
		if u.Info().Unread > 0 {
			server = u
		}
		got := make([]byte, len(hello))
		_, err := io.ReadFull(server, got)
		must(t, err)
		if string(got) != hello {
			t.Errorf("the server read %q", got)
		}
		exchange(t, k, u)
	})
}

// A port where nobody listens refuses, and the reset is the error of connect.
func TestConnectionRefused(t *testing.T) {
	eachFamily(t, func(t *testing.T, family int) {
		s := newSite(t, nil)
		_, err := s.kernel.DialTCP(s.ctx(), netip.AddrPortFrom(netlab.PeerAddresses[family].Addr(), 7))
		wantErrno(t, "the kernel's connect", err, syscall.ECONNREFUSED)
		_, err = s.ustack.Dial(s.ctx(), "tcp", netip.AddrPortFrom(s.near[family].Addr(), 7).String())
		wantErrno(t, "our connect", err, syscall.ECONNREFUSED)
		s.gone()
		if d := s.ustack.Drops(); d["NO_SOCKET"] == 0 {
			t.Errorf("the kernel's SYN has no drop reason: %v", d)
		}
	})
}

// A listener that closes resets those who wait for it to accept.
func TestListenerClosesOnWaitingConnections(t *testing.T) {
	eachFamily(t, func(t *testing.T, family int) {
		t.Run("ours", func(t *testing.T) {
			s := newSite(t, nil)
			l, err := s.ustack.Listen("tcp", netip.AddrPortFrom(netlab.PeerAddresses[family].Addr(), 0).String())
			must(t, err)
			k, err := s.kernel.DialTCP(s.ctx(), l.Addr().(*net.TCPAddr).AddrPort())
			must(t, err)
			defer k.Close()
			deadline(limit, k)
			must(t, l.Close())
			_, err = k.Read(make([]byte, 1))
			wantErrno(t, "the kernel's read", err, syscall.ECONNRESET)
			s.gone()
		})
		t.Run("the kernel's", func(t *testing.T) {
			s := newSite(t, nil)
			l, err := s.kernel.ListenTCP(netip.AddrPortFrom(s.near[family].Addr(), 0))
			must(t, err)
			u, err := s.ustack.Dial(s.ctx(), "tcp", l.Addr().String())
			must(t, err)
			defer u.Close()
			deadline(limit, u)
			must(t, l.Close())
			_, err = u.Read(make([]byte, 1))
			wantErrno(t, "our read", err, syscall.ECONNRESET)
			s.gone()
		})
	})
}

// client is one of many that connect at the same time: it sends its number and
// wants it back.
func client(ctx context.Context, number int, dial func(context.Context) (net.Conn, error)) error {
	c, err := dial(ctx)
	if err != nil {
		return fmt.Errorf("client %d: %w", number, err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(limit))
	sent := fmt.Sprintf("%08d", number)
	if _, err := c.Write([]byte(sent)); err != nil {
		return fmt.Errorf("client %d: %w", number, err)
	}
	if got, err := io.ReadAll(c); err != nil || string(got) != sent {
		return fmt.Errorf("client %d: read %q, %w", number, got, err)
	}
	return nil
}

// echo answers a client, and ends when it has.
func echo(c net.Conn) error {
	defer c.Close()
	c.SetDeadline(time.Now().Add(limit))
	buf := make([]byte, 8)
	if _, err := io.ReadFull(c, buf); err != nil {
		return fmt.Errorf("server: %w", err)
	}
	_, err := c.Write(buf)
	return err
}

// More clients than an accept queue has room for, of a server that accepts
// nothing at first. Once it does, every one is served: those who found no room
// have tried again, and those who believed themselves connected lose no data.
func TestAcceptQueueOverflow(t *testing.T) {
	const clients = 24
	serve := func(t *testing.T, s *site, l net.Listener, dial func(context.Context) (net.Conn, error), full func() bool) {
		ctx := s.ctx()
		results := make(chan error, 2*clients)
		for i := range clients {
			go func() { results <- client(ctx, i, dial) }()
		}
		eventually(t, "the queue overflown", full)
		go func() {
			for range clients {
				c, err := l.Accept()
				if err != nil {
					results <- err
					continue
				}
				go func() { results <- echo(c) }()
			}
		}()
		for range 2 * clients {
			if err := <-results; err != nil {
				t.Error(err)
			}
		}
	}
	eachFamily(t, func(t *testing.T, family int) {
		t.Run("ours", func(t *testing.T) {
			t.Parallel()
			const backlog = 5
			s := newSite(t, nil, func(c *stack.Config) { c.Backlog = backlog })
			l, err := s.ustack.Listen("tcp", netip.AddrPortFrom(netlab.PeerAddresses[family].Addr(), 0).String())
			must(t, err)
			defer l.Close()
			to := l.Addr().(*net.TCPAddr).AddrPort()
			serve(t, s, l, func(ctx context.Context) (net.Conn, error) {
				return s.kernel.DialTCP(ctx, to)
			}, func() bool {
				if n := len(s.ustack.Conns()); n > 2*backlog {
					t.Errorf("%d connections are kept, with a backlog of %d", n, backlog)
				}
				return s.ustack.Stats().TCP.ListenOverflows > 0
			})
			if n := s.ustack.Drops()["TCP_LISTEN_OVERFLOW"]; n == 0 {
				t.Error("no segment was refused for TCP_LISTEN_OVERFLOW")
			}
		})
		t.Run("the kernel's", func(t *testing.T) {
			t.Parallel()
			s := newSite(t, nil)
			s.sysctl("net.core.somaxconn", "4")
			l, err := s.kernel.ListenTCP(netip.AddrPortFrom(s.near[family].Addr(), 0))
			must(t, err)
			defer l.Close()
			serve(t, s, l, func(ctx context.Context) (net.Conn, error) {
				return s.ustack.Dial(ctx, "tcp", l.Addr().String())
			}, func() bool { return s.kernelCount("ListenOverflows") > 0 })
		})
	})
}

// A connect that is given up leaves nothing behind, however often.
func TestConnectGivenUp(t *testing.T) {
	eachFamily(t, func(t *testing.T, family int) {
		s := newSite(t, &impair.Config{})
		void := lose(1<<30, isSYN)
		s.wire.Filter(nil, void.pass)
		to := netip.AddrPortFrom(s.near[family].Addr(), 80)
		const attempts = 300
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		results := make(chan error, attempts)
		for range attempts {
			go func() {
				_, err := s.ustack.DialFrom(ctx, netip.AddrPort{}, to)
				results <- err
			}()
		}
		eventually(t, "all of them in SYN-SENT", func() bool {
			n := 0
			for _, c := range s.ustack.Conns() {
				if c.State == conn.StateSynSent {
					n++
				}
			}
			return n == attempts
		})
		cancel()
		for range attempts {
			if err := <-results; !errors.Is(err, context.Canceled) {
				t.Errorf("%v, want that it was cancelled", err)
			}
		}
		s.gone()
	})
}
