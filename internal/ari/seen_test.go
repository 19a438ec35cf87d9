package ari

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"
)

var issued = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const (
	day  = 24 * time.Hour
	poll = 6 * time.Hour
)

// world is a CA and a watcher that asks it, in virtual time.
type world struct {
	t        *testing.T
	lifetime time.Duration
	now      time.Time
	window   func(now time.Time) Window
	date     func(now time.Time) time.Time
	seen     Seen
	asked    int
}

func newWorld(t *testing.T, lifetime time.Duration) *world {
	w := &world{t: t, lifetime: lifetime, now: issued.Add(time.Hour)}
	w.window = func(time.Time) Window { return ordinary(lifetime) }
	w.date = func(now time.Time) time.Time { return now.Truncate(time.Second) }
	return w
}

// ordinary is the window that Let's Encrypt gives: a fiftieth of the lifetime
// around two thirds of it, or around the half if that is less than ten days.
func ordinary(lifetime time.Duration) Window {
	ideal := issued.Add(lifetime - lifetime/3)
	if lifetime < 10*day {
		ideal = issued.Add(lifetime / 2)
	}
	return Window{Start: ideal.Add(-lifetime / 100), End: ideal.Add(lifetime / 100)}
}

// immediate is what Let's Encrypt says of revoked certificates.
func immediate(now time.Time) Window {
	return Window{Start: now.Add(-time.Hour).Truncate(time.Second), End: now.Add(-30 * time.Minute).Truncate(time.Second)}
}

// ask asks once, six hours before the next time, now and then after a restart.
func (w *world) ask() Verdict {
	w.t.Helper()
	return w.askFor(poll)
}

func (w *world) askFor(retry time.Duration) Verdict {
	w.t.Helper()
	a := Answer{
		ID: "leaf", NotBefore: issued, NotAfter: issued.Add(w.lifetime),
		Window: w.window(w.now), Asked: w.now, Date: w.date(w.now), RetryAfter: w.now.Add(retry),
	}
	if w.asked++; w.asked%5 == 0 {
		w.restart()
	}
	verdict := w.seen.Judge(a, w.now)
	if again := w.seen.Judge(a, w.now); again != verdict {
		w.t.Fatalf("the same answer is %q, and then %q", verdict, again)
	}
	return verdict
}

// restart keeps of the state what is on disk.
func (w *world) restart() {
	w.t.Helper()
	raw, err := json.Marshal(w.seen)
	if err != nil {
		w.t.Fatal(err)
	}
	var restored Seen
	if err := json.Unmarshal(raw, &restored); err != nil {
		w.t.Fatal(err)
	}
	if !reflect.DeepEqual(restored, w.seen) {
		w.t.Fatalf("%+v\nis restored as %+v", w.seen, restored)
	}
	w.seen = restored
}

// asks asks every six hours (and a little) until the fraction of the lifetime is
// over, and returns the newest verdict.
func (w *world) asks(until float64) (v Verdict) {
	w.t.Helper()
	for end := w.at(until); w.now.Before(end); w.now = w.now.Add(poll + 3*time.Minute) {
		v = w.ask()
	}
	return v
}

func (w *world) at(fraction float64) time.Time {
	return issued.Add(time.Duration(fraction * float64(w.lifetime)))
}

// expect asks until a verdict is the one wanted, at most times times.
func (w *world) expect(want Verdict, times int) {
	w.t.Helper()
	var got []Verdict
	for range times {
		v := w.ask()
		if got = append(got, v); v == want {
			return
		}
		w.now = w.now.Add(poll + 3*time.Minute)
	}
	w.t.Fatalf("at %s: the verdicts are %q, want %q by then\n%+v", w.now, got, want, w.seen)
}

func eachLifetime(t *testing.T, f func(t *testing.T, w *world)) {
	for _, lifetime := range []time.Duration{160 * time.Hour, 45 * day, 64 * day, 90 * day, 365 * day} {
		t.Run(lifetime.String(), func(t *testing.T) { f(t, newWorld(t, lifetime)) })
	}
}

func TestAnOrdinaryWindowPassesAndIsNeverACall(t *testing.T) {
	eachLifetime(t, func(t *testing.T, w *world) {
		for w.now.Before(w.at(1)) {
			want := Calm
			if !w.now.Before(ordinary(w.lifetime).Start) {
				want = Due
			}
			if got := w.ask(); got != want {
				t.Fatalf("at %s: %q, want %q", w.now, got, want)
			}
			w.now = w.now.Add(poll)
		}
	})
}

func TestAWindowBecomesDueBetweenTwoAnswers(t *testing.T) {
	w := newWorld(t, 90*day)
	w.ask()
	start := ordinary(90 * day).Start
	if got := w.seen.Verdict(start.Add(-time.Second)); got != Calm {
		t.Error(got)
	}
	if got := w.seen.Verdict(start); got != Due {
		t.Error(got)
	}
	if got := (&Seen{}).Verdict(start); got != Untold {
		t.Error(got)
	}
}

// Random windows around the plan, random absences, a window that is postponed or
// brought forward while it is watched: nothing of it is a call.
func TestJitterIsNoMove(t *testing.T) {
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 9773))
		lifetime := []time.Duration{160 * time.Hour, 45 * day, 90 * day}[r.IntN(3)]
		w := newWorld(t, lifetime)
		shift := time.Duration(0)
		w.window = func(time.Time) Window {
			o := ordinary(lifetime)
			part := time.Duration(r.Int64N(int64(lifetime/45))) - lifetime/90
			return Window{Start: o.Start.Add(part + shift), End: o.End.Add(part + shift)}
		}
		if r.IntN(2) == 0 {
			w.now = w.at(r.Float64()) // met late
		}
		for w.now.Before(w.at(1)) {
			if v := w.ask(); v != Calm && v != Due {
				t.Fatalf("seed %d, %s, at %s: %q\n%+v", seed, lifetime, w.now, v, w.seen)
			}
			w.now = w.now.Add(poll + time.Duration(r.Int64N(int64(time.Hour))))
			switch {
			case r.IntN(20) == 0:
				w.now = w.now.Add(time.Duration(r.Int64N(int64(lifetime / 10)))) // was off
			case r.IntN(20) == 0 && w.now.Before(ordinary(lifetime).Start.Add(-lifetime/5)):
				// Moved, and told in good time.
				shift = time.Duration(r.Int64N(int64(lifetime/5))) - lifetime/10
				w.ask()
			}
		}
	}
}

// Revoked at any time of its life, watched or met only then, asked on time or after
// an absence: the third answer at the latest is a call for replacement.
func TestARevokedLeafIsToBeReplaced(t *testing.T) {
	windows := map[string]func(time.Time) Window{
		"half an hour": immediate,
		"a second": func(now time.Time) Window {
			at := now.Add(-time.Hour).Truncate(time.Millisecond)
			return Window{Start: at, End: at.Add(time.Second)}
		},
	}
	for _, lifetime := range []time.Duration{160 * time.Hour, 45 * day, 90 * day} {
		for name, window := range windows {
			for fraction := 0.0; fraction < 0.85; fraction += 0.07 {
				for _, absent := range []time.Duration{0, 2 * time.Hour, lifetime / 20} {
					for _, met := range []bool{false, true} {
						t.Run(fmt.Sprintf("%s/%s/%.2f/%s/%v", lifetime, name, fraction, absent, met), func(t *testing.T) {
							w := newWorld(t, lifetime)
							if met {
								w.asks(fraction)
							}
							if next := w.at(fraction); w.now.Before(next) {
								w.now = next
							}
							w.now = w.now.Add(absent)
							w.window = window
							w.expect(Replace, 3)
							// And so it stays, to the end.
							for w.now = w.now.Add(poll); w.now.Before(w.at(1)); w.now = w.now.Add(3 * poll) {
								if v := w.ask(); v != Replace {
									t.Fatalf("at %s it is %q again", w.now, v)
								}
							}
						})
					}
				}
			}
		}
	}
}

// A CA may fix the window of a revoked certificate once.
func TestAFixedWindowInThePast(t *testing.T) {
	eachLifetime(t, func(t *testing.T, w *world) {
		for fraction := 0.1; fraction < 0.95; fraction += 0.05 {
			w := newWorld(t, w.lifetime)
			w.asks(fraction)
			revoked := w.now.Add(-2 * time.Hour)
			w.window = func(time.Time) Window { return Window{Start: revoked.Add(-time.Hour), End: revoked} }
			if (revoked.Sub(ordinary(w.lifetime).End)).Abs() <= w.lifetime/20 {
				continue // as good as the ordinary window
			}
			w.expect(Suspected, 1)
			w.now = w.now.Add(poll)
			w.expect(Replace, 1)
		}
	})
}

func TestASignNeedsASecondAnswer(t *testing.T) {
	w := newWorld(t, 90*day)
	w.asks(0.3)
	w.window = immediate
	sign := w.now
	for w.now.Before(sign.Add(time.Hour)) {
		if v := w.askFor(time.Minute); v != Suspected {
			t.Fatalf("%s after the sign: %q", w.now.Sub(sign), v)
		}
		w.now = w.now.Add(time.Minute)
	}
	if v := w.askFor(time.Minute); v != Replace {
		t.Fatalf("an hour later: %q", v)
	}
	if v := w.seen.Verdict(w.now.Add(10 * day)); v != Replace {
		t.Errorf("ten days later: %q", v)
	}
}

func TestASignIsWithdrawn(t *testing.T) {
	t.Run("by a window ahead", func(t *testing.T) {
		w := newWorld(t, 90*day)
		w.asks(0.3)
		ordinary := w.window
		w.window = immediate
		w.expect(Replace, 2)
		w.now, w.window = w.now.Add(poll), ordinary
		w.expect(Calm, 1)
		w.now = w.now.Add(poll)
		w.expect(Calm, 1)
		// The next one needs two answers of its own.
		w.now, w.window = w.now.Add(poll), immediate
		w.expect(Suspected, 1)
	})
	t.Run("by the return to a plan that has passed", func(t *testing.T) {
		w := newWorld(t, 90*day)
		w.asks(0.85)
		ordinary := w.window
		w.window = immediate
		w.expect(Replace, 2)
		w.now, w.window = w.now.Add(poll), ordinary
		w.expect(Due, 1)
	})
	t.Run("not by an answer from a cache", func(t *testing.T) {
		w := newWorld(t, 90*day)
		w.asks(0.68)
		w.window = immediate
		w.expect(Replace, 3)
		cached := w.window(w.now)
		w.now, w.window = w.now.Add(poll), func(time.Time) Window { return cached }
		w.expect(Replace, 1)
	})
}

func TestAWindowThatMovedWhileNobodyAsked(t *testing.T) {
	moved := func(by time.Duration) func(time.Time) Window {
		return func(time.Time) Window {
			o := ordinary(90 * day)
			return Window{Start: o.Start.Add(by), End: o.End.Add(by)}
		}
	}
	t.Run("postponed, and passed", func(t *testing.T) {
		w := newWorld(t, 90*day)
		w.asks(0.5)
		w.window, w.now = moved(8*day), w.at(0.9)
		for range 4 {
			w.expect(Due, 1)
			w.now = w.now.Add(poll)
		}
		w.window = moved(0) // and taken back
		w.expect(Due, 1)
	})
	t.Run("postponed, and passed, while the CA was down", func(t *testing.T) {
		w := newWorld(t, 90*day)
		w.asks(0.5)
		down := &Error{Kind: ErrUnavailable, Temporary: true, RetryAfter: w.now}
		for w.now.Before(w.at(0.9)) {
			w.now = w.seen.Missed(down, w.now)
		}
		w.window = moved(8 * day)
		w.expect(Due, 1)
	})
	t.Run("brought forward, and passed", func(t *testing.T) {
		// The CA wanted it earlier than planned, and that is over: a call.
		w := newWorld(t, 90*day)
		w.asks(0.3)
		w.window, w.now = moved(-20*day), w.at(0.6)
		w.expect(Suspected, 1)
		w.now = w.now.Add(poll)
		w.expect(Replace, 1)
	})
	t.Run("brought forward before anybody asked at all", func(t *testing.T) {
		w := newWorld(t, 90*day)
		w.window, w.now = moved(-35*day), w.at(0.35)
		w.expect(Suspected, 1)
		w.now = w.now.Add(poll)
		w.expect(Replace, 1)
	})
}

func TestAWrongClockMakesNoCall(t *testing.T) {
	w := newWorld(t, 90*day)
	w.asks(0.1)
	right := w.now
	ahead := func(now time.Time) time.Time { return now.Add(-60 * day) }
	w.date, w.now = ahead, w.now.Add(60*day)
	for range 3 {
		w.expect(Due, 1)
		w.now = w.now.Add(poll)
	}
	// A window that is brought forward in good time is over by this clock only.
	w.window = func(time.Time) Window {
		o := ordinary(90 * day)
		return Window{Start: o.Start.Add(-20 * day), End: o.End.Add(-20 * day)}
	}
	w.expect(Due, 1)
	w.window = func(time.Time) Window { return ordinary(90 * day) }

	// Set back, it asks about the same leaf, which by now is revoked.
	w.date, w.now = func(now time.Time) time.Time { return now }, right.Add(poll)
	w.expect(Calm, 1)
	w.window = immediate
	w.expect(Replace, 3)

	// What was told in the future is no hindrance to see that a window follows the
	// clock.
	w = newWorld(t, 90*day)
	w.window, w.date = immediate, func(time.Time) time.Time { return time.Time{} }
	w.now = w.at(0.5).Add(3 * day)
	w.expect(Due, 1)
	w.now = w.at(0.5)
	w.expect(Replace, 3)

	// A sign that was seen in the future counts from when the clock was set back.
	w = newWorld(t, 90*day)
	w.asks(0.3)
	w.window, w.date = immediate, func(time.Time) time.Time { return time.Time{} }
	w.now = w.now.Add(10 * day)
	w.expect(Suspected, 1)
	w.now = w.now.Add(-10 * day)
	w.expect(Suspected, 1)
	w.now = w.now.Add(poll)
	w.expect(Replace, 1)
}

func TestAnotherLeafStartsAnew(t *testing.T) {
	w := newWorld(t, 90*day)
	w.asks(0.3)
	w.window = immediate
	w.expect(Replace, 2)
	a := Answer{ID: "next", NotBefore: w.now, NotAfter: w.now.Add(90 * day), Asked: w.now, RetryAfter: w.now.Add(poll)}
	a.Window = Window{Start: w.now.Add(59 * day), End: w.now.Add(61 * day)}
	if v := w.seen.Judge(a, w.now); v != Calm {
		t.Errorf("%q", v)
	}
	want := Seen{
		ID: "next", NotBefore: a.NotBefore, NotAfter: a.NotAfter, First: a.Window, FirstAt: w.now,
		Last: a.Window, LastAt: w.now, Until: a.RetryAfter, Plan: a.Window, AskAt: a.RetryAfter,
	}
	if !reflect.DeepEqual(w.seen, want) {
		t.Errorf("%+v\nwant %+v", w.seen, want)
	}
}

func TestMissed(t *testing.T) {
	now := issued
	for _, c := range []struct {
		name string
		err  error
		want []time.Duration
	}{
		{
			"what may be over soon is tried three times, then every six hours",
			&Error{Kind: ErrUnavailable, Temporary: true, RetryAfter: now},
			[]time.Duration{time.Minute, 10 * time.Minute, 100 * time.Minute, poll, poll, poll},
		},
		{
			"unless the CA named a time",
			fmt.Errorf("wrapped: %w", &Error{Kind: ErrUnavailable, Temporary: true, RetryAfter: now.Add(2 * time.Hour)}),
			[]time.Duration{2 * time.Hour, 2 * time.Hour, 2 * time.Hour, poll},
		},
		{"what stays waits", &Error{Kind: ErrNonsense, RetryAfter: now.Add(poll)}, []time.Duration{poll, poll}},
		{"no ARI waits a day", &Error{Kind: ErrUnsupported, RetryAfter: now.Add(day)}, []time.Duration{day, day}},
		{"an error of another clock", &Error{Kind: ErrUnknown, RetryAfter: now.Add(1000 * day)}, []time.Duration{day}},
		{"our own context", context.Canceled, []time.Duration{time.Minute, time.Minute}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, 90*day)
			w.ask()
			for i, want := range c.want {
				if got := w.seen.Missed(c.err, now).Sub(now); got != want || !w.seen.AskAt.Equal(now.Add(want)) {
					t.Errorf("failure %d: %s, want %s", i+1, got, want)
				}
			}
			if v := w.seen.Verdict(w.now); v != Calm {
				t.Errorf("the verdict has become %q", v)
			}
			w.now = w.now.Add(poll)
			w.ask()
			if w.seen.Failures != 0 || !w.seen.AskAt.Equal(w.now.Add(poll)) {
				t.Errorf("after an answer: %+v", w.seen)
			}
		})
	}
}

// Whatever comes, and from whatever state: no panic, one answer is never enough to
// be sure, and a window that is not over is never a call.
func FuzzJudge(f *testing.F) {
	f.Add([]byte("{}"), int64(90*day), int64(1), int64(2), int64(3), int64(4))
	f.Add([]byte(`{"id":"leaf","last_at":"2026-01-01T00:00:00Z"}`), int64(0), int64(-1), int64(1)<<62, int64(-1)<<62, int64(0))
	f.Fuzz(func(t *testing.T, state []byte, lifetime, asked, start, end, retry int64) {
		var s Seen
		if json.Unmarshal(state, &s) != nil {
			return
		}
		now := issued.Add(time.Duration(asked))
		a := Answer{
			ID: "leaf", NotBefore: issued, NotAfter: issued.Add(time.Duration(lifetime)),
			Window: Window{Start: issued.Add(time.Duration(start)), End: issued.Add(time.Duration(end))},
			Asked:  now, RetryAfter: now.Add(time.Duration(retry)),
		}
		fresh := s.ID != "leaf" || s.LastAt.IsZero()
		known := !fresh && s.LastAt.Equal(now)
		v := s.Judge(a, now)
		if fresh && v == Replace {
			t.Errorf("one answer is enough: %+v", s)
		}
		if !known && a.Window.End.After(now) && (v == Replace || v == Suspected) {
			t.Errorf("%q of a window that is not over", v)
		}
		if next := s.Missed(&Error{Kind: ErrNonsense}, now); next.After(now.Add(latest)) {
			t.Errorf("again at %s", next)
		}
	})
}
