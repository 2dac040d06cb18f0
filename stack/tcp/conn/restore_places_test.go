package conn

import (
	"bytes"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"

	"github.com/tcprepair/ustack/stack/repair"
)

// corners are connections with something in an unusual place.
var corners = map[string]func(t *testing.T) *world{
	"in the middle of everything": func(t *testing.T) *world { return busyWorld(t) },
	"its window closed": func(t *testing.T) *world {
		w := established(t, func(a, b *Config) { a.RcvBuf = 20_000 })
		w.b.write(w, noise(50_000, 1))
		w.run(3*time.Second, nil) // the peer probes
		if w.a.c.window() >= w.a.c.sillyWindow() {
			t.Fatalf("its window is %d", w.a.c.window())
		}
		return w
	},
	"the peer's window closed": func(t *testing.T) *world {
		w := established(t, func(a, b *Config) { b.RcvBuf = 20_000 })
		w.a.write(w, noise(50_000, 1))
		w.run(3*time.Second, nil)
		if !w.a.c.timers.running(timerPersist) {
			t.Fatal("it does not probe")
		}
		return w
	},
	"corked": func(t *testing.T) *world {
		w := established(t)
		o := w.a.c.Options()
		o.Cork = true
		w.a.c.SetOptions(w.now, o)
		w.a.write(w, noise(2000, 1))
		w.run(50*time.Millisecond, nil)
		if !w.a.c.timers.running(timerCork) {
			t.Fatal("nothing is held back")
		}
		return w
	},
	"a small segment held back": func(t *testing.T) *world {
		w := established(t)
		w.a.write(w, []byte("one"))
		w.settle(w.a)
		w.a.write(w, []byte("two"))
		w.settle(w.a)
		if w.a.c.Unsent() != 3 {
			t.Fatal("nothing is held back")
		}
		return w
	},
	"an early FIN": func(t *testing.T) *world {
		w := established(t)
		n := 0
		w.fate = func(from *host, s *Segment) (time.Duration, int) {
			if from == w.b && s.DataLen() > 0 {
				n++
			}
			if n == 1 && from == w.b {
				n++
				return 0, 0
			}
			return 0, 1
		}
		w.b.write(w, noise(10_000, 1))
		w.b.c.Shutdown(w.now, false, true)
		w.run(12*time.Millisecond, nil)
		if !w.a.c.reasm.hasFIN || w.a.c.reasm.empty() {
			t.Fatal("there is no early FIN")
		}
		return w
	},
	"a FIN behind a closed window": func(t *testing.T) *world {
		w := established(t, func(a, b *Config) { b.RcvBuf = 20_000 })
		w.a.write(w, noise(50_000, 1))
		w.a.c.Shutdown(w.now, false, true)
		w.run(3*time.Second, nil)
		if w.a.c.finSent() {
			t.Fatal("the FIN was sent")
		}
		return w
	},
	"timed out": func(t *testing.T) *world {
		w := established(t)
		w.a.write(w, noise(50_000, 1))
		w.settle(w.a)
		w.path = nil
		w.fate = func(*host, *Segment) (time.Duration, int) { return 0, 0 }
		w.run(2*time.Second, nil)
		if w.a.c.loss.phase != phaseLoss || w.a.c.loss.retries < 2 {
			t.Fatal("it has not timed out twice")
		}
		return w
	},
	"kept alive": func(t *testing.T) *world {
		w := established(t)
		o := w.a.c.Options()
		o.Keepalive = Keepalive{On: true, Idle: time.Minute, Interval: 10 * time.Second, Count: 5}
		o.UserTimeout, o.Clamp, o.NoDelay = 10*time.Minute, 30_000, true
		w.a.c.SetOptions(w.now, o)
		w.run(20*time.Second, nil)
		return w
	},
	"marked by the network": func(t *testing.T) *world {
		w := established(t, func(a, b *Config) { a.ECN, b.ECN = true, true })
		w.wiretap = func(from *host, s *Segment) { s.CE = s.ECT && from == w.b }
		w.b.write(w, noise(5000, 1))
		w.a.write(w, noise(5000, 1))
		w.run(15*time.Millisecond, nil)
		w.wiretap = nil
		if !w.a.c.ecn.echo {
			t.Fatal("nothing was marked")
		}
		return w
	},
	"on a narrower path": func(t *testing.T) *world {
		w := established(t)
		w.a.write(w, noise(50_000, 1))
		w.settle(w.a)
		w.a.c.PathMTU(w.now, w.a.c.snd.una, 1000)
		w.run(15*time.Millisecond, nil)
		return w
	},
	"records": func(t *testing.T) *world {
		w := established(t)
		for range 20 {
			w.a.write(w, noise(900, 1))
			w.a.c.EndRecord()
		}
		w.settle(w.a)
		if len(w.a.c.sendq.records) != 20 {
			t.Fatal("there are no records")
		}
		return w
	},
	"an acknowledgement owed": func(t *testing.T) *world {
		w := established(t)
		w.a.c.Input(w.now, &Segment{Seq: w.a.c.rcv.nxt, Ack: w.a.c.snd.una, Flags: header.TCPFlagAck, Window: 1000,
			Options: Options{HasTS: true, TSVal: w.a.c.tstamp.recent}, Payload: payload([]byte("not from b"))})
		if w.a.c.owed.acks == 0 {
			t.Fatal("nothing is owed")
		}
		return w
	},
}

// What is in an unusual place is there again after a move, all of it.
func TestRestoreCorners(t *testing.T) {
	for name, make := range corners {
		t.Run(name, func(t *testing.T) {
			w := make(t)
			w.now = w.now.Add(3 * time.Millisecond)
			w.a.c.SetRepair(w.now, repair.On)
			want := describe(&w.a.c, w.now)
			owed, ecn, records := w.a.c.owed.acks, w.a.c.ecn, len(w.a.c.sendq.records)
			w.move(w.a, testConfig(5), false)
			if got := describe(&w.a.c, w.now); got != want {
				t.Errorf("restored as\n%s\nwas\n%s", got, want)
			}
			ecn.heeded, ecn.until = false, 0
			if w.a.c.owed.acks != owed || w.a.c.ecn != ecn || len(w.a.c.sendq.records) != records {
				t.Errorf("%d acknowledgements owed, ECN %+v, %d records; had %d, %+v, %d",
					w.a.c.owed.acks, w.a.c.ecn, len(w.a.c.sendq.records), owed, ecn, records)
			}
		})
	}
}

// And the connection comes to its end, with what Linux can restore as well.
func TestRestoreCornersEndWell(t *testing.T) {
	for name, make := range corners {
		if name == "an acknowledgement owed" {
			continue // b knows nothing of it
		}
		for _, core := range []bool{false, true} {
			t.Run(name+map[bool]string{true: "/core only"}[core], func(t *testing.T) {
				w := make(t)
				w.move(w.a, testConfig(5), core)
				w.run(10*time.Second, nil)
				o := w.a.c.Options()
				o.Cork = false
				w.a.c.SetOptions(w.now, o)
				w.carryOn(repair.Off)
			})
		}
	}
}

// A connection whose user has gone moves as such: what is left is delivered, and
// data that nobody will read resets the peer, as it would have.
func TestRestoreOrphan(t *testing.T) {
	w := established(t)
	w.a.write(w, noise(100_000, 1))
	w.settle(w.a)
	w.a.c.Close(w.now)
	w.move(w.a, testConfig(5), false)
	if !w.a.c.userGone {
		t.Fatal("it has a user again")
	}
	w.a.c.SetRepair(w.now, repair.OffNoProbe)
	w.run(time.Minute, func() bool { w.b.read(w); return w.b.closed })
	w.run(time.Second, nil)
	if !bytes.Equal(w.b.got, w.a.wrote) {
		t.Errorf("%d bytes of %d were delivered", len(w.b.got), len(w.a.wrote))
	}
	if w.a.c.State() != StateFinWait2 || !w.a.c.timers.running(timerFinWait2) {
		t.Errorf("it is in %s", w.a.c.State())
	}
	w.move(w.a, testConfig(5), false)
	w.a.c.SetRepair(w.now, repair.OffNoProbe)
	w.b.write(w, []byte("is anybody there?"))
	w.run(time.Second, nil)
	if w.b.c.State() != StateClosed || w.b.c.Err() == nil {
		t.Errorf("the peer was not reset: %s, %v", w.b.c.State(), w.b.c.Err())
	}
}
