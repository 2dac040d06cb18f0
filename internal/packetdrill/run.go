package packetdrill

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/tcprepair/ustack/internal/vtime"
)

// Status is what came of a script.
type Status int

// The outcomes of a script.
const (
	Passed Status = iota
	Failed
	Skipped // it uses something that is left out
)

// String returns "passed", "failed" or "skipped".
func (s Status) String() string { return [...]string{"passed", "failed", "skipped"}[s] }

// Result is what came of a script, and why.
type Result struct {
	Path   string
	Status Status
	// Line is where the script failed; 0 if it did not.
	Line int
	// Reason is why it failed or was skipped: one line.
	Reason string
	// Expected and Actual stand one above the other if the stack did something
	// else than the script says. Either may be empty.
	Expected, Actual string
	// Notes are remarks about commands without effect, and what print printed.
	Notes []string
}

// String describes a result in one or, if there is something to compare, in
// three lines.
func (r Result) String() string {
	var b strings.Builder
	switch r.Status {
	case Passed:
		return r.Path + ": passed"
	case Skipped:
		return r.Path + ": skipped: " + r.Reason
	}
	fmt.Fprintf(&b, "%s:%d: %s", r.Path, r.Line, r.Reason)
	if r.Expected != "" || r.Actual != "" {
		fmt.Fprintf(&b, "\n  expected: %s\n    actual: %s", r.Expected, r.Actual)
	}
	return b.String()
}

// fault is how a run is left before its end. It does not get past Run.
type fault struct{ r Result }

// runner plays one script.
type runner struct {
	cfg    Config
	script *Script
	set    settings
	clock  *vtime.Clock
	link   *link
	stack  *stack.Stack

	line  int           // of the event being played
	text  string        // the event itself
	last  time.Duration // when the event before it happened
	begun time.Duration // when the script began, on the clock
	steps int
	files map[int]file
	// nameless are files whose numbers have been used again.
	nameless []file
	flows    map[flowKey]*flow
	order    []*flow // in the order in which they began
	port     uint16  // the peer's last port
	under    under
	pending  *call
	scope    scope
	tunables
	notes []string
}

// flowKey tells flows apart.
type flowKey struct{ local, remote netip.AddrPort }

// under is the socket under test: where segments without ports belong, and
// whose tcp_info snippets see.
type under struct {
	flow *flow
	sock *sock
}

// Run plays a script against a stack of its own. It stops early if ctx is
// cancelled, which fails the script.
func Run(ctx context.Context, s *Script, cfg Config) (res Result) {
	defer func() {
		switch f := recover().(type) {
		case nil:
		case fault:
			res = f.r
		default:
			panic(f)
		}
	}()
	set, err := newSettings(s.Path, append(append([]Option(nil), cfg.Options...), s.Options...))
	if err == nil {
		err = refused(s)
	}
	if err != nil {
		return failure(s.Path, err)
	}
	r := newRunner(s, cfg, set)
	defer r.close()
	if s.Init != nil {
		r.line = s.Init.Line
		r.command(s.Init)
	}
	r.begun = r.clock.Elapsed()
	for i := range s.Events {
		if ctx.Err() != nil {
			r.fail("cancelled")
		}
		r.event(&s.Events[i])
	}
	r.finish()
	if s.Cleanup != nil {
		r.line = s.Cleanup.Line
		r.command(s.Cleanup)
	}
	return Result{Path: s.Path, Notes: r.notes}
}

// failure makes a result of an error from Parse or from before the run.
func failure(path string, err error) Result {
	var no *NotSupportedError
	var syntax *SyntaxError
	switch {
	case errors.As(err, &no):
		return Result{Path: path, Status: Skipped, Line: no.Line, Reason: "not supported: " + no.What}
	case errors.As(err, &syntax):
		return Result{Path: path, Status: Failed, Line: syntax.Line, Reason: syntax.Msg}
	}
	return Result{Path: path, Status: Failed, Line: 1, Reason: err.Error()}
}

// fail ends the run.
func (r *runner) fail(format string, args ...any) {
	r.mismatch("", "", format, args...)
}

// mismatch ends the run because the stack did something else.
func (r *runner) mismatch(expected, actual, format string, args ...any) {
	panic(fault{Result{
		Path: r.script.Path, Status: Failed, Line: r.line,
		Reason: fmt.Sprintf(format, args...), Expected: expected, Actual: actual, Notes: r.notes,
	}})
}

// skip ends the run because the script asks for something that is left out.
func (r *runner) skip(format string, args ...any) {
	panic(fault{Result{
		Path: r.script.Path, Status: Skipped, Line: r.line,
		Reason: "not supported: " + fmt.Sprintf(format, args...), Notes: r.notes,
	}})
}

// note remembers a remark.
func (r *runner) note(format string, args ...any) {
	r.notes = append(r.notes, fmt.Sprintf("%s:%d: %s", r.script.Path, r.line, fmt.Sprintf(format, args...)))
}

// now is the time since the script began.
func (r *runner) now() time.Duration { return r.clock.Elapsed() - r.begun }

// event plays one event.
func (r *runner) event(e *Event) {
	r.line, r.text = e.Line, e.Text
	from, to := e.When.From, e.When.To
	base := time.Duration(0)
	if e.When.Relative {
		base = r.now()
	}
	from, to = from+base, to+base
	pkt, isPacket := e.Action.(*Packet)
	if isPacket && pkt.Outbound {
		r.expect(pkt, window{from: from, to: to, any: e.When.Any})
	} else {
		r.runTo(from)
		if late := r.now() - from; late > r.set.toleranceFor(from-r.last) {
			r.fail("the time %s has passed: it is %s", clockText(from), clockText(r.now()))
		}
		switch a := e.Action.(type) {
		case *Packet:
			r.inject(a)
		case *Syscall:
			r.syscall(a, base)
		case *Command:
			r.command(a)
		case *Snippet:
			r.snippet(a)
		}
	}
	r.settle()
	r.last = r.now()
}

// settle lets the stack do what it has been given to do, and looks at what has
// come of it.
func (r *runner) settle() {
	if r.cfg.Settle != nil {
		r.cfg.Settle()
	}
	r.collect()
	r.resume()
}

// step runs the next timer if it is not after limit.
func (r *runner) step(limit time.Duration) bool {
	if next, ok := r.clock.Next(); !ok || next-r.begun > limit {
		return false
	}
	if r.steps++; r.steps > r.cfg.MaxSteps {
		r.fail("gave up after %d timers", r.cfg.MaxSteps)
	}
	r.clock.Step()
	r.settle()
	return true
}

// runTo lets time pass until t.
func (r *runner) runTo(t time.Duration) {
	for r.step(t) {
	}
	if t > r.now() {
		r.clock.RunUntil(r.begun + t)
	}
}

// finish waits for a system call that is still under way, and looks for what
// the stack has sent too much.
func (r *runner) finish() {
	end := r.now()
	r.await()
	if !r.cfg.Strict {
		return
	}
	for _, f := range r.order {
		for _, s := range f.sent {
			if s.at <= end {
				spec := f.toScript(s.tcp, &TCPSpec{})
				r.mismatch("nothing more", clockText(s.at)+" > "+spec.String(), "the stack sent more than the script expects")
			}
		}
	}
}

// collect sorts what the stack has sent to its flows.
func (r *runner) collect() {
	sent, err := r.link.take()
	if err != nil {
		r.fail("%v", err)
	}
	for _, s := range sent {
		f := r.flowOf(s.src, s.dst)
		f.learn(s)
		f.sent = append(f.sent, s)
	}
}

// flowOf finds a flow, or begins it.
func (r *runner) flowOf(local, remote netip.AddrPort) *flow {
	key := flowKey{local, remote}
	f, ok := r.flows[key]
	if !ok {
		f = &flow{local: local, remote: remote}
		r.flows[key] = f
		r.order = append(r.order, f)
	}
	return f
}
