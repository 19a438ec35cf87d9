package watchdog

import (
	"container/heap"
	"time"
)

// later tries f again after a while.
func (k *Keeper) later(f func()) {
	if len(k.retry) == 0 {
		k.retryAt = k.clock.Now().Add(retryAfter)
	}
	k.retry = append(k.retry, f)
}

// plan notes when a certificate wants a tick.
func (k *Keeper) plan(c *cert) {
	at := Wake(c.policy, c.state)
	if at.Equal(c.wake) {
		return
	}
	c.wake = at
	if !at.IsZero() {
		heap.Push(&k.wakes, wake{at, c})
	}
}

// pause returns how long the loop may sleep.
func (k *Keeper) pause() time.Duration {
	now := k.clock.Now()
	d := BeatEvery - now.Sub(k.lookedAt) // by the monotonic clock
	if len(k.retry) > 0 {
		d = min(d, k.retryAt.Sub(now))
	}
	for len(k.wakes) > 0 && !k.wakes[0].current(k) {
		heap.Pop(&k.wakes)
	}
	if len(k.wakes) > 0 {
		d = min(d, k.wakes[0].at.Sub(now))
	}
	if k.o.Client != nil && len(k.inGrace) > 0 && !k.clientsAsked {
		d = min(d, k.clientsAt.Sub(now))
	}
	if len(k.dirty) > 0 {
		d = min(d, k.dirtyAt.Sub(now))
	}
	if until := k.rush.until(); len(k.queue) > 0 && !until.IsZero() {
		d = min(d, until.Sub(now))
	}
	if at := k.serversDue(); !at.IsZero() {
		d = min(d, at.Sub(now))
	}
	return max(d, 0)
}

// due does what time brings.
func (k *Keeper) due() {
	k.lookedAt = k.clock.Now()
	k.checkClock()
	now := k.clock.Now()
	if k.impaired.Load() != nil && now.Sub(k.clockAt) > clockStep && !k.looks() {
		k.checkVerifier(Probe{At: now})
	}
	if len(k.retry) > 0 && !now.Before(k.retryAt) {
		retry := k.retry
		k.retry = nil
		for _, f := range retry {
			f()
		}
	}
	for len(k.wakes) > 0 && !k.wakes[0].at.After(now) {
		k.together(func() { k.wakeSome(now) })
	}
	k.runServers()
	k.nextProbes()
	k.lookAtClients(now)
	k.lookAtPairs(now)
	k.giveAdvice()
	if len(k.dirty) > 0 && !now.Before(k.dirtyAt) {
		k.writeDirty(someWrites)
		k.dirtyAt = k.clock.Now().Add(writeEvery)
	}
	k.agent.flush()
	k.agent.settle(now)
	k.agent.people(now)
}

// wakeSome gives certificates the ticks they wanted.
func (k *Keeper) wakeSome(now time.Time) {
	for n := 0; n < maxTogether && len(k.wakes) > 0 && !k.wakes[0].at.After(now); n++ {
		w := heap.Pop(&k.wakes).(wake)
		if w.current(k) {
			w.c.wake = time.Time{}
			k.apply(w.c, Input{})
		}
	}
}

// giveAdvice logs, once for each file, what is unfortunate about where it lies.
func (k *Keeper) giveAdvice() {
	if len(k.advise) == 0 || k.advising {
		return
	}
	paths := k.advise
	k.advise, k.advising = nil, true
	k.hands.advise(k.ctx, paths, func() { k.advising = false })
}

// wake is when a certificate wants a tick.
type wake struct {
	at time.Time
	c  *cert
}

// current reports whether the certificate still wants it.
func (w wake) current(k *Keeper) bool {
	return w.c.wake.Equal(w.at) && k.certs[w.c.policy.Name] == w.c
}

// wakes is a heap, the earliest first.
type wakes []wake

func (w wakes) Len() int           { return len(w) }
func (w wakes) Less(i, j int) bool { return w[i].at.Before(w[j].at) }
func (w wakes) Swap(i, j int)      { w[i], w[j] = w[j], w[i] }
func (w *wakes) Push(x any)        { *w = append(*w, x.(wake)) }
func (w *wakes) Pop() any {
	old := *w
	x := old[len(old)-1]
	*w = old[:len(old)-1]
	return x
}
