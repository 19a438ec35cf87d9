package acmelog

import (
	"slices"
	"strings"
	"time"
)

// certbotFailure is the sentence that ended an attempt, while its text goes on.
type certbotFailure struct {
	at   time.Time
	more bool // it announced another line
}

// fails: certbot says why the attempt for a lineage, or the whole run, failed.
func (d *certbot) fails(l *line, at time.Time, g *ledger, name, reason string, src certbotSource) {
	if name == "" && d.failing != nil {
		return // said already
	}
	d.flush(g)
	a := d.cur
	switch {
	case name != "":
		if a == nil || a.Lineage != "" && a.Lineage != clean(name) {
			a = d.find(g, name)
		}
		d.belied(g, name)
		if a == nil {
			a = d.begin(l, at, g)
			if !d.run.done[name] {
				d.tooEarly(name, a, src)
			}
		}
		a.lineage(name)
		d.dealt(name)
	case a != nil:
	case len(d.run.issued) > 0 && ofIssuing(certbotKind(reason), reason):
		d.belied(g, d.lately().Lineage)
		return
	case len(d.run.issued) > 0: // what comes after the certificate is not about getting it
		if last := d.lately(); last.Hook == nil || last.ProblemDetail == "" {
			late(g, last, d.hookKind(), -1)
			last.fault(last.Phase, "", reason)
			g.amend(last)
		}
		return
	case d.run.failed > 0:
		return
	default:
		first := *l
		if d.run.begun {
			first.offset = d.run.first.offset
			if !d.run.at.IsZero() {
				first.at = d.run.at
			}
		}
		a = d.begin(&first, first.at, g)
		a.Phase = PhaseCheck
		if d.file.reached != "" {
			a.Phase = d.file.reached
		}
		a.name(d.run.names...)
		if d.run.asked != "" {
			a.lineage(d.run.asked)
		}
		d.tooEarly("", a, src)
	}
	a.hear(at)
	if a.Lineage != "" {
		if d.run.lost == nil {
			d.run.lost = map[string]bool{}
		}
		if len(d.run.lost) < maxCertbotLineages {
			d.run.lost[a.Lineage] = true
		}
	}
	d.judge(a, reason)
	d.run.failed++
	d.failing, d.failure = a, certbotFailure{at: at, more: strings.HasSuffix(reason, ":") || reason == ""}
}

// belied doubts what was said to be issued and is now said to have failed.
func (d *certbot) belied(g *ledger, name string) {
	name = clean(name)
	for _, a := range d.run.issued {
		if a.Lineage == name && !a.Doubtful {
			a.Doubtful = true
			g.amend(a)
		}
	}
}

// tooEarly remembers an attempt whose end was told before its beginning: stderr may
// come before stdout.
func (d *certbot) tooEarly(name string, a *attempt, src certbotSource) {
	if src&fromTerminal == 0 || len(d.run.early) >= maxCertbotLineages {
		return
	}
	if d.run.early == nil {
		d.run.early = map[string]*attempt{}
	}
	d.run.early[name] = a
}

// failedAuthorization stands, before 0.40, in front of the names that were refused:
// "a.example (http-01): TYPE :: DESCRIPTION :: DETAIL, b.example (http-01): ...".
const failedAuthorization = "Failed authorization procedure. "

// refusals reads what follows failedAuthorization; what looks like another name may
// be text of the CA.
func (d *certbot) refusals(a *attempt, text string) (first string) {
	for n := 0; n < maxNames; n++ {
		name, rest, ok := strings.Cut(text, " (")
		_, rest, is := strings.Cut(rest, "): ")
		if !ok || !is || cleanName(name) == "" || cleanName(name) != name {
			break
		}
		reason, next := rest, ""
		for from := 0; ; {
			i := strings.Index(rest[from:], "-01): urn:")
			if i < 0 {
				break
			}
			from += i + len("-01): urn:")
			if j := strings.LastIndex(rest[max(0, from-2*maxNaming):from], ", "); j >= 0 {
				j += max(0, from-2*maxNaming)
				if other, _, ok := strings.Cut(rest[j+2:], " ("); ok && cleanName(other) == other && slices.Contains(a.Names, other) {
					reason, next = rest[:j], rest[j+2:]
					break
				}
			}
		}
		kind, detail, _ := certbotProblem(reason)
		if n == 0 {
			first = reason
			a.name(name)
		}
		a.refused(name, kind, detail)
		if text = next; text == "" {
			break
		}
	}
	return first
}

// judge notes why an attempt failed. One that has got its certificate has not: only
// what came after that failed.
func (d *certbot) judge(a *attempt, reason string) {
	phase := failurePhase(a.Phase, certbotKind(reason), reason)
	if rest, ok := strings.CutPrefix(reason, failedAuthorization); ok && a.Phase.rank() < PhaseIssued.rank() {
		if first := d.refusals(a, rest); first != "" {
			reason = first
		}
	}
	kind, detail, f := certbotProblem(reason)
	if a.Phase.rank() >= PhaseIssued.rank() {
		if !ofIssuing(kind, reason) {
			a.hookFailed(d.hookKind(), -1)
			if a.ProblemDetail == "" {
				a.fault(PhaseHook, "", reason)
			}
			a.Phase = PhaseHook
			return
		}
		// What is refused before a certificate is written is not written: somebody has
		// put lines in between.
		a.Doubtful, a.Saved, a.Hook, a.Activated, a.Phase = true, nil, nil, false, phase
	}
	if a.ProblemType == "" || kind != "" {
		a.fault(phase, kind, detail)
	}
	a.retryAfter(f.retry)
	a.Paused = a.Paused || f.paused
	if a.RetryAfter.IsZero() && (kind == problemP+"rateLimited" && !f.paused || kind == HTTP5xx || kind == problemP+"serverInternal") {
		a.retryAfter(d.file.retry)
	}
}

// hookKind is what ran last.
func (d *certbot) hookKind() string {
	switch d.run.hook {
	case "", "pre", "manual-auth", "manual-cleanup":
		if d.run.renewing {
			return "reload"
		}
		return "install"
	}
	return d.run.hook
}

// ranHook is the kind of the hook that ran last.
func (d *certbot) ranHook() string {
	switch d.run.hook {
	case "pre", "post", "deploy", "renew":
		return d.run.hook
	}
	return "deploy"
}

// ofIssuing reports whether a reason is one that no certificate is got with.
func ofIssuing(kind, reason string) bool {
	return kind != "" || strings.HasPrefix(reason, "Some challenges have failed.") || strings.HasPrefix(reason, "All challenges have failed.") ||
		strings.HasPrefix(reason, "All authorizations were not finalized by the CA.")
}

// failurePhase says where an attempt failed that had come to phase p.
func failurePhase(p Phase, kind, reason string) Phase {
	switch {
	case strings.Contains(reason, "Error finalizing order ::"):
		return PhaseFinalize
	case p.rank() >= PhaseIssued.rank():
		p = PhaseOrder
	case p.rank() > PhaseOrder.rank():
		return p
	}
	switch {
	case strings.HasPrefix(reason, failedAuthorization), strings.Contains(reason, "hallenges have failed."), strings.Contains(reason, "authorizations were not finalized"), strings.Contains(reason, "TXT record"):
		return PhaseChallenge
	case p == PhaseOrder:
		return p
	case kind == Network || kind == HTTP5xx:
		return PhaseDirectory
	case strings.HasPrefix(kind, problemP):
		return PhaseOrder
	case p == PhaseDirectory:
		return p
	case reason == "":
		return PhaseStart
	}
	return PhaseClient
}

// finishFailing ends the attempt that was said to have failed.
func (d *certbot) finishFailing(g *ledger) {
	a := d.failing
	if a == nil {
		return
	}
	d.failing = nil
	if a.Phase.rank() >= PhaseIssued.rank() || len(a.Saved) > 0 {
		d.settle(g, a, false, d.failure.at)
		return
	}
	if a == d.cur {
		d.cur = nil
	}
	g.finish(a, Failed, d.failure.at)
	if len(d.run.failures) < maxOpen {
		d.run.failures = append(d.run.failures, a)
	}
}

// goesOn reads a further line of the sentence that ended an attempt.
func (d *certbot) failureGoesOn(text string) bool {
	a := d.failing
	if a == nil {
		return false
	}
	if rest, ok := strings.CutPrefix(text, "Problem for "); ok {
		if name, problem, found := strings.Cut(rest, ": urn:"); found {
			kind, detail, _ := certbotProblem("urn:" + problem)
			a.refused(name, kind, detail)
			return true
		}
	}
	if d.failure.more && text != "" && text != "Skipping." {
		d.failure.more = false
		reason, ok := strings.CutPrefix(text, "The error was: ")
		switch {
		case ok && a.ProblemDetail == "":
			d.judge(a, reason)
			return true
		case strings.HasSuffix(a.ProblemDetail, ":") && !certbotAnchor(text):
			a.ProblemDetail = clean(a.ProblemDetail + " " + text)
			return true
		}
		return false
	}
	return text == "" || text == "Skipping."
}

// broken: a lineage's configuration cannot be read.
func (d *certbot) broken(l *line, at time.Time, g *ledger, path, reason string) {
	base, name, ok := certbotConf(path)
	if !ok || d.run.lost[name] {
		return
	}
	if d.cur != nil && d.cur.Lineage != clean(name) && d.cur.Phase.rank() < PhaseIssued.rank() {
		d.cur = nil
	}
	src := fromRenewal
	if d.form != certbotLog {
		src = fromTerminal
		if n := len(d.tail); reason == "" && n > 0 && n < maxTail {
			_, reason = pythonError(d.tail[n-1])
		}
	} else if reason == "" {
		reason = d.file.reason
	}
	d.file.reason = ""
	d.fails(l, at, g, name, reason, src)
	if d.failing != nil {
		d.failing.Phase = PhaseClient
	}
	d.run.base = base
}

// failures: the count at the end of certbot renew.
func (d *certbot) failures(l *line, at time.Time, g *ledger, n int, text string, src certbotSource) {
	if n > 0 && d.run.failed == 0 && (d.run.begun || d.form != certbotLog) {
		d.cur = nil
		d.fails(l, at, g, "", text, src)
	}
	d.over(g, false, at)
}

// advised: certbot ends in an error and tells where to ask for help.
func (d *certbot) advised(l *line, at time.Time, g *ledger) {
	if d.failing == nil && len(d.tail) > 0 && (d.run.failed == 0 || d.cur != nil) && !otherVerb(d.tail[0]) {
		d.fails(l, at, g, "", strings.Join(d.tail, " "), fromTerminal)
	}
	d.over(g, false, at)
}

// otherVerb reports whether an error is one of certbot's that no certificate was
// asked for with.
func otherVerb(text string) bool {
	for _, w := range []string{"revo", "Revo", "ccount", "enhancement", "delete"} {
		if strings.Contains(text, w) && !strings.HasPrefix(text, "urn:") {
			return true
		}
	}
	return false
}

// sentence reads what is no fixed sentence: on a terminal, an error is a line of its
// own.
func (d *certbot) sentence(l *line, at time.Time, g *ledger, src certbotSource, text string) bool {
	if d.failing != nil && d.failureGoesOn(text) {
		return true
	}
	if src&fromTerminal == 0 {
		return false
	}
	for _, p := range certbotErrors {
		if strings.HasPrefix(text, p) {
			d.fails(l, at, g, "", text, src)
			return true
		}
	}
	for _, p := range certbotNoise {
		if strings.HasPrefix(text, p) {
			return true
		}
	}
	return false
}

// certbotErrors are how errors begin that end a run; with --quiet nothing follows.
var certbotErrors = []string{
	"Some challenges have failed.", "All challenges have failed.", "All authorizations were not finalized by the CA.",
	"urn:ietf:params:acme:error:", "urn:acme:error:", "<Response [5",
	"Certbot doesn't know how to automatically configure the web server on this system.",
	"The requested ", "The nginx plugin is not working; there may be problems with your existing configuration.",
	"The apache plugin is not working; there may be problems with your existing configuration.",
	"Client with the currently selected authenticator does not support any combination of challenges",
	"None of the preferred challenges are supported by the selected plugin",
	"You should register before running non-interactively", "Could not bind TCP port ", "Problem binding to port ",
	"Unable to find pre-hook command ", "Unable to find post-hook command ", "Unable to find deploy-hook command ", "Unable to find renew-hook command ",
	"Missing command line flag or config entry for this setting:", "No certificate found with name ",
}

// certbotNoise is what is no error although it stands alone.
var certbotNoise = []string{
	"Account registered.", "Registering without email!", "Using the webroot path ", "Non-standard path(s), might not work", "Cannot extract OCSP URI from ",
	"These files will be updated when", "Certbot has set up a scheduled task", "Use of --manual-public-ip-logging-ok is deprecated.",
	"No hooks were run.", "An error occurred requesting ACME Renewal Information (ARI).", "Exiting abnormally:", "Traceback (most recent call last):", "An error occurred and we failed to restore your config and restart your server.", "Encountered exception during recovery: ", "Hint: ", "Rolling back to previous server configuration", "Skipping.", "Certificates created using --csr",
}

// certbotProblem takes the CA's problem out of what certbot made of it:
// "TYPE :: DESCRIPTION :: DETAIL", where the description is certbot's own; at the end
// of certonly and run without the type, since 2.0 without the description too.
func certbotProblem(text string) (kind, detail string, f found) {
	f = findProblem(text)
	kind, detail = f.kind, text
	if strings.HasPrefix(text, "urn:") {
		_, detail, _ = strings.Cut(text, " :: ")
	}
	first, rest, more := strings.Cut(detail, " :: ")
	for _, d := range certbotDescriptions {
		if first != d.text {
			continue
		}
		if kind == "" || !strings.HasPrefix(text, "urn:") {
			kind = problemP + d.code
		}
		if more {
			detail = rest
		}
		break
	}
	if kind == "" && (isPaused(text) || strings.HasPrefix(text, "too many ") && !retryTime(text).IsZero()) {
		kind = problemP + "rateLimited"
	}
	if kind == problemP+"rateLimited" {
		f.retry, f.paused = retryTime(text), isPaused(text)
	}
	if detail == "" {
		detail = text
	}
	return kind, detail, f
}

func certbotKind(text string) string {
	kind, _, _ := certbotProblem(text)
	return kind
}

// certbotDescriptions are certbot's sentences for the CA's codes.
var certbotDescriptions = []struct{ code, text string }{
	{"accountDoesNotExist", "The request specified an account that does not exist"},
	{"alreadyRevoked", "The request specified a certificate to be revoked that has already been revoked"},
	{"badCSR", "The CSR is unacceptable (e.g., due to a short key)"},
	{"badNonce", "The client sent an unacceptable anti-replay nonce"},
	{"badPublicKey", "The JWS was signed by a public key the server does not support"},
	{"badRevocationReason", "The revocation reason provided is not allowed by the server"},
	{"badSignatureAlgorithm", "The JWS was signed with an algorithm the server does not support"},
	{"caa", "Certification Authority Authorization (CAA) records forbid the CA from issuing a certificate"},
	{"compound", `Specific error conditions are indicated in the "subproblems" array`},
	{"connection", "The server could not connect to the client to verify the domain"},
	{"dns", "There was a problem with a DNS query during identifier validation"},
	{"dnssec", "The server could not validate a DNSSEC signed domain"},
	{"incorrectResponse", "Response recieved didn't match the challenge's requirements"},
	{"incorrectResponse", "Response received didn't match the challenge's requirements"},
	{"invalidEmail", "The provided email for a registration was invalid"},
	{"invalidContact", "The provided contact URI was invalid"},
	{"malformed", "The request message was malformed"},
	{"rejectedIdentifier", "The server will not issue certificates for the identifier"},
	{"orderNotReady", "The request attempted to finalize an order that is not ready to be finalized"},
	{"rateLimited", "There were too many requests of a given type"},
	{"serverInternal", "The server experienced an internal error"},
	{"tls", "The server experienced a TLS error during domain verification"},
	{"unauthorized", "The client lacks sufficient authorization"},
	{"unsupportedContact", "A contact URL for an account used an unsupported protocol scheme"},
	{"unknownHost", "The server could not resolve a domain name"},
	{"unsupportedIdentifier", "An identifier is of an unsupported type"},
	{"externalAccountRequired", "The server requires external account binding"},
}

// certbotBlock is the CA's list of the challenges that failed.
type certbotBlock struct {
	open    bool
	notes   bool // wrapped and indented, as in the notes at the end of a run before 2.0
	hinted  bool
	of      *attempt
	problem Problem
}

func (b *certbotBlock) begin(a *attempt, notes bool) {
	*b = certbotBlock{open: true, of: a, notes: notes}
}

// flush notes the problem that was read last.
func (b *certbotBlock) flush(d *certbot, g *ledger) {
	p := b.problem
	b.problem = Problem{}
	if p.Name == "" {
		return
	}
	a := b.of
	if a == nil {
		a = d.refused(p.Name)
	}
	if a == nil {
		return
	}
	kind := p.Type
	if !strings.HasPrefix(kind, "urn:") {
		kind = problemP + kind // the code alone, where certbot knows it
	}
	if found := findProblem(kind).kind; !strings.HasPrefix(kind, problemP) || found != kind {
		kind = found
	}
	phase := a.Phase
	a.refused(p.Name, kind, p.Detail)
	if phase.rank() >= PhaseIssued.rank() { // issued without that name
		a.Phase, a.ProblemType, a.ProblemDetail = phase, "", ""
	}
	if a.Outcome == Failed || a.Outcome == Issued { // told after its end
		g.amend(a)
	}
}

// refused is the attempt of this run in which the challenge for a name failed.
func (d *certbot) refused(name string) *attempt {
	name = cleanName(name)
	for _, a := range d.run.refused {
		for _, p := range a.Problems {
			if p.Name == name {
				return a
			}
		}
	}
	for _, a := range append([]*attempt{d.cur}, d.run.failures...) {
		if a != nil && (a.NamesOmitted > 0 || slices.Contains(a.Names, name)) {
			return a
		}
	}
	return d.cur
}

// line reads one of its lines; false: the list is over.
func (b *certbotBlock) line(d *certbot, g *ledger, text string) bool {
	field := strings.TrimLeft(text, " ")
	indent := len(text) - len(field)
	switch {
	case text == "":
		if b.notes && b.problem.Detail != "" {
			b.flush(d, g)
		}
		return true
	case strings.HasPrefix(field, "Domain: "), strings.HasPrefix(field, "Identifier: "):
		b.flush(d, g)
		_, name, _ := strings.Cut(field, ": ")
		b.problem = Problem{Name: certbotName(strings.TrimSpace(name))}
		return true
	case strings.HasPrefix(field, "Type:") && b.problem.Type == "" && b.problem.Name != "":
		b.problem.Type = strings.TrimSpace(field[len("Type:"):])
		return true
	case strings.HasPrefix(field, "Detail:") && b.problem.Detail == "" && b.problem.Name != "":
		b.problem.Detail = strings.TrimSpace(field[len("Detail:"):])
		return true
	case b.notes && indent >= 3:
		if b.problem.Detail != "" && len(b.problem.Detail) < maxText {
			b.problem.Detail += " " + field
		}
		return true
	case strings.HasPrefix(text, "Hint: "):
		b.flush(d, g)
		b.hinted = true
		return true
	case d.form == certbotLog: // up to the next record all of it is the CA's word
		return true
	case !b.notes && !b.hinted && !certbotAnchor(text): // a detail may have several lines
		return true
	}
	b.flush(d, g)
	*b = certbotBlock{}
	return false
}

// certbotAnchor reports whether a line on a terminal can be nothing but certbot's own
// word that things go on or have failed.
func certbotAnchor(text string) bool {
	for _, p := range []string{
		"- - - - - - - -", "Processing /", "Failed to renew certificate ", "Attempting to renew cert (", "All renewal", "All simulated renewals failed",
		"The following renewals failed:", "Some challenges have failed.", "All challenges have failed.", "Ask for help or search for solutions", "Please see the logfile",
		"Cert not yet due", "Certificate not yet due", "Plugins selected: ", "Saving debug log to ", "Running ", "Error output from ", "Hook '", "IMPORTANT NOTES:", "Exiting due to user request.",
		"Renewing an existing certificate", "Cleaning up challenges", "Requesting a certificate for ", "An unexpected error occurred:",
	} {
		if strings.HasPrefix(text, p) {
			return true
		}
	}
	if _, _, ok := hookFailure(text); ok {
		return true
	}
	_, ok := renewFailures(text)
	return ok
}
