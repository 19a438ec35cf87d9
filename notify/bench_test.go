package notify

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"syscall"
	"testing"
	"time"
)

// proof is an event as most are: a renewal that two addresses serve.
func proof(n int) Draft {
	name := fmt.Sprintf("host-%d.example.test", n%10000)
	sum := fmt.Sprintf("%064x", n)
	lag := 3.25
	verdict := func(address string) Verdict {
		return Verdict{Certificate: name, Endpoint: "https://" + name, Server: "nginx", Address: address, Transport: "tcp", KeyType: "ecdsa",
			Code: "serving", Faults: []string{}, Severity: Info, ExpectedSHA256: sum, Samples: 12, Matching: 12, TookMS: 4,
			Served: &Served{SHA256: sum, Serial: sum[:32], Names: []string{name, "www." + name}, NotBefore: noon, NotAfter: noon.AddDate(0, 0, 90),
				Issuer: "CN=E7,O=Let's Encrypt,C=US", Chain: []string{sum, sum}},
			Detail: "serves 3f:aa until 2026-08-30"}
	}
	return Draft{Kind: DeployVerified, Certificate: name, Leaf: sum, Occurrence: uint64(n), Data: Data{
		Certificate: &Certificate{Name: name, SHA256: sum, Serial: sum[:32], Names: []string{name, "www." + name}, Issuer: "CN=E7,O=Let's Encrypt,C=US",
			NotBefore: noon, NotAfter: noon.AddDate(0, 0, 90), KeyType: "ecdsa", Path: "/etc/letsencrypt/live/" + name + "/fullchain.pem"},
		Verdicts: []Verdict{verdict("192.0.2.1:443"), verdict("[2001:db8::1]:443")}, LagSeconds: &lag, RenewalID: sum[:32],
	}}
}

// cpu is what this process has used of all cores.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func live() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkMinute measures events on their way to the disk, alone and in batches:
// how long Append takes, and what share of a core 1,000 events a minute are.
func BenchmarkMinute(b *testing.B) {
	for _, size := range []int{1, 10, 100} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			o := options(&clock{now: noon})
			o.Destinations = nil
			j := open(b, b.TempDir(), o)
			drafts := make([]Draft, size)
			var took []time.Duration
			n, used := 0, cpu()
			for b.Loop() {
				for i := range drafts {
					drafts[i] = proof(n)
					n++
				}
				at := time.Now()
				if events, err := j.Append(drafts...); err != nil || len(events) != size {
					b.Fatal(len(events), err)
				}
				took = append(took, time.Since(at))
			}
			used = cpu() - used
			slices.Sort(took)
			ms := func(at float64) float64 { return float64(took[int(at*float64(len(took)-1))].Microseconds()) / 1e3 }
			b.ReportMetric(ms(0.5), "p50-ms")
			b.ReportMetric(ms(0.99), "p99-ms")
			b.ReportMetric(float64(used.Microseconds())/float64(n), "cpu-us/event")
			b.ReportMetric(100*(used.Seconds()/float64(n))*1000/60, "%core@1000/min")
		})
	}
}

// writeLarge writes a journal of n events like d over so many days, as if it had
// been appended to, and what sent says of its cursor.
func writeLarge(b testing.TB, dir string, d Draft, n, days int, sent uint64) {
	b.Helper()
	e, err := Finish(d, "web1.example.org", "instance", 1, noon)
	if err != nil {
		b.Fatal(err)
	}
	var (
		f    *os.File
		w    *bufio.Writer
		size int
		day  int
	)
	done := func() {
		if f != nil {
			w.Flush()
			f.Close()
		}
	}
	for i := range n {
		at := noon.Add(time.Duration(i) * (time.Duration(days) * 24 * time.Hour / time.Duration(n)))
		e.ID, e.Sequence, e.Time = fmt.Sprintf("%032x", i), formatSequence(uint64(i+1)), at
		line, err := Encode(e)
		if err != nil {
			b.Fatal(err)
		}
		if f == nil || size > 8<<20 || at.YearDay() != day {
			done()
			if f, err = os.Create(filepath.Join(dir, segmentName(uint64(i+1)))); err != nil {
				b.Fatal(err)
			}
			w, size, day = bufio.NewWriterSize(f, 1<<20), 0, at.YearDay()
		}
		w.Write(append(line, '\n'))
		size += len(line) + 1
	}
	done()
	cursor := fmt.Sprintf(`{"sequence":%d}`, sent)
	if err := os.WriteFile(filepath.Join(dir, "cursor."+Destination+".json"), []byte(cursor), 0o600); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkOpenJournal measures the start with a journal of half a million
// events: all sent, and none of them.
func BenchmarkOpenJournal(b *testing.B) {
	const n = 500_000
	for name, sent := range map[string]uint64{"sent": n, "unsent": 0} {
		b.Run(name, func(b *testing.B) {
			dir := b.TempDir()
			writeLarge(b, dir, proof(1), n, 400, sent)
			o := options(&clock{now: noon.AddDate(0, 0, 400)})
			o.MaxSize = 4 << 30
			o.Keep = 500 * 24 * time.Hour
			var kept, used float64
			for b.Loop() {
				before, at := live(), cpu()
				j, err := OpenJournal(dir, o)
				if err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				used += float64(cpu() - at)
				kept += float64(live()) - float64(before)
				if j.Last() != n || j.Depth() != n-int(sent) {
					b.Fatalf("last %d, %d wait", j.Last(), j.Depth())
				}
				j.Close()
				b.StartTimer()
			}
			b.ReportMetric(kept/float64(b.N)/1e6, "kept-MB")
			b.ReportMetric(used/float64(b.N)/1e6, "cpu-ms")
		})
	}
}

// BenchmarkBacklog measures what it costs to read a backlog and to say of each
// event that it is sent, as a Sender does.
func BenchmarkBacklog(b *testing.B) {
	const n = 20_000
	dir := b.TempDir()
	writeLarge(b, dir, proof(1), n, 1, 0)
	used := cpu()
	for b.Loop() {
		if err := os.WriteFile(filepath.Join(dir, "cursor."+Destination+".json"), []byte("{}"), 0o600); err != nil {
			b.Fatal(err)
		}
		j, err := OpenJournal(dir, options(&clock{now: noon.AddDate(0, 0, 1)}))
		if err != nil {
			b.Fatal(err)
		}
		at, sent := position{}, 0
		for sent < n {
			records, err := j.read(&at, readAhead)
			if err != nil || len(records) == 0 {
				b.Fatal(sent, err)
			}
			for i, r := range records {
				if err := j.advance(Destination, r.seq, i == len(records)-1); err != nil {
					b.Fatal(err)
				}
				sent++
			}
		}
		j.Close()
	}
	b.ReportMetric(float64((cpu()-used).Microseconds())/float64(b.N*n), "cpu-us/event")
}
