package acmelog

import (
	"bytes"
	"slices"
	"strings"
	"time"
)

// Bounds of what certmagic waits between two tries, and of how long after a renewal
// it takes to put the certificate into use.
const (
	caddyLongestWait = 6 * time.Hour
	caddyReload      = 10 * time.Second
)

// caddy reads what certmagic, and acmez below it, log through zap: one JSON object a
// line, or zap's console format (time, level, logger, message and a JSON object,
// with tabs between). Certificates are obtained at the same time, each for one
// identifier. After a try that failed it tries again, by its own schedule, first
// with the CA's test environment.
type caddy struct {
	fields fieldList
	nested fieldList
	// judged are the tries whose problem an issuer has told, by their serial, with
	// its CA; what a single challenge or a further issuer says does not replace it.
	judged map[uint64]string
}

// caddyLoggers are the last parts of the names of loggers that tell of certificates;
// all else, access logs above all, is passed over unread.
var caddyLoggers = []string{"obtain", "renew", "acme_client", "acme", "zerossl", "issuance", "maintenance", "cache", "on_demand", "tls", "http"}

func signCaddy(text []byte) int {
	if bytes.HasPrefix(text, []byte(`{"level":"`)) && bytes.Contains(text, []byte(`"ts":`)) {
		switch {
		case bytes.Contains(text, []byte(`"logger":"tls`)), bytes.Contains(text, []byte(`"logger":"http.log`)), bytes.Contains(text, []byte(`"msg":"using provided configuration"`)),
			bytes.Contains(text, []byte(`"logger":"http.acme_client"`)), bytes.Contains(text, []byte(`"msg":"using adjacent Caddyfile"`)):
			return sure
		case bytes.Contains(text, []byte(`"logger":"http`)), bytes.Contains(text, []byte(`"logger":"admin"`)):
			return 1
		}
	}
	var d caddy
	_, logger, _, ok := d.take(text, time.UTC)
	switch {
	case !ok:
		return 0
	case bytes.HasPrefix(logger, []byte("tls")):
		return sure
	}
	return 2
}

// caddyWhat is what a message says.
type caddyWhat int

const (
	caddyNothing caddyWhat = iota
	caddyBegins
	caddyNotNeeded
	caddyLimiter
	caddySolves
	caddyRefused // one challenge
	caddyInvalid // the authorization
	caddyFinalizes
	caddyIssuerFailed
	caddyRetries
	caddyGivesUp
	caddyJobFailed
	caddyDone
	caddyUnlocks
	caddyReplaced
)

func caddyMessage(message []byte) caddyWhat {
	switch string(message) {
	case "obtaining certificate", "renewing certificate":
		return caddyBegins
	case "certificate already exists in storage", "certificate appears to have been renewed already":
		return caddyNotNeeded
	case "waiting on internal rate limiter", "done waiting on internal rate limiter":
		return caddyLimiter
	case "trying to solve challenge", "authorization already valid":
		return caddySolves
	case "challenge failed":
		return caddyRefused
	case "validating authorization":
		return caddyInvalid
	case "validations succeeded; finalizing order":
		return caddyFinalizes
	case "could not get certificate from issuer":
		return caddyIssuerFailed
	case "will retry":
		return caddyRetries
	case "final attempt; giving up":
		return caddyGivesUp
	case "job failed":
		return caddyJobFailed
	case "certificate obtained successfully", "certificate renewed successfully":
		return caddyDone
	case "releasing lock":
		return caddyUnlocks
	case "replaced certificate in cache":
		return caddyReplaced
	}
	return caddyNothing
}

func (d *caddy) line(l *line, g *ledger) {
	at, logger, message, ok := d.take(l.text, g.zone)
	if !ok {
		return
	}
	what := caddyMessage(message)
	if what == caddyNothing {
		return
	}
	if at.IsZero() {
		at = l.at
	}
	d.tell(what, at, logger, l, g)
}

// take takes a line apart, if its logger and its message are of those that matter:
// what it costs is what most lines of the log cost. d.fields is filled then.
func (d *caddy) take(b []byte, zone *time.Location) (at time.Time, logger, message []byte, ok bool) {
	if len(b) < 40 {
		return at, nil, nil, false
	}
	if b[0] != '{' {
		return d.console(b, zone)
	}
	const key = `"logger":"`
	i := bytes.Index(b, []byte(key))
	if i < 0 {
		return at, nil, nil, false
	}
	if logger = b[i+len(key):]; !caddyLogger(&logger) {
		return at, nil, nil, false
	}
	const msg = `"msg":"`
	if i = bytes.Index(b, []byte(msg)); i < 0 {
		return at, nil, nil, false
	}
	message = b[i+len(msg):]
	if i = bytes.IndexByte(message, '"'); i < 0 || caddyMessage(message[:i]) == caddyNothing {
		return at, nil, nil, false
	}
	d.fields.reset()
	d.fields.json(b)
	name, _ := d.fields.find("logger")
	m, ok := d.fields.find("msg")
	if logger = name.value; !ok || !caddyLoggerName(logger) {
		return at, nil, nil, false
	}
	return stamp(d.fields.text("ts"), zone), logger, m.value, true
}

// caddyLogger cuts the name of a logger off at its quote, and reports whether it may
// matter.
func caddyLogger(name *[]byte) bool {
	i := bytes.IndexByte((*name)[:min(len(*name), 128)], '"')
	if i < 0 {
		return false
	}
	*name = (*name)[:i]
	return caddyLoggerName(*name)
}

func caddyLoggerName(name []byte) bool {
	last := name[bytes.LastIndexByte(name, '.')+1:]
	for _, s := range caddyLoggers {
		if string(last) == s {
			return true
		}
	}
	return false
}

// console takes a line of zap's console format apart.
func (d *caddy) console(b []byte, zone *time.Location) (at time.Time, logger, message []byte, ok bool) {
	if b[0] < '0' || b[0] > '9' {
		return at, nil, nil, false
	}
	stamped, rest, ok := bytes.Cut(b[:min(len(b), 512)], []byte{'\t'})
	if !ok || len(stamped) > 40 {
		return at, nil, nil, false
	}
	level, rest, ok := bytes.Cut(rest, []byte{'\t'})
	if !ok || len(level) > 10 {
		return at, nil, nil, false
	}
	logger, rest, ok = bytes.Cut(rest, []byte{'\t'})
	if !ok || !caddyLoggerName(logger) {
		return at, nil, nil, false
	}
	message, _, ok = bytes.Cut(rest, []byte{'\t'})
	if !ok || caddyMessage(message) == caddyNothing {
		return at, nil, nil, false
	}
	if at = stamp(string(stamped), time.UTC); at.IsZero() { // Caddy's console times are UTC
		return at, nil, nil, false
	}
	d.fields.reset()
	d.fields.json(b[len(stamped)+len(level)+len(logger)+len(message)+4:])
	return at, logger, message, true
}

// tell reads what a message says.
func (d *caddy) tell(what caddyWhat, at time.Time, logger []byte, l *line, g *ledger) {
	a, name := d.attempt(what, at, l, g)
	if a == nil {
		return
	}
	a.hear(at)
	switch what {
	case caddyNotNeeded:
		g.finish(a, Skipped, at)
	case caddyLimiter:
		a.ca(d.fields.text("ca"))
		a.reach(PhaseOrder)
	case caddySolves:
		a.ca(d.fields.text("ca"))
		a.reach(PhaseChallenge)
	case caddyRefused, caddyInvalid:
		d.nested.reset()
		if m, ok := d.fields.find("problem"); ok {
			d.nested.json(m.value)
		}
		kind, detail := findProblem(d.nested.text("type")).kind, d.nested.text("detail")
		if kind == "" { // acmez 1.0 has no object for it
			kind, detail = findProblem(d.fields.text("problem_type")).kind, d.fields.text("error")
		}
		if kind != "" {
			if a.Problems = nil; !d.isJudged(a) { // the last challenge tells most
				a.ProblemType, a.ProblemDetail = "", ""
			}
			a.refused(name, kind, detail)
		}
	case caddyFinalizes:
		a.reach(PhaseFinalize)
	case caddyIssuerFailed:
		d.issuerFailed(a)
	case caddyRetries, caddyGivesUp, caddyJobFailed:
		d.failed(what, a, at, g)
	case caddyDone:
		d.done(a)
	case caddyUnlocks:
		switch {
		case a.Phase.rank() >= PhaseIssued.rank():
			if !bytes.HasSuffix(logger, []byte("renew")) { // else it is loaded next
				g.finish(a, Issued, at)
			}
		case a.ProblemType != "" || a.ProblemDetail != "":
			g.finish(a, Failed, at)
		default: // its job may say why
			a.settles = caddyReload
		}
	case caddyReplaced:
		a.Activated = true
		a.reach(PhaseActivated)
		g.finish(a, Issued, at)
	}
}

// attempt returns the attempt that d.fields speaks of, and its identifier.
func (d *caddy) attempt(what caddyWhat, at time.Time, l *line, g *ledger) (*attempt, string) {
	name := ""
	if m, ok := d.fields.find("identifier"); ok && m.quoted {
		name = m.text()
	} else {
		for _, key := range []string{"identifiers", "subjects"} {
			if list := d.fields.names(key); len(list) > 0 {
				name = list[0]
				break
			}
		}
	}
	if name == "" {
		name = caddyNamed(d.fields.text("error"), what)
	}
	if name != "" && cleanName(name) == "" {
		return nil, ""
	}
	a := g.find(name)
	switch what {
	case caddyBegins, caddyNotNeeded:
		if name == "" {
			return nil, ""
		}
		if a != nil && what == caddyBegins {
			g.close(a, time.Time{})
			a = nil
		}
		if a != nil {
			return a, name
		}
		return caddyBegin(name, l, at, g), name
	case caddyLimiter, caddySolves, caddyRefused, caddyIssuerFailed:
		// certmagic until 0.16 has no words for the beginning of a try.
		if a == nil && name != "" {
			a = caddyBegin(name, l, at, g)
		}
		return a, name
	case caddyRetries, caddyGivesUp:
		if a == nil && name != "" {
			a = caddyBegin(name, l, at, g)
		}
	case caddyDone:
		if a == nil && name != "" {
			a = caddyBegin(name, l, at, g)
			a.Doubtful = true
		}
		return a, name
	}
	if a == nil && name == "" && len(g.open) == 1 { // it can only be that one's
		a = g.open[0]
		name = a.Lineage
	}
	return a, name
}

func caddyBegin(name string, l *line, at time.Time, g *ledger) *attempt {
	a := g.begin(name, l, at)
	a.lineage(name)
	a.name(name)
	return a
}

// caddyNamed finds the identifier in an error: "[a.example] Obtain: ..." of a try,
// "a.example: obtaining certificate: ..." of a job.
func caddyNamed(text string, what caddyWhat) string {
	if rest, ok := strings.CutPrefix(text, "["); ok {
		name, rest, _ := strings.Cut(rest, "] ")
		if strings.HasPrefix(rest, "Obtain: ") || strings.HasPrefix(rest, "Renew: ") {
			return name
		}
		return ""
	}
	if what == caddyJobFailed {
		if name, rest, ok := strings.Cut(text, ": "); ok && (strings.HasPrefix(rest, "obtaining certificate: ") || strings.HasPrefix(rest, "renewing certificate: ") ||
			strings.HasPrefix(rest, "reloading ") || strings.HasPrefix(rest, "caching ")) {
			return name
		}
		if rest, ok := strings.CutPrefix(text, "renewing managed certificate for ["); ok {
			name, _, _ := strings.Cut(rest, "]")
			name, _, _ = strings.Cut(name, " ")
			return name
		}
	}
	return ""
}

// issuerFailed notes the error of one issuer; with another one the same try goes on.
func (d *caddy) issuerFailed(a *attempt) {
	text := d.fields.text("error")
	if d.isJudged(a) {
		return
	}
	if a.ProblemType == "" || !strings.Contains(text, "no solvers available for remaining challenges") { // else the last challenge said why
		a.ProblemType, a.ProblemDetail = "", ""
		caddyFault(a, text)
	}
	if d.judged == nil || len(d.judged) > 2*maxOpen {
		d.judged = map[uint64]string{}
	}
	d.judged[a.serial] = a.CA
}

func (d *caddy) isJudged(a *attempt) bool {
	_, ok := d.judged[a.serial]
	return ok
}

// caddyFault notes an error as the reason why a try failed.
func caddyFault(a *attempt, text string) {
	if i := strings.LastIndex(text, " (ca="); i >= 0 && strings.HasSuffix(text, ")") {
		a.ca(text[i+len(" (ca=") : len(text)-1])
		text = text[:i]
	}
	if strings.HasPrefix(text, "[") {
		if _, rest, ok := strings.Cut(text, "] "); ok {
			text = rest
		}
	}
	f := findProblem(text)
	p := caddyPhase(text, a.Phase)
	if a.ProblemType != "" || a.ProblemDetail != "" {
		if a.ProblemType == f.kind && p.rank() > PhaseStart.rank() { // the same error, with where it comes from
			a.Phase = p
		}
		return
	}
	if p.rank() <= PhaseStart.rank() {
		p = caddyGuess(f.kind, p)
	}
	if p == PhaseHook {
		a.hookFailed("pre", legoHookCode(text))
	}
	a.fault(p, f.kind, caddyDetail(text))
	a.retryAfter(f.retry)
	a.Paused = a.Paused || f.paused
}

// caddyGuess says where a problem comes from by its type, when nothing else tells.
func caddyGuess(kind string, p Phase) Phase {
	switch strings.TrimPrefix(kind, problemP) {
	case "":
		return p
	case Network, HTTP5xx, "accountDoesNotExist", "badNonce", "externalAccountRequired", "invalidContact", "unsupportedContact", "userActionRequired":
		return PhaseDirectory
	case "connection", "dns", "dnssec", "incorrectResponse", "tls", "unauthorized":
		return PhaseChallenge
	}
	return PhaseOrder
}

// caddyDetail takes acmez's wrapping off a CA's problem: "... HTTP 429 urn:... - detail,
// problem "urn:...": detail, url: https://...".
func caddyDetail(text string) string {
	m := urn.FindStringIndex(text)
	if m == nil {
		return text
	}
	_, detail, ok := strings.Cut(text[m[0]:], " - ")
	if !ok || detail == "" {
		return text
	}
	for _, tail := range []string{`, problem "`, ", url: http", " (order=http"} {
		if i := strings.Index(detail, tail); i >= 0 {
			detail = detail[:i]
		}
	}
	return detail
}

// caddyPhase says where an error comes from, by what acmez and certmagic wrap around
// it; what stands first is the outermost.
func caddyPhase(text string, p Phase) Phase {
	if i := strings.Index(text, "HTTP "); i >= 0 {
		text = text[:i] // what follows are the words of the CA
	}
	best := len(text)
	for _, w := range []struct {
		words string
		phase Phase
	}{
		{"creating new order", PhaseOrder}, {"solving challenge", PhaseChallenge}, {"getting authorization", PhaseOrder},
		{"finalizing order", PhaseFinalize}, {"downloading certificate chain", PhaseFinalize}, {"saving assets", PhaseSaved},
		{"registering account", PhaseDirectory}, {"provisioning client", PhaseDirectory}, {"getting directory", PhaseDirectory},
		{"fetching new nonce", PhaseDirectory}, {"account pre-registration", PhaseDirectory}, {"aborted by event handler", PhaseHook},
	} {
		if i := strings.Index(text, w.words); i >= 0 && i < best {
			best, p = i, w.phase
		}
	}
	return p
}

// failed ends a try.
func (d *caddy) failed(what caddyWhat, a *attempt, at time.Time, g *ledger) {
	text := d.fields.text("error")
	if a.Phase.rank() >= PhaseIssued.rank() && len(a.ProblemDetail) == 0 { // it was loaded wrongly, but written
		g.finish(a, Issued, at)
		return
	}
	for _, kind := range []string{"Obtain: ", "Renew: "} {
		if i := strings.Index(text, "] "+kind); i >= 0 {
			text = text[i+len("] "+kind):]
			break
		}
	}
	for _, job := range []string{": obtaining certificate: ", ": renewing certificate: "} {
		text = strings.TrimPrefix(text, a.Lineage+job)
	}
	caddyFault(a, text)
	if ca := d.judged[a.serial]; ca != "" {
		a.ca(ca)
	}
	if what == caddyRetries {
		if wait, ok := d.fields.seconds("retrying_in", caddyLongestWait); ok && !at.IsZero() {
			a.retryAfter(at.Add(wait))
		}
	}
	delete(d.judged, a.serial)
	g.finish(a, Failed, at)
}

// done notes that a certificate was obtained, and stored.
func (d *caddy) done(a *attempt) {
	legoForgive(a)
	delete(d.judged, a.serial)
	if issuer := d.fields.text("issuer"); issuer != "" { // host-path of its directory
		host, _, _ := strings.Cut(strings.TrimPrefix(a.CA, "https://"), "/")
		if a.CA != "" && !strings.HasPrefix(issuer, host) { // a rehearsal, or an issuer that failed
			a.CA, a.Staging = "", IsStaging("https://"+issuer)
		}
	}
	a.reach(PhaseSaved)
	a.settles = caddyReload
}

func (d *caddy) exit(Exit, *ledger) {}

func (d *caddy) end(g *ledger) {
	for _, a := range slices.Clone(g.open) {
		if a.Phase.rank() >= PhaseIssued.rank() || a.ProblemDetail != "" || a.ProblemType != "" {
			g.close(a, time.Time{})
		}
	}
}
