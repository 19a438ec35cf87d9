package watchdog

import (
	"fmt"
	"slices"
	"time"

	"github.com/renewatch/renewatch/internal/reload"
	"github.com/renewatch/renewatch/watch"
)

// The sorts of trouble, each with a rate of its own in each world.
const (
	simKills = iota
	simStops
	simSuspends
	simTurns
	simFull
	simTorn
	simDown
	simDies
	simZombie
	simStuck
	simBroken
	simReverted
	simRemoved
	simRewritten
	simAway
	simSilences
	simLeaves
	simNATS
	simMute
	simStranger
	simPeople
	simNeeds
	simMoods
)

// simEvery is how often each trouble comes on the average, where the world's mood
// is 1.
var simEvery = [simMoods]time.Duration{
	simKills: 8 * simDay, simStops: 30 * simDay, simSuspends: 25 * simDay, simTurns: 50 * simDay, simFull: 40 * simDay, simTorn: simYear,
	simDown: 10 * simDay, simDies: 60 * simDay, simZombie: 60 * simDay, simStuck: 60 * simDay, simBroken: 25 * simDay, simReverted: 70 * simDay,
	simRemoved: 100 * simDay, simRewritten: 5 * simDay, simAway: 120 * simDay, simSilences: 30 * simDay, simLeaves: 90 * simDay, simNATS: 20 * simDay,
	simMute: 60 * simDay, simStranger: 30 * simDay, simPeople: simDay, simNeeds: 60 * simDay,
}

// simSilence is a silence that somebody asked for.
type simSilence struct {
	Silenced
	cert *simCert // nil: all
	told string   // the endpoint, as events call it
}

// trouble lets each sort of trouble come at random times.
func (w *sim) trouble() {
	for kind := range simMoods {
		if w.moody[kind] == 0 && kind != simPeople {
			continue
		}
		mean := simEvery[kind]
		if kind != simPeople {
			mean = time.Duration(float64(mean) / w.moody[kind])
		}
		if len(w.certs) > 10 && kind > simTorn {
			mean /= 10
		}
		w.next(kind, mean)
	}
}

func (w *sim) next(kind int, mean time.Duration) {
	w.after(time.Duration(w.rng.ExpFloat64()*float64(mean)), func() {
		if w.calm {
			return
		}
		w.strike(kind)
		w.next(kind, mean)
	})
}

func (w *sim) strike(kind int) {
	c := simPick(w, w.certs...)
	s := simPick(w, w.servers...)
	var a *simAddr
	if len(c.places) > 0 {
		a = simPick(w, simPick(w, c.places...).addrs...)
	}
	switch kind {
	case simKills:
		if w.k != nil && w.fuse == 0 {
			w.fuse = 1 + w.rng.IntN(simPick(w, 5, 60))
		}
	case simStops:
		w.stop()
	case simSuspends:
		w.suspend(w.span(90*time.Second, 12*time.Hour))
	case simTurns:
		w.strikeClock()
	case simFull:
		w.strikeDisk()
	case simTorn: // see killed
	case simDown:
		if a != nil && !a.down {
			a.down = true
			w.log("%s of %s is down", a.ip, c.name)
			w.moved(c)
			w.after(w.span(2*time.Second, 6*time.Hour), func() {
				a.down = false
				w.log("%s of %s is up", a.ip, c.name)
				w.moved(c)
			})
		}
	case simDies:
		if !s.dead {
			w.log("%s dies", s.name)
			w.die(s)
		}
	case simZombie:
		if a != nil && a.zombie == nil {
			if l, down := a.answer(); !down {
				a.zombie = l
				w.log("an old process stays at %s of %s with leaf %d", a.ip, c.name, l.n)
				w.moved(c)
				w.after(w.span(time.Minute, 2*simDay), func() {
					a.zombie = nil
					w.log("the old process at %s of %s is gone", a.ip, c.name)
					w.moved(c)
				})
			}
		}
	case simStuck:
		if a != nil && a.stuck == nil {
			if l, down := a.answer(); !down {
				a.stuck = l
				w.log("%s of %s sticks to leaf %d", a.ip, c.name, l.n)
				w.moved(c)
				w.after(w.span(10*time.Minute, 3*simDay), func() { w.loosen(c, a) })
			}
		}
	case simBroken:
		w.strikeFiles(c)
	case simReverted:
		w.strikeBack(c)
	case simRemoved:
		if !c.gone && !c.running && c.bad == "" {
			c.gone = true
			w.log("%s is deleted", c.name)
			w.touched(c)
			w.after(w.span(time.Second, 10*simDay), func() {
				if c.gone {
					w.log("%s comes back", c.name)
					w.put(c, c.disk)
				}
			})
		}
	case simRewritten:
		if !c.gone && c.bad == "" {
			w.writes(c, func() { w.put(c, c.disk) })
		}
	case simAway:
		c.away = w.t + w.span(simDay, max(2*simDay, c.life*simPick[time.Duration](w, 1, 1, 1, 2)/2))
		w.log("the client of %s is away for %s", c.name, c.away-w.t)
	case simSilences:
		w.silence()
	case simLeaves:
		w.strikeConfig(c)
	case simNATS:
		if !w.book.away {
			w.book.away = true
			w.log("NATS is away")
			w.after(w.span(time.Second, 5*simDay), func() { w.log("NATS is back"); w.book.away = false; w.book.send() })
		}
	case simMute:
		if !w.mute {
			w.log("no look-up is answered")
			w.setMute(true)
			w.excuse("resolver")
			w.after(w.span(10*time.Second, 6*time.Hour), func() { w.log("look-ups are answered"); w.setMute(false); w.excuse("resolver") })
		}
	case simStranger:
		if w.badPairs && w.stranger == "" {
			w.stranger = watch.HalfWritten
			w.strangerAt = w.t
			w.log("a pair that nobody watches is broken")
			w.after(w.span(time.Second, 3*simDay), func() {
				w.log("it is sound again")
				w.weighAgent()
				w.stranger, w.strangerAt = "", w.t
			})
		}
	case simPeople:
		w.people()
	case simNeeds:
		if w.chance(s.stubborn) {
			s.needs = simPick(w, reload.Touch, reload.Last)
			w.log("%s needs %s from now on", s.name, s.needs)
			w.after(w.span(simDay, 60*simDay), func() { s.needs = "" })
		}
	}
}

func (w *sim) loosen(c *simCert, a *simAddr) {
	if a.stuck == nil {
		return
	}
	a.stuck = nil
	if a.edge && !a.server.dead { // what stands before it has caught up
		w.log("%s of %s follows the server again", a.ip, c.name)
	}
	w.log("%s of %s sticks no more", a.ip, c.name)
	w.moved(c)
}

func (w *sim) strikeClock() {
	if w.offset != 0 {
		return
	}
	d := w.span(20*time.Second, 3*simDay)
	if w.chance(0.5) {
		d = -d
	}
	w.turn(d)
	w.after(w.span(10*time.Second, simDay), func() { w.turn(-w.offset) })
}

func (w *sim) strikeDisk() {
	store, book := w.chance(0.7), w.chance(0.7)
	if w.store.full || w.book.full || !store && !book {
		return
	}
	w.log("the disk is full: store %t, journal %t", store, book)
	w.store.full, w.book.full = store, book
	w.excuse("disk")
	w.after(w.span(time.Second, 10*time.Hour), func() {
		w.log("the disk has room")
		w.store.full, w.book.full = false, false
		w.excuse("disk")
	})
}

func (w *sim) strikeFiles(c *simCert) {
	if c.bad != "" || c.gone || c.running {
		return
	}
	c.bad = simPick(w, watch.HalfWritten, watch.OtherKey, watch.Missing, watch.KeyMissing, watch.NoPermission)
	w.log("the files of %s are %s", c.name, c.bad)
	w.touched(c)
	w.after(w.span(time.Second, 2*simDay), func() {
		if c.bad == "" || c.gone || c.running {
			return
		}
		w.put(c, c.disk)
	})
}

// strikeBack lets something put an older leaf back.
func (w *sim) strikeBack(c *simCert) {
	if c.bad != "" || c.gone || c.running || c.disk.n == 0 {
		return
	}
	newest := c.leaves[len(c.leaves)-1]
	old := c.leaves[c.disk.n-1-w.rng.IntN(min(2, c.disk.n))]
	w.writes(c, func() { w.put(c, old) })
	w.after(w.span(time.Second, simDay), func() {
		if c.disk != newest && !c.gone && !c.running && newest == c.leaves[len(c.leaves)-1] {
			w.put(c, newest)
		}
	})
}

// strikeConfig takes a certificate out of the configuration for a while.
func (w *sim) strikeConfig(c *simCert) {
	if c.left {
		return
	}
	change := func(left bool) {
		c.left = left
		w.log("%s is configured: %t", c.name, !left)
		w.weigh(c) // what is wrong with it counts from now on
		if w.k == nil {
			return
		}
		w.reconfigure()
		if w.k != nil {
			w.watchAnew(c)
		}
	}
	change(true)
	w.after(w.span(time.Second, 20*simDay), func() { change(false) })
}

// silence is asked for by somebody.
func (w *sim) silence() {
	from := w.Now().Round(0)
	x := simSilence{Silenced: Silenced{Silence: Silence{ID: fmt.Sprint(w.told), Since: from, Until: from.Add(w.span(time.Minute, 7*simDay)), Force: w.chance(0.3)}}}
	c := simPick(w, w.certs...)
	switch n := w.rng.IntN(4); {
	case n == 0:
		x.All = true
	case n == 1 && len(c.places) > 0:
		p := simPick(w, c.places...)
		x.URL, x.cert, x.told = p.url, c, p.told
	default:
		x.Certificate, x.cert = c.name, c
	}
	w.silenced = append(w.silenced, x)
	w.log("a silence of %s%s, all %t, until %s, force %t", x.Certificate, x.told, x.All, stamp(x.Until), x.Force)
	w.setSilences()
	// One that nobody needs any more is taken off the list, or ended early.
	w.after(w.span(time.Minute, 8*simDay), func() {
		w.silenced = slices.DeleteFunc(w.silenced, func(y simSilence) bool { return y.ID == x.ID })
		w.log("the silence of %s%s is off the list", x.Certificate, x.told)
		w.setSilences()
	})
}

func (w *sim) setSilences() {
	for _, c := range w.certs {
		c.silencedAt = w.t
		w.weigh(c)
	}
	w.inKeeper(func() { w.k.setSilences(w.silences()) })
}

func (w *sim) silences() []Silenced {
	var out []Silenced
	for _, x := range w.silenced {
		out = append(out, x.Silenced)
	}
	return out
}

// mend is what somebody does who was alerted.
func (w *sim) mend(c *simCert) {
	if c.gone || c.left {
		return
	}
	w.log("somebody looks after %s", c.name)
	if !c.running && (c.bad != "" || c.disk.n < len(c.leaves)-1) {
		w.put(c, c.leaves[len(c.leaves)-1])
	}
	for _, p := range c.places {
		s := p.addrs[0].server
		if s.dead {
			w.revive(s)
		}
		for _, a := range p.addrs {
			a.down, a.zombie, a.stuck = false, nil, nil
		}
		c.copied = c.disk
		s.needs = ""
		if c.bad == "" {
			w.load(s)
		}
	}
	w.moved(c)
	c.away = 0
	if !c.running && c.bad == "" && w.t > c.due() {
		w.clientRuns(c)
	}
}

// people look after what has been wrong for long.
func (w *sim) people() {
	for _, s := range w.servers {
		for _, c := range s.certs {
			if !c.gone && c.bad == "" && !c.running && s.loaded[c.n] != c.disk && w.t-c.changed > 12*time.Hour && w.chance(0.7) {
				w.log("somebody restarts %s", s.name)
				s.needs = ""
				w.load(s)
				break
			}
		}
	}
}

// heal makes the world good.
func (w *sim) heal() {
	w.log("the world heals")
	w.calm, w.still = true, w.t+5*simDay-2*time.Hour
	w.fuse = 0
	w.setMute(false)
	w.store.full, w.book.full = false, false
	w.book.away, w.stranger, w.strangerAt = false, "", w.t
	w.silenced = nil
	w.setSilences()
	if w.offset != 0 {
		w.turn(-w.offset)
	}
	for _, c := range w.certs {
		c.away = 0
		for _, p := range c.places {
			for _, a := range p.addrs {
				a.down, a.zombie, a.stuck = false, nil, nil
			}
		}
		if c.left {
			c.left = false
			if w.k != nil {
				w.reconfigure()
				w.watchAnew(c)
			}
		}
		if newest := c.leaves[len(c.leaves)-1]; !c.running && (c.disk != newest || c.bad != "" || c.gone || !newest.trusted) {
			if newest.trusted {
				w.put(c, newest)
			} else {
				w.clientRuns(c)
			}
		}
	}
	w.book.send()
	if w.k == nil {
		w.start()
	}
	w.excuse("heal")
	// The hands of people, in case the daemon may not reload.
	w.after(36*time.Hour, func() {
		for _, s := range w.servers {
			s.dead, s.needs = false, ""
			for _, c := range s.certs {
				c.copied = c.disk
			}
			w.load(s)
			for _, c := range s.certs {
				w.moved(c)
			}
		}
	})
}
