package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Only the table of our section is replaced; a file without one is left alone,
// and so is one whose directory takes no more.
func TestWriteSection(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file.md")
	const text = "# Other\n\n| a |\n|---|\n\n" + heading + "\nWords.\n\n| old |\n|---|\n| 1 |\n\nMore words.\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := writeSection(file, "| new |\n|---|\n"); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if want := strings.Replace(text, "| old |\n|---|\n| 1 |\n", "| new |\n|---|\n", 1); err != nil || string(b) != want {
		t.Errorf("%q, %v; want %q", b, err, want)
	}
	for _, other := range []string{"no section\n", heading + "no table\n"} {
		if err := os.WriteFile(file, []byte(other), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := writeSection(file, "| new |\n"); err == nil {
			t.Errorf("%q: accepted", other)
		}
		if b, err := os.ReadFile(file); err != nil || string(b) != other {
			t.Errorf("%q, %v", b, err)
		}
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}
