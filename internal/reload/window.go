package reload

import (
	"slices"
	"time"
)

// Window is a span of local time, on some days of the week, in which a server
// may be reloaded.
type Window struct {
	// Days on which it begins; empty: every day.
	Days []time.Weekday
	// From and To are what the clock on the wall shows, as time since midnight:
	// from 0 to 24 h. A To that is not later than From is on the next day.
	From, To time.Duration
	// Zone is the zone of that clock; nil: the host's.
	Zone *time.Location
}

// Windows are a server's windows; none at all: it may be reloaded at any time.
type Windows []Window

// Open reports whether now is in a window.
func (ws Windows) Open(now time.Time) bool {
	return len(ws) == 0 || slices.ContainsFunc(ws, func(w Window) bool { return w.open(now) })
}

// Next returns now where a window is open or there are none, else when the next
// one opens; zero when none ever does, because it names no day there is.
func (ws Windows) Next(now time.Time) time.Time {
	if ws.Open(now) {
		return now
	}
	var next time.Time
	for _, w := range ws {
		if at := w.next(now); !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	return next
}

func (w Window) open(now time.Time) bool {
	first := w.date(now)
	// One that began two dates ago can still be open where clocks were set back.
	for d := -2; d <= 1; d++ {
		if start, end, ok := w.on(first.AddDate(0, 0, d)); ok && !now.Before(start) && now.Before(end) {
			return true
		}
	}
	return false
}

// next returns the first opening after now.
func (w Window) next(now time.Time) time.Time {
	first := w.date(now)
	for d := -1; d <= 9; d++ {
		if start, _, ok := w.on(first.AddDate(0, 0, d)); ok && start.After(now) {
			return start.In(now.Location())
		}
	}
	return time.Time{}
}

func (w Window) zone() *time.Location {
	if w.Zone == nil {
		return time.Local
	}
	return w.Zone
}

// date returns the local date of now, as midnight UTC of that date.
func (w Window) date(now time.Time) time.Time {
	y, m, d := now.In(w.zone()).Date()
	return time.Date(y, m, d, 0, 0, 0, 0, time.UTC)
}

// on returns the window that begins on date, where there is one.
func (w Window) on(date time.Time) (start, end time.Time, ok bool) {
	if len(w.Days) > 0 && !slices.Contains(w.Days, date.Weekday()) {
		return start, end, false
	}
	to := w.To
	if to <= w.From {
		to += 24 * time.Hour
	}
	start, end = firstAt(date.Add(w.From), w.zone()), firstAt(date.Add(to), w.zone())
	if !start.Before(end) {
		// All of it is in the hour that is skipped: it lasts as long after that.
		end = start.Add(to - w.From)
	}
	return start, end, true
}

// firstAt returns the first instant at which a clock in zone shows wall, given as
// if it were UTC, or has gone past it: where an hour comes twice the first of
// both, where it is skipped the instant after it. time.Date promises neither.
func firstAt(wall time.Time, zone *time.Location) time.Time {
	// No zone is as far as this from UTC, so that its clock shows less here.
	t := wall.Add(-26 * time.Hour).In(zone)
	for {
		_, offset := t.Zone()
		_, change := t.ZoneBounds()
		at := wall.Add(-time.Duration(offset) * time.Second)
		if at.Before(t) {
			at = t
		}
		if change.IsZero() || at.Before(change) {
			return at
		}
		t = change
	}
}
