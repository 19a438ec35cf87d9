package reload

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	// maxOutput bounds Result.Output in bytes.
	maxOutput = 2048
	// keepRaw is how much is kept of either end before it is made printable,
	// which can make it shorter.
	keepRaw = 4096
	// headShare and tailShare are what is left of either end when not all fits;
	// the rest of maxOutput is for the line that says so. The end is longer: a
	// failing program says why at last.
	headShare, tailShare = 768, 1200
	// maxName bounds a name or message quoted in a sentence.
	maxName = 200
)

// output keeps the beginning and the end of what is written to it and never
// refuses a byte.
type output struct {
	head  []byte
	tail  []byte // the last keepRaw to 2*keepRaw bytes after head
	total int64
}

func (o *output) Write(p []byte) (int, error) {
	n := len(p)
	o.total += int64(n)
	if room := keepRaw - len(o.head); room > 0 {
		k := min(room, len(p))
		o.head = append(o.head, p[:k]...)
		p = p[k:]
	}
	if len(p) > keepRaw {
		p = p[len(p)-keepRaw:]
	}
	o.tail = append(o.tail, p...)
	if len(o.tail) > 2*keepRaw {
		o.tail = append(o.tail[:0], o.tail[len(o.tail)-keepRaw:]...)
	}
	return n, nil
}

// String returns at most maxOutput printable bytes: all of it, or both ends with
// a line between them.
func (o *output) String() string {
	lost := o.total - int64(len(o.head)+len(o.tail))
	if lost == 0 {
		text := strings.TrimSpace(clean(string(o.head) + string(o.tail)))
		if len(text) <= maxOutput {
			return text
		}
		return elide(text, text, int64(len(text)-headShare-tailShare))
	}
	head, tail := clean(string(o.head)), clean(string(o.tail))
	lost += int64(len(head) - min(len(head), headShare) + len(tail) - min(len(tail), tailShare))
	return elide(head, tail, lost)
}

func elide(head, tail string, lost int64) string {
	head = strings.TrimSpace(cutEnd(head, headShare))
	if len(tail) > tailShare {
		tail = tail[len(tail)-tailShare:]
		for len(tail) > 0 && !utf8.RuneStart(tail[0]) {
			tail = tail[1:]
		}
	}
	return strings.TrimSpace(fmt.Sprintf("%s\n[about %d bytes left out]\n%s", head, lost, strings.TrimSpace(tail)))
}

// cutEnd shortens valid UTF-8 to at most n bytes, never inside a character.
func cutEnd(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// clean makes text printable: terminal sequences go, line ends become \n, tabs a
// blank, and every run of other bytes that cannot be shown one U+FFFD.
func clean(s string) string {
	var b strings.Builder
	bad := false
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == '\r' && i+1 < len(s) && s[i+1] == '\n':
			i++
			continue
		case c == '\n' || c == '\r':
			b.WriteByte('\n')
		case c == '\t':
			b.WriteByte(' ')
		case c == 0x1b:
			i += escapeLen(s[i:])
			continue
		default:
			r, n := utf8.DecodeRuneInString(s[i:])
			i += n
			ok := unicode.IsPrint(r) && r != utf8.RuneError
			if ok {
				b.WriteRune(r)
			} else if !bad {
				b.WriteRune(utf8.RuneError)
			}
			bad = !ok
			continue
		}
		bad = false
		i++
	}
	return b.String()
}

// escapeLen is the length of the terminal sequence at the start of s.
func escapeLen(s string) int {
	if len(s) < 2 {
		return len(s)
	}
	switch s[1] {
	case '[': // CSI: parameters, then a final byte
		for i := 2; i < len(s); i++ {
			if s[i] < 0x20 || s[i] > 0x3f {
				if s[i] >= 0x40 && s[i] <= 0x7e {
					return i + 1
				}
				return i
			}
		}
		return len(s)
	case ']': // OSC: to BEL, ST, or the end of the line
		for i := 2; i < len(s); i++ {
			switch s[i] {
			case 0x07:
				return i + 1
			case 0x1b:
				if i+1 < len(s) && s[i+1] == '\\' {
					return i + 2
				}
				return i
			case '\n':
				return i
			}
		}
		return len(s)
	}
	if s[1] < 0x20 || s[1] > 0x7e {
		return 1
	}
	return 2
}

// printable makes a name or a message fit for one sentence: one line, bounded.
func printable(s string) string {
	short := s
	if len(short) > 4*maxName {
		short = short[:4*maxName]
	}
	line := strings.Join(strings.Fields(clean(short)), " ")
	if len(line) > maxName {
		line = cutEnd(line, maxName-3) + "..."
	}
	return line
}
