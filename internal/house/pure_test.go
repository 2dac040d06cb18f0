package house

import (
	"fmt"
	"go/ast"
	"slices"
	"testing"
)

// pure are the packages that only compute: no goroutines, no clock.
var pure = []string{"stack/tcp/conn", "stack/tcp/cc"}

// clockFunctions are the functions of package time that look at the clock or
// wait for it. Its types and constants are welcome.
var clockFunctions = []string{
	"After", "AfterFunc", "NewTicker", "NewTimer", "Now", "Since", "Sleep", "Tick", "Until",
}

// impurities lists what a file does that a pure package may not.
func impurities(s *source) []string {
	var found []string
	add := func(n ast.Node, what string) {
		found = append(found, fmt.Sprintf("%s:%d: %s", s.name, s.line(n), what))
	}
	clock := importName(s, "time")
	ast.Inspect(s.tree, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			add(n, "starts a goroutine")
		case *ast.ChanType:
			add(n, "has a channel")
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok && clock != "" && x.Name == clock && slices.Contains(clockFunctions, n.Sel.Name) {
				add(n, "calls time."+n.Sel.Name)
			}
		case *ast.ImportSpec:
			if n.Name != nil && n.Name.Name == "." {
				add(n, "imports without a name")
			}
		}
		return true
	})
	return found
}

// importName is the name by which the file knows the package at imp, whose own
// name that is; "" if it does not.
func importName(s *source, imp string) string {
	for _, spec := range s.tree.Imports {
		switch {
		case spec.Path.Value != `"`+imp+`"`:
		case spec.Name != nil:
			return spec.Name.Name
		default:
			return imp
		}
	}
	return ""
}

// TestPure checks the packages that promise to be deterministic.
func TestPure(t *testing.T) {
	looked := make(map[string]bool)
	for _, s := range sources(t) {
		if s.isTest() || !slices.Contains(pure, s.dir()) {
			continue
		}
		looked[s.dir()] = true
		for _, f := range impurities(s) {
			t.Error(f)
		}
	}
	for _, p := range pure {
		if !looked[p] {
			t.Errorf("%s: no files found", p)
		}
	}
}

// TestImpuritiesAreSeen checks the check.
func TestImpuritiesAreSeen(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       int
	}{
		{"nothing", `package p; import "time"; const d = time.Second; func f(t time.Duration) {}`, 0},
		{"go", `package p; func f() { go f() }`, 1},
		{"chan", `package p; var c chan int`, 1},
		{"now", `package p; import "time"; var x = time.Now()`, 1},
		{"renamed", `package p; import clock "time"; func f() { clock.Sleep(clock.Since(x)) }`, 2},
		{"a function value", `package p; import "time"; var now = time.Now`, 1},
		{"dot", `package p; import . "time"`, 1},
		{"another's Now", `package p; func f(c clock) { c.Now() }`, 0},
	} {
		s, err := parse(tt.name+".go", []byte(tt.text))
		if err != nil {
			t.Fatal(err)
		}
		if got := impurities(s); len(got) != tt.want {
			t.Errorf("%s: got %q, want %d", tt.name, got, tt.want)
		}
	}
}
