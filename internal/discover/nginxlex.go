package discover

import (
	"bytes"
	"strings"
)

// statement is what nginx reads at a time: words up to ";", "{" or "}". end is 0
// at the end of the file, and where the file is no configuration any more.
type statement struct {
	words [3]string // the first words; no directive read here has more
	n     int       // how many words there are
	end   byte
	line  int // of the first word
}

func (s *statement) word(i int) string { return s.words[i] }

// nginxLexer cuts a file into statements, by the rules of ngx_conf_read_token.
type nginxLexer struct {
	data  []byte
	pos   int
	line  int
	wrong string // why there is nothing more to read
}

// maxWord is nginx's own limit for a word.
const maxWord = 4096

func (l *nginxLexer) next() statement {
	st := statement{line: l.line}
	if l.wrong != "" {
		return st
	}
	for {
		l.space()
		if l.pos == len(l.data) {
			if st.n > 0 {
				return l.fail(st, "the file ends inside a directive")
			}
			st.line = l.line
			return st
		}
		switch c := l.data[l.pos]; c {
		case ';', '{':
			if st.n == 0 {
				st.line = l.line
				return l.fail(st, `unexpected "`+string(c)+`"`)
			}
			l.pos++
			st.end = c
			return st
		case '}':
			if st.n > 0 {
				return l.fail(st, `unexpected "}"`)
			}
			st.line = l.line
			l.pos++
			st.end = c
			return st
		}
		if st.n == 0 {
			st.line = l.line
		}
		word, ok := l.word(st.n < len(st.words))
		if !ok {
			return l.fail(st, l.wrong)
		}
		if st.n < len(st.words) {
			st.words[st.n] = word
		}
		st.n++
	}
}

func (l *nginxLexer) fail(st statement, why string) statement {
	l.wrong = why
	st.end = 0
	return st
}

// space skips white space and comments.
func (l *nginxLexer) space() {
	for l.pos < len(l.data) {
		switch l.data[l.pos] {
		case '\n':
			l.line++
		case ' ', '\t', '\r':
		case '#':
			end := bytes.IndexByte(l.data[l.pos:], '\n')
			if end < 0 {
				l.pos = len(l.data)
				return
			}
			l.pos += end
			continue
		default:
			return
		}
		l.pos++
	}
}

// word reads the word at pos; keep says whether anybody wants it.
func (l *nginxLexer) word(keep bool) (string, bool) {
	start, quote := l.pos, byte(0)
	if c := l.data[l.pos]; c == '"' || c == '\'' {
		quote = c
		l.pos++
		start++
	}
	escaped, variable := false, false
	for ; l.pos < len(l.data); l.pos++ {
		if l.pos-start > maxWord {
			l.wrong = "a word is too long"
			return "", false
		}
		c := l.data[l.pos]
		if c == '\n' {
			l.line++
		}
		if c == '{' && variable {
			continue // ${name}
		}
		variable = false
		switch {
		case c == '\\':
			escaped = true
			if l.pos++; l.pos < len(l.data) && l.data[l.pos] == '\n' {
				l.line++
			}
		case c == '$':
			variable = true
		case quote != 0:
			if c == quote {
				word := l.text(start, escaped, keep)
				l.pos++
				return word, l.behindQuote()
			}
		case c == ' ' || c == '\t' || c == '\r' || c == '\n' || c == ';' || c == '{':
			if c == '\n' {
				l.line-- // space counts it
			}
			return l.text(start, escaped, keep), true
		}
	}
	l.pos = len(l.data)
	l.wrong = "the file ends inside a directive"
	return "", false
}

// behindQuote checks what may follow a closing quote. A ")" does, for the
// conditions of an if, and is part of the next word.
func (l *nginxLexer) behindQuote() bool {
	if l.pos < len(l.data) && !strings.ContainsRune(" \t\r\n;{)", rune(l.data[l.pos])) {
		l.wrong = "a quoted word is followed by another character"
		return false
	}
	return true
}

// text returns the word that began at start, escapes undone.
func (l *nginxLexer) text(start int, escaped, keep bool) string {
	if !keep {
		return ""
	}
	raw := l.data[start:l.pos]
	if !escaped {
		return string(raw)
	}
	var b strings.Builder
	for i := 0; i < len(raw); i++ {
		if raw[i] == '\\' && i+1 < len(raw) {
			switch raw[i+1] {
			case '"', '\'', '\\':
				i++
			case 't':
				b.WriteByte('\t')
				i++
				continue
			case 'r':
				b.WriteByte('\r')
				i++
				continue
			case 'n':
				b.WriteByte('\n')
				i++
				continue
			}
		}
		b.WriteByte(raw[i])
	}
	return b.String()
}

// skipLua skips the Lua code of a *_by_lua_block, behind its opening brace up to
// and with the closing one. Braces in strings and comments do not count.
func (l *nginxLexer) skipLua() {
	for open := 1; l.pos < len(l.data); {
		rest := l.data[l.pos:]
		switch c := rest[0]; {
		case c == '{':
			open++
			l.pos++
		case c == '}':
			l.pos++
			if open--; open == 0 {
				return
			}
		case bytes.HasPrefix(rest, []byte("--")):
			l.pos += 2
			if n := longBracket(l.data[l.pos:]); n > 0 {
				l.skip(n)
			} else if n := bytes.IndexByte(rest, '\n'); n >= 0 {
				l.pos += n - 2
			} else {
				l.pos = len(l.data)
			}
		case c == '[':
			l.skip(max(longBracket(rest), 1))
		case c == '"' || c == '\'':
			n := 1
			for n < len(rest) && rest[n] != c && rest[n] != '\n' {
				if rest[n] == '\\' {
					n++
				}
				n++
			}
			l.skip(min(n+1, len(rest)))
		default:
			l.skip(1)
		}
	}
	l.wrong = "the file ends inside a Lua block"
}

// skip goes n bytes on and counts the lines.
func (l *nginxLexer) skip(n int) {
	l.line += bytes.Count(l.data[l.pos:l.pos+n], []byte("\n"))
	l.pos += n
}

// longBracket is the length of the [[text]] or [==[text]==] that data starts
// with, or 0. One that is not closed reaches to the end.
func longBracket(data []byte) int {
	if len(data) == 0 || data[0] != '[' {
		return 0
	}
	level := 1
	for level < len(data) && data[level] == '=' {
		level++
	}
	if level >= len(data) || data[level] != '[' {
		return 0
	}
	closing := "]" + strings.Repeat("=", level-1) + "]"
	end := bytes.Index(data, []byte(closing))
	if end < 0 {
		return len(data)
	}
	return end + len(closing)
}
