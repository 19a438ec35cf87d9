package watch

import "time"

// view is what a look found, reduced to what deciding needs.
type view struct {
	// content changes with everything that could still become something else.
	content string
	// verdict changes with what is worth telling.
	verdict string
	sound   bool
	// busy: the writer has left a sign that it is not done.
	busy bool
	// age is the time since the latest change, as the file system has it.
	age time.Duration
}

// settler decides when what is seen may be told: once it has stayed the same
// for settle. It is pure: the caller says what time it is.
//
// Events only make the caller look; the clock runs from the last look that found
// something else, so a writer that writes the same again and again does not
// hold anything up. One that never leaves the files alone is judged after
// patience.
type settler struct {
	settle, patience time.Duration

	told    string // the verdict last concluded; empty: none yet
	content string // of the last view
	since   time.Time
	steady  time.Time // since when content has been seen
	again   time.Time // when to look again; zero: at the next sign
	changed bool      // since the last conclusion there was a sign of change
	seen    bool      // there was a view
	sound   bool      // a sound view was seen since the sign
}

// sign notes that something may have changed.
func (s *settler) sign(at time.Time) {
	if !s.changed {
		s.changed, s.since, s.sound = true, at, false
	}
}

// see takes what a look at the time at found. It reports whether that is a
// conclusion worth telling; since is then the first sign of it.
func (s *settler) see(at time.Time, v view) (tell bool, since time.Time) {
	first := !s.seen
	if first || v.content != s.content {
		s.sign(at)
		s.steady = at
	}
	s.content, s.seen = v.content, true
	if !s.changed {
		return false, time.Time{}
	}
	s.sound = s.sound || v.sound
	quiet := at.Sub(s.steady) >= s.settle && !v.busy
	old := first && v.sound && !v.busy && v.age > s.settle
	changing := at.Sub(s.since)
	// Files that are broken now and were sound a moment ago get twice the time.
	spent := changing >= s.patience && (v.sound || !s.sound) || changing >= 2*s.patience
	if !quiet && !old && !spent {
		s.again = s.next(at)
		return false, time.Time{}
	}
	s.changed, s.again = false, time.Time{}
	tell = v.verdict != s.told
	s.told = v.verdict
	return tell, s.since
}

// next is the earliest time after at when another look can conclude something.
func (s *settler) next(at time.Time) time.Time {
	due := at.Add(s.settle)
	for _, t := range []time.Time{s.steady.Add(s.settle), s.since.Add(s.patience), s.since.Add(2 * s.patience)} {
		if t.After(at) && t.Before(due) {
			due = t
		}
	}
	return due
}
