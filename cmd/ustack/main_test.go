package main

import (
	"bytes"
	"encoding/json"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tcprepair/ustack/internal/daemon"
	"github.com/tcprepair/ustack/stack"
)

// Wrong use is one clear line on stderr, nothing on stdout, and status 2; what
// did not work is the same with status 1.
func TestExitStatus(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	dead := filepath.Join(dir, "dead.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dead, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	none := filepath.Join(dir, "none.sock")

	on := func(args ...string) []string {
		return append([]string{"run", "--tap", "ustack9", "--control", none}, args...)
	}
	for _, tt := range []struct {
		args   []string
		status int
		want   string
	}{
		{nil, 2, "ustack --help"},
		{[]string{"frobnicate"}, 2, "frobnicate"},
		{[]string{"run"}, 2, "--addr"},
		{[]string{"run", "--addr", "10.0.0.2/24"}, 2, "--tap"},
		{[]string{"run", "--tap", "a", "--tap-fd", "3", "--addr", "10.0.0.2/24"}, 2, "--tap-fd"},
		{on(), 2, "--addr"},
		{on("--addr", "10.0.0.2"), 2, `"10.0.0.2" is not an address with a network length`},
		{on("--addr", "10.0.0.2/33"), 2, "10.0.0.2/33"},
		{on("--addr", "10.0.0.2/24,nonsense"), 2, "nonsense"},
		{on("--addr", "10.0.0.0/24"), 2, "10.0.0.0/24"},
		{on("--addr", "10.0.0.2/24", "--gateway", "router"), 2, `"router" is not an IP address`},
		{on("--addr", "10.0.0.2/24", "--gateway", "10.1.0.1"), 2, "10.1.0.1"},
		{on("--addr", "10.0.0.2/24", "--serve", "gopher:70"), 2, "gopher"},
		{on("--addr", "10.0.0.2/24", "--serve", "echo"), 2, "NAME:PORT"},
		{on("--addr", "10.0.0.2/24", "--serve", "echo:99999"), 2, "99999"},
		{on("--addr", "10.0.0.2/24", "--serve", "echo:7", "--serve", "sink:7"), 2, "taken by echo:7"},
		{on("--addr", "10.0.0.2/24", "--serve", "http:80"), 2, "which directory"},
		{on("--addr", "10.0.0.2/24", "--serve", "http:80="+filepath.Join(dir, "missing")), 2, "missing"},
		{on("--addr", "10.0.0.2/24", "--serve", "http:80="+file), 2, "not a directory"},
		{on("--addr", "10.0.0.2/24", "--mtu", "many"), 2, "--mtu"},
		{on("--addr", "10.0.0.2/24", "--mtu", "70000"), 2, "70000"},
		{on("--addr", "10.0.0.2/24", "--mtu", "20"), 2, "20"},
		{on("--addr", "10.0.0.2/24", "--grace", "soon"), 2, "--grace"},
		{on("--addr", "10.0.0.2/24", "--grace=-1s"), 2, "--grace"},
		{on("--addr", "10.0.0.2/24", "--max-conns", "0"), 2, "--max-conns"},
		{on("--addr", "127.0.0.1/8"), 2, "127.0.0.1"},
		{on("--addr", "10.0.0.2/24", "--gateway", "10.0.0.2"), 2, "10.0.0.2"},
		{on("--addr", "fd00::2/64", "--mtu", "1279"), 2, "1280"},
		{on("--addr", "10.0.0.2/24", "--log-level", "loud"), 2, "loud"},
		{on("--addr", "10.0.0.2/24", "--bogus"), 2, "--bogus"},
		{[]string{"run", "--tap", "a-name-that-is-too-long", "--addr", "10.0.0.2/24", "--control", none}, 2, "a-name-that-is-too-long"},
		{[]string{"run", "--tap-fd", "987", "--addr", "10.0.0.2/24", "--control", none}, 1, ""},
		{[]string{"run", "--tap", "ustack9", "--addr", "10.0.0.2/24", "--control", file}, 1, "not a socket"},
		{[]string{"conns", "--control", none}, 1, none},
		{[]string{"conns", "--control", dead}, 1, "nobody answers"},
		{[]string{"conns", "--control", file}, 1, "not a socket"},
		{[]string{"conns", "--control", ""}, 2, "--control"},
		{[]string{"bury"}, 2, "<id>"},
		{[]string{"bury", "3", "--control", none}, 1, none},
		{[]string{"dump", "3", "--json"}, 2, "--json"},
		{[]string{"dump", "--pid=-3", "--fd", "1"}, 2, "--pid"},
		{[]string{"drill", "--parallel=-1", dir}, 2, "--parallel"},
		{[]string{"conns", "extra"}, 2, "extra"},
		{[]string{"drops", "--control", none}, 1, none},
		{[]string{"status", "--control", none}, 1, none},
		{[]string{"demo", "--link", "string"}, 2, "string"},
		{[]string{"repair"}, 2, "expected one of"},
		{[]string{"repair", "on"}, 2, "<id>"},
		{[]string{"repair", "on", "first"}, 2, "first"},
		{[]string{"repair", "on", "-3"}, 2, "-3"},
		{[]string{"repair", "on", "3", "--no-probe"}, 2, "--no-probe"},
		{[]string{"repair", "sideways", "3"}, 2, "sideways"},
		{[]string{"repair", "off", "3", "--control", none}, 1, none},
	} {
		var stdout, stderr bytes.Buffer
		status := run(tt.args, &stdout, &stderr)
		line := stderr.String()
		if status != tt.status || !strings.Contains(line, tt.want) {
			t.Errorf("%q: status %d, %q; want %d and %q", tt.args, status, line, tt.status, tt.want)
		}
		if strings.Count(line, "\n") != 1 || !strings.HasPrefix(line, "ustack: ") || stdout.Len() != 0 {
			t.Errorf("%q: not one line on stderr: %q; stdout %q", tt.args, line, stdout.String())
		}
	}
	if left, _ := os.ReadDir(dir); len(left) != 2 {
		t.Errorf("left behind: %v", left)
	}
}

func TestHelpAndVersion(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want []string
	}{
		{[]string{"--help"}, []string{"run ", "conns", "repair on", "repair off", "drops", "status", "demo", "snapshot show", "snapshot from-criu", "version"}},
		{[]string{"run", "--help"}, []string{"Examples", "http:80=DIR", "sink", "--gateway", "--control", "SIGTERM"}},
		{[]string{"repair", "off", "--help"}, []string{"--no-probe", "<id>"}},
		{[]string{"version"}, []string{"ustack ", "gvisor"}},
		{[]string{"--version"}, []string{"ustack ", "gvisor"}},
	} {
		var stdout, stderr bytes.Buffer
		if status := run(tt.args, &stdout, &stderr); status != 0 || stderr.Len() != 0 {
			t.Errorf("%q: status %d, stderr %q", tt.args, status, stderr.String())
		}
		for _, w := range tt.want {
			if !strings.Contains(stdout.String(), w) {
				t.Errorf("%q does not say %q:\n%s", tt.args, w, stdout.String())
			}
		}
	}
}

func TestPrintConns(t *testing.T) {
	var out bytes.Buffer
	err := printConns(&out, []daemon.Conn{{
		ID: 3, State: "ESTABLISHED", Frozen: true, Unread: 5, Unacked: 9, RTTMicros: 1500, Cwnd: 14480,
		Local:  netip.MustParseAddrPort("10.0.0.2:7"),
		Remote: netip.MustParseAddrPort("[fd00::1]:40000"),
		Drops:  stack.Drops{"SOCKET_REPAIR": 2, "TCP_OLD_DATA": 1},
	}})
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 2 {
		t.Fatalf("%d lines:\n%s", len(lines), out.String())
	}
	want := []string{"3", "ESTABLISHED", "(frozen)", "10.0.0.2:7", "[fd00::1]:40000", "5", "9", "1.5ms", "14480", "3"}
	if got := strings.Fields(lines[1]); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// All keys of the JSON are of one style.
func TestJSONKeys(t *testing.T) {
	var out bytes.Buffer
	if err := printJSON(&out, []any{daemon.Conn{}, daemon.Status{Services: []daemon.ServiceStatus{{}}}}); err != nil {
		t.Fatal(err)
	}
	if bad := regexp.MustCompile(`"[^"]*[A-Z][^"]*":`).FindAllString(out.String(), -1); bad != nil {
		t.Errorf("keys: %v", bad)
	}
}

func TestPrintJSON(t *testing.T) {
	var out bytes.Buffer
	if err := printJSON(&out, []daemon.Conn{{ID: 3}}); err != nil {
		t.Fatal(err)
	}
	var back []map[string]any
	if err := json.Unmarshal(out.Bytes(), &back); err != nil || back[0]["id"] != 3.0 {
		t.Errorf("%v, %v", back, err)
	}
}
