package watchdog

import (
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"github.com/renewatch/renewatch/notify"
	"github.com/renewatch/renewatch/verify"
	"github.com/renewatch/renewatch/watch"
)

// people decides, after everything else, what a person must know.
func (k *step) people() {
	s := k.s
	s.Judged = k.now
	if k.impaired != "" && !k.byRounds() && s.Disk != nil && s.Standing != Removed {
		s.NextProbe = k.now.Add(impairedLook) // no round will come: looked at again by time
	}
	if k.impaired != "" || s.Standing == Removed || k.byRounds() && !s.Fresh {
		return
	}
	if !s.Sighted && (s.Fault != nil || !k.byRounds()) {
		return // they may have been mended while nobody looked
	}
	k.expiry()
	f := k.affairs()
	if s.Alert == nil {
		if f.certain.level.Rank() == 0 && f.found.level.Rank() == 0 && f.healing.level.Rank() == 0 {
			return
		}
		s.Alert = &Alert{}
	}
	k.alert(s.Alert.judge(k.now, f, func() string {
		s.Alerts++
		return alertID(k.p.Host, k.p.Instance, k.p.Name, s.Alerts)
	}))
	if a := *s.Alert; a.Level == "" && a.Bad == ([3]streak{}) && a.Waited.IsZero() && (a.ID == "" || k.now.Sub(a.Cleared) > alertKeepsID) {
		s.Alert = nil
	}
	if s.Probe == nil && s.Standing != Open && k.byRounds() {
		k.lookSoon()
	}
}

// lookSoon brings the next probe forward while an alert is about to be raised or
// cleared, or stands.
func (k *step) lookSoon() {
	s := k.s
	at := s.Alert.pending()
	if at.IsZero() && s.Alert != nil && s.Alert.Level != "" {
		at = s.Checked.Add(min(lateTrouble, k.p.Every))
	}
	if at.IsZero() {
		return
	}
	if least := s.Checked.Add(alertApart); at.Before(least) {
		at = least
	}
	if s.NextProbe.IsZero() || at.Before(s.NextProbe) {
		s.NextProbe = at
	}
}

// byRounds reports whether rounds tell how the certificate stands; else there are
// only its files, and every tick is a check.
func (k *step) byRounds() bool { return byRounds(k.p, k.s) }

func byRounds(p *Policy, s *State) bool {
	return p.Watched && s.Disk != nil && s.Standing != Unknown && s.Standing != Removed
}

// moments are when what a person must know may change by time alone.
func moments(p *Policy, s *State) []time.Time {
	var out []time.Time
	if s.Standing == Removed {
		return nil
	}
	if f := s.Fault; f != nil {
		out = append(out, f.Since.Add(pairBroken))
	}
	if s.Disk != nil {
		out = append(out, thresholds(s.Disk.Leaf.NotBefore, s.Disk.Leaf.NotAfter)...)
		if s.Overdue != s.Disk.Leaf.SHA256 {
			out = append(out, p.overdueAt(s))
		}
	}
	if tr := s.Trying; tr != nil {
		out = append(out, tr.Due)
	}
	if v := earliest(s.Findings); v != nil && (s.Disk == nil || v.SHA256 != s.Disk.Leaf.SHA256) {
		out = append(out, thresholds(v.NotBefore, v.NotAfter)...)
	}
	if a := s.Alert; a != nil {
		if a.Level != "" {
			out = append(out, a.Told.Add(alertReminder))
		}
		if !byRounds(p, s) {
			out = append(out, a.pending())
		}
	}
	for _, x := range p.Silences {
		out = append(out, x.Since, x.Until)
	}
	return out
}

// maxExpiry bounds the leaves of which it is remembered that their end was told.
const maxExpiry = 8

// thresholds are when a leaf has 0.85, 0.6 and 0.3 of its margin left, and its
// end. A nanosecond more, because under the fraction is what counts.
func thresholds(from, to time.Time) []time.Time {
	r := margin(notify.Certificate{NotBefore: from, NotAfter: to})
	out := []time.Time{to}
	for _, part := range []float64{0.85, 0.6, 0.3} {
		out = append(out, to.Add(-time.Duration(float64(r)*part)+time.Second))
	}
	return out
}

// margin is the renewal margin of a leaf.
func margin(c notify.Certificate) time.Duration {
	return verify.RenewalMargin(&x509.Certificate{NotBefore: c.NotBefore, NotAfter: c.NotAfter})
}

// earliest returns what is served and ends first.
func earliest(findings []Finding) *notify.Served {
	var first *notify.Served
	for i := range findings {
		f := &findings[i]
		if v := f.Served; v != nil && !f.Sibling && (first == nil || v.NotAfter.Before(first.NotAfter)) {
			first = v
		}
	}
	return first
}

// expiry tells, once for each fraction, how little what is served has left.
// Where nothing is served, or known of it, it is about the leaf on disk.
func (k *step) expiry() {
	s := k.s
	if s.Disk == nil {
		return
	}
	leaf, where := s.Disk.Leaf, "the certificate on disk"
	counted := slices.DeleteFunc(slices.Clone(s.Findings), func(f Finding) bool { return k.excluded(f) != "" })
	if v := earliest(counted); v != nil {
		where = "the certificate that is served"
		if v.SHA256 != leaf.SHA256 {
			leaf = notify.Certificate{SHA256: v.SHA256, Serial: v.Serial, Names: v.Names, NamesOmitted: v.NamesOmitted, Issuer: v.Issuer, NotBefore: v.NotBefore, NotAfter: v.NotAfter}
		}
	} else if k.byRounds() && (len(counted) > 0 || len(s.Findings) == 0) {
		return // nothing was seen, or nobody has looked; that is told otherwise
	}
	level := urgency(leaf, k.now)
	if level.Rank() == 0 {
		return
	}
	i := slices.IndexFunc(s.Expiry, func(e Expiry) bool { return e.SHA256 == leaf.SHA256 })
	switch {
	case i < 0:
		s.Expiry = append(s.Expiry[max(0, len(s.Expiry)-maxExpiry+1):], Expiry{leaf.SHA256, level})
	case s.Expiry[i].Level.Rank() >= level.Rank():
		return
	default:
		s.Expiry[i].Level = level
	}
	kind := [...]notify.Kind{"", notify.ExpiryWarning, notify.ExpiryError, notify.ExpiryCritical}[level.Rank()]
	k.say(kind, level, func(d *notify.Data) {
		d.Certificate = &leaf
		d.Detail = fmt.Sprintf("%s %s", where, ends(leaf, k.now))
		d.Hint = "run the ACME client by hand and read its log"
		if leaf.SHA256 != s.Disk.Leaf.SHA256 {
			d.Hint = "a newer certificate is on disk: the server must load it"
		} else {
			d.RenewalID = ""
		}
	})
}

// urgency says how bad it is that a leaf is still in use.
func urgency(c notify.Certificate, now time.Time) notify.Severity {
	return notify.Severity(verify.ExpirySeverity(&x509.Certificate{NotBefore: c.NotBefore, NotAfter: c.NotAfter}, now))
}

// ends words when a leaf ends.
func ends(c notify.Certificate, now time.Time) string {
	if !now.Before(c.NotAfter) {
		return "expired at " + stamp(c.NotAfter)
	}
	return fmt.Sprintf("ends in %s, at %s", roughly(c.NotAfter.Sub(now)), stamp(c.NotAfter))
}

// roughly words a duration for people.
func roughly(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%d days", int(d/(24*time.Hour)))
	case d >= 2*time.Hour:
		return fmt.Sprintf("%d hours", int(d/time.Hour))
	}
	return fmt.Sprintf("%d minutes", int(d/time.Minute))
}

// affairs collects the conditions.
func (k *step) affairs() affairs {
	s := k.s
	f := affairs{checked: k.looked || !k.byRounds(), quiet: k.quiet()}
	certain := func(c condition) {
		if c.level.Rank() > f.certain.level.Rank() {
			f.certain = c
		}
	}
	person := &notify.Next{Action: "person"}
	if tr := s.Trying; tr != nil && tr.Paused != nil {
		certain(condition{level: notify.Critical, cause: CausePaused, detail: "the CA has paused the account, so that nothing renews this certificate: " + tellsFailure(tr.Paused.Attempt),
			hint: adviceFor(tr.Paused.Attempt), next: person, since: tr.Paused.At})
	}
	if x := s.Fault; x != nil && x.Said && k.now.Sub(x.Since) >= pairBroken {
		c := condition{level: notify.Error, cause: CausePair, hint: x.Hint, next: person, since: x.Since,
			detail: fmt.Sprintf("%s; so it is for %s", x.Sentence, roughly(k.now.Sub(x.Since)))}
		if x.breaks() && (s.Disk != nil || !x.Missing) {
			c.level = notify.Critical
			c.detail += ", and the next reload of the server, whoever makes it, may end it"
		}
		certain(c)
	}
	if s.Disk == nil {
		return f
	}
	switch s.Standing {
	case Failed:
		if k.allHealSoon() {
			f.healing = condition{level: notify.Error, cause: s.Story.Cause, detail: "the renewed certificate is not served", next: k.next()}
			break
		}
		if len(s.Findings) > 0 && !slices.ContainsFunc(s.Findings, func(x Finding) bool { return !x.Serving && k.excluded(x) == "" }) {
			break // what fails is silenced
		}
		detail, hint := k.failure(s.Story.Cause)
		certain(condition{level: notify.Error, cause: s.Story.Cause, detail: "the renewed certificate is not served: " + detail, hint: hint, next: k.next(), since: s.Story.EndedAt})
	case Reverted:
		certain(condition{level: notify.Warning, cause: CauseReverted, detail: "an older certificate replaced the newer one on disk; nothing is reloaded",
			hint: "find what writes the older file: a backup, configuration management, a second ACME client", next: person})
	}
	ahead := true
	var counted []Finding
	for _, x := range s.Findings {
		if why := k.excluded(x); why == "" || why == "silenced" {
			ahead = ahead && has(x, verify.Ahead)
			counted = append(counted, x)
		}
	}
	ahead = ahead && len(counted) > 0
	if s.Standing == Reverted && k.byRounds() && len(s.Findings) == 0 {
		ahead = true // very likely: nobody has looked since
	}
	leaf := s.Disk.Leaf
	if v := earliest(counted); ahead && v != nil { // what is served is newer than what is on disk
		leaf = notify.Certificate{NotBefore: v.NotBefore, NotAfter: v.NotAfter}
	} else if ahead {
		return f
	}
	if k.replace() {
		detail, hint := k.tellsReplace()
		certain(condition{level: notify.Error, cause: CauseRevoked, detail: detail, hint: hint, next: person, since: s.ARI.SignAt})
	}
	if level := urgency(leaf, k.now); level.Rank() > 0 {
		c := condition{level: level, cause: CauseExpiry, detail: fmt.Sprintf("the certificate %s and was not renewed", ends(leaf, k.now)),
			hint: "run the ACME client by hand and read its log", next: person}
		if why, hint := k.lastTry(); why != "" {
			c.detail, c.hint = c.detail+"; "+why, hint
		}
		certain(c)
	}
	k.found(&f)
	f.blind = f.blind || slices.ContainsFunc(s.Findings, func(x Finding) bool { return x.Unheard && k.excluded(x) == "" })
	return f
}

// found adds what the last round found.
func (k *step) found(f *affairs) {
	serves := slices.ContainsFunc(k.s.Findings, func(x Finding) bool { return x.Matching > 0 && !x.Sibling })
	for _, x := range k.s.Findings {
		c := condition{level: x.Severity, cause: x.Code, detail: fmt.Sprintf("%s at %s: %s", x.Endpoint, x.Address, orSentence(x.Detail, x.Code)), hint: x.Hint, next: k.next()}
		switch why := k.excluded(x); {
		case why == "sibling" && !serves && x.SiblingName != "":
			c = condition{level: notify.Warning, cause: CauseDuplicate,
				detail: fmt.Sprintf("two certificates for %s are watched, %s and %s, and %s is the one that is served", x.Endpoint, k.p.Name, x.SiblingName, x.SiblingName),
				hint:   "remove the one that no server uses, or name the endpoints that use it", next: &notify.Next{Action: "person"}}
		case x.Unheard, why != "" && why != "unverifiable" && !(why == "silenced" && k.loud(x)):
			continue
		}
		if x.Address == "" {
			c.detail = fmt.Sprintf("%s: %s", x.Endpoint, orSentence(x.Detail, x.Code))
		}
		if x.Listener != "" && len(k.s.Story.Holding) == 0 {
			c.hint = x.Listener + " has listened there since before the files were written: end or restart that process"
		}
		if c.level.Rank() > 0 && k.healsSoon(x) {
			if c.level.Rank() > f.healing.level.Rank() {
				f.healing = c
			}
			continue
		}
		if c.level.Rank() > f.found.level.Rank() {
			f.found = c
		}
	}
}

// healsSoon reports whether an automatic step that may cure a finding is under
// way or due soon.
func (k *step) healsSoon(f Finding) bool {
	t := k.s.Story
	if k.silenced() {
		return false
	}
	if k.s.Standing == Open && !t.GraceOver {
		if t.Running || t.Trying { // its hooks come at its end, which nobody knows
			return k.now.Before(t.At.Add(soon))
		}
		return !t.GraceEnd.After(k.now.Add(soon))
	}
	for _, n := range k.needs() {
		if n.server != f.Server || !slices.ContainsFunc(n.bad, func(b Finding) bool { return b.Endpoint == f.Endpoint && b.Address == f.Address }) {
			continue
		}
		r := t.Servers[n.server]
		if r != nil && (r.Pending != nil || k.now.Before(r.Finished.Add(openLook))) {
			return true
		}
		if held := t.Holding[n.server]; !k.repairs() || held != "" && held != CauseWindow && held != CauseLimit {
			return false
		}
		at, left := k.due(n)
		return left && at.Before(k.now.Add(soon))
	}
	return false
}

// allHealSoon reports whether an automatic step is due soon for everything that
// does not serve.
func (k *step) allHealSoon() bool {
	bad := false
	for _, f := range k.s.Findings {
		if f.Serving || k.excluded(f) != "" {
			continue
		}
		if !k.healsSoon(f) {
			return false
		}
		bad = true
	}
	return bad
}

// next says what happens next by itself.
func (k *step) next() *notify.Next {
	for _, cause := range k.s.Story.Holding {
		if cause != CauseWindow && cause != CauseLimit {
			return &notify.Next{Action: "person"}
		}
	}
	if at := k.comingReload(); !at.IsZero() && !k.silenced() {
		return &notify.Next{Action: "reload", At: at}
	}
	return &notify.Next{Action: "person"}
}

// alert says what is to be told of the alert.
func (k *step) alert(say []telling) {
	for _, t := range say {
		severity := t.about.level
		if t.kind == notify.AlertCleared {
			severity = notify.Info
		}
		k.say(t.kind, severity, func(d *notify.Data) {
			d.Cause, d.Detail, d.Hint, d.Next = t.about.cause, t.about.detail, t.about.hint, t.about.next
			d.Alert = &notify.Alert{ID: k.s.Alert.ID, Since: k.s.Alert.Since.UTC(), Reminder: t.reminder}
			if k.s.Standing == Reverted {
				d.Certificate, d.RenewalID = &k.s.Disk.Leaf, ""
			}
			if k.s.Standing != Removed {
				d.Verdicts, d.Excluded = k.verdicts(), k.excludedList()
			}
			if tr := k.s.Trying; tr != nil && tr.Last != nil && t.about.cause == CauseExpiry {
				d.Attempt, d.RenewalID = &tr.Last.Attempt, tr.RenewalID
			} else if tr != nil && tr.Paused != nil && t.about.cause == CausePaused {
				d.Attempt, d.RenewalID = &tr.Paused.Attempt, tr.RenewalID
			}
			if k.s.Disk == nil && k.s.Fault != nil {
				d.Certificate = &notify.Certificate{Name: k.p.Name, Path: k.s.Fault.Path}
			}
		})
	}
}

// breaks reports whether the fault would make the reload of a server that loads
// the files fail, or worse. What only we may not read is none.
func (f *Fault) breaks() bool {
	switch watch.FaultCode(f.Code) {
	case watch.NoPermission, watch.IOError, watch.DuplicateName, watch.BadName, watch.TooLarge:
		return false
	}
	return true
}

// silenced reports whether the whole certificate is silenced.
func (k *step) silenced() bool { return !k.silenceEnd().IsZero() }

// silenceEnd returns when the silences of the whole certificate that are in
// force end; zero: there are none.
func (k *step) silenceEnd() time.Time {
	var end time.Time
	for _, x := range k.p.Silences {
		if x.Endpoint == "" && x.inForce(k.now) && x.Until.After(end) {
			end = x.Until
		}
	}
	return end
}

// hushed reports whether the endpoint of a finding is silenced.
func (k *step) hushed(f Finding) bool {
	return slices.ContainsFunc(k.p.Silences, func(x Silence) bool {
		return x.Endpoint != "" && x.Endpoint == f.Endpoint && x.inForce(k.now)
	})
}

// loud reports whether a finding at a silenced endpoint is alerted all the same:
// what is served there has expired, and that was not silenced too.
func (k *step) loud(f Finding) bool {
	return has(f, verify.Expired) && !slices.ContainsFunc(k.p.Silences, func(x Silence) bool {
		return x.Endpoint == f.Endpoint && x.Force && x.inForce(k.now)
	})
}

// quiet reports whether nobody is alerted: the certificate is silenced, and what
// is served has not expired, or that was accepted too.
func (k *step) quiet() bool {
	if !k.silenced() {
		return false
	}
	for _, x := range k.p.Silences {
		if x.Endpoint == "" && x.Force && x.inForce(k.now) {
			return true
		}
	}
	for _, f := range k.s.Findings {
		if k.excluded(f) == "" && has(f, verify.Expired) {
			return false
		}
	}
	return k.s.Disk == nil || k.now.Before(k.s.Disk.Leaf.NotAfter)
}
