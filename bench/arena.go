//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/tcprepair/ustack/internal/netlab"
)

// pair is a stack under test and its peer, each in a process.
type pair struct {
	name       string
	contestant *child
	peer       *child
	near       *netlab.Namespace // the peer's
	ctx        context.Context
}

// newPair links a stack and a peer in namespaces of their own.
func newPair(ctx context.Context, lab *netlab.Lab, name string) (*pair, error) {
	var n *netlab.Neighbours
	var err error
	if name == stackKernel {
		n, err = lab.KernelPair(netlab.Link{})
	} else {
		// gVisor's link wants bare frames.
		n, err = lab.Direct(netlab.Link{Plain: name == stackFdbased})
	}
	if err != nil {
		return nil, err
	}
	p := &pair{name: name, near: n.Kernel, ctx: ctx}
	if n.TAP == nil {
		p.contestant, err = startChild(ctx, n.Peer, role(name), nil)
	} else {
		p.contestant, err = startOnTAP(ctx, n, role(name))
	}
	if err != nil {
		return nil, err
	}
	p.peer, err = startChild(ctx, n.Kernel, rolePeer, nil)
	if err != nil {
		return nil, errors.Join(err, p.contestant.stop())
	}
	// The contestant answers when it is listening.
	return p, p.contestant.call("Mark", None{}, &None{})
}

// startOnTAP starts a contestant that has the other side of the TAP.
func startOnTAP(ctx context.Context, n *netlab.Neighbours, r role) (*child, error) {
	fd, err := n.TAP.TakeFD()
	if err != nil {
		return nil, err
	}
	tap := os.NewFile(uintptr(fd), n.TAP.Name)
	defer tap.Close()
	return startChild(ctx, n.Kernel, r, tap)
}

func (p *pair) stop() error { return errors.Join(p.contestant.stop(), p.peer.stop()) }

// measureStacks runs every workload on every stack, round after round, so that
// whatever else the machine does falls on all of them alike.
func measureStacks(ctx context.Context, o *options, r *report) (err error) {
	lab, err := netlab.Open()
	if err != nil {
		return err
	}
	defer lab.Close()
	var pairs []*pair
	defer func() {
		for _, p := range pairs {
			err = errors.Join(err, p.stop())
		}
	}()
	for _, name := range allStacks {
		if !o.stacks.MatchString(name) {
			continue
		}
		p, err := newPair(ctx, lab, name)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		pairs = append(pairs, p)
	}
	for round := range o.rounds {
		for _, w := range workloads {
			if !o.only.MatchString(w.name) || round > 0 && w.once || o.quick && w.slow {
				continue
			}
			for i := range pairs {
				// No stack always comes first.
				p := pairs[(i+round)%len(pairs)]
				if w.stacks != nil && !w.stacks[p.name] {
					continue
				}
				if ctx.Err() != nil {
					return ctx.Err()
				}
				if err := p.run(o, w, round, r); err != nil {
					return fmt.Errorf("%s on %s: %w", w.name, p.name, err)
				}
			}
		}
		fmt.Fprintf(os.Stderr, "round %d of %d done\n", round+1, o.rounds)
	}
	return nil
}

// run measures one workload on one stack.
func (p *pair) run(o *options, w *workload, round int, r *report) error {
	if o.profiles != "" {
		path := fmt.Sprintf("%s/%s-%s-%d.pprof", o.profiles, w.name, p.name, round)
		if err := p.contestant.call("StartProfile", path, &None{}); err != nil {
			return err
		}
	}
	values, err := w.measure(p, o.duration)
	if err == nil && o.profiles != "" {
		err = p.contestant.call("StopProfile", None{}, &None{})
	}
	for _, v := range values {
		r.add(v.workload, p.name, v.unit, v.value)
	}
	return err
}
