package watchdog

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/renewatch/renewatch/internal/durable"
)

// Clock tells the time.
type Clock interface {
	Now() time.Time
	// Boot is the time since the host booted, a suspend included; 0: unknown.
	Boot() time.Duration
}

// systemClock is the host's.
type systemClock struct{}

func (systemClock) Now() time.Time      { return time.Now() }
func (systemClock) Boot() time.Duration { return bootTime() }

// files keeps what is remembered. Names are relative to the state directory.
type files interface {
	// read decodes one file; fs.ErrNotExist when there is none.
	read(name string, v any) error
	write(name string, data []byte) error
	// writeAll writes several files, and returns an error or nil for each.
	writeAll(files []file) []error
	// list returns the names of the JSON files in a directory.
	list(dir string) ([]string, error)
	// putAside keeps a file that cannot be understood, for a person to look at.
	putAside(name string) error
}

// file is a file that is to be written.
type file struct {
	name string
	data []byte
}

// directory is a state directory on disk.
type directory string

func (d directory) path(name string) string { return filepath.Join(string(d), name) }

func (d directory) read(name string, v any) error { return readJSON(d.path(name), v) }

func (d directory) write(name string, data []byte) error {
	return durable.WriteFile(d.path(name), data, 0o600)
}

func (d directory) writeAll(files []file) []error {
	paths := make([]string, len(files))
	data := make([][]byte, len(files))
	for i, f := range files {
		paths[i], data[i] = d.path(f.name), f.data
	}
	return durable.WriteFiles(paths, data, 0o600)
}

func (d directory) list(dir string) ([]string, error) {
	paths, err := filepath.Glob(filepath.Join(globEscape(d.path(dir)), "*.json"))
	for i, p := range paths {
		paths[i] = filepath.Join(dir, filepath.Base(p))
	}
	return paths, err
}

func (d directory) putAside(name string) error {
	path := d.path(name)
	err := os.Rename(path, fmt.Sprintf("%s.unreadable-%d", path, time.Now().Unix()))
	if os.IsNotExist(err) {
		return nil
	}
	return err
}

// hands do what takes time, outside the loop. done is called at most once; not at
// all where ctx ended before. The done of probe and reload may be called from any
// goroutine, that of the others in the loop.
type hands interface {
	probe(ctx context.Context, j job, done func(Round))
	reload(ctx context.Context, o order, done func(runDone))
	clients(ctx context.Context, paths map[string]string, done func(map[string]bool))
	pairs(ctx context.Context, q pairsQuestion, done func([]badPair))
	advise(ctx context.Context, paths []string, done func())
	ask(ctx context.Context, q Question, done func(Answered))
}

// workers are hands that really work, each task in a goroutine of the keeper.
type workers struct{ k *Keeper }

func (w workers) probe(ctx context.Context, j job, done func(Round)) {
	w.k.wg.Go(func() {
		if round := w.k.probe(ctx, j); ctx.Err() == nil {
			done(round)
		}
	})
}

func (w workers) reload(ctx context.Context, o order, done func(runDone)) {
	w.k.wg.Go(func() { done(w.k.carryOut(ctx, o)) })
}

func (w workers) clients(ctx context.Context, paths map[string]string, done func(map[string]bool)) {
	w.k.wg.Go(func() {
		running := w.k.clientRuns(ctx, paths)
		w.k.do(ctx.Done(), func() { done(running) })
	})
}

// adviseTogether is for how many files advice is asked at once.
const adviseTogether = 256

func (w workers) advise(ctx context.Context, paths []string, done func()) {
	w.k.wg.Go(func() {
		slices.Sort(paths)
		paths = slices.DeleteFunc(slices.Compact(paths), func(path string) bool { return path == "" })
		for some := range slices.Chunk(paths, adviseTogether) {
			if ctx.Err() != nil {
				break
			}
			for _, a := range w.k.o.Advise(some) {
				w.k.log.Warn().Str("path", a.Path).Str("hint", a.Hint).Msg(a.Sentence)
			}
		}
		w.k.do(ctx.Done(), done)
	})
}

func (w workers) ask(ctx context.Context, q Question, done func(Answered)) {
	w.k.wg.Go(func() {
		select {
		case w.k.asking <- struct{}{}:
		case <-ctx.Done():
			return
		}
		defer func() { <-w.k.asking }()
		answer, err := w.k.o.Ask(ctx, q)
		w.k.do(ctx.Done(), func() { done(Answered{Answer: answer, Err: err}) })
	})
}

func (w workers) pairs(ctx context.Context, q pairsQuestion, done func([]badPair)) {
	w.k.wg.Go(func() {
		if bad := w.k.readPairs(ctx, q); ctx.Err() == nil {
			w.k.do(ctx.Done(), func() { done(bad) })
		}
	})
}
