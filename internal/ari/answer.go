package ari

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Window is the time in which a CA wants a certificate replaced.
type Window struct {
	Start time.Time `json:"start"`
	End   time.Time `json:"end"`
	// Explanation is the address of a page that tells a person why, if the CA
	// names one: http or https, printable and bounded.
	Explanation string `json:"explanation,omitempty"`
}

// Answer is what a CA said about one certificate.
type Answer struct {
	// ID, NotBefore and NotAfter are those of the certificate asked about.
	ID        string    `json:"id"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`

	Window Window    `json:"window"`
	Asked  time.Time `json:"asked"` // when the answer came
	// Date is the CA's own clock then, to the second. Zero: it did not say.
	Date time.Time `json:"date,omitzero"`
	// RetryAfter is when to ask again: neither sooner nor much later.
	RetryAfter time.Time `json:"retry_after"`
}

// The limits that RFC 9773 sections 4.3.2 and 4.3.3 recommend.
const (
	soonest = time.Minute
	latest  = 24 * time.Hour
	usual   = 6 * time.Hour // without a Retry-After, and after errors that stay
)

// retryAfter reads a Retry-After header, in seconds or as a date, of which the
// distance to the same response's Date counts, for one of the two clocks may be
// wrong. Without a usable one it is fallback from now.
func retryAfter(h http.Header, now time.Time, fallback time.Duration) time.Time {
	value := strings.TrimSpace(h.Get("Retry-After"))
	wait := fallback
	if date, err := http.ParseTime(value); err == nil {
		from := now
		if sent, err := http.ParseTime(h.Get("Date")); err == nil {
			from = sent
		}
		wait = within(date.Sub(from))
	} else if digits(value) {
		// More digits than an integer has are more than a day as well.
		if seconds, err := strconv.ParseInt(value, 10, 64); err != nil || seconds > int64(latest/time.Second) {
			wait = latest
		} else {
			wait = within(time.Duration(seconds) * time.Second)
		}
	}
	return now.Add(wait)
}

func within(wait time.Duration) time.Duration { return min(max(wait, soonest), latest) }

func digits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// kept is how long a directory may be kept: as long as its Cache-Control says,
// at most most and not less than an hour. Let's Encrypt says max-age=0, which would
// double the requests for what changes once in years.
func kept(h http.Header, most time.Duration) time.Duration {
	for directive := range strings.SplitSeq(strings.Join(h.Values("Cache-Control"), ","), ",") {
		name, value, _ := strings.Cut(strings.ToLower(strings.TrimSpace(directive)), "=")
		switch {
		case name == "no-store" || name == "no-cache":
			return min(time.Hour, most)
		case name == "max-age" && digits(value):
			seconds, err := strconv.ParseInt(value, 10, 64)
			if err == nil && seconds < int64(most/time.Second) {
				most = max(time.Duration(seconds)*time.Second, min(time.Hour, most))
			}
		}
	}
	return most
}

// readWindow reads a RenewalInfo object and refuses a window that cannot be meant.
func readWindow(body []byte, notBefore, notAfter time.Time) (Window, error) {
	info, err := object(body)
	if err != nil {
		return Window{}, err
	}
	suggested, err := object(info["suggestedWindow"])
	if err != nil {
		return Window{}, errors.New("there is no suggestedWindow in it")
	}
	var w Window
	for name, to := range map[string]*time.Time{"start": &w.Start, "end": &w.End} {
		// RFC 3339 allows small letters.
		if *to, err = time.Parse(time.RFC3339, strings.ToUpper(text(suggested[name]))); err != nil {
			return Window{}, fmt.Errorf("the %s of its window is not a time", name)
		}
		*to = to.UTC()
	}
	// A window for immediate renewal is commonly set an hour before now, which may
	// be before a certificate's first day. Anything further off is an accident.
	slack := max(notAfter.Sub(notBefore), 24*time.Hour)
	switch {
	case !w.End.After(w.Start):
		return Window{}, errors.New("its window ends before it starts")
	case w.Start.Before(notBefore.Add(-slack)):
		return Window{}, fmt.Errorf("its window starts %s, long before the certificate was issued", w.Start.Format(time.RFC3339))
	case !w.Start.Before(notAfter):
		return Window{}, fmt.Errorf("its window starts %s, when the certificate has expired", w.Start.Format(time.RFC3339))
	case w.End.After(notAfter.Add(slack)):
		return Window{}, fmt.Errorf("its window ends %s, long after the certificate has expired", w.End.Format(time.RFC3339))
	}
	w.Explanation = cleanURL(text(info["explanationURL"]))
	return w, nil
}

// problem reads a problem document of RFC 8555 section 6.7: the end of its type
// and its detail.
func problem(contentType string, body []byte) (kind, detail string, ok bool) {
	fields, err := object(body)
	if err != nil {
		return "", "", false
	}
	kind, acme := strings.CutPrefix(text(fields["type"]), "urn:ietf:params:acme:error:")
	media, _, _ := strings.Cut(contentType, ";")
	if !acme && !strings.EqualFold(strings.TrimSpace(media), "application/problem+json") {
		return "", "", false
	}
	return clean(kind), clean(text(fields["detail"])), true
}

// object reads one JSON object and nothing behind it. Its keys are taken as they
// are written, which decoding into a struct would not do.
func object(raw []byte) (map[string]json.RawMessage, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	var fields map[string]json.RawMessage
	if err := d.Decode(&fields); err != nil || fields == nil {
		return nil, errors.New("it is not a JSON object")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows its JSON object")
	}
	return fields, nil
}

// text is the string that raw holds, or nothing.
func text(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return ""
	}
	return s
}

const mostURL = 512 // bytes of an address

// cleanURL returns an address that can be shown to a person and clicked, or
// nothing.
func cleanURL(s string) string {
	if len(s) > mostURL || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune("\"'<>`\\{}|^", r) }) {
		return ""
	}
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && u.Scheme != "http" {
		return ""
	}
	return s
}
