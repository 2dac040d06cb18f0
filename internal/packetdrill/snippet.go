package packetdrill

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"strings"
)

// Snippets are Python in the original. The few statements that scripts use are
// understood here: assert, print, assignments, and the expressions in
// snippet_expr.go. Nothing else is, least of all anything that could do harm.

// value is what an expression comes to: int64, float64, string or tuple.
type value = any

type tuple []value

// scope is where names are looked up and assigned.
type scope struct {
	vars map[string]value
	// look finds names that are not in vars: the fields of tcp_info and the
	// constants. It may be nil.
	look func(name string) (value, bool, error)
	// print is where print goes.
	print func(text string)
}

// errAssert is the fault of a statement that assert found false.
var errAssert = errors.New("assertion failed")

// run executes a snippet.
func (s *scope) run(text string) error {
	for _, st := range statements(text) {
		if err := s.statement(st); err != nil {
			if errors.Is(err, errAssert) {
				return err
			}
			return fmt.Errorf("%q: %w", st, err)
		}
	}
	return nil
}

// statements cuts a snippet into statements, without comments.
func statements(text string) (list []string) {
	var cur strings.Builder
	depth := 0
	quote := byte(0)
	flush := func() {
		if st := strings.TrimSpace(cur.String()); st != "" {
			list = append(list, st)
		}
		cur.Reset()
	}
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case c == '\\' && i+1 < len(text):
			if i++; text[i] != '\n' {
				cur.WriteByte(c)
				cur.WriteByte(text[i])
			}
			continue
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '\'' || c == '"':
			quote = c
		case c == '#':
			for i < len(text) && text[i] != '\n' {
				i++
			}
			i-- // the newline ends the statement
			continue
		case c == '(' || c == '[':
			depth++
		case c == ')' || c == ']':
			depth--
		case (c == '\n' || c == ';') && depth <= 0:
			flush()
			continue
		}
		cur.WriteByte(c)
	}
	flush()
	return list
}

// statement executes one statement.
func (s *scope) statement(st string) error {
	switch word := st[:span(st)]; {
	case st == "pass" || word == "import" || word == "from":
		return nil
	case word == "assert":
		return s.assert(st)
	}
	if name, op, rest, ok := assignment(st); ok {
		return s.assign(name, op, rest)
	}
	_, err := s.eval(st)
	return err
}

// assert executes assert condition, message.
func (s *scope) assert(st string) error {
	p := newExprParser(s, st[len("assert"):])
	cond := p.test()
	msg := ""
	if p.err == nil && p.accept(",") {
		v := p.test()
		if p.err == nil {
			msg = ": " + text(v)
		}
	}
	if err := p.finish(); err != nil {
		return err
	}
	if !truth(cond) {
		return fmt.Errorf("%w: %s%s", errAssert, st, msg)
	}
	return nil
}

// assignment tells name = value and name += value from other statements.
func assignment(st string) (name, op, rest string, ok bool) {
	n := span(st)
	if n == 0 || isDigit(st[0]) {
		return "", "", "", false
	}
	rest = strings.TrimSpace(st[n:])
	for _, op := range []string{"//=", "<<=", ">>=", "+=", "-=", "*=", "/=", "%=", "&=", "|=", "^=", "="} {
		if strings.HasPrefix(rest, op) && !strings.HasPrefix(rest, "==") {
			return st[:n], strings.TrimSuffix(op, "="), rest[len(op):], true
		}
	}
	return "", "", "", false
}

func (s *scope) assign(name, op, rest string) error {
	// a = b = c assigns to both.
	if next, nextOp, nextRest, ok := assignment(strings.TrimSpace(rest)); ok && op == "" && nextOp == "" {
		if err := s.assign(next, nextOp, nextRest); err != nil {
			return err
		}
		s.vars[name] = s.vars[next]
		return nil
	}
	v, err := s.eval(rest)
	if err != nil {
		return err
	}
	if op != "" {
		old, err := s.lookup(name)
		if err != nil {
			return err
		}
		if v, err = operate(op, old, v); err != nil {
			return err
		}
	}
	s.vars[name] = v
	return nil
}

// eval evaluates an expression.
func (s *scope) eval(text string) (value, error) {
	p := newExprParser(s, text)
	v := p.test()
	return v, p.finish()
}

func (s *scope) lookup(name string) (value, error) {
	if v, ok := s.vars[name]; ok {
		return v, nil
	}
	if s.look != nil {
		if v, ok, err := s.look(name); ok || err != nil {
			return v, err
		}
	}
	return nil, fmt.Errorf("there is nothing named %s", name)
}

// truth is what Python takes a value for where it wants true or false.
func truth(v value) bool {
	switch v := v.(type) {
	case int64:
		return v != 0
	case float64:
		return v != 0
	case string:
		return v != ""
	case tuple:
		return len(v) > 0
	}
	return false
}

func boolean(b bool) value {
	if b {
		return int64(1)
	}
	return int64(0)
}

// text writes a value as print does.
func text(v value) string {
	if t, ok := v.(tuple); ok {
		parts := make([]string, len(t))
		for i := range t {
			parts[i] = text(t[i])
		}
		return "(" + strings.Join(parts, ", ") + ")"
	}
	return fmt.Sprint(v)
}

// operate applies an operator to two values.
func operate(op string, a, b value) (value, error) {
	if s, ok := a.(string); ok {
		switch op {
		case "%":
			return format(s, b)
		case "+":
			if t, ok := b.(string); ok {
				return s + t, nil
			}
		}
		return nil, fmt.Errorf("%s does not go with a text", op)
	}
	x, xInt := a.(int64)
	y, yInt := b.(int64)
	if xInt && yInt {
		return integers(op, x, y)
	}
	f, ok1 := float(a)
	g, ok2 := float(b)
	if !ok1 || !ok2 {
		return nil, fmt.Errorf("%s needs numbers", op)
	}
	return floats(op, f, g)
}

func float(v value) (float64, bool) {
	switch v := v.(type) {
	case int64:
		return float64(v), true
	case float64:
		return v, true
	}
	return 0, false
}

var errDivision = errors.New("division by zero")

func integers(op string, x, y int64) (value, error) {
	switch op {
	case "+":
		return x + y, nil
	case "-":
		return x - y, nil
	case "*":
		return x * y, nil
	case "&":
		return x & y, nil
	case "|":
		return x | y, nil
	case "^":
		return x ^ y, nil
	case "<<", ">>":
		if y < 0 || y > 63 {
			return nil, errors.New("shift count out of range")
		}
		if op == "<<" {
			return x << y, nil
		}
		return x >> y, nil
	case "/", "//", "%":
		if y == 0 {
			return nil, errDivision
		}
		if op == "/" {
			return float64(x) / float64(y), nil
		}
		q, r := x/y, x%y
		if r != 0 && (r < 0) != (y < 0) { // Python rounds down
			q, r = q-1, r+y
		}
		if op == "%" {
			return r, nil
		}
		return q, nil
	}
	return nil, fmt.Errorf("there is no operator %s", op)
}

func floats(op string, x, y float64) (value, error) {
	switch op {
	case "+":
		return x + y, nil
	case "-":
		return x - y, nil
	case "*":
		return x * y, nil
	case "/", "//":
		if y == 0 {
			return nil, errDivision
		}
		if op == "//" {
			return math.Floor(x / y), nil
		}
		return x / y, nil
	case "%":
		if y == 0 {
			return nil, errDivision
		}
		return x - y*math.Floor(x/y), nil
	}
	return nil, fmt.Errorf("%s does not go with fractions", op)
}

// format is Python's text % values, with Go's idea of the verbs they share.
func format(s string, v value) (value, error) {
	args, ok := v.(tuple)
	if !ok {
		args = tuple{v}
	}
	out := fmt.Sprintf(strings.NewReplacer("%i", "%d", "%u", "%d", "%r", "%v", "%s", "%v").Replace(s), args...)
	if strings.Contains(out, "%!") {
		return nil, fmt.Errorf("%q does not go with %s", s, text(v))
	}
	return out, nil
}

// compare applies a comparison to two values.
func compare(op string, a, b value) (bool, error) {
	var c int
	x, ok1 := float(a)
	y, ok2 := float(b)
	switch {
	case ok1 && ok2:
		c = cmp.Compare(x, y)
		if i, ok := a.(int64); ok {
			if j, ok := b.(int64); ok {
				c = cmp.Compare(i, j)
			}
		}
	default:
		s, ok1 := a.(string)
		t, ok2 := b.(string)
		if !ok1 || !ok2 {
			return false, fmt.Errorf("%s cannot compare %s with %s", op, text(a), text(b))
		}
		c = strings.Compare(s, t)
	}
	switch op {
	case "==":
		return c == 0, nil
	case "!=":
		return c != 0, nil
	case "<":
		return c < 0, nil
	case "<=":
		return c <= 0, nil
	case ">":
		return c > 0, nil
	}
	return c >= 0, nil
}
