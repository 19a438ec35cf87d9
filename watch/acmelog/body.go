package acmelog

import (
	"encoding/json"
	"strings"
)

// maxAnswer is how much is kept of a CA's answer that a client prints over several
// lines.
const maxAnswer = 16 << 10

// answer is what a CA, or a proxy before it, answered: a problem document (RFC
// 7807), or a page.
type answer struct {
	kind   string // as in Attempt.ProblemType
	detail string
	each   []Problem
}

// problemDocument is the JSON of a problem, or of an object that holds one.
type problemDocument struct {
	Type       string           `json:"type"`
	Title      string           `json:"title"`
	Detail     string           `json:"detail"`
	Status     json.RawMessage  `json:"status"`
	Error      *problemDocument `json:"error"`
	Challenges []struct {
		Error *problemDocument `json:"error"`
	} `json:"challenges"`
	Subproblems []struct {
		Type       string `json:"type"`
		Detail     string `json:"detail"`
		Identifier struct {
			Value string `json:"value"`
		} `json:"identifier"`
	} `json:"subproblems"`
}

// readAnswer reads an answer as a client prints it: something may stand before it,
// it may be cut off, and its line breaks may have been moved.
func readAnswer(text string) (a answer) {
	if len(text) > maxAnswer {
		text = text[:maxAnswer]
	}
	text = strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, text)
	start := strings.IndexByte(text, '{')
	if page := strings.IndexByte(text, '<'); page >= 0 && (start < 0 || page < start) || start < 0 {
		return readPage(text)
	}
	text = text[start:]
	var d problemDocument
	if json.NewDecoder(strings.NewReader(text)).Decode(&d) != nil {
		d = problemDocument{Type: brokenField(text, "type"), Detail: brokenField(text, "detail")}
	}
	for _, c := range d.Challenges { // of an authorization
		if d.Error == nil {
			d.Error = c.Error
		}
	}
	if d.Error != nil {
		d = *d.Error
	}
	a.kind, a.detail = problemKind(d.Type), d.Detail
	if a.detail == "" {
		a.detail = d.Title
	}
	if a.kind == "" && len(d.Status) == 3 && d.Status[0] == '5' {
		a.kind = HTTP5xx
	}
	for _, s := range d.Subproblems {
		if len(a.each) == maxNames {
			break
		}
		a.each = append(a.each, Problem{Name: s.Identifier.Value, Type: problemKind(s.Type), Detail: s.Detail})
	}
	return a
}

// problemKind is the type in its present spelling, "" for what is no ACME error.
func problemKind(s string) string {
	if m := urn.FindStringSubmatch(s); m != nil && len(m[0]) == len(s) {
		return problemP + m[1]
	}
	return ""
}

// gatewayWords are what proxies say instead of a CA.
var gatewayWords = []string{"500 Internal", "502 Bad", "503 Service", "504 Gateway", "Internal Server Error", "Bad Gateway", "Service Unavailable", "Service Temporarily Unavailable", "Gateway Time", "error code: 52"}

// readPage reads what is no JSON.
func readPage(text string) (a answer) {
	for _, w := range gatewayWords {
		if strings.Contains(text, w) {
			a.kind = HTTP5xx
			break
		}
	}
	if _, rest, ok := strings.Cut(text, "<title>"); ok {
		a.detail, _, _ = strings.Cut(rest, "<")
	}
	return a
}

// brokenField finds the first string of that name in JSON that is broken or cut off.
func brokenField(text, name string) string {
	for {
		_, rest, ok := strings.Cut(text, `"`+name+`"`)
		if !ok {
			return ""
		}
		text = rest
		rest = strings.TrimLeft(rest, " ")
		if rest == "" || rest[0] != ':' {
			continue
		}
		rest = strings.TrimLeft(rest[1:], " ")
		if rest == "" || rest[0] != '"' {
			continue
		}
		return brokenString(rest)
	}
}

// brokenString reads the JSON string that text begins with; its end may be missing.
func brokenString(text string) string {
	i := 1
	for i < len(text) && text[i] != '"' {
		if text[i] == '\\' {
			i++
		}
		i++
	}
	i = min(i, len(text))
	return string(unquote([]byte(text[1:i])))
}

// blame notes what the CA answered, in phase p; text is what the client itself
// says, for answers without a reason.
func (a *attempt) blame(p Phase, r answer, text string) {
	detail := r.detail
	if detail == "" {
		detail = text
	}
	a.fault(p, r.kind, detail)
	for _, q := range r.each {
		if q.Name != "" {
			a.refused(q.Name, q.Type, q.Detail)
		}
	}
	if r.kind == problemP+"rateLimited" {
		a.retryAfter(retryTime(r.detail))
		a.Paused = a.Paused || isPaused(r.detail)
	}
}
