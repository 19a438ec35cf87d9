package verify

import (
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// printable returns s in at most limit runes, none of which can move a cursor,
// change a colour or turn the direction of writing.
func printable(s string, limit int) string {
	var b strings.Builder
	n := 0
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		s = s[size:]
		if n++; n > limit {
			b.WriteString("...")
			break
		}
		if r == utf8.RuneError && size == 1 || !unicode.IsPrint(r) {
			r = '.'
		}
		b.WriteRune(r)
	}
	return b.String()
}

// quoted is printable, in double quotes, short enough for a sentence.
func quoted(s string) string { return `"` + printable(s, 80) + `"` }

const stamp = "2006-01-02 15:04"

// day writes a time the way sentences do.
func day(t time.Time) string { return t.UTC().Format(stamp) + " UTC" }

// short is the start of a fingerprint: enough to compare by eye.
func short(c *x509.Certificate) string {
	f := FingerprintOf(c)
	return hex.EncodeToString(f[:4])
}

// dated is a leaf with its dates: evidence for who is older.
func dated(c *x509.Certificate) string {
	return fmt.Sprintf("%s (notBefore %s, until %s)", short(c), c.NotBefore.UTC().Format(stamp), day(c.NotAfter))
}

// namesOf lists the first names of a leaf.
func namesOf(c *x509.Certificate) string {
	names := make([]string, 0, 4)
	for _, n := range c.DNSNames {
		names = append(names, printable(n, 64))
	}
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	switch n := len(names); {
	case n == 0:
		return "no name at all"
	case n > 3:
		return fmt.Sprintf("%s and %d more", strings.Join(names[:3], ", "), n-3)
	}
	return strings.Join(names, ", ")
}

// issuerOf names who signed c.
func issuerOf(c *x509.Certificate) string {
	if cn := c.Issuer.CommonName; cn != "" {
		return quoted(cn)
	}
	return quoted(c.Issuer.String())
}

// subjectOf names c.
func subjectOf(c *x509.Certificate) string {
	if cn := c.Subject.CommonName; cn != "" {
		return quoted(cn)
	}
	return quoted(c.Subject.String())
}
