package netsim_test

import (
	"math"
	"time"

	"github.com/tcprepair/ustack/internal/netsim"
)

// fairnessTable is Jain's index of flows that share a bottleneck, and what they
// deliver together: 10 Mbit/s, 100 ms, one bandwidth-delay product of buffer.
// They begin half a second apart.
func fairnessTable() table {
	t := table{
		file:   "fairness.csv",
		header: []string{"flows", "rtt_ms", "buffer_bdp", "cc", "ours_jain", "gvisor_jain", "ours_mbps", "gvisor_mbps", "link_mbps"},
		digits: 3,
	}
	p := path{mbps: 10, rtt: 100 * time.Millisecond, buffer: 1}
	for _, flows := range []int{2, 4, 16} {
		for _, cc := range []string{"reno", "cubic"} {
			t.rows = append(t.rows, row{
				key:     []string{number(float64(flows)), "100", "1", cc},
				measure: func(k kind) ([]float64, error) { return fairness(k, cc, p, flows) },
				tail:    []string{number(p.mbps)},
			})
		}
	}
	return t
}

func fairness(k kind, cc string, p path, flows int) ([]float64, error) {
	const apart, settle, measured = 500 * time.Millisecond, 20 * time.Second, 100 * time.Second
	w, err := newArena(k, cc, p, cellSeed)
	if err != nil {
		return nil, err
	}
	defer w.Close()
	var all []*netsim.Bulk
	for i := range flows {
		f, err := w.bulk(uint16(5001 + i))
		if err != nil {
			return nil, err
		}
		all = append(all, f)
		w.Run(apart)
	}
	w.Run(settle)
	got := make([]float64, flows)
	for i, f := range all {
		got[i] = -float64(f.Received())
	}
	w.Run(measured)
	sum := 0.0
	for i, f := range all {
		if f.Err() != nil {
			return nil, f.Err()
		}
		got[i] += float64(f.Received())
		sum += got[i]
	}
	return []float64{jain(got), sum * 8 / measured.Seconds() / 1e6}, nil
}

// jain is Jain's fairness index: 1 if all shares are the same, 1/n if one has
// everything.
func jain(shares []float64) float64 {
	sum, squares := 0.0, 0.0
	for _, x := range shares {
		sum += x
		squares += x * x
	}
	if squares == 0 {
		return math.NaN()
	}
	return sum * sum / (float64(len(shares)) * squares)
}
