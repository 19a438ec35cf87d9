package discover

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/renewatch/renewatch/internal/certtest"
)

// write writes files below a directory; DIR in their text becomes it.
func write(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		put(t, filepath.Join(dir, name), strings.ReplaceAll(text, "DIR", dir))
	}
}

// put writes one file as it is.
func put(t testing.TB, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// read runs a reader on a command, which must find the kind.
func read(t testing.TB, r Reader, command ...string) Found {
	t.Helper()
	found, err := r.Pairs(context.Background(), Hint{Commands: [][]string{command}})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// lines are the pairs below dir, one on a line: certificate, key, condition.
func pairLines(dir string, found Found) []string {
	var all []string
	for _, p := range found.Pairs {
		s := p.Cert + " " + p.Key
		if p.If != "" {
			s += " if " + p.If
		}
		if p.Passphrase {
			s += " passphrase"
		}
		all = append(all, strings.ReplaceAll(s, dir+"/", ""))
	}
	return all
}

func wantPairs(t *testing.T, dir string, found Found, want ...string) {
	t.Helper()
	if got := pairLines(dir, found); !slices.Equal(got, want) {
		t.Errorf("pairs:\n%s\nwant:\n%s\nunread: %v", strings.Join(got, "\n"), strings.Join(want, "\n"), found.Unread)
	}
}

// wantGaps checks that there is one gap for each of words, in order.
func wantGaps(t *testing.T, found Found, words ...string) {
	t.Helper()
	if len(found.Unread) != len(words) {
		t.Fatalf("%d gaps, want %d: %+v", len(found.Unread), len(words), found.Unread)
	}
	for i, w := range words {
		if g := found.Unread[i]; !strings.Contains(g.Sentence, w) || g.Path == "" {
			t.Errorf("gap %d is %+v, want one with %q", i, g, w)
		}
	}
}

// program finds a server; without it the test is skipped.
func program(t testing.TB, name string) string {
	t.Helper()
	for _, path := range []string{"/usr/sbin/" + name, "/usr/local/sbin/" + name, "/usr/bin/" + name} {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed", name)
	}
	return path
}

// leaves are certificates to fill files with.
func leaves(t testing.TB, n int) []*certtest.Leaf {
	t.Helper()
	ca := certtest.NewCA(certtest.CAOptions{})
	var all []*certtest.Leaf
	for i := range n {
		all = append(all, ca.Issue(certtest.LeafOptions{Names: []string{fmt.Sprintf("site%d.example.test", i)}}))
	}
	return all
}

// suspects are the pairs of a configuration that a server is asked about: each is
// spoiled in turn, and the server refuses its configuration if and only if it
// loads the pair. That is compared with what was read.
func suspects(t *testing.T, dir string, found Found, pairs [][2]string, accepts func() (bool, string)) {
	t.Helper()
	pool := leaves(t, 2)
	for _, p := range pairs {
		cert, key := filepath.Join(dir, p[0]), filepath.Join(dir, p[1])
		good, err := os.ReadFile(key)
		if err != nil {
			t.Fatal(err)
		}
		bad := pool[0].KeyPEM()
		if p[0] == p[1] {
			bad = append(pool[0].FullchainPEM(), pool[1].KeyPEM()...)
		}
		if err := os.WriteFile(key, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		ok, said := accepts()
		named := slices.ContainsFunc(found.Pairs, func(f Pair) bool { return f.Cert == cert && f.Key == key && f.If == "" })
		if ok == named {
			t.Errorf("%v is spoiled: the server accepts its configuration: %v, the pair was found: %v\n%s", p, ok, named, said)
		}
		if err := os.WriteFile(key, good, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if ok, said := accepts(); !ok {
		t.Errorf("the server refuses the sound configuration:\n%s", said)
	}
}

// fill writes a sound pair to each of the places.
func fill(t testing.TB, dir string, pairs [][2]string) {
	t.Helper()
	pool := leaves(t, len(pairs))
	for i, p := range pairs {
		leaf := pool[i]
		put(t, filepath.Join(dir, p[0]), string(leaf.FullchainPEM()))
		put(t, filepath.Join(dir, p[1]), string(leaf.KeyPEM()))
		if p[0] == p[1] {
			put(t, filepath.Join(dir, p[0]), string(leaf.CombinedPEM()))
		}
	}
}

// inDir replaces DIR in words.
func inDir(dir string, words []string) []string {
	var all []string
	for _, w := range words {
		all = append(all, strings.ReplaceAll(w, "DIR", dir))
	}
	return all
}
