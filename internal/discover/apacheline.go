package discover

import (
	"bytes"
	"strings"
)

// apacheLines cuts a file of Apache into lines: a backslash at the end joins the
// next one, comments and empty lines are left out.
type apacheLines struct {
	data []byte
	line int
}

// next returns a line without the white space around it, and its number. It
// reports false at the end.
func (l *apacheLines) next() (text string, at int, ok bool) {
	for len(l.data) > 0 {
		var text, joined []byte
		at = l.line + 1
		for more := true; more && len(l.data) > 0; {
			text, l.data, _ = bytes.Cut(l.data, []byte("\n"))
			l.line++
			text = bytes.TrimSuffix(text, []byte("\r"))
			text, more = bytes.CutSuffix(text, []byte(`\`))
			if more || joined != nil {
				joined = append(joined, text...)
				text = joined
			}
		}
		text = bytes.TrimSpace(text)
		if len(text) > 0 && text[0] != '#' {
			return string(text), at, true
		}
	}
	return "", l.line, false
}

// apacheWord takes the first word off a line, by the rules of ap_getword_conf.
func apacheWord(s string) (word, rest string) {
	s = strings.TrimLeft(s, " \t\r\n\v\f")
	if s == "" {
		return "", ""
	}
	quote := s[0]
	if quote != '"' && quote != '\'' {
		end := strings.IndexAny(s, " \t\r\n\v\f")
		if end < 0 {
			return s, ""
		}
		return s[:end], s[end:]
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		if s[i] == quote {
			return b.String(), s[i+1:]
		}
		if s[i] == '\\' && i+1 < len(s) && (s[i+1] == '\\' || s[i+1] == quote) {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String(), ""
}

// apacheWords are the words of a line, at most limit.
func apacheWords(s string, limit int) []string {
	var words []string
	for len(words) < limit {
		var w string
		if w, s = apacheWord(s); w == "" && strings.TrimSpace(s) == "" {
			break
		}
		words = append(words, w)
	}
	return words
}

// section takes a line <Name arguments> apart; closing is </Name>.
func section(text string) (name, args string, closing, ok bool) {
	inner, ok := strings.CutPrefix(text, "<")
	if !ok {
		return "", "", false, false
	}
	if end := strings.LastIndexByte(inner, '>'); end >= 0 {
		inner = inner[:end]
	}
	inner, closing = strings.CutPrefix(inner, "/")
	name, args = apacheWord(inner)
	return strings.ToLower(name), strings.TrimSpace(args), closing, true
}

// maxExpanded bounds a line after the expansion of variables or macros: a path is
// much shorter.
const maxExpanded = 64 << 10

// expand replaces ${NAME} by what lookup knows. What is not known stays, as in
// Apache.
func expand(s string, lookup func(string) (string, bool)) string {
	if !strings.Contains(s, "${") {
		return s
	}
	var b strings.Builder
	for b.Len() < maxExpanded {
		before, after, ok := strings.Cut(s, "${")
		b.WriteString(before)
		if !ok {
			break
		}
		name, _, closed := strings.Cut(after[:min(len(after), 256)], "}")
		v, known := "", false
		if closed && name != "" {
			v, known = lookup(name)
		}
		if known {
			b.WriteString(v)
			s = after[len(name)+1:]
		} else {
			b.WriteString("${")
			s = after
		}
	}
	return b.String()
}

// macro is a <Macro> of mod_macro.
type macro struct {
	params []string
	lines  []macroLine
}

type macroLine struct{ text, at string }

// fill replaces the parameters of a macro in a line: the leftmost first, and of
// those the longest.
func (m *macro) fill(text string, args []string) string {
	var b strings.Builder
	for i := 0; i < len(text) && b.Len() < maxExpanded; {
		best := -1
		for n, p := range m.params {
			if p != "" && strings.HasPrefix(text[i:], p) && (best < 0 || len(p) > len(m.params[best])) {
				best = n
			}
		}
		if best < 0 {
			b.WriteByte(text[i])
			i++
			continue
		}
		if best < len(args) {
			b.WriteString(args[best])
		}
		i += len(m.params[best])
	}
	return b.String()
}
