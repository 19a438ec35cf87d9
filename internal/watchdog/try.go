package watchdog

import (
	"slices"
	"strings"
	"time"

	"github.com/renewatch/renewatch/notify"
	"github.com/renewatch/renewatch/verify"
	"github.com/renewatch/renewatch/watch/acmelog"
)

// Told is an attempt that the log of an ACME client tells of.
type Told struct {
	ID      string // of the attempt: the same each time it is told of
	Attempt notify.Attempt
	At      time.Time // when it was heard
	Old     bool      // it was written before the log was looked at for the first time
}

// Try is an attempt that is remembered.
type Try struct {
	ID      string         `json:"id"`
	Attempt notify.Attempt `json:"attempt"`
	At      time.Time      `json:"at"` // when it was heard of first
}

// began and ended bound the time of an attempt. A log without times is read as it
// is written.
func (t *Try) began() time.Time {
	if at := t.Attempt.Started; !at.IsZero() {
		return at
	}
	return t.At
}

func (t *Try) ended(now time.Time) time.Time {
	switch {
	case !t.Attempt.Ended.IsZero():
		return t.Attempt.Ended
	case acmelog.Outcome(t.Attempt.Outcome) == acmelog.Running:
		return now
	}
	return t.At
}

// Trying is what the ACME client's log told since the leaf on disk came: attempts
// that brought no new one yet. It becomes the story of the leaf that comes.
type Trying struct {
	RenewalID string `json:"renewal_id"`
	Before    string `json:"before,omitempty"` // the leaf on disk
	Last      *Try   `json:"last,omitempty"`
	Said      string `json:"said,omitempty"`     // the attempt that renewal.attempted was said of last
	Failed    string `json:"failed,omitempty"`   // the attempt, and how it ended, that renewal.failed was said of last
	Failures  int    `json:"failures,omitempty"` // how often that was
	// Due: the log says that a certificate was issued; it must be on disk by then.
	Due time.Time `json:"due,omitzero"`
}

// Times of what logs tell.
const (
	tellsLate  = 5 * time.Minute  // a leaf may be seen so long after its attempt ended
	tellsEarly = 30 * time.Second // and so long before the log told that it began
	backdated  = 65 * time.Minute // CAs set notBefore an hour back
	lateFiles  = 10 * time.Second // files that a log tells of need so long at most to settle and to be read
)

// heard takes in what a log tells. It opens no story and ends none: files and
// handshakes do.
func (k *step) heard(in *Told) {
	s := k.s
	a := in.Attempt
	outcome := acmelog.Outcome(a.Outcome)
	if outcome == acmelog.Skipped {
		if at := (&Try{Attempt: a, At: in.At}).began(); at.After(s.Skipped) {
			s.Skipped = at
		}
		return
	}
	if a.DryRun || a.Staging && (s.Disk == nil || !staged(s.Disk.Leaf.Issuer)) {
		return
	}
	try := &Try{ID: in.ID, Attempt: a, At: in.At}
	if t := s.Story; t != nil && s.Disk != nil && k.brought(try) {
		k.heardOfStory(try, in.Old)
		return
	}
	if in.Old && s.Disk != nil && !try.ended(k.now).After(s.Disk.Leaf.NotBefore.Add(backdated)) {
		return // of an earlier leaf
	}
	if s.Trying != nil && s.Trying.Last != nil && s.Trying.Last.ID != try.ID {
		if a.Doubtful && outcome == acmelog.Issued || try.began().Before(s.Trying.Last.began()) {
			return
		}
	} else if a.Doubtful && outcome == acmelog.Issued && s.Trying == nil {
		return // a success that nobody asked for
	}
	tr := k.trying()
	if tr.Last != nil && tr.Last.ID == try.ID {
		try.At = tr.Last.At
	}
	tr.Last = try
	if outcome == acmelog.Issued && in.Old {
		return // what became of it nobody knows any more
	}
	k.attempted(try, tr)
	switch outcome {
	case acmelog.Failed, acmelog.Stalled:
		k.tryFailed(tr)
	case acmelog.Issued:
		if a.Doubtful {
			return
		}
		if acmelog.Client(a.Client) == acmelog.HAProxy { // it writes no file
			k.again()
			return
		}
		tr.Due = k.now.Add(k.p.Grace + lateFiles)
	}
}

// heardOfStory takes in what the log tells of the leaf on disk. What it calls a
// failure is none: the leaf is there.
func (k *step) heardOfStory(try *Try, old bool) {
	t := k.s.Story
	told := t.Try
	if told != nil && told.ID == try.ID {
		try.At = told.At
	} else if told != nil && acmelog.Outcome(told.Attempt.Outcome) == acmelog.Issued && acmelog.Outcome(try.Attempt.Outcome) != acmelog.Issued {
		return // that one wrote it
	}
	t.Try = try
	if !old && (told == nil || told.ID != try.ID) && !t.Baseline {
		k.say(notify.RenewalAttempted, notify.Info, func(d *notify.Data) { d.Detail = tellsTry(try.Attempt) })
	}
	k.trySeen(goesOn(try.Attempt))
}

// trySeen takes in whether the log shows that the client's run goes on.
func (k *step) trySeen(running bool) {
	t := k.s.Story
	k.runs(func() { t.Trying = running })
}

// goesOn reports whether an attempt goes on in a client whose log tells the end of
// every run: that of others may be over for long.
func goesOn(a notify.Attempt) bool {
	if acmelog.Outcome(a.Outcome) != acmelog.Running {
		return false
	}
	switch acmelog.Client(a.Client) {
	case acmelog.Certbot, acmelog.AcmeSh, acmelog.Dehydrated, acmelog.Getssl:
		return true
	}
	return false
}

// brought reports whether an attempt is the one that brought the leaf on disk.
func (k *step) brought(try *Try) bool {
	t := k.s.Story
	if t.Leaf.SHA256 != k.s.Disk.Leaf.SHA256 {
		return false
	}
	if t.Try != nil && t.Try.ID == try.ID {
		return true
	}
	began, ended := try.began(), try.ended(k.now)
	if began.After(t.Since.Add(tellsEarly)) || t.Baseline && began.After(t.Since) {
		return false
	}
	if t.Baseline { // when it came nobody saw; when it was issued it says itself
		issued := t.Leaf.NotBefore
		return acmelog.Outcome(try.Attempt.Outcome) != acmelog.Failed && !began.After(issued.Add(backdated)) && !ended.Before(issued.Add(-tellsEarly))
	}
	return !ended.Before(t.Since.Add(-tellsLate))
}

// trying returns what is remembered of the renewal that is to come.
func (k *step) trying() *Trying {
	s := k.s
	before := ""
	if s.Disk != nil {
		before = s.Disk.Leaf.SHA256
	}
	if s.Trying == nil || s.Trying.Before != before {
		s.Renewals++
		s.Trying = &Trying{RenewalID: renewalID(k.p, before, s.Renewals), Before: before}
	}
	return s.Trying
}

// attempted says that the client tries, once for each attempt.
func (k *step) attempted(try *Try, tr *Trying) {
	if tr.Said == try.ID {
		return
	}
	tr.Said = try.ID
	k.sayTrying(notify.RenewalAttempted, notify.Info, func(d *notify.Data) {
		d.Detail = tellsTry(try.Attempt)
	})
}

// tryFailed says that the last attempt failed, or stalled, once for each way in
// which it ended.
func (k *step) tryFailed(tr *Trying) {
	a := tr.Last.Attempt
	ended := tr.Last.ID + " " + a.Outcome
	if tr.Failed == ended {
		return
	}
	tr.Failed = ended
	tr.Failures++
	tr.Due = time.Time{}
	k.sayTrying(notify.RenewalFailed, k.lateness(), func(d *notify.Data) {
		d.Detail, d.Hint = tellsFailure(a), adviceFor(a)
		d.Cause = causeOf(a)
		d.Next = &notify.Next{Action: "wait", At: a.RetryAfter}
		if a.Paused {
			d.Next = &notify.Next{Action: "person"}
		}
	})
}

// lateness is how bad it is that a renewal failed: it is tried again, as long as
// there is time.
func (k *step) lateness() notify.Severity {
	if k.s.Disk == nil {
		return notify.Error
	}
	if level := urgency(k.s.Disk.Leaf, k.now); level.Rank() > notify.Warning.Rank() {
		return level
	}
	return notify.Warning
}

// sayTrying says something of the renewal that is to come.
func (k *step) sayTrying(kind notify.Kind, sev notify.Severity, fill func(*notify.Data)) {
	tr := k.s.Trying
	k.say(kind, sev, func(d *notify.Data) {
		d.RenewalID, d.Previous = tr.RenewalID, nil
		d.Certificate = &notify.Certificate{Name: k.p.Name}
		if k.s.Disk != nil {
			leaf := k.s.Disk.Leaf
			d.Certificate = &leaf
		}
		if tr.Last != nil {
			d.Attempt = &tr.Last.Attempt
		}
		fill(d)
	})
}

// tryDue says what time alone tells of attempts: that no certificate came of one,
// and that none was made.
func (k *step) tryDue() {
	s := k.s
	if tr := s.Trying; tr != nil && !tr.Due.IsZero() && !k.now.Before(tr.Due) {
		tr.Due = time.Time{}
		tr.Failures++
		a := tr.Last.Attempt
		k.sayTrying(notify.RenewalFailed, k.lateness(), func(d *notify.Data) {
			d.Cause = CauseNotWritten
			d.Detail, d.Hint = tellsNotWritten(a)
			d.Next = &notify.Next{Action: "person"}
		})
	}
	k.overdue()
}

// overdue says once that a renewal was expected and nobody renewed.
func (k *step) overdue() {
	s := k.s
	if s.Disk == nil || k.impaired != "" || !s.Sighted || s.Standing == Removed || s.Standing == Reverted || s.Overdue == s.Disk.Leaf.SHA256 || k.byRounds() && !s.Fresh {
		return
	}
	at := overdueAt(k.p.Expected, s.Disk.Leaf)
	if at.IsZero() || k.now.Before(at) || k.servedIsNewer() {
		return
	}
	s.Overdue = s.Disk.Leaf.SHA256
	tr := k.trying()
	k.sayTrying(notify.RenewalOverdue, k.lateness(), func(d *notify.Data) {
		tried := tr.Last != nil
		if k.p.Logged || tried {
			d.Tried = &tried
		}
		d.Detail, d.Hint = k.tellsOverdue(tr)
		d.Next = &notify.Next{Action: "person"}
	})
}

// servedIsNewer reports whether every address that counts serves a newer leaf than
// the one on disk: somebody renewed elsewhere.
func (k *step) servedIsNewer() bool {
	n := 0
	for _, f := range k.s.Findings {
		if k.excluded(f) != "" {
			continue
		}
		if !has(f, verify.Ahead) {
			return false
		}
		n++
	}
	return n > 0
}

// Expected says when a renewal is expected; zero: when the renewal margin begins.
type Expected struct {
	Manual   bool          // never: a person renews
	Fraction float64       // of the lifetime that is over by then; 0: not so
	Before   time.Duration // the end; 0: not so
}

// overdueAt is when a renewal that did not come is overdue: 0.15 of the renewal
// margin after it was expected; zero: never.
func overdueAt(e Expected, leaf notify.Certificate) time.Time {
	r := margin(leaf)
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	expected := leaf.NotAfter.Add(-r)
	switch {
	case e.Manual || life <= 0:
		return time.Time{}
	case e.Fraction > 0:
		expected = leaf.NotBefore.Add(time.Duration(float64(life) * e.Fraction))
	case e.Before > 0:
		expected = leaf.NotAfter.Add(-e.Before)
	}
	return expected.Add(time.Duration(float64(r)*0.15) + time.Second)
}

// staged reports whether an issuer is one of a CA's test environment.
func staged(issuer string) bool {
	return strings.Contains(issuer, "STAGING") || strings.Contains(issuer, "Fake LE") || strings.Contains(strings.ToLower(issuer), "staging")
}

// adopt makes the renewal that was tried the story of the leaf that came: events of
// both have one renewal_id.
func (t *Story) adopt(tr *Trying, now time.Time) {
	t.RenewalID = tr.RenewalID
	if tr.Last == nil {
		return
	}
	switch acmelog.Outcome(tr.Last.Attempt.Outcome) {
	case acmelog.Running, acmelog.Issued, acmelog.Stalled:
	default: // it failed; the one that brought the leaf is told of later, unless it is this one after all
		if tr.Last.ended(now).Before(t.Since.Add(-tellsLate)) {
			return
		}
	}
	t.Try = tr.Last
	t.Trying = goesOn(tr.Last.Attempt)
}

// concerns tells how surely an attempt is about a certificate: 3 by the files it
// wrote, 2 by the client's name for it, 1 by its names, 0 not at all.
func concerns(a notify.Attempt, c *cert, lineage string) int {
	if slices.ContainsFunc(a.Saved, func(p string) bool { return samePlace(p, c.path, lineage) }) {
		return 3
	}
	if a.Lineage != "" && (a.Lineage == lineage || a.Lineage == c.policy.Name || lineage == "" && a.Lineage == c.path) {
		return 2
	}
	if d := c.state.Disk; d != nil && sameNames(a, d.Leaf) {
		return 1
	}
	return 0
}

// samePlace reports whether a file that a client wrote is that of a certificate:
// its path, or a numbered file of its lineage in certbot's archive.
func samePlace(saved, path, lineage string) bool {
	if saved == path {
		return true
	}
	dir, _ := cutLast(saved, "/")
	certDir, _ := cutLast(path, "/")
	if dir == certDir && dir != "" && lineage != "" {
		return true
	}
	root, found := strings.CutSuffix(certDir, "/live/"+lineage)
	return found && lineage != "" && dir == root+"/archive/"+lineage
}

func cutLast(s, sep string) (before, after string) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return "", s
	}
	return s[:i], s[i+len(sep):]
}

// sameNames reports whether an attempt asks for the names of a leaf, as far as the
// log spells them out.
func sameNames(a notify.Attempt, leaf notify.Certificate) bool {
	if len(a.Names) == 0 || len(a.Names)+a.NamesOmitted != len(leaf.Names)+leaf.NamesOmitted {
		return false
	}
	for _, n := range a.Names {
		if !slices.ContainsFunc(leaf.Names, func(m string) bool { return strings.EqualFold(n, m) }) {
			return false
		}
	}
	return true
}
