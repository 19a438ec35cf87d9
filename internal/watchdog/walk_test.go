package watchdog

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/renewatch/renewatch/notify"
)

// TestWalk lets a random world act on Step for months of its time and checks
// what must hold whatever happens.
func TestWalk(t *testing.T) {
	seeds := 400
	if testing.Short() {
		seeds = 50
	}
	for seed := range seeds {
		if !walk(t, uint64(seed)) {
			t.Fatalf("seed %d", seed)
		}
	}
}

type world struct {
	t       *testing.T
	r       *rand.Rand
	now     time.Time
	p       Policy
	s       State
	leaves  []notify.Certificate
	disk    int             // index into leaves; -1: nothing on disk
	bad     string          // what is wrong with the files now
	served  map[string]int  // address -> leaf it serves; -1: down
	loaded  map[string]bool // servers that work when they are reloaded
	asked   map[string]Reload
	ended   map[string]int // renewal -> terminal events
	opened  map[string]bool
	reloads map[string]int // renewal and server -> reloads that were run
	events  uint64
	ok      bool
	mute    bool
}

func (w *world) fail(format string, args ...any) {
	if w.mute {
		return
	}
	w.t.Errorf(format, args...)
	w.ok = false
}

func walk(t *testing.T, seed uint64) bool {
	r := rand.New(rand.NewPCG(seed, 1))
	w := &world{t: t, r: r, now: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC), disk: -1, ok: true,
		served: map[string]int{"a": -1, "b": -1}, loaded: map[string]bool{}, asked: map[string]Reload{}, ended: map[string]int{},
		opened: map[string]bool{}, reloads: map[string]int{}}
	w.p = Policy{Name: "c", Host: "h", Instance: "i", Watched: r.IntN(10) > 0, Repair: r.IntN(10) > 0, Grace: 30 * time.Second, Deadline: 15 * time.Minute,
		Retries: []time.Duration{0, time.Minute, 10 * time.Minute}[:1+r.IntN(3)], Recheck: []time.Duration{time.Minute, time.Hour}, Every: time.Hour, Samples: 12, Spread: 2 * time.Second}
	for i := range 6 {
		from := w.now.Add(time.Duration(i-6) * 24 * time.Hour)
		w.leaves = append(w.leaves, notify.Certificate{SHA256: fmt.Sprintf("%064x", i+1), Names: []string{"x"}, KeyType: "ecdsa", NotBefore: from.Add(-time.Hour), NotAfter: from.Add(90 * 24 * time.Hour)})
	}
	for range 300 {
		w.act()
		if !w.ok {
			return false
		}
	}
	// Everything heals: then every story must come to its one end.
	w.bad, w.p.Repair = "", true
	if w.disk >= 0 {
		w.see()
		for i := 0; i < 400 && w.ok; i++ {
			for a := range w.served {
				w.served[a] = w.disk
			}
			w.pass(time.Minute)
			w.answer()
		}
		for id := range w.opened {
			if w.ended[id] != 1 {
				w.fail("renewal %s has %d terminal events", id, w.ended[id])
			}
		}
	}
	return w.ok
}

func (w *world) act() {
	switch n := w.r.IntN(20); {
	case n < 2 && w.bad == "":
		w.disk = min(w.disk+1, len(w.leaves)-1)
		w.see()
	case n == 2 && w.disk > 0:
		w.disk--
		w.see()
	case n == 3 && w.disk >= 0:
		w.see()
	case n == 4:
		w.bad = "half_written"
		w.step(Input{Fault: &Fault{Code: w.bad, Sentence: "bad", Missing: w.r.IntN(2) == 0}})
	case n == 5 && w.disk >= 0:
		w.bad = ""
		w.see()
	case n == 6:
		w.step(Input{Boot: true})
		if a, ok := w.asked["nginx"]; ok {
			delete(w.asked, "nginx")
			switch w.r.IntN(3) {
			case 0:
				w.step(Input{Reload: &ReloadReport{ID: a.ID, Server: "nginx", Dropped: true}})
			case 1:
				w.step(Input{Reload: &ReloadReport{ID: a.ID, Server: "nginx", Interrupted: true}})
			default:
				w.reloads[a.RenewalID]++
				w.step(Input{Reload: &ReloadReport{ID: a.ID, Server: "nginx", OK: true, Run: "1"}})
			}
		}
	case n == 7:
		w.step(Input{Gap: true})
	case n >= 8 && n < 10 && w.disk >= 0:
		for a := range w.served {
			w.served[a] = w.r.IntN(w.disk+2) - 1
		}
	case n == 10 && w.r.IntN(8) == 0:
		w.step(Input{Removed: true})
	case n == 11:
		w.loaded["nginx"] = w.r.IntN(2) == 0
	case n < 15:
		w.answer()
	default:
		w.pass(time.Duration(w.r.Int64N(int64(20 * time.Minute))))
	}
}

func (w *world) see() {
	l := w.leaves[w.disk]
	w.step(Input{Seen: &Seen{Leaf: l, Since: w.now, Facts: Facts{SHA256: l.SHA256}}})
}

// pass lets time go by, with the ticks that Step wants.
func (w *world) pass(d time.Duration) {
	end := w.now.Add(d)
	for range 200 {
		at := Wake(w.p, w.s)
		if at.IsZero() || at.After(end) {
			break
		}
		if at.After(w.now) {
			w.now = at
		}
		w.step(Input{})
	}
	w.now = end
}

// answer answers what runs.
func (w *world) answer() {
	if a, ok := w.asked["nginx"]; ok && w.r.IntN(2) == 0 {
		delete(w.asked, "nginx")
		rep := ReloadReport{ID: a.ID, Server: "nginx", Run: "1", OK: w.r.IntN(4) > 0}
		switch w.r.IntN(8) {
		case 0:
			rep = ReloadReport{ID: a.ID, Server: "nginx", Held: CauseLimit, OpensAt: w.now.Add(time.Hour)}
		case 1:
			rep = ReloadReport{ID: a.ID, Server: "nginx", Held: CauseMoving}
		case 2:
			rep.Interrupted = true
		default:
			w.reloads[a.RenewalID]++
			if rep.OK && w.loaded["nginx"] && w.disk >= 0 {
				for addr := range w.served {
					w.served[addr] = w.disk
				}
			}
		}
		w.step(Input{Reload: &rep})
	}
	if w.s.Probe == nil || w.s.Disk == nil {
		return
	}
	r := Round{ID: w.s.Probe.ID}
	if w.r.IntN(20) == 0 {
		r.Impaired = "clock"
	}
	facts := w.s.Disk.Facts
	if w.bad != "" {
		facts.Pair = w.bad
	}
	r.Facts = &facts
	for addr, i := range w.served {
		f := Finding{Required: true}
		f.Endpoint, f.Address, f.Server, f.Samples = "https://"+addr, addr, "nginx", 4
		if i < 0 {
			f.Code, f.Faults = "refused", []string{"refused"}
		} else {
			l := w.leaves[i]
			f.Served = &notify.Served{SHA256: l.SHA256, Names: l.Names, NotBefore: l.NotBefore, NotAfter: l.NotAfter}
			f.Lineage, f.ServedKeyType = true, l.KeyType
			switch d := w.s.Disk.Leaf; {
			case l.SHA256 == d.SHA256:
				f.Code, f.Serving, f.Matching, f.Since = "serving", true, 4, w.now
			case l.NotBefore.After(d.NotBefore):
				f.Code, f.Faults = "ahead", []string{"ahead"}
			default:
				f.Code, f.Faults = "stale", []string{"stale"}
			}
		}
		r.Findings = append(r.Findings, f)
	}
	w.step(Input{Round: &r})
}

func (w *world) step(in Input) {
	in.Draw = w.r.Float64()
	next, cmds := Step(w.now, w.p, w.s, in)
	for _, d := range next.Outbox {
		if d.Occurrence <= w.events {
			w.fail("occurrence %d after %d", d.Occurrence, w.events)
		}
		w.events = d.Occurrence
		id := d.Data.RenewalID
		switch d.Kind {
		case notify.DeployVerified, notify.DeployFailed, notify.DeployUnverified, notify.DeploySuperseded:
			if w.ended[id]++; w.ended[id] > 1 {
				w.fail("a second terminal event: %s", d.Kind)
			}
			if d.Kind == notify.DeployVerified {
				for addr, i := range w.served {
					if i < 0 || w.leaves[i].SHA256 != next.Disk.Leaf.SHA256 {
						w.fail("verified while %s serves %d", addr, i)
					}
				}
			}
		case notify.ReloadHeld, notify.DeployLost, notify.DeployRecovered:
			if id == "" {
				w.fail("%s without a renewal", d.Kind)
			}
		}
	}
	next.Outbox = nil
	if next.Story != nil {
		w.opened[next.Story.RenewalID] = true
	}
	for _, c := range cmds {
		switch c := c.(type) {
		case Reload:
			t := next.Story
			switch {
			case !w.p.Repair:
				w.fail("a reload although repair is off")
			case w.now.Before(t.GraceEnd):
				w.fail("a reload within the grace")
			case w.bad != "" && next.Fault != nil:
				w.fail("a reload while the files are at fault")
			case next.Standing == Reverted || next.Standing == Removed || next.Standing == Verified:
				w.fail("a reload while %s", next.Standing)
			case w.reloads[t.RenewalID] >= min(maxAttempts, len(w.p.Retries)):
				w.fail("more reloads than a renewal may have")
			}
			if _, twice := w.asked[c.Server]; twice {
				w.fail("two reloads of one server at once")
			}
			w.asked[c.Server] = c
		case Drop:
			delete(w.asked, c.Server)
		case Probe:
			if next.Probe == nil || next.Probe.ID != c.ID {
				w.fail("a probe that the state does not know")
			}
		}
	}
	if next.Standing == Open && w.p.Watched && Wake(w.p, next).IsZero() {
		w.fail("an open story that never wakes")
	}
	w.s = next
}
