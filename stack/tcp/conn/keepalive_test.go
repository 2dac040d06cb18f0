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

// While data is outstanding its retransmissions ask whether the peer is there:
// no keepalive probe is sent, and it is they that give the peer up.
// https://www.rfc-editor.org/rfc/rfc9293#section-3.8.4
func TestNoKeepaliveWhileDataIsOutstanding(t *testing.T) {
	w := established(t, func(a, _ *Config) {
		a.Options.Keepalive = Keepalive{On: true, Idle: time.Second, Interval: time.Second, Count: 2}
		a.Retries = 7
	})
	w.fate = func(*host, *Segment) (time.Duration, int) { return 0, 0 }
	w.a.write(w, noise(100, 1))
	w.run(20*time.Second, nil)
	if c := &w.a.c; c.State() != StateEstablished || c.Counters().KeepaliveProbes != 0 {
		t.Errorf("%s after 20 s, %d keepalive probes", c.State(), c.Counters().KeepaliveProbes)
	}
	w.run(time.Hour, nil)
	if c := &w.a.c; c.Err() != ErrTimeout || c.Counters().Timeouts != 7 {
		t.Errorf("%v after %d timeouts", c.Err(), c.Counters().Timeouts)
	}
}
