package watch

import (
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"
)

// writer writes numbered lines to a log and rotates it.
type writer struct {
	t    *testing.T
	path string
	file *os.File
	flag int
	r    *rand.Rand
	keep int // how many rotated files there are at most
	turn int // rotations so far
	line int // the next line
	// turns has the rotation before which a line was written.
	turns []int
	// again: what is written next must be heard before the next rotation.
	again bool
}

func (w *writer) open(flags int) {
	f, err := os.OpenFile(w.path, os.O_CREATE|os.O_WRONLY|flags, 0o644)
	check(w.t, err)
	w.file, w.flag = f, flags
}

func (w *writer) reopen() {
	check(w.t, w.file.Close())
	w.open(w.flag)
}

func (w *writer) write(n int) {
	for n > 0 {
		k := min(n, 1+w.r.IntN(3))
		_, err := w.file.Write(numbered(w.line, w.line+k))
		check(w.t, err)
		for range k {
			w.turns = append(w.turns, w.turn)
		}
		w.line += k
		n -= k
	}
}

// shift renames log.1 to log.2 and so on.
func (w *writer) shift(ending string) {
	for i := w.keep; i >= 1; i-- {
		err := os.Rename(fmt.Sprintf("%s.%d%s", w.path, i, ending), fmt.Sprintf("%s.%d%s", w.path, i+1, ending))
		if err != nil && !os.IsNotExist(err) {
			check(w.t, err)
		}
	}
}

// zip does what gzip does: it makes the compressed file beside the other, gives it
// its times and removes the other.
func (w *writer) zip(path string) {
	in, err := os.Open(path)
	check(w.t, err)
	defer in.Close()
	out, err := os.Create(path + ".gz")
	check(w.t, err)
	z := gzip.NewWriter(out)
	_, err = io.Copy(z, in)
	check(w.t, err)
	check(w.t, z.Close())
	check(w.t, out.Close())
	st, err := in.Stat()
	check(w.t, err)
	check(w.t, os.Chtimes(path+".gz", st.ModTime(), st.ModTime()))
	check(w.t, os.Remove(path))
}

func (w *writer) copyTo(path string) {
	in, err := os.Open(w.path)
	check(w.t, err)
	defer in.Close()
	out, err := os.Create(path)
	check(w.t, err)
	_, err = io.Copy(out, in)
	check(w.t, err)
	check(w.t, out.Close())
}

// await lets the follower come after: what is rotated away for good cannot be
// read. Where lines may be lost, not for long.
func (w *writer) await(y *tally, loses bool) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for tries := 0; w.turn-w.turns[y.reached()] > w.keep/2 && y.reached() < w.line-1; {
		select {
		case <-y.more:
		case <-tick.C:
			if tries++; loses && tries > 20 {
				return
			}
		}
	}
}

// scheme is one way to rotate.
type scheme struct {
	name   string
	rotate func(w *writer)
	flags  int
	loses  bool // lines may be lost, which must be told
}

var schemes = []scheme{
	{name: "certbot renames a chain at each run", flags: os.O_APPEND, rotate: func(w *writer) {
		w.shift("")
		check(w.t, os.Rename(w.path, w.path+".1"))
		w.reopen()
	}},
	{name: "logrotate renames, compresses at once, and the next run creates", flags: os.O_APPEND, rotate: func(w *writer) {
		w.shift(".gz")
		check(w.t, os.Rename(w.path, w.path+".1"))
		w.zip(w.path + ".1")
		w.reopen()
	}},
	{name: "logrotate creates and the writer is slow to notice", flags: os.O_APPEND, rotate: func(w *writer) {
		w.shift("")
		check(w.t, os.Rename(w.path, w.path+".1"))
		check(w.t, os.WriteFile(w.path, nil, 0o644))
		w.write(w.r.IntN(4))
		w.reopen()
	}},
	{name: "logrotate with dateext", flags: os.O_APPEND, rotate: func(w *writer) {
		check(w.t, os.Rename(w.path, fmt.Sprintf("%s-20261122-%06d", w.path, w.turn)))
		w.reopen()
		os.Remove(fmt.Sprintf("%s-20261122-%06d", w.path, w.turn-w.keep))
	}},
	{name: "lumberjack compresses", flags: os.O_APPEND, rotate: func(w *writer) {
		name := func(turn int) string {
			return fmt.Sprintf("%s-2026-11-22T07-%02d-%02d.%03d.log", w.path[:len(w.path)-len(".log")], turn/60000%60, turn/1000%60, turn%1000)
		}
		check(w.t, os.Rename(w.path, name(w.turn)))
		w.reopen()
		w.write(1)
		w.zip(name(w.turn))
		os.Remove(name(w.turn-w.keep) + ".gz")
	}},
	{name: "a link leads to another file", flags: os.O_APPEND, rotate: func(w *writer) {
		name := func(turn int) string { return fmt.Sprintf("%s.files/app-%06d", w.path, turn) }
		check(w.t, os.WriteFile(name(w.turn+1), nil, 0o644))
		check(w.t, os.Symlink(name(w.turn+1), w.path+".new"))
		check(w.t, os.Rename(w.path+".new", w.path))
		w.reopen()
	}},
	{name: "copytruncate", flags: os.O_APPEND, loses: true, rotate: func(w *writer) {
		w.shift("")
		w.copyTo(w.path + ".1")
		w.write(w.r.IntN(2)) // is lost
		check(w.t, w.file.Truncate(0))
	}},
	{name: "copytruncate of a writer that keeps its place", loses: true, rotate: func(w *writer) {
		w.shift("")
		w.copyTo(w.path + ".1")
		w.write(w.r.IntN(2)) // is lost
		check(w.t, w.file.Truncate(0))
	}},
	{name: "copytruncate and compress", flags: os.O_APPEND, loses: true, rotate: func(w *writer) {
		w.shift(".gz")
		w.copyTo(w.path + ".1")
		w.write(w.r.IntN(2)) // is lost
		check(w.t, w.file.Truncate(0))
		w.zip(w.path + ".1")
	}},
	{name: "truncate and write again", flags: os.O_APPEND, loses: true, rotate: func(w *writer) {
		check(w.t, w.file.Truncate(0))
		w.again = true
	}},
}

// tally counts what was heard.
type tally struct {
	mu    sync.Mutex
	times map[int]int
	ids   map[int]string
	order []int
	lost  int
	other []string
	last  int
	more  chan struct{}
}

func newTally() *tally {
	return &tally{times: make(map[int]int), ids: make(map[int]string), last: -1, more: make(chan struct{}, 1)}
}

func (y *tally) deliver(heard []Heard) {
	y.mu.Lock()
	defer y.mu.Unlock()
	for _, h := range heard {
		switch h.Kind {
		case Attempted:
			n, err := strconv.Atoi(h.Attempt.Names[0])
			if err != nil {
				y.other = append(y.other, tellHeard(h))
				continue
			}
			y.times[n]++
			if was, there := y.ids[n]; there && was != h.ID {
				y.other = append(y.other, fmt.Sprintf("line %d has the IDs %s and %s", n, was, h.ID))
			}
			y.ids[n] = h.ID
			y.order = append(y.order, n)
			y.last = max(y.last, n)
		case Lost:
			y.lost++
			y.order = append(y.order, -1)
		default:
			y.other = append(y.other, tellHeard(h))
		}
	}
	signal(y.more)
}

func (y *tally) reached() int {
	y.mu.Lock()
	defer y.mu.Unlock()
	return y.last
}

// check compares what was heard with what was written. again: a line may be heard
// more than once, with the same ID.
func (y *tally) check(t *testing.T, w *writer, loses, again bool) {
	t.Helper()
	y.mu.Lock()
	defer y.mu.Unlock()
	missing, twice := 0, 0
	for n := range w.line {
		switch {
		case y.times[n] == 0:
			if missing++; missing <= 3 && !loses {
				t.Errorf("line %d, written after rotation %d, was lost", n, w.turns[n])
			}
		case y.times[n] > 1:
			if twice++; twice <= 3 && !again {
				t.Errorf("line %d, written after rotation %d, was heard %d times", n, w.turns[n], y.times[n])
			}
		}
	}
	for n := range y.times {
		if n < 0 || n >= w.line {
			t.Errorf("line %d was never written", n)
		}
	}
	same := make(map[string]int)
	for n, id := range y.ids {
		if m, there := same[id]; there {
			t.Errorf("the lines %d and %d have one ID", n, m)
		}
		same[id] = n
	}
	for _, o := range y.other[:min(5, len(y.other))] {
		t.Errorf("heard %s", o)
	}
	silent, told, last := 0, false, -1
	for _, n := range y.order {
		switch {
		case n < 0:
			told = true
		case n > last:
			if n > last+1 && !told {
				if silent++; silent <= 3 {
					t.Errorf("the lines between %d and %d, after rotation %d, were lost and nobody told", last, n, w.turns[n])
				}
			}
			last, told = n, false
		}
	}
	if y.lost > 0 && !loses {
		t.Errorf("told %d times of lines that were lost", y.lost)
	}
	t.Logf("%d rotations, %d lines: %d lost, %d twice; told %d times of loss", w.turn, w.line, missing, twice, y.lost)
}

func newWriter(t *testing.T, s scheme, seed uint64) *writer {
	dir := t.TempDir()
	w := &writer{t: t, path: filepath.Join(dir, "app.log"), r: rand.New(rand.NewPCG(seed, 1)), keep: 24}
	check(t, os.Mkdir(w.path+".files", 0o755))
	if s.name == "a link leads to another file" {
		w.keep = 1
		check(t, os.Symlink(w.path+".files/app-000000", w.path))
	}
	w.open(s.flags)
	return w
}

// TestFollowRotation: thousands of rotations while lines are written.
func TestFollowRotation(t *testing.T) {
	t.Parallel()
	rotations := 250
	if n, err := strconv.Atoi(os.Getenv("WATCH_TEST_ROTATIONS")); err == nil {
		rotations = n
	}
	for i, s := range schemes {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			w := newWriter(t, s, uint64(i))
			y := newTally()
			f := follow(t, LogOptions{Poll: time.Hour, Deliver: deliverTo(y)}, lines, lineLog(w.path))
			f.looked()
			w.write(1)
			for y.reached() < 0 {
				<-y.more
			}
			for w.turn < rotations {
				w.write(w.r.IntN(12))
				// What is rotated away for good cannot be read.
				w.await(y, s.loses)
				if w.again {
					w.write(1)
					for y.reached() < w.line-1 {
						<-y.more
					}
					w.write(w.r.IntN(5))
				}
				s.rotate(w)
				w.turn++
			}
			w.write(1)
			for y.reached() < w.line-1 {
				<-y.more
			}
			f.stop()
			y.check(t, w, s.loses, false)
		})
	}
}

func deliverTo(y *tally) func(context.Context, []Heard) error {
	return func(_ context.Context, heard []Heard) error {
		y.deliver(heard)
		return nil
	}
}
