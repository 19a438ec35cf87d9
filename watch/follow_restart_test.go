package watch

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/renewatch/renewatch/watch/acmelog"
)

// TestFollowRestart: the follower is stopped at random moments, in the middle of
// deliveries too, while the log is written and rotated. Nothing is lost, and what
// is told again has the same ID.
func TestFollowRestart(t *testing.T) {
	t.Parallel()
	for i, s := range schemes {
		if s.loses {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			w := newWriter(t, s, uint64(i)+100)
			if w.keep > 1 {
				w.keep = 12
			}
			y := newTally()
			dir := t.TempDir()
			var crash atomic.Bool // deliveries are taken, and their acknowledgement is lost
			o := LogOptions{Dir: dir, Deliver: func(_ context.Context, heard []Heard) error {
				y.deliver(heard)
				if crash.Load() {
					return errNotNow
				}
				return nil
			}}
			f := follow(t, o, lines, lineLog(w.path))
			f.looked()
			w.write(1)
			for y.reached() < 0 {
				<-y.more
			}
			turns := func(n int) {
				for range n {
					w.write(w.r.IntN(12))
					s.rotate(w)
					w.turn++
				}
				w.write(w.r.IntN(3))
			}
			r := rand.New(rand.NewPCG(uint64(i), 2))
			for range 40 {
				if w.keep > 1 {
					turns(r.IntN(3))
				}
				crash.Store(r.IntN(2) == 0)
				if r.IntN(2) == 0 {
					f.looked()
				}
				f.stop()
				turns(r.IntN(min(4, w.keep+1)))
				crash.Store(false)
				f = follow(t, o, lines, lineLog(w.path))
				w.write(1)
				for y.reached() < w.line-1 {
					<-y.more
				}
			}
			f.stop()
			y.check(t, w, false, true)
		})
	}
}

// runLog writes runs of acme-tiny, whose attempts go on for a while.
func runLog(names ...string) string {
	var b strings.Builder
	for _, n := range names {
		fmt.Fprintf(&b, "Parsing account key...\nParsing CSR...\nFound domains: %s\nGetting directory...\nDirectory found!\nRegistering account...\nAlready registered! Account ID: https://ca.test/1\nCreating new order...\nOrder created!\n", n)
	}
	return b.String()
}

func runEnd(name string) string {
	return fmt.Sprintf("Verifying %s...\n%s verified!\nSigning certificate...\nCertificate signed!\n", name, name)
}

func (f *following) attempt(outcome acmelog.Outcome, name string, old bool) Heard {
	f.t.Helper()
	h := f.next()
	if h.Kind != Attempted || h.Attempt.Outcome != outcome || h.Old != old || len(h.Attempt.Names) != 1 || h.Attempt.Names[0] != name {
		f.t.Fatalf("heard %s, want %s %s, old=%v", tellHeard(h), outcome, name, old)
	}
	return h
}

// TestFollowRestartInRun: a run that goes on while the follower is away, and its log is
// rotated and compressed, is told to its end under the same ID.
func TestFollowRestartInRun(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(t.TempDir(), "acme.log")
	l := Log{Client: acmelog.AcmeTiny, File: path}
	appendTo(t, path, runLog("old.test")+runEnd("old.test")+runLog("last.test")+runEnd("last.test"))
	f := follow(t, LogOptions{Dir: dir}, nil, l)
	f.attempt(acmelog.Issued, "last.test", true)
	run := runLog("a.test")
	appendTo(t, path, run[:60])
	appendTo(t, path, run[60:])
	h := f.next()
	if h.Kind != Attempted || h.Attempt.Outcome != acmelog.Running || h.Old {
		t.Fatalf("heard %s", tellHeard(h))
	}
	id := h.ID
	f.stop()
	w := &writer{t: t, path: path}
	appendTo(t, path, "Verifying a.test...\n")
	check(t, os.Rename(path, path+".1"))
	w.zip(path + ".1")
	appendTo(t, path, "a.test verified!\nSigning certificate...\nCertificate signed!\n")
	appendTo(t, path, runLog("b.test"))
	f = follow(t, LogOptions{Dir: dir}, nil, l)
	for h = f.next(); h.Kind != Attempted || h.Attempt.Outcome != acmelog.Issued; h = f.next() {
		if h.Kind != Attempted || h.ID != id {
			t.Fatalf("heard %s", tellHeard(h))
		}
	}
	if h.ID != id || h.Old || h.Attempt.Names[0] != "a.test" {
		t.Errorf("heard %s under the ID %s, want a.test under %s", tellHeard(h), h.ID, id)
	}
	if h = f.next(); h.Kind != Attempted || h.ID == id || h.Attempt.Outcome != acmelog.Running {
		t.Errorf("heard %s, want that b.test runs", tellHeard(h))
	}
}

// TestFollowStall: a run of which nothing more is heard is told to have stalled.
func TestFollowStall(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "acme.log")
	appendTo(t, path, runLog("a.test"))
	var later atomic.Int64
	now := func() time.Time { return time.Now().Add(time.Duration(later.Load())) }
	f := follow(t, LogOptions{Now: now, Poll: 10 * time.Millisecond}, nil, Log{Client: acmelog.AcmeTiny, File: path})
	a := f.next()
	later.Store(int64(acmelog.StallAfter + time.Minute))
	b := f.next()
	if a.ID != b.ID || b.Attempt.Outcome != acmelog.Stalled {
		t.Errorf("heard %s and %s", tellHeard(a), tellHeard(b))
	}
	later.Store(0)
	appendTo(t, path, runEnd("a.test"))
	if c := f.next(); c.ID != a.ID || c.Attempt.Outcome != acmelog.Issued {
		t.Errorf("heard %s", tellHeard(c))
	}
}

// TestFollowSweep: the position of a log that nobody follows is kept for thirty
// days, so that a log that comes back goes on where it was.
func TestFollowSweep(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(t.TempDir(), "log")
	appendTo(t, path, "1\n")
	l := lineLog(path)
	f := follow(t, LogOptions{Dir: dir}, lines, l)
	f.said("1")
	f.Set(nil)
	waitFor(t, func() bool { p := loadPosition(positionPath(dir, l)); return p != nil && !p.Left.IsZero() })
	appendTo(t, path, "2\n")
	f.Set([]Log{l})
	f.says("2")
	f.stop()
	p := loadPosition(positionPath(dir, l))
	if p == nil || !p.Left.IsZero() {
		t.Fatalf("the position is %+v", p)
	}
	now := time.Now()
	sweep(dir, nil, now)
	sweep(dir, nil, now.Add(keepPosition-time.Second))
	if loadPosition(positionPath(dir, l)) == nil {
		t.Error("it was removed too soon")
	}
	sweep(dir, nil, now.Add(keepPosition))
	if loadPosition(positionPath(dir, l)) != nil {
		t.Error("it was not removed")
	}
}

// TestFollowRestartAtFirst: what is old stays old, and keeps its ID, where nobody
// could take it before the restart.
func TestFollowRestartAtFirst(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(t.TempDir(), "log")
	appendTo(t, path, "1\n2\n")
	tried := make(chan Heard, 100)
	f := follow(t, LogOptions{Dir: dir, Deliver: func(_ context.Context, heard []Heard) error {
		tried <- heard[0]
		return errNotNow
	}}, lines, lineLog(path))
	was := <-tried
	f.stop()
	appendTo(t, path, "3\n")
	f = follow(t, LogOptions{Dir: dir}, lines, lineLog(path))
	if h := f.said("2"); h.ID != was.ID || !was.Old {
		t.Errorf("it was told as %s, %s, then as %s", tellHeard(was), was.ID, h.ID)
	}
	f.says("3")
}

// TestFollowLate: what is written to a file long after it was rotated is read, also
// when the follower was restarted in between.
func TestFollowLate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(t.TempDir(), "log")
	appendTo(t, path, "1\n")
	f := follow(t, LogOptions{Dir: dir}, lines, lineLog(path))
	f.said("1")
	check(t, os.Rename(path, path+".1"))
	appendTo(t, path, "2\n")
	f.says("2")
	appendTo(t, path+".1", "3\n")
	f.says("3")
	f.stop()
	appendTo(t, path+".1", "4\n")
	f = follow(t, LogOptions{Dir: dir}, lines, lineLog(path))
	f.says("4")
}

// TestFollowSameText: two runs that write the same are two attempts.
func TestFollowSameText(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(t.TempDir(), "log")
	f := follow(t, LogOptions{Dir: dir}, lines, lineLog(path))
	f.looked()
	ids := make(map[string]bool)
	for range 3 {
		appendTo(t, path, "1\n")
		ids[f.says("1").ID] = true
		check(t, os.Rename(path, path+".1"))
		f.looked()
		f.stop()
		f = follow(t, LogOptions{Dir: dir}, lines, lineLog(path))
	}
	if len(ids) != 3 {
		t.Errorf("three runs have %d IDs", len(ids))
	}
}

// TestFollowCopies: a log that is written, copied and cut off between two looks
// looks as if nothing had been written; the copies tell.
func TestFollowCopies(t *testing.T) {
	t.Parallel()
	top := t.TempDir()
	path, other := filepath.Join(top, "log"), filepath.Join(top, "other")
	h := newHeardLog()
	hold, held := make(chan struct{}), make(chan struct{})
	f := follow(t, LogOptions{Deliver: func(ctx context.Context, heard []Heard) error {
		if heard[0].Log.File == other {
			held <- struct{}{}
			<-hold
		}
		return h.deliver(ctx, heard)
	}}, lines, lineLog(path), lineLog(other))
	f.h = h
	f.looked()
	appendTo(t, path, "1\n")
	f.says("1")
	w := &writer{t: t, path: path, keep: 3}
	cut := func() {
		w.shift("")
		w.copyTo(path + ".1")
		check(t, os.Truncate(path, 0))
	}
	cut()
	f.faults(Lost, LogTruncated)
	appendTo(t, other, "9\n")
	<-held // and so nobody looks
	appendTo(t, path, "2\n")
	cut()
	appendTo(t, path, "3\n")
	cut()
	appendTo(t, path, "4\n")
	hold <- struct{}{}
	f.says("9")
	f.faults(Lost, LogTruncated)
	f.says("2")
	f.faults(Lost, LogTruncated)
	f.says("3")
	f.faults(Lost, LogTruncated)
	f.says("4")
}
