package ari

import (
	"errors"
	"time"
)

// Verdict is what a CA's answers about a leaf come to.
type Verdict string

// The verdicts.
const (
	// Untold: the CA has not answered yet.
	Untold Verdict = ""
	// Calm: the window lies ahead.
	Calm Verdict = "calm"
	// Due: the window is open, or passed without having been moved into the past.
	Due Verdict = "due"
	// Suspected: the window was moved into the past. One answer says so; a CA can
	// err, and a second one, an hour later or more, has to agree.
	Suspected Verdict = "suspected"
	// Replace: the CA asks for the leaf's replacement, now. It was revoked, or it
	// will be.
	Replace Verdict = "replace"
)

// Seen is what the CA has said of one leaf so far: JSON, to be kept across restarts.
// Its zero value has seen nothing.
type Seen struct {
	ID        string    `json:"id,omitempty"` // of the leaf
	NotBefore time.Time `json:"not_before,omitzero"`
	NotAfter  time.Time `json:"not_after,omitzero"`

	First   Window    `json:"first,omitzero"` // the first window
	FirstAt time.Time `json:"first_at,omitzero"`
	Last    Window    `json:"last,omitzero"` // the newest one
	LastAt  time.Time `json:"last_at,omitzero"`
	// Until is when the CA wanted to be asked again after the newest answer.
	Until time.Time `json:"until,omitzero"`
	// Plan is the newest window that had not passed when the CA told it, else
	// the first one: what a window in the past is compared with.
	Plan Window `json:"plan,omitzero"`
	// Trail is a passed window, told at TrailAt: the first of Trailed ones that
	// were all equally long ago when they were told.
	Trail   Window    `json:"trail,omitzero"`
	TrailAt time.Time `json:"trail_at,omitzero"`
	Trailed int       `json:"trailed,omitempty"`
	// Sign is the window that looked like a call for replacement; it stands since
	// SignAt and is Confirmed by a later answer.
	Sign      Window    `json:"sign,omitzero"`
	SignAt    time.Time `json:"sign_at,omitzero"`
	Confirmed bool      `json:"confirmed,omitempty"`

	// AskAt is when to ask again, failures considered; zero and the past mean now.
	AskAt time.Time `json:"ask_at,omitzero"`
	// Failures counts what went wrong since the newest answer.
	Failures int `json:"failures,omitempty"`
}

const (
	confirms = time.Hour   // between a sign and the answer that confirms it
	trail    = 3           // answers that show that a window follows the clock
	exact    = time.Minute // how far equal windows may differ

	// CAs move windows by hours to spread load: less than a twentieth of the
	// lifetime is no move.
	jitterPart = 20
	// CAs ask for a renewal after a half or two thirds of a lifetime. A window
	// that was over after two fifths was never meant for an ordinary renewal.
	earlyNum, earlyDen = 2, 5
)

// Judge takes a new answer in and says what all of them come to at the time now.
// An answer about another leaf starts anew. The same answer twice counts once.
//
// A window is over when its end has passed by this host's clock and by that of the
// CA. It is a call for replacement (RFC 9773 section 1 has CAs announce a
// revocation so) when it is over and
//
//   - ends earlier than planned by more than a twentieth of the lifetime, or
//   - ends later than planned by as much, and before the CA wanted to be asked
//     again: no client that keeps to its schedule could have seen it open, or
//   - follows the clock: in three answers over an hour or more it is equally long
//     ago. Such a window is made for the moment of the question, or
//   - is the first ever seen and was over after two fifths of the lifetime.
//
// A window that stays where it is and passes is none of these, nor is one that was
// postponed and then passed while nobody asked. A sign is withdrawn by a window
// that is not over, or by the return to the plan.
func (s *Seen) Judge(a Answer, now time.Time) Verdict {
	if a.ID != s.ID || s.LastAt.IsZero() {
		*s = Seen{
			ID: a.ID, NotBefore: a.NotBefore, NotAfter: a.NotAfter,
			First: a.Window, FirstAt: a.Asked, Plan: a.Window,
		}
	} else if a.Asked.Equal(s.LastAt) {
		return s.Verdict(now)
	}
	before := *s
	s.Last, s.LastAt, s.Until = a.Window, a.Asked, a.RetryAfter
	s.AskAt, s.Failures = a.RetryAfter, 0
	if a.Asked.Before(before.LastAt) {
		// The clock was set back. Nothing counts as older than this.
		before.Until, s.TrailAt = time.Time{}, time.Time{}
		if s.SignAt.After(a.Asked) {
			s.SignAt = a.Asked
		}
	}
	if !over(a) {
		s.Plan = a.Window
		s.Trail, s.TrailAt, s.Trailed = Window{}, time.Time{}, 0
		s.Sign, s.SignAt, s.Confirmed = Window{}, time.Time{}, false
		return s.Verdict(now)
	}
	switch along := s.alongside(a); {
	case along:
		s.Trailed = min(s.Trailed+1, trail)
	case s.TrailAt.IsZero() || !same(a.Window, s.Trail, 0):
		s.Trail, s.TrailAt, s.Trailed = a.Window, a.Asked, 1
	}
	switch {
	case s.SignAt.IsZero() && s.called(a, before):
		s.Sign, s.SignAt = a.Window, a.Asked
		s.Confirmed = s.follows(a) // three answers said so already
	case s.SignAt.IsZero():
	case s.back(a):
		s.Sign, s.SignAt, s.Confirmed = Window{}, time.Time{}, false
	case a.Asked.Sub(s.SignAt) >= confirms:
		s.Confirmed = true
	}
	return s.Verdict(now)
}

// Verdict says what the answers so far come to at the time now.
func (s *Seen) Verdict(now time.Time) Verdict {
	switch {
	case s.LastAt.IsZero():
		return Untold
	case s.Confirmed:
		return Replace
	case !s.SignAt.IsZero():
		return Suspected
	case now.Before(s.Last.Start):
		return Calm
	}
	return Due
}

// The waits after failures that may be over soon: three tries, then the failure is
// one that stays, as RFC 9773 section 4.3.3 has it.
var again = [...]time.Duration{time.Minute, 10 * time.Minute, 100 * time.Minute}

// Missed takes in that a question to the CA failed, and says when to ask again.
// The verdict stays what it was.
func (s *Seen) Missed(err error, now time.Time) time.Time {
	var e *Error
	switch {
	case !errors.As(err, &e): // the caller's own context: the CA did nothing
		s.AskAt = now.Add(again[0])
		return s.AskAt
	case !e.Temporary:
		s.AskAt = e.RetryAfter
	case s.Failures < len(again):
		s.AskAt = now.Add(again[s.Failures])
	default:
		s.AskAt = now.Add(usual)
	}
	if e.RetryAfter.After(s.AskAt) {
		s.AskAt = e.RetryAfter
	}
	// Whatever the clock did in between, it is not a week.
	if longest := now.Add(latest); s.AskAt.After(longest) {
		s.AskAt = longest
	}
	s.Failures = min(s.Failures+1, len(again)+1)
	return s.AskAt
}

// over reports whether the window had passed when the answer came.
func over(a Answer) bool {
	return !a.Window.End.After(a.Asked) && (a.Date.IsZero() || !a.Window.End.After(a.Date))
}

// called reports whether an answer whose window is over looks like a call for
// replacement.
func (s *Seen) called(a Answer, before Seen) bool {
	move := a.Window.End.Sub(s.Plan.End)
	switch {
	case move < -s.jitter():
		return true
	case move > s.jitter() && a.Window.End.Sub(before.Last.End).Abs() > s.jitter() && !a.Window.End.After(before.Until):
		return true
	case s.follows(a):
		return true
	}
	return s.early(a.Window)
}

// follows reports whether the window has run along with the clock for long enough.
func (s *Seen) follows(a Answer) bool {
	return s.Trailed >= trail && a.Asked.Sub(s.TrailAt) >= confirms && s.alongside(a)
}

// alongside reports whether the window is as long ago as the one on the trail was.
func (s *Seen) alongside(a Answer) bool {
	return !s.TrailAt.IsZero() && same(a.Window, s.Trail, a.Asked.Sub(s.TrailAt))
}

// back reports whether the CA went back to the plan after a sign.
func (s *Seen) back(a Answer) bool {
	switch {
	case s.alongside(a) && !same(a.Window, s.Trail, 0):
		return false // it only comes by
	case s.early(s.Plan):
		return !s.early(a.Window)
	}
	near := func(o Window) bool { return a.Window.End.Sub(o.End).Abs() <= s.jitter() }
	return same(a.Window, s.Plan, 0) || near(s.Plan) && !near(s.Sign)
}

// early reports whether a window was over before any ordinary renewal.
func (s *Seen) early(w Window) bool {
	return w.End.Before(s.NotBefore.Add(s.NotAfter.Sub(s.NotBefore) / earlyDen * earlyNum))
}

// jitter is how far a window may move without that meaning anything.
func (s *Seen) jitter() time.Duration { return s.NotAfter.Sub(s.NotBefore) / jitterPart }

// same reports whether w is o, later by shift.
func same(w, o Window, shift time.Duration) bool {
	return (w.Start.Sub(o.Start)-shift).Abs() <= exact && (w.End.Sub(o.End)-shift).Abs() <= exact
}
