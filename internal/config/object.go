package config

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// place is where a value stands: path as an error names it, within its file, and
// key as Config.Origins names it, over all files.
type place struct{ path, key string }

func (p place) child(name string) place {
	if p.path == "" && p.key == "" {
		return place{name, name}
	}
	return place{p.path + "." + name, p.key + "." + name}
}

// decoder decodes one file's tree into a Config and gathers what is wrong.
type decoder struct {
	file   string
	cfg    *Config
	errs   Errors
	faults int               // found, also those that errs has no room for
	failed map[string]bool   // keys whose value was refused
	texts  map[string]string // endpoints as they were written, by key
}

func (d *decoder) fail(p place, n *node, sentence, hint string) {
	d.failAt(p, n.line, n.column, sentence, hint)
}

func (d *decoder) failAt(p place, line, column int, sentence, hint string) {
	d.failed[p.key] = true
	d.faults++
	if len(d.errs) < 10*maxErrors { // sorted shows the first of them
		d.errs = append(d.errs, &Error{File: d.file, Line: line, Column: column, Path: p.path, Sentence: sentence, Hint: hint})
	}
}

// decode notes where a value comes from and decodes it; single puts it into a
// list of its own.
func (d *decoder) decode(s shape, p place, n *node, into reflect.Value, single bool) {
	d.cfg.Origins[p.key] = Origin{Kind: FromFile, Name: d.file, Line: n.line, Column: n.column}
	if single {
		v := reflect.New(into.Type().Elem()).Elem()
		s.decode(d, p, n, v)
		into.Set(reflect.Append(reflect.MakeSlice(into.Type(), 0, 1), v))
		return
	}
	s.decode(d, p, n, into)
}

// field is one key of an object.
type field struct {
	key   string
	name  string // of the Go field; dots descend
	shape shape
	// about says what the key means, for the schema.
	about    string
	required bool
	// absent says in config show what holds when the key is absent and no plain
	// value can say it.
	absent string
	// quiet keys are not shown while they are empty.
	quiet bool
}

// object is a map with known keys.
type object struct {
	fields []field
	rules  []rule
	// alias is a scalar form: the field it stands for.
	alias string
	// other explains keys that belong elsewhere.
	other map[string]string
	// prepare sets what holds before any key is read.
	prepare func(d *decoder, p place, n *node, into reflect.Value)
	example string
}

func (o *object) field(key string) *field {
	for i := range o.fields {
		if o.fields[i].key == key {
			return &o.fields[i]
		}
	}
	return nil
}

func (o *object) keys() []string {
	var keys []string
	for _, f := range o.fields {
		keys = append(keys, f.key)
	}
	return keys
}

func (o *object) decode(d *decoder, p place, n *node, into reflect.Value) {
	if o.prepare != nil {
		o.prepare(d, p, n, into)
	}
	if o.alias != "" && n.kind == isString {
		f := o.field(o.alias)
		q := p.child(f.key)
		q.path = p.path
		d.decode(f.shape, q, n, goField(into, f.name), false)
		return
	}
	if n.kind != isMap {
		where := p.path
		if where == "" {
			where = "the file"
		}
		what := "a map of keys"
		if o.alias != "" {
			what = "a string or " + what
		}
		d.fail(p, n, where+" must be "+what+", not "+string(n.kind), o.example)
		return
	}
	at := map[string]pair{}
	for _, e := range n.pairs {
		q := p.child(e.key)
		q.path = join(p.path, printableKey(e.key))
		if first, twice := at[e.key]; twice {
			d.failAt(q, e.line, e.column, fmt.Sprintf("%s is given twice, first at %d:%d", q.path, first.line, first.column), "remove one of the two")
			continue
		}
		at[e.key] = e
		if o.field(e.key) == nil {
			d.failAt(q, e.line, e.column, "unknown key "+q.path, o.unknown(e.key))
		}
	}
	for _, f := range o.fields {
		q := p.child(f.key)
		e, ok := at[f.key]
		switch {
		case ok && e.value.kind != isNull:
			d.decode(f.shape, q, e.value, goField(into, f.name), false)
		case f.required && ok:
			d.fail(q, e.value, q.path+" is required and has no value", "")
		case f.required:
			d.fail(q, n, q.path+" is missing", o.example)
		}
	}
	for _, r := range o.rules {
		if sentence, hint, key := r.broken(o, n); sentence != "" {
			line, column := n.line, n.column
			if e, ok := at[key]; ok {
				line, column = e.line, e.column
			}
			d.failAt(p.child(cmp.Or(key, r.keys()[0])), line, column, p.path+" "+sentence, hint)
		}
	}
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func printableKey(key string) string {
	if q := quote(key); key == "" || strings.ContainsAny(key, ` "\.`) || len(q) != len(key)+2 {
		return q
	}
	return key
}

// unknown returns the hint for a key that o does not know.
func (o *object) unknown(key string) string {
	if hint, ok := o.other[key]; ok {
		return hint
	}
	if later[key] {
		return "not in this version"
	}
	known := o.keys()
	if near := Nearest(key, known); near != "" {
		return "did you mean " + near + "?"
	}
	if first, rest, ok := strings.Cut(key, "."); ok && o.field(first) != nil {
		return "write it nested: " + first + ": {" + cut(rest) + ": ...}"
	}
	for _, f := range o.fields {
		if sub, ok := f.shape.(*object); ok && sub.field(key) != nil {
			return "it belongs under " + f.key
		}
	}
	return "known keys: " + strings.Join(known, ", ")
}

// value is nil: config show writes an object key by key.
func (o *object) value(reflect.Value) any { return nil }

func (o *object) schema(def reflect.Value) map[string]any {
	properties, required := map[string]any{}, []any{}
	for _, f := range o.fields {
		var fieldDefault reflect.Value
		if def.IsValid() {
			fieldDefault = goField(def, f.name)
		}
		s := f.shape.schema(fieldDefault)
		if f.required {
			required = append(required, f.key)
		} else {
			s = nullable(s)
		}
		s["description"] = f.about
		properties[f.key] = s
	}
	m := map[string]any{"type": "object", "properties": properties, "additionalProperties": false}
	if len(required) > 0 {
		m["required"] = required
	}
	var all []any
	for _, r := range o.rules {
		all = append(all, r.schema(o))
	}
	if all != nil {
		m["allOf"] = all
	}
	if o.alias != "" {
		m = map[string]any{"anyOf": []any{o.field(o.alias).shape.schema(reflect.Value{}), m}}
	}
	return m
}

// nullable also accepts null, which stands for an absent key.
func nullable(s map[string]any) map[string]any {
	typ, ok := s["type"].(string)
	if !ok {
		return map[string]any{"anyOf": []any{s, map[string]any{"type": "null"}}}
	}
	s["type"] = []any{typ, "null"}
	if enum, ok := s["enum"].([]any); ok {
		s["enum"] = append(slices.Clone(enum), nil)
	}
	return s
}

// table is a map with names of the user's own; its Go elements are structs with
// a Name.
type table struct {
	elem *object
	// name checks a name and returns a predicate and a hint, or "".
	name    func(string) (wrong, hint string)
	pattern string
	max     int
	example string
}

func (t table) decode(d *decoder, p place, n *node, into reflect.Value) {
	if n.kind != isMap {
		d.fail(p, n, p.path+" must be a map of names, not "+string(n.kind), t.example)
		return
	}
	if into.IsNil() {
		into.Set(reflect.MakeMap(into.Type()))
	}
	here := map[string]bool{}
	for _, e := range n.pairs {
		q := p.child(printableKey(e.key))
		if first, twice := d.cfg.Origins[q.key]; twice {
			where := first.String()
			if here[e.key] {
				where = fmt.Sprintf("%d:%d", first.Line, first.Column)
			}
			d.failAt(q, e.line, e.column, q.path+" is given twice, first at "+where, "rename or remove one of the two")
			continue
		}
		here[e.key] = true
		d.cfg.Origins[q.key] = Origin{Kind: FromFile, Name: d.file, Line: e.line, Column: e.column}
		v := reflect.New(into.Type().Elem()).Elem()
		switch wrong, hint := t.name(e.key); {
		case e.keyKind != isString:
			d.failAt(q, e.line, e.column, q.path+": the name must be a string, not "+string(e.keyKind), "quote it")
		case wrong != "":
			d.failAt(q, e.line, e.column, q.path+": the name "+wrong, hint)
		}
		if e.value.kind == isNull {
			d.failAt(q, e.line, e.column, q.path+" has no keys", t.example)
		} else {
			t.elem.decode(d, q, e.value, v)
		}
		v.FieldByName("Name").SetString(e.key)
		into.SetMapIndex(reflect.ValueOf(e.key), v)
	}
	if into.Len() > t.max {
		d.fail(p, n, fmt.Sprintf("%s has %d entries, and %d are the most", p.path, into.Len(), t.max), "")
	}
}

// value is nil: config show writes a table name by name.
func (t table) value(reflect.Value) any { return nil }

func (t table) schema(reflect.Value) map[string]any {
	return map[string]any{"type": "object", "additionalProperties": t.elem.schema(reflect.Value{}),
		"propertyNames": map[string]any{"pattern": t.pattern, "not": map[string]any{"const": None}}, "maxProperties": t.max}
}

// goField returns the field of the struct v that name, dotted, leads to.
func goField(v reflect.Value, name string) reflect.Value {
	for part := range strings.SplitSeq(name, ".") {
		v = v.FieldByName(part)
	}
	return v
}

// rule is a condition over several keys of one object.
type rule interface {
	keys() []string
	// broken returns a predicate, a hint and the key to point at ("": the object).
	broken(o *object, n *node) (sentence, hint, key string)
	schema(o *object) map[string]any
}

// given reports whether key says something in n.
func (o *object) given(n *node, key string) bool {
	v := n.get(key)
	if v == nil {
		return false
	}
	t, ok := o.field(key).shape.(text)
	return !ok || !t.empty || v.kind != isString || v.text != ""
}

// givenSchema is the schema that holds where given reports true.
func (o *object) givenSchema(key string) map[string]any {
	nothing := []any{nil}
	if t, ok := o.field(key).shape.(text); ok && t.empty {
		nothing = append(nothing, "")
	}
	return map[string]any{"required": []any{key},
		"properties": map[string]any{key: map[string]any{"not": map[string]any{"enum": nothing}}}}
}

// exactlyOne of the keys must be given.
type exactlyOne struct {
	of   []string
	hint string
}

func (r exactlyOne) keys() []string { return r.of }

func (r exactlyOne) broken(o *object, n *node) (string, string, string) {
	var found []string
	for _, k := range r.of {
		if o.given(n, k) {
			found = append(found, k)
		}
	}
	switch len(found) {
	case 1:
		return "", "", ""
	case 0:
		return "needs one of " + enumerate(r.of, "and"), r.hint, ""
	}
	return "has " + enumerate(found, "and") + ", and only one of them can be", r.hint, found[1]
}

func (r exactlyOne) schema(o *object) map[string]any {
	var one []any
	for _, k := range r.of {
		one = append(one, o.givenSchema(k))
	}
	return map[string]any{"oneOf": one}
}

// atMostOne of the keys may be given.
type atMostOne exactlyOne

func (r atMostOne) keys() []string { return r.of }

func (r atMostOne) broken(o *object, n *node) (string, string, string) {
	sentence, hint, key := exactlyOne(r).broken(o, n)
	if key == "" {
		return "", "", ""
	}
	return sentence, hint, key
}

func (r atMostOne) schema(o *object) map[string]any {
	var all []any
	for i, a := range r.of {
		for _, b := range r.of[i+1:] {
			all = append(all, map[string]any{"not": map[string]any{"allOf": []any{o.givenSchema(a), o.givenSchema(b)}}})
		}
	}
	return map[string]any{"allOf": all}
}

// needs says that one key makes no sense without another.
type needs struct{ key, other, hint string }

func (r needs) keys() []string { return []string{r.key, r.other} }

func (r needs) broken(o *object, n *node) (string, string, string) {
	if o.given(n, r.key) && !o.given(n, r.other) {
		return "has " + r.key + " but no " + r.other, r.hint, r.key
	}
	return "", "", ""
}

func (r needs) schema(o *object) map[string]any {
	return map[string]any{"if": o.givenSchema(r.key), "then": o.givenSchema(r.other)}
}

// never says that a key cannot stand beside another whose text matches.
type never struct {
	key, beside    string
	pattern        string // for the schema
	matches        func(string) bool
	sentence, hint string
}

func (r never) keys() []string { return []string{r.key} }

func (r never) broken(o *object, n *node) (string, string, string) {
	if other := n.get(r.beside); other != nil && o.given(n, r.key) && other.kind == isString && r.matches(other.text) {
		return r.sentence, r.hint, r.key
	}
	return "", "", ""
}

func (r never) schema(o *object) map[string]any {
	matching := o.givenSchema(r.beside)
	maps.Copy(matching["properties"].(map[string]any), map[string]any{r.beside: map[string]any{"type": "string", "pattern": r.pattern}})
	return map[string]any{"not": map[string]any{"allOf": []any{matching, o.givenSchema(r.key)}}}
}
