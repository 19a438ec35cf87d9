// Package silence keeps what a person has silenced for a while: which certificate
// or endpoint, until when, and why. One silence is one file below the state
// directory. The command line writes these files and the daemon reads them;
// neither needs the other, nor the lock of the state directory.
package silence

import (
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/renewatch/renewatch/verify"
)

// Bounds of one silence. A file that breaks them silences nothing.
const (
	// MaxSpan is the longest time from Since to Until.
	MaxSpan = 366 * 24 * time.Hour
	// MaxReason is the longest Reason, in bytes.
	MaxReason = 500

	maxName     = 255
	maxBy       = 64
	maxEndpoint = 4096
)

// Silence is one silence: exactly one of All, Certificate and Endpoint says what
// of. It is a comparable value.
type Silence struct {
	// ID names it on the command line; Add chooses it.
	ID string `json:"id"`
	// All silences everything on this host.
	All bool `json:"all,omitempty"`
	// Certificate is the name of the certificate that is silenced.
	Certificate string `json:"certificate,omitempty"`
	// Endpoint is the endpoint that is silenced, as it was written; Canonical is
	// its canonical form, set by Add and List.
	Endpoint  string `json:"endpoint,omitempty"`
	Canonical string `json:"canonical,omitempty"`
	// Since is when it begins, Until when it has ended; UTC.
	Since time.Time `json:"since"`
	Until time.Time `json:"until"`
	// Reason and By say why and who, in printable text.
	Reason string `json:"reason"`
	By     string `json:"by,omitempty"`
	// Force also silences what is said of an expired certificate.
	Force bool `json:"force"`
}

// Error says why something is no silence. Nothing of a file's content is in it.
type Error struct {
	Sentence string // lower-case, without a full stop
	hint     string
}

// Error returns the sentence.
func (e *Error) Error() string { return e.Sentence }

// Hint says what to do; it may be empty.
func (e *Error) Hint() string { return e.hint }

// Covers reports whether s is about the certificate of this name. Upper and lower
// case are the same in names. It does not ask whether s is in force.
func (s Silence) Covers(certificate string) bool {
	return s.All || s.Certificate != "" && strings.EqualFold(s.Certificate, certificate)
}

// CoversEndpoint reports whether s is about this endpoint, in whatever form it is
// written. A silence of a certificate covers no endpoint: ask Covers as well.
func (s Silence) CoversEndpoint(endpoint string) bool {
	switch {
	case s.All:
		return true
	case s.Endpoint == "":
		return false
	case endpoint == s.Canonical, endpoint == s.Endpoint:
		return true
	}
	own := s.Canonical
	if own == "" {
		own = canonical(s.Endpoint)
	}
	return own != "" && canonical(endpoint) == own
}

// InForce reports whether now is within s.
func (s Silence) InForce(now time.Time) bool { return !now.Before(s.Since) && now.Before(s.Until) }

// Ended reports whether s is over at now.
func (s Silence) Ended(now time.Time) bool { return !now.Before(s.Until) }

// What says what is silenced: the certificate's name, the endpoint, or everything.
func (s Silence) What() string {
	switch {
	case s.All:
		return "everything"
	case s.Certificate != "":
		return s.Certificate
	}
	return s.Endpoint
}

// canonical returns the canonical form of an endpoint, "" when it is none.
func canonical(endpoint string) string {
	e, err := verify.ParseEndpoint(endpoint)
	if err != nil {
		return ""
	}
	return e.String()
}

// normal returns s as it is kept, or says why it is no silence.
func (s Silence) normal() (Silence, error) {
	s.Since, s.Until = s.Since.Round(0).UTC(), s.Until.Round(0).UTC()
	s.Reason, s.By = line(s.Reason), cut(line(s.By), maxBy)
	wrong := func(hint, format string, args ...any) (Silence, error) {
		return Silence{}, &Error{fmt.Sprintf(format, args...), hint}
	}
	scopes := 0
	for _, given := range []bool{s.All, s.Certificate != "", s.Endpoint != ""} {
		if given {
			scopes++
		}
	}
	s.Canonical = ""
	switch {
	case scopes != 1:
		return wrong("name one certificate or one endpoint, or all", "a silence is about one certificate, one endpoint or everything")
	case len(s.Certificate) > maxName || !printable(s.Certificate):
		return wrong("", "the name of the certificate is longer than %d bytes or cannot be printed", maxName)
	case len(s.Endpoint) > maxEndpoint:
		return wrong("", "the endpoint is longer than %d bytes", maxEndpoint)
	case s.Endpoint != "":
		if s.Canonical = canonical(s.Endpoint); s.Canonical == "" {
			return wrong("write it like https://www.example.org", "the endpoint is none that can be dialled")
		}
	}
	switch {
	case s.Since.IsZero() || s.Since.Year() < 1970 || s.Since.Year() > 9000 || s.Until.Year() > 9999:
		return wrong("", "it begins or ends at no time there is")
	case !s.Since.Before(s.Until):
		return wrong("", "it ends before it begins")
	case s.Until.Sub(s.Since) > MaxSpan:
		return wrong("silence it anew when it has ended, or take what is not to be watched out of the configuration", "a silence lasts %d days at most", MaxSpan/(24*time.Hour))
	case s.Reason == "":
		return wrong("say it for those who come after", "a silence needs a reason")
	case len(s.Reason) > MaxReason:
		return wrong("", "the reason is longer than %d bytes", MaxReason)
	}
	return s, nil
}

func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

// line makes one line of text that can be printed, whatever s is.
func line(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	return strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, s)), " ")
}

// cut returns at most n bytes of s, whole characters.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
