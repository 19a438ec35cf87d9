package watchdog

import (
	"flag"
	"runtime/debug"
	"testing"
	"time"
)

var (
	simYears  = flag.Int("years", 0, "how many simulated years TestYears runs; 0: 12, with -short 4")
	simSeed   = flag.Int64("seed", -1, "the one seed that TestYears runs")
	simLines  = flag.Int("lines", 60, "how many of the last lines of a failing seed's story are printed")
	simEnough = flag.Int("enough", 10, "after how many failing seeds TestYears ends")
	simFirst  = flag.Int("first", 0, "the first seed")
)

// TestYears lets the keeper live through years of trouble in virtual time, one a
// seed, and holds all it does and says against what is true.
func TestYears(t *testing.T) {
	seeds := *simYears
	if seeds == 0 {
		seeds = 12
		if testing.Short() {
			seeds = 4
		}
	}
	first := uint64(*simFirst)
	if *simSeed >= 0 {
		first, seeds = uint64(*simSeed), 1
	}
	defer debug.SetGCPercent(debug.SetGCPercent(800))
	begun, failed := time.Now(), 0
	sum := &simChecks{}
	for seed := first; seed < first+uint64(seeds); seed++ {
		w := simulate(seed, 0, simYear)
		sum.reloads += w.reloads
		sum.steps += w.steps
		sum.lastSeq += w.lastSeq
		sum.promises += w.promises
		if w.err != nil {
			if *simLines > 60 && w.k != nil {
				for n, c := range w.k.certs {
					t.Logf("%s standing %s next %s wake %s probe %+v probing %d judged %s checked %s fresh %t backlog %d alert %+v", n, c.state.Standing, c.state.NextProbe, c.wake, c.state.Probe, c.probing, c.state.Judged, c.state.Checked, c.state.Fresh, len(c.backlog), c.state.Alert)
				}
				t.Logf("now %s retry %d at %s impaired %v queue %d", w.Now(), len(w.k.retry), w.k.retryAt, w.k.impaired.Load(), len(w.k.queue))
			}
			t.Errorf("seed %d: %v\nreplay it: go test ./internal/watchdog -run TestYears -seed %d\n%s", seed, w.err, seed, w.tail(*simLines))
			if failed++; failed == *simEnough {
				t.Fatal("enough")
			}
		}
	}
	t.Logf("%d years in %s: %d probes, %d reloads, %d events", seeds, time.Since(begun).Round(time.Millisecond), sum.steps, sum.reloads, sum.lastSeq)
}

// simulate runs one world for a time, and then lets it heal.
func simulate(seed uint64, certs int, d time.Duration) *sim {
	w := newSim(seed, certs)
	w.run(d)
	if w.err == nil {
		w.heal()
		w.run(w.t + 5*simDay)
	}
	if w.err == nil {
		w.finish()
	}
	return w
}

// BenchmarkYear is a year of a hundred certificates with a look at each once a
// day, and once an hour.
func BenchmarkYear(b *testing.B) {
	for _, every := range []time.Duration{simDay, time.Hour} {
		b.Run(every.String(), func(b *testing.B) {
			for i := range b.N {
				w := newSim(uint64(i), 100)
				w.every, w.policy.Every = every, every
				w.run(simYear)
				if w.err != nil {
					b.Fatalf("%v\n%s", w.err, w.tail(60))
				}
				b.ReportMetric(float64(w.steps), "probes/op")
			}
		})
	}
}
