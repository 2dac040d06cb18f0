package conn

import (
	"math/rand/v2"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
)

func TestHandshakeAgreesOnOptions(t *testing.T) {
	w := established(t)
	for _, h := range []*host{w.a, w.b} {
		i := h.c.Info(w.now)
		if !i.SACK || !i.Timestamps || !i.WindowScaling {
			t.Errorf("%s: SACK %v, timestamps %v, scaling %v; both ends offered all", h.name, i.SACK, i.Timestamps, i.WindowScaling)
		}
		if i.SndMSS != 1448 {
			t.Errorf("%s: segment size %d, want 1460 less 12 of timestamp", h.name, i.SndMSS)
		}
		if h.events&EventEstablished == 0 {
			t.Errorf("%s: no EventEstablished", h.name)
		}
	}
	if rtt := w.a.c.Info(w.now).RTT; rtt != 20*time.Millisecond {
		t.Errorf("round trip of the handshake %v, want 20ms", rtt)
	}
}

func TestOptionsAreOffUnlessBothOffer(t *testing.T) {
	w := established(t, func(a, b *Config) {
		b.SACK, b.Timestamps, b.WindowScaling = false, false, false
	})
	for _, h := range []*host{w.a, w.b} {
		i := h.c.Info(w.now)
		if i.SACK || i.Timestamps || i.WindowScaling || i.RcvWScale != 0 || i.SndWScale != 0 {
			t.Errorf("%s: %+v; b offered nothing", h.name, i)
		}
	}
	w.pump(w.a, noise(200_000, 1), time.Minute)
	w.pump(w.b, noise(200_000, 2), time.Minute)
}

func TestTransfer(t *testing.T) {
	lossy := func(rate float64, seed uint64) func(*host, *Segment) (time.Duration, int) {
		r := rand.New(rand.NewPCG(seed, 7))
		return func(*host, *Segment) (time.Duration, int) {
			if r.Float64() < rate {
				return 0, 0
			}
			return 0, 1
		}
	}
	jitter := func(seed uint64) func(*host, *Segment) (time.Duration, int) {
		r := rand.New(rand.NewPCG(seed, 9))
		return func(*host, *Segment) (time.Duration, int) {
			return time.Duration(r.IntN(int(15 * time.Millisecond))), 1 + r.IntN(2)
		}
	}
	noSACK := func(a, b *Config) { a.SACK = false }
	noRACK := func(a, b *Config) { a.RACK, b.RACK = false, false }
	plain := func(a, b *Config) { a.SACK, a.Timestamps, a.WindowScaling, a.GSOMax = false, false, false, 0 }
	reno := func(a, b *Config) { a.Congestion, b.Congestion = "reno", "reno" }
	for _, tc := range []struct {
		name string
		tune func(a, b *Config)
		fate func(*host, *Segment) (time.Duration, int)
	}{
		{"clean", nil, nil},
		{"clean, nothing offered", plain, nil},
		{"1% loss", nil, lossy(0.01, 1)},
		{"1% loss, reno", reno, lossy(0.01, 1)},
		{"10% loss", nil, lossy(0.10, 2)},
		{"1% loss without SACK", noSACK, lossy(0.01, 3)},
		{"10% loss without SACK", noSACK, lossy(0.10, 4)},
		{"5% loss without RACK", noRACK, lossy(0.05, 5)},
		{"5% loss, nothing offered", plain, lossy(0.05, 6)},
		{"reordering and duplication", nil, jitter(1)},
		{"reordering and duplication without SACK", noSACK, jitter(2)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var tune []func(a, b *Config)
			if tc.tune != nil {
				tune = append(tune, tc.tune)
			}
			w := established(t, tune...)
			w.fate = tc.fate
			w.pump(w.a, noise(2<<20, 1), 10*time.Minute)
			w.pump(w.b, noise(1<<20, 2), 10*time.Minute)
			t.Logf("took %v; a sent %d packets: %+v", time.Duration(w.now)-time.Hour, w.a.sent, w.a.c.Counters())
		})
	}
}

func TestCleanTransferRetransmitsNothing(t *testing.T) {
	w := established(t)
	w.pump(w.a, noise(4<<20, 1), time.Minute)
	if n := w.a.c.Counters().Retransmits; n != 0 {
		t.Errorf("%d retransmissions without loss", n)
	}
}

func TestZeroWindowProbesAndReopens(t *testing.T) {
	w := established(t, func(a, b *Config) { b.RcvBuf = 20_000 })
	data := noise(60_000, 1)
	w.a.write(w, data)
	w.run(time.Minute, nil)
	if got := w.b.c.Readable(); got != 20_000 {
		t.Fatalf("b holds %d bytes, want its buffer's 20000", got)
	}
	if w.a.c.Info(w.now).SndWnd != 0 {
		t.Fatalf("a thinks the window is %d", w.a.c.Info(w.now).SndWnd)
	}
	probes := w.a.sent
	w.run(10*time.Minute, nil)
	if n := w.a.sent - probes; n < 5 || n > 20 {
		t.Errorf("%d probes in ten minutes of a closed window; want a few, backing off to 2 minutes", n)
	}
	if w.a.c.State() != StateEstablished {
		t.Fatalf("a gave up a peer that answers: %v", w.a.c.Err())
	}
	// The update that reopens the window is lost; the next probe finds it open.
	lost := false
	w.fate = func(from *host, s *Segment) (time.Duration, int) {
		if from == w.b && !lost {
			lost = true
			return 0, 0
		}
		return 0, 1
	}
	w.b.read(w)
	w.run(3*time.Minute, func() bool { w.b.read(w); return w.a.c.Unacked() == 0 })
	w.b.read(w)
	if !lost {
		t.Error("b sent no window update")
	}
	w.same(w.a)
}

func TestCloseInEveryOrder(t *testing.T) {
	for _, tc := range []struct {
		name  string
		close func(w *world)
		want  string
	}{
		{"a first", func(w *world) {
			w.a.c.Close(w.now)
			w.run(time.Second, nil)
			if s := w.states(); s != "FIN-WAIT-2 CLOSE-WAIT" {
				t.Errorf("after a's close: %s", s)
			}
			w.b.c.Close(w.now)
		}, "TIME-WAIT CLOSED"},
		{"b first", func(w *world) {
			w.b.c.Close(w.now)
			w.run(time.Second, nil)
			w.a.c.Close(w.now)
		}, "CLOSED TIME-WAIT"},
		{"both at once", func(w *world) {
			w.a.c.Close(w.now)
			w.b.c.Close(w.now)
			w.settle(w.a)
			w.settle(w.b)
			w.run(15*time.Millisecond, nil)
			if s := w.states(); s != "CLOSING CLOSING" {
				t.Errorf("FINs crossed: %s", s)
			}
		}, "TIME-WAIT TIME-WAIT"},
		{"half close, then data the other way", func(w *world) {
			if err := w.a.c.Shutdown(w.now, false, true); err != nil {
				t.Error(err)
			}
			w.run(time.Second, nil)
			w.pump(w.b, noise(100_000, 3), time.Minute)
			w.b.c.Close(w.now)
		}, "TIME-WAIT CLOSED"},
		{"with data in flight", func(w *world) {
			w.a.write(w, noise(300_000, 4))
			w.a.c.Close(w.now)
			w.run(10*time.Second, func() bool { w.b.read(w); return w.b.closed })
			w.same(w.a)
			w.b.c.Close(w.now)
		}, "TIME-WAIT CLOSED"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := established(t)
			tc.close(w)
			w.run(5*time.Second, nil)
			if s := w.states(); s != tc.want {
				t.Fatalf("states %s, want %s", s, tc.want)
			}
			w.run(2*time.Minute, nil)
			if s := w.states(); s != "CLOSED CLOSED" {
				t.Errorf("after 2 MSL: %s", s)
			}
			for _, h := range []*host{w.a, w.b} {
				if h.c.Err() != nil || h.events&EventClosed == 0 || h.c.Deadline() != Never {
					t.Errorf("%s: error %v, events %b, deadline %v", h.name, h.c.Err(), h.events, h.c.Deadline())
				}
			}
		})
	}
}

// Fault 1 of other stacks: close() with a full send queue and a closed window.
func TestCloseBehindZeroWindow(t *testing.T) {
	w := established(t, func(a, b *Config) { b.RcvBuf = 10_000 })
	w.a.write(w, noise(50_000, 1))
	w.run(5*time.Second, nil)
	w.a.c.Close(w.now)
	if w.a.c.State() != StateFinWait1 {
		t.Fatalf("state %s after close, want FIN-WAIT-1 at once", w.a.c.State())
	}
	w.run(5*time.Minute, func() bool { w.b.read(w); return w.b.closed })
	w.same(w.a)
	if !w.b.closed {
		t.Error("the FIN never came")
	}
}

func TestCloseWithUnreadDataResets(t *testing.T) {
	w := established(t)
	w.a.write(w, []byte("unread"))
	w.run(time.Second, nil)
	w.b.c.Close(w.now)
	w.run(time.Second, nil)
	if w.a.c.Err() != ErrReset || w.states() != "CLOSED CLOSED" {
		t.Errorf("a: %v, states %s; want a reset", w.a.c.Err(), w.states())
	}
}

func TestDataAfterCloseResets(t *testing.T) {
	w := established(t)
	w.b.c.Close(w.now)
	w.run(time.Second, nil)
	w.a.write(w, []byte("late"))
	w.run(time.Second, nil)
	// a was in CLOSE-WAIT: it had read all there was, and can only learn that
	// it cannot write (Linux tcp_reset: EPIPE).
	if w.a.c.Err() != ErrClosedForSend || w.b.c.Drops()[DropAbortOnData] != 1 {
		t.Errorf("a: %v, b's drops %v", w.a.c.Err(), w.b.c.drops)
	}
}

func TestAbortResets(t *testing.T) {
	w := established(t)
	w.a.c.Abort(w.now)
	w.run(time.Second, nil)
	if w.a.c.Err() != ErrAborted || w.b.c.Err() != ErrReset {
		t.Errorf("a: %v, b: %v", w.a.c.Err(), w.b.c.Err())
	}
}

func TestSimultaneousOpen(t *testing.T) {
	w := newWorld(t)
	ca, cb := testConfig(1000), testConfig(5000)
	w.a.c.Connect(w.now, &ca)
	w.b.c.Connect(w.now, &cb)
	w.run(5*time.Second, nil)
	if s := w.states(); s != "ESTABLISHED ESTABLISHED" {
		t.Fatalf("states %s", s)
	}
	w.pump(w.a, noise(10_000, 1), time.Minute)
	w.pump(w.b, noise(10_000, 2), time.Minute)
}

func TestRefusedAndSilent(t *testing.T) {
	w := newWorld(t)
	cfg := testConfig(1000)
	w.a.c.Connect(w.now, &cfg)
	var syn Segment
	w.a.c.Output(w.now, &syn)
	rst, ok := Reset(&syn)
	if !ok || rst.Ack != 1001 || !rst.Has(header.TCPFlagRst|header.TCPFlagAck) {
		t.Fatalf("answer to a stray SYN: %s", rst.String())
	}
	w.a.c.Input(w.now, &rst)
	if w.a.c.Err() != ErrRefused {
		t.Errorf("error %v, want ErrRefused", w.a.c.Err())
	}
	w = newWorld(t)
	w.fate = func(*host, *Segment) (time.Duration, int) { return 0, 0 }
	w.a.c.Connect(w.now, &cfg)
	w.run(10*time.Minute, nil)
	if w.a.c.Err() != ErrTimeout || w.a.sent != 1+DefaultSYNRetries {
		t.Errorf("error %v after %d SYNs, want ErrTimeout after 7", w.a.c.Err(), w.a.sent)
	}
}

func TestGivesUpASilentPeer(t *testing.T) {
	w := established(t)
	w.fate = func(*host, *Segment) (time.Duration, int) { return 0, 0 }
	w.a.write(w, noise(5000, 1))
	start := w.now
	w.run(time.Hour, func() bool { return w.a.c.State() == StateClosed })
	if w.a.c.Err() != ErrTimeout {
		t.Fatalf("error %v after %v", w.a.c.Err(), w.now.Sub(start))
	}
	// 0.2 s doubled 15 times and held at 120 s: Linux's 924.6 s.
	if took := w.now.Sub(start); took < 900*time.Second || took > 960*time.Second {
		t.Errorf("gave up after %v", took)
	}
}
