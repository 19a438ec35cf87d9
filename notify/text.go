package notify

import (
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// How long the texts of an event may be, in bytes.
const (
	maxDetail = 2048
	maxHint   = 1024
	maxOutput = 2048
	maxWord   = 256 // names, addresses, codes, paths
	maxPath   = 1024
)

// text makes s printable and at most limit bytes long. Line ends and tabs become
// spaces, other control and formatting characters and invalid bytes U+FFFD.
func text(s string, limit int) string { return clean(s, limit, false) }

// lines is text that keeps line ends and tabs.
func lines(s string, limit int) string { return clean(s, limit, true) }

func clean(s string, limit int, keepLines bool) string {
	if len(s) <= limit && plain(s) {
		return s
	}
	const more = "…"
	var b strings.Builder
	full := 0 // length of the last whole content that leaves room for more
	for _, r := range s {
		switch {
		case r == '\n' || r == '\t':
			if !keepLines {
				r = ' '
			}
		case r == '\r':
			continue
		case !unicode.IsPrint(r):
			r = utf8.RuneError
		}
		if b.Len()+utf8.RuneLen(r) > limit {
			return b.String()[:full] + more
		}
		b.WriteRune(r)
		if b.Len() <= limit-len(more) {
			full = b.Len()
		}
	}
	return b.String()
}

// plain tells that s is printable ASCII.
func plain(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// instant is t in UTC without what JSON cannot carry.
func instant(t time.Time) time.Time {
	t = t.UTC().Round(0)
	if y := t.Year(); y < 0 || y > 9999 {
		return time.Time{}
	}
	return t
}
