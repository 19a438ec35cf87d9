package watch

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/renewatch/renewatch/internal/certtest"
)

// BenchmarkOverSettle measures the time from the last write of a renewal to its
// observation, beyond the settle time: over_settle_ms.
func BenchmarkOverSettle(b *testing.B) {
	l, err := certtest.NewLineage(b.TempDir(), "a.test", leafA())
	check(b, err)
	const settle = 100 * time.Millisecond
	w := New(Options{Settle: settle})
	w.Set([]Source{{Cert: l.Fullchain()}})
	out := make(chan Observation)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- w.Run(ctx, out) }()
	defer func() {
		cancel()
		<-done
	}()
	<-out
	leaves := []*certtest.Leaf{leafB(), leafA()}
	var over time.Duration
	n := 0
	for b.Loop() {
		check(b, l.Renew(leaves[n%2]))
		n++
		written := time.Now()
		if o := <-out; o.Kind != Changed {
			b.Fatal(describe(o))
		}
		over += time.Since(written) - settle
	}
	b.ReportMetric(float64(over)/float64(n)/1e6, "over_settle_ms")
}

// The layouts in which certificates lie, each as it is asked for.
var benchLayouts = []struct {
	name  string
	most  int // of them that are worth the time to write
	write func(b *testing.B, dir string, n int) []Source
}{
	{"certbot-glob", 10000, func(b *testing.B, dir string, n int) []Source {
		writeLineages(b, dir, n, leafA())
		return []Source{{Cert: dir + "/live/*/fullchain.pem"}}
	}},
	{"certbot-each", 10000, func(b *testing.B, dir string, n int) []Source {
		var s []Source
		for _, l := range writeLineages(b, dir, n, leafA()) {
			s = append(s, Source{Name: l.Name, Cert: l.Fullchain(), Key: l.Key()})
		}
		return s
	}},
	{"certbot-12-old", 1000, func(b *testing.B, dir string, n int) []Source {
		lineages := writeLineages(b, dir, n, leafA())
		leaves := []*certtest.Leaf{leafB(), leafA()}
		for i := range 12 {
			for _, l := range lineages {
				check(b, l.Renew(leaves[i%2]))
			}
		}
		return []Source{{Cert: dir + "/live/*/fullchain.pem"}}
	}},
	{"pairs-each", 10000, func(b *testing.B, dir string, n int) []Source {
		var s []Source
		for i := range n {
			cert := filepath.Join(dir, benchName(i))
			s = append(s, Source{Cert: cert + ".crt", Key: cert + ".key"})
			check(b, certtest.WritePair(cert+".crt", cert+".key", leafA()))
		}
		return s
	}},
	{"pairs-rsa-glob", 10000, func(b *testing.B, dir string, n int) []Source {
		for i := range n {
			cert := filepath.Join(dir, benchName(i))
			check(b, certtest.WritePair(cert+".crt", cert+".key", leafRSA()))
		}
		return []Source{{Cert: dir + "/*.crt"}}
	}},
}

// age waits until files are old enough for stat to tell that they are the same.
func age() { <-time.After(racy + 100*time.Millisecond) }

func benchName(i int) string { return "host-" + strconv.Itoa(i) + ".example.test" }

func writeLineages(b *testing.B, dir string, n int, leaf *certtest.Leaf) []*certtest.Lineage {
	var all []*certtest.Lineage
	for i := range n {
		l, err := certtest.NewLineage(dir, benchName(i), leaf)
		check(b, err)
		all = append(all, l)
	}
	return all
}

// drive lets a loop scan until everything was looked at, as a reader would that
// takes each observation at once and keeps none.
func drive(l *loop) {
	l.scan()
	for l.scanning {
		l.queue, l.stalled = nil, false
		l.pass(context.Background())
	}
	l.queue, l.stalled = nil, false
}

func live() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// cpu is what this process has used of all cores.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkScan measures many certificates: the first scan, which reads
// everything, what is kept of it (B/cert), and a later scan, when nothing has
// changed. cpu-ms is of all cores.
func BenchmarkScan(b *testing.B) {
	for _, layout := range benchLayouts {
		for _, n := range []int{1000, 10000} {
			if n > layout.most {
				continue
			}
			b.Run(fmt.Sprintf("%s/%d", layout.name, n), func(b *testing.B) {
				sources := layout.write(b, b.TempDir(), n)
				age()
				w := New(Options{})
				begin := func() *loop {
					l := newLoop(w)
					l.sources = sources
					l.openInotify()
					return l
				}
				b.Run("first", func(b *testing.B) {
					before := live()
					var kept, used float64
					watches := 0
					for b.Loop() {
						l := begin()
						at := cpu()
						drive(l)
						b.StopTimer()
						used += float64(cpu() - at)
						if len(l.items) != n {
							b.Fatalf("%d items", len(l.items))
						}
						kept += float64(live()) - float64(before)
						watches = len(l.dirs.nodes)
						runtime.KeepAlive(l)
						l.dirs.lose()
						b.StartTimer()
					}
					b.ReportMetric(used/float64(b.N)/1e6, "cpu-ms")
					b.ReportMetric(kept/float64(b.N)/float64(n), "B/cert")
					b.ReportMetric(float64(watches), "watches")
				})
				b.Run("unchanged", func(b *testing.B) {
					l := begin()
					defer l.dirs.lose()
					drive(l)
					for _, it := range l.items {
						if !it.trusted(time.Now()) || it.changed {
							b.Fatal("not at rest")
						}
					}
					at := cpu()
					for b.Loop() {
						drive(l)
					}
					b.ReportMetric(float64(cpu()-at)/float64(b.N)/1e6, "cpu-ms")
				})
			})
		}
	}
}

// BenchmarkRenewAll renews many lineages at once, as fast as they can be written:
// the time from the last write to the last observation, beyond the settle time,
// and the highest heap meanwhile, garbage included.
func BenchmarkRenewAll(b *testing.B) {
	for _, n := range []int{1000, 10000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			dir := b.TempDir()
			lineages := writeLineages(b, dir, n, leafA())
			age()
			w := New(Options{})
			w.Set([]Source{{Cert: dir + "/live/*/fullchain.pem"}})
			out := make(chan Observation)
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan error)
			go func() { done <- w.Run(ctx, out) }()
			defer func() {
				cancel()
				<-done
			}()
			for range n {
				<-out
			}
			leaves := []*certtest.Leaf{leafB(), leafA()}
			var over, used time.Duration
			var peak uint64
			round := 0
			for b.Loop() {
				written := make(chan time.Time, 1)
				leaf := leaves[round%2]
				round++
				at := cpu()
				go func() {
					for _, l := range lineages {
						if err := l.Renew(leaf); err != nil {
							b.Error(err)
						}
					}
					written <- time.Now()
				}()
				for changed := 0; changed < n; {
					o := <-out
					switch {
					case o.Kind == Changed && o.Pair.Leaf().Equal(leaf.Cert):
						changed++
					case o.Kind == Changed:
						b.Fatal("another leaf")
					default:
						b.Log(describe(o)) // half-way, on a busy machine
					}
					if changed%64 == 0 {
						var m runtime.MemStats
						runtime.ReadMemStats(&m)
						peak = max(peak, m.HeapAlloc)
					}
				}
				over += time.Since(<-written) - defaultSettle
				used += cpu() - at
			}
			b.ReportMetric(float64(over)/float64(b.N)/1e6, "over_settle_ms")
			b.ReportMetric(float64(used)/float64(b.N)/1e6, "cpu-ms")
			b.ReportMetric(float64(peak)/1e6, "peak-MB")
		})
	}
}
