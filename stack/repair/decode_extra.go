package repair

import (
	"encoding/binary"
	"fmt"
	"reflect"
)

// reference is a Bytes whose place in what follows is known, and which is not
// read yet.
type reference struct {
	data   *Bytes
	at, to uint64
}

// extraReader takes an extra part apart. refs have to go up, so that no byte of
// the input is referred to twice.
type extraReader struct {
	bases bases
	refs  []reference
	at    uint64
}

// readExtra decodes an extra part into e. Fields that are not known are skipped.
func readExtra(e *Extra, from bases, b []byte) ([]reference, error) {
	r := extraReader{bases: from}
	if err := r.fields(reflect.ValueOf(e).Elem(), extraPlan, b); err != nil {
		return nil, invalid("the extra part of the snapshot is malformed: %v", err)
	}
	return r.refs, nil
}

// resolve gives each reference what it refers to.
func resolve(refs []reference, blobs Bytes) error {
	var at uint64 // of the first byte of blobs
	for _, r := range refs {
		for len(blobs) > 0 && at < r.to {
			p := blobs[0]
			end := at + uint64(len(p))
			if from, to := max(r.at, at), min(r.to, end); from < to {
				*r.data = append(*r.data, p[from-at:to-at:to-at])
			}
			if end > r.to {
				break // there is more in it for the next
			}
			at, blobs = end, blobs[1:]
		}
		if uint64(r.data.Len()) != r.to-r.at {
			return invalid("the extra part of the snapshot refers to data that is not there")
		}
	}
	return nil
}

// uvarint takes a varint off b.
func uvarint(b []byte) (v uint64, rest []byte, err error) {
	v, n := binary.Uvarint(b)
	if n <= 0 {
		return 0, nil, fmt.Errorf("a number does not end")
	}
	return v, b[n:], nil
}

// delimited takes a length, and so many bytes, off b.
func delimited(b []byte) (part, rest []byte, err error) {
	n, b, err := uvarint(b)
	if err != nil {
		return nil, nil, err
	}
	if n > uint64(len(b)) {
		return nil, nil, fmt.Errorf("a length of %d bytes, where there are %d", n, len(b))
	}
	return b[:n], b[n:], nil
}

// fields decodes a run of fields, whose numbers go up.
func (r *extraReader) fields(v reflect.Value, p *plan, b []byte) error {
	known := p.fields
	var last uint64
	for len(b) > 0 {
		key, rest, err := uvarint(b)
		if err != nil {
			return err
		}
		number, long := key>>1, key&1 != 0
		if number <= last {
			return fmt.Errorf("field %d after field %d", number, last)
		}
		last = number
		var part []byte
		if long {
			part, b, err = delimited(rest)
		} else {
			part = rest
			if _, b, err = uvarint(rest); err == nil {
				part = rest[:len(rest)-len(b)]
			}
		}
		if err != nil {
			return fmt.Errorf("field %d: %w", number, err)
		}
		for len(known) > 0 && known[0].number < number {
			known = known[1:]
		}
		if len(known) == 0 || known[0].number != number {
			continue // of a later program
		}
		f := &known[0]
		if f.shape.delimited() != long {
			return fmt.Errorf("%s is not of its type", f.name)
		}
		if err := r.value(v.Field(f.index), f.shape, part); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
	}
	return nil
}

// value decodes all of b.
func (r *extraReader) value(v reflect.Value, s *shape, b []byte) error {
	switch s.form {
	case formString:
		v.SetString(string(b))
	case formStruct:
		return r.fields(v, s.plan, b)
	case formPointer:
		p := reflect.New(v.Type().Elem())
		v.Set(p)
		return r.value(p.Elem(), s.elem, b)
	case formBytes:
		return r.bytes(v.Addr().Interface().(*Bytes), b)
	case formSlice:
		return r.slice(v, s.elem, b)
	case formMap:
		return r.readMap(v, s.elem, b)
	default:
		rest, err := r.integer(v, s, b)
		if err == nil && len(rest) > 0 {
			err = fmt.Errorf("%d bytes too many", len(rest))
		}
		return err
	}
	return nil
}

// integer takes one off b.
func (r *extraReader) integer(v reflect.Value, s *shape, b []byte) ([]byte, error) {
	u, rest, err := uvarint(b)
	if err != nil {
		return nil, err
	}
	i := unzigzag(u)
	switch {
	case s.form == formBool && u <= 1:
		v.SetBool(u == 1)
	case s.form == formInt && !v.OverflowInt(i):
		v.SetInt(i)
	case s.form == formDuration:
		v.SetInt(duration(u))
	case s.base != baseNone && int64(int32(i)) == i:
		v.SetUint(uint64(r.bases[s.base] + uint32(i)))
	case s.form == formUint && s.base == baseNone && !v.OverflowUint(u):
		v.SetUint(u)
	default:
		return nil, fmt.Errorf("a number is out of range")
	}
	return rest, nil
}

func (r *extraReader) bytes(dst *Bytes, b []byte) error {
	at, b, err := uvarint(b)
	if err != nil {
		return err
	}
	n, b, err := uvarint(b)
	if err != nil {
		return err
	}
	if at < r.at || n > MaxQueue || at > MaxQueue || len(b) > 0 {
		return fmt.Errorf("it refers to data that cannot be its own")
	}
	r.at = at + n
	r.refs = append(r.refs, reference{dst, at, at + n})
	return nil
}

// slice decodes elements. They are counted first: each takes a byte at least,
// and a struct three.
func (r *extraReader) slice(v reflect.Value, elem *shape, b []byte) error {
	n := 0
	for rest := b; len(rest) > 0; n++ {
		var err error
		if elem.delimited() {
			var part []byte
			part, rest, err = delimited(rest)
			if err == nil && elem.form == formStruct && len(part) == 0 {
				err = fmt.Errorf("an element is empty")
			}
		} else {
			_, rest, err = uvarint(rest)
		}
		if err != nil {
			return err
		}
	}
	v.Set(reflect.MakeSlice(v.Type(), n, n))
	for i := range n {
		var err error
		if elem.delimited() {
			var part []byte
			if part, b, err = delimited(b); err == nil {
				err = r.value(v.Index(i), elem, part)
			}
		} else {
			b, err = r.integer(v.Index(i), elem, b)
		}
		if err != nil {
			return fmt.Errorf("element %d: %w", i, err)
		}
	}
	return nil
}

// readMap decodes keys, which go up, and values. An entry with a key that only
// a later program has a number for is skipped.
func (r *extraReader) readMap(v reflect.Value, elem *shape, b []byte) error {
	m := reflect.MakeMap(v.Type())
	value := reflect.New(v.Type().Elem()).Elem()
	last := ""
	for len(b) > 0 {
		number, rest, err := uvarint(b)
		if err != nil {
			return err
		}
		key, known := "", number <= uint64(len(names))
		switch {
		case number == 0:
			var literal []byte
			literal, rest, err = delimited(rest)
			key = string(literal)
		case known:
			key = names[number-1]
		}
		if err == nil {
			b, err = r.integer(value, elem, rest)
		}
		if err != nil {
			return err
		}
		if !known {
			continue
		}
		if m.Len() > 0 && key <= last {
			return fmt.Errorf("key %q after key %q", key, last)
		}
		last = key
		m.SetMapIndex(reflect.ValueOf(key).Convert(v.Type().Key()), value)
	}
	v.Set(m)
	return nil
}
