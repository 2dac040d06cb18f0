//go:build linux

package main

import "time"

// Units of what is measured.
const (
	unitRate  = "Gbit/s"
	unitTime  = "us"
	unitCount = "1/s"
	unitSize  = "bytes"
)

// value is one figure of one measurement.
type value struct {
	workload string
	unit     string
	value    float64
}

// workload is something for a stack to do. Its names in the report begin with
// its own.
type workload struct {
	name    string
	once    bool            // what it measures does not vary
	slow    bool            // left out of a quick run
	stacks  map[string]bool // which can do it; nil: all
	measure func(p *pair, d time.Duration) ([]value, error)
}

var workloads = []*workload{
	{name: "receive", measure: bulk("receive", Traffic{Send: true})},
	{name: "send", measure: bulk("send", Traffic{Receive: true})},
	{name: "both", measure: bulk("both", Traffic{Send: true, Receive: true})},
	{name: "rr_1", measure: roundTrips("rr_1", 1)},
	{name: "rr_1024", measure: roundTrips("rr_1024", 1024)},
	{name: "crr", measure: connects("crr")},
	{name: "parallel_100", measure: bulk("parallel_100", Traffic{Send: true, Crowd: 100})},
	{name: "parallel_1000", measure: bulk("parallel_1000", Traffic{Send: true, Crowd: 1000})},
	{name: "freeze", stacks: map[string]bool{stackOurs: true, stackKernel: true}, measure: freeze},
	{name: "idle_10000", once: true, measure: idle("idle_10000", 10_000)},
	{name: "idle_100000", once: true, slow: true, stacks: netstacks, measure: idle("idle_100000", 100_000)},
}

// netstacks are those that take no files: a process may not be allowed a hundred
// thousand.
var netstacks = map[string]bool{stackOurs: true, stackGvisor: true, stackFdbased: true}

// roundTrips is requests of size bytes and answers of the same.
func roundTrips(name string, size int) func(*pair, time.Duration) ([]value, error) {
	return func(p *pair, d time.Duration) ([]value, error) {
		var l Latency
		if err := p.peer.call("RoundTrips", Job{Duration: d, Size: size}, &l); err != nil {
			return nil, err
		}
		return []value{
			{name + "_p50", unitTime, float64(l.P50.Nanoseconds()) / 1e3},
			{name + "_p99", unitTime, float64(l.P99.Nanoseconds()) / 1e3},
		}, nil
	}
}

// connects is connections made, used for a byte each way, and reset.
func connects(name string) func(*pair, time.Duration) ([]value, error) {
	return func(p *pair, d time.Duration) ([]value, error) {
		var n float64
		if err := p.peer.call("Connects", Job{Duration: d}, &n); err != nil {
			return nil, err
		}
		return []value{{name, unitCount, n}}, nil
	}
}
