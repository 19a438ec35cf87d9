package main

import (
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// memory keeps the daemon's memory small. It idles for weeks on hosts that have
// other work: less memory is worth more than the little time the collector takes,
// but not while a fleet of thousands of certificates is looked at.
type memory struct {
	fixed    bool // the environment says how much garbage may come together
	percent  int
	made     uint64 // bytes that were ever allocated, at the last look
	busy     bool
	released time.Time
}

const (
	// How much garbage may come together, in percent of what lives: a fleet lives on
	// tens of megabytes and makes little garbage once all is proven.
	gcSmall = 50
	gcFleet = 20
	gcBusy  = 35       // a fleet that is looked at
	gcFrom  = 24 << 20 // bytes alive make a fleet

	busyFrom     = 16 << 20 // bytes allocated from one look to the next
	spare        = 6 << 20  // bytes that are not needed and not worth a collection
	releaseEvery = 2 * time.Minute
)

func (m *memory) begin(getenv func(string) string) {
	m.fixed, m.busy = getenv("GOGC") != "", true
	m.set(gcSmall)
}

// look is called every mindEvery.
func (m *memory) look() {
	now := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/heap/allocs:bytes"}, {Name: "/memory/classes/heap/free:bytes"}}
	metrics.Read(now)
	for _, x := range now {
		if x.Value.Kind() != metrics.KindUint64 {
			return
		}
	}
	live, made, free := now[0].Value.Uint64(), now[1].Value.Uint64(), now[2].Value.Uint64()
	was := m.busy
	m.busy, m.made = made-m.made > busyFrom, made
	switch {
	case live < gcFrom:
		m.set(gcSmall)
	case m.busy:
		m.set(gcBusy)
	default:
		m.set(gcFleet)
	}
	if !m.busy && (was || free > spare && time.Since(m.released) > releaseEvery) {
		m.released = time.Now()
		debug.FreeOSMemory()
	}
}

func (m *memory) set(percent int) {
	if !m.fixed && percent != m.percent {
		m.percent = percent
		debug.SetGCPercent(percent)
	}
}
