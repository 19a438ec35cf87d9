package watch

import (
	"bytes"
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/renewatch/renewatch/watch/acmelog"
)

const (
	// exitWait is for how long the last lines of a run are waited for after its
	// end was told: the journal is a little behind.
	exitWait = 5 * time.Second
	// maxExits bounds the ends of runs that wait for that.
	maxExits = 64
)

// unit follows the journal of one systemd unit. The loop owns it, but for what
// its reader reads.
type unit struct {
	w      *follower
	log    Log
	h      *hearing
	kept   *position
	at     place // of the last entry
	moved  bool
	begun  bool // what was before is read
	exits  []acmelog.Exit
	exitAt time.Time // when they are due whatever the journal says
	blind  *Fault

	cancel context.CancelFunc
	done   chan struct{}
}

// entries are what a unit's reader has to say.
type entries struct {
	u     *unit
	lines [][]byte
	// begun: what was before the unit was first followed is read.
	begun bool
	// state: fault says what is the matter now; nil: nothing.
	state bool
	fault *Fault
}

func newUnit(ctx context.Context, w *follower, l Log) *unit {
	u := &unit{w: w, log: l, done: make(chan struct{})}
	u.kept = loadPosition(positionPath(w.f.o.Dir, l))
	if u.kept == nil || u.kept.log() != l {
		u.kept = newPosition(l, time.Now())
		w.keeping(l, u.kept.save(w.f.o.Dir))
	}
	u.h = newHearing(l, u.kept.Salt, w.f.listen(l))
	u.begun = u.kept.Gen > 0
	u.h.old = !u.begun
	ctx, u.cancel = context.WithCancel(ctx)
	r := &journalReader{u: u, command: w.f.o.Journalctl, unit: l.Unit, to: w.entries,
		begun: u.begun, cursor: u.kept.Cursor, at: u.kept.At, seen: u.kept.Seen}
	go func() {
		defer close(u.done)
		r.run(ctx)
	}()
	return u
}

// stop ends the reader.
func (u *unit) stop() {
	u.cancel()
	<-u.done
}

// entered takes in what a reader says.
func (w *follower) entered(e *entries) {
	u := e.u
	if w.units[u.log] != u {
		return
	}
	if e.state {
		u.blind = w.tellBlind(u.log, u.blind, e.fault)
	}
	if len(e.lines) > 0 {
		u.moved = true
		w.heardAt = time.Now()
	}
	for _, line := range e.lines {
		if cursor, at := cursorOf(line); cursor != "" {
			u.at = place{cursor: cursor, at: at}
		}
		for len(u.exits) > 0 && u.at.at.After(u.exits[0].At) {
			u.exit()
		}
		u.h.hear(line, u.at)
	}
	w.tell(u.h.taken(w.now()))
	if e.begun {
		w.tell(u.h.present(w.now()))
		u.begun, u.moved = true, true
	}
	u.h.forget()
	if e.begun && w.deliverable() {
		_ = u.save()
	}
}

// ended: the unit's run ended. What it wrote before is still to come.
func (u *unit) ended(e acmelog.Exit) {
	if len(u.exits) < maxExits {
		u.exits = append(u.exits, e)
	}
	if u.exitAt.IsZero() {
		u.exitAt = time.Now().Add(exitWait)
	}
}

// exit tells of the oldest end that waits.
func (u *unit) exit() {
	u.h.ear.Exit(u.exits[0])
	if u.exits = u.exits[1:]; len(u.exits) == 0 {
		u.exitAt = time.Time{}
	}
}

// exitsDue tells of the ends that have waited long enough.
func (u *unit) exitsDue(now time.Time) {
	if u.exitAt.IsZero() || u.exitAt.After(now) {
		return
	}
	for len(u.exits) > 0 {
		u.exit()
	}
	u.w.tell(u.h.taken(u.w.now()))
}

// save writes down from where the journal must be read again.
func (u *unit) save() error {
	if !u.moved {
		return nil
	}
	u.moved = false
	p := *u.kept
	p.Read, p.Left = time.Now(), time.Time{}
	if at, ok := u.h.before(u.h.ear.Safe()); ok && at.cursor != "" {
		p.Cursor, p.At = at.cursor, at.at
	}
	if u.begun {
		p.Gen = 1
	}
	if p.Cursor == u.kept.Cursor && p.Gen == u.kept.Gen && u.kept.Left.IsZero() {
		return nil
	}
	u.kept = &p
	err := p.save(u.w.f.o.Dir)
	u.w.keeping(u.log, err)
	return err
}

// cursorOf finds in an entry of the journal where it stands and when it was
// written. What an entry quotes has its quotation marks escaped.
func cursorOf(line []byte) (cursor string, at time.Time) {
	if us, err := strconv.ParseInt(field(line, `"__REALTIME_TIMESTAMP":"`), 10, 64); err == nil {
		at = time.UnixMicro(us)
	}
	return field(line, `"__CURSOR":"`), at
}

func field(line []byte, name string) string {
	_, rest, ok := bytes.Cut(line, []byte(name))
	if !ok {
		return ""
	}
	value, _, ok := bytes.Cut(rest[:min(len(rest), 512)], []byte{'"'})
	if !ok || bytes.IndexByte(value, '\\') >= 0 {
		return ""
	}
	return string(value)
}

// unitTypes are what the name of a unit ends in.
var unitTypes = [...]string{".service", ".socket", ".device", ".mount", ".automount", ".swap", ".target", ".path", ".timer", ".slice", ".scope"}

// unitName is a unit's full name.
func unitName(name string) string {
	for _, t := range unitTypes {
		if strings.HasSuffix(name, t) {
			return name
		}
	}
	return name + ".service"
}

// validUnit refuses what is no name, and patterns.
func validUnit(name string) bool {
	for _, c := range []byte(name) {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte(`:_.\@-`, c) >= 0) {
			return false
		}
	}
	return len(name) <= 255 && !strings.HasPrefix(name, "-") && !strings.HasPrefix(name, ".")
}
