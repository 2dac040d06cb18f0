package main

import (
	"context"

	"github.com/tcprepair/ustack/internal/packetdrill"
)

// drillCmd runs packetdrill scripts.
type drillCmd struct {
	Paths          []string          `arg:"" name:"path" help:"Scripts, and directories to search for *.pkt."`
	IPVersion      string            `name:"ip-version" placeholder:"VERSION" help:"ipv4, ipv6 or ipv4-mapped-ipv6, for scripts that do not say (ipv4)."`
	MTU            int               `name:"mtu" placeholder:"BYTES" help:"The link's MTU, for scripts that do not say (1500)."`
	ToleranceUsecs int               `name:"tolerance-usecs" placeholder:"N" help:"How much earlier or later than told things may happen, in microseconds."`
	Define         map[string]string `short:"D" placeholder:"NAME=VALUE" help:"Define a symbol that scripts use."`
	Relax          string            `placeholder:"WHAT,..." help:"What not to compare: psh, win, optorder."`
	Disabled       string            `placeholder:"FILE" help:"JSON list of scripts that are known to fail; one that passes is a failure."`
	Strict         bool              `help:"Fail if the stack sent more than the script expects."`
	GSO            bool              `name:"gso" default:"true" negatable:"" help:"Let the stack send large segments, which the link cuts."`
	Parallel       int               `placeholder:"N" help:"Scripts run at a time (one for each processor)."`
	Seed           uint64            `placeholder:"N" help:"Seed of what is random (drawn, and told on failure)."`
	Verbose        bool              `short:"v" help:"Tell of each script."`
	JSON           bool              `name:"json" help:"Print one JSON object for each script."`
}

// Help implements kong.HelpProvider.
func (*drillCmd) Help() string {
	return `Scripts run in virtual time against a stack of their own: no root, no devices,
no waiting. Backticks are read as settings and never given to a shell.

The exit status is 0 if every script passed, 1 if one did not, 2 for bad usage.

Example:

    ustack drill testdata/packetdrill
    ustack drill --relax=psh,win,optorder -v my.pkt`
}

// Run runs the scripts. What is wrong has been told when it returns.
func (c *drillCmd) Run(ctx context.Context, s streams) error {
	status := packetdrill.Main(ctx, packetdrill.Ours(), packetdrill.Options{
		Paths: c.Paths, IPVersion: c.IPVersion, MTU: c.MTU, ToleranceUsecs: c.ToleranceUsecs,
		Define: c.Define, Relax: c.Relax, Disabled: c.Disabled, Strict: c.Strict, GSO: c.GSO,
		Seed: c.Seed, Parallel: c.Parallel, Verbose: c.Verbose, JSON: c.JSON,
	}, s.out, s.err)
	if status != exitOK {
		return told(status)
	}
	return nil
}
