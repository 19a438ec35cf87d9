package watchdog

import (
	"slices"
	"time"

	"github.com/renewatch/renewatch/notify"
)

// simTruth is what is true of one certificate, by rules of its own that know
// nothing of the keeper's, and what alerts say of it.
type simTruth struct {
	name string
	// may is the worst that may be said now, must the worst that must be once it
	// has lasted as long as is promised: 0 nothing to 3 critical.
	may, must int
	lastMay   [4]time.Duration // when so much could be said last
	mustSince [4]time.Duration // -1: it need not be said
	below     [4]time.Duration // since when less than that is true; -1: it is not
	badSince  time.Duration    // of the files; -1: they are sound
	quietAt   time.Duration    // last silenced
	torn      time.Duration    // when its state was damaged

	// What was told.
	open          int
	alertID       string
	ids           map[string]bool
	raisedAt      time.Duration // to the present level
	critAt        time.Duration // the last time critical was raised; -1: never
	toldAt        time.Duration
	clearedAt     time.Duration
	clearedAsleep time.Duration
	toldBroken    bool
	overdue       string // the leaf whose renewal was called overdue
	toldGone      bool
	toldDeploy    notify.Kind
	failedAt      time.Duration
	expiries      map[string]time.Duration
	detected      string
	seenAt        time.Duration
	silencedAt    time.Duration
	wasStale      bool
}

func (t *simTruth) name1(name string) {
	t.name = name
	t.ids, t.expiries = map[string]bool{}, map[string]time.Duration{}
	for r := range 4 {
		t.lastMay[r], t.mustSince[r], t.below[r] = -simYear, -1, -1
	}
	t.badSince, t.critAt, t.torn, t.quietAt = -1, -simYear, -simYear, -simYear
}

// forget: the daemon's state was damaged, so it cannot know what it told.
func (t *simTruth) forget(now time.Duration) {
	t.open, t.alertID, t.torn, t.clearedAt = 0, "", now, -simYear
}

// simUrgency says how bad it is that a leaf is in use at a time.
func simUrgency(l *simLeaf, now time.Duration) int {
	life := l.to - l.from
	margin := life / 3
	if life < 10*simDay {
		margin = life / 2
	}
	left := float64(l.to-now) / float64(margin)
	switch {
	case left < 0.3:
		return 3
	case left < 0.6:
		return 2
	case left < 0.85:
		return 1
	}
	return 0
}

// quiet returns the silence of a whole certificate that is in force.
func (w *sim) quiet(c *simCert) *simSilence {
	now := w.Now()
	var found *simSilence
	for i, x := range w.silenced {
		if (x.All || c != nil && x.Certificate == c.name) && x.inForce(now) && (found == nil || x.Force) {
			found = &w.silenced[i]
		}
	}
	return found
}

// placeSilenced reports whether an endpoint is.
func (w *sim) placeSilenced(p *simPlace) bool {
	return slices.ContainsFunc(w.silenced, func(x simSilence) bool { return x.told == p.told && x.inForce(w.Now()) })
}

func (w *sim) placeForced(p *simPlace) bool {
	return slices.ContainsFunc(w.silenced, func(x simSilence) bool { return x.told == p.told && x.Force && x.inForce(w.Now()) })
}

// truth is what is so at this moment.
func (w *sim) truth(c *simCert) (may, must int, expired bool) {
	if c.gone || c.left {
		return 0, 0, false
	}
	say := func(m, n int) { may, must = max(may, m), max(must, n) }
	if c.bad != "" {
		if c.badSince < 0 {
			c.badSince = w.t
		}
		say(2, 0)
		if w.t-c.badSince > 2*time.Minute {
			say(2, 2)
		}
		if simBreaks(c.bad) && w.t-c.badSince > 590*time.Second {
			say(3, 0)
			if w.t-c.badSince > 11*time.Minute {
				say(3, 3)
			}
		}
	} else {
		c.badSince = -1
	}
	// A leaf on disk that nobody renewed; but where an older one was put back and
	// a newer one is served, it is only that.
	u := simUrgency(c.disk, w.t)
	reverted := c.newest != nil && c.disk.from < c.newest.from
	ahead, live, counted := true, c.unwatched, false
	expired = w.t > c.disk.to
	defer func() {
		if reverted {
			say(1, 0)
			if c.bad == "" {
				say(1, 1)
			}
		}
		if reverted && ahead && counted {
			return
		}
		say(u, 0)
		if c.bad == "" && (!reverted || live) {
			say(u, u)
		}
	}()
	for _, p := range c.places {
		if !p.required || p.byDef && !p.seen {
			continue
		}
		hushed, forced := w.placeSilenced(p), w.placeForced(p)
		down := 0
		for _, a := range p.addrs {
			l, isDown := a.answer()
			counted = true
			ahead = ahead && !isDown && l.from > c.disk.from && a.zombie == nil
			live = live || l == c.disk
			if isDown {
				down++
				if !hushed {
					say(2, 1)
				}
				if hushed || w.locks && c.running {
					must = min(must, must)
				}
				continue
			}
			gone := w.t > l.to || a.zombie != nil && w.t > a.zombie.to
			if hushed && (forced || !gone) {
				continue
			}
			switch {
			case w.t > l.to:
				say(3, 3)
				expired = true
			case !l.trusted:
				say(3, 3)
			case l == c.disk:
				say(u, 0)
			case l.from < c.disk.from:
				say(max(2, simUrgency(l, w.t)), max(1, simUrgency(l, w.t)))
			default:
				say(2, 0)
			}
			if z := a.zombie; z != nil {
				say(max(2, simUrgency(z, w.t)), 0)
				if !z.trusted {
					say(3, 0)
				}
				expired = expired || w.t > z.to
			}
		}
		if down == len(p.addrs) && !hushed {
			say(3, 3)
		}
	}
	if c.unwatched {
		return may, must, expired
	}
	return may, must, expired
}

// excuse: for a while nobody can be expected to know.
func (w *sim) excuse(why string) { w.excused, w.why = w.t, why }

// inExcuse reports whether nobody can be expected to know just now.
func (w *sim) inExcuse() bool {
	off := w.offset
	return w.k == nil || off > 20*time.Second || off < -20*time.Second || w.store.full || w.book.full || w.mute ||
		w.Now().Add(50*time.Second).Before(w.book.newest)
}

// weigh takes in what is true of a certificate now and holds the alerts against it.
func (w *sim) weigh(c *simCert) {
	may, must, expired := w.truth(c)
	q := w.quiet(c)
	if q != nil && (q.Force || !expired) {
		c.quietAt = w.t
	}
	w.hold(&c.simTruth, may, must, w.promise(), w.clearing())
}

// promise is how long something may be wrong before it is said: the routine
// round, the two checks, the quarter of an hour in which a reload may heal it,
// and the hour of a client that runs.
func (w *sim) promise() time.Duration {
	p := w.every*11/10 + 16*time.Minute + 5*time.Minute
	if w.locks {
		p += time.Hour
	}
	return p
}

// clearing is how long something may be good before that is said.
func (w *sim) clearing() time.Duration {
	return 10*time.Minute + 5*time.Minute + 4*time.Minute + w.policy.Grace
}

func (w *sim) hold(t *simTruth, may, must int, promise, clearing time.Duration) {
	for r := 1; r <= 3; r++ {
		if may >= r || t.may >= r {
			t.lastMay[r] = w.t
		}
		switch {
		case must < r:
			t.mustSince[r] = -1
		case t.mustSince[r] < 0:
			t.mustSince[r] = w.t
		}
		switch {
		case may >= r:
			t.below[r] = -1
		case t.below[r] < 0:
			t.below[r] = w.t
		}
	}
	t.may, t.must = may, must
	if w.inExcuse() {
		w.excuse("trouble of its own")
		return
	}
	if w.t == t.raisedAt {
		return // what is left of it may follow
	}
	for r := 1; r <= 3; r++ {
		if since := max(t.mustSince[r], w.excused, t.quietAt); t.mustSince[r] >= 0 {
			w.promises++
			if w.t-since > promise && t.open < r {
				w.fail("%s is at least %s since %s, and the alert is %s", t.name, simLevel(r), w.t-since, simLevel(t.open))
			}
			if r == t.open && w.t-max(since, t.toldAt) > simDay+promise && w.t-t.toldAt > simDay+promise {
				w.fail("%s: nobody is reminded since %s", t.name, w.t-t.toldAt)
			}
		}
		if since := max(t.below[r], w.excused); t.below[r] >= 0 && t.open >= r && w.t-max(since, t.raisedAt) > clearing {
			w.fail("%s is at most %s since %s, and the alert is still %s", t.name, simLevel(may), w.t-since, simLevel(t.open))
		}
	}
}

func simLevel(r int) string { return [...]string{"good", "warning", "error", "critical"}[r] }

// alerted checks an alert event against the ones before and against the truth.
func (w *sim) alerted(t *simTruth, d notify.Draft, cause func()) {
	a := d.Data.Alert
	if a == nil {
		w.fail("%s without its alert", d.Kind)
		return
	}
	if by := w.Now().Sub(d.Time); by > 0 && by < simYear {
		defer func() { t.toldAt -= by; t.clearedAt = min(t.clearedAt, t.toldAt) }()
	}
	late := w.Now().Sub(d.Time) > 5*time.Second || d.Time.Sub(w.Now()) > 5*time.Second
	turned := len(w.turned) > 0 && w.turned[len(w.turned)-1] > max(t.toldAt, t.clearedAt)-simDay
	level := d.Data.Severity.Rank()
	if d.Kind == notify.AlertCleared {
		if t.open == 0 && w.t-t.torn > simDay {
			w.fail("%s: cleared, and there is no alert", t.name)
		}
		if a.ID != t.alertID && t.alertID != "" {
			w.fail("%s: cleared is %s, and the alert was %s", t.name, a.ID, t.alertID)
		}
		t.open, t.clearedAt, t.toldAt, t.raisedAt, t.clearedAsleep = 0, w.t, w.t, w.t, w.asleep
		return
	}
	if kind := alertKinds[level]; kind != d.Kind {
		w.fail("%s: %s of severity %s", t.name, d.Kind, d.Data.Severity)
	}
	switch {
	case a.Reminder:
		if t.open != level || a.ID != t.alertID {
			w.fail("%s: a reminder of %s %s, and open is %s %s", t.name, d.Data.Severity, a.ID, simLevel(t.open), t.alertID)
		}
		if w.t-t.toldAt < simDay-time.Minute && !turned && !late {
			w.fail("%s: a reminder after %s", t.name, w.t-t.toldAt)
		}
	case t.open == 0:
		// In a suspend the host's monotonic clock stands still.
		recent := w.t-t.clearedAt <= simDay-time.Minute
		old := w.t-t.clearedAt-(w.asleep-t.clearedAsleep) > simDay+time.Minute
		switch {
		case t.alertID == "" || turned || late:
		case recent && a.ID != t.alertID:
			w.fail("%s: a new alert %s %s after %s was cleared", t.name, a.ID, w.t-t.clearedAt, t.alertID)
		case old && a.ID == t.alertID:
			w.fail("%s: the alert %s is opened again %s after it was cleared", t.name, a.ID, w.t-t.clearedAt)
		}
		if a.ID != t.alertID && t.ids[a.ID] && w.t-t.torn > simDay {
			w.fail("%s: the alert %s was known long ago", t.name, a.ID)
		}
	default:
		if a.ID != t.alertID {
			w.fail("%s: the alert %s while %s is open", t.name, a.ID, t.alertID)
		}
		if level == t.open {
			w.fail("%s: %s is said again", t.name, d.Data.Severity)
		}
		if level < t.open && t.open == 3 {
			w.fail("%s: critical becomes %s without being cleared", t.name, d.Data.Severity)
		}
	}
	rose := level > t.open && !a.Reminder
	t.open, t.alertID, t.toldAt, t.raisedAt = level, a.ID, w.t, w.t
	t.ids[a.ID] = true
	if late {
		return
	}
	if rose && level == 3 {
		t.critAt = w.t
	}
	if !w.inExcuse() && w.t-w.excused > 10*time.Minute {
		cause()
	}
}

// causeOf makes sure that an alert has its cause in the world, and that nobody
// had asked for silence.
func (w *sim) causeOf(c *simCert, d notify.Draft) {
	level := d.Data.Severity.Rank()
	tolerance := 2 * time.Minute
	if d.Data.Alert.Reminder {
		tolerance += lateTrouble // it tells of the last round
	}
	if c.may < level && w.t-c.lastMay[level] > tolerance {
		w.fail("%s of %s without a cause: it is at most %s since %s", d.Kind, c.name, simLevel(c.may), w.t-c.lastMay[level])
	}
	q := w.quiet(c)
	if q == nil || c.silencedAt == w.t {
		return
	}
	_, _, expired := w.truth(c)
	if q.Force || !expired && w.t-c.changed > 2*time.Minute && !w.moving(c) {
		w.fail("%s of %s, which is silenced", d.Kind, c.name)
	}
}

// moving reports whether what is served has changed within the last minutes.
func (w *sim) moving(c *simCert) bool {
	for _, p := range c.places {
		for _, a := range p.addrs {
			if w.t-a.since < 2*time.Minute {
				return true
			}
		}
	}
	return false
}

// healing and healed are called right before and after a reload of the daemon's
// has its effect: nobody may have been paged for what it healed.
func (w *sim) healing(run *simRun) {
	for _, r := range run.o.batch.Requests {
		c := w.certOf(r.Certificate)
		may, _, _ := w.truth(c)
		c.wasStale = may == 3
	}
}

func (w *sim) healed(run *simRun) {
	if w.t-run.start > time.Minute {
		return // nobody waits that long for the effect of the last one
	}
	for _, r := range run.o.batch.Requests {
		c := w.certOf(r.Certificate)
		may, _, _ := w.truth(c)
		if !c.wasStale || may == 3 {
			continue
		}
		free := max(w.excused, c.silencedAt, c.quietAt, w.strangerAt, c.ranLong)
		for _, x := range run.server.certs {
			free = max(free, x.changed)
		}
		if c.critAt > free+2*time.Minute && w.t-c.critAt < 14*time.Minute && c.open == 3 {
			w.fail("somebody was paged for %s %s before a reload of %s healed it", c.name, w.t-c.critAt, run.server.name)
		}
	}
}

// journaledAgent checks what the daemon says of itself.
func (w *sim) journaledAgent(d notify.Draft) {
	w.unsaved = w.unsaved || w.store.full
	open := w.troubles[d.Data.Cause]
	switch d.Kind {
	case notify.AgentDegraded:
		w.troubles[d.Data.Cause] = append(open, w.t)
	case notify.AgentRecovered:
		if len(open) == 0 && w.t-w.agentSays.torn > simDay {
			w.fail("agent.recovered from %s, which was not said", d.Data.Cause)
		}
		w.troubles[d.Data.Cause] = open[min(1, len(open)):]
	case notify.AlertCleared, notify.AlertCritical, notify.AlertError, notify.AlertWarning:
		w.weighAgent()
		w.alerted(&w.agentSays, d, func() {
			t := &w.agentSays
			if level := d.Data.Severity.Rank(); t.may < level && w.t-t.lastMay[level] > 6*time.Minute {
				w.fail("%s of the daemon itself without a cause", d.Kind)
			}
			if q := w.quiet(nil); q != nil && q.Since.Before(w.Now().Add(-time.Second)) {
				w.fail("%s of the daemon itself, which is silenced", d.Kind)
			}
		})
	}
}

// weighAgent holds the daemon's own alert against the truth.
func (w *sim) weighAgent() {
	may, must := 0, 0
	for _, open := range w.troubles {
		if len(open) > 0 {
			may = max(may, 2)
			if w.t-open[0] > 15*time.Minute {
				must = max(must, 2)
			}
		}
	}
	if simBreaks(w.stranger) {
		if w.t-w.strangerAt > 9*time.Minute {
			may = 3
		}
		if w.t-w.strangerAt > 16*time.Minute+30*time.Second {
			must = 3
		}
	}
	if w.quiet(nil) != nil {
		w.agentSays.quietAt = w.t
	}
	w.hold(&w.agentSays, may, must, 22*time.Minute, 25*time.Minute)
}
