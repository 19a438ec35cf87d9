package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/renewatch/renewatch/internal/certtest"
)

// many is the number of lineages of a busy host.
const many = 30

// Thirty lineages are renewed by one run of certbot, and no hook reloads nginx:
// it is reloaded once for all of them, after the run, and all are verified.
func TestThirtyLineagesOneReload(t *testing.T) {
	t.Parallel()
	s := newManySites(t)
	d := newDaemon(t, "", serverBlock("nginx", s.nginx.reloadCommand())+
		verifying("nginx", s.root, "deadline", "5m", "recheck", "[1h]")+certificateBlocks(s.entries...))
	d.start()
	for _, l := range s.lineages {
		d.baseline(fingerprint(l.leaf()))
	}
	began := s.nginx.reconfigured()

	// One run for all: certbot holds its lock until the last is done.
	renew := s.acme.certbot("renew", "--force-renewal", "--no-random-sleep-on-renew")
	renew.Env = append(renew.Env, "PYTHONPATH="+hasty(t))
	start := time.Now()
	mustRun(t, renew)
	t.Logf("certbot renewed %d lineages in %v", many, time.Since(start).Round(100*time.Millisecond))
	told := 0
	for _, l := range s.lineages {
		verified := d.await("deploy.verified", about(fingerprint(l.leaf())))
		wantVerdicts(t, verified, map[string]string{s.addr: "serving"})
		story := of(d.journal(), verified.Data.RenewalID)
		wantKinds(t, without(story, "reload.done"), "renewal.detected", "deploy.verified")
		told += len(only(story, "reload.done"))
		if n := len(only(story, "reload.done")); n > 1 {
			t.Errorf("the story of %s tells of %d reloads:\n%s", verified.Subject, n, tell(story))
		}
		mustServe(t, s.addr, verified.Subject, l.leaf())
	}
	d.finish()
	if got := s.nginx.reconfigured() - began; got != 1 {
		t.Errorf("nginx tells of %d reloads:\n%s", got, tell(only(d.journal(), "renewal.detected", "reload.done", "reload.failed")))
	}
	// A reload for several certificates is told of each that asked for it.
	if told == 0 {
		t.Errorf("nobody was told of the reload:\n%s", tell(d.journal()))
	}
}

// manySites is one nginx with a server block for each of many lineages of one
// certbot.
type manySites struct {
	acme     *acme
	nginx    *nginx
	addr     string
	root     string // of the first certificates and of the renewed ones
	lineages []*lineage
	entries  []entry
}

func newManySites(t *testing.T) *manySites {
	t.Helper()
	a, old := newACME(t), newAuthority(t)
	port := freePort(t)
	s := &manySites{acme: a, addr: fmt.Sprintf("127.0.0.1:%d", port), root: old.root}
	web := webServer(a.webroot, a.port)
	s.nginx = newNginx(t, web)
	awaitPort(t, fmt.Sprintf("127.0.0.1:%d", a.port))
	writeFile(t, s.root, string(old.RootPEM())+string(a.pebble.RootPEM()), 0o644)

	// The first is issued by certbot, the others are made after its model, with
	// certificates of another CA: only the renewal has to be certbot's.
	model := "site-00.e2e.test"
	a.issue(model)
	conf := readFile(t, a.conf(model))
	blocks := []string{web}
	for i := range many {
		name := fmt.Sprintf("site-%02d.e2e.test", i)
		if name != model {
			if _, err := certtest.NewLineage(a.config(), name, old.aged(24*time.Hour, name)); err != nil {
				t.Fatal(err)
			}
			writeFile(t, a.conf(name), strings.ReplaceAll(conf, model, name), 0o644)
		}
		l := a.lineage(name)
		s.lineages = append(s.lineages, l)
		s.entries = append(s.entries, entry{l.cert, []place{{url: fmt.Sprintf("https://%s:%d?address=%s", name, port, s.addr)}}})
		blocks = append(blocks, tlsServer(name, l.cert, l.key, s.addr))
	}
	s.nginx.configure(blocks...)
	s.nginx.reload()
	for _, l := range s.lineages {
		awaitServed(t, s.addr, l.leaf().DNSNames[0], l.leaf())
	}
	return s
}

// conf is the file in which certbot keeps how a lineage is renewed.
func (a *acme) conf(name string) string {
	return filepath.Join(a.config(), "renewal", name+".conf")
}

// hasty is a directory of Python that cuts certbot's pauses short: it sleeps for a
// second before it first asks for an authorization, and for another before it
// first asks for the order, which a CA in the same process does not need.
func hasty(t *testing.T) string {
	t.Helper()
	dir := tempDir(t)
	writeFile(t, filepath.Join(dir, "sitecustomize.py"),
		"import time\nwhole = time.sleep\ntime.sleep = lambda seconds: whole(min(seconds, 0.05))\n", 0o644)
	return dir
}
