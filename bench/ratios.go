//go:build linux

package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
)

// ratio compares two figures: the first divided by the second.
type ratio struct {
	name   string
	of, to [2]string // workload and stack
	want   float64   // the target; 0: none
	most   bool      // the ratio is to be at most want
}

// comparison is a ratio of ours to another stack's.
func comparison(name, workload, stack string, want float64, most bool) ratio {
	return ratio{name: name, of: [2]string{workload, stackOurs}, to: [2]string{workload, stack}, want: want, most: most}
}

// ratios are the figures that matter. Rates are to be at least, times and sizes
// at most, what the last column of the table says.
var ratios = []ratio{
	comparison("receive_vs_gvisor_same_link", "receive", stackGvisor, 1.5, false),
	comparison("receive_vs_gvisor_fdbased", "receive", stackFdbased, 0, false),
	comparison("receive_vs_kernel", "receive", stackKernel, 0.9, false),
	comparison("send_vs_gvisor_same_link", "send", stackGvisor, 1.1, false),
	comparison("send_vs_gvisor_fdbased", "send", stackFdbased, 0, false),
	comparison("send_vs_kernel", "send", stackKernel, 1.0, false),
	comparison("both_vs_gvisor_same_link", "both", stackGvisor, 0, false),
	comparison("both_vs_kernel", "both", stackKernel, 0, false),
	comparison("rr_latency_vs_gvisor_fdbased", "rr_1_p50", stackFdbased, 0.4, true),
	comparison("rr_latency_vs_gvisor_same_link", "rr_1_p50", stackGvisor, 0, true),
	comparison("rr_latency_vs_kernel", "rr_1_p50", stackKernel, 1.5, true),
	{name: "rr_p99_vs_gvisor_p50", of: [2]string{"rr_1_p99", stackOurs}, to: [2]string{"rr_1_p50", stackFdbased}, want: 1, most: true},
	comparison("rr_1024_latency_vs_gvisor_fdbased", "rr_1024_p50", stackFdbased, 0, true),
	comparison("rr_1024_latency_vs_kernel", "rr_1024_p50", stackKernel, 0, true),
	comparison("crr_vs_gvisor_same_link", "crr", stackGvisor, 2, false),
	comparison("crr_vs_kernel", "crr", stackKernel, 0.9, false),
	{name: "parallel_100_vs_one", of: [2]string{"parallel_100", stackOurs}, to: [2]string{"receive", stackOurs}},
	{name: "parallel_1000_vs_one", of: [2]string{"parallel_1000", stackOurs}, to: [2]string{"receive", stackOurs}, want: 0.8},
	comparison("parallel_1000_vs_gvisor_same_link", "parallel_1000", stackGvisor, 0, false),
	comparison("parallel_1000_vs_kernel", "parallel_1000", stackKernel, 0, false),
	comparison("idle_bytes_vs_gvisor", "idle_10000", stackGvisor, 0.45, true),
	comparison("idle_used_bytes_vs_gvisor", "idle_10000_used", stackGvisor, 0.45, true),
	comparison("idle_100000_bytes_vs_gvisor", "idle_100000", stackGvisor, 0.45, true),
	comparison("freeze_thaw_vs_kernel", "freeze_thaw", stackKernel, 0, true),
	comparison("checkpoint_restore_vs_kernel", "checkpoint_restore", stackKernel, 0, true),
	{name: "scoreboard_10000_holes_vs_10", of: [2]string{"scoreboard_holes_10000", stackOurs}, to: [2]string{"scoreboard_holes_10", stackOurs}, want: 2, most: true},
	{name: "segment_cost_100000_conns_vs_10", of: [2]string{"endpoint_echo_conns_100000", stackOurs}, to: [2]string{"endpoint_echo_conns_10", stackOurs}, most: true},
}

// ratios computes those whose figures were measured.
func (r *report) ratios() map[string]float64 {
	m := make(map[string]float64)
	for _, q := range ratios {
		a, ok := r.median(q.of[0], q.of[1])
		b, ok2 := r.median(q.to[0], q.to[1])
		if ok && ok2 && b != 0 {
			m[q.name] = a / b
		}
	}
	return m
}

// table prints the figures, a workload a line and a stack a column, and then
// the ratios.
func (r *report) table(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "workload\tunit\t")
	for _, s := range allStacks {
		fmt.Fprintf(t, "%s\t", s)
	}
	fmt.Fprint(t, "\n")
	for _, name := range r.workloads() {
		fmt.Fprintf(t, "%s\t%s\t", name, r.unit(name))
		for _, s := range allStacks {
			if v, ok := r.median(name, s); ok {
				fmt.Fprintf(t, "%s\t", number(v))
			} else {
				fmt.Fprint(t, "-\t")
			}
		}
		fmt.Fprint(t, "\n")
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	computed := r.ratios()
	for _, q := range ratios {
		v, ok := computed[q.name]
		if !ok {
			continue
		}
		fmt.Fprintf(t, "%s\t%.2f\t%s\t\n", q.name, v, q.verdict(v))
	}
	return t.Flush()
}

// verdict words how the ratio compares with its target.
func (q *ratio) verdict(v float64) string {
	switch {
	case q.want == 0:
		return ""
	case q.most && v <= q.want, !q.most && v >= q.want:
		return fmt.Sprintf("reaches %.2f", q.want)
	}
	return fmt.Sprintf("misses %.2f", q.want)
}

// workloads are the names of what was measured, in order.
func (r *report) workloads() (names []string) {
	for _, c := range r.cells {
		if !slices.Contains(names, c.workload) {
			names = append(names, c.workload)
		}
	}
	return names
}

func (r *report) unit(workload string) string {
	for _, c := range r.cells {
		if c.workload == workload {
			return c.unit
		}
	}
	return ""
}
