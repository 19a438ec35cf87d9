package acmelog

import (
	"bytes"
	"strings"
	"time"
)

// acmeTool reads what acmetool writes to stderr or, without time and level, to
// syslog. At its default level only trouble is told; at debug each target (a
// certificate that is wanted) is told one after the other: what follows a request
// without an error was issued.
//
// A target has no name but its names: Target(a.test,www.a.test;https://...;0).
type acmeTool struct {
	target string    // whose request goes on
	failed *attempt  // whose error may go on in the next lines
	text   string    // of that error
	phase  Phase     // in which it happened
	issued *attempt  // the last; hooks run after it
	began  time.Time // of what is said now
}

func signAcmetool(text []byte) int {
	msg, logger, _, ok := acmetoolLine(text, time.UTC)
	if !ok {
		return 0
	}
	switch {
	case strings.HasPrefix(msg, "Target(") && strings.HasSuffix(logger, "storageops"), strings.HasPrefix(msg, "fatal: reconcile"), strings.HasPrefix(logger, "acmetool"):
		return 3
	}
	return 1
}

// acmetoolLine takes the head off: "20261122070000 [ERROR] acmetool.storageops:
// message", or the name of the logger alone.
func acmetoolLine(text []byte, zone *time.Location) (msg, logger string, at time.Time, ok bool) {
	var stamp []byte
	if acmetoolHead(text) {
		head, rest, found := bytes.Cut(text[16:], []byte("] "))
		if !found || len(head) > 10 {
			return "", "", time.Time{}, false
		}
		stamp, text = text[:14], rest
	}
	if !bytes.HasPrefix(text, []byte("acme")) {
		return "", "", time.Time{}, false
	}
	if stamp != nil {
		t, err := time.ParseInLocation("20060102150405", string(stamp), zone)
		if err != nil {
			return "", "", time.Time{}, false
		}
		at = t
	}
	head, rest, found := bytes.Cut(text, []byte(": "))
	if !found || len(head) > 40 || bytes.IndexByte(head, ' ') >= 0 {
		return "", "", at, false
	}
	logger = string(head)
	switch {
	case logger == "acmetool", strings.HasPrefix(logger, "acmetool."), logger == "acme.storageops", logger == "acme.solver", logger == "acme.hooks", logger == "acme.notify", logger == "acme.storage":
		return string(rest), logger, at, true
	}
	return "", "", at, false
}

// acmetoolHead reports whether a line begins with a time and a level.
func acmetoolHead(text []byte) bool {
	return len(text) > 17 && isDigit(text[0]) && isDigit(text[13]) && text[14] == ' ' && text[15] == '['
}

func (d *acmeTool) line(l *line, g *ledger) {
	msg, logger, at, ok := acmetoolLine(l.text, g.zone)
	if at.IsZero() {
		at = l.at
	}
	if !ok && acmetoolHead(l.text) { // another logger's
		d.settle(g)
		return
	}
	if !ok {
		if d.failed != nil && len(d.text) < maxLine/8 && len(l.text) > 0 && !bytes.HasPrefix(l.text, []byte("error satisfying ")) {
			d.text += " " + string(l.text)
		}
		return
	}
	d.settle(g)
	d.began = at
	if strings.HasPrefix(msg, "Target(") {
		d.request(msg, at, l, g)
		return
	}
	a := g.find(d.target)
	if a != nil && d.target != "" {
		a.hear(at)
	}
	switch {
	case strings.HasPrefix(msg, "done processing targets"):
		d.done(at, g)
	case strings.HasPrefix(msg, "error while processing targets"), strings.HasPrefix(msg, "failed to reconcile"), strings.HasPrefix(msg, "fatal: reconcile"):
		d.done(at, g) // the errors again
	case strings.HasPrefix(msg, "fatal: "):
		if logger == "acmetool" && strings.HasPrefix(msg, "fatal: storage") {
			a := g.begin("", l, at)
			a.fault(PhaseClient, "", strings.TrimPrefix(msg, "fatal: "))
			g.finish(a, Failed, at)
		}
	case strings.HasSuffix(logger, "hooks") && strings.HasPrefix(msg, "hook script: "):
		d.done(at, g)
		if d.issued != nil {
			d.issued.hookFailed("deploy", hookStatus(msg))
			d.issued.reach(PhaseHook)
			g.amend(d.issued)
		}
	case a == nil:
	case strings.HasPrefix(msg, "unsuccessful challenge"), strings.HasPrefix(msg, "could not obtain authorization for "):
		d.phase = PhaseChallenge
		a.reach(PhaseChallenge)
	case strings.HasPrefix(msg, "challenge "):
		a.reach(PhaseChallenge)
	case strings.HasPrefix(msg, "downloading certificate"):
		a.reach(PhaseFinalize)
	}
}

func (d *acmeTool) exit(e Exit, g *ledger) {
	d.settle(g)
	if e.Code == 0 {
		d.done(e.At, g)
	}
	g.exited(e)
	*d = acmeTool{}
}

func (d *acmeTool) end(g *ledger) { d.settle(g) }

// request reads what is said of a target.
func (d *acmeTool) request(msg string, at time.Time, l *line, g *ledger) {
	target, what, ok := strings.Cut(msg, "): ")
	if !ok {
		return
	}
	key := strings.TrimPrefix(target, "Target(")
	if key != d.target {
		d.done(at, g) // the one before had no error
	}
	open := func() *attempt {
		a := g.find(key)
		if a == nil {
			a = g.begin(key, l, at)
			names, rest, _ := strings.Cut(key, ";")
			a.name(strings.Split(names, ",")...)
			url, _, _ := strings.Cut(rest, ";")
			a.ca(url)
		}
		a.hear(at)
		return a
	}
	switch {
	case what == "have best certificate which does not need renewing, skipping target":
		g.finish(open(), Skipped, at)
	case what == "requesting certificate":
		d.target, d.phase, d.issued = key, PhaseStart, nil
		open()
	case what == "ordering certificate":
		d.target = key
		open().reach(PhaseOrder)
	case strings.HasPrefix(what, "failed to request certificate: "):
		d.failed = open()
		d.text = strings.TrimPrefix(what, "failed to request certificate: ")
		d.target = ""
	}
}

// settle ends the attempt whose error was read, now that all its lines are.
func (d *acmeTool) settle(g *ledger) {
	a := d.failed
	if a == nil {
		return
	}
	text := d.text
	d.failed, d.text = nil, ""
	f := findProblem(text)
	phase := d.phase
	switch {
	case strings.Contains(text, "challenge") || strings.Contains(text, "authorization") || strings.Contains(text, "failed all combinations"):
		phase = PhaseChallenge
	case f.kind == Network && phase.rank() <= PhaseStart.rank():
		phase = PhaseDirectory
	case strings.Contains(text, "order became invalid after finalisation"):
		phase = PhaseFinalize
	case f.kind != "" && phase.rank() <= PhaseStart.rank():
		phase = phaseOfProblem(f.kind)
	case phase == "" || phase == PhaseStart:
		phase = a.Phase
	}
	detail := text
	if i := strings.Index(text, `"detail":`); i >= 0 { // the CA's document as it came
		raw := strings.TrimLeft(text[i+len(`"detail":`):], " ")
		if inner, ok := strings.CutPrefix(raw, `"`); ok {
			if value, _, ok := quoted([]byte(inner)); ok {
				detail = string(unquote(value))
			}
		}
	}
	if _, value, ok := strings.Cut(text, "Retry-After:["); ok { // the response's headers
		value, _, _ = strings.Cut(value, "]")
		a.retryAfter(retryHeader(value, d.began))
	}
	a.fault(phase, f.kind, detail)
	a.Phase = phase
	a.retryAfter(f.retry)
	a.Paused = a.Paused || f.paused
	d.phase = PhaseStart
	g.finish(a, Failed, d.began)
}

// done ends the request that went on: no error followed it.
func (d *acmeTool) done(at time.Time, g *ledger) {
	if d.target == "" {
		return
	}
	if a := g.find(d.target); a != nil {
		a.reach(PhaseSaved)
		g.finish(a, Issued, at)
		d.issued = a
	}
	d.target = ""
}

// hookStatus reads "hook script: /path: exit status 3".
func hookStatus(msg string) int {
	i := strings.LastIndex(msg, ": exit status ")
	if i < 0 {
		return -1
	}
	return exitCode("exit code " + msg[i+len(": exit status "):])
}
