package config

import (
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/renewatch/renewatch/verify"
)

// A shape is one kind of value the configuration knows: it decodes a node, shows
// a value, and describes itself as JSON Schema. The table of keys is built from
// shapes, so decoder, config show and config schema cannot diverge.
type shape interface {
	// decode stores what n says in into. n is never null.
	decode(d *decoder, p place, n *node, into reflect.Value)
	// value returns v as what JSON knows: nil, bool, int64, string or []any.
	value(v reflect.Value) any
	// schema describes what decode accepts; def is the default where it is valid.
	schema(def reflect.Value) map[string]any
}

// text is a string.
type text struct {
	// empty says that "" is accepted and means none.
	empty bool
	// enum holds the only values there are.
	enum []string
	// secret values, or paths in whose stead a secret is easily given, are never
	// printed.
	secret bool
	// pattern is what the schema can say of check.
	pattern string
	// check returns a predicate ("must be ...") and a hint, or "".
	check func(string) (wrong, hint string)
	// example is the hint for a value that is no string.
	example string
	// normal returns the form that is kept.
	normal func(string) string
}

func (t text) decode(d *decoder, p place, n *node, into reflect.Value) {
	example := t.example
	if t.enum != nil {
		example = "write " + enumerate(t.enum, "or")
	}
	s, ok := d.text(p, n, example)
	if !ok {
		return
	}
	if s == "" {
		if !t.empty {
			d.fail(p, n, p.path+" must not be empty", "leave the key out where nothing is meant")
			return
		}
		into.SetString("")
		return
	}
	shown := " " + quote(s)
	if t.secret {
		shown = ""
	}
	if t.enum != nil && !slices.Contains(t.enum, s) {
		hint := example
		if near := Nearest(s, t.enum); near != "" {
			hint = "did you mean " + near + "? " + hint
		}
		d.fail(p, n, p.path+shown+" is not one of "+strings.Join(t.enum, ", "), hint)
		return
	}
	if t.check != nil {
		if wrong, hint := t.check(s); wrong != "" {
			d.fail(p, n, p.path+shown+" "+wrong, hint)
			return
		}
	}
	if t.normal != nil {
		s = t.normal(s)
	}
	into.SetString(s)
}

func (t text) value(v reflect.Value) any {
	if v.String() == "" && !t.empty {
		return nil
	}
	return v.String()
}

func (t text) schema(def reflect.Value) map[string]any {
	m := map[string]any{"type": "string"}
	if t.enum != nil {
		m["enum"] = toAny(t.enum)
	}
	if !t.empty {
		m["minLength"] = 1
	}
	if t.pattern != "" {
		m["pattern"] = "^(" + t.pattern + ")$"
		if t.empty {
			m["pattern"] = "^(|" + t.pattern + ")$"
		}
	}
	if def.IsValid() && def.String() != "" {
		m["default"] = def.String()
	}
	return m
}

// boolean is true or false.
type boolean struct{}

func (boolean) decode(d *decoder, p place, n *node, into reflect.Value) {
	switch {
	case n.kind == isBool && n.text == "true":
		into.SetBool(true)
	case n.kind == isBool && n.text == "false":
		into.SetBool(false)
	case n.kind == isBool:
		word := "false"
		if slices.Contains([]string{"yes", "on", "true"}, strings.ToLower(n.text)) {
			word = "true"
		}
		d.fail(p, n, p.path+" is "+n.text+", and only true and false are booleans here", "write "+word)
	case n.kind == isString && n.quoted && (n.text == "true" || n.text == "false"):
		d.fail(p, n, p.path+" must be true or false, not a string", "remove the quotes")
	default:
		d.fail(p, n, p.path+" must be true or false, not "+string(n.kind), "")
	}
}

func (boolean) value(v reflect.Value) any { return v.Bool() }

func (boolean) schema(def reflect.Value) map[string]any {
	m := map[string]any{"type": "boolean"}
	if def.IsValid() {
		m["default"] = def.Bool()
	}
	return m
}

// integer is a whole number from min to max.
type integer struct{ min, max int64 }

func (t integer) decode(d *decoder, p place, n *node, into reflect.Value) {
	switch {
	case n.kind == isNumber && decimal.MatchString(n.text) && n.text != "-0":
		i, err := strconv.ParseInt(n.text, 10, 64)
		if err != nil || i < t.min || i > t.max {
			d.fail(p, n, fmt.Sprintf("%s must be between %d and %d, not %s", p.path, t.min, t.max, cut(n.text)), "")
			return
		}
		into.SetInt(i)
	case n.kind == isNumber:
		d.fail(p, n, p.path+" must be a whole number in decimal digits, not "+cut(n.text), "write it like "+strconv.FormatInt(max(t.min, min(t.max, 12)), 10))
	case n.kind == isString && n.quoted && decimal.MatchString(n.text):
		d.fail(p, n, p.path+" must be a whole number, not a string", "remove the quotes")
	default:
		d.fail(p, n, p.path+" must be a whole number, not "+string(n.kind), "")
	}
}

func (integer) value(v reflect.Value) any { return v.Int() }

func (t integer) schema(def reflect.Value) map[string]any {
	m := map[string]any{"type": "integer", "minimum": t.min, "maximum": t.max}
	if def.IsValid() {
		m["default"] = def.Int()
	}
	return m
}

// duration is a span of time from min to max.
type duration struct{ min, max time.Duration }

func (t duration) decode(d *decoder, p place, n *node, into reflect.Value) {
	if n.kind != isString && n.kind != isNumber {
		d.fail(p, n, p.path+" must be a duration, not "+string(n.kind), "write 30s, 15m, 1h30m or 400d; units are ns us ms s m h d w")
		return
	}
	v, wrong, hint := parseDuration(n.text)
	switch {
	case wrong != "":
		d.fail(p, n, p.path+" "+quote(n.text)+" "+wrong, hint)
	case v < 0:
		d.fail(p, n, p.path+" must not be negative", "")
	case v < t.min || v > t.max:
		d.fail(p, n, fmt.Sprintf("%s must be between %s and %s, not %s", p.path, formatDuration(t.min), formatDuration(t.max), formatDuration(v)), "")
	default:
		into.SetInt(int64(v))
	}
}

func (duration) value(v reflect.Value) any { return formatDuration(time.Duration(v.Int())) }

func (t duration) schema(def reflect.Value) map[string]any {
	m := map[string]any{"type": "string", "pattern": "^" + strings.TrimPrefix(durationPattern, "-?") + "$", "minLength": 2,
		"$comment": "from " + formatDuration(t.min) + " to " + formatDuration(t.max)}
	if def.IsValid() {
		m["default"] = t.value(def)
	}
	return m
}

// expected is auto, manual, a fraction between 0 and 1, or a duration.
type expected struct{}

var fraction = regexp.MustCompile(`^0\.[0-9]{1,6}$`)

func (expected) decode(d *decoder, p place, n *node, into reflect.Value) {
	const hint = "write auto, manual, a fraction such as 0.66, or a duration such as 30d"
	if n.kind != isString && n.kind != isNumber {
		d.fail(p, n, p.path+" must be auto, manual, a fraction or a duration, not "+string(n.kind), hint)
		return
	}
	if n.text != "auto" && n.text != "manual" && !fraction.MatchString(n.text) {
		if v, wrong, _ := parseDuration(n.text); wrong != "" || v <= 0 {
			d.fail(p, n, p.path+" "+quote(n.text)+" is neither auto, manual, a fraction nor a duration", hint)
			return
		}
	}
	into.SetString(n.text)
}

func (expected) value(v reflect.Value) any {
	if v.String() == "" {
		return nil
	}
	return v.String()
}

func (expected) schema(reflect.Value) map[string]any {
	return map[string]any{"anyOf": []any{
		map[string]any{"enum": []any{"auto", "manual"}},
		map[string]any{"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
		map[string]any{"type": "string", "pattern": "^(0\\.[0-9]{1,6}|" + strings.TrimPrefix(durationPattern, "-?") + ")$"},
	}}
}

// size is a number of bytes from min to max.
type size struct{ min, max int64 }

func (t size) decode(d *decoder, p place, n *node, into reflect.Value) {
	if n.kind != isString && n.kind != isNumber {
		d.fail(p, n, p.path+" must be a size, not "+string(n.kind), "write 256MiB or 1GiB; units are B KiB MiB GiB TiB")
		return
	}
	v, wrong, hint := parseSize(n.text)
	switch {
	case wrong != "":
		d.fail(p, n, p.path+" "+quote(n.text)+" "+wrong, hint)
	case v < t.min || v > t.max:
		d.fail(p, n, fmt.Sprintf("%s must be between %s and %s, not %s", p.path, formatSize(t.min), formatSize(t.max), formatSize(v)), "")
	default:
		into.SetInt(v)
	}
}

func (size) value(v reflect.Value) any { return formatSize(v.Int()) }

func (t size) schema(def reflect.Value) map[string]any {
	m := map[string]any{"type": "string", "pattern": "^" + sizePattern + "$",
		"$comment": "from " + formatSize(t.min) + " to " + formatSize(t.max)}
	if def.IsValid() {
		m["default"] = t.value(def)
	}
	return m
}

// address is a verify.Endpoint, written as a URL.
type address struct{}

func (address) decode(d *decoder, p place, n *node, into reflect.Value) {
	s, ok := d.text(p, n, "write https://www.example.org")
	if !ok {
		return
	}
	if s == "" {
		d.fail(p, n, p.path+" must not be empty", "write https://www.example.org")
		return
	}
	e, err := verify.ParseEndpoint(s)
	if err != nil {
		sentence, hint := err.Error(), "write https://www.example.org or smtp://mx.example.org:25"
		if fault, ok := errors.AsType[*verify.EndpointError](err); ok {
			sentence, hint = fault.Sentence, fault.Hint
		}
		if strings.Contains(s, "@") { // what stands before it may be a password
			sentence, hint = "this is no endpoint that can be dialled", "take out what stands before the @"
		}
		d.fail(p, n, p.path+": "+sentence, hint)
		return
	}
	if d.texts == nil {
		d.texts = map[string]string{}
	}
	d.texts[p.key] = s
	into.Set(reflect.ValueOf(e))
}

func (address) value(v reflect.Value) any { return v.Interface().(verify.Endpoint).String() }

func (address) schema(reflect.Value) map[string]any {
	return map[string]any{"type": "string", "pattern": `^[A-Za-z][A-Za-z0-9+.-]*://.+$`}
}

// list is a list of one shape, from min to max long.
type list struct {
	elem     shape
	min, max int
	// single also accepts one element without the brackets.
	single bool
	// add appends to what is there already: lists that several files share.
	add bool
	// none says that an empty list is the same as no list.
	none bool
	// example is the hint for a value that is no list.
	example string
	// check looks at the whole list and returns a predicate and a hint, or "".
	check func(v reflect.Value) (wrong, hint string)
	// first is a pattern for the first element, for the schema.
	first string
}

func (t list) decode(d *decoder, p place, n *node, into reflect.Value) {
	items := n.items
	switch {
	case n.kind == isList:
	case t.single && n.kind == isString:
		d.decode(t.elem, p, n, into, true)
		return
	default:
		d.fail(p, n, p.path+" must be a list, not "+string(n.kind), t.example)
		return
	}
	if len(items) < t.min {
		d.fail(p, n, p.path+" must not be empty", t.example)
		return
	}
	if len(items) > t.max {
		d.fail(p, n, fmt.Sprintf("%s has %d entries, and %d are the most", p.path, len(items), t.max), "")
		return
	}
	before := d.faults
	out := reflect.MakeSlice(into.Type(), 0, len(items))
	base := 0
	if t.add {
		out, base = into, into.Len()
	}
	for i, item := range items {
		q := place{path: fmt.Sprintf("%s[%d]", p.path, i), key: fmt.Sprintf("%s[%d]", p.key, base+i)}
		v := reflect.New(into.Type().Elem()).Elem()
		if item.kind == isNull {
			d.cfg.Origins[q.key] = Origin{Kind: FromFile, Name: d.file, Line: item.line, Column: item.column}
			d.fail(q, item, q.path+" is empty", "remove the entry")
		} else {
			d.decode(t.elem, q, item, v, false)
		}
		out = reflect.Append(out, v)
	}
	if t.none && out.Len() == 0 {
		out = reflect.Zero(into.Type())
	}
	if d.faults > before {
		d.failed[p.key] = true
	} else if t.check != nil {
		if wrong, hint := t.check(out); wrong != "" {
			d.fail(p, n, p.path+" "+wrong, hint)
			return
		}
	}
	into.Set(out)
}

func (t list) value(v reflect.Value) any {
	if v.IsNil() {
		return nil
	}
	out := []any{}
	for i := range v.Len() {
		out = append(out, t.elem.value(v.Index(i)))
	}
	return out
}

func (t list) schema(def reflect.Value) map[string]any {
	m := map[string]any{"type": "array", "items": t.elem.schema(reflect.Value{}), "maxItems": t.max}
	if t.min > 0 {
		m["minItems"] = t.min
	}
	if t.first != "" {
		m["prefixItems"] = []any{map[string]any{"type": "string", "pattern": t.first}}
	}
	if t.single {
		m = map[string]any{"anyOf": []any{t.elem.schema(reflect.Value{}), m}}
	}
	if def.IsValid() && !def.IsNil() && def.Len() > 0 {
		m["default"] = t.value(def)
	}
	return m
}

// optional is a shape behind a pointer.
type optional struct{ shape }

func (t optional) decode(d *decoder, p place, n *node, into reflect.Value) {
	v := reflect.New(into.Type().Elem())
	t.shape.decode(d, p, n, v.Elem())
	into.Set(v)
}

// value is nil: config show writes what is behind the pointer.
func (t optional) value(reflect.Value) any { return nil }

func (t optional) schema(reflect.Value) map[string]any { return t.shape.schema(reflect.Value{}) }

// text returns the string that n is, or says why it is none. A plain scalar that
// some YAML reader takes for something else is none.
func (d *decoder) text(p place, n *node, example string) (string, bool) {
	if n.kind != isString {
		hint := example
		if hint == "" && (n.kind == isNumber || n.kind == isBool) {
			hint = "quote it"
		}
		d.fail(p, n, p.path+" must be a string, not "+string(n.kind), hint)
		return "", false
	}
	if len(n.text) > 4096 {
		d.fail(p, n, p.path+" is longer than 4096 bytes", "")
		return "", false
	}
	if r := unprintable(n.text); r >= 0 {
		hint := "remove it"
		if r == '\n' {
			hint = "write it on one line"
		}
		d.fail(p, n, fmt.Sprintf("%s holds a character that cannot be printed (U+%04X)", p.path, r), hint)
		return "", false
	}
	return n.text, true
}

// unprintable returns the first rune of s that is neither printable nor a space,
// or -1.
func unprintable(s string) rune {
	if !utf8.ValidString(s) {
		return utf8.RuneError
	}
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return r
		}
	}
	return -1
}

func cut(s string) string {
	if len(s) > 40 {
		return s[:40] + "..."
	}
	return s
}

func toAny[T any](in []T) []any {
	out := make([]any, len(in))
	for i, v := range in {
		out[i] = v
	}
	return out
}

func pattern(re string) func(string) bool { return regexp.MustCompile("^(" + re + ")$").MatchString }
