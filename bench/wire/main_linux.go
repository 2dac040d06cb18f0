// Command wire measures goodput over a wire that loses packets: between ours
// and the kernel, in either direction, beside that between two kernels on the
// same path at the same time. All use CUBIC.
//
// It needs root, or a kernel that lets anyone make a user namespace.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/tcprepair/ustack/internal/netlab"
)

func main() {
	var p plan
	flag.IntVar(&p.runs, "runs", 5, "runs of each cell, each with a seed of its own; the median counts")
	flag.DurationVar(&p.settle, "settle", 5*time.Second, "how long a flow runs before it is measured")
	flag.DurationVar(&p.measured, "measured", 30*time.Second, "how long it is measured")
	flag.Uint64Var(&p.seed, "seed", 1, "the first run's; the others count up")
	flag.Float64Var(&p.want, "want", 0.9, "fail if a cell has less than this of what two kernels have")
	flag.StringVar(&p.only, "cell", "", "measure one cell only, given as loss,rtt: 1,20")
	flag.IntVar(&p.beside, "beside", 2, "cells that are measured at the same time")
	write := flag.String("write", "", "put the table into its section of this Markdown file")
	flag.BoolVar(&p.verbose, "v", false, "print each run, with what was retransmitted")
	flag.Parse()
	status, ran, err := netlab.Enter(context.Background(), os.Stdout, os.Stderr)
	if ran {
		os.Exit(status)
	}
	if err != nil {
		err = netlab.Usable()
	}
	if err == nil {
		err = run(p, *write)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "wire:", err)
		os.Exit(1)
	}
}

func run(p plan, write string) error {
	if write != "" { // not only when everything has been measured
		if _, err := readSection(write); err != nil {
			return err
		}
	}
	table, short, err := p.run(os.Stderr)
	if err != nil {
		return err
	}
	fmt.Print(table)
	if write != "" {
		if err := writeSection(write, table); err != nil {
			return err
		}
	}
	if len(short) > 0 {
		return fmt.Errorf("less than %v of what two kernels have: %v", p.want, short)
	}
	return nil
}
