package watch

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/renewatch/renewatch/internal/certtest"
)

func TestNameOf(t *testing.T) {
	tests := []struct{ path, want string }{
		{"/etc/letsencrypt/live/www.example.org/fullchain.pem", "www.example.org"},
		{"/etc/letsencrypt/live/www.example.org-0001/cert.pem", "www.example.org-0001"},
		{"live/a/fullchain.pem", "a"},
		{"/etc/ssl/www.example.org.crt", "www.example.org"},
		{"/etc/ssl/www.example.org.pem", "www.example.org"},
		{"/live/x.pem", "x"},
		{"/srv/live/x.pem", "x"},
		{"/etc/ssl/bundle", "bundle"},
		{"/etc/ssl/.pem", ".pem"},
		{"/etc/letsencrypt/live//a/./fullchain.pem", "a"},
		{"/etc/letsencrypt/archive/a/fullchain1.pem", "fullchain1"},
	}
	for _, tt := range tests {
		if got := NameOf(tt.path); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.path, got, tt.want)
		}
	}
}

func TestExpand(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"live/a", "live/b", "live/empty", "live/.hidden", "flat", "flat/dir.crt", "flat/sub", "deep/1/x/2", "deep/1/y/3"} {
		check(t, os.MkdirAll(dir+"/"+d, 0o755))
	}
	for _, f := range []string{"live/README", "live/a/fullchain.pem", "live/.hidden/fullchain.pem", "flat/a.crt", "flat/a.issuer.crt", "flat/z.issuer.crt", "flat/y.issuer.crt", "flat/y.issuer.key", "flat/.a.crt", "flat/b[1].crt", "deep/1/x/2/c.pem", "deep/1/y/3/c.pem"} {
		write(t, dir+"/"+f, nil, 0o644)
	}
	check(t, os.Symlink("../../archive/b/fullchain1.pem", dir+"/live/b/fullchain.pem"))
	check(t, os.Symlink("a", dir+"/live/link"))
	tests := []struct {
		pattern string
		want    string
		fault   FaultCode
	}{
		{"live/*/fullchain.pem", "live/a/fullchain.pem live/b/fullchain.pem live/link/fullchain.pem", ""},
		{"live/.*/fullchain.pem", "live/.hidden/fullchain.pem", ""},
		{"live/[ab]/fullchain.pem", "live/a/fullchain.pem live/b/fullchain.pem", ""},
		{"flat/*.crt", "flat/a.crt flat/b[1].crt flat/y.issuer.crt", ""},
		{`flat/b\[1\].crt`, "flat/b[1].crt", ""},
		{"deep/*/*/*/c.pem", "deep/1/x/2/c.pem deep/1/y/3/c.pem", ""},
		{"deep/*/x/../y/?/c.pem", "deep/1/x/../y/3/c.pem", ""},
		{"gone/*/fullchain.pem", "", ""},
		{"flat/a.crt/*", "", ""},
		{"flat/[", "", BadGlob},
	}
	for _, tt := range tests {
		got, steps, fault := newResolver().expand(dir+"/"+tt.pattern, maxMatches)
		for i := range got {
			got[i] = strings.TrimPrefix(got[i], dir+"/")
		}
		if s := strings.Join(got, " "); s != tt.want {
			t.Errorf("%s: got %s, want %s", tt.pattern, s, tt.want)
		}
		if (fault == nil) != (tt.fault == "") || fault != nil && fault.Code != tt.fault {
			t.Errorf("%s: fault %v, want %q", tt.pattern, fault, tt.fault)
		}
		if len(steps) == 0 {
			t.Errorf("%s: nothing to watch", tt.pattern)
		}
	}
	if _, _, fault := newResolver().expand(dir+"/flat/*", 2); fault == nil || fault.Code != TooManyMatches {
		t.Errorf("too many matches: %v", fault)
	}
	check(t, os.Chdir(dir))
	t.Cleanup(func() { check(t, os.Chdir("/")) })
	if got, _, _ := newResolver().expand("*/a.crt", maxMatches); !slices.Equal(got, []string{"./flat/a.crt"}) {
		t.Errorf("relative: %q", got)
	}
}

// TestLineagesComeAndGo: a glob picks up new lineages and drops deleted ones with
// one observation each.
func TestLineagesComeAndGo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a, err := certtest.NewLineage(dir, "a.test", leafA())
	check(t, err)
	write(t, dir+"/live/README", []byte("read me\n"), 0o644)
	glob := Source{Cert: dir + "/live/*/fullchain.pem"}
	w := start(t, testOptions, glob)
	if o := w.has(Loaded, "a.test", leafA()); o.Source != glob || o.Path != a.Fullchain() {
		t.Errorf("source %+v, path %s", o.Source, o.Path)
	}
	b, err := certtest.NewLineage(dir, "b.test", leafB())
	check(t, err)
	w.has(Loaded, "b.test", leafB())
	check(t, a.Renew(leafRSA()))
	w.has(Changed, "a.test", leafRSA())
	check(t, b.Remove())
	if o := w.next(Removed, "b.test"); o.Path != b.Fullchain() || o.Pair != nil {
		t.Errorf("%+v", o)
	}
	w.Scan()
	_, err = certtest.NewLineage(dir, "b.test", leafA())
	check(t, err)
	w.has(Loaded, "b.test", leafA())
}

// TestGlobBeforeItsDirectory: nothing of the glob's path exists yet.
func TestGlobBeforeItsDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := start(t, testOptions, Source{Cert: dir + "/le/live/*/fullchain.pem"})
	check(t, os.Mkdir(dir+"/le", 0o755))
	_, err := certtest.NewLineage(dir+"/le", "a.test", leafA())
	check(t, err)
	w.has(Loaded, "a.test", leafA())
}

// TestFileOfFlatGlobGone: the file is gone and its directory is there: that is no
// removal.
func TestFileOfFlatGlobGone(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "certs")
	check(t, os.Mkdir(dir, 0o755))
	_, _, err := certtest.WriteLego(dir, "a.test", leafA())
	check(t, err)
	w := start(t, testOptions, Source{Cert: dir + "/*.crt"})
	w.has(Loaded, "a.test", leafA())
	check(t, os.Remove(dir+"/a.test.crt"))
	w.fails(Unreadable, "a.test", Missing)
	_, _, err = certtest.WriteLego(dir, "a.test", leafB())
	check(t, err)
	w.has(Changed, "a.test", leafB())
	check(t, os.RemoveAll(dir))
	w.next(Removed, "a.test")
}

// TestWholeTreeGone: when more than the lineage is away, its file system may be.
func TestWholeTreeGone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, err := certtest.NewLineage(dir+"/le", "a.test", leafA())
	check(t, err)
	w := start(t, testOptions, Source{Cert: dir + "/le/live/*/fullchain.pem"})
	w.has(Loaded, "a.test", leafA())
	check(t, os.Rename(dir+"/le", dir+"/elsewhere"))
	w.fails(Unreadable, "a.test", Missing)
	check(t, os.Rename(dir+"/elsewhere", dir+"/le"))
	w.has(Changed, "a.test", leafA())
}

// TestConfiguredLineageRemoved: without a glob certbot's renewal/NAME.conf
// decides, and only if it was there.
func TestConfiguredLineageRemoved(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a, err := certtest.NewLineage(dir, "a.test", leafA())
	check(t, err)
	b, err := certtest.NewLineage(dir, "b.test", leafA())
	check(t, err)
	check(t, os.Remove(b.Conf()))
	w := start(t, testOptions, Source{Cert: a.Fullchain()}, Source{Cert: b.Fullchain()})
	w.has(Loaded, "a.test", leafA())
	w.has(Loaded, "b.test", leafA())
	check(t, os.RemoveAll(a.LiveDir()))
	w.fails(Unreadable, "a.test", Missing)
	check(t, a.Remove())
	w.Scan()
	w.next(Removed, "a.test")
	check(t, os.RemoveAll(b.LiveDir()))
	w.fails(Unreadable, "b.test", Missing)
	_, err = certtest.NewLineage(dir, "a.test", leafB())
	check(t, err)
	w.has(Loaded, "a.test", leafB())
}

// TestTwoFilesOneName: neither is watched while both claim the name.
func TestTwoFilesOneName(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := pairIn(t, dir, "a.test", leafA())
	w := start(t, testOptions, Source{Cert: dir + "/*.[cp]*"})
	w.has(Loaded, "a.test", leafA())
	write(t, dir+"/a.test.pem", leafB().CombinedPEM(), 0o600)
	o := w.fails(Broken, "a.test", DuplicateName)
	if !strings.Contains(o.Fault.Sentence, s.Cert) || !strings.Contains(o.Fault.Sentence, dir+"/a.test.pem") {
		t.Errorf("does not name both: %s", o.Fault)
	}
	check(t, os.Remove(dir+"/a.test.pem"))
	w.has(Changed, "a.test", leafA())
}

// TestGlobAndEntry: a file that is listed by itself is that entry, also where a
// glob matches it.
func TestGlobAndEntry(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	own := pairIn(t, dir, "a.test", leafA())
	own.Name = "mine"
	pairIn(t, dir, "b.test", leafB())
	glob := Source{Cert: dir + "/*.crt"}
	w := start(t, testOptions, glob, own, Source{Cert: dir + "/?.test.crt"})
	if o := w.has(Loaded, "b.test", leafB()); o.Source != glob {
		t.Errorf("source %+v", o.Source)
	}
	if o := w.has(Loaded, "mine", leafA()); o.Source != own {
		t.Errorf("source %+v", o.Source)
	}
}

// TestReservedName: a match that would get a reserved name is said, not watched.
func TestReservedName(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	pairIn(t, dir, "_.example.org", leafA())
	pairIn(t, dir, "a.test", leafA())
	w := start(t, testOptions, Source{Cert: dir + "/*.crt"})
	w.fails(Blind, "", BadName)
	w.has(Loaded, "a.test", leafA())
	pairIn(t, dir, "_agent", leafA())
	w.fails(Blind, "", BadName)
	for _, name := range []string{"_agent", "_.example.org"} {
		check(t, os.Remove(dir+"/"+name+".crt"))
	}
	for o := range w.out {
		if o.Kind == Sighted && o.Fault.Code == BadName {
			break
		}
		if o.Kind != Blind {
			t.Fatal(describe(o))
		}
	}
}

// TestHistory: numeric order, bounded, without the present leaf and without what
// is no certificate.
func TestHistory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l, err := certtest.NewLineage(dir, "a.test", leafA())
	check(t, err)
	var all []*certtest.Leaf
	for range 11 {
		leaf := testCA().Issue(certtest.LeafOptions{Names: []string{"a.test"}, Key: leafA().Key})
		all = append(all, leaf)
		check(t, l.Renew(leaf))
	}
	write(t, l.File("cert", 3), []byte("broken"), 0o644)
	check(t, os.Remove(l.File("cert", 4))) // fullchain4.pem has it too
	write(t, l.ArchiveDir()+"/cert.pem", leafB().CertPEM(), 0o644)
	write(t, l.ArchiveDir()+"/cert-1.pem", leafB().CertPEM(), 0o644)
	check(t, os.Mkdir(l.File("cert", 99), 0o755))
	_, err = l.Archive(leafRSA()) // newer, not switched to
	check(t, err)

	o, _ := (&item{name: "a.test", claim: claim{cert: l.Fullchain()}}).look(time.Now())
	var want []string
	want = append(want, leafA().Serial())
	for i, leaf := range all[:10] {
		if i != 1 { // version 3
			want = append(want, leaf.Serial())
		}
	}
	want = append(want, leafRSA().Serial())
	var got []string
	for _, c := range o.History {
		got = append(got, c.SerialNumber.Text(16))
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if h := History(l.Fullchain()); len(h) != len(want) || !h[0].Equal(leafA().Cert) {
		t.Errorf("History returns %d, want %d", len(h), len(want))
	}
	for i := range 56 {
		leaf := testCA().Issue(certtest.LeafOptions{Names: []string{"a.test"}, Key: leafA().Key})
		write(t, l.File("cert", 100+i), leaf.CertPEM(), 0o644)
	}
	if h := history(l.Fullchain(), l.File("fullchain", 12), all[10].Cert); len(h) != maxHistory {
		t.Errorf("history of %d", len(h))
	}
	for _, real := range []string{dir + "/elsewhere/a.test/fullchain1.pem", dir + "/archive/b.test/fullchain1.pem", l.Fullchain()} {
		if h := history(l.Fullchain(), real, leafA().Cert); h != nil {
			t.Errorf("%s: history of %d", real, len(h))
		}
	}
}
