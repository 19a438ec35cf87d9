package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/renewatch/renewatch/internal/status"
	"github.com/renewatch/renewatch/notify"
)

// BenchmarkFleet measures one daemon with many certificates, each at one
// endpoint: how long until its first scan is done and until all are proven, what
// memory and processor time it takes when nothing happens, and how long after the
// last write all are detected when they change at once. Seconds depend on what else
// the host does, and the server is on it too; the daemon's own processor time
// (cpu_s) does not.
//
// Nothing happens for the idle metrics: rechecks are configured away, and the first
// routine round comes an hour after the start. The rounds are measured by
// BenchmarkFleetRounds.
func BenchmarkFleet(b *testing.B) {
	for _, n := range []int{1_000, 10_000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) { fleet(b, n) })
	}
}

func fleet(b *testing.B, n int) {
	d := startBenchWith(b, n, "{enabled: false}", ", recheck: []")
	for b.Loop() {
		b.ReportMetric(d.ready(b).Seconds(), "s_ready")
		b.ReportMetric(d.cpu(b).Seconds(), "cpu_s_ready")
		b.ReportMetric(d.all(b, notify.DeployVerified, n).Sub(d.started).Seconds(), "s_all_proven")
		b.ReportMetric(d.cpu(b).Seconds(), "cpu_s_all_proven")
		b.ReportMetric(d.memory(b, "VmHWM:"), "MB_peak_first")
		<-time.After(time.Minute) // what is written behind a proof
		b.ReportMetric(d.share(b, 2*time.Minute), "%core_idle")
		b.ReportMetric(d.rss(b), "MB_rss_idle")
		b.ReportMetric(float64(d.watches(b)), "inotify_watches")
		before := d.cpu(b)
		var last time.Time
		for i := range n {
			last = d.write(b, i, -time.Hour)
		}
		b.ReportMetric(d.all(b, notify.RenewalDetected, n).Sub(last).Seconds(), "s_all_detected")
		b.ReportMetric((d.cpu(b) - before).Seconds(), "cpu_s_all_detected")
		if err := d.srv.Reload(); err != nil {
			b.Fatal(err)
		}
		reloaded := time.Now()
		b.ReportMetric(d.all(b, notify.DeployVerified, 2*n).Sub(reloaded).Seconds(), "s_all_proven_again")
		b.ReportMetric((d.cpu(b) - before).Seconds(), "cpu_s_all_proven_again")
		b.ReportMetric(d.memory(b, "VmHWM:"), "MB_peak")
	}
}

// BenchmarkFleetRounds measures the share of a core that looking at every address
// again takes: a routine round every minute, and from that what one an hour takes.
func BenchmarkFleetRounds(b *testing.B) {
	for _, n := range []int{1_000, 2_000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			d := startBenchWith(b, n, "{enabled: false}", ", recheck: [], every: 1m")
			for b.Loop() {
				d.all(b, notify.DeployVerified, n)
				<-time.After(time.Minute)
				share := d.share(b, 3*time.Minute)
				b.ReportMetric(share, "%core_rounds_a_minute")
				b.ReportMetric(share/60*20_000/float64(n), "%core_20000_an_hour")
				b.ReportMetric(d.rss(b), "MB_rss")
			}
		})
	}
}

// BenchmarkFleetRestart measures a second start with what the first one remembers.
func BenchmarkFleetRestart(b *testing.B) {
	const n = 10_000
	d := startBenchWith(b, n, "{enabled: false}", ", recheck: [], samples: 2, spread: 100ms")
	for b.Loop() {
		d.all(b, notify.DeployVerified, n)
		d.stop(b)
		d.start(b)
		b.ReportMetric(d.ready(b).Seconds(), "s_ready")
		b.ReportMetric(d.cpu(b).Seconds(), "cpu_s_ready")
	}
}

// share is the share of a core, in percent, that the daemon takes for a while.
func (d *benchDaemon) share(b *testing.B, watched time.Duration) float64 {
	b.Helper()
	before := d.cpu(b)
	<-time.After(watched)
	return 100 * float64(d.cpu(b)-before) / float64(watched)
}

// ready waits until the first scan of all files is done.
func (d *benchDaemon) ready(b *testing.B) time.Duration {
	b.Helper()
	for deadline := time.Now().Add(5 * time.Minute); time.Now().Before(deadline); <-time.After(20 * time.Millisecond) {
		var run status.Run
		text, err := os.ReadFile(filepath.Join(d.dir, "state", "run.json"))
		if err != nil || json.Unmarshal(text, &run) != nil || run.HTTP == "" {
			continue
		}
		r, err := http.Get(run.HTTP + "/readyz")
		if err != nil {
			continue
		}
		r.Body.Close()
		if r.StatusCode == http.StatusOK {
			return time.Since(d.started)
		}
	}
	b.Fatal("never ready")
	return 0
}

// all waits for the n-th event of a kind; a fleet takes its time.
func (d *benchDaemon) all(b *testing.B, kind notify.Kind, n int) time.Time {
	b.Helper()
	return d.waitFor(b, kind, n, 15*time.Minute)
}

// memory is one line of the daemon's /proc status, in MB.
func (d *benchDaemon) memory(b *testing.B, key string) float64 {
	b.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid))
	if err != nil {
		b.Skip("no /proc here")
	}
	_, rest, _ := strings.Cut(string(status), key)
	kb, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64)
	return kb * 1024 / 1e6
}

// watches counts the daemon's inotify watches.
func (d *benchDaemon) watches(b *testing.B) (n int) {
	b.Helper()
	infos, err := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", d.cmd.Process.Pid))
	if err != nil {
		b.Fatal(err)
	}
	for _, f := range infos {
		text, _ := os.ReadFile(f)
		n += strings.Count(string(text), "inotify wd:")
	}
	return n
}
