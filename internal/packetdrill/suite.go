package packetdrill

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
)

// Suite runs many scripts, side by side.
type Suite struct {
	Config
	// Disabled are the scripts that are known to fail, with the reason. One
	// that passes all the same is a failure: the list must not outlive its
	// reasons. See ReadDisabled.
	Disabled Disabled
	// Parallel is how many scripts run at once. 0: as many as there are
	// processors.
	Parallel int
}

// Disabled is a list of scripts that are known to fail.
type Disabled struct {
	dir     string
	reasons map[string]string
}

// ReadDisabled reads a list of scripts that are known to fail: a JSON object
// whose keys are paths, relative to the file, and whose values say why.
func ReadDisabled(path string) (Disabled, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return Disabled{}, err
	}
	d := Disabled{dir: filepath.Dir(path)}
	if err := json.Unmarshal(text, &d.reasons); err != nil {
		return Disabled{}, fmt.Errorf("%s: %w", path, err)
	}
	for name, why := range d.reasons {
		if strings.TrimSpace(why) == "" {
			return Disabled{}, fmt.Errorf("%s: %s: the reason is missing", path, name)
		}
	}
	return d, nil
}

// reason is why a script is known to fail.
func (d Disabled) reason(path string) (string, bool) {
	if d.reasons == nil {
		return "", false
	}
	dir, err1 := filepath.Abs(d.dir)
	file, err2 := filepath.Abs(path)
	rel, err3 := filepath.Rel(dir, file)
	if err1 != nil || err2 != nil || err3 != nil {
		return "", false
	}
	why, ok := d.reasons[filepath.ToSlash(rel)]
	return why, ok
}

// Missing lists the entries for which there is no file, sorted.
func (d Disabled) Missing() (names []string) {
	for name := range d.reasons {
		if _, err := os.Stat(filepath.Join(d.dir, filepath.FromSlash(name))); err != nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Find lists the scripts that paths name: files as they are, and of directories
// all the files below whose names end in .pkt, sorted.
func Find(paths []string) (scripts []string, err error) {
	for _, p := range paths {
		err := filepath.WalkDir(p, func(name string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() && (name == p || filepath.Ext(name) == ".pkt") {
				scripts = append(scripts, name)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return scripts, nil
}

// Run runs scripts and returns what came of them, in their order. When ctx is
// cancelled, what has not begun is left out as skipped.
func (s *Suite) Run(ctx context.Context, scripts []string) []Result {
	results := make([]Result, len(scripts))
	workers := s.Parallel
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	next := make(chan int)
	var wg sync.WaitGroup
	for range min(workers, len(scripts)) {
		wg.Go(func() {
			for i := range next {
				results[i] = s.runOne(ctx, scripts[i])
			}
		})
	}
	for i := range scripts {
		next <- i
	}
	close(next)
	wg.Wait()
	return results
}

// runOne runs a script, and judges it by the list of those that must fail.
func (s *Suite) runOne(ctx context.Context, path string) Result {
	if ctx.Err() != nil {
		return Result{Path: path, Status: Skipped, Reason: "cancelled"}
	}
	res := s.runFile(ctx, path)
	why, disabled := s.Disabled.reason(path)
	switch {
	case disabled && res.Status == Failed:
		res.Status, res.Reason = Skipped, "disabled: "+why
	case disabled && res.Status == Passed:
		res.Status, res.Line = Failed, 1
		res.Reason = fmt.Sprintf("it passes, although it is on the list of those that fail (%s): take it off", why)
	}
	return res
}

func (s *Suite) runFile(ctx context.Context, path string) Result {
	script, err := ReadFile(path, s.Defines)
	if err != nil {
		return failure(path, err)
	}
	cfg := s.Config
	if strings.HasSuffix(path, "-ipv6.pkt") && !slices.ContainsFunc(append(script.Options, cfg.Options...), isVersion) {
		cfg.Options = append(slices.Clone(cfg.Options), Option{Name: "ip_version", Value: "ipv6"}, Option{Name: "mtu", Value: "1500"})
	}
	return Run(ctx, script, cfg)
}

func isVersion(o Option) bool { return o.Name == "ip_version" }

// Count counts results by status.
func Count(results []Result) (passed, failed, skipped int) {
	for _, r := range results {
		switch r.Status {
		case Passed:
			passed++
		case Failed:
			failed++
		case Skipped:
			skipped++
		}
	}
	return passed, failed, skipped
}
