package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/tcprepair/ustack/internal/daemon"
	"github.com/tcprepair/ustack/stack/repair"
)

// control is what the commands that talk to a running daemon have alike.
type control struct {
	Control string `default:"${control}" placeholder:"PATH" help:"The daemon's control socket (${default})."`
}

// Validate is called by kong.
func (c *control) Validate() error {
	if c.Control == "" {
		return errors.New("--control: which file?")
	}
	return nil
}

// client is what the commands that print a daemon's answer have alike.
type client struct {
	control
	JSON bool `name:"json" help:"Print JSON."`
}

// answerTime is how long a daemon may take to answer in full.
const answerTime = 10 * time.Second

func (c *control) dial(ctx context.Context) (*daemon.Client, context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	return daemon.NewClient(c.Control), ctx, cancel
}

type connsCmd struct{ client }

// Help implements kong.HelpProvider.
func (*connsCmd) Help() string {
	return `The ID is what "ustack repair" takes. RECV-Q is what the service has not read yet, SEND-Q what the
peer has not acknowledged, in bytes.

Example:

  ustack conns --json | jq '.[] | select(.frozen) | .id'
`
}

// Run lists the connections.
func (c *connsCmd) Run(ctx context.Context, s streams) error {
	d, ctx, cancel := c.dial(ctx)
	defer cancel()
	list, err := d.Conns(ctx)
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(s.out, list)
	}
	return printConns(s.out, list)
}

func printConns(w io.Writer, list []daemon.Conn) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "ID\tSTATE\tLOCAL\tREMOTE\tRECV-Q\tSEND-Q\tRTT\tCWND\tDROPS")
	for _, c := range list {
		state := c.State
		if c.Frozen {
			state += " (frozen)"
		}
		rtt := time.Duration(c.RTTMicros) * time.Microsecond
		fmt.Fprintf(t, "%d\t%s\t%v\t%v\t%d\t%d\t%v\t%d\t%d\n", c.ID, state, c.Local, c.Remote,
			c.Unread, c.Unacked, rtt, c.Cwnd, c.Drops.Total())
	}
	return t.Flush()
}

type repairCmd struct {
	On  repairOn  `cmd:"" help:"Freeze: the connection says nothing and accepts nothing, and the peer does not notice."`
	Off repairOff `cmd:"" help:"Thaw."`
}

type repairOn struct {
	client
	ID uint64 `arg:"" help:"The connection's number in \"ustack conns\"."`
}

// Run freezes the connection.
func (c *repairOn) Run(ctx context.Context, s streams) error {
	return c.repair(ctx, s, c.ID, repair.On)
}

type repairOff struct {
	client
	ID      uint64 `arg:"" help:"The connection's number in \"ustack conns\"."`
	NoProbe bool   `help:"Do not send the window probe that makes the peer answer at once."`
}

// Run thaws the connection.
func (c *repairOff) Run(ctx context.Context, s streams) error {
	mode := repair.Off
	if c.NoProbe {
		mode = repair.OffNoProbe
	}
	return c.repair(ctx, s, c.ID, mode)
}

func (c *client) repair(ctx context.Context, s streams, id uint64, m repair.Mode) error {
	d, ctx, cancel := c.dial(ctx)
	defer cancel()
	conn, err := d.Repair(ctx, id, m)
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(s.out, conn)
	}
	what := "thawed"
	if conn.Frozen {
		what = "frozen"
	}
	_, err = fmt.Fprintf(s.out, "connection %d, %v to %v: %s\n", conn.ID, conn.Local, conn.Remote, what)
	return err
}

type buryCmd struct {
	control
	ID uint64 `arg:"" help:"The connection's number in \"ustack conns\"."`
}

// Help implements kong.HelpProvider.
func (*buryCmd) Help() string {
	return `This is for a connection that "ustack dump" has written down and that lives elsewhere now. It must be
frozen. What its peer still sends here is swallowed for a while, and draws no reset.
`
}

// Run buries the connection.
func (c *buryCmd) Run(ctx context.Context) error {
	d, ctx, cancel := c.dial(ctx)
	defer cancel()
	return d.Bury(ctx, c.ID)
}

type dropsCmd struct{ client }

// Run prints the counters.
func (c *dropsCmd) Run(ctx context.Context, s streams) error {
	d, ctx, cancel := c.dial(ctx)
	defer cancel()
	drops, err := d.Drops(ctx)
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(s.out, drops)
	}
	t := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "REASON\tSEGMENTS")
	for _, reason := range slices.Sorted(maps.Keys(drops)) {
		fmt.Fprintf(t, "%s\t%d\n", reason, drops[reason])
	}
	return t.Flush()
}

type statusCmd struct{ client }

// Run prints the status.
func (c *statusCmd) Run(ctx context.Context, s streams) error {
	d, ctx, cancel := c.dial(ctx)
	defer cancel()
	st, err := d.Status(ctx)
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(s.out, st)
	}
	t := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "running\t%v, process %d\n", time.Since(st.Started).Round(time.Second), st.PID)
	fmt.Fprintf(t, "link\t%s, MTU %d\n", st.Link, st.MTU)
	fmt.Fprintf(t, "addresses\t%v\n", st.Addresses)
	for _, v := range st.Services {
		fmt.Fprintf(t, "%s\t%d open, %d accepted\n", v.Service, v.Active, v.Accepted)
	}
	fmt.Fprintf(t, "segments\t%d in, %d out, %d retransmitted\n",
		st.Stats.TCP.SegmentsReceived, st.Stats.TCP.SegmentsSent, st.Stats.TCP.Retransmits)
	return t.Flush()
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
