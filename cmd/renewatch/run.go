package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/renewatch/renewatch/internal/config"
	"github.com/renewatch/renewatch/internal/durable"
	"github.com/renewatch/renewatch/internal/reload"
	"github.com/renewatch/renewatch/internal/silence"
	"github.com/renewatch/renewatch/internal/status"
	"github.com/renewatch/renewatch/internal/systemd"
	"github.com/renewatch/renewatch/internal/watchdog"
	"github.com/renewatch/renewatch/notify"
	"github.com/renewatch/renewatch/verify"
	"github.com/renewatch/renewatch/watch"
)

func (a *app) runCommand() *cobra.Command {
	var noRepair bool
	cmd := &cobra.Command{
		Use:   "run",
		Short: "the daemon: watch, verify, repair, publish",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			d := &daemon{a: a, noRepair: noRepair}
			return d.run()
		},
	}
	cmd.Flags().BoolVar(&noRepair, "no-repair", false, "tell everything, reload nothing")
	return cmd
}

// daemon is one run of the daemon.
type daemon struct {
	a        *app
	noRepair bool
	log      zerolog.Logger
	cfg      *config.Config
	manager  *systemd.Notifier
	journal  *notify.Journal
	keeper   *watchdog.Keeper
	watcher  *watch.Watcher
	silences *silences
	watching string // what, in a few words
	memory   memory
	beats    status.Beats
	started  time.Time

	sender      atomic.Pointer[notify.Sender]
	natsChanged chan config.NATS
	mu          sync.Mutex
	where       status.Run
	stood       bool // run.json is written
}

// layout is what <state>/layout.json says of the state directory.
type layout struct {
	Version  int    `json:"version"`
	Instance string `json:"instance"` // random; part of every event's id
}

const layoutVersion = 1

// loops and how long each may take from one beat to the next. The journal and
// the states are fsynced in them, on disks that may be slow.
const (
	keeperBeat  = "keeper"
	watcherBeat = "watcher"
	keeperMay   = 90 * time.Second
	watcherMay  = 90 * time.Second
)

func (d *daemon) run() error {
	d.memory.begin(d.a.getenv)
	// Whoever reads our log may go away; that must not end us. Notify rather than
	// Ignore: reload commands would inherit the latter.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	d.manager = systemd.NewNotifier()
	d.natsChanged = make(chan config.NATS)
	d.started = time.Now()
	cfg, err := d.a.load(exitConfig)
	if err != nil {
		return err
	}
	d.cfg = cfg
	d.log = d.a.logger(cfg.Log)
	host, err := hostName(cfg.Host)
	if err != nil {
		return err
	}
	setup, err := keeperSetup(cfg, !d.noRepair)
	if err != nil {
		return err
	}
	if err := checkNATS(cfg); err != nil {
		return err
	}
	for _, w := range config.Warnings(cfg) {
		d.log.Warn().Str("hint", w.Hint).Msg(w.String())
	}
	d.watching, d.cfg = summary(cfg), lean(cfg)
	lock, instance, err := openState(cfg.StateDir)
	if err != nil {
		return err
	}
	defer lock.Close()

	o := notify.JournalOptions{Host: host, Instance: instance, Keep: cfg.Journal.Keep, MaxSize: cfg.Journal.MaxSize}
	if usesNATS(d.cfg.NATS) {
		o.Destinations = []string{notify.Destination}
	}
	if d.journal, err = notify.OpenJournal(filepath.Join(cfg.StateDir, "journal"), o); err != nil {
		return failed(exitFailed, "is the disk full, or the directory not ours?", "%v", err)
	}
	defer d.journal.Close()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)

	d.watcher = watch.New(watch.Options{Beat: func() { d.beats.Beat(watcherBeat) }})
	resolver := &watchdog.Resolver{}
	d.silences = &silences{dir: silence.In(cfg.StateDir)}
	silenced, _, err := d.silences.look(d)
	if err != nil {
		d.log.Error().Err(err).Msg("no silence is in force")
	}
	positions := filepath.Join(cfg.StateDir, "logs")
	if err := os.MkdirAll(positions, 0o700); err != nil {
		return failed(exitFailed, "is the state directory ours and writable?", "%v", err)
	}
	follow := newLogs(ctx, watch.LogOptions{
		Dir:     positions,
		Deliver: func(ctx context.Context, heard []watch.Heard) error { return d.keeper.Heard(ctx, heard) },
	})
	d.keeper, err = watchdog.New(watchdog.Options{
		StateDir: cfg.StateDir, Host: host, Instance: instance, Version: thisBuild().Version,
		Journal: d.journal, Watcher: d.watcher, Resolver: resolver,
		Prober:   &verify.Prober{Resolver: resolver},
		Reloader: reload.Runner{Units: systemd.Units{}},
		Logs:     follow, Scanned: func() bool { return !d.watcher.LastScan().IsZero() },
		Ask:      (&askers{agent: "renewatch/" + thisBuild().Version}).ask,
		Silences: silenced, Pairs: (&configurations{log: d.log}).loaded, Client: clientRuns(ctx), Listener: (&listeners{}).older, Advise: advise,
		Log: d.log, Beat: func() { d.beats.Beat(keeperBeat) },
		BuildTime: thisBuild().time(), Newest: d.journal.Newest(),
	}, setup)
	if errors.Is(err, watchdog.ErrNewerState) {
		return failed(exitFailed, "run the newer renewatch, or begin with an empty state directory", "%v", err)
	}
	if err != nil {
		return failed(exitFailed, "is the state directory ours and writable?", "%v", err)
	}
	return d.serve(ctx, hup)
}

// serve runs everything until ctx ends: the keeper first to begin and first to
// end, then the sender with what is left, then the listeners.
func (d *daemon) serve(ctx context.Context, hup <-chan os.Signal) error {
	outer, release := context.WithCancel(context.WithoutCancel(ctx))
	defer release()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer release()

	d.beats.Expect(keeperBeat, keeperMay)
	d.beats.Expect(watcherBeat, watcherMay)

	keeperErr := make(chan error, 1)
	kctx, stopKeeper := context.WithCancel(ctx)
	defer stopKeeper()
	wg.Go(func() { keeperErr <- d.keeper.Run(kctx) })

	// run.json stands when every listener stands or was refused.
	var first sync.WaitGroup
	cfg := d.cfg // a new configuration may take its place meanwhile
	if cfg.HTTP.Enabled {
		first.Add(1)
		wg.Go(func() { d.serveHTTP(outer, cfg.HTTP.Listen, first.Done) })
	}
	if usesNATS(cfg.NATS) {
		first.Add(1)
		wg.Go(func() { d.serveNATS(outer, cfg, first.Done) })
	}
	first.Wait()
	d.writeRun()
	wg.Go(func() { d.mind(outer) })
	wg.Go(func() {
		_ = d.manager.Feed(outer, func(now time.Time) bool { return len(d.beats.Stalled(now)) == 0 })
	})
	d.say(d.manager.Ready(d.watching))
	d.log.Info().Str("state_dir", d.cfg.StateDir).Msg("watching: " + d.watching)

	var err error
	for running := true; running; {
		select {
		case err = <-keeperErr:
			running = false
		case <-hup:
			d.reconfigure(ctx)
		case <-ctx.Done():
			d.say(d.manager.Stopping())
			d.log.Info().Msg("stopping")
			err = <-keeperErr
			running = false
		}
	}
	release()
	wg.Wait()
	if e := status.RemoveRun(d.cfg.StateDir); e != nil {
		d.log.Error().Err(e).Msg("run.json cannot be removed")
	}
	if err != nil {
		return failed(exitFailed, "the log above says more", "%v", err)
	}
	return nil
}

func (d *daemon) say(err error) {
	if err != nil {
		d.log.Debug().Err(err).Msg("the service manager was not told")
	}
}

func summary(cfg *config.Config) string {
	return fmt.Sprintf("%s, %s", count(len(cfg.Certificates), "certificate"), count(len(cfg.Servers), "server"))
}

// writeRun writes where the daemon can be reached.
func (d *daemon) writeRun() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stood = true
	d.where.PID = os.Getpid()
	if err := status.WriteRun(d.cfg.StateDir, d.where); err != nil {
		d.log.Error().Err(err).Msg("run.json cannot be written")
	}
}

// reached notes a listener's URL, also when it stands only later.
func (d *daemon) reached(set func(*status.Run)) {
	d.mu.Lock()
	set(&d.where)
	stood := d.stood
	d.mu.Unlock()
	if stood {
		d.writeRun()
	}
}

// again is how long a taken port is left alone before it is tried again.
const again = time.Minute

// retry runs try until it succeeds or ctx ends, a minute apart, and raises a
// trouble meanwhile. told is called after the first try.
func (d *daemon) retry(ctx context.Context, key string, told func(), try func() error) bool {
	for first := true; ; first = false {
		err := try()
		if err == nil {
			d.keeper.Clear(key)
		} else {
			d.keeper.Raise(key, err.Error(), hintOf(err))
		}
		if first {
			told()
		}
		if err == nil {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(again):
		}
	}
}

func (d *daemon) serveHTTP(ctx context.Context, listen string, told func()) {
	var s *status.Server
	if !d.retry(ctx, "http", told, func() (err error) {
		if s, err = status.Listen(ctx, listen, d.snapshot); err == nil {
			d.reached(func(r *status.Run) { r.HTTP = s.URL() })
		}
		return err
	}) {
		return
	}
	if err := s.Serve(ctx); err != nil {
		d.keeper.Raise("http", err.Error(), "")
	}
}

// snapshot is what /healthz and /readyz answer from.
func (d *daemon) snapshot() status.Snapshot {
	now := time.Now()
	s := status.Snapshot{Time: now, PID: os.Getpid(), Version: thisBuild().Version, Started: d.started,
		Stalled: d.beats.Stalled(now), Scanned: !d.watcher.LastScan().IsZero(),
		Outbox: status.Outbox{Depth: d.journal.Depth(), Oldest: d.journal.OldestUnsent()}}
	troubles := d.keeper.Troubles()
	for key, t := range troubles {
		what, _, _ := strings.Cut(key, ":")
		s.Degraded = append(s.Degraded, status.Degradation{What: what, Detail: t.Detail, Hint: t.Hint, Since: t.Since})
	}
	slices.SortFunc(s.Degraded, func(a, b status.Degradation) int { return a.Since.Compare(b.Since) })
	return s
}

// hintOf returns what an error advises.
func hintOf(err error) string {
	var h interface{ Hint() string }
	if errors.As(err, &h) {
		return h.Hint()
	}
	return ""
}

// reconfigure reads the configuration again. A bad one is refused, and the old
// one stays.
func (d *daemon) reconfigure(ctx context.Context) {
	d.say(d.manager.Reloading())
	defer func() { d.say(d.manager.Ready(d.watching)) }()
	refuse := func(err error, hint string) {
		d.log.Error().Str("hint", hint).Msg("the configuration is refused, the old one stays: " + err.Error())
	}
	path, _, err := config.Find(config.FindOptions{Flag: d.a.config, Env: d.a.getenv})
	if err != nil {
		refuse(err, "")
		return
	}
	cfg, err := config.Load(path, config.LoadOptions{Getenv: d.a.getenv, UID: os.Geteuid(), StateDir: d.a.stateDir, LogLevel: d.a.logLevel, LogFormat: d.a.logFormat})
	var errs config.Errors
	if errors.As(err, &errs) {
		for _, e := range errs {
			refuse(e, e.Hint)
		}
		return
	}
	if err != nil {
		refuse(err, "")
		return
	}
	setup, err := keeperSetup(cfg, !d.noRepair)
	if err != nil {
		refuse(err, hintOf(err))
		return
	}
	if err := checkNATS(cfg); err != nil {
		refuse(err, hintOf(err))
		return
	}
	if keys := needsRestart(d.cfg, cfg); len(keys) > 0 {
		d.log.Warn().Strs("keys", keys).Msg("these changed and are read at the start only; restart renewatch for them")
	}
	now := d.cfg
	cfg.StateDir, cfg.Host, cfg.HTTP, cfg.Log.Format = now.StateDir, now.Host, now.HTTP, now.Log.Format
	if fmt.Sprint(cfg.NATS) != fmt.Sprint(now.NATS) {
		if external(cfg.NATS) && external(now.NATS) {
			select {
			case d.natsChanged <- cfg.NATS:
			case <-ctx.Done():
			}
		} else {
			cfg.NATS = now.NATS
		}
	}
	setLevel(cfg.Log.Level)
	d.journal.SetLimits(cfg.Journal.Keep, cfg.Journal.MaxSize)
	d.keeper.Reconfigure(ctx, setup)
	d.watching = summary(cfg)
	d.mu.Lock()
	d.cfg = lean(cfg)
	d.mu.Unlock()
	d.log.Info().Msg("the configuration was read again: " + d.watching)
}

// refreshRoots reads the trusted roots again, and the keeper goes on with them
// when they are others.
func (d *daemon) refreshRoots(ctx context.Context) {
	if err := d.keeper.RefreshRoots(ctx, readRoots); err != nil {
		d.log.Warn().Err(err).Msg("the trusted roots cannot be read again; the old ones stay")
	}
}

// openState makes the state directory, locks it and reads its instance.
func openState(dir string) (lock *os.File, instance string, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, "", failed(exitFailed, "name another with state_dir or --state-dir", "the state directory cannot be made: %v", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return nil, "", failed(exitFailed, "it must belong to the user renewatch runs as", "the state directory cannot be closed to others: %v", err)
	}
	lock, err = durable.Lock(filepath.Join(dir, status.LockFile))
	if errors.Is(err, durable.ErrLocked) {
		return nil, "", failed(exitFailed, "stop the other renewatch, or give this one a state directory of its own", "another renewatch runs with the state directory %s", dir)
	}
	if err != nil {
		return nil, "", failed(exitFailed, "is the directory ours, and on a file system that knows locks?", "the state directory cannot be locked: %v", err)
	}
	defer func() {
		if err != nil {
			lock.Close()
		}
	}()
	path := filepath.Join(dir, "layout.json")
	var l layout
	switch err := readJSONFile(path, &l); {
	case errors.Is(err, fs.ErrNotExist):
		var word [12]byte
		if _, err := rand.Read(word[:]); err != nil {
			return lock, "", failed(exitFailed, "", "%v", err)
		}
		l = layout{layoutVersion, hex.EncodeToString(word[:])}
		if err := writeJSONFile(path, l); err != nil {
			return lock, "", failed(exitFailed, "is the disk full?", "the state directory cannot be written: %v", err)
		}
	case err != nil || l.Instance == "":
		return lock, "", failed(exitFailed, "move the directory away to begin anew", "%s cannot be read: %v", path, err)
	case l.Version > layoutVersion:
		return lock, "", failed(exitFailed, "run the newer renewatch, or begin with an empty state directory", "the state directory %s was written by a newer renewatch (layout %d, this one knows %d)", dir, l.Version, layoutVersion)
	}
	return lock, l.Instance, nil
}
