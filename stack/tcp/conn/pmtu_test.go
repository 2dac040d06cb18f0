package conn

import (
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/seqnum"
)

// narrow lets only packets of up to most bytes of payload pass from a to b.
func narrow(w *world, most int64, tell bool) {
	w.fate = func(from *host, s *Segment) (time.Duration, int) {
		if from != w.a || s.Payload.Size() <= most {
			return 0, 1
		}
		if tell {
			w.a.c.PathMTU(w.now, s.Seq, uint16(most)+12)
		}
		return 0, 0
	}
}

func TestPathMTULowersTheSegmentSize(t *testing.T) {
	w := established(t)
	w.pump(w.a, noise(100_000, 1), time.Minute)
	narrow(w, 900, true)
	start := w.now
	w.pump(w.a, noise(300_000, 2), time.Minute)
	if size := w.a.c.Info(w.now).SndMSS; size != 900 {
		t.Errorf("segment size %d, want 900", size)
	}
	if took := w.now.Sub(start); took > 2*time.Second {
		t.Errorf("took %v: the segments that were too big waited for a timeout each", took)
	}
}

// An error about something that is not in flight is forged or stale.
func TestForgedPathMTUIsIgnored(t *testing.T) {
	w := established(t)
	w.pump(w.a, noise(10_000, 1), time.Minute)
	c := &w.a.c
	for _, seq := range []seqnum.Value{c.snd.una - 1, c.snd.nxt, c.snd.nxt + 1000} {
		if v := c.PathMTU(w.now, seq, 500); v != DropInvalidSequence {
			t.Errorf("sequence %d with %d:%d in flight: %s", seq, c.snd.una, c.snd.nxt, v)
		}
	}
	if size := c.Info(w.now).SndMSS; size != 1448 {
		t.Errorf("segment size %d", size)
	}
}

// A path that swallows large packets silently does not end the connection.
func TestPathMTUBlackHole(t *testing.T) {
	w := established(t)
	narrow(w, 700, false)
	w.pump(w.a, noise(100_000, 1), 5*time.Minute)
	if size := w.a.c.Info(w.now).SndMSS; size > 700 {
		t.Errorf("segment size %d", size)
	}
}

// Small data that times out says nothing about the path's MTU.
func TestTimeoutOfSmallDataKeepsTheSegmentSize(t *testing.T) {
	w := established(t)
	w.fate = func(*host, *Segment) (time.Duration, int) { return 0, 0 }
	w.a.write(w, []byte("small"))
	w.run(time.Minute, nil)
	if c := w.a.c.Counters(); c.Timeouts < blackHoleRetries {
		t.Fatalf("%d timeouts", c.Timeouts)
	}
	if size := w.a.c.Info(w.now).SndMSS; size != 1448 {
		t.Errorf("segment size %d", size)
	}
}

// A path that was down for long looks as if it swallowed large packets. When it
// is up again segments are full ones again.
// https://www.rfc-editor.org/rfc/rfc4821#section-7.7
func TestOutageDoesNotKeepSegmentsSmall(t *testing.T) {
	w := established(t)
	w.pump(w.a, noise(100_000, 1), time.Minute)
	w.fate = func(*host, *Segment) (time.Duration, int) { return 0, 0 }
	w.a.write(w, noise(100_000, 2))
	w.run(40*time.Second, nil)
	if size := w.a.c.Info(w.now).SndMSS; size >= 1448 {
		t.Fatalf("segment size %d after an outage of 40 s: no black hole is suspected", size)
	}
	w.fate = nil
	w.pump(w.a, noise(100_000, 3), time.Minute)
	if size := w.a.c.Info(w.now).SndMSS; size != 1448 {
		t.Errorf("segment size %d after the outage", size)
	}
	w.fate = func(*host, *Segment) (time.Duration, int) { return 0, 0 }
	w.a.write(w, noise(100_000, 4))
	w.run(2*time.Second, nil)
	if size := w.a.c.Info(w.now).SndMSS; size != 1448 {
		t.Errorf("segment size %d two seconds into another outage: the last one is held against the path", size)
	}
}

// A path that does swallow them is tried again after ten minutes, not at every
// recovery. https://www.rfc-editor.org/rfc/rfc1191#section-6.3
func TestBlackHoleIsTriedAgainSeldom(t *testing.T) {
	w := established(t)
	narrow(w, 700, false)
	w.pump(w.a, noise(100_000, 1), 5*time.Minute)
	before := w.a.c.Counters().Timeouts
	for range 5 {
		w.run(time.Minute, nil)
		w.pump(w.a, noise(100_000, 2), 5*time.Minute)
	}
	if n := w.a.c.Counters().Timeouts - before; n > 2 {
		t.Errorf("%d timeouts in five minutes once the black hole was known", n)
	}
	w.fate = nil
	w.run(10*time.Minute, nil)
	w.pump(w.a, noise(100_000, 3), time.Minute)
	w.pump(w.a, noise(100_000, 3), time.Minute)
	if size := w.a.c.Info(w.now).SndMSS; size != 1448 {
		t.Errorf("segment size %d ten minutes later, on a path that takes large packets", size)
	}
}
