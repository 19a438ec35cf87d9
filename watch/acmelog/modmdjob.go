package acmelog

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"time"
)

// maxFile bounds a document that is read as a whole: mod_md keeps 128 entries.
const maxFile = 1 << 20

// Document reports whether a log of that client is one document, which its writer
// replaces, and not lines that it adds: it must be read as a whole whenever it
// changes, with a new Parser.
func Document(client Client, path string) bool {
	return client == ModMD && filepath.Base(path) == "job.json"
}

// mdFile is a job.json whose lines still come.
type mdFile struct {
	text   []byte
	at     time.Time
	offset int64
	long   bool // longer than such a file may be
}

func (f *mdFile) add(text []byte, l *line) {
	f.long = f.long || l.cut || len(f.text)+len(text) > maxFile
	if f.long {
		f.text = nil
		return
	}
	f.text = append(append(f.text, text...), '\n')
}

// mdJob is what job.json holds.
type mdJob struct {
	Name    string `json:"name"`
	NextRun string `json:"next-run"`
	Last    struct {
		Status      int    `json:"status"`
		Problem     string `json:"problem"`
		Detail      string `json:"detail"`
		Activity    string `json:"activity"`
		Subproblems []struct {
			Type       string `json:"type"`
			Detail     string `json:"detail"`
			Identifier struct {
				Value string `json:"value"`
			} `json:"identifier"`
		} `json:"subproblems"`
	} `json:"last"`
	Log struct {
		Entries []mdEntry `json:"entries"` // the newest first
	} `json:"log"`
}

type mdEntry struct {
	When   string `json:"when"`
	Type   string `json:"type"`
	Status string `json:"status"`
	Detail string `json:"detail"`
}

// mdRun follows the entries of one job.
type mdRun struct {
	job    *mdJob
	g      *ledger
	l      *line
	now    *attempt // the run that goes on
	begun  bool     // its "starting" was seen
	staged bool     // it said that a certificate was staged
	phase  Phase
	kind   string
	broken []Problem
	last   *attempt // the last that was issued
	failed *attempt // the last that failed, when nothing came after it
	before *attempt // failed, before the run that goes on
}

// read tells the attempts of a document, a run each.
func (f *mdFile) read(g *ledger) {
	var job mdJob
	if f.long || json.Unmarshal(f.text, &job) != nil || cleanName(job.Name) == "" {
		return
	}
	r := &mdRun{job: &job, g: g, l: &line{at: f.at, offset: f.offset}}
	for i := len(job.Log.Entries) - 1; i >= 0; i-- {
		r.entry(job.Log.Entries[i])
	}
	if r.failed != nil {
		r.newest(r.failed)
	}
	// A job moves from staging/ to domains/ together with its certificate.
	if r.last != nil && strings.Contains(filepath.ToSlash(g.log), "/domains/") {
		r.activated(r.last)
	}
}

// entry reads one entry.
func (r *mdRun) entry(e mdEntry) {
	at, _ := time.Parse(time.RFC1123, e.When)
	if name, ok := strings.CutPrefix(e.Type, "message-challenge-setup:"); ok {
		_, name, _ = strings.Cut(name, ":")
		r.run(at).name(name)
		return
	}
	switch e.Type {
	case "message-renewing":
		r.next(at)
	case "starting", "renewal-start":
		if r.now == nil || r.begun {
			r.next(at)
		}
		r.begun = true
	case "progress":
		r.progress(e.Detail, at)
	case "renewal-error":
		r.error(e, at)
	case "finished":
		r.finished(at)
	case "message-installed":
		if r.last != nil {
			r.activated(r.last)
		}
	case "notify-error":
		r.hook(r.last, e.Detail)
	case "message-error": // its status is the reason that the command was called with
		switch {
		case e.Status == "renewing":
			r.next(at)
			r.now.fault(PhaseClient, "", e.Detail)
			r.now.hookFailed("notify", exitCode(e.Detail))
			r.g.finish(r.now, Failed, at)
			r.now = nil
		case strings.HasPrefix(e.Status, "challenge-setup:"):
			r.run(at).hookFailed("notify", exitCode(e.Detail))
		case e.Status == "renewed":
			r.hook(r.last, e.Detail)
		case e.Status == "installed":
			r.hook(r.last, e.Detail)
			if r.last != nil {
				r.activated(r.last)
			}
		}
	}
}

// next begins a run.
func (r *mdRun) next(at time.Time) {
	key := cleanName(r.job.Name)
	a := r.g.begin(key, r.l, at)
	r.l.offset++ // each its own
	a.lineage(r.job.Name)
	a.name(r.job.Name)
	*r = mdRun{job: r.job, g: r.g, l: r.l, last: r.last, before: r.failed, now: a}
}

// run is the run that goes on; the entry of its beginning may be gone.
func (r *mdRun) run(at time.Time) *attempt {
	if r.now == nil {
		r.next(at)
	}
	r.now.hear(at)
	return r.now
}

func (r *mdRun) progress(s string, at time.Time) {
	if r.now == nil && strings.HasPrefix(s, "new certificate successfully saved") || strings.HasPrefix(s, "moving tmp") || strings.HasPrefix(s, "preloading") {
		return
	}
	a := r.run(at)
	activity, detail, _ := strings.Cut(s, ": ")
	if p := mdPhase(activity); p != PhaseStart {
		r.phase = p
		a.reach(p)
	}
	mdCA(a, s)
	mdNames(a, s)
	if i := strings.LastIndex(s, "problem: "); i >= 0 {
		r.kind = findProblem(s[i:]).kind
	}
	if name, ok := strings.CutPrefix(detail, "domain authorization for "); ok && strings.Contains(name, " failed") && len(r.broken) < maxNames {
		name, _, _ = strings.Cut(name, " ")
		r.broken = append(r.broken, Problem{Name: name, Detail: detail})
	}
	if strings.HasPrefix(s, "The certificate for the managed domain has been renewed successfully") {
		r.staged = true
	}
}

// error ends a run without a certificate.
func (r *mdRun) error(e mdEntry, at time.Time) {
	a := r.run(at)
	f := findProblem(e.Status)
	kind := f.kind
	if kind == "" {
		kind = r.kind
	}
	if kind == "" {
		kind = findProblem(e.Detail).kind
	}
	detail := e.Detail
	if strings.HasPrefix(detail, "Unsuccessful in contacting ACME server") {
		kind = Network
		detail, _, _ = strings.Cut(detail, ". If this problem persists")
	}
	phase := mdPhase(detail)
	if phase == PhaseStart {
		phase = r.phase
	}
	if phase == "" {
		phase = phaseOfProblem(kind)
	}
	a.fault(phase, kind, detail)
	a.Phase = phase
	f = findProblem(kind + ": " + detail)
	a.retryAfter(f.retry)
	a.Paused = a.Paused || f.paused
	for _, p := range r.broken {
		a.refused(p.Name, p.Type, p.Detail)
	}
	r.g.finish(a, Failed, at)
	r.now, r.failed = nil, a
}

// finished ends a run that said that it succeeded. One that warned of an end that
// is near says so too: it has staged nothing.
func (r *mdRun) finished(at time.Time) {
	a := r.run(at)
	r.now = nil
	if !r.staged {
		r.failed = r.before
		r.g.drop(a)
		return
	}
	a.reach(PhaseSaved)
	r.g.finish(a, Issued, at)
	r.last, r.failed = a, nil
}

// hook: the command that should tell of an issued certificate failed.
func (r *mdRun) hook(a *attempt, detail string) {
	if a != nil {
		a.hookFailed("notify", exitCode(detail))
		a.reach(PhaseHook)
	}
}

func (r *mdRun) activated(a *attempt) {
	a.Activated = true
	a.reach(PhaseActivated)
}

// newest adds what the document says of its last run only.
func (r *mdRun) newest(a *attempt) {
	last := r.job.Last
	if p := mdPhase(last.Activity); p != PhaseStart {
		a.Phase = p
	}
	if kind := findProblem(last.Problem).kind; kind != "" && a.ProblemType == "" {
		a.ProblemType = kind
	}
	for _, s := range last.Subproblems {
		a.refused(s.Identifier.Value, findProblem(s.Type).kind, s.Detail)
	}
	if next, err := time.Parse(time.RFC1123, r.job.NextRun); err == nil && a.RetryAfter.IsZero() { // what the CA said counts more
		a.retryAfter(next)
	}
}
