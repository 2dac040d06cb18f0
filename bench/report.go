//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cell is one figure of one stack: the rounds' values.
type cell struct {
	workload, stack, unit string
	rounds                []float64
}

// median is the middle of the rounds.
func (c *cell) median() float64 {
	s := slices.Sorted(slices.Values(c.rounds))
	n := len(s)
	if n%2 == 1 {
		return s[n/2]
	}
	return (s[n/2-1] + s[n/2]) / 2
}

// report collects what is measured.
type report struct {
	cells []*cell // in the order in which they first came
	index map[[2]string]*cell
	start time.Time
}

func newReport() *report {
	return &report{index: make(map[[2]string]*cell), start: time.Now()}
}

// add adds the value of one round.
func (r *report) add(workload, stack, unit string, v float64) {
	key := [2]string{workload, stack}
	c := r.index[key]
	if c == nil {
		c = &cell{workload: workload, stack: stack, unit: unit}
		r.index[key] = c
		r.cells = append(r.cells, c)
	}
	c.rounds = append(c.rounds, v)
}

// median is the median of a cell, and whether it was measured.
func (r *report) median(workload, stack string) (float64, bool) {
	c := r.index[[2]string{workload, stack}]
	if c == nil {
		return 0, false
	}
	return c.median(), true
}

// result is latest.json.
type result struct {
	Machine string             `json:"machine"`
	When    string             `json:"when"`
	Results []figure           `json:"results"`
	Ratios  map[string]float64 `json:"ratios"`
}

// figure is one measurement in latest.json: the median, and all rounds.
type figure struct {
	Workload string    `json:"workload"`
	Stack    string    `json:"stack"`
	Value    float64   `json:"value"`
	Unit     string    `json:"unit"`
	Rounds   []float64 `json:"rounds"`
}

// write prints the table and writes latest.json and the charts to a directory.
func (r *report) write(w io.Writer, dir string) error {
	res := result{Machine: machine(), When: r.start.UTC().Format(time.RFC3339), Ratios: r.ratios()}
	for _, c := range r.cells {
		res.Results = append(res.Results, figure{c.workload, c.stack, c.median(), c.unit, c.rounds})
	}
	fmt.Fprintf(w, "%s\n\n", res.Machine)
	if err := r.table(w); err != nil {
		return err
	}
	b, err := json.MarshalIndent(res, "", "\t")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "latest.json"), append(b, '\n'), 0o644); err != nil {
		return err
	}
	return r.charts(dir)
}

// machine describes where this ran.
func machine() string {
	var u unix.Utsname
	_ = unix.Uname(&u)
	return fmt.Sprintf("%s %s, %s, %d processors, %s, kernel sockets with %s", unix.ByteSliceToString(u.Sysname[:]),
		unix.ByteSliceToString(u.Release[:]), runtime.GOARCH, runtime.NumCPU(), runtime.Version(), congestion())
}

// congestion is the congestion control that the kernel's sockets use.
func congestion() string {
	if name := os.Getenv(congestionVariable); name != "" {
		return name
	}
	b, err := os.ReadFile("/proc/sys/net/ipv4/tcp_congestion_control")
	if err != nil {
		return "unknown congestion control"
	}
	return strings.TrimSpace(string(b))
}
