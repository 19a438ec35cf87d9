package verify

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Target is one endpoint and what it is expected to serve.
type Target struct {
	Endpoint Endpoint
	Expect   Expectation
	// Roots are the trusted roots; nil: the Prober's.
	Roots *x509.CertPool
	// Timeout of one sample and of one look-up; 0: the Prober's.
	Timeout time.Duration
}

// Prober probes endpoints. The zero value is ready to use; its fields must not
// change after the first call. It may be used by many goroutines: what they do
// together stays under one bound.
type Prober struct {
	// Roots are the trusted roots; nil: the system's, as this process first
	// read them. See LoadRoots for fresh ones.
	Roots *x509.CertPool
	// Timeout of one sample (connection, STARTTLS, handshake, one more try without
	// post-quantum shares) and of one look-up; 0: 10 s.
	Timeout time.Duration
	// Resolver of names; nil: net.DefaultResolver.
	Resolver Resolver
	// MaxConcurrent bounds connections and look-ups under way, and rounds: more of
	// them wait for their turn, and need next to no memory until then; 0: 64.
	MaxConcurrent int
	// Now is the time against which certificates are judged; nil: time.Now.
	// Pacing goes by the real clock.
	Now func() time.Time
	// EHLO is how mail servers are greeted; empty: this host's name if it has a
	// domain, else the address we connect from.
	EHLO string

	once   sync.Once
	places chan struct{}
	turns  chan struct{}
	cache  *chainCache

	following atomic.Int64 // addresses that Confirms poll just now

	mu    sync.Mutex
	mail  map[netip.AddrPort]time.Time // when a mail server was last dialled
	swept time.Time                    // when old ones were last taken out of mail
}

const (
	defaultTimeout    = 10 * time.Second
	defaultConcurrent = 64
)

func (p *Prober) init() {
	p.once.Do(func() {
		n := p.MaxConcurrent
		if n <= 0 {
			n = defaultConcurrent
		}
		p.places, p.turns = make(chan struct{}, n), make(chan struct{}, n)
		p.cache = newChainCache()
		p.mail = make(map[netip.AddrPort]time.Time)
	})
}

// enter waits for a place among all work; false when ctx ends first.
func (p *Prober) enter(ctx context.Context) bool {
	if ctx.Err() != nil {
		return false
	}
	select {
	case p.places <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

func (p *Prober) leave() { <-p.places }

// A turn is the right of a Round to begin. Thousands may be asked for at once:
// what one needs is made in its turn, and it does not last while an address that
// is down is given time.
type turn struct {
	turns chan struct{} // nil: there is none to give back
	parts atomic.Int32  // that have not ended
}

// begin waits for a turn of one part. When ctx ends first, there is nothing left
// to do in it.
func (p *Prober) begin(ctx context.Context) *turn {
	t := &turn{}
	t.parts.Store(1)
	select {
	case p.turns <- struct{}{}:
		t.turns = p.turns
	case <-ctx.Done():
	}
	return t
}

// end ends one part.
func (t *turn) end() {
	if t.parts.Add(-1) == 0 && t.turns != nil {
		<-t.turns
	}
}

// eachPoll is what one poll of an address may take of all the time there is.
const eachPoll = 4 * time.Millisecond

// pace is the least interval at which an address is polled that does not serve
// yet: when a thousand certificates are renewed at once, polling them all every
// 200 ms would leave no time for anything else.
func (p *Prober) pace() time.Duration { return time.Duration(p.following.Load()) * eachPoll }

func (p *Prober) bench(t Target) *bench {
	roots, now := t.Roots, p.Now
	if roots == nil {
		roots = p.Roots
	}
	if now == nil {
		now = time.Now
	}
	return newBench(t.Endpoint.Name(), t.Expect, roots, p.cache, now)
}

func (p *Prober) timeout(t Target) time.Duration {
	switch {
	case t.Timeout > 0:
		return t.Timeout
	case p.Timeout > 0:
		return p.Timeout
	}
	return defaultTimeout
}

func (p *Prober) sampler(t Target, b *bench, addr netip.AddrPort) *sampler {
	return &sampler{endpoint: t.Endpoint, addr: addr, keyType: b.keyType, timeout: p.timeout(t), ehlo: p.EHLO, enter: p.enter, leave: p.leave}
}

// dialled notes that a mail server was just dialled.
func (p *Prober) dialled(addr netip.AddrPort, at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if at.Sub(p.swept) >= mailInterval {
		p.swept = at
		for a, t := range p.mail {
			if at.Sub(t) >= mailInterval {
				delete(p.mail, a)
			}
		}
	}
	p.mail[addr] = at
}

// lastDialled returns when a mail server was last dialled; zero when long ago.
func (p *Prober) lastDialled(addr netip.AddrPort) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mail[addr]
}

// Check probes every address of t once: samples fresh handshakes each, back to
// back (0: 2; mail servers at most 3). A sample without an answer is taken once
// more. The verdicts come in the order of the addresses; there is at least one.
func (p *Prober) Check(ctx context.Context, t Target, samples int) []Verdict {
	return p.Round(ctx, t, samples, Patience{Tries: 1})
}

// Patience is how long an address is tried before it is said to be down.
type Patience struct {
	Tries int           // 0: 3
	Over  time.Duration // from the first try to the last; 0: 30 s
}

func (p Patience) filled() Patience {
	if p.Tries <= 0 {
		p.Tries = 3
	}
	if p.Over <= 0 {
		p.Over = 30 * time.Second
	}
	return p
}

// Round is Check for a daemon: an address that is down is tried again, as
// patience has it, before that is its verdict. It returns early when ctx ends.
func (p *Prober) Round(ctx context.Context, t Target, samples int, patience Patience) []Verdict {
	p.init()
	patience = patience.filled()
	if samples <= 0 {
		samples = 2
	}
	if t.Endpoint.Mail() {
		samples = min(samples, mailSamples)
	}
	turn := p.begin(ctx)
	b := p.bench(t)
	found := aside(func() answer { return p.lookup(ctx, t.Endpoint, b, p.timeout(t)) })
	verdicts := make([]Verdict, len(found.dial))
	turn.parts.Add(int32(len(found.dial)))
	turn.end()
	probe := func(i int) {
		p.patient(ctx, &t, b, found.dial[i], samples, patience, sync.OnceFunc(turn.end), &verdicts[i])
	}
	var wg sync.WaitGroup
	for i := 1; i < len(found.dial); i++ {
		wg.Go(func() { probe(i) })
	}
	if len(found.dial) > 0 {
		probe(0)
	}
	wg.Wait()
	return finish(append(verdicts, found.fixed...), found.more)
}

// finish puts the verdicts of one endpoint in order and grades them.
func finish(verdicts []Verdict, more int) []Verdict {
	if more > 0 {
		for i := range verdicts {
			verdicts[i].Detail += fmt.Sprintf("; %d more addresses of this name were not dialled", more)
		}
	}
	Grade(verdicts)
	return verdicts
}

// patient runs rounds at one address until one gets a connection, and sets v to
// the verdict. The first is part of a turn, which ends with it. It is written for
// a small stack: when all is down, thousands wait here.
func (p *Prober) patient(ctx context.Context, t *Target, b *bench, addr netip.AddrPort, samples int, patience Patience, endTurn func(), v *Verdict) {
	defer endTurn()
	s := p.sampler(*t, b, addr)
	var first time.Time
	for try := 1; ; try++ {
		began := time.Now()
		if try == 1 {
			first = began
		}
		if !p.round(ctx, t, b, s, samples, try, first, v) {
			if try == 1 {
				*v = broken(t.Endpoint, b, addr)
			}
			return
		}
		if !v.Down() {
			if v.Has(WrongName) {
				p.askDefault(ctx, s, v)
			}
			return
		}
		if try >= patience.Tries {
			return
		}
		endTurn()
		if !sleep(ctx, began.Add(patience.Over/time.Duration(patience.Tries-1))) {
			return
		}
	}
}

// broken is the verdict on an address of which nothing became known because
// the caller went away.
func broken(e Endpoint, b *bench, addr netip.AddrPort) Verdict {
	return Verdict{Endpoint: e, Address: addr, Transport: "tcp", KeyType: b.keyType, Expected: b.leaf,
		Code: Unverifiable, Faults: []Code{Unverifiable}, Severity: Unverifiable.severity(), Unheard: true,
		Detail: "the check was broken off before this address was heard", Hint: "check again"}
}

// round takes n samples back to back, in one place, and sets v to the verdict on
// them: that of a try so many since first. It is false when nothing was heard
// before ctx ended. A sample without an answer is taken again once; a second in a
// row ends the round. So does a first that got nothing but its timeout: whatever a
// mute server does next would cost as much.
func (p *Prober) round(ctx context.Context, t *Target, b *bench, s *sampler, n, try int, first time.Time, v *Verdict) bool {
	if !p.enter(ctx) {
		return false
	}
	defer p.leave()
	return aside(func() bool {
		var out []judged
		again := false
		for len(out) < n {
			if t.Endpoint.Mail() {
				p.dialled(s.addr, time.Now())
			}
			x := s.sample(ctx)
			if x.interrupted {
				break
			}
			j := b.consider(x)
			if j.failed() && !again && !(j.code == Timeout && len(out) == 0) && j.code != NotTestable && j.code != Unverifiable {
				again = true
				continue
			}
			out = append(out, j)
			if j.failed() {
				break
			}
			again = false
		}
		if len(out) == 0 {
			return false
		}
		if *v = b.verdict(t.Endpoint, s.addr, out); v.Down() {
			v.Tries, v.DownSince = try, first
			if try > 1 {
				v.Detail = fmt.Sprintf("%s (%d tries since %s)", v.Detail, try, day(first))
			}
		}
		return true
	})
}

// aside runs f on a goroutine of its own. What f does needs a large stack, and a
// goroutine that goes on to wait would keep it.
func aside[T any](f func() T) T {
	done := make(chan T)
	go func() { done <- f() }()
	return <-done
}

// askDefault finds out whether a wrong name is the server's default: its answer
// to a client that names no host.
func (p *Prober) askDefault(ctx context.Context, s *sampler, v *Verdict) {
	if s.endpoint.Mail() || len(v.Served) == 0 {
		return
	}
	anonymous := *s
	anonymous.configs, anonymous.keyType, anonymous.nameless = [3]*tls.Config{}, "", true
	if x := anonymous.take(ctx); len(x.chain) > 0 && slices.Equal(x.chain[0].Raw, v.Served[0].Raw) {
		v.Detail += "; it is what the server shows when no host is named"
	}
}
