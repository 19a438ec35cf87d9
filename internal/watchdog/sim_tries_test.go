package watchdog

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/renewatch/renewatch/notify"
	"github.com/renewatch/renewatch/watch"
	"github.com/renewatch/renewatch/watch/acmelog"
)

// simTry is an attempt of a simulated ACME client.
type simTry struct {
	id      string
	cert    *simCert
	began   time.Time
	dry     bool
	leaf    *simLeaf      // that it brought
	failed  time.Duration // when its failure was heard; 0: it was not, or did not fail
	said    int           // how often renewal.failed was said of it
	renewal string        // of renewal.attempted
	sights  int           // of leaves, when that was said
	past    bool          // when its failure was heard, the daemon had seen a leaf that came after it
}

// simLog is the log of a certificate's client, as a follower reads it.
type simLog struct {
	lines []watch.Heard
	visible,
	read int
	tries  map[string]*simTry
	try    *simTry // that goes on
	sights int     // how many leaves the daemon has seen
	seen   map[string]bool
}

func (c *simCert) logs() []watch.Log {
	return []watch.Log{{Client: acmelog.Lego, File: "/nonexistent/sim/" + c.name + ".log"}}
}

// tries begins an attempt; logged after a while.
func (w *sim) tries(c *simCert, dry bool) *simTry {
	if c.log.tries == nil {
		c.log.tries = map[string]*simTry{}
	}
	t := &simTry{id: fmt.Sprintf("%s-%d", c.name, len(c.log.tries)), cert: c, began: w.Now(), dry: dry}
	c.log.tries[t.id] = t
	w.writeLog(t, acmelog.Running)
	return t
}

func (w *sim) writeLog(t *simTry, outcome acmelog.Outcome) {
	if !w.logged {
		return
	}
	c := t.cert
	a := acmelog.Attempt{Client: acmelog.Lego, Log: "lego.log", Lineage: c.name, Names: c.names, CA: "https://ca.example/" + t.id, DryRun: t.dry,
		Started: t.began, Outcome: outcome, Phase: acmelog.PhaseOrder}
	switch outcome {
	case acmelog.Failed:
		a.Ended, a.ProblemType, a.ProblemDetail = w.Now(), acmelog.Network, "the CA is away"
	case acmelog.Issued:
		a.Ended, a.Phase, a.Saved = w.Now(), acmelog.PhaseSaved, []string{c.path}
		if w.chance(0.1) {
			a.Hook = &acmelog.Hook{Kind: "deploy", ExitCode: 3}
		}
	}
	c.log.lines = append(c.log.lines, watch.Heard{Log: c.logs()[0], Kind: watch.Attempted, Attempt: &a, ID: t.id})
	n := len(c.log.lines)
	w.after(w.span(10*time.Millisecond, 3*time.Minute), func() {
		c.log.visible = max(c.log.visible, n)
		w.readLog(c)
	})
}

// readLog is the follower: what the daemon did not take is told again.
func (w *sim) readLog(c *simCert) {
	if c.log.read >= c.log.visible || !w.up() {
		return
	}
	if c.left {
		c.log.read = c.log.visible
		return
	}
	some := slices.Clone(c.log.lines[c.log.read:c.log.visible])
	for i := range some {
		some[i].Time = w.Now()
		t := c.log.tries[some[i].ID]
		if some[i].Attempt.Outcome == acmelog.Failed && t.failed == 0 {
			t.failed = w.t
			t.past = c.newest != nil && simTime(c.newest.from).After(t.began.Add(-70*time.Minute))
		}
	}
	gen, ok := w.gen, false
	w.inKeeper(func() { ok = w.k.hear(some) == nil })
	if gen == w.gen && ok {
		c.log.read += len(some)
	} else {
		w.after(5*time.Second, func() { w.readLog(c) })
	}
}

// logsAnew is the follower after a start: what went on may be told again.
func (w *sim) logsAnew() {
	for _, c := range w.certs {
		c.log.read = max(0, c.log.read-w.rng.IntN(4))
		gen := w.gen
		w.after(w.span(10*time.Second, time.Minute), func() {
			if gen == w.gen {
				w.readLog(c)
			}
		})
	}
}

// excusedTry: the clock was moved, or what was known was lost.
func (w *sim) excusedTry(c *simCert, since time.Duration) bool {
	return c.torn > since-simHour || w.store.lost > 0 || slices.ContainsFunc(w.turned, func(at time.Duration) bool { return at > since-simDay })
}

// tried checks what is said of an attempt.
func (w *sim) tried(c *simCert, d notify.Draft) {
	a := d.Data.Attempt
	if a == nil {
		w.fail("%s without an attempt", d.Kind)
		return
	}
	t := c.log.tries[strings.TrimPrefix(a.CA, "https://ca.example/")]
	if t == nil || t.dry {
		w.fail("%s of %q, which is no attempt to renew %s", d.Kind, a.CA, c.name)
		return
	}
	if d.Kind == notify.RenewalAttempted {
		if t.renewal != "" && !w.excusedTry(c, 0) {
			w.fail("renewal.attempted twice of %s", t.id)
		}
		t.renewal, t.sights = d.Data.RenewalID, c.log.sights
		return
	}
	t.said++
	if t.said > 1 && !w.excusedTry(c, 0) {
		w.fail("renewal.failed twice of %s", t.id)
	}
	if l := t.leaf; l != nil && (c.log.seen[l.sha] || c.disk == l && c.bad == "" && !c.gone && w.t-c.changed > 10*time.Second) && !w.excusedTry(c, w.t) {
		w.fail("renewal.failed of %s, whose leaf is on disk", t.id)
	}
}

// joined checks that the story of a leaf is that of the attempt that brought it.
func (w *sim) joined(c *simCert, d notify.Draft) {
	for _, t := range c.log.tries {
		if l := t.leaf; l != nil && l.sha == d.Leaf && t.renewal != "" && t.sights == c.log.sights && t.renewal != d.Data.RenewalID && !w.excusedTry(c, w.t) {
			w.fail("%s has the renewal %s, and its leaf %s", t.id, t.renewal, d.Data.RenewalID)
		}
	}
}

// allTold checks that every failure was told.
func (w *sim) allTold(c *simCert) {
	for _, id := range sortedKeys(c.log.tries) {
		t := c.log.tries[id]
		if t.failed != 0 && !t.dry && t.said == 0 && !t.past && !w.excusedTry(c, t.failed) {
			w.fail("the failure of %s, heard after %s, was never told", id, t.failed)
		}
	}
}
