package conn

import (
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/seqnum"
)

// A tail loss probe that Nagle holds back repeats the last segment instead.
func TestSubtleProbeDespiteNagle(t *testing.T) {
	s := newScripted(t)
	s.write(3*1448 + 100) // the last 100 are held
	s.drain()
	s.write(50)
	s.drain()
	if s.c.unsent() == 0 {
		t.Fatal("nothing is held: the test does not test")
	}
	start := s.now
	for s.tick(start.Add(time.Second)) {
		if out := s.drain(); len(out) > 0 {
			if d := s.now.Sub(start); d > 100*time.Millisecond {
				t.Errorf("first sign after %v (%d timeouts), want a probe after two round trips of 10 ms", d, s.c.stats.Timeouts)
			}
			return
		}
	}
}

// F-RTO prefers new data, but must not wait for what may not be sent.
func TestSubtleFRTOWithHeldData(t *testing.T) {
	s := newScripted(t)
	s.write(4*1448 + 100)
	s.drain()
	s.write(50) // held by Nagle
	s.drain()
	una := s.c.snd.una
	for s.c.stats.Timeouts == 0 && s.tick(s.now.Add(time.Second)) {
		s.drain()
	}
	s.now = s.now.Add(10 * time.Millisecond)
	g := s.seg(0, una.Add(1448), "")
	s.in(g)
	start := s.now
	if len(s.drain()) > 0 {
		return
	}
	for s.tick(start.Add(2 * time.Second)) {
		if len(s.drain()) > 0 {
			break
		}
	}
	t.Errorf("after a partial acknowledgement nothing was sent for %v", s.now.Sub(start))
}

// Timestamps wrap in mid transfer.
func TestSubtleTimestampsWrap(t *testing.T) {
	off := ^uint32(time.Hour/time.Millisecond) - 300
	w := established(t, func(a, b *Config) { a.TSOffset, b.TSOffset = off, off+100 })
	n := 0
	w.fate = func(*host, *Segment) (time.Duration, int) {
		if n++; n%50 == 0 {
			return 0, 0
		}
		return 0, 1
	}
	w.pump(w.a, noise(20<<20, 1), time.Minute)
	w.pump(w.b, noise(2<<20, 1), time.Minute)
	if v := w.a.c.tstamp.value(w.now); v > 1<<20 {
		t.Errorf("no wrap: %d", v)
	}
	if w.a.c.Drops()[DropPAWS]+w.b.c.Drops()[DropPAWS] != 0 {
		t.Error("PAWS drops")
	}
	t.Logf("%+v", w.a.c.Counters())
}

// 25 days idle.
func TestSubtleIdleForWeeks(t *testing.T) {
	for _, days := range []time.Duration{23, 25, 40, 49, 60} {
		w := established(t)
		w.pump(w.a, noise(100_000, 1), time.Minute)
		w.now = w.now.Add(days * 24 * time.Hour)
		w.pump(w.a, noise(100_000, 2), time.Minute)
		w.now = w.now.Add(days * 24 * time.Hour)
		w.pump(w.b, noise(100_000, 3), time.Minute)
		c := w.a.c.Counters()
		if c.Retransmits > 0 || w.b.c.Counters().Retransmits > 0 {
			t.Errorf("%d days: %d retransmits, RTT %v", days, c.Retransmits, w.a.c.rtt.smoothed)
		}
		if w.a.c.rtt.smoothed > 100*time.Millisecond {
			t.Errorf("%d days: RTT %v", days, w.a.c.rtt.smoothed)
		}
	}
}

// Another congestion control goes on with the window.
func TestSubtleSetCongestionKeepsWindow(t *testing.T) {
	w := established(t)
	w.pump(w.a, noise(4<<20, 1), time.Minute)
	was := w.a.c.cwnd()
	w.a.c.SetCongestion(w.now, "reno")
	if now := w.a.c.cwnd(); now < was {
		t.Errorf("window %d, was %d; SetCongestion says it begins where this one stands", now, was)
	}
}

// The user timeout is kept to.
func TestSubtleUserTimeoutIsExact(t *testing.T) {
	s := newScripted(t, func(c *Config) { c.Options.UserTimeout = 30 * time.Second })
	s.write(1000)
	start := s.now
	s.drain()
	for s.c.State() == StateEstablished && s.tick(start.Add(10*time.Minute)) {
		s.drain()
	}
	if took := s.now.Sub(start); took > 31*time.Second {
		t.Errorf("given up after %v, want 30s (Linux tcp_clamp_rto_to_user_timeout)", took)
	}
}

// A FIN noted where no segment ends is forgotten when it is passed.
func TestSubtleStaleFIN(t *testing.T) {
	s := newScripted(t)
	fin := s.seg(header.TCPFlagFin, s.c.snd.nxt, "")
	fin.Seq = s.seq.Add(3)
	s.in(fin)
	s.drain()
	s.in(s.seg(0, s.c.snd.nxt, "hello"))
	s.seq = s.seq.Add(5)
	s.drain()
	if s.c.reasm.hasFIN {
		t.Errorf("a FIN at %d is still waited for at %d: it will be taken 4 GiB later", s.c.reasm.fin, s.c.rcv.nxt)
	}
}

// A window probe by a byte of data, as BSD and Windows send it, is answered.
func TestSubtleOneByteProbe(t *testing.T) {
	s := newScripted(t, func(c *Config) { c.RcvBuf = 3000 })
	for range 3 {
		s.in(s.seg(0, s.c.snd.nxt, string(make([]byte, 1000))))
		s.seq = s.seq.Add(1000)
		s.drain()
	}
	for i := range 5 {
		s.now = s.now.Add(time.Second)
		s.in(s.seg(0, s.c.snd.nxt, "p"))
		out := s.drain()
		if len(out) != 1 || out[0].Ack != s.seq || out[0].Window != 0 {
			t.Errorf("probe %d: %v", i, out)
		}
	}
}

var _ = seqnum.Size(0)
