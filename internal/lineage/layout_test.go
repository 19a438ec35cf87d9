package lineage

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/renewatch/renewatch/internal/certtest"
)

func write(t *testing.T, path, content string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func link(t *testing.T, target, path string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// tempDir is a temporary directory that other users can pass through.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{filepath.Dir(dir), dir} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func newLineage(t *testing.T, dir, name string) *certtest.Lineage {
	t.Helper()
	l, err := certtest.NewLineage(dir, name, certtest.NewCA(certtest.CAOptions{}).Issue(certtest.LeafOptions{Names: []string{name}}))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestLayoutOf(t *testing.T) {
	dir := tempDir(t)
	le := filepath.Join(dir, "letsencrypt")
	l := newLineage(t, le, "www.example.org")
	want := Layout{Certbot, "www.example.org", le}

	linked := link(t, "letsencrypt", filepath.Join(dir, "le"))
	noConf := newLineage(t, filepath.Join(dir, "container"), "www.example.org")
	if err := os.RemoveAll(filepath.Dir(noConf.Conf())); err != nil {
		t.Fatal(err)
	}

	dehydratedDir := filepath.Join(dir, "dehydrated")
	write(t, filepath.Join(dehydratedDir, "certs/a.test/fullchain-1700000000.pem"), "")
	acme := filepath.Join(dir, ".acme.sh")
	write(t, filepath.Join(acme, "a.test_ecc/a.test.conf"), "")
	write(t, filepath.Join(dir, ".lego/certificates/_.a.test.json"), "{}")

	for path, want := range map[string]Layout{
		l.Fullchain():      want,
		l.Live("cert"):     want,
		l.File("chain", 1): want,
		le + "/./live//www.example.org/fullchain.pem":                        want,
		linked + "/live/www.example.org/fullchain.pem":                       {Certbot, "www.example.org", linked},
		link(t, l.Fullchain(), filepath.Join(dir, "nginx/site.pem")):         want,
		link(t, "site.pem", filepath.Join(dir, "nginx/again.pem")):           want,
		link(t, l.LiveDir(), filepath.Join(dir, "certs")) + "/fullchain.pem": want,
		link(t, l.File("fullchain", 1), filepath.Join(dir, "archived.pem")):  want,
		noConf.Fullchain(): {Certbot, "www.example.org", noConf.Dir},
		// The lineage is known by its configuration although its files are not there (yet).
		l.LiveDir() + "/../www.example.org/fullchain.pem": want,

		link(t, "fullchain-1700000000.pem", filepath.Join(dehydratedDir, "certs/a.test/fullchain.pem")): {Dehydrated, "a.test", dehydratedDir},
		write(t, filepath.Join(acme, "a.test_ecc/fullchain.cer"), ""):                                   {AcmeSh, "a.test", acme},
		write(t, filepath.Join(dir, ".lego/certificates/_.a.test.crt"), ""):                             {Lego, "_.a.test", filepath.Join(dir, ".lego")},

		// Nobody's.
		write(t, filepath.Join(dir, "plain/live/a.test/fullchain.pem"), ""): {},
		write(t, filepath.Join(le, "live/README.pem"), ""):                  {},
		l.Key() + ".bak": {},
		write(t, filepath.Join(dir, "certificates/a.test.crt"), ""): {},
		write(t, filepath.Join(dir, "x/a.test/fullchain.cer"), ""):  {},
		link(t, "loop.pem", filepath.Join(dir, "loop.pem")):         {},
		"":                   {},
		"/":                  {},
		"/live/a/cert.pem":   {},
		dir + "/missing/x":   {},
		"\x00/live/\xff.pem": {},
	} {
		if got := LayoutOf(path); got != want {
			t.Errorf("%q\n got %+v\nwant %+v", path, got, want)
		}
	}
}

func TestForms(t *testing.T) {
	dir := tempDir(t)
	write(t, filepath.Join(dir, "real/a/file"), "")
	link(t, "../real", filepath.Join(dir, "links/l1"))
	link(t, dir+"/links/l1/a", filepath.Join(dir, "l2"))
	link(t, "l2/../../real/a/file", filepath.Join(dir, "l3")) // .. counts from where l2 leads
	all := forms(filepath.Join(dir, "l3"))
	if all[0] != filepath.Join(dir, "l3") || all[len(all)-1] != filepath.Join(dir, "real/a/file") {
		t.Errorf("forms %q", all)
	}
	// A link behind .. is found where .. leads.
	link(t, "../a/file", filepath.Join(dir, "real/hop/x"))
	link(t, "l2/../hop/x", filepath.Join(dir, "l4"))
	all = forms(filepath.Join(dir, "l4"))
	if all[len(all)-1] != filepath.Join(dir, "real/a/file") {
		t.Errorf("forms %q", all)
	}
	// A tower of links that doubles at each floor ends all the same.
	target := strings.Repeat("a/", 100) + "x"
	for _, name := range []string{"t1", "t2", "t3"} {
		link(t, target, filepath.Join(dir, "a", name))
		target = strings.Repeat(name+"/", 300)
	}
	forms(filepath.Join(dir, "a/t3"))
}

// certbot update_symlinks: the links, the archive or both are elsewhere, and only
// renewal/NAME.conf says so.
func TestConfs(t *testing.T) {
	dir := tempDir(t)
	le := filepath.Join(dir, "letsencrypt")
	file := write(t, filepath.Join(dir, "store/fullchain7.pem"), "")
	moved := link(t, file, filepath.Join(dir, "tls/www.pem"))
	write(t, filepath.Join(le, "renewal/www.conf"), "# a comment = here\nversion = 2.1.0\n"+
		"archive_dir = \""+filepath.Dir(file)+"\"\nfullchain = "+moved+"\ncert = relative.pem\n[renewalparams]\nchain = "+dir+"/not/this.pem\n")
	write(t, filepath.Join(le, "renewal/broken.conf"), "\x00=\n==\n[[[\n"+strings.Repeat("x", 100_000))
	other := link(t, moved, filepath.Join(dir, "nginx.pem"))
	now := time.Now()
	c := &confs{dir: le}
	want := Layout{Certbot, "www", le}
	for _, path := range []string{moved, other, file} {
		if LayoutOf(path) != (Layout{}) {
			t.Fatalf("%s is known by its place", path)
		}
		if got, ok := c.find(now, forms(path)); !ok || got != want {
			t.Errorf("%s: %+v %v", path, got, ok)
		}
		if got := NewRuns(Options{ConfigDirs: []string{le}}).place(path); got != (place{want, true}) {
			t.Errorf("%s: %+v", path, got)
		}
	}
	for _, path := range []string{dir + "/not/this.pem", dir + "/else.pem"} {
		if got, ok := c.find(now, forms(path)); ok {
			t.Errorf("%s: %+v", path, got)
		}
	}
	later := write(t, filepath.Join(dir, "store2/fullchain1.pem"), "")
	write(t, filepath.Join(le, "renewal/two.conf"), "archive_dir = "+filepath.Dir(later)+"\n")
	if _, ok := c.find(now.Add(confsFresh-1), forms(later)); ok {
		t.Error("the directory was read again at once")
	}
	if _, ok := c.find(now.Add(confsFresh), forms(later)); !ok {
		t.Error("the directory was never read again")
	}
}

func FuzzForms(f *testing.F) {
	f.Add("a/../../b//c/.")
	f.Add("\x00")
	f.Fuzz(func(t *testing.T, path string) {
		all := forms("/" + path)
		if len(all) == 0 || slices.ContainsFunc(all, func(s string) bool { return !filepath.IsAbs(s) || filepath.Clean(s) != s }) {
			t.Errorf("%q has the forms %q", path, all)
		}
		LayoutOf(path)
	})
}
