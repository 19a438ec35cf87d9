package watchdog

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/renewatch/renewatch/notify"
	"github.com/renewatch/renewatch/watch"
	"github.com/renewatch/renewatch/watch/acmelog"
)

// Logs follows the logs of ACME clients; a *watch.Logs is one. What it hears it
// hands to Keeper.Heard.
type Logs interface {
	Run(ctx context.Context) error
	Set(logs []watch.Log)
}

// errNotKept is returned for what could not be written yet.
var errNotKept = errors.New("what was heard could not be kept")

// Heard takes in what logs tell. It returns once it is kept; with an error it was
// not and must be told again.
func (k *Keeper) Heard(ctx context.Context, heard []watch.Heard) error {
	if k.o.Scanned != nil && !k.o.Scanned() {
		return errNotKept // nobody knows yet which leaves are on disk
	}
	kept := make(chan error, 1)
	k.do(k.ended, func() { kept <- k.hear(heard) })
	select {
	case err := <-kept:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-k.ended:
		return errNotKept
	}
}

// setLogs says which logs are to be followed.
func (k *Keeper) setLogs() {
	if k.o.Logs == nil {
		return
	}
	var logs []watch.Log
	seen := map[watch.Log]bool{}
	for _, c := range k.setup.Certificates {
		for _, l := range c.Logs {
			if !seen[l] {
				seen[l] = true
				logs = append(logs, l)
			}
		}
	}
	k.o.Logs.Set(logs)
}

func (k *Keeper) hear(heard []watch.Heard) error {
	for _, h := range heard {
		where := logName(h.Log)
		switch h.Kind {
		case watch.Blind, watch.Lost:
			if h.Fault == nil {
				continue
			}
			if h.Kind == watch.Lost { // it is over as soon as it is said
				k.log.Warn().Str("log", where).Str("hint", h.Fault.Hint).Msg(h.Fault.Sentence)
				k.agent.raise("log-lost:"+where, h.Fault.Sentence, h.Fault.Hint)
				k.agent.clear("log-lost:" + where)
				continue
			}
			k.deaf[h.Log] = true
			k.agent.raise("log:"+where, h.Fault.Sentence, h.Fault.Hint)
		case watch.Sighted:
			delete(k.deaf, h.Log)
			k.agent.clear("log:" + where)
		default:
			if h.Attempt != nil && !k.tellTry(h) {
				return errNotKept
			}
		}
	}
	return nil
}

// tellTry tells the certificates that an attempt is about of it.
func (k *Keeper) tellTry(h watch.Heard) bool {
	a := WireAttempt(*h.Attempt)
	about := k.concerned(h.Log, a)
	if len(about) == 0 {
		k.log.Debug().Str("log", a.Log).Str("lineage", a.Lineage).Strs("names", a.Names).Str("outcome", a.Outcome).Msg("an attempt for a certificate that is not watched")
	}
	for _, c := range about {
		if k.conclude(c); len(c.backlog) > 0 {
			return false // it is told again; what waits for the disk does not grow by that
		}
		k.apply(c, Input{Told: &Told{ID: h.ID, Attempt: a, At: h.Time.Round(0), Old: h.Old}})
		if len(c.backlog) > 0 {
			return false
		}
	}
	for _, name := range sortedKeys(k.certs) { // what was told of it before it was known whose it is
		if c := k.certs[name]; c.state.tries(h.ID) && !slices.Contains(about, c) {
			k.apply(c, Input{Told: &Told{ID: h.ID, Attempt: a, At: h.Time.Round(0), Other: true}})
		}
	}
	return true
}

// concerned returns the certificates that an attempt is about, of those that name
// the log: by the files it wrote, else by the client's name for them, else by
// their names. One that tells none of these is about the only one there is.
func (k *Keeper) concerned(log watch.Log, a notify.Attempt) []*cert {
	best := 0
	var about, all []*cert
	for _, name := range sortedKeys(k.certs) {
		c := k.certs[name]
		if !slices.Contains(c.conf.Logs, log) {
			continue
		}
		all = append(all, c)
		switch sure := concerns(a, c, lineageOf(c.path), k.clock.Now()); {
		case sure == 0 || sure < best:
		case sure == best:
			about = append(about, c)
		default:
			best, about = sure, []*cert{c}
		}
	}
	if best == 0 && len(all) == 1 && a.Lineage == "" && len(a.Names) == 0 && len(a.Saved) == 0 {
		return all
	}
	if best == 2 && len(about) > 1 && len(a.Names) > 0 { // two lineages of one name
		if by := slices.DeleteFunc(slices.Clone(about), func(c *cert) bool { return c.state.Disk == nil || !sameNames(a, c.state.Disk.Leaf) }); len(by) > 0 {
			return by
		}
	}
	return about
}

// lineageOf is the name that an ACME client gives a certificate by where its files
// lie: the directory of its own that certbot, dehydrated, acme.sh (which adds _ecc)
// and Caddy make, or the file's stem where lego puts all into one directory.
func lineageOf(path string) string {
	dir := filepath.Base(filepath.Dir(path))
	if dir == "certificates" {
		return stemOf(path)
	}
	return strings.TrimSuffix(dir, "_ecc")
}

func stemOf(path string) string {
	return strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
}

// logName is how a log is called in events.
func logName(l watch.Log) string {
	if l.Unit != "" {
		return l.Unit
	}
	return l.File
}

// wireTime is a time as JSON can tell it; zero where it cannot: a log may hold any.
func wireTime(t time.Time) time.Time {
	if t = t.UTC(); t.Year() < 1 || t.Year() > 9999 {
		return time.Time{}
	}
	return t
}

// WireAttempt turns an attempt into the one that events and `explain --json` print.
func WireAttempt(a acmelog.Attempt) notify.Attempt {
	out := notify.Attempt{
		Client: string(a.Client), Log: a.Log, Lineage: a.Lineage, Names: slices.Clone(a.Names), NamesOmitted: a.NamesOmitted, CA: a.CA,
		Staging: a.Staging, DryRun: a.DryRun, Forced: a.Forced, Started: wireTime(a.Started), Ended: wireTime(a.Ended),
		Outcome: string(a.Outcome), Phase: string(a.Phase), ProblemType: a.ProblemType, ProblemDetail: a.ProblemDetail,
		RetryAfter: wireTime(a.RetryAfter), Paused: a.Paused, Saved: slices.Clone(a.Saved), Activated: a.Activated, Doubtful: a.Doubtful,
	}
	if out.Names == nil {
		out.Names = []string{}
	}
	if out.Saved == nil {
		out.Saved = []string{}
	}
	for _, p := range a.Problems {
		out.Problems = append(out.Problems, notify.AttemptProblem(p))
	}
	if a.Hook != nil {
		h := notify.AttemptHook(*a.Hook)
		out.Hook = &h
	}
	return out
}
