package main

import (
	"context"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/renewatch/renewatch/internal/ari"
	"github.com/renewatch/renewatch/internal/config"
	"github.com/renewatch/renewatch/internal/lineage"
	"github.com/renewatch/renewatch/internal/systemd"
	"github.com/renewatch/renewatch/internal/watchdog"
	"github.com/renewatch/renewatch/watch"
	"github.com/renewatch/renewatch/watch/acmelog"
)

// clientLogs are the logs that tell of a certificate.
func clientLogs(c config.Certificate) []watch.Log {
	logs := c.Logs
	if logs == nil {
		logs = config.UsualLogs(c.Cert)
	}
	var out []watch.Log
	for _, l := range logs {
		out = append(out, watch.Log{Client: acmelog.Client(l.Client), File: l.File, Unit: l.Unit})
	}
	return out
}

// expected turns what the configuration says into what the keeper takes.
func expected(s string) watchdog.Expected {
	if s == "manual" {
		return watchdog.Expected{Manual: true}
	}
	if f, err := strconv.ParseFloat(s, 64); err == nil {
		return watchdog.Expected{Fraction: f}
	}
	if d, err := config.ParseDuration(s); err == nil {
		return watchdog.Expected{Before: d}
	}
	return watchdog.Expected{}
}

// askers ask CAs, with the roots that a certificate's endpoints are trusted by.
type askers struct {
	agent string

	mu sync.Mutex
	by map[watchdog.Roots]*ari.Client
}

// maxAskers bounds the sets of roots that are kept; roots that were read anew
// replace those before.
const maxAskers = 16

func (a *askers) client(roots watchdog.Roots) *ari.Client {
	a.mu.Lock()
	defer a.mu.Unlock()
	if c := a.by[roots]; c != nil {
		return c
	}
	if a.by == nil || len(a.by) >= maxAskers {
		for _, c := range a.by {
			c.Close()
		}
		a.by = map[watchdog.Roots]*ari.Client{}
	}
	c := ari.New(ari.Options{Roots: roots.Pool, UserAgent: a.agent})
	a.by[roots] = c
	return c
}

// ask asks the CA of a certificate when it wants it renewed.
func (a *askers) ask(ctx context.Context, q watchdog.Question) (ari.Answer, error) {
	pair, fault := watch.LoadCertificate(q.Path)
	if fault != nil { // that is told elsewhere
		return ari.Answer{}, &ari.Error{Kind: ari.ErrUnsupported, Detail: fault.Sentence, RetryAfter: time.Now().Add(time.Hour)}
	}
	directory, _, ok := ari.Directory(lineage.LayoutOf(q.Path).Directory(), q.CA, pair.Leaf())
	if !ok {
		return ari.Answer{}, &ari.Error{Kind: ari.ErrUnsupported, Detail: "the certificate's CA is not known", RetryAfter: time.Now().Add(24 * time.Hour)}
	}
	return a.client(q.Roots).Ask(ctx, directory, pair.Leaf())
}

// logs follows the ACME clients' logs, and the units whose journal is read: how a
// unit's run ended is known without reading anything.
type logs struct {
	*watch.Logs
	states *systemd.States
	units  chan []string
}

func newLogs(ctx context.Context, o watch.LogOptions) *logs {
	return &logs{Logs: watch.NewLogs(o), states: systemd.NewStates(ctx, 0), units: make(chan []string, 1)}
}

// Set says which logs are followed.
func (l *logs) Set(logs []watch.Log) {
	l.Logs.Set(logs)
	var units []string
	for _, x := range logs {
		if x.Unit != "" && !slices.Contains(units, x.Unit) {
			units = append(units, x.Unit)
		}
	}
	select {
	case <-l.units: // the ones before, which nobody has taken
	default:
	}
	l.units <- units
}

// Run follows until ctx ends.
func (l *logs) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wg.Go(func() { l.follow(ctx) })
	return l.Logs.Run(ctx)
}

// follow follows the units that were set last.
func (l *logs) follow(ctx context.Context) {
	end := func() {}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer func() { end() }()
	for {
		select {
		case <-ctx.Done():
			return
		case units := <-l.units:
			end()
			wg.Wait()
			if len(units) == 0 {
				end = func() {}
				continue
			}
			under, cancel := context.WithCancel(ctx)
			end = cancel
			wg.Go(func() {
				ran := runs{}
				_ = l.states.Follow(under, units, func(c systemd.StateChange) {
					if e, ended := ran.ended(c); ended {
						l.Ended(c.Unit, e)
					}
				})
			})
		}
	}
}

// runs remembers by unit the run that was seen last: what had ended before anybody
// looked is no news.
type runs map[string]string

// ended reports whether a run has ended that went on or began since the last look.
func (r runs) ended(c systemd.StateChange) (acmelog.Exit, bool) {
	if c.Err != nil {
		return acmelog.Exit{}, false
	}
	s := c.State
	before, known := r[c.Unit]
	now := s.InvocationID
	if s.Running() {
		now += " runs"
	}
	r[c.Unit] = now
	if !known || s.Running() || before == now || s.Ended.IsZero() {
		return acmelog.Exit{}, false
	}
	e := acmelog.Exit{At: s.Ended}
	switch {
	case s.Result == "success":
	case s.ExecMainCode == 1 && s.ExecMainStatus > 0:
		e.Code = s.ExecMainStatus
	default:
		e.Code = 1
	}
	return e, true
}
