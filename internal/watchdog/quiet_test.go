package watchdog

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/renewatch/renewatch/notify"
)

// TestQuiet lets a random past happen, then the world stands still for six hours:
// what is critical all the time is alerted as critical, whatever automatic step is
// due again and again; when all is well nothing stands; and nobody is asked in a
// hurry.
func TestQuiet(t *testing.T) {
	seeds := 600
	if testing.Short() {
		seeds = 100
	}
	for seed := range seeds {
		if why := quietWalk(t, uint64(seed)); why != "" {
			t.Fatalf("seed %d: %s", seed, why)
		}
	}
}

func quietWalk(t *testing.T, seed uint64) string {
	r := rand.New(rand.NewPCG(seed, 7))
	w := &world{t: t, r: r, now: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC), disk: -1, ok: true,
		served: map[string]int{"a": -1, "b": -1}, loaded: map[string]bool{}, asked: map[string]Reload{}, ended: map[string]int{},
		opened: map[string]bool{}, reloads: map[string]int{}}
	w.p = Policy{Name: "c", Host: "h", Instance: "i", Watched: true, Repair: r.IntN(4) > 0, Grace: 30 * time.Second, Deadline: []time.Duration{15 * time.Minute, 24 * time.Hour}[r.IntN(2)],
		Retries: []time.Duration{0, time.Minute, 10 * time.Minute}[:1+r.IntN(3)], Recheck: []time.Duration{time.Minute, time.Hour}, Every: time.Hour, Samples: 12, Spread: 2 * time.Second}
	for i := range 6 {
		from := w.now.Add(time.Duration(i-6) * 24 * time.Hour)
		w.leaves = append(w.leaves, notify.Certificate{SHA256: fmt.Sprintf("%064x", i+1), Names: []string{"x"}, KeyType: "ecdsa", NotBefore: from.Add(-time.Hour), NotAfter: from.Add(90 * 24 * time.Hour)})
	}
	n := r.IntN(25)
	for range n {
		w.act()
	}
	if w.disk < 0 {
		w.disk = 0
	}
	w.bad = ""
	w.mute = true
	w.see()
	// From now on nothing changes.
	kinds := []string{"expired", "expired,none", "stale", "mixed", "wrong_name", "foreign", "unresolved,unheard", "refused", "serving", "serving", "serving,default", "foreign,default", "not_testable", "unheard"}
	conf := map[string]string{"a": kinds[r.IntN(len(kinds))], "b": kinds[r.IntN(len(kinds))]}
	hold := []string{"ok", "fail", CauseOtherPair, CauseMoving, CauseLimit, "never"}[r.IntN(6)]
	if r.IntN(3) == 0 {
		w.p.Windows = map[string]Window{"nginx": window{w.now.Add(time.Duration(r.IntN(60)) * time.Minute), w.now.Add(time.Duration(60+r.IntN(600)) * time.Minute)}}
	}
	crit := time.Time{}
	round := func() {
		rd := Round{ID: w.s.Probe.ID, Facts: &w.s.Disk.Facts}
		is := false
		for addr, k := range conf {
			f := Finding{Required: true}
			f.Endpoint, f.Address, f.Server, f.Samples = "https://"+addr, addr, "nginx", 4
			f.Severity, f.Code = notify.Critical, k
			d := w.s.Disk.Leaf
			f.Served = &notify.Served{SHA256: fmt.Sprintf("%064x", 99), Names: d.Names, NotBefore: d.NotBefore.Add(-time.Hour), NotAfter: d.NotAfter}
			switch k {
			case "serving", "serving,default":
				f.Code, f.Serving, f.Matching, f.Since, f.Severity, f.Lineage = "serving", true, 4, w.now, notify.Info, true
				f.Served.SHA256 = d.SHA256
				f.Default = k != "serving"
			case "expired,none":
				f.Code, f.Server = "expired", "none"
			case "unresolved,unheard":
				f.Code, f.Unheard, f.Served = "unresolved", true, nil
			case "unheard":
				f.Code, f.Unheard, f.Served, f.Severity = "unverifiable", true, nil, notify.Warning
			case "foreign,default":
				f.Code, f.Default = "foreign", true
			case "not_testable":
				f.Severity, f.Served = notify.Info, nil
			case "stale":
				f.Lineage = true
			}
			if !f.Serving {
				f.Faults = []string{f.Code}
			}
			if f.Severity == notify.Critical && !f.Unheard && !(f.Default && !w.s.Confirmed[f.Endpoint]) {
				is = true
			}
			rd.Findings = append(rd.Findings, f)
		}
		slices.SortFunc(rd.Findings, func(a, b Finding) int { return len(a.Address) - len(b.Address) })
		if is && crit.IsZero() {
			crit = w.now
		}
		w.step(Input{Round: &rd})
	}
	end := w.now.Add(6 * time.Hour)
	rounds, steps := 0, 0
	for w.now.Before(end) {
		if a, ok := w.asked["nginx"]; ok && hold != "never" {
			delete(w.asked, "nginx")
			rep := ReloadReport{ID: a.ID, Server: "nginx", Run: "1", OK: hold == "ok"}
			switch hold {
			case CauseOtherPair, CauseMoving:
				rep = ReloadReport{ID: a.ID, Server: "nginx", Held: hold}
				w.now = w.now.Add(2 * time.Second)
			case CauseLimit:
				rep = ReloadReport{ID: a.ID, Server: "nginx", Held: hold, OpensAt: w.now.Add(14 * time.Minute)}
			}
			w.step(Input{Reload: &rep})
			continue
		}
		if p := w.s.Probe; p != nil {
			d := time.Duration(1+r.IntN(5)) * time.Second
			if p.Purpose == Confirm && p.Until.After(w.now.Add(d)) {
				d = p.Until.Sub(w.now)
			}
			w.now = w.now.Add(d)
			round()
			rounds++
			continue
		}
		if steps++; steps > 100000 {
			return "livelock"
		}
		at := Wake(w.p, w.s)
		if at.IsZero() {
			return "never wakes"
		}
		if at.After(end) {
			break
		}
		if at.After(w.now) {
			w.now = at
		}
		w.step(Input{})
	}
	level := notify.Severity("")
	if w.s.Alert != nil {
		level = w.s.Alert.Level
	}
	ks := []string{conf["a"], conf["b"]}
	slices.Sort(ks)
	switch {
	case !crit.IsZero() && level != notify.Critical:
		return fmt.Sprintf("critical %v and the alert is %q: %v, reloads %s, repair %v", end.Sub(crit) > time.Hour, level, ks, hold, w.p.Repair)
	case rounds > 1500:
		return fmt.Sprintf("%d rounds in six hours: %v, reloads %s", rounds, ks, hold)
	case crit.IsZero() && ks[0] == "serving" && ks[1] == "serving" && level != "" && w.s.Standing != Reverted:
		return fmt.Sprintf("well, and still alert %q, standing %s", level, w.s.Standing)
	}
	return ""
}
