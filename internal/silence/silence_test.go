package silence

import (
	"errors"
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// of returns a sound silence of two hours, changed by f.
func of(f func(*Silence)) Silence {
	s := Silence{Certificate: "www.example.org", Since: noon, Until: noon.Add(2 * time.Hour), Reason: "new load balancer", By: "alice"}
	if f != nil {
		f(&s)
	}
	return s
}

func TestCovers(t *testing.T) {
	all, certificate := Silence{All: true}, Silence{Certificate: "www.example.org"}
	endpoint := Silence{Endpoint: "HTTPS://www.example.org:443/", Canonical: "https://www.example.org"}
	unread := Silence{Endpoint: "https://www.example.org:443"} // made by hand, not by List
	for _, c := range []struct {
		name     string
		s        Silence
		what     string
		endpoint bool
		want     bool
	}{
		{"all covers a certificate", all, "www.example.org", false, true},
		{"all covers an endpoint", all, "https://www.example.org", true, true},
		{"all covers what is no endpoint", all, "x", true, true},
		{"a certificate covers itself", certificate, "www.example.org", false, true},
		{"upper and lower case are the same", certificate, "WWW.example.ORG", false, true},
		{"it covers no other", certificate, "example.org", false, false},
		{"it covers no endpoint", certificate, "https://www.example.org", true, false},
		{"an endpoint covers itself", endpoint, "https://www.example.org", true, true},
		{"in another spelling", endpoint, "https://WWW.example.org:443", true, true},
		{"as it was written", endpoint, "HTTPS://www.example.org:443/", true, true},
		{"another address is another endpoint", endpoint, "https://www.example.org?address=192.0.2.7", true, false},
		{"another port too", endpoint, "https://www.example.org:8443", true, false},
		{"it covers no certificate", endpoint, "www.example.org", false, false},
		{"an endpoint without its canonical form", unread, "https://www.example.org", true, true},
		{"nothing covers nothing", Silence{}, "", false, false},
		{"nor no endpoint", Silence{}, "", true, false},
		{"what is no endpoint is none", Silence{Endpoint: "x"}, "y", true, false},
	} {
		got := c.s.Covers(c.what)
		if c.endpoint {
			got = c.s.CoversEndpoint(c.what)
		}
		if got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestInForce(t *testing.T) {
	s := of(nil)
	for at, want := range map[time.Time]bool{
		noon.Add(-time.Nanosecond):                    false,
		noon:                                          true,
		noon.Add(2*time.Hour - time.Nanosecond):       true,
		noon.Add(2 * time.Hour):                       false,
		noon.In(time.FixedZone("", 3600)):             true,
		noon.Add(3 * time.Hour):                       false,
		time.Date(2090, 1, 1, 0, 0, 0, 0, time.UTC):   false,
		noon.Add(time.Hour).In(time.FixedZone("", 1)): true,
	} {
		if got := s.InForce(at); got != want {
			t.Errorf("at %s: %v", at, got)
		}
		if got := s.Ended(at); got != !at.Before(s.Until) {
			t.Errorf("at %s: ended is %v", at, got)
		}
	}
}

// What is no silence is refused with a sentence, and nothing is written.
func TestRefused(t *testing.T) {
	dir := In(t.TempDir())
	for want, f := range map[string]func(*Silence){
		"a silence is about one certificate, one endpoint or everything":                       func(s *Silence) { s.Certificate = "" },
		"a silence is about one certificate, one endpoint or everything (two)":                 func(s *Silence) { s.All = true },
		"the endpoint is none that can be dialled":                                             func(s *Silence) { s.Certificate, s.Endpoint = "", "htps://x" },
		"it ends before it begins":                                                             func(s *Silence) { s.Until = s.Since },
		"a silence lasts 366 days at most":                                                     func(s *Silence) { s.Until = s.Since.Add(MaxSpan + 1) },
		"a silence lasts 366 days at most (centuries)":                                         func(s *Silence) { s.Until = s.Since.AddDate(700, 0, 0) },
		"it begins or ends at no time there is":                                                func(s *Silence) { s.Until = s.Since.AddDate(9000, 0, 0) },
		"it begins or ends at no time there is (long ago)":                                     func(s *Silence) { s.Since = s.Since.AddDate(-900, 0, 0) },
		"a silence needs a reason":                                                             func(s *Silence) { s.Reason = " \n\x00 " },
		"the reason is longer than 500 bytes":                                                  func(s *Silence) { s.Reason = strings.Repeat("ä", 251) },
		"the name of the certificate is longer than 255 bytes or cannot be printed":            func(s *Silence) { s.Certificate = "a\x1b[2Jb" },
		"the name of the certificate is longer than 255 bytes or cannot be printed (too long)": func(s *Silence) { s.Certificate = strings.Repeat("a", 256) },
	} {
		_, err := dir.Add(of(f))
		var wrong *Error
		want, _, _ = strings.Cut(want, " (")
		if !errors.As(err, &wrong) || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	if all, faults, err := dir.List(); len(all)+len(faults) > 0 || err != nil {
		t.Errorf("%v, %v, %v", all, faults, err)
	}
	if _, err := dir.Add(of(func(s *Silence) { s.Until = s.Since.Add(MaxSpan) })); err != nil {
		t.Errorf("the longest silence: %v", err)
	}
}

// A name that the configuration accepts is accepted here, and text from a shell is
// made one line.
func TestTextIsMadePrintable(t *testing.T) {
	s, err := In(t.TempDir()).Add(of(func(s *Silence) {
		s.Certificate, s.Reason, s.By = "two  spaces", "  first\r\nsecond\x1b[31m\xff ", strings.Repeat("ä", 40)
	}))
	if err != nil || s.Certificate != "two  spaces" || s.Reason != "first second [31m\uFFFD" || s.By != strings.Repeat("ä", 32) {
		t.Errorf("%+v, %v", s, err)
	}
}
