package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/tcprepair/ustack/internal/netlab"
)

// MoveOptions say how the demo of moves runs. The zero value is what
// `ustack demo move` does.
type MoveOptions struct {
	// InPlace is that of Options.
	InPlace bool
	// Moves is how often connections move, half of them over IPv4. 0: 100.
	Moves int
}

// MoveResult is the last line of the demo of moves.
type MoveResult struct {
	// Demo is "ok" or "failed".
	Demo string `json:"demo"`
	// Moves is how many there were.
	Moves int `json:"moves"`
	// Families are "ipv4" and "ipv6", as far as the demo has come.
	Families []string `json:"families"`
	// Resets is how many RSTs were on the wire.
	Resets int `json:"resets"`
	// DigestMatch says that both directions of both connections have their
	// right SHA-256.
	DigestMatch bool `json:"digest_match"`
	// LostWithoutFilter says that a frozen kernel socket without the filter lost
	// what its peer sent.
	LostWithoutFilter bool `json:"lost_without_filter"`
	// MoveUS is for how long the connection was frozen, in microseconds.
	MoveUS Quantiles `json:"move_us"`
	// Reason is what went wrong, if something did.
	Reason string `json:"reason,omitempty"`
}

// Quantiles are of the duration of moves.
type Quantiles struct {
	P50 int64 `json:"p50"`
	P99 int64 `json:"p99"`
}

func (r *MoveResult) settle(reason error) {
	r.Demo = "ok"
	if reason != nil {
		r.Demo, r.Reason = "failed", reason.Error()
	}
}

// moveFamilies are in the order of netlab's addresses.
var moveFamilies = []struct{ key, name string }{{"ipv4", "IPv4"}, {"ipv6", "IPv6"}}

// RunMoves runs the demo of moves: a connection goes from a kernel to a ustack,
// to another, to another kernel and so on, under load both ways, and its peer, a
// kernel, notices nothing. It writes lines for people to w as it goes, and then
// one line of JSON, the MoveResult. The error is nil if everything was as it
// should be.
func RunMoves(ctx context.Context, w io.Writer, opts MoveOptions) error {
	r := &MoveResult{Families: []string{}}
	if !opts.InPlace {
		status, ran, err := netlab.Enter(ctx, w, os.Stderr)
		switch {
		case ran:
			return childStatus(ctx, w, r, status)
		case err != nil && netlab.Usable() != nil:
			return report(w, r, err)
		}
	}
	if err := netlab.Usable(); err != nil {
		return report(w, r, err)
	}
	if opts.Moves == 0 {
		opts.Moves = 100
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return report(w, r, unlessEnded(ctx, performMoves(ctx, w, opts, r)))
}

// performMoves does the parts in turn and fills the result in.
func performMoves(ctx context.Context, w io.Writer, opts MoveOptions, r *MoveResult) error {
	c, err := newCountry(2, 2)
	if err != nil {
		return err
	}
	defer c.close()
	fmt.Fprintf(w, "Two kernels and two ustacks (on TAP devices) share %v and %v behind a switch; their peer is %s.\n",
		netlab.PeerAddresses[0].Addr(), netlab.PeerAddresses[1].Addr(), "the kernel's TCP, "+kernelRelease())
	// Each kind of move comes up in turn.
	ring := []int{0, 2, 3, 1}
	var took []time.Duration
	for family, f := range moveFamilies {
		moves := opts.Moves / 2
		if family == 0 {
			moves = opts.Moves - moves
		}
		fmt.Fprintf(w, "A connection over %s, with bytes at full speed both ways: kernel -> ustack -> ustack -> kernel -> …\n", f.name)
		t, err := c.travel(ctx, family, ring, moves, func(n int, t *trip) { r.Moves++; progress(w, n, moves, t) })
		if err != nil {
			return fmt.Errorf("over %s: %w", f.name, err)
		}
		took = append(took, t.took...)
		r.Resets += t.rst
		r.Families = append(r.Families, f.key)
		r.MoveUS = quantiles(took)
		fmt.Fprintf(w, "    All the %s sent and the %s received are right, by SHA-256; both ends were closed in order.\n",
			mib(t.here.out.sent.Load()), mib(t.here.in.received.Load()))
	}
	r.DigestMatch = true
	fmt.Fprintf(w, "Resets on the wire: %d. A move took %d us in the median and 99 in 100 took at most %d us.\n", r.Resets, r.MoveUS.P50, r.MoveUS.P99)
	if r.Resets > 0 {
		for _, line := range c.capture.StrayResets() {
			fmt.Fprintln(w, "   ", line)
		}
		return errors.New("there were resets on the wire")
	}
	return c.race(ctx, w, r)
}

// progress tells of every tenth move or so.
func progress(w io.Writer, n, of int, t *trip) {
	if step := max(of/5, 1); n%step != 0 && n != of {
		return
	}
	fmt.Fprintf(w, "    %3d moves, now in a %v: %s sent, %s received, %d resets\n",
		n, t.inns[t.at], mib(t.here.out.sent.Load()), mib(t.here.in.received.Load()), t.resets()-t.before)
}

// quantiles sorts a copy.
func quantiles(took []time.Duration) Quantiles {
	if len(took) == 0 {
		return Quantiles{}
	}
	sorted := slices.Sorted(slices.Values(took))
	at := func(percent int) int64 { return sorted[(len(sorted)-1)*percent/100].Microseconds() }
	return Quantiles{P50: at(50), P99: at(99)}
}
