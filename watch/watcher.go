package watch

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Options for a Watcher. The zero value is good.
type Options struct {
	// Settle is how long files must stay the same before they are judged.
	// Default and zero: 2 s.
	Settle time.Duration
	// Patience is after how long files are judged that never stay the same.
	// Default and zero: 30 s; never under Settle.
	Patience time.Duration
	// ScanEvery is how often everything is looked at whether or not there were
	// events. Default and zero: 1 min.
	ScanEvery time.Duration
	// Beat is called by the running loop, at least every 5 s and during long
	// scans too, so that a supervisor can see that it is alive. It must not
	// block. Nil: nothing is called.
	Beat func()
}

const (
	defaultSettle    = 2 * time.Second
	defaultPatience  = 30 * time.Second
	defaultScanEvery = time.Minute
)

// Watcher watches the files of any number of certificates. Its methods may be
// called at the same time.
type Watcher struct {
	o       Options
	running atomic.Bool
	scanned atomic.Pointer[time.Time]
	watches atomic.Int64
	wanted  atomic.Int64
	set     chan struct{} // the sources are others now
	scan    chan struct{} // a scan is wanted

	mu      sync.Mutex
	sources []Source
}

// New returns a Watcher without sources; nothing is watched before Run.
func New(o Options) *Watcher {
	if o.Settle <= 0 {
		o.Settle = defaultSettle
	}
	if o.Patience <= 0 {
		o.Patience = defaultPatience
	}
	o.Patience = max(o.Patience, o.Settle)
	if o.ScanEvery <= 0 {
		o.ScanEvery = defaultScanEvery
	}
	if o.Beat == nil {
		o.Beat = func() {}
	}
	return &Watcher{o: o, set: make(chan struct{}, 1), scan: make(chan struct{}, 1)}
}

// Set replaces the sources, before Run or while it runs. A certificate that was
// watched under the same name goes on with what is known of it; one that is no
// longer asked for is dropped without an observation.
func (w *Watcher) Set(sources []Source) {
	w.mu.Lock()
	w.sources = slices.Clone(sources)
	w.mu.Unlock()
	signal(w.set)
}

// Scan makes the running Watcher look at everything now.
func (w *Watcher) Scan() { signal(w.scan) }

// LastScan returns when everything was last looked at; zero before the first
// full scan has ended.
func (w *Watcher) LastScan() time.Time {
	if t := w.scanned.Load(); t != nil {
		return *t
	}
	return time.Time{}
}

// Watches returns how many directories are watched, each by one of the inotify
// watches that the system bounds (fs.inotify.max_user_watches), and how many
// would be if the system let us: the rest is only scanned.
func (w *Watcher) Watches() (watched, wanted int) {
	return int(w.watches.Load()), int(w.wanted.Load())
}

// Run watches until ctx ends, and returns nil then; nothing of it is running any
// more. It reports an error only when the Watcher is running already. Observations
// are sent to out in the order in which they were concluded, and wait there for
// the reader without holding up the watching.
func (w *Watcher) Run(ctx context.Context, out chan<- Observation) error {
	if !w.running.CompareAndSwap(false, true) {
		return errors.New("this watcher is running already")
	}
	defer w.running.Store(false)
	w.scanned.Store(nil)
	l := newLoop(w)
	defer func() {
		l.dirs.lose()
		w.watches.Store(0)
		w.wanted.Store(0)
	}()
	l.run(ctx, out)
	return nil
}

func (w *Watcher) currentSources() []Source {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sources
}

// signal leaves a mark in c, a channel with room for one.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
