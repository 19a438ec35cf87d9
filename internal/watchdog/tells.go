package watchdog

import (
	"fmt"
	"strings"

	"github.com/renewatch/renewatch/notify"
	"github.com/renewatch/renewatch/watch/acmelog"
)

// short is the CA's word for a problem, without the part that all have.
func short(problem string) string {
	return strings.TrimPrefix(problem, "urn:ietf:params:acme:error:")
}

// tellsTry says that an attempt was begun.
func tellsTry(a notify.Attempt) string {
	what := "a certificate"
	if len(a.Names) > 0 {
		what = "a certificate for " + enumerate(a.Names, 3)
		if n := a.NamesOmitted; n > 0 && len(a.Names) <= 3 {
			what += fmt.Sprintf(" and %d more", n)
		}
	} else if a.Lineage != "" {
		what = "a certificate for " + a.Lineage
	}
	if a.Forced {
		what += ", forced"
	}
	return a.Client + " asks for " + what
}

// tellsFailure says why an attempt failed.
func tellsFailure(a notify.Attempt) string {
	if acmelog.Outcome(a.Outcome) == acmelog.Stalled {
		s := fmt.Sprintf("%s began to renew, and nothing was heard of it for %s", a.Client, roughly(acmelog.StallAfter))
		if a.ProblemType != "" || a.ProblemDetail != "" {
			s += "; the last that was heard: " + problemOf(a)
		}
		return s
	}
	what := problemOf(a)
	switch acmelog.Phase(a.Phase) {
	case acmelog.PhaseClient, acmelog.PhaseCheck:
		return a.Client + " could not begin: " + what
	case acmelog.PhaseDirectory:
		return a.Client + " could not renew, the CA did not let it begin: " + what
	case acmelog.PhaseOrder:
		return a.Client + " could not renew, the CA refused the order: " + what
	case acmelog.PhaseChallenge:
		return a.Client + " could not renew, the CA could not validate " + validated(a) + ": " + what
	case acmelog.PhaseFinalize:
		return a.Client + " could not renew, the CA did not issue: " + what
	}
	return a.Client + " could not renew: " + what
}

// validated names the names that the CA refused.
func validated(a notify.Attempt) string {
	var names []string
	for _, p := range a.Problems {
		if p.Name != "" {
			names = append(names, p.Name)
		}
	}
	if len(names) == 0 {
		return "the names"
	}
	return enumerate(names, 3)
}

// problemOf words an attempt's problem.
func problemOf(a notify.Attempt) string {
	kind := short(a.ProblemType)
	switch {
	case a.Hook != nil && kind == "" && a.ProblemDetail == "":
		return tellsHook(a)
	case kind == "" && a.ProblemDetail == "":
		return "its log does not say why"
	case kind == "":
		return a.ProblemDetail
	case a.ProblemDetail == "":
		return kind
	}
	return kind + ", " + a.ProblemDetail
}

// tellsHook words a hook that failed.
func tellsHook(a notify.Attempt) string {
	kind := a.Hook.Kind
	if kind != "reload" && kind != "install" {
		kind += " hook"
	}
	if a.Hook.ExitCode < 0 {
		return fmt.Sprintf("%s's %s failed", a.Client, kind)
	}
	return fmt.Sprintf("%s's %s failed with exit code %d", a.Client, kind, a.Hook.ExitCode)
}

// hookFailed says of a story that a hook of the client failed; "" when none did.
func (t *Story) hookFailed() string {
	if t == nil || t.Try == nil || t.Try.Attempt.Hook == nil {
		return ""
	}
	return tellsHook(t.Try.Attempt)
}

// causeOf is the cause that renewal.failed tells.
func causeOf(a notify.Attempt) string {
	switch {
	case acmelog.Outcome(a.Outcome) == acmelog.Stalled:
		return CauseStalled
	case a.Paused:
		return CausePaused
	case short(a.ProblemType) == "rateLimited":
		return CauseRateLimited
	case a.ProblemType == acmelog.Network || a.ProblemType == acmelog.HTTP5xx || short(a.ProblemType) == "serverInternal" || short(a.ProblemType) == "badNonce":
		return CauseCA
	}
	switch acmelog.Phase(a.Phase) {
	case acmelog.PhaseChallenge:
		return CauseChallenge
	case acmelog.PhaseOrder, acmelog.PhaseFinalize:
		return CauseOrder
	}
	return CauseClient
}

// adviceFor says what to do about a failed attempt.
func adviceFor(a notify.Attempt) string {
	switch causeOf(a) {
	case CauseStalled:
		return "is " + a.Client + " still running, or was it killed? some clients sleep for as long as the CA asks them to"
	case CausePaused:
		return "the CA has paused this account for these names: fix what kept failing, then end the pause on the page that " + a.Client + "'s own log names"
	case CauseRateLimited:
		if !a.RetryAfter.IsZero() {
			return "the CA allows the next try at " + stamp(a.RetryAfter) + "; every try before fails too"
		}
		return "wait for the CA's limit to end; find what asked for so many certificates"
	case CauseCA:
		if a.ProblemType == acmelog.Network {
			return "can this host reach the CA (name resolution, firewall, proxy, clock)?"
		}
		return "the CA has trouble; " + a.Client + " tries again at its next run"
	case CauseChallenge:
		switch short(a.ProblemType) {
		case "dns", "dnssec":
			return "look at the DNS records of the names, on every one of their name servers"
		case "connection", "timeout":
			return "are port 80 (http-01) or 443 (tls-alpn-01) reachable from outside, over IPv4 and IPv6?"
		case "caa":
			return "allow the CA in the CAA record"
		case "unauthorized", "incorrectResponse":
			return "does the server that the names lead to, over IPv4 and IPv6, serve /.well-known/acme-challenge/ from where " + a.Client + " puts it?"
		}
		return "see " + a.Client + "'s own log"
	case CauseOrder:
		switch short(a.ProblemType) {
		case "caa":
			return "allow the CA in the CAA record"
		case "rejectedIdentifier", "unsupportedIdentifier":
			return "remove the name that the CA does not certify"
		}
	}
	switch acmelog.Client(a.Client) {
	case acmelog.Caddy, acmelog.Traefik, acmelog.ModMD, acmelog.NginxACME, acmelog.HAProxy, acmelog.CertManager: // nobody runs them by hand
		return "see " + a.Client + "'s own log"
	}
	return "run " + a.Client + " by hand and read its log"
}

// tellsNotWritten says that a log tells of a certificate that did not come.
func tellsNotWritten(a notify.Attempt) (detail, hint string) {
	detail = "the log of " + a.Client + " says that a certificate was issued, but no new certificate is on disk"
	switch {
	case acmelog.Client(a.Client) == acmelog.ModMD && !a.Activated:
		return "mod_md has a new certificate ready, and it is not in use", "reload Apache: mod_md puts a new certificate into use at a graceful restart"
	case len(a.Saved) > 0:
		return detail + "; it was written to " + enumerate(a.Saved, 1), "does the server load that file? a second lineage of the same names (one that ends in -0001, say) is easily overlooked"
	}
	return detail, "does " + a.Client + " write it somewhere else, or must something else copy it?"
}

// tellsOverdue says that nobody renewed.
func (k *step) tellsOverdue(tr *Trying) (detail, hint string) {
	leaf := k.s.Disk.Leaf
	detail = "the certificate " + ends(leaf, k.now) + ", and a renewal was expected before now"
	switch {
	case tr.Last != nil:
		a := tr.Last.Attempt
		switch acmelog.Outcome(a.Outcome) {
		case acmelog.Failed, acmelog.Stalled:
			return detail + "; the last attempt, at " + stamp(tr.Last.began()) + ", failed: " + tellsFailure(a), adviceFor(a)
		case acmelog.Issued:
			d, h := tellsNotWritten(a)
			return detail + "; " + d, h
		}
		return detail + "; " + a.Client + " is at it since " + stamp(tr.Last.began()), "see " + a.Client + "'s own log"
	case !k.p.Logged:
		return detail, "is the ACME client's timer active, and what does its log say?"
	case !k.s.Skipped.IsZero() && k.s.Skipped.After(leaf.NotBefore):
		return detail + "; the ACME client looked at it last at " + stamp(k.s.Skipped) + " and found it not due", "is automatic renewal switched off for it, or does the client renew later than expected_renewal says?"
	}
	return detail + "; no attempt was seen in the ACME client's log", "is its timer active? systemctl list-timers shows it"
}

// lastTry tells of the last attempt of the renewal that did not come; "" when there
// was none.
func (k *step) lastTry() (detail, hint string) {
	tr := k.s.Trying
	if tr == nil || tr.Last == nil {
		return "", ""
	}
	a := tr.Last.Attempt
	switch acmelog.Outcome(a.Outcome) {
	case acmelog.Failed, acmelog.Stalled:
		return "the last attempt, at " + stamp(tr.Last.began()) + ", failed: " + tellsFailure(a), adviceFor(a)
	}
	return "", ""
}

// TellAttempt tells of an attempt as a person would, and what can be done about it;
// hint is empty where nothing is to be done.
func TellAttempt(a notify.Attempt) (sentence, hint string) {
	switch acmelog.Outcome(a.Outcome) {
	case acmelog.Skipped:
		sentence = a.Client + " found it not due"
	case acmelog.Failed, acmelog.Stalled:
		sentence, hint = tellsFailure(a), adviceFor(a)
		if !a.RetryAfter.IsZero() && causeOf(a) != CauseRateLimited {
			sentence += "; it may be tried again at " + stamp(a.RetryAfter)
		}
	case acmelog.Running:
		sentence = tellsTry(a) + ", and has not ended"
	default:
		sentence = tellsTry(a) + ", and got it"
		switch {
		case a.Activated:
			sentence += "; it says that it is in use"
		case acmelog.Client(a.Client) == acmelog.ModMD:
			sentence += "; it comes into use at the next restart"
		case len(a.Saved) > 0:
			sentence += "; written to " + enumerate(a.Saved, 1)
		}
		if a.Hook != nil {
			sentence += "; " + tellsHook(a)
			hint = "the certificate is there, what the hook does was not done: renewatch check shows what is served"
		}
	}
	if a.DryRun {
		sentence += " (a dry run)"
	} else if a.Staging {
		sentence += " (of a test CA)"
	}
	if a.Doubtful {
		sentence += " (doubtful: a log of " + a.Client + " does not read like this)"
	}
	return sentence, hint
}
