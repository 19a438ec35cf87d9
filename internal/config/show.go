package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Show writes cfg as YAML that loads as the same configuration again: every key
// with its value and, as a comment, where the value comes from. Secrets, which
// come from the environment only, are not shown; with one of them in use what
// else the NATS_* variables say is written as comments too, for a file that names
// a server or a user would switch those variables off.
func Show(cfg *Config) []byte {
	s := &shower{cfg: cfg, secret: cfg.NATS.Token != "" || cfg.NATS.Password != ""}
	for i, f := range cfg.Files {
		word := "# read from "
		if i > 0 {
			word = "# and from "
		}
		s.lines = append(s.lines, line{text: word + position(f, 0, 0)})
	}
	s.object("", "", file(), reflect.ValueOf(cfg).Elem())
	return s.bytes()
}

type line struct{ text, comment string }

type shower struct {
	cfg    *Config
	secret bool
	lines  []line
}

// bytes aligns the comments of neighbouring lines.
func (s *shower) bytes() []byte {
	const most = 60
	var b bytes.Buffer
	for _, l := range s.lines {
		b.WriteString(l.text)
		if l.comment != "" {
			if pad := most - len(l.text); pad > 0 {
				b.WriteString(strings.Repeat(" ", pad))
			}
			b.WriteString("  # " + l.comment)
		}
		b.WriteByte('\n')
	}
	return b.Bytes()
}

// object writes the keys of v; the first line may start with the dash of a list.
func (s *shower) object(indent, key string, o *object, v reflect.Value) {
	for _, f := range o.fields {
		k := f.key
		if key != "" {
			k = key + "." + f.key
		}
		s.field(indent, k, f, goField(v, f.name))
	}
	if key == "nats" {
		for _, secret := range []struct{ key, value string }{{"token", s.cfg.NATS.Token}, {"password", s.cfg.NATS.Password}} {
			if secret.value != "" {
				s.lines = append(s.lines, line{"# " + indent + secret.key + ": (not shown)", s.cfg.Origins["nats."+secret.key].String()})
			}
		}
	}
}

func (s *shower) field(indent, key string, f field, v reflect.Value) {
	if f.quiet && v.IsZero() {
		return
	}
	head := indent + f.key + ":"
	switch shape := f.shape.(type) {
	case *object:
		s.lines = append(s.lines, line{text: head})
		s.object(indent+"  ", key, shape, v)
		return
	case optional:
		s.lines = append(s.lines, line{head, s.origin(key).String()})
		s.object(indent+"  ", key, shape.shape.(*object), v.Elem())
		return
	case table:
		if v.Len() == 0 {
			s.lines = append(s.lines, line{head + " {}", s.origin(key).String()})
			return
		}
		s.lines = append(s.lines, line{text: head})
		for _, name := range slices.Sorted(maps.Keys(v.Interface().(map[string]Server))) {
			k := key + "." + printableKey(name)
			s.lines = append(s.lines, line{indent + "  " + scalar(name) + ":", s.origin(k).String()})
			s.object(indent+"    ", k, shape.elem, v.MapIndex(reflect.ValueOf(name)))
		}
		return
	case list:
		elem, ok := shape.elem.(*object)
		if !ok || v.IsNil() && key != "certificates" {
			break
		}
		if v.Len() == 0 {
			s.lines = append(s.lines, line{head + " []", s.origin(key).String()})
			return
		}
		s.lines = append(s.lines, line{text: head})
		for i := range v.Len() {
			first := len(s.lines)
			s.object(indent+"    ", fmt.Sprintf("%s[%d]", key, i), elem, v.Index(i))
			s.lines[first].text = indent + "  - " + strings.TrimLeft(s.lines[first].text, " ")
		}
		return
	}
	from := s.origin(key)
	value := f.shape.value(v)
	if value == nil && f.absent != "" {
		s.lines = append(s.lines, line{head + " null", from.String() + ": " + f.absent})
		return
	}
	text := head + " " + flow(value)
	if s.secret && from.Kind == FromEnv && strings.HasPrefix(key, "nats.") {
		text = "# " + text
	}
	comment := from.String()
	if value == "" && f.absent != "" {
		comment += ": " + f.absent
	}
	if strings.HasSuffix(key, "].name") && from.Kind == FromDefault && value != nil {
		comment = "from the path of cert"
	}
	s.lines = append(s.lines, line{text, comment})
}

// origin also looks where a certificate's value is inherited from.
func (s *shower) origin(key string) Origin {
	if o, ok := s.cfg.Origins[key]; ok {
		return o
	}
	if rest, ok := strings.CutPrefix(key, "certificates["); ok {
		_, tail, _ := strings.Cut(rest, "].")
		if o, ok := s.cfg.Origins["defaults."+tail]; ok {
			return o
		}
	}
	return Origin{Kind: FromDefault}
}

var plainForm = regexp.MustCompile(`^[A-Za-z0-9/][A-Za-z0-9_./@+-]*$`)

// scalar writes s so that every YAML reader takes it for this string.
func scalar(s string) string {
	if plainForm.MatchString(s) && resolve(s) == isString {
		return s
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		return `""`
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// flow writes a value on one line.
func flow(v any) string {
	switch v := v.(type) {
	case bool:
		return strconv.FormatBool(v)
	case int64:
		return strconv.FormatInt(v, 10)
	case string:
		return scalar(v)
	case []any:
		parts := make([]string, len(v))
		for i, e := range v {
			parts[i] = flow(e)
		}
		return "[" + strings.Join(parts, ", ") + "]"
	}
	return "null"
}
