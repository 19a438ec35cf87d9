package watch

import (
	"context"
	"errors"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// maxOutbox bounds what waits to be delivered; beyond it nothing is read.
	maxOutbox = 512
	// deliverAgain and its double and so on are the pauses after a delivery that
	// failed, up to maxDeliverAgain.
	deliverAgain    = time.Second
	maxDeliverAgain = time.Minute
	// listenEvery is how often an attempt that goes on is told what time it is,
	// for the first minute after the log's last line; then it is every Poll, at most a
	// minute.
	listenEvery = 5 * time.Second
	sweepEvery  = 24 * time.Hour
)

// follower is one run of Logs. One goroutine owns it.
type follower struct {
	f     *Logs
	dirs  *dirs
	tails map[Log]*tail
	items map[*item]*tail
	units map[Log]*unit
	// due has the logs that must be looked at, and when.
	due     map[*tail]time.Time
	touched map[*tail]bool // their position may have moved
	buf     []byte

	outbox   []Heard
	failures int
	retryAt  time.Time
	pollAt   time.Time
	listenAt time.Time // zero: no attempt goes on
	heardAt  time.Time // when a log was written to last
	sweepAt  time.Time

	entries chan *entries
	unheard map[Log]*Fault // what has no dialect, as told
	blind   map[FaultCode]*Fault
	unkept  map[Log]*Fault
	deaf    *Fault // no inotify
}

func newFollower(f *Logs) *follower {
	return &follower{
		f: f, dirs: newDirs(),
		tails: make(map[Log]*tail), items: make(map[*item]*tail), units: make(map[Log]*unit),
		due: make(map[*tail]time.Time), touched: make(map[*tail]bool), buf: make([]byte, readSize),
		entries: make(chan *entries), unheard: make(map[Log]*Fault), blind: make(map[FaultCode]*Fault), unkept: make(map[Log]*Fault),
	}
}

func (w *follower) run(ctx context.Context) {
	defer w.close()
	timer := time.NewTimer(0)
	defer timer.Stop()
	w.openInotify()
	w.take(ctx)
	w.pollAt = time.Now()
	for ctx.Err() == nil {
		if w.f.o.Beat != nil {
			w.f.o.Beat()
		}
		w.pass(ctx)
		if ctx.Err() != nil {
			return
		}
		timer.Reset(time.Until(w.wakeAt()))
		var events <-chan fsnotify.Event
		var errs <-chan error
		if w.dirs.fs != nil {
			events, errs = w.dirs.fs.Events, w.dirs.fs.Errors
		}
		var entries <-chan *entries
		if w.deliverable() {
			entries = w.entries
		}
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-w.f.wake:
			w.take(ctx)
		case e := <-entries:
			w.entered(e)
		case e, ok := <-events:
			w.takeEvents(e, ok, events)
		case err, ok := <-errs:
			switch {
			case !ok:
				w.loseInotify(errors.New("the watcher has ended"))
			case errors.Is(err, fsnotify.ErrEventOverflow):
				w.pollAt = time.Now()
			default:
				w.loseInotify(err)
			}
		}
	}
}

// close ends everything, and keeps how far it came.
func (w *follower) close() {
	for _, u := range w.units {
		u.stop()
	}
	if w.deliverable() {
		for t := range w.touched {
			_ = t.save()
		}
		for _, u := range w.units {
			_ = u.save()
		}
	}
	for _, t := range w.tails {
		t.closeSources()
	}
	w.dirs.lose()
}

// take takes over the logs, and the ends of runs.
func (w *follower) take(ctx context.Context) {
	logs, ended := w.f.current()
	now := time.Now()
	wanted := make(map[Log]bool, len(logs))
	for _, l := range logs {
		wanted[l] = true
	}
	for l, t := range w.tails {
		if !wanted[l] {
			w.drop(t)
		}
	}
	for l, u := range w.units {
		if !wanted[l] {
			u.stop()
			if w.deliverable() {
				_ = u.save()
			}
			u.kept.leave(w.f.o.Dir, now)
			delete(w.units, l)
			w.forget(l, u.blind)
		}
	}
	for l, told := range w.unheard {
		if !wanted[l] {
			w.tellBlind(l, told, nil)
			delete(w.unheard, l)
		}
	}
	for _, l := range logs {
		if w.tails[l] != nil || w.units[l] != nil || w.unheard[l] != nil {
			continue
		}
		if f := w.refuse(l); f != nil {
			w.unheard[l] = w.tellBlind(l, nil, f)
			continue
		}
		if l.Unit != "" {
			w.units[l] = newUnit(ctx, w, l)
			continue
		}
		t := newTail(w, l)
		w.tails[l], w.items[t.item] = t, t
		w.mustLook(t, now)
	}
	for _, e := range ended {
		for l, u := range w.units {
			if l.Unit == e.unit {
				u.ended(e.exit)
			}
		}
	}
	if !w.sweepAt.After(now) {
		w.sweepAt = now.Add(sweepEvery)
		sweep(w.f.o.Dir, wanted, now)
	}
}

// refuse says why a log cannot be followed.
func (w *follower) refuse(l Log) *Fault {
	switch {
	case (l.File == "") == (l.Unit == ""):
		return newFault(NoDialect, l.File, "name either a file or a unit", "a log of %s is neither one file nor one unit", show(string(l.Client)))
	case l.File != "" && !filepath.IsAbs(l.File):
		return newFault(NoDialect, l.File, "name it by its absolute path", "%s is not an absolute path", show(l.File))
	case l.Unit != "" && !validUnit(l.Unit):
		return newFault(NoDialect, "", "name one unit, such as certbot.service", "%s is not the name of a unit", show(l.Unit))
	case w.f.listen(l) == nil:
		return newFault(NoDialect, l.File, "see the list of clients whose logs are understood", "the logs of %s are not understood", show(string(l.Client)))
	}
	return nil
}

// drop follows a log no longer.
func (w *follower) drop(t *tail) {
	if w.deliverable() {
		_ = t.save()
	}
	w.dirs.follow(t.item, nil)
	t.closeSources()
	t.kept.leave(w.f.o.Dir, time.Now())
	delete(w.tails, t.log)
	delete(w.items, t.item)
	delete(w.due, t)
	delete(w.touched, t)
	w.forget(t.log, t.blind)
}

// forget leaves nothing of a log that is no longer followed but the end of what
// was told to be wrong with it. What was not delivered is read again when it is
// followed again.
func (w *follower) forget(l Log, blind *Fault) {
	w.outbox = slices.DeleteFunc(w.outbox, func(h Heard) bool { return h.Log == l })
	w.tellBlind(l, blind, nil)
	w.tellBlind(l, w.unkept[l], nil)
	delete(w.unkept, l)
}

// pass does what is due.
func (w *follower) pass(ctx context.Context) {
	now := time.Now()
	w.deliver(ctx)
	if !w.pollAt.After(now) {
		w.poll(now)
	}
	for t, at := range w.due {
		if !w.deliverable() || ctx.Err() != nil {
			break
		}
		if at.After(now) {
			continue
		}
		delete(w.due, t)
		t.look()
		if !t.again.IsZero() {
			w.mustLook(t, t.again)
		}
		w.deliver(ctx)
	}
	if w.dirs.refusals {
		w.tellTroubles()
	}
	if w.deliverable() {
		w.listen(now)
		for _, u := range w.units {
			u.exitsDue(now)
		}
	}
	w.deliver(ctx)
}

// poll makes everything due.
func (w *follower) poll(now time.Time) {
	w.pollAt = now.Add(w.f.o.Poll)
	if w.dirs.fs == nil {
		w.openInotify()
	}
	w.dirs.mend()
	for _, t := range w.tails {
		w.mustLook(t, now)
	}
	if w.deliverable() {
		for t := range w.touched {
			_ = t.save()
			if len(t.past) == 0 {
				delete(w.touched, t)
			}
		}
		for _, u := range w.units {
			_ = u.save()
		}
	}
	w.tellTroubles()
	if !w.sweepAt.After(now) {
		w.sweepAt = now.Add(sweepEvery)
		logs, _ := w.followed()
		sweep(w.f.o.Dir, logs, now)
	}
}

// followed is what is followed now.
func (w *follower) followed() (logs map[Log]bool, n int) {
	logs = make(map[Log]bool)
	for l := range w.tails {
		logs[l] = true
	}
	for l := range w.units {
		logs[l] = true
	}
	return logs, len(logs)
}

// listen tells attempts that go on what time it is.
func (w *follower) listen(now time.Time) {
	goesOn := false
	visit := func(h *hearing) {
		if w.listenAt.IsZero() || !w.listenAt.After(now) {
			w.tell(h.stall(w.now()))
		}
		goesOn = goesOn || h.listening()
	}
	for _, t := range w.tails {
		visit(t.h)
	}
	for _, u := range w.units {
		visit(u.h)
	}
	switch {
	case !goesOn:
		w.listenAt = time.Time{}
	case w.listenAt.IsZero() || !w.listenAt.After(now):
		every := min(listenEvery, w.f.o.Poll)
		if now.Sub(w.heardAt) > time.Minute {
			every = min(w.f.o.Poll, time.Minute)
		}
		w.listenAt = now.Add(every)
	}
}

// wakeAt is when there is something to do.
func (w *follower) wakeAt() time.Time {
	at := w.pollAt
	if w.f.o.Beat != nil {
		at = earlier(at, time.Now().Add(beatEvery))
	}
	if !w.deliverable() {
		if w.retryAt.IsZero() {
			return time.Now()
		}
		return earlier(at, w.retryAt)
	}
	at = earlier(at, w.listenAt)
	for _, due := range w.due {
		at = earlier(at, due)
	}
	for _, u := range w.units {
		at = earlier(at, u.exitAt)
	}
	return at
}

func (w *follower) mustLook(t *tail, at time.Time) { w.due[t] = earlier(at, w.due[t]) }

func (w *follower) now() time.Time { return w.f.o.Now() }

func (w *follower) tell(heard []Heard) { w.outbox = append(w.outbox, heard...) }

// touch notes that a log's position may have moved.
func (w *follower) touch(t *tail) {
	w.touched[t] = true
	w.heardAt = time.Now()
}

// deliverable reports whether everything was delivered.
func (w *follower) deliverable() bool { return len(w.outbox) == 0 }

// deliver tells what was heard, and then keeps how far was read.
func (w *follower) deliver(ctx context.Context) {
	now := time.Now()
	if w.deliverable() || w.retryAt.After(now) || ctx.Err() != nil {
		return
	}
	if err := w.f.o.Deliver(ctx, slices.Clone(w.outbox)); err != nil {
		w.retryAt = time.Now().Add(min(deliverAgain<<min(w.failures, 10), maxDeliverAgain))
		w.failures++
		return
	}
	told := make(map[Log]bool)
	for _, h := range w.outbox {
		told[h.Log] = true
	}
	w.outbox, w.failures, w.retryAt = nil, 0, time.Time{}
	for l := range told {
		if t := w.tails[l]; t != nil {
			_ = t.save()
			if len(t.past) == 0 {
				delete(w.touched, t)
			}
		}
		if u := w.units[l]; u != nil {
			_ = u.save()
		}
	}
}

// takeEvents takes in an event and those that wait behind it.
func (w *follower) takeEvents(e fsnotify.Event, ok bool, events <-chan fsnotify.Event) {
	now := time.Now()
	for range maxEvents {
		if !ok {
			w.loseInotify(errors.New("the watcher has ended"))
			return
		}
		w.event(e, now)
		select {
		case e, ok = <-events:
		default:
			return
		}
	}
}

// event makes the logs due that it is about: also those that were rotated to the
// file that it names.
func (w *follower) event(e fsnotify.Event, now time.Time) {
	sign := func(it *item) {
		t := w.items[it]
		if t == nil {
			return
		}
		if t.signed.IsZero() {
			t.signed = now
		}
		w.mustLook(t, now.Add(lookEvery))
	}
	for _, it := range w.dirs.concerned(e) {
		sign(it)
	}
	if e.Op == fsnotify.Chmod {
		return
	}
	path := filepath.Clean(e.Name)
	if n := w.dirs.nodes[filepath.Dir(path)]; n != nil {
		base := filepath.Base(path)
		for _, u := range n.uses {
			if strings.HasPrefix(base, u.name) && base != u.name {
				sign(u.it)
			}
		}
	}
}

func (w *follower) openInotify() {
	w.deaf = nil
	if err := w.dirs.open(); err != nil {
		w.dirs.fs = nil
		w.deaf = newFault(NoInotify, "", "raise the limits: sysctl fs.inotify.max_user_instances, ulimit -n",
			"the system gives no file system events (%s); logs are looked at every %s", show(err.Error()), w.f.o.Poll)
	}
}

func (w *follower) loseInotify(err error) {
	w.dirs.lose()
	w.deaf = newFault(NoInotify, "", "this heals by itself once the system gives events again",
		"file system events have ended (%s); logs are looked at every %s", show(err.Error()), w.f.o.Poll)
	w.pollAt = time.Now()
}

// tellTroubles tells what concerns all logs.
func (w *follower) tellTroubles() {
	w.dirs.refusals = false
	present := make(map[FaultCode]*Fault)
	if w.deaf != nil {
		present[w.deaf.Code] = w.deaf
	}
	for _, f := range w.dirs.troubles() {
		present[f.Code] = f
	}
	codes := slices.Concat(slices.Collect(maps.Keys(w.blind)), slices.Collect(maps.Keys(present)))
	slices.Sort(codes)
	for _, code := range slices.Compact(codes) {
		if f := w.tellBlind(Log{}, w.blind[code], present[code]); f != nil {
			w.blind[code] = f
		} else {
			delete(w.blind, code)
		}
	}
}

// tellBlind tells what is not seen any more and what is seen again. told is what
// was told before; it returns what is told now.
func (w *follower) tellBlind(l Log, told, f *Fault) *Fault {
	if told != nil && f != nil && told.Code == f.Code && told.Sentence == f.Sentence {
		return told
	}
	if told != nil {
		w.tell([]Heard{{Log: l, Kind: Sighted, Fault: told, Time: w.now()}})
	}
	if f != nil {
		w.tell([]Heard{{Log: l, Kind: Blind, Fault: f, Time: w.now()}})
	}
	return f
}

// keeping tells that a position cannot be written down, and that it can again.
func (w *follower) keeping(l Log, err error) {
	var f *Fault
	if err != nil {
		var errno syscall.Errno
		if errors.As(err, &errno) {
			err = errno // the rest names a temporary file
		}
		f = newFault(NotKept, w.f.o.Dir, "see that the directory is there, may be written to and has room",
			"how far the log %s was read cannot be written down: %s", show(l.String()), show(err.Error()))
	}
	if f = w.tellBlind(l, w.unkept[l], f); f != nil {
		w.unkept[l] = f
	} else {
		delete(w.unkept, l)
	}
}

// leave notes since when nobody follows the log any more.
func (p *position) leave(dir string, now time.Time) {
	p.Left = now
	_ = p.save(dir)
}
