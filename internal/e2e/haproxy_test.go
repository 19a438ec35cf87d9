package e2e

import (
	"crypto/x509"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/renewatch/renewatch/internal/certtest"
)

// haproxy is one HAProxy, master and worker, with a directory of its own. It
// loads a combined file, not the lineage.
type haproxy struct {
	t       *testing.T
	dir     string
	pidfile string
	*process
}

func newHAProxy(t *testing.T, combined string, port int) *haproxy {
	t.Helper()
	h := &haproxy{t: t, dir: tempDir(t)}
	h.pidfile = filepath.Join(h.dir, "haproxy.pid")
	conf := filepath.Join(h.dir, "haproxy.cfg")
	writeFile(t, conf, fmt.Sprintf(`global
  maxconn 100
defaults
  mode http
  timeout connect 10s
  timeout client 10s
  timeout server 10s
frontend tls
  bind 127.0.0.1:%d ssl crt %s
  http-request return status 200 content-type text/plain string ok
`, port, combined), 0o644)
	h.process = spawn(t, "haproxy", exec.Command(program(t, "haproxy"), "-W", "-db", "-f", conf, "-p", h.pidfile))
	eventually(t, "HAProxy up", func() error {
		if !h.running() {
			return final("HAProxy ended: %s", h.log.tail())
		}
		if _, err := os.Stat(h.pidfile); err != nil {
			return err
		}
		_, err := servedLeaf(fmt.Sprintf("127.0.0.1:%d", port), "")
		return err
	})
	return h
}

// reloaded counts the reloads that HAProxy itself tells of.
func (h *haproxy) reloaded() int { return logged(h.t, h.log.String(), "Reloading HAProxy$") }

// balanced is the stage of the HAProxy scenarios: a lineage, a hook that builds
// the combined file from it, and the HAProxy that loads the combined file.
type balanced struct {
	t        *testing.T
	name     string
	ca       *authority
	age      time.Duration
	lineage  *lineage
	combined string
	hook     string // path of the script
	haproxy  *haproxy
	addr     string
}

func newBalanced(t *testing.T, name string) *balanced {
	t.Helper()
	dir := tempDir(t)
	b := &balanced{t: t, name: name, ca: newAuthority(t), age: 10 * time.Hour,
		combined: filepath.Join(dir, "certs", "site.pem"), hook: filepath.Join(dir, "hook")}
	b.lineage = newLineage(t, name, b.ca.aged(b.age, name))
	writeFile(t, b.hook, fmt.Sprintf("#!/bin/sh\nset -e\numask 077\nmkdir -p '%[1]s'\ncat '%[2]s' '%[3]s' >'%[4]s.new'\nmv '%[4]s.new' '%[4]s'\n",
		filepath.Dir(b.combined), b.lineage.cert, b.lineage.key, b.combined), 0o755)
	b.build()
	port := freePort(t)
	b.addr = fmt.Sprintf("127.0.0.1:%d", port)
	b.haproxy = newHAProxy(t, b.combined, port)
	mustServe(t, b.addr, name, b.lineage.leaf())
	return b
}

// build runs the hook.
func (b *balanced) build() {
	b.t.Helper()
	mustRun(b.t, exec.Command(b.hook))
}

// next is a leaf that is an hour younger than the last one.
func (b *balanced) next() *certtest.Leaf {
	b.age -= time.Hour
	return b.ca.aged(b.age, b.name)
}

// daemon starts a renewatch that knows which file HAProxy loads.
func (b *balanced) daemon(w way, overrides ...string) *daemon {
	b.t.Helper()
	w.name = "haproxy"
	d := newDaemon(b.t, "", serverBlocks(w)+verifying("haproxy", b.ca.root, overrides...)+
		certificateBlocks(entry{b.lineage.cert, []place{{url: fmt.Sprintf("https://%s:%s?address=%s", b.name, b.addr[strings.LastIndex(b.addr, ":")+1:], b.addr), file: b.combined}}}))
	d.start()
	d.baseline(fingerprint(b.lineage.leaf()))
	return d
}

// usr2 is the reload of the packaged unit: HAProxy's master takes USR2.
func (b *balanced) usr2() way { return way{signal: "USR2", pidfile: b.haproxy.pidfile} }

// soon has the deadline come quickly, and a failed deployment looked at often.
var soon = []string{"retries", "[0s, 2s, 4s]", "deadline", "6s", "every", "2s"}

// The hook built the combined file and nobody told HAProxy: renewatch does, once,
// by whichever way is configured.
func TestHAProxyNotReloaded(t *testing.T) {
	t.Parallel()
	for how, by := range map[string]func(*balanced) way{
		"signal": (*balanced).usr2,
		"command": func(b *balanced) way {
			return way{command: []string{program(b.t, "kill"), "-USR2", fmt.Sprint(b.haproxy.pid())}}
		},
	} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			b := newBalanced(t, "www.e2e.test")
			before := b.lineage.leaf()
			d := b.daemon(by(b), "deadline", "5m")

			next := b.next()
			b.lineage.put(next)
			b.build()
			mustServe(t, b.addr, b.name, before)
			verified := d.await("deploy.verified", about(next.SHA256()))
			wantKinds(t, of(d.journal(), verified.Data.RenewalID), "renewal.detected", "reload.done", "deploy.verified")
			wantVerdicts(t, verified, map[string]string{b.addr: "serving"})
			if done := d.await("reload.done"); done.Data.Reload == nil || done.Data.Reload.Server != "haproxy" || done.Data.Reload.How != how {
				t.Errorf("reload.done does not tell what was run: %s", done.raw)
			}
			mustServe(t, b.addr, b.name, next.Cert)
			d.finish()
			wantReloads(t, d.journal(), map[string]int{"haproxy": 1})
			if n := b.haproxy.reloaded(); n != 1 {
				t.Errorf("HAProxy tells of %d reloads", n)
			}
			if !b.haproxy.running() {
				t.Error("HAProxy is gone")
			}
		})
	}
}

// The hook did not run: a reload would load the old copy once more, so none is
// made, and the failure says that the copy is stale. When the hook has run, the
// copy is fresh and only the server is behind: it is reloaded, once.
func TestHAProxyCopyNotBuilt(t *testing.T) {
	t.Parallel()
	b := newBalanced(t, "www.e2e.test")
	before := b.lineage.leaf()
	d := b.daemon(b.usr2(), soon...)

	next := b.next()
	b.lineage.put(next)
	failed := d.await("deploy.failed", about(next.SHA256()))
	if failed.Data.Cause != "copy_stale" || !strings.Contains(failed.Data.Hint, "hook") {
		t.Errorf("deploy.failed does not tell that the copy is stale and what builds it: %s", failed.raw)
	}
	wantVerdicts(t, failed, map[string]string{b.addr: "stale"})
	b.unmoved(d, before, "copy_stale")
	if n := b.haproxy.reloaded(); n != 0 {
		t.Fatalf("HAProxy was reloaded %d times onto the old copy:\n%s", n, tell(d.journal()))
	}

	b.build()
	recovered := d.await("deploy.recovered")
	if recovered.Data.RenewalID != failed.Data.RenewalID {
		t.Errorf("deploy.recovered is of renewal %s, not %s", recovered.Data.RenewalID, failed.Data.RenewalID)
	}
	wantKinds(t, without(of(d.journal(), failed.Data.RenewalID), "reload.held"),
		"renewal.detected", "deploy.failed", "reload.done", "deploy.recovered")
	mustServe(t, b.addr, b.name, next.Cert)
	d.finish()
	wantReloads(t, d.journal(), map[string]int{"haproxy": 1})
	if n := b.haproxy.reloaded(); n != 1 {
		t.Errorf("HAProxy tells of %d reloads", n)
	}
}

// The hook broke off between certificate and key, so the copy is no pair: a
// server must not be reloaded onto it, although the lineage itself is sound.
func TestHAProxyCopyBroken(t *testing.T) {
	t.Parallel()
	b := newBalanced(t, "www.e2e.test")
	before := b.lineage.leaf()
	oldKey := readFile(t, b.lineage.key)
	d := b.daemon(b.usr2(), soon...)

	next := b.next()
	replaceFile(t, b.combined, string(next.FullchainPEM())+oldKey, 0o600)
	b.lineage.put(next)
	failed := d.await("deploy.failed", about(next.SHA256()))
	if !strings.Contains(" copy_stale pair other_pair ", " "+failed.Data.Cause+" ") {
		t.Errorf("deploy.failed has the cause %q, although the copy is broken: %s", failed.Data.Cause, failed.raw)
	}
	b.unmoved(d, before, "copy_stale", "pair", "other_pair")
	if n := b.haproxy.reloaded(); n != 0 {
		t.Fatalf("HAProxy was reloaded %d times onto a broken copy:\n%s", n, tell(d.journal()))
	}

	b.build()
	d.await("deploy.recovered")
	mustServe(t, b.addr, b.name, next.Cert)
	d.finish()
	wantReloads(t, d.journal(), map[string]int{"haproxy": 1})
}

// unmoved fails when a reload was run, or held for another cause than these.
func (b *balanced) unmoved(d *daemon, before *x509.Certificate, causes ...string) {
	b.t.Helper()
	events := d.journal()
	wantReloads(b.t, events, map[string]int{})
	for _, e := range only(events, "reload.held") {
		if !strings.Contains(" "+strings.Join(causes, " ")+" ", " "+e.Data.Cause+" ") {
			b.t.Errorf("held for another cause than %q: %s", causes, e.raw)
		}
	}
	mustServe(b.t, b.addr, b.name, before)
}
