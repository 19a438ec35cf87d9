package notify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"time"
)

// Filter says which events of a journal are wanted.
type Filter struct {
	Since       time.Time // not older than this; zero: all
	After       uint64    // only behind this sequence; 0: all
	Certificate string    // only of this certificate; "": of all
}

func (f Filter) match(e Event, seq uint64) bool {
	return seq > f.After &&
		(f.Since.IsZero() || !e.Time.Before(f.Since)) &&
		(f.Certificate == "" || e.Subject == f.Certificate)
}

// Record is an event and the line of the journal it came from, which may hold
// keys that Event does not know.
type Record struct {
	Event Event
	Line  []byte // without line end
}

// ErrNoJournal is why a directory cannot be read: there is no journal in it.
var ErrNoJournal = errors.New("no journal here")

// followEvery is how often Follow looks for news.
const followEvery = 250 * time.Millisecond

// Events reads the journal in dir, oldest first, also while a daemon writes it.
// Lines that are no events are passed over. An error ends it.
func Events(dir string, f Filter) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		r := reader{dir: dir, filter: f}
		defer r.close()
		if _, err := r.pass(yield); err != nil {
			yield(Record{}, err)
		}
	}
}

// Follow is Events that waits for more until ctx ends, also for a journal that is
// not there yet.
func Follow(ctx context.Context, dir string, f Filter) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		r := reader{dir: dir, filter: f}
		defer r.close()
		tick := time.NewTicker(followEvery)
		defer tick.Stop()
		for {
			goOn, err := r.pass(yield)
			if err != nil && !errors.Is(err, ErrNoJournal) {
				yield(Record{}, err)
				return
			}
			if !goOn && err == nil {
				return
			}
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	}
}

// reader reads a journal that somebody else writes.
type reader struct {
	dir    string
	filter Filter
	after  uint64 // sequence of the last event read
	file   *os.File
	first  uint64 // of file
	off    int64  // behind the last whole line of file
}

func (r *reader) close() {
	if r.file != nil {
		r.file.Close()
		r.file = nil
	}
}

// pass yields all there is now; it is false when yield wants no more.
func (r *reader) pass(yield func(Record, error) bool) (bool, error) {
	firsts, err := segmentFirsts(r.dir)
	if errors.Is(err, os.ErrNotExist) {
		return false, fmt.Errorf("%s: %w", r.dir, ErrNoJournal)
	}
	if err != nil {
		return false, fmt.Errorf("read journal: %w", err)
	}
	for i, first := range firsts {
		if first < r.first || i+1 < len(firsts) && firsts[i+1]-1 <= max(r.after, r.filter.After) {
			continue
		}
		path := filepath.Join(r.dir, segmentName(first))
		if r.file == nil || first != r.first || r.replaced(path) {
			if goOn, err := r.rest(yield); !goOn || err != nil {
				return goOn, err
			}
			r.close()
			if r.old(path) && i+1 < len(firsts) {
				continue
			}
			f, err := os.Open(path)
			if errors.Is(err, os.ErrNotExist) { // retention was faster
				continue
			}
			if err != nil {
				return false, fmt.Errorf("read journal: %w", err)
			}
			r.file, r.first, r.off = f, first, 0
		}
		if goOn, err := r.rest(yield); !goOn || err != nil {
			return goOn, err
		}
	}
	return true, nil
}

// old tells that a file was written for the last time well before what is wanted.
func (r *reader) old(path string) bool {
	if r.filter.Since.IsZero() {
		return false
	}
	info, err := os.Stat(path)
	return err == nil && info.ModTime().Before(r.filter.Since.Add(-time.Hour))
}

// replaced tells that under the name of file stands another one by now.
func (r *reader) replaced(path string) bool {
	onDisk, err := os.Lstat(path)
	if err != nil {
		return false
	}
	held, err := r.file.Stat()
	return err == nil && !os.SameFile(onDisk, held)
}

// rest yields what file has behind off, whole lines only: what stands behind the
// last line end is still being written, or will be cut off.
func (r *reader) rest(yield func(Record, error) bool) (bool, error) {
	if r.file == nil {
		return true, nil
	}
	info, err := r.file.Stat()
	if err != nil {
		return false, fmt.Errorf("read journal: %w", err)
	}
	if info.Size() < r.off { // cut back and written anew; sequences tell what is known
		r.off = 0
	}
	lines := newLineReader(io.NewSectionReader(r.file, r.off, info.Size()-r.off))
	for {
		line, took, whole, err := lines.next()
		if errors.Is(err, io.EOF) || err == nil && !whole {
			return true, nil
		}
		if err != nil {
			return false, fmt.Errorf("read journal: %w", err)
		}
		r.off += took
		_, seq, ok := skimHead(line)
		if !ok || seq <= r.after {
			continue
		}
		r.after = seq
		e, err := Decode(line)
		if err != nil || !r.filter.match(e, seq) {
			continue
		}
		if !yield(Record{Event: e, Line: bytes.Clone(line)}, nil) {
			return false, nil
		}
	}
}
