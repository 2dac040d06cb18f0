// Command ustack runs a user-space TCP/IP stack on a TAP device and works on
// its connections while they live.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/tcprepair/ustack/internal/daemon"
)

// Exit statuses.
const (
	exitOK    = 0
	exitFail  = 1 // it did not work
	exitUsage = 2 // it could not have worked: the command line is wrong
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// cli is the command line.
type cli struct {
	Run      runCmd      `cmd:"" help:"Run a stack on a TAP device, with services on it."`
	Conns    connsCmd    `cmd:"" help:"List the connections of a running stack."`
	Repair   repairCmd   `cmd:"" help:"Freeze or thaw a connection of a running stack."`
	Dump     dumpCmd     `cmd:"" help:"Freeze a connection, of a running stack or of the kernel, and write it down."`
	Restore  restoreCmd  `cmd:"" help:"Set a connection that was written down into a running stack."`
	Bury     buryCmd     `cmd:"" help:"End a frozen connection that lives elsewhere now, without a word to its peer."`
	Snapshot snapshotCmd `cmd:"" help:"Work on snapshots of connections in files: show them, convert them."`
	Drops    dropsCmd    `cmd:"" help:"Count the segments a running stack refused, by reason."`
	Status   statusCmd   `cmd:"" help:"Describe a running stack."`
	Demo     demoCmd     `cmd:"" help:"Show what it does, in network namespaces of its own."`
	Drill    drillCmd    `cmd:"" help:"Run packetdrill scripts against the TCP, in virtual time."`
	Version  versionCmd  `cmd:"" help:"Print the version."`

	VersionFlag kong.VersionFlag `name:"version" help:"Print the version."`
}

// streams is where commands write.
type streams struct{ out, err io.Writer }

// exit is how kong's --help leaves the parser.
type exit int

// run carries out the command line and returns the exit status. An error is
// one line on stderr.
func run(args []string, stdout, stderr io.Writer) (status int) {
	defer func() {
		if code, ok := recover().(exit); ok {
			status = int(code)
		}
	}()
	var c cli
	parser := kong.Must(&c,
		kong.Name("ustack"),
		kong.Description("A user-space TCP whose connections can be frozen, carried away and set down again."),
		kong.Writers(stdout, stderr),
		kong.Exit(func(code int) { panic(exit(code)) }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}),
		kong.Vars{
			"control":   daemon.DefaultControlPath(),
			"grace":     daemon.DefaultGrace.String(),
			"max_conns": strconv.Itoa(daemon.DefaultMaxConns),
			"version":   version(),
		},
	)
	ctx, err := parser.Parse(args)
	if err != nil {
		return report(stderr, &daemon.UsageError{Err: fmt.Errorf("%w%s", err, hint(args))})
	}
	ctx.BindTo(context.Background(), (*context.Context)(nil))
	return report(stderr, ctx.Run(streams{stdout, stderr}))
}

// hint says where to find out, to who asked for nothing.
func hint(args []string) string {
	if len(args) > 0 {
		return ""
	}
	return " (ustack --help tells of all)"
}

// told is the exit status of a command that has said itself what went wrong.
type told int

func (t told) Error() string { return fmt.Sprintf("exit status %d", int(t)) }

// report prints err, if there is one, and says what it means.
func report(stderr io.Writer, err error) int {
	if err == nil {
		return exitOK
	}
	var status told
	if errors.As(err, &status) {
		return int(status)
	}
	fmt.Fprintf(stderr, "ustack: %s\n", strings.ReplaceAll(err.Error(), "\n", "; "))
	var usage *daemon.UsageError
	if errors.As(err, &usage) {
		return exitUsage
	}
	return exitFail
}
