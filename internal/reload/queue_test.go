package reload

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"
)

var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func ask(certificate string, attempt int, step Step) Request {
	return Request{ID: RequestID(certificate, "r1", attempt), Certificate: certificate, RenewalID: "r1", Attempt: attempt, Step: step}
}

// run drives one whole reload at now and fails when Next does not allow it.
func run(t *testing.T, s State, now time.Time) State {
	t.Helper()
	d := s.Next(now, Limits{})
	if d.Action != Start {
		t.Fatalf("at +%s: %+v, want start", now.Sub(epoch), d)
	}
	return s.Started(now, d.Batch).Finished(now.Add(time.Second), d.Batch.Run, true)
}

func TestNext(t *testing.T) {
	six := func(t *testing.T) State {
		var s State
		for i := range 6 {
			s = run(t, s.Add(ask("a", i+1, First)), epoch.Add(time.Duration(i)*time.Hour))
		}
		return s
	}
	tests := []struct {
		name  string
		state func(t *testing.T) State
		at    time.Duration
		want  Action
		until time.Duration
		batch []string // certificates
	}{
		{"nothing asked", func(*testing.T) State { return State{} }, 0, Idle, 0, nil},
		{"a first request starts at once", func(*testing.T) State { return State{}.Add(ask("a", 1, First)) }, 0, Start, 0, []string{"a"}},
		{"equal steps are one run", func(*testing.T) State {
			return State{}.Add(ask("a", 1, First)).Add(ask("b", 1, First)).Add(ask("c", 2, Touch)).Add(ask("d", 1, First))
		}, 0, Start, 0, []string{"a", "b", "d"}},
		{"the oldest request chooses the step", func(*testing.T) State {
			return State{}.Add(ask("c", 2, Touch)).Add(ask("a", 1, First)).Add(ask("d", 2, Touch))
		}, 0, Start, 0, []string{"c", "d"}},
		{"never two at once", func(*testing.T) State {
			s := State{}.Add(ask("a", 1, First))
			return s.Started(epoch, s.Next(epoch, Limits{}).Batch).Add(ask("b", 1, First))
		}, time.Hour, Busy, 0, nil},
		{"a start waits until a minute after the last", func(t *testing.T) State {
			return run(t, State{}.Add(ask("a", 1, First)), epoch).Add(ask("b", 1, First))
		}, 20 * time.Second, Wait, time.Minute, nil},
		{"and goes on to the second", func(t *testing.T) State {
			return run(t, State{}.Add(ask("a", 1, First)), epoch).Add(ask("b", 1, First))
		}, time.Minute, Start, 0, []string{"b"}},
		{"six that proved nothing hold the seventh", func(t *testing.T) State {
			return six(t).Add(ask("b", 1, First))
		}, 6 * time.Hour, Hold, 24 * time.Hour, nil},
		{"until the first is a day old", func(t *testing.T) State {
			return six(t).Add(ask("b", 1, First))
		}, 24 * time.Hour, Start, 0, []string{"b"}},
		{"one that was followed by serving is not counted", func(t *testing.T) State {
			return six(t).Proved(3).Add(ask("b", 1, First))
		}, 6 * time.Hour, Start, 0, []string{"b"}},
		{"interrupted ones count", func(t *testing.T) State {
			s := six(t).Proved(6).Add(ask("b", 1, First))
			s = s.Started(epoch.Add(6*time.Hour), s.Next(epoch.Add(6*time.Hour), Limits{}).Batch)
			s, _ = s.Interrupted(epoch.Add(7 * time.Hour))
			return s.Add(ask("c", 1, First))
		}, 8 * time.Hour, Hold, 24 * time.Hour, nil},
		{"a clock set back a little waits at most twice as long", func(t *testing.T) State {
			return run(t, State{}.Add(ask("a", 1, First)), epoch).Add(ask("b", 1, First))
		}, -30 * time.Second, Wait, time.Minute, nil},
		{"a clock set back a year blocks nothing", func(t *testing.T) State {
			return six(t).Add(ask("b", 1, First))
		}, -365 * 24 * time.Hour, Start, 0, []string{"b"}},
		{"dropped requests are gone", func(*testing.T) State {
			return State{}.Add(ask("a", 1, First)).Add(ask("b", 1, First)).Drop("a")
		}, 0, Start, 0, []string{"b"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := tt.state(t).Next(epoch.Add(tt.at), Limits{})
			if d.Action != tt.want {
				t.Fatalf("action %s until %s, want %s", d.Action, d.Until, tt.want)
			}
			if (tt.want == Wait || tt.want == Hold) && !d.Until.Equal(epoch.Add(tt.until)) {
				t.Errorf("until %s, want %s", d.Until, epoch.Add(tt.until))
			}
			var got []string
			for _, r := range d.Batch.Requests {
				got = append(got, r.Certificate)
			}
			if !slices.Equal(got, tt.batch) {
				t.Errorf("batch %v, want %v", got, tt.batch)
			}
		})
	}
}

func TestHeldIsToldOnce(t *testing.T) {
	var s State
	for i := range 6 {
		s = run(t, s.Add(ask("a", i+1, First)), epoch.Add(time.Duration(i)*time.Minute))
	}
	now := epoch.Add(time.Hour)
	s = s.Add(ask("b", 1, First))
	d := s.Next(now, Limits{})
	if len(d.Held) != 1 || d.Held[0].Certificate != "b" {
		t.Fatalf("held %v", d.Held)
	}
	s = s.Told(d.Held).Add(ask("c", 1, First))
	if d = s.Next(now, Limits{}); len(d.Held) != 1 || d.Held[0].Certificate != "c" {
		t.Fatalf("held again %v", d.Held)
	}
	if d = s.Told(d.Held).Next(now, Limits{}); d.Action != Hold || d.Held != nil {
		t.Fatalf("told twice: %+v", d)
	}
}

func TestFindAndLatest(t *testing.T) {
	s := State{}.Add(ask("a", 1, First))
	if _, waiting, known := s.Find("a/r1/1"); !waiting || !known {
		t.Error("a waiting request is not found")
	}
	d := s.Next(epoch, Limits{})
	s = s.Started(epoch, d.Batch)
	if r, waiting, known := s.Find("a/r1/1"); waiting || !known || r.ID != 1 || !r.Ended.IsZero() {
		t.Errorf("running: %+v %t %t", r, waiting, known)
	}
	if r, ok := s.Latest("a"); !ok || r.ID != 1 {
		t.Errorf("latest while running: %+v %t", r, ok)
	}
	s = s.Finished(epoch, 7, true) // another run's end
	if s.Running == nil {
		t.Error("the end of another run ended this one")
	}
	s = s.Finished(epoch.Add(time.Second), 1, false)
	if r, _, known := s.Find("a/r1/1"); !known || r.OK || r.Ended.IsZero() {
		t.Errorf("finished: %+v %t", r, known)
	}
	if again := s.Add(ask("a", 1, First)); len(again.Waiting) != 0 {
		t.Error("a request that was served is queued again")
	}
	if _, _, known := s.Find("b/r1/1"); known {
		t.Error("an unknown request is known")
	}
}

func TestBatchTouchHasEachFileOnce(t *testing.T) {
	b := Batch{Requests: []Request{{Touch: []string{"/b", "/a"}}, {Touch: []string{"/a"}}}}
	if got := b.Touch(); !slices.Equal(got, []string{"/a", "/b"}) {
		t.Errorf("got %v", got)
	}
}

func roundTrip(t *testing.T, s State) State {
	t.Helper()
	data, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var back State
	if err := json.Unmarshal(data, &back); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(s, back) {
		t.Fatalf("JSON changed the state:\n%+v\n%+v", s, back)
	}
	return back
}

// TestRandomWalk does what a keeper, a server, a clock and kill -9 may do, in any
// order, and checks after each step what must hold.
func TestRandomWalk(t *testing.T) {
	const steps = 800
	for seed := range uint64(5) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { walk(t, seed, steps, seed%3 == 2) })
	}
}

func walk(t *testing.T, seed uint64, steps int, clockJumps bool) {
	rng := rand.New(rand.NewPCG(seed, 7))
	limits := Limits{Apart: time.Minute, PerDay: 3 + rng.IntN(6), Window: 24 * time.Hour}
	now := epoch
	var s State
	where := map[string]string{} // request id -> waiting, running, done, dropped
	var order []string
	type start struct {
		at  time.Time
		run uint64
	}
	var starts []start
	proved := map[uint64]bool{}
	serial := 0
	stepsOf := []Step{First, Touch, Last}

	check := func(before State, image string) {
		t.Helper()
		if image != "" {
			if data, _ := json.Marshal(before); string(data) != image {
				t.Fatalf("a method changed its receiver:\n%s\n%s", image, data)
			}
			roundTrip(t, s)
		}
		if len(s.Past) > maxPast {
			t.Fatalf("%d past runs", len(s.Past))
		}
		in := map[string]int{}
		for _, r := range s.Waiting {
			in[r.ID]++
			if where[r.ID] != "waiting" {
				t.Fatalf("%s waits but is %s", r.ID, where[r.ID])
			}
		}
		if s.Running != nil {
			for _, r := range s.Running.Requests {
				in[r.ID]++
				if where[r.ID] != "running" {
					t.Fatalf("%s runs but is %s", r.ID, where[r.ID])
				}
				if r.Step != s.Running.Step {
					t.Fatalf("%s is of step %s in a run of step %s", r.ID, r.Step, s.Running.Step)
				}
			}
		}
		for _, id := range order {
			w := where[id]
			if want := w == "waiting" || w == "running"; want != (in[id] == 1) || in[id] > 1 {
				t.Fatalf("%s is %s and %d times in the state", id, w, in[id])
			}
		}
	}
	for i := range steps {
		before := s
		var data []byte
		if i%16 == 0 || i < 100 {
			data, _ = json.Marshal(before)
		}
		switch rng.IntN(12) {
		case 0, 1, 2:
			serial++
			r := Request{Certificate: fmt.Sprintf("c%d", rng.IntN(4)), RenewalID: fmt.Sprint(serial), Attempt: 1, Step: stepsOf[rng.IntN(3)], Touch: []string{"/x"}}
			r.ID = RequestID(r.Certificate, r.RenewalID, 1)
			s = s.Add(r)
			where[r.ID], order = "waiting", append(order, r.ID)
		case 3: // handed in again after a kill
			if len(s.Waiting) > 0 {
				s = s.Add(s.Waiting[0])
			}
			if s.Running != nil {
				s = s.Add(s.Running.Requests[0])
			}
			if len(s.Past) > 0 {
				if last := s.Past[len(s.Past)-1]; len(last.Requests) > 0 {
					s = s.Add(last.Requests[0])
				}
			}
		case 4, 5, 6:
			d := s.Next(now, limits)
			switch d.Action {
			case Start:
				if s.Running != nil {
					t.Fatal("two at once")
				}
				if len(d.Batch.Requests) == 0 {
					t.Fatal("an empty run")
				}
				if !clockJumps {
					unproved := 0
					for _, st := range starts {
						if now.Sub(st.at) < limits.Apart {
							t.Fatalf("two starts %s apart", now.Sub(st.at))
						}
						if now.Sub(st.at) < limits.Window && !proved[st.run] {
							unproved++
						}
					}
					if unproved >= limits.PerDay {
						t.Fatalf("start although %d of %d proved nothing", unproved, limits.PerDay)
					}
				}
				for _, r := range d.Batch.Requests {
					if where[r.ID] != "waiting" {
						t.Fatalf("%s is run again: it is %s", r.ID, where[r.ID])
					}
					where[r.ID] = "running"
				}
				s = s.Started(now, d.Batch)
				starts = append(starts, start{now, d.Batch.Run})
				if again := s.Started(now, d.Batch); !reflect.DeepEqual(again, s) {
					t.Fatal("one batch was started twice")
				}
			case Wait, Hold:
				bound := 2 * limits.Apart
				if d.Action == Hold {
					bound = limits.Window + limits.Apart
					s = s.Told(d.Held)
				}
				if !d.Until.After(now) || d.Until.Sub(now) > bound {
					t.Fatalf("%s for %s", d.Action, d.Until.Sub(now))
				}
				if next := s.Next(d.Until, limits); next.Action == Idle || next.Action == Busy || (next.Action == d.Action && !next.Until.After(d.Until)) {
					t.Fatalf("%s until %s brings %s", d.Action, d.Until, next.Action)
				}
				// One wait is enough, and so is one hold: each further one may only
				// come from a run dated ahead by a clock that was set back.
				if next := s.Next(d.Until, limits); !clockJumps && next.Action != Start {
					t.Fatalf("%s until %s brings %s until %s", d.Action, d.Until, next.Action, next.Until)
				}
			case Busy:
				if s.Running == nil {
					t.Fatal("busy with nothing")
				}
			case Idle:
				if len(s.Waiting) > 0 {
					t.Fatal("idle while requests wait")
				}
			}
		case 7, 8:
			if s.Running != nil {
				for _, r := range s.Running.Requests {
					where[r.ID] = "done"
				}
				s = s.Finished(now, s.Running.ID, rng.IntN(2) == 0)
			}
		case 9:
			if len(s.Past) > 0 && rng.IntN(3) == 0 {
				id := s.Past[rng.IntN(len(s.Past))].ID
				s, proved[id] = s.Proved(id), true
			}
			if rng.IntN(8) == 0 {
				certificate := fmt.Sprintf("c%d", rng.IntN(4))
				for _, r := range s.Waiting {
					if r.Certificate == certificate {
						where[r.ID] = "dropped"
					}
				}
				s = s.Drop(certificate)
			}
		case 10: // kill -9 and start again
			var lost []Request
			s, lost = roundTrip(t, s).Interrupted(now)
			for _, r := range lost {
				if where[r.ID] != "running" {
					t.Fatalf("%s was interrupted but is %s", r.ID, where[r.ID])
				}
				where[r.ID] = "done"
			}
			if s.Running != nil {
				t.Fatal("still running after an interruption")
			}
		case 11:
			now = now.Add(time.Duration(rng.Int64N(int64(4 * time.Hour))))
			if clockJumps && rng.IntN(4) == 0 {
				now = now.Add(-time.Duration(rng.Int64N(int64(72 * time.Hour))))
			}
		}
		now = now.Add(time.Duration(rng.Int64N(int64(40 * time.Second))))
		check(before, string(data))
	}
	if len(starts) < steps/200 {
		t.Errorf("only %d starts: the walk tests nothing", len(starts))
	}
}

func TestHistoryKeepsWhatTheLimitCounts(t *testing.T) {
	s, now := State{}, epoch
	for i := range 5 {
		s = run(t, s.Add(ask("a", i+1, First)), now)
		now = now.Add(time.Minute)
	}
	for i := range 3 * maxPast { // each proves something
		s = run(t, s.Add(ask("b", i+1, First)), now).Proved(s.LastID + 1)
		now = now.Add(time.Minute)
	}
	s = run(t, s.Add(ask("c", 1, First)), now)
	now = now.Add(time.Minute)
	if d := s.Add(ask("d", 1, First)).Next(now, Limits{}); d.Action != Hold {
		t.Errorf("%d runs kept, %s: the unproved runs were forgotten", len(s.Past), d.Action)
	}
	many := State{}
	for i := range maxPastRequests + 10 {
		many = State{Waiting: append(many.Waiting, ask(fmt.Sprint(i), 1, First))}
	}
	many = run(t, many, epoch)
	if got := len(many.Past[0].Requests); got != maxPastRequests+10 {
		t.Errorf("the latest run lost requests: %d left", got)
	}
	many = run(t, many.Add(ask("z", 1, First)), epoch.Add(time.Hour))
	if many.Past[0].Requests != nil || len(many.Past[1].Requests) != 1 {
		t.Error("the history of requests is not bounded")
	}
}

func TestAbandonedRunLeavesNoTrace(t *testing.T) {
	now := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	s := State{}.Add(Request{ID: "a", Certificate: "a", Step: First})
	d := s.Next(now, Limits{})
	s = s.Started(now, d.Batch)
	if s = s.Abandoned(d.Batch.Run + 1); s.Running == nil {
		t.Fatal("another run's id ended the run")
	}
	s = s.Abandoned(d.Batch.Run).Add(Request{ID: "b", Certificate: "a", Step: First})
	if d := s.Next(now.Add(time.Second), Limits{}); d.Action != Start {
		t.Fatalf("after a run that was never made: %s", d.Action)
	}
}
