package acmelog

import (
	"bytes"
	"strings"
	"time"
)

// acmeTiny reads what acme-tiny writes to stderr: a few words a step, without
// times, and a Python traceback for every failure. It writes the certificate to
// stdout, so that nothing tells which file it went to.
type acmeTiny struct {
	trace   bool   // inside a traceback
	failure string // what the traceback ends with, while its lines go on
}

func signAcmeTiny(text []byte) int {
	switch string(text) {
	case "Parsing account key...":
		return 2
	case "Parsing CSR...", "Getting directory...", "Directory found!", "Certificate signed!", "Signing certificate...":
		return 1
	}
	if bytes.HasPrefix(text, []byte("Found domains: ")) || bytes.Contains(text, []byte("acme_tiny.py")) {
		return 1
	}
	return 0
}

func (d *acmeTiny) line(l *line, g *ledger) {
	text := string(l.text)
	a := g.last()
	if a != nil {
		a.hear(l.at)
	}
	if text == "Parsing account key..." { // the first line of every run
		d.end(g)
		g.begin("", l, time.Time{})
		return
	}
	if strings.HasPrefix(text, "Traceback (most recent call last):") {
		d.trace = true
		return
	}
	if d.trace {
		d.traceback(text, a, l)
		return
	}
	if a == nil {
		if text == "Certificate signed!" { // of a run that never began
			a = g.begin("", l, time.Time{})
			a.Doubtful = true
			a.reach(PhaseIssued)
			g.finish(a, Issued, l.at)
		}
		return
	}
	switch {
	case strings.HasPrefix(text, "Found domains: "):
		a.name(strings.Split(strings.TrimPrefix(text, "Found domains: "), ", ")...)
	case text == "Getting directory...", strings.HasPrefix(text, "Registering account"):
		a.reach(PhaseDirectory)
	case text == "Creating new order...":
		a.reach(PhaseOrder)
	case strings.HasPrefix(text, "Verifying "):
		a.reach(PhaseChallenge)
	case text == "Signing certificate...":
		a.reach(PhaseFinalize)
	case text == "Certificate signed!":
		a.Doubtful = a.Doubtful || a.Phase != PhaseFinalize
		a.reach(PhaseIssued)
		g.finish(a, Issued, l.at)
	}
}

// traceback reads the lines of one: what was raised stands at its end, at column 0,
// and may go on over several lines.
func (d *acmeTiny) traceback(text string, a *attempt, l *line) {
	if d.failure == "" {
		if text != "" && text[0] != ' ' {
			d.failure = text
		}
	} else if len(d.failure) < maxLine && !strings.HasPrefix(text, "Data: ") { // that line holds the signed request
		d.failure += "\n" + text
	}
	if a == nil || d.failure == "" {
		return
	}
	// Told anew with every line: where the text breaks off nobody knows.
	a.ProblemType, a.ProblemDetail, a.Problems = "", "", nil
	message := strings.TrimPrefix(d.failure, "ValueError: ")
	if rest, ok := strings.CutPrefix(message, "Challenge did not pass for "); ok {
		name, answer, _ := strings.Cut(rest, ":")
		a.refused(name, findProblem(answer).kind, pythonValue(answer, "detail", rest))
		return
	}
	if rest := pythonValue(message, "detail", ""); rest != "" {
		f := findProblem(message)
		a.fault(a.Phase, f.kind, rest)
		a.retryAfter(f.retry)
		a.Paused = a.Paused || f.paused
		return
	}
	a.problem(a.Phase, message)
	if a.ProblemType == "" {
		if i := strings.Index(message, "Response Code: 5"); i >= 0 {
			a.fault(a.Phase, HTTP5xx, "")
		}
	}
}

// pythonValue finds 'key': 'value' in a printed Python dictionary.
func pythonValue(text, key, otherwise string) string {
	_, rest, ok := strings.Cut(text, "'"+key+"': ")
	if !ok || rest == "" {
		return otherwise
	}
	quote := rest[0]
	if quote != '\'' && quote != '"' {
		return otherwise
	}
	for i := 1; i < len(rest); i++ {
		switch rest[i] {
		case '\\':
			i++
		case quote:
			return rest[1:i]
		}
	}
	return rest[1:]
}

func (d *acmeTiny) exit(e Exit, g *ledger) {
	*d = acmeTiny{}
	g.exited(e)
}

func (d *acmeTiny) end(g *ledger) {
	*d = acmeTiny{}
	for _, a := range append([]*attempt(nil), g.open...) {
		if a.ProblemDetail != "" || a.ProblemType != "" {
			g.finish(a, Failed, time.Time{})
		}
	}
}
