package notify

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// replace puts a file with content in the place of path, under a new inode.
func replace(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path+".x", content, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".x", path); err != nil {
		t.Fatal(err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestAFileTakenAwayWhileItIsWrittenCostsNothing(t *testing.T) {
	type is struct {
		path  string
		lines [][]byte // of the confirmed events, with line ends
	}
	for name, meddle := range map[string]func(*testing.T, is){
		"replaced by its copy":      func(t *testing.T, f is) { replace(t, f.path, bytes.Join(f.lines, nil)) },
		"replaced by an older copy": func(t *testing.T, f is) { replace(t, f.path, f.lines[0]) },
		"replaced by half a copy":   func(t *testing.T, f is) { replace(t, f.path, bytes.Join(f.lines, nil)[:len(f.lines[0])+9]) },
		"replaced by one without 2": func(t *testing.T, f is) { replace(t, f.path, slices.Concat(f.lines[0], f.lines[2])) },
		"replaced by an empty file": func(t *testing.T, f is) { replace(t, f.path, nil) },
		"replaced by garbage":       func(t *testing.T, f is) { replace(t, f.path, bytes.Repeat([]byte("x\n\x00"), maxLine)) },
		"moved away":                func(t *testing.T, f is) { must(t, os.Rename(f.path, f.path+".old")) },
		"moved away behind a link": func(t *testing.T, f is) {
			must(t, os.Rename(f.path, f.path+".old"))
			must(t, os.Symlink(f.path+".old", f.path))
		},
		"moved away for a directory": func(t *testing.T, f is) {
			must(t, os.Rename(f.path, f.path+".old"))
			must(t, os.MkdirAll(f.path+"/x", 0o700))
		},
		"copied, cut and replaced": func(t *testing.T, f is) {
			must(t, os.Truncate(f.path, 5))
			replace(t, f.path, bytes.Join(f.lines, nil))
		},
		"moved with its directory": func(t *testing.T, f is) { must(t, os.Rename(filepath.Dir(f.path), filepath.Dir(f.path)+".old")) },
	} {
		t.Run(name, func(t *testing.T) {
			dir, c := filepath.Join(t.TempDir(), "journal"), &clock{now: noon}
			j := open(t, dir, options(c))
			appendAll(t, j, 1, 3)
			path := j.segs[0].path(dir)
			before, err := os.ReadFile(path)
			must(t, err)
			meddle(t, is{path, bytes.SplitAfter(before, []byte("\n"))})

			// What sends is not led astray before the next event is written.
			at := position{}
			records, err := j.read(&at, 2)
			if err != nil || len(records) != 2 || at.after != 2 {
				t.Errorf("read %d, at %d, %v", len(records), at.after, err)
			}
			appendAll(t, j, 4, 4)
			if r := j.TakeReport(); !r.Replaced || r.Vanished || r.Err != nil {
				t.Errorf("%+v", r)
			}
			appendAll(t, j, 5, 5)
			if r := j.TakeReport(); !r.Empty() {
				t.Errorf("said again: %+v", r)
			}
			records, err = j.read(&at, 9)
			if err != nil || len(records) != 3 || records[0].seq != 3 || at.after != 5 {
				t.Errorf("then read %d, at %d, %v", len(records), at.after, err)
			}
			if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
				t.Errorf("put back: %q (%v)", after, err)
			}
			if j.Depth() != 5 || !j.OldestUnsent().Equal(noon) {
				t.Errorf("%d wait, the oldest since %v", j.Depth(), j.OldestUnsent())
			}
			for range 2 { // and once more after opening again
				if got := details(t, dir, Filter{}); !slices.Equal(got, counted(1, 5)) || j.Last() != 5 {
					t.Errorf("holds %v, last %d", got, j.Last())
				}
				if again, err := j.Append(nth(2), nth(4)); err != nil || len(again) != 0 {
					t.Errorf("handed in again: %v %v", again, err)
				}
				must(t, j.Close())
				j = open(t, dir, options(c))
			}
			if r := j.TakeReport(); !r.Empty() {
				t.Errorf("after opening: %+v", r)
			}
		})
	}
}

func TestWhatIsLostOfACutFileIsSaid(t *testing.T) {
	dir, c := t.TempDir(), &clock{now: noon}
	j := open(t, dir, options(c))
	appendAll(t, j, 1, 3)
	path := j.segs[0].path(dir)
	must(t, os.Truncate(path, j.segs[0].size-1))
	appendAll(t, j, 4, 4)
	if r := j.TakeReport(); !r.Replaced || !r.Vanished {
		t.Errorf("%+v", r)
	}
	if got := details(t, dir, Filter{}); !slices.Equal(got, []int{1, 2, 4}) || j.Last() != 4 {
		t.Errorf("holds %v, last %d", got, j.Last())
	}
}

func TestAStrangerInPlaceOfAnEmptyFileIsSetAside(t *testing.T) {
	dir, c := t.TempDir(), &clock{now: noon}
	j := open(t, dir, options(c))
	path := j.segs[0].path(dir)
	replace(t, path, []byte("a stranger\n"))
	appendAll(t, j, 1, 2)
	if r := j.TakeReport(); !r.Replaced || r.Vanished {
		t.Errorf("%+v", r)
	}
	if got := details(t, dir, Filter{}); !slices.Equal(got, counted(1, 2)) {
		t.Errorf("holds %v", got)
	}
	if b, err := os.ReadFile(path + strangerSuffix); string(b) != "a stranger\n" {
		t.Errorf("the stranger: %q %v", b, err)
	}
	// Also one that stands where the next file is to be.
	next := filepath.Join(dir, segmentName(3))
	must(t, os.WriteFile(next, []byte("another\n"), 0o600))
	c.add(48 * time.Hour)
	appendAll(t, j, 3, 3)
	if r := j.TakeReport(); r.Err == nil {
		t.Error("not said")
	}
	if b, err := os.ReadFile(next + strangerSuffix); string(b) != "another\n" {
		t.Errorf("the other: %q %v", b, err)
	}
}

func TestClosingPutsBackWhatWasReplaced(t *testing.T) {
	dir, c := t.TempDir(), &clock{now: noon}
	j := open(t, dir, options(c))
	appendAll(t, j, 1, 3)
	replace(t, j.segs[0].path(dir), nil)
	must(t, j.Close())
	if j = open(t, dir, options(c)); j.Depth() != 3 {
		t.Errorf("%d wait", j.Depth())
	}
	if got := details(t, dir, Filter{}); !slices.Equal(got, counted(1, 3)) {
		t.Errorf("holds %v", got)
	}
}

// Follow reads the stranger before the journal notices it, and misses nothing.
func TestFollowOverAReplacedFile(t *testing.T) {
	dir, c := t.TempDir(), &clock{now: noon}
	j := open(t, dir, options(c))
	appendAll(t, j, 1, 3)
	path := j.segs[0].path(dir)
	b, err := os.ReadFile(path)
	must(t, err)
	replace(t, path, b[:bytes.IndexByte(b, '\n')+1])
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	n := 0
	for r, err := range Follow(ctx, dir, Filter{}) {
		must(t, err)
		if n++; r.Event.Data.Detail != fmt.Sprint("number ", n) {
			t.Fatalf("%q instead of number %d", r.Event.Data.Detail, n)
		}
		switch n {
		case 1: // the stranger has no more
			appendAll(t, j, 4, 4)
		case 4:
			replace(t, j.segs[len(j.segs)-1].path(dir), nil)
			appendAll(t, j, 5, 6)
		case 6:
			cancel()
		}
	}
	if n != 6 {
		t.Errorf("%d events", n)
	}
}

// The clock stands still in Append where a hung disk would: with the lock held.
func TestGaugesDoNotWaitForAppend(t *testing.T) {
	var block, entered chan struct{}
	c := &clock{now: noon}
	o := options(c)
	o.Now = func() time.Time {
		if block != nil {
			close(entered)
			<-block
		}
		return c.Now()
	}
	j := open(t, t.TempDir(), o)
	appendAll(t, j, 1, 3)
	block, entered = make(chan struct{}), make(chan struct{})
	hung := make(chan struct{})
	go func() { defer close(hung); j.Append() }()
	<-entered
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		if j.Depth() != 3 || !j.OldestUnsent().Equal(noon) || !j.Newest().Equal(noon) || j.Last() != 3 {
			t.Errorf("%d wait since %v, newest %v, last %d", j.Depth(), j.OldestUnsent(), j.Newest(), j.Last())
		}
	}()
	select {
	case <-answered:
	case <-time.After(30 * time.Second):
		t.Error("they wait")
	}
	close(block)
	<-hung
	<-answered
	block = nil
}

// However events are sent, added and deleted, the oldest that waits is known.
func TestOldestUnsentFollowsTheCursor(t *testing.T) {
	dir, c := t.TempDir(), &clock{now: noon}
	j := open(t, dir, options(c))
	const many = 3 * readAhead
	for i := 1; i <= many; i++ {
		appendAll(t, j, i, i)
		c.add(time.Second)
	}
	for sent := 1; sent <= many; sent++ {
		must(t, j.advance(Destination, uint64(sent), false))
		want := noon.Add(time.Duration(sent) * time.Second)
		if sent == many {
			want = time.Time{}
		}
		if j.Depth() != many-sent || !j.OldestUnsent().Equal(want) {
			t.Fatalf("sent %d: %d wait, the oldest since %v", sent, j.Depth(), j.OldestUnsent())
		}
	}
	since := c.Now()
	appendAll(t, j, many+1, many+1)
	if j.Depth() != 1 || !j.OldestUnsent().Equal(since) {
		t.Errorf("%d wait, the oldest since %v", j.Depth(), j.OldestUnsent())
	}
	must(t, os.Remove(j.segs[0].path(dir)))
	c.add(time.Second)
	appendAll(t, j, many+2, many+2)
	if j.Depth() != 1 || !j.OldestUnsent().Equal(c.Now()) {
		t.Errorf("after deleting %d wait, the oldest since %v", j.Depth(), j.OldestUnsent())
	}
}

// Whatever moment of Append the file is swapped for a copy in, that is older by
// then: nothing confirmed is missing, and the order stays.
func TestFilesSwappedWhileEventsAreAppended(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, options(&clock{now: noon}))
	done, stopped := make(chan struct{}), make(chan int)
	go func() {
		swapped := map[uint64]bool{}
		defer func() { stopped <- len(swapped) }()
		for {
			select {
			case <-done:
				return
			default:
			}
			firsts, err := segmentFirsts(dir)
			if err != nil || len(firsts) == 0 {
				continue
			}
			first := firsts[len(firsts)-1]
			path := filepath.Join(dir, segmentName(first))
			b, err := os.ReadFile(path)
			if err != nil || len(b) == 0 || swapped[first] {
				continue
			}
			swapped[first] = true
			if os.WriteFile(path+".x", b, 0o600) != nil || os.Rename(path+".x", path) != nil {
				t.Error("cannot swap")
				return
			}
		}
	}()
	const many = 200
	for i := 1; i <= many; i++ {
		appendAll(t, j, i, i)
	}
	close(done)
	if n := <-stopped; n == 0 {
		t.Error("none was swapped")
	}
	appendAll(t, j, many+1, many+1)
	if got := details(t, dir, Filter{}); !slices.Equal(got, counted(1, many+1)) || j.Depth() != many+1 {
		t.Errorf("holds %v, %d wait", got, j.Depth())
	}
	if r := j.TakeReport(); !r.Replaced || r.Vanished || r.Err != nil {
		t.Errorf("%+v", r)
	}
}
