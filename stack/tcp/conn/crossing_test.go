package conn

import (
	"testing"
	"time"
)

// Two SYNs that cross agree on just what both offer, in every mixture, and the
// connection works both ways, also where one of the answers is lost.
// https://www.rfc-editor.org/rfc/rfc9293#section-3.5-4 (figure 7)
func TestCrossingSYNsAgreeOnOptions(t *testing.T) {
	offer := func(c *Config, bits int) {
		c.Timestamps, c.SACK, c.WindowScaling, c.ECN = bits&1 != 0, bits&2 != 0, bits&4 != 0, bits&8 != 0
		c.RACK = c.SACK
	}
	for mine := range 16 {
		for theirs := range 16 {
			w := newWorld(t)
			ca, cb := testConfig(issA), testConfig(issB)
			offer(&ca, mine)
			offer(&cb, theirs)
			w.a.c.Connect(w.now, &ca)
			w.b.c.Connect(w.now, &cb)
			n := 0
			w.fate = func(from *host, _ *Segment) (time.Duration, int) {
				// The SYNs come through; the first answer is lost in some mixtures.
				if n++; n == 3 && (mine+theirs)%3 == 0 {
					return 0, 0
				}
				return 0, 1
			}
			both := func() bool { return w.a.c.State() == StateEstablished && w.b.c.State() == StateEstablished }
			if !w.run(10*time.Second, both) {
				t.Fatalf("%04b and %04b: %s", mine, theirs, w.states())
			}
			agreed := mine & theirs
			for _, h := range []*host{w.a, w.b} {
				i := h.c.Info(w.now)
				if i.Timestamps != (agreed&1 != 0) || i.SACK != (agreed&2 != 0) || i.WindowScaling != (agreed&4 != 0) || i.ECN != (agreed&8 != 0) {
					t.Errorf("%04b and %04b: %s has timestamps %v, SACK %v, scaling %v, ECN %v", mine, theirs, h.name, i.Timestamps, i.SACK, i.WindowScaling, i.ECN)
				}
				if s := i.SndWScale; agreed&4 == 0 && s != 0 {
					t.Errorf("%04b and %04b: %s scales windows by %d", mine, theirs, h.name, s)
				}
			}
			w.pump(w.a, noise(100_000, 1), time.Minute)
			w.pump(w.b, noise(100_000, 2), time.Minute)
		}
	}
}
