package watch

import (
	"bytes"
	"errors"
	"slices"
	"time"
)

// wanted is a file that a log was read from, and that may have been rotated.
type wanted struct {
	id         identity
	open       bool // it still is open: the number of its inode is no other's
	head, tail sum
	off, size  int64
	changed    int64
	// not are files that are known and not sought.
	not []inode
	// present says what the log now begins with, where it was truncated. A file that
	// begins like that is a copy of what is still there, and may just be made.
	present func() []byte
	copied  []byte
}

func (s *source) wanted(open bool) *wanted {
	return &wanted{id: s.id, open: open, head: sumOf(s.head), tail: sumOf(s.tail), off: s.off, size: s.size, changed: s.changed}
}

func (p *position) wanted() *wanted {
	return &wanted{id: p.identity(), head: p.Head, tail: p.Tail, off: p.Offset, size: -1, changed: p.Changed}
}

// traced is what became of a wanted file.
type traced struct {
	located bool
	found   *source   // it, at off; nil when it still is open, or cannot be read
	zipped  bool      // it was compressed
	newer   []*source // to what the log was rotated after that, the oldest first
	unread  string    // one of these that cannot be read
	more    bool      // there are still newer ones
	trouble error     // it was not this that could not be opened, but anything
}

func (t *traced) close() {
	if t.found != nil {
		t.found.close()
	}
	for _, s := range t.newer {
		s.close()
	}
}

const (
	maxTraces = 8
	// maxNewer bounds the rotated files that are opened at a time.
	maxNewer = 64
	// traceAgain is when the search goes on that a rotation disturbed.
	traceAgain = 20 * time.Millisecond
)

// errRotating is returned while the log is rotated all the time.
var errRotating = errors.New("it is being rotated")

// trace looks for w among what the log at path was rotated to; still says whether
// the log itself is what it was.
func trace(path string, w *wanted, still func() bool) (*traced, error) {
	for range maxTraces {
		if w.present != nil {
			w.copied = w.present()
		}
		// Without its directory a log was rotated to nothing.
		before, err := family(path)
		if err != nil && exhausted(err) {
			return nil, err
		}
		t := traceIn(before, w)
		after, err := family(path)
		if t.trouble == nil && err != nil && exhausted(err) {
			t.trouble = err
		}
		if t.trouble != nil {
			t.close()
			return nil, t.trouble
		}
		if sameKin(before, after) && still() && (w.present == nil || bytes.Equal(w.copied, w.present())) {
			return t, nil
		}
		t.close()
	}
	return nil, errRotating
}

func traceIn(all []kin, w *wanted) *traced {
	t := &traced{}
	at := slices.IndexFunc(all, func(k kin) bool { return t.isByNumber(&k, w) })
	for _, exactly := range [...]bool{true, false} {
		if at < 0 && (!exactly || w.open) {
			at = slices.IndexFunc(all, func(k kin) bool { return t.isByContent(&k, w, exactly) })
		}
	}
	if at < 0 {
		// A compressor gives its file the time of the original.
		at = slices.IndexFunc(all, func(k kin) bool {
			return k.zip != "" && k.zip != gz && k.id.mtime/1e9 == w.changed/1e9
		})
		if at >= 0 && !w.open {
			t.unread = all[at].path
		}
	}
	t.located = at >= 0
	newer := all[:max(0, at)]
	if t.located {
		t.zipped = all[at].zip != ""
	} else {
		newer = slices.DeleteFunc(slices.Clone(all), func(k kin) bool { return k.id.mtime < w.changed })
	}
	for i := range slices.Backward(newer) {
		k := &newer[i]
		if slices.Contains(w.not, k.id.inode) {
			continue
		}
		if len(t.newer) >= maxNewer {
			t.more = true
			break
		}
		s := t.open(k)
		switch {
		case s == nil:
			t.unread = k.path
		case w.isCopy(s):
			s.close()
		default:
			t.newer = append(t.newer, s)
		}
	}
	return t
}

func (t *traced) open(k *kin) *source {
	s, err := k.open()
	if err != nil {
		t.trouble = err
	}
	return s
}

func (t *traced) isByNumber(k *kin, w *wanted) bool {
	if w.open || k.id.ino != w.id.ino {
		return k.id.inode == w.id.inode
	}
	s := t.open(k)
	if s == nil {
		return false
	}
	if s.matches(w.head, w.tail, w.off) || w.off == 0 && s.id.same(w.id) {
		t.found = s
		return true
	}
	s.close()
	return false
}

// isByContent recognises what is wanted by what it holds; exactly: and by its
// length, which tells logs apart that begin alike.
func (t *traced) isByContent(k *kin, w *wanted, exactly bool) bool {
	s := t.open(k)
	if s == nil {
		return false
	}
	length := k.id.size
	if s.zip != nil {
		n, _ := s.unzippedSize()
		length = int64(n)
	}
	if exactly && length != w.size&(1<<32-1) ||
		!s.matches(w.head, w.tail, w.off) && !(exactly && w.size == 0 && s.zip != nil) {
		s.close()
		return false
	}
	if w.open {
		s.close() // what is open is read to its end
	} else {
		t.found = s
	}
	return true
}

// isCopy reports whether s holds nothing, or begins like what the log still has.
func (w *wanted) isCopy(s *source) bool {
	if w.present == nil || s.zip != nil {
		return false
	}
	b := s.beginning()
	n := min(len(b), len(w.copied))
	return len(b) == 0 || n > 0 && bytes.Equal(b[:n], w.copied[:n])
}
