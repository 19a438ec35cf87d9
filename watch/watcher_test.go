package watch

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/renewatch/renewatch/internal/certtest"
)

// Tests settle fast; a scan would hide an event that was not seen, so it comes
// only where a test asks for one.
const testSettle = 150 * time.Millisecond

var testOptions = Options{Settle: testSettle, Patience: 5 * time.Second, ScanEvery: time.Hour}

// watching is a running watcher.
type watching struct {
	*Watcher
	t   *testing.T
	out chan Observation
}

func start(t *testing.T, o Options, sources ...Source) *watching {
	t.Helper()
	w := &watching{Watcher: New(o), t: t, out: make(chan Observation)}
	w.Set(sources)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- w.Run(ctx, w.out) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		select {
		case o := <-w.out:
			t.Errorf("not expected: %s", describe(o))
		default:
		}
	})
	return w
}

func describe(o Observation) string {
	s := string(o.Kind) + " " + o.Name
	if o.Fault != nil {
		s += " " + string(o.Fault.Code) + ": " + o.Fault.Sentence
	}
	return s
}

// next returns the next observation, which must be of this kind and name. Where
// there is none the test binary's own timeout shows who waits for it.
func (w *watching) next(kind Kind, name string) Observation {
	w.t.Helper()
	o := <-w.out
	w.is(o, kind, name)
	return o
}

func (w *watching) is(o Observation, kind Kind, name string) {
	w.t.Helper()
	if o.Kind != kind || o.Name != name {
		w.t.Fatalf("got %s, want %s %s", describe(o), kind, name)
	}
	if o.Time.IsZero() || o.Since.IsZero() || o.Since.After(o.Time) {
		w.t.Errorf("%s: since %v, time %v", describe(o), o.Since, o.Time)
	}
	switch kind {
	case Loaded, Changed:
		if o.Pair == nil || o.Fault != nil {
			w.t.Errorf("%s: pair %v, fault %v", describe(o), o.Pair, o.Fault)
		}
	case Broken, Unreadable, Blind, Sighted:
		if o.Pair != nil || o.Fault == nil {
			w.t.Errorf("%s: pair %v, fault %v", describe(o), o.Pair, o.Fault)
		} else {
			soundSentence(w.t, o.Fault)
		}
	}
}

// has waits for an observation of the leaf.
func (w *watching) has(kind Kind, name string, leaf *certtest.Leaf) Observation {
	w.t.Helper()
	var o Observation
	for o = range w.out {
		// On a busy machine the test's own writer may be held up for longer than
		// the settle time between its two files.
		if o.Name != name || o.Fault == nil || o.Kind == Blind {
			break
		}
		w.t.Logf("half-way: %s", describe(o))
	}
	w.is(o, kind, name)
	if o.Pair == nil || !o.Pair.Leaf().Equal(leaf.Cert) {
		w.t.Fatalf("%s: another leaf than expected", describe(o))
	}
	if o.Pair.Key != KeyMatches {
		w.t.Errorf("%s: key %s", describe(o), o.Pair.Key)
	}
	return o
}

// fails waits for an observation of a fault.
func (w *watching) fails(kind Kind, name string, code FaultCode) Observation {
	w.t.Helper()
	o := w.next(kind, name)
	if o.Fault == nil || o.Fault.Code != code {
		w.t.Fatalf("got %s, want %s", describe(o), code)
	}
	return o
}

// ticker is one more certificate, whose changes show that what was written
// before them has settled.
type ticker struct {
	t      *testing.T
	source Source
	leaf   *certtest.Leaf
}

func newTicker(t *testing.T) *ticker {
	return &ticker{t: t, source: pairIn(t, t.TempDir(), "tick", leafA()), leaf: leafA()}
}

// wait lets two settle times pass in which nothing else may be told.
func (c *ticker) wait(w *watching) {
	c.t.Helper()
	for range 2 {
		if c.leaf == leafA() {
			c.leaf = leafB()
		} else {
			c.leaf = leafA()
		}
		check(c.t, certtest.WritePair(c.source.Cert, c.source.Key, c.leaf))
		w.has(Changed, "tick", c.leaf)
	}
}

// pairIn writes a plain pair.
func pairIn(t *testing.T, dir, name string, leaf *certtest.Leaf) Source {
	t.Helper()
	s := Source{Cert: filepath.Join(dir, name+".crt"), Key: filepath.Join(dir, name+".key")}
	check(t, certtest.WritePair(s.Cert, s.Key, leaf))
	return s
}

func TestReplaceInPlace(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := pairIn(t, dir, "a.test", leafA())
	w := start(t, testOptions, s)
	if o := w.has(Loaded, "a.test", leafA()); o.Source != s || o.Path != s.Cert {
		t.Errorf("source %+v, path %s", o.Source, o.Path)
	}
	check(t, certtest.WritePair(s.Cert, s.Key, leafB()))
	w.has(Changed, "a.test", leafB())
}

func TestReplaceByRename(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := pairIn(t, dir, "a.test", leafA())
	w := start(t, testOptions, s)
	w.has(Loaded, "a.test", leafA())
	pairIn(t, dir, ".new", leafB())
	check(t, os.Rename(dir+"/.new.key", s.Key))
	check(t, os.Rename(dir+"/.new.crt", s.Cert))
	w.has(Changed, "a.test", leafB())
}

// TestLinkSwap: certbot's own protocol, and the history from its archive.
func TestLinkSwap(t *testing.T) {
	t.Parallel()
	l, err := certtest.NewLineage(t.TempDir(), "a.test", leafA())
	check(t, err)
	w := start(t, testOptions, Source{Cert: l.Fullchain()})
	if o := w.has(Loaded, "a.test", leafA()); len(o.History) != 0 {
		t.Errorf("history of %d", len(o.History))
	}
	before := time.Now()
	check(t, l.Renew(leafB()))
	o := w.has(Changed, "a.test", leafB())
	if len(o.History) != 1 || !o.History[0].Equal(leafA().Cert) {
		t.Errorf("history of %d", len(o.History))
	}
	if o.Since.Before(before) || o.Time.Sub(o.Since) < testSettle {
		t.Errorf("since %v, time %v, written after %v", o.Since, o.Time, before)
	}
	if o.Pair.KeyPath != l.Key() || len(o.Pair.Touch) != 2 || !strings.HasSuffix(o.Pair.Touch[0], "/archive/a.test/fullchain2.pem") {
		t.Errorf("key %s, touch %q", o.Pair.KeyPath, o.Pair.Touch)
	}
}

// TestLinkSwapHalfWay: while certbot's previous_* links stand, nothing is told,
// however long the links have been the same.
func TestLinkSwapHalfWay(t *testing.T) {
	t.Parallel()
	l, err := certtest.NewLineage(t.TempDir(), "a.test", leafA())
	check(t, err)
	tick := newTicker(t)
	w := start(t, testOptions, Source{Cert: l.Fullchain()}, tick.source)
	w.has(Loaded, "a.test", leafA())
	w.next(Loaded, "tick")
	n, err := l.Archive(leafB())
	check(t, err)
	check(t, l.AddPrevious())
	for _, kind := range []string{"cert", "privkey"} {
		check(t, l.SwitchKind(kind, n))
	}
	// The new key beside the old fullchain, for several settle times.
	tick.wait(w)
	for _, kind := range []string{"chain", "fullchain"} {
		check(t, l.SwitchKind(kind, n))
	}
	check(t, l.RemovePrevious())
	w.has(Changed, "a.test", leafB())
}

// TestLinkSwapAbandoned: a certbot that died half-way is told of in the end.
func TestLinkSwapAbandoned(t *testing.T) {
	t.Parallel()
	o := testOptions
	o.Patience = 3 * testSettle
	l, err := certtest.NewLineage(t.TempDir(), "a.test", leafA())
	check(t, err)
	w := start(t, o, Source{Cert: l.Fullchain()})
	w.has(Loaded, "a.test", leafA())
	n, err := l.Archive(leafB())
	check(t, err)
	check(t, l.AddPrevious())
	check(t, l.SwitchKind("privkey", n))
	w.fails(Broken, "a.test", OtherKey)
}

// TestKubernetesSwap: only the ..data link changes, no event names tls.crt.
func TestKubernetesSwap(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	version := func(n string, leaf *certtest.Leaf) {
		check(t, os.Mkdir(dir+"/..v"+n, 0o755))
		check(t, certtest.WritePair(dir+"/..v"+n+"/tls.crt", dir+"/..v"+n+"/tls.key", leaf))
		check(t, os.Symlink("..v"+n, dir+"/..data_tmp"))
		check(t, os.Rename(dir+"/..data_tmp", dir+"/..data"))
	}
	version("1", leafA())
	check(t, os.Symlink("..data/tls.crt", dir+"/tls.crt"))
	check(t, os.Symlink("..data/tls.key", dir+"/tls.key"))
	w := start(t, testOptions, Source{Name: "k8s", Cert: dir + "/tls.crt"})
	w.has(Loaded, "k8s", leafA())
	version("2", leafB())
	check(t, os.RemoveAll(dir+"/..v1"))
	w.has(Changed, "k8s", leafB())
	version("3", leafA())
	w.has(Changed, "k8s", leafA())
}

// TestParentRenamed: the directory above the files' own goes away and comes back.
func TestParentRenamed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	check(t, os.MkdirAll(dir+"/p/q", 0o755))
	s := pairIn(t, dir+"/p/q", "a.test", leafA())
	w := start(t, testOptions, s)
	w.has(Loaded, "a.test", leafA())
	check(t, os.Rename(dir+"/p", dir+"/away"))
	w.fails(Unreadable, "a.test", Missing)
	// What happens in the old directory is nobody's concern.
	pairIn(t, dir+"/away/q", "a.test", leafRSA())
	check(t, os.MkdirAll(dir+"/p/q", 0o755))
	pairIn(t, dir+"/p/q", "a.test", leafB())
	w.has(Changed, "a.test", leafB())
}

// TestMissingIsWaitedFor: directories and files that come later are seen.
func TestMissingIsWaitedFor(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := Source{Cert: dir + "/x/y/a.test.crt"}
	w := start(t, testOptions, s)
	o := w.fails(Unreadable, "a.test", Missing)
	if !o.Fault.Absent() || o.Path != s.Cert {
		t.Errorf("%+v", o)
	}
	check(t, os.MkdirAll(dir+"/x/y", 0o755))
	pairIn(t, dir+"/x/y", "a.test", leafA())
	w.has(Loaded, "a.test", leafA())
	check(t, os.RemoveAll(dir+"/x"))
	w.fails(Unreadable, "a.test", Missing)
	check(t, os.MkdirAll(dir+"/x/y", 0o755))
	pairIn(t, dir+"/x/y", "a.test", leafA())
	w.has(Changed, "a.test", leafA())
}

// TestBrokenAndHealed: faults are told when their code changes, and the way back
// is told although the leaf is the same.
func TestBrokenAndHealed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := pairIn(t, dir, "a.test", leafA())
	w := start(t, testOptions, s)
	w.has(Loaded, "a.test", leafA())
	full := leafA().FullchainPEM()
	write(t, s.Cert, full[:len(full)-30], 0o644)
	w.fails(Broken, "a.test", HalfWritten)
	write(t, s.Cert, full[:len(full)-60], 0o644) // the same fault: nothing
	write(t, s.Key, leafB().KeyPEM(), 0o600)
	write(t, s.Cert, full, 0o644)
	w.fails(Broken, "a.test", OtherKey)
	check(t, os.Remove(s.Key))
	w.fails(Unreadable, "a.test", KeyMissing)
	write(t, s.Key, leafA().KeyPEM(), 0o600)
	w.has(Changed, "a.test", leafA())
}

// TestSameLeafIsNothing: rewriting, touching, chmod of the same content tell
// nothing; another chain with the same leaf does.
func TestSameLeafIsNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	tick := newTicker(t)
	s := pairIn(t, dir, "a.test", leafA())
	w := start(t, testOptions, s, tick.source)
	w.has(Loaded, "a.test", leafA())
	w.next(Loaded, "tick")
	check(t, certtest.WritePair(s.Cert, s.Key, leafA()))
	check(t, os.Chtimes(s.Cert, time.Now(), time.Now()))
	check(t, os.Chmod(s.Key, 0o640))
	write(t, s.Cert, joined([]byte("a comment\n"), leafA().FullchainPEM()), 0o644)
	tick.wait(w)
	write(t, s.Cert, leafA().CertPEM(), 0o644)
	if o := w.has(Changed, "a.test", leafA()); len(o.Pair.Chain) != 1 {
		t.Errorf("chain of %d", len(o.Pair.Chain))
	}
}

// TestEndlessWriter: files that are written all the time are judged all the same.
func TestEndlessWriter(t *testing.T) {
	t.Parallel()
	o := testOptions
	o.Patience = 4 * testSettle
	dir := t.TempDir()
	s := pairIn(t, dir, "a.test", leafA())
	w := start(t, o, s)
	w.has(Loaded, "a.test", leafA())
	var stop atomic.Bool
	done := make(chan struct{})
	check(t, certtest.WritePair(s.Cert, s.Key, leafB()))
	go func() {
		defer close(done)
		pace := time.NewTicker(testSettle / 3)
		defer pace.Stop()
		for !stop.Load() {
			if err := certtest.WritePair(s.Cert, s.Key, leafB()); err != nil {
				t.Error(err)
			}
			<-pace.C
		}
	}()
	defer func() {
		stop.Store(true)
		<-done
	}()
	w.has(Changed, "a.test", leafB())
}

// TestFoundKeyGoes: a key that was found beside the certificate is missed when
// it goes, although the certificate alone would be sound.
func TestFoundKeyGoes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := pairIn(t, dir, "a.test", leafA())
	w := start(t, testOptions, Source{Cert: s.Cert})
	w.has(Loaded, "a.test", leafA())
	check(t, os.Remove(s.Key))
	if o := w.fails(Unreadable, "a.test", KeyMissing); o.Fault.Path != s.Key {
		t.Errorf("path %s", o.Fault.Path)
	}
	write(t, s.Key, leafA().KeyPEM(), 0o600)
	w.has(Changed, "a.test", leafA())
}

// TestCertificateOnly: without any key the pair is unknown; one that comes later
// is found.
func TestCertificateOnly(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir+"/a.test.crt", leafA().FullchainPEM(), 0o644)
	w := start(t, testOptions, Source{Cert: dir + "/a.test.crt"})
	if o := w.next(Loaded, "a.test"); o.Pair.Key != KeyUnknown {
		t.Errorf("key %s", o.Pair.Key)
	}
	write(t, dir+"/a.test.key", leafA().KeyPEM(), 0o600)
	w.has(Changed, "a.test", leafA())
}

// TestSettledAtStart: files that have rested longer than the settle time are
// told of without waiting for it.
func TestSettledAtStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := pairIn(t, dir, "a.test", leafA())
	w := start(t, Options{Settle: time.Hour, Patience: 2 * time.Hour, ScanEvery: 10 * time.Millisecond}, s)
	// An hour has not passed since the files were written.
	for range 3 {
		last := w.LastScan()
		for w.LastScan().Equal(last) {
			runtime.Gosched()
		}
	}
	select {
	case o := <-w.out:
		t.Fatalf("told: %s", describe(o))
	default:
	}
	it := &item{name: "a.test", claim: claim{cert: s.Cert}, settler: settler{settle: time.Hour, patience: 2 * time.Hour}}
	if o, _ := it.look(time.Now().Add(61 * time.Minute)); o == nil || o.Kind != Loaded {
		t.Errorf("an hour later: %+v", o)
	}
}

// look is all that a loop makes of an item at one time.
func (it *item) look(now time.Time) (*Observation, *sight) {
	r := newResolver()
	s := it.examine(r, now)
	o := it.decide(s, now)
	if o != nil {
		o.remember()
	}
	return o, s
}

// TestSetWhileRunning: sources come and go; what stays keeps its state.
func TestSetWhileRunning(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a, b := pairIn(t, dir, "a.test", leafA()), pairIn(t, dir, "b.test", leafB())
	w := start(t, testOptions)
	w.Set([]Source{a})
	w.has(Loaded, "a.test", leafA())
	w.Set([]Source{a, b})
	w.has(Loaded, "b.test", leafB())
	w.Set([]Source{b})
	w.Set([]Source{b, {Name: "c", Cert: a.Cert, Key: a.Key}})
	w.has(Loaded, "c", leafA())
	check(t, certtest.WritePair(b.Cert, b.Key, leafA()))
	w.has(Changed, "b.test", leafA())
	// The same name with another path goes on, and says where it is now.
	w.Set([]Source{b, {Name: "c", Cert: b.Cert, Key: b.Key}})
	if o := w.has(Changed, "c", leafA()); o.Path != b.Cert {
		t.Errorf("path %s", o.Path)
	}
}

// TestRunTwice: one Watcher runs once at a time, and again after it has ended.
func TestRunTwice(t *testing.T) {
	t.Parallel()
	w := New(testOptions)
	for range 2 {
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error)
		go func() { done <- w.Run(ctx, make(chan Observation)) }()
		for w.LastScan().IsZero() || !w.running.Load() {
			runtime.Gosched()
		}
		if err := w.Run(ctx, nil); err == nil {
			t.Error("a second Run is accepted")
		}
		cancel()
		check(t, <-done)
	}
}

// TestReaderBehind: a reader that takes nothing holds up neither the beats nor
// the end; nothing is lost.
func TestReaderBehind(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	pairIn(t, dir, "x", leafA())
	var sources []Source
	const n = 2*maxQueue + 10
	for i := range n {
		sources = append(sources, Source{Name: "n" + strconv.Itoa(i), Cert: dir + "/x.crt", Key: dir + "/x.key"})
	}
	var beats atomic.Int64
	o := testOptions
	o.Settle, o.ScanEvery = time.Nanosecond, time.Hour
	o.Beat = func() { beats.Add(1) }
	w := start(t, o, sources...)
	// The scan itself beats about 30 times.
	for beats.Load() < 200 {
		w.Scan()
		runtime.Gosched()
	}
	seen := make(map[string]int)
	for range n {
		o := <-w.out
		if o.Kind != Loaded {
			t.Fatal(describe(o))
		}
		seen[o.Name]++
	}
	if len(seen) != n {
		t.Errorf("%d names of %d", len(seen), n)
	}
	for w.LastScan().IsZero() {
		runtime.Gosched()
	}
}
