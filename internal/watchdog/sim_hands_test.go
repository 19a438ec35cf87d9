package watchdog

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/renewatch/renewatch/internal/reload"
	"github.com/renewatch/renewatch/notify"
	"github.com/renewatch/renewatch/verify"
)

// simProbe is a probe under way.
type simProbe struct {
	gen     int
	ctx     context.Context
	j       job
	done    func(Round)
	c       *simCert
	start   time.Duration
	end     time.Duration // of a Confirm
	fast    time.Duration // when polling was fast
	lag     float64       // of slow polling
	tries   int
	heard   map[*simAddr]Finding // what answered before others
	skipped map[*simPlace]bool   // default endpoints that are not waited for
	over    bool
}

// probe begins a probe: what it finds is what the world is like at its end.
func (w *sim) probe(ctx context.Context, j job, done func(Round)) {
	w.boundary("at the start of a probe")
	i := slices.IndexFunc(w.certs, func(c *simCert) bool { return c.name == j.name })
	p := &simProbe{gen: w.gen, ctx: ctx, j: j, done: done, c: w.certs[i], start: w.t, lag: w.rng.Float64(), skipped: map[*simPlace]bool{}}
	if old := w.probing[j.name]; old != nil {
		w.forget(old)
	}
	w.probing[j.name] = p
	now := w.Now()
	if j.probe.Purpose != Confirm {
		w.after(w.span(20*time.Millisecond, time.Second), func() { w.round(p) })
		return
	}
	p.end = w.t + max(0, j.probe.Until.Sub(now))
	p.fast = w.t - now.Sub(j.probe.Fast)
	for _, t := range j.targets {
		place := w.places[t.told()]
		p.skipped[place] = t.unconfirmed && !slices.ContainsFunc(place.addrs, func(a *simAddr) bool {
			l, down := a.answer()
			return !down && l.cert == p.c
		})
	}
	w.confirms = append(w.confirms, p)
	w.after(p.end-w.t, func() { w.confirm(p) })
	w.after(50*time.Millisecond, func() { w.confirm(p) })
}

func (w *sim) forget(p *simProbe) {
	p.over = true
	w.confirms = slices.DeleteFunc(w.confirms, func(x *simProbe) bool { return x == p })
}

// void reports whether nobody waits for a probe any more.
func (w *sim) void(p *simProbe) bool {
	if !p.over && (p.gen != w.gen || w.k == nil || p.ctx.Err() != nil) {
		w.forget(p)
	}
	return p.over
}

// confirm looks whether a Confirm has ended.
func (w *sim) confirm(p *simProbe) {
	if w.void(p) {
		return
	}
	if w.t >= p.end {
		w.answer(p, 12)
		return
	}
	waits, whole := 0, w.t
	for _, t := range p.j.targets {
		place := w.places[t.told()]
		if !t.Required || p.skipped[place] {
			continue
		}
		for _, a := range place.addrs {
			if !w.clean(p, a) {
				return // until something moves
			}
			waits++
			lag := 200 * time.Millisecond
			if since := a.since - p.fast; since > 10*time.Second {
				lag = max(lag, time.Duration(p.lag*float64(min(since, 30*time.Second))))
			}
			if a.since <= p.start {
				lag = 100 * time.Millisecond
			}
			whole = max(whole, max(a.since, p.start)+lag+p.j.spread+200*time.Millisecond)
		}
	}
	if waits == 0 || w.mute {
		return
	}
	if whole <= w.t {
		w.answer(p, 12)
		return
	}
	w.after(whole-w.t, func() { w.confirm(p) })
}

// clean reports whether every handshake at an address shows the leaf that a probe
// wants, and nothing else is wrong.
func (w *sim) clean(p *simProbe, a *simAddr) bool {
	l, down := a.answer()
	now := w.Now()
	return !down && a.zombie == nil && l.sha == p.j.leaf.SHA256 && l.trusted && !now.After(l.x.NotAfter) && !now.Before(l.x.NotBefore)
}

// round is a try of a routine round: an address that is down is tried three times
// over 30 s.
func (w *sim) round(p *simProbe) {
	if w.void(p) {
		return
	}
	p.tries++
	if p.heard == nil {
		p.heard = map[*simAddr]Finding{}
	}
	again := false
	samples := p.j.probe.Samples
	for _, t := range p.j.targets {
		for _, a := range w.places[t.told()].addrs {
			if _, ok := p.heard[a]; ok {
				continue
			}
			if _, down := a.answer(); down && p.tries < 3 && !w.mute {
				again = true
				continue
			}
			p.heard[a] = w.finding(p, t, a, samples)
		}
	}
	if again {
		w.after(15*time.Second, func() { w.round(p) })
		return
	}
	w.answer(p, samples)
}

// answer ends a probe.
func (w *sim) answer(p *simProbe, samples int) {
	w.forget(p)
	r := Round{ID: p.j.probe.ID, Findings: []Finding{}}
	bad := 0
	for _, t := range p.j.targets {
		place := w.places[t.told()]
		if w.mute {
			r.Findings = append(r.Findings, Finding{Verdict: notify.Verdict{Certificate: p.j.name, Endpoint: t.told(), Server: t.Server, Transport: "tcp", Code: string(verify.Unresolved),
				Faults: []string{string(verify.Unresolved)}, Severity: notify.Error}, Required: t.Required, Default: t.byDefault, Unheard: true})
			bad++
			continue
		}
		first := len(r.Findings)
		down := 0
		for _, a := range place.addrs {
			f, heard := p.heard[a]
			if !heard {
				f = w.finding(p, t, a, samples)
			}
			if f.Code == string(verify.Refused) {
				down++
			}
			if !f.Serving {
				bad++
			}
			r.Findings = append(r.Findings, f)
		}
		if down == len(place.addrs) {
			for i := first; i < len(r.Findings); i++ {
				r.Findings[i].Severity = notify.Critical
			}
		}
	}
	r.Facts = &Facts{SHA256: p.c.disk.sha}
	switch {
	case p.c.gone:
		r.Facts = &Facts{Pair: "missing"}
	case p.c.bad != "":
		r.Facts = &Facts{Pair: string(p.c.bad)}
	case !p.c.disk.trusted:
		r.Facts.Chain = ChainUntrusted
	}
	if why := w.k.impaired.Load(); why != nil {
		r.Impaired = *why
	}
	if bad > 0 || p.j.probe.Purpose == Confirm {
		w.log("probe %d of %s (%s, since %s): %s %s", r.ID, p.j.name, p.j.probe.Purpose, w.t-p.start, simFound(r.Findings), r.Impaired)
	}
	w.probed(p, &r)
	w.inKeeper(func() { p.done(r) })
}

type simFound []Finding

func (fs simFound) String() string {
	var out []string
	for _, f := range fs {
		s := fmt.Sprintf("%s=%s/%s", f.Address, f.Code, f.Severity)
		if f.Unheard {
			s += "/unheard"
		}
		if !f.Required {
			s += "/optional"
		}
		if !f.Serving && f.Code == "serving" {
			s += "/unproven"
		}
		if len(f.Faults) > 1 {
			s += fmt.Sprint(f.Faults)
		}
		out = append(out, s)
	}
	return fmt.Sprint(out)
}

// finding is what one address shows.
func (w *sim) finding(p *simProbe, t target, a *simAddr, samples int) Finding {
	f := Finding{Verdict: notify.Verdict{Certificate: p.j.name, Endpoint: a.place.told, Server: t.Server, Address: a.ip, Transport: "tcp", KeyType: p.j.leaf.KeyType,
		ExpectedSHA256: p.j.leaf.SHA256, Faults: []string{}, Severity: notify.Info, Code: string(verify.Serving)}, Required: t.Required, Default: t.byDefault}
	main, down := a.answer()
	if down {
		f.Code, f.Faults, f.Severity = string(verify.Refused), []string{string(verify.Refused)}, notify.Error
		if a.v6 {
			f.Severity = notify.Warning
		}
		f.Unheard = w.locks && p.c.running
		return f
	}
	faults := map[verify.Code]bool{}
	shown := main
	worst := verify.Info
	add := func(code verify.Code, s verify.Severity) {
		faults[code] = true
		if s.Rank() > worst.Rank() {
			worst = s
		}
	}
	now := w.Now()
	for i := range samples {
		l := main
		if a.zombie != nil && w.rng.IntN(2) == 0 {
			l = a.zombie
		}
		f.Samples++
		if l.sha == p.j.leaf.SHA256 {
			f.Matching++
		} else {
			shown = l
			if l.x.NotBefore.Before(p.j.leaf.NotBefore) {
				add(verify.Stale, simWorse(verify.Warning, verify.ExpirySeverity(l.x, now)))
			} else {
				add(verify.Ahead, verify.Warning)
			}
		}
		if now.After(l.x.NotAfter) {
			add(verify.Expired, verify.Critical)
		}
		if now.Before(l.x.NotBefore) {
			add(verify.NotYetValid, verify.Critical)
		}
		if !l.trusted {
			add(verify.Untrusted, verify.Critical)
		}
		if a.zombie == nil && i == 0 { // they are all alike
			f.Samples = samples
			f.Matching *= samples
			break
		}
	}
	if f.Matching > 0 && f.Matching < f.Samples {
		add(verify.Mixed, verify.Error)
	}
	for _, code := range verify.Codes() {
		if faults[code] {
			f.Faults = append(f.Faults, string(code))
		}
	}
	if len(f.Faults) > 0 {
		f.Code = f.Faults[0]
	}
	f.Severity = notify.Severity(worst)
	f.Serving = f.Matching == f.Samples && len(f.Faults) == 0
	f.Served, f.ServedKeyType, f.Lineage, f.Known = shown.served, p.j.leaf.KeyType, true, true
	if f.Matching > 0 {
		f.Since = w.Now().Add(a.since - w.t)
	}
	if p.j.probe.Purpose == Confirm && (a.zombie != nil || w.t-max(a.since, p.start) < p.j.spread) {
		f.Serving = false // the window was not whole
	}
	if a.edge && a.stuck != nil && !f.Serving {
		f.Local = a.server.loaded[p.c.n].sha == p.j.leaf.SHA256
	}
	if a.place.copies && !f.Serving {
		f.CopyStale = p.c.copied.sha != p.j.leaf.SHA256
	}
	return f
}

func simWorse(a, b verify.Severity) verify.Severity {
	if b.Rank() > a.Rank() {
		return b
	}
	return a
}

// clients tells which runs go on.
func (w *sim) clients(_ context.Context, paths map[string]string, done func(map[string]bool)) {
	gen := w.gen
	w.after(3*time.Millisecond, func() {
		if gen != w.gen {
			return
		}
		running := map[string]bool{}
		for _, c := range w.certs {
			if _, asked := paths[c.name]; asked {
				running[c.name] = c.running
			}
		}
		w.inKeeper(func() { done(running) })
	})
}

// loads lists what a server loads and nobody watches.
func (w *sim) loads(_ context.Context, s reload.Server) []Pair {
	if s.Name != w.servers[0].name {
		return nil
	}
	return []Pair{{Cert: "/nonexistent/stranger.pem", At: "sim.conf:1"}}
}

// advise has no advice: the files are not real.
func (w *sim) ask(context.Context, Question, func(Answered)) {}

func (w *sim) advise(_ context.Context, _ []string, done func()) { w.after(0, done) }

func (w *sim) pairs(_ context.Context, q pairsQuestion, done func([]badPair)) {
	gen := w.gen
	w.after(5*time.Millisecond, func() {
		if gen != w.gen {
			return
		}
		var bad []badPair
		for _, s := range q.servers {
			for _, p := range w.loads(context.Background(), s) {
				if !w.badPairs {
					break
				}
				if simBreaks(w.stranger) {
					bad = append(bad, badPair{Server: s.Name, Path: p.Cert, Sentence: p.Cert + " is " + string(w.stranger)})
				}
			}
		}
		w.inKeeper(func() { done(bad) })
	})
}

// simRun is one reload by the daemon.
type simRun struct {
	server   *simServer
	o        order
	start    time.Duration
	gen      int
	ran      bool // the command was begun
	cut      bool // a kill ended it
	proven   bool
	done     func(runDone)
	finished bool
}

// reload carries a reload out: it reads the files once more, and then reloads.
func (w *sim) reload(_ context.Context, o order, done func(runDone)) {
	w.boundary("before a reload")
	i := slices.IndexFunc(w.servers, func(s *simServer) bool { return s.name == o.server })
	run := &simRun{server: w.servers[i], o: o, gen: w.gen, done: done, start: w.t}
	w.reloadAsked(run)
	w.after(5*time.Millisecond, func() { w.checkPairs(run, false) })
}

func (w *sim) checkPairs(run *simRun, again bool) {
	if run.gen != w.gen || run.finished {
		return
	}
	held := map[string]hold{}
	byPath := func(path string) *simCert {
		if i := slices.IndexFunc(w.certs, func(c *simCert) bool { return c.path == path }); i >= 0 {
			return w.certs[i]
		}
		return nil
	}
	for _, g := range run.o.guards {
		switch c := byPath(g.path); {
		case c.gone:
			held[g.request.ID] = hold{CausePair, "missing", ""}
		case c.bad != "":
			held[g.request.ID] = hold{CausePair, string(c.bad), ""}
		case c.disk.sha != g.leaf:
			held[g.request.ID] = hold{CauseMoving, "the files changed just now", ""}
		}
	}
	if len(held) == 0 {
		other := ""
		for _, p := range run.o.watched {
			if slices.ContainsFunc(run.o.guards, func(g guard) bool { return g.path == p.Cert }) {
				continue
			}
			if c := byPath(p.Cert); c != nil && (c.gone || simBreaks(c.bad)) {
				other = p.Cert
			}
		}
		if w.badPairs && simBreaks(w.stranger) && run.server == w.servers[0] {
			other = "/nonexistent/stranger.pem"
		}
		if other != "" && !again {
			w.after(pairSwap, func() { w.checkPairs(run, true) })
			return
		}
		if other != "" {
			for _, g := range run.o.guards {
				held[g.request.ID] = hold{CauseOtherPair, other + " is at fault", ""}
			}
		}
	}
	if len(held) > 0 {
		w.log("the reload of %s is held: %v", run.server.name, held)
		run.finished = true
		w.inKeeper(func() { run.done(runDone{server: run.server.name, batch: run.o.batch, held: held}) })
		return
	}
	w.inKeeper(func() {
		w.boundary("right before the command")
		w.reloadStarts(run)
		takes := w.span(10*time.Millisecond, 3*time.Second)
		fails := w.chance(run.server.fail) && !w.calm
		if w.chance(0.03) && !w.calm {
			takes, fails = time.Minute, true
		}
		if fails {
			w.log("the reload of %s fails", run.server.name)
		} else {
			w.reloadHappens(run.server, run.o.batch.Step, run)
		}
		w.after(takes, func() { w.reloadEnds(run, !fails) })
	})
}

// reloadHappens lets a server load its files after a while, if it does.
func (w *sim) reloadHappens(s *simServer, step reload.Step, by *simRun) {
	after := w.span(20*time.Millisecond, 2*time.Second)
	if s.slow && w.chance(0.3) && !w.calm {
		after = w.span(2*time.Second, 3*time.Minute)
	}
	switch {
	case s.dead:
		return
	case w.chance(s.lose) && !w.calm:
		w.log("the reload of %s has no effect", s.name)
		return
	case s.needs != "" && step != s.needs && step != reload.Last && !w.calm:
		w.log("the reload of %s has no effect: it needs %s", s.name, s.needs)
		return
	}
	w.after(after, func() {
		if s.dead {
			return
		}
		if by != nil {
			w.healing(by)
		}
		w.load(s)
		if by != nil {
			w.healed(by)
		}
	})
}

func (w *sim) reloadEnds(run *simRun, ok bool) {
	if run.gen != w.gen || run.finished || w.k == nil {
		return
	}
	run.finished = true
	w.inKeeper(func() {
		w.boundary("at the end of a reload")
		w.reloadEnded(run)
		r := runDone{server: run.server.name, batch: run.o.batch}
		r.result.OK, r.result.How, r.result.Took = ok, "unit", w.t-run.start
		if !ok {
			r.result.Detail = "the unit could not be reloaded"
		}
		w.log("the reload of %s has ended: %t", run.server.name, ok)
		run.done(r)
	})
}

// cutReloads takes in that the daemon is dead, and its children with it.
func (w *sim) cutReloads() {
	for _, s := range w.servers {
		if s.running != nil {
			s.running.cut, s.running = true, nil
		}
	}
}

// finishReloads lets the reloads end that run while the daemon stops.
func (w *sim) finishReloads() {
	for _, s := range w.servers {
		run := s.running
		if run == nil || run.finished {
			continue
		}
		if w.chance(0.5) {
			w.reloadEnds(run, true)
		} else {
			run.finished, run.cut, s.running = true, true, nil
			w.inKeeper(func() { run.done(runDone{server: s.name, batch: run.o.batch, cut: true}) })
		}
		if w.k == nil {
			return
		}
	}
}
