package packetdrill

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
)

// Options are the options of the command line. Its zero value but for Paths and
// Config.Protocol runs scripts as the original would, with IPv4.
type Options struct {
	// Paths are scripts, and directories that are searched for them.
	Paths []string
	// IPVersion, MTU, ToleranceUsecs and the like are options that stand
	// before those of each script, which override them.
	IPVersion      string
	MTU            int
	ToleranceUsecs int
	Define         map[string]string
	// Relax is a list of what is not compared: see ParseRelax.
	Relax string
	// Disabled is a file: see ReadDisabled.
	Disabled string
	Strict   bool
	GSO      bool
	Seed     uint64
	Parallel int
	// Verbose prints the scripts that passed too, and all notes. JSON prints
	// an array of results and nothing else.
	Verbose, JSON bool
}

// Exit statuses of Main.
const (
	exitOK    = 0
	exitFail  = 1 // a script failed
	exitUsage = 2 // nothing could be run
)

// Main runs the scripts that o names with the TCP of cfg, prints what failed
// and, last, "N passed, N failed, N skipped", and returns the exit status: 0 if
// no script failed, 1 if one did, 2 if o is wrong.
func Main(ctx context.Context, cfg Config, o Options, stdout, stderr io.Writer) int {
	suite, scripts, err := o.suite(cfg)
	if err != nil {
		fmt.Fprintf(stderr, "ustack: drill: %v\n", err)
		return exitUsage
	}
	results := suite.Run(ctx, scripts)
	passed, failed, skipped := Count(results)
	if o.JSON {
		err = printJSON(stdout, results)
	} else {
		err = printText(stdout, results, o.Verbose)
		if err == nil {
			_, err = fmt.Fprintf(stdout, "%d passed, %d failed, %d skipped\n", passed, failed, skipped)
		}
	}
	switch {
	case err != nil:
		fmt.Fprintf(stderr, "ustack: drill: %v\n", err)
		return exitFail
	case failed > 0:
		return exitFail
	}
	return exitOK
}

// usualDefines are the words that the public scripts expect to be defined.
func usualDefines(version string) map[string]string {
	d := map[string]string{
		"TFO_COOKIE": "3021b9d889017eeb", "CODE": "host_unreachable", "MSS": "1460",
		"CMSG_LEVEL_IP": "SOL_IP", "CMSG_TYPE_RECVERR": "IP_RECVERR",
	}
	if version == "ipv6" {
		d["TFO_COOKIE"] = "bab7e025ce775b94" // the same key, other addresses
	}
	if version != "" && version != "ipv4" {
		d["CMSG_LEVEL_IP"], d["CMSG_TYPE_RECVERR"] = "SOL_IPV6", "IPV6_RECVERR"
	}
	return d
}

// suite makes a suite of the options.
func (o *Options) suite(cfg Config) (s *Suite, scripts []string, err error) {
	if o.Parallel < 0 {
		return nil, nil, fmt.Errorf("--parallel: %d is negative", o.Parallel)
	}
	s = &Suite{Config: cfg, Parallel: o.Parallel}
	s.Strict, s.GSO, s.Seed = o.Strict, o.GSO, o.Seed
	s.Defines = usualDefines(o.IPVersion)
	maps.Copy(s.Defines, o.Define)
	if s.Relax, err = ParseRelax(o.Relax); err != nil {
		return nil, nil, err
	}
	add := func(name, value string) {
		s.Options = append(s.Options, Option{Name: name, Value: value})
	}
	if o.IPVersion != "" {
		add("ip_version", o.IPVersion)
	}
	if o.MTU != 0 {
		add("mtu", strconv.Itoa(o.MTU))
	}
	if o.ToleranceUsecs != 0 {
		add("tolerance_usecs", strconv.Itoa(o.ToleranceUsecs))
	}
	if _, err := newSettings("", s.Options); err != nil {
		var syntax *SyntaxError
		if errors.As(err, &syntax) {
			err = errors.New(syntax.Msg)
		}
		return nil, nil, err
	}
	if o.Disabled != "" {
		if s.Disabled, err = ReadDisabled(o.Disabled); err != nil {
			return nil, nil, err
		}
		if missing := s.Disabled.Missing(); missing != nil {
			return nil, nil, fmt.Errorf("%s names %v, which do not exist", o.Disabled, missing)
		}
	}
	if scripts, err = Find(o.Paths); err != nil {
		return nil, nil, err
	}
	if len(scripts) == 0 {
		return nil, nil, errors.New("no scripts found: their names end in .pkt")
	}
	return s, scripts, nil
}

// printText prints what failed; with verbose all the rest, too.
func printText(w io.Writer, results []Result, verbose bool) error {
	for _, r := range results {
		if r.Status != Failed && !verbose {
			continue
		}
		if _, err := fmt.Fprintln(w, r); err != nil {
			return err
		}
		if !verbose {
			continue
		}
		for _, n := range slices.Compact(r.Notes) {
			if _, err := fmt.Fprintf(w, "  %s\n", n); err != nil {
				return err
			}
		}
	}
	return nil
}

// jsonResult is a Result as JSON has it.
type jsonResult struct {
	Path     string   `json:"path"`
	Status   string   `json:"status"`
	Line     int      `json:"line,omitempty"`
	Reason   string   `json:"reason,omitempty"`
	Expected string   `json:"expected,omitempty"`
	Actual   string   `json:"actual,omitempty"`
	Notes    []string `json:"notes,omitempty"`
}

func printJSON(w io.Writer, results []Result) error {
	list := make([]jsonResult, len(results))
	for i, r := range results {
		list[i] = jsonResult{r.Path, r.Status.String(), r.Line, r.Reason, r.Expected, r.Actual, r.Notes}
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(list)
}
