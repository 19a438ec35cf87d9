// Package watchdog is the keeper: it joins what the host says (files), what the
// network says (verdicts) and what was done about it (reloads) into one story a
// renewal, and decides what happens next.
//
// Step is the decision: a pure function of the time, the policy, the state and
// one input. Keeper is the thin shell around it: it feeds Step, writes the state
// and the journal first, and only then acts.
package watchdog

import (
	"maps"
	"slices"
	"time"

	"github.com/renewatch/renewatch/internal/ari"
	"github.com/renewatch/renewatch/notify"
)

// StateVersion is the layout of State. A state written by a newer version is
// refused, see ErrNewerState.
const StateVersion = 1

// historyMax bounds the leaves remembered of one lineage.
const historyMax = 64

// Policy is what the configuration says of one certificate.
type Policy struct {
	Name     string
	Host     string // for identifiers
	Instance string // for identifiers
	// Watched says that there is something to verify: false for `endpoints: []`.
	Watched  bool
	Repair   bool // false: never reload (--no-repair)
	Grace    time.Duration
	Deadline time.Duration   // from the end of grace
	Retries  []time.Duration // offsets from the end of grace, at most 3
	Recheck  []time.Duration // offsets from deploy.verified
	Every    time.Duration   // routine round
	Samples  int             // of the window after a change
	Spread   time.Duration   // of the window after a change
	// Windows say when a server may be reloaded; one that is not in it: always.
	Windows map[string]Window
	// Expected says when a renewal is expected.
	Expected Expected
	// ARI says that the CA is asked when it wants the certificate renewed.
	ARI bool
	// Logged says that a log of the ACME client is read.
	Logged bool
	// Silences that cover this certificate or an endpoint of it.
	Silences []Silence
}

// Window tells when a server may be reloaded; reload.Windows is one.
type Window interface {
	// Next returns now when it is open, else when it opens next.
	Next(now time.Time) time.Time
}

// Silence is a time in which nobody is alerted and nothing is repaired.
type Silence struct {
	ID string
	// Endpoint is the one that is silenced, as findings tell it; "": the whole
	// certificate.
	Endpoint     string
	Since, Until time.Time
	Force        bool // also while what is served is expired
}

// inForce reports whether the silence holds at now.
func (s Silence) inForce(now time.Time) bool { return !now.Before(s.Since) && now.Before(s.Until) }

// Standing is how a certificate stands.
type Standing string

// The standings.
const (
	Unknown    Standing = ""           // no sound leaf was ever seen
	Open       Standing = "open"       // a renewal's story runs
	Verified   Standing = "verified"   // every required address serves the leaf on disk
	Failed     Standing = "failed"     // deploy.failed was said and it did not recover
	Lost       Standing = "lost"       // deploy.lost was said and it did not recover
	Unverified Standing = "unverified" // nothing could be tested
	Reverted   Standing = "reverted"   // an older leaf came back on disk; watched, never repaired
	Removed    Standing = "removed"    // the lineage was deleted
)

// State is everything remembered of one certificate; JSON on disk. Deadlines and
// random draws are made once and kept here.
type State struct {
	Version  int      `json:"version"`
	Name     string   `json:"name"`
	Standing Standing `json:"standing"`
	// Disk is the newest sound sight of the files.
	Disk *Disk `json:"disk,omitempty"`
	// History holds the leaves ever recorded of this lineage, oldest first.
	History []Known `json:"history,omitempty"`
	// Story is the present renewal, or the last one.
	Story *Story `json:"story,omitempty"`
	Fault *Fault `json:"fault,omitempty"`
	// Trying is the renewal that the ACME client's log tells of and that has brought
	// no leaf yet.
	Trying *Trying `json:"trying,omitempty"`
	// Heard holds the last attempts of which something was said, the newest last.
	Heard []HeardOf `json:"heard,omitempty"`
	// Skipped is when the client looked last and found it not due.
	Skipped time.Time `json:"skipped,omitzero"`
	// ARI is what the CA said of when it wants the leaf on disk renewed.
	ARI *ari.Seen `json:"ari,omitempty"`
	// Replace is the leaf of which it was said that its CA wants it replaced.
	Replace string `json:"replace,omitempty"`
	// Overdue is the leaf of which it was said that its renewal is overdue.
	Overdue string `json:"overdue,omitempty"`
	// Confirmed holds the default endpoints that were seen serving the lineage.
	Confirmed map[string]bool `json:"confirmed,omitempty"`
	// Probe is the probe that runs, nil when none does.
	Probe *Probe `json:"probe,omitempty"`
	// NextProbe is when the next probe starts by itself; zero: now, when a story
	// is open.
	NextProbe time.Time `json:"next_probe,omitzero"`
	// Suspect: the last round could not resolve a name; one more must say so.
	Suspect bool `json:"suspect,omitempty"`
	// Rechecks is how many of the rechecks after deploy.verified were made.
	Rechecks int `json:"rechecks,omitempty"`
	// Checked is when the last round ended.
	Checked time.Time `json:"checked,omitzero"`
	// Findings of the last round.
	Findings []Finding `json:"findings,omitempty"`
	// Fresh is false after a start or a gap, until a round has passed: nothing
	// old is judged before.
	Fresh bool `json:"-"`
	// Sighted: since the start the watcher has told of the files.
	Sighted bool `json:"-"`
	// Listening is since when, after a start, the logs could have told why a renewal
	// is overdue.
	Listening time.Time `json:"-"`
	// Expiry is what was told of leaves in use that end soon.
	Expiry []Expiry `json:"expiry,omitempty"`
	// Alert is what a person was told last.
	Alert *Alert `json:"alert,omitempty"`
	// Alerts counts, so that every alert's id is new.
	Alerts uint64 `json:"alerts,omitempty"`
	// Judged is when it was last decided what a person must know.
	Judged time.Time `json:"-"`
	// Rounds, Events and Renewals count, so that every identifier is new.
	Rounds   uint64 `json:"rounds"`
	Events   uint64 `json:"events"`
	Renewals uint64 `json:"renewals"`
	// Outbox holds the events that were decided but may not stand in the journal.
	Outbox []notify.Draft `json:"outbox,omitempty"`
}

// Disk is a sound sight of the files.
type Disk struct {
	Leaf notify.Certificate `json:"leaf"`
	// Since is when the first sign of this leaf was seen.
	Since time.Time `json:"since"`
	Facts Facts     `json:"facts"`
	Chain []DER     `json:"chain,omitempty"` // leaf first
}

// Facts are what pre-flight needs to know of the files, read at one moment.
type Facts struct {
	SHA256 string `json:"sha256"` // of the leaf
	// Pair says what is wrong with the pair; "" when key and leaf match.
	Pair string `json:"pair,omitempty"`
	// Chain is how the file's own chain verifies.
	Chain  ChainState `json:"chain,omitempty"`
	Detail string     `json:"detail,omitempty"` // a sentence on Chain
}

// Expiry is how little a leaf in use had left when that was told.
type Expiry struct {
	SHA256 string          `json:"sha256"`
	Level  notify.Severity `json:"level"`
}

// ChainState is how a file's own chain verifies.
type ChainState string

// The chain states.
const (
	ChainOK         ChainState = ""
	ChainIncomplete ChainState = "incomplete"
	ChainUntrusted  ChainState = "untrusted"
)

// Known is one leaf of the lineage.
type Known struct {
	SHA256    string    `json:"sha256"`
	NotBefore time.Time `json:"not_before"`
}

// Story is one renewal, from the first sign on disk to its terminal event and
// beyond.
type Story struct {
	RenewalID string              `json:"renewal_id"`
	Leaf      notify.Certificate  `json:"leaf"`
	Baseline  bool                `json:"baseline,omitempty"` // the first leaf ever seen: not a renewal
	Previous  *notify.Certificate `json:"previous,omitempty"`
	Since     time.Time           `json:"since"` // first sign on disk
	At        time.Time           `json:"at"`    // detected
	GraceEnd  time.Time           `json:"grace_end"`
	GraceOver bool                `json:"grace_over,omitempty"`
	Running   bool                `json:"running,omitempty"` // the ACME client's run goes on: the grace waits for its end
	Trying    bool                `json:"trying,omitempty"`  // so it does by the client's log
	Try       *Try                `json:"try,omitempty"`     // the attempt that brought the leaf
	Deadline  time.Time           `json:"deadline,omitzero"`
	Extended  bool                `json:"extended,omitempty"` // the deadline fell in the middle of a proof
	// Fast is the last new leaf or reload: polling is fast for a while after it.
	Fast    time.Time          `json:"fast,omitzero"`
	Servers map[string]*Repair `json:"servers,omitempty"`
	Held    map[string]string  `json:"held,omitempty"` // server + cause said by reload.held, and its hint
	// Holding is the cause that holds each server back just now.
	Holding map[string]string `json:"holding,omitempty"`
	// Cause that deploy.failed told.
	Cause   string      `json:"cause,omitempty"`
	Ended   notify.Kind `json:"ended,omitempty"`
	EndedAt time.Time   `json:"ended_at,omitzero"`
}

// Repair is what was done to one server for one renewal.
type Repair struct {
	Attempts int       `json:"attempts,omitempty"`
	Once     bool      `json:"once,omitempty"` // the one reload for a fault other than stale was used
	Pending  *Attempt  `json:"pending,omitempty"`
	Base     time.Time `json:"base,omitzero"`     // the offsets of the retries count from here
	Finished time.Time `json:"finished,omitzero"` // when the last reload ended
	Runs     []string  `json:"runs,omitempty"`    // ids of the runs, to say that they proved something
	// Interrupted: a reload was cut off by a kill once; it does not count.
	Interrupted bool `json:"interrupted,omitempty"`
	// Holds counts how often in a row one was.
	Holds int `json:"holds,omitempty"`
	// LastHeld is when a reload was held right before it was to start.
	LastHeld time.Time `json:"last_held,omitzero"`
	// LimitUntil: the server's limit is used up until then.
	LimitUntil time.Time `json:"limit_until,omitzero"`
	// WindowUntil: the server may not be reloaded before then.
	WindowUntil time.Time `json:"window_until,omitzero"`
}

// Attempt is a reload that was asked for and has not ended.
type Attempt struct {
	ID   string    `json:"id"`
	Step string    `json:"step"`
	At   time.Time `json:"at"`
	Once bool      `json:"once,omitempty"` // it is the one for a fault other than stale
}

// Fault is what is wrong with the files.
type Fault struct {
	Code     string    `json:"code"`
	Path     string    `json:"path"`
	Sentence string    `json:"sentence"`
	Hint     string    `json:"hint,omitempty"`
	Missing  bool      `json:"missing,omitempty"`
	Since    time.Time `json:"since"`
	Said     bool      `json:"said,omitempty"`
}

// Finding is one verdict with what the keeper must know besides.
type Finding struct {
	notify.Verdict
	// Serving: all samples are the expected leaf and other faults are at most
	// warnings.
	Serving  bool `json:"serving"`
	Required bool `json:"required"`
	// Default: nobody named this endpoint; it counts once it served the lineage.
	Default bool `json:"default,omitempty"`
	// Local: loopback, same port and name, already serves the expected leaf.
	Local bool `json:"local,omitempty"`
	// CopyStale: the copy that this consumer loads is not the leaf on disk.
	CopyStale bool `json:"copy_stale,omitempty"`
	// Sibling: the leaf of another watched lineage for the same name is served.
	Sibling bool `json:"sibling,omitempty"`
	// SiblingName is that certificate's name.
	SiblingName string `json:"sibling_name,omitempty"`
	// Listener names the process that serves an old leaf on this host, when it may
	// be seen and is older than the files.
	Listener string `json:"listener,omitempty"`
	// Lost are names that the served leaf covers and the leaf on disk does not.
	Lost []string `json:"lost,omitempty"`
	// Unheard: the probe ended before this address answered at all.
	Unheard bool `json:"unheard,omitempty"`
	// ServedKeyType is the key type of the leaf that was served.
	ServedKeyType string `json:"served_key_type,omitempty"`
	// Lineage: the served leaf is one of this lineage.
	Lineage bool `json:"lineage,omitempty"`
	// Known: it is one that the history holds.
	Known bool `json:"known,omitempty"`
	// UnheardSince is since when every round found it Unheard.
	UnheardSince time.Time `json:"unheard_since,omitzero"`
	Since        time.Time `json:"since,omitzero"` // start of the unbroken run of expected leaves
}

// Purpose is why a probe is made.
type Purpose string

// The purposes.
const (
	Confirm Purpose = "confirm" // poll until every required address serves, or Until
	Recheck Purpose = "recheck" // one round of 4 samples
	Routine Purpose = "routine" // one round of 2 samples
)

// clone returns a copy that shares nothing that Step changes.
func (s State) clone() State {
	c := s
	c.History = slices.Clone(s.History)
	c.Confirmed = maps.Clone(s.Confirmed)
	c.Outbox = slices.Clone(s.Outbox)
	if s.Disk != nil {
		d := *s.Disk
		c.Disk = &d
	}
	if s.Fault != nil {
		f := *s.Fault
		c.Fault = &f
	}
	c.Expiry = slices.Clone(s.Expiry)
	c.Heard = slices.Clone(s.Heard)
	if s.Alert != nil {
		a := *s.Alert
		c.Alert = &a
	}
	if s.Trying != nil {
		t := *s.Trying
		c.Trying = &t
	}
	if s.Probe != nil {
		p := *s.Probe
		c.Probe = &p
	}
	if s.Story != nil {
		t := *s.Story
		t.Held = maps.Clone(t.Held)
		t.Holding = maps.Clone(t.Holding)
		if t.Servers != nil {
			t.Servers = make(map[string]*Repair, len(s.Story.Servers))
			for k, v := range s.Story.Servers {
				r := *v
				r.Runs = slices.Clone(r.Runs)
				if v.Pending != nil {
					a := *v.Pending
					r.Pending = &a
				}
				t.Servers[k] = &r
			}
		}
		c.Story = &t
	}
	return c
}

// knows reports whether sha is a leaf of the lineage.
func (s *State) knows(sha string) bool {
	return slices.ContainsFunc(s.History, func(k Known) bool { return k.SHA256 == sha })
}

// learn adds leaves to the history.
func (s *State) learn(leaves ...Known) {
	for _, k := range leaves {
		if k.SHA256 != "" && !s.knows(k.SHA256) {
			s.History = append(s.History, k)
		}
	}
	slices.SortStableFunc(s.History, func(a, b Known) int { return a.NotBefore.Compare(b.NotBefore) })
	if n := len(s.History) - historyMax; n > 0 {
		s.History = slices.Delete(s.History, 0, n)
	}
}

// ended reports whether the story has had its terminal event.
func (t *Story) ended() bool { return t == nil || t.Ended != "" }

// repair returns what was done to server, which may be changed.
func (t *Story) repair(server string) *Repair {
	if t.Servers == nil {
		t.Servers = map[string]*Repair{}
	}
	r := t.Servers[server]
	if r == nil {
		r = &Repair{}
		t.Servers[server] = r
	}
	return r
}
