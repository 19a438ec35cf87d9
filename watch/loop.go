package watch

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// beatEvery bounds the time between two beats.
	beatEvery = 5 * time.Second
	// lookEvery bounds how often events make one item look: a writer makes a
	// dozen of them, and what they lead to is looked at once.
	lookEvery = 10 * time.Millisecond
	// overflowEvery bounds how often a queue overflow makes everything look.
	overflowEvery = time.Second
	// maxQueue bounds the observations that wait for the reader, and
	// maxCertificates the parsed certificates in them. Beyond it nothing is looked
	// at, so nothing is concluded and nothing lost.
	maxQueue        = 256
	maxCertificates = 1024
	// maxEvents bounds the events that are taken in before anything else is done.
	maxEvents = 4096
	// maxLooks bounds how many items look in one pass.
	maxLooks = 32
	// expandShare is the part of the time that events may make globs expand, as
	// one in so many: with thousands of matches it is long work.
	expandShare = 20
)

// loop is one run of a Watcher. One goroutine owns it.
type loop struct {
	w       *Watcher
	dirs    *dirs
	sources []Source
	settled bool // what the sources stand for is known and cannot change
	items   map[string]*item
	globs   *item // stands for all globs in dirs; never looked at
	due     dueItems
	unseen  []*item // what the scan still has to look at

	queue   []Observation
	parsed  int  // certificates in queue
	stalled bool // the reader is too far behind to conclude any more

	scanAt     time.Time
	scanning   bool
	expandAt   time.Time // zero: nothing to expand
	expanded   time.Time // when the globs were expanded last
	expandTook time.Duration

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
			l.taken()
		case e, ok := <-events:
			l.take(e, ok, events)
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

// take takes in an event and those that wait behind it.
func (l *loop) take(e fsnotify.Event, ok bool, events <-chan fsnotify.Event) {
	for range maxEvents {
		if !ok {
			l.loseInotify(errors.New("the watcher has ended"))
			return
		}
		l.event(e)
		select {
		case e, ok = <-events:
		default:
			return
		}
	}
}

// wake is when the next pass has something to do.
func (l *loop) wake() time.Time {
	now := time.Now()
	at := now.Add(beatEvery)
	if l.stalled {
		return at
	}
	if len(l.unseen) > 0 {
		return now
	}
	at = earlier(at, l.scanAt)
	at = earlier(at, l.expandAt)
	if len(l.due) > 0 {
		at = earlier(at, l.due[0].due)
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

// pass does some of what is due: a bounded part, so that events do not wait.
func (l *loop) pass(ctx context.Context) {
	now := time.Now()
	if l.stalled {
		return
	}
	if !l.scanAt.After(now) {
		l.scan()
	}
	if !l.expandAt.IsZero() && !l.expandAt.After(now) {
		l.expand(now)
		l.tellTroubles(now)
	}
	ready := make([]*item, 0, maxLooks)
	for len(ready) < maxLooks/2 && len(l.due) > 0 && !l.due[0].due.After(now) {
		ready = append(ready, heap.Pop(&l.due).(*item))
	}
	n := min(maxLooks-len(ready), len(l.unseen))
	ready = append(ready, l.unseen[:n]...)
	l.unseen = l.unseen[n:]
	if l.lookAt(ctx, ready); l.scanning && len(l.unseen) == 0 {
		l.scanned()
	}
	if l.dirs.refusals && !l.scanning {
		l.tellTroubles(now)
	}
	l.w.watches.Store(int64(l.dirs.watched))
	l.w.wanted.Store(int64(len(l.dirs.nodes)))
}

// scan begins to look at everything, and watches again what is not watched any
// more. It is the authority: events get lost.
func (l *loop) scan() {
	now := time.Now()
	l.scanAt = now.Add(l.w.o.ScanEvery)
	if l.dirs.fs == nil {
		l.openInotify()
	}
	l.dirs.mend() // all items look anyway
	l.expand(now)
	l.trouble = nil
	l.unseen = slices.SortedFunc(maps.Values(l.items), func(a, b *item) int { return strings.Compare(a.name, b.name) })
	l.scanning = true
}

// scanned notes that everything was looked at.
func (l *loop) scanned() {
	now := time.Now()
	l.scanning, l.unseen = false, nil
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

// lookAt lets items look. Files are read by as many goroutines as there are
// processors; what is concluded of them comes in the order of the items.
func (l *loop) lookAt(ctx context.Context, items []*item) {
	if len(items) == 0 {
		return
	}
	now := time.Now()
	sights := make([]*sight, len(items))
	each(len(items), func() func(int) {
		r := newResolver()
		return func(i int) {
			if ctx.Err() == nil && !items[i].dropped {
				sights[i] = items[i].examine(r, now)
			}
		}
	})
	if ctx.Err() != nil {
		return
	}
	told := make([]*Observation, 0, len(items))
	for i, it := range items {
		if o := l.look(it, sights[i]); o != nil {
			told = append(told, o)
		}
	}
	each(len(told), func() func(int) { return func(i int) { told[i].remember() } })
	for _, o := range told {
		l.tell(*o)
	}
}

// look lets one item decide on what was seen.
func (l *loop) look(it *item, s *sight) *Observation {
	if it.dropped {
		return nil
	}
	now := time.Now()
	o := it.decide(s, now)
	l.schedule(it)
	switch {
	case s == nil:
		return nil
	case s.trouble != nil:
		if l.trouble == nil {
			l.trouble, l.dirs.refusals = s.trouble, true
		}
		return nil
	case o != nil && o.Kind == Removed && it.glob:
		l.drop(it)
		return o
	}
	// What happened between the look and the start of a watch gives no event.
	l.mustLook(l.dirs.follow(it, s.steps), now.Add(lookEvery))
	return o
}

// mustLook makes items due.
func (l *loop) mustLook(items []*item, at time.Time) {
	for _, it := range items {
		if it == l.globs {
			next := max(lookEvery, expandShare*l.expandTook)
			l.expandAt = earlier(later(at, l.expanded.Add(next)), l.expandAt)
			continue
		}
		it.due = earlier(at, it.due)
		l.schedule(it)
	}
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

func (l *loop) tell(o Observation) {
	l.queue = append(l.queue, o)
	l.parsed += o.parsed()
	l.stalled = l.stalled || len(l.queue) >= maxQueue || l.parsed >= maxCertificates
}

// taken takes the first observation off the queue.
func (l *loop) taken() {
	l.parsed -= l.queue[0].parsed()
	l.queue[0] = Observation{}
	l.queue = l.queue[1:]
	if len(l.queue) == 0 {
		l.queue = nil
	}
	l.stalled = l.stalled && (len(l.queue) > maxQueue/2 || l.parsed > maxCertificates/2)
}

func (l *loop) event(e fsnotify.Event) {
	now := time.Now()
	items := l.dirs.concerned(e)
	for _, it := range items {
		it.sign(now)
	}
	l.mustLook(items, now.Add(lookEvery))
}

func (l *loop) drop(it *item) {
	l.dirs.follow(it, nil)
	delete(l.items, it.name)
	it.dropped, it.due = true, time.Time{}
	l.schedule(it)
}

func (l *loop) openInotify() {
	if err := l.dirs.open(); err != nil {
		l.noInotify = newFault(NoInotify, "", "raise the limits: sysctl fs.inotify.max_user_instances, ulimit -n",
			"the system gives no file system events (%s); everything is scanned every %s", show(err.Error()), l.w.o.ScanEvery)
		return
	}
	l.noInotify = nil
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
