package packetdrill

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// NotSupportedError says that a script is sound but uses something that this
// package leaves out on purpose. The script is skipped, not failed.
type NotSupportedError struct {
	Path string
	Line int
	What string
}

func (e *NotSupportedError) Error() string {
	return fmt.Sprintf("%s:%d: not supported: %s", e.Path, e.Line, e.What)
}

// ReadFile reads a script from a file. See Parse.
func ReadFile(path string, defines map[string]string) (*Script, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return Parse(path, string(text), defines)
}

// Parse reads a script. The path is for messages only. Every word that is a key
// of defines, or of a --define option of the script, is replaced by its value.
//
// The error is a *SyntaxError, or a *NotSupportedError for the few parts of the
// language that are left out: tunnels (GRE, MPLS, IP in IP, PSP, TCP in UDP), UDP,
// TCP MD5 signatures and AccECN.
func Parse(path, text string, defines map[string]string) (s *Script, err error) {
	text, line, fault := conditional(text, defines)
	if fault != "" {
		return nil, &SyntaxError{path, line, fault}
	}
	p := &parser{
		lexer:   newLexer(text),
		script:  &Script{Path: path},
		defines: make(map[string]string),
	}
	for k, v := range defines {
		p.defines[k] = v
	}
	defer func() {
		switch f := recover().(type) {
		case nil:
		case parseFault:
			s, err = nil, f.err
		default:
			panic(f)
		}
	}()
	p.parse()
	if p.lexer.err != "" {
		return nil, &SyntaxError{path, p.lexer.errLine, p.lexer.err}
	}
	return p.script, nil
}

// parser is a recursive-descent parser. It leaves by panicking with a
// parseFault, which does not get past Parse.
type parser struct {
	*lexer
	script  *Script
	defines map[string]string
}

type parseFault struct{ err error }

// failf gives up at a line.
func (p *parser) failf(line int, format string, args ...any) {
	if p.lexer.err != "" { // a fault of the lexer's came first
		line, format, args = p.lexer.errLine, "%s", []any{p.lexer.err}
	}
	panic(parseFault{&SyntaxError{p.script.Path, line, fmt.Sprintf(format, args...)}})
}

// refuse gives up because of something that is left out on purpose.
func (p *parser) refuse(line int, what string) {
	panic(parseFault{&NotSupportedError{p.script.Path, line, what}})
}

func (p *parser) parse() {
	p.options()
	if p.peek().kind == tokCommand {
		p.script.Init = p.command()
	}
	for {
		switch t := p.peek(); t.kind {
		case tokEOF:
			if len(p.script.Events) == 0 {
				p.failf(t.line, "no events")
			}
			return
		case tokCommand:
			p.script.Cleanup = p.command()
			if t := p.peek(); t.kind != tokEOF {
				p.failf(t.line, "%v after the last command: a command with events after it needs a time", t)
			}
		default:
			p.event()
		}
	}
}

// options reads the --name=value lines at the head.
func (p *parser) options() {
	for p.peek().kind == tokOption {
		t := p.next()
		o := Option{Line: t.line, Name: t.text}
		o.Value = strings.TrimPrefix(p.tail(), "=")
		if o.Name == "define" {
			name, value, ok := strings.Cut(o.Value, "=")
			if !ok {
				p.failf(t.line, "--define needs NAME=VALUE")
			}
			p.defines[name] = strings.Trim(value, "\"`")
		} else {
			o.Value = strings.Trim(o.Value, `"`)
			p.script.Options = append(p.script.Options, o)
		}
	}
}

func (p *parser) command() *Command {
	t := p.next()
	return &Command{Line: t.line, Text: t.text}
}

// event reads one event: time and action.
func (p *parser) event() {
	first := p.peek()
	e := Event{Line: first.line}
	e.When = p.when()
	switch t := p.peek(); {
	case t.kind == tokPunct && (t.text == "<" || t.text == ">"):
		e.Action = p.packet()
	case t.kind == tokCommand:
		e.Action = p.command()
	case t.kind == tokCode:
		t := p.next()
		e.Action = &Snippet{Line: t.line, Text: t.text}
	case t.kind == tokWord || t.kind == tokDots:
		e.Action = p.syscall()
	default:
		p.failf(t.line, "%v where a packet, a system call, a command or a snippet should stand", t)
	}
	if pkt, ok := e.Action.(*Packet); !ok || !pkt.Outbound {
		if e.When.Any || e.When.From != e.When.To {
			p.failf(e.Line, "only a packet from the stack may come at any time or within a range")
		}
	}
	e.Text = strings.Join(strings.Fields(p.src[first.pos:p.end]), " ")
	p.script.Events = append(p.script.Events, e)
}

// when reads the time of an event.
func (p *parser) when() (w When) {
	if p.skip("*") {
		return When{Any: true, Relative: true}
	}
	w.Relative = p.skip("+")
	w.From = p.time()
	w.To = w.From
	if t := p.peek(); p.skip("~") {
		if p.skip("+") != w.Relative {
			p.failf(t.line, "a range must be absolute or relative at both ends")
		}
		if w.To = p.time(); w.To < w.From {
			p.failf(t.line, "the range ends before it begins")
		}
	}
	return w
}

func (p *parser) time() time.Duration {
	t := p.next()
	if t.kind != tokInt && t.kind != tokFloat {
		p.failf(t.line, "%v where a time should stand", t)
	}
	d, err := seconds(t.text)
	if err != nil {
		p.failf(t.line, "%v", err)
	}
	return d
}

// skip takes the character if it is next.
func (p *parser) skip(punct string) bool {
	if t := p.peek(); t.kind != tokPunct || t.text != punct {
		return false
	}
	p.next()
	return true
}

// want takes the character, which must be next.
func (p *parser) want(punct string) {
	if t := p.peek(); !p.skip(punct) {
		p.failf(t.line, "%v where %q should stand", t, punct)
	}
}

// word takes a word if it is the one.
func (p *parser) word(w string) bool {
	if t := p.peek(); t.kind != tokWord || t.text != w {
		return false
	}
	p.next()
	return true
}

// wantWord takes a word, which must be the one.
func (p *parser) wantWord(w string) {
	if t := p.peek(); !p.word(w) {
		p.failf(t.line, "%v where %q should stand", t, w)
	}
}

// number takes an integer within bounds.
func (p *parser) number(what string, low, high int64) int64 {
	t := p.defined(p.next())
	v, err := parseInt(t)
	if err != nil {
		p.failf(t.line, "%v where %s should stand", t, what)
	}
	if v < low || v > high {
		p.failf(t.line, "%s %d is out of range", what, v)
	}
	return v
}

// parseInt reads an integer token.
func parseInt(t token) (int64, error) {
	switch t.kind {
	case tokInt:
		return strconv.ParseInt(t.text, 10, 64)
	case tokHex:
		v, err := strconv.ParseUint(t.text[2:], 16, 64)
		return int64(v), err
	}
	return 0, fmt.Errorf("%v is no number", t)
}

// defined replaces a word by what it is defined as.
func (p *parser) defined(t token) token {
	v, ok := p.defines[t.text]
	if t.kind != tokWord || !ok {
		return t
	}
	sub := newLexer(v).scan()
	sub.line, sub.pos = t.line, t.pos
	return sub
}
