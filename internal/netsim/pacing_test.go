package netsim_test

import (
	"math"
	"testing"
	"time"

	"github.com/tcprepair/ustack/internal/netsim"
	"github.com/tcprepair/ustack/stack/tcp"
)

// paced is our TCP with pacing.
var paced = kind{name: "paced", factory: tcp.NewProtocol, setup: func(h *netsim.Host) error {
	t := tcp.TuningOf(h.Stack())
	t.Pacing = true
	return tcp.SetTuning(h.Stack(), t)
}}

// Where the buffer is a quarter of the bandwidth-delay product, slow start's
// bursts overflow it long before the path is full. Paced, a transfer that gets
// that far is over sooner in every cell, by a tenth at least by geometric mean.
// (In the long run acknowledgements keep a single flow apart without it.)
func TestPacingSparesShallowBuffers(t *testing.T) {
	var logs float64
	n := 0
	for _, size := range []int64{500_000, 2_000_000} {
		for _, trip := range trips {
			for _, cc := range []string{"reno", "cubic"} {
				p := path{mbps: trip.mbps, rtt: time.Duration(trip.rtt * float64(time.Millisecond)), buffer: 0.25}
				without, with := completion(t, ours, cc, p, size), completion(t, paced, cc, p, size)
				t.Logf("%d bytes, %v ms, %s: %v, paced %v", size, trip.rtt, cc, without.Round(time.Millisecond), with.Round(time.Millisecond))
				if with > without {
					t.Errorf("%d bytes, %v ms, %s: paced it takes %v rather than %v", size, trip.rtt, cc, with, without)
				}
				logs += math.Log(float64(with) / float64(without))
				n++
			}
		}
	}
	if mean := math.Exp(logs / float64(n)); mean > 0.9 {
		t.Errorf("paced it takes %.3f of the time by geometric mean, want at most 0.9", mean)
	} else {
		t.Logf("paced it takes %.3f of the time by geometric mean", mean)
	}
}

// completion is how long a transfer takes, its handshake included.
func completion(t *testing.T, k kind, cc string, p path, size int64) time.Duration {
	t.Helper()
	w, err := newArena(k, cc, p, cellSeed)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	f, err := w.StartBulk(w.link, w.a, w.b, 5001, size)
	if err != nil {
		t.Fatal(err)
	}
	if !w.RunUntil(time.Hour, func() bool { return f.Done() || f.Err() != nil }) || f.Err() != nil {
		t.Fatalf("%d bytes of %d: %v", f.Received(), size, f.Err())
	}
	return w.Now()
}
