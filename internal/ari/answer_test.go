package ari

import (
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode"
)

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	// The CA's clock is a year behind.
	date := "Tue, 01 Jul 2025 12:00:00 GMT"
	for _, c := range []struct {
		value, date string
		want        time.Duration
	}{
		{"21600", "", 6 * time.Hour},
		{" 3600 ", "", time.Hour},
		{"0", "", time.Minute},
		{"59", "", time.Minute},
		{"86401", "", 24 * time.Hour},
		{"99999999999999999999999999", "", 24 * time.Hour},
		{"", "", usual},
		{"soon", "", usual},
		{"-5", "", usual},
		{"1.5", "", usual},
		{"1e3", "", usual},
		{"Tue, 01 Jul 2025 14:00:00 GMT", date, 2 * time.Hour},
		{"Tue, 01 Jul 2025 11:00:00 GMT", date, time.Minute},
		{"Wed, 01 Jul 2026 15:00:00 GMT", "", 3 * time.Hour},
		{"Wed, 01 Jul 2026 15:00:00 GMT", date, 24 * time.Hour},
	} {
		h := http.Header{"Retry-After": {c.value}, "Date": {c.date}}
		if got := retryAfter(h, now, usual).Sub(now); got != c.want {
			t.Errorf("%q at %q: %s, want %s", c.value, c.date, got, c.want)
		}
	}
}

func TestKept(t *testing.T) {
	for value, want := range map[string]time.Duration{
		"":                                24 * time.Hour,
		"public, max-age=7200":            2 * time.Hour,
		"MAX-AGE=7200":                    2 * time.Hour,
		"max-age=9999999":                 24 * time.Hour,
		"max-age=60":                      time.Hour,
		"public, max-age=0, no-cache":     time.Hour,
		"no-store":                        time.Hour,
		"max-age=-1":                      24 * time.Hour,
		"max-age=99999999999999999999999": 24 * time.Hour,
		"private":                         24 * time.Hour,
	} {
		if got := kept(http.Header{"Cache-Control": {value}}, 24*time.Hour); got != want {
			t.Errorf("%q: %s, want %s", value, got, want)
		}
	}
	if got := kept(http.Header{"Cache-Control": {"no-cache"}}, time.Second); got != time.Second {
		t.Errorf("longer than the most: %s", got)
	}
}

func TestReadWindow(t *testing.T) {
	notBefore := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	notAfter := notBefore.Add(90 * 24 * time.Hour)
	window := func(start, end string) string {
		return `{"suggestedWindow":{"start":"` + start + `","end":"` + end + `"}}`
	}
	for _, c := range []struct {
		name, body, err string
	}{
		{"good", window("2026-04-29T00:00:00Z", "2026-05-01T00:00:00Z"), ""},
		{"in small letters, with a fraction", window("2026-04-29t00:00:00.123456z", "2026-05-01t00:00:00z"), ""},
		{"in another zone", window("2026-04-29T00:00:00+02:00", "2026-04-28T23:00:00Z"), ""},
		{"an hour before it was issued", window("2026-02-28T23:00:00Z", "2026-02-28T23:30:00Z"), ""},
		{"more than we know", `{"suggestedWindow":{"start":"2026-04-29T00:00:00Z","end":"2026-05-01T00:00:00Z","x":1},"y":[]}`, ""},
		{"inverted", window("2026-05-01T00:00:00Z", "2026-04-29T00:00:00Z"), "ends before it starts"},
		{"empty", window("2026-05-01T00:00:00Z", "2026-05-01T00:00:00Z"), "ends before it starts"},
		{"years ago", window("2020-01-01T00:00:00Z", "2020-01-02T00:00:00Z"), "long before the certificate was issued"},
		{"the zero time", window("0001-01-01T00:00:00Z", "0001-01-02T00:00:00Z"), "long before"},
		{"in years", window("2030-01-01T00:00:00Z", "2030-01-02T00:00:00Z"), "when the certificate has expired"},
		{"for years", window("2026-04-29T00:00:00Z", "2036-01-02T00:00:00Z"), "long after"},
		{"no time", window("tomorrow", "2026-05-01T00:00:00Z"), "the start of its window is not a time"},
		{"no end", `{"suggestedWindow":{"start":"2026-04-29T00:00:00Z"}}`, "the end of its window is not a time"},
		{"a number", `{"suggestedWindow":{"start":1,"end":2}}`, "is not a time"},
		{"a problem", `{"type":"urn:ietf:params:acme:error:malformed","status":404}`, "no suggestedWindow"},
		{"null", `null`, "not a JSON object"},
		{"a window of null", `{"suggestedWindow":null}`, "no suggestedWindow"},
		{"a list", `[]`, "not a JSON object"},
		{"nothing", ``, "not a JSON object"},
		{"a page", `<html>`, "not a JSON object"},
		{"something behind", window("2026-04-29T00:00:00Z", "2026-05-01T00:00:00Z") + "{}", "follows"},
		{"keys in other letters", `{"SuggestedWindow":{"start":"2026-04-29T00:00:00Z","end":"2026-05-01T00:00:00Z"}}`, "no suggestedWindow"},
		{"deep", `{"suggestedWindow":` + strings.Repeat("[", 60000), "not a JSON object"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, err := readWindow([]byte(c.body), notBefore, notAfter)
			switch {
			case c.err == "" && (err != nil || w.Start.Location() != time.UTC):
				t.Errorf("%+v, %v", w, err)
			case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
				t.Errorf("%v, want %q", err, c.err)
			}
		})
	}
}

func TestExplanationIsFitForAPerson(t *testing.T) {
	for raw, want := range map[string]string{
		"https://acme.example.com/docs/ari?x=1#y":           "https://acme.example.com/docs/ari?x=1#y",
		"http://acme.example.com":                           "http://acme.example.com",
		"javascript:alert(1)":                               "",
		"https:///nothing":                                  "",
		"https://me:secret@acme.example.com/":               "",
		"https://acme.example.com/\n\x1b[31m":               "",
		"https://acme.example.com/<script>":                 "",
		"https://acme.example.com/ a":                       "",
		"https://acme.éxample.com/":                         "",
		"docs/ari":                                          "",
		"":                                                  "",
		"https://a.example/" + strings.Repeat("a", mostURL): "",
	} {
		if got := cleanURL(raw); got != want {
			t.Errorf("%q becomes %q", raw, got)
		}
	}
}

func TestProblem(t *testing.T) {
	for _, c := range []struct {
		name, contentType, body string
		kind, detail            string
		ok                      bool
	}{
		{"Boulder", "application/problem+json", `{"type":"urn:ietf:params:acme:error:malformed","detail":"not found","status":404}`, "malformed", "not found", true},
		{"with parameters", "Application/Problem+JSON; charset=utf-8", `{"detail":"x"}`, "", "x", true},
		{"by its type only", "text/plain", `{"type":"urn:ietf:params:acme:error:rateLimited"}`, "rateLimited", "", true},
		{"other JSON", "application/json", `{"error":"no route"}`, "", "", false},
		{"a page", "text/html", `<html>`, "", "", false},
		{"a page that lies", "application/problem+json", `<html>`, "", "", false},
		{"hostile", "application/problem+json", "{\"detail\":\"a\\u001b[2J\\nERROR b\\u202e\\ud800\"}", "", "a [2J ERROR b", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			kind, detail, ok := problem(c.contentType, []byte(c.body))
			if kind != c.kind || detail != c.detail || ok != c.ok {
				t.Errorf("%q, %q, %v", kind, detail, ok)
			}
		})
	}
}

func TestClean(t *testing.T) {
	long := clean(strings.Repeat("é\n", 100_000))
	if n := len([]rune(long)); n != mostDetail || !strings.HasSuffix(long, "...") {
		t.Errorf("%d runes", n)
	}
}

func FuzzReadWindow(f *testing.F) {
	f.Add([]byte(`{"suggestedWindow":{"start":"2026-04-29T00:00:00Z","end":"2026-05-01T00:00:00Z"},"explanationURL":"https://a.example/"}`), "application/json")
	f.Add([]byte(`{"type":"urn:ietf:params:acme:error:malformed","detail":"\u001b"}`), "application/problem+json")
	notBefore := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	notAfter := notBefore.Add(90 * 24 * time.Hour)
	f.Fuzz(func(t *testing.T, body []byte, contentType string) {
		w, err := readWindow(body, notBefore, notAfter)
		if err == nil && (!w.End.After(w.Start) || w.Start.Year() < 2025 || w.End.Year() > 2026) {
			t.Errorf("%+v", w)
		}
		kind, detail, _ := problem(contentType, body)
		for _, s := range []string{w.Explanation, kind, detail} {
			if len(s) > 8*mostDetail || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
				t.Errorf("%q", s)
			}
		}
		if err != nil && strings.ContainsFunc(err.Error(), func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%q", err)
		}
	})
}
