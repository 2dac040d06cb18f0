package house

import (
	"bytes"
	"go/format"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// roomSize is the number of lines that a file of code stays under.
const roomSize = 500

func TestRoomSize(t *testing.T) {
	for _, s := range sources(t) {
		if n := bytes.Count(s.text, []byte("\n")); !s.isTest() && n >= roomSize {
			t.Errorf("%s: %d lines: split it by responsibility", s.name, n)
		}
	}
}

func TestGofmt(t *testing.T) {
	for _, s := range sources(t) {
		want, err := format.Source(s.text)
		if err != nil {
			t.Errorf("%s: %v", s.name, err)
		} else if !bytes.Equal(want, s.text) {
			t.Errorf("%s: not formatted by gofmt", s.name)
		}
	}
}

func TestVet(t *testing.T) {
	if testing.Short() {
		t.Skip("go vet takes a while")
	}
	run(t, "go", "vet", "./...")
}

func TestLicence(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(repositoryRoot(t), "LICENSE"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Apache License", "Version 2.0, January 2004", "END OF TERMS AND CONDITIONS"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("LICENSE does not say %q", want)
		}
	}
}

// unfinished are the words by which people put off work. They are spelt in two
// halves so that this file may stand.
var unfinished = regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|XX` + `X)\b`)

func TestNothingPutOff(t *testing.T) {
	walk(t, func(name string, text []byte) {
		for i, line := range bytes.Split(text, []byte("\n")) {
			if w := unfinished.Find(line); w != nil {
				t.Errorf("%s:%d: says %s: do it, or list it among CHANGELOG's known gaps", name, i+1, w)
			}
		}
	})
	if !unfinished.MatchString("// TO" + "DO: later") {
		t.Error("the words are not recognised")
	}
}
