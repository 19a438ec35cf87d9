package notify

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// Longest token, and how much of a longer one is kept in front of the hash.
const (
	maxToken  = 100
	keptToken = 91
)

const upperHex = "0123456789ABCDEF"

// CACertificate is the certificate name under which ACME directories are told of.
const CACertificate = "_ca"

// Token turns a host or certificate name into one subject token that is also a
// legal key-value key and a legal file name: lower-case, "." becomes "_", a
// leading "*." becomes "STAR_", every other byte outside a-z 0-9 - becomes "=XX".
// Two names that differ in more than ASCII case have different tokens. A token of
// more than 100 bytes is cut and ends in a hash of the name. AgentCertificate and
// CACertificate stand for themselves. The empty name is "=".
func Token(name string) string {
	switch name {
	case AgentCertificate, CACertificate:
		return name
	case "":
		return "="
	}
	var b strings.Builder
	rest := name
	if after, ok := strings.CutPrefix(rest, "*."); ok {
		b.WriteString("STAR_")
		rest = after
	}
	cut := -1 // where to cut so that no escape is split
	for i := range len(rest) {
		c := rest[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		before := b.Len()
		switch {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-':
			b.WriteByte(c)
		case c == '.' && !reservedWithDot(name):
			b.WriteByte('_')
		default:
			b.WriteByte('=')
			b.WriteByte(upperHex[c>>4])
			b.WriteByte(upperHex[c&15])
		}
		if cut < 0 && b.Len() > keptToken {
			cut = before
		}
	}
	token := b.String()
	if len(token) <= maxToken {
		return token
	}
	sum := sha256.Sum256([]byte(name))
	return token[:cut] + "-" + hex.EncodeToString(sum[:4])
}

// reservedWithDot tells the two names whose leading dot must be escaped: as "_"
// it would make them the daemon's own tokens.
func reservedWithDot(name string) bool {
	return strings.EqualFold(name, ".agent") || strings.EqualFold(name, ".ca")
}

// Subject is where an event is published: always six tokens,
// <prefix>.evt.<host>.<certificate>.<class>.<outcome>.
func Subject(prefix, host, certificate string, k Kind) string {
	return prefix + ".evt." + Token(host) + "." + Token(certificate) + "." + string(k)
}

// ValidPrefix tells whether prefix can be the first token of every subject:
// letters, digits and hyphens, at most 64 of them.
func ValidPrefix(prefix string) bool {
	if prefix == "" || len(prefix) > 64 {
		return false
	}
	for i := range len(prefix) {
		c := prefix[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-') {
			return false
		}
	}
	return true
}

// valid tells whether k is a class and an outcome.
func (k Kind) valid() bool {
	class, outcome, ok := strings.Cut(string(k), ".")
	return ok && lowerWord(class) && lowerWord(outcome)
}

// Class is the part of a kind in front of the dot.
func (k Kind) Class() string {
	class, _, _ := strings.Cut(string(k), ".")
	return class
}

// Outcome is the part of a kind behind the dot.
func (k Kind) Outcome() string {
	_, outcome, _ := strings.Cut(string(k), ".")
	return outcome
}

func lowerWord(s string) bool {
	if s == "" || len(s) > 32 {
		return false
	}
	for i := range len(s) {
		if s[i] < 'a' || s[i] > 'z' {
			return false
		}
	}
	return true
}
