package notify

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"syscall"

	"github.com/renewatch/renewatch/internal/durable"
)

// strangerSuffix is appended to the name of what is not the journal's own and
// stands where a file of it has to be.
const strangerSuffix = ".replaced"

// inPlace tells whether the file being written still stands under its name with
// all that was confirmed.
func (j *Journal) inPlace() (bool, error) {
	s := j.segs[len(j.segs)-1]
	onDisk, err := os.Lstat(s.path(j.dir))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	held, err := j.active.Stat()
	return err == nil && os.SameFile(onDisk, held) && held.Size() >= s.size, nil
}

// heal begins a new segment in place of one that somebody deleted, moved, replaced
// or cut. A new one, because readers that have the old file open look for new
// names.
func (j *Journal) heal() error {
	if err := os.MkdirAll(j.dir, 0o700); err != nil {
		return err
	}
	left, deleted, err := j.putBack()
	if err != nil {
		return err
	}
	i := len(j.segs) - 1
	if err := j.begin(j.last + 1); err != nil {
		return err
	}
	j.report.Replaced = j.report.Replaced || !deleted
	j.report.Vanished = j.report.Vanished || deleted || left.count < j.segs[i].count
	if left.count > 0 {
		j.segs[i] = left
	} else {
		j.segs = slices.Delete(j.segs, i, i+1)
	}
	j.rewritten()
	return nil
}

// putBack writes the confirmed events of the segment being written to a new file
// under its name, and returns what is in there. They come from the file that is
// held open; what that lost, from the one that stands in its place. After a file
// was deleted nothing is put back: its events were meant to go.
func (j *Journal) putBack() (left segment, deleted bool, err error) {
	s := j.segs[len(j.segs)-1]
	left = segment{first: s.first, last: s.last}
	path := s.path(j.dir)
	stranger, err := os.Lstat(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return left, false, err
	}
	missing := err != nil
	if missing && unlinked(j.active) {
		return left, true, nil
	}
	events := map[uint64][]byte{}
	troubles := s.collect(j.active, events)
	if len(events) < s.count && !missing && stranger.Mode().IsRegular() {
		f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
		if err == nil {
			err = s.collect(f, events)
			f.Close()
		}
		troubles = errors.Join(troubles, err)
	}
	if troubles != nil {
		// It goes on: what comes is worth more than what cannot be read.
		j.report.Err = fmt.Errorf("put events back: %w", troubles)
	}
	if !missing && (len(events) == 0 || stranger.IsDir()) {
		if err := setAside(path); err != nil {
			return left, false, err
		}
	}
	if len(events) == 0 {
		return left, false, nil
	}
	var b bytes.Buffer
	for _, seq := range slices.Sorted(maps.Keys(events)) {
		h, _, _ := parseHead(events[seq])
		left.add(h, seq)
		b.Write(events[seq])
		b.WriteByte('\n')
	}
	left.last, left.size = s.last, int64(b.Len())
	return left, false, durable.WriteFile(path, b.Bytes(), 0o600)
}

// collect adds to events what r has of those in s.
func (s segment) collect(r io.ReaderAt, events map[uint64][]byte) error {
	for lines := newLineReader(io.NewSectionReader(r, 0, s.size)); ; {
		line, _, whole, err := lines.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		_, seq, ok := parseHead(line)
		if _, known := events[seq]; whole && ok && !known && seq >= s.first && seq <= s.last {
			events[seq] = bytes.Clone(line)
		}
	}
}

// unlinked tells that an open file has no name left anywhere.
func unlinked(f *os.File) bool {
	info, err := f.Stat()
	if err != nil {
		return false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && stat.Nlink == 0
}

// setAside makes room at path. Whatever stood there, unless it was an empty file,
// keeps a name that is no segment's.
func setAside(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().IsRegular() && info.Size() == 0 {
		return os.Remove(path)
	}
	return os.Rename(path, path+strangerSuffix)
}
