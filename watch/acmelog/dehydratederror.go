package acmelog

import (
	"bytes"
	"strings"
	"time"
)

// dhHooks are dehydrated's hooks, and what kind of hook each is.
var dhHooks = map[string]string{
	"startup_hook": "pre", "generate_csr": "pre", "deploy_challenge": "pre", "clean_challenge": "post", "sync_cert": "install", "deploy_cert": "deploy",
	"unchanged_cert": "notify", "invalid_challenge": "notify", "request_failure": "notify", "deploy_ocsp": "deploy",
}

// target is the certificate that an error is of: standard error may be late.
func (d *dehydrated) target() *dhRun {
	for _, r := range d.runs {
		if r.done && r.open && r.a.Outcome == Failed && r.a.ProblemDetail == "" && r.a.Hook == nil {
			return r
		}
	}
	if d.cur != nil {
		return d.cur
	}
	if n := len(d.runs); n > 0 {
		return d.runs[n-1]
	}
	return nil
}

// fails reads an error.
func (d *dehydrated) fails(text string, l *line, g *ledger) {
	if strings.TrimSpace(text) == "" {
		return
	}
	hook, _, hooked := strings.Cut(text, " hook returned with non-zero exit code")
	kind, known := dhHooks[strings.TrimSuffix(hook, " hook")]
	hooked = hooked && known
	r := d.target()
	if hooked && r != nil && r.a.Outcome == Skipped {
		r.a.hookFailed(kind, -1)
		g.amend(r.a)
		return
	}
	if r != nil && r.stage >= dhIssued && !hooked {
		if !strings.HasPrefix(text, "Challenge is invalid!") {
			return // a hook's own words, or OCSP
		}
		// Somebody had told more than there was.
		r.a.Doubtful, r.a.Saved, r.a.Phase, r.stage = true, nil, PhaseChallenge, dhBegins
	}
	if r == nil || r.done && r.a.Outcome != Failed && r.a.Outcome != Stalled && !hooked {
		r = d.open(l, g, true)
		if !d.began {
			if len(d.early) < maxRuns {
				d.early = append(d.early, r)
			}
		}
		r.a.Phase = phaseOfError(text)
		r.done, r.failed = true, true
	}
	r.a.hear(l.at)
	if hooked {
		d.hookFails(r, hook, kind, text, l, g)
		return
	}
	r.failed = true
	phase := r.a.Phase
	if strings.HasPrefix(text, "Challenge is invalid!") {
		phase = PhaseChallenge
	}
	status := responseStatus(text)
	url := requestURL(text)
	if r.a.CA == "" && phase == PhaseDirectory && (strings.HasPrefix(text, "Problem connecting to server (get for ") || strings.Contains(text, " sending get-request to ")) {
		r.a.ca(url)
	}
	r.a.Staging = r.a.Staging || IsStaging(url)
	kindOf := ""
	switch {
	case status >= 500:
		kindOf = HTTP5xx
	case strings.HasPrefix(text, "Problem connecting to server ("):
		kindOf = Network
	}
	text, result, isResult := strings.Cut(text, " (result: ")
	if r.a.ProblemDetail == "" {
		r.a.fault(phase, kindOf, text)
	}
	if r.done {
		d.ends(r, l, g)
	} else if r.open {
		r.a.settles = lateLines
	}
	if isResult || status > 0 {
		d.block = dhBlock{run: r, result: isResult, status: status, text: text}
		if isResult {
			d.result([]byte(result))
			switch {
			case result == "{": // as the CA sent it, before 0.7
				d.block.lines, d.block.body = append(d.block.lines, "{\n"...), true
			case !strings.HasPrefix(result, `["`):
				d.block.lines = append(d.block.lines, result[:min(len(result), maxAnswer)]...)
				d.conclude(g)
			}
		}
	}
}

// ends finishes the attempt of a certificate that is not known, or tells one again
// that was finished.
func (d *dehydrated) ends(r *dhRun, l *line, g *ledger) {
	outcome := Failed
	if r.stage >= dhIssued {
		outcome = Issued
	}
	if r.a.Outcome == Running || r.a.Outcome == Stalled && r.a.Ended.IsZero() {
		g.finish(r.a, outcome, l.at)
		return
	}
	r.a.Outcome = outcome
	g.amend(r.a)
}

// hookFails reads that a hook failed, which ends dehydrated.
func (d *dehydrated) hookFails(r *dhRun, hook, kind, text string, l *line, g *ledger) {
	r.a.hookFailed(kind, -1)
	switch {
	case hook == "deploy_cert" || hook == "sync_cert" || hook == "deploy_ocsp":
		// The files of a certificate are there when these run.
		if r.stage < dhChecks {
			r.a.Doubtful = true
		}
		r.stage, r.failed = max(r.stage, dhWrites), false
		if hook == "deploy_cert" {
			r.written()
		}
		r.a.reach(PhaseHook)
	default:
		r.failed = true
		phase := r.a.Phase
		if hook == "startup_hook" {
			phase = PhaseClient
		}
		r.a.fault(phase, "", text)
	}
	if r.done {
		d.ends(r, l, g)
	} else if r.open {
		r.a.settles = lateLines
	}
}

// phaseOfError is where an error belongs that no certificate's line stands before.
func phaseOfError(text string) Phase {
	switch {
	case strings.HasPrefix(text, "Challenge is invalid!"), strings.HasPrefix(text, "Timed out waiting for processing of domain validation"):
		return PhaseChallenge
	case strings.HasPrefix(text, "Timed out waiting for processing of order"), strings.HasPrefix(text, "Order has invalid/unknown status"), strings.HasPrefix(text, "Order in status "):
		return PhaseFinalize
	case strings.HasPrefix(text, "Problem connecting to server ("), strings.HasPrefix(text, "An error occurred while sending get-request to "),
		strings.HasPrefix(text, "Problem retrieving ACME/CA-URLs"), strings.HasPrefix(text, "Error registering account key."), strings.HasPrefix(text, "Unknown error on fetching account"):
		return PhaseDirectory
	case strings.HasPrefix(text, "An error occurred while sending "):
		return phaseOfURL(requestURL(text))
	}
	return PhaseClient
}

// phaseOfURL guesses from its name what a URL of a CA is for.
func phaseOfURL(url string) Phase {
	url = strings.ToLower(url)
	for _, p := range []struct {
		word  string
		phase Phase
	}{{"finalize", PhaseFinalize}, {"chall", PhaseChallenge}, {"authz", PhaseOrder}, {"order", PhaseOrder}, {"acct", PhaseDirectory}, {"account", PhaseDirectory}} {
		if strings.Contains(url, p.word) {
			return p.phase
		}
	}
	return PhaseStart
}

// requestURL finds the URL of a failed request.
func requestURL(text string) string {
	_, rest, ok := strings.Cut(text, "-request to ")
	if !ok {
		if _, rest, ok = strings.Cut(text, " for "); !ok {
			return ""
		}
	}
	return rest[:strings.IndexAny(rest+" ", " ;)")]
}

// more reads the next line of an error; false: it is none.
func (d *dehydrated) more(l *line, g *ledger) bool {
	b, text := &d.block, l.text
	if b.result && !b.body {
		if !bytes.HasPrefix(text, []byte(`["`)) {
			return false
		}
		d.result(text)
		if text[len(text)-1] == ')' && !bytes.Contains(text, []byte(`","`)) || bytes.HasPrefix(text, []byte(`["error"]`)) && text[len(text)-1] == ')' {
			d.conclude(g)
		}
		return true
	}
	switch text[0] {
	case '#':
		return false
	case ' ':
		if !b.body && !bytes.HasPrefix(text, []byte("  + ERROR")) || bytes.HasPrefix(text, []byte(" + ")) || bytes.HasPrefix(text, []byte("  + ERROR")) {
			return false
		}
	case 'P', 'E', 'e':
		if bytes.HasPrefix(text, []byte("Processing ")) || bytes.HasPrefix(text, []byte("ERROR: ")) || bytes.HasPrefix(text, []byte("exit_hook returned")) {
			return false
		}
	case '{', '<':
		b.body = true
	}
	if b.body {
		if room := maxAnswer - len(b.lines); room > 0 {
			b.lines = append(append(b.lines, text[:min(len(text), room)]...), '\n')
		}
		if len(b.lines) >= maxAnswer || jsonEnds(b.lines) {
			d.conclude(g)
		}
		return true
	}
	name, value, ok := strings.Cut(string(text[:min(len(text), 128)]), ":")
	switch {
	case !ok:
	case strings.EqualFold(name, "Retry-After"):
		b.again = value
	case strings.EqualFold(name, "Date"):
		b.date, _ = time.Parse(time.RFC1123, strings.TrimSpace(value))
	}
	return true
}

// result reads a line of JSON.sh: ["error","detail"]	"text".
func (d *dehydrated) result(text []byte) {
	path, value, ok := strings.Cut(string(text[:min(len(text), maxAnswer)]), "]\t")
	if !ok || !strings.HasPrefix(value, `"`) {
		return
	}
	switch path {
	case `["error","type"`:
		d.block.kind = problemKind(brokenString(value))
	case `["error","detail"`:
		d.block.detail = brokenString(value)
	}
}

// conclude: the error has come to its end.
func (d *dehydrated) conclude(g *ledger) {
	b := d.block
	if b.run == nil {
		return
	}
	d.block = dhBlock{}
	answered := answer{kind: b.kind, detail: b.detail}
	if len(b.lines) > 0 {
		answered = readAnswer(string(b.lines))
	}
	if answered.kind == "" && b.status >= 500 {
		answered.kind = HTTP5xx
	}
	a := b.run.a
	phase := a.Phase
	if a.ProblemDetail == clean(b.text) { // not one that was told before
		a.ProblemType, a.ProblemDetail = "", ""
		if b.result && b.run.pending != "" {
			detail := answered.detail
			if detail == "" {
				detail = b.text
			}
			a.refused(b.run.pending, answered.kind, detail)
		}
		a.blame(phase, answered, b.text)
		if (b.status == 429 || b.status >= 500) && a.RetryAfter.IsZero() && !a.Paused {
			from := b.date
			if from.IsZero() {
				from = a.heard
			}
			a.retryAfter(retryHeader(b.again, from))
		}
	}
	d.tell(b.run, g)
}
