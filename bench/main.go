//go:build linux

// Command bench compares TCPs on one machine, in one run: ours on our TAP link,
// gVisor's on our TAP link, gVisor's on its own fdbased link, and the kernel's
// over a veth pair. The peer is the kernel's TCP in every case, in a process of
// its own, and does the same whatever it talks to. README.md says how to read
// what comes out.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"time"

	"golang.org/x/sys/unix"
)

// options is how a run is to be.
type options struct {
	quick    bool
	rounds   int
	duration time.Duration  // of one workload on one stack, in one round
	only     *regexp.Regexp // workloads
	stacks   *regexp.Regexp
	out      string
	profiles string
}

func main() {
	if role, ok := childRole(); ok {
		if err := role.run(); err != nil {
			fmt.Fprintf(os.Stderr, "bench %s: %v\n", role, err)
			os.Exit(1)
		}
		return
	}
	opts, err := parse(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	if err := compare(ctx, opts); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func parse(args []string) (*options, error) {
	f := flag.NewFlagSet("bench", flag.ExitOnError)
	o := &options{}
	f.BoolVar(&o.quick, "quick", false, "short measurements, for a first impression")
	f.IntVar(&o.rounds, "rounds", 5, "how often everything is measured")
	f.DurationVar(&o.duration, "time", 0, "how long a workload runs on a stack in a round (0: 1s, or 50ms with -quick)")
	only := f.String("only", "", "measure only workloads whose name matches this regular expression")
	stacks := f.String("stacks", "", "measure only stacks whose name matches this regular expression")
	congestion := f.String("congestion", "", "congestion control of the kernel's sockets (default: the machine's)")
	f.StringVar(&o.out, "out", "bench", "directory for latest.json and the charts")
	f.StringVar(&o.profiles, "profiles", "", "directory for a CPU profile of each workload on each stack")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if *congestion != "" {
		// The children inherit it.
		if err := os.Setenv(congestionVariable, *congestion); err != nil {
			return nil, err
		}
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	if o.rounds < 1 {
		return nil, fmt.Errorf("-rounds %d: at least one", o.rounds)
	}
	if o.duration == 0 {
		o.duration = time.Second
		if o.quick {
			o.duration = 50 * time.Millisecond
		}
	}
	// Not only when everything has been measured.
	if info, err := os.Stat(o.out); err != nil {
		return nil, fmt.Errorf("-out: %w", err)
	} else if !info.IsDir() {
		return nil, fmt.Errorf("-out: %s is not a directory", o.out)
	}
	if o.profiles != "" {
		if err := os.MkdirAll(o.profiles, 0o777); err != nil {
			return nil, fmt.Errorf("-profiles: %w", err)
		}
	}
	var err error
	if o.only, err = regexp.Compile(*only); err != nil {
		return nil, fmt.Errorf("-only: %w", err)
	}
	if o.stacks, err = regexp.Compile(*stacks); err != nil {
		return nil, fmt.Errorf("-stacks: %w", err)
	}
	return o, nil
}

// compare measures everything and reports it.
func compare(ctx context.Context, o *options) error {
	r := newReport()
	if err := measureStacks(ctx, o, r); err != nil {
		return err
	}
	if err := measureInMemory(o, r); err != nil {
		return err
	}
	if err := r.write(os.Stdout, o.out); err != nil {
		return err
	}
	return nil
}
