package watchdog

import (
	"testing"
	"time"
	"unsafe"
)

// A simulated host has three clocks: the wall's, which can be turned, the
// monotonic one, which stops in a suspend, and that of the boot, which does not.
// A time.Time carries the first two, and what the keeper makes of them differs:
// times it holds in memory are compared by the one, times it has read from disk by
// the other.

const (
	simEpoch = 1798761600 // 2027-01-01 UTC, in Unix seconds
	simHour  = time.Hour
	simDay   = 24 * time.Hour
	simYear  = 365 * simDay
)

// simTime is a time as the host's wall clock shows it, without a monotonic
// reading.
func simTime(ns time.Duration) time.Time { return time.Unix(simEpoch, int64(ns)).UTC() }

// timeWords is the layout of a time.Time with a monotonic reading.
type timeWords struct {
	wall uint64
	ext  int64
	loc  *time.Location
}

// simNow is a time with a monotonic reading, which package time makes only of
// its own clocks.
func simNow(wall, mono time.Duration) time.Time {
	const from1885 = 2682288000 // from 1885-01-01 to 1970-01-01
	t := simTime(wall)
	sec := uint64(t.Unix() + from1885)
	w := (*timeWords)(unsafe.Pointer(&t))
	w.wall, w.ext = 1<<63|sec<<30|uint64(t.Nanosecond()), int64(mono)
	return t
}

// TestSimClock makes sure that simulated times are what package time makes.
func TestSimClock(t *testing.T) {
	a, b := simNow(time.Hour, simHour), simNow(-3*time.Hour+1, simHour+time.Second)
	if !a.Round(0).Equal(simTime(time.Hour)) || !b.Round(0).Equal(simTime(-3*time.Hour+1)) {
		t.Fatalf("the walls show %s and %s", a, b)
	}
	if d := b.Sub(a); d != time.Second {
		t.Fatalf("a second passed and it is %s", d)
	}
	if d := b.Add(time.Minute).Sub(a.Round(0)); d != time.Minute-4*time.Hour+1 {
		t.Fatalf("the wall moved by %s", d)
	}
	if !b.After(a) || a.Equal(b) || b.Round(0).After(a) {
		t.Fatal("the order is wrong")
	}
}

// simEvent is something that happens at a true time.
type simEvent struct {
	at  time.Duration
	seq uint64
	do  func()
}

// simQueue is a heap, the earliest first and equal ones in order of arrival.
type simQueue struct {
	all []simEvent
	seq uint64
}

func (a simEvent) before(b simEvent) bool { return a.at < b.at || a.at == b.at && a.seq < b.seq }

func (q *simQueue) push(at time.Duration, do func()) {
	q.seq++
	q.all = append(q.all, simEvent{at, q.seq, do})
	for i := len(q.all) - 1; i > 0; {
		up := (i - 1) / 2
		if !q.all[i].before(q.all[up]) {
			break
		}
		q.all[i], q.all[up] = q.all[up], q.all[i]
		i = up
	}
}

func (q *simQueue) pop() simEvent {
	top := q.all[0]
	n := len(q.all) - 1
	q.all[0], q.all[n] = q.all[n], simEvent{}
	q.all = q.all[:n]
	for i := 0; ; {
		least := i
		for _, down := range [...]int{2*i + 1, 2*i + 2} {
			if down < n && q.all[down].before(q.all[least]) {
				least = down
			}
		}
		if least == i {
			return top
		}
		q.all[i], q.all[least] = q.all[least], q.all[i]
		i = least
	}
}
