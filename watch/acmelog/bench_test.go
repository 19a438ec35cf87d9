package acmelog

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// benchText is about 32 MiB of a client's samples whose names fit, over and over.
func benchText(tb testing.TB, pattern string) []byte {
	paths, err := filepath.Glob(pattern)
	if err != nil || len(paths) == 0 {
		tb.Skipf("no samples %s", pattern)
	}
	var unit []byte
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			tb.Fatal(err)
		}
		unit = append(unit, bytes.TrimRight(text, "\n")...)
		unit = append(unit, '\n')
	}
	return bytes.Repeat(unit, 32<<20/len(unit)+1)
}

// amongRequests puts twenty lines of Caddy's access log before every line: in a log of
// a server at work hardly any line is about certificates.
func amongRequests(text []byte) (out []byte) {
	request := []byte(`{"level":"info","ts":1795334400.123,"logger":"http.log.access","msg":"handled request","request":{"remote_ip":"192.0.2.7","remote_port":"41234","client_ip":"192.0.2.7","proto":"HTTP/2.0","method":"GET","host":"a.example","uri":"/index.html","headers":{"User-Agent":["Mozilla/5.0"],"Accept":["*/*"]},"tls":{"resumed":false,"version":772,"cipher_suite":4865,"proto":"h2","server_name":"a.example"}},"bytes_read":0,"user_id":"","duration":0.000123,"size":1234,"status":200,"resp_headers":{"Server":["Caddy"],"Content-Type":["text/html"]}}` + "\n")
	for line := range bytes.Lines(text) {
		for range 20 {
			out = append(out, request...)
		}
		if out = append(out, line...); len(out) > 32<<20 {
			break
		}
	}
	return out
}

// BenchmarkParse reads logs that are at hand, and between its rounds lets grep count
// the lines with a word in the same bytes. Both are counted in processor time, garbage
// collection and grep's reading of the file included, so that other work on the machine
// does not matter; of-grep is the parser's speed in parts of grep's.
func BenchmarkParse(b *testing.B) {
	grep, err := exec.LookPath("grep")
	if err != nil {
		b.Skip(err)
	}
	for _, bench := range []struct {
		name   string
		client Client
		logs   string
		word   string
	}{
		{"certbot-debug", Certbot, "testdata/certbot/2.*_debug.log", "Writing full chain"},
		{"caddy-json", Caddy, "testdata/caddy/v2.*.log", "certificate obtained successfully"},
		{"caddy-json-access", Caddy, "testdata/caddy/v2.*.log", "certificate obtained successfully"},
	} {
		b.Run(bench.name, func(b *testing.B) {
			text := benchText(b, bench.logs)
			if strings.HasSuffix(bench.name, "-access") {
				text = amongRequests(text)
			}
			file := filepath.Join(b.TempDir(), "log")
			if err := os.WriteFile(file, text, 0o600); err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(len(text)))
			told := 0
			var ours, theirs time.Duration
			for b.Loop() {
				b.StopTimer()
				child := exec.Command(grep, "-c", bench.word, file)
				if out, err := child.Output(); err != nil {
					b.Fatalf("%v: %s", err, out)
				}
				theirs += child.ProcessState.UserTime() + child.ProcessState.SystemTime()
				b.StartTimer()
				begin := processorTime(b)
				p := NewParser(Options{Client: bench.client, Location: time.UTC})
				p.Arrived(changed)
				for rest := text; len(rest) > 0; {
					n := min(len(rest), 256<<10)
					p.Write(rest[:n])
					rest = rest[n:]
					told += len(p.Take())
				}
				p.Flush()
				told += len(p.Take())
				ours += processorTime(b) - begin
			}
			if told == 0 {
				b.Error("nothing is told")
			}
			bytes := float64(len(text)) * float64(b.N) / 1e6
			b.ReportMetric(bytes/ours.Seconds(), "MB/cpu-s")
			b.ReportMetric(bytes/theirs.Seconds(), "grep-MB/cpu-s")
			b.ReportMetric(theirs.Seconds()/ours.Seconds(), "of-grep")
		})
	}
}

// processorTime is what this process has used.
func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
