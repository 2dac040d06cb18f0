package packetdrill

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// kind is the kind of a token.
type kind int

const (
	tokEOF     kind = iota
	tokWord         // letters, digits, underscores, not all digits
	tokInt          // 12, -12
	tokHex          // 0x12
	tokFloat        // .5, 1.5
	tokString       // "…"
	tokCommand      // `…`
	tokCode         // %{…}%
	tokOption       // --name
	tokDots         // ...
	tokPunct        // any other character
)

// token is one token. The text is without quotes and brackets.
type token struct {
	kind kind
	text string
	line int
	pos  int // where it begins in the source
}

func (t token) String() string {
	switch t.kind {
	case tokEOF:
		return "end of file"
	case tokString:
		return strconv.Quote(t.text)
	case tokCommand:
		return "a command"
	case tokCode:
		return "a code snippet"
	}
	return strconv.Quote(t.text)
}

// SyntaxError is a fault in a script.
type SyntaxError struct {
	Path string
	Line int
	Msg  string
}

func (e *SyntaxError) Error() string { return fmt.Sprintf("%s:%d: %s", e.Path, e.Line, e.Msg) }

// lexer cuts a script into tokens. It is driven by the parser, because where
// flags and option values stand the ordinary rules do not hold.
type lexer struct {
	src     string
	pos     int
	line    int
	ahead   *token // what peek saw
	end     int    // where the last token taken ends
	err     string // first fault, at errLine
	errLine int
}

func newLexer(src string) *lexer { return &lexer{src: src, line: 1} }

func (l *lexer) fail(line int, format string, args ...any) {
	if l.err == "" {
		l.err, l.errLine = fmt.Sprintf(format, args...), line
	}
}

// peek returns the next token and leaves it there.
func (l *lexer) peek() token {
	if l.ahead == nil {
		t := l.scan()
		l.ahead = &t
	}
	return *l.ahead
}

// next takes the next token.
func (l *lexer) next() token {
	t := l.peek()
	l.ahead = nil
	l.end = l.pos
	return t
}

// raw takes everything up to white space, after white space. No token may have
// been peeked.
func (l *lexer) raw() string {
	l.space()
	return l.tail()
}

// tail takes everything up to white space, if there is anything. What is in
// quotes may hold white space. No token may have been peeked.
func (l *lexer) tail() string {
	start := l.pos
	for l.pos < len(l.src) && !isSpace(l.src[l.pos]) {
		if c := l.src[l.pos]; c == '"' || c == '`' {
			l.quoted(c)
		} else {
			l.pos++
		}
	}
	l.end = l.pos
	return l.src[start:l.pos]
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }
func isDigit(c byte) bool { return '0' <= c && c <= '9' }
func isWord(c byte) bool {
	return c == '_' || isDigit(c) || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

func (l *lexer) rest() string { return l.src[l.pos:] }

// advance moves over n bytes and counts lines.
func (l *lexer) advance(n int) {
	l.line += strings.Count(l.src[l.pos:l.pos+n], "\n")
	l.pos += n
}

// space skips white space and comments.
func (l *lexer) space() {
	for l.pos < len(l.src) {
		switch {
		case isSpace(l.src[l.pos]):
			l.advance(1)
		case strings.HasPrefix(l.rest(), "//"):
			if n := strings.IndexByte(l.rest(), '\n'); n >= 0 {
				l.advance(n)
			} else {
				l.pos = len(l.src)
			}
		case strings.HasPrefix(l.rest(), "/*"):
			n := strings.Index(l.rest()[2:], "*/")
			if n < 0 {
				l.fail(l.line, "comment without end")
				l.pos = len(l.src)
				return
			}
			l.advance(n + 4)
		default:
			return
		}
	}
}

func (l *lexer) scan() token {
	l.space()
	t := token{line: l.line, pos: l.pos}
	if l.pos == len(l.src) {
		return t
	}
	rest := l.rest()
	switch {
	case strings.HasPrefix(rest, "..."):
		t.kind = tokDots
		t.text = l.take(3)
	case strings.HasPrefix(rest, "%{"):
		t.kind = tokCode
		t.text = l.enclosed("%{", "}%")
	case rest[0] == '"':
		t.kind = tokString
		t.text = unescape(l.quoted('"'))
	case rest[0] == '`':
		t.kind = tokCommand
		t.text = l.quoted('`')
	case strings.HasPrefix(rest, "--") && len(rest) > 2 && isWord(rest[2]):
		t.kind = tokOption
		l.pos += 2
		t.text = l.take(span(l.rest()))
	default:
		t.kind, t.text = l.number()
	}
	return t
}

// number takes a number, a word or a single character, whichever is longest.
func (l *lexer) number() (kind, string) {
	rest := l.rest()
	sign := 0
	if rest[0] == '-' {
		sign = 1
	}
	digits := sign
	for digits < len(rest) && isDigit(rest[digits]) {
		digits++
	}
	word := span(rest)
	if digits+1 < len(rest) && rest[digits] == '.' && isDigit(rest[digits+1]) {
		n := digits + 1
		for n < len(rest) && isDigit(rest[n]) {
			n++
		}
		if n > word {
			return tokFloat, l.take(n)
		}
	}
	switch {
	case digits > sign && digits >= word:
		return tokInt, l.take(digits)
	case word > 2 && strings.HasPrefix(rest, "0x") && strings.Trim(rest[2:word], "0123456789abcdefABCDEF") == "":
		return tokHex, l.take(word)
	case word > 0:
		return tokWord, l.take(word)
	}
	return tokPunct, l.take(1)
}

// span is the length of the word at the beginning of s.
func span(s string) int {
	n := 0
	for n < len(s) && isWord(s[n]) {
		n++
	}
	return n
}

func (l *lexer) take(n int) string {
	s := l.src[l.pos : l.pos+n]
	l.advance(n)
	return s
}

// enclosed takes a text between brackets.
func (l *lexer) enclosed(open, end string) string {
	line := l.line
	n := strings.Index(l.rest(), end)
	if n < 0 {
		l.fail(line, "%s without %s", open, end)
		n = len(l.rest()) - len(end)
		if n < len(open) {
			l.pos = len(l.src)
			return ""
		}
	}
	s := l.rest()[len(open):n]
	l.advance(n + len(end))
	return s
}

// quoted takes a text in quotes; a backslash takes the next character along.
func (l *lexer) quoted(q byte) string {
	rest, line := l.rest(), l.line
	for i := 1; i < len(rest); i++ {
		switch rest[i] {
		case '\\':
			i++
		case q:
			l.advance(i + 1)
			return rest[1:i]
		}
	}
	l.fail(line, "%c without its counterpart", q)
	l.pos = len(l.src)
	return ""
}

// unescape resolves C's escape sequences. What is none stays as it is.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for s != "" {
		if s[0] == '\\' {
			if r, _, tail, err := strconv.UnquoteChar(s, '"'); err == nil && r < 256 {
				b.WriteByte(byte(r))
				s = tail
				continue
			}
		}
		b.WriteByte(s[0])
		s = s[1:]
	}
	return b.String()
}

// seconds reads a number of seconds exactly, to the nanosecond.
func seconds(s string) (time.Duration, error) {
	whole, frac, _ := strings.Cut(s, ".")
	if whole == "" {
		whole = "0"
	}
	if len(frac) > 9 {
		frac = frac[:9]
	}
	sec, err := strconv.ParseInt(whole, 10, 32)
	if err != nil || strings.HasPrefix(s, "-") {
		return 0, fmt.Errorf("bad time %q", s)
	}
	ns, err := strconv.ParseInt((frac + "000000000")[:9], 10, 32)
	if err != nil {
		return 0, fmt.Errorf("bad time %q", s)
	}
	return time.Duration(sec)*time.Second + time.Duration(ns), nil
}
