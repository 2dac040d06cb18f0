package packetdrill

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// scripts writes files and returns their directory.
func scripts(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const (
	goodScript    = "0 close(9) = -1 EBADF\n"
	badScript     = "0 close(9) = 0\n"
	skippedScript = "0 sendfile(1, 2, [0], 3) = 3\n"
	brokenScript  = "0 close(9\n"
)

// drill runs Main and returns what it printed.
func drill(t *testing.T, o Options) (status int, out, errs string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	status = Main(context.Background(), Ours(), o, &stdout, &stderr)
	return status, stdout.String(), stderr.String()
}

func TestDrill(t *testing.T) {
	dir := scripts(t, map[string]string{
		"a/good.pkt": goodScript, "a/deep/bad.pkt": badScript, "b/skipped.pkt": skippedScript, "broken.pkt": brokenScript,
		"README": "no script", "other": goodScript,
	})
	in := func(name string) string { return filepath.Join(dir, filepath.FromSlash(name)) }

	status, out, errs := drill(t, Options{Paths: []string{dir}})
	want := in("a/deep/bad.pkt") + ":1: close returned something else\n  expected: 0\n    actual: -1 EBADF\n" +
		in("broken.pkt") + ":2: end of file where \",\" should stand\n1 passed, 2 failed, 1 skipped\n"
	if status != 1 || out != want || errs != "" {
		t.Errorf("status %d, stdout\n%s, stderr %q; want\n%s", status, out, errs, want)
	}

	status, out, _ = drill(t, Options{Paths: []string{in("a/good.pkt"), in("other"), in("b")}})
	if status != 0 || out != "2 passed, 0 failed, 1 skipped\n" {
		t.Errorf("status %d, stdout\n%s", status, out)
	}

	status, out, _ = drill(t, Options{Paths: []string{in("a/good.pkt"), in("b")}, Verbose: true})
	want = in("a/good.pkt") + ": passed\n" + in("b/skipped.pkt") + ": skipped: not supported: sendfile\n1 passed, 0 failed, 1 skipped\n"
	if status != 0 || out != want {
		t.Errorf("status %d, stdout\n%s, want\n%s", status, out, want)
	}
}

func TestDrillJSON(t *testing.T) {
	dir := scripts(t, map[string]string{"good.pkt": goodScript, "bad.pkt": badScript})
	status, out, _ := drill(t, Options{Paths: []string{dir}, JSON: true})
	var got []map[string]any
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err)
	}
	if status != 1 || len(got) != 2 || got[0]["status"] != "failed" || got[0]["actual"] != "-1 EBADF" || got[1]["status"] != "passed" {
		t.Errorf("status %d: %v", status, got)
	}
}

func TestDrillUsage(t *testing.T) {
	dir := scripts(t, map[string]string{
		"good.pkt": goodScript, "empty/x": "", "not.json": "{", "noreason.json": `{"good.pkt": " "}`, "stale.json": `{"gone.pkt": "why"}`,
	})
	in := func(name string) string { return filepath.Join(dir, name) }
	good := []string{in("good.pkt")}
	for name, c := range map[string]struct {
		o    Options
		want string
	}{
		"no such file":   {Options{Paths: []string{in("gone.pkt")}}, "no such file or directory"},
		"no scripts":     {Options{Paths: []string{in("empty")}}, "no scripts found: their names end in .pkt"},
		"relax":          {Options{Paths: good, Relax: "x"}, `--relax: "x" is none of psh, win, optorder`},
		"version":        {Options{Paths: good, IPVersion: "6"}, `--ip_version: "6" is none of ipv4, ipv6, ipv4-mapped-ipv6`},
		"mtu":            {Options{Paths: good, MTU: 7}, `"7" is not within 68 and 65535`},
		"tolerance":      {Options{Paths: good, ToleranceUsecs: -1}, `"-1" is no number of microseconds`},
		"disabled":       {Options{Paths: good, Disabled: in("gone.json")}, "no such file or directory"},
		"disabled JSON":  {Options{Paths: good, Disabled: in("not.json")}, "unexpected end of JSON input"},
		"disabled why":   {Options{Paths: good, Disabled: in("noreason.json")}, "good.pkt: the reason is missing"},
		"disabled stale": {Options{Paths: good, Disabled: in("stale.json")}, "names [gone.pkt], which do not exist"},
	} {
		status, out, errs := drill(t, c.o)
		if status != 2 || out != "" || !strings.HasPrefix(errs, "ustack: drill: ") || !strings.HasSuffix(errs, c.want+"\n") || strings.Count(errs, "\n") != 1 {
			t.Errorf("%s: status %d, stdout %q, stderr %q; want %q", name, status, out, errs, c.want)
		}
	}
}

func TestDisabled(t *testing.T) {
	dir := scripts(t, map[string]string{
		"a/good.pkt": goodScript, "a/bad.pkt": badScript, "a/skipped.pkt": skippedScript,
		"disabled.json": `{"a/good.pkt": "it used to fail", "a/bad.pkt": "close is wrong", "a/skipped.pkt": "it is skipped anyway"}`,
	})
	status, out, _ := drill(t, Options{Paths: []string{dir}, Disabled: filepath.Join(dir, "disabled.json"), Verbose: true})
	want := filepath.Join(dir, "a/bad.pkt") + ": skipped: disabled: close is wrong\n" +
		filepath.Join(dir, "a/good.pkt") + ":1: it passes, although it is on the list of those that fail (it used to fail): take it off\n" +
		filepath.Join(dir, "a/skipped.pkt") + ": skipped: not supported: sendfile\n" +
		"0 passed, 1 failed, 2 skipped\n"
	if status != 1 || out != want {
		t.Errorf("status %d, stdout\n%s, want\n%s", status, out, want)
	}
}

// TestParallel runs many scripts side by side: their stacks and clocks are
// their own. Run it with the race detector.
func TestParallel(t *testing.T) {
	files := make(map[string]string)
	for _, name := range strings.Fields("a b c d e f g h i j k l m n o p") {
		files[name+".pkt"] = opening + "+0 write(4, ..., 10) = 10\n+0 > P. 1:11(10) ack 1\n+.21 > P. 1:11(10) ack 1\n"
	}
	status, out, _ := drill(t, Options{Paths: []string{scripts(t, files)}, Parallel: 8, Strict: true})
	if status != 0 || out != "16 passed, 0 failed, 0 skipped\n" {
		t.Errorf("status %d, stdout\n%s", status, out)
	}
}

func TestRunCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	var s Suite
	s.Config = Ours()
	got := s.Run(ctx, []string{"nowhere.pkt"})
	if len(got) != 1 || got[0].String() != "nowhere.pkt: skipped: cancelled" {
		t.Errorf("%v", got)
	}
}
