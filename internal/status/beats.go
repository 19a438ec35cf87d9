package status

import (
	"slices"
	"sync"
	"time"
)

// Beats keeps the heartbeats of the program's loops. Each loop is expected once,
// beats whenever it comes round, and is stalled when it has not for longer than
// it may. The zero value is ready to use, by many goroutines at once.
//
// Ages are measured on the monotonic clock: neither a clock that is set nor the
// sleep of the machine makes a loop look stalled.
type Beats struct {
	mu    sync.Mutex
	loops map[string]loop
}

type loop struct {
	last   time.Time
	maxAge time.Duration
}

// Expect begins to watch a loop, or changes how long it may take from one beat
// to the next. It counts as a beat.
func (b *Beats) Expect(name string, maxAge time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.loops == nil {
		b.loops = make(map[string]loop)
	}
	b.loops[name] = loop{time.Now(), maxAge}
}

// Beat says that a loop has come round. A loop that is not expected is ignored.
func (b *Beats) Beat(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if l, ok := b.loops[name]; ok {
		l.last = time.Now()
		b.loops[name] = l
	}
}

// Forget ends the watch of a loop that has ended as it should.
func (b *Beats) Forget(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.loops, name)
}

// Stalled returns the names of the loops that have not beaten for too long, in
// order; nil when all is well.
func (b *Beats) Stalled(now time.Time) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var names []string
	for name, l := range b.loops {
		if now.Sub(l.last) > l.maxAge {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
