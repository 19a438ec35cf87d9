package verify

import (
	"bytes"
	"crypto/x509"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

func benchFor(name string, want Expectation, roots *x509.CertPool, now time.Time) *bench {
	return newBench(name, want, roots, nil, func() time.Time { return now })
}

func TestJudge(t *testing.T) {
	ca, stranger := newCA(t), newCA(t)
	now := time.Now()
	old := ca.issue(t, spec{from: now.Add(-days(60))})
	current := ca.issue(t, spec{from: now.Add(-days(1))})
	newer := ca.issue(t, spec{from: now.Add(-time.Hour)})
	renamed := ca.issue(t, spec{from: now.Add(-days(60)), names: append([]string{"more.example"}, loopbackNames...)})
	laterRenamed := ca.issue(t, spec{from: now.Add(-time.Hour), names: append([]string{"more.example"}, loopbackNames...)})
	twin := ca.issue(t, spec{from: current.leaf().NotBefore})
	expired := ca.issue(t, spec{from: now.Add(-days(100)), until: now.Add(-days(10))})
	future := ca.issue(t, spec{from: now.Add(days(1)), until: now.Add(days(91))})
	elsewhere := ca.issue(t, spec{names: []string{"other.example"}})
	staging := stranger.issue(t, spec{from: now.Add(-days(30))})
	own := selfSigned(t, spec{from: now.Add(-days(30)), until: now.Add(days(60))})
	client := ca.issue(t, spec{from: now.Add(-days(30)), usage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	deadInter := ca.intermediate(t, now.Add(-days(900)), now.Add(-days(2)))
	neverMet := ca.intermediate(t, now.Add(-days(900)), now.Add(-days(300)))

	expect := expecting(current, old)
	for _, tt := range []struct {
		says   string
		chain  []*x509.Certificate
		want   Expectation
		faults []Code
		match  bool
		sev    Severity
		detail string
	}{
		{"the expected leaf", current.chain, expect, nil, true, Info, "serves " + short(current.leaf())},
		{"nothing is expected", current.chain, Expectation{}, nil, true, Info, "serves"},
		{"nothing is expected of an expired one", expired.chain, Expectation{}, []Code{Expired}, true, Critical, "expired on"},
		{"a leaf of the history", old.chain, expect, []Code{Stale}, false, Warning, "the file holds " + short(current.leaf())},
		{"an unknown leaf of the same names, earlier", old.chain, expecting(current), []Code{Stale}, false, Warning, "serves " + short(old.leaf())},
		{"a leaf of the history with other names", renamed.chain, expecting(current, renamed), []Code{Stale}, false, Warning, ""},
		{"the same names, later", newer.chain, expect, []Code{Ahead}, false, Warning, "newer than the file's"},
		{"history, later, other names", laterRenamed.chain, expecting(current, laterRenamed), []Code{Ahead}, false, Warning, ""},
		{"the same names at the same time", twin.chain, expect, []Code{Foreign}, false, Error, "not of this lineage"},
		{"other names, earlier", renamed.chain, expect, []Code{Foreign}, false, Error, "more.example"},
		{"another watched lineage", renamed.chain, Expectation{Chain: current.chain, Siblings: []Fingerprint{FingerprintOf(renamed.leaf())}}, nil, true, Info, "accepted here"},
		{"another watched lineage for another name", elsewhere.chain, Expectation{Chain: current.chain, Siblings: []Fingerprint{FingerprintOf(elsewhere.leaf())}}, []Code{WrongName, Foreign}, false, Critical, ""},
		{"any valid leaf", renamed.chain, Expectation{Chain: current.chain, AnyValid: true}, nil, true, Info, "accepted here"},
		{"any valid leaf, even an old one", old.chain, Expectation{Chain: current.chain, History: expect.History, AnyValid: true}, nil, true, Info, ""},
		{"any valid leaf does not mean an expired one", expired.chain, Expectation{Chain: current.chain, AnyValid: true}, []Code{Expired, Stale}, false, Critical, ""},
		{"wrong name", elsewhere.chain, expect, []Code{WrongName, Foreign}, false, Critical, "for other.example, not for localhost"},
		{"the expected leaf does not cover the name", elsewhere.chain, expecting(elsewhere), []Code{WrongName}, true, Critical, ""},
		{"expired and stale", expired.chain, expect, []Code{Expired, Stale}, false, Critical, "the file holds"},
		{"expired but expected", expired.chain, expecting(expired), []Code{Expired}, true, Critical, "expired on"},
		{"not yet valid", future.chain, expecting(future), []Code{NotYetValid}, true, Critical, "not valid before"},
		{"another CA", staging.chain, expect, []Code{Untrusted, Stale}, false, Critical, "no trusted root knows"},
		{"self-signed", own.chain, expecting(own), []Code{Untrusted}, true, Critical, "self-signed"},
		{"not for servers", client.chain, expecting(client), []Code{Untrusted}, true, Critical, "serverAuth"},
		{"leaf only, the file knows the rest", current.chain[:1], expect, []Code{ChainIncomplete}, true, Error, "is missing"},
		{"leaf only, nobody knows the rest", current.chain[:1], Expectation{Chain: current.chain[:1]}, []Code{Untrusted}, true, Critical, "Test Intermediate"},
		{"leaf only, an older chain knows the rest", current.chain[:1], Expectation{Chain: current.chain[:1], Extra: []*x509.Certificate{ca.inter}}, []Code{ChainIncomplete}, true, Error, ""},
		{"wrong intermediate", []*x509.Certificate{current.leaf(), stranger.inter}, expect, []Code{ChainIncomplete}, true, Error, "is missing"},
		{"expired intermediate", []*x509.Certificate{current.leaf(), deadInter}, expect, []Code{ChainIncomplete}, true, Error, "out of date"},
		{"expired intermediate is all that is known", []*x509.Certificate{current.leaf(), deadInter}, Expectation{Chain: []*x509.Certificate{current.leaf(), deadInter}}, []Code{ChainIncomplete}, true, Error, "out of date"},
		{"intermediate that expired before the leaf was made", []*x509.Certificate{current.leaf(), neverMet}, Expectation{}, []Code{ChainIncomplete}, true, Error, "out of date"},
		{"expired cross-sign beside a good path", []*x509.Certificate{current.leaf(), ca.inter, ca.root, deadInter}, expect, []Code{ChainDisorder}, true, Warning, ""},
		{"with the root", []*x509.Certificate{current.leaf(), ca.inter, ca.root}, expect, nil, true, Info, ""},
		{"unrelated certificate", []*x509.Certificate{current.leaf(), ca.inter, stranger.inter, ca.root}, expect, []Code{ChainDisorder}, true, Warning, "not followed by its issuer"},
		{"wrong order", []*x509.Certificate{current.leaf(), ca.root, ca.inter}, expect, []Code{ChainDisorder}, true, Warning, "not followed by its issuer"},
		{"leaf twice", []*x509.Certificate{current.leaf(), current.leaf(), ca.inter}, expect, []Code{ChainDisorder}, true, Warning, "twice"},
		{"leaf not first", []*x509.Certificate{ca.inter, current.leaf()}, expect, []Code{ChainDisorder}, true, Warning, "not the first"},
		{"leaf not first, and stale", []*x509.Certificate{ca.inter, old.leaf()}, expect, []Code{Stale, ChainDisorder}, false, Warning, ""},
		{"a CA alone", []*x509.Certificate{ca.inter}, expect, []Code{WrongName, Foreign}, false, Critical, ""},
		{"hundreds of certificates", append(slices.Clone(current.chain), slices.Repeat([]*x509.Certificate{ca.root}, 300)...), expect, []Code{ChainDisorder}, true, Warning, "more than 16"},
	} {
		t.Run(tt.says, func(t *testing.T) {
			b := benchFor("localhost", tt.want, ca.pool(), now)
			f := b.judge(tt.chain)
			if !slices.Equal(f.faults, tt.faults) || f.matching != tt.match || f.severity != tt.sev {
				t.Errorf("faults %v, matching %t, %s (%s); want %v, %t, %s", f.faults, f.matching, f.severity, f.detail, tt.faults, tt.match, tt.sev)
			}
			if !strings.Contains(f.detail, tt.detail) {
				t.Errorf("detail %q does not say %q", f.detail, tt.detail)
			}
			if f.detail == "" || len(f.faults) > 0 && f.hint == "" {
				t.Errorf("detail %q, hint %q", f.detail, f.hint)
			}
		})
	}
}

func TestStaleGrowsWorse(t *testing.T) {
	ca := newCA(t)
	from := time.Now().Add(-days(200)).Truncate(time.Second)
	served := ca.issue(t, spec{from: from, until: from.Add(days(90))}) // r = 30 d
	disk := ca.issue(t, spec{from: from.Add(days(50)), until: from.Add(days(140))})
	for _, tt := range []struct {
		left float64 // days
		want Severity
	}{{35, Warning}, {25, Warning}, {18.1, Warning}, {17.9, Error}, {9.1, Error}, {8.9, Critical}, {0.1, Critical}} {
		now := served.leaf().NotAfter.Add(-days(tt.left))
		f := benchFor("localhost", expecting(disk, served), ca.pool(), now).judge(served.chain)
		if !slices.Equal(f.faults, []Code{Stale}) || f.severity != tt.want {
			t.Errorf("%v days left: %v, %s; want stale, %s", tt.left, f.faults, f.severity, tt.want)
		}
	}
}

func TestMargin(t *testing.T) {
	now := time.Now()
	for _, tt := range []struct {
		life, r time.Duration
	}{
		{days(90), days(30)}, {days(47), days(47) / 3}, {days(10), days(10) / 3}, {160 * time.Hour, 80 * time.Hour}, {days(200), days(200) / 3}, {-time.Hour, 0},
	} {
		c := &x509.Certificate{NotBefore: now, NotAfter: now.Add(tt.life)}
		if got := RenewalMargin(c); got != tt.r {
			t.Errorf("life %s: margin %s, want %s", tt.life, got, tt.r)
		}
		if tt.r == 0 {
			if got := ExpirySeverity(c, now); got != Critical {
				t.Errorf("life %s: %s, want critical", tt.life, got)
			}
			continue
		}
		for _, x := range []struct {
			fraction float64
			want     Severity
		}{{0.86, Info}, {0.84, Warning}, {0.61, Warning}, {0.59, Error}, {0.31, Error}, {0.29, Critical}, {-1, Critical}} {
			at := c.NotAfter.Add(-time.Duration(x.fraction * float64(tt.r)))
			if got := ExpirySeverity(c, at); got != x.want {
				t.Errorf("life %s, %v r left: %s, want %s", tt.life, x.fraction, got, x.want)
			}
			if left := MarginLeft(c, at); left < x.fraction-0.01 || left > x.fraction+0.01 {
				t.Errorf("life %s: MarginLeft = %v, want %v", tt.life, left, x.fraction)
			}
		}
	}
}

func TestCheckChain(t *testing.T) {
	ca := newCA(t)
	now := time.Now()
	good := ca.issue(t, spec{})
	expired := ca.issue(t, spec{from: now.Add(-days(100)), until: now.Add(-days(1))})
	for _, tt := range []struct {
		says  string
		chain []*x509.Certificate
		extra []*x509.Certificate
		want  []Code
		ok    bool
	}{
		{"sound", good.chain, nil, nil, true},
		{"empty", nil, nil, []Code{Untrusted}, false},
		{"incomplete", good.chain[:1], []*x509.Certificate{ca.inter}, []Code{ChainIncomplete}, false},
		{"untrusted", good.chain[:1], nil, []Code{Untrusted}, false},
		{"expired", expired.chain, nil, []Code{Expired}, false},
		{"expired and incomplete", expired.chain[:1], ca.issue(t, spec{}).chain, []Code{Expired, ChainIncomplete}, false},
		{"out of order", []*x509.Certificate{ca.inter, good.leaf()}, nil, []Code{ChainDisorder}, true},
	} {
		r := CheckChain(tt.chain, ca.pool(), tt.extra, now)
		if !slices.Equal(r.Faults, tt.want) || r.OK() != tt.ok || (r.Detail == "") != (len(tt.want) == 0) {
			t.Errorf("%s: %v, OK %t, %q; want %v, %t", tt.says, r.Faults, r.OK(), r.Detail, tt.want, tt.ok)
		}
	}
}

func TestCovers(t *testing.T) {
	ca := newCA(t)
	c := ca.issue(t, spec{names: []string{"example.org", "*.Example.org", "192.0.2.1"}}).leaf()
	for _, tt := range []struct {
		names []string
		want  bool
	}{
		{nil, true}, {[]string{"example.org", "www.example.org"}, true}, {[]string{"a.b.example.org"}, false},
		{[]string{"192.0.2.1"}, true}, {[]string{"192.0.2.2"}, false}, {[]string{"*.example.org"}, true}, {[]string{"*.example.com"}, false},
		{[]string{"example.org", "example.com"}, false},
	} {
		if got := Covers(c, tt.names...); got != tt.want {
			t.Errorf("Covers(%v) = %t", tt.names, got)
		}
	}
}

// A chain judged with a cache is judged as without one, at every instant, and
// the cache stays within its bounds.
func TestCacheTellsNothingElse(t *testing.T) {
	ca, stranger := newCA(t), newCA(t)
	now := time.Now().Truncate(time.Second)
	good := ca.issue(t, spec{from: now.Add(-days(1)), until: now.Add(days(3))})
	shortInter := ca.intermediate(t, now.Add(-days(1)), now.Add(days(2)))
	chains := [][]*x509.Certificate{
		good.chain, good.chain[:1], {good.leaf(), shortInter}, {good.leaf(), stranger.inter}, {ca.inter, good.leaf()},
		stranger.issue(t, spec{from: now.Add(-days(1)), until: now.Add(days(3))}).chain,
	}
	var instants []time.Time
	for _, edge := range []time.Time{good.leaf().NotBefore, good.leaf().NotAfter, shortInter.NotAfter, now} {
		for _, d := range []time.Duration{-time.Second, -1, 0, 1, time.Second} {
			instants = append(instants, edge.Add(d))
		}
	}
	cache := newChainCache()
	for range 400 {
		at := instants[rand.IntN(len(instants))]
		chain := chains[rand.IntN(len(chains))]
		want := benchFor("localhost", expecting(good), ca.pool(), at).judge(chain)
		b := newBench("localhost", expecting(good), nil, cache, func() time.Time { return at })
		b.roots = ca.pool() // another pool of the same roots is judged afresh
		got := b.judge(chain)
		if !slices.Equal(got.faults, want.faults) || got.detail != want.detail {
			t.Fatalf("at %s: cached %v %q, fresh %v %q", at, got.faults, got.detail, want.faults, want.detail)
		}
	}
	for range cachedChains + 100 {
		key := chainKey{}
		for i := range key.chain {
			key.chain[i] = byte(rand.IntN(256))
		}
		cache.put(key, pathResult{from: now, until: now.Add(time.Hour)})
	}
	if n := len(cache.found); n != cachedChains || n != cache.order.Len() {
		t.Errorf("%d chains are remembered, want %d", n, cachedChains)
	}
}

func TestPrecedence(t *testing.T) {
	if n := len(Codes()); n != 21 {
		t.Errorf("%d codes", n)
	}
	if Unresolved.Rank() != 0 || Stale.Rank() <= Foreign.Rank() || Serving.Rank() != 20 || Code("new").Rank() != -1 {
		t.Error("the order of precedence is broken")
	}
}

func TestGrade(t *testing.T) {
	v4, w4, v6 := netip.MustParseAddrPort("192.0.2.1:443"), netip.MustParseAddrPort("192.0.2.2:443"), netip.MustParseAddrPort("[2001:db8::1]:443")
	at := func(a netip.AddrPort, c Code) Verdict {
		return Verdict{Address: a, Code: c, Faults: []Code{c}, Severity: c.severity()}
	}
	for _, tt := range []struct {
		says string
		in   []Verdict
		want []Severity
	}{
		{"all down", []Verdict{at(v4, Refused), at(v6, Timeout)}, []Severity{Critical, Critical}},
		{"one IPv4 address down", []Verdict{at(v4, Refused), at(w4, Serving)}, []Severity{Error, Info}},
		{"one IPv6 address down", []Verdict{at(v4, Serving), at(v6, Unreachable)}, []Severity{Info, Warning}},
		{"what cannot be tested does not count", []Verdict{at(v4, Refused), at(v6, NotTestable)}, []Severity{Critical, Info}},
		{"a neighbour at fault is not down", []Verdict{at(v4, Refused), at(w4, Expired)}, []Severity{Error, Critical}},
		{"nothing can be tested", []Verdict{at(v6, NotTestable)}, []Severity{Info}},
	} {
		for range 2 { // grading twice changes nothing
			Grade(tt.in)
			for i, v := range tt.in {
				if v.Severity != tt.want[i] {
					t.Errorf("%s: address %d is %s, want %s", tt.says, i, v.Severity, tt.want[i])
				}
			}
		}
	}
}

func TestCountsAsServing(t *testing.T) {
	for _, tt := range []struct {
		faults            []Code
		samples, matching int
		want              bool
	}{
		{nil, 2, 2, true}, {nil, 0, 0, false}, {[]Code{ChainDisorder, PQIntolerant}, 2, 2, true},
		{[]Code{Stale}, 2, 0, false}, {[]Code{Mixed, Stale}, 2, 1, false}, {[]Code{ChainIncomplete}, 2, 2, false}, {[]Code{Expired}, 2, 2, false},
	} {
		v := Verdict{Faults: tt.faults, Samples: tt.samples, Matching: tt.matching}
		if got := v.CountsAsServing(); got != tt.want {
			t.Errorf("%v, %d of %d: %t", tt.faults, tt.matching, tt.samples, got)
		}
	}
}

func TestVerdictOfSamples(t *testing.T) {
	ca := newCA(t)
	now := time.Now()
	old := ca.issue(t, spec{from: now.Add(-days(60))})
	current := ca.issue(t, spec{from: now.Add(-days(1))})
	other := ca.issue(t, spec{names: []string{"localhost", "x.example"}})
	b := benchFor("localhost", expecting(current, old), ca.pool(), now)
	see := func(ps ...*pair) []judged {
		var out []judged
		for i, p := range ps {
			s := sample{start: now.Add(time.Duration(i) * time.Second), took: time.Duration(i+1) * time.Millisecond}
			if p == nil {
				s.code, s.why = Refused, "the connection was refused"
			} else {
				s.chain = p.chain
			}
			out = append(out, b.consider(s))
		}
		return out
	}
	addr := netip.MustParseAddrPort("127.0.0.1:443")
	for _, tt := range []struct {
		says     string
		in       []judged
		faults   []Code
		matching int
		served   *pair
		sinceAt  int // index, -1: zero
	}{
		{"serving", see(&current, &current), nil, 2, &current, 0},
		{"stale", see(&old, &old), []Code{Stale}, 0, &old, -1},
		{"mixed with a stale one", see(&current, &old, &current), []Code{Mixed, Stale}, 2, &old, 2},
		{"mixed with a foreign one and a stale one", see(&other, &old, &current), []Code{Mixed, Foreign, Stale}, 1, &other, 2},
		{"two other leaves are not mixed", see(&old, &other), []Code{Foreign, Stale}, 0, &other, -1},
		{"refused", see(nil), []Code{Refused}, 0, nil, -1},
		{"refused after an answer", see(&current, nil), []Code{Refused}, 1, &current, -1},
	} {
		v := b.verdict(Endpoint{}, addr, tt.in)
		if !slices.Equal(v.Faults, tt.faults) || v.Matching != tt.matching {
			t.Errorf("%s: %v, %d matching; want %v, %d", tt.says, v.Faults, v.Matching, tt.faults, tt.matching)
		}
		if (tt.served == nil) != (v.Served == nil) || tt.served != nil && !bytes.Equal(v.Served[0].Raw, tt.served.leaf().Raw) {
			t.Errorf("%s: another leaf is the evidence", tt.says)
		}
		if tt.sinceAt < 0 && !v.Since.IsZero() || tt.sinceAt >= 0 && !v.Since.Equal(tt.in[tt.sinceAt].start) {
			t.Errorf("%s: since %s", tt.says, v.Since)
		}
		if v.Took != time.Duration(len(tt.in))*time.Millisecond {
			t.Errorf("%s: took %s", tt.says, v.Took)
		}
	}
	pq := see(&current, &current)
	pq[0].classical, pq[1].classical = true, true
	if v := b.verdict(Endpoint{}, addr, pq); v.Code != PQIntolerant || v.Severity != Warning || !v.CountsAsServing() {
		t.Errorf("classical only: %s, %s", v.Code, v.Severity)
	}
	pq[1].classical = false
	if v := b.verdict(Endpoint{}, addr, pq); v.Code != Serving {
		t.Errorf("one accident: %s", v.Code)
	}
}

// Whatever certificates come in whatever order: judging does not panic, says
// the same twice, and keeps faults unique and in order; the verdict's faults do
// not depend on the order of the samples.
func FuzzJudge(f *testing.F) {
	ca, stranger := newCA(f), newCA(f)
	now := time.Now()
	old := ca.issue(f, spec{from: now.Add(-days(60))})
	current := ca.issue(f, spec{from: now.Add(-days(1))})
	dead := ca.intermediate(f, now.Add(-days(900)), now.Add(-days(2)))
	stock := []*x509.Certificate{current.leaf(), old.leaf(), ca.inter, ca.root, dead, stranger.inter, stranger.root,
		stranger.issue(f, spec{}).leaf(), selfSigned(f, spec{}).leaf(), ca.issue(f, spec{names: []string{"x.example"}}).leaf()}
	roots := ca.pool()
	f.Add([]byte{0, 2, 255, 1, 2}, uint8(0), []byte{})
	f.Add([]byte{2, 0, 4, 4, 255, 0}, uint8(3), current.leaf().Raw)
	f.Fuzz(func(t *testing.T, picks []byte, kind uint8, der []byte) {
		shelf := stock
		if c, err := x509.ParseCertificate(der); err == nil {
			shelf = append(slices.Clone(stock), c)
		}
		want := expecting(current)
		if kind&1 != 0 {
			want = expecting(current, old)
		}
		if kind&2 != 0 {
			want.Chain = want.Chain[:1]
		}
		want.AnyValid = kind&4 != 0
		b := benchFor("localhost", want, roots, now)
		var samples []judged
		for _, part := range bytes.Split(picks[:min(len(picks), 64)], []byte{255}) {
			var chain []*x509.Certificate
			for _, p := range part {
				chain = append(chain, shelf[int(p)%len(shelf)])
			}
			if len(chain) == 0 {
				continue
			}
			j := b.consider(sample{start: now, chain: chain})
			if again := b.judge(chain); !slices.Equal(again.faults, j.faults) || again.detail != j.detail {
				t.Fatalf("judged %v, then %v", j.faults, again.faults)
			}
			samples = append(samples, j)
		}
		if len(samples) == 0 {
			return
		}
		v := b.verdict(Endpoint{}, netip.AddrPort{}, samples)
		for i := range v.Faults {
			if i > 0 && v.Faults[i-1].Rank() >= v.Faults[i].Rank() {
				t.Fatalf("faults %v are not in order", v.Faults)
			}
		}
		if (len(v.Faults) == 0) != (v.Code == Serving) || v.Code != Serving && v.Code != v.Faults[0] {
			t.Fatalf("code %s of %v", v.Code, v.Faults)
		}
		if printable(v.Detail+v.Hint, 1<<20) != v.Detail+v.Hint {
			t.Fatalf("detail %q, hint %q", v.Detail, v.Hint)
		}
		slices.Reverse(samples)
		if w := b.verdict(Endpoint{}, netip.AddrPort{}, samples); !slices.Equal(w.Faults, v.Faults) || w.Severity != v.Severity || w.Matching != v.Matching {
			t.Fatalf("%v %s, in reverse %v %s", v.Faults, v.Severity, w.Faults, w.Severity)
		}
	})
}
