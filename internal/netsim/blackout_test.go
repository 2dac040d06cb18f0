package netsim_test

import (
	"fmt"
	"time"
)

// blackoutTable is how long after the end of a blackout of one second data
// comes again at all, and at nine tenths of what the link can carry, over half
// a second. The link has one bandwidth-delay product of buffer.
func blackoutTable() table {
	t := table{
		file:   "blackout.csv",
		header: []string{"rtt_ms", "buffer_bdp", "cc", "ours_first_ms", "gvisor_first_ms", "ours_full_ms", "gvisor_full_ms", "link_mbps"},
	}
	for _, trip := range trips {
		for _, cc := range []string{"reno", "cubic"} {
			p := path{mbps: trip.mbps, rtt: time.Duration(trip.rtt * float64(time.Millisecond)), buffer: 1}
			t.rows = append(t.rows, row{
				key:     []string{number(trip.rtt), "1", cc},
				measure: func(k kind) ([]float64, error) { return recovery(k, cc, p) },
				tail:    []string{number(p.mbps)},
			})
		}
	}
	return t
}

// recovery returns both times in milliseconds. The second is watchFor at most.
func recovery(k kind, cc string, p path) ([]float64, error) {
	const (
		before, dark  = 20 * time.Second, time.Second
		step, watched = 10 * time.Millisecond, 500 * time.Millisecond
		watchFor      = 30 * time.Second
	)
	w, err := newArena(k, cc, p, cellSeed)
	if err != nil {
		return nil, err
	}
	defer w.Close()
	f, err := w.bulk(5001)
	if err != nil {
		return nil, err
	}
	w.Run(before)
	w.link.Blackout(dark)
	w.Run(dark)
	had, lit := f.Received(), w.Now()
	if !w.RunUntil(watchFor, func() bool { return f.Received() > had || f.Err() != nil }) || f.Err() != nil {
		return nil, fmt.Errorf("nothing in %v after the blackout: %w", w.Now()-lit, f.Err())
	}
	first := w.Now() - lit

	enough := int64(0.9 * p.mbps * 1e6 / 8 * watched.Seconds() * segment / 1500)
	window := []int64{f.Received()} // what had been received, step by step
	for t := first; t < watchFor; t += step {
		w.Run(step)
		window = append(window, f.Received())
		if n := len(window); n > int(watched/step) {
			window = window[n-int(watched/step)-1:]
			if window[len(window)-1]-window[0] >= enough {
				return []float64{ms1(first), ms1(t + step - watched)}, f.Err()
			}
		}
	}
	return []float64{ms1(first), ms1(watchFor)}, f.Err()
}

func ms1(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
