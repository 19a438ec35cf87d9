package watch

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/renewatch/renewatch/watch/acmelog"
)

// ear reads the text of one log: an acmelog.Parser.
type ear interface {
	Arrived(at time.Time)
	Write(b []byte) (int, error)
	Take() []acmelog.Attempt
	Stall(now time.Time)
	Safe() int64
	Exit(e acmelog.Exit)
	Flush()
}

const (
	// maxMarks bounds what is remembered of where the text came from.
	maxMarks = 8192
	// maxGoingOn bounds the attempts that are remembered because they may come
	// again.
	maxGoingOn = 512
)

// place is where a piece of text stands in its log.
type place struct {
	src *source // a file's
	off int64
	// A journal's: the entry, and when it was written.
	cursor string
	at     time.Time
}

// mark says where the text stands from at on, until the next mark.
type mark struct {
	at int64
	place
}

// hearing is what one log tells, and where it stands in the log.
type hearing struct {
	log   Log
	salt  string // part of every ID of this log
	ear   ear
	fed   int64  // bytes of text so far
	marks []mark // ascending
	// goingOn has the IDs of the attempts that may come again.
	goingOn map[spot]going
	// past has what is told of the time before the log was first followed, while
	// that is read; then it is nil.
	past    []Heard
	pastRun int64
	old     bool // that is being read
}

// spot is where an attempt begins in the text.
type spot struct {
	at  int64
	nth int
}

type going struct {
	id      string
	running bool
}

func newHearing(l Log, salt string, e ear) *hearing {
	return &hearing{log: l, salt: salt, ear: e, goingOn: make(map[spot]going)}
}

// restart forgets everything: the text is read again from what is kept.
func (h *hearing) restart(e ear) {
	h.ear, h.fed, h.marks, h.past, h.old = e, 0, nil, nil, false
	clear(h.goingOn)
}

// hear takes in whole lines.
func (h *hearing) hear(text []byte, at place) {
	if n := len(h.marks); n == 0 || !h.marks[n-1].leadsTo(h.fed, at) {
		if n >= maxMarks {
			h.thin()
		}
		h.marks = append(h.marks, mark{h.fed, at})
	}
	h.ear.Write(text) //nolint:errcheck // never fails
	h.fed += int64(len(text))
}

// leadsTo reports whether the text from m on goes on at p.
func (m *mark) leadsTo(fed int64, p place) bool {
	return m.src != nil && m.src == p.src && fed-m.at == p.off-m.off
}

// thin forgets every second of the older marks, but not where a file begins:
// what is read again after a restart is a little more then.
func (h *hearing) thin() {
	kept := h.marks[:0]
	for i, m := range h.marks {
		if i%2 == 0 || i > maxMarks/2 || m.src != nil && h.marks[i-1].src != m.src {
			kept = append(kept, m)
		}
	}
	clear(h.marks[len(kept):])
	h.marks = kept
}

// moved: what was read of one source is in another, at the same place.
func (h *hearing) moved(from, to *source) {
	for i := range h.marks {
		if h.marks[i].src == from {
			h.marks[i].src = to
		}
	}
}

// where says where the text at an offset stands.
func (h *hearing) where(at int64) (place, bool) {
	i, found := slices.BinarySearchFunc(h.marks, at, func(m mark, at int64) int {
		switch {
		case m.at < at:
			return -1
		case m.at > at:
			return 1
		}
		return 0
	})
	if !found {
		i--
	}
	if i < 0 {
		return place{}, false
	}
	p := h.marks[i].place
	if p.src != nil {
		p.off = min(p.off+at-h.marks[i].at, p.src.off)
	}
	return p, true
}

// before returns the last entry of the journal before an offset.
func (h *hearing) before(at int64) (place, bool) {
	for i := len(h.marks) - 1; i >= 0; i-- {
		if h.marks[i].at < at {
			return h.marks[i].place, true
		}
	}
	return place{}, false
}

// forget drops the marks that nobody will ask for any more.
func (h *hearing) forget() {
	safe := h.ear.Safe()
	n := 0
	for n+1 < len(h.marks) && h.marks[n+1].at < safe {
		n++
	}
	if n > 0 {
		h.marks = slices.Delete(h.marks, 0, n)
	}
}

// taken returns what there is to tell.
func (h *hearing) taken(now time.Time) []Heard {
	var out []Heard
	for _, a := range h.ear.Take() {
		s := spot{a.Offset, a.Nth}
		g, known := h.goingOn[s]
		if !known {
			g.id = h.id(&a)
		}
		if a.Outcome == acmelog.Running || a.Outcome == acmelog.Stalled {
			g.running = a.Outcome == acmelog.Running
			if !known && len(h.goingOn) >= maxGoingOn {
				h.dropOldest()
			}
			h.goingOn[s] = g
		} else {
			delete(h.goingOn, s)
		}
		out = append(out, Heard{Log: h.log, Kind: Attempted, Attempt: &a, ID: g.id, Time: now, Old: h.old})
	}
	if !h.old {
		return out
	}
	h.past = append(h.past, out...)
	for _, o := range out {
		h.pastRun = max(h.pastRun, o.Attempt.Run)
	}
	if len(h.past) > maxGoingOn {
		h.lastRun()
	}
	return nil
}

// lastRun leaves of the past only the last run, and of each attempt only what was
// told last.
func (h *hearing) lastRun() {
	latest := make(map[string]int, len(h.past))
	for i, o := range h.past {
		latest[o.ID] = i
	}
	kept := h.past[:0]
	for i, o := range h.past {
		if latest[o.ID] == i && (o.Attempt.Run >= h.pastRun || o.Attempt.Outcome == acmelog.Running) {
			kept = append(kept, o)
		}
	}
	clear(h.past[len(kept):])
	h.past = kept
}

// present ends the past, and returns what is told of it.
func (h *hearing) present(now time.Time) []Heard {
	if !h.old {
		return nil
	}
	h.ear.Stall(now)
	h.taken(now)
	h.lastRun()
	past := h.past
	h.old, h.past = false, nil
	return past
}

// stall says what time it is, while an attempt goes on.
func (h *hearing) stall(now time.Time) []Heard {
	if h.old || !h.listening() {
		return nil
	}
	h.ear.Stall(now)
	return h.taken(now)
}

// listening reports whether an attempt is running.
func (h *hearing) listening() bool {
	for _, g := range h.goingOn {
		if g.running {
			return true
		}
	}
	return false
}

// dropOldest forgets an attempt that may still come again: that stalled, if there
// is one, the oldest of them.
func (h *hearing) dropOldest() {
	var oldest spot
	found, running := false, false
	for s, g := range h.goingOn {
		if !found || running && !g.running || running == g.running && s.at < oldest.at {
			oldest, found, running = s, true, g.running
		}
	}
	delete(h.goingOn, oldest)
}

// id is the same whenever this attempt is read.
func (h *hearing) id(a *acmelog.Attempt) string {
	p, _ := h.where(a.Offset)
	at := p.cursor
	if p.src != nil {
		line, _, _ := bytes.Cut(p.src.head, []byte{'\n'})
		at = fmt.Sprintf("%d %d %q", p.src.gen, p.off, line)
	}
	return h.idOf(at, a.Nth)
}

func (h *hearing) idOf(at string, nth int) string {
	s := sha256.New()
	for _, part := range []string{string(h.log.Client), h.log.File, h.log.Unit, h.salt, at, strconv.Itoa(nth)} {
		s.Write([]byte(part))
		s.Write([]byte{0})
	}
	return hex.EncodeToString(s.Sum(nil)[:16])
}
