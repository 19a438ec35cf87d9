package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/renewatch/renewatch/internal/certtest"
	"github.com/renewatch/renewatch/notify"
)

// benchDaemon starts the real binary, as it is built for release, beside n
// certificates that one server serves.
type benchDaemon struct {
	dir     string
	ca      *certtest.CA
	srv     *certtest.Server
	cmd     *exec.Cmd
	started time.Time
}

func startBench(b *testing.B, n int, nats string) *benchDaemon {
	b.Helper()
	return startBenchWith(b, n, nats, "")
}

// startBenchWith is startBench with more keys under verify, each after a comma.
func startBenchWith(b *testing.B, n int, nats, verify string) *benchDaemon {
	b.Helper()
	d := &benchDaemon{dir: b.TempDir(), ca: certtest.NewCA(certtest.CAOptions{})}
	bin := filepath.Join(d.dir, "renewatch")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", bin, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	var sites []certtest.Site
	for i := range n {
		d.write(b, i, -60*24*time.Hour)
		sites = append(sites, certtest.Site{Names: []string{d.name(i)}, Load: certtest.FromFiles(d.file(i, "fullchain.pem"), d.file(i, "privkey.pem"))})
	}
	var err error
	if d.srv, err = certtest.NewServer(certtest.ServerOptions{Sites: sites}); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(d.srv.Close)
	conf := fmt.Sprintf("host: bench\nstate_dir: %s/state\nnats: %s\nhttp: {listen: \"127.0.0.1:0\"}\ndefaults: {verify: {ca: %s/ca.pem%s}}\n", d.dir, nats, d.dir, verify)
	if err := os.WriteFile(filepath.Join(d.dir, "c.yaml"), []byte(conf), 0o600); err != nil {
		b.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(d.dir, "conf.d"), 0o755); err != nil {
		b.Fatal(err)
	}
	const perFile = 1000 // one file has its bound
	for from := 0; from < n; from += perFile {
		var more strings.Builder
		more.WriteString("certificates:\n")
		for i := from; i < min(from+perFile, n); i++ {
			fmt.Fprintf(&more, "  - cert: %s\n    name: %s\n    endpoints: [\"https://%s:%d?address=127.0.0.1\"]\n", d.file(i, "fullchain.pem"), d.name(i), d.name(i), d.srv.Addr().Port())
		}
		if err := os.WriteFile(filepath.Join(d.dir, "conf.d", fmt.Sprintf("%05d.yaml", from)), []byte(more.String()), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(d.dir, "ca.pem"), d.ca.RootPEM(), 0o600); err != nil {
		b.Fatal(err)
	}
	d.start(b)
	b.Cleanup(func() { d.stop(b) })
	return d
}

func (d *benchDaemon) start(b *testing.B) {
	b.Helper()
	d.cmd = exec.Command(filepath.Join(d.dir, "renewatch"), "run", "--config", filepath.Join(d.dir, "c.yaml"))
	d.started = time.Now()
	if err := d.cmd.Start(); err != nil {
		b.Fatal(err)
	}
}

func (d *benchDaemon) stop(b *testing.B) {
	b.Helper()
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	_ = d.cmd.Wait()
}

func (d *benchDaemon) name(i int) string           { return fmt.Sprintf("www%d.example.org", i) }
func (d *benchDaemon) file(i int, f string) string { return filepath.Join(d.dir, d.name(i), f) }

func (d *benchDaemon) write(b *testing.B, i int, from time.Duration) time.Time {
	b.Helper()
	if err := os.MkdirAll(filepath.Join(d.dir, d.name(i)), 0o755); err != nil {
		b.Fatal(err)
	}
	leaf := d.ca.Issue(certtest.LeafOptions{Names: []string{d.name(i)}, NotBefore: time.Now().Add(from)})
	if err := certtest.WritePair(d.file(i, "fullchain.pem"), d.file(i, "privkey.pem"), leaf); err != nil {
		b.Fatal(err)
	}
	return time.Now()
}

// wait returns the time of the n-th event of a kind.
func (d *benchDaemon) wait(b *testing.B, kind notify.Kind, n int) time.Time {
	b.Helper()
	return d.waitFor(b, kind, n, 2*time.Minute)
}

func (d *benchDaemon) waitFor(b *testing.B, kind notify.Kind, n int, within time.Duration) time.Time {
	b.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	for r, err := range notify.Follow(ctx, filepath.Join(d.dir, "state", "journal"), notify.Filter{}) {
		if err != nil {
			b.Fatal(err)
		}
		if r.Event.Kind() == kind {
			if n--; n <= 0 {
				return r.Event.Time
			}
		}
	}
	b.Fatalf("%d more of %s were waited for", n, kind)
	return time.Time{}
}

// BenchmarkRenewal measures what the defaults cost: from the last write of the
// files to renewal.detected beyond the 2 s they settle, and from the server's
// last old answer to deploy.verified beyond the 2 s that the proof spans.
func BenchmarkRenewal(b *testing.B) {
	d := startBench(b, 1, "{enabled: false}")
	d.wait(b, notify.DeployVerified, 1)
	var detect, prove time.Duration
	n := 0
	for b.Loop() {
		n++
		written := d.write(b, 0, -time.Hour+time.Duration(n)*time.Second)
		detect += d.wait(b, notify.RenewalDetected, n).Sub(written) - 2*time.Second
		if err := d.srv.Reload(); err != nil {
			b.Fatal(err)
		}
		reloaded := time.Now()
		prove += d.wait(b, notify.DeployVerified, n+1).Sub(reloaded) - 2*time.Second
	}
	b.ReportMetric(float64(detect.Milliseconds())/float64(n), "ms_over_settle")
	b.ReportMetric(float64(prove.Milliseconds())/float64(n), "ms_over_spread")
}

// BenchmarkIdle measures a daemon with 10 certificates and an external NATS
// server that has nothing to do: its memory, and its share of one core over half
// a minute.
func BenchmarkIdle(b *testing.B) {
	nats, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: b.TempDir(), NoSigs: true, NoLog: true})
	if err != nil {
		b.Fatal(err)
	}
	go nats.Start()
	b.Cleanup(func() { nats.Shutdown(); nats.WaitForShutdown() })
	if !nats.ReadyForConnections(30 * time.Second) {
		b.Fatal("nats-server does not start")
	}
	d := startBench(b, 10, "{url: \""+nats.ClientURL()+"\", ensure_stream: true}")
	d.wait(b, notify.DeployVerified, 10)
	for b.Loop() {
		before := d.cpu(b)
		const watched = 30 * time.Second
		<-time.After(watched)
		b.ReportMetric(100*float64(d.cpu(b)-before)/float64(watched), "%core")
		b.ReportMetric(d.rss(b), "MB_rss")
	}
}

// cpu is the processor time the daemon has used.
func (d *benchDaemon) cpu(b *testing.B) time.Duration {
	b.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", d.cmd.Process.Pid))
	if err != nil {
		b.Skip("no /proc here")
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	user, _ := strconv.ParseInt(fields[11], 10, 64)
	system, _ := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * 10 * time.Millisecond // USER_HZ is 100
}

// rss is the memory the daemon holds, in MB.
func (d *benchDaemon) rss(b *testing.B) float64 {
	b.Helper()
	return d.memory(b, "VmRSS:")
}
