package acmelog

import (
	"bytes"
	"strconv"
	"strings"
	"time"
)

// haProxy reads what HAProxy's own ACME client (since 3.2) sends to the global log.
// A certificate is named by the path it was loaded from; the new one goes into use
// in memory, and no file is written.
//
// Every line has the same level. "retrying in" stands behind errors and behind
// plain waiting for the CA alike, five times at most at each step; an attempt has
// failed when a line ends with "Aborting.".
type haProxy struct{}

const haProxyMark = "acme: "

// haProxySteps says which step an error names by the URL that was asked.
var haProxySteps = []struct {
	phase Phase
	has   string
}{
	{PhaseChallenge, "challenge error"},
	{PhaseChallenge, "challenge status"},
	{PhaseChallenge, "waiting for the status"},
	{PhaseChallenge, "dns-01"},
	{PhaseChallenge, "dns-persist-01"},
	{PhaseChallenge, "Authorization URL"},
	{PhaseChallenge, "getting challeng"},
	{PhaseChallenge, "Challenge request"},
	{PhaseChallenge, "impossible acme challenge"},
	{PhaseChallenge, "to the '"}, // the map of tokens
	{PhaseDirectory, "directory URL"},
	{PhaseDirectory, "Nonce URL"},
	{PhaseDirectory, "Account URL"},
	{PhaseDirectory, "newAccount request"},
	{PhaseOrder, "newOrder"},
	{PhaseFinalize, "Finalize URL"},
	{PhaseFinalize, "finalize URL"},
	{PhaseFinalize, "Order URL"},
	{PhaseFinalize, "order status"},
	{PhaseFinalize, "Order status"},
	{PhaseFinalize, "certificate URL"},
	{PhaseFinalize, "ACME certificate response"},
	{PhaseIssued, "certificate lock"},
	{PhaseIssued, "previous certificate"},
	{PhaseClient, "No ACME configuration"},
	{PhaseClient, "were configured for certificate"},
	{PhaseClient, "Task already exists"},
	{PhaseClient, "Can't generate a CSR"},
	{PhaseClient, "Can't start the ACME client"},
}

func signHAProxy(text []byte) int {
	_, text, ok := haProxyText(text, time.Time{})
	if !ok {
		return 0
	}
	switch {
	case bytes.HasSuffix(text, []byte(": Starting update of the certificate.")), bytes.HasSuffix(text, []byte(": Successful update of the certificate.")):
		return 3
	case bytes.HasSuffix(text, []byte(" retries)...")), bytes.Contains(text, []byte(" Aborting.")):
		return 2
	case bytes.Contains(text, []byte(`: dns-01 requires to set the "_acme-challenge.`)):
		return 3
	}
	return 0
}

// haProxyText takes off what the log formats short, timed, priority and iso put
// before a message: a level between angle brackets, a time. ok is false when the
// message is not the ACME client's.
func haProxyText(text []byte, at time.Time) (time.Time, []byte, bool) {
	if len(text) > 3 && text[0] == '<' {
		if i := bytes.IndexByte(text[:min(len(text), 6)], '>'); i > 1 && isDigit(text[1]) {
			text = text[i+1:]
		}
	}
	if len(text) > 26 && text[4] == '-' && text[10] == 'T' {
		stamp, rest, _ := bytes.Cut(text, []byte{' '})
		if t, err := time.Parse(time.RFC3339Nano, string(stamp)); err == nil {
			at, text = t, rest
		}
	}
	if !bytes.HasPrefix(text, []byte(haProxyMark)) {
		return at, nil, false
	}
	return at, text[len(haProxyMark):], true
}

func (d *haProxy) line(l *line, g *ledger) {
	at, text, ok := haProxyText(l.text, l.at)
	if !ok {
		return
	}
	crt, msg, ok := strings.Cut(string(bytes.TrimRight(text, " ")), ": ")
	if !ok || crt == "" || len(crt) > 4096 {
		return
	}
	a := g.find(crt)
	if a != nil {
		a.hear(at)
	}
	switch msg {
	case "Starting update of the certificate.":
		g.begin(crt, l, at).lineage(crt)
		return
	case "Successful update of the certificate.":
		if a == nil {
			a = g.begin(crt, l, at)
			a.lineage(crt)
			a.Doubtful = true
		}
		d.forget(a)
		a.reach(PhaseActivated)
		a.Activated = true
		g.finish(a, Issued, at)
		return
	}
	if err, wait, ok := haProxyRetry(msg); ok {
		if a != nil {
			d.retry(a, err, wait, at)
		}
		return
	}
	if err, ok := haProxyAbort(msg); ok {
		if a == nil {
			a = g.begin(crt, l, at)
			a.lineage(crt)
		}
		if err != "" {
			d.fault(a, err)
		}
		g.finish(a, Failed, at)
		return
	}
	if a == nil {
		return
	}
	for _, mark := range []string{`"_acme-challenge.`, `"_validation-persist.`} {
		if _, rest, ok := strings.Cut(msg, mark); ok {
			name, _, _ := strings.Cut(rest, `"`)
			a.name(name)
			a.reach(PhaseChallenge)
		}
	}
}

func (d *haProxy) exit(Exit, *ledger) {}
func (d *haProxy) end(*ledger)        {}

// haProxyRetry reads "ERROR, retrying in 9s (2/5 retries)...".
func haProxyRetry(msg string) (err string, wait time.Duration, ok bool) {
	if !strings.HasSuffix(msg, " retries)...") {
		return "", 0, false
	}
	i := strings.LastIndex(msg, ", retrying in ")
	if i < 0 {
		return "", 0, false
	}
	seconds, _, _ := strings.Cut(msg[i+len(", retrying in "):], "s ")
	n, bad := strconv.Atoi(seconds)
	if bad != nil || n < 0 {
		n = 0
	}
	return msg[:i], time.Duration(min(n, 366*24*3600)) * time.Second, true
}

// haProxyAbort reads "ERROR Aborting." and "ERROR Aborting. (5/5)".
func haProxyAbort(msg string) (err string, ok bool) {
	if i := strings.LastIndex(msg, " Aborting."); i >= 0 {
		if rest := msg[i+len(" Aborting."):]; rest == "" || strings.HasPrefix(rest, " (") && strings.HasSuffix(rest, ")") && len(rest) < 12 {
			return strings.TrimSpace(msg[:i]), true
		}
	}
	return "", strings.HasPrefix(msg, "Aborting.")
}

// retry notes why a step is tried again. Waiting for the CA is no reason; an error
// is one until the attempt succeeds.
func (d *haProxy) retry(a *attempt, err string, wait time.Duration, at time.Time) {
	for _, s := range []string{"waiting for the status", "challenge status: ", "order status: "} {
		if rest, ok := strings.CutPrefix(err, s); ok && rest != "invalid" {
			a.reach(haProxyPhase(err, a.Phase))
			return
		}
	}
	if err == "" {
		return
	}
	d.fault(a, err)
	// Left to itself it waits 3, 9, 27 and 81 seconds; anything else was asked for
	// by the CA.
	switch wait {
	case 3 * time.Second, 9 * time.Second, 27 * time.Second, 81 * time.Second, 0:
	default:
		if !at.IsZero() {
			a.retryAfter(at.Add(wait))
		}
	}
}

// forget takes the errors back that the attempt got over.
func (d *haProxy) forget(a *attempt) {
	a.ProblemType, a.ProblemDetail, a.Problems, a.RetryAfter, a.Paused = "", "", nil, time.Time{}, false
}

// fault makes an error the attempt's problem; the latest counts.
func (d *haProxy) fault(a *attempt, err string) {
	phase := haProxyPhase(err, a.Phase)
	d.forget(a)
	kind, detail := "", err
	// ... "the CA's words" (urn:...) (HTTP status code 403)
	if i := strings.IndexByte(err, '"'); i >= 0 {
		if j := strings.LastIndex(err, `" (`); j > i {
			kind = findProblem(err[j:]).kind
			detail = err[i+1 : j]
		}
	}
	if !strings.HasPrefix(kind, problemP) {
		detail = err
		head, _, _ := strings.Cut(err, `"`)
		kind = findProblem(head).kind
	}
	f := findProblem(kind + ": " + detail)
	a.fault(phase, kind, detail)
	a.Phase = phase
	a.retryAfter(f.retry)
	a.Paused = f.paused
}

// haProxyPhase is the step that an error names, else the present one.
func haProxyPhase(err string, now Phase) Phase {
	head, _, _ := strings.Cut(err, `"`)
	for _, s := range haProxySteps {
		if strings.Contains(head, s.has) {
			return s.phase
		}
	}
	return now
}
