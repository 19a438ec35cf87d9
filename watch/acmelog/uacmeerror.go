package acmelog

import (
	"strconv"
	"strings"
	"time"
)

// uacmeErrors are what goes wrong, in uacme's words.
var uacmeErrors = []struct {
	text    string
	phase   Phase
	last    bool // nothing follows but what the server reported
	refused bool // of the name that is proved
}{
	{text: "failed to fetch directory at ", phase: PhaseDirectory, last: true},
	{text: "failed to find new", phase: PhaseDirectory, last: true},
	{text: "failed to fetch new nonce at ", phase: PhaseDirectory},
	{text: "failed to retrieve account at ", phase: PhaseDirectory, last: true},
	{text: "no account associated with ", phase: PhaseDirectory, last: true},
	{text: "invalid account status ", phase: PhaseDirectory, last: true},
	{text: "account location not found", phase: PhaseDirectory, last: true},
	{text: "server does not support profiles", phase: PhaseDirectory, last: true},
	{text: "profile must be a supported one:", phase: PhaseDirectory, last: true},
	{text: "failed to create new order at ", phase: PhaseOrder, last: true},
	{text: "invalid order status ", phase: PhaseOrder, last: true},
	{text: "order location not found", phase: PhaseOrder, last: true},
	{text: "failed to authorize order at ", phase: PhaseChallenge, last: true},
	{text: "failed to retrieve auth ", phase: PhaseChallenge},
	{text: "unexpected auth status ", phase: PhaseChallenge},
	{text: "failed to parse authorizations URL", phase: PhaseChallenge},
	{text: "no valid identifier in auth ", phase: PhaseChallenge},
	{text: "no challenges in auth ", phase: PhaseChallenge},
	{text: "failed to parse challenge", phase: PhaseChallenge},
	{text: "failed to start challenge at ", phase: PhaseChallenge, refused: true},
	{text: "failed to poll challenge status at ", phase: PhaseChallenge, refused: true},
	{text: "timeout while polling challenge status at ", phase: PhaseChallenge, refused: true},
	{text: "no challenge completed", phase: PhaseChallenge},
	{text: "failed to poll order status at ", phase: PhaseFinalize, last: true},
	{text: "unexpected order status ", phase: PhaseFinalize, last: true},
	{text: "timeout while polling order status at ", phase: PhaseFinalize, last: true},
	{text: "failed to find finalize URL", phase: PhaseFinalize, last: true},
	{text: "failed to finalize order at ", phase: PhaseFinalize, last: true},
	{text: "failed to parse certificate url", phase: PhaseFinalize, last: true},
	{text: "failed to retrieve certificate at ", phase: PhaseFinalize, last: true},
	{text: "failed to generate certificate request", phase: PhaseClient, last: true},
	{text: "failed to generate certificate signing request", phase: PhaseClient, last: true},
	{text: "failed to access ", phase: PhaseClient, last: true},
	{text: "failed to create ", phase: PhaseClient, last: true},
	{text: "failed to write to ", phase: PhaseClient, last: true},
	{text: "failed to close ", phase: PhaseClient, last: true},
	{text: "failed to stat ", phase: PhaseClient, last: true},
	{text: "failed to link ", phase: PhaseClient, last: true},
	{text: "failed to rename ", phase: PhaseClient, last: true},
	{text: "hook_run: ", phase: PhaseChallenge},
}

// trouble reads what goes wrong.
func (d *uacme) trouble(text string, l *line, g *ledger) bool {
	switch {
	case text == "the server reported the following error:":
		if d.cur != nil {
			d.reading, d.document = true, nil
		}
		return true
	case strings.HasPrefix(text, "curl_get: "), strings.HasPrefix(text, "curl_post: "): // it is tried three times
		if strings.Contains(text, " failed: ") {
			d.curl = text
		}
		return true
	case text == "acme_get: curl_get failed", text == "acme_post: curl_post failed":
		d.begins(l, g)
		if d.curl != "" {
			text = d.curl
		}
		if d.curl = ""; d.cur.ProblemDetail == "" {
			d.note(d.now(PhaseDirectory, text), Network, text)
		}
		return true
	case strings.HasPrefix(text, "acme_get: return code "), strings.HasPrefix(text, "acme_post: return code "):
		_, code, _ := strings.Cut(text, " return code ")
		code, _, _ = strings.Cut(code, ",")
		d.status, _ = strconv.Atoi(code)
		return true
	case strings.HasPrefix(text, "failed to create account at "): // "uacme new"
		return true
	case strings.HasPrefix(text, "challenge ") && strings.Contains(text, " failed with status "):
		d.begins(l, g)
		d.complain(PhaseChallenge, text, true)
		return true
	}
	for _, e := range uacmeErrors {
		if !strings.HasPrefix(text, e.text) {
			continue
		}
		if d.cur != nil && len(d.cur.Saved) > 0 { // the key beside the certificate
			d.cur.hookFailed("install", -1)
			d.cur.reach(PhaseHook)
			return true
		}
		d.begins(l, g)
		d.complain(e.phase, text, e.refused)
		d.final = d.final || e.last
		return true
	}
	return false
}

// begins opens the attempt that an error belongs to: without -v errors are all that
// there is, and one after the last word of a run is another run's.
func (d *uacme) begins(l *line, g *ledger) {
	if d.cur != nil && d.final && !d.verbose {
		d.leave(l.at, g)
	}
	if d.cur == nil {
		d.cur = g.begin("", l, time.Time{})
		d.cur.settles, d.told = lateLines, true
	}
}

// now is where the attempt is: as told, else as the URL in text says.
func (d *uacme) now(otherwise Phase, text string) Phase {
	if d.phase != "" {
		return d.phase
	}
	_, url, _ := strings.Cut(text, "http")
	if p := phaseOfURL(url); p != PhaseStart {
		return p
	}
	return otherwise
}

// complain notes an error; what the server reported may follow.
func (d *uacme) complain(p Phase, text string, refused bool) {
	d.refused = refused
	if d.cur.ProblemDetail != "" && d.cur.ProblemType == "" { // of a name first, then of the order
		return
	}
	kind := ""
	if d.status >= 500 {
		kind = HTTP5xx
	}
	d.note(p, kind, text)
}

// note is attempt.fault; trouble that is told without -v has no step before it.
func (d *uacme) note(p Phase, kind, text string) {
	a := d.cur
	if a.Staging = a.Staging || IsStaging(uacmeURL(text)); a.ProblemDetail == "" {
		a.fault(p, kind, text)
	} else if a.ProblemType == Network { // a later, clearer word
		a.Phase = p
	}
}

// uacmeURL finds the URL in an error.
func uacmeURL(text string) string {
	i := strings.Index(text, "http")
	if i < 0 {
		return ""
	}
	url, _, _ := strings.Cut(text[i:], " ")
	return url
}

// reported: what the server reported has come to its end.
func (d *uacme) reported() {
	d.reading = false
	r, a := readAnswer(string(d.document)), d.cur
	d.document = nil
	if a == nil || a.ProblemType != "" && a.ProblemType != Network && a.ProblemType != HTTP5xx {
		return
	}
	phase, text := a.Phase, a.ProblemDetail
	if r.kind == "" {
		r.kind = a.ProblemType
	}
	a.ProblemType, a.ProblemDetail = "", ""
	if d.refused && d.tried != "" {
		a.refused(d.tried, r.kind, r.detail)
	}
	a.blame(phase, r, text)
}
