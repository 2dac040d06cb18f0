//go:build linux

package main

import (
	"flag"
	"fmt"
	"testing"
	"time"

	"github.com/tcprepair/ustack/bench/inmemory"
)

// Units of the measurements in memory.
const (
	unitNanos  = "ns/op"
	unitAllocs = "allocs/op"
)

// measureInMemory runs the benchmarks that need no link.
func measureInMemory(o *options, r *report) error {
	testing.Init()
	length := 500 * time.Millisecond
	if o.quick {
		length = 10 * time.Millisecond
	}
	if err := flag.Set("test.benchtime", length.String()); err != nil {
		return err
	}
	for _, m := range inmemory.All {
		if !o.only.MatchString(m.Name) || o.quick && m.Slow {
			continue
		}
		res := testing.Benchmark(m.Run)
		if res.N == 0 {
			return fmt.Errorf("%s failed", m.Name)
		}
		r.add(m.Name, stackOurs, unitNanos, float64(res.T.Nanoseconds())/float64(res.N))
		r.add(m.Name+"_allocs", stackOurs, unitAllocs, float64(res.AllocsPerOp()))
	}
	return nil
}
