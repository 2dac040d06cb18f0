package interop

import (
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/tcprepair/ustack/internal/netlab"
	"github.com/tcprepair/ustack/stack/repair"
	"github.com/tcprepair/ustack/stack/tcp/conn"
)

// A frozen ustack answers no keepalive probe. The kernel asks as often as it
// was told to, and only then gives the connection up.
func TestKernelKeepaliveOutlastsAFreeze(t *testing.T) {
	keepalive := net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: time.Second, Count: 4}
	giveUp := keepalive.Idle + time.Duration(keepalive.Count)*keepalive.Interval
	each(t, func(t *testing.T, family int, open opener) {
		t.Run("longer than the kernel's patience", func(t *testing.T) {
			t.Parallel()
			s := newSite(t, nil)
			k, u := open(s, family)
			exchange(t, k, u)
			capture := s.capture()
			must(t, u.SetRepair(repair.On))
			must(t, k.SetKeepAliveConfig(keepalive))
			began := time.Now()
			_, err := k.Read(make([]byte, 1))
			took := time.Since(began)
			wantErrno(t, "the kernel's read", err, syscall.ETIMEDOUT)
			// The kernel's timers count from the last segment, a little before.
			if took < giveUp-500*time.Millisecond {
				t.Errorf("the kernel gave up after %v, want %v: something cut it short", took, giveUp)
			}
			probes := capture.Count(func(p netlab.Captured) bool { return p.Out && isBareACK(p) })
			if probes < keepalive.Count {
				t.Errorf("the kernel sent %d probes, want %d", probes, keepalive.Count)
			}
			silent(t, capture)
			must(t, u.SetRepair(repair.Off)) // its probe finds nobody
			_, err = u.Read(make([]byte, 1))
			wantErrno(t, "our read", err, syscall.ECONNRESET)
		})
		t.Run("shorter", func(t *testing.T) {
			t.Parallel()
			s := newSite(t, nil)
			k, u := open(s, family)
			exchange(t, k, u)
			must(t, u.SetRepair(repair.On))
			must(t, k.SetKeepAliveConfig(keepalive))
			eventually(t, "two probes refused", func() bool { return repairDrops(u) >= 2 })
			must(t, u.SetRepair(repair.Off))
			// Longer than was left: the kernel has heard us.
			pause(giveUp)
			exchange(t, k, u)
		})
	})
}

// Our keepalive finds a deaf peer out: after the idle time, and as many probes
// as were asked for, the connection has timed out.
func TestKeepaliveGivesADeafKernelUp(t *testing.T) {
	each(t, func(t *testing.T, family int, open opener) {
		s := newSite(t, nil)
		k, u := open(s, family)
		exchange(t, k, u)
		must(t, deafen(k))
		capture := s.capture()
		began := time.Now()
		must(t, u.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 600 * time.Millisecond, Interval: 300 * time.Millisecond, Count: 3}))
		_, err := u.Read(make([]byte, 1))
		took := time.Since(began)
		wantErrno(t, "read", err, syscall.ETIMEDOUT)
		const want = 600*time.Millisecond + 3*300*time.Millisecond
		if took < want-200*time.Millisecond || took > want+2*time.Second {
			t.Errorf("given up after %v, want %v", took, want)
		}
		if n := capture.Count(func(p netlab.Captured) bool { return !p.Out && isBareACK(p) }); n != 3 {
			t.Errorf("%d probes, want 3", n)
		}
		s.gone()
	})
}

// A kernel that hears our probes answers, and so the connection stays, however
// long it is idle.
func TestKeepaliveKeepsALiveConnection(t *testing.T) {
	each(t, func(t *testing.T, family int, open opener) {
		s := newSite(t, nil)
		k, u := open(s, family)
		exchange(t, k, u)
		// The kernel answers one such probe in 500 ms (tcp_invalid_ratelimit).
		must(t, u.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 600 * time.Millisecond, Interval: 600 * time.Millisecond, Count: 2}))
		must(t, k.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: time.Second, Count: 2}))
		eventually(t, "8 of our probes", func() bool { return u.Info().Counters.KeepaliveProbes >= 8 })
		if got := u.Info().State; got != conn.StateEstablished {
			t.Fatalf("%v, want ESTABLISHED", got)
		}
		exchange(t, k, u)
	})
}

// A connection that the peer has forgotten: the probe draws a reset.
func TestKeepaliveAnsweredByAReset(t *testing.T) {
	each(t, func(t *testing.T, family int, open opener) {
		s := newSite(t, nil)
		k, u := open(s, family)
		exchange(t, k, u)
		must(t, u.SetRepair(repair.On)) // so that its reset is not heard
		must(t, k.SetLinger(0))
		must(t, k.Close())
		eventually(t, "the reset refused", func() bool { return repairDrops(u) > 0 })
		must(t, u.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 300 * time.Millisecond, Interval: time.Second, Count: 9}))
		must(t, u.SetRepair(repair.Off))
		_, err := u.Read(make([]byte, 1))
		wantErrno(t, "read", err, syscall.ECONNRESET)
	})
}

// The user timeout bounds how long data may go unacknowledged, and goes before
// the number of retransmissions. https://www.rfc-editor.org/rfc/rfc5482
func TestUserTimeoutOfADeafKernel(t *testing.T) {
	each(t, func(t *testing.T, family int, open opener) {
		s := newSite(t, nil)
		k, u := open(s, family)
		exchange(t, k, u)
		must(t, deafen(k))
		must(t, u.SetUserTimeout(1500*time.Millisecond))
		began := time.Now()
		_, err := u.Write([]byte("into the void"))
		must(t, err)
		_, err = u.Read(make([]byte, 1))
		took := time.Since(began)
		wantErrno(t, "read", err, syscall.ETIMEDOUT)
		if took < 1300*time.Millisecond || took > 4*time.Second {
			t.Errorf("given up after %v, want 1.5s", took)
		}
		s.gone()
	})
}
