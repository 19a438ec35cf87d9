package watch

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// beatEvery bounds the time between two beats.
	beatEvery = 5 * time.Second
	// lookEvery bounds how often events make one item look.
	lookEvery = 10 * time.Millisecond
	// overflowEvery bounds how often a queue overflow makes everything look.
	overflowEvery = time.Second
	// maxQueue bounds the observations that wait for the reader. Beyond it
	// nothing is looked at, so nothing is concluded and nothing lost.
	maxQueue = 256
	// beatLooks is after how many looks of one pass there is a beat.
	beatLooks = 64
)

// loop is one run of a Watcher. One goroutine owns it.
type loop struct {
	w        *Watcher
	dirs     *dirs
	sources  []Source
	items    map[string]*item
	globs    *item // stands for all globs in dirs; never looked at
	due      map[*item]struct{}
	queue    []Observation
	stalled  bool // the reader is too far behind to conclude any more
	scanAt   time.Time
	scanning bool      // a scan was held up by the reader, the rest of it is due
	expandAt time.Time // zero: nothing to expand

	noInotify  *Fault
	globFaults []*Fault
	trouble    error               // the last look failed for a reason of this process
	blind      map[FaultCode]Fault // what was told
}

func newLoop(w *Watcher) *loop {
	return &loop{
		w:     w,
		dirs:  newDirs(),
		items: make(map[string]*item),
		globs: &item{},
		due:   make(map[*item]struct{}),
		blind: make(map[FaultCode]Fault),
	}
}

func (l *loop) run(ctx context.Context, out chan<- Observation) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	l.openInotify()
	l.takeSources()
	l.scanAt = time.Now()
	for ctx.Err() == nil {
		l.w.o.Beat()
		l.pass(ctx)
		timer.Reset(time.Until(l.wake()))

		var events <-chan fsnotify.Event
		var errs <-chan error
		if l.dirs.fs != nil {
			events, errs = l.dirs.fs.Events, l.dirs.fs.Errors
		}
		var to chan<- Observation
		var first Observation
		if len(l.queue) > 0 {
			to, first = out, l.queue[0]
		}
		select {
		case <-ctx.Done():
		case <-timer.C:
		case to <- first:
			l.queue[0] = Observation{}
			l.queue = l.queue[1:]
			l.stalled = l.stalled && len(l.queue) > maxQueue/2
		case e, ok := <-events:
			if !ok {
				l.loseInotify(errors.New("the watcher has ended"))
				break
			}
			l.event(e)
		case err, ok := <-errs:
			switch {
			case !ok:
				l.loseInotify(errors.New("the watcher has ended"))
			case errors.Is(err, fsnotify.ErrEventOverflow):
				l.scanSoon()
			default:
				l.loseInotify(err)
			}
		case <-l.w.set:
			l.takeSources()
			l.expandAt = time.Now()
		case <-l.w.scan:
			l.scanAt = time.Now()
		}
	}
}

// wake is when the next pass has something to do.
func (l *loop) wake() time.Time {
	at := time.Now().Add(beatEvery)
	if l.stalled {
		return at
	}
	at = earlier(at, l.scanAt)
	at = earlier(at, l.expandAt)
	for it := range l.due {
		at = earlier(at, it.due)
	}
	return at
}

// earlier returns the earlier time; a zero b is none.
func earlier(a, b time.Time) time.Time {
	if b.IsZero() || a.Before(b) {
		return a
	}
	return b
}

// pass does what is due.
func (l *loop) pass(ctx context.Context) {
	now := time.Now()
	if l.stalled {
		return
	}
	if !l.scanAt.After(now) {
		l.scan(ctx)
	}
	if !l.expandAt.IsZero() && !l.expandAt.After(now) {
		l.expand(newResolver(), now)
		l.tellTroubles(now)
	}
	var ready []*item
	for it := range l.due {
		if !it.due.After(now) {
			ready = append(ready, it)
		}
	}
	if (len(ready) == 0 || l.lookAt(ctx, newResolver(), ready)) && l.scanning {
		l.scanned()
	}
	if l.dirs.refusals {
		l.tellTroubles(now)
	}
}

// scan looks at everything and watches again what is not watched any more. It is
// the authority: events get lost.
func (l *loop) scan(ctx context.Context) {
	now := time.Now()
	l.scanAt = now.Add(l.w.o.ScanEvery)
	if l.dirs.fs == nil {
		l.openInotify()
	}
	l.mustLook(l.dirs.mend(), now)
	r := newResolver()
	l.expand(r, now)
	l.trouble = nil
	l.scanning = !l.lookAt(ctx, r, slices.Collect(maps.Values(l.items)))
	if !l.scanning {
		l.scanned()
	}
}

// scanned notes that everything was looked at.
func (l *loop) scanned() {
	now := time.Now()
	l.scanning = false
	l.w.scanned.Store(&now)
	l.tellTroubles(now)
}

// scanSoon makes a full scan due, though not all the time.
func (l *loop) scanSoon() {
	at := time.Now()
	if last := l.w.LastScan(); !last.IsZero() && last.Add(overflowEvery).After(at) {
		at = last.Add(overflowEvery)
	}
	l.scanAt = earlier(l.scanAt, at)
}

// lookAt lets items look, by name. It reports whether all could.
func (l *loop) lookAt(ctx context.Context, r *resolver, items []*item) bool {
	slices.SortFunc(items, func(a, b *item) int {
		if a.name < b.name {
			return -1
		}
		return 1
	})
	for n, it := range items {
		if n%beatLooks == beatLooks-1 {
			l.w.o.Beat()
		}
		if l.stalled || ctx.Err() != nil {
			l.mustLook(items[n:], time.Now())
			return false
		}
		l.look(r, it)
	}
	return true
}

func (l *loop) look(r *resolver, it *item) {
	now := time.Now()
	o, err := it.look(r, now)
	if err != nil && l.trouble == nil {
		l.trouble, l.dirs.refusals = err, true
	}
	if it.due.IsZero() {
		delete(l.due, it)
	} else {
		l.due[it] = struct{}{}
	}
	if o != nil {
		l.tell(*o)
		if o.Kind == Removed && it.glob {
			l.drop(it)
			return
		}
	}
	// What happened between the look and the start of a watch gives no event.
	if it.last != nil && err == nil {
		l.mustLook(l.dirs.follow(it, it.last.steps), now)
	}
}

// mustLook makes items due, though none more often than every lookEvery.
func (l *loop) mustLook(items []*item, now time.Time) {
	for _, it := range items {
		if it == l.globs {
			l.expandAt = earlier(now.Add(lookEvery), l.expandAt)
			continue
		}
		at := now
		if next := it.looked.Add(lookEvery); next.After(at) {
			at = next
		}
		it.due = earlier(at, it.due)
		l.due[it] = struct{}{}
	}
}

func (l *loop) tell(o Observation) {
	l.queue = append(l.queue, o)
	l.stalled = l.stalled || len(l.queue) >= maxQueue
}

func (l *loop) event(e fsnotify.Event) {
	now := time.Now()
	items := l.dirs.concerned(e)
	for _, it := range items {
		it.sign(now)
	}
	l.mustLook(items, now)
}

func (l *loop) drop(it *item) {
	l.dirs.follow(it, nil)
	delete(l.items, it.name)
	delete(l.due, it)
}

func (l *loop) takeSources() { l.sources = l.w.currentSources() }

// expand finds out which certificates the sources stand for now.
func (l *loop) expand(r *resolver, now time.Time) {
	l.expandAt = time.Time{}
	claims, steps := l.claims(r)
	for name, cs := range claims {
		c := cs[0]
		if len(cs) > 1 {
			c = claim{src: c.src, glob: c.glob, clash: clashFault(name, cs)}
		}
		it := l.items[name]
		if it == nil {
			it = &item{name: name, settler: settler{settle: l.w.o.Settle, patience: l.w.o.Patience}}
			l.items[name] = it
		} else if it.cert == c.cert && it.key == c.key && sameFault(it.clash, c.clash) {
			it.src, it.glob = c.src, c.glob
			continue
		}
		it.claim, it.last, it.found = c, nil, ""
		it.sign(now)
		l.mustLook([]*item{it}, now)
	}
	for name, it := range l.items {
		if claims[name] != nil {
			continue
		}
		if it.glob && it.clash == nil && slices.Contains(l.sources, it.src) {
			// Its file is gone. Whether the certificate is too, a look will tell.
			l.mustLook([]*item{it}, now)
			continue
		}
		l.drop(it)
	}
	l.mustLook(l.dirs.follow(l.globs, steps), now)
}

func sameFault(a, b *Fault) bool { return a == b || a != nil && b != nil && *a == *b }

// claims lists what the sources ask for, by name, and the names that decide what
// the globs match.
func (l *loop) claims(r *resolver) (map[string][]claim, []step) {
	claims := make(map[string][]claim)
	var steps []step
	taken := make(map[string]bool)
	var globs []Source
	l.globFaults = nil
	add := func(name string, c claim) {
		if f := nameFault(name, c.cert); f != nil {
			l.globFaults = append(l.globFaults, f)
			return
		}
		taken[filepath.Clean(c.cert)] = true
		for _, other := range claims[name] {
			if other.cert == c.cert && other.key == c.key {
				return
			}
		}
		claims[name] = append(claims[name], c)
	}
	for _, s := range l.sources {
		if s.Name == "" && IsGlob(s.Cert) {
			globs = append(globs, s)
			continue
		}
		name := s.Name
		if name == "" {
			name = NameOf(s.Cert)
		}
		add(name, claim{src: s, cert: s.Cert, key: s.Key})
	}
	left := maxMatches
	for _, s := range globs {
		matches, more, fault := r.expand(s.Cert, left)
		steps = append(steps, more...)
		left -= len(matches)
		if fault != nil {
			l.globFaults = append(l.globFaults, fault)
		}
		for _, path := range matches {
			// What is listed by itself, or matched twice, is one certificate.
			if !taken[filepath.Clean(path)] {
				add(NameOf(path), claim{src: s, cert: path, key: s.Key, glob: true})
			}
		}
	}
	return claims, steps
}

func (l *loop) openInotify() {
	fs, err := fsnotify.NewWatcher()
	if err != nil {
		l.noInotify = newFault(NoInotify, "", "raise the limits: sysctl fs.inotify.max_user_instances, ulimit -n",
			"the system gives no file system events (%s); everything is scanned every %s", show(err.Error()), l.w.o.ScanEvery)
		return
	}
	l.dirs.fs, l.noInotify = fs, nil
}

func (l *loop) loseInotify(err error) {
	l.dirs.lose()
	l.noInotify = newFault(NoInotify, "", "this heals by itself once the system gives events again",
		"file system events have ended (%s); everything is scanned every %s", show(err.Error()), l.w.o.ScanEvery)
	l.scanSoon()
	l.tellTroubles(time.Now())
}

// tellTroubles says what the watcher does not see, and what it sees again.
func (l *loop) tellTroubles(now time.Time) {
	l.dirs.refusals = false
	present := make(map[FaultCode]Fault)
	more := make(map[FaultCode]int)
	add := func(f *Fault) {
		if _, there := present[f.Code]; there {
			more[f.Code]++
			return
		}
		present[f.Code] = *f
	}
	if l.noInotify != nil {
		add(l.noInotify)
	}
	for _, f := range l.dirs.troubles() {
		add(f)
	}
	for _, f := range l.globFaults {
		add(f)
	}
	if l.trouble != nil {
		add(newFault(OutOfDescriptors, "", "raise the limit of open files (LimitNOFILE=, sysctl fs.file-max)",
			"certificate files cannot be opened for now: %s", show(l.trouble.Error())))
	}
	for code, n := range more {
		f := present[code]
		f.Sentence += fmt.Sprintf(" (and %d more like this)", n)
		present[code] = f
	}
	for _, code := range slices.Sorted(maps.Keys(l.blind)) {
		if _, still := present[code]; !still {
			f := l.blind[code]
			l.tell(Observation{Kind: Sighted, Time: now, Since: now, Fault: &f})
			delete(l.blind, code)
		}
	}
	for _, code := range slices.Sorted(maps.Keys(present)) {
		f := present[code]
		if told, there := l.blind[code]; !there || told.Sentence != f.Sentence {
			l.tell(Observation{Kind: Blind, Time: now, Since: now, Fault: &f})
			l.blind[code] = f
		}
	}
}
