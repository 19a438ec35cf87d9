package certtest_test

import (
	"bytes"
	"crypto/tls"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/renewatch/renewatch/internal/certtest"
)

func TestLineageLooksLikeCertbots(t *testing.T) {
	ca := certtest.NewCA(certtest.CAOptions{})
	leaf := ca.Issue(certtest.LeafOptions{Names: []string{"a.test"}})
	l, err := certtest.NewLineage(t.TempDir(), "a.test", leaf)
	if err != nil {
		t.Fatal(err)
	}
	for path, mode := range map[string]fs.FileMode{
		"live":                        0o700 | fs.ModeDir,
		"archive":                     0o700 | fs.ModeDir,
		"live/a.test":                 0o755 | fs.ModeDir,
		"archive/a.test":              0o755 | fs.ModeDir,
		"renewal/a.test.conf":         0o644,
		"archive/a.test/privkey1.pem": 0o600,
		"archive/a.test/cert1.pem":    0o644,
		"live/a.test/README":          0o644,
	} {
		info, err := os.Lstat(filepath.Join(l.Dir, path))
		if err != nil {
			t.Error(err)
		} else if info.Mode() != mode {
			t.Errorf("%s has mode %v, want %v", path, info.Mode(), mode)
		}
	}
	if _, err := tls.LoadX509KeyPair(l.Fullchain(), l.Key()); err != nil {
		t.Error(err)
	}

	next := ca.Issue(certtest.LeafOptions{Names: []string{"a.test"}})
	if err := l.Renew(next); err != nil {
		t.Fatal(err)
	}
	for _, kind := range certtest.Kinds {
		target, err := os.Readlink(l.Live(kind))
		if want := "../../archive/a.test/" + kind + "2.pem"; err != nil || target != want {
			t.Errorf("%s leads to %q, want %q (%v)", kind, target, want, err)
		}
	}
	if data, err := os.ReadFile(l.Fullchain()); err != nil || !bytes.Equal(data, next.FullchainPEM()) {
		t.Errorf("the live fullchain is not the new one (%v)", err)
	}
	if left, _ := filepath.Glob(filepath.Join(l.LiveDir(), "previous_*")); len(left) != 0 {
		t.Errorf("left over: %v", left)
	}
	if data, err := os.ReadFile(l.File("fullchain", 1)); err != nil || !bytes.Equal(data, leaf.FullchainPEM()) {
		t.Errorf("the archive lost version 1 (%v)", err)
	}
}

func TestLineageStopsMidway(t *testing.T) {
	ca := certtest.NewCA(certtest.CAOptions{})
	l, err := certtest.NewLineage(t.TempDir(), "a.test", ca.Issue(certtest.LeafOptions{Names: []string{"a.test"}}))
	if err != nil {
		t.Fatal(err)
	}
	version, err := l.Archive(ca.Issue(certtest.LeafOptions{Names: []string{"a.test"}}))
	if err != nil {
		t.Fatal(err)
	}
	if err := l.AddPrevious(); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"cert", "privkey"} {
		if err := l.SwitchKind(kind, version); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := tls.LoadX509KeyPair(l.Fullchain(), l.Key()); err == nil {
		t.Error("half a switch leaves a matching pair")
	}
	for _, kind := range certtest.Kinds {
		if _, err := os.Stat(filepath.Join(l.LiveDir(), "previous_"+kind+".pem")); err != nil {
			t.Error(err)
		}
	}
}

func TestLineageReusesTheKeyByALink(t *testing.T) {
	ca := certtest.NewCA(certtest.CAOptions{})
	first := ca.Issue(certtest.LeafOptions{Names: []string{"a.test"}})
	l, err := certtest.NewLineage(t.TempDir(), "a.test", first)
	if err != nil {
		t.Fatal(err)
	}
	for version := 2; version <= 3; version++ {
		if err := l.Renew(ca.Issue(certtest.LeafOptions{Names: []string{"a.test"}, Key: first.Key})); err != nil {
			t.Fatal(err)
		}
		if target, err := os.Readlink(l.File("privkey", version)); err != nil || target != "privkey1.pem" {
			t.Errorf("privkey%d leads to %q (%v)", version, target, err)
		}
		if _, err := tls.LoadX509KeyPair(l.Fullchain(), l.Key()); err != nil {
			t.Error(err)
		}
	}
	if err := l.Remove(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(l.LiveDir()); err == nil {
		t.Error("live is still there")
	}
}

func TestPlainPairs(t *testing.T) {
	dir := t.TempDir()
	leaf := certtest.NewCA(certtest.CAOptions{}).Issue(certtest.LeafOptions{Names: []string{"a.test"}})
	if err := certtest.WritePair(filepath.Join(dir, "c.pem"), filepath.Join(dir, "k.pem"), leaf); err != nil {
		t.Fatal(err)
	}
	if _, err := tls.LoadX509KeyPair(filepath.Join(dir, "c.pem"), filepath.Join(dir, "k.pem")); err != nil {
		t.Error(err)
	}
	cert, key, err := certtest.WriteLego(dir, "a.test", leaf)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tls.LoadX509KeyPair(cert, key); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "a.test.json")); err != nil {
		t.Error(err)
	}
}
