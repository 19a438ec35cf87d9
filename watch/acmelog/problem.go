package acmelog

import (
	"regexp"
	"strings"
	"time"
)

// found is what a text tells of a CA's problem.
type found struct {
	kind   string    // as in Attempt.ProblemType
	retry  time.Time // Boulder writes it into the detail
	paused bool
}

var (
	urn = regexp.MustCompile(`urn:(?:ietf:params:)?acme:error:([A-Za-z]{1,40})`)
	// The status as clients print it: requests, Go, lego, curl.
	status5xx = regexp.MustCompile(`(?i)(?:<Response \[|HTTP(?:/[0-9.]+)? |HTTP status:? |status:? |status code:? |response code:? |acme: error: |\()(5[0-9][0-9])\b`)
	retryText = regexp.MustCompile(`(?i)retry after ([0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}:[0-9]{2}) ?(?:UTC|Z)`)
)

// networkWords are how clients and their libraries say that they could not reach
// the CA.
var networkWords = []string{
	"connection refused", "connection reset", "no such host", "name or service not known", "temporary failure in name resolution",
	"could not resolve host", "couldn't resolve host", "network is unreachable", "no route to host", "connection timed out", "i/o timeout",
	"operation timed out", "timeout was reached", "context deadline exceeded", "read timed out", "connect timeout", "tls handshake timeout",
	"certificate verify failed", "failed to establish a new connection", "max retries exceeded", "remote end closed connection",
	"connection aborted", "unexpected eof", "name does not resolve", "failed to connect to", "x509: certificate", "problem connecting to server",
	"server misbehaving", "could not connect", "couldn't connect",
}

// findProblem looks for a CA's problem in a text; the first one counts, because
// what is quoted further behind may be anybody's.
func findProblem(text string) (f found) {
	if len(text) > maxLine {
		text = text[:maxLine]
	}
	if m := urn.FindStringSubmatchIndex(text); m != nil {
		f.kind = problemP + text[m[2]:m[3]]
		if f.kind == problemP+"rateLimited" {
			f.retry = retryTime(text[m[0]:])
			f.paused = isPaused(text[m[0]:])
		}
		return f
	}
	if status5xx.MatchString(text) {
		f.kind = HTTP5xx
		return f
	}
	if isNetwork(text) {
		f.kind = Network
	}
	return f
}

// isNetwork reports whether a text says that the CA could not be reached.
func isNetwork(text string) bool {
	low := strings.ToLower(text)
	for _, w := range networkWords {
		if strings.Contains(low, w) {
			return true
		}
	}
	return false
}

// retryTime finds "retry after 2026-11-23 10:11:12 UTC", as Boulder writes it.
func retryTime(text string) time.Time {
	m := retryText.FindStringSubmatch(text)
	if m == nil {
		return time.Time{}
	}
	at, err := time.Parse("2006-01-02 15:04:05", strings.Replace(m[1], "T", " ", 1))
	if err != nil {
		return time.Time{}
	}
	return at
}

// isPaused reports whether Boulder says that it has paused an account: the type is
// rateLimited, but there is nothing to wait for.
func isPaused(text string) bool {
	return strings.Contains(text, "temporarily prevented from requesting certificates")
}

// retryHeader reads the value of a Retry-After header (RFC 9110, section 10.2.3)
// that was received at that time; zero when it is none.
func retryHeader(value string, at time.Time) time.Time {
	value = strings.TrimSpace(value)
	if n, err := time.ParseDuration(value + "s"); err == nil && n >= 0 && !strings.ContainsAny(value, ".eE+-") {
		if at.IsZero() || n > 366*24*time.Hour {
			return time.Time{}
		}
		return at.Add(n).UTC()
	}
	for _, layout := range []string{time.RFC1123, "Monday, 02-Jan-06 15:04:05 MST", time.ANSIC} {
		if t, err := time.Parse(layout, value); err == nil {
			return t.UTC()
		}
	}
	return time.Time{}
}
