package conn

import (
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
)

func keepalive(a, b *Config) {
	a.Options.Keepalive = Keepalive{On: true, Idle: 10 * time.Second, Interval: 20 * time.Second, Count: 3}
}

// A peer that answers is kept, however short the idle time is beside the
// interval.
func TestKeepaliveOfALivePeer(t *testing.T) {
	w := established(t, keepalive)
	w.run(time.Second, nil)
	sent := w.a.sent
	w.run(10*time.Minute, nil)
	if w.a.c.State() != StateEstablished {
		t.Fatalf("gave up a peer that answers: %v", w.a.c.Err())
	}
	if n := w.a.sent - sent; n < 20 || n > 70 {
		t.Errorf("%d probes in ten minutes of 10 to 30 s each", n)
	}
}

// A peer that does not is given up after the count, with a reset.
func TestKeepaliveOfADeadPeer(t *testing.T) {
	w := established(t, keepalive)
	w.run(time.Second, nil)
	var last Segment
	w.wiretap = func(from *host, s *Segment) { last = *s }
	w.fate = func(*host, *Segment) (time.Duration, int) { return 0, 0 }
	start := w.a.c.rcv.last
	w.run(time.Hour, func() bool { return w.a.c.State() == StateClosed })
	if took := w.now.Sub(start); took != 70*time.Second {
		t.Errorf("given up after %v, want 10 s and 3 x 20 s", took)
	}
	if w.a.c.Err() != ErrTimeout {
		t.Errorf("error %v", w.a.c.Err())
	}
	if last.Flags != header.TCPFlagRst {
		t.Errorf("the last segment is %s, want a reset", last.String())
	}
}

// A user timeout overrides the count.
func TestKeepaliveWithUserTimeout(t *testing.T) {
	w := established(t, keepalive, func(a, b *Config) { a.Options.UserTimeout = 25 * time.Second })
	w.run(time.Second, nil)
	w.fate = func(*host, *Segment) (time.Duration, int) { return 0, 0 }
	start := w.a.c.rcv.last
	w.run(time.Hour, func() bool { return w.a.c.State() == StateClosed })
	if took := w.now.Sub(start); took != 30*time.Second || w.a.c.Err() != ErrTimeout {
		t.Errorf("%v after %v, want ErrTimeout at the first probe past 25 s", w.a.c.Err(), took)
	}
}
