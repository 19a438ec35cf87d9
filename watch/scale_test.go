package watch

import (
	"context"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/renewatch/renewatch/internal/certtest"
)

// lookAll scans until everything was looked at, and returns what is told.
func lookAll(l *loop) (told []Observation) {
	l.scan()
	for l.scanning {
		l.pass(context.Background())
		told = append(told, l.queue...)
		l.queue, l.parsed, l.stalled = nil, 0, false
	}
	return append(told, l.queue...)
}

// TestScanAlone: where stat shows that nothing changed nothing is read; whatever
// does change is seen by a scan, without any event.
func TestScanAlone(t *testing.T) {
	tests := []struct {
		name   string
		change func(t *testing.T, dir string, l *certtest.Lineage)
		key    string // where it lies at first; empty: privkey.pem; with a slash: configured
		want   bool   // whether it is told; else it is nothing to tell
	}{
		{"nothing", func(*testing.T, string, *certtest.Lineage) {}, "", false},
		{"links moved", func(t *testing.T, dir string, l *certtest.Lineage) { check(t, l.Renew(leafB())) }, "", true},
		{"the file rewritten with its size and time", func(t *testing.T, dir string, l *certtest.Lineage) {
			info, err := os.Stat(l.Fullchain())
			check(t, err)
			f, err := os.OpenFile(l.File("fullchain", 1), os.O_WRONLY, 0)
			check(t, err)
			_, err = f.WriteAt([]byte("-----BEGIN NOTHING----"), 0)
			check(t, err)
			check(t, f.Close())
			check(t, os.Chtimes(l.File("fullchain", 1), info.ModTime(), info.ModTime()))
		}, "", true},
		{"the key exchanged", func(t *testing.T, dir string, l *certtest.Lineage) {
			write(t, l.File("privkey", 1), leafB().KeyPEM(), 0o600)
		}, "", true},
		{"the configured key exchanged", func(t *testing.T, dir string, l *certtest.Lineage) {
			write(t, l.LiveDir()+"/my.key", leafB().KeyPEM(), 0o600)
		}, "/my.key", true},
		{"the key gone", func(t *testing.T, dir string, l *certtest.Lineage) { check(t, os.Remove(l.Key())) }, "", true},
		{"another key, in a place that comes before", func(t *testing.T, dir string, l *certtest.Lineage) {
			write(t, l.Key(), leafB().KeyPEM(), 0o600)
		}, "fullchain.key", true},
		{"another key, in a place that comes after", func(t *testing.T, dir string, l *certtest.Lineage) {
			write(t, l.LiveDir()+"/fullchain.key", leafB().KeyPEM(), 0o600)
		}, "", false},
		{"the directory exchanged", func(t *testing.T, dir string, l *certtest.Lineage) {
			other, err := certtest.NewLineage(dir+"/other", l.Name, leafB())
			check(t, err)
			check(t, os.Rename(l.ArchiveDir(), dir+"/away"))
			check(t, os.Rename(other.ArchiveDir(), l.ArchiveDir()))
		}, "", true},
		{"the directory exchanged for one with the same files", func(t *testing.T, dir string, l *certtest.Lineage) {
			check(t, os.Rename(l.ArchiveDir(), dir+"/away"))
			check(t, os.Mkdir(l.ArchiveDir(), 0o755))
			for _, kind := range certtest.Kinds {
				check(t, os.Link(dir+"/away/"+kind+"1.pem", l.File(kind, 1)))
			}
		}, "", false},
		{"the directory moved, and a link to it", func(t *testing.T, dir string, l *certtest.Lineage) {
			check(t, os.Rename(l.ArchiveDir(), dir+"/away"))
			check(t, os.Symlink("../away", l.ArchiveDir()))
		}, "", false},
		{"the directory in another one of the same name", func(t *testing.T, dir string, l *certtest.Lineage) {
			check(t, os.Rename(l.ArchiveDir(), dir+"/away"))
			check(t, os.Rename(dir+"/archive", dir+"/old"))
			check(t, os.Mkdir(dir+"/archive", 0o700))
			check(t, os.Rename(dir+"/away", l.ArchiveDir()))
		}, "", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			lineage, err := certtest.NewLineage(dir, "a.test", leafA())
			check(t, err)
			if tt.key != "" {
				check(t, os.Rename(lineage.Key(), lineage.LiveDir()+"/"+tt.key))
			}
			l := newLoop(New(Options{Settle: time.Nanosecond}))
			source := Source{Cert: lineage.Fullchain()}
			if strings.HasPrefix(tt.key, "/") {
				source.Key = lineage.LiveDir() + tt.key
			}
			l.sources = []Source{source}
			var told []Observation
			for len(told) == 0 {
				told = lookAll(l)
			}
			it := l.items["a.test"]
			if len(told) != 1 || told[0].Kind != Loaded || it.changed {
				t.Fatalf("at first: %v", told)
			}
			it.readAt = time.Now().UnixNano() // as if the files were old
			if !it.untouched(time.Now()) {
				t.Fatal("files at rest are not known to be")
			}
			tt.change(t, dir, lineage)
			told = nil
			for range 4 { // the second look concludes what the first saw
				told = append(told, lookAll(l)...)
			}
			if (len(told) > 0) != tt.want {
				t.Errorf("told: %v", told)
			}
			r := newResolver()
			fresh := examine(r, it.cert, it.key, it.foundKey(), nil)
			it.lookAround(r, fresh)
			if own, parents := compact(fresh.steps); !l.dirs.followed(it, own, parents) || it.astray {
				t.Errorf("follows %v, not %v and %v", it.holds, own, parents)
			}
		})
	}
}

// TestToldIsReadAnew: no certificate is kept from one look to the next; what is
// told was read for it.
func TestToldIsReadAnew(t *testing.T) {
	s := pairIn(t, t.TempDir(), "a.test", leafA())
	it := &item{name: "a.test", claim: claim{cert: s.Cert}, settler: settler{settle: time.Second, patience: time.Minute}}
	now := time.Now()
	if o, _ := it.look(now); o != nil {
		t.Fatal("told at once")
	}
	it.readAt = now.UnixNano() // as if the files had been old when they were read
	o, seen := it.look(now.Add(time.Second))
	if o == nil || o.Pair == nil || seen.reused {
		t.Errorf("told: %+v, read anew: %t", o, !seen.reused)
	}
	it.readAt = now.UnixNano()
	it.sign(now)
	if o, seen := it.look(now.Add(2 * time.Second)); o != nil || !seen.reused {
		t.Errorf("the same again: told %+v, read anew: %t", o, !seen.reused)
	}
}

// TestNothingFollowedIsLeft: what is followed for certificates goes with them.
func TestNothingFollowedIsLeft(t *testing.T) {
	dir := t.TempDir()
	var sources []Source
	for i := range 20 {
		l, err := certtest.NewLineage(dir, "n"+strconv.Itoa(i), leafA())
		check(t, err)
		sources = append(sources, Source{Cert: l.Fullchain()})
	}
	l := newLoop(New(testOptions))
	l.openInotify()
	defer l.dirs.lose()
	for round := range 3 {
		l.sources, l.settled = append(sources, Source{Cert: dir + "/live/*/fullchain.pem"}), false
		lookAll(l)
		// Of each lineage live/NAME and archive/NAME; live, archive, what they are in,
		// and what that is in.
		if want := 2*len(sources) + 4; len(l.dirs.nodes) != want || l.dirs.watched != want || len(l.dirs.fs.WatchList()) != want {
			t.Errorf("%d directories, %d watched, %d by fsnotify, want %d", len(l.dirs.nodes), l.dirs.watched, len(l.dirs.fs.WatchList()), want)
		}
		if watched, wanted := l.w.Watches(); watched != l.dirs.watched || wanted != l.dirs.watched {
			t.Errorf("says %d of %d", watched, wanted)
		}
		l.sources, l.settled = sources[:round], false
		lookAll(l)
		if want := 2*round + 2*min(round, 1); len(l.dirs.nodes) != want || l.dirs.watched != want || len(l.items) != round {
			t.Errorf("%d directories, %d watched, want %d; %d items", len(l.dirs.nodes), l.dirs.watched, want, len(l.items))
		}
		for _, it := range l.due {
			if it.dropped {
				t.Errorf("%s is dropped and due", it.name)
			}
		}
	}
}

// TestRenewedAtOnce: each of many lineages that are renewed at once is told once.
func TestRenewedAtOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const n = 300
	var lineages []*certtest.Lineage
	for i := range n {
		l, err := certtest.NewLineage(dir, "n"+strconv.Itoa(i), leafA())
		check(t, err)
		lineages = append(lineages, l)
	}
	o := testOptions
	o.Settle, o.Patience = 500*time.Millisecond, time.Minute
	w := start(t, o, Source{Cert: dir + "/live/*/fullchain.pem"})
	all := func(kind Kind) {
		t.Helper()
		seen := make(map[string]bool)
		for range n {
			o := <-w.out
			if o.Kind != kind || seen[o.Name] {
				t.Fatalf("%s (told before: %t)", describe(o), seen[o.Name])
			}
			seen[o.Name] = true
		}
	}
	all(Loaded)
	for _, l := range lineages {
		check(t, l.Renew(leafB()))
	}
	all(Changed)
	if watched, wanted := w.Watches(); watched != 2*n+4 || wanted != watched {
		t.Errorf("%d watches of %d", watched, wanted)
	}
}

// TestQueueIsBounded: what waits for the reader holds a bounded number of parsed
// certificates, however long the histories are.
func TestQueueIsBounded(t *testing.T) {
	dir := t.TempDir()
	lineage, err := certtest.NewLineage(dir, "a.test", leafA())
	check(t, err)
	for i := range 40 {
		leaf := testCA().Issue(certtest.LeafOptions{Names: []string{"a.test"}, Key: leafA().Key})
		write(t, lineage.File("cert", 2+i), leaf.CertPEM(), 0o644)
	}
	l := newLoop(New(Options{Settle: time.Nanosecond}))
	const n = 200
	for i := range n {
		l.sources = append(l.sources, Source{Name: "n" + strconv.Itoa(i), Cert: lineage.Fullchain()})
	}
	told, most := 0, 0
	for told < n {
		if !l.scanning && len(l.due) == 0 {
			l.scan()
		}
		l.pass(context.Background())
		waiting := 0
		for _, o := range l.queue {
			waiting += len(o.Pair.Chain) + len(o.History)
		}
		if waiting != l.parsed {
			t.Fatalf("%d certificates wait, counted are %d", waiting, l.parsed)
		}
		most = max(most, waiting)
		for len(l.queue) > 0 && (l.stalled || !l.scanning) {
			l.taken()
			told++
		}
	}
	if most < maxCertificates || most > maxCertificates+maxLooks*(maxHistory+2) {
		t.Errorf("up to %d certificates waited", most)
	}
}
