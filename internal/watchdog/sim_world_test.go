package watchdog

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/renewatch/renewatch/internal/reload"
	"github.com/renewatch/renewatch/notify"
	"github.com/renewatch/renewatch/verify"
	"github.com/renewatch/renewatch/watch"
)

// sim is a host with its servers, files and ACME clients, the network it is seen
// from, and the daemon, in virtual time. One seed decides everything. It is
// single-threaded: a queue of events, and the daemon's loop as one more of them.
type sim struct {
	seed  uint64
	rng   *rand.Rand
	queue simQueue

	t      time.Duration // true time since the beginning
	offset time.Duration // of the wall clock from the truth
	asleep time.Duration // spent in suspends
	now    time.Time
	nowOf  [3]time.Duration // t, offset and asleep of now

	certs    []*simCert
	servers  []*simServer
	places   map[string]*simPlace // by what events call an endpoint
	locks    bool                 // runs of the ACME clients can be seen
	logged   bool                 // the logs of the ACME clients are read
	every    time.Duration
	policy   Policy
	moody    [simMoods]float64 // how often each sort of trouble comes; 0: never
	calm     bool              // the world heals: no more trouble
	still    time.Duration     // and from then on nobody renews
	stranger watch.FaultCode   // what is wrong with the pair that nobody watches
	copies   bool              // some endpoint's consumer loads a copy
	badPairs bool              // Options.Pairs is there
	silenced []simSilence

	simDaemon
	simChecks
	lines [4000]simLine // the story, as a ring
	told  int
	err   error
}

// simLine is a line of the story; it is worded when it is wanted.
type simLine struct {
	t, offset time.Duration
	format    string
	args      []any
}

func (w *sim) log(format string, args ...any) {
	w.lines[w.told%len(w.lines)] = simLine{w.t, w.offset, format, args}
	w.told++
}

// fail ends the simulation: something is not as it must be.
func (w *sim) fail(format string, args ...any) {
	if w.err == nil {
		w.err = fmt.Errorf("%s", fmt.Sprintf(format, args...))
		w.log("VIOLATION "+strings.ReplaceAll(format, "%", "%%"), nil)
		w.lines[(w.told-1)%len(w.lines)] = simLine{w.t, w.offset, "VIOLATION " + format, args}
	}
}

// tail returns the last lines of the story.
func (w *sim) tail(n int) string {
	var b strings.Builder
	n = min(n, w.told, len(w.lines))
	for i := w.told - n; i < w.told; i++ {
		l := w.lines[i%len(w.lines)]
		fmt.Fprintf(&b, "%s", simTime(l.t).Format("2006-01-02 15:04:05.000"))
		if l.offset != 0 {
			fmt.Fprintf(&b, " (clock %+v)", l.offset)
		}
		fmt.Fprintf(&b, "  %s\n", fmt.Sprintf(l.format, l.args...))
	}
	return b.String()
}

// Now is what the wall clock shows, with the monotonic clock's reading.
func (w *sim) Now() time.Time {
	if of := [3]time.Duration{w.t, w.offset, w.asleep}; of != w.nowOf {
		w.now, w.nowOf = simNow(w.t+w.offset, w.t-w.asleep+simHour), of
	}
	return w.now
}

// Boot is the time since the host booted.
func (w *sim) Boot() time.Duration { return w.t + simHour }

func (w *sim) after(d time.Duration, do func()) { w.queue.push(w.t+d, do) }

// chance, between, span and pick are the world's dice.
func (w *sim) chance(p float64) bool { return w.rng.Float64() < p }

func (w *sim) between(from, to time.Duration) time.Duration {
	return from + time.Duration(w.rng.Float64()*float64(to-from))
}

// span draws a time between from and to, short ones as often as long ones.
func (w *sim) span(from, to time.Duration) time.Duration {
	f, x := float64(from), w.rng.Float64()
	for ratio := float64(to) / f; ratio > 2; ratio /= 2 {
		if w.rng.IntN(2) == 0 {
			f *= 2
		}
	}
	return min(time.Duration(f*(1+x)), to)
}

func simPick[T any](w *sim, all ...T) T { return all[w.rng.IntN(len(all))] }

// simLeaf is one leaf of a lineage.
type simLeaf struct {
	cert     *simCert
	n        int
	from, to time.Duration // validity, in true time
	sha      string
	x        *x509.Certificate
	served   *notify.Served
	trusted  bool
	key      string
}

// simPlace is an endpoint.
type simPlace struct {
	cert     *simCert
	url      verify.Endpoint
	told     string
	required bool
	byDef    bool
	copies   bool // its consumer loads a copy that a hook builds
	addrs    []*simAddr
	seen     bool // for a default one: it was seen serving the lineage
}

// simAddr is one address of an endpoint.
type simAddr struct {
	place  *simPlace
	server *simServer
	ip     string
	v6     bool
	edge   bool // something else than the server answers there
	down   bool
	hidden bool     // for ever
	stuck  *simLeaf // it serves this one, whatever the server has loaded
	zombie *simLeaf // an old process answers half of the time
	since  time.Duration
}

// simServer is a program that serves certificates.
type simServer struct {
	name     string
	brittle  bool // it dies when it loads a bad pair
	dead     bool
	loaded   []*simLeaf // by certificate
	certs    []*simCert
	lose     float64 // share of reloads without effect
	fail     float64 // share of reloads that fail
	slow     bool
	stubborn float64 // share of renewals for which only a later way helps
	needs    reload.Step
	runs     []*simRun
	running  *simRun
	window   reload.Windows
}

// answer returns what a connection to an address meets: nothing, or a leaf.
func (a *simAddr) answer() (leaf *simLeaf, down bool) {
	if a.down || a.hidden || a.server.dead && !a.edge {
		return nil, true
	}
	if a.stuck != nil {
		return a.stuck, false
	}
	leaf = a.server.loaded[a.place.cert.n]
	return leaf, leaf == nil
}

// issue makes the next leaf of a certificate.
func (w *sim) issue(c *simCert) *simLeaf {
	l := &simLeaf{cert: c, n: len(c.leaves), from: w.t - time.Hour, to: w.t - time.Hour + c.life, trusted: true, key: c.key}
	l.from = l.from.Truncate(time.Second)
	l.to = l.to.Truncate(time.Second)
	raw := binary.BigEndian.AppendUint64([]byte(c.name), uint64(l.n))
	l.x = &x509.Certificate{Raw: raw, DNSNames: c.names, NotBefore: simTime(l.from), NotAfter: simTime(l.to)}
	sum := sha256.Sum256(raw)
	l.sha = fmt.Sprintf("%x", sum)
	l.served = &notify.Served{SHA256: l.sha, Serial: fmt.Sprint(l.n), Names: c.names, NotBefore: l.x.NotBefore, NotAfter: l.x.NotAfter, Issuer: "sim"}
	c.leaves = append(c.leaves, l)
	return l
}

// newSim makes the world of a seed, with as many certificates and as many looks
// at them as the seed has it, unless certs and every say else.
func newSim(seed uint64, certs int, every time.Duration) *sim {
	w := &sim{seed: seed, rng: rand.New(rand.NewPCG(seed, 0x5eed)), places: map[string]*simPlace{}, nowOf: [3]time.Duration{-1}}
	n := simPick(w, 1, 1, 1, 1, 2, 2, 3, 4, 6, 8)
	if seed%500 == 499 {
		n = 100
	}
	if certs > 0 {
		n = certs
	}
	switch {
	case n == 1:
		w.every = simPick(w, time.Hour, 2*time.Hour)
	case n <= 4:
		w.every = simPick(w, 3*time.Hour, 6*time.Hour)
	case n <= 8:
		w.every = 8 * time.Hour
	default:
		w.every = simDay
	}
	if every > 0 {
		w.every = every
	}
	w.policy = Policy{Grace: simPick(w, 30*time.Second, 30*time.Second, 5*time.Second, 5*time.Minute), Deadline: simPick(w, 15*time.Minute, 15*time.Minute, time.Hour),
		Retries: [][]time.Duration{{0, time.Minute, 10 * time.Minute}, {0, time.Minute, 10 * time.Minute}, {0}, {0, 30 * time.Second}, {}}[simPick(w, 0, 0, 0, 1, 2, 3, 4)],
		Recheck: []time.Duration{time.Minute, 10 * time.Minute, time.Hour}, Every: w.every, Samples: 12, Spread: 2 * time.Second, Repair: !w.chance(0.07)}
	w.locks, w.logged = w.chance(0.6), seed%3 != 0
	w.badPairs = w.chance(0.1)
	w.lazy = simPick(w, time.Second, time.Hour, time.Hour, 6*time.Hour, 6*time.Hour)
	for range 1 + w.rng.IntN(min(3, n)) {
		w.addServer(n)
	}
	for i := range n {
		w.addCert(i)
	}
	for i := range w.moody {
		w.moody[i] = simPick(w, 0, 0.5, 1, 1, 2)
	}
	w.begun()
	return w
}

func (w *sim) addServer(n int) {
	s := &simServer{name: fmt.Sprintf("s%d", len(w.servers)), loaded: make([]*simLeaf, n), brittle: w.chance(0.4), slow: w.chance(0.3), lose: simPick(w, 0, 0, 0.1, 0.6),
		fail: simPick(w, 0, 0, 0.1, 0.5), stubborn: simPick(w, 0, 0, 0.3)}
	if w.chance(0.2) {
		from := time.Duration(w.rng.IntN(24)) * time.Hour
		s.window = reload.Windows{{From: from, To: from + time.Duration(1+w.rng.IntN(10))*time.Hour, Zone: time.UTC}}
		if w.chance(0.3) {
			s.window[0].Days = []time.Weekday{time.Tuesday, time.Saturday}
		}
	}
	w.servers = append(w.servers, s)
}

func (w *sim) addCert(i int) {
	c := &simCert{n: i, name: fmt.Sprintf("c%d", i), names: []string{fmt.Sprintf("c%d.example.org", i)}, key: "ecdsa", roots: x509.NewCertPool(),
		life: simPick(w, 6*simDay, 45*simDay, 64*simDay, 90*simDay, 90*simDay), glob: w.chance(0.2), hook: simPick(w, 0, 0.5, 0.9)}
	if w.every == simDay && c.life == 6*simDay {
		c.life = 45 * simDay
	}
	c.path = "/nonexistent/sim/live/" + c.name + "/fullchain.pem"
	s := simPick(w, w.servers...)
	s.certs = append(s.certs, c)
	c.server = s
	address := func(p *simPlace, s *simServer) {
		for _, v6 := range simPick(w, []bool{false}, []bool{false, true}, []bool{false, true}, []bool{true}, []bool{false, false, true}) {
			a := &simAddr{place: p, server: s, v6: v6, ip: fmt.Sprintf("192.0.2.%d:443", len(p.addrs)+1)}
			if v6 {
				a.ip = fmt.Sprintf("[2001:db8::%d]:443", len(p.addrs)+1)
			}
			a.edge = len(p.addrs) > 0 && w.chance(0.1)
			p.addrs = append(p.addrs, a)
		}
		p.cert = c
		w.places[p.told] = p
		c.places = append(c.places, p)
	}
	place := func(text string, required bool) *simPlace {
		u, err := verify.ParseEndpoint(text)
		if err != nil {
			panic(err)
		}
		return &simPlace{url: u, told: u.String(), required: required}
	}
	switch mode := w.rng.IntN(10); {
	case mode == 0:
		c.unwatched = true
	case mode < 4:
		p := place("https://"+c.names[0], true)
		p.byDef = true
		address(p, s)
		if w.chance(0.2) { // nobody reaches it from here
			for _, a := range p.addrs {
				a.hidden = true
			}
		}
	default:
		p := place(fmt.Sprintf("https://%s:%d", c.names[0], 1000+i), true)
		p.copies = w.chance(0.1)
		w.copies = w.copies || p.copies
		address(p, s)
		if w.chance(0.3) {
			other := s
			if w.chance(0.5) {
				if other = simPick(w, w.servers...); !slices.Contains(other.certs, c) {
					other.certs = append(other.certs, c)
				}
			}
			address(place(fmt.Sprintf("https://%s:%d", c.names[0], 3000+i), w.chance(0.6)), other)
		}
	}
	// What lay there before anybody watched, and what the servers have of it.
	w.t -= c.life/2 + w.between(0, c.life/8)
	old := w.issue(c)
	w.t = 0
	c.disk, c.copied = old, old
	if old.from > 0 {
		panic("a leaf of the future")
	}
	for _, s := range w.servers {
		s.loaded[i] = old
	}
	c.roots.AddCert(old.x)
	w.certs = append(w.certs, c)
}

// servers that the daemon knows.
func (w *sim) setup() Setup {
	s := Setup{Servers: map[string]reload.Server{}, Windows: map[string]Window{}}
	for _, x := range w.servers {
		s.Servers[x.name] = reload.Server{Name: x.name, Way: reload.Way{Unit: x.name}}
		if len(x.window) > 0 {
			s.Windows[x.name] = x.window
		}
	}
	for _, c := range w.certs {
		if c.left {
			continue
		}
		conf := Certificate{Source: c.source(), Policy: w.policy, Server: c.server.name, Roots: Roots{Pool: c.roots}}
		if w.logged {
			conf.Logs = c.logs()
		}
		if c.unwatched {
			conf.Endpoints = []Endpoint{}
		}
		for _, p := range c.places {
			if p.byDef {
				break
			}
			e := Endpoint{URL: p.url, Text: p.told, Required: p.required, Server: p.addrs[0].server.name}
			if p.copies {
				e.File = c.path + ".copy"
			}
			conf.Endpoints = append(conf.Endpoints, e)
		}
		s.Certificates = append(s.Certificates, conf)
	}
	return s
}

// load makes a server load what is on disk, as a reload does.
func (w *sim) load(s *simServer) {
	for _, c := range s.certs {
		if c.bad != "" && simBreaks(c.bad) && !c.gone {
			if s.brittle {
				w.log("%s loads the bad pair of %s and dies", s.name, c.name)
				w.die(s)
			} else {
				w.log("%s does not load the bad pair of %s", s.name, c.name)
			}
			return
		}
	}
	if w.stranger != "" && s == w.servers[0] {
		if s.brittle {
			w.die(s)
		}
		return
	}
	for _, c := range s.certs {
		leaf := c.disk
		if len(c.places) > 0 && c.places[0].copies && c.places[0].addrs[0].server == s {
			leaf = c.copied
		}
		if c.gone || s.loaded[c.n] == leaf {
			continue
		}
		w.log("%s loads leaf %d of %s", s.name, leaf.n, c.name)
		s.loaded[c.n] = leaf
		w.moved(c)
	}
}

// die ends a server until somebody starts it.
func (w *sim) die(s *simServer) {
	s.dead = true
	for _, c := range s.certs {
		w.moved(c)
	}
	w.after(w.span(time.Minute, 8*time.Hour), func() { w.revive(s) })
}

func (w *sim) revive(s *simServer) {
	if !s.dead {
		return
	}
	for _, c := range s.certs {
		if c.bad != "" && simBreaks(c.bad) && !c.gone {
			w.after(time.Hour, func() { w.revive(s) })
			return
		}
	}
	s.dead = false
	w.log("%s is started again", s.name)
	w.load(s)
	for _, c := range s.certs {
		w.moved(c)
	}
}

// moved notes that what is served for a certificate, or lies on disk, has
// changed.
func (w *sim) moved(c *simCert) {
	for _, p := range c.places {
		for _, a := range p.addrs {
			a.since = w.t
		}
	}
	w.weigh(c)
	for _, p := range slices.Clone(w.confirms) {
		if p.c == c {
			w.confirm(p)
		}
	}
}
