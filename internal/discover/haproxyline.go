package discover

import "strings"

// haWord is a word of a line. unknown names a variable in it that is not known,
// for which HAProxy takes what its own environment has.
type haWord struct {
	text    string
	unknown string
}

// haproxyWords cuts a line into words, by the rules of HAProxy's parse_line:
// quotes, escapes, variables within double quotes, comments. It reports false for
// a line that HAProxy refuses.
func haproxyWords(s string, lookup func(string) (string, bool)) ([]haWord, bool) {
	var words []haWord
	var b strings.Builder
	var unknown string
	in, single, double := false, false, false
	empty := false // the quotes hold nothing: that is a word too
	end := func() {
		if in {
			words = append(words, haWord{b.String(), unknown})
		}
		b.Reset()
		unknown, in = "", false
	}
	for i := 0; i < len(s) && len(words) < maxHAWords; i++ {
		c := s[i]
		switch {
		case c == '\n' || c == '\r' || c == '#' && !single && !double:
			i = len(s)
		case c == '"' && !single:
			in = in || double && empty
			double, empty = !double, true
		case c == '\'' && !double:
			in = in || single && empty
			single, empty = !single, true
		case c == '\\' && !single:
			in = true
			if i+1 == len(s) {
				b.WriteByte(c)
				break
			}
			i++
			switch c := s[i]; c {
			case ' ', '\\', '#', '\'', '"':
				b.WriteByte(c)
			case 't':
				b.WriteByte('\t')
			case 'n':
				b.WriteByte('\n')
			case 'r':
				b.WriteByte('\r')
			case 'x':
				if i+2 >= len(s) || unhex(s[i+1]) < 0 || unhex(s[i+2]) < 0 {
					return words, false
				}
				b.WriteByte(byte(unhex(s[i+1])<<4 | unhex(s[i+2])))
				i += 2
			case '$':
				if !double {
					b.WriteByte('\\')
				}
				b.WriteByte(c)
			default:
				b.WriteByte('\\')
				i--
			}
		case isSpace(c) && !single && !double:
			end()
		case c == '$' && double:
			name, v, split, n, ok := haproxyVariable(s[i:], lookup)
			if !ok {
				return words, false
			}
			i += n - 1
			if name != "" {
				unknown = name
			}
			if !split {
				in = true
				if b.Len() < maxExpanded {
					b.WriteString(v)
				}
				break
			}
			for n, field := range strings.Fields(v) {
				if n > 0 {
					end()
				}
				in = true
				b.WriteString(field)
			}
			// "${NAME[*]}" of nothing is no word at all; of what is not known it may be some.
			in, empty = b.Len() > 0 || name != "", false
		default:
			in = true
			b.WriteByte(c)
		}
	}
	ok := !single && !double
	end()
	return words, ok
}

// maxHAWords bounds the words of a line; HAProxy's own limit is 64.
const maxHAWords = 1024

func isSpace(c byte) bool { return c == ' ' || '\t' <= c && c <= '\r' }

func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// haproxyVariable reads $NAME, ${NAME}, ${NAME-default} or ${NAME[*]} at the start
// of s, n bytes long. name is set where the value is not known.
func haproxyVariable(s string, lookup func(string) (string, bool)) (name, v string, split bool, n int, ok bool) {
	i := 1
	brace := i < len(s) && s[i] == '{'
	if brace {
		i++
	}
	start := i
	for i < len(s) && (s[i] == '_' || s[i] == '.' && i == start || '0' <= s[i] && s[i] <= '9' && i > start ||
		'a' <= s[i] && s[i] <= 'z' || 'A' <= s[i] && s[i] <= 'Z') {
		i++
	}
	if i == start {
		return "", "", false, 0, false
	}
	name = s[start:i]
	v, known := lookup(name)
	if brace {
		if strings.HasPrefix(s[i:], "[*]") {
			split = true
			i += len("[*]")
		}
		end := strings.IndexByte(s[i:], '}')
		if end < 0 || end > 0 && s[i] != '-' {
			return "", "", false, 0, false
		}
		if end > 0 && !known {
			v, known = s[i+1:i+end], true
		}
		i += end + 1
	}
	if known {
		name = ""
	}
	return name, v, split, i, true
}
