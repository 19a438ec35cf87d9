package acmelog

import (
	"strings"
	"time"
)

// processing: certbot renew takes up a lineage.
func (d *certbot) processing(l *line, at time.Time, g *ledger, path string) {
	base, name, ok := certbotConf(path)
	if !ok {
		return
	}
	d.flush(g)
	if d.form != certbotLog {
		if a := d.run.early[name]; a != nil { // stderr came before stdout
			delete(d.run.early, name)
			d.cur, d.muted, d.late = nil, true, a
			return
		}
		if d.run.done[name] { // nothing else tells where the stdout of a run ends
			d.newRun(l, at, g)
		}
	}
	a := d.begin(l, at, g)
	a.Phase = PhaseCheck
	a.lineage(name)
	d.dealt(name)
	d.run.base, d.run.renewing, d.file.retry = base, true, time.Time{}
	d.muted, d.late = false, nil
}

// certbotConf takes the path of a lineage's configuration apart.
func certbotConf(path string) (base, name string, ok bool) {
	dir, file, ok := cutLast(path, "/renewal/")
	name, is := strings.CutSuffix(file, ".conf")
	return dir, name, ok && is && name != "" && strings.HasPrefix(path, "/") && !strings.Contains(file, "/")
}

// cutLast is strings.Cut around the last instance.
func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// orders: certbot asks the CA for a certificate.
func (d *certbot) orders(l *line, at time.Time, g *ledger, names string, dry bool) {
	d.flush(g)
	if a := d.run.early[""]; a != nil && d.cur == nil && !d.muted {
		delete(d.run.early, "")
		d.muted, d.late = true, a
	}
	if a := d.late; d.muted && a != nil {
		a.DryRun = a.DryRun || dry
		summarised(a, names)
		g.amend(a)
	}
	if d.muted {
		return
	}
	a := d.cur
	if a != nil && a.Phase.rank() >= PhaseOrder.rank() {
		if a.Phase.rank() < PhaseIssued.rank() {
			d.settle(g, a, false, time.Time{})
		}
		a = nil
	}
	if a == nil {
		a = d.begin(l, at, g)
		if d.run.asked != "" {
			a.lineage(d.run.asked)
		}
	}
	a.hear(at)
	a.DryRun = a.DryRun || dry
	a.reach(PhaseOrder)
	if names != "" {
		summarised(a, names)
	} else {
		a.name(d.run.names...)
	}
	d.file.answered, d.file.retry = false, time.Time{}
	d.skipFree = false
}

// challenges: the CA wants proof. Where only stderr was kept, that may be the first
// that is heard of an attempt.
func (d *certbot) challenges(l *line, at time.Time, g *ledger, src certbotSource) {
	if a := d.cur; a != nil && a.Phase.rank() < PhaseFinalize.rank() {
		a.hear(at)
		a.reach(PhaseChallenge)
		return
	}
	if src&fromTerminal != 0 && !d.muted {
		d.begin(l, at, g).reach(PhaseChallenge)
	}
}

// due: the certificate is renewed. The CA may have been asked about that already.
func (d *certbot) due(at time.Time) {
	if a := d.cur; a != nil && a.Phase.rank() < PhaseOrder.rank() {
		a.hear(at)
		a.Phase = PhaseStart
	}
}

// skip: the certificate is not due. certbot certonly says so up to three times.
func (d *certbot) skip(l *line, at time.Time, g *ledger, again bool) {
	if again && d.skipFree || d.muted {
		return
	}
	d.flush(g)
	a := d.cur
	if a == nil || a.Phase.rank() >= PhaseOrder.rank() {
		a = d.begin(l, at, g)
		switch {
		case d.run.asked != "":
			a.lineage(d.run.asked)
		case d.file.asked != "":
			a.lineage(d.file.asked)
		}
		a.name(d.run.names...)
		d.skipFree = true
	}
	d.file.asked = ""
	a.hear(at)
	d.cur = nil
	g.finish(a, Skipped, at)
}

// received: certbot certonly or run says that it has a certificate.
func (d *certbot) received(l *line, at time.Time, g *ledger, src certbotSource) {
	a := d.cur
	if src&fromTerminal == 0 {
		return // the storage has said so, or it is not true
	}
	if late := d.late; a == nil && late != nil { // what failed came after it
		late.Outcome = Issued
		late.reach(PhaseIssued)
		d.run.issued = append(d.run.issued, late)
		d.late = nil
		g.amend(late)
		return
	}
	if a == nil {
		a = d.begin(l, at, g)
		a.Doubtful = true
	}
	a.Doubtful = a.Doubtful || a.ProblemType != "" || a.ProblemDetail != ""
	a.hear(at)
	a.reach(PhaseIssued)
}

// keeps: certbot says that a file was saved.
func (d *certbot) keeps(path string) {
	a := d.cur
	if a == nil && d.muted && d.form != certbotLog {
		a = d.lately()
	}
	if a == nil || a.DryRun {
		return
	}
	switch {
	case d.form != certbotLog:
		d.wrote(a, path)
	case d.run.csr: // there is no lineage, and no word of the storage
		a.Doubtful = a.Doubtful || !d.file.answered
		a.saved(path)
	}
}

// thanks: certbot certonly or run is through with the certificate; an installer may
// still have its turn.
func (d *certbot) thanks(g *ledger, at time.Time) {
	if a := d.cur; a != nil && a.Phase.rank() >= PhaseIssued.rank() {
		d.settle(g, a, true, at)
	}
}

func (d *certbot) drySuccess(l *line, at time.Time, g *ledger) {
	a := d.cur
	if a == nil {
		a = d.begin(l, at, g)
		a.Doubtful = true
	}
	a.hear(at)
	a.DryRun = true
	a.reach(PhaseIssued)
	d.settle(g, a, true, at)
}

// lately is the attempt that what is said of a certificate after its issue is about.
func (d *certbot) lately() *attempt {
	if d.cur != nil {
		return d.cur
	}
	if n := len(d.run.issued); n > 0 {
		return d.run.issued[n-1]
	}
	return nil
}

// rehearsed: before 1.11 certbot renew says at its end that it was a dry run.
func (d *certbot) rehearsed(g *ledger) {
	d.run.dry = true
	for _, a := range g.open {
		a.DryRun, a.Saved = true, nil
		if a.Phase.rank() > PhaseIssued.rank() {
			a.Phase = PhaseIssued
		}
	}
}

// installed: certbot run says that the server uses the certificate.
func (d *certbot) installed(g *ledger, at time.Time) {
	a := d.lately()
	if a == nil || a.DryRun {
		return
	}
	if a == d.cur && d.form != certbotLog && a.Phase.rank() >= PhaseOrder.rank() && a.Phase.rank() < PhaseIssued.rank() {
		a.reach(PhaseIssued) // before 1.16 the files are told at the end
		a.Activated = true
		a.reach(PhaseActivated)
		return
	}
	if a.Phase.rank() < PhaseIssued.rank() {
		return
	}
	a.Activated = true
	a.reach(PhaseActivated)
	if a == d.cur {
		d.settle(g, a, true, at)
		return
	}
	g.amend(a)
}

// hookFailed: a hook, a reload or an installer failed.
func (d *certbot) hookFailed(g *ledger, at time.Time, kind string, code int, terminal bool) {
	switch kind {
	case "pre":
		if d.cur == nil {
			d.run.pre = &Hook{Kind: kind, ExitCode: code}
			return
		}
		d.cur.hear(at)
		d.cur.hookFailed(kind, code)
	case "post": // it runs once, for all
		for _, a := range g.open {
			if a == d.cur || a.Phase.rank() >= PhaseIssued.rank() {
				a.hookFailed(kind, code)
			}
		}
		for _, a := range d.run.issued {
			late(g, a, kind, code)
		}
	default:
		a := d.lately()
		if a == nil {
			if terminal && d.run.orphan == nil {
				d.run.orphan = &Hook{Kind: kind, ExitCode: code}
			}
			return
		}
		if terminal && a == d.cur && !a.DryRun {
			a.reach(PhaseSaved) // it runs when the files are written
		}
		if a == d.cur {
			a.hear(at)
			a.hookFailed(kind, code)
			return
		}
		late(g, a, kind, code)
	}
}

// late notes a hook that failed after the attempt had ended.
func late(g *ledger, a *attempt, kind string, code int) {
	if a.Hook == nil {
		a.hookFailed(kind, code)
		a.Phase = PhaseHook
		g.amend(a)
	}
}

// listed reads a line of a run's summary.
func (d *certbot) listed(l *line, at time.Time, g *ledger, src certbotSource, text string) bool {
	item, ok := strings.CutPrefix(text, "  /")
	if !ok {
		return false
	}
	path, what, ok := cutLast("/"+item, " (")
	if !ok {
		return false
	}
	path = strings.TrimSpace(path)
	switch {
	case d.list == listSuccess && what == "success)" && src&(fromDisplay|fromTerminal) != 0:
		d.succeeded(l, at, g, path)
	case d.list == listFailure && what == "failure)":
		if _, name, ok := certbotLineage(path); ok && !d.run.lost[name] {
			d.fails(l, at, g, name, "", src)
		}
	case d.list == listSkipped && what == "skipped)":
		path, _, _ = cutLast(path, " expires on ")
		if _, name, ok := certbotLineage(path); ok {
			if a := d.find(g, name); a != nil && a.Phase == PhaseCheck {
				d.cur = a
				d.skip(l, at, g, false)
			}
		}
	case d.list == listBroken && what == "parsefail)":
		d.broken(l, at, g, path, "")
	default:
		return false
	}
	return true
}

// find returns the open attempt of a lineage.
func (d *certbot) find(g *ledger, name string) *attempt {
	name = clean(name)
	for i := len(g.open) - 1; i >= 0; i-- {
		if g.open[i].Lineage == name {
			return g.open[i]
		}
	}
	return nil
}

// succeeded: the summary lists a lineage as renewed.
func (d *certbot) succeeded(l *line, at time.Time, g *ledger, path string) {
	_, name, ok := certbotLineage(path)
	if !ok {
		return
	}
	a := d.find(g, name)
	switch {
	case a == nil && (d.run.done[name] || d.form == certbotLog && !d.run.begun):
		return // told before, or in the file before this one
	case a == nil:
		a = d.begin(l, at, g)
		a.Doubtful = true
		a.lineage(name)
		d.dealt(name)
	}
	a.hear(at)
	a.DryRun = a.DryRun || d.run.dry
	switch {
	case a.DryRun:
		a.reach(PhaseIssued)
	case d.form != certbotLog:
		a.Doubtful = a.Doubtful || a.ProblemType != "" || a.ProblemDetail != ""
		if !d.wrote(a, path) {
			a.reach(PhaseIssued)
		}
	default:
		a.reach(PhaseIssued) // if the storage has not said so, settle doubts it
	}
	if d.form != certbotLog {
		d.settle(g, a, d.wholly, at)
	}
}
