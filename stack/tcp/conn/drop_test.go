package conn

import (
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/seqnum"
)

// The reasons that no cell of the matrix meets.
func TestRareDropReasons(t *testing.T) {
	at := func(s *scripted, off, n int) *Segment {
		g := s.seg(0, s.c.snd.nxt, string(make([]byte, n)))
		g.Seq = g.Seq.Add(seqnum.Size(off))
		return g
	}
	for _, tc := range []struct {
		do   func(s *scripted) DropReason
		want DropReason
	}{
		{func(s *scripted) DropReason {
			s.in(at(s, 1000, 500))
			return s.in(at(s, 1100, 200)) // all of it is held already
		}, DropOfoMerge},
		{func(s *scripted) DropReason {
			for i := range 10_000 {
				if v := s.in(at(s, 100+2*i, 1)); v != NotDropped {
					return v // single bytes far apart cost more than the buffer
				}
			}
			return NotDropped
		}, DropOfoQueuePrune},
		{func(s *scripted) DropReason {
			s.c.Abort(s.now)
			s.drain()
			return s.in(s.seg(0, s.c.snd.nxt, "late"))
		}, DropClosed},
		{func(s *scripted) DropReason {
			g := s.seg(0, s.c.snd.nxt, "no ACK")
			g.Flags = header.TCPFlagPsh
			return s.in(g)
		}, DropTCPFlags},
	} {
		s := newScripted(t, func(c *Config) { c.RcvBuf = 64 << 10 })
		if got := tc.do(s); got != tc.want {
			t.Errorf("%s, want %s", got, tc.want)
		}
		if s.c.Drops()[tc.want] == 0 {
			t.Errorf("%s is not counted", tc.want)
		}
	}
	if v := new(Conn).Input(Time(time.Hour), &Segment{Flags: header.TCPFlagAck}); v != DropClosed {
		t.Errorf("a connection that has not begun: %s", v)
	}
}
