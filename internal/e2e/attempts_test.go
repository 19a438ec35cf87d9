package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// certbot's log tells why it did not renew, and that its hook failed after it had:
// both are one renewal. The log is kept in the way of certbot itself (a new file
// for every run) and in Debian's (one file, appended to).
func TestAttempts(t *testing.T) {
	t.Parallel()
	for _, scheme := range []struct{ name, backups string }{{"upstream", "1000"}, {"debian", "0"}} {
		t.Run(scheme.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, "www.e2e.test")
			log := filepath.Join(s.acme.dir, "logs", "letsencrypt.log")
			d := newDaemon(t, "", serverBlock("nginx", s.nginx.reloadCommand())+verifying("nginx", s.acme.root)+
				fmt.Sprintf("  logs: [{client: certbot, file: %q}]\n", log)+certificateBlock(s.lineage.cert, s.endpoint()))
			d.start()
			first := d.baseline(fingerprint(s.lineage.leaf()))

			// The CA asks for a file that certbot puts where no server looks.
			listen := []string{s.v4}
			if s.v6 != "" {
				listen = append(listen, s.v6)
			}
			site := tlsServer(s.name, s.lineage.cert, s.lineage.key, listen...)
			s.nginx.configure(webServer(tempDir(t), s.acme.port), site)
			s.nginx.reload()
			refused := s.acme.certbot("renew", "--cert-name", s.name, "--force-renewal", "--no-random-sleep-on-renew",
				"--max-log-backups", scheme.backups)
			if res := run(t, refused); res.code == 0 {
				t.Fatalf("certbot renewed without a challenge that could be met: %v", res)
			}
			attempted := d.heard.await("renewal.attempted")
			failed := d.heard.await("renewal.failed")
			a := failed.Data.Attempt
			if a == nil || a.Client != "certbot" || a.Lineage != s.name || a.Outcome != "failed" || a.Phase != "challenge" || !a.Forced || a.DryRun || a.Log != log {
				t.Fatalf("renewal.failed does not tell the attempt: %s", failed.raw)
			}
			if a.ProblemType != "urn:ietf:params:acme:error:unauthorized" || a.ProblemDetail == "" || !strings.Contains(failed.Data.Detail, s.name) {
				t.Errorf("renewal.failed does not tell what the CA said: %s", failed.raw)
			}
			if len(a.Problems) != 1 || a.Problems[0].Name != s.name {
				t.Errorf("renewal.failed does not tell which name was refused: %s", failed.raw)
			}
			id := failed.Data.RenewalID
			if attempted.Data.RenewalID != id || id == first.Data.RenewalID {
				t.Errorf("the attempt and its failure are not one renewal of their own: %s, %s, baseline %s", attempted.Data.RenewalID, id, first.Data.RenewalID)
			}

			// Now the challenge is met, and the hook that ought to reload nginx fails.
			s.nginx.configure(webServer(s.acme.webroot, s.acme.port), site)
			s.nginx.reload()
			after := s.acme.renew(s.name, "--max-log-backups", scheme.backups, "--deploy-hook", "sh -c 'exit 3'")
			verified := d.heard.await("deploy.verified", about(fingerprint(after)))
			mustServe(t, s.v4, s.name, after)
			if h := hookOf(verified.Data.Attempt); h != "deploy 3" || !strings.Contains(verified.Data.Detail, "exit code 3") {
				t.Errorf("deploy.verified does not tell of the hook: %s", verified.raw)
			}
			if verified.Data.RenewalID != id {
				t.Errorf("the renewal that failed at first has another id when it succeeds: %s, %s", id, verified.Data.RenewalID)
			}
			story := of(d.heard.subscribed(), id)
			wantKinds(t, story, "renewal.attempted", "renewal.failed", "renewal.attempted", "renewal.detected", "reload.done", "deploy.verified")
			for _, e := range story {
				if e.Data.Attempt == nil {
					t.Errorf("%s tells of no attempt", e.kind())
				}
			}
			d.finish()
			if out := mustRun(t, command(t, "explain", log)).stdout; !strings.Contains(out, s.name) || !strings.Contains(out, "exit code 3") {
				t.Errorf("explain does not tell of the hook:\n%s", out)
			}
		})
	}
}

func hookOf(a *attempt) string {
	if a == nil || a.Hook == nil {
		return ""
	}
	return fmt.Sprintf("%s %d", a.Hook.Kind, a.Hook.ExitCode)
}
