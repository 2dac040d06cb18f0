package packetdrill

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const scriptDir = "../../testdata/packetdrill"

// TestScripts runs the scripts of this repository, each with IPv4, with IPv6
// and with IPv4 on an IPv6 socket, and each with and without segmentation
// offload.
func TestScripts(t *testing.T) {
	disabled, err := ReadDisabled(filepath.Join(scriptDir, "disabled.json"))
	if err != nil {
		t.Fatal(err)
	}
	if missing := disabled.Missing(); missing != nil {
		t.Errorf("disabled.json names %v, which do not exist", missing)
	}
	scripts, err := Find([]string{scriptDir})
	if err != nil {
		t.Fatal(err)
	}
	if len(scripts) < 120 {
		t.Errorf("there are only %d scripts", len(scripts))
	}
	for _, version := range []string{"ipv4", "ipv6", "ipv4-mapped-ipv6"} {
		for _, gso := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/gso=%v", version, gso), func(t *testing.T) {
				t.Parallel()
				s := &Suite{Config: Ours(), Disabled: disabled}
				s.Options = []Option{{Name: "ip_version", Value: version}}
				s.Defines = usualDefines(version)
				s.Strict, s.GSO = true, gso
				s.Seed = uint64(len(version))
				// Linux sets PSH on what it hands to the link in one piece.
				// Without offload nothing is, and what is hidden by it may
				// pass though it is disabled.
				s.Relax.Push = !gso
				for _, r := range s.Run(context.Background(), forVersion(scripts, version)) {
					switch {
					case r.Status == Failed && !gso && strings.Contains(r.Reason, "take it off"):
					case r.Status == Failed:
						t.Error(r)
					case r.Status == Skipped && !strings.HasPrefix(r.Reason, "disabled: "):
						t.Error(r)
					}
				}
			})
		}
	}
}

// forVersion leaves out the scripts that are for another version of IP.
func forVersion(scripts []string, version string) (list []string) {
	for _, s := range scripts {
		base := strings.TrimSuffix(s, ".pkt")
		if strings.HasSuffix(base, "-v4") && version == "ipv6" || strings.HasSuffix(base, "-v6") && version != "ipv6" {
			continue
		}
		list = append(list, s)
	}
	return list
}

// TestSeedsDoNotMatter runs the scripts with other sequence numbers, of which
// some wrap around.
func TestSeedsDoNotMatter(t *testing.T) {
	scripts, err := Find([]string{scriptDir})
	if err != nil {
		t.Fatal(err)
	}
	outcomes := make([]string, len(scripts))
	for seed := range uint64(8) {
		s := &Suite{Config: Ours()}
		s.Defines = usualDefines("ipv4")
		s.Strict, s.GSO, s.Seed = true, true, 1000*seed
		for i, r := range s.Run(context.Background(), scripts) {
			switch {
			case seed == 0:
				outcomes[i] = r.String()
			case outcomes[i] != r.String():
				t.Errorf("with seed %d:\n%s\nwith seed 0:\n%s", s.Seed, r, outcomes[i])
			}
		}
	}
}

// TestScriptsSayWhy looks for what a reader needs: a first line that says what
// is shown, and a source.
func TestScriptsSayWhy(t *testing.T) {
	scripts, err := Find([]string{scriptDir})
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]string)
	for _, path := range scripts {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.SplitN(string(text), "\n", 2)
		comment, _, _ := strings.Cut(string(text), "\n\n")
		if !strings.HasPrefix(lines[0], "// ") {
			t.Errorf("%s does not begin with a comment", path)
		}
		if !strings.Contains(comment, "RFC") && !strings.Contains(comment, "Linux") && !strings.Contains(comment, "(2)") &&
			!strings.Contains(comment, "(7)") && !strings.Contains(comment, "Ours") && !strings.Contains(comment, "draft-") {
			t.Errorf("%s does not say where its expectation comes from", path)
		}
		if other, ok := seen[lines[0]]; ok {
			t.Errorf("%s and %s begin alike: %s", path, other, lines[0])
		}
		seen[lines[0]] = path
	}
}
