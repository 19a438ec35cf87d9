package watchdog

import (
	"flag"
	"runtime"
	"runtime/debug"
	"sync"
	"testing"
	"time"
)

var (
	simYears  = flag.Int("years", 0, "how many simulated years TestYears runs; 0: as many of 40 as fit into 40 s, with -short into 5 s")
	simSeed   = flag.Int64("seed", -1, "the one seed that TestYears runs")
	simFirst  = flag.Uint64("first", 0, "the first seed")
	simLines  = flag.Int("lines", 60, "how many of the last lines of a failing seed's story are printed")
	simEnough = flag.Int("enough", 10, "after how many failing seeds TestYears ends")
)

// TestYears lets the keeper live through years of trouble in virtual time, one a
// seed, and holds all it does and says against what is true.
func TestYears(t *testing.T) {
	first, seeds, budget := *simFirst, *simYears, time.Duration(0)
	if seeds == 0 {
		seeds, budget = 40, 40*time.Second
		if testing.Short() {
			budget = 5 * time.Second
		}
	}
	if *simSeed >= 0 {
		first, seeds, budget = uint64(*simSeed), 1, 0
	}
	defer debug.SetGCPercent(debug.SetGCPercent(800))
	begun := time.Now()
	var (
		mu     sync.Mutex
		wg     sync.WaitGroup
		next   = first
		sum    simChecks
		failed int
	)
	take := func() (uint64, bool) {
		mu.Lock()
		defer mu.Unlock()
		if next == first+uint64(seeds) || failed >= *simEnough || budget > 0 && time.Since(begun) > budget {
			return 0, false
		}
		next++
		return next - 1, true
	}
	for range min(runtime.GOMAXPROCS(0), seeds) {
		wg.Go(func() {
			for seed, more := take(); more; seed, more = take() {
				w := simulate(seed)
				mu.Lock()
				sum.reloads += w.reloads
				sum.steps += w.steps
				sum.lastSeq += w.lastSeq
				sum.promises += w.promises
				if w.err != nil {
					failed++
					t.Errorf("seed %d: %v\nreplay it: go test ./internal/watchdog -run TestYears -seed %d\n%s", seed, w.err, seed, w.tail(*simLines))
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	t.Logf("%d years in %s: %d probes, %d reloads, %d events, %d promises", next-first, time.Since(begun).Round(time.Millisecond), sum.steps, sum.reloads, sum.lastSeq, sum.promises)
}

// simulate runs the year of a seed, and then lets the world heal.
func simulate(seed uint64) *sim {
	w := newSim(seed, 0, 0)
	w.run(simYear)
	if w.err == nil {
		w.heal()
		w.run(w.t + 5*simDay)
	}
	if w.err == nil {
		w.finish()
	}
	return w
}

// BenchmarkYear is a year of a hundred certificates, with a look at each once a
// day and once an hour.
func BenchmarkYear(b *testing.B) {
	for _, every := range []time.Duration{simDay, time.Hour} {
		b.Run(every.String(), func(b *testing.B) {
			for i := range b.N {
				w := newSim(uint64(i), 100, every)
				w.run(simYear)
				if w.err != nil {
					b.Fatalf("%v\n%s", w.err, w.tail(60))
				}
				b.ReportMetric(float64(w.steps), "probes/op")
			}
		})
	}
}
