package watchdog

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/renewatch/renewatch/internal/reload"
	"github.com/renewatch/renewatch/notify"
	"github.com/renewatch/renewatch/watch"
)

// server is one server at run time.
type server struct {
	name  string
	conf  reload.Server
	known bool // named by the present configuration
	queue reload.State
	next  time.Time // when the queue is looked at again; zero: when something is added
}

// letFinish is how long a reload may take to end after the daemon was told to.
const letFinish = 5 * time.Second

// runDone is the end of one reload.
type runDone struct {
	server string
	batch  reload.Batch
	result reload.Result
	// held is set when the reload was not run: one cause for each request.
	held map[string]hold
	cut  bool // the daemon stopped in the middle
}

// hold is why a request was held back at the last moment.
type hold struct{ cause, detail, hint string }

func (k *Keeper) serverPath(name string) string {
	return filepath.Join("servers", notify.Token(name)+".json")
}

type serverFile struct {
	Version int          `json:"version"`
	Name    string       `json:"name"`
	Queue   reload.State `json:"queue"`
}

func (k *Keeper) loadServers() error {
	paths, err := k.files.list("servers")
	if err != nil {
		return err
	}
	for _, path := range paths {
		var f serverFile
		if err := k.files.read(path, &f); err != nil {
			k.log.Error().Err(err).Str("path", path).Msg("what is remembered of a server cannot be read; its limits start anew")
			continue
		}
		if f.Version > StateVersion {
			return fmt.Errorf("%s: %w (version %d, this one knows %d)", path, ErrNewerState, f.Version, StateVersion)
		}
		k.servers[f.Name] = &server{name: f.Name, queue: f.Queue}
	}
	return nil
}

func (k *Keeper) configureServers(confs map[string]reload.Server) {
	for name, s := range k.servers {
		s.conf, s.known = confs[name], false
	}
	for name, conf := range confs {
		s := k.servers[name]
		if s == nil {
			s = &server{name: name}
			k.servers[name] = s
		}
		s.conf, s.known = conf, true
	}
}

// resumeServers takes up what a kill cut off: nothing that waited is run, and
// what ran stays in the history as interrupted.
func (k *Keeper) resumeServers() {
	for _, name := range sortedKeys(k.servers) {
		s := k.servers[name]
		queue, _ := s.queue.Interrupted(k.clock.Now())
		for _, r := range queue.Waiting {
			queue = queue.Drop(r.Certificate)
		}
		k.putServer(s, queue)
	}
}

// putServer keeps a queue, and writes it again later when that fails.
func (k *Keeper) putServer(s *server, queue reload.State) {
	if err := k.writeServer(s, queue); err != nil {
		s.queue = queue
		k.agent.raise("state", "the state directory cannot be written: "+err.Error(), "is the disk full?")
		k.later(func() { k.putServer(s, s.queue) })
	}
}

// resumeReloads tells a certificate what became of the reloads it had asked for
// before the daemon ended.
func (k *Keeper) resumeReloads(c *cert) {
	if c.state.Story == nil {
		return
	}
	for _, name := range sortedKeys(c.state.Story.Servers) {
		p := c.state.Story.Servers[name].Pending
		if p == nil {
			continue
		}
		report := ReloadReport{ID: p.ID, Server: name, Dropped: true, RenewalID: c.state.Story.RenewalID}
		if s := k.servers[name]; s != nil {
			if run, _, known := s.queue.Find(p.ID); known && run.ID != 0 {
				report.Dropped = false
				report.Run = strconv.FormatUint(run.ID, 10)
				report.Interrupted, report.OK, report.Shared = run.Interrupted, run.OK, len(run.Requests)
				report.Reload = notify.Reload{Server: name, How: how(s.conf, run.Step)}
				if !run.OK && !run.Interrupted {
					report.Detail = "the reload failed; renewatch was stopped before it could tell how"
				}
			}
		}
		k.apply(c, Input{Reload: &report})
	}
}

// reloading reports whether a reload for a certificate runs just now.
func (k *Keeper) reloading(certificate string) bool {
	for _, s := range k.servers {
		if run := s.queue.Running; run != nil && slices.ContainsFunc(run.Requests, func(r reload.Request) bool { return r.Certificate == certificate }) {
			return true
		}
	}
	return false
}

// withdraw takes the requests of a certificate out of every queue.
func (k *Keeper) withdraw(certificate string) {
	for _, s := range k.servers {
		s.queue = s.queue.Drop(certificate)
	}
}

// how names the way that a step takes.
func how(s reload.Server, step reload.Step) string {
	way := s.Way
	if step == reload.Last && s.Then != nil {
		way = *s.Then
	}
	switch {
	case way.Unit != "":
		return "unit"
	case way.Signal != "":
		return "signal"
	}
	return "command"
}

func (k *Keeper) writeServer(s *server, queue reload.State) error {
	data, err := json.Marshal(serverFile{Version: StateVersion, Name: s.name, Queue: queue})
	if err != nil {
		return err
	}
	if err := k.files.write(k.serverPath(s.name), data); err != nil {
		return err
	}
	s.queue = queue
	return nil
}

// requestReload queues a reload. The request is in memory only until it starts:
// the certificate's state remembers it, and asks again after a kill.
func (k *Keeper) requestReload(c *cert, cmd Reload) {
	s := k.servers[cmd.Server]
	if s == nil || !s.known {
		k.log.Error().Str("server", cmd.Server).Msg("this server is not in the configuration")
		k.later(func() {
			if k.certs[c.policy.Name] == c {
				k.apply(c, Input{Reload: &ReloadReport{ID: cmd.ID, Server: cmd.Server, Held: CauseMoving}})
			}
		})
		return
	}
	s.queue = s.queue.Add(reload.Request{ID: cmd.ID, Certificate: c.policy.Name, RenewalID: cmd.RenewalID, Attempt: cmd.Attempt,
		Step: reload.Step(cmd.Step), Urgent: cmd.Urgent})
	s.next = k.clock.Now()
}

func (k *Keeper) dropReload(c *cert, cmd Drop) {
	if s := k.servers[cmd.Server]; s != nil {
		s.queue = s.queue.Drop(c.policy.Name)
	}
}

func (k *Keeper) proveReload(cmd Proved) {
	s := k.servers[cmd.Server]
	run, err := strconv.ParseUint(cmd.Run, 10, 64)
	if s == nil || err != nil {
		return
	}
	k.putServer(s, s.queue.Proved(run))
}

// serversDue returns when a queue must be looked at; zero: never by itself.
func (k *Keeper) serversDue() time.Time {
	var at time.Time
	for _, s := range k.servers {
		if !s.next.IsZero() && (at.IsZero() || s.next.Before(at)) {
			at = s.next
		}
	}
	return at
}

// runServers starts the reloads that are due.
func (k *Keeper) runServers() {
	now := k.clock.Now()
	for _, name := range sortedKeys(k.servers) {
		s := k.servers[name]
		if s.next.IsZero() || now.Before(s.next) || k.ctx.Err() != nil {
			continue
		}
		s.next = time.Time{}
		if !s.known {
			k.holdAll(s, s.queue.Waiting, hold{cause: CauseMoving}, time.Time{})
			continue
		}
		switch d := s.queue.Next(now, k.o.Limits); d.Action {
		case reload.Wait:
			s.next = d.Until
		case reload.Hold:
			k.holdAll(s, s.queue.Waiting, hold{CauseLimit, fmt.Sprintf("%s was reloaded %d times within a day and it proved nothing", s.name, k.perDay()),
				"find out why a reload does not help: a second instance of the server, another file in its configuration"}, d.Until)
		case reload.Start:
			if late := k.outside(name, now, d.Batch.Requests); len(late) > 0 {
				// It closed while they waited for their turn; their certificates decide anew.
				k.holdAll(s, late, hold{cause: CauseMoving}, time.Time{})
				s.next = now
				continue
			}
			queue := s.queue.Started(now, d.Batch)
			if err := k.writeServer(s, queue); err != nil {
				k.agent.raise("state", "the state directory cannot be written: "+err.Error(), "is the disk full?")
				s.next = now.Add(retryAfter)
				continue
			}
			k.startReload(s, d.Batch)
		}
	}
}

// outside returns the requests that wait for the server's window, when it is closed.
func (k *Keeper) outside(server string, now time.Time, requests []reload.Request) []reload.Request {
	w := k.setup.Windows[server]
	if w == nil || !w.Next(now).After(now) {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(requests), func(r reload.Request) bool { return r.Urgent })
}

func (k *Keeper) perDay() int {
	if k.o.Limits.PerDay > 0 {
		return k.o.Limits.PerDay
	}
	return 6
}

// holdAll tells requests that they are held and forgets them: their
// certificates ask again.
func (k *Keeper) holdAll(s *server, requests []reload.Request, h hold, opens time.Time) {
	for _, r := range requests {
		s.queue = s.queue.Drop(r.Certificate)
	}
	for _, r := range requests {
		if c := k.certs[r.Certificate]; c != nil {
			k.apply(c, Input{Reload: &ReloadReport{ID: r.ID, Server: s.name, Held: h.cause, Detail: h.detail, Hint: h.hint, OpensAt: opens}})
		}
	}
}

// guard is what is checked of one certificate right before a reload.
type guard struct {
	request reload.Request
	conf    *Certificate
	path    string
	leaf    string // SHA-256 of the leaf that is to go live
}

func (k *Keeper) startReload(s *server, batch reload.Batch) {
	var guards []guard
	for _, r := range batch.Requests {
		// Who has left the configuration has withdrawn its requests, see configure.
		if c := k.certs[r.Certificate]; c != nil && c.state.Disk != nil {
			guards = append(guards, guard{r, c.conf, c.path, c.state.Disk.Leaf.SHA256})
		}
	}
	if len(guards) < len(batch.Requests) {
		k.log.Error().Str("server", s.name).Msg("a reload was asked for by a certificate that is not watched; it is not made")
		k.putServer(s, s.queue.Abandoned(batch.Run))
		return
	}
	conf, name := s.conf, s.name
	// A reload under way when the daemon is told to stop is let finish.
	ctx, cancel := context.WithCancel(context.WithoutCancel(k.ctx))
	stopped := context.AfterFunc(k.ctx, func() { time.AfterFunc(letFinish, cancel) })
	k.hands.reload(ctx, order{server: name, conf: conf, batch: batch, guards: guards, watched: k.watchedPairs(name)}, func(done runDone) {
		defer cancel()
		defer stopped()
		k.runs <- done
	})
}

// order is a reload that is to be carried out.
type order struct {
	server string
	conf   reload.Server
	batch  reload.Batch
	guards []guard
	// watched are the pairs that the server is known to load by our own
	// configuration.
	watched []Pair
}

// carryOut reads the files once more and reloads: what was sound when the reload
// was asked for may be half-written now, and a bad pair kills some servers. It
// runs outside the loop.
func (k *Keeper) carryOut(ctx context.Context, o order) runDone {
	done := runDone{server: o.server, batch: o.batch, held: map[string]hold{}}
	var touch []string
	for _, g := range o.guards {
		files, h, bad := g.check()
		if bad {
			done.held[g.request.ID] = h
		}
		touch = append(touch, files...)
	}
	if len(done.held) == 0 {
		if h, bad := k.otherPairs(ctx, o.conf, o.guards, o.watched); bad {
			for _, g := range o.guards {
				done.held[g.request.ID] = h
			}
		}
	}
	if len(done.held) == 0 {
		k.log.Info().Str("server", o.server).Str("step", string(o.batch.Step)).Int("certificates", len(o.batch.Requests)).Msg("reloading")
		done.result = k.o.Reloader.Run(ctx, o.conf, o.batch.Step, touch)
		done.cut = ctx.Err() != nil && !done.result.OK
	}
	return done
}

// check reads the files of one certificate right before a reload, and says which
// they really are.
func (g guard) check() (files []string, h hold, bad bool) {
	pair, fault := watch.Load(g.path, g.conf.Source.Key)
	switch {
	case fault != nil:
		return nil, hold{CausePair, fault.Sentence, fault.Hint}, true
	case fingerprint(pair.Leaf()) != g.leaf:
		return nil, hold{CauseMoving, "the files changed just now", ""}, true
	}
	return pair.Touch, hold{}, false
}

// runDone takes in how a reload ended.
func (k *Keeper) runDone(r runDone) {
	s := k.servers[r.server]
	if r.cut {
		return // the run stays open in the queue; the next start tells it as interrupted
	}
	queue := s.queue.Finished(k.clock.Now(), r.batch.Run, r.result.OK)
	if len(r.held) > 0 {
		queue = s.queue.Abandoned(r.batch.Run) // nothing was run
	}
	k.putServer(s, queue)
	s.next = k.clock.Now()
	for _, req := range r.batch.Requests {
		c := k.certs[req.Certificate]
		if c == nil {
			continue
		}
		report := ReloadReport{ID: req.ID, Server: r.server, Run: strconv.FormatUint(r.batch.Run, 10), Shared: len(r.batch.Requests), RenewalID: req.RenewalID}
		if len(r.held) > 0 {
			h, mine := r.held[req.ID]
			if !mine {
				for _, other := range r.held {
					if h = other; other.cause == CauseMoving {
						break
					}
					h = hold{CauseOtherPair, "another certificate of this server is at fault: " + other.detail, other.hint}
				}
			}
			report.Held, report.Detail, report.Hint = h.cause, h.detail, h.hint
		} else {
			report.OK, report.Detail, report.Hint = r.result.OK, r.result.Detail, r.result.Hint
			took := r.result.Took.Milliseconds()
			report.Reload = notify.Reload{Server: r.server, How: r.result.How, ExitCode: r.result.ExitCode, Output: r.result.Output, TookMS: &took}
		}
		k.apply(c, Input{Reload: &report})
	}
	for _, req := range r.batch.Requests {
		if c := k.certs[req.Certificate]; c != nil && c.held != nil && !k.reloading(req.Certificate) {
			round := *c.held
			c.held = nil
			k.roundDone(round) // Step passes over it where a newer probe runs
		}
	}
}
