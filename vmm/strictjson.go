package vmm

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
)

// decodeStrict decodes exactly one JSON value with no field that v, a pointer,
// lacks. The error says at which line and column, and in which field.
func decodeStrict(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return misplaced(b, v, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the JSON object")
	}
	return nil
}

// misplaced adds to an error of encoding/json the place that it is about.
func misplaced(b []byte, v any, err error) error {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return fmt.Errorf("%s: %w", position(b, syntax.Offset), err)
	case errors.As(err, &kind):
		return fmt.Errorf("%s: %q is a %s, which does not fit %s", position(b, kind.Offset), kind.Field, kind.Value, kind.Type)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%s: the JSON ends too early", position(b, int64(len(b))))
	}
	w := fieldWalk{d: json.NewDecoder(bytes.NewReader(b))}
	if w.value(reflect.TypeOf(v), ""); w.unknown != "" {
		return fmt.Errorf("%s: there is no %q", position(b, w.offset), w.unknown)
	}
	return err
}

// position writes the place of a byte in a text, as editors count.
func position(b []byte, offset int64) string {
	before := b[:min(offset, int64(len(b)))]
	line := bytes.Count(before, []byte("\n")) + 1
	column := len(before) - bytes.LastIndexByte(before, '\n')
	return fmt.Sprintf("line %d, column %d", line, column)
}

// fieldWalk looks for the first field of a JSON value that the type it is to be
// decoded into does not have.
type fieldWalk struct {
	d       *json.Decoder
	unknown string // its path, such as disks[1].serail
	offset  int64  // just before its name
}

// value goes through one value; t nil is one that may have any fields. It ends
// early if it finds what it looks for, or if the JSON is broken.
func (w *fieldWalk) value(t reflect.Type, path string) (more bool) {
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	token, err := w.d.Token()
	if err != nil {
		return false
	}
	switch token {
	case json.Delim('{'):
		for w.d.More() {
			key, err := w.d.Token()
			name, ok := key.(string)
			if err != nil || !ok {
				return false
			}
			at := strings.TrimPrefix(path+"."+name, ".")
			of, known := fieldType(t, name)
			if !known {
				// The decoder is behind the name and its quotes.
				w.unknown, w.offset = at, w.d.InputOffset()-int64(len(name))-2
				return false
			}
			if !w.value(of, at) {
				return false
			}
		}
	case json.Delim('['):
		var of reflect.Type
		if t != nil && (t.Kind() == reflect.Slice || t.Kind() == reflect.Array) {
			of = t.Elem()
		}
		for i := 0; w.d.More(); i++ {
			if !w.value(of, fmt.Sprintf("%s[%d]", path, i)) {
				return false
			}
		}
	default:
		return true
	}
	_, err = w.d.Token() // what closes it
	return err == nil
}

// fieldType is the type of the field that encoding/json decodes name into; nil
// for what may be anything.
func fieldType(t reflect.Type, name string) (of reflect.Type, known bool) {
	if t == nil || t.Kind() != reflect.Struct {
		return nil, true
	}
	for _, f := range reflect.VisibleFields(t) {
		tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.IsExported() && !f.Anonymous && strings.EqualFold(tag, name) {
			return f.Type, true
		}
	}
	return nil, false
}
