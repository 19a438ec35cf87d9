package watchdog

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/renewatch/renewatch/notify"
)

// Times of an alert.
const (
	alertApart    = 30 * time.Second // two checks that agree must be this far apart
	alertChecks   = 2                // before an alert is raised
	goodChecks    = 3                // before it is lowered or cleared
	goodFor       = 10 * time.Minute // that these must span
	alertReminder = 24 * time.Hour
	alertKeepsID  = 24 * time.Hour
	soon          = 15 * time.Minute // an automatic step that is due by then is waited for
)

// Alert is the one alert of a certificate, or of the daemon itself.
type Alert struct {
	ID string `json:"id,omitempty"`
	// Level that was told; "" when there is no alert.
	Level   notify.Severity `json:"level,omitempty"`
	Since   time.Time       `json:"since,omitzero"`
	Told    time.Time       `json:"told,omitzero"`
	Cleared time.Time       `json:"cleared,omitzero"`
	// Bad counts, for warning, error and critical, the checks in a row that were
	// at least this bad.
	Bad [3]streak `json:"bad,omitzero"`
	// Waited is since when every check found something that heals soon.
	Waited time.Time `json:"waited,omitzero"`
	// Good counts the checks in a row that were better than Level.
	Good streak `json:"good,omitzero"`
}

// streak is an unbroken row of checks that agree.
type streak struct {
	First time.Time `json:"first,omitzero"`
	Last  time.Time `json:"last,omitzero"`
	N     int       `json:"n,omitempty"`
}

// count adds a check, unless the one before it was less than apart ago.
func (r *streak) count(now time.Time, apart time.Duration) {
	switch {
	case r.N == 0:
		*r = streak{now, now, 1}
	case now.Before(r.Last): // the clock was set back
		*r = streak{now, now, 1}
	case now.Sub(r.Last) >= apart:
		r.Last = now
		r.N++
	}
}

// condition is something a person might have to know.
type condition struct {
	level               notify.Severity
	cause, detail, hint string
	next                *notify.Next
	since               time.Time // zero: when it was first checked
}

// affairs is what there is to be known at one moment.
type affairs struct {
	// certain are conditions by time or by an event of the story: alerted at once.
	certain condition
	// found are conditions that a check found: alerted when two checks agree.
	found condition
	// healing is what an automatic step that is due soon may heal: it raises no
	// alert, and is no reason to clear one.
	healing condition
	// blind: something was not heard, so nothing can be said to be good.
	blind bool
	// checked: this moment is a check.
	checked bool
	// quiet: silenced; nothing is raised, and nobody is reminded.
	quiet bool
}

// telling is one alert event that is to be said.
type telling struct {
	kind     notify.Kind
	about    condition
	reminder bool
}

var alertKinds = [...]notify.Kind{notify.AlertCleared, notify.AlertWarning, notify.AlertError, notify.AlertCritical}

func levelOf(rank int) notify.Severity {
	return [...]notify.Severity{"", notify.Warning, notify.Error, notify.Critical}[rank]
}

// judge moves the alert on and returns what is to be told, in order. id makes the
// id of a new alert.
func (a *Alert) judge(now time.Time, f affairs, id func() string) []telling {
	switch {
	case f.healing.level.Rank() > 0:
		if a.Waited.IsZero() || now.Before(a.Waited) {
			a.Waited = now
		}
		// Steps that are due soon again and again heal nothing.
		if now.Sub(a.Waited) > soon && f.healing.level.Rank() > f.found.level.Rank() {
			f.found = f.healing
		}
	case f.checked && !f.blind:
		a.Waited = time.Time{}
	}
	healing := f.healing.level.Rank()
	if f.blind {
		healing = len(a.Bad)
	}
	worst := f.certain
	if f.found.level.Rank() > worst.level.Rank() {
		worst = f.found
	}
	rank := worst.level.Rank()
	if f.checked {
		for i := range a.Bad {
			if rank > i {
				a.Bad[i].count(now, alertApart)
			} else if healing <= i {
				a.Bad[i] = streak{}
			}
		}
	}
	raise := f.certain.level.Rank()
	for i := range a.Bad {
		if a.Bad[i].N >= alertChecks && rank > i {
			raise = max(raise, i+1)
		}
	}
	open := a.Level.Rank()
	switch {
	case raise > open && !f.quiet:
		return a.raised(now, raise, worst, f, id)
	case open > 0 && max(rank, healing) < open:
		if !f.checked {
			break
		}
		if a.Good.count(now, time.Minute); a.Good.N >= goodChecks && now.Sub(a.Good.First) >= goodFor {
			return a.lowered(now, worst, f)
		}
	case f.checked || rank >= open:
		a.Good = streak{}
	}
	if open > 0 && !f.quiet && now.Sub(a.Told) >= alertReminder {
		if rank < open {
			return nil // it is about to end, or to be healed
		}
		a.Told = now
		worst.level = a.Level // what is worse is not certain yet
		return []telling{{alertKinds[open], worst, true}}
	}
	return nil
}

func (a *Alert) raised(now time.Time, rank int, about condition, f affairs, id func() string) []telling {
	if about.level.Rank() > rank && f.certain.level.Rank() == rank {
		about = f.certain // the worse one is not certain yet
	}
	if a.Level == "" {
		if a.ID == "" || now.Sub(a.Cleared) > alertKeepsID || now.Before(a.Cleared) {
			a.ID = id()
		}
		a.Since = now
		if b := a.Bad[rank-1]; b.N > 0 {
			a.Since = b.First
		}
		if s := about.since; !s.IsZero() && s.Before(a.Since) {
			a.Since = s
		}
	}
	a.Level, a.Told = levelOf(rank), now
	a.Good = streak{}
	about.level = a.Level
	return []telling{{kind: alertKinds[rank], about: about}}
}

// lowered ends the alert, or goes on with it at a lower level: only critical is
// cleared on the way, because nobody is paged for less.
func (a *Alert) lowered(now time.Time, about condition, f affairs) []telling {
	left := max(about.level.Rank(), f.healing.level.Rank())
	good := condition{detail: fmt.Sprintf("%d checks over %s found nothing as bad any more", a.Good.N, now.Sub(a.Good.First).Round(time.Second))}
	if about.level.Rank() > 0 {
		good.detail += "; what is left: " + about.detail
	}
	critical := a.Level == notify.Critical
	a.Good = streak{}
	if left == 0 || f.quiet {
		a.Level, a.Told, a.Cleared = "", now, now
		return []telling{{kind: notify.AlertCleared, about: good}}
	}
	a.Level, a.Told = levelOf(left), now
	if about.level.Rank() < left {
		about = condition{detail: good.detail}
	}
	about.level = a.Level
	lower := telling{kind: alertKinds[left], about: about}
	if critical {
		return []telling{{kind: notify.AlertCleared, about: good}, lower}
	}
	return []telling{lower}
}

// end clears the alert at once, because what it was about is no more.
func (a *Alert) end(now time.Time, detail string) []telling {
	if a == nil || a.Level == "" {
		return nil
	}
	a.Level, a.Told, a.Cleared = "", now, now
	a.Bad, a.Good = [3]streak{}, streak{}
	return []telling{{kind: notify.AlertCleared, about: condition{detail: detail}}}
}

// pending returns when the next check is wanted: soon while an alert may be about
// to be raised or cleared; zero: whenever it comes.
func (a *Alert) pending() time.Time {
	if a == nil {
		return time.Time{}
	}
	for i, b := range a.Bad {
		if i >= a.Level.Rank() && b.N > 0 && b.N < alertChecks {
			return b.Last.Add(alertApart)
		}
	}
	if g := a.Good; a.Level != "" && g.N > 0 {
		if g.N < goodChecks {
			return g.Last.Add(goodFor / (goodChecks - 1))
		}
		return g.First.Add(goodFor)
	}
	return time.Time{}
}

// alertID names an alert.
func alertID(host, instance, certificate string, occurrence uint64) string {
	h := sha256.New()
	for _, s := range []string{"alert", host, instance, certificate, fmt.Sprint(occurrence)} {
		fmt.Fprintf(h, "%d:%s,", len(s), s)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}
