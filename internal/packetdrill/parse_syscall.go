package packetdrill

import "strings"

// syscall reads a system call, from the time on at which it must end.
func (p *parser) syscall() *Syscall {
	c := &Syscall{Line: p.peek().line}
	if p.peek().kind == tokDots {
		p.next()
		c.Blocking = true
		c.End = p.time()
	}
	t := p.next()
	if t.kind != tokWord {
		p.failf(t.line, "%v where the name of a system call should stand", t)
	}
	c.Name = t.text
	c.Args = p.arguments()
	p.want("=")
	c.Result = p.expr()
	// An errno's name, and a note in parentheses that is for the reader.
	if t := p.peek(); t.kind == tokWord && strings.HasPrefix(t.text, "E") {
		c.Errno = p.next().text
	}
	if p.skip("(") {
		for {
			t := p.next()
			if t.kind == tokEOF {
				p.failf(c.Line, "the note is not closed")
			}
			if t.kind == tokPunct && t.text == ")" {
				break
			}
		}
	}
	return c
}

// arguments reads (a, b).
func (p *parser) arguments() []Expr {
	p.want("(")
	if p.skip(")") {
		return nil
	}
	return p.list(")")
}

// list reads expressions up to a closing character.
func (p *parser) list(end string) (list []Expr) {
	for {
		list = append(list, p.expr())
		if p.skip(end) {
			return list
		}
		p.want(",")
	}
}

// expr reads an expression.
func (p *parser) expr() Expr {
	e := p.operand()
	for p.skip("|") {
		e = Or{e, p.operand()}
	}
	return e
}

func (p *parser) operand() Expr {
	t := p.defined(p.next())
	switch t.kind {
	case tokDots:
		return Ellipsis{}
	case tokInt, tokHex:
		v, err := parseInt(t)
		if err != nil {
			p.failf(t.line, "%v is out of range", t)
		}
		return Int{v}
	case tokString:
		if p.peek().kind == tokDots { // "abc"... says how the text begins
			p.next()
		}
		return Str{t.text}
	case tokWord:
		if next := p.peek(); next.kind == tokPunct && next.text == "(" {
			return Call{t.text, p.arguments()}
		}
		return Word{t.text}
	case tokPunct:
		switch t.text {
		case "[":
			if p.skip("]") {
				return Array{}
			}
			return Array{p.list("]")}
		case "{":
			return p.structure()
		}
	}
	p.failf(t.line, "%v where a value should stand", t)
	return nil
}

// structure reads the members of {…} after the opening brace.
func (p *parser) structure() Expr {
	var s Struct
	if p.skip("}") {
		return s
	}
	for {
		s.Fields = append(s.Fields, p.field())
		if p.skip("}") {
			return s
		}
		p.want(",")
	}
}

// field reads value, name=value or name(argument)=value.
func (p *parser) field() Field {
	if t := p.peek(); t.kind == tokPunct && t.text == "(" {
		p.refuse(t.line, "MPLS encapsulation")
	}
	v := p.expr()
	if !p.skip("=") {
		return Field{V: v}
	}
	switch n := v.(type) {
	case Word:
		return Field{Name: n.Name, V: p.expr()}
	case Call:
		if len(n.Args) == 1 {
			return Field{Name: n.Fn, Arg: n.Args[0], V: p.expr()}
		}
	}
	p.failf(p.peek().line, "a member needs a name before =")
	return Field{}
}
