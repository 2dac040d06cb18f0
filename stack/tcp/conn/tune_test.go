package conn

import (
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/seqnum"
)

// Fault 18 of other stacks: a long transfer over a long path is held to the
// buffer it began with, divided by the round trip.
func TestBuffersGrowOnALongPath(t *testing.T) {
	for _, tc := range []struct {
		name string
		tune func(a, b *Config)
		grow bool
	}{
		{"tuned", func(a, b *Config) { b.RcvBufMax, a.SndBufMax = 8<<20, 8<<20 }, true},
		{"tuned, without timestamps", func(a, b *Config) {
			b.RcvBufMax, a.SndBufMax, a.Timestamps = 8<<20, 8<<20, false
		}, true},
		{"fixed", func(a, b *Config) {}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			w.delay = 50 * time.Millisecond
			ca, cb := testConfig(issA), testConfig(issB)
			cb.RcvBuf, ca.SndBuf = 64<<10, 64<<10
			tc.tune(&ca, &cb)
			w.open(ca, cb)
			start := w.now
			w.pump(w.a, noise(10<<20, 1), 10*time.Minute)
			rate := float64(10<<20) / w.now.Sub(start).Seconds()
			fixed := float64(64<<10) / 0.1
			rcv, _ := w.b.c.Buffers()
			_, snd := w.a.c.Buffers()
			t.Logf("%.0f bytes/s; buffers %d, %d", rate, rcv, snd)
			if tc.grow && (rate < 5*fixed || rcv <= 64<<10 || snd <= 64<<10) {
				t.Errorf("%.0f bytes/s with buffers of %d and %d; a fixed 64 KiB gives %.0f", rate, rcv, snd, fixed)
			}
			if !tc.grow && (rate > 1.2*fixed || rcv != 64<<10 || snd != 64<<10) {
				t.Errorf("%.0f bytes/s with buffers of %d and %d that nobody may change", rate, rcv, snd)
			}
		})
	}
}

// A reader that takes little leaves the buffer as it is.
func TestBufferOfASlowReaderStays(t *testing.T) {
	w := established(t, func(a, b *Config) { b.RcvBuf, b.RcvBufMax = 64<<10, 8<<20 })
	data := noise(4<<20, 1)
	w.run(20*time.Second, func() bool {
		data = data[w.a.write(w, data):]
		return false
	})
	if rcv, _ := w.b.c.Buffers(); rcv != 64<<10 {
		t.Errorf("receive buffer grew to %d though nobody read", rcv)
	}
}

// What tcp_info says of where the time went.
func TestActivityIsClocked(t *testing.T) {
	w := established(t, func(a, b *Config) { b.RcvBuf = 10_000 })
	start := w.now
	w.a.write(w, noise(100_000, 1))
	w.run(10*time.Second, nil)
	i := w.a.c.Info(w.now)
	if limited := i.WindowLimited; limited < 9*time.Second || i.Busy < limited || i.Busy > w.now.Sub(start) {
		t.Errorf("10 s against a closed window: busy %v, limited by it %v", i.Busy, limited)
	}
	idle := i.Busy
	w.run(time.Minute, func() bool { w.b.read(w); return w.a.c.Unacked() == 0 })
	before := w.a.c.Info(w.now).Busy
	w.run(time.Hour, nil)
	if after := w.a.c.Info(w.now).Busy; after != before || after < idle {
		t.Errorf("busy for %v more while idle", after-before)
	}
}

// What gathered while the user did not read does not enlarge the buffer; what
// it reads from then on, more in each round trip, does.
func TestBufferFollowsThePaceOfReading(t *testing.T) {
	s := newScripted(t, func(c *Config) { c.RcvBuf, c.RcvBufMax = 40_000, 400_000 })
	round := func(n int) int {
		s.now = s.now.Add(20 * time.Millisecond)
		for n > 0 {
			k := min(n, 1448)
			s.in(s.seg(0, s.c.snd.nxt, string(make([]byte, k))))
			s.seq = s.seq.Add(seqnum.Size(k))
			s.drain()
			n -= k
		}
		s.c.Read(s.now, discard{}, 1<<20, false)
		s.drain()
		max, _ := s.c.Buffers()
		return max
	}
	if got := round(36_000); got != 40_000 {
		t.Errorf("buffer of 40000 is %d after the user first read", got)
	}
	last := 40_000
	for _, n := range []int{20_000, 40_000, 80_000} {
		got := round(n)
		if got < 4*n || got < last {
			t.Errorf("buffer is %d after %d bytes were read in a round trip, twice what was before", got, n)
		}
		last = got
	}
	if got := round(160_000); got != 400_000 {
		t.Errorf("buffer is %d, its maximum 400000", got)
	}
}
