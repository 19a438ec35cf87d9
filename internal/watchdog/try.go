package watchdog

import (
	"path/filepath"
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
	Other   bool      // it turned out to be about another certificate
}

// Try is an attempt that is remembered.
type Try struct {
	ID      string         `json:"id"`
	Attempt notify.Attempt `json:"attempt"`
	At      time.Time      `json:"at"` // when it was heard of first
}

// HeardOf is an attempt of which something was said.
type HeardOf struct {
	ID string    `json:"id"`
	At time.Time `json:"at"` // when it was heard of first
	// Failed is how it had ended when renewal.failed was said of it.
	Failed string `json:"failed,omitempty"`
}

// maxHeardOf bounds the attempts that are known when they are told of again.
const maxHeardOf = 16

// began and ended bound the time of an attempt. A log without times is read as it
// is written, and what is heard of has begun, whatever its log says.
func (t *Try) began() time.Time {
	if at := t.Attempt.Started; !at.IsZero() && at.Before(t.At) {
		return at
	}
	return t.At
}

func (t *Try) ended(now time.Time) time.Time {
	switch at := t.Attempt.Ended; {
	case !at.IsZero() && at.Before(now):
		return at
	case !at.IsZero():
		return now
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
	// Paused is the attempt that told that the CA has paused the account, until one
	// comes further.
	Paused *Try `json:"paused,omitempty"`
	// Due: the log says that a certificate was issued; it must be on disk by then.
	Due time.Time `json:"due,omitzero"`
}

// Times of what logs tell.
const (
	tellsLate  = 5 * time.Minute  // a leaf may be seen so long after its attempt ended
	tellsEarly = 30 * time.Second // and so long before the log told that it began
	backdated  = 65 * time.Minute // CAs set notBefore an hour back
	lateFiles  = 10 * time.Second // files that a log tells of need so long at most to settle and to be read
	listens    = time.Minute      // after a start a log has so long to tell of attempts before it is said that there was none
)

// heard takes in what a log tells. It opens no story and ends none: files and
// handshakes do.
func (k *step) heard(in *Told) {
	s := k.s
	a := in.Attempt
	outcome := acmelog.Outcome(a.Outcome)
	if in.Other {
		k.noTry(in.ID)
		return
	}
	if outcome == acmelog.Skipped {
		if at := (&Try{Attempt: a, At: in.At}).began(); at.After(s.Skipped) {
			s.Skipped = at
		}
		k.noTry(in.ID)
		return
	}
	if a.DryRun || a.Staging && (s.Disk == nil || !staged(s.Disk.Leaf.Issuer)) {
		k.noTry(in.ID)
		return
	}
	try := &Try{ID: in.ID, Attempt: a, At: in.At}
	if h := s.heardOf(try.ID); h != nil {
		try.At = h.At
	}
	if t := s.Story; t != nil && s.Disk != nil && k.brought(try) {
		k.heardOfStory(try, in.Old)
		return
	}
	if s.Standing == Reverted && outcome == acmelog.Issued && k.broughtBefore(try) {
		return // what it brought is not on disk any more
	}
	if in.Old && s.Disk != nil && !try.ended(k.now).After(s.Disk.Leaf.NotBefore.Add(backdated)) {
		return // of an earlier leaf
	}
	if !in.Old && s.Disk != nil {
		ended, leaf := try.ended(k.now), s.Disk.Leaf
		if ended.Before(s.Disk.Since) && ended.Before(leaf.NotBefore.Add(backdated)) {
			return // it is told of late: the leaf on disk came after it
		}
	}
	if tr := s.Trying; tr != nil && tr.Last != nil && tr.Last.ID != try.ID {
		if a.Doubtful && outcome == acmelog.Issued {
			return
		}
		if try.began().Before(tr.Last.began()) { // a later one is known already
			if !in.Old && outcome == acmelog.Failed && tr == k.trying() {
				k.attempted(try)
				k.tryFailed(try)
			}
			return
		}
	} else if a.Doubtful && outcome == acmelog.Issued && s.Trying == nil {
		return // a success that nobody asked for
	}
	tr := k.trying()
	if tr.Last != nil && tr.Last.ID != try.ID {
		tr.Due = time.Time{}
	}
	tr.Last = try
	if outcome == acmelog.Issued && in.Old {
		return // what became of it nobody knows any more
	}
	k.attempted(try)
	switch outcome {
	case acmelog.Failed, acmelog.Stalled:
		tr.Due = time.Time{}
		k.tryFailed(try)
	case acmelog.Issued:
		if a.Doubtful {
			return
		}
		tr.Paused = nil
		if acmelog.Client(a.Client) == acmelog.HAProxy { // it writes no file
			k.again()
			return
		}
		if tr.Due.IsZero() && s.heardOf(try.ID).Failed != CauseNotWritten {
			tr.Due = k.now.Add(k.p.Grace + lateFiles)
		}
	}
}

// noTry forgets an attempt that turned out to be none.
func (k *step) noTry(id string) {
	if tr := k.s.Trying; tr != nil && tr.Last != nil && tr.Last.ID == id {
		tr.Last, tr.Due = nil, time.Time{}
	}
	if t := k.s.Story; t != nil && t.Try != nil && t.Try.ID == id && !t.Try.issued() {
		t.Try = nil
		k.trySeen(false)
	}
}

// tries reports whether an attempt counts as one for the certificate.
func (s *State) tries(id string) bool {
	return s.Trying != nil && s.Trying.Last != nil && s.Trying.Last.ID == id ||
		s.Story != nil && s.Story.Try != nil && s.Story.Try.ID == id && !s.Story.Try.issued()
}

// heardOf returns what is known of an attempt; nil: nothing.
func (s *State) heardOf(id string) *HeardOf {
	for i := range s.Heard {
		if s.Heard[i].ID == id {
			return &s.Heard[i]
		}
	}
	return nil
}

// hearOf notes an attempt; first: nothing was said of it.
func (s *State) hearOf(try *Try) (first bool) {
	if s.heardOf(try.ID) != nil {
		return false
	}
	s.Heard = append(s.Heard[max(0, len(s.Heard)-maxHeardOf+1):], HeardOf{ID: try.ID, At: try.At})
	return true
}

// heardOfStory takes in what the log tells of the leaf on disk. What it calls a
// failure is none: the leaf is there.
func (k *step) heardOfStory(try *Try, old bool) {
	t := k.s.Story
	told := t.Try
	if told != nil && told.ID == try.ID {
		try.At = told.At
	} else if told != nil && told.issued() && !try.issued() {
		return // that one wrote it
	}
	t.Try = try
	if first := k.s.hearOf(try); first && !old && !t.Baseline {
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
	if acmelog.Outcome(a.Outcome) != acmelog.Running || a.Doubtful {
		return false
	}
	switch acmelog.Client(a.Client) {
	case acmelog.Certbot, acmelog.AcmeSh, acmelog.Dehydrated, acmelog.Getssl:
		return true
	}
	return false
}

// issued reports whether the log tells credibly that the attempt got a certificate.
func (t *Try) issued() bool {
	return acmelog.Outcome(t.Attempt.Outcome) == acmelog.Issued && !t.Attempt.Doubtful
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
	late := time.Duration(0) // how long after the first sign of its leaf the log may seem to tell that it began
	if untimed(try.Attempt.Client) {
		late = tellsEarly
	}
	if began.After(t.Since.Add(late)) || t.Baseline && began.After(t.Since) {
		return false
	}
	if late == 0 && acmelog.Outcome(try.Attempt.Outcome) == acmelog.Running && !began.Before(t.Since) {
		return false
	}
	if t.Try != nil && t.Try.issued() && began.After(t.Since) {
		return false // that one brought it, and this one began later
	}
	// When it came, perhaps nobody saw; when it was issued it says itself.
	fits := try.fits(t.Leaf.NotBefore, k.now)
	if t.Baseline {
		return acmelog.Outcome(try.Attempt.Outcome) != acmelog.Failed && fits
	}
	return fits && try.issued() || !ended.Before(t.Since.Add(-tellsLate))
}

// untimed reports whether a client's log has no times: it is known only when its
// lines were read.
func untimed(client string) bool {
	switch acmelog.Client(client) {
	case acmelog.Dehydrated, acmelog.Uacme, acmelog.AcmeTiny, acmelog.Getssl:
		return true
	}
	return false
}

// fits reports whether a leaf with this notBefore may be what an attempt brought.
func (t *Try) fits(notBefore, now time.Time) bool {
	return !t.began().After(notBefore.Add(backdated)) && !t.ended(now).Before(notBefore.Add(-tellsEarly))
}

// broughtBefore reports whether an attempt brought a leaf that is newer than the
// one on disk and was there before.
func (k *step) broughtBefore(try *Try) bool {
	return slices.ContainsFunc(k.s.History, func(l Known) bool {
		return l.NotBefore.After(k.s.Disk.Leaf.NotBefore) && try.fits(l.NotBefore, k.now)
	})
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
func (k *step) attempted(try *Try) {
	if !k.s.hearOf(try) {
		return
	}
	k.sayTrying(notify.RenewalAttempted, notify.Info, try, func(d *notify.Data) {
		d.Detail = tellsTry(try.Attempt)
	})
}

// tryFailed says that an attempt failed, or stalled, once for each way in which it
// ended.
func (k *step) tryFailed(try *Try) {
	a, tr := try.Attempt, k.s.Trying
	switch {
	case a.Doubtful || acmelog.Outcome(a.Outcome) != acmelog.Failed:
	case a.Paused:
		tr.Paused = try
	case tr.Paused != nil && !try.began().Before(tr.Paused.began()) && orderTaken(a):
		tr.Paused = nil
	}
	h := k.s.heardOf(try.ID)
	if h.Failed == a.Outcome {
		return
	}
	h.Failed = a.Outcome
	k.sayTrying(notify.RenewalFailed, k.lateness(), try, func(d *notify.Data) {
		d.Detail, d.Hint = tellsFailure(a), adviceFor(a)
		d.Cause = causeOf(a)
		d.Next = &notify.Next{Action: "wait"}
		if a.RetryAfter.After(k.now) {
			d.Next.At = a.RetryAfter
		}
		if a.Paused {
			d.Next = &notify.Next{Action: "person"}
		}
	})
}

// orderTaken reports whether the CA has taken the order of an attempt that failed
// later: an account that is paused gets none.
func orderTaken(a notify.Attempt) bool {
	switch acmelog.Phase(a.Phase) {
	case acmelog.PhaseChallenge, acmelog.PhaseFinalize, acmelog.PhaseIssued:
		return true
	}
	return false
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
func (k *step) sayTrying(kind notify.Kind, sev notify.Severity, try *Try, fill func(*notify.Data)) {
	tr := k.s.Trying
	k.say(kind, sev, func(d *notify.Data) {
		d.RenewalID, d.Previous = tr.RenewalID, nil
		d.Certificate = &notify.Certificate{Name: k.p.Name}
		if k.s.Disk != nil {
			leaf := k.s.Disk.Leaf
			d.Certificate = &leaf
		}
		if try != nil {
			d.Attempt = &try.Attempt
		}
		fill(d)
	})
}

// tryDue says what time alone tells of attempts: that no certificate came of one,
// and that none was made.
func (k *step) tryDue() {
	s := k.s
	known := s.Sighted && k.impaired == "" && (s.Fault == nil || s.Fault.Missing) // what is on disk
	if tr := s.Trying; tr != nil && !tr.Due.IsZero() && !k.now.Before(tr.Due) && known {
		tr.Due = time.Time{}
		a := tr.Last.Attempt
		if h := s.heardOf(tr.Last.ID); h != nil {
			h.Failed = CauseNotWritten
		}
		k.sayTrying(notify.RenewalFailed, k.lateness(), tr.Last, func(d *notify.Data) {
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
	if s.Listening.IsZero() {
		s.Listening = k.now
	}
	at := k.p.overdueAt(s)
	if at.IsZero() || k.now.Before(at) || k.servedIsNewer() {
		return
	}
	s.Overdue = s.Disk.Leaf.SHA256
	tr := k.trying()
	k.sayTrying(notify.RenewalOverdue, k.lateness(), tr.Last, func(d *notify.Data) {
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

// overdueAt is when that is said of the leaf on disk: after a start not before its
// log could have told of attempts.
func (p *Policy) overdueAt(s *State) time.Time {
	at := overdueAt(p.Expected, s.Disk.Leaf)
	if heard := s.Listening.Add(listens); p.Logged && !at.IsZero() && at.Before(heard) && !s.Listening.IsZero() {
		return heard
	}
	return at
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
	t.Trying = goesOn(tr.Last.Attempt) && now.Sub(tr.Last.began()) < longestRun
}

// concerns tells how surely an attempt is about a certificate: 3 by the files it
// wrote, 2 by the client's name for it, 1 by its names, 0 not at all.
func concerns(a notify.Attempt, c *cert, lineage string, now time.Time) int {
	if slices.ContainsFunc(a.Saved, func(p string) bool { return samePlace(p, c.path, lineage) }) {
		return 3
	}
	if a.Lineage != "" && (a.Lineage == lineage || a.Lineage == c.policy.Name || lineage == "" && a.Lineage == c.path) {
		return 2
	}
	d := c.state.Disk
	if d == nil || !sameNames(a, d.Leaf) {
		return 0
	}
	if acmelog.Client(a.Client) == acmelog.Certbot && a.Lineage != "" && strings.HasSuffix(filepath.Dir(c.path), "/live/"+lineage) {
		// Another lineage of the same names (-0001, say) is of interest only where it
		// was made instead of this one.
		if acmelog.Outcome(a.Outcome) != acmelog.Issued || now.Before(d.Leaf.NotAfter.Add(-margin(d.Leaf))) {
			return 0
		}
	}
	return 1
}

// samePlace reports whether a file that a client wrote is that of a certificate:
// its path, or a numbered file of its lineage in certbot's archive.
func samePlace(saved, path, lineage string) bool {
	if saved == path {
		return true
	}
	dir, certDir := filepath.Dir(saved), filepath.Dir(path)
	if dir == certDir && filepath.IsAbs(dir) {
		return stemOf(saved) == stemOf(path) || ofItsOwn(path, lineage)
	}
	root, found := strings.CutSuffix(certDir, "/live/"+lineage)
	return found && lineage != "" && dir == root+"/archive/"+lineage
}

// ofItsOwn reports whether the directory of a certificate holds no other's files:
// the file is not called after the certificate, or the directory is too.
func ofItsOwn(path, lineage string) bool {
	switch stem := stemOf(path); stem {
	case "fullchain", "cert", "pubcert", "certificate", "bundle":
		return true
	default:
		return stem == lineage && filepath.Base(filepath.Dir(path)) != "certificates"
	}
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
