package packetdrill

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// exprParser evaluates an expression while it reads it. The first error sticks.
type exprParser struct {
	scope *scope
	toks  []string
	err   error
	// dead is positive where the outcome does not depend on what is read:
	// names need not exist there, and nothing is printed.
	dead int
	// depth bounds recursion.
	depth int
}

func newExprParser(s *scope, src string) *exprParser {
	p := &exprParser{scope: s}
	p.toks, p.err = exprTokens(src)
	return p
}

// exprTokens cuts an expression into numbers, names, texts and operators.
func exprTokens(src string) (toks []string, err error) {
	for {
		src = strings.TrimLeft(src, " \t\r\n")
		if src == "" {
			return toks, nil
		}
		n := span(src)
		switch {
		case isDigit(src[0]) && n < len(src) && src[n] == '.':
			n += 1 + span(src[n+1:])
		case n > 0:
		case src[0] == '\'' || src[0] == '"':
			n = strings.IndexByte(src[1:], src[0]) + 2
			if n < 2 {
				return nil, errors.New("a text has no end")
			}
		default:
			n = 1
			for _, op := range []string{"**", "//", "<<", ">>", "<=", ">=", "==", "!="} {
				if strings.HasPrefix(src, op) {
					n = 2
				}
			}
		}
		toks = append(toks, src[:n])
		src = src[n:]
	}
}

func (p *exprParser) fail(err error) value {
	if p.err == nil {
		p.err = err
	}
	p.toks = nil
	return int64(0)
}

// finish reports an error, or that something is left.
func (p *exprParser) finish() error {
	if p.err == nil && len(p.toks) > 0 {
		return fmt.Errorf("%q is not understood", strings.Join(p.toks, " "))
	}
	return p.err
}

func (p *exprParser) peek() string {
	if len(p.toks) == 0 {
		return ""
	}
	return p.toks[0]
}

// accept takes the next token if it is one of these.
func (p *exprParser) accept(toks ...string) bool {
	t := p.peek()
	if t == "" || !slices.Contains(toks, t) {
		return false
	}
	p.toks = p.toks[1:]
	return true
}

// take is accept, and says which it was.
func (p *exprParser) take(toks ...string) string {
	t := p.peek()
	if p.accept(toks...) {
		return t
	}
	return ""
}

// test is an expression of the lowest precedence: or.
func (p *exprParser) test() value {
	const tooDeep = 100
	if p.depth++; p.depth > tooDeep {
		return p.fail(errors.New("too deep"))
	}
	defer func() { p.depth-- }()
	v := p.and()
	for p.accept("or") {
		p.skipIf(truth(v), func() {
			if w := p.and(); !truth(v) {
				v = w
			}
		})
	}
	return v
}

func (p *exprParser) and() value {
	v := p.not()
	for p.accept("and") {
		p.skipIf(!truth(v), func() {
			if w := p.not(); truth(v) {
				v = w
			}
		})
	}
	return v
}

// skipIf reads with f what matters only if skip is false.
func (p *exprParser) skipIf(skip bool, f func()) {
	if skip {
		p.dead++
		defer func() { p.dead-- }()
	}
	f()
}

func (p *exprParser) not() value {
	negate, any := false, false
	for p.accept("not") {
		negate, any = !negate, true
	}
	v := p.comparison()
	if any {
		return boolean(truth(v) != negate)
	}
	return v
}

// comparison is a chain: 1 <= x <= 2.
func (p *exprParser) comparison() value {
	v := p.level(0)
	holds, any := true, false
	for {
		op := p.take("==", "!=", "<", "<=", ">", ">=")
		if op == "" {
			break
		}
		w := p.level(0)
		if p.err != nil {
			return int64(0)
		}
		if p.dead == 0 {
			ok, err := compare(op, v, w)
			if err != nil {
				return p.fail(err)
			}
			holds = holds && ok
		}
		v, any = w, true
	}
	if any {
		return boolean(holds)
	}
	return v
}

// precedence lists the operators from the weakest to the strongest.
var precedence = [][]string{{"|"}, {"^"}, {"&"}, {"<<", ">>"}, {"+", "-"}, {"*", "/", "//", "%"}}

func (p *exprParser) level(n int) value {
	if n == len(precedence) {
		return p.unary()
	}
	v := p.level(n + 1)
	for {
		op := p.take(precedence[n]...)
		if op == "" {
			return v
		}
		w := p.level(n + 1)
		if p.err != nil {
			return int64(0)
		}
		if p.dead > 0 {
			continue
		}
		r, err := operate(op, v, w)
		if err != nil {
			return p.fail(err)
		}
		v = r
	}
}

func (p *exprParser) unary() value {
	signs := ""
	for {
		op := p.take("-", "+", "~")
		if op == "" {
			break
		}
		signs += op
	}
	v := p.operand()
	for i := len(signs) - 1; i >= 0 && p.err == nil && p.dead == 0; i-- {
		switch x := v.(type) {
		case int64:
			switch signs[i] {
			case '-':
				v = -x
			case '~':
				v = ^x
			}
		case float64:
			if signs[i] == '-' {
				v = -x
			}
		default:
			return p.fail(fmt.Errorf("%c needs a number", signs[i]))
		}
	}
	return v
}

func (p *exprParser) operand() value {
	t := p.peek()
	switch {
	case t == "":
		return p.fail(errors.New("a value is missing"))
	case t == "(":
		p.accept("(")
		return p.tuple()
	case t[0] == '\'' || t[0] == '"':
		p.accept(t)
		return strings.NewReplacer(`\n`, "\n", `\t`, "\t").Replace(t[1 : len(t)-1])
	case isDigit(t[0]):
		p.accept(t)
		return p.literal(t)
	case isWord(t[0]):
		p.accept(t)
		if p.accept("(") {
			return p.call(t)
		}
		return p.name(t)
	}
	return p.fail(fmt.Errorf("%q is not understood", t))
}

// tuple is what follows an opening parenthesis: an expression, or several.
func (p *exprParser) tuple() value {
	if p.accept(")") {
		return tuple{}
	}
	v := p.test()
	if p.accept(")") {
		return v
	}
	list := tuple{v}
	for p.err == nil && p.accept(",") {
		if p.peek() == ")" {
			break
		}
		list = append(list, p.test())
	}
	if !p.accept(")") {
		return p.fail(errors.New("a parenthesis is not closed"))
	}
	return list
}

func (p *exprParser) literal(t string) value {
	t = strings.ReplaceAll(t, "_", "")
	if v, err := strconv.ParseInt(t, 0, 64); err == nil {
		return v
	}
	v, err := strconv.ParseFloat(t, 64)
	if err != nil {
		return p.fail(fmt.Errorf("%q is no number", t))
	}
	return v
}

func (p *exprParser) name(t string) value {
	switch t {
	case "True":
		return int64(1)
	case "False", "None":
		return int64(0)
	}
	if p.dead > 0 {
		return int64(0)
	}
	v, err := p.scope.lookup(t)
	if err != nil {
		return p.fail(err)
	}
	return v
}

// call applies one of the functions that scripts use.
func (p *exprParser) call(fn string) value {
	v := p.tuple()
	if p.err != nil || p.dead > 0 {
		return int64(0)
	}
	args, ok := v.(tuple)
	if !ok {
		args = tuple{v}
	}
	switch fn {
	case "print":
		parts := make([]string, len(args))
		for i := range args {
			parts[i] = text(args[i])
		}
		if p.scope.print != nil {
			p.scope.print(strings.Join(parts, " "))
		}
		return int64(0)
	case "min", "max":
		return p.extreme(fn, args)
	case "str":
		return text(v)
	}
	if x, ok := float(v); ok {
		switch fn {
		case "abs":
			if i, ok := v.(int64); ok {
				return max(i, -i)
			}
			return max(x, -x)
		case "int":
			if i, ok := v.(int64); ok {
				return i
			}
			return int64(x)
		case "float":
			return x
		}
	}
	return p.fail(fmt.Errorf("%s(%s) is not understood", fn, text(v)))
}

func (p *exprParser) extreme(fn string, args tuple) value {
	if len(args) == 0 {
		return p.fail(fmt.Errorf("%s of nothing", fn))
	}
	op := map[string]string{"min": "<", "max": ">"}[fn]
	best := args[0]
	for _, v := range args[1:] {
		better, err := compare(op, v, best)
		if err != nil {
			return p.fail(err)
		}
		if better {
			best = v
		}
	}
	return best
}
