//go:build linux

package main

import (
	"fmt"
	"image/color"
	"path/filepath"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
)

// chart is one picture: some workloads, a bar for each stack.
type chart struct {
	file, title string
	workloads   []string
}

var allCharts = []chart{
	{"throughput.png", "Throughput (more is better)", []string{"receive", "send", "both", "parallel_100", "parallel_1000"}},
	{"latency.png", "Round trip (less is better)", []string{"rr_1_p50", "rr_1_p99", "rr_1024_p50", "rr_1024_p99"}},
	{"connects.png", "Connections made and used (more is better)", []string{"crr"}},
	{"memory.png", "Memory of an idle connection (less is better)", []string{"idle_10000", "idle_10000_used", "idle_100000", "idle_100000_used"}},
}

// stackColours go with allStacks.
var stackColours = []color.Color{
	color.RGBA{0x1f, 0x77, 0xb4, 0xff}, color.RGBA{0xff, 0x7f, 0x0e, 0xff},
	color.RGBA{0xff, 0xbb, 0x78, 0xff}, color.RGBA{0x7f, 0x7f, 0x7f, 0xff},
}

// charts draws what was measured into PNG files.
func (r *report) charts(dir string) error {
	for _, c := range allCharts {
		if err := r.chart(c, dir); err != nil {
			return fmt.Errorf("%s: %w", c.file, err)
		}
	}
	return nil
}

func (r *report) chart(c chart, dir string) error {
	var names []string
	for _, w := range c.workloads {
		if _, ok := r.median(w, stackOurs); ok {
			names = append(names, w)
		}
	}
	if len(names) == 0 {
		return nil
	}
	p := plot.New()
	p.Title.Text = c.title
	p.Y.Label.Text = r.unit(names[0])
	p.Y.Min = 0
	p.Legend.Top = true
	const width = 16 * vg.Millimeter / 4
	for i, s := range allStacks {
		values := make(plotter.Values, len(names))
		for j, w := range names {
			values[j], _ = r.median(w, s)
		}
		bars, err := plotter.NewBarChart(values, width)
		if err != nil {
			return err
		}
		bars.Color = stackColours[i]
		bars.LineStyle.Width = 0
		bars.Offset = width * vg.Length(2*i-len(allStacks)+1) / 2
		p.Add(bars)
		p.Legend.Add(strings.ReplaceAll(s, "_", ", "), bars)
	}
	p.Y.Max *= 1.3 // room for the legend
	p.NominalX(names...)
	return p.Save(16*vg.Centimeter, 10*vg.Centimeter, filepath.Join(dir, c.file))
}
