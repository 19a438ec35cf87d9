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
// last write all are detected when they change at once.
func BenchmarkFleet(b *testing.B) {
	for _, n := range []int{1_000, 10_000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) { fleet(b, n) })
	}
}

func fleet(b *testing.B, n int) {
	d := startBench(b, n, "{enabled: false}")
	for b.Loop() {
		b.ReportMetric(d.ready(b).Seconds(), "s_ready")
		b.ReportMetric(d.all(b, notify.DeployVerified, n).Sub(d.started).Seconds(), "s_all_proven")
		b.ReportMetric(d.memory(b, "VmHWM:"), "MB_peak")
		<-time.After(time.Minute) // the rechecks after a minute
		b.ReportMetric(d.rss(b), "MB_rss")
		before := d.cpu(b)
		const watched = 2 * time.Minute
		<-time.After(watched)
		b.ReportMetric(100*float64(d.cpu(b)-before)/float64(watched), "%core_idle")
		b.ReportMetric(d.rss(b), "MB_rss")
		b.ReportMetric(float64(d.watches(b)), "inotify_watches")
		var last time.Time
		for i := range n {
			last = d.write(b, i, -time.Hour)
		}
		b.ReportMetric(d.all(b, notify.RenewalDetected, n).Sub(last).Seconds(), "s_all_detected")
		if err := d.srv.Reload(); err != nil {
			b.Fatal(err)
		}
		reloaded := time.Now()
		b.ReportMetric(d.all(b, notify.DeployVerified, 2*n).Sub(reloaded).Seconds(), "s_all_proven_again")
		b.ReportMetric(d.memory(b, "VmHWM:"), "MB_peak")
	}
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
