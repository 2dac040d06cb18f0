package conn

import (
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/seqnum"

	"github.com/tcprepair/ustack/stack/repair"
)

// A peer that sends less than a unit of the window scale at a time cannot push
// the edge on for ever while nobody reads: what is taken stays bounded by the
// buffer, a sixteenth of it, and a unit.
func TestTinySegmentsCannotPushTheWindow(t *testing.T) {
	w := established(t, func(a, b *Config) { b.RcvBuf, b.ScaleFor = 100_000, 8<<20 })
	c := &w.b.c
	unit := int64(1) << c.rcv.wscale
	if unit < 64 {
		t.Fatalf("window unit %d is too small for this test", unit)
	}
	for range 20_000 {
		s := Segment{Seq: c.rcv.nxt, Ack: c.snd.una, Flags: header.TCPFlagAck, Window: 1000, Payload: payload(make([]byte, 17))}
		s.Options.HasTS, s.Options.TSVal = true, c.tstamp.recent
		c.Input(w.now, &s)
		var out Segment
		for c.Output(w.now, &out) {
			out.Release()
		}
	}
	if got := c.recvq.size(); got > 106_250+2*unit || got < 100_000-unit {
		t.Errorf("%d bytes taken into a buffer of 100000 with a unit of %d", got, unit)
	}
	if c.Drops()[DropZeroWindow] == 0 {
		t.Error("nothing was refused")
	}
}

// The right edge never retreats, whatever the user does to the buffer.
func TestWindowEdgeNeverRetreats(t *testing.T) {
	w := established(t)
	var edge seqnum.Value
	scale := w.b.c.rcv.wscale
	w.wiretap = func(from *host, s *Segment) {
		if from != w.b || s.Has(header.TCPFlagSyn) {
			return
		}
		now := s.Ack.Add(seqnum.Size(s.Window) << scale)
		if edge != 0 && now.LessThan(edge) {
			t.Errorf("edge went back by %d", edge-now)
		}
		edge = now
	}
	data := noise(3<<20, 1)
	for i := range 60 {
		data = data[w.a.write(w, data):]
		w.run(30*time.Millisecond, nil)
		w.b.c.SetBuffers(w.now, 30_000+i%3*200_000, 0)
		if i%4 == 0 {
			w.b.read(w)
		}
	}
	if edge == 0 {
		t.Fatal("nothing was sent")
	}
}

// A larger buffer opens a window that was all but closed at once, and leaves
// any other to the next acknowledgement; during a freeze, the thaw does so.
func TestLargerBufferOpensTheWindow(t *testing.T) {
	for _, tc := range []struct {
		name         string
		unread       int
		frozen, told bool
	}{
		{"all but closed", 1500, false, true},
		{"half open", 900, false, false},
		{"all but closed and frozen", 1500, true, true},
		{"half open and frozen", 900, true, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newScripted(t, func(c *Config) { c.RcvBuf = 2048 })
			s.in(s.seg(0, s.c.snd.nxt, string(make([]byte, tc.unread))))
			s.seq = s.seq.Add(seqnum.Size(tc.unread))
			s.drain()
			if tc.frozen {
				s.c.SetRepair(s.now, repair.On)
			}
			s.c.SetBuffers(s.now, 1<<20, 0)
			if tc.frozen {
				if out := s.drain(); len(out) != 0 {
					t.Fatalf("%d segments while frozen", len(out))
				}
				s.c.SetRepair(s.now, repair.OffNoProbe)
			}
			out := s.drain()
			if told := len(out) > 0; told != tc.told {
				t.Fatalf("%d segments, want an update: %v", len(out), tc.told)
			}
			if tc.told && int(out[0].Window)<<s.c.rcv.wscale < 65535 {
				t.Errorf("the peer was told of %d bytes of a buffer of %d", int(out[0].Window)<<s.c.rcv.wscale, s.c.recvq.max)
			}
		})
	}
}

// Data into a closed window is acknowledged, but that may wait for the user to
// open the window; a probe of one octet is answered at once.
// https://www.rfc-editor.org/rfc/rfc9293#section-3.8.6.1
func TestAnswerToDataIntoAClosedWindow(t *testing.T) {
	closed := func(t *testing.T) *scripted {
		s := newScripted(t, func(c *Config) { c.RcvBuf = 2048 })
		s.in(s.seg(0, s.c.snd.nxt, string(make([]byte, 2048))))
		s.seq = s.seq.Add(2048)
		if out := s.drain(); len(out) != 1 || out[0].Window != 0 {
			t.Fatalf("window is not closed: %v", out)
		}
		return s
	}
	t.Run("probe", func(t *testing.T) {
		s := closed(t)
		for range 3 {
			s.in(s.seg(0, s.c.snd.nxt, "x"))
			if out := s.drain(); len(out) != 1 || out[0].Ack != s.seq || out[0].Window != 0 {
				t.Fatalf("answer to a probe: %v", out)
			}
		}
	})
	t.Run("nobody reads", func(t *testing.T) {
		s := closed(t)
		start := s.now
		s.in(s.seg(0, s.c.snd.nxt, string(make([]byte, 1000))))
		beyond := s.seg(0, s.c.snd.nxt, string(make([]byte, 1000)))
		beyond.Seq = beyond.Seq.Add(1000)
		s.in(beyond)
		if out := s.drain(); len(out) != 0 {
			t.Fatalf("answered at once: %v", out)
		}
		if !s.tick(s.now.Add(time.Second)) || s.now.Sub(start) > 40*time.Millisecond {
			t.Fatalf("no timer for the answer, %v after the data", s.now.Sub(start))
		}
		if out := s.drain(); len(out) != 1 || out[0].Ack != s.seq || out[0].Window != 0 {
			t.Fatalf("answer: %v", out)
		}
	})
	t.Run("the user reads", func(t *testing.T) {
		s := closed(t)
		s.in(s.seg(0, s.c.snd.nxt, string(make([]byte, 1000))))
		s.c.Read(s.now, discard{}, 1<<20, false)
		if out := s.drain(); len(out) != 1 || out[0].Ack != s.seq || int(out[0].Window)<<s.c.rcv.wscale != 2048 {
			t.Fatalf("answer: %v", out)
		}
		if s.tick(s.now.Add(time.Second)) {
			t.Error("a timer is left")
		}
	})
}

// Reading what came before the peer's FIN opens no window: the peer has nothing
// left to send, and where it is gone a window update would draw a reset.
func TestNoWindowUpdateAfterFIN(t *testing.T) {
	w := established(t, func(a, b *Config) { b.RcvBuf = 64 << 10 })
	if n := w.a.write(w, make([]byte, 60<<10)); n != 60<<10 {
		t.Fatalf("%d bytes were taken", n)
	}
	if err := w.a.c.Shutdown(w.now, false, true); err != nil {
		t.Fatal(err)
	}
	w.settle(w.a)
	if !w.run(10*time.Second, func() bool { return w.b.c.State() == StateCloseWait }) {
		t.Fatalf("the FIN did not arrive: %s", w.states())
	}
	w.run(time.Second, nil)
	w.wiretap = func(from *host, s *Segment) {
		if from == w.b {
			t.Errorf("sent after the FIN: ack %d, window %d", s.Ack, s.Window)
		}
	}
	w.b.read(w)
	w.settle(w.b)
	w.run(time.Second, nil)
	if got := w.b.c.Unread(); got != 0 {
		t.Errorf("%d bytes unread", got)
	}
}
