package house

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// modulePath is the module's path.
const modulePath = "github.com/tcprepair/ustack"

// source is one Go file of the repository.
type source struct {
	name string // from the repository's root, with slashes
	text []byte
	fset *token.FileSet
	tree *ast.File
}

// isTest reports whether the file is compiled into tests only.
func (s *source) isTest() bool { return strings.HasSuffix(s.name, "_test.go") }

// dir is the file's package, from the repository's root.
func (s *source) dir() string { return path.Dir(s.name) }

// imports are the paths that the file imports.
func (s *source) imports() []string {
	var paths []string
	for _, spec := range s.tree.Imports {
		p, err := strconv.Unquote(spec.Path.Value)
		if err == nil {
			paths = append(paths, p)
		}
	}
	return paths
}

// line is where in the file a node is.
func (s *source) line(n ast.Node) int { return s.fset.Position(n.Pos()).Line }

// parse makes a source of text.
func parse(name string, text []byte) (*source, error) {
	s := &source{name: name, text: text, fset: token.NewFileSet()}
	tree, err := parser.ParseFile(s.fset, name, text, parser.ParseComments|parser.SkipObjectResolution)
	s.tree = tree
	return s, err
}

// root is the repository's root directory.
var root = sync.OnceValues(func() (string, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	return strings.TrimSpace(string(out)), err
})

// repositoryRoot is the repository's root directory, or the end of the test.
func repositoryRoot(t *testing.T) string {
	t.Helper()
	dir, err := root()
	if err != nil {
		t.Fatalf("find the module's root: %v", err)
	}
	return dir
}

// walk visits every file of the repository that people write.
func walk(t *testing.T, visit func(name string, text []byte)) {
	t.Helper()
	dir := repositoryRoot(t)
	err := filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, file)
		if err != nil {
			return err
		}
		name = filepath.ToSlash(name)
		if d.IsDir() {
			switch path.Base(name) {
			case ".git", "bin", "testdata":
				return filepath.SkipDir
			}
			return nil
		}
		if !d.Type().IsRegular() || !written(name) {
			return nil
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		visit(name, text)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// written reports whether a file of this name is source of some kind.
func written(name string) bool {
	switch path.Ext(name) {
	case ".go", ".sh", ".mod", ".html", ".css", ".js":
		return true
	}
	return name == "Makefile" || name == ".ci/run"
}

// sources are the repository's Go files.
func sources(t *testing.T) []*source {
	t.Helper()
	var all []*source
	walk(t, func(name string, text []byte) {
		if path.Ext(name) != ".go" {
			return
		}
		s, err := parse(name, text)
		if err != nil {
			t.Errorf("%v", err)
			return
		}
		all = append(all, s)
	})
	if len(all) == 0 {
		t.Fatal("no Go files found: the house is not looked at")
	}
	return all
}

// run runs a command in the repository's root and returns what it printed.
func run(t *testing.T, name string, arg ...string) string {
	t.Helper()
	cmd := exec.Command(name, arg...)
	cmd.Dir = repositoryRoot(t)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%s: %v\n%s", cmd, err, out)
	}
	return string(out)
}
