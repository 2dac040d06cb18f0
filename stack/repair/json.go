package repair

import (
	"encoding"
	"encoding/base64"
	"encoding/json"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// MarshalJSON implements json.Marshaler with JSON(true).
func (s *Snapshot) MarshalJSON() ([]byte, error) { return s.JSON(true) }

// JSON returns the Snapshot in a form for people and for other programs.
// Fields have Go's names in lower case with underscores; addresses, states and
// durations are text; what is zero in the extra part is left out. The bytes of
// queues are base64 or, without queues, {"bytes": n}, which cannot be read back.
func (s *Snapshot) JSON(queues bool) ([]byte, error) {
	w := jsonWriter{queues: queues}
	w.snapshot(s)
	return w.b, w.err
}

type jsonWriter struct {
	b      []byte
	queues bool
	err    error
}

func (w *jsonWriter) snapshot(s *Snapshot) {
	w.b = append(w.b, '{')
	w.fields(reflect.ValueOf(&s.Core).Elem(), false)
	if s.Extra != nil {
		w.b = append(w.b, `,"extra":`...)
		w.value(reflect.ValueOf(s.Extra).Elem(), true)
	}
	if len(s.Children) > 0 {
		w.b = append(w.b, `,"children":[`...)
		for i, c := range s.Children {
			w.comma(i)
			if c == nil {
				c = new(Snapshot)
			}
			w.snapshot(c)
		}
		w.b = append(w.b, ']')
	}
	w.b = append(w.b, '}')
}

func (w *jsonWriter) comma(i int) {
	if i > 0 {
		w.b = append(w.b, ',')
	}
}

// fields writes the fields of a struct, without those that are zero if omit.
func (w *jsonWriter) fields(v reflect.Value, omit bool) {
	n := 0
	for f := range fieldsOf(v.Type()) {
		fv := v.Field(f.Index[0])
		if omit && isEmpty(fv) {
			continue
		}
		w.comma(n)
		n++
		w.b = append(strconv.AppendQuote(w.b, snake(f.Name)), ':')
		w.value(fv, omit)
	}
}

// isEmpty reports whether v is zero, or a slice or a map of nothing.
func isEmpty(v reflect.Value) bool {
	if k := v.Kind(); k == reflect.Slice || k == reflect.Map {
		return v.Len() == 0
	}
	return v.IsZero()
}

func (w *jsonWriter) value(v reflect.Value, omit bool) {
	switch x := v.Interface().(type) {
	case Bytes:
		w.bytes(x)
		return
	case time.Duration:
		w.marshal(x.String())
		return
	case encoding.TextMarshaler:
		w.marshal(x)
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		w.b = append(w.b, '{')
		w.fields(v, omit)
		w.b = append(w.b, '}')
	case reflect.Slice:
		w.b = append(w.b, '[')
		for i := range v.Len() {
			w.comma(i)
			w.value(v.Index(i), omit)
		}
		w.b = append(w.b, ']')
	default:
		w.marshal(v.Interface())
	}
}

func (w *jsonWriter) marshal(x any) {
	b, err := json.Marshal(x)
	if err != nil && w.err == nil {
		w.err = err
	}
	w.b = append(w.b, b...)
}

func (w *jsonWriter) bytes(data Bytes) {
	if !w.queues {
		w.b = append(w.b, `{"bytes":`...)
		w.b = append(strconv.AppendInt(w.b, int64(data.Len()), 10), '}')
		return
	}
	w.b = append(w.b, '"')
	w.b = base64.StdEncoding.AppendEncode(w.b, slices.Concat(data...))
	w.b = append(w.b, '"')
}

// snake turns a Go name into one of JSON: SACKBlocks into sack_blocks.
func snake(name string) string {
	var b strings.Builder
	letters := []rune(name)
	for i, r := range letters {
		if i > 0 && unicode.IsUpper(r) && startsWord(letters, i) {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

// startsWord reports whether the capital at i begins a word: after a small
// letter, and before one, but for the s of a plural.
func startsWord(letters []rune, i int) bool {
	if !unicode.IsUpper(letters[i-1]) {
		return true
	}
	if i+1 == len(letters) || unicode.IsUpper(letters[i+1]) {
		return false
	}
	plural := letters[i+1] == 's' && (i+2 == len(letters) || unicode.IsUpper(letters[i+2]))
	return !plural
}
