package interop

import (
	"bytes"
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/tcprepair/ustack/internal/netlab"
	"github.com/tcprepair/ustack/internal/netlab/impair"
	"github.com/tcprepair/ustack/stack/tcp/conn"
)

// wantEOF verifies that a stream has ended.
func wantEOF(t *testing.T, who string, c net.Conn) {
	t.Helper()
	if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("%s: read %d, %v; want the end of the stream", who, n, err)
	}
}

// Both ends close while the other's FIN is under way. The FINs' acknowledgements
// are kept back until both are seen in CLOSING; then each repeats its FIN, and
// both end up in TIME-WAIT. https://www.rfc-editor.org/rfc/rfc9293#section-3.6
func TestSimultaneousClose(t *testing.T) {
	each(t, func(t *testing.T, family int, open opener) {
		s := newSite(t, &impair.Config{})
		k, u := open(s, family)
		exchange(t, k, u)
		slow := impair.Config{Delay: 300 * time.Millisecond}
		must(t, s.wire.Impair(slow, slow))
		var through atomic.Bool
		firstFIN := func() func([]byte) bool {
			seen := false
			return func(frame []byte) bool {
				tcp := netlab.Captured{Data: frame}.TCP()
				if tcp == nil || through.Load() {
					return true
				}
				pass := tcp.FIN && !seen
				seen = seen || tcp.FIN
				return pass
			}
		}
		s.wire.Filter(firstFIN(), firstFIN())

		must(t, k.CloseWrite())
		must(t, u.CloseWrite())
		if got := u.Info().State; got != conn.StateFinWait1 {
			t.Errorf("after CloseWrite: %v, want FIN-WAIT-1", got)
		}
		wantState(t, u, conn.StateClosing)
		wantKernelState(t, k, conn.StateClosing)
		wantEOF(t, "ustack", u)
		wantEOF(t, "the kernel", k)

		must(t, s.wire.Impair(impair.Config{}, impair.Config{}))
		through.Store(true)
		wantState(t, u, conn.StateTimeWait)
		wantKernelState(t, k, conn.StateClosed) // its TIME-WAIT is no socket's
		if n := s.kernelCount("TCPAbortOnData") + s.kernelCount("TCPAbortOnClose"); n != 0 {
			t.Errorf("the kernel aborted %d connections", n)
		}
	})
}

// The end that stops sending first still receives all the other has to say.
func TestHalfClose(t *testing.T) {
	each(t, func(t *testing.T, family int, open opener) {
		t.Run("by the kernel", func(t *testing.T) {
			s := newSite(t, nil)
			k, u := open(s, family)
			must(t, carry(k, u, 300_000, 1))
			wantState(t, u, conn.StateCloseWait)
			eventually(t, "our ACK of its FIN", func() bool { return kernelState(t, k) == conn.StateFinWait2 })
			must(t, carry(u, k, 3<<20, 2))
			wantState(t, u, conn.StateClosed)
			wantKernelState(t, k, conn.StateClosed)
		})
		t.Run("by ustack", func(t *testing.T) {
			s := newSite(t, nil)
			k, u := open(s, family)
			must(t, carry(u, k, 300_000, 1))
			wantState(t, u, conn.StateFinWait2)
			if got := kernelState(t, k); got != conn.StateCloseWait {
				t.Errorf("the kernel is in %v, want CLOSE-WAIT", got)
			}
			must(t, carry(k, u, 3<<20, 2))
			wantState(t, u, conn.StateTimeWait)
			wantKernelState(t, k, conn.StateClosed)
		})
		t.Run("while both send", func(t *testing.T) {
			s := newSite(t, nil)
			k, u := open(s, family)
			ways := make(chan error, 2)
			go func() { ways <- carry(k, u, 2<<20, 1) }()
			go func() { ways <- carry(u, k, 6<<20, 2) }()
			for range 2 {
				if err := <-ways; err != nil {
					t.Error(err)
				}
			}
		})
	})
}

// A peer that closed answers data with a reset. As in Linux the stream has
// ended before that, so a reader sees its end and a writer a broken pipe.
func TestWriteToAClosedPeer(t *testing.T) {
	each(t, func(t *testing.T, family int, open opener) {
		s := newSite(t, nil)
		k, u := open(s, family)
		exchange(t, k, u)
		must(t, k.Close())
		wantState(t, u, conn.StateCloseWait)
		_, err := u.Write([]byte("to nobody"))
		must(t, err) // the kernel's reset is still to come
		wantState(t, u, conn.StateClosed)
		wantEOF(t, "ustack", u)
		_, err = u.Write([]byte("to nobody"))
		wantErrno(t, "write", err, syscall.EPIPE)
	})
}

// Close with data that the user never read is a reset, so that the peer does
// not take it for delivered.
// https://www.rfc-editor.org/rfc/rfc2525#section-2.17
func TestCloseWithUnreadDataResets(t *testing.T) {
	each(t, func(t *testing.T, family int, open opener) {
		t.Run("by ustack", func(t *testing.T) {
			s := newSite(t, nil)
			k, u := open(s, family)
			_, err := k.Write(noise(100, 1))
			must(t, err)
			eventually(t, "100 bytes unread", func() bool { return u.Info().Unread == 100 })
			must(t, u.Close())
			_, err = k.Read(make([]byte, 1))
			wantErrno(t, "the kernel's read", err, syscall.ECONNRESET)
			s.gone()
		})
		t.Run("by the kernel", func(t *testing.T) {
			s := newSite(t, nil)
			k, u := open(s, family)
			_, err := u.Write(noise(100, 1))
			must(t, err)
			unread(t, k, 100)
			must(t, k.Close())
			_, err = u.Read(make([]byte, 1))
			wantErrno(t, "our read", err, syscall.ECONNRESET)
			s.gone()
		})
		t.Run("by ustack, data after Close", func(t *testing.T) {
			s := newSite(t, nil)
			k, u := open(s, family)
			exchange(t, k, u)
			must(t, u.Close())
			wantEOF(t, "the kernel", k)
			_, err := k.Write(noise(100, 1))
			must(t, err)
			eventually(t, "the kernel reset", func() bool {
				_, err := k.Write([]byte{1})
				return err != nil
			})
			s.gone()
		})
	})
}

// gone waits until the ustack has no connection left.
func (s *site) gone() {
	s.t.Helper()
	eventually(s.t, "no connection left", func() bool { return len(s.ustack.Conns()) == 0 })
}

// SO_LINGER with 0 seconds discards what is not delivered and resets.
func TestLingerZeroResets(t *testing.T) {
	type lingerer interface {
		net.Conn
		SetLinger(seconds int) error
	}
	each(t, func(t *testing.T, family int, open opener) {
		for _, ours := range []bool{true, false} {
			t.Run(map[bool]string{true: "by ustack", false: "by the kernel"}[ours], func(t *testing.T) {
				s := newSite(t, nil)
				k, u := open(s, family)
				exchange(t, k, u)
				from, to := lingerer(k), lingerer(u)
				if ours {
					from, to = to, from
				}
				must(t, from.SetLinger(0))
				must(t, from.Close())
				_, err := to.Read(make([]byte, 1))
				wantErrno(t, "read", err, syscall.ECONNRESET)
				s.gone()
			})
		}
	})
}

// The last ACK of all is lost: the end in LAST-ACK repeats its FIN, and the end
// in TIME-WAIT acknowledges it again.
func TestLastAckOfTheCloseLost(t *testing.T) {
	lastAck := func(p netlab.Captured) bool {
		tcp := p.TCP()
		return tcp != nil && tcp.ACK && !tcp.FIN && !tcp.SYN && !tcp.RST && p.PayloadLen() == 0
	}
	each(t, func(t *testing.T, family int, open opener) {
		t.Run("ustack in LAST-ACK", func(t *testing.T) {
			s := newSite(t, &impair.Config{})
			k, u := open(s, family)
			exchange(t, k, u)
			must(t, k.CloseWrite())
			wantEOF(t, "ustack", u)
			wantKernelState(t, k, conn.StateFinWait2)
			lost := lose(1, lastAck)
			s.wire.Filter(lost.pass, nil)
			must(t, u.CloseWrite())
			wantState(t, u, conn.StateLastAck)
			wantState(t, u, conn.StateClosed)
			lost.done(t)
			if n := u.Info().Counters.Retransmits; n == 0 {
				t.Error("the FIN was not repeated")
			}
			wantEOF(t, "the kernel", k)
		})
		t.Run("the kernel in LAST-ACK", func(t *testing.T) {
			s := newSite(t, &impair.Config{})
			k, u := open(s, family)
			exchange(t, k, u)
			must(t, u.CloseWrite())
			wantEOF(t, "the kernel", k)
			wantState(t, u, conn.StateFinWait2)
			lost := lose(1, lastAck)
			s.wire.Filter(nil, lost.pass)
			must(t, k.CloseWrite())
			wantState(t, u, conn.StateTimeWait)
			wantKernelState(t, k, conn.StateLastAck)
			wantKernelState(t, k, conn.StateClosed)
			lost.done(t)
			wantState(t, u, conn.StateTimeWait)
			wantEOF(t, "ustack", u)
		})
	})
}

// Fault: a close that finds a full queue and a shut window. The state moves at
// once, and all of it arrives, with the FIN, when the window opens.
func TestCloseBehindAZeroWindow(t *testing.T) {
	each(t, func(t *testing.T, family int, open opener) {
		s := newSite(t, nil)
		s.tune = append(s.tune, receiveBuffer(16<<10))
		k, u := open(s, family)
		data := noise(600_000, 1) // fits our queue, not the kernel's
		_, err := u.Write(data)
		must(t, err)
		eventually(t, "the window shut", func() bool { i := u.Info(); return i.SndWnd == 0 && i.Unsent > 0 })
		must(t, u.Close())
		if got := u.Info().State; got != conn.StateFinWait1 {
			t.Errorf("after Close: %v, want FIN-WAIT-1", got)
		}
		got, err := io.ReadAll(k)
		must(t, err)
		if !bytes.Equal(got, data) {
			t.Errorf("received %d bytes of %d, or other ones", len(got), len(data))
		}
		must(t, k.Close())
		eventually(t, "TIME-WAIT", func() bool { return u.Info().State == conn.StateTimeWait })
	})
}
