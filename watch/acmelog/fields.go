package acmelog

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"time"
)

// maxFields is how many fields of one line are looked at.
const maxFields = 64

// fieldList holds the fields of a structured line: the members of a JSON object, or
// the key=value pairs of logfmt. It points into the line and is used again for the
// next one. Of a key that comes twice the first counts: what loggers write
// themselves stands in front of what they are given.
type fieldList struct {
	list []field
}

// field is one of them; a quoted value is without its quotes, its escapes are still
// there.
type field struct {
	key, value []byte
	quoted     bool
	json       bool // else Go quoting
}

// reset forgets everything.
func (f *fieldList) reset() { f.list = f.list[:0] }

// json reads the members of a JSON object, as far as it goes: a line that was cut
// ends early.
func (f *fieldList) json(b []byte) {
	b = skipSpace(b)
	if len(b) == 0 || b[0] != '{' {
		return
	}
	b = b[1:]
	for len(f.list) < maxFields {
		b = skipSpace(b)
		if len(b) > 0 && b[0] == ',' {
			b = skipSpace(b[1:])
		}
		if len(b) == 0 || b[0] != '"' {
			return
		}
		key, rest, ok := quoted(b[1:])
		if !ok {
			return
		}
		rest = skipSpace(rest)
		if len(rest) == 0 || rest[0] != ':' {
			return
		}
		value, isString, after, ok := jsonValue(skipSpace(rest[1:]))
		if !ok {
			return
		}
		f.list = append(f.list, field{key: key, value: value, quoted: isString, json: true})
		b = after
	}
}

// jsonValue cuts a JSON value off b; of a string without its quotes.
func jsonValue(b []byte) (value []byte, isString bool, rest []byte, ok bool) {
	if len(b) == 0 {
		return nil, false, nil, false
	}
	switch b[0] {
	case '"':
		value, rest, ok = quoted(b[1:])
		return value, true, rest, ok
	case '{', '[':
		depth := 0
		for i := 0; i < len(b); i++ {
			switch b[i] {
			case '{', '[':
				depth++
			case '}', ']':
				if depth--; depth == 0 {
					return b[:i+1], false, b[i+1:], true
				}
			case '"':
				_, rest, ok := quoted(b[i+1:])
				if !ok {
					return nil, false, nil, false
				}
				i = len(b) - len(rest) - 1
			}
		}
		return nil, false, nil, false
	}
	i := bytes.IndexAny(b, ",}] \t\r\n")
	if i <= 0 {
		return nil, false, nil, false
	}
	return b[:i], false, b[i:], true
}

// logfmt reads key=value pairs, values in Go's quotes where they need any. Words
// without a value are passed over.
func (f *fieldList) logfmt(b []byte) {
	for len(f.list) < maxFields {
		b = bytes.TrimLeft(b, " \t")
		if len(b) == 0 {
			return
		}
		i := bytes.IndexAny(b, "= \t")
		if i < 0 {
			return
		}
		if b[i] != '=' {
			b = b[i:]
			continue
		}
		key, rest := b[:i], b[i+1:]
		if len(rest) > 0 && rest[0] == '"' {
			value, after, ok := quoted(rest[1:])
			if !ok {
				value, after = rest[1:], nil
			}
			f.list = append(f.list, field{key: key, value: value, quoted: true})
			b = after
			continue
		}
		end := bytes.IndexByte(rest, ' ')
		if end < 0 {
			end = len(rest)
		}
		f.list = append(f.list, field{key: key, value: rest[:end]})
		b = rest[end:]
	}
}

// find returns the first field of that key.
func (f *fieldList) find(key string) (field, bool) {
	for _, m := range f.list {
		if string(m.key) == key {
			return m, true
		}
	}
	return field{}, false
}

// text returns a value as text; "" when there is none.
func (f *fieldList) text(key string) string {
	m, ok := f.find(key)
	if !ok {
		return ""
	}
	return m.text()
}

func (m field) text() string {
	switch {
	case !m.quoted || bytes.IndexByte(m.value, '\\') < 0:
		return string(m.value)
	case m.json:
		return string(unquote(m.value))
	}
	if s, err := strconv.Unquote(`"` + string(m.value) + `"`); err == nil {
		return s
	}
	return string(m.value)
}

// names returns a list of names: an array of strings, or a text with commas.
func (f *fieldList) names(key string) []string {
	m, ok := f.find(key)
	if !ok {
		return nil
	}
	if len(m.value) > 0 && m.value[0] == '[' && !m.quoted {
		var list []string
		if json.Unmarshal(m.value, &list) != nil {
			return nil
		}
		return list
	}
	return splitNames(m.text())
}

// splitNames splits "a.example, b.example".
func splitNames(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' })
}

// has reports whether a key's value is exactly that.
func (f *fieldList) has(key, value string) bool {
	m, ok := f.find(key)
	return ok && string(m.value) == value
}

// seconds returns a duration that was written as a number of seconds, milliseconds
// or nanoseconds, whichever is sensible for a wait of at most longest, or as Go
// prints it.
func (f *fieldList) seconds(key string, longest time.Duration) (time.Duration, bool) {
	m, ok := f.find(key)
	if !ok {
		return 0, false
	}
	if m.quoted {
		d, err := time.ParseDuration(m.text())
		return d, err == nil && d >= 0 && d <= longest
	}
	n, err := strconv.ParseFloat(string(m.value), 64)
	if err != nil || !(n >= 0) {
		return 0, false
	}
	for _, unit := range []time.Duration{time.Second, time.Millisecond, time.Nanosecond} {
		if n*float64(unit) <= float64(longest) {
			return time.Duration(n * float64(unit)), true
		}
	}
	return 0, false
}

// skipSpace drops JSON's white space.
func skipSpace(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t' || b[0] == '\r' || b[0] == '\n') {
		b = b[1:]
	}
	return b
}

// stampLayouts are how structured loggers write times, other than as a number.
var stampLayouts = []string{
	time.RFC3339Nano, "2006-01-02T15:04:05.999999999Z0700", "2006/01/02 15:04:05.999999999",
	"2006-01-02 15:04:05.999999999", "02/Jan/2006:15:04:05 -0700", time.RFC1123Z, time.RFC1123,
}

// stamp reads a time: seconds, milliseconds, microseconds or nanoseconds since 1970,
// or one of stampLayouts, in zone where it does not say. Zero when it is none.
func stamp(s string, zone *time.Location) time.Time {
	if s == "" {
		return time.Time{}
	}
	if n, err := strconv.ParseFloat(s, 64); err == nil {
		for _, unit := range []float64{1, 1e3, 1e6, 1e9} {
			if sec := n / unit; sec >= 1e8 && sec < 1e10 { // 1973 to 2286
				whole := int64(sec)
				return time.Unix(whole, int64((sec-float64(whole))*1e9)).Round(time.Microsecond).UTC()
			}
		}
		return time.Time{}
	}
	for _, layout := range stampLayouts {
		if t, err := time.ParseInLocation(layout, s, zone); err == nil {
			return t.UTC()
		}
	}
	return time.Time{}
}
