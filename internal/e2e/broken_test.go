package e2e

import (
	"crypto/x509"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/renewatch/renewatch/internal/certtest"
)

// Apache dies of a reload onto a broken pair. So nothing is reloaded while the
// files are broken, that is said, and the healed pair goes live.
func TestApacheSurvivesABrokenPair(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(t *testing.T, l *lineage, next *certtest.Leaf){
		"half-written": func(t *testing.T, l *lineage, next *certtest.Leaf) {
			whole := string(next.FullchainPEM())
			replaceFile(t, l.key, string(next.KeyPEM()), 0o600)
			writeFile(t, l.cert, whole[:len(whole)-300], 0o644)
		},
		"mismatched": func(t *testing.T, l *lineage, next *certtest.Leaf) {
			replaceFile(t, l.cert, string(next.FullchainPEM()), 0o644)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const name = "www.e2e.test"
			ca := newAuthority(t)
			l := newLineage(t, name, ca.aged(10*time.Hour, name))
			port := freePort(t)
			addr := fmt.Sprintf("127.0.0.1:%d", port)
			server := newApache(t, name, l.cert, l.key, port)
			reload := countedReload(t, shellQuote(server.reloadCommand()))
			d := newDaemon(t, "", serverBlock("apache", reload.command())+verifying("apache", ca.root)+
				certificateBlock(l.cert, fmt.Sprintf("https://%s:%d?address=%s", name, port, addr)))
			d.start()
			before := l.leaf()
			d.baseline(fingerprint(before))

			next := ca.aged(9*time.Hour, name)
			spoil(t, l, next)
			broken := d.await("file.broken")
			if broken.Data.Detail == "" || broken.Subject != name {
				t.Errorf("file.broken does not say what is wrong: %s", broken.raw)
			}
			reload.want(0)
			mustServe(t, addr, name, before)

			l.put(next)
			verified := d.await("deploy.verified", about(next.SHA256()))
			wantKinds(t, of(d.journal(), verified.Data.RenewalID), "renewal.detected", "reload.done", "deploy.verified")
			d.await("file.recovered")
			if n := len(only(d.journal(), "file.broken", "file.recovered")); n != 2 {
				t.Errorf("the fault was said more than once:\n%s", tell(d.journal()))
			}
			reload.want(1)
			mustServe(t, addr, name, next.Cert)
			if !server.running() {
				t.Errorf("Apache is gone: %s", server.errors())
			}
			d.finish()
		})
	}
}

// What must not go live is not reloaded: a leaf of a CA nobody trusts, a leaf
// without its intermediate. It is held, with the cause, once; then the renewal
// fails; and when a good pair comes it goes live.
func TestHeldPair(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, cause string
		put         func(t *testing.T, s *local) *x509.Certificate
	}{
		{"untrusted", "untrusted", func(t *testing.T, s *local) *x509.Certificate {
			leaf := newAuthority(t).aged(s.age-30*time.Minute, s.name)
			s.lineage.put(leaf)
			return leaf.Cert
		}},
		{"leaf-only", "chain", func(t *testing.T, s *local) *x509.Certificate {
			leaf := s.ca.aged(s.age-30*time.Minute, s.name)
			replaceFile(t, s.lineage.key, string(leaf.KeyPEM()), 0o600)
			replaceFile(t, s.lineage.cert, string(leaf.CertPEM()), 0o644)
			return leaf.Cert
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newLocal(t, "www.e2e.test")
			reload := countedReload(t, shellQuote(s.nginx.reloadCommand()))
			d := newDaemon(t, "", serverBlock("nginx", reload.command())+verifying("nginx", s.ca.root)+
				certificateBlock(s.lineage.cert, s.endpoint()))
			d.start()
			before := s.lineage.leaf()
			d.baseline(fingerprint(before))

			bad := c.put(t, s)
			failed := d.await("deploy.failed", about(fingerprint(bad)))
			wantKinds(t, of(d.journal(), failed.Data.RenewalID), "renewal.detected", "reload.held", "deploy.failed")
			held := d.await("reload.held")
			if held.Data.Cause != c.cause || held.Data.Detail == "" {
				t.Errorf("reload.held does not tell the cause %q: %s", c.cause, held.raw)
			}
			reload.want(0)
			mustServe(t, s.v4, s.name, before)

			good := s.renew()
			d.await("deploy.verified", about(fingerprint(good)))
			reload.want(1)
			mustServe(t, s.v4, s.name, good)
			d.finish()
		})
	}
}

// An older certificate comes back on disk: said once, nothing is reloaded, and
// the next newer one goes live.
func TestOlderPair(t *testing.T) {
	t.Parallel()
	s := newLocal(t, "www.e2e.test")
	reload := countedReload(t, shellQuote(s.nginx.reloadCommand()))
	d := newDaemon(t, "", serverBlock("nginx", reload.command())+verifying("nginx", s.ca.root)+
		certificateBlock(s.lineage.cert, s.endpoint()))
	d.start()
	before := s.lineage.leaf()
	d.baseline(fingerprint(before))

	older := s.ca.aged(s.age+24*time.Hour, s.name)
	s.lineage.put(older)
	reverted := d.await("file.reverted")
	if c, p := reverted.Data.Certificate, reverted.Data.Previous; c == nil || c.SHA256 != older.SHA256() || p == nil || p.SHA256 != fingerprint(before) {
		t.Errorf("file.reverted does not tell what replaced what: %s", reverted.raw)
	}

	good := s.renew()
	verified := d.await("deploy.verified", about(fingerprint(good)))
	wantKinds(t, of(d.journal(), verified.Data.RenewalID), "renewal.detected", "reload.done", "deploy.verified")
	reload.want(1)
	if n := len(only(d.journal(), "file.reverted")); n != 1 {
		t.Errorf("file.reverted was said %d times", n)
	}
	for _, e := range d.journal() {
		if c := e.Data.Certificate; c != nil && c.SHA256 == older.SHA256() && strings.HasPrefix(e.kind(), "reload.") && e.kind() != "reload.held" {
			t.Errorf("a reload for the older leaf: %v", e)
		}
	}
	d.finish()
}

// The files are broken and come back as they were: broken, recovered, and no
// renewal.
func TestBrokenAndRestored(t *testing.T) {
	t.Parallel()
	s := newLocal(t, "www.e2e.test")
	reload := countedReload(t, shellQuote(s.nginx.reloadCommand()))
	d := newDaemon(t, "", serverBlock("nginx", reload.command())+verifying("nginx", s.ca.root)+
		certificateBlock(s.lineage.cert, s.endpoint()))
	d.start()
	d.baseline(fingerprint(s.lineage.leaf()))

	whole := readFile(t, s.lineage.cert)
	writeFile(t, s.lineage.cert, whole[:len(whole)/2], 0o644)
	d.await("file.broken")
	writeFile(t, s.lineage.cert, whole, 0o644)
	d.await("file.recovered")

	if again := only(d.journal(), "renewal.detected", "reload.done", "reload.failed", "deploy.lost", "deploy.failed"); len(again) != 0 {
		t.Errorf("the same leaf came back and a story was made of it:\n%s", tell(again))
	}
	reload.want(0)
	// The watch goes on.
	after := s.renew()
	d.await("deploy.verified", about(fingerprint(after)))
	reload.want(1)
	d.finish()
}
