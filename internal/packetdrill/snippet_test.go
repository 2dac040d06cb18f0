package packetdrill

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// testScope is a scope with some names.
func testScope() *scope {
	return &scope{vars: map[string]value{}, look: func(name string) (value, bool, error) {
		switch name {
		case "tcpi_cwnd":
			return int64(10), true, nil
		case "tcpi_gone":
			return nil, false, errors.New("it is gone")
		}
		v, ok := constants[name]
		return v, ok, nil
	}}
}

func TestExpressions(t *testing.T) {
	for text, want := range map[string]value{
		"1 + 2 * 3":                    int64(7),
		"(1 + 2) * 3":                  int64(9),
		"7 // 2, -7 // 2":              nil,
		"7 // 2":                       int64(3),
		"-7 // 2":                      int64(-4),
		"-7 % 3":                       int64(2),
		"7 / 2":                        3.5,
		"1.5 * 2":                      3.0,
		"0x7fffffff":                   int64(0x7fffffff),
		"1_000":                        int64(1000),
		"1 << 4 | 3":                   int64(19),
		"6 & 3 ^ 1":                    int64(3),
		"~0":                           int64(-1),
		"- -3":                         int64(3),
		"not 0":                        int64(1),
		"not not 5":                    int64(1),
		"1 < 2 < 3":                    int64(1),
		"1 < 3 < 3":                    int64(0),
		"19 <= tcpi_cwnd <= 21":        int64(0),
		"tcpi_cwnd == 10":              int64(1),
		"1 == 1.0":                     int64(1),
		"'a' < 'b'":                    int64(1),
		"1 and 2":                      int64(2),
		"0 and nonsense":               int64(0),
		"1 or nonsense / 0":            int64(1),
		"0 or 3":                       int64(3),
		"True and not False":           int64(1),
		"(TCPI_OPT_SACK & 2) != 0":     int64(1),
		"TCP_CA_Recovery":              int64(3),
		"min(3, 1, 2) + max(4, 5)":     int64(6),
		"abs(-3)":                      int64(3),
		"int(3.7)":                     int64(3),
		"float(3)":                     3.0,
		"str(3) + 'x'":                 "3x",
		"'rtt=%d us' % 5":              "rtt=5 us",
		"'%d of %s' % (1, 'two')":      "1 of two",
		"\"quoted\"":                   "quoted",
		"(1)":                          int64(1),
		"9223372036854775807 == 1e3":   int64(0),
		"1 if 2":                       nil,
		"1 +":                          nil,
		"":                             nil,
		"1 / 0":                        nil,
		"1.0 // 0":                     nil,
		"1 % 0":                        nil,
		"1 << 64":                      nil,
		"'a' - 1":                      nil,
		"'a' < 1":                      nil,
		"-'a'":                         nil,
		"nonsense":                     nil,
		"tcpi_gone":                    nil,
		"exit(1)":                      nil,
		"min()":                        nil,
		"(1, 2":                        nil,
		"'no end":                      nil,
		"'%d' % 'x'":                   nil,
		"1 $ 2":                        nil,
		"__import__('os').system('x')": nil,
		strings.Repeat("(", 200) + "1": nil,
		"1.5 & 2":                      nil,
		"0x":                           nil,
	} {
		got, err := testScope().eval(text)
		switch {
		case want == nil && err == nil:
			t.Errorf("%s = %v, want an error", text, got)
		case want != nil && (err != nil || got != want):
			t.Errorf("%s = %v (%T), %v, want %v (%T)", text, got, got, err, want, want)
		}
	}
}

func TestStatements(t *testing.T) {
	s := testScope()
	var printed []string
	s.print = func(text string) { printed = append(printed, text) }
	err := s.run(`
# a comment; with a semicolon
import os
cwnd = old = 10     # both
cwnd += 2; cwnd *= 3
cwnd -= 1; cwnd //= 5; cwnd <<= 2; cwnd >>= 1; cwnd |= 1; cwnd &= 0xff; cwnd ^= 2; cwnd %= 100
print(cwnd, old); print('a # b; c')
assert cwnd == 13, cwnd
assert tcpi_cwnd == 10, \
    'cwnd=%d' % tcpi_cwnd
assert (tcpi_cwnd ==
        10)
pass
`)
	if err != nil {
		t.Error(err)
	}
	if want := []string{"13 10", "a # b; c"}; !slices.Equal(printed, want) {
		t.Errorf("printed %q, want %q", printed, want)
	}
}

func TestFailingStatements(t *testing.T) {
	for text, want := range map[string]string{
		"assert 1 == 2":                    "assertion failed: assert 1 == 2",
		"assert tcpi_cwnd == 7, tcpi_cwnd": "assertion failed: assert tcpi_cwnd == 7, tcpi_cwnd: 10",
		"assert 0, (1, 'x')":               "assertion failed: assert 0, (1, 'x'): (1, x)",
		"x = ":                             `"x =": a value is missing`,
		"x += 1":                           `"x += 1": there is nothing named x`,
		"assert":                           `"assert": a value is missing`,
		"assert 1 2":                       `"assert 1 2": "2" is not understood`,
		"open('x')":                        `"open('x')": open(x) is not understood`,
		"for x in 1: pass":                 `"for x in 1: pass": there is nothing named for`,
	} {
		if err := testScope().run(text); err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func FuzzSnippet(f *testing.F) {
	for _, text := range []string{"assert 1 <= x <= 2, 'a%d' % x", "x = y = 0x5; x //= 3", "print(min(1,2), not 3 or ~4)", "a\\\nb # c"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s := testScope()
		s.print = func(string) {}
		if err := s.run(text); err != nil && fmt.Sprint(err) == "" {
			t.Error("an error without words")
		}
	})
}
