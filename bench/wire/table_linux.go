package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// plan is what to measure.
type plan struct {
	runs, beside     int
	settle, measured time.Duration
	seed             uint64
	want             float64
	only             string
	verbose          bool
}

// cells lists the paths in the table's order.
func cells() (list []cell) {
	for _, loss := range []float64{0.1, 1, 3} {
		for _, rtt := range []time.Duration{20 * time.Millisecond, 100 * time.Millisecond} {
			list = append(list, cell{loss, rtt})
		}
	}
	return list
}

func (c cell) String() string { return fmt.Sprintf("%v,%d", c.loss, c.rtt.Milliseconds()) }

// run measures, and returns the table and the cells that have less than wanted.
func (p plan) run(log io.Writer) (table string, short []string, err error) {
	list := slices.DeleteFunc(cells(), func(c cell) bool { return p.only != "" && c.String() != p.only })
	if len(list) == 0 || p.runs < 1 || p.beside < 1 {
		return "", nil, fmt.Errorf("nothing to measure: cell %q, %d runs, %d beside each other", p.only, p.runs, p.beside)
	}
	var b strings.Builder
	fmt.Fprintln(&b, "| loss | round trip | kernel to kernel | ours to kernel | of it | kernel to ours | of it |")
	fmt.Fprintln(&b, "|---|---|---|---|---|---|---|")
	for group := range slices.Chunk(list, p.beside) {
		all := make([][numPairings]float64, len(group))
		if err := p.measure(log, group, all); err != nil {
			return "", nil, err
		}
		for i, c := range group {
			m := all[i]
			fmt.Fprintf(&b, "| %v%% | %d ms | %.2f Mbit/s | %.2f | %.2f | %.2f | %.2f |\n", c.loss, c.rtt.Milliseconds(),
				m[kernelToKernel], m[oursToKernel], m[oursToKernel]/m[kernelToKernel], m[kernelToOurs], m[kernelToOurs]/m[kernelToKernel])
			for _, k := range []pairing{oursToKernel, kernelToOurs} {
				if m[k] < p.want*m[kernelToKernel] {
					short = append(short, c.String()+" "+k.String())
				}
			}
		}
	}
	return b.String(), short, nil
}

// measure runs the cells of a group beside each other, all pairings of a run at
// the same time, and fills in the medians.
func (p plan) measure(log io.Writer, group []cell, medians [][numPairings]float64) error {
	var (
		mu    sync.Mutex
		first error
		runs  = make([][numPairings][]float64, len(group))
	)
	for run := range p.runs {
		seed := p.seed + uint64(run)*2 // a wire takes one for each direction
		var flows sync.WaitGroup
		for i, c := range group {
			for k := range numPairings {
				flows.Go(func() {
					r, err := c.measure(k, seed, p.settle, p.measured)
					mu.Lock()
					defer mu.Unlock()
					if err != nil && first == nil {
						first = fmt.Errorf("%s, %s: %w", c, k, err)
					}
					runs[i][k] = append(runs[i][k], r.mbps)
					if p.verbose {
						fmt.Fprintf(log, "%s, %s, seed %d: %.2f Mbit/s; %s\n", c, k, seed, r.mbps, r.detail)
					}
				})
			}
		}
		flows.Wait()
		if first != nil {
			return first
		}
	}
	for i := range group {
		for k := range numPairings {
			slices.Sort(runs[i][k])
			medians[i][k] = runs[i][k][p.runs/2]
		}
	}
	return nil
}

// heading begins the section that the table belongs to.
const heading = "## Over an impaired wire\n"

// section is a file cut at the table of our section.
type section struct{ before, after string }

func readSection(file string) (s section, err error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return s, err
	}
	before, rest, ok := strings.Cut(string(b), heading)
	if !ok {
		return s, fmt.Errorf("%s has no section %q", file, strings.TrimSpace(heading))
	}
	begin := strings.Index(rest, "\n| ")
	if begin < 0 {
		return s, fmt.Errorf("%s: the section %q has no table", file, strings.TrimSpace(heading))
	}
	begin++
	end := begin
	for strings.HasPrefix(rest[end:], "|") {
		n := strings.IndexByte(rest[end:], '\n')
		if n < 0 {
			end = len(rest)
			break
		}
		end += n + 1
	}
	return section{before + heading + rest[:begin], rest[end:]}, nil
}

// writeSection replaces the table of the section. The file is never half
// written.
func writeSection(file, table string) error {
	s, err := readSection(file)
	if err != nil {
		return err
	}
	next := file + ".new"
	if err := os.WriteFile(next, []byte(s.before+table+s.after), 0o644); err != nil {
		os.Remove(next)
		return err
	}
	return os.Rename(next, file)
}
