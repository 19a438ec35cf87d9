package acmelog

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// legoDomains stands in front of what went wrong with single names.
const legoDomains = "one or more domains had a problem:"

var (
	legoDirectory = regexp.MustCompile(`get directory at '(https?://[^' ]{1,200})'`)
	legoAddress   = regexp.MustCompile(`[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9.-]{1,253}`) // names the account
	legoHookExit  = regexp.MustCompile(`exit status ([0-9]{1,3})$`)
)

// legoStatus finds how lego prints a CA's answer: "acme: error: 403 :: " and what
// follows, or "502 ::GET :: " where that was no problem document.
func legoStatus(text string) (rest string, status int, problem bool) {
	if _, after, ok := strings.Cut(text, "acme: error: "); ok {
		digits, after, ok := strings.Cut(after, " ::")
		if n, err := strconv.Atoi(digits); ok && err == nil {
			return after, n, true
		}
	}
	for _, method := range []string{" ::GET :: ", " ::POST :: ", " ::HEAD :: ", " :: GET :: ", " :: POST :: ", " :: HEAD :: "} {
		if i := strings.Index(text, method); i >= 3 {
			if n, err := strconv.Atoi(text[i-3 : i]); err == nil && n >= 100 {
				return text[i+len(method):], n, false
			}
		}
	}
	return "", 0, false
}

// legoProblem takes lego's wrapping off an error of the CA: "acme: error: 403 :: POST
// :: https://ca.example/order :: urn:... :: detail, problem: "urn:..." :: detail, url:
// https://...".
func legoProblem(text string) (f found, detail string) {
	rest, status, problem := legoStatus(text)
	f = findProblem(text)
	if status >= 500 && !strings.HasPrefix(f.kind, problemP) {
		f.kind = HTTP5xx
	}
	if !problem {
		if (f.kind == Network || f.kind == HTTP5xx) && (strings.Contains(text, "error presenting token: ") || strings.HasPrefix(text, "propagation: ")) {
			f.kind = "" // it is the DNS provider that was not reached, not the CA
		}
		return f, text
	}
	rest = strings.TrimPrefix(rest, " ")
	for _, method := range []string{"GET :: ", "POST :: ", "HEAD :: "} {
		if after, ok := strings.CutPrefix(rest, method); ok {
			_, after, _ = strings.Cut(after, " :: ")
			rest = after
			break
		}
	}
	_, detail, _ = strings.Cut(rest, " :: ") // behind the type
	if i := strings.Index(detail, `, problem: "`); i >= 0 {
		detail = detail[:i]
	}
	if i := strings.LastIndex(detail, ", url: http"); i >= 0 {
		detail = detail[:i]
	}
	detail = strings.TrimSuffix(strings.TrimSpace(detail), ", url:") // early ones print it empty
	if detail == "" {
		detail = text
	}
	return f, detail
}

// legoFault notes an error of lego as the reason of the whole attempt.
func legoFault(a *attempt, p Phase, text string) {
	f, detail := legoProblem(text)
	detail = detail[:min(len(detail), 8*maxText)] // more than is told
	a.fault(p, f.kind, legoAddress.ReplaceAllString(detail, redacted))
	a.retryAfter(f.retry)
	a.Paused = a.Paused || f.paused
}

// legoFailure notes the error with which an attempt ended, with what it tells about
// single names. more is true when lego 4 may go on about them on the next lines.
func legoFailure(a *attempt, text string) (more bool) {
	p := legoPhase(a, text)
	if m := legoDirectory.FindStringSubmatch(text); m != nil {
		a.ca(m[1])
	}
	text = strings.Replace(text, "acme: Error -> One or more domains", "error: one or more domains", 1) // before 2.2
	head, rest, ok := strings.Cut(text, legoDomains)
	if !ok || strings.Contains(head, "acme: error:") { // the words of a CA
		legoFault(a, p, strings.TrimSpace(text))
		return false
	}
	if !strings.HasPrefix(rest, " [") { // lego 4: a line each
		for line := range strings.Lines(rest) {
			legoDomain(a, p, strings.TrimRight(line, "\n"))
		}
		return true
	}
	for _, part := range splitProblems(rest[len(" ["):]) {
		legoDomain(a, p, part)
	}
	if a.ProblemDetail == "" {
		legoFault(a, p, text)
	}
	return false
}

// splitProblems splits "a.example: error] [b.example: error]". The names come in their
// order; what looks like the beginning of another entry but is not behind the last
// one is part of an error.
func splitProblems(text string) (parts []string) {
	text = strings.TrimSuffix(strings.TrimRight(text, " \n"), "]")
	begin := 0
	last, _, _ := strings.Cut(text[:min(len(text), maxNaming+2)], ": ")
	for from := 0; len(parts) < maxNames; {
		i := strings.Index(text[from:], "] [")
		if i < 0 {
			break
		}
		i += from
		from = i + len("] [")
		name, _, ok := strings.Cut(text[from:min(len(text), from+maxNaming+2)], ": ")
		if !ok || cleanName(name) != strings.ToLower(name) || name <= last {
			continue
		}
		parts = append(parts, text[begin:i])
		begin, last = from, name
	}
	return append(parts, text[begin:])
}

// legoDomain notes what went wrong with one name: "[a.example] error", or since 4.15
// "a.example: error". What begins with none of the attempt's names belongs to an
// error that has line ends in it.
func legoDomain(a *attempt, p Phase, line string) {
	var name, text string
	var ok bool
	if rest, bracket := strings.CutPrefix(line, "["); bracket {
		name, text, ok = strings.Cut(rest, "] ")
	} else {
		name, text, ok = strings.Cut(line, ": ")
	}
	name = strings.ToLower(name)
	if !ok || name == "" || cleanName(name) != name || len(a.Names) > 0 && !slices.Contains(a.Names, name) {
		return
	}
	if p == PhaseFinalize { // the order's error, once for every name
		legoFault(a, p, text)
		return
	}
	f, detail := legoProblem(text)
	a.refused(name, f.kind, detail)
	a.retryAfter(f.retry)
	a.Paused = a.Paused || f.paused
}

// legoPhase says where an error of lego comes from.
func legoPhase(a *attempt, text string) Phase {
	has := func(s string) bool { return strings.Contains(text, s) }
	switch {
	case has("could not save the resource"), strings.HasPrefix(text, "Unable to save "), strings.HasPrefix(text, "Unable to marshal "):
		return PhaseSaved
	case has("pre hook: "):
		return PhaseHook
	case has("get directory at "), has("Could not complete registration"), strings.HasPrefix(text, "registration: "), has("cannot get ACME client"),
		has("failed to get nonce"), has("Server requires External Account Binding"):
		return PhaseDirectory
	case a.Phase == PhaseFinalize:
		return PhaseFinalize
	case has(legoDomains):
		return PhaseChallenge
	case a.Phase.rank() >= PhaseOrder.rank():
		return a.Phase
	case strings.HasPrefix(text, "Could not obtain "), has("could not obtain the certificate"), has("unable to generate a certificate"), has("acme: error: "):
		return PhaseOrder
	case a.Phase.rank() <= PhaseStart.rank():
		return PhaseClient
	}
	return a.Phase
}

// legoHookCode finds the exit status in the error of a hook; -1: none.
func legoHookCode(text string) int {
	m := legoHookExit.FindStringSubmatch(strings.TrimSpace(text))
	if m == nil {
		return -1
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		return -1
	}
	return n
}

// legoForgive forgets the errors after which lego went on.
func legoForgive(a *attempt) {
	a.ProblemType, a.ProblemDetail, a.Problems, a.Paused = "", "", nil, false
	a.RetryAfter = time.Time{}
}
