package acmelog

import (
	"bytes"
	"strconv"
	"strings"
	"time"
)

// smallstep reads what the step command says of renewals: "step ca renew", once or
// as a daemon, and the unit cert-renewer@.service around it, whose ExecCondition
// skips what is not due.
//
// Run once it says one line, whichever way it went. The daemon tries again a minute
// after an error, without a word about that; an error that follows a renewal at
// once is one of the command that --exec names.
type smallstep struct {
	before  []byte   // the line before
	issued  *attempt // a hook may still fail
	skipped bool     // this start of the unit was told to be no run
	name    string   // of the daemon's certificate; errors do not say it
	several bool     // daemons write this log
}

const renewerUnit = "cert-renewer@"

func signStep(text []byte) int {
	switch {
	case bytes.HasPrefix(text, []byte("INFO: ")) || bytes.HasPrefix(text, []byte("ERROR: ")):
		_, level, msg, ok := stepLine(text, time.UTC)
		switch {
		case ok && level == "INFO" && (strings.HasPrefix(msg, "first renewal in ") || strings.Contains(msg, "certificate renewed, next in ")):
			return 3
		case ok && strings.HasPrefix(msg, "error renewing certificate"):
			return 3
		}
	case bytes.HasPrefix(text, []byte("Your certificate has been saved in ")),
		bytes.HasPrefix(text, []byte("certificate not renewed: expires in ")),
		bytes.HasPrefix(text, []byte("error renewing certificate")),
		bytes.HasPrefix(text, []byte("Re-run with STEPDEBUG=1")):
		return 3
	case string(text) == "certificate does not need renewal":
		return 2
	case bytes.Contains(text, []byte(renewerUnit)):
		return 2
	}
	return 0
}

// stepLine takes the head off a line of the daemon: "INFO: 2026/11/22 07:00:00
// message".
func stepLine(text []byte, zone *time.Location) (at time.Time, level, msg string, ok bool) {
	head, rest, ok := bytes.Cut(text, []byte(": "))
	if !ok || len(rest) < 20 || rest[19] != ' ' {
		return time.Time{}, "", "", false
	}
	at, err := time.ParseInLocation("2006/01/02 15:04:05", string(rest[:19]), zone)
	return at, string(head), string(rest[20:]), err == nil
}

func (d *smallstep) line(l *line, g *ledger) {
	if len(l.text) == 0 || len(l.text) > 4096 {
		d.before = d.before[:0]
		return
	}
	if bytes.HasPrefix(l.text, []byte("INFO: ")) || bytes.HasPrefix(l.text, []byte("ERROR: ")) {
		if at, level, msg, ok := stepLine(l.text, g.zone); ok {
			d.daemon(level, msg, at, l, g)
			return
		}
	}
	if !d.matters(l.text) {
		d.before = append(d.before[:0], l.text...)
		return
	}
	text, before := string(l.text), string(d.before)
	d.before = append(d.before[:0], l.text...)
	switch {
	case strings.HasPrefix(text, "Your certificate has been saved in "):
		path := strings.TrimSuffix(strings.TrimPrefix(text, "Your certificate has been saved in "), ".")
		a := d.current(l, g)
		a.saved(path)
		g.finish(a, Issued, l.at)
		d.issued = a
	case strings.HasPrefix(text, "certificate not renewed: expires in "), text == "certificate does not need renewal":
		d.skip(d.current(l, g), l.at, g)
	case text == "error renewing certificate", text == "error rekeying certificate": // STEPDEBUG prints the cause first
		d.failed(d.current(l, g), before, l.at, g)
	case strings.HasPrefix(text, "error renewing certificate: "), strings.HasPrefix(text, "error rekeying certificate: "):
		_, err, _ := strings.Cut(text, ": ")
		d.failed(d.current(l, g), err, l.at, g)
	case strings.HasPrefix(text, "Re-run with STEPDEBUG=1"):
		if d.issued == nil {
			d.failed(d.current(l, g), before, l.at, g)
		}
	case strings.HasPrefix(text, "error loading certificate: "), strings.HasPrefix(text, "error reading certificate chain"):
		a := d.current(l, g)
		a.fault(PhaseClient, "", text)
		g.finish(a, Failed, l.at)
	case d.issued != nil && stepHook(text) != "":
		d.hook(d.issued, text, l.at, g)
	case strings.Contains(text, renewerUnit):
		d.unit(text, l, g)
	}
}

// matters says whether a line is one that is read.
func (d *smallstep) matters(text []byte) bool {
	switch text[0] {
	case 'Y', 'c', 'e', 'R':
		return true
	}
	return d.issued != nil || bytes.Contains(text, []byte(renewerUnit))
}

// unit reads what systemd says of an instance of cert-renewer@.service.
func (d *smallstep) unit(text string, l *line, g *ledger) {
	_, rest, _ := strings.Cut(text, renewerUnit)
	instance, rest, ok := strings.Cut(rest, ".service")
	if !ok || strings.ContainsAny(instance, " :'\"") {
		return
	}
	a := g.find(instance)
	switch {
	case strings.HasPrefix(text, "Starting "+renewerUnit):
		d.issued, d.skipped = nil, false
		g.begin(instance, l, l.at).lineage(instance)
	case strings.HasPrefix(rest, ": Skipped due to 'exec-condition'"):
		if a == nil && d.skipped {
			return
		}
		if a == nil {
			a = g.begin(instance, l, l.at)
			a.lineage(instance)
		}
		d.skip(a, l.at, g)
	case strings.HasPrefix(text, "Finished "+renewerUnit):
		if d.issued != nil && d.issued.key == instance && d.issued.Hook == nil {
			d.issued.reach(PhaseDone)
			g.amend(d.issued)
		}
		d.issued = nil
	case strings.HasPrefix(rest, ": Failed with result '"):
		if a != nil {
			g.finish(a, Failed, l.at)
		} else if d.issued != nil && d.issued.key == instance {
			d.hook(d.issued, "", l.at, g) // ExecStartPost reloads who uses it
		}
	}
}

// current is the attempt that goes on: that of the unit, else one that begins and
// ends with this line.
func (d *smallstep) current(l *line, g *ledger) *attempt {
	if a := g.last(); a != nil {
		a.hear(l.at)
		return a
	}
	d.issued = nil
	return g.begin("", l, l.at)
}

func (d *smallstep) skip(a *attempt, at time.Time, g *ledger) {
	d.skipped = true
	g.finish(a, Skipped, at)
}

// failed ends an attempt without a certificate.
func (d *smallstep) failed(a *attempt, err string, at time.Time, g *ledger) {
	f := findProblem(err)
	if f.kind == "" && strings.Contains(err, "Internal Server Error") {
		f.kind = HTTP5xx
	}
	a.fault(PhaseOrder, f.kind, err)
	a.Phase = PhaseOrder
	g.finish(a, Failed, at)
}

// daemon reads a line of step ca renew --daemon.
func (d *smallstep) daemon(level, msg string, at time.Time, l *line, g *ledger) {
	if level == "INFO" {
		name, _, ok := strings.Cut(msg, " certificate renewed, next in ")
		if !ok {
			if !strings.HasPrefix(msg, "certificate renewed, next in ") { // before 0.14.4 it had no name
				return
			}
			name = ""
		}
		d.several = d.several || d.name != "" && d.name != name
		d.name = name
		a := g.begin("", l, at)
		a.lineage(name)
		a.name(name)
		a.reach(PhaseSaved)
		g.finish(a, Issued, at)
		d.issued = a
		return
	}
	if d.issued != nil && !strings.HasPrefix(msg, "error renewing certificate") {
		d.hook(d.issued, msg, at, g)
		return
	}
	d.issued = nil
	msg = strings.TrimPrefix(msg, "error renewing certificate: ")
	a := g.begin("", l, at)
	if !d.several {
		a.lineage(d.name)
		a.name(d.name)
	}
	d.failed(a, msg, at, g)
}

// stepHook says which kind of hook such an error is of: --pid sends a signal, --exec
// runs a command; "" when it is neither's.
func stepHook(err string) string {
	switch {
	case strings.HasPrefix(err, "kill ") && strings.Contains(err, " with signal "):
		return "reload"
	case strings.HasPrefix(err, "exit status "), strings.HasPrefix(err, "signal: "), strings.HasPrefix(err, "exec: "), strings.HasPrefix(err, "fork/exec "):
		return "deploy"
	}
	return ""
}

// hook notes that what follows a renewal failed.
func (d *smallstep) hook(a *attempt, err string, at time.Time, g *ledger) {
	d.issued = nil
	code := -1
	if n, bad := strconv.Atoi(strings.TrimPrefix(err, "exit status ")); bad == nil && n > 0 && n < 256 {
		code = n
	}
	kind := stepHook(err)
	if kind == "" {
		kind = "reload"
	}
	a.hookFailed(kind, code)
	a.reach(PhaseHook)
	g.amend(a)
}

// exit ends a run of the unit. A status that is not 0 and of which nothing was told
// is an error that was not known; the last line says what.
func (d *smallstep) exit(e Exit, g *ledger) {
	if a := g.last(); a != nil {
		if e.Code > 0 && a.ProblemDetail == "" {
			d.failed(a, string(d.before), e.At, g)
		}
		g.exited(e)
	} else if d.issued != nil && d.issued.Hook == nil && e.Code == 0 {
		d.issued.reach(PhaseDone)
		g.amend(d.issued)
	}
	*d = smallstep{}
}

func (d *smallstep) end(*ledger) {}
