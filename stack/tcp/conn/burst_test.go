package conn

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/seqnum"

	"github.com/tcprepair/ustack/stack/tcp/cc"
)

// What Linux sends in one piece depends on the congestion window, on the path
// and on the peer's window; the expectations are tcp_tso_segs's by hand.
func TestLinuxSegments(t *testing.T) {
	for _, tt := range []struct {
		name       string
		cwnd       int64 // segments
		srtt       time.Duration
		wnd        int // segments
		leastBurst int
		want       int
	}{
		{"half of the congestion window", 10, time.Millisecond, 1000, 0, 5},
		{"a window of one", 1, time.Millisecond, 1000, 0, 1},
		{"half of the peer's window", 100, time.Millisecond, 20, 0, 10},
		{"a peer's window of one", 100, time.Millisecond, 1, 0, 1},
		{"a slow path", 10, 100 * time.Millisecond, 1000, 0, 2},
		{"a slow path, by the user", 30, 100 * time.Millisecond, 1000, 10, 10},
		// 400 segments in 100 ms, and twice that in slow start: 7.8 in 1/1024 s.
		{"a fast path that is long", 400, 100 * time.Millisecond, 1000, 0, 7},
	} {
		w := established(t, func(a, _ *Config) { a.MSS, a.LikeLinux, a.GSOMax, a.LeastBurst = 1012, true, 65536, tt.leastBurst })
		c := &w.a.c
		size := c.segmentSize()
		c.rtt.smoothed, c.rtt.min = tt.srtt, tt.srtt
		c.snd.maxWnd = seqnum.Size(tt.wnd * size)
		var err error
		c.cc, err = cc.Restore(cc.State{Window: tt.cwnd * int64(size), Threshold: math.MaxInt64}, int64(w.now), size)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.maxBurst(seqnum.Size(size)); got != seqnum.Size(tt.want*size) {
			t.Errorf("%s: %d bytes, want %d segments of %d", tt.name, got, tt.want, size)
		}
	}
}

// A Write that says that more follows asks the peer for nothing; the next, which
// does not, asks for both.
func TestPushOfMore(t *testing.T) {
	w := established(t, func(a, _ *Config) { a.GSOMax = 0 })
	var got []string
	for _, more := range []bool{true, false} {
		if n, err := w.a.c.Write(w.now, bytes.NewReader(noise(2000, 1)), 2000, more); err != nil || n != 2000 {
			t.Fatal(n, err)
		}
		var out Segment
		for w.a.c.Output(w.now, &out) {
			got = append(got, fmt.Sprintf("%d %t", out.DataLen(), out.Has(header.TCPFlagPsh)))
			out.Release()
		}
	}
	// 1448 are a full segment; the 552 beyond it wait for the second Write.
	if want := []string{"1448 false", "1448 false", "1104 true"}; !slices.Equal(got, want) {
		t.Errorf("segments %q, want %q", got, want)
	}
}

// What is sent again asks for delivery if what was written ends there.
func TestPushAgain(t *testing.T) {
	w := established(t, func(a, _ *Config) { a.MSS, a.LikeLinux = 1012, true })
	w.fate = func(*host, *Segment) (time.Duration, int) { return 0, 0 }
	w.a.write(w, noise(4000, 1))
	w.settle(w.a)
	pushed := make(map[seqnum.Size]bool)
	w.wiretap = func(from *host, s *Segment) {
		if from == w.a && s.DataLen() > 0 {
			pushed[w.a.c.snd.iss.Size(s.Seq)] = s.Has(header.TCPFlagPsh)
		}
	}
	w.run(time.Second, nil)
	if pushed[1] || !pushed[3001] || len(pushed) != 2 {
		t.Errorf("sent again, by offset: %v; want the first and the last, and PSH on that", pushed)
	}
}
