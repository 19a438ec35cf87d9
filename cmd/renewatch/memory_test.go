package main

import (
	"runtime/debug"
	"testing"
)

// TestMemory: the collector is told how much garbage may come together, unless
// the environment says it, and what was held for work is given back once.
func TestMemory(t *testing.T) {
	before := debug.SetGCPercent(100)
	defer debug.SetGCPercent(before)
	percent := func() int {
		now := debug.SetGCPercent(100)
		debug.SetGCPercent(now)
		return now
	}
	var fixed memory
	fixed.begin(func(string) string { return "100" })
	if fixed.look(); percent() != 100 {
		t.Errorf("GOGC=100 became %d", percent())
	}
	var m memory
	m.begin(func(string) string { return "" })
	if percent() != gcSmall {
		t.Errorf("%d percent at the start, want %d", percent(), gcSmall)
	}
	fleet := make([]byte, gcFrom+1) // as much as a fleet takes
	m.look()
	debug.FreeOSMemory() // what lives is known after a collection
	if m.look(); percent() != gcFleet || m.busy {
		t.Errorf("%d percent for an idle fleet, busy: %v, want %d", percent(), m.busy, gcFleet)
	}
	released := m.released
	for range 64 {
		garbage = make([]byte, busyFrom/32)
	}
	if m.look(); percent() != gcBusy || !m.busy || m.released != released {
		t.Errorf("%d percent for a busy fleet, busy: %v, want %d", percent(), m.busy, gcBusy)
	}
	if m.look(); m.busy || m.released == released {
		t.Error("when the work was done nothing was given back")
	}
	fleet[0] = 1
}

// garbage is a place that the compiler must take for one that is read.
var garbage []byte
