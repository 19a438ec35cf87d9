package watchdog

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/renewatch/renewatch/notify"
	"github.com/renewatch/renewatch/verify"
)

// renewalID joins everything of one renewal.
func renewalID(p *Policy, before string, occurrence uint64) string {
	h := sha256.New()
	for _, s := range []string{p.Host, p.Instance, p.Name, before, fmt.Sprint(occurrence)} {
		fmt.Fprintf(h, "%d:%s,", len(s), s)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// say puts an event into the outbox. The data starts with what every event of a
// story tells.
func (k *step) say(kind notify.Kind, sev notify.Severity, fill func(*notify.Data)) {
	s := k.s
	s.Events++
	d := notify.Draft{Kind: kind, Certificate: k.p.Name, Time: k.now, Occurrence: s.Events}
	d.Data.Severity, d.Data.Silenced = sev, k.silenced()
	if s.Disk != nil {
		leaf := s.Disk.Leaf
		d.Data.Certificate = &leaf
	}
	if t := s.Story; t != nil && kind != notify.FileRecovered {
		leaf := t.Leaf
		d.Data.Certificate = &leaf
		d.Data.RenewalID = t.RenewalID
		if class, _, _ := strings.Cut(string(kind), "."); class == "renewal" || class == "deploy" {
			d.Data.Previous = t.Previous
		}
	}
	if fill != nil {
		fill(&d.Data)
	}
	if t := s.Story; t != nil && t.Try != nil && d.Data.Attempt == nil && d.Data.RenewalID == t.RenewalID {
		d.Data.Attempt = &t.Try.Attempt
	}
	if c := d.Data.Certificate; c != nil {
		copied := *c
		copied.Name = k.p.Name
		d.Data.Certificate = &copied
		d.Leaf = copied.SHA256
	}
	s.Outbox = append(s.Outbox, d)
}

// end gives the story its one terminal event.
func (k *step) end(kind notify.Kind, sev notify.Severity, fill func(*notify.Data)) {
	k.say(kind, sev, fill)
	k.s.Story.Ended, k.s.Story.EndedAt = kind, k.now
}

// unconfirmed: a default endpoint that was never seen serving the lineage.
func (k *step) unconfirmed(f Finding) bool { return f.Default && !k.s.Confirmed[f.Endpoint] }

// excluded says why a finding does not count; "" when it does.
func (k *step) excluded(f Finding) string {
	switch {
	case k.unconfirmed(f):
		return "unconfirmed"
	case k.hushed(f):
		return "silenced"
	case f.Unheard && f.Required:
		return ""
	case f.Code == string(verify.NotTestable):
		return "not_testable"
	case f.Code == string(verify.Unverifiable):
		return "unverifiable"
	case f.Sibling:
		return "sibling"
	case !f.Required:
		return "not_required"
	}
	return ""
}

// allServing reports whether at least one address was tested and every one that
// counts serves the leaf on disk.
func (k *step) allServing() bool {
	tested := 0
	for _, f := range k.s.Findings {
		switch k.excluded(f) {
		case "":
			if !f.Serving {
				return false
			}
			tested++
		case "not_required":
			if f.Serving {
				tested++
			}
		}
	}
	return tested > 0
}

// lost returns the findings of addresses that no longer serve. A leaf that is
// still served and merely ran out is no deployment lost.
func (k *step) lost() []Finding {
	var bad []Finding
	for _, f := range k.s.Findings {
		if k.excluded(f) != "" || f.Serving || f.Unheard {
			continue
		}
		if f.Samples > 0 && f.Matching == f.Samples && onlyDates(f.Faults) {
			continue
		}
		bad = append(bad, f)
	}
	return bad
}

// unresolved reports whether all that is wrong is that names gave no address:
// one look-up that fails is no deployment lost.
func unresolved(bad []Finding) bool {
	return len(bad) > 0 && !slices.ContainsFunc(bad, func(f Finding) bool { return f.Code != string(verify.Unresolved) })
}

func onlyDates(faults []string) bool {
	return !slices.ContainsFunc(faults, func(c string) bool {
		return c != string(verify.Expired) && c != string(verify.NotYetValid)
	})
}

// servedInstead returns the leaf that is served instead of the one on disk.
func (k *step) servedInstead() *notify.Certificate {
	for _, f := range k.s.Findings {
		if v := f.Served; v != nil && v.SHA256 != k.s.Disk.Leaf.SHA256 && f.Lineage {
			return &notify.Certificate{Name: k.p.Name, SHA256: v.SHA256, Serial: v.Serial, Names: v.Names, Issuer: v.Issuer,
				NotBefore: v.NotBefore, NotAfter: v.NotAfter, KeyType: f.ServedKeyType}
		}
	}
	return nil
}

// verdicts returns the last round's verdicts, worst first.
func (k *step) verdicts() []notify.Verdict {
	out := make([]notify.Verdict, len(k.s.Findings))
	for i, f := range k.s.Findings {
		out[i] = f.Verdict
		if k.unconfirmed(f) {
			out[i].Severity = notify.Info
		}
	}
	slices.SortStableFunc(out, func(a, b notify.Verdict) int { return cmp.Compare(b.Severity.Rank(), a.Severity.Rank()) })
	return out
}

func (k *step) excludedList() []notify.Excluded {
	var out []notify.Excluded
	for _, f := range k.s.Findings {
		if why := k.excluded(f); why != "" {
			out = append(out, notify.Excluded{Endpoint: f.Endpoint, Address: f.Address, Code: f.Code, Why: why})
		}
	}
	return out
}

// worst returns the worst severity among the findings that count, at least floor.
func (k *step) worst(floor notify.Severity) notify.Severity {
	for _, f := range k.s.Findings {
		if k.excluded(f) == "" && f.Severity.Rank() > floor.Rank() {
			floor = f.Severity
		}
	}
	return floor
}

func (k *step) verified() {
	s, t := k.s, k.s.Story
	k.dropPending()
	k.proved()
	k.end(notify.DeployVerified, notify.Info, func(d *notify.Data) {
		d.Verdicts, d.Excluded = k.verdicts(), k.excludedList()
		if !t.Baseline || t.Previous != nil {
			lag := k.lag().Seconds()
			d.LagSeconds = &lag
		}
		d.Detail = "every required address serves the certificate on disk"
		if hook := t.hookFailed(); hook != "" {
			d.Detail += ", although " + hook
			d.Hint = "mend the hook: what else it does was not done"
		}
	})
	s.Standing, s.Rechecks = Verified, 0
}

// lag is the time from the first sign of the new files to the first of the
// samples that proved the slowest address.
func (k *step) lag() time.Duration {
	var last time.Time
	for _, f := range k.s.Findings {
		if k.excluded(f) == "" && f.Since.After(last) {
			last = f.Since
		}
	}
	if last.IsZero() {
		last = k.now
	}
	return max(0, last.Sub(k.s.Story.Since))
}

// proved says of every reload of this renewal that serving followed.
func (k *step) proved() {
	t := k.s.Story
	for _, server := range sortedKeys(t.Servers) {
		r := t.Servers[server]
		for _, run := range r.Runs {
			k.cmds = append(k.cmds, Proved{Server: server, Run: run})
		}
		r.Runs = nil
	}
}

func (k *step) failed() {
	s := k.s
	counted := slices.ContainsFunc(s.Findings, func(f Finding) bool { return k.excluded(f) == "" })
	if !counted {
		k.dropPending()
		k.end(notify.DeployUnverified, notify.Warning, func(d *notify.Data) {
			d.Verdicts, d.Excluded = k.verdicts(), k.excludedList()
			d.Detail = "no endpoint could be tested, so nothing is known of what visitors are served"
			d.Hint = "name the endpoints in the configuration, with address= where a name resolves to loopback"
			if len(s.Findings) > 0 && !slices.ContainsFunc(s.Findings, func(f Finding) bool { return k.excluded(f) != "silenced" }) {
				d.Detail = "every endpoint is silenced, so nothing is judged"
				d.Hint = "see renewatch silence --list"
			}
			if slices.ContainsFunc(s.Findings, func(f Finding) bool { return f.Sibling }) {
				d.Detail = "another watched certificate for the same name is served, so nothing is proven of this one"
				d.Hint = "two certificates for one name: remove the one that no server uses, or name the endpoints that use this one"
			}
			d.Next = &notify.Next{Action: "person"}
		})
		s.Standing = Unverified
		return
	}
	cause := k.cause()
	k.end(notify.DeployFailed, k.worst(notify.Error), func(d *notify.Data) {
		d.Verdicts, d.Excluded, d.Cause = k.verdicts(), k.excludedList(), cause
		d.Detail, d.Hint = k.failure(cause)
		d.Next = &notify.Next{Action: "person"}
		switch cause {
		case CauseNotReloaded, CauseLimit, CauseWindow:
			d.Next = k.next()
		case CauseSilenced:
			d.Next = &notify.Next{Action: "reload", At: k.silenceEnd()}
		}
	})
	s.Standing, s.Story.Cause = Failed, cause
}

// cause says why the certificate is not served, as far as is known.
func (k *step) cause() string {
	var local, stale, nothing, other bool
	for _, f := range k.s.Findings {
		if k.excluded(f) != "" || f.Serving {
			continue
		}
		switch {
		case f.CopyStale:
			return CauseCopyStale
		case f.Local:
			local = true
		case f.Code == string(verify.Unresolved), down(f):
			nothing = true
		case has(f, verify.Stale):
			stale = true
		default:
			other = true
		}
	}
	for _, c := range []string{CausePair, CauseChain, CauseUntrusted, CauseOlder, CauseDates, CauseNames, CauseKeyType, CauseOtherPair, CauseSilenced, CauseWindow, CauseLimit} {
		if c == CauseLimit && !k.limited() {
			continue // the reloads of this renewal are used up: that is why it failed, not what it failed of
		}
		if _, held := k.heldBy(c); held {
			return c
		}
	}
	switch {
	case local && !stale:
		return CauseElsewhere
	case nothing && !stale && !other:
		return CauseUnreachable
	}
	return CauseNotReloaded
}

// down reports whether nothing answered at an address.
func down(f Finding) bool {
	switch verify.Code(f.Code) {
	case verify.Refused, verify.Unreachable, verify.Timeout:
		return true
	}
	return false
}

// heldBy returns the hint that was told when a reload was held for cause.
func (k *step) heldBy(cause string) (hint string, held bool) {
	t := k.s.Story
	for _, server := range sortedKeys(t.Holding) {
		if t.Holding[server] == cause {
			return t.Held[server+" "+cause], true
		}
	}
	return "", false
}

// limited reports whether a server's limit is used up just now.
func (k *step) limited() bool {
	for _, r := range k.s.Story.Servers {
		if r.LimitUntil.After(k.now) {
			return true
		}
	}
	return false
}

// failure words a failed deployment.
func (k *step) failure(cause string) (detail, hint string) {
	bad, all := 0, 0
	var worst *Finding
	for i, f := range k.s.Findings {
		if k.excluded(f) != "" {
			continue
		}
		all++
		if !f.Serving {
			bad++
			if worst == nil || f.Severity.Rank() > worst.Severity.Rank() {
				worst = &k.s.Findings[i]
			}
		}
	}
	detail = fmt.Sprintf("%d of %d addresses do not serve the certificate on disk", bad, all)
	if worst != nil {
		detail += fmt.Sprintf("; %s at %s: %s", worst.Endpoint, worst.Address, worst.Code)
		hint = worst.Hint
	}
	if hook := k.s.Story.hookFailed(); hook != "" {
		detail += "; " + hook
	}
	if h, held := k.heldBy(cause); held {
		hint = h // never the advice to reload what was held for a reason
	}
	switch cause {
	case CauseElsewhere:
		hint = "this host serves it already: what answers at the public address is something else (a load balancer, a CDN, another host)"
	case CauseUnreachable:
		hint = "nothing answers at these addresses: is the server running, is a firewall in between?"
	case CauseCopyStale:
		hint = "the copy that this server loads was not written anew: run the hook that builds it"
	case CauseNotReloaded:
		if !k.p.Repair {
			hint = "reload the server (renewatch runs with --no-repair)"
		} else if hint == "" {
			hint = "reload or restart the server by hand and look for a second instance of it"
		}
		if worst != nil && worst.Listener != "" {
			hint = worst.Listener + " has listened there since before the files were written: end or restart that process"
		}
	}
	return detail, hint
}

func (k *step) sayLost(bad []Finding) {
	s, t := k.s, k.s.Story
	s.Standing = Lost
	t.Fast = k.now
	t.GraceOver = true
	t.EndedAt = k.now
	for _, f := range bad {
		if f.Server == "" || f.Server == "none" {
			continue
		}
		if r := t.repair(f.Server); r.Attempts < len(k.p.Retries) {
			r.Base = k.now.Add(-k.p.Retries[r.Attempts])
		}
	}
	k.say(notify.DeployLost, k.worst(notify.Error), func(d *notify.Data) {
		d.Verdicts, d.Excluded = k.verdicts(), k.excludedList()
		d.Cause = k.cause()
		d.Detail = fmt.Sprintf("the certificate was served and is not any more: %s at %s: %s", bad[0].Endpoint, bad[0].Address, bad[0].Code)
		d.Hint = bad[0].Hint
		d.Next = &notify.Next{Action: "probe", At: k.now.Add(afterTrouble)}
	})
}

func (k *step) recovered() {
	s, t := k.s, k.s.Story
	k.dropPending()
	k.proved()
	k.say(notify.DeployRecovered, notify.Info, func(d *notify.Data) {
		d.Verdicts, d.Excluded = k.verdicts(), k.excludedList()
		if s.Standing == Failed {
			lag := k.lag().Seconds()
			d.LagSeconds = &lag
		}
		d.Detail = "every required address serves the certificate on disk again"
		if s.Standing == Failed {
			d.Detail = "every required address serves the certificate on disk now"
		}
	})
	t.EndedAt = k.now
	s.Standing, s.Rechecks = Verified, 0
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func orSentence(s, or string) string {
	if s != "" {
		return s
	}
	return or
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

// enumerate joins at most n of list.
func enumerate(list []string, n int) string {
	if len(list) <= n {
		return strings.Join(list, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(list[:n], ", "), len(list)-n)
}
