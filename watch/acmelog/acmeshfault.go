package acmelog

import (
	"bytes"
	"cmp"
	"slices"
	"strings"
	"time"
)

// fails reads why an attempt failed.
func (d *acmeSh) fails(w acmeWord, text, rest string, at time.Time, l *line, g *ledger) {
	f := acmeFault{phase: w.phase, text: text, hard: !w.soft, request: w.request, again: d.statusAgain(), at: at, line: *l}
	f.line.text = nil
	if r := d.cur; r != nil && r.success {
		return // a hook's own words
	}
	switch w.answer {
	case answerHere:
		i := strings.IndexAny(rest, "{<")
		if i < 0 {
			f.answer, i = readAnswer(rest), len(rest)
		}
		// What is not found is nothing that anybody looks for.
		f.text = strings.TrimSpace(text[:len(w.text)] + " " + strings.TrimPrefix(strings.TrimSpace(rest[:i]), "Le_OrderFinalize not found."))
		if i == len(rest) {
			break
		}
		d.listen(f, rest[i:], g)
		return
	case answerNext:
		d.listen(f, "", g)
		return
	}
	d.fault(d.cur, f, g)
}

// refused reads that a name was not proved.
func (d *acmeSh) refused(text string, at time.Time, l *line, g *ledger) bool {
	name, w, rest, ok := refusedName([]byte(text))
	if !ok {
		return false
	}
	f := acmeFault{phase: PhaseChallenge, name: name, text: strings.TrimSpace(text[strings.Index(text, string(w.needle)):]), hard: true, request: w.request, at: at, line: *l}
	f.line.text = nil
	f.text = strings.TrimLeft(f.text, ": ")
	if w.detail && rest != "" && rest[0] != '{' && !strings.HasPrefix(rest, `"error"`) {
		f.text = strings.TrimRight(rest, `\ `)
		f.answer.kind, d.refusal = d.refusal, ""
		d.fault(d.runOf(name), f, g)
		return true
	}
	if i := strings.IndexAny(rest, "{<"); i >= 0 {
		d.listen(f, rest[i:], g)
		return true
	}
	d.fault(d.runOf(name), f, g)
	return true
}

// runOf is the attempt that asks for a name.
func (d *acmeSh) runOf(name string) *acmeRun {
	if d.cur != nil && (len(d.runs) == 1 || slices.Contains(d.cur.a.Names, name)) {
		return d.cur
	}
	for _, r := range slices.Backward(d.runs) {
		if slices.Contains(r.a.Names, name) {
			return r
		}
	}
	return d.cur
}

// listen waits for the rest of a CA's answer.
func (d *acmeSh) listen(f acmeFault, begin string, g *ledger) {
	run := d.cur
	if f.name != "" {
		run = d.runOf(f.name)
	}
	d.answer = acmeAnswer{open: true, fault: f, run: run}
	if begin != "" {
		d.gather([]byte(begin), g)
	}
}

// gather takes a line of the answer.
func (d *acmeSh) gather(text []byte, g *ledger) {
	x := &d.answer
	x.begun = true
	if room := maxAnswer - len(x.text); room > 0 {
		x.text = append(append(x.text, text[:min(len(text), room)]...), '\n')
	}
	if len(x.text) >= maxAnswer || jsonEnds(x.text) {
		d.conclude(g)
	}
}

// jsonEnds reports whether text, which ends with a line, is a whole JSON object: in
// one line, or printed over several, where the last brace stands alone at the left.
func jsonEnds(text []byte) bool {
	n := len(text)
	for n > 0 && (text[n-1] == ' ' || text[n-1] == '\n' || text[n-1] == '\r') {
		n--
	}
	if n < 2 || text[0] != '{' || text[n-1] != '}' {
		return false
	}
	return text[n-2] == '\n' || bytes.IndexByte(text[:n], '\n') < 0
}

// conclude: the answer has come to its end.
func (d *acmeSh) conclude(g *ledger) {
	x := d.answer
	if !x.open {
		return
	}
	d.answer = acmeAnswer{}
	x.fault.answer = readAnswer(string(x.text))
	d.fault(x.run, x.fault, g)
}

// fault notes why an attempt failed, or remembers it until somebody is named.
func (d *acmeSh) fault(r *acmeRun, f acmeFault, g *ledger) {
	if f.answer.kind == "" && f.request {
		f.answer.kind = d.cause
	}
	if f.answer.kind == "" && f.name == "" && len(d.status) == 3 && d.status[0] == '5' {
		f.answer.kind = HTTP5xx
	}
	if f.again.IsZero() && (f.answer.kind == HTTP5xx || f.answer.kind == problemP+"rateLimited") {
		f.again = d.again
	}
	if r == nil {
		if d.loose.said && f.hard {
			d.flushLoose(g)
		}
		if d.loose.text == "" || !d.loose.hard && f.hard {
			f.hook = d.loose.hook
			d.loose = f
		}
		return
	}
	d.apply(r, f)
	if r.done {
		d.amend(r, g)
	}
}

// apply notes a fault with its attempt.
func (d *acmeSh) apply(r *acmeRun, f acmeFault) {
	if r.success && f.text != "" || r.skip {
		return
	}
	a := r.a
	if f.text != "" {
		if f.name != "" {
			detail := f.answer.detail
			if detail == "" {
				detail = f.text
			}
			a.refused(f.name, f.answer.kind, detail)
		}
		a.blame(f.phase, f.answer, f.text)
		if a.RetryAfter.IsZero() && !a.Paused {
			a.retryAfter(f.again)
		}
	}
	r.fresh = false
	r.failed = r.failed || f.hard
}

// amend tells an attempt once more that had ended without a reason.
func (d *acmeSh) amend(r *acmeRun, g *ledger) {
	if r.a.Outcome == Stalled {
		r.a.Outcome = Failed
	}
	g.amend(r.a)
}

// amendLast tells the attempt once more whose hook failed after its end.
func (d *acmeSh) amendLast(g *ledger) {
	if n := len(d.runs); n > 0 && d.cur == nil && d.runs[n-1].done && d.runs[n-1].a.Hook != nil {
		g.amend(d.runs[n-1].a)
	}
}

// hookFails reads that a hook failed.
func (d *acmeSh) hookFails(w acmeWord, text, rest string, at time.Time, l *line) {
	r := d.cur
	name := strings.TrimLeft(rest, ": ")
	if w.kind == "reload" && name != "" {
		if other := d.find(name); other != nil {
			r = other
		}
	}
	if n := len(d.runs); r == nil && n > 0 && !d.cron && w.kind == "post" && d.runs[n-1].failed {
		r = d.runs[n-1]
	}
	if r == nil {
		if d.loose.at.IsZero() {
			d.loose.at, d.loose.line = at, *l
			d.loose.line.text = nil
		}
		d.loose.hook = cmp.Or(d.loose.hook, w.kind)
		if w.kind == "reload" {
			d.loose.name = name
		}
		return
	}
	r.fresh, r.reloading = false, r.reloading && w.kind != "reload"
	r.a.hookFailed(w.kind, -1)
	switch {
	case r.success:
		r.a.reach(PhaseHook)
	case w.kind == "pre":
		d.apply(r, acmeFault{phase: PhaseClient, text: text, hard: true})
	case w.kind == "reload": // of what was not issued
		r.a.Doubtful = true
	}
}

// lastWord: acme.sh points to its log, as it does after every failure.
func (d *acmeSh) lastWord(at time.Time, g *ledger) {
	r := d.cur
	if r == nil {
		d.loose.said = true
		return
	}
	if r.success || d.cron { // a line with the name follows
		return
	}
	r.fresh, r.failed = false, true
	d.resolve(r, true, at, g)
}

// notRenewed reads the line that ends the attempt of a certificate in a run over
// all: something failed, may be only a hook.
func (d *acmeSh) notRenewed(dir string, at time.Time, l *line, g *ledger) {
	dir = strings.TrimSuffix(dir, ".")
	if dir == "" || strings.ContainsAny(dir, " \t{") {
		return
	}
	main := strings.TrimSuffix(dir, "_ecc")
	r := d.find(main)
	if r == nil {
		if at0 := d.loose.at; !at0.IsZero() {
			r = d.begin(main, &d.loose.line, at0, g)
		} else {
			r = d.begin(main, l, at, g)
		}
		// Only standard error is heard: a reload is tried with a new certificate only.
		r.success = afterIssue(d.loose.hook)
		if r.success {
			r.a.reach(PhaseIssued)
		}
	}
	if r.main == "" {
		r.name(main)
	}
	if f := d.loose; f.text != "" || f.hook != "" {
		d.loose = acmeFault{}
		if f.hook != "" {
			r.a.hookFailed(f.hook, -1)
		}
		d.apply(r, f)
	} else if c := d.cur; c != nil && c != r && c.failed && !r.failed && !r.success {
		// What was said came late, after the next certificate had begun.
		r.a.ProblemType, r.a.ProblemDetail, r.a.Problems, r.a.Phase = c.a.ProblemType, c.a.ProblemDetail, c.a.Problems, c.a.Phase
		r.a.RetryAfter, r.a.Paused = c.a.RetryAfter, c.a.Paused
		c.a.ProblemType, c.a.ProblemDetail, c.a.Problems, c.a.Phase = "", "", nil, PhaseStart
		c.a.RetryAfter, c.a.Paused, c.failed = time.Time{}, false, false
	}
	if r.success {
		r.a.hookFailed(cmp.Or(r.hook, "install"), -1)
		r.a.reach(PhaseHook)
	} else {
		r.failed = true
	}
	if r.done {
		d.amend(r, g)
		return
	}
	r.reloading = false
	d.resolve(r, true, at, g)
}

// afterIssue reports whether a hook runs only after a certificate was issued.
func afterIssue(hook string) bool { return hook == "reload" || hook == "renew" || hook == "deploy" }

// flushLoose tells of a failure of which the log names no certificate.
func (d *acmeSh) flushLoose(g *ledger) {
	f := d.loose
	d.loose = acmeFault{}
	if f.hook == "" && !f.hard {
		return
	}
	r := d.begin(f.name, &f.line, f.at, g)
	if f.hook != "" {
		r.a.hookFailed(f.hook, -1)
		if afterIssue(f.hook) {
			// "--install-cert" runs a reload, too.
			r.success, r.a.Doubtful = true, true
			r.a.reach(PhaseIssued)
		}
	}
	d.apply(r, f)
	r.failed = true
	d.resolve(r, false, f.at, g)
}
