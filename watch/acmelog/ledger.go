package acmelog

import (
	"slices"
	"strings"
	"time"
)

// ledger holds the attempts that go on, and those that nobody has taken yet.
type ledger struct {
	client Client
	log    string
	zone   *time.Location
	serial uint64
	begun  int64 // the line on which an attempt began last
	nth    int   // the how-manieth on that line the next one is
	open   []*attempt
	done   []*attempt
}

// attempt is one that a dialect is being told of. Its methods keep every field
// bounded and free of secrets.
type attempt struct {
	Attempt
	heard time.Time // when it was heard of last
	run   int64     // where what must be read again for it begins
	told  bool      // its present outcome was taken
	key   string
	// settles, when not 0, is how long nothing must be heard of the attempt until
	// what it has come to counts as its end: of clients that say nothing at the end,
	// or whose last message has an unknown number of lines.
	settles time.Duration
}

// begin opens an attempt; key tells it from others that go on at the same time
// (dialects of clients that do one thing at a time use ""). at is when it began,
// zero: l.at. An open one of the same key is closed first, see ledger.close.
func (g *ledger) begin(key string, l *line, at time.Time) *attempt {
	if a := g.find(key); a != nil {
		g.close(a, at)
	}
	if len(g.open) >= maxOpen {
		g.finish(g.open[0], Stalled, time.Time{})
	}
	if at.IsZero() {
		at = l.at
	}
	g.serial++
	if l.offset != g.begun {
		g.begun, g.nth = l.offset, 0
	}
	g.nth++
	a := &attempt{
		Attempt: Attempt{Client: g.client, Log: g.log, Started: at, Outcome: Running, Phase: PhaseStart, Offset: l.offset, Nth: g.nth - 1, serial: g.serial},
		heard:   at, run: l.offset, key: key,
	}
	g.open = append(g.open, a)
	return a
}

// find returns the open attempt of key, or nil.
func (g *ledger) find(key string) *attempt {
	for i := len(g.open) - 1; i >= 0; i-- {
		if g.open[i].key == key {
			return g.open[i]
		}
	}
	return nil
}

// last returns the open attempt that began last, or nil.
func (g *ledger) last() *attempt {
	if len(g.open) == 0 {
		return nil
	}
	return g.open[len(g.open)-1]
}

// finish ends an attempt.
func (g *ledger) finish(a *attempt, o Outcome, at time.Time) {
	i := slices.Index(g.open, a)
	if i < 0 {
		return
	}
	g.open = slices.Delete(g.open, i, i+1)
	if at.IsZero() || at.Before(a.heard) && at.Before(a.Started) { // a forged line, or a clock that was set back
		at = a.heard
	}
	a.Outcome, a.Ended, a.told = o, at, false
	if o == Skipped {
		a.Phase = PhaseCheck
	}
	g.done = append(g.done, a)
}

// amend tells a finished attempt once more: something was heard of it after its
// end.
func (g *ledger) amend(a *attempt) {
	if !slices.Contains(g.done, a) {
		g.done = append(g.done, a)
	}
}

// drop forgets an open attempt that was none.
func (g *ledger) drop(a *attempt) {
	if i := slices.Index(g.open, a); i >= 0 {
		g.open = slices.Delete(g.open, i, i+1)
	}
}

// close ends an attempt whose end nobody told: by what it had come to. With
// nothing that says how it went it counts as Stalled: it was killed.
func (g *ledger) close(a *attempt, at time.Time) {
	switch {
	case len(a.Saved) > 0 || a.Phase.rank() >= PhaseIssued.rank():
		g.finish(a, Issued, at)
	case a.ProblemDetail != "" || a.ProblemType != "" || a.Hook != nil:
		g.finish(a, Failed, at)
	default:
		g.finish(a, Stalled, a.heard)
	}
}

// exited ends every open attempt of a client that does one run and ends: status
// 0 is no proof of anything, so what was issued must have been told.
func (g *ledger) exited(e Exit) {
	for len(g.open) > 0 {
		a := g.open[0]
		switch {
		case len(a.Saved) > 0 || a.Phase.rank() >= PhaseIssued.rank():
			g.finish(a, Issued, e.At)
		case e.Code > 0 || a.ProblemDetail != "" || a.ProblemType != "" || a.Hook != nil:
			g.finish(a, Failed, e.At)
		default:
			g.finish(a, Stalled, e.At)
		}
	}
}

// take returns what nobody was told yet.
func (g *ledger) take() []Attempt {
	var out []Attempt
	for _, a := range g.done {
		out = append(out, a.copy())
	}
	g.done = nil
	for _, a := range g.open {
		if !a.told {
			a.told = true
			out = append(out, a.copy())
		}
	}
	slices.SortStableFunc(out, func(a, b Attempt) int { return int(int64(a.serial) - int64(b.serial)) })
	return out
}

// copy shares nothing with a.
func (a *attempt) copy() Attempt {
	c := a.Attempt
	c.Run = min(a.run, a.Offset)
	c.Names = append([]string{}, a.Names...)
	c.Saved = append([]string{}, a.Saved...)
	c.Problems = slices.Clone(a.Problems)
	if a.Hook != nil {
		h := *a.Hook
		c.Hook = &h
	}
	return c
}

// stall calls those stalled that were not heard of. One that has got its
// certificate, or whose end is only not certain yet, is not stalled but over.
func (g *ledger) stall(now time.Time) {
	for _, a := range slices.Clone(g.open) {
		silent := now.Sub(a.heard)
		switch {
		case a.settles > 0 && silent >= a.settles,
			silent >= StallAfter && (len(a.Saved) > 0 || a.Phase.rank() >= PhaseIssued.rank()):
			g.close(a, time.Time{})
		case a.Outcome == Running && silent >= StallAfter:
			a.Outcome, a.told = Stalled, false
		}
	}
}

// hear says that the attempt was heard of: it is not stalled.
func (a *attempt) hear(at time.Time) {
	if at.After(a.heard) {
		a.heard = at
	}
	if a.Outcome == Stalled {
		a.Outcome = Running
	}
}

// reach says how far it came; it never goes back.
func (a *attempt) reach(p Phase) {
	if p.rank() > a.Phase.rank() {
		a.Phase = p
	}
}

// name adds names that are asked for.
func (a *attempt) name(names ...string) {
	for _, n := range names {
		n = cleanName(n)
		switch {
		case n == "" || slices.Contains(a.Names, n):
		case len(a.Names) >= maxNames:
			a.NamesOmitted++
		default:
			a.Names = append(a.Names, n)
		}
	}
}

// lineage sets the client's name for the certificate.
func (a *attempt) lineage(name string) { a.Lineage = clean(name) }

// ca sets the directory's URL, and whether that is a test CA's. What is no URL is
// ignored.
func (a *attempt) ca(url string) {
	if !strings.HasPrefix(url, "https://") && !strings.HasPrefix(url, "http://") {
		return
	}
	a.CA = cleanURL(url)
	a.Staging = IsStaging(url)
}

// saved adds a file that was written.
func (a *attempt) saved(path string) {
	path = clean(path)
	if path != "" && len(a.Saved) < maxSaved && !slices.Contains(a.Saved, path) {
		a.Saved = append(a.Saved, path)
	}
	a.reach(PhaseSaved)
}

// problem notes the first reason why the attempt as a whole failed, in phase p: a
// text of the client's own making, in which a CA's problem may be quoted.
func (a *attempt) problem(p Phase, text string) {
	f := findProblem(text)
	a.fault(p, f.kind, text)
	a.retryAfter(f.retry)
	a.Paused = a.Paused || f.paused
}

// fault notes the first reason why the attempt as a whole failed; a type that is
// told later is taken over.
func (a *attempt) fault(p Phase, kind, detail string) {
	if p.rank() < PhaseFinalize.rank() && strings.HasPrefix(detail, "Error finalizing order") { // Let's Encrypt's words
		p = PhaseFinalize
	}
	if a.ProblemType == "" && kind != "" {
		a.ProblemType = kind
		a.Phase = p
		if d := clean(detail); d != "" {
			a.ProblemDetail = d
		}
		return
	}
	if a.ProblemDetail == "" {
		a.ProblemDetail = clean(detail)
		a.Phase = p
	}
}

// refused notes what the CA found wrong with one name. The first of them becomes
// the attempt's own problem.
func (a *attempt) refused(name, kind, detail string) {
	q := Problem{Name: cleanName(name), Type: kind, Detail: clean(detail)}
	for i := range a.Problems {
		if a.Problems[i].Name == q.Name {
			if a.Problems[i].Type == "" {
				a.Problems[i].Type = kind
			}
			if a.Problems[i].Detail == "" {
				a.Problems[i].Detail = q.Detail
			}
			a.fault(PhaseChallenge, kind, detail)
			return
		}
	}
	if len(a.Problems) < maxNames {
		a.Problems = append(a.Problems, q)
	}
	a.fault(PhaseChallenge, kind, detail)
}

// retryAfter notes when the CA allows the next try; the latest counts.
func (a *attempt) retryAfter(at time.Time) {
	if at.After(a.RetryAfter) {
		a.RetryAfter = at.UTC()
	}
}

// hookFailed notes the first hook that failed; code -1: unknown.
func (a *attempt) hookFailed(kind string, code int) {
	if a.Hook == nil {
		a.Hook = &Hook{Kind: kind, ExitCode: code}
	}
}
