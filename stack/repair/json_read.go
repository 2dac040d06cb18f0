package repair

import (
	"encoding"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"
)

// UnmarshalJSON implements json.Unmarshaler: it reads what MarshalJSON writes.
// A field that it does not know is an error, one that is missing is zero.
func (s *Snapshot) UnmarshalJSON(b []byte) error {
	*s = Snapshot{}
	return s.fromJSON(b, "")
}

func (s *Snapshot) fromJSON(b []byte, path string) error {
	object, err := members(b, path)
	if err != nil {
		return err
	}
	extra, children := object["extra"], object["children"]
	delete(object, "extra")
	delete(object, "children")
	if err := setFields(reflect.ValueOf(&s.Core).Elem(), object, path); err != nil {
		return err
	}
	if extra != nil {
		s.Extra = new(Extra)
		if err := setValue(reflect.ValueOf(s.Extra).Elem(), extra, path+".extra"); err != nil {
			return err
		}
	}
	list, err := elements(children, path+".children")
	if err != nil {
		return err
	}
	for i, c := range list {
		child := new(Snapshot)
		if err := child.fromJSON(c, fmt.Sprintf("%s.children[%d]", path, i)); err != nil {
			return err
		}
		s.Children = append(s.Children, child)
	}
	return nil
}

// wrong is the error for what is at path. The name of the whole is ".".
func wrong(path, format string, args ...any) error {
	if path == "" {
		path = "."
	}
	return invalid("%s: %s", path, fmt.Sprintf(format, args...))
}

// members takes an object apart.
func members(b []byte, path string) (m map[string]json.RawMessage, err error) {
	if err := json.Unmarshal(b, &m); err != nil || m == nil {
		return nil, wrong(path, "an object is expected")
	}
	return m, nil
}

// elements takes an array apart; one that is not there has none.
func elements(b []byte, path string) (list []json.RawMessage, err error) {
	if b == nil {
		return nil, nil
	}
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, wrong(path, "an array is expected")
	}
	return list, nil
}

func setFields(v reflect.Value, object map[string]json.RawMessage, path string) error {
	for f := range fieldsOf(v.Type()) {
		name := snake(f.Name)
		if b, ok := object[name]; ok {
			delete(object, name)
			if err := setValue(v.Field(f.Index[0]), b, path+"."+name); err != nil {
				return err
			}
		}
	}
	if len(object) > 0 {
		return wrong(path+"."+slices.Min(slices.Collect(maps.Keys(object))), "there is no such field")
	}
	return nil
}

func setValue(v reflect.Value, b []byte, path string) error {
	switch x := v.Addr().Interface().(type) {
	case *Bytes:
		return setBytes(x, b, path)
	case *time.Duration:
		var text string
		err := json.Unmarshal(b, &text)
		if err == nil {
			*x, err = time.ParseDuration(text)
		}
		if err != nil {
			return wrong(path, `%s is no duration, such as "1.5ms"`, b)
		}
		return nil
	case encoding.TextUnmarshaler:
		return setPlain(v, b, path)
	}
	switch v.Kind() {
	case reflect.Struct:
		object, err := members(b, path)
		if err != nil {
			return err
		}
		return setFields(v, object, path)
	case reflect.Slice:
		list, err := elements(b, path)
		if err != nil {
			return err
		}
		v.Set(reflect.MakeSlice(v.Type(), len(list), len(list)))
		for i, b := range list {
			if err := setValue(v.Index(i), b, fmt.Sprintf("%s[%d]", path, i)); err != nil {
				return err
			}
		}
		return nil
	}
	return setPlain(v, b, path)
}

// setPlain leaves the value to encoding/json.
func setPlain(v reflect.Value, b []byte, path string) error {
	if err := json.Unmarshal(b, v.Addr().Interface()); err != nil {
		return wrong(path, "%.40s is no %s", b, plainName(v.Type()))
	}
	return nil
}

// plainName is what a user would call a type's values.
func plainName(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Struct:
		return "address and port"
	case reflect.Bool:
		return "true or false"
	case reflect.Map:
		return "object of whole numbers"
	case reflect.String:
		return "string"
	case reflect.Pointer:
		return plainName(t.Elem())
	}
	switch t {
	case reflect.TypeFor[State]():
		return "state"
	case reflect.TypeFor[TimerKind]():
		return "timer"
	}
	return fmt.Sprintf("whole number of %d bits", t.Bits())
}

func setBytes(dst *Bytes, b []byte, path string) error {
	var data []byte
	if err := json.Unmarshal(b, &data); err == nil {
		if len(data) > 0 {
			*dst = Bytes{data}
		}
		return nil
	}
	var left struct{ Bytes *int }
	if err := json.Unmarshal(b, &left); err == nil && left.Bytes != nil {
		if *left.Bytes == 0 {
			return nil
		}
		return wrong(path, "the %d bytes were left out when this was written", *left.Bytes)
	}
	return wrong(path, "a string in base64 is expected")
}
