// Package demo is what `ustack demo` runs: the daemon on a real TAP device with
// the Linux kernel's TCP as its peer, in namespaces of their own; a download, an
// echo, and an upload that is frozen midway and loses nothing. And what
// `ustack demo move` runs: a connection that travels between kernels and ustacks.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"time"

	"github.com/tcprepair/ustack/internal/netlab"
)

// Links between the stack and its peer.
const (
	// LinkTAP is a TAP device; the peer is the kernel's TCP.
	LinkTAP = "tap"
	// LinkMemory is a pipe in memory; the peer is gVisor's TCP.
	LinkMemory = "memory"
)

// timeout ends a demo that hangs. One that does not takes a few seconds.
const timeout = time.Minute

// Options say how the demo runs. The zero value is what `ustack demo` does.
type Options struct {
	// Link is LinkTAP or LinkMemory. Empty: TAP if the machine allows it.
	Link string
	// InPlace does not start the program again in namespaces of its own. The
	// network is apart from the machine's all the same, but the caller needs
	// the right to make it.
	InPlace bool
	// Small moves a sixteenth of the bytes.
	Small bool
}

// ErrFailed is returned when the demo, having started, has shown something
// else than it should. The output says what. It is wrapped with the reason,
// except where a process of the demo's own has reported the failure already.
var ErrFailed = errors.New("the demo failed")

// Run runs the demo. It writes lines for people to w as it goes, and then one
// line of JSON, the Result. The error is nil if everything was as it should be.
func Run(ctx context.Context, w io.Writer, opts Options) error {
	why, err := choose(opts.Link)
	if err != nil {
		return err
	}
	if why == nil && !opts.InPlace {
		status, ran, err := netlab.Enter(ctx, w, os.Stderr)
		switch {
		case ran:
			return childStatus(ctx, w, &Result{Link: LinkTAP}, status)
		case err != nil && netlab.Usable() != nil:
			why = err
		}
	}
	if why == nil {
		why = netlab.Usable()
	}
	if why == nil {
		return run(ctx, w, opts, LinkTAP)
	}
	if opts.Link == LinkTAP {
		return report(w, &Result{Link: LinkTAP}, why)
	}
	if opts.Link == "" {
		fmt.Fprintf(w, "No TAP device is to be had here: %v.\nSo the demo runs on a link in memory, with gVisor's TCP as the peer.\n", why)
	}
	return run(ctx, w, opts, LinkMemory)
}

var errAskedFor = errors.New("as asked for")

// choose returns why the link is to be the one in memory, nil if it is not.
func choose(link string) (why, err error) {
	switch link {
	case "", LinkTAP:
		return nil, nil
	case LinkMemory:
		return errAskedFor, nil
	}
	return nil, fmt.Errorf("link %q: there is %s and %s", link, LinkTAP, LinkMemory)
}

// childStatus turns the exit status of the demo in its namespaces, which has
// reported for itself if it could, into an error.
func childStatus(ctx context.Context, w io.Writer, r outcome, status int) error {
	switch status {
	case 0:
		return nil
	case 1:
		return ErrFailed
	}
	return report(w, r, unlessEnded(ctx, fmt.Errorf("the process inside the namespaces ended with status %d", status)))
}

// run runs the demo on a link that is possible.
func run(ctx context.Context, w io.Writer, opts Options, link string) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	r := &Result{Link: link}
	return report(w, r, unlessEnded(ctx, perform(ctx, w, opts, r)))
}

// unlessEnded says so if an error came of the context's end.
func unlessEnded(ctx context.Context, err error) error {
	switch {
	case err == nil:
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		err = fmt.Errorf("not done after %v: %w", timeout, err)
	case ctx.Err() != nil:
		err = fmt.Errorf("interrupted: %w", err)
	}
	return err
}

// perform does the three parts in turn and fills the result in.
func perform(ctx context.Context, w io.Writer, opts Options, r *Result) (err error) {
	sizes := full
	if opts.Small {
		sizes = small
	}
	file, err := newFile(sizes.http)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.remove()) }()

	b, err := newBench(r.Link, file.dir)
	if err != nil {
		return err
	}
	defer b.close()
	fmt.Fprintf(w, "%s\n", b.description)
	s := &session{bench: b, out: w, sizes: sizes, result: r}

	if err := s.download(ctx, b.addresses[0], file); err != nil {
		return fmt.Errorf("(a) HTTP: %w", err)
	}
	if err := s.echo(ctx, b.addresses[1]); err != nil {
		return fmt.Errorf("(b) echo: %w", err)
	}
	for _, a := range b.addresses {
		if err := s.freeze(ctx, a); err != nil {
			return fmt.Errorf("(c) freezing over %s: %w", family(a), err)
		}
	}
	r.DigestMatch = true
	return nil
}

func family(a netip.Addr) string {
	if a.Is4() {
		return "IPv4"
	}
	return "IPv6"
}

// sizes are how many bytes each part moves.
type sizes struct{ http, echo, upload int64 }

var (
	full  = sizes{http: 64 << 20, echo: 16 << 20, upload: 32 << 20}
	small = sizes{http: 4 << 20, echo: 1 << 20, upload: 2 << 20}
)

// session is what the parts share.
type session struct {
	*bench
	out    io.Writer
	sizes  sizes
	result *Result
}

func (s *session) printf(format string, args ...any) {
	fmt.Fprintf(s.out, format+"\n", args...)
}
