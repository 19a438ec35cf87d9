package watchdog

import (
	"crypto/x509"
	"time"

	"github.com/renewatch/renewatch/watch"
	"github.com/renewatch/renewatch/watch/acmelog"
)

// simCert is one lineage: its files, its ACME client, what the watcher has told
// of it, and how it is served.
type simCert struct {
	n         int
	name      string
	names     []string
	path      string
	life      time.Duration
	key       string
	glob      bool
	unwatched bool // endpoints: []
	left      bool // it is not configured just now
	server    *simServer
	places    []*simPlace
	roots     *x509.CertPool
	leaves    []*simLeaf

	// The files.
	disk    *simLeaf // the sound leaf that lies there, or did before bad or gone
	bad     watch.FaultCode
	gone    bool
	copied  *simLeaf // in the copy that a hook builds
	newest  *simLeaf // that the daemon has seen
	changed time.Duration

	// The watcher.
	verdict string // that was told last; "": none
	signed  bool   // there was a change since
	sign    time.Time
	steady  time.Duration
	loaded  bool

	// The client.
	running bool
	runFrom time.Duration
	ranLong time.Duration // the end of the last run that took longer than anybody waits for its hooks
	wrote   bool          // this run has written the leaf on disk
	away    time.Duration
	hook    float64 // share of runs whose hook reloads the server
	log     simLog

	simTruth
}

func (c *simCert) source() watch.Source {
	if c.glob {
		return watch.Source{Cert: "/nonexistent/sim/live/" + c.name[:1] + "[" + c.name[1:2] + "]" + c.name[2:] + "/fullchain.pem"}
	}
	return watch.Source{Name: c.name, Cert: c.path}
}

// simBreaks reports whether a server that loads such a pair fails.
func simBreaks(code watch.FaultCode) bool { return code != "" && code != watch.NoPermission }

// sight is what a look at the files finds.
func (c *simCert) sight() string {
	switch {
	case c.gone:
		return "removed"
	case c.bad != "":
		return string(c.bad)
	}
	return c.disk.sha
}

// touched tells the watcher that the files have changed.
func (w *sim) touched(c *simCert) {
	c.changed = w.t
	w.weigh(c)
	if !w.up() || c.left {
		return
	}
	if !c.signed {
		c.signed, c.sign = true, w.Now()
		w.lookIn(c, 2*time.Second)
	}
	c.steady = w.t
}

func (w *sim) lookIn(c *simCert, d time.Duration) {
	gen := w.gen
	w.after(d, func() {
		if gen == w.gen && w.up() && c.signed && !c.left {
			w.lookAt(c)
		}
	})
}

// lookAt is the watcher's look: it concludes when all has been the same for 2 s.
func (w *sim) lookAt(c *simCert) {
	if rest := c.steady + 2*time.Second - w.t; rest > 0 {
		w.lookIn(c, rest)
		return
	}
	c.signed = false
	now := c.sight()
	if now == c.verdict || now == "removed" && c.verdict == "" {
		return
	}
	c.verdict = now
	o := watch.Observation{Kind: watch.Loaded, Name: c.name, Source: c.source(), Path: c.path, Time: w.Now(), Since: c.sign}
	switch {
	case c.gone:
		o.Kind, c.loaded = watch.Removed, false
	case c.bad != "":
		o.Kind = watch.Broken
		o.Fault = &watch.Fault{Code: c.bad, Path: c.path, Sentence: c.path + " is " + string(c.bad), Hint: "write it anew"}
		if o.Fault.Absent() || c.bad == watch.NoPermission {
			o.Kind = watch.Unreadable
		}
	default:
		o.Pair = &watch.Pair{CertPath: c.path, KeyPath: c.path + ".key", Chain: []*x509.Certificate{c.disk.x}, Key: watch.KeyMatches}
		if c.loaded {
			o.Kind = watch.Changed
		}
		c.loaded = true
		for _, l := range c.leaves {
			if l != c.disk && l.n < len(c.leaves)-1 && w.seed%2 == 0 {
				o.History = append(o.History, l.x)
			}
		}
		if n := len(o.History); n > 64 {
			o.History = o.History[n-64:]
		}
	}
	w.log("files of %s: %s %.12s", c.name, o.Kind, now)
	w.inKeeper(func() { w.k.observe(o) })
	w.observed(c, o)
}

// watcherStarts looks at everything for the first time.
func (w *sim) watcherStarts() {
	for _, c := range w.certs {
		w.watchAnew(c)
	}
}

func (w *sim) watchAnew(c *simCert) {
	c.verdict, c.loaded, c.signed = "", false, !c.left
	if c.left {
		return
	}
	c.sign = w.Now()
	wait := 20 * time.Millisecond
	if settled := c.changed + 2*time.Second - w.t; settled > wait {
		wait = settled
	} else {
		c.steady = c.changed
	}
	w.lookIn(c, wait)
}

// due is when a certificate ought to be renewed.
func (c *simCert) due() time.Duration {
	if c.life < 10*simDay {
		return c.disk.to - c.life/2
	}
	return c.disk.to - c.life/3
}

// clientWakes is the timer of the ACME client.
func (w *sim) clientWakes(c *simCert) {
	w.after(w.between(min(10*time.Hour, c.life/50), min(12*time.Hour, c.life/40)), func() { w.clientWakes(c) })
	if w.calm && w.t > w.still {
		return
	}
	if w.t < c.away || c.running || c.gone || c.disk.n < len(c.leaves)-1 || w.t < c.due() {
		return
	}
	if w.chance(0.03) && !w.calm {
		t := w.tries(c, false)
		w.after(w.span(time.Second, 10*time.Minute), func() { w.writeLog(t, acmelog.Failed) })
		return // the CA does not answer
	}
	if w.chance(0.1) {
		t := w.tries(c, true)
		w.after(time.Second, func() { w.writeLog(t, simPick(w, acmelog.Failed, acmelog.Issued)) })
	}
	w.clientRuns(c)
}

// clientRuns is one run: it writes the files, and ends at some time.
func (w *sim) clientRuns(c *simCert) {
	c.running, c.runFrom, c.wrote = true, w.t, false
	c.log.try = w.tries(c, false)
	lasts := w.span(10*time.Second, 3*time.Minute)
	if w.chance(0.1) && !w.calm {
		lasts = w.span(3*time.Minute, 2*time.Hour)
	}
	w.log("the client of %s runs for %s", c.name, lasts)
	writes := w.between(lasts/10, lasts*9/10)
	if w.chance(0.1) && !c.server.dead { // standalone: it needs the server's port
		s := c.server
		s.dead = true
		for _, x := range s.certs {
			w.moved(x)
		}
		w.after(writes, func() { w.revive(s) })
	}
	w.after(writes, func() { w.writes(c, func() { w.put(c, w.issue(c)) }) })
	w.after(lasts, func() { w.clientEnds(c) })
}

// writes lets the files be half-written for a moment before what put brings.
func (w *sim) writes(c *simCert, put func()) {
	if w.chance(0.5) {
		put()
		return
	}
	c.bad = watch.OtherKey
	w.touched(c)
	half := w.span(time.Millisecond, 3*time.Second)
	if w.chance(0.05) && !w.calm {
		half = w.span(3*time.Second, time.Hour)
	}
	w.after(half, put)
}

// put lays a sound leaf on disk.
func (w *sim) put(c *simCert, l *simLeaf) {
	w.weigh(c)
	if l.n == len(c.leaves)-1 && l != c.disk {
		l.trusted = w.calm || !w.chance(0.02)
		if l.trusted {
			c.roots.AddCert(l.x)
		}
		if c.wrote = c.running; c.wrote && c.log.try != nil {
			c.log.try.leaf = l
		}
	}
	w.log("leaf %d of %s lies on disk", l.n, c.name)
	c.disk, c.bad, c.gone = l, "", false
	w.touched(c)
}

func (w *sim) clientEnds(c *simCert) {
	c.running = false
	if w.t-c.runFrom > soon {
		c.ranLong = w.t
	}
	w.log("the client of %s ends", c.name)
	if t := c.log.try; t != nil {
		c.log.try = nil
		if t.leaf != nil {
			w.writeLog(t, acmelog.Issued)
		} // else it was killed, or its files come late
	}
	w.weigh(c)
	if w.chance(0.9) || w.calm {
		c.copied = c.disk
	}
	if w.calm {
		w.after(time.Second, func() {
			for _, s := range w.servers {
				w.load(s)
			}
		})
	} else if w.chance(c.hook) {
		w.after(w.span(50*time.Millisecond, 5*time.Second), func() {
			w.log("the client's hook reloads %s", c.server.name)
			w.reloadHappens(c.server, "", nil)
		})
	}
	switch {
	case w.calm:
	case w.chance(0.05): // twice in a row
		w.after(w.span(time.Second, 10*time.Minute), func() {
			if !c.running && !c.gone && c.bad == "" {
				w.clientRuns(c)
			}
		})
	case !c.disk.trusted: // a staging CA by mistake; somebody sees it
		w.after(w.span(time.Minute, simDay), func() {
			if !c.running && !c.gone && c.bad == "" {
				w.clientRuns(c)
			}
		})
	}
}
