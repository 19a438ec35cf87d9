package watch

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkFollowIdle follows a hundred logs that nobody writes to: what that costs
// in a second, with a poll a second instead of a minute.
func BenchmarkFollowIdle(b *testing.B) {
	dir := b.TempDir()
	var logs []Log
	for i := range 100 {
		path := filepath.Join(dir, fmt.Sprintf("client%d.log", i))
		if err := os.WriteFile(path, []byte("1\n"), 0o644); err != nil {
			b.Fatal(err)
		}
		logs = append(logs, lineLog(path))
	}
	for _, poll := range []time.Duration{time.Second, time.Hour} {
		b.Run("poll="+poll.String(), func(b *testing.B) {
			h := newHeardLog()
			o := LogOptions{Dir: b.TempDir(), Deliver: h.deliver, Poll: poll}
			f := NewLogs(o)
			lines(f)
			f.Set(logs)
			ctx := b.Context()
			done := make(chan error)
			go func() { done <- f.Run(ctx) }()
			b.Cleanup(func() { <-done })
			h.wait(len(logs) - 1)
			var before, after unix.Rusage
			_ = unix.Getrusage(unix.RUSAGE_SELF, &before)
			b.ResetTimer()
			for b.Loop() {
				<-time.After(time.Second)
			}
			_ = unix.Getrusage(unix.RUSAGE_SELF, &after)
			n := float64(b.N)
			cpu := after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano()
			b.ReportMetric(float64(cpu)/1000/n, "cpu-µs/s")
			b.ReportMetric(float64(after.Nvcsw-before.Nvcsw)/n, "switches/s")
		})
	}
}

// BenchmarkFollowFirst begins to follow a log of 1 GiB.
func BenchmarkFollowFirst(b *testing.B) {
	path := filepath.Join(b.TempDir(), "log")
	f, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	line := bytes.Repeat([]byte("2026-11-22 07:32:18,412:DEBUG:acme.client:Storing nonce: xxxxxxxxxxxxxxxxxxxx\n"), 1<<10)
	if _, err := f.WriteAt(line, 0); err != nil {
		b.Fatal(err)
	}
	for off := int64(1<<30) - firstBytes - 1<<20; off < 1<<30; off += int64(len(line)) {
		if _, err := f.WriteAt(line, off); err != nil {
			b.Fatal(err)
		}
	}
	read := func() (n int64) {
		text, err := os.ReadFile("/proc/self/io")
		if err == nil {
			_, _ = fmt.Sscanf(string(text), "rchar: %d", &n)
		}
		return n
	}
	var bytesRead int64
	for b.Loop() {
		h := newHeardLog()
		o := LogOptions{Dir: b.TempDir(), Deliver: h.deliver}
		l := NewLogs(o)
		lines(l)
		l.Set([]Log{lineLog(path)})
		before := read()
		done := make(chan error)
		ctx, cancel := contextOf(b)
		go func() { done <- l.Run(ctx) }()
		h.wait(0)
		bytesRead += read() - before
		cancel()
		<-done
	}
	b.ReportMetric(float64(bytesRead)/float64(b.N), "bytes-read/op")
}

func contextOf(b *testing.B) (context.Context, context.CancelFunc) {
	return context.WithCancel(b.Context())
}
