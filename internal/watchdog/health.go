package watchdog

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	gapAfter   = 2 * time.Minute // nobody looked for that long: suspend
	clockStep  = time.Minute     // the wall clock moved against the boot clock
	deadAfter  = 3               // lookups without an answer in a row
	deadPeriod = 10 * time.Second
)

// clocks is what is remembered of the clocks.
type clocks struct {
	boot time.Duration // CLOCK_BOOTTIME when last looked
	base time.Time     // wall clock at boot time zero
}

// bootTime counts through a suspend, unlike the monotonic clock.
func bootTime() time.Duration {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// checkClock finds out whether somebody turned the clock or the host slept.
// Times decided before are then not judged until a fresh round has passed.
func (k *Keeper) checkClock() {
	boot, wall := k.clock.Boot(), k.clock.Now().Round(0)
	if boot == 0 {
		return
	}
	base := wall.Add(-boot)
	last := k.clocks
	k.clocks = clocks{boot, base}
	if last.boot == 0 {
		k.checkPast(wall)
		return
	}
	moved := base.Sub(last.base)
	if moved < 0 {
		moved = -moved
	}
	if moved < clockStep {
		k.clocks.base = last.base // small steps add up against the first base
	} else {
		k.impair("clock", fmt.Sprintf("the clock was moved by %s", base.Sub(last.base).Round(time.Second)), "is time synchronisation running?")
		k.clockAt = k.clock.Now()
	}
	if boot-last.boot > gapAfter || moved >= clockStep {
		k.log.Info().Dur("gap", boot-last.boot).Msg("nobody looked for a while; everything is probed afresh")
		for _, name := range sortedKeys(k.certs) {
			k.apply(k.certs[name], Input{Gap: true})
		}
	}
	k.checkPast(wall)
}

// checkPast compares the clock with what is certainly past.
func (k *Keeper) checkPast(wall time.Time) {
	switch {
	case wall.Before(k.o.BuildTime):
		k.impair("clock", fmt.Sprintf("the clock says %s, before this program was built", stamp(wall)), "set the clock")
		k.clockPast = true
	case wall.Add(clockStep).Before(k.newest):
		k.impair("clock", fmt.Sprintf("the clock says %s, before the newest event in the journal (%s)", stamp(wall), stamp(k.newest)), "set the clock")
		k.clockPast = true
	case k.clockPast:
		k.clockPast, k.clockAt = false, k.clock.Now()
	}
}

// looks reports whether any certificate has rounds: without one, time alone ends a
// trouble of the clock.
func (k *Keeper) looks() bool {
	for _, c := range k.certs {
		if byRounds(&c.policy, &c.state) {
			return true
		}
	}
	return false
}

// impair raises a trouble under which no verdict may lead to a repair.
func (k *Keeper) impair(key, detail, hint string) {
	k.agent.raise(key, detail, hint)
	k.impaired.Store(&detail)
}

// draw is the one source of chance.
func (k *Keeper) draw() float64 {
	if k.o.Draw != nil {
		return k.o.Draw()
	}
	return rand.Float64()
}

// checkResolver reports whether names can be resolved.
func (k *Keeper) checkResolver() bool {
	if k.o.Resolver == nil {
		return true
	}
	dead, why := k.o.Resolver.Dead()
	if dead {
		k.impair("resolver", "names cannot be resolved: "+why, "is the resolver in /etc/resolv.conf running and reachable?")
	}
	return !dead
}

// checkVerifier ends a trouble of the verifier once one fresh round has passed.
func (k *Keeper) checkVerifier(round Probe) {
	if !k.checkResolver() {
		return
	}
	k.agent.clear("resolver")
	if k.agent.has("clock") && (k.clockPast || !round.At.After(k.clockAt)) {
		return
	}
	k.agent.clear("clock")
	if k.impaired.Swap(nil) == nil {
		return
	}
	// Nothing else wakes those that have no rounds, and what time brought them
	// meanwhile was not judged.
	for _, name := range sortedKeys(k.certs) {
		if c := k.certs[name]; !byRounds(&c.policy, &c.state) {
			k.apply(c, Input{})
		}
	}
}

// Lookup resolves names; *net.Resolver is one.
type Lookup interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Resolver passes lookups on and notices when none is answered any more. "No
// such host" is an answer.
type Resolver struct {
	Lookup Lookup // nil: the system's

	mu     sync.Mutex
	failed int
	since  time.Time
	last   string
}

// LookupNetIP resolves host.
func (r *Resolver) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	lookup := r.Lookup
	if lookup == nil {
		lookup = net.DefaultResolver
	}
	addrs, err := lookup.LookupNetIP(ctx, network, host)
	var dns *net.DNSError
	answered := err == nil || errors.As(err, &dns) && dns.IsNotFound
	if !answered && errors.Is(ctx.Err(), context.Canceled) {
		return addrs, err // we gave up, not the resolver
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if answered {
		r.failed = 0
	} else {
		if r.failed == 0 {
			r.since = time.Now()
		}
		r.failed++
		r.last = err.Error()
	}
	return addrs, err
}

// Dead reports whether no lookup was answered for a while.
func (r *Resolver) Dead() (bool, string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed >= deadAfter && time.Since(r.since) >= deadPeriod, r.last
}
