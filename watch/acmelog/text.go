package acmelog

import (
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"
)

// clean makes a text fit to be told: one line, printable, at most maxText bytes,
// without what looks like a token, a key authorization, a JWT, a nonce or an
// account's address.
func clean(s string) string {
	if len(s) > 8*maxText {
		s = s[:8*maxText]
	}
	s = printable(s)
	s = redact(s)
	return bound(s, maxText)
}

// bound cuts a text at n bytes, between characters, and shows that it did.
func bound(s string, n int) string {
	if len(s) <= n {
		return s
	}
	n -= len("…")
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}

// printable turns white space into single spaces, drops ANSI sequences and what
// cannot be printed.
func printable(s string) string {
	var b strings.Builder
	b.Grow(len(s))
	space := false
	for i := 0; i < len(s); {
		if s[i] == 0x1b {
			i += ansi(s[i:])
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		i += n
		switch {
		case unicode.IsSpace(r) || r < ' ' || r == 0x7f:
			space = b.Len() > 0
			continue
		case !unicode.IsPrint(r):
			r = utf8.RuneError
		}
		if space {
			b.WriteByte(' ')
			space = false
		}
		b.WriteRune(r)
	}
	return b.String()
}

// ansi returns the length of the escape sequence that s begins with, at least 1.
func ansi(s string) int {
	if len(s) < 2 {
		return 1
	}
	if s[1] != '[' {
		return 2
	}
	for i := 2; i < len(s) && i < 32; i++ {
		if s[i] >= 0x40 && s[i] <= 0x7e {
			return i + 1
		}
	}
	return 2
}

// stripANSI returns b without escape sequences.
func stripANSI(b []byte) []byte {
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); {
		if b[i] == 0x1b {
			i += ansi(string(b[i:min(len(b), i+32)]))
			continue
		}
		out = append(out, b[i])
		i++
	}
	return out
}

const redacted = "[...]"

// redact replaces what may be a secret or names an account. DNS names, dates,
// error codes and words stay.
func redact(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		j := i
		for j < len(s) && tokenByte(s[j]) {
			j++
		}
		if j == i {
			if s[i] == '?' && strings.Contains(lastWord(s[:i]), "://") { // a query may hold a bearer token
				k := i + 1
				for k < len(s) && s[k] > ' ' && !strings.ContainsRune(`"'<>),`, rune(s[k])) {
					k++
				}
				if k > i+1 {
					b.WriteString("?" + redacted)
					i = k
					continue
				}
			}
			b.WriteByte(s[i])
			i++
			continue
		}
		word := s[i:j]
		switch {
		case secretive(word), accountPath(s[:i]):
			b.WriteString(redacted)
		default:
			b.WriteString(word)
		}
		i = j
	}
	return b.String()
}

// lastWord returns what follows the last space.
func lastWord(s string) string {
	return s[strings.LastIndexAny(s, " \t\"'<(")+1:]
}

// accountPath reports whether what follows is the name of an account in a URL.
func accountPath(before string) bool {
	for _, p := range []string{"/acct/", "/acc/", "/account/", "/accounts/", "/my-account/", "/reg/"} {
		if strings.HasSuffix(before, p) {
			return true
		}
	}
	return false
}

// tokenByte reports whether c may stand in base64url or hex.
func tokenByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_'
}

// secretive reports whether a word looks like chance: tokens, nonces, thumbprints
// and JWTs do, names and sentences do not.
func secretive(w string) bool {
	if i := strings.Index(w, "eyJ"); i >= 0 && len(w)-i > 10 { // a JSON object in base64: what JWTs begin with
		return true
	}
	if len(w) < 16 {
		return false
	}
	var lower, upper, digit, hex, turns int
	prev := 0
	for i := 0; i < len(w); i++ {
		c, kind := w[i], 0
		switch {
		case c >= '0' && c <= '9':
			digit++
			hex++
			kind = 1
		case c >= 'a' && c <= 'z':
			lower++
			kind = 2
			if c <= 'f' {
				hex++
			}
		case c >= 'A' && c <= 'Z':
			upper++
			kind = 3
		default:
			continue
		}
		if prev != 0 && kind != prev {
			turns++
		}
		prev = kind
	}
	switch {
	case len(w) >= 32 && hex == len(w) && digit > 0 && lower > 0: // hexadecimal
		return true
	case len(w) >= 20 && upper > 0 && lower > 0 && digit > 0 && turns >= 4:
		return true
	case upper > 0 && lower > 0 && turns*3 >= len(w) && len(w) >= 16: // mixed case, no words: NewConnectionError is some
		return true
	case len(w) >= 40 && digit > 0 && turns*4 >= len(w):
		return true
	}
	return false
}

// cleanName makes a DNS name or address fit to be told; "" for what is none.
func cleanName(s string) string {
	s = strings.ToLower(strings.Trim(s, " \t\"'`,;[]"))
	s = strings.TrimSuffix(s, ".")
	if s == "" || len(s) > maxNaming {
		return ""
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '.' || c == '_' || c == ':' || c == '*') {
			return ""
		}
	}
	return s
}

// cleanURL keeps scheme, host and path of a directory's URL.
func cleanURL(s string) string {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" {
		return ""
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	return clean(u.String())
}

// IsStaging reports whether a directory is that of a CA's test environment.
func IsStaging(directory string) bool {
	u, err := url.Parse(directory)
	if err != nil {
		return false
	}
	h := strings.ToLower(u.Hostname() + u.Path)
	for _, mark := range []string{"staging", "acme-stg", "test-api.pki.goog", "-test.", "sandbox"} {
		if strings.Contains(h, mark) {
			return true
		}
	}
	return false
}
