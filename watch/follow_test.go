package watch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/renewatch/renewatch/watch/acmelog"
)

// lineEar hears a log in which every line is a number, an attempt of its own.
type lineEar struct {
	fed, begin int64
	rest       []byte
	out        []acmelog.Attempt
}

func (e *lineEar) Write(b []byte) (int, error) {
	for _, c := range b {
		e.fed++
		if c != '\n' {
			e.rest = append(e.rest, c)
			continue
		}
		e.out = append(e.out, acmelog.Attempt{Names: []string{string(e.rest)}, Outcome: acmelog.Issued, Offset: e.begin, Run: e.begin})
		e.rest, e.begin = e.rest[:0], e.fed
	}
	return len(b), nil
}

func (e *lineEar) Take() []acmelog.Attempt {
	out := e.out
	e.out = nil
	return out
}

func (e *lineEar) Safe() int64         { return e.begin }
func (e *lineEar) Arrived(time.Time)   {}
func (e *lineEar) Stall(time.Time)     {}
func (e *lineEar) Exit(_ acmelog.Exit) {}
func (e *lineEar) Flush()              {}

// heardLog collects what is heard.
type heardLog struct {
	mu    sync.Mutex
	all   []Heard
	more  chan struct{}
	fail  func(n int) bool // whether the nth delivery fails, from 1
	calls int
}

func newHeardLog() *heardLog { return &heardLog{more: make(chan struct{}, 1)} }

var errNotNow = errors.New("not now")

func (h *heardLog) deliver(_ context.Context, heard []Heard) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.calls++
	if h.fail != nil && h.fail(h.calls) {
		return errNotNow
	}
	h.all = append(h.all, heard...)
	signal(h.more)
	return nil
}

// wait blocks until there is something at i and returns it. Where there is
// nothing the test binary's own timeout shows who waits.
func (h *heardLog) wait(i int) Heard {
	for {
		h.mu.Lock()
		if i < len(h.all) {
			defer h.mu.Unlock()
			return h.all[i]
		}
		h.mu.Unlock()
		<-h.more
	}
}

func (h *heardLog) snapshot() []Heard {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]Heard(nil), h.all...)
}

// following is a running follower.
type following struct {
	*Logs
	t    *testing.T
	h    *heardLog
	n    int // heard so far
	logs []Log
	beat *atomic.Int64
	stop func()
}

// looked returns when everything that is due has been looked at.
func (f *following) looked() {
	for n := f.beat.Load(); f.beat.Load() < n+3; runtime.Gosched() {
		f.Set(f.logs)
	}
}

func lines(f *Logs) { f.listen = func(Log) ear { return &lineEar{} } }

func follow(t *testing.T, o LogOptions, prepare func(*Logs), logs ...Log) *following {
	t.Helper()
	h := newHeardLog()
	if o.Deliver == nil {
		o.Deliver = h.deliver
	}
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	if o.Poll == 0 {
		o.Poll = time.Hour // a poll would hide an event that was not seen
	}
	beat := &atomic.Int64{}
	o.Beat = func() { beat.Add(1) }
	f := &following{Logs: NewLogs(o), t: t, h: h, logs: logs, beat: beat}
	if prepare != nil {
		prepare(f.Logs)
	}
	f.Set(logs)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- f.Run(ctx) }()
	f.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(f.stop)
	return f
}

func tellHeard(h Heard) string {
	s := string(h.Kind)
	if h.Attempt != nil {
		s += fmt.Sprintf(" %s %v old=%v", h.Attempt.Outcome, h.Attempt.Names, h.Old)
	}
	if h.Fault != nil {
		s += " " + string(h.Fault.Code) + ": " + h.Fault.Sentence
	}
	return s
}

func (f *following) next() Heard {
	h := f.h.wait(f.n)
	f.n++
	return h
}

// says waits for a line that is new.
func (f *following) says(line string) Heard {
	f.t.Helper()
	h := f.next()
	if h.Kind != Attempted || h.Attempt.Names[0] != line || h.Old {
		f.t.Fatalf("heard %s, want the new line %s", tellHeard(h), line)
	}
	return h
}

func (f *following) said(line string) Heard {
	f.t.Helper()
	h := f.next()
	if h.Kind != Attempted || h.Attempt.Names[0] != line || !h.Old {
		f.t.Fatalf("heard %s, want the old line %s", tellHeard(h), line)
	}
	return h
}

func (f *following) faults(k Kind, code FaultCode) Heard {
	f.t.Helper()
	h := f.next()
	if h.Kind != k || h.Fault == nil || h.Fault.Code != code {
		f.t.Fatalf("heard %s, want %s %s", tellHeard(h), k, code)
	}
	soundSentence(f.t, h.Fault)
	return h
}

func appendTo(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	check(t, err)
	_, err = f.WriteString(text)
	check(t, err)
	check(t, f.Close())
}

func lineLog(path string) Log { return Log{Client: "lines", File: path} }

// TestFollowBasics: what is there is old, of which the last run is told; what
// comes is new; an unfinished line waits.
func TestFollowBasics(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log")
	appendTo(t, path, "1\n2\n3\n")
	f := follow(t, LogOptions{}, lines, lineLog(path))
	f.said("3")
	appendTo(t, path, "4\n5")
	a := f.says("4")
	appendTo(t, path, "6\n7\n")
	b := f.says("56")
	f.says("7")
	if a.ID == b.ID || len(a.ID) != 32 {
		t.Errorf("the IDs %q and %q", a.ID, b.ID)
	}
}

// TestFollowAbsent: a log that is not there is nothing to speak of; its first
// line is new. Its directories come, go and come again.
func TestFollowAbsent(t *testing.T) {
	t.Parallel()
	top := t.TempDir()
	path := filepath.Join(top, "a/b/log")
	f := follow(t, LogOptions{}, lines, lineLog(path))
	f.looked()
	check(t, os.MkdirAll(filepath.Dir(path), 0o755))
	appendTo(t, path, "1\n")
	f.says("1")
	check(t, os.Rename(filepath.Join(top, "a"), filepath.Join(top, "gone")))
	check(t, os.MkdirAll(filepath.Dir(path), 0o755))
	appendTo(t, path, "2\n")
	f.says("2")
	check(t, os.RemoveAll(filepath.Join(top, "a")))
	check(t, os.MkdirAll(filepath.Dir(path), 0o755))
	appendTo(t, path, "3\n")
	f.says("3")
}

// waitFor polls for what no channel tells.
func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-t.Context().Done():
			t.Fatal("never")
		}
	}
}

// TestFollowDeliverAgain: what was not kept is told again, and in order.
func TestFollowDeliverAgain(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log")
	h := newHeardLog()
	h.fail = func(n int) bool { return n == 1 }
	appendTo(t, path, "0\n")
	f := follow(t, LogOptions{Deliver: h.deliver}, lines, lineLog(path))
	f.h = h
	f.said("0")
	appendTo(t, path, "1\n2\n")
	f.says("1")
	f.says("2")
	if h.calls < 3 {
		t.Errorf("delivered %d times", h.calls)
	}
}

func numbered(from, to int) []byte {
	var b bytes.Buffer
	for i := from; i < to; i++ {
		b.WriteString(strconv.Itoa(i))
		b.WriteByte('\n')
	}
	return b.Bytes()
}
