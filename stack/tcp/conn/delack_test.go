package conn

import (
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/seqnum"
)

// interactive returns a connection whose user has been answering the peer, so
// that acknowledgements wait.
func interactive(t *testing.T) *scripted {
	s := newScripted(t)
	for range quickAcks {
		s.data(10)
		s.write(10)
		s.drain()
		s.now = s.now.Add(5 * time.Millisecond)
		s.in(s.seg(0, s.c.snd.nxt, ""))
		s.drain()
	}
	if s.c.delack.quick != 0 || !s.c.delack.interactive {
		t.Fatalf("not interactive: %+v", s.c.delack)
	}
	return s
}

// data is n bytes of the peer's, in order; it returns how many segments answer.
func (s *scripted) data(n int) int {
	g := s.seg(0, s.c.snd.nxt, string(make([]byte, n)))
	s.in(g)
	s.seq = s.seq.Add(seqnum.Size(n))
	return len(s.drain())
}

// An acknowledgement waits for company 40 ms at most.
// https://www.rfc-editor.org/rfc/rfc1122#page-96 ("less than 0.5 seconds"), Linux TCP_DELACK_MIN
func TestDelayedAcknowledgement(t *testing.T) {
	s := interactive(t)
	if n := s.data(10); n != 0 {
		t.Fatalf("%d segments answer at once", n)
	}
	begun := s.now
	if !s.tick(s.now.Add(time.Second)) || len(s.drain()) != 1 {
		t.Fatal("no acknowledgement")
	}
	if took := s.now.Sub(begun); took > 40*time.Millisecond {
		t.Errorf("it took %v", took)
	}
}

// It goes with data that the user writes meanwhile.
func TestDelayedAcknowledgementRides(t *testing.T) {
	s := interactive(t)
	s.data(10)
	s.write(10)
	if out := s.drain(); len(out) != 1 || out[0].Ack != s.c.rcv.nxt || out[0].DataLen() != 10 {
		t.Fatalf("%v", out)
	}
	for s.tick(s.now.Add(39 * time.Millisecond)) {
	}
	if out := s.drain(); len(out) != 0 {
		t.Errorf("another follows: %v", out)
	}
}

// "in a stream of full-sized segments there SHOULD be an ACK for at least every
// second segment". https://www.rfc-editor.org/rfc/rfc1122#page-97
func TestEverySecondFullSegmentIsAcknowledged(t *testing.T) {
	s := interactive(t)
	s.data(1448) // what a full segment is has to be learnt
	s.drain()
	s.tick(s.now.Add(40 * time.Millisecond))
	s.drain()
	s.write(10) // interactive again
	s.drain()
	s.in(s.seg(0, s.c.snd.nxt, ""))
	s.drain()
	for i := range 6 {
		s.c.delack.interactive, s.c.delack.quick = true, 0
		if got, want := s.data(1448), i%2; got != want {
			t.Fatalf("full segment %d draws %d acknowledgements, want %d", i+1, got, want)
		}
	}
}

// What comes out of order, what fills a gap, and what comes twice is answered
// at once. https://www.rfc-editor.org/rfc/rfc5681#section-4.2
func TestNoDelayForWhatIsUnusual(t *testing.T) {
	for _, tc := range []struct {
		name string
		do   func(s *scripted) int
	}{
		{"beyond a gap", func(s *scripted) int { s.seq += 100; return s.data(10) }},
		{"the gap is filled", func(s *scripted) int {
			s.seq += 100
			s.data(10)
			s.seq -= 110
			s.c.delack.quick, s.c.delack.interactive = 0, true
			return s.data(100)
		}},
		{"a duplicate", func(s *scripted) int { s.seq -= 10; return s.data(10) }},
		{"a long pause", func(s *scripted) int { s.now = s.now.Add(time.Minute); return s.data(10) }},
	} {
		s := interactive(t)
		if n := tc.do(s); n != 1 {
			t.Errorf("%s: %d segments answer at once, want 1", tc.name, n)
		}
	}
}
