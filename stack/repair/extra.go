package repair

import (
	"encoding/binary"
	"reflect"
	"slices"
	"strings"
	"time"
)

// The extra part is a run of fields in ascending order of their numbers. A
// field is a key, which is a varint of twice its number, and a varint; or a key
// of twice its number plus one, and so many bytes as a varint before them says.
// Fields that are zero are left out. Signed integers are varints of Go's zigzag
// kind, and so are sequence numbers that count from one of the core's. A duration
// is twice the zigzag number of its nanoseconds, or of its milliseconds, if
// these are all, plus one. Elements of a slice stand behind their lengths if they are not integers.
// A key of a map is its place in names, from 1 on, or a 0 and a string behind
// its length; in both cases they are in order of their strings. A Bytes is where in the bytes that follow it lies: how
// many there are before it, and its length.

// extra appends the fields of a struct.
func (e *encoder) extra(v reflect.Value, p *plan) {
	for i := range p.fields {
		f := &p.fields[i]
		if fv := v.Field(f.index); !empty(fv, f.shape) {
			e.field(f, fv)
		}
	}
}

// element appends the fields of an element of a slice: at least one, so that no
// few bytes stand for many elements.
func (e *encoder) element(v reflect.Value, p *plan) {
	start := len(e.buf)
	if e.extra(v, p); len(e.buf) == start {
		e.field(&p.fields[0], v.Field(p.fields[0].index))
	}
}

func empty(v reflect.Value, s *shape) bool {
	switch s.form {
	case formSlice, formMap:
		return v.Len() == 0
	case formBytes:
		return v.Interface().(Bytes).Len() == 0
	case formStruct:
		for i := range s.plan.fields {
			f := &s.plan.fields[i]
			if !empty(v.Field(f.index), f.shape) {
				return false
			}
		}
		return true
	}
	return v.IsZero()
}

func (e *encoder) field(f *planField, v reflect.Value) {
	if !f.shape.delimited() {
		e.uvarint(f.number << 1)
		e.value(v, f.shape)
		return
	}
	e.uvarint(f.number<<1 | 1)
	e.behindLength(func() { e.value(v, f.shape) })
}

// behindLength puts the length of what write appends in front of it.
func (e *encoder) behindLength(write func()) {
	start := len(e.buf)
	e.buf = append(e.buf, 0) // most are short
	write()
	n := len(e.buf) - start - 1
	if n < 0x80 {
		e.buf[start] = byte(n)
		return
	}
	var length [binary.MaxVarintLen64]byte
	m := binary.PutUvarint(length[:], uint64(n))
	e.buf = slices.Replace(e.buf, start, start+1, length[:m]...)
}

func (e *encoder) uvarint(v uint64) { e.buf = binary.AppendUvarint(e.buf, v) }

// value appends what stands behind the key and the length.
func (e *encoder) value(v reflect.Value, s *shape) {
	switch s.form {
	case formBool:
		if v.Bool() {
			e.uvarint(1)
		} else {
			e.uvarint(0)
		}
	case formInt:
		e.buf = binary.AppendVarint(e.buf, v.Int())
	case formDuration:
		e.uvarint(durationCode(v.Int()))
	case formUint:
		if s.base != baseNone {
			e.buf = binary.AppendVarint(e.buf, int64(int32(uint32(v.Uint())-e.bases[s.base])))
		} else {
			e.uvarint(v.Uint())
		}
	case formString:
		e.buf = append(e.buf, v.String()...)
	case formStruct:
		e.extra(v, s.plan)
	case formPointer:
		e.value(v.Elem(), s.elem)
	case formBytes:
		data := v.Interface().(Bytes)
		n := data.Len()
		e.uvarint(uint64(e.blobLen))
		e.uvarint(uint64(n))
		e.blobs, e.blobLen = append(e.blobs, data...), e.blobLen+n
	case formSlice:
		e.slice(v, s)
	case formMap:
		keys := v.MapKeys()
		slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
		for _, k := range keys {
			e.name(k.String())
			e.value(v.MapIndex(k), s.elem)
		}
	}
}

// longest is the longest duration that is told from longer ones: 146 years.
const longest = 1<<62 - 1

func durationCode(d int64) uint64 {
	d = min(max(d, -longest), longest)
	if ms := int64(time.Millisecond); d%ms == 0 {
		return zigzag(d/ms)<<1 | 1
	}
	return zigzag(d) << 1
}

// duration undoes durationCode.
func duration(code uint64) int64 {
	d := unzigzag(code >> 1)
	if code&1 == 0 {
		return d
	}
	ms := int64(time.Millisecond)
	return min(max(d, -longest/ms), longest/ms) * ms
}

func zigzag(v int64) uint64   { return uint64(v)<<1 ^ uint64(v>>63) }
func unzigzag(u uint64) int64 { return int64(u>>1) ^ -int64(u&1) }

// name appends a key of a map.
func (e *encoder) name(k string) {
	if i, ok := nameIndex[k]; ok {
		e.uvarint(uint64(i + 1))
		return
	}
	e.uvarint(0)
	e.uvarint(uint64(len(k)))
	e.buf = append(e.buf, k...)
}

// names are keys of maps that are written as a number, to be short. The list
// only grows, at its end.
var names = [...]string{
	"acked", "owed", "w_est_owed", "w_max", "cwnd_prior", "k", "t", "w_est",
	"hystart_round_min_us", "hystart_last_min_us", "hystart_baseline_us", "hystart_samples", "hystart_css_rounds",
	"undo_window", "undo_threshold", "undo_w_max", "undo_cwnd_prior", "undo_k", "undo_t", "undo_w_est",
}

var nameIndex = func() map[string]int {
	m := make(map[string]int, len(names))
	for i, name := range names {
		m[name] = i
	}
	return m
}()

func (e *encoder) slice(v reflect.Value, s *shape) {
	for i := range v.Len() {
		elem := v.Index(i)
		switch {
		case s.elem.form == formStruct:
			e.behindLength(func() { e.element(elem, s.elem.plan) })
		case s.elem.delimited():
			e.behindLength(func() { e.value(elem, s.elem) })
		default:
			e.value(elem, s.elem)
		}
	}
}
