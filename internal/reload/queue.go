package reload

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Request asks for one reload of a server on behalf of one certificate.
type Request struct {
	ID          string   `json:"id"` // unique for ever; see RequestID
	Certificate string   `json:"certificate"`
	RenewalID   string   `json:"renewal_id,omitempty"`
	Attempt     int      `json:"attempt"` // from 1
	Step        Step     `json:"step"`
	Touch       []string `json:"touch,omitempty"`  // the real files, for step Touch
	Told        bool     `json:"told,omitempty"`   // that the limit holds it was said
	Urgent      bool     `json:"urgent,omitempty"` // it does not wait for the server's window
}

// RequestID names the attempt'th reload of one renewal of one certificate.
func RequestID(certificate, renewalID string, attempt int) string {
	return fmt.Sprintf("%s/%s/%d", certificate, renewalID, attempt)
}

// Run is one reload: what was asked, when it started, what became of it.
type Run struct {
	ID       uint64    `json:"id"` // counts from 1 for each server
	Step     Step      `json:"step"`
	Started  time.Time `json:"started"`
	Ended    time.Time `json:"ended,omitzero"`
	OK       bool      `json:"ok,omitempty"`
	Requests []Request `json:"requests,omitempty"` // empty in an old run
	// Proved: the new certificate was served afterwards.
	Proved bool `json:"proved,omitempty"`
	// Interrupted: the program ended before the run did.
	Interrupted bool `json:"interrupted,omitempty"`
}

// State is all that is remembered of the reloads of one server. It is a value:
// methods return a new one and leave the receiver as it is. The zero State is
// that of a server that was never reloaded. It survives JSON unchanged, and is
// to be persisted after Started, before the reload runs.
type State struct {
	Waiting []Request `json:"waiting,omitempty"` // in the order of arrival
	Running *Run      `json:"running,omitempty"`
	Past    []Run     `json:"past,omitempty"` // oldest first, bounded
	LastID  uint64    `json:"last_id,omitempty"`
}

// Limits says how often a server may be reloaded.
type Limits struct {
	// Apart is the least time between two starts; 0 means 60 s.
	Apart time.Duration
	// PerDay is how many reloads within Window may have proved nothing; 0 means
	// 6, and more than 48 means 48.
	PerDay int
	// Window is the period PerDay is about; 0 means 24 h.
	Window time.Duration
}

func (l Limits) filled() Limits {
	return Limits{
		Apart:  cmp.Or(l.Apart, time.Minute),
		PerDay: min(cmp.Or(l.PerDay, 6), maxPast*3/4),
		Window: cmp.Or(l.Window, 24*time.Hour),
	}
}

const (
	// maxPast bounds the history. Runs that proved something go first, so that
	// those the limit counts stay.
	maxPast = 64
	// maxPastRequests bounds the requests kept in the history of one server.
	maxPastRequests = 2048
)

// Action is what is to be done about a server now.
type Action string

// The actions.
const (
	Idle  Action = "idle"  // nothing is asked for
	Busy  Action = "busy"  // a run is under way: Finished comes first
	Start Action = "start" // start Batch now
	Wait  Action = "wait"  // the last start is too fresh: ask again at Until
	Hold  Action = "hold"  // the limit is used up: ask again at Until
)

// Decision is what State.Next says.
type Decision struct {
	Action Action
	Batch  Batch     // with Start
	Until  time.Time // with Wait and Hold; after now, at most two Apart or one Window and Apart
	// Held are, with Hold, the requests whose being held was not told yet.
	Held []Request
}

// Batch is one run to be started: all waiting requests with an equal step.
type Batch struct {
	Run      uint64
	Step     Step
	Requests []Request
}

// Touch returns the files of all requests of the batch, each once.
func (b Batch) Touch() []string {
	var files []string
	for _, r := range b.Requests {
		files = append(files, r.Touch...)
	}
	slices.Sort(files)
	return slices.Compact(files)
}

// Add queues a request that is due. One whose ID is known already, waiting,
// running or done, is ignored: Find tells what became of it.
func (s State) Add(r Request) State {
	if _, _, known := s.Find(r.ID); known {
		return s
	}
	if len(r.Touch) == 0 {
		r.Touch = nil
	}
	s.Waiting = append(slices.Clone(s.Waiting), r)
	return s
}

// Drop forgets the waiting requests of a certificate. A run under way goes on.
func (s State) Drop(certificate string) State {
	s.Waiting = without(s.Waiting, func(r Request) bool { return r.Certificate == certificate })
	return s
}

// Next decides what is to be done at now. It changes nothing: what it says with
// Start happens by handing the batch to Started.
func (s State) Next(now time.Time, l Limits) Decision {
	l = l.filled()
	switch {
	case s.Running != nil:
		return Decision{Action: Busy}
	case len(s.Waiting) == 0:
		return Decision{Action: Idle}
	}
	// A run dated further ahead than Apart tells of a clock that was set back. It
	// counts for nothing until the clock gets there again, else it would block
	// every reload for as long.
	horizon := now.Add(l.Apart)
	var last time.Time
	var counted []time.Time
	for _, run := range s.Past {
		if run.Started.After(horizon) {
			continue
		}
		if run.Started.After(last) {
			last = run.Started
		}
		if !run.Proved && run.Started.After(now.Add(-l.Window)) {
			counted = append(counted, run.Started)
		}
	}
	start := now
	if next := last.Add(l.Apart); !last.IsZero() && next.After(start) {
		start = next
	}
	if len(counted) >= l.PerDay {
		slices.SortFunc(counted, time.Time.Compare)
		open := counted[len(counted)-l.PerDay].Add(l.Window)
		if open.After(start) {
			held := without(s.Waiting, func(r Request) bool { return r.Told })
			return Decision{Action: Hold, Until: open, Held: held}
		}
	}
	if start.After(now) {
		return Decision{Action: Wait, Until: start}
	}
	step := s.Waiting[0].Step
	batch := Batch{Run: s.LastID + 1, Step: step}
	batch.Requests = without(s.Waiting, func(r Request) bool { return r.Step != step })
	return Decision{Action: Start, Batch: batch}
}

// Told remembers that holding these requests was said, so that it is said once.
func (s State) Told(held []Request) State {
	s.Waiting = slices.Clone(s.Waiting)
	for i, r := range s.Waiting {
		if has(held, r.ID) {
			s.Waiting[i].Told = true
		}
	}
	return s
}

// Started makes a batch the run under way. While another one is, or when none of
// the requests waits any more, nothing changes: see Running.
func (s State) Started(now time.Time, b Batch) State {
	requests := without(s.Waiting, func(r Request) bool { return !has(b.Requests, r.ID) })
	if s.Running != nil || len(requests) == 0 || b.Run != s.LastID+1 {
		return s
	}
	s.Waiting = without(s.Waiting, func(r Request) bool { return has(b.Requests, r.ID) })
	s.LastID = b.Run
	s.Running = &Run{ID: b.Run, Step: b.Step, Started: stamp(now), Requests: requests}
	return s
}

// Finished ends the run under way. Another run's id changes nothing.
func (s State) Finished(now time.Time, run uint64, ok bool) State {
	if s.Running == nil || s.Running.ID != run {
		return s
	}
	done := *s.Running
	done.Ended, done.OK = stamp(now), ok
	return s.retire(done)
}

// Abandoned ends the run under way as one that was never made: it leaves no
// trace in the history. Another run's id changes nothing.
func (s State) Abandoned(run uint64) State {
	if s.Running != nil && s.Running.ID == run {
		s.Running = nil
	}
	return s
}

// Interrupted is called once after loading a state: a run that was under way when
// the program ended stays in the history and counts, and its requests are
// returned. What the reload did is not known, so probe before asking again.
func (s State) Interrupted(now time.Time) (State, []Request) {
	if s.Running == nil {
		return s, nil
	}
	done := *s.Running
	done.Ended, done.Interrupted = stamp(now), true
	return s.retire(done), slices.Clone(s.Running.Requests)
}

// Proved tells that what run brought was seen being served: it no longer counts
// against the limit.
func (s State) Proved(run uint64) State {
	if s.Running != nil && s.Running.ID == run {
		r := *s.Running
		r.Proved = true
		s.Running = &r
		return s
	}
	if i := slices.IndexFunc(s.Past, func(r Run) bool { return r.ID == run }); i >= 0 {
		s.Past = slices.Clone(s.Past)
		s.Past[i].Proved = true
	}
	return s
}

// Find returns the run that a request became part of; the zero Run while it
// waits. known is false when the request was never seen, was dropped, or is
// longer ago than the history reaches.
func (s State) Find(id string) (run Run, waiting, known bool) {
	if has(s.Waiting, id) {
		return Run{}, true, true
	}
	if s.Running != nil && has(s.Running.Requests, id) {
		return *s.Running, false, true
	}
	for _, r := range slices.Backward(s.Past) {
		if has(r.Requests, id) {
			return r, false, true
		}
	}
	return Run{}, false, false
}

// Latest returns the latest run that was started for a certificate: the one to
// be Proved when it is served.
func (s State) Latest(certificate string) (Run, bool) {
	mine := func(r Request) bool { return r.Certificate == certificate }
	if s.Running != nil && slices.ContainsFunc(s.Running.Requests, mine) {
		return *s.Running, true
	}
	for _, r := range slices.Backward(s.Past) {
		if slices.ContainsFunc(r.Requests, mine) {
			return r, true
		}
	}
	return Run{}, false
}

// retire moves the run under way into the history.
func (s State) retire(done Run) State {
	done.Requests = slices.Clone(done.Requests)
	for i := range done.Requests {
		done.Requests[i].Touch = nil
	}
	s.Running = nil
	s.Past = append(slices.Clone(s.Past), done)
	for len(s.Past) > maxPast {
		i := max(0, slices.IndexFunc(s.Past, func(r Run) bool { return r.Proved }))
		s.Past = slices.Delete(s.Past, i, i+1)
	}
	kept := 0
	for i, r := range slices.Backward(s.Past) {
		if kept += len(r.Requests); kept > maxPastRequests && i < len(s.Past)-1 {
			s.Past[i].Requests = nil
		}
	}
	return s
}

// stamp is now as JSON gives it back.
func stamp(now time.Time) time.Time { return now.UTC().Round(0) }

func has(requests []Request, id string) bool {
	return slices.ContainsFunc(requests, func(r Request) bool { return r.ID == id })
}

// without returns a copy of requests less those that drop says; nil when empty.
func without(requests []Request, drop func(Request) bool) []Request {
	var kept []Request
	for _, r := range requests {
		if !drop(r) {
			kept = append(kept, r)
		}
	}
	return kept
}
