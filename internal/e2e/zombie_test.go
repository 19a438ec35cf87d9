package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"
)

// A second nginx that nobody knows of (its pid file is gone) listens on the
// same port and goes on serving the certificate from before the renewal: every
// other visitor gets it. A reload of the known one does not help, so this is
// never called verified; when the second one ends, it has recovered.
func TestZombieServesTheOldCertificate(t *testing.T) {
	t.Parallel()
	// What deploy.failed says of an address does not depend on whether the daemon
	// asks often or seldom by then.
	for name, deadline := range map[string]string{"early": "9s", "late": "22s"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testOldZombie(t, deadline)
		})
	}
}

func testOldZombie(t *testing.T, deadline string) {
	s := newShared(t)
	zombie := s.unknown(s.lineage)
	before := s.lineage.leaf()
	d := s.daemon("deadline", deadline)
	d.start()
	d.baseline(fingerprint(before))

	after := s.ca.aged(time.Hour, s.name, s.alias)
	s.lineage.put(after)
	failed := d.await("deploy.failed", about(after.SHA256()))
	wantVerdicts(t, failed, map[string]string{s.addr: "mixed"})
	v := failed.Data.Verdicts[0]
	if !slices.Contains(v.Faults, "stale") || v.Severity != "error" || v.Matching == 0 || v.Matching == v.Samples {
		t.Errorf("the verdict does not tell that old and new are served: %+v", v)
	}
	if next := failed.Data.Next; next == nil || next.Action != "reload" || next.At == "" {
		t.Errorf("an old leaf is served, and no further reload is announced: %s", failed.raw)
	}
	wantKinds(t, of(d.journal(), failed.Data.RenewalID), "renewal.detected", "reload.done", "deploy.failed")
	s.reload.want(1)

	zombie.stop(t, syscall.SIGTERM)
	recovered := d.await("deploy.recovered", sameRenewal(failed))
	wantVerdicts(t, recovered, map[string]string{s.addr: "serving"})
	s.wantNeverVerified(d, failed)
	if n := len(s.reload.pids()); n > 3 {
		t.Errorf("%d reloads for one renewal", n)
	}
	d.finish()
}

// The second nginx serves a certificate that has nothing to do with the renewed
// one. The known one was reloaded by somebody else already; one reload is tried
// for such a mixture, and no other is announced.
func TestZombieServesAForeignCertificate(t *testing.T) {
	t.Parallel()
	s := newShared(t)
	d := s.daemon("deadline", "9s")
	d.start()
	d.baseline(fingerprint(s.lineage.leaf()))

	// Before the files that the daemon watches are new, so that the known one
	// serves them without its doing.
	after := s.ca.aged(time.Hour, s.name, s.alias)
	s.known.configure(s.block(newLineage(t, s.name, after)))
	s.known.reload()
	awaitServed(t, s.addr, s.name, after.Cert)
	zombie := s.unknown(newLineage(t, s.name, s.ca.aged(2*time.Hour, s.name)))
	s.lineage.put(after)

	failed := d.await("deploy.failed", about(after.SHA256()))
	wantVerdicts(t, failed, map[string]string{s.addr: "mixed"})
	if v := failed.Data.Verdicts[0]; !slices.Equal(v.Faults, []string{"mixed", "foreign"}) || v.Severity != "error" {
		t.Errorf("the verdict does not tell that a foreign leaf is served among the others: %+v", v)
	}
	if next := failed.Data.Next; next == nil || next.Action != "person" {
		t.Errorf("one reload is enough for a mixture without an old leaf: %s", failed.raw)
	}
	wantKinds(t, of(d.journal(), failed.Data.RenewalID), "renewal.detected", "reload.done", "deploy.failed")

	zombie.stop(t, syscall.SIGTERM)
	recovered := d.await("deploy.recovered", sameRenewal(failed))
	wantVerdicts(t, recovered, map[string]string{s.addr: "serving"})
	s.wantNeverVerified(d, failed)
	s.reload.want(1)
	d.finish()
}

// shared is a port on which more than one nginx can listen: the kernel deals the
// connections out among all their workers.
type shared struct {
	t       *testing.T
	name    string
	alias   string // the other name of its certificate
	addr    string
	ca      *authority
	lineage *lineage
	known   *nginx
	reload  *counted
}

func newShared(t *testing.T) *shared {
	t.Helper()
	s := &shared{t: t, name: "www.e2e.test", alias: "shop.e2e.test", ca: newAuthority(t), addr: fmt.Sprintf("127.0.0.1:%d", freePort(t))}
	s.lineage = newLineage(t, s.name, s.ca.aged(10*time.Hour, s.name, s.alias))
	s.known = newNginx(t, s.block(s.lineage))
	s.reload = countedReload(t, shellQuote(s.known.reloadCommand()))
	awaitServed(t, s.addr, s.name, s.lineage.leaf())
	return s
}

func (s *shared) block(l *lineage) string {
	return tlsServer(s.name, l.cert, l.key, s.addr+" reuseport")
}

// unknown starts an nginx on the same port that no "nginx -s reload" finds.
func (s *shared) unknown(l *lineage) *nginx {
	s.t.Helper()
	n := newNginx(s.t, s.block(l))
	if err := os.Remove(filepath.Join(n.dir, "nginx.pid")); err != nil {
		s.t.Fatal(err)
	}
	return n
}

// daemon watches the pair. Half of the answers come from either nginx, so a
// row of 24 equal ones is no accident that will ever be seen (1 in 16 million);
// and a deadline of 9 s lies within the ten seconds after a reload in which the
// address is asked every 200 ms, so that the last window holds both.
func (s *shared) daemon(overrides ...string) *daemon {
	s.t.Helper()
	return newDaemon(s.t, "", serverBlock("nginx", s.reload.command())+
		verifying("nginx", s.ca.root, append([]string{"samples", "24", "spread", "5s", "retries", "[0s, 1s, 2s]", "every", "3s"}, overrides...)...)+
		certificateBlock(s.lineage.cert, fmt.Sprintf("https://%s:%s?address=%s", s.name, s.addr[len("127.0.0.1:"):], s.addr)))
}

// sameRenewal matches the events of the same renewal.
func sameRenewal(as event) func(event) bool {
	return func(e event) bool { return e.Data.RenewalID == as.Data.RenewalID }
}

// wantNeverVerified: of what ended as failed, nothing else was ever said but that
// it recovered, once.
func (s *shared) wantNeverVerified(d *daemon, failed event) {
	s.t.Helper()
	said := of(d.journal(), failed.Data.RenewalID)
	if bad := only(said, "deploy.verified", "deploy.unverified", "deploy.superseded", "deploy.lost"); len(bad) != 0 {
		s.t.Errorf("said of a failed deployment:\n%s", tell(bad))
	}
	if n := len(only(said, "deploy.recovered")); n != 1 {
		s.t.Errorf("deploy.recovered was said %d times:\n%s", n, tell(said))
	}
}
