package watchdog

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/renewatch/renewatch/notify"
	"github.com/renewatch/renewatch/watch"
)

// simChecks is what is checked of the story, of the reloads, and of what NATS got.
type simChecks struct {
	turned    []time.Duration // when the clock was moved
	stories   map[string]*simStory
	kinds     map[notify.Kind]int
	troubles  map[string][]time.Duration // the daemon's, by cause
	unsaved   bool                       // it told what its state does not hold: the disk was full
	agentSays simTruth
	lastSeq   uint64
	got       map[string]bool // ids that NATS got
	lastGot   uint64
	operator  map[string]notify.Severity // what who reads only alert.* believes is open
	startedAt time.Duration
	tornAt    map[string]time.Duration // by server
	excused   time.Duration
	why       string

	strangerAt time.Duration
	promises   int // how often a promise was looked at while it counted
	reloads    int
	steps      int
}

// simStory is one renewal as events tell it.
type simStory struct {
	id       string
	cert     string
	leaf     string
	detected bool
	ended    notify.Kind
	lost     bool // its state was damaged: nobody knows of it any more
	runs     map[string]int
	cuts     map[string]int
}

func (w *sim) begun() {
	w.stories, w.kinds, w.troubles = map[string]*simStory{}, map[notify.Kind]int{}, map[string][]time.Duration{}
	w.got, w.operator, w.tornAt = map[string]bool{}, map[string]notify.Severity{}, map[string]time.Duration{}
	w.store = simStore{w: w, all: map[string][]byte{}}
	w.book = simBook{w: w, ids: map[string]bool{}}
	for _, c := range w.certs {
		c.name1(c.name)
	}
	w.agentSays.name1(notify.AgentCertificate)
	for _, c := range w.certs {
		w.after(w.between(0, 12*time.Hour), func() { w.clientWakes(c) })
	}
	period := 15 * time.Minute
	if len(w.certs) > 10 {
		period = time.Hour
	}
	var watch func()
	watch = func() {
		for _, c := range w.certs {
			w.weigh(c)
		}
		w.weighAgent()
		w.after(period, watch)
	}
	w.after(period, watch)
	var sizes func()
	sizes = func() { w.checkSizes(); w.after(30*simDay, sizes) }
	w.after(30*simDay, sizes)
	w.start()
	w.trouble()
}

func (w *sim) story(id, cert string) *simStory {
	s := w.stories[id]
	if s == nil {
		s = &simStory{id: id, cert: cert, runs: map[string]int{}, cuts: map[string]int{}}
		w.stories[id] = s
	}
	if s.cert != cert {
		w.fail("the renewal %s is told of %s and of %s", id, s.cert, cert)
	}
	return s
}

func (w *sim) certOf(name string) *simCert {
	for _, c := range w.certs {
		if c.name == name {
			return c
		}
	}
	return nil
}

// journaled checks every event as it gets its place.
func (w *sim) journaled(d notify.Draft, e notify.Event) {
	w.kinds[d.Kind]++
	level := ""
	if d.Data.Alert != nil {
		level = " alert " + d.Data.Alert.ID[:6]
		if d.Data.Alert.Reminder {
			level += " (reminder)"
		}
	}
	w.log("EVENT %s %s %.6s%s %s: %s", d.Certificate, d.Kind, d.Data.RenewalID, level, d.Data.Cause, d.Data.Detail)
	w.lastSeq++
	if e.Sequence != fmt.Sprintf("%020d", w.lastSeq) {
		w.fail("the sequence is %s where it should be %d", e.Sequence, w.lastSeq)
	}
	if d.Certificate == notify.AgentCertificate {
		w.journaledAgent(d)
		return
	}
	c := w.certOf(d.Certificate)
	if c == nil {
		w.fail("an event of %q, which is no certificate", d.Certificate)
		return
	}
	class, _, _ := strings.Cut(string(d.Kind), ".")
	switch class {
	case "alert":
		w.weigh(c)
		w.alerted(&c.simTruth, d, func() { w.causeOf(c, d) })
		if c.open >= 2 && w.chance(0.7) && !w.calm {
			w.after(w.span(2*time.Minute, 8*time.Hour), func() {
				if c.open > 0 {
					w.mend(c)
				}
			})
		}
	case "renewal", "deploy":
		w.toldOf(c, d)
	case "file":
		switch {
		case d.Kind == notify.FileBroken && c.toldBroken:
			w.fail("file.broken twice")
		case d.Kind == notify.FileRecovered && !c.toldBroken:
			w.fail("file.recovered, and it was not broken")
		case d.Kind == notify.FileRemoved && c.toldGone:
			w.fail("file.removed twice")
		}
		c.toldBroken = d.Kind == notify.FileBroken
		c.toldGone = d.Kind == notify.FileRemoved
		if c.toldGone && c.toldDeploy != "" {
			c.toldDeploy = notify.DeployUnverified
		}
	case "expiry":
		key := d.Leaf + string(d.Kind)
		if w.t-c.expiries[key] < simDay && c.expiries[key] != 0 && w.t-c.torn > simYear/365 {
			w.fail("%s is said twice of leaf %.12s within a day", d.Kind, d.Leaf)
		}
		c.expiries[key] = w.t
	case "reload":
		if d.Data.Reload == nil || d.Data.RenewalID == "" {
			w.fail("%s without its server or its renewal", d.Kind)
		}
		s := w.story(d.Data.RenewalID, c.name)
		if d.Kind == notify.ReloadFailed && strings.HasPrefix(d.Data.Detail, "renewatch was stopped") {
			s.cuts[d.Data.Reload.Server]++
		}
	}
}

// toldOf checks that the events of a renewal make sense in their order.
func (w *sim) toldOf(c *simCert, d notify.Draft) {
	if d.Data.RenewalID == "" {
		w.fail("%s without a renewal", d.Kind)
		return
	}
	switch d.Kind {
	case notify.RenewalOverdue:
		w.overdue(c, d)
		return
	case notify.RenewalAttempted, notify.RenewalFailed:
		w.tried(c, d)
		return
	}
	s := w.story(d.Data.RenewalID, c.name)
	if s.leaf == "" {
		s.leaf = d.Leaf
	}
	switch d.Kind {
	case notify.RenewalDetected:
		if s.detected || s.ended != "" {
			w.fail("renewal.detected comes late or twice")
		}
		s.detected = true
		c.detected = d.Leaf
		w.joined(c, d)
		return
	case notify.DeployVerified, notify.DeployFailed, notify.DeployUnverified, notify.DeploySuperseded:
		if s.ended != "" {
			w.fail("a second end of the renewal %s: %s after %s", s.id, d.Kind, s.ended)
		}
		if !s.detected && d.Data.Previous != nil && d.Data.Previous.Serial == "" {
			w.fail("a renewal ends that was not detected")
		}
		s.ended = d.Kind
		c.detected = d.Leaf
		if d.Kind == notify.DeployVerified && w.now.Sub(d.Time) < 5*time.Second {
			w.checkServed(c, d.Leaf)
		}
	case notify.DeployRecovered:
		if c.toldDeploy != notify.DeployFailed && c.toldDeploy != notify.DeployLost {
			w.fail("deploy.recovered after %s", c.toldDeploy)
		}
		if w.now.Sub(d.Time) < 5*time.Second {
			w.checkServed(c, d.Leaf)
		}
	case notify.DeployLost:
		if c.toldDeploy != notify.DeployVerified && c.toldDeploy != notify.DeployRecovered && c.toldDeploy != notify.DeployUnverified {
			w.fail("deploy.lost after %s", c.toldDeploy)
		}
	}
	if d.Kind == notify.DeploySuperseded {
		return
	}
	if d.Kind != notify.DeployFailed && w.now.Sub(d.Time) > 5*time.Second {
		c.failedAt = 0
	}
	c.toldDeploy = d.Kind
	c.failedAt = 0
	if d.Kind == notify.DeployFailed {
		c.failedAt = w.t
	}
	if d.Kind == notify.DeployVerified || d.Kind == notify.DeployRecovered {
		w.prove(c)
	}
}

// overdue checks that a renewal that is said to be overdue is, and that it is said
// once.
func (w *sim) overdue(c *simCert, d notify.Draft) {
	leaf := d.Data.Certificate
	if left, limit := leaf.NotAfter.Sub(d.Time), margin(*leaf)*85/100; left > limit {
		w.fail("a renewal of %s is called overdue %s before the end, and should not before %s", c.name, left, limit)
	}
	if c.overdue == leaf.SHA256 {
		w.fail("the renewal of %s is called overdue twice", c.name)
	}
	c.overdue = leaf.SHA256
}

// checkServed makes sure that what is said to be served is.
func (w *sim) checkServed(c *simCert, leaf string) {
	n := 0
	for _, p := range c.places {
		for _, a := range p.addrs {
			if !p.required || p.byDef && !p.seen || w.placeSilenced(p) {
				continue
			}
			l, down := a.answer()
			if w.t-a.since < 3*time.Second {
				return // it moved right now
			}
			if down || l.sha != leaf || a.zombie != nil {
				w.fail("%s is said to be served, and %s of %s does not", c.name, a.ip, p.told)
			}
			n++
		}
	}
}

// observed notes what the watcher told the daemon.
func (w *sim) observed(c *simCert, o watch.Observation) {
	if o.Pair == nil {
		return
	}
	c.toldGone = false
	l := c.disk
	if c.log.seen == nil {
		c.log.seen = map[string]bool{}
	}
	c.log.seen[l.sha] = true
	c.log.sights++
	if c.newest == nil || l.from > c.newest.from {
		c.seenAt = w.t
		if c.newest != nil && w.k != nil && !w.store.full && !w.book.full {
			w.after(time.Minute, func() {
				if w.excused <= c.seenAt && c.disk == l && c.detected != l.sha && !c.left && !w.inExcuse() {
					w.fail("leaf %d of %s lies on disk for a minute, and no renewal was detected", l.n, c.name)
				}
			})
		}
		c.newest = l
	}
}

// probed sees what a probe found.
func (w *sim) probed(p *simProbe, r *Round) {
	w.steps++
	all, any := true, false
	for _, f := range r.Findings {
		place := w.places[f.Endpoint]
		if place.byDef && f.Lineage && !place.seen {
			place.seen = true
			w.weigh(p.c)
		}
		if f.Required && !f.Serving && f.Code != "unresolved" {
			all = false
		}
		any = any || f.Serving
	}
	if all && any {
		w.prove(p.c)
	}
}

// prove: serving followed the reloads for a certificate.
func (w *sim) prove(c *simCert) {
	for _, s := range w.servers {
		for _, run := range s.runs {
			if w.t-run.start > simDay {
				continue
			}
			for _, r := range run.o.batch.Requests {
				if r.Certificate == c.name {
					run.proven = true
				}
			}
		}
	}
}

// reloadAsked checks whether a reload may be made at all.
func (w *sim) reloadAsked(run *simRun) {
	s := run.server
	now := w.Now()
	if !w.policy.Repair {
		w.fail("a reload of %s with --no-repair", s.name)
	}
	outside := len(s.window) > 0 && !s.window.Open(now)
	for _, r := range run.o.batch.Requests {
		c := w.certOf(r.Certificate)
		switch {
		case w.quiet(c) != nil:
			w.fail("a reload of %s for %s, which is silenced", s.name, c.name)
		case c.toldBroken && c.sight() != c.disk.sha: // the watcher may not have told yet that they are sound
			w.fail("a reload of %s for %s, whose files are broken", s.name, c.name)
		case c.toldGone:
			w.fail("a reload of %s for %s, which was removed", s.name, c.name)
		}
		if l := s.loaded[c.n]; l != nil && c.disk.from < l.from && !now.After(l.x.NotAfter) && w.steady(c, s) {
			w.fail("a reload of %s would put leaf %d of %s live instead of %d", s.name, c.disk.n, c.name, l.n)
		}
		if outside && !w.urgent(c, s) {
			w.fail("a reload of %s for %s outside of its window", s.name, c.name)
		}
		if c.newest == nil || w.recently(w.turned, time.Hour+w.policy.Grace) {
			continue
		}
		since := w.t - c.seenAt
		if since < w.policy.Grace && c.disk == c.newest {
			w.fail("a reload of %s for %s %s after its files came", s.name, c.name, since)
		}
		if w.locks && c.running && c.wrote && since < time.Hour-time.Second && w.t-c.runFrom >= since {
			w.fail("a reload of %s for %s, whose client runs", s.name, c.name)
		}
	}
}

// steady reports whether what a server has of a certificate has been the same for
// some time.
func (w *sim) steady(c *simCert, s *simServer) bool {
	for _, p := range c.places {
		for _, a := range p.addrs {
			if a.server == s && w.t-a.since < 2*time.Minute {
				return false
			}
		}
	}
	return w.t-c.changed > 2*time.Minute
}

// urgent reports whether an address of a server shows a leaf that has ended or is
// about to.
func (w *sim) urgent(c *simCert, s *simServer) bool {
	now := w.t + w.offset
	for _, p := range c.places {
		for _, a := range p.addrs {
			if a.server != s {
				continue
			}
			if w.t-a.since < 2*time.Minute {
				return true // it was different a moment ago
			}
			l, down := a.answer()
			for _, l := range []*simLeaf{l, a.zombie} {
				if !down && l != nil && l != c.disk && simUrgency(l, now) == 3 {
					return true
				}
			}
		}
	}
	return false
}

func (w *sim) recently(at []time.Duration, d time.Duration) bool {
	return len(at) > 0 && w.t-at[len(at)-1] < d
}

// reloadStarts checks the limits: the command begins.
func (w *sim) reloadStarts(run *simRun) {
	s := run.server
	w.reloads++
	w.log("RELOAD %d of %s, %s, for %d", run.o.batch.Run, s.name, run.o.batch.Step, len(run.o.batch.Requests))
	if s.running != nil {
		w.fail("two reloads of %s at once", s.name)
	}
	torn, damaged := w.tornAt[s.name]
	unproven := 1
	for _, old := range s.runs {
		if d := run.start - old.start; d < time.Minute && !(damaged && torn > old.start) && !w.clockAndStart(old.start) {
			w.fail("%s is reloaded %s after the last time", s.name, d)
		}
		if run.start-old.start < simDay && !old.proven {
			unproven++
		}
	}
	if unproven > 6 && !(damaged && w.t-torn < simDay) && !w.recently(w.turned, 4*simDay) {
		w.fail("%s had %d reloads within a day that proved nothing", s.name, unproven)
	}
	for _, r := range run.o.batch.Requests {
		story := w.story(r.RenewalID, r.Certificate)
		if story.runs[s.name]++; story.runs[s.name] > maxAttempts+min(1, story.cuts[s.name]) && !story.lost {
			w.fail("%s is reloaded for the %d. time for one renewal of %s", s.name, story.runs[s.name], r.Certificate)
		}
	}
	run.ran = true
	s.running = run
	s.runs = append(s.runs, run)
	if n := len(s.runs); n > 64 {
		s.runs = slices.Clone(s.runs[n-64:])
	}
}

// clockAndStart reports whether the clock was moved and the daemon started anew
// since: then nobody can know how long ago something was.
func (w *sim) clockAndStart(since time.Duration) bool {
	return w.startedAt >= since && len(w.turned) > 0 && w.turned[len(w.turned)-1] >= since
}

func (w *sim) reloadEnded(run *simRun) {
	if run.server.running == run {
		run.server.running = nil
	}
}

func (w *sim) started() {
	w.startedAt = w.t
	w.excuse("start")
}

func (w *sim) stopped() {
	if w.unsaved {
		w.torn(agentFile)
	}
	w.excuse("stop")
}

// torn: what a damaged file told is not known any more.
func (w *sim) torn(name string) {
	if name == agentFile {
		w.troubles = map[string][]time.Duration{}
		w.agentSays.forget(w.t)
		delete(w.operator, notify.AgentCertificate)
	}
	for _, s := range w.servers {
		if name == w.serverFile(s) {
			w.tornAt[s.name] = w.t
		}
	}
	for _, c := range w.certs {
		if name == "certificates/"+notify.Token(c.name)+".json" {
			for _, s := range w.stories {
				if s.cert == c.name && s.ended == "" {
					s.lost = true
				}
			}
			c.toldDeploy, c.overdue, c.toldBroken, c.toldGone, c.newest, c.failedAt = "", "", false, false, nil, 0
			c.forget(w.t)
			for _, p := range c.places {
				p.seen = false
			}
			delete(w.operator, c.name)
		}
	}
}

func (w *sim) serverFile(s *simServer) string { return "servers/" + notify.Token(s.name) + ".json" }

// delivered is what NATS got.
func (w *sim) delivered(e notify.Event) {
	if w.got[e.ID] {
		return
	}
	w.got[e.ID] = true
	w.lastGot++
	if e.Sequence != fmt.Sprintf("%020d", w.lastGot) {
		w.fail("NATS got %s after %d", e.Sequence, w.lastGot-1)
	}
	switch e.Kind() {
	case notify.AlertCritical, notify.AlertError, notify.AlertWarning:
		w.operator[e.Subject] = e.Data.Severity
	case notify.AlertCleared:
		delete(w.operator, e.Subject)
	}
}

// checkSizes makes sure that nothing that is remembered grows without bound.
func (w *sim) checkSizes() {
	for name, data := range w.store.all {
		if len(data) > 96<<10+2048*len(w.certs) && !w.book.full {
			w.fail("%s has grown to %d bytes", name, len(data))
		}
	}
	if w.k != nil && len(w.k.wakes) > 200+50*len(w.certs) {
		w.fail("%d wakes wait for %d certificates", len(w.k.wakes), len(w.certs))
	}
	if w.k != nil && (len(w.k.inGrace) > len(w.certs) || len(w.k.retry) > 100+10*len(w.certs)) {
		w.fail("%d tasks are to be tried again", len(w.k.retry))
	}
}

// finish checks what must hold in the end, in a world that has healed.
func (w *sim) finish() {
	for _, s := range w.stories {
		if s.ended == "" && !s.lost {
			w.fail("the renewal %s of %s (leaf %.12s) has no end", s.id, s.cert, s.leaf)
			return
		}
	}
	for _, c := range w.certs {
		w.allTold(c)
		if s := w.k.certs[c.name]; s == nil {
			w.fail("%s is not kept", c.name)
		} else if want := Verified; s.state.Standing != want && !(s.state.Standing == Unverified && (c.unwatched || c.places[0].byDef && !c.places[0].seen)) {
			w.fail("%s is %q in a good world", c.name, s.state.Standing)
		}
	}
	for name, level := range w.operator {
		w.fail("an operator who reads only alert.* believes that %s is %s", name, level)
	}
	if w.lastGot != w.book.events {
		w.fail("NATS got %d of %d events", w.lastGot, w.book.events)
	}
	w.checkSizes()
}
