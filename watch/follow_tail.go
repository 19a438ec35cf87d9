package watch

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"github.com/renewatch/renewatch/watch/acmelog"
	"golang.org/x/sys/unix"
)

const (
	// firstBytes bounds what is read of a log that is first seen: its end.
	firstBytes = 8 << 20
	// lookBytes bounds what is read of one log at a time.
	lookBytes = 4 << 20
	// lateness is for how long a file is read on that was rotated: its writer may
	// not have noticed.
	lateness = 5 * time.Minute
	// maxPast bounds the rotated files that are held open.
	maxPast = 16
	// quietFor is how long nothing must have been written to a file for its
	// truncation to have cost nothing for sure.
	quietFor = time.Minute
	// troubleAgain is after how long a log is tried again when this process can
	// open no more files.
	troubleAgain = 5 * time.Second
)

// tail follows one file.
type tail struct {
	w      *follower
	log    Log
	item   *item
	h      *hearing
	doc    *document // nil: it is a log of lines
	kept   *position // as it stands on disk
	cur    *source   // nil: there is none yet, or it could not be found
	queue  []*source // what follows cur, the oldest first
	past   []*source // what was before cur and is still open
	gen    int64     // of the newest source
	oldTo  int64     // in the file kept.OldGen
	before *wanted   // what was read last before cur
	kin    []kin     // the rotated files when copies looked last
	missed bool      // the log was followed before it was there
	blind  *Fault    // what was told
	// since is since when the log is absent, or rotated and still empty.
	since  time.Time
	empty  inode     // the empty log, once it is known that nothing lies before it
	signed time.Time // when the first event came since the last look
	again  time.Time // when to look again; zero: at the next sign
	stuck  *Fault    // the last look could not read
}

func newTail(w *follower, l Log) *tail {
	t := &tail{w: w, log: l, item: &item{name: l.File, claim: claim{cert: l.File}}}
	t.kept = loadPosition(positionPath(w.f.o.Dir, l))
	if t.kept == nil || t.kept.log() != l {
		t.kept = newPosition(l, time.Now())
		t.keep(t.kept)
	} else {
		t.missed = true
	}
	if acmelog.Document(l.Client, l.File) {
		t.doc = &document{told: t.kept.Told}
	}
	t.h = newHearing(l, t.kept.Salt, w.f.listen(l))
	t.gen = t.kept.Gen
	t.oldTo = t.kept.OldTo
	return t
}

// look reads what is new, and sees whether another file is the log now.
func (t *tail) look() {
	t.again, t.stuck = time.Time{}, nil
	budget := lookBytes
	if !t.readOn(&budget) {
		t.tellBlind(t.stuck)
		t.signed = time.Time{}
		return
	}
	t.signed = time.Time{}
	r := newResolver()
	trail, id, fault := findLog(r, t.log.File)
	for _, it := range t.w.dirs.follow(t.item, trail.steps) {
		if other := t.w.items[it]; other == t {
			t.soon(0)
		} else if other != nil {
			t.w.mustLook(other, time.Now())
		}
	}
	switch {
	case fault != nil && fault.Absent():
		t.tellBlind(nil)
		t.absent()
		return
	case fault != nil:
		t.missed = t.missed || fault.Code != NoPermission // no log is there
		t.tellBlind(fault)
		return
	case t.doc != nil:
		t.document(trail.real, id)
		return
	case t.cur != nil && t.cur.id.inode == id.inode:
		t.since, t.empty = time.Time{}, inode{}
		t.tellBlind(t.stuck)
		return
	}
	now, err := openSource(trail.real)
	if err != nil {
		switch f := openFault(t.log.File, err); {
		case f == nil, f.Absent():
			t.soon(traceAgain)
		default:
			t.tellBlind(f)
		}
		return
	}
	t.tellBlind(nil)
	switch {
	case t.cur == nil && t.kept.Gen == 0:
		t.first(now)
	case t.cur == nil:
		t.resume(now)
	default:
		t.rotated(now)
	}
}

// findLog resolves the path of a log.
func findLog(r *resolver, path string) (trail, ident, *Fault) {
	t := r.walk(path)
	id, err := stat(path)
	if err != nil {
		if t.err == nil {
			t.err, t.at = err, path
		}
		return t, ident{}, t.fault(path)
	}
	if t.err != nil || t.id.inode != id.inode {
		t.real, t.id, t.err = path, id, nil
	}
	return t, id, notRegularLog(path, id)
}

// openFault says why a log cannot be opened; nil when that is this process's
// trouble and may pass.
func openFault(path string, err error) *Fault {
	if f := (*Fault)(nil); errors.As(err, &f) {
		return f
	}
	if exhausted(err) {
		return newFault(OutOfDescriptors, "", "raise the limit of open files (LimitNOFILE=, sysctl fs.file-max)", "%s cannot be opened for now: %s", show(path), show(err.Error()))
	}
	return systemFault(path, err)
}

// soon makes the log due.
func (t *tail) soon(in time.Duration) { t.again = earlier(time.Now().Add(in), t.again) }

// late reports whether the log has been absent or empty for long, so that nobody
// writes to the file before it any more.
func (t *tail) late() bool {
	if t.since.IsZero() {
		t.since = time.Now()
	}
	return time.Since(t.since) >= lateness
}

// absent: there is no log.
func (t *tail) absent() {
	t.missed = true
	if t.cur == nil {
		if t.kept.Gen > 0 && t.doc == nil {
			// What was not found yet is looked for when there is something else.
			if all, err := family(cmp.Or(t.kept.Path, t.log.File)); err != nil || !sameKin(all, t.kin) || t.kin == nil {
				t.kin = all
				t.resume(nil)
			}
		}
		return
	}
	if id, err := t.cur.stat(); err == nil && id.size == t.cur.off && t.late() && t.w.deliverable() && !t.h.listening() {
		// It is read to its end: what is held is its place on the disk.
		if t.save() == nil {
			t.closeSources()
		}
	}
}

// first begins with a log that was never followed.
func (t *tail) first(s *source) {
	t.gen = 1
	s.gen = 1
	seen := t.kept.Seen
	if t.missed { // file systems' clocks lag a little behind the system's
		seen = seen.Add(-time.Second)
	}
	old := s.id.birth != 0 && s.id.birth < seen.UnixNano() || s.id.birth == 0 && (!t.missed || s.changed < seen.UnixNano())
	from := int64(0)
	if s.size > firstBytes {
		old, from = true, s.size-firstBytes
	}
	if t.start(s, from) != nil {
		return
	}
	t.cur = s
	if old {
		t.oldTo = s.size
	}
	p := t.position()
	p.OldGen, p.OldTo = 1, t.oldTo
	t.h.old = old
	t.keep(p)
	t.soon(0)
}

// start lets a source begin; when that fails, it is closed.
func (t *tail) start(s *source, off int64) error {
	err := s.start(off)
	if err != nil {
		s.close()
		t.soon(traceAgain)
	}
	return err
}

// resume goes on where an earlier run stopped, or this one had nothing open any
// more. s is the log; nil: it is absent.
func (t *tail) resume(s *source) {
	p := t.kept
	same := s != nil && s.id.same(p.identity())
	if same && (p.Offset == 0 || s.matches(p.Head, p.Tail, p.Offset)) {
		t.begin(s)
		return
	}
	w := p.wanted()
	if same {
		w.present = s.beginning
	}
	found := t.trace(w, p.Path, s)
	if found == nil {
		return
	}
	if !found.located && s != nil && !same && s.matches(p.Head, p.Tail, p.Offset) {
		// It was copied to where it is, with its whole file system perhaps.
		found.close()
		t.begin(s)
		return
	}
	truncated := same && (s.id.birth != 0 || !found.located || !found.zipped)
	switch {
	case !found.located && s == nil:
		found.close() // it may still come
		return
	case !found.located && truncated:
		found.close()
		found.newer = nil
		t.lost(LogTruncated, p.Path, p.Read)
	case !found.located && p.Offset > 0:
		t.lost(LogGone, p.Path, p.Read)
	case truncated:
		t.lost(LogTruncated, p.Path, p.Read)
	}
	if found.unread != "" {
		t.lost(LogGone, found.unread, p.Read)
	}
	t.queue = found.newer
	switch {
	case s == nil:
	case found.more:
		s.close() // they come first
	case !found.located && s.size > firstBytes && t.start(s, s.size-firstBytes) != nil:
		found.close()
		t.queue = nil
		return
	default:
		t.queue = append(t.queue, s)
	}
	t.begin(found.found)
}

// begin takes up reading at a source that stands where it was left.
func (t *tail) begin(s *source) {
	t.gen = t.kept.Gen
	t.h.old = t.kept.OldGen == t.gen && t.kept.Offset < t.oldTo
	if s == nil {
		if len(t.queue) > 0 {
			t.advance()
		}
	} else {
		s.gen = t.gen
		t.cur = s
	}
	t.soon(0)
}

// trace looks for a file that the log was rotated to; nil: it must be looked for
// again later. s is the log, which is closed then; nil: it is absent. was is where
// the log lay when it had that file.
func (t *tail) trace(w *wanted, was string, s *source) *traced {
	path := cmp.Or(was, t.log.File)
	if s != nil {
		path = s.log
	}
	for _, past := range t.past {
		w.not = append(w.not, past.id.inode)
	}
	still := func() bool {
		id, err := stat(t.log.File)
		if s == nil {
			return err != nil
		}
		return err == nil && id.inode == s.id.inode
	}
	found, err := trace(path, w, still)
	if err == nil && !found.located && was != "" && was != path {
		// A link leads elsewhere now: the file may still be where it was.
		found.close()
		if found = w.unmoved(was); found == nil {
			found, err = trace(was, w, still)
		}
	}
	if err == nil {
		return found
	}
	if s != nil {
		s.close()
	}
	t.disturbed(err)
	return nil
}

// unmoved returns the file that is wanted where it was; nil: it is not there.
func (w *wanted) unmoved(was string) *traced {
	id, err := stat(was)
	if err != nil || id.inode != w.id.inode {
		return nil
	}
	t := &traced{located: true}
	if w.open {
		return t
	}
	if t.found, err = openSource(was); err != nil {
		return nil
	}
	if !t.found.matches(w.head, w.tail, w.off) {
		t.found.close()
		return nil
	}
	return t
}

// disturbed: a search must be tried again.
func (t *tail) disturbed(err error) {
	if errors.Is(err, errRotating) {
		t.soon(traceAgain)
		return
	}
	t.stuck = openFault(t.log.File, err)
	t.tellBlind(t.stuck)
	t.soon(troubleAgain)
}

// rotated: another file is the log now. While that is empty, the writer may not
// have opened it.
func (t *tail) rotated(s *source) {
	waits := s.size == 0 && !t.late()
	if waits && t.empty == s.id.inode {
		s.close()
		return
	}
	if id, err := t.cur.stat(); err == nil {
		t.cur.size, t.cur.changed = id.size, id.mtime
	}
	found := t.trace(t.cur.wanted(true), t.cur.log, s)
	if found == nil {
		return
	}
	if !found.located && t.goesOn(s) {
		found.close()
		return
	}
	if !found.located && len(found.newer) > 0 || found.unread != "" {
		t.lost(LogGone, t.log.File, t.cur.read)
	}
	t.queue = found.newer
	switch {
	case found.more:
		s.close() // they come first
	case waits:
		t.empty = s.id.inode
		s.close()
	default:
		t.queue = append(t.queue, s)
		t.since, t.empty = time.Time{}, inode{}
	}
	if len(t.queue) > 0 {
		t.soon(0)
	}
}

// goesOn takes s for the file that is read, where that was not renamed, and s
// holds what was read of it: an overlay has copied it, or somebody's editor.
func (t *tail) goesOn(s *source) bool {
	var st unix.Stat_t
	if t.cur.zip != nil || unix.Fstat(int(t.cur.file.Fd()), &st) != nil || st.Nlink == 0 {
		return false
	}
	w := t.cur.wanted(true)
	if !s.matches(w.head, w.tail, w.off) {
		return false
	}
	t.cur.handOver(s)
	t.h.moved(t.cur, s)
	t.cur.close()
	t.cur = s
	t.soon(0)
	return true
}

// tellBlind tells what is not seen, and what is seen again.
func (t *tail) tellBlind(f *Fault) {
	if t.stuck != nil && f == nil {
		f = t.stuck
	}
	t.blind = t.w.tellBlind(t.log, t.blind, f)
}

func (t *tail) tell(heard []Heard) { t.w.tell(heard) }

func (t *tail) moved() { t.w.touch(t) }

func (t *tail) closeSources() {
	for _, s := range slices.Concat(t.past, []*source{t.cur}, t.queue) {
		if s != nil {
			s.close()
		}
	}
	t.cur, t.past, t.queue = nil, nil, nil
	t.h.restart(t.w.f.listen(t.log))
}
