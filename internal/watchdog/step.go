package watchdog

import (
	"slices"
	"time"

	"github.com/renewatch/renewatch/notify"
	"github.com/renewatch/renewatch/verify"
)

// Times nobody needs to configure, because a deviation would only do harm.
const (
	brokenAfter  = 30 * time.Second // a fault of the files is said after this
	missingAfter = time.Minute      // a missing file is said after this
	reloadPause  = 10 * time.Second // a reload gets at least this long before the next way is tried
	heldLook     = 30 * time.Second // a held reload is decided anew after this
	openLook     = time.Minute      // an open story is decided on at least this often after its grace
	suspectLook  = 30 * time.Second // a name that could not be resolved is looked up again after this
	unheardLook  = 15 * time.Second // and sooner while an address was not heard at all
	downSoon     = 5 * time.Minute  // so soon after a change what is down is likely to come up
	lastLook     = 12 * time.Second // of an open story before its deadline
	leastProbe   = time.Second      // every probe has this long to hear something
	impairedLook = time.Minute      // an untrustworthy verifier is asked again after this
	afterTrouble = time.Minute      // how often a failed deployment is looked at in its first hour
	lateTrouble  = 5 * time.Minute  // and later
	stuckProbe   = 30 * time.Minute // a probe that is this late is asked for again; the shell answers every one
	maxAttempts  = 3                // reloads of one server for one renewal
	longestRun   = time.Hour        // the grace waits no longer for the ACME client's run to end
	pairBroken   = 10 * time.Minute // a pair that is broken for so long kills the next reload, whoever makes it
)

type step struct {
	now  time.Time
	p    *Policy
	s    *State
	draw float64
	cmds []Command
	// looked: a round that can be judged was taken in.
	looked   bool
	impaired string
}

// Step decides. It is pure: the same arguments give the same answer. Events are
// added to the Outbox of the returned state. The state given is not changed.
func Step(now time.Time, p Policy, s State, in Input) (State, []Command) {
	s = s.clone()
	s.Version, s.Name = StateVersion, p.Name
	k := &step{now: now, p: &p, s: &s, draw: in.Draw, impaired: in.Impaired}
	switch {
	case in.Boot:
		k.boot()
	case in.Gap:
		s.Fresh, s.Probe, s.NextProbe = false, nil, now
		k.lookAgain()
		k.bound()
	case in.Look:
		s.Probe, s.NextProbe = nil, now
	case in.Seen != nil:
		k.seen(in.Seen)
	case in.Fault != nil:
		k.fault(in.Fault)
	case in.Removed:
		k.removed()
	case in.Round != nil:
		k.round(in.Round)
	case in.Reload != nil:
		k.reloaded(in.Reload)
	case in.Client != nil:
		k.client(in.Client.Running)
	case in.Answered != nil:
		k.answered(in.Answered)
	case in.Told != nil:
		k.heard(in.Told)
	case in.Left:
		k.left()
		return s, k.cmds
	}
	k.tick()
	k.people()
	return s, k.cmds
}

// Wake returns when Step wants a tick; zero: never by itself.
func Wake(p Policy, s State) time.Time {
	var at time.Time
	earlier := func(t time.Time) {
		if !t.IsZero() && (at.IsZero() || t.Before(at)) {
			at = t
		}
	}
	if f := s.Fault; f != nil && !f.Said {
		earlier(f.due())
	}
	switch {
	case s.Standing == Unknown || s.Standing == Removed:
	case s.Probe != nil:
		earlier(s.Probe.late())
	default:
		earlier(s.NextProbe)
	}
	if s.ARI != nil && p.ARI && s.Standing == Verified && s.ARI.AskAt.After(s.Judged) {
		earlier(s.ARI.AskAt)
	}
	for _, t := range moments(&p, &s) {
		if t.After(s.Judged) {
			earlier(t)
		}
	}
	return at
}

func (f *Fault) due() time.Time {
	if f.Missing {
		return f.Since.Add(missingAfter)
	}
	return f.Since.Add(brokenAfter)
}

func (p *Probe) late() time.Time {
	if p.Until.After(p.At) {
		return p.Until.Add(stuckProbe)
	}
	return p.At.Add(stuckProbe)
}

// boot: nothing that was under way is any more, and nothing old is judged
// before a fresh probe.
func (k *step) boot() {
	s := k.s
	s.Sighted, s.Fresh, s.Probe, s.NextProbe = false, false, nil, k.now
	// What became of a reload that was asked for, the shell tells.
	if t := s.Story; t != nil && (t.Running || t.Trying) { // whether it still does is asked afresh
		t.Running, t.Trying, t.GraceEnd = false, false, k.now.Add(k.p.Grace)
	}
	s.Listening = time.Time{}
	k.lookAgain()
	k.bound()
}

// lookAgain: what a log told of may have come on disk while nobody looked.
func (k *step) lookAgain() {
	if tr := k.s.Trying; tr != nil && !tr.Due.IsZero() {
		tr.Due = k.now.Add(k.p.Grace + lateFiles)
	}
}

// bound: times that a wrong clock wrote must not hold the story up for ever.
func (k *step) bound() {
	s := k.s
	latest := func(at *time.Time, d time.Duration) {
		if limit := k.now.Add(d); at.After(limit) {
			*at = limit
		}
	}
	if a := s.Alert; a != nil {
		latest(&a.Since, 0)
		latest(&a.Told, 0)
		latest(&a.Cleared, 0)
	}
	if f := s.Fault; f != nil {
		latest(&f.Since, 0)
	}
	t := s.Story
	if t == nil {
		return
	}
	if t.Running || t.Trying {
		latest(&t.GraceEnd, longestRun)
	} else {
		latest(&t.GraceEnd, k.p.Grace)
	}
	latest(&t.Deadline, k.p.Deadline)
	latest(&t.Since, 0)
	latest(&t.EndedAt, 0)
	latest(&t.Fast, 0)
	for _, r := range t.Servers {
		latest(&r.Finished, 0)
		latest(&r.LastHeld, 0)
		latest(&r.Base, 0)
		latest(&r.LimitUntil, 24*time.Hour)
	}
}

// seen takes in a sound, settled sight of the files.
func (k *step) seen(in *Seen) {
	s := k.s
	s.Sighted = true
	s.learn(in.History...)
	s.learn(Known{in.Leaf.SHA256, in.Leaf.NotBefore})
	in.Leaf.Name = k.p.Name
	if f := s.Fault; f != nil {
		s.Fault = nil
		if f.Said {
			k.say(notify.FileRecovered, notify.Info, func(d *notify.Data) {
				d.Certificate = &in.Leaf
				d.Detail = "the certificate files are sound again"
			})
		}
	}
	old := s.Disk
	disk := &Disk{Leaf: in.Leaf, Since: in.Since, Facts: in.Facts, Chain: in.Chain}
	switch {
	case old == nil:
		s.Disk = disk
		k.open(nil, true)
	case in.Leaf.SHA256 == old.Leaf.SHA256:
		changed := old.Facts != in.Facts || !slices.Equal(old.Chain, in.Chain)
		disk.Since = old.Since
		s.Disk = disk
		if s.Standing == Removed {
			s.Standing = Unverified
			if s.Story != nil && s.Story.Leaf.SHA256 != in.Leaf.SHA256 {
				s.Standing = Reverted // as it was before it was removed
			}
			changed = true
		}
		if changed && s.Standing != Verified && s.Standing != Reverted {
			k.again()
		}
	case in.Leaf.NotBefore.Before(old.Leaf.NotBefore):
		s.Disk, s.ARI = disk, nil
		k.reverted(old)
	default:
		s.Disk = disk
		k.open(&old.Leaf, false)
	}
}

// open begins the story of the leaf on disk.
func (k *step) open(before *notify.Certificate, baseline bool) {
	s := k.s
	k.dropPending()
	if t := s.Story; !t.ended() {
		k.end(notify.DeploySuperseded, notify.Info, func(d *notify.Data) {
			d.Detail = "a newer certificate came before this one was proven to be served"
		})
	}
	beforeSHA := ""
	if before != nil {
		beforeSHA = before.SHA256
	}
	tr := s.Trying
	s.Trying, s.ARI = nil, nil
	s.Story = &Story{
		Leaf: s.Disk.Leaf, Baseline: baseline, Previous: before,
		Since: s.Disk.Since, At: k.now, GraceEnd: k.now.Add(k.p.Grace), Fast: k.now,
	}
	if tr != nil && tr.Before == beforeSHA {
		if s.Story.adopt(tr, k.now); s.Story.Trying {
			s.Story.GraceEnd = k.now.Add(longestRun)
		}
	} else {
		s.Renewals++
		s.Story.RenewalID = renewalID(k.p, beforeSHA, s.Renewals)
	}
	s.Standing, s.Probe, s.Rechecks, s.NextProbe = Open, nil, 0, time.Time{}
	s.Findings = nil // they tell of the leaf before
	if !baseline {
		k.say(notify.RenewalDetected, notify.Info, func(d *notify.Data) {
			d.Detail = "a new certificate with its key is on disk"
			d.Next = &notify.Next{Action: "probe", At: k.now}
			if !k.p.Watched {
				d.Next = nil
			}
		})
	}
}

// reverted: an older leaf lies where a newer one lay. It is said and watched,
// never repaired: a reload would put the older one live.
func (k *step) reverted(old *Disk) {
	s := k.s
	k.dropPending()
	if t := s.Story; !t.ended() {
		k.end(notify.DeployFailed, notify.Error, func(d *notify.Data) {
			d.Cause = CauseOlder
			d.Detail = "the certificate was replaced on disk by an older one before it was proven to be served"
			d.Hint = "find what writes the older file: a backup, configuration management, a second ACME client"
			d.Next = &notify.Next{Action: "person"}
		})
	}
	s.Standing, s.Probe, s.NextProbe = Reverted, nil, k.now
	s.Findings = nil // they tell of the leaf before
	k.say(notify.FileReverted, notify.Warning, func(d *notify.Data) {
		d.Certificate, d.Previous = &s.Disk.Leaf, &old.Leaf
		d.RenewalID = ""
		d.Detail = "an older certificate replaced the newer one on disk; nothing is reloaded"
		d.Hint = "find what writes the older file: a backup, configuration management, a second ACME client"
		d.Next = &notify.Next{Action: "person"}
	})
}

// fault takes in that the files are not sound.
func (k *step) fault(in *Fault) {
	s := k.s
	s.Sighted = true
	f := *in
	f.Since, f.Said = k.now, false
	if old := s.Fault; old != nil {
		f.Since, f.Said = old.Since, old.Said
	}
	s.Fault = &f
}

// removed: the lineage was deleted on purpose.
func (k *step) removed() {
	s := k.s
	if s.Standing == Removed {
		return
	}
	if s.Disk == nil { // it was never sound: there is no story to end
		said := s.Fault != nil && s.Fault.Said
		path := ""
		if s.Fault != nil {
			path = s.Fault.Path
		}
		s.Fault = nil
		k.alert(s.Alert.end(k.now, "the certificate was deleted; it is no longer watched"))
		if said {
			k.say(notify.FileRemoved, notify.Info, func(d *notify.Data) {
				d.Certificate = &notify.Certificate{Name: k.p.Name, Path: path}
				d.Detail = "the certificate was deleted; it is no longer watched"
			})
		}
		return
	}
	k.dropPending()
	if t := s.Story; !t.ended() {
		k.end(notify.DeployUnverified, notify.Warning, func(d *notify.Data) {
			d.Detail = "the certificate was deleted before it was proven to be served"
		})
	}
	s.Fault, s.Probe, s.Standing, s.Trying = nil, nil, Removed, nil
	k.alert(s.Alert.end(k.now, "the certificate was deleted; it is no longer watched"))
	k.say(notify.FileRemoved, notify.Info, func(d *notify.Data) {
		d.RenewalID = ""
		d.Detail = "the certificate was deleted; it is no longer watched"
	})
}

// left: it is not configured any more. What was open is brought to its end.
func (k *step) left() {
	s := k.s
	k.dropPending()
	if t := s.Story; !t.ended() {
		k.end(notify.DeployUnverified, notify.Warning, func(d *notify.Data) {
			d.Detail = "the certificate left the configuration before it was proven to be served"
		})
		s.Standing = Unverified
	}
	k.alert(s.Alert.end(k.now, "the certificate left the configuration; it is no longer watched"))
	s.Probe, s.NextProbe = nil, time.Time{}
}

// client takes in whether a run of the ACME client goes on: its own hooks have
// until some time after its end.
func (k *step) client(running bool) {
	t := k.s.Story
	k.runs(func() { t.Running = running })
}

// runs takes in a change of whether a run goes on, by its lock, its unit or its
// log.
func (k *step) runs(change func()) {
	t := k.s.Story
	if k.s.Standing != Open || t.GraceOver {
		return
	}
	before := t.Running || t.Trying
	change()
	now := t.Running || t.Trying
	if now == before {
		return
	}
	t.GraceEnd = t.At.Add(longestRun)
	if now {
		return
	}
	if end := k.now.Add(k.p.Grace); end.Before(t.GraceEnd) {
		t.GraceEnd = end
	}
	k.again() // what runs would last until the hour is over
}

// round takes in what a probe found.
func (k *step) round(in *Round) {
	s := k.s
	if s.Probe == nil || s.Probe.ID != in.ID || s.Disk == nil {
		return // outdated: a newer probe replaced it
	}
	pr := *s.Probe
	before := s.Findings
	if !s.Fresh {
		before = nil // from before the start, or a gap
	}
	s.Probe, s.Checked, s.Findings = nil, k.now, slices.Clone(in.Findings)
	for i, f := range s.Findings {
		s.Findings[i] = k.remembered(f, before)
	}
	s.NextProbe = time.Time{}
	if in.Facts != nil && in.Facts.SHA256 == s.Disk.Leaf.SHA256 {
		s.Disk.Facts = *in.Facts
	}
	for _, f := range s.Findings {
		if f.Default && f.Known && !s.Confirmed[f.Endpoint] {
			if s.Confirmed == nil {
				s.Confirmed = map[string]bool{}
			}
			s.Confirmed[f.Endpoint] = true
		}
	}
	wasFresh := s.Fresh
	s.Fresh = s.Fresh || in.Impaired == ""
	served := k.allServing()
	if in.Impaired != "" {
		k.impaired = in.Impaired
	}
	impaired := k.impaired != ""
	k.looked = !impaired
	switch s.Standing {
	case Open:
		k.roundOpen(served, impaired, wasFresh, in.Facts)
		if s.Standing == Open && k.now.Before(pr.Until) {
			s.NextProbe = k.now.Add(min(5*time.Second, pr.Until.Sub(k.now)))
		}
	case Verified:
		if !impaired {
			bad := k.lost()
			if unresolved(bad) && !s.Suspect {
				s.Suspect = true
				break
			}
			s.Suspect = false
			if bad != nil {
				k.sayLost(bad)
				k.repair(in.Facts)
			} else if pr.Purpose == Recheck {
				s.Rechecks++
			}
		}
	case Failed, Lost:
		switch {
		case served && pr.Purpose == Confirm:
			k.recovered()
		case served:
			k.ask(Confirm, k.now.Add(k.proofTime()))
		case !impaired:
			k.repair(in.Facts)
		}
	case Unverified:
		switch {
		case served:
			k.dropPending()
			k.proved()
			s.Standing = Verified
			s.Rechecks = len(k.p.Recheck)
		case !impaired:
			k.repair(in.Facts)
		}
	}
	if s.Standing != Open {
		s.NextProbe = k.routine(impaired)
	}
}

// remembered returns what was heard last of an address that was not heard at all
// in this round, if that was a fault. That it serves must be heard again. What is
// excused for too long (a name that nobody can resolve, a server that is down
// while the ACME client runs) is a fault after all.
func (k *step) remembered(f Finding, before []Finding) Finding {
	if !f.Unheard {
		return f
	}
	f.UnheardSince = k.now
	for _, old := range before {
		if old.Endpoint != f.Endpoint || old.Address != f.Address || old.KeyType != f.KeyType {
			continue
		}
		if !old.UnheardSince.IsZero() && !old.UnheardSince.After(k.now) {
			f.UnheardSince = old.UnheardSince
		}
		if f.Code == string(verify.Unverifiable) && !old.Unheard && !old.Serving {
			return old
		}
	}
	excused := soon
	if down(f) {
		excused = longestRun
	}
	if f.Code != string(verify.Unverifiable) && k.now.Sub(f.UnheardSince) > excused {
		f.Unheard = false
	}
	return f
}

// roundOpen judges a round while the story runs.
func (k *step) roundOpen(served, impaired, wasFresh bool, facts *Facts) {
	s, t := k.s, k.s.Story
	if served {
		k.verified()
		return
	}
	if t.Baseline && t.Previous == nil {
		t.Previous = k.servedInstead()
	}
	if !t.GraceOver {
		if k.now.Before(t.GraceEnd) {
			return
		}
		t.GraceOver = true
		if !wasFresh && k.now.Sub(t.GraceEnd) > k.p.Grace {
			t.GraceEnd = k.now // it ended while nobody looked
		}
		t.Deadline = t.GraceEnd.Add(k.p.Deadline)
	}
	if !wasFresh && !k.now.Before(t.Deadline) {
		t.Deadline = k.now.Add(k.p.Deadline) // an old deadline is not judged
	}
	if impaired {
		if least := k.now.Add(k.p.Grace); t.Deadline.Before(least) {
			t.Deadline = least
		}
		s.NextProbe = k.now.Add(impairedLook)
		return
	}
	if until := k.window(); until.After(k.now) && t.Deadline.Before(until.Add(k.p.Deadline)) {
		t.Deadline = until.Add(k.p.Deadline) // it waits for the server's window
	}
	if !k.now.Before(t.Deadline) {
		if k.nearly() && !t.Extended {
			t.Extended, t.Deadline = true, k.now.Add(k.proofTime())
			return
		}
		k.failed()
		return
	}
	k.repair(facts)
}

// nearly reports whether every address that counts serves the leaf, and only the
// proof is not whole yet.
func (k *step) nearly() bool {
	n := 0
	for _, f := range k.s.Findings {
		if k.excluded(f) == "" {
			if f.Code != string(verify.Serving) {
				return false
			}
			n++
		}
	}
	return n > 0
}

// proofTime is how long a probe needs at most to prove what is served.
func (k *step) proofTime() time.Duration { return max(openLook, 2*k.p.Spread+reloadPause) }

// again makes the next probe start at once.
func (k *step) again() {
	k.s.Probe, k.s.NextProbe = nil, time.Time{}
	if k.s.Standing != Open {
		k.s.NextProbe = k.now
	}
}

// ask asks for a probe.
func (k *step) ask(why Purpose, until time.Time) {
	s := k.s
	s.Rounds++
	pr := Probe{ID: s.Rounds, Purpose: why, At: k.now}
	switch why {
	case Confirm:
		pr.Samples, pr.Until = k.p.Samples, until
	case Recheck:
		pr.Samples = 4
	default:
		pr.Samples = 2
	}
	if t := s.Story; t != nil {
		pr.Fast = t.Fast
		if why == Confirm && s.Standing == Open && t.GraceOver && !k.now.Before(t.Deadline.Add(-lastLook)) {
			pr.Fast = k.now
		}
	}
	s.Probe = &pr
	k.cmds = slices.DeleteFunc(k.cmds, func(c Command) bool { _, is := c.(Probe); return is })
	k.cmds = append(k.cmds, pr)
}
