package lineage

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Run says whether a run of an ACME client that may have written a certificate is
// still under way.
type Run struct {
	// Known: something that tells could be asked, and Running is its answer. Without
	// it Running is false.
	Known   bool
	Running bool
	// What shows it: "certbot holds /etc/letsencrypt/.certbot.lock". Where nothing
	// is known, why.
	What string
}

// Units tells whether a systemd service is at work. An error means that this is
// not known; a service that there is not is an error too.
type Units interface {
	Running(ctx context.Context, unit string) (bool, error)
}

// Options say what a Runs asks.
type Options struct {
	// Units is asked about services. nil: none are asked about.
	Units Units
	// CertbotUnits are the services that run certbot on its usual directory. nil:
	// certbot.service and snap.certbot.renew.service. Empty: none.
	CertbotUnits []string
	// ConfigDirs are certbot's usual configuration directories: CertbotUnits work on
	// them, and their renewal/*.conf is searched for lineages that are kept
	// elsewhere. nil: /etc/letsencrypt. Others are recognized by their at.
	ConfigDirs []string
	// Fresh is how long an answer is used again. 0: one second.
	Fresh time.Duration
	// Patience is how long a question may take, for a file system or a bus that
	// hangs. 0: two seconds.
	Patience time.Duration
	// Now tells the time. nil: time.Now.
	Now func() time.Time
}

const (
	defaultFresh    = time.Second
	defaultPatience = 2 * time.Second
	// layoutFresh: certificates seldom move from one client to another.
	layoutFresh = 10 * time.Second
	// unitFailure: a service or a bus that there is not is not asked for each second.
	unitFailure = 10 * time.Second
)

// Runs tells of certificates whether a run of their client is under way. All
// certificates of one tree share one answer for a second, so it may be asked
// often. It is safe for concurrent use.
type Runs struct {
	o      Options
	places cache[place]
	sights cache[sight]
	confs  []*confs
}

// place is where a certificate stands.
type place struct {
	Layout
	usual bool // certbot's usual directory, on which its services work
}

// NewRuns returns a Runs.
func NewRuns(o Options) *Runs {
	if o.CertbotUnits == nil {
		o.CertbotUnits = []string{"certbot.service", "snap.certbot.renew.service"}
	}
	if o.ConfigDirs == nil {
		o.ConfigDirs = []string{"/etc/letsencrypt"}
	}
	if o.Fresh <= 0 {
		o.Fresh = defaultFresh
	}
	if o.Patience <= 0 {
		o.Patience = defaultPatience
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	r := &Runs{
		o:      o,
		places: cache[place]{now: o.Now, patience: o.Patience},
		sights: cache[sight]{now: o.Now, patience: o.Patience},
	}
	for _, dir := range o.ConfigDirs {
		r.confs = append(r.confs, &confs{dir: dir})
	}
	return r
}

// Of tells of the certificate at path. units are further services that run its
// ACME client. Nothing that hangs holds it for longer than Options.Patience each,
// and it ends with ctx.
//
// A run that was seen and of which nothing is known any more is over, as far as
// can be told: dehydrated's lock that has grown old, a bus that went away.
func (r *Runs) Of(ctx context.Context, path string, units ...string) Run {
	var seen []sight
	ask := func(s sight) (running bool) {
		seen = append(seen, s)
		return s.running
	}
	at, err := r.places.get(ctx, path, func(context.Context) (place, time.Duration) {
		return r.place(path), layoutFresh
	})
	switch {
	case err != nil:
		ask(unknown("%s: %v", show(path), err))
	case at.Client == Certbot:
		lock := r.ask(ctx, filepath.Join(at.Dir, certbotLockName), func(context.Context) (sight, time.Duration) {
			return certbotLock(at.Dir), r.o.Fresh
		})
		// The services work on the usual directory; elsewhere the lock says it all,
		// where it can be asked.
		if !ask(lock) && (!lock.known || at.usual) {
			units = slices.Concat(r.o.CertbotUnits, units)
		}
	case at.Client == Dehydrated:
		ask(r.ask(ctx, filepath.Join(at.Dir, "lock"), func(context.Context) (sight, time.Duration) {
			return dehydratedLock(at.Dir, r.o.Now()), r.o.Fresh
		}))
	case at.Client == NoClient:
		ask(unknown("the place of %s does not tell whose certificate it is", show(path)))
	default:
		ask(unknown("%s keeps no lock", at.Client))
	}
	for i, unit := range units {
		if r.o.Units == nil || slices.ContainsFunc(seen, func(s sight) bool { return s.running }) {
			break
		}
		if !slices.Contains(units[:i], unit) {
			ask(r.unit(ctx, unit))
		}
	}
	return sum(seen)
}

// place tells whose certificate path is.
func (r *Runs) place(path string) place {
	all := forms(path)
	at := place{Layout: layoutOf(all)}
	for _, c := range r.confs {
		if at.Client != NoClient {
			break
		}
		at.Layout, _ = c.find(r.o.Now(), all)
	}
	at.usual = at.Client == Certbot &&
		slices.ContainsFunc(r.o.ConfigDirs, func(dir string) bool { return sameDir(dir, at.Dir) })
	return at
}

// sum makes one answer of what was seen: who runs, else who does not, else why
// nothing is known.
func sum(seen []sight) Run {
	var free, blind []string
	for _, s := range seen {
		switch {
		case s.running:
			return Run{Known: true, Running: true, What: s.what}
		case s.known:
			free = append(free, s.what)
		case s.what != "":
			blind = append(blind, s.what)
		}
	}
	if len(free) > 0 {
		return Run{Known: true, What: strings.Join(free, "; ")}
	}
	return Run{What: strings.Join(blind, "; ")}
}

func (r *Runs) unit(ctx context.Context, unit string) sight {
	return r.ask(ctx, unit, func(ctx context.Context) (sight, time.Duration) {
		running, err := r.o.Units.Running(ctx, unit)
		switch {
		case err != nil:
			return unknown("%s", show(err.Error())), max(unitFailure, r.o.Fresh)
		case running:
			return sight{true, true, show(unit) + " is running"}, r.o.Fresh
		}
		return sight{true, false, show(unit) + " is not running"}, r.o.Fresh
	})
}

// ask asks one source, or remembers what it answered.
func (r *Runs) ask(ctx context.Context, source string, do func(context.Context) (sight, time.Duration)) sight {
	s, err := r.sights.get(ctx, source, do)
	if err != nil {
		return unknown("%s: %v", show(source), err)
	}
	return s
}

func sameDir(a, b string) bool {
	if a == b {
		return true
	}
	fa, err := os.Stat(a)
	if err != nil {
		return false
	}
	fb, err := os.Stat(b)
	return err == nil && os.SameFile(fa, fb)
}
