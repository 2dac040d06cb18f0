package house

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"
)

// Packages of gVisor's that the walls speak of.
const (
	gvisor    = "gvisor.dev/gvisor/"
	gvisorTCP = "gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	gonet     = "gvisor.dev/gvisor/pkg/tcpip/adapters/gonet" // links gvisorTCP
)

// pureData are gVisor's packages that only describe data.
var pureData = []string{
	"gvisor.dev/gvisor/pkg/buffer",
	"gvisor.dev/gvisor/pkg/tcpip/header",
	"gvisor.dev/gvisor/pkg/tcpip/seqnum",
}

// wall says what a package's own code, tests aside, may import. A name that
// ends in /... covers what is below it. Standard packages are allowed unless
// denied.
type wall struct {
	packages string
	ours     []string // packages of this module
	others   []string // packages of other modules
	denied   []string // exceptions from the above, and from the standard library
}

// walls are asked in order; the first that covers a package is its wall.
var walls = []wall{
	{packages: "stack/tcp/cc", others: pureData, denied: effects},
	{packages: "stack/tcp/conn", ours: []string{"stack/tcp/cc", "stack/repair"}, others: pureData, denied: effects},
	{packages: "stack/tcp", ours: []string{"stack/tcp/conn", "stack/tcp/cc", "stack/repair"},
		others: []string{gvisor + "..."}, denied: []string{gvisorTCP}},
	{packages: "stack/repair"},
	{packages: "stack/repair/criu", ours: []string{"stack/repair"},
		others: []string{"github.com/checkpoint-restore/go-criu/v8/...", "google.golang.org/protobuf/..."}},
	{packages: "stack/repair/...", ours: []string{"stack/repair"}, others: []string{"golang.org/x/sys/..."}},
	{packages: "stack/tap", others: []string{gvisor + "...", "golang.org/x/sys/..."}, denied: []string{gvisorTCP}},
	{packages: "stack/...", ours: []string{"stack/..."}, others: []string{"..."}, denied: []string{gvisorTCP}},
	{packages: "internal/daemon", ours: []string{"stack/...", "internal/..."}, others: []string{"..."}, denied: []string{modulePath + "/internal/demo"}},
	{packages: "cmd/...", ours: []string{"internal/...", "stack/repair/..."}, others: []string{"..."}},
	// Those that compare ours with gVisor's TCP, or have it for a peer.
	{packages: "bench/...", ours: []string{"bench/...", "stack/...", "internal/..."}, others: []string{"..."}},
	{packages: "internal/netsim", ours: []string{"stack/...", "internal/..."}, others: []string{"..."}},
	{packages: "internal/demo", ours: []string{"stack/...", "internal/..."}, others: []string{"..."}},
	{packages: "...", ours: []string{"stack/...", "internal/..."}, others: []string{"..."}, denied: []string{gvisorTCP, gonet}},
}

// effects are the standard packages with which code could wait, look at the
// clock, roll dice or talk: what the connection is kept free of.
var effects = []string{
	"context", "crypto/rand", "log/...", "math/rand/...", "net/...", "os/...", "runtime/...", "sync/...", "syscall/...", "unsafe",
}

// household are the packages for serving people, and house those that may.
var (
	household = []string{
		"github.com/BurntSushi/toml/...", "github.com/alecthomas/kong/...", "github.com/prometheus/...", "net/http/...",
	}
	house = []string{"cmd/...", "internal/daemon/...", "internal/demo/..."}
)

// covers reports whether name is pattern, or below it where that ends in /...
func covers(pattern, name string) bool {
	base, below := strings.CutSuffix(pattern, "...")
	if !below {
		return pattern == name
	}
	return base == "" || name == strings.TrimSuffix(base, "/") || strings.HasPrefix(name, base)
}

// coversAny reports whether any of patterns covers name.
func coversAny(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return covers(p, name) })
}

// standard reports whether an import path is the standard library's.
func standard(imp string) bool {
	first, _, _ := strings.Cut(imp, "/")
	return !strings.Contains(first, ".")
}

// mayImport reports whether the package pkg of this module may import imp.
func mayImport(pkg, imp string) bool {
	if coversAny(household, imp) && !coversAny(house, pkg) {
		return false
	}
	w := walls[slices.IndexFunc(walls, func(w wall) bool { return covers(w.packages, pkg) })]
	if coversAny(w.denied, imp) {
		return false
	}
	if own, ok := strings.CutPrefix(imp, modulePath+"/"); ok {
		return coversAny(w.ours, own)
	}
	return standard(imp) || coversAny(w.others, imp)
}

// TestImports checks the direct imports of every file that is not a test,
// whatever system it is for.
func TestImports(t *testing.T) {
	for _, s := range sources(t) {
		if s.isTest() {
			continue
		}
		for _, imp := range s.imports() {
			if !mayImport(s.dir(), imp) {
				t.Errorf("%s: %s may not import %s", s.name, s.dir(), imp)
			}
		}
	}
}

// TestNoOtherTCP checks what the transport protocol links, at any distance:
// two TCPs in one stack would claim the same names.
func TestNoOtherTCP(t *testing.T) {
	deps := strings.Fields(run(t, "go", "list", "-e", "-deps", "./stack/tcp/..."))
	if !slices.Contains(deps, gvisor+"pkg/tcpip/stack") {
		t.Errorf("stack/tcp does not even link gVisor's stack: is this the right list? %d packages", len(deps))
	}
	if slices.Contains(deps, gvisorTCP) {
		t.Errorf("stack/tcp links %s:\n%s", gvisorTCP, why(t))
	}
}

// why lists the packages on the way to gVisor's TCP.
func why(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for line := range strings.Lines(run(t, "go", "list", "-e", "-deps", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "./stack/tcp/...")) {
		f := strings.Fields(line)
		if len(f) > 1 && slices.Contains(f[1:], gvisorTCP) {
			fmt.Fprintf(&b, "\tby way of %s\n", f[0])
		}
	}
	return b.String()
}

// TestWallsStand checks the walls themselves, lest they let everything through.
func TestWallsStand(t *testing.T) {
	for _, tt := range []struct {
		pkg, imp string
		want     bool
	}{
		{"stack/tcp/conn", "fmt", true},
		{"stack/tcp/conn", "sync", false},
		{"stack/tcp/conn", "sync/atomic", false},
		{"stack/tcp/conn", "math", true},
		{"stack/tcp/conn", "math/rand", false},
		{"stack/tcp/conn", "math/rand/v2", false},
		{"stack/tcp/conn", "log/slog", false},
		{"stack/tcp/conn", "net", false},
		{"stack/tcp/conn", "net/netip", false},
		{"stack/tcp/conn", gvisor + "pkg/tcpip/stack", false},
		{"stack/tcp/conn", gvisor + "pkg/tcpip", false},
		{"stack/tcp/conn", gvisor + "pkg/tcpip/header", true},
		{"stack/tcp/conn", modulePath + "/stack/tcp/cc", true},
		{"stack/tcp/conn", modulePath + "/stack/tcp", false},
		{"stack/tcp/cc", modulePath + "/stack/tcp/conn", false},
		{"stack/tcp", modulePath + "/stack/tcp/conn", true},
		{"stack/tcp", gvisor + "pkg/tcpip/stack", true},
		{"stack/tcp", gvisorTCP, false},
		{"stack/tcp", modulePath + "/stack", false},
		{"stack/repair", "net/netip", true},
		{"stack/repair", "golang.org/x/sys/unix", false},
		{"stack/repair", modulePath + "/stack/tcp/conn", false},
		{"stack/repair/linux", "golang.org/x/sys/unix", true},
		{"stack/repair/linux", modulePath + "/stack/repair", true},
		{"stack/repair/linux", modulePath + "/stack/tcp", false},
		{"stack/repair/linux", "google.golang.org/protobuf/proto", false},
		{"stack/repair/criu", "google.golang.org/protobuf/proto", true},
		{"stack/repair/criu", modulePath + "/stack/tcp", false},
		{"stack/tap", modulePath + "/stack/tcp", false},
		{"stack", modulePath + "/stack/tcp", true},
		{"stack", modulePath + "/internal/daemon", false},
		{"stack", "net/http", false},
		{"internal/daemon", "net/http", true},
		{"internal/daemon", "github.com/prometheus/client_golang/prometheus", true},
		{"internal/daemon", modulePath + "/internal/demo", false},
		{"internal/netlab", "net/http/httptest", false},
		{"internal/netlab", "github.com/alecthomas/kong", false},
		{"cmd/ustack", "github.com/alecthomas/kong", true},
		{"cmd/ustack", modulePath + "/internal/daemon", true},
		{"cmd/ustack", modulePath + "/stack/tcp", false},
		{"internal/daemon", modulePath + "/cmd/ustack", false},
		{"bench", gvisorTCP, true},
		{"bench", gonet, true},
		{"bench", modulePath + "/bench/inmemory", true},
		{"internal/netsim", gvisorTCP, true},
		{"internal/packetdrill", gvisorTCP, false},
		{"internal/netlab", gonet, false},
		{"stack", modulePath + "/bench/inmemory", false},
	} {
		if got := mayImport(tt.pkg, tt.imp); got != tt.want {
			t.Errorf("may %s import %s? got %v, want %v", tt.pkg, path.Base(tt.imp), got, tt.want)
		}
	}
}
