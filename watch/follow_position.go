package watch

import (
	"cmp"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// position is from where the log must be read again for nothing to be lost.
func (t *tail) position() *position {
	p := *t.kept
	p.Read, p.Left = time.Now(), time.Time{}
	s, off := t.place()
	if s == nil {
		return &p
	}
	head, tail := s.head, s.tail
	if off != s.off {
		head, tail = head[:min(int64(len(head)), off)], nil
		if s.zip == nil && off > 0 {
			tail, _ = s.at(max(0, off-printSize), min(off, printSize))
		}
	}
	p.Gen, p.Path, p.Changed, p.Offset = s.gen, s.log, s.changed, off
	p.Dev, p.Ino, p.Birth = s.id.dev, s.id.ino, s.id.birth
	p.Head, p.Tail = sumOf(head), sumOf(tail)
	return &p
}

// place is the file, still open, and the offset in it from which on what goes on
// or what may come late can be read.
func (t *tail) place() (*source, int64) {
	sources := slices.Clone(t.past)
	if t.cur != nil {
		sources = append(sources, t.cur)
	}
	sources = slices.DeleteFunc(sources, func(s *source) bool { return s.file == nil })
	slices.SortStableFunc(sources, func(a, b *source) int { return cmp.Compare(a.gen, b.gen) })
	if len(sources) == 0 {
		return nil, 0
	}
	safe := t.h.ear.Safe()
	at, known := t.h.where(safe)
	s := sources[len(sources)-1]
	if t.cur != nil && t.cur.file != nil {
		s = t.cur
	}
	off := s.off - int64(len(s.part))
	// From a file that a link led to before, the next one would not be found.
	if n := len(t.past); n > 0 && t.past[n-1].log == s.log && t.past[n-1].lingers() {
		s, off = t.past[n-1], t.past[n-1].off-int64(len(t.past[n-1].part))
	}
	if safe >= t.h.fed || !known || at.src.gen > s.gen {
		return s, off
	}
	for _, older := range sources {
		if older == at.src {
			return older, at.off
		}
		if older.gen > at.src.gen {
			return older, 0 // the file in which it begins is gone
		}
	}
	return s, off
}

// lingers reports whether the writer of a file that was rotated may not have
// noticed.
func (s *source) lingers() bool {
	var st unix.Stat_t
	return s.zip == nil && s.file != nil && time.Since(s.left) < lateness && unix.Fstat(int(s.file.Fd()), &st) == nil && st.Nlink > 0
}

// save writes the position down where it has moved.
func (t *tail) save() error {
	if t.doc != nil {
		return t.saveDocument()
	}
	if t.cur == nil {
		return nil
	}
	p := t.position()
	if p.Gen == t.kept.Gen && p.Offset == t.kept.Offset && p.Path == t.kept.Path && p.identity() == t.kept.identity() && p.Head == t.kept.Head && t.kept.Left.IsZero() {
		return nil
	}
	return t.keep(p)
}

// keep writes a position down.
func (t *tail) keep(p *position) error {
	err := p.save(t.w.f.o.Dir)
	t.kept = p
	t.w.keeping(t.log, err)
	return err
}
