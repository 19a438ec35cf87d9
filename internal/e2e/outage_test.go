package e2e

import (
	"testing"
)

// The server is down while the certificate is renewed and comes back: it loads
// the new certificate by itself, which is verified, and nothing is reloaded.
func TestServerDownDuringTheRenewal(t *testing.T) {
	t.Parallel()
	s := newLocal(t, "www.e2e.test")
	reload := countedReload(t, shellQuote(s.nginx.reloadCommand()))
	d := newDaemon(t, "", serverBlock("nginx", reload.command())+verifying("nginx", s.ca.root, "deadline", "5m")+
		certificateBlock(s.lineage.cert, s.endpoint()))
	d.start()
	d.baseline(fingerprint(s.lineage.leaf()))

	s.nginx.quit()
	after := s.renew()
	detected := d.await("renewal.detected")
	s.nginx.start()
	verified := d.await("deploy.verified", about(fingerprint(after)))
	if verified.Data.RenewalID != detected.Data.RenewalID {
		t.Errorf("two stories of one renewal:\n%s", tell(d.journal()))
	}
	wantKinds(t, of(d.journal(), verified.Data.RenewalID), "renewal.detected", "deploy.verified")
	reload.want(0)
	d.finish()
}

// The server stays down past the deadline: that is a failure to deploy, not a
// reason to reload; when it is back it has recovered.
func TestServerDownPastTheDeadline(t *testing.T) {
	t.Parallel()
	s := newLocal(t, "www.e2e.test")
	reload := countedReload(t, shellQuote(s.nginx.reloadCommand()))
	d := newDaemon(t, "", serverBlock("nginx", reload.command())+verifying("nginx", s.ca.root, "every", "10s")+
		certificateBlock(s.lineage.cert, s.endpoint()))
	d.start()
	d.baseline(fingerprint(s.lineage.leaf()))

	s.nginx.quit()
	after := s.renew()
	failed := d.await("deploy.failed", about(fingerprint(after)))
	wantVerdicts(t, failed, s.each("refused"))
	if failed.Data.Cause != "unreachable" {
		t.Errorf("deploy.failed has the cause %q", failed.Data.Cause)
	}
	s.nginx.start()
	recovered := d.await("deploy.recovered")
	wantVerdicts(t, recovered, s.each("serving"))
	if lost := only(of(d.journal(), failed.Data.RenewalID), "reload.done", "reload.failed", "reload.held"); len(lost) != 0 {
		t.Errorf("a server that is down was reloaded:\n%s", tell(lost))
	}
	reload.want(0)
	d.finish()
}

// NATS is killed before a renewal and comes back after it: every event reaches
// the stream once, in order.
func TestNATSKilledDuringTheRenewal(t *testing.T) {
	t.Parallel()
	s := newLocal(t, "www.e2e.test")
	hub := newNATSServer(t)
	d := newDaemon(t, hub.url, serverBlock("nginx", s.nginx.reloadCommand())+verifying("nginx", s.ca.root)+
		certificateBlock(s.lineage.cert, s.endpoint()))
	d.start()
	before := s.lineage.leaf()
	d.baseline(fingerprint(before))
	d.heard.await("deploy.verified", about(fingerprint(before)))

	after := s.renew()
	d.await("renewal.detected")
	hub.kill()
	verified := d.await("deploy.verified", about(fingerprint(after)))
	hub.start()
	// The listener's own connection comes back as well; what the stream holds is
	// what counts.
	d.listen()
	d.heard.check(host, d.journal())
	wantKinds(t, of(d.heard.stream(), verified.Data.RenewalID), "renewal.detected", "reload.done", "deploy.verified")
	d.finish()
}

// NATS is away, the story goes on, and renewatch itself is killed before it
// could tell any of it: nothing is lost and nothing doubled.
func TestNATSAndRenewatchKilled(t *testing.T) {
	t.Parallel()
	s := newLocal(t, "www.e2e.test")
	hub := newNATSServer(t)
	reload := countedReload(t, shellQuote(s.nginx.reloadCommand()))
	d := newDaemon(t, hub.url, serverBlock("nginx", reload.command())+verifying("nginx", s.ca.root)+
		certificateBlock(s.lineage.cert, s.endpoint()))
	d.start()
	before := s.lineage.leaf()
	d.baseline(fingerprint(before))
	d.heard.await("deploy.verified", about(fingerprint(before)))

	hub.kill()
	after := s.renew()
	verified := d.await("deploy.verified", about(fingerprint(after)))
	d.kill()
	hub.start()
	d.start()
	d.listen()
	d.heard.check(host, d.journal())
	wantKinds(t, of(d.heard.stream(), verified.Data.RenewalID), "renewal.detected", "reload.done", "deploy.verified")
	reload.want(1)
	d.finish()
}
