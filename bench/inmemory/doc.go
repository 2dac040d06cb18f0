// Package inmemory measures the connection without links, system calls or other
// goroutines: what a segment costs in time and allocations.
package inmemory

import "testing"

// Benchmark is one measurement.
type Benchmark struct {
	Name string
	Run  func(*testing.B)
	Slow bool // takes long to set up
}

// All are the measurements, in the order of the report. An operation is a
// segment unless its name says otherwise.
var All = []Benchmark{
	{Name: "segment_in", Run: SegmentIn},
	{Name: "segment_out", Run: SegmentOut},
	{Name: "burst_out", Run: BurstOut},
	{Name: "reassembly_holes_10", Run: reassembly(10)},
	{Name: "reassembly_holes_1000", Run: reassembly(1000)},
	{Name: "reassembly_holes_10000", Run: reassembly(10_000)},
	{Name: "scoreboard_holes_10", Run: scoreboard(10)},
	{Name: "scoreboard_holes_1000", Run: scoreboard(1000)},
	{Name: "scoreboard_holes_10000", Run: scoreboard(10_000)},
	{Name: "endpoint_echo_conns_10", Run: EndpointEcho(10)},
	{Name: "endpoint_echo_conns_1000", Run: EndpointEcho(1000)},
	{Name: "endpoint_echo_conns_100000", Run: EndpointEcho(100_000), Slow: true},
}
