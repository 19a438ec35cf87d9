package verify

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// relookup is how often a name is resolved again while its addresses are polled.
const relookup = 10 * time.Second

// Confirm polls every address of t until each that can be tested counts as
// serving by w, or ctx ends, and returns the latest verdict of each. What an
// address served before its window began is not held against it. A wildcard,
// which time cannot mend, is answered at once.
func (p *Prober) Confirm(ctx context.Context, t Target, w Window) []Verdict {
	p.init()
	b := p.bench(t)
	mail := t.Endpoint.Mail()
	c := &confirmer{
		endpoint: t.Endpoint,
		bench:    b,
		window:   w.filled(mail),
		mail:     mail,
		lookup:   func(ctx context.Context) answer { return p.lookup(ctx, t.Endpoint, b, p.timeout(t)) },
		probe: func(addr netip.AddrPort) func(context.Context) sample {
			s := p.sampler(t, b, addr)
			return func(ctx context.Context) sample {
				if mail {
					p.dialled(addr, time.Now())
				}
				return s.take(ctx)
			}
		},
		polled: func(n int64) { p.following.Add(n) },
		pace:   p.pace,
		notBefore: func(addr netip.AddrPort) time.Time {
			if last := p.lastDialled(addr); mail && !last.IsZero() {
				return last.Add(mailInterval)
			}
			return time.Time{}
		},
	}
	return c.run(ctx)
}

// A confirmer runs one Confirm. It reaches the network through its functions
// only.
type confirmer struct {
	endpoint  Endpoint
	bench     *bench
	window    Window
	mail      bool
	lookup    func(context.Context) answer
	probe     func(netip.AddrPort) func(context.Context) sample
	notBefore func(netip.AddrPort) time.Time // of an address's first sample
	polled    func(n int64)                  // addresses that are polled now, or no more
	pace      func() time.Duration           // least interval of polls that find nothing
}

// news is what a follower found.
type news struct {
	addr    netip.AddrPort
	verdict Verdict
	done    bool
}

type followed struct {
	stop    context.CancelFunc
	verdict Verdict
	known   bool
	done    bool
}

func (c *confirmer) run(ctx context.Context) []Verdict {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()

	updates := make(chan news)
	answers := make(chan answer)
	wg.Go(func() { c.ask(ctx, answers) })

	var found answer
	asked := false
	followers := map[netip.AddrPort]*followed{}
	told := map[netip.AddrPort]Verdict{}
	for {
		select {
		case <-ctx.Done():
			return c.sum(found, followers, asked)
		case a := <-answers:
			if a.lost && len(followers) > 0 {
				// A resolver that fails in between takes nothing back.
				break
			}
			found, asked = a, true
			for addr, f := range followers {
				if !slices.Contains(a.dial, addr) {
					f.stop()
					delete(followers, addr)
					delete(told, addr)
				}
			}
			for _, addr := range a.dial {
				if followers[addr] == nil {
					fctx, stop := context.WithCancel(ctx)
					followers[addr] = &followed{stop: stop, verdict: broken(c.endpoint, c.bench, addr)}
					wg.Go(func() { c.follow(fctx, addr, updates) })
				}
			}
		case u := <-updates:
			// One from a follower that was stopped meanwhile is void.
			if f := followers[u.addr]; f != nil {
				f.verdict, f.done, f.known = u.verdict, u.done, true
			}
		}
		all := c.sum(found, followers, asked)
		c.progress(all, followers, told)
		if c.endpoint.Wildcard() && asked || c.confirmed(found, followers) {
			return all
		}
	}
}

// confirmed reports whether every address counts as serving that can be tested,
// of which there must be one.
func (c *confirmer) confirmed(found answer, followers map[netip.AddrPort]*followed) bool {
	serving := 0
	for _, f := range followers {
		switch {
		case f.done:
			serving++
		case f.known && f.verdict.Code == NotTestable:
		default:
			return false
		}
	}
	return serving > 0 && len(found.fixed) == 0
}

func (c *confirmer) sum(found answer, followers map[netip.AddrPort]*followed, asked bool) []Verdict {
	if !asked {
		return []Verdict{broken(c.endpoint, c.bench, netip.AddrPort{})}
	}
	var out []Verdict
	for _, addr := range found.dial {
		if f := followers[addr]; f != nil {
			out = append(out, f.verdict)
		}
	}
	return finish(append(out, found.fixed...), found.more)
}

func (c *confirmer) progress(all []Verdict, followers map[netip.AddrPort]*followed, told map[netip.AddrPort]Verdict) {
	if c.window.Progress == nil {
		return
	}
	for _, v := range all {
		if f := followers[v.Address]; f != nil && !f.known {
			continue
		}
		if before, ok := told[v.Address]; ok && sameNews(&before, &v) {
			continue
		}
		told[v.Address] = v
		c.window.Progress(v)
	}
}

// sameNews reports whether b tells nothing that a did not.
func sameNews(a, b *Verdict) bool {
	return slices.Equal(a.Faults, b.Faults) && a.Severity == b.Severity && len(a.Served) == len(b.Served) &&
		(len(a.Served) == 0 || a.Served[0].Equal(b.Served[0]))
}

// ask resolves the name at once and again and again.
func (c *confirmer) ask(ctx context.Context, answers chan<- answer) {
	pause := c.window.Fast
	for {
		a := c.lookup(ctx)
		if ctx.Err() != nil {
			return
		}
		select {
		case answers <- a:
		case <-ctx.Done():
			return
		}
		if a.lost {
			pause = min(2*pause, relookup)
		} else {
			pause = relookup
		}
		if !sleep(ctx, time.Now().Add(pause)) {
			return
		}
	}
}

// follow samples one address until ctx ends. Once the address counts as serving
// it goes on slowly (mail servers are left alone): another one may take long,
// and this one's verdict must still be true then.
func (c *confirmer) follow(ctx context.Context, addr netip.AddrPort, updates chan<- news) {
	if !sleep(ctx, c.notBefore(addr)) {
		return
	}
	c.polled(1)
	defer c.polled(-1)
	take := c.probe(addr)
	t := newTrack(c.window, c.mail, time.Now())
	for {
		x := take(ctx)
		j := c.bench.consider(x)
		if j.failed() && !x.interrupted && t.running() && !c.mail {
			// One lost packet does not break a run.
			x = take(ctx)
			j = c.bench.consider(x)
		}
		if x.interrupted {
			return
		}
		t.add(j)
		select {
		case updates <- news{addr, t.verdict(c.bench, c.endpoint, addr), t.done()}:
		case <-ctx.Done():
			return
		}
		if c.mail && t.done() {
			return
		}
		at := t.next(time.Now())
		if !t.running() {
			at = latest(at, j.start.Add(c.pace()))
		}
		if !sleep(ctx, at) {
			return
		}
	}
}

// sleep waits until at; false when ctx ends first.
func sleep(ctx context.Context, at time.Time) bool {
	d := time.Until(at)
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
