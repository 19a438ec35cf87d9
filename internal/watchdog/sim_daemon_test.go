package watchdog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"github.com/renewatch/renewatch/notify"
)

// simDaemon is the daemon: the keeper that runs, if one does, and what survives it.
type simDaemon struct {
	k     *Keeper
	gen   int // counts the keepers
	ctx   *simContext
	store simStore
	book  simBook
	fuse  int // boundaries until the process is killed; 0: it is not
	dead  bool
	lazy  time.Duration // how long a state that promises nothing may wait to be written

	confirms []*simProbe
	probing  map[string]*simProbe
	resolver *Resolver
	mute     bool // no look-up is answered

	loopAt   time.Duration // when the loop looks next
	stale    bool          // loopAt must be found anew
	looked   time.Duration // when the loop looked last
	awake    time.Duration // until then it looks every 10 s, as it does in truth
	flushing bool
	atOnce   int // looks without time passing
	drawn    int
}

// simContext is a context without a channel, so that nothing is started to watch it.
type simContext struct {
	context.Context
	err error
}

func (c *simContext) Deadline() (time.Time, bool) { return time.Time{}, false }
func (c *simContext) Done() <-chan struct{}       { return nil }
func (c *simContext) Err() error                  { return c.err }
func (c *simContext) Value(any) any               { return nil }

// simKill is what a kill -9 throws.
type simKill struct{ where string }

// simStore is a state directory in memory.
type simStore struct {
	w    *sim
	all  map[string][]byte
	full bool
	lost int // files that were damaged
}

var errSimFull = errors.New("no space left on device")

func (s *simStore) read(name string, v any) error {
	data, ok := s.all[name]
	if !ok {
		return fs.ErrNotExist
	}
	return json.Unmarshal(data, v)
}

func (s *simStore) write(name string, data []byte) error {
	s.w.boundary("before a write")
	if s.full {
		return errSimFull
	}
	s.all[name] = data
	if name == agentFile {
		s.w.unsaved = false
	}
	s.w.boundary("after a write")
	return nil
}

func (s *simStore) writeAll(files []file) []error {
	errs := make([]error, len(files))
	for i, f := range files {
		errs[i] = s.write(f.name, f.data)
	}
	return errs
}

func (s *simStore) list(dir string) ([]string, error) {
	var out []string
	for name := range s.all {
		if strings.HasPrefix(name, dir+"/") {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out, nil
}

func (s *simStore) putAside(name string) error {
	delete(s.all, name)
	return nil
}

// simBook is the journal, in memory, with one destination.
type simBook struct {
	w      *sim
	ids    map[string]bool
	events uint64
	newest time.Time
	full   bool

	away   bool           // NATS is
	unsent []notify.Event // and this waits
	sent   []notify.Event // the last ones that went there
}

func (b *simBook) Last() uint64 { return b.events }

func (b *simBook) Append(drafts ...notify.Draft) ([]notify.Event, error) {
	b.w.boundary("before the journal")
	if b.full {
		return nil, errSimFull
	}
	var added []notify.Event
	for _, d := range drafts {
		id := notify.EventID("h", "i", d)
		if b.ids[id] {
			continue
		}
		e, err := notify.Finish(d, "h", "i", b.events+1, d.Time)
		if err != nil {
			return nil, err
		}
		b.ids[id] = true
		b.events++
		b.newest = e.Time
		added = append(added, e)
		b.w.journaled(d, e)
	}
	b.unsent = append(b.unsent, added...)
	b.send()
	b.w.boundary("after the journal")
	return added, nil
}

// send delivers what waits, in order.
func (b *simBook) send() {
	if b.away || len(b.unsent) == 0 {
		return
	}
	for _, e := range b.unsent {
		b.w.delivered(e)
	}
	b.sent = append(b.sent, b.unsent...)
	b.sent = slices.Clone(b.sent[max(0, len(b.sent)-5):])
	b.unsent = nil
}

// forget takes the cursor back: what was delivered and not yet noted as such is
// delivered again.
func (b *simBook) forget() {
	n := b.w.rng.IntN(len(b.sent) + 1)
	b.unsent = append(slices.Clone(b.sent[len(b.sent)-n:]), b.unsent...)
	b.sent = b.sent[:len(b.sent)-n]
}

// boundary is a place where the process may be killed.
func (w *sim) boundary(where string) {
	if w.fuse == 0 {
		return
	}
	if w.fuse--; w.fuse == 0 {
		panic(simKill{where})
	}
}

func (w *sim) up() bool { return w.k != nil }

// draw is the keeper's chance.
func (w *sim) draw() float64 {
	if w.drawn++; w.drawn > 100_000 {
		panic(fmt.Sprintf("Step was called %d times without time passing", w.drawn))
	}
	return w.rng.Float64()
}

// inKeeper runs something in the keeper's loop. A kill ends the keeper.
func (w *sim) inKeeper(f func()) {
	if w.k == nil {
		return
	}
	w.guard(func() {
		f()
		for len(w.k.rounds)+len(w.k.runs) > 0 {
			w.k.together(w.k.rest)
			select {
			case r := <-w.k.runs:
				w.k.runDone(r)
			default:
			}
		}
	})
	w.stale = true
	if w.k != nil && len(w.k.dirty) > 0 && !w.flushing {
		w.flushing = true
		gen := w.gen
		w.after(w.lazy, func() { w.flushDirty(gen) })
	}
}

func (w *sim) guard(f func()) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case simKill:
			w.log("KILLED %s", r.where)
			w.killed()
		default:
			w.fail("panic: %v\n%s", r, debug.Stack())
			w.k = nil
		}
	}()
	f()
}

// flushDirty writes the states that promise nothing, in an order that a replay
// repeats.
func (w *sim) flushDirty(gen int) {
	if gen != w.gen || w.k == nil {
		return
	}
	w.flushing = false
	k := w.k
	w.guard(func() {
		left := k.dirty
		for _, name := range sortedKeys(left) {
			k.dirty = map[string]*cert{name: left[name]}
			k.writeDirty(time.Hour)
			if len(k.dirty) == 0 {
				delete(left, name)
			}
		}
		k.dirty = left
	})
	w.inKeeper(func() {})
}

// start starts a keeper on what the one before left.
func (w *sim) start() {
	w.gen++
	w.ctx = &simContext{}
	w.confirms, w.probing = nil, map[string]*simProbe{}
	w.flushing, w.stale = false, true
	w.resolver = &Resolver{}
	w.setMute(w.mute)
	o := Options{StateDir: "/nonexistent/sim", Host: "h", Instance: "i", Version: "sim", Journal: &w.book, Resolver: w.resolver,
		BuildTime: simTime(-30 * simDay), Newest: w.book.newest, Clock: w, Draw: w.draw, Silences: w.silences(), Log: zerolog.Nop()}
	if w.locks {
		o.Client = func(context.Context, string) bool { panic("not asked for in here") }
	}
	if w.badPairs {
		o.Pairs = w.loads
	}
	w.guard(func() {
		k, err := newKeeper(o, w.setup(), &w.store)
		if err != nil {
			w.log("the daemon does not start: %v", err)
			return
		}
		k.hands = w
		k.rounds, k.runs = make(chan roundDone, 256), make(chan runDone, 256)
		k.dirtyAt = w.Now().Add(100 * simYear) // see flushDirty
		w.k = k
		if err := k.begin(w.ctx); err != nil {
			w.log("the daemon does not start: %v", err)
			w.k = nil
		}
	})
	if w.k == nil {
		if !w.dead { // else it was killed, and is started again
			w.dead = true
			w.startIn(w.span(time.Second, time.Minute))
		}
		return
	}
	w.dead = false
	w.looked, w.awake = w.t, w.t+3*time.Minute
	w.log("the daemon starts")
	w.started()
	w.inKeeper(func() {})
	w.watcherStarts()
	w.logsAnew()
}

func (w *sim) startIn(d time.Duration) {
	gen := w.gen
	w.after(d, func() {
		if gen == w.gen && w.k == nil {
			w.start()
		}
	})
}

// killed takes in that the process has ended: what it did is cut off.
func (w *sim) killed() {
	w.k, w.fuse = nil, 0
	w.gen++
	w.dead = true
	w.confirms, w.probing = nil, nil
	w.cutReloads()
	w.book.forget()
	w.stopped()
	down := w.span(time.Second, time.Minute)
	if w.chance(0.1) && !w.calm {
		down = w.span(time.Minute, 4*simDay)
	}
	if w.moody[simTorn] > 0 && w.chance(0.05) && !w.calm {
		w.tear()
	}
	w.startIn(down)
}

// tear damages a file of the state directory.
func (w *sim) tear() {
	names := sortedKeys(w.store.all)
	if len(names) == 0 {
		return
	}
	name := simPick(w, names...)
	data := w.store.all[name]
	w.log("%s is torn", name)
	w.store.all[name] = slices.Clone(data[:w.rng.IntN(len(data))])
	w.store.lost++
	w.torn(name)
}

// stop ends the daemon as SIGTERM does.
func (w *sim) stop() {
	if w.k == nil {
		return
	}
	k := w.k
	w.log("the daemon is told to stop")
	w.ctx.err = context.Canceled
	w.finishReloads()
	if w.k == nil {
		return
	}
	w.guard(func() {
		left := k.dirty
		for _, name := range sortedKeys(left) {
			k.dirty = map[string]*cert{name: left[name]}
			k.writeDirty(lastWrites)
		}
		_ = k.agent.stopped()
	})
	if w.k == nil {
		return // killed meanwhile
	}
	w.k = nil
	w.gen++
	w.dead = true
	w.confirms, w.probing = nil, nil
	w.stopped()
	w.startIn(w.span(time.Second, time.Hour))
}

// loop says when the daemon's loop looks next by itself. Where it would only
// beat, nobody looks; see refresh.
func (w *sim) loop() time.Duration {
	if !w.stale {
		return w.loopAt
	}
	w.stale = false
	k := w.k
	beat := k.lookedAt
	k.lookedAt = w.Now().Add(1000 * simHour)
	w.loopAt = w.t + k.pause()
	k.lookedAt = beat
	if !k.pairsRead && (k.o.Pairs != nil || w.copies) {
		w.loopAt = min(w.loopAt, w.t+max(0, k.pairsAt.Sub(w.Now())))
	}
	a := k.agent
	switch {
	case w.t < w.awake:
		w.loopAt = min(w.loopAt, max(w.t, w.looked+BeatEvery))
	case !a.settled || len(a.s.Troubles) > 0 || a.s.Alert != nil || len(a.s.Pairs) > 0 || len(a.s.Outbox) > 0:
		w.loopAt = min(w.loopAt, max(w.t, w.looked+30*time.Second))
	}
	return w.loopAt
}

// refresh makes up for the looks of the loop that would have found nothing.
func (w *sim) refresh() {
	if w.k == nil || w.k.clocks.boot == 0 {
		return
	}
	if last := w.Boot() - BeatEvery; w.k.clocks.boot < last {
		w.k.clocks.boot = last
	}
}

// run lets the world go on until the true time end.
func (w *sim) run(end time.Duration) {
	for w.err == nil && len(w.queue.all) > 0 {
		at, loop := w.queue.all[0].at, false
		if w.k != nil {
			if l := w.loop(); l <= at {
				at, loop = l, true
			}
		}
		if at > end {
			w.t = max(w.t, end)
			return
		}
		if at > w.t {
			w.t, w.atOnce, w.drawn = at, 0, 0
		}
		if w.atOnce++; w.atOnce > 5000 {
			w.fail("the loop goes on and on without time passing")
		}
		if !loop {
			w.queue.pop().do()
			continue
		}
		w.refresh()
		w.looked = w.t
		w.inKeeper(w.k.due)
	}
}

// suspend is the host's sleep.
func (w *sim) suspend(d time.Duration) {
	w.refresh()
	w.t += d
	w.asleep += d
	w.stale, w.awake = true, w.t+3*time.Minute
	w.log("the host slept for %s", d)
	w.excuse("suspend")
}

// turn moves the wall clock.
func (w *sim) turn(d time.Duration) {
	w.refresh()
	w.offset += d
	w.stale, w.awake = true, w.t+3*time.Minute
	w.log("the clock is moved by %s", d)
	w.turned = append(w.turned, w.t)
	w.excuse("clock")
}

// reconfigure is what SIGHUP does.
func (w *sim) reconfigure() {
	w.excuse("configuration")
	w.inKeeper(func() {
		w.k.configure(w.setup())
		for _, name := range sortedKeys(w.k.certs) {
			w.k.apply(w.k.certs[name], Input{Look: true})
		}
	})
}

func (w *sim) setMute(mute bool) {
	w.mute = mute
	if w.resolver == nil {
		return
	}
	w.resolver.failed = 0
	if mute {
		w.resolver.failed, w.resolver.since, w.resolver.last = deadAfter, time.Unix(0, 0), "no answer"
	}
}
