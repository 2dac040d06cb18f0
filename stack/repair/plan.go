package repair

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// plan is how a struct with wire tags is encoded: its fields in ascending order
// of their numbers.
type plan struct{ fields []planField }

type planField struct {
	index  int    // in the struct
	number uint64 // the tag
	name   string // Go's, for errors
	shape  *shape
}

// form is how a type is encoded.
type form uint8

const (
	formBool form = iota
	formInt       // zigzag varint
	formUint
	formDuration
	formString
	formStruct
	formSlice
	formMap // of strings to integers
	formPointer
	formBytes // the type Bytes: a place in the blobs
)

// shape is a type and how it is encoded.
type shape struct {
	form form
	base base   // of an integer
	elem *shape // of a slice, a map, a pointer
	plan *plan  // of a struct
}

// base is the sequence number of the core that a field counts from, because it
// is near it. The tag names it: `wire:"6,send"`.
type base uint8

const (
	baseNone base = iota
	baseSend      // SendSeq
	baseRecv      // RecvSeq
	numBases
)

// bases are the sequence numbers themselves.
type bases [numBases]uint32

func (c *Core) bases() bases { return bases{baseSend: c.SendSeq, baseRecv: c.RecvSeq} }

var (
	bytesType    = reflect.TypeFor[Bytes]()
	durationType = reflect.TypeFor[time.Duration]()
)

// extraPlan is Extra's.
var extraPlan = func() *plan {
	p, err := planOf(reflect.TypeFor[Extra]())
	if err != nil {
		panic("repair: " + err.Error()) // a fault of the declaration, not of any input
	}
	return p
}()

// planOf makes the plan of a struct type. Fields without a tag or with that of
// another, and types that cannot be encoded, are errors.
func planOf(t reflect.Type) (*plan, error) {
	p := new(plan)
	var last uint64
	for f := range fieldsOf(t) {
		tag := f.Tag.Get("wire")
		digits, from, _ := strings.Cut(tag, ",")
		number, err := strconv.ParseUint(digits, 10, 16)
		if err != nil || number == 0 {
			return nil, fmt.Errorf("%v.%s: wire tag %q is no number from 1", t, f.Name, tag)
		}
		if number <= last {
			return nil, fmt.Errorf("%v.%s: wire tag %d does not go up", t, f.Name, number)
		}
		last = number
		s, err := shapeOf(f.Type)
		if err != nil {
			return nil, fmt.Errorf("%v.%s: %w", t, f.Name, err)
		}
		if from != "" && !s.countFrom(from) {
			return nil, fmt.Errorf("%v.%s: wire tag %q, but it does not count from there", t, f.Name, tag)
		}
		p.fields = append(p.fields, planField{f.Index[0], number, f.Name, s})
	}
	return p, nil
}

// countFrom sets the base of a sequence number, by its name.
func (s *shape) countFrom(name string) bool {
	if s.form == formPointer {
		s = s.elem
	}
	if s.form == formUint {
		s.base = map[string]base{"send": baseSend, "recv": baseRecv}[name]
	}
	return s.base != baseNone
}

// fieldsOf yields a struct's fields.
func fieldsOf(t reflect.Type) func(func(reflect.StructField) bool) {
	return func(yield func(reflect.StructField) bool) {
		for i := range t.NumField() {
			if !yield(t.Field(i)) {
				return
			}
		}
	}
}

func shapeOf(t reflect.Type) (s *shape, err error) {
	switch t {
	case bytesType:
		return &shape{form: formBytes}, nil
	case durationType:
		return &shape{form: formDuration}, nil
	}
	s = new(shape)
	switch t.Kind() {
	case reflect.Bool:
		s.form = formBool
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		s.form = formInt
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		s.form = formUint
	case reflect.String:
		s.form = formString
	case reflect.Struct:
		s.form = formStruct
		s.plan, err = planOf(t)
	case reflect.Slice:
		s.form = formSlice
		s.elem, err = shapeOf(t.Elem())
	case reflect.Pointer:
		s.form = formPointer
		s.elem, err = shapeOf(t.Elem())
	case reflect.Map:
		s.form = formMap
		if s.elem, err = shapeOf(t.Elem()); err == nil && (t.Key().Kind() != reflect.String || s.elem.form != formInt) {
			err = fmt.Errorf("a map from %v to %v cannot be encoded", t.Key(), t.Elem())
		}
	default:
		err = fmt.Errorf("a %v cannot be encoded", t)
	}
	if s.form == formPointer && err == nil && s.elem.form != formUint && s.elem.form != formInt {
		err = fmt.Errorf("a pointer to a %v cannot be encoded", t.Elem())
	}
	if s.form == formSlice && err == nil && s.elem.form >= formSlice {
		err = fmt.Errorf("a slice of %v cannot be encoded", t.Elem())
	}
	if s.form == formSlice && err == nil && s.elem.form == formStruct && !s.elem.plan.startsPlain() {
		err = fmt.Errorf("a slice of %v cannot be encoded: its first field has to be there always", t.Elem())
	}
	return s, err
}

// startsPlain reports whether there is a first field, and one that has a value
// even if it is zero.
func (p *plan) startsPlain() bool { return len(p.fields) > 0 && p.fields[0].shape.form != formPointer }

// delimited reports whether a value of the shape stands behind its length.
func (s *shape) delimited() bool {
	switch s.form {
	case formBool, formInt, formUint, formDuration:
		return false
	case formPointer:
		return s.elem.delimited()
	}
	return true
}
