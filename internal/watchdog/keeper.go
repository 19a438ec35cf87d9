package watchdog

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/renewatch/renewatch/notify"
	"github.com/renewatch/renewatch/watch"
)

// retryAfter is when what could not be written is tried again.
const retryAfter = 5 * time.Second

// Keeper is the shell around Step: one loop that feeds it, persists what it
// decided, and then acts.
type Keeper struct {
	o       Options
	log     zerolog.Logger
	clock   Clock
	files   files
	hands   hands
	setup   Setup
	certs   map[string]*cert
	servers map[string]*server
	agent   *agent
	names   index
	wakes   wakes

	seen     chan watch.Observation
	rounds   chan roundDone
	runs     chan runDone
	calls    chan func()
	retry    []func()
	retryAt  time.Time
	lookedAt time.Time // when due ran last
	wg       sync.WaitGroup
	ctx      context.Context

	ended chan struct{} // closed when Run returns

	asking       chan struct{} // a place for each question that is being asked
	probing      int           // probes that run
	queue        []ticket      // probes that wait for their turn
	silences     []Silenced
	deaf         map[watch.Log]bool // logs that cannot be read just now
	inGrace      map[string]*cert   // certificates whose grace is not over
	clientsAsked bool
	clientsAt    time.Time
	sound        soundPairs
	pairsRead    bool // they are being read
	pairsAt      time.Time
	advise       []string // files that were not looked at for advice
	advising     bool
	dirty        map[string]*cert // states that are to be written
	dirtyAt      time.Time
	gathering    bool       // inputs are taken in together
	gathered     []*decided // what they decided
	rush         rush

	impaired  atomic.Pointer[string] // why no verdict can be trusted just now
	troubles  atomic.Pointer[map[string]Trouble]
	clocks    clocks
	clockPast bool      // the clock is behind what is certainly past
	clockAt   time.Time // when the clock was found to be moved, or right again
	newest    time.Time // of the newest event
}

// cert is one certificate at run time.
type cert struct {
	conf    *Certificate
	policy  Policy
	path    string
	state   State
	written [32]byte // hash of the state as written
	cancel  context.CancelFunc
	probing uint64     // id of the probe that runs; 0: none does
	backlog []Input    // what could not be written yet, in its order
	decided *decided   // what is being written together with others; nil: nothing
	waiting bool       // a flush is tried again later
	held    *roundDone // what was found while a reload for it ran
	wake    time.Time
}

// New returns a Keeper that has read its state directory.
func New(o Options, setup Setup) (*Keeper, error) {
	for _, dir := range []string{"certificates", "servers"} {
		if err := os.MkdirAll(filepath.Join(o.StateDir, dir), 0o700); err != nil {
			return nil, err
		}
	}
	return newKeeper(o, setup, directory(o.StateDir))
}

func newKeeper(o Options, setup Setup, on files) (*Keeper, error) {
	if o.Clock == nil {
		o.Clock = systemClock{}
	}
	k := &Keeper{
		o: o, log: o.Log, clock: o.Clock, files: on, setup: setup, silences: o.Silences,
		certs: map[string]*cert{}, servers: map[string]*server{}, names: newIndex(), inGrace: map[string]*cert{}, dirty: map[string]*cert{}, deaf: map[watch.Log]bool{},
		seen: make(chan watch.Observation, 64), rounds: make(chan roundDone), runs: make(chan runDone), calls: make(chan func()), ended: make(chan struct{}), newest: o.Newest, asking: make(chan struct{}, asksAtOnce),
	}
	k.hands = workers{k}
	var err error
	if k.agent, err = loadAgent(k); err != nil {
		return nil, err
	}
	if err := k.loadServers(); err != nil {
		return nil, err
	}
	if err := k.checkStates(); err != nil {
		return nil, err
	}
	return k, nil
}

// Run runs until ctx ends. It returns when everything it started has ended.
func (k *Keeper) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer close(k.ended)
	if err := k.begin(ctx); err != nil {
		return err
	}
	k.o.Watcher.Set(k.sources())
	k.setLogs()
	if k.o.Logs != nil {
		k.wg.Go(func() {
			if err := k.o.Logs.Run(ctx); err != nil && ctx.Err() == nil {
				k.Raise("logs", "the ACME clients' logs are not read: "+err.Error(), "")
			}
		})
	}
	watching := make(chan error, 1)
	k.wg.Go(func() { watching <- k.o.Watcher.Run(ctx, k.seen) })
	err := k.loop(ctx, watching)
	cancel()
	k.drain()
	if stopErr := k.agent.stopped(); err == nil {
		err = stopErr
	}
	return err
}

// begin takes up where the run before this one ended.
func (k *Keeper) begin(ctx context.Context) error {
	k.ctx = ctx
	if err := k.agent.started(); err != nil {
		return fmt.Errorf("the state directory cannot be written: %w", err)
	}
	k.checkClock()
	k.lookedAt = k.clock.Now()
	k.rush = rush{begun: k.lookedAt, last: k.lookedAt}
	k.resumeServers()
	k.configure(k.setup)
	return nil
}

func (k *Keeper) loop(ctx context.Context, watching <-chan error) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		if k.o.Beat != nil {
			k.o.Beat()
		}
		timer.Reset(k.pause())
		select {
		case <-ctx.Done():
			return nil
		case err := <-watching:
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("the file watcher ended: %w", err)
		case o := <-k.seen:
			k.together(func() { k.observe(o); k.rest() })
		case r := <-k.rounds:
			k.together(func() { k.rest(); k.roundDone(r) })
		case r := <-k.runs:
			k.runDone(r)
		case f := <-k.calls:
			f()
		case <-timer.C:
			k.due()
		}
	}
}

// drain takes in what still arrives until every goroutine has ended. What a
// reload did is kept; rounds that were cut off are not.
func (k *Keeper) drain() {
	done := make(chan struct{})
	go func() { k.wg.Wait(); close(done) }()
	for {
		select {
		case <-k.seen:
		case <-k.rounds:
		case r := <-k.runs:
			k.runDone(r)
		case f := <-k.calls:
			f()
		case <-done:
			k.writeDirty(lastWrites)
			return
		}
	}
}

// do runs f in the loop. It does nothing when the keeper has ended.
func (k *Keeper) do(end <-chan struct{}, f func()) {
	select {
	case k.calls <- f:
	case <-end:
	}
}

// Reconfigure replaces the setup while the keeper runs.
func (k *Keeper) Reconfigure(ctx context.Context, setup Setup) {
	done := make(chan struct{})
	k.do(k.ended, func() {
		k.configure(setup)
		k.o.Watcher.Set(k.sources())
		k.setLogs()
		for _, name := range sortedKeys(k.certs) {
			k.apply(k.certs[name], Input{Look: true})
		}
		close(done)
	})
	select {
	case <-done:
	case <-ctx.Done():
	case <-k.ended:
	}
}

// RefreshRoots reads the trusted roots again with load, which is given each
// Certificate.CA once, and goes on with those that are others.
func (k *Keeper) RefreshRoots(ctx context.Context, load func(ca string) (Roots, error)) error {
	asked := make(chan map[string]Roots, 1)
	k.do(k.ended, func() {
		cas := map[string]Roots{}
		for _, c := range k.setup.Certificates {
			cas[c.CA] = c.Roots
		}
		asked <- cas
	})
	var cas map[string]Roots
	select {
	case cas = <-asked:
	case <-ctx.Done():
		return nil
	case <-k.ended:
		return nil
	}
	fresh := map[string]Roots{}
	for ca, old := range cas {
		now, err := load(ca)
		if err != nil {
			return err
		}
		if !now.equal(old) {
			fresh[ca] = now
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	k.log.Info().Msg("the trusted roots changed")
	k.do(k.ended, func() {
		setup := k.setup
		setup.Certificates = slices.Clone(setup.Certificates)
		for i := range setup.Certificates {
			if now, changed := fresh[setup.Certificates[i].CA]; changed {
				setup.Certificates[i].Roots = now
			}
		}
		k.configure(setup)
		for _, name := range sortedKeys(k.certs) {
			k.apply(k.certs[name], Input{Look: true})
		}
	})
	return nil
}

func (k *Keeper) sources() []watch.Source {
	out := make([]watch.Source, len(k.setup.Certificates))
	for i, c := range k.setup.Certificates {
		out[i] = c.Source
	}
	return out
}

// configure puts a setup in force: certificates that are gone are dropped (their
// state stays on disk), those with a fixed name are loaded.
func (k *Keeper) configure(setup Setup) {
	k.setup = setup
	bySource := map[watch.Source]*Certificate{}
	for i := range setup.Certificates {
		bySource[setup.Certificates[i].Source] = &setup.Certificates[i]
	}
	for name, c := range k.certs {
		conf := bySource[c.conf.Source]
		if conf == nil {
			k.apply(c, Input{Left: true})
			k.stopProbe(c)
			k.names.remove(name)
			k.withdraw(name)
			delete(k.certs, name)
			delete(k.inGrace, name)
			continue
		}
		k.adopt(c, conf, name)
	}
	k.configureServers(setup.Servers)
	for i := range setup.Certificates {
		conf := &setup.Certificates[i]
		if conf.Source.Name != "" && k.certs[conf.Source.Name] == nil {
			k.load(conf, conf.Source.Name, conf.Source.Cert)
		}
	}
	k.resumeGlobs()
	k.leave()
	var roots []string
	for _, c := range setup.Certificates {
		if c.Roots.Impaired != "" {
			roots = append(roots, c.Roots.Impaired)
		}
	}
	if len(roots) > 0 {
		k.agent.raise("roots", roots[0], "install the ca-certificates package, or name verify.ca")
	} else {
		k.agent.clear("roots")
	}
}

// adopt gives a certificate the policy of its configuration.
func (k *Keeper) adopt(c *cert, conf *Certificate, name string) {
	c.conf = conf
	c.policy = conf.Policy
	c.policy.Name, c.policy.Host, c.policy.Instance = name, k.o.Host, k.o.Instance
	c.policy.Watched = conf.Endpoints == nil || len(conf.Endpoints) > 0
	c.policy.Windows = k.setup.Windows
	c.policy.ARI = k.o.Ask != nil
}

// load begins to keep a certificate, with the state it had.
func (k *Keeper) load(conf *Certificate, name, path string) *cert {
	c := &cert{path: path}
	k.adopt(c, conf, name)
	state, err := k.readState(name)
	if err != nil {
		k.log.Error().Err(err).Str("certificate", name).Msg("the state of this certificate cannot be read; it starts anew")
		k.agent.raise("state:"+name, fmt.Sprintf("the state of %s cannot be read: %v", name, err), "it was put aside and starts anew")
	}
	if state.Standing == Unknown && state.Events == 0 {
		// Never to make an identifier twice, should an earlier state be lost.
		state.Events = k.o.Journal.Last()
		state.Renewals = state.Events
		state.Alerts = state.Events
	}
	c.state = state
	k.certs[name] = c
	if d := state.Disk; d != nil {
		k.names.set(name, d.Leaf)
	}
	k.flush(c) // what was decided before the daemon ended, and may not be told
	if state.Standing != Unknown {
		k.apply(c, Input{Boot: true})
		k.resumeReloads(c)
	}
	return c
}

// observe takes in what the watcher says.
func (k *Keeper) observe(o watch.Observation) {
	switch o.Kind {
	case watch.Blind:
		k.agent.raise("watch:"+string(o.Fault.Code), o.Fault.Sentence, o.Fault.Hint)
		return
	case watch.Sighted:
		if o.Fault != nil {
			k.agent.clear("watch:" + string(o.Fault.Code))
		}
		return
	}
	c := k.certs[o.Name]
	if c == nil {
		conf := k.bySource(o.Source)
		if conf == nil || o.Name == "" {
			if o.Fault != nil {
				k.log.Warn().Str("path", o.Fault.Path).Str("hint", o.Fault.Hint).Msg(o.Fault.Sentence)
			}
			return
		}
		c = k.load(conf, o.Name, o.Path)
	}
	k.rush.last = k.clock.Now()
	switch o.Kind {
	case watch.Loaded, watch.Changed:
		if o.Kind == watch.Loaded && k.o.Advise != nil {
			k.advise = append(k.advise, o.Pair.CertPath, o.Pair.KeyPath)
			for _, e := range c.conf.Endpoints {
				k.advise = append(k.advise, e.File)
			}
		}
		for _, w := range o.Pair.Warnings {
			k.log.Warn().Str("certificate", o.Name).Str("path", w.Path).Str("hint", w.Hint).Msg(w.Sentence)
		}
		k.apply(c, Input{Seen: k.seenOf(c, o)})
	case watch.Broken, watch.Unreadable:
		f := o.Fault
		k.log.Warn().Str("certificate", o.Name).Str("path", f.Path).Str("hint", f.Hint).Msg(f.Sentence)
		k.apply(c, Input{Fault: &Fault{Code: string(f.Code), Path: f.Path, Sentence: f.Sentence, Hint: f.Hint, Missing: f.Absent()}})
	case watch.Removed:
		k.apply(c, Input{Removed: true})
	}
}

func (k *Keeper) bySource(s watch.Source) *Certificate {
	for i := range k.setup.Certificates {
		if k.setup.Certificates[i].Source == s {
			return &k.setup.Certificates[i]
		}
	}
	return nil
}

// apply feeds Step: the new state is written, with the events it decided, before
// anything is done.
func (k *Keeper) apply(c *cert, in Input) {
	k.conclude(c)
	if len(c.backlog) > 0 {
		if in != (Input{}) { // a tick comes again by itself
			c.backlog = append(c.backlog, in)
		}
		return
	}
	if !k.take(c, in) {
		c.backlog = []Input{in}
		k.later(func() { k.catchUp(c) })
	}
}

// catchUp takes in what waited for the disk, in its order.
func (k *Keeper) catchUp(c *cert) {
	if k.certs[c.policy.Name] != c {
		return
	}
	for len(c.backlog) > 0 {
		if !k.take(c, c.backlog[0]) {
			k.later(func() { k.catchUp(c) })
			return
		}
		c.backlog = c.backlog[1:]
	}
	c.backlog = nil
}

// take feeds Step one input; false when the state could not be written.
func (k *Keeper) take(c *cert, in Input) bool {
	in.Draw = k.draw()
	if why := k.impaired.Load(); why != nil {
		in.Impaired = *why
	} else {
		in.Impaired = c.conf.Roots.Impaired
	}
	c.policy.Silences = k.silencesOf(c)
	c.policy.Logged = slices.ContainsFunc(c.conf.Logs, func(l watch.Log) bool { return !k.deaf[l] })
	// Without the monotonic reading: times from disk and from certificates have none,
	// and an order that goes by the one here and by the other there is none.
	next, cmds := Step(k.clock.Now().Round(0), c.policy, c.state, in)
	if !promises(in, next, cmds) {
		if !sameMemory(c.state, next) {
			k.dirty[c.policy.Name] = c
		}
	} else if k.gather(c, in, next, cmds) {
		return true
	} else if err := k.write(c, next); err != nil {
		k.agent.raise("state", "the state directory cannot be written: "+err.Error(), "is the disk full?")
		return false
	}
	k.enforce(c, in, next, cmds)
	return true
}

// enforce puts in force what Step decided: it is on disk, if it must be.
func (k *Keeper) enforce(c *cert, in Input, next State, cmds []Command) {
	c.state = next
	if c.inGrace() {
		k.inGrace[c.policy.Name] = c
	} else {
		k.inGrace = without(k.inGrace, c.policy.Name)
	}
	if next.Disk != nil {
		k.names.set(c.policy.Name, next.Disk.Leaf)
	}
	k.flush(c)
	for _, cmd := range cmds {
		k.act(c, cmd)
	}
	if !in.Left {
		k.plan(c) // else it would be kept in memory until then
	}
}

// act carries out one command.
func (k *Keeper) act(c *cert, cmd Command) {
	switch cmd := cmd.(type) {
	case Probe:
		k.startProbe(c, cmd)
	case Reload:
		k.requestReload(c, cmd)
	case Drop:
		k.dropReload(c, cmd)
	case Proved:
		k.proveReload(cmd)
	case Ask:
		k.ask(c, cmd)
	}
}

// flush brings the outbox into the journal. The journal knows an event it has
// already, so an event is neither lost nor doubled by a kill in between.
func (k *Keeper) flush(c *cert) {
	if len(c.state.Outbox) == 0 || c.waiting {
		return
	}
	if !k.tell(c.state.Outbox) {
		c.waiting = true
		k.later(func() { c.waiting = false; k.flush(c) })
		return
	}
	next := c.state
	next.Outbox = nil
	c.state = next
	k.dirty[c.policy.Name] = c
}

// tell journals events and logs those that are new. A draft that can never be an
// event is a defect of ours: it is logged and dropped, so that the others are told.
func (k *Keeper) tell(drafts []notify.Draft) bool {
	byID := make(map[string]notify.Draft, len(drafts))
	good := make([]notify.Draft, 0, len(drafts))
	for _, d := range drafts {
		if _, err := notify.Finish(d, k.o.Host, k.o.Instance, 1, d.Time); err != nil {
			k.log.Error().Err(err).Str("event", string(d.Kind)).Msg("this event cannot be told")
			continue
		}
		byID[notify.EventID(k.o.Host, k.o.Instance, d)] = d
		good = append(good, d)
	}
	events, err := k.o.Journal.Append(good...)
	if err != nil {
		k.log.Error().Err(err).Msg("the journal cannot be written; the events wait")
		k.agent.raise("journal-write", "the journal cannot be written: "+err.Error(), "is the disk full, or was a file of the journal moved?")
		return false
	}
	defer k.agent.clear("journal-write")
	for _, e := range events {
		k.logEvent(byID[e.ID], e.Sequence)
	}
	if len(good) > 0 {
		k.newest = good[len(good)-1].Time
	}
	return true
}

func (k *Keeper) logEvent(d notify.Draft, sequence string) {
	level := zerolog.InfoLevel
	switch d.Data.Severity {
	case notify.Warning:
		level = zerolog.WarnLevel
	case notify.Error, notify.Critical:
		level = zerolog.ErrorLevel
	}
	e := k.log.WithLevel(level).Str("event", string(d.Kind))
	if d.Certificate != notify.AgentCertificate {
		e = e.Str("certificate", d.Certificate)
	}
	e = e.Str("sequence", sequence)
	if d.Leaf != "" {
		e = e.Str("leaf", d.Leaf[:min(16, len(d.Leaf))])
	}
	if d.Data.Cause != "" {
		e = e.Str("cause", d.Data.Cause)
	}
	if d.Data.Hint != "" {
		e = e.Str("hint", d.Data.Hint)
	}
	if d.Data.LagSeconds != nil {
		e = e.Float64("lag_seconds", *d.Data.LagSeconds)
	}
	msg := d.Data.Detail
	if msg == "" {
		msg = string(d.Kind)
	}
	e.Msg(msg)
}

// ErrNewerState is returned when a newer renewatch wrote the state directory.
var ErrNewerState = errors.New("the state was written by a newer renewatch")
