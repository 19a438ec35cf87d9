package acmelog

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// say reads a message of the controller.
func (d *certManager) say(s *cmSaying, key func(string) string, l *line, g *ledger) {
	if strings.HasPrefix(s.msg, "Event(v1.ObjectReference{") {
		if e, ok := cmReference(s.msg); ok {
			d.event(e, l, g)
		}
		return
	}
	if s.resource == "" {
		return
	}
	a := d.find(s.space, s.resource, g)
	if a != nil {
		a.hear(l.at)
	}
	switch {
	case s.msg == "Certificate must be re-issued":
		d.begin(s.space, s.resource, l, g)
	case s.msg == "certificate issued" && strings.Contains(s.logger, "certificaterequests-"):
		d.issued(s.space, s.resource, PhaseIssued, l, g)
	case strings.Contains(s.msg, "marking Order as failed"):
		phase := PhaseFinalize
		if strings.Contains(s.msg, "create Order") {
			phase = PhaseOrder
		}
		if a == nil && !d.known(s.space, s.resource) {
			a = d.unseen(s.space, s.resource, l, g)
		}
		if a != nil {
			d.refuse(a, phase, s.err, false)
			d.finish(a, Failed, l.at, g)
		}
	case a == nil:
		d.late(s, key, l, g)
	case s.msg == "error waiting for authorization", s.msg == "error accepting challenge":
		a.name(s.dnsName)
		if strings.HasPrefix(s.err, "acme: authorization error") || strings.Contains(s.err, problemP) {
			d.refuse(a, PhaseChallenge, s.err, false)
		} else {
			d.refuse(a, PhaseChallenge, s.err, true)
		}
	case s.msg == "propagation check failed":
		a.name(s.dnsName)
		d.refuse(a, PhaseChallenge, s.err, true)
	case s.msg == "acme server fatal error":
		a.name(d.fields.names("dnsNames")...)
		d.refuse(a, a.Phase, s.err, true)
	case s.msg == "re-queuing item due to error processing":
		switch {
		case strings.HasSuffix(s.logger, "orders"):
			phase := PhaseOrder
			if strings.HasPrefix(s.err, "error finalizing") || strings.HasPrefix(s.err, "error syncing order") {
				phase = PhaseFinalize
			}
			d.refuse(a, phase, s.err, true)
		case strings.HasSuffix(s.logger, "challenges"):
			d.refuse(a, PhaseChallenge, s.err, true)
		}
	case strings.HasPrefix(s.msg, "Found status change for Certificate condition"):
		if key("condition") == "Issuing" && key("oldStatus") == "True" && key("status") == "False" {
			d.finish(a, Failed, l.at, g)
		}
	case strings.HasPrefix(s.msg, "Backing off from issuance"), strings.HasPrefix(s.msg, "Not re-issuing certificate"):
		d.finish(a, Failed, l.at, g)
		d.late(s, key, l, g)
	}
}

// late reads what is said of an attempt that has ended: when cert-manager tries
// again. It says so whenever it looks; the first time counts.
func (d *certManager) late(s *cmSaying, key func(string) string, l *line, g *ledger) {
	a := d.ended(s.space, s.resource)
	if a == nil || a.Outcome != Failed || !a.RetryAfter.IsZero() {
		return
	}
	var next time.Time
	if _, at, ok := strings.Cut(s.msg, "Issuance will next be attempted at "); ok {
		at, _, _ = strings.Cut(at, " m=")
		next, _ = time.Parse("2006-01-02 15:04:05.999999999 -0700 MST", at)
	} else if strings.HasPrefix(s.msg, "Not re-issuing certificate") && !l.at.IsZero() {
		if n, err := strconv.ParseInt(key("retry_delay"), 10, 64); err == nil && n > 0 && time.Duration(n) < 366*24*time.Hour {
			next = l.at.Add(time.Duration(n))
		}
	}
	if !next.IsZero() {
		a.retryAfter(next)
		g.amend(a)
	}
}

// condition reads "Found status change for Certificate "a" condition "Issuing":
// "True" -> "False"; ...", which was said without a namespace before 1.15: an
// issuance has failed. When it succeeds the condition is removed without a word.
func (d *certManager) condition(msg string, l *line, g *ledger) {
	rest, ok := strings.CutPrefix(msg, `Found status change for Certificate "`)
	if !ok {
		if e, ok := cmReference(msg); ok {
			d.event(e, l, g)
		}
		return
	}
	name, rest, _ := strings.Cut(rest, `"`)
	if !strings.HasPrefix(rest, ` condition "Issuing": "True" -> "False"`) {
		return
	}
	for _, a := range slices.Clone(g.open) {
		if strings.HasSuffix(a.key, "/"+name) {
			d.finish(a, Failed, l.at, g)
			return
		}
	}
}

// cmEvent is an event of the cluster.
type cmEvent struct {
	kind, space, name     string
	class, reason, saying string // class: Normal, Warning
}

// cmReference reads an event as client-go prints it: "Event(v1.ObjectReference{...}):
// type: 'Normal' reason: 'Issuing' words".
func cmReference(s string) (e cmEvent, ok bool) {
	rest, ok := strings.CutPrefix(s, "Event(v1.ObjectReference{")
	if !ok {
		return e, false
	}
	reference, rest, ok := strings.Cut(rest, "}): type: '")
	if !ok || !strings.Contains(reference, `cert-manager.io/`) {
		return e, false
	}
	for name, into := range map[string]*string{`Kind:"`: &e.kind, `Namespace:"`: &e.space, ` Name:"`: &e.name} {
		if _, v, ok := strings.Cut(reference, name); ok {
			*into, _, _ = strings.Cut(v, `"`)
		}
	}
	e.class, rest, _ = strings.Cut(rest, "' reason: '")
	e.reason, e.saying, ok = strings.Cut(rest, "' ")
	return e, ok && e.kind != "" && e.name != ""
}

// event reads one.
func (d *certManager) event(e cmEvent, l *line, g *ledger) {
	a := d.find(e.space, e.name, g)
	if a != nil {
		a.hear(l.at)
	}
	if e.kind == "Certificate" {
		failed, isFailure := strings.CutPrefix(e.saying, "The certificate request has failed to complete and will be retried: ")
		switch {
		case e.reason == "Issuing" && e.saying == "The certificate has been successfully issued":
			d.issued(e.space, e.name, PhaseSaved, l, g)
		case e.reason == "Issuing" && e.saying == "Issued temporary certificate":
		case e.reason == "Issuing" && e.class == "Normal":
			d.begin(e.space, e.name, l, g)
		case isFailure:
			if a == nil {
				if d.known(e.space, e.name) {
					return
				}
				a = d.unseen(e.space, e.name, l, g)
			}
			if a.ProblemType == "" || d.weak[a] {
				d.refuse(a, PhaseOrder, failed, false)
			}
			d.finish(a, Failed, l.at, g)
		}
		return
	}
	if a == nil {
		return
	}
	switch e.kind + " " + e.reason {
	case "CertificateRequest CertificateIssued":
		a.reach(PhaseIssued)
	case "CertificateRequest OrderFailed":
		if a.ProblemType == "" && a.ProblemDetail == "" {
			d.refuse(a, PhaseOrder, e.saying, true)
		}
	case "CertificateRequest OrderCreated", "CertificateRequest OrderPending":
		a.reach(PhaseOrder)
	case "Order Created":
		a.reach(PhaseChallenge)
		if _, name, ok := strings.Cut(e.saying, `" for domain "`); ok {
			a.name(strings.TrimSuffix(name, `"`))
		}
	case "Order Complete":
		a.reach(PhaseFinalize)
	case "Order Solver":
		d.refuse(a, PhaseChallenge, e.saying, true)
	case "Challenge Started", "Challenge Presented":
		a.reach(PhaseChallenge)
	case "Challenge PresentError":
		d.refuse(a, PhaseChallenge, e.saying, true)
	case "Challenge DomainVerified":
		if name, ok := strings.CutPrefix(e.saying, `Domain "`); ok {
			name, _, _ = strings.Cut(name, `"`)
			a.name(name)
		}
	case "Challenge Failed":
		d.refuse(a, PhaseChallenge, strings.TrimPrefix(e.saying, "Accepting challenge authorization failed: "), false)
	}
}

// begin opens the attempt of a certificate, unless it has just begun.
func (d *certManager) begin(space, name string, l *line, g *ledger) {
	if a := g.find(space + "/" + name); a != nil && (a.Phase == PhaseStart || l.at.Sub(a.Started) < time.Minute) {
		return
	}
	for a := range d.weak { // of those that were closed by what came after them
		if !slices.Contains(g.open, a) {
			delete(d.weak, a)
		}
	}
	g.begin(space+"/"+name, l, l.at).lineage(space + "/" + name)
}

// unseen opens an attempt of which nothing told that it began. Only the name of a
// resource that was made for it is known, perhaps.
func (d *certManager) unseen(space, resource string, l *line, g *ledger) *attempt {
	a := g.begin(space+"/"+resource, l, l.at)
	a.lineage(space + "/" + resource)
	return a
}

// find returns the open attempt that a resource belongs to, or nil.
func (d *certManager) find(space, resource string, g *ledger) *attempt {
	return cmOwner(g.open, space, resource)
}

// ended returns the attempt that ended last of those that a resource belongs to.
func (d *certManager) ended(space, resource string) *attempt {
	return cmOwner(d.recent, space, resource)
}

// known reports whether it was told already how an attempt went that a resource
// belongs to.
func (d *certManager) known(space, resource string) bool { return d.ended(space, resource) != nil }

// cmOwner finds the latest attempt with the longest name that a resource's name
// begins with.
func cmOwner(list []*attempt, space, resource string) (owner *attempt) {
	key := space + "/" + resource
	for i := len(list) - 1; i >= 0; i-- {
		a := list[i]
		if (a.key == key || strings.HasPrefix(key, a.key+"-")) && (owner == nil || len(a.key) > len(owner.key)) {
			owner = a
		}
	}
	return owner
}

// finish ends an attempt and remembers it for what is said later.
func (d *certManager) finish(a *attempt, o Outcome, at time.Time, g *ledger) {
	delete(d.weak, a)
	g.finish(a, o, at)
	if i := slices.IndexFunc(d.recent, func(r *attempt) bool { return r.key == a.key }); i >= 0 {
		d.recent = slices.Delete(d.recent, i, i+1)
	}
	if len(d.recent) >= maxRecent {
		d.recent = slices.Delete(d.recent, 0, 1)
	}
	d.recent = append(d.recent, a)
}

// issued ends an attempt with a certificate; that it is in its Secret is told
// after that the CA gave it.
func (d *certManager) issued(space, resource string, p Phase, l *line, g *ledger) {
	a := d.find(space, resource, g)
	if a == nil {
		if r := d.ended(space, resource); r != nil && r.Outcome == Issued && l.at.Sub(r.Ended) < time.Hour {
			if r.Phase != p && p == PhaseSaved {
				r.reach(p)
				g.amend(r)
			}
			return
		}
		a = d.unseen(space, resource, l, g)
		a.Doubtful = true
	}
	a.ProblemType, a.ProblemDetail, a.Problems, a.RetryAfter, a.Paused = "", "", nil, time.Time{}, false
	a.reach(p)
	d.finish(a, Issued, l.at, g)
}

// refuse notes why an attempt does not go on. weak: cert-manager may get over it;
// what is said later counts more.
func (d *certManager) refuse(a *attempt, phase Phase, err string, weak bool) {
	if d.weak[a] {
		a.ProblemType, a.ProblemDetail, a.Problems, a.RetryAfter, a.Paused = "", "", nil, time.Time{}, false
	} else if weak && (a.ProblemType != "" || a.ProblemDetail != "") {
		return
	}
	if d.weak == nil {
		d.weak = map[*attempt]bool{}
	}
	if d.weak[a] = weak; !weak {
		delete(d.weak, a)
	}
	f := findProblem(err)
	detail := err
	if i := strings.Index(err, " : "); f.kind == "" && i >= 3 && err[i-3] == '5' && isDigit(err[i-2]) && isDigit(err[i-1]) { // "502 : the page"
		f.kind, err = HTTP5xx, err[:i]
	}
	// acme: authorization error for NAME: 403 urn:...: the CA's words
	if _, rest, ok := strings.Cut(err, "acme: authorization error for "); ok {
		name, rest, _ := strings.Cut(rest, ": ")
		a.name(name)
		a.refused(name, f.kind, cmDetail(rest))
	} else {
		detail = cmDetail(err)
	}
	a.fault(phase, f.kind, detail)
	a.Phase = phase
	a.retryAfter(f.retry)
	a.Paused = a.Paused || f.paused
}

// cmDetail takes the CA's words out of an error as cert-manager prints it: "429
// urn:...:rateLimited: words; subproblems: ...".
func cmDetail(err string) string {
	i := strings.Index(err, problemP)
	if i < 0 {
		return err
	}
	_, detail, ok := strings.Cut(err[i+len(problemP):], ": ")
	if !ok {
		return err
	}
	detail, _, _ = strings.Cut(detail, "; subproblems:")
	return detail
}
