package lineage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// clock is a time that stands still until it is moved.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.now }

func (c *clock) add(d time.Duration) { c.mu.Lock(); defer c.mu.Unlock(); c.now = c.now.Add(d) }

// units are services as a test wants them.
type units struct {
	mu      sync.Mutex
	running map[string]bool // in it: the service exists
	asked   []string
	hang    chan struct{}
}

func (u *units) Running(ctx context.Context, unit string) (bool, error) {
	u.mu.Lock()
	u.asked = append(u.asked, unit)
	running, ok := u.running[unit]
	hang := u.hang
	u.mu.Unlock()
	if hang != nil {
		<-hang
	}
	if !ok {
		return false, fmt.Errorf("systemd knows no unit %s", unit)
	}
	return running, nil
}

func (u *units) set(unit string, running bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.running[unit] = running
}

// since returns what was asked since the last call.
func (u *units) since() string {
	u.mu.Lock()
	defer u.mu.Unlock()
	asked := strings.Join(u.asked, " ")
	u.asked = nil
	return asked
}

func TestRunsShareAnswers(t *testing.T) {
	le := filepath.Join(tempDir(t), "letsencrypt")
	var paths []string
	for i := range 30 {
		paths = append(paths, newLineage(t, le, fmt.Sprintf("n%d.test", i)).Fullchain())
	}
	now := &clock{now: time.Now()}
	u := &units{running: map[string]bool{"certbot.service": false}}
	runs := NewRuns(Options{Units: u, ConfigDirs: []string{le}, Now: now.Now})
	lock := filepath.Join(le, certbotLockName)
	round := func(want Run) {
		t.Helper()
		for _, path := range paths {
			if got := runs.Of(t.Context(), path); got != want {
				t.Fatalf("got  %+v\nwant %+v", got, want)
			}
		}
	}
	idle := Run{true, false, "nobody holds " + lock + "; certbot.service is not running"}
	round(idle)
	if asked := u.since(); asked != "certbot.service snap.certbot.renew.service" {
		t.Errorf("asked for %q", asked)
	}
	u.set("certbot.service", true)
	round(idle)
	if asked := u.since(); asked != "" {
		t.Errorf("asked again at once for %q", asked)
	}
	now.add(time.Second)
	round(Run{true, true, "certbot.service is running"})
	if asked := u.since(); asked != "certbot.service" {
		t.Errorf("after a second asked for %q", asked)
	}
	// A service that there is not is asked for more seldom, and found all the same.
	u.set("certbot.service", false)
	u.set("snap.certbot.renew.service", true)
	now.add(time.Second)
	round(idle)
	if asked := u.since(); asked != "certbot.service" {
		t.Errorf("after two seconds asked for %q", asked)
	}
	now.add(unitFailure)
	round(Run{true, true, "snap.certbot.renew.service is running"})
	// A clock that is set back makes no answer last.
	u.set("snap.certbot.renew.service", false)
	now.add(-time.Hour)
	round(Run{true, false, "nobody holds " + lock + "; certbot.service is not running; snap.certbot.renew.service is not running"})
}

func TestRunsUnits(t *testing.T) {
	dir := tempDir(t)
	u := &units{running: map[string]bool{"certbot.service": true, "acme.service": false}}
	runs := NewRuns(Options{Units: u, ConfigDirs: []string{filepath.Join(dir, "letsencrypt")}})
	other := newLineage(t, filepath.Join(dir, "other"), "a.test")
	plain := write(t, filepath.Join(dir, "plain.pem"), "")
	lock := filepath.Join(other.Dir, certbotLockName)

	// The lock of another directory says it all: certbot.service does not work there.
	if got := runs.Of(t.Context(), other.Fullchain()); got != (Run{true, false, "nobody holds " + lock}) {
		t.Errorf("another directory: %+v", got)
	}
	if got := runs.Of(t.Context(), plain); got.Known || got.Running || got.What != "the place of "+plain+" does not tell whose certificate it is" {
		t.Errorf("a plain file: %+v", got)
	}
	if asked := u.since(); asked != "" {
		t.Errorf("asked for %q", asked)
	}
	if got := runs.Of(t.Context(), plain, "acme.service", "acme.service"); got != (Run{true, false, "acme.service is not running"}) {
		t.Errorf("a plain file with a service: %+v", got)
	}
	if got := runs.Of(t.Context(), other.Fullchain(), "acme.service", "certbot.service"); got != (Run{true, true, "certbot.service is running"}) {
		t.Errorf("a service of its own: %+v", got)
	}
	if asked := u.since(); asked != "acme.service certbot.service" {
		t.Errorf("asked for %q", asked)
	}
	if got := runs.Of(t.Context(), plain, "missing.service"); got.Known || !strings.HasSuffix(got.What, "systemd knows no unit missing.service") {
		t.Errorf("a missing service: %+v", got)
	}
	// Where the lock cannot be asked the services count, wherever the directory is.
	if err := os.Mkdir(lock, 0o755); err != nil {
		t.Fatal(err)
	}
	unsure := NewRuns(Options{Units: u}).Of(t.Context(), other.Fullchain())
	if unsure != (Run{true, true, "certbot.service is running"}) {
		t.Errorf("no lock to ask: %+v", unsure)
	}
	// nil asks nobody.
	if got := NewRuns(Options{}).Of(t.Context(), plain, "acme.service"); got.Known {
		t.Errorf("without Units: %+v", got)
	}
}

func TestRunsHang(t *testing.T) {
	plain := write(t, filepath.Join(tempDir(t), "plain.pem"), "")
	u := &units{running: map[string]bool{"acme.service": true}, hang: make(chan struct{})}
	runs := NewRuns(Options{Units: u, Patience: 10 * time.Millisecond, Fresh: time.Hour})
	// The question about the place takes its time too on a slow machine.
	for !runs.placed(plain) {
		runs.Of(t.Context(), plain)
	}
	for range 3 {
		got := runs.Of(t.Context(), plain, "acme.service")
		if got.Known || !strings.HasSuffix(got.What, "acme.service: no answer in time") {
			t.Fatalf("a bus that hangs: %+v", got)
		}
	}
	if asked := u.since(); asked != "acme.service" {
		t.Errorf("asked for %q", asked)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got := runs.Of(ctx, plain, "acme.service"); got.Known || !strings.Contains(got.What, context.Canceled.Error()) {
		t.Errorf("an ended context: %+v", got)
	}
	close(u.hang)
	for {
		if got := runs.Of(t.Context(), plain, "acme.service"); got.Running {
			break
		}
	}
	if asked := u.since(); asked != "" {
		t.Errorf("asked again for %q", asked)
	}
}

// placed reports whether the place of path is remembered.
func (r *Runs) placed(path string) bool {
	r.places.mu.Lock()
	defer r.places.mu.Unlock()
	a := r.places.answers[path]
	return a != nil && a.pending == nil
}

func TestCacheForgets(t *testing.T) {
	now := &clock{now: time.Now()}
	c := &cache[int]{now: now.Now, patience: time.Minute}
	for i := range 10 * leastTidy {
		got, err := c.get(t.Context(), fmt.Sprint(i), func(context.Context) (int, time.Duration) { return i, time.Second })
		if got != i || err != nil {
			t.Fatalf("%d: %d %v", i, got, err)
		}
		now.add(10 * time.Millisecond)
		if len(c.answers) > 2*leastTidy {
			t.Fatalf("%d answers are remembered", len(c.answers))
		}
	}
}

func TestCacheAsksOnce(t *testing.T) {
	now := &clock{now: time.Now()}
	c := &cache[int]{now: now.Now, patience: time.Minute}
	var wg sync.WaitGroup
	asked := 0 // without a lock: the race detector would tell
	for range 32 {
		wg.Go(func() {
			if _, err := c.get(t.Context(), "q", func(context.Context) (int, time.Duration) {
				asked++
				return asked, time.Hour
			}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if asked != 1 {
		t.Errorf("asked %d times", asked)
	}
}

func TestDehydrated(t *testing.T) {
	dir := filepath.Join(tempDir(t), "dehydrated")
	write(t, filepath.Join(dir, "certs/a.test/fullchain-1700000000.pem"), "")
	path := link(t, "fullchain-1700000000.pem", filepath.Join(dir, "certs/a.test/fullchain.pem"))
	now := &clock{now: time.Now()}
	runs := NewRuns(Options{Now: now.Now})
	want := func(want Run) {
		t.Helper()
		now.add(time.Second)
		if got := runs.Of(t.Context(), path); got != want {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
	}
	lock := filepath.Join(dir, "lock")
	want(Run{false, false, dir + " does not look like dehydrated's base directory"})
	if err := os.Mkdir(filepath.Join(dir, "accounts"), 0o700); err != nil {
		t.Fatal(err)
	}
	want(Run{true, false, "there is no " + lock})
	write(t, lock, "Sun Nov 22 13:06:44 UTC 2026\n")
	want(Run{true, true, "dehydrated holds " + lock})
	// Left over from a crash.
	old := now.Now().Add(-staleLock - time.Minute)
	if err := os.Chtimes(lock, old, old); err != nil {
		t.Fatal(err)
	}
	want(Run{false, false, lock + " is left over from " + old.UTC().Format(time.RFC3339)})
	if err := errors.Join(os.Remove(lock), os.Symlink("certs", lock)); err != nil {
		t.Fatal(err)
	}
	want(Run{false, false, lock + " is no regular file"})
}

func TestOtherClients(t *testing.T) {
	dir := tempDir(t)
	write(t, filepath.Join(dir, "acme/a.test/a.test.conf"), "")
	write(t, filepath.Join(dir, "lego/certificates/a.test.json"), "")
	for path, want := range map[string]string{
		write(t, filepath.Join(dir, "acme/a.test/a.test.cer"), ""):         "acme.sh keeps no lock",
		write(t, filepath.Join(dir, "lego/certificates/a.test.crt"), "{}"): "lego keeps no lock",
	} {
		if got := NewRuns(Options{}).Of(t.Context(), path); got != (Run{What: want}) {
			t.Errorf("%s: %+v", path, got)
		}
	}
}

func BenchmarkOf(b *testing.B) {
	dir := b.TempDir()
	name := "www.example.org"
	for _, d := range []string{"live/" + name, "renewal"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			b.Fatal(err)
		}
	}
	path := filepath.Join(dir, "live", name, "fullchain.pem")
	for _, f := range []string{path, filepath.Join(dir, "renewal", name+".conf"), filepath.Join(dir, certbotLockName)} {
		if err := os.WriteFile(f, nil, 0o600); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("remembered", func(b *testing.B) {
		runs := NewRuns(Options{Fresh: time.Hour})
		for b.Loop() {
			runs.Of(b.Context(), path)
		}
	})
	b.Run("asked", func(b *testing.B) {
		for b.Loop() {
			NewRuns(Options{}).Of(b.Context(), path)
		}
	})
}
