package conn

import (
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/seqnum"
)

// Faults that users of other userspace stacks have reported, those that show in
// one connection. The numbers are only for reference between the tests.

// Fault 2: what is outstanding is miscounted when segments are reordered but
// not lost, and after days the sender stalls.
func TestFaultReorderingLeaksFlight(t *testing.T) {
	for _, sack := range []bool{true, false} {
		w := established(t, func(a, b *Config) { a.SACK = sack })
		r := rand.New(rand.NewPCG(2, 2))
		w.fate = func(*host, *Segment) (time.Duration, int) {
			return time.Duration(r.IntN(int(8 * time.Millisecond))), 1
		}
		for i := range 50 {
			w.pump(w.a, noise(100_000, uint64(i)), time.Minute)
			if n := w.a.c.flight(); n != 0 {
				t.Fatalf("SACK %v, round %d: %d bytes in flight with nothing outstanding", sack, i, n)
			}
		}
	}
}

// Fault 3: throughput collapses for good after the peer shrank its window.
func TestFaultShrunkenWindow(t *testing.T) {
	w := established(t)
	w.pump(w.a, noise(1<<20, 1), time.Minute)
	// The peer takes back what it offered: 64 KiB fit and 1 MiB were promised.
	c := &w.a.c
	w.a.write(w, noise(500_000, 2))
	w.settle(w.a)
	shrink := Segment{Seq: c.rcv.nxt, Ack: c.snd.una, Flags: header.TCPFlagAck, Window: 1}
	shrink.Options.HasTS, shrink.Options.TSVal = true, c.tstamp.recent
	c.snd.wl1 = c.rcv.nxt - 1
	c.Input(w.now, &shrink)
	if c.snd.wnd != seqnum.Size(1)<<c.snd.wscale {
		t.Fatalf("the shrunken window was not taken: %d", c.snd.wnd)
	}
	w.run(5*time.Second, func() bool { w.b.read(w); return false })
	w.b.read(w)
	w.same(w.a)
	start := w.now
	w.pump(w.a, noise(4<<20, 3), time.Minute)
	if took := w.now.Sub(start); took > 3*time.Second {
		t.Errorf("4 MiB took %v after the peer had shrunk its window", took)
	}
}

// Fault 4: a writer is not woken after the send buffer was tuned.
func TestFaultWriterWokenAfterTuning(t *testing.T) {
	w := established(t, func(a, b *Config) { a.SndBuf, a.SndBufMax = 16<<10, 4<<20 })
	data := noise(4<<20, 1)
	w.a.events = 0
	data = data[w.a.write(w, data):]
	// From here on only a wake-up makes the user write.
	if !w.run(time.Minute, func() bool {
		w.b.read(w)
		w.settle(w.b)
		if w.a.events&EventWritable != 0 {
			w.a.events = 0
			if n := w.a.write(w, data); n == 0 {
				t.Error("woken for nothing")
			} else {
				data = data[n:]
			}
			w.settle(w.a)
		}
		return len(data) == 0 && w.a.c.Unacked() == 0
	}) {
		t.Fatalf("the writer sleeps with %d bytes to go: %+v", len(data), w.a.c.Info(w.now))
	}
	if _, snd := w.a.c.Buffers(); snd <= 16<<10 {
		t.Error("the buffer was not tuned: the test did not test")
	}
}

// Fault 5: only a fraction of the receive buffer may hold out-of-order data, so
// one loss stalls a large flight.
func TestFaultWholeBufferHoldsOutOfOrder(t *testing.T) {
	w := established(t, func(a, b *Config) { b.RcvBuf = 1 << 20 })
	w.pump(w.a, noise(100_000, 9), time.Minute)
	c := &w.b.c
	room := c.window()
	for at := seqnum.Size(1); at < room; {
		n := min(1448, room-at)
		s := Segment{Seq: c.rcv.nxt.Add(at), Ack: c.snd.una, Flags: header.TCPFlagAck, Window: 1000, Payload: payload(make([]byte, n))}
		s.Options.HasTS, s.Options.TSVal = true, c.tstamp.recent
		if v := c.Input(w.now, &s); v != NotDropped {
			t.Fatalf("at %d of %d: %s", at, room, v)
		}
		at += n
	}
	if held := c.reasm.bytes(); held != int64(room-1) {
		t.Errorf("%d bytes held of a window of %d", held, room)
	}
}

// Fault 6: on a path with a tiny round trip the reordering window is nothing,
// and everything is marked lost.
func TestFaultTinyRoundTrip(t *testing.T) {
	w := established(t)
	w.delay = 20 * time.Microsecond
	r := rand.New(rand.NewPCG(6, 6))
	w.fate = func(*host, *Segment) (time.Duration, int) {
		return time.Duration(r.IntN(5)) * time.Microsecond, 1
	}
	w.pump(w.a, noise(8<<20, 1), time.Minute)
	i := w.a.c.Info(w.now)
	if n := i.Counters.Retransmits; n > 60 {
		t.Errorf("%d of %d segments were sent again without a loss", n, 8<<20/1448)
	}
	if i.Cwnd < 10*1448 {
		t.Errorf("congestion window %d", i.Cwnd)
	}
}

// Fault 7: SYN-RECEIVED drops an ACK that lacks the timestamp option.
func TestFaultHandshakeACKWithoutTimestamp(t *testing.T) {
	w := newWorld(t)
	cfg := testConfig(issA)
	c := &w.a.c
	syn := Segment{Seq: 7000, Flags: header.TCPFlagSyn, Window: 65535, Options: Options{MSS: 1460, HasTS: true, TSVal: 5}}
	c.Accept(w.now, &cfg, &syn)
	var out Segment
	if !c.Output(w.now, &out) || !out.Options.HasTS {
		t.Fatalf("SYN-ACK without timestamps: %s", out.String())
	}
	c.Input(w.now, &Segment{Seq: 7001, Ack: out.Seq + 1, Flags: header.TCPFlagAck, Window: 65535})
	if c.State() != StateEstablished {
		t.Errorf("state %s", c.State())
	}
	// Data without it is taken too.
	c.Input(w.now, &Segment{Seq: 7001, Ack: out.Seq + 1, Flags: header.TCPFlagAck, Window: 65535, Payload: payload([]byte("hi"))})
	if c.Readable() != 2 {
		t.Error("data without a timestamp was not taken")
	}
}

// Fault 8: an ACK that rides on a GSO-sized segment is lost.
func TestFaultACKOnALargeSegment(t *testing.T) {
	w := established(t)
	w.a.write(w, []byte("acknowledge me"))
	w.settle(w.a)
	c := &w.a.c
	s := Segment{Seq: c.rcv.nxt, Ack: c.snd.nxt, Flags: header.TCPFlagAck | header.TCPFlagPsh, Window: 1000, Payload: payload(make([]byte, 40_000))}
	s.Options.HasTS, s.Options.TSVal, s.Options.TSEcr = true, c.tstamp.recent, c.tstamp.value(w.now)
	c.Input(w.now, &s)
	if c.Unacked() != 0 || c.Readable() != 40_000 {
		t.Errorf("%d bytes unacknowledged, %d readable", c.Unacked(), c.Readable())
	}
}

// Fault 9: a write much larger than the peer's window is slow or stuck, and a
// segment larger than the window is not split.
func TestFaultWriteLargerThanTheWindow(t *testing.T) {
	for _, window := range []int{64 << 10, 1000, 100} {
		w := established(t, func(a, b *Config) { b.RcvBuf = window })
		size := min(1<<20, 300*window)
		start := w.now
		w.pump(w.a, noise(size, 1), time.Hour)
		trips := w.now.Sub(start) / (2 * w.delay)
		// Half a window each round trip is what silly window avoidance on both
		// sides may cost; a timer for each would be a thousand.
		if most := time.Duration(2*size/window + 50); trips > most {
			t.Errorf("window %d: %d bytes took %d round trips, want at most %d", window, size, trips, most)
		}
	}
}

// Fault 10: the window is not opened again after a drain, or more is advertised
// than is taken: data within the window is dropped. Segments of any size fill it
// to its edge, out of order as well, and all of it is there to be read.
func TestFaultAdvertisedWindowIsTaken(t *testing.T) {
	for _, buffer := range []int{3000, 65535, 1 << 20} {
		for _, size := range []int{1, 100, 1448, 40_000} {
			for _, backwards := range []bool{false, true} {
				fillTheWindow(t, buffer, size, backwards)
			}
		}
	}
}

func fillTheWindow(t *testing.T, buffer, size int, backwards bool) {
	t.Helper()
	if buffer/size > 4096 {
		return // nothing new, and slow
	}
	w := established(t, func(a, b *Config) { b.RcvBuf = buffer })
	c := &w.b.c
	c.oweAck()
	total := drain(w, c)
	first := total
	for round := range 3 {
		if total < first/2 {
			t.Fatalf("buffer %d, size %d, round %d: a window of %d, %d at first", buffer, size, round, total, first)
		}
		start := c.rcv.nxt
		var offsets []int
		for at := 0; at < total; at += size {
			offsets = append(offsets, at)
		}
		if backwards {
			slices.Reverse(offsets)
		}
		for _, at := range offsets {
			n := min(size, total-at)
			s := Segment{Seq: start.Add(seqnum.Size(at)), Ack: c.snd.una, Flags: header.TCPFlagAck, Window: 1000, Payload: payload(make([]byte, n))}
			s.Options.HasTS, s.Options.TSVal = true, c.tstamp.recent
			if reason := c.Input(w.now, &s); reason != NotDropped {
				t.Fatalf("buffer %d, size %d, backwards %v, round %d: byte %d of a window of %d is refused: %s",
					buffer, size, backwards, round, at, total, reason)
			}
		}
		if c.Readable() < total {
			t.Fatalf("buffer %d, size %d, backwards %v: %d readable of %d", buffer, size, backwards, c.Readable(), total)
		}
		drain(w, c) // acknowledges all
		if _, err := c.Read(w.now, io.Discard, 1<<30, false); err != nil {
			t.Fatal(err)
		}
		if total = drain(w, c); total == 0 {
			t.Fatalf("buffer %d, size %d, backwards %v: nothing tells the peer that the window is open", buffer, size, backwards)
		}
	}
}

// drain takes what a connection has to send and returns the last window in it.
func drain(w *world, c *Conn) (window int) {
	var out Segment
	for c.Output(w.now, &out) {
		window = int(out.Window) << c.rcv.wscale
		out.Release()
	}
	if err := c.check(); err != nil {
		w.t.Fatal(err)
	}
	return window
}

// Fault 15: an ICMP error during the handshake is lost, or worse.
func TestFaultICMPErrorDuringHandshake(t *testing.T) {
	for _, want := range []error{ErrHostUnreachable, ErrNetUnreachable, ErrRefused} {
		w := newWorld(t)
		cfg := testConfig(issA)
		w.a.c.Connect(w.now, &cfg)
		var syn Segment
		w.a.c.Output(w.now, &syn)
		if v := w.a.c.PathError(w.now, syn.Seq+5, want); v != DropInvalidSequence || w.a.c.Err() != nil {
			t.Errorf("an error about something else: %s, %v", v, w.a.c.Err())
		}
		w.a.c.PathError(w.now, syn.Seq, want)
		if err := w.a.c.Err(); err != want || w.a.c.State() != StateClosed {
			t.Errorf("%s, error %v, want %v", w.a.c.State(), err, want)
		}
	}
	// Once established it is no more than a hint.
	w := established(t)
	w.a.write(w, []byte("x"))
	w.settle(w.a)
	w.a.c.PathError(w.now, w.a.c.snd.una, ErrHostUnreachable)
	if w.a.c.State() != StateEstablished {
		t.Error("an ICMP error ended an established connection")
	}
}

// An orphan is not kept for ever by a peer that answers and keeps its window
// closed, be its data unsent or in flight before the window closed.
func TestOrphanBeforeAClosedWindowEnds(t *testing.T) {
	for _, inFlight := range []bool{false, true} {
		s := newScripted(t)
		if !inFlight {
			s.wnd = 0
			s.in(s.seg(0, s.c.snd.nxt, ""))
		}
		s.write(10_000)
		s.drain()
		s.c.Close(s.now)
		s.drain()
		s.wnd = 0
		end := s.now.Add(24 * time.Hour)
		for s.c.State() != StateClosed {
			s.in(s.seg(0, s.c.snd.una, ""))
			s.drain()
			if !s.tick(end) {
				break
			}
			s.drain()
		}
		if s.c.State() != StateClosed {
			t.Errorf("in flight %v: after a day %s, %d bytes queued", inFlight, s.c.State(), s.c.Unacked())
		}
	}
}

// Nor is one in FIN-WAIT-2, by keepalives or window updates.
func TestOrphanInFinWait2Ends(t *testing.T) {
	s := newScripted(t)
	s.c.Close(s.now)
	s.drain()
	start := s.now
	for s.c.State() != StateClosed && s.now.Sub(start) < time.Hour {
		s.wnd++
		s.in(s.seg(0, s.c.snd.nxt, ""))
		s.drain()
		s.tick(s.now.Add(time.Second))
		s.drain()
	}
	if took := s.now.Sub(start); took > 2*time.Minute {
		t.Errorf("still %s after %v", s.c.State(), took)
	}
}
