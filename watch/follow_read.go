package watch

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"syscall"
	"time"
)

// readOn reads all that is open, the oldest first. It reports false when that is
// not at its end.
func (t *tail) readOn(budget *int) bool {
	t.readPast(budget)
	for t.cur != nil || len(t.queue) > 0 {
		if !t.copies() {
			return false
		}
		switch t.read(t.cur, budget) {
		case cut:
			if !t.truncated() {
				return false
			}
		case more:
			t.soon(0)
			return false
		case failed:
			return false
		case atEnd:
			if len(t.queue) == 0 {
				return true
			}
			t.advance()
		}
	}
	return true
}

// readPast reads what comes late, and closes what is over.
func (t *tail) readPast(budget *int) {
	now := time.Now()
	safe, ok := t.h.where(t.h.ear.Safe())
	t.past = slices.DeleteFunc(t.past, func(s *source) bool {
		if s.zip == nil && now.Sub(s.left) < lateness {
			if id, err := s.stat(); err == nil && id.size > s.off {
				if t.read(s, budget) == more {
					t.soon(0)
				}
			}
			return false
		}
		s.finish(t.sayer(s))
		if ok && safe.src != nil && s.gen >= safe.src.gen {
			return false
		}
		s.close()
		return true
	})
	if over := len(t.past) - maxPast; over > 0 {
		for _, s := range t.past[:over] {
			s.finish(t.sayer(s))
			s.close()
		}
		t.past = slices.Delete(t.past, 0, over)
	}
	t.tell(t.h.taken(t.w.now()))
}

// state is how reading ended.
type state int

const (
	atEnd  state = iota
	more         // there may be more
	cut          // the file is not any more what was read
	failed       // it cannot be read
)

// read reads a source to its end, or as far as there is a budget.
func (t *tail) read(s *source, budget *int) state {
	if s == nil {
		return atEnd
	}
	say := t.sayer(s)
	for *budget > 0 && len(t.w.outbox) < maxOutbox {
		buf := t.w.buf
		if t.h.old && s.gen == t.kept.OldGen {
			left := t.oldTo - s.off
			if left <= 0 {
				t.tell(t.h.present(t.w.now()))
				continue
			}
			buf = buf[:min(int64(len(buf)), left)]
		}
		n, err := s.next(buf)
		id, statErr := s.stat()
		if err == nil || errors.Is(err, io.EOF) {
			err = statErr
			if err == nil && !s.intact(id) {
				return cut
			}
		} else if s.zip != nil {
			t.lost(LogGone, s.path, time.Time{})
			err = nil
		}
		if err != nil {
			t.unreadable(s, err)
			return failed
		}
		s.size, s.changed, s.read = id.size, id.mtime, time.Now()
		if n == 0 {
			return atEnd
		}
		t.h.ear.Arrived(t.arrived(id))
		s.take(buf[:n], say)
		t.tell(t.h.taken(t.w.now()))
		t.h.forget()
		t.moved()
		*budget -= n
	}
	return more
}

// arrived is when a file was written last, never in the future.
func (t *tail) arrived(id ident) time.Time {
	at, now := time.Unix(0, id.mtime), t.w.now()
	if at.After(now) {
		return now
	}
	return at
}

func (t *tail) sayer(s *source) func([]byte, int64) {
	return func(text []byte, off int64) { t.h.hear(text, place{src: s, off: off}) }
}

// unreadable: the system does not read an open file.
func (t *tail) unreadable(s *source, err error) {
	t.stuck = openFault(t.log.File, err)
	if errors.Is(err, syscall.ESTALE) && t.save() == nil {
		// The server has removed it; it may be there under another name.
		t.closeSources()
		t.stuck = nil
		t.soon(traceAgain)
	}
}

// advance goes on with the next source.
func (t *tail) advance() {
	if s := t.cur; s != nil {
		if s.off > 0 {
			t.before = s.wanted(false)
		}
		if s.zip != nil {
			s.finish(t.sayer(s))
		}
		if s.left = time.Now(); s.file != nil {
			t.past = append(t.past, s)
		}
	}
	if t.h.old {
		t.tell(t.h.present(t.w.now()))
	}
	var since time.Time
	if t.cur != nil {
		since = t.cur.read
	}
	t.gen++
	t.cur = t.queue[0]
	if t.cur.doubt {
		t.lost(LogTruncated, t.log.File, since)
	}
	t.cur.gen = t.gen
	t.queue = t.queue[1:]
}

// truncated: the file was cut off, and perhaps written again. What was copied
// before that is read on. It reports false when it must be tried again.
func (t *tail) truncated() bool {
	s := t.cur
	if _, err := s.stat(); err != nil {
		t.unreadable(s, err)
		return false
	}
	w := s.wanted(false)
	w.size = -1
	w.present = s.beginning
	for _, past := range t.past {
		w.not = append(w.not, past.id.inode)
	}
	found, err := trace(s.log, w, func() bool { return true })
	if err != nil {
		t.disturbed(err)
		return false
	}
	if !found.located { // what is newer may be anything
		found.close()
		found.newer = nil
	}
	quiet := !t.signed.IsZero() && t.signed.Sub(time.Unix(0, s.changed)) > quietFor && time.Since(t.signed) < time.Second
	doubt := !quiet || found.found != nil && found.found.size > s.off || len(found.newer) > 0 || found.unread != ""
	t.queue = append(t.doubt(append(found.newer, s.again()), doubt), t.queue...)
	if found.found == nil {
		t.advance()
		return true
	}
	s.handOver(found.found)
	t.h.moved(s, found.found)
	t.cur = found.found
	return true
}

// copies looks for what was written to a log, copied and cut off since it was cut
// off before: nothing was read of it yet, so it does not show that. It reports
// false when it must be tried again.
func (t *tail) copies() bool {
	if t.cur == nil || !t.cur.cut || t.cur.off > 0 || t.before == nil || len(t.queue) > 0 {
		return true
	}
	all, err := family(t.cur.log)
	if err != nil || sameKin(all, t.kin) {
		return true
	}
	t.kin = all
	w := *t.before
	w.present = t.cur.beginning
	found, err := trace(t.cur.log, &w, func() bool { return true })
	if err != nil {
		t.kin = nil
		t.disturbed(err)
		return false
	}
	if found.found != nil {
		found.found.close()
	}
	if !found.located || len(found.newer) == 0 && found.unread == "" {
		found.close()
		return true
	}
	t.queue = t.doubt(append(found.newer, t.cur.again()), true)
	t.advance()
	return true
}

// doubt marks what comes after a cut: something before it may be lost.
func (t *tail) doubt(sources []*source, doubt bool) []*source {
	for _, s := range sources {
		s.doubt = doubt
	}
	return sources
}

// lost tells that something was written that cannot be read, after since.
func (t *tail) lost(code FaultCode, path string, since time.Time) {
	when := ""
	if !since.IsZero() {
		when = fmt.Sprintf(" after %s", since.UTC().Format(time.RFC3339))
	}
	var f *Fault
	if code == LogTruncated {
		f = newFault(code, path, "rotate it by renaming (logrotate's create), not by copying (copytruncate): the client opens its log at each run",
			"%s was cut off, and what was written to it%s may be lost", show(path), when)
	} else {
		f = newFault(code, path, "keep at least one rotated log in the same directory, plain or as .gz",
			"what was written to %s%s may be lost: it was rotated to where it is not found", show(path), when)
	}
	t.tell([]Heard{{Log: t.log, Kind: Lost, Fault: f, Time: t.w.now()}})
}
