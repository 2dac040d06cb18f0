package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What drill says, and with which status it ends.
func TestDrill(t *testing.T) {
	dir := t.TempDir()
	write := func(name, script string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(script), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const listen = `0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
+0 bind(3, ..., ...) = 0
+0 listen(3, 1) = 0
+0 < S 0:0(0) win 1000 <mss 1000>
`
	good := write("good.pkt", listen+"+0 > S. 0:0(0) ack 1 <...>\n")
	bad := write("bad.pkt", listen+"+0 > S. 0:0(0) ack 2 <...>\n")
	broken := write("broken.pkt", "0 socket(\n")
	for _, tt := range []struct {
		args   []string
		status int
		want   string
	}{
		{[]string{good}, 0, "1 passed, 0 failed, 0 skipped"},
		{[]string{bad}, 1, "0 passed, 1 failed, 0 skipped"},
		{[]string{good, bad}, 1, "1 passed, 1 failed, 0 skipped"},
		{[]string{broken}, 1, "0 passed, 1 failed, 0 skipped"},
		{[]string{filepath.Join(dir, "missing.pkt")}, 2, "missing.pkt"},
		{[]string{good, "--relax=colour"}, 2, "colour"},
	} {
		var stdout, stderr bytes.Buffer
		status := run(append([]string{"drill"}, tt.args...), &stdout, &stderr)
		if out := stdout.String() + stderr.String(); status != tt.status || !strings.Contains(out, tt.want) {
			t.Errorf("%q: status %d, want %d and %q:\n%s", tt.args, status, tt.status, tt.want, out)
		}
	}
}
