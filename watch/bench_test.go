package watch

import (
	"context"
	"strconv"
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

// BenchmarkScan measures a full scan of 1,000 certbot lineages: the first one,
// which reads everything, and a later one, when nothing has changed.
func BenchmarkScan(b *testing.B) {
	const n = 1000
	dir := b.TempDir()
	for i := range n {
		_, err := certtest.NewLineage(dir, "n"+strconv.Itoa(i)+".test", leafA())
		check(b, err)
	}
	w := New(Options{})
	sources := []Source{{Cert: dir + "/live/*/fullchain.pem"}}
	scan := func(l *loop) {
		l.scan(context.Background())
		for l.scanning {
			l.queue, l.stalled = nil, false
			l.pass(context.Background())
		}
		l.queue = nil
	}
	begin := func() *loop {
		l := newLoop(w)
		l.sources = sources
		l.openInotify()
		return l
	}
	b.Run("first", func(b *testing.B) {
		for b.Loop() {
			l := begin()
			scan(l)
			if len(l.items) != n {
				b.Fatalf("%d items", len(l.items))
			}
			l.dirs.lose()
		}
		b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/n, "us/source")
	})
	b.Run("unchanged", func(b *testing.B) {
		l := begin()
		defer l.dirs.lose()
		// Until the files are old enough for stat to tell that they are the same.
		for trusted := 0; trusted < n; {
			scan(l)
			trusted = 0
			for _, it := range l.items {
				if !it.last.readAt.IsZero() {
					trusted++
				}
			}
		}
		for b.Loop() {
			scan(l)
		}
		b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/n, "us/source")
	})
}
