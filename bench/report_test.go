//go:build linux

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// sample is a report of three rounds on two stacks.
func sample() *report {
	r := newReport()
	for i, v := range []float64{10, 30, 20} {
		r.add("receive", stackOurs, unitRate, v)
		r.add("receive", stackKernel, unitRate, 2*v)
		r.add("rr_1_p50", stackOurs, unitTime, v)
		r.add("rr_1_p50", stackFdbased, unitTime, float64(100+i))
	}
	return r
}

func TestMedian(t *testing.T) {
	for _, tt := range []struct {
		rounds []float64
		want   float64
	}{{[]float64{3}, 3}, {[]float64{9, 1}, 5}, {[]float64{5, 1, 9}, 5}, {[]float64{4, 1, 2, 9}, 3}} {
		if got := (&cell{rounds: tt.rounds}).median(); got != tt.want {
			t.Errorf("median of %v: %v, want %v", tt.rounds, got, tt.want)
		}
	}
}

func TestRatios(t *testing.T) {
	got := sample().ratios()
	if v := got["receive_vs_kernel"]; v != 0.5 {
		t.Errorf("receive_vs_kernel %v, want 0.5", v)
	}
	if v, want := got["rr_latency_vs_gvisor_fdbased"], 20.0/101; v != want {
		t.Errorf("rr_latency_vs_gvisor_fdbased %v, want %v", v, want)
	}
	if _, ok := got["crr_vs_kernel"]; ok {
		t.Error("a ratio of what was not measured")
	}
}

func TestVerdict(t *testing.T) {
	for _, tt := range []struct {
		q    ratio
		v    float64
		want string
	}{
		{ratio{want: 1.5}, 1.5, "reaches 1.50"},
		{ratio{want: 1.5}, 1.4, "misses 1.50"},
		{ratio{want: 0.4, most: true}, 0.4, "reaches 0.40"},
		{ratio{want: 0.4, most: true}, 0.5, "misses 0.40"},
		{ratio{}, 1, ""},
	} {
		if got := tt.q.verdict(tt.v); got != tt.want {
			t.Errorf("%+v with %v: %q, want %q", tt.q, tt.v, got, tt.want)
		}
	}
}

// TestReport looks at all that a run leaves behind.
func TestReport(t *testing.T) {
	dir := t.TempDir()
	var table strings.Builder
	if err := sample().write(&table, dir); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"receive", "kernel_veth", "receive_vs_kernel", "misses 0.90"} {
		if !strings.Contains(table.String(), want) {
			t.Errorf("no %q in the table:\n%s", want, table.String())
		}
	}
	b, err := os.ReadFile(filepath.Join(dir, "latest.json"))
	if err != nil {
		t.Fatal(err)
	}
	var res result
	if err := json.Unmarshal(b, &res); err != nil {
		t.Fatal(err)
	}
	if len(res.Results) != 4 || res.Ratios["receive_vs_kernel"] != 0.5 {
		t.Errorf("latest.json: %s", b)
	}
	if f := res.Results[0]; f.Workload != "receive" || f.Stack != stackOurs || f.Value != 20 || f.Unit != unitRate || len(f.Rounds) != 3 {
		t.Errorf("the first figure is %+v", f)
	}
	if _, err := os.Stat(filepath.Join(dir, "throughput.png")); err != nil {
		t.Error(err)
	}
}

// TestNames holds the names of ratios to be unique, and of what is measured.
func TestNames(t *testing.T) {
	seen := make(map[string]bool)
	for _, q := range ratios {
		if seen[q.name] {
			t.Errorf("%s is there twice", q.name)
		}
		seen[q.name] = true
	}
}
