package watchdog

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/renewatch/renewatch/notify"
	"github.com/renewatch/renewatch/verify"
	"github.com/renewatch/renewatch/watch"
)

// roundDone is the end of one probe.
type roundDone struct {
	name  string
	probe Probe
	round Round
}

// job is everything one probe needs, copied from the loop.
type job struct {
	name    string
	conf    *Certificate
	path    string
	probe   Probe
	chain   []DER
	leaf    notify.Certificate
	spread  time.Duration
	crowded bool      // others wait for their turn
	written time.Time // when the files were; zero while the grace lasts
	history []verify.Fingerprint
	targets []target
}

// target is one endpoint of a job.
type target struct {
	Endpoint
	unconfirmed bool // a default endpoint that never served the lineage
	byDefault   bool
	siblings    []sibling
	hushed      bool // silenced: it is looked at and not waited for
}

// told returns how events name the endpoint.
func (t target) told() string {
	if t.Text != "" {
		return t.Text
	}
	return t.URL.String()
}

// maxProbes bounds the probes that run at once: a host with thousands of
// certificates that all change together must not need memory for all of them.
const maxProbes = 256

// ticket is a probe that waits for its turn.
type ticket struct {
	c  *cert
	id uint64
}

// startProbe replaces what probes a certificate.
func (k *Keeper) startProbe(c *cert, p Probe) {
	k.stopProbe(c)
	k.queue = append(k.queue, ticket{c, p.ID})
	k.nextProbes()
}

// nextProbes starts probes in their order as long as there is room.
func (k *Keeper) nextProbes() {
	for k.probing < k.room() && len(k.queue) > 0 && k.ctx.Err() == nil {
		t := k.queue[0]
		k.queue[0] = ticket{}
		if k.queue = k.queue[1:]; len(k.queue) == 0 {
			k.queue = nil
		}
		if p := t.c.state.Probe; p != nil && p.ID == t.id && t.c.probing == 0 && k.certs[t.c.policy.Name] == t.c {
			k.launch(t.c, *p)
		}
	}
}

func (k *Keeper) launch(c *cert, p Probe) {
	k.probing++
	c.probing = p.ID
	// One that waited for its turn still has the time that a proof takes.
	if now := k.clock.Now(); p.Purpose == Confirm && now.Sub(p.At) > time.Second {
		if least := now.Add(2*c.policy.Spread + reloadPause); p.Until.Before(least) {
			p.Until = least
		}
	}
	ctx, cancel := context.WithCancel(k.ctx)
	c.cancel = cancel
	d := c.state.Disk
	j := job{crowded: len(k.queue) > 0, name: c.policy.Name, conf: c.conf, path: c.path, probe: p, chain: d.Chain, leaf: d.Leaf, spread: c.policy.Spread, targets: k.targets(c)}
	if t := c.state.Story; t != nil && t.GraceOver {
		j.written = t.Since
	}
	for _, h := range c.state.History {
		if sum, ok := parseFingerprint(h.SHA256); ok {
			j.history = append(j.history, sum)
		}
	}
	k.hands.probe(ctx, j, func(round Round) {
		defer cancel()
		select {
		case k.rounds <- roundDone{j.name, p, round}:
		case <-ctx.Done(): // replaced
		}
	})
}

// stopProbe ends what probes a certificate, if anything does. Of a probe that has
// ended only memory is left.
func (k *Keeper) stopProbe(c *cert) {
	if c.probing == 0 {
		return
	}
	c.probing = 0
	k.probing--
	c.cancel()
	c.cancel = nil
}

func (k *Keeper) roundDone(r roundDone) {
	c := k.certs[r.name]
	if c == nil {
		return
	}
	if c.probing == r.probe.ID {
		k.stopProbe(c)
		defer k.nextProbes()
	}
	if k.reloading(r.name) {
		// A server may serve the new leaf before its reload command has ended: the
		// story is told in the order in which it is understood.
		c.held = &r
		return
	}
	k.checkResolver() // first: what a dead resolver made of this round is not judged, and it is asked again soon
	k.apply(c, Input{Round: &r.round})
	k.checkVerifier(r.probe)
}

// targets returns what a probe of a certificate looks at.
func (k *Keeper) targets(c *cert) []target {
	out := k.endpoints(c)
	for i := range out {
		if out[i].Server == "" {
			out[i].Server = c.conf.Server
		}
		out[i].hushed = slices.ContainsFunc(c.policy.Silences, func(x Silence) bool {
			return x.Endpoint != "" && x.Endpoint == out[i].told() && x.inForce(k.clock.Now())
		})
		out[i].siblings = k.names.others(c.policy.Name, out[i].URL.Name())
	}
	return out
}

// endpoints returns the endpoints of a certificate, the default ones when none
// are configured.
func (k *Keeper) endpoints(c *cert) []target {
	var out []target
	leaf := c.state.Disk.Leaf
	if c.conf.Endpoints == nil {
		for _, url := range DefaultEndpoints(leaf.Names) {
			out = append(out, target{Endpoint: Endpoint{URL: url, Required: true}, byDefault: true, unconfirmed: !c.state.Confirmed[url.String()]})
		}
	}
	for _, e := range c.conf.Endpoints {
		out = append(out, target{Endpoint: e})
	}
	return out
}

// probe makes one probe. It runs outside the loop.
func (k *Keeper) probe(ctx context.Context, j job) Round {
	r := Round{ID: j.probe.ID, Findings: []Finding{}}
	chain := make([]*x509.Certificate, 0, len(j.chain))
	for _, der := range j.chain {
		if c, err := x509.ParseCertificate(der.Bytes()); err == nil {
			chain = append(chain, c)
		}
	}
	vts := make([]verify.Target, len(j.targets))
	for i, t := range j.targets {
		vts[i] = verify.Target{Endpoint: t.URL, Roots: j.conf.Roots.Pool, Timeout: j.conf.Timeout,
			Expect: verify.Expectation{Chain: chain, History: j.history, Siblings: fingerprints(t.siblings), AnyValid: t.AnyValid}}
	}
	var verdicts [][]verify.Verdict
	looked := make([]bool, len(vts)) // after its window was whole, once more
	if j.crowded && j.probe.Purpose == Confirm {
		verdicts = k.glance(ctx, j, vts)
	}
	if verdicts != nil {
		// Nothing to wait for while others do.
	} else if j.probe.Purpose == Confirm {
		verdicts = k.confirm(ctx, j, vts, looked)
	} else {
		verdicts = k.each(vts, func(i int) []verify.Verdict {
			return k.o.Prober.Round(ctx, vts[i], j.probe.Samples, verify.Patience{})
		})
	}
	for i, vs := range verdicts {
		for _, v := range vs {
			f := j.finding(j.targets[i], v, chain)
			if j.probe.Purpose == Confirm && !v.Whole && !looked[i] {
				f.Serving = false // cut off before the window was whole
			}
			r.Findings = append(r.Findings, f)
		}
	}
	k.elsewhere(ctx, vts, verdicts, r.Findings)
	k.excuse(ctx, j, r.Findings)
	k.nameListeners(ctx, j, r.Findings)
	pair, fault := watch.Load(j.path, j.conf.Source.Key)
	facts := k.facts(j.conf, pair, fault)
	same(&facts.SHA256, j.leaf.SHA256)
	r.Facts = &facts
	if why := k.impaired.Load(); why != nil {
		r.Impaired = *why
	}
	if why := j.conf.Roots.Impaired; why != "" {
		r.Impaired = why
	}
	return r
}

// each runs f for every target at once; the prober bounds how much of it happens
// at the same time.
func (k *Keeper) each(vts []verify.Target, f func(i int) []verify.Verdict) [][]verify.Verdict {
	out := make([][]verify.Verdict, len(vts))
	var wg sync.WaitGroup
	for i := range vts {
		wg.Go(func() { out[i] = f(i) })
	}
	wg.Wait()
	return out
}

// glance looks once, where others wait for their turn, and returns nothing when it
// is worth while to wait for this one: all serve and are to be proven, or one does
// not answer and has the time it gets before it counts as down.
func (k *Keeper) glance(ctx context.Context, j job, vts []verify.Target) [][]verify.Verdict {
	verdicts := k.each(vts, func(i int) []verify.Verdict { return k.o.Prober.Check(ctx, vts[i], 2) })
	wait := true
	for i, vs := range verdicts {
		for _, v := range vs {
			if !v.Tested() && !v.CountsAsServing() {
				return nil
			}
			if j.targets[i].Required && !j.targets[i].unconfirmed && !v.CountsAsServing() {
				wait = false
			}
		}
	}
	if wait {
		return nil
	}
	return verdicts
}

// confirm polls until every endpoint that counts serves, or the probe's end.
func (k *Keeper) confirm(outer context.Context, j job, vts []verify.Target, looked []bool) [][]verify.Verdict {
	ctx := outer
	out := make([][]verify.Verdict, len(vts))
	counts := make([]bool, len(vts))
	// An endpoint nobody named is looked at once: only if it serves the lineage
	// is it waited for.
	first := k.each(vts, func(i int) []verify.Verdict {
		if !j.targets[i].unconfirmed {
			return nil
		}
		return k.o.Prober.Check(ctx, vts[i], 2)
	})
	waiting := 0
	for i, t := range j.targets {
		counts[i] = t.Required && !t.hushed
		if t.unconfirmed {
			out[i] = first[i]
			counts[i] = slices.ContainsFunc(first[i], func(v verify.Verdict) bool { return known(v, j.history) })
		}
		if counts[i] {
			waiting++
		}
	}
	ctx, cancel := context.WithDeadline(ctx, j.probe.Until)
	defer cancel()
	if waiting == 0 && len(vts) > 0 && !slices.ContainsFunc(j.targets, func(t target) bool { return !t.unconfirmed }) {
		// Nothing to wait for but the end: one of them may yet serve.
		<-ctx.Done()
		return out
	}
	w := j.window(time.Now())
	ended := make([]time.Time, len(vts))
	var mu sync.Mutex
	polled := k.each(vts, func(i int) []verify.Verdict {
		if j.targets[i].unconfirmed && !counts[i] {
			return nil
		}
		vs := k.o.Prober.Confirm(ctx, vts[i], w)
		ended[i] = time.Now()
		mu.Lock()
		defer mu.Unlock()
		if counts[i] && !slices.ContainsFunc(vs, func(v verify.Verdict) bool {
			return !v.CountsAsServing() && (v.Tested() || v.Unheard)
		}) {
			if waiting--; waiting == 0 {
				cancel()
			}
		}
		return vs
	})
	for i := range polled {
		if polled[i] != nil {
			out[i] = polled[i]
		}
	}
	// What was proven early may have changed while others were waited for.
	now := time.Now()
	again := k.each(vts, func(i int) []verify.Verdict {
		if !counts[i] || ended[i].IsZero() || now.Sub(ended[i]) < lookAgain || !allServing(out[i]) {
			return nil
		}
		return k.o.Prober.Check(outer, vts[i], 2)
	})
	for i := range again {
		if again[i] != nil && !allServing(again[i]) {
			out[i], looked[i] = again[i], true
		}
	}
	return out
}

// lookAgain is how old a proof may be when the story ends on it.
const lookAgain = 10 * time.Second

func allServing(vs []verify.Verdict) bool {
	return !slices.ContainsFunc(vs, func(v verify.Verdict) bool { return !v.CountsAsServing() })
}

// window says how to poll: fast for a while after a change, then ever slower.
func (j job) window(now time.Time) verify.Window {
	w := verify.Window{Samples: j.probe.Samples, Spread: j.spread}
	const fast, fastFor, slow = 200 * time.Millisecond, 10 * time.Second, 30 * time.Second
	since := now.Sub(j.probe.Fast)
	w.Fast, w.FastFor, w.Max = fast, fastFor-since, slow
	if since >= fastFor {
		w.Fast, w.FastFor = min(max(fast, since-fastFor), slow), fast
	}
	return w
}

// known reports whether v shows the expected leaf or one that the history holds.
func known(v verify.Verdict, history []verify.Fingerprint) bool {
	return len(v.Served) > 0 && (v.Matching > v.Siblings || slices.Contains(history, verify.FingerprintOf(v.Served[0])))
}

// lineage reports whether v shows a leaf of the lineage.
func lineage(v verify.Verdict, history []verify.Fingerprint) bool {
	if len(v.Served) == 0 {
		return false
	}
	return v.Matching > v.Siblings || v.Has(verify.Stale) || v.Has(verify.Ahead) || slices.Contains(history, verify.FingerprintOf(v.Served[0]))
}

func (j job) finding(t target, v verify.Verdict, chain []*x509.Certificate) Finding {
	f := Finding{
		Verdict: WireVerdict(j.name, t.Server, v), Serving: v.CountsAsServing(), Required: t.Required, Default: t.byDefault, Unheard: v.Unheard || v.ResolverDown,
		Sibling: v.Siblings > 0 && v.Siblings == v.Samples,
		Lineage: lineage(v, j.history), Known: known(v, j.history), Since: v.Since,
	}
	f.Endpoint = t.told()
	f.share(j.leaf)
	if len(v.Served) > 0 {
		f.ServedKeyType = verify.KeyType(v.Served[0])
		for _, other := range t.siblings {
			if f.Sibling && other.leaf == verify.FingerprintOf(v.Served[0]) {
				f.SiblingName = other.name
			}
		}
		if len(chain) > 0 {
			for _, n := range f.Served.Names {
				if len(f.Lost) < maxNames && !verify.Covers(chain[0], n) {
					f.Lost = append(f.Lost, n)
				}
			}
		}
		if n := len(f.Served.Names); n > maxNames {
			f.Served.Names, f.Served.NamesOmitted = f.Served.Names[:maxNames], n-maxNames
		}
	}
	if t.File != "" && !f.Serving && len(chain) > 0 {
		pair, fault := watch.Load(t.File, "")
		f.CopyStale = fault == nil && fingerprint(pair.Leaf()) != fingerprint(chain[0])
	}
	return f
}

// localTime bounds how long loopback is asked.
const localTime = 10 * time.Second

// elsewhere finds out, for addresses that a reload might cure, whether loopback
// already serves the leaf: then something else answers at that address.
func (k *Keeper) elsewhere(ctx context.Context, vts []verify.Target, verdicts [][]verify.Verdict, findings []Finding) {
	ctx, cancel := context.WithTimeout(ctx, localTime)
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	n := 0
	for i, vs := range verdicts {
		for _, v := range vs {
			f := &findings[n]
			n++
			if f.Serving || f.Server == "" || f.Server == "none" || !v.Address.IsValid() || v.Address.Addr().IsLoopback() {
				continue
			}
			if !v.Has(verify.Stale) && !v.Has(verify.Mixed) && !v.Has(verify.ChainIncomplete) && !v.Has(verify.WrongName) {
				continue
			}
			wg.Go(func() {
				for _, loop := range []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()} {
					local := vts[i]
					local.Endpoint = local.Endpoint.At(netip.AddrPortFrom(loop, v.Address.Port()))
					got := k.o.Prober.Check(ctx, local, 2)
					if len(got) == 1 && got[0].CountsAsServing() {
						f.Local = true
					}
				}
			})
		}
	}
}

// excuse marks refused connections while the ACME client runs, because it may
// have stopped the server for a moment to answer the CA itself.
func (k *Keeper) excuse(ctx context.Context, j job, findings []Finding) {
	refused := func(f Finding) bool { return f.Code == string(verify.Refused) && !f.Unheard }
	if k.o.Client == nil || !slices.ContainsFunc(findings, refused) || !k.o.Client(ctx, j.path) {
		return
	}
	for i := range findings {
		findings[i].Unheard = findings[i].Unheard || refused(findings[i])
	}
}

// nameListeners finds out which process of this host serves an old leaf, once the
// grace is over.
func (k *Keeper) nameListeners(ctx context.Context, j job, findings []Finding) {
	if k.o.Listener == nil || j.written.IsZero() {
		return
	}
	for i := range findings {
		f := &findings[i]
		if f.Serving || !has(*f, verify.Stale) && !has(*f, verify.Mixed) {
			continue
		}
		if at, err := netip.ParseAddrPort(f.Address); err == nil {
			f.Listener = k.o.Listener(ctx, at, j.written)
		}
	}
}

// facts tells what pre-flight must know of the files.
func (k *Keeper) facts(conf *Certificate, pair *watch.Pair, fault *watch.Fault) Facts {
	if fault != nil {
		return Facts{Pair: fault.Sentence}
	}
	f := Facts{SHA256: fingerprint(pair.Leaf())}
	if pair.Key == watch.KeyUnknown {
		f.Pair = "no key is known for this certificate, so the pair cannot be checked"
	}
	r := verify.CheckChain(pair.Chain, conf.Roots.Pool, nil, k.clock.Now())
	switch {
	case r.Has(verify.ChainIncomplete), r.Has(verify.Untrusted) && len(pair.Chain) == 1 && !selfSigned(pair.Leaf()):
		f.Chain = ChainIncomplete
	case r.Has(verify.Untrusted):
		f.Chain = ChainUntrusted
	}
	if f.Chain != ChainOK {
		f.Detail = fmt.Sprintf("the certificate file is not fit to be served: %s", r.Detail)
	}
	return f
}

// maxNames bounds the names that are kept of what one address serves.
const maxNames = 32

// selfSigned reports whether a certificate names itself as its issuer.
func selfSigned(c *x509.Certificate) bool {
	return string(c.RawIssuer) == string(c.RawSubject)
}

func parseFingerprint(s string) (verify.Fingerprint, bool) {
	var sum verify.Fingerprint
	raw, err := hex.DecodeString(s)
	if err != nil || len(raw) != len(sum) {
		return sum, false
	}
	return verify.Fingerprint(raw), true
}
