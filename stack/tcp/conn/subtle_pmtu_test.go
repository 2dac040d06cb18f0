package conn

import (
	"testing"
	"time"
)

// After segments were cut smaller, what is missing goes in order: the first
// hole first, or a cumulative acknowledgement never comes.
func TestSubtleOrderAfterBlackHole(t *testing.T) {
	s := newScripted(t, func(c *Config) { c.SACK, c.Timestamps = false, false })
	s.write(6 * 1460)
	s.drain()
	una := s.c.snd.una
	var out []Segment
	for range 20 {
		if !s.tick(s.now.Add(time.Hour)) {
			t.Fatal("no timer")
		}
		if out = s.drain(); len(out) > 0 && out[0].DataLen() < 1460 {
			break
		}
	}
	got := una
	for round := range 3 {
		for _, o := range out {
			if o.Seq != got {
				t.Fatalf("round %d: sent %d, the first missing is %d", round, o.Seq-una, got-una)
			}
			got = o.End()
		}
		s.now = s.now.Add(10 * time.Millisecond)
		s.in(s.seg(0, got, ""))
		out = s.drain()
	}
}

func TestSubtleOrderAfterPathMTU(t *testing.T) {
	s := newScripted(t)
	s.write(6 * 1448)
	s.drain()
	una := s.c.snd.una
	s.c.PathMTU(s.now, una, 1000)
	got := una
	for _, o := range s.drain() {
		if o.Seq != got {
			t.Fatalf("sent %d, the first missing is %d", o.Seq-una, got-una)
		}
		got = o.End()
	}
}
