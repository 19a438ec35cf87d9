package e2e

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The hook is missing: certbot renews, nginx goes on serving the old
// certificate, renewatch reloads it, proves that the new one is served and
// tells the whole story on NATS. The configuration is the one that
// examples/nginx-certbot offers for copying.
func TestHookMissing(t *testing.T) {
	t.Parallel()
	s := newSite(t, "www.e2e.test")
	before := s.lineage.leaf()
	d := newDaemon(t, "", exampleConfiguration(t, s))
	d.start()
	first := d.baseline(fingerprint(before))
	if first.Data.LagSeconds != nil {
		t.Errorf("a baseline that was served at first sight has a lag: %v", first)
	}
	if first.Subject != s.name {
		t.Errorf("the certificate is named %q, not after its directory", first.Subject)
	}

	after := s.acme.renew(s.name)
	detected := d.heard.await("renewal.detected")
	reload := d.heard.await("reload.done")
	verified := d.heard.await("deploy.verified", about(fingerprint(after)))

	mustServe(t, s.v4, s.name, after)
	if s.v6 != "" {
		mustServe(t, s.v6, s.name, after)
	}
	if got := opensslLeaf(t, s.v4, s.name); !got.Equal(after) {
		t.Errorf("openssl is served %s, not %s", fingerprint(got), fingerprint(after))
	}
	if !s.nginx.running() {
		t.Error("nginx is gone")
	}

	id := detected.Data.RenewalID
	if id == first.Data.RenewalID {
		t.Error("the renewal has the renewal_id of the baseline")
	}
	wantKinds(t, of(d.heard.subscribed(), id), "renewal.detected", "reload.done", "deploy.verified")
	if c, p := detected.Data.Certificate, detected.Data.Previous; c == nil || c.SHA256 != fingerprint(after) || p == nil || p.SHA256 != fingerprint(before) {
		t.Errorf("renewal.detected does not tell the new and the previous leaf: %s", detected.raw)
	}
	if r := reload.Data.Reload; r == nil || r.Server != "nginx" || r.How != "command" || r.ExitCode == nil || *r.ExitCode != 0 {
		t.Errorf("reload.done does not tell what was run: %s", reload.raw)
	}
	if verified.Data.LagSeconds == nil || *verified.Data.LagSeconds <= 0 {
		t.Errorf("deploy.verified has no lag: %s", verified.raw)
	}
	want := map[string]string{s.v4: "serving"}
	if s.v6 != "" {
		want[s.v6] = "serving"
	}
	wantVerdicts(t, verified, want)
	for _, v := range verified.Data.Verdicts {
		if v.Samples < 4 || v.Matching != v.Samples || v.Served == nil || v.Served.SHA256 != fingerprint(after) || v.ExpectedSHA256 != fingerprint(after) {
			t.Errorf("%s at %s proves little: %+v", verified.kind(), v.Address, v)
		}
	}
	d.finish()
}

// exampleConfiguration is examples/nginx-certbot with what differs here: the
// directory, the ports, no systemd, shorter times.
func exampleConfiguration(t *testing.T, s *site) string {
	t.Helper()
	text := readFile(t, filepath.Join(repoRoot(t), "examples", "nginx-certbot", "renewatch.yaml"))
	for _, swap := range [][2]string{
		{"servers:\n", ""}, // comes back with the server
		{"  nginx:\n    unit: nginx.service\n", serverBlock("nginx", s.nginx.reloadCommand())},
		{"defaults:\n", ""},
		{"  server: nginx\n", verifying("nginx", s.acme.root)},
		{"  - cert: /etc/letsencrypt/live/*/fullchain.pem\n", fmt.Sprintf("  - cert: %s/live/*/fullchain.pem\n    endpoints:\n      - %q\n", s.acme.config(), s.endpoint())},
	} {
		if strings.Count(text, swap[0]) != 1 {
			t.Fatalf("the example has %q not exactly once:\n%s", swap[0], text)
		}
		text = strings.Replace(text, swap[0], swap[1], 1)
	}
	return text
}

// The hook works: nginx serves the new certificate before renewatch would act,
// which proves it and reloads nothing.
func TestHookPresent(t *testing.T) {
	t.Parallel()
	s := newSite(t, "www.e2e.test")
	ours := countedReload(t, shellQuote(s.nginx.reloadCommand()))
	d := newDaemon(t, "", serverBlock("nginx", ours.command())+verifying("nginx", s.acme.root)+
		certificateBlock(s.lineage.cert, s.endpoint()))
	d.start()
	d.baseline(fingerprint(s.lineage.leaf()))

	hook := countedReload(t, shellQuote(s.nginx.reloadCommand()))
	after := s.acme.renew(s.name, "--deploy-hook", hook.path)
	hook.want(1)
	verified := d.heard.await("deploy.verified", about(fingerprint(after)))

	wantKinds(t, of(d.heard.subscribed(), verified.Data.RenewalID), "renewal.detected", "deploy.verified")
	ours.want(0)
	mustServe(t, s.v4, s.name, after)
	d.finish()
}

// The reload command fails: its exit code and output are told, the renewal
// fails at its deadline with every verdict, and when a person reloads by hand
// it recovers.
func TestReloadFails(t *testing.T) {
	t.Parallel()
	s := newLocal(t, "www.e2e.test")
	reload := countedReload(t, "echo 'nothing to reload here'\nexit 3")
	d := newDaemon(t, "", serverBlock("nginx", reload.command())+verifying("nginx", s.ca.root, "every", "10s")+
		certificateBlock(s.lineage.cert, s.endpoint()))
	d.start()
	d.baseline(fingerprint(s.lineage.leaf()))

	after := s.renew()
	failedReload := d.await("reload.failed")
	if r := failedReload.Data.Reload; r == nil || r.Server != "nginx" || r.How != "command" ||
		r.ExitCode == nil || *r.ExitCode != 3 || !strings.Contains(r.Output, "nothing to reload here") {
		t.Errorf("reload.failed does not tell exit code and output: %s", failedReload.raw)
	}
	failed := d.await("deploy.failed", about(fingerprint(after)))
	wantVerdicts(t, failed, s.each("stale"))
	if failed.Data.Cause != "not_reloaded" || failed.Data.Next == nil {
		t.Errorf("deploy.failed without its cause or what comes next: %s", failed.raw)
	}
	wantKinds(t, of(d.journal(), failed.Data.RenewalID), "renewal.detected", "reload.failed", "deploy.failed")
	reload.want(1)

	s.nginx.reload()
	recovered := d.await("deploy.recovered")
	if recovered.Data.RenewalID != failed.Data.RenewalID {
		t.Errorf("deploy.recovered is of renewal %s, not %s", recovered.Data.RenewalID, failed.Data.RenewalID)
	}
	wantVerdicts(t, recovered, s.each("serving"))
	mustServe(t, s.v4, s.name, after)
	d.finish()
}

// The reload command says 0 and nothing changes: an exit code is no evidence.
func TestReloadDoesNothing(t *testing.T) {
	t.Parallel()
	s := newLocal(t, "www.e2e.test")
	before := s.lineage.leaf()
	d := newDaemon(t, "", serverBlock("nginx", []string{"/bin/true"})+verifying("nginx", s.ca.root)+
		certificateBlock(s.lineage.cert, s.endpoint()))
	d.start()
	d.baseline(fingerprint(before))

	after := s.renew()
	failed := d.await("deploy.failed", about(fingerprint(after)))
	wantVerdicts(t, failed, s.each("stale"))
	wantKinds(t, of(d.journal(), failed.Data.RenewalID), "renewal.detected", "reload.done", "deploy.failed")
	for _, v := range failed.Data.Verdicts {
		if v.Served == nil || v.Served.SHA256 != fingerprint(before) || v.Matching != 0 || v.Samples == 0 {
			t.Errorf("the verdict does not tell what is served: %+v", v)
		}
	}
	mustServe(t, s.v4, s.name, before)
	d.finish()
}

// The reload command takes its time to end after the server has the new
// certificate: what it did is told before what came of it.
func TestSlowReloadCommand(t *testing.T) {
	t.Parallel()
	s := newLocal(t, "www.e2e.test")
	reload := countedReload(t, shellQuote(s.nginx.reloadCommand())+"\nsleep 5\necho done at last")
	d := newDaemon(t, "", serverBlock("nginx", reload.command())+verifying("nginx", s.ca.root)+
		certificateBlock(s.lineage.cert, s.endpoint()))
	d.start()
	d.baseline(fingerprint(s.lineage.leaf()))

	after := s.renew()
	verified := d.await("deploy.verified", about(fingerprint(after)))
	done := d.await("reload.done")
	if r := done.Data.Reload; r == nil || !strings.Contains(r.Output, "done at last") {
		t.Errorf("reload.done does not tell what the command said: %s", done.raw)
	}
	wantKinds(t, of(d.journal(), verified.Data.RenewalID), "renewal.detected", "reload.done", "deploy.verified")
	reload.want(1)
	d.finish()
}

// The first reload fails, the second works: it starts no less than a minute
// after the first one, however short the configured retries are.
func TestReloadsOfOneServerAreAMinuteApart(t *testing.T) {
	t.Parallel()
	s := newLocal(t, "www.e2e.test")
	reload := countedReload(t, "date +%s.%N >>$0.times\n[ $n -gt 1 ] || exit 1\n"+shellQuote(s.nginx.reloadCommand()))
	d := newDaemon(t, "", serverBlock("nginx", reload.command())+
		verifying("nginx", s.ca.root, "deadline", "5m")+certificateBlock(s.lineage.cert, s.endpoint()))
	d.start()
	d.baseline(fingerprint(s.lineage.leaf()))

	after := s.renew()
	verified := d.await("deploy.verified", about(fingerprint(after)))
	wantKinds(t, of(d.journal(), verified.Data.RenewalID), "renewal.detected", "reload.failed", "reload.done", "deploy.verified")
	reload.want(2)
	var times []float64
	for _, line := range lines(readFile(t, reload.path+".times")) {
		var at float64
		if _, err := fmt.Sscan(line, &at); err != nil {
			t.Fatal(err)
		}
		times = append(times, at)
	}
	// The scripts look at the clock a little after they were started.
	if len(times) == 2 && times[1]-times[0] < 55 {
		t.Errorf("the second reload came %.1f s after the first", times[1]-times[0])
	}
	d.finish()
}

// With --no-repair everything is told and nothing reloaded; started again
// without it, the same renewal is repaired.
func TestNoRepair(t *testing.T) {
	t.Parallel()
	s := newLocal(t, "www.e2e.test")
	reload := countedReload(t, shellQuote(s.nginx.reloadCommand()))
	d := newDaemon(t, "", serverBlock("nginx", reload.command())+verifying("nginx", s.ca.root)+
		certificateBlock(s.lineage.cert, s.endpoint()))
	d.flags = []string{"--no-repair"}
	d.start()
	d.baseline(fingerprint(s.lineage.leaf()))

	after := s.renew()
	failed := d.await("deploy.failed", about(fingerprint(after)))
	wantKinds(t, of(d.journal(), failed.Data.RenewalID), "renewal.detected", "deploy.failed")
	reload.want(0)
	d.finish()

	d.flags = nil
	d.start()
	d.await("deploy.recovered")
	wantKinds(t, of(d.journal(), failed.Data.RenewalID), "renewal.detected", "deploy.failed", "reload.done", "deploy.recovered")
	reload.want(1)
	mustServe(t, s.v4, s.name, after)
	d.finish()
}

// IPv6 is answered by another server block with another certificate: IPv4
// serves, IPv6 does not, and that is never called verified.
func TestIPv6OnAnotherCertificate(t *testing.T) {
	t.Parallel()
	if !haveIPv6() {
		t.Skip("this machine has no ::1")
	}
	const name = "www.e2e.test"
	ca := newAuthority(t)
	l := newLineage(t, name, ca.aged(2*time.Hour, name))
	other := newLineage(t, "other.e2e.test", ca.aged(2*time.Hour, "other.e2e.test"))
	port := freePort(t)
	v4, v6 := fmt.Sprintf("127.0.0.1:%d", port), fmt.Sprintf("[::1]:%d", port)
	n := newNginx(t, tlsServer(name, l.cert, l.key, v4)+tlsServer("other.e2e.test", other.cert, other.key, v6))
	reload := countedReload(t, shellQuote(n.reloadCommand()))
	d := newDaemon(t, "", serverBlock("nginx", reload.command())+verifying("nginx", ca.root)+
		certificateBlock(l.cert, fmt.Sprintf("https://%s:%d?address=%s,%s", name, port, v4, v6)))
	d.start()

	failed := d.await("deploy.failed")
	wantVerdicts(t, failed, map[string]string{v4: "serving", v6: "wrong_name"})
	if _, ok := find(d.journal(), "deploy.verified"); ok {
		t.Errorf("verified although IPv6 serves another certificate:\n%s", tell(d.journal()))
	}
	// A wrong name is worth one reload, no more.
	reload.want(1)
	d.finish()
}

// IPv6 is answered by a second instance that nobody reloads: after a renewal
// IPv4 serves and IPv6 is stale, each told by itself.
func TestIPv6OnAnInstanceNobodyReloads(t *testing.T) {
	t.Parallel()
	if !haveIPv6() {
		t.Skip("this machine has no ::1")
	}
	const name = "www.e2e.test"
	ca := newAuthority(t)
	l := newLineage(t, name, ca.aged(2*time.Hour, name))
	port := freePort(t)
	v4, v6 := fmt.Sprintf("127.0.0.1:%d", port), fmt.Sprintf("[::1]:%d", port)
	reloaded := newNginx(t, tlsServer(name, l.cert, l.key, v4))
	newNginx(t, tlsServer(name, l.cert, l.key, v6))
	d := newDaemon(t, "", serverBlock("nginx", reloaded.reloadCommand())+verifying("nginx", ca.root)+
		certificateBlock(l.cert, fmt.Sprintf("https://%s:%d?address=%s,%s", name, port, v4, v6)))
	d.start()
	before := l.leaf()
	d.baseline(fingerprint(before))

	after := ca.aged(time.Hour, name)
	l.put(after)
	failed := d.await("deploy.failed", about(after.SHA256()))
	wantVerdicts(t, failed, map[string]string{v4: "serving", v6: "stale"})
	wantKinds(t, of(d.journal(), failed.Data.RenewalID), "renewal.detected", "reload.done", "deploy.failed")
	mustServe(t, v4, name, after.Cert)
	mustServe(t, v6, name, before)
	d.finish()
}

// The daemon comes to a server that already serves an older certificate than
// the one on disk: the usual story, told with what was served before, and no
// renewal is claimed to have been seen.
func TestBaselineNotServed(t *testing.T) {
	t.Parallel()
	s := newLocal(t, "www.e2e.test")
	before := s.lineage.leaf()
	after := s.renew()
	d := newDaemon(t, "", serverBlock("nginx", s.nginx.reloadCommand())+verifying("nginx", s.ca.root)+
		certificateBlock(s.lineage.cert, s.endpoint()))
	d.start()

	verified := d.await("deploy.verified")
	wantKinds(t, of(d.journal(), verified.Data.RenewalID), "reload.done", "deploy.verified")
	if _, ok := find(d.journal(), "renewal.detected"); ok {
		t.Errorf("a renewal nobody saw is told:\n%s", tell(d.journal()))
	}
	if c, p := verified.Data.Certificate, verified.Data.Previous; c == nil || c.SHA256 != fingerprint(after) || p == nil || p.SHA256 != fingerprint(before) {
		t.Errorf("deploy.verified does not tell what was served before: %s", verified.raw)
	}
	mustServe(t, s.v4, s.name, after)
	d.finish()
}

// A newer certificate comes before the last one was served: the first story
// ends as superseded, the second as verified.
func TestSuperseded(t *testing.T) {
	t.Parallel()
	s := newLocal(t, "www.e2e.test")
	reload := countedReload(t, shellQuote(s.nginx.reloadCommand()))
	d := newDaemon(t, "", serverBlock("nginx", reload.command())+verifying("nginx", s.ca.root, "grace", "20s")+
		certificateBlock(s.lineage.cert, s.endpoint()))
	d.start()
	d.baseline(fingerprint(s.lineage.leaf()))

	middle := s.renew()
	first := d.await("renewal.detected", about(fingerprint(middle)))
	last := s.renew()
	verified := d.await("deploy.verified", about(fingerprint(last)))
	wantKinds(t, of(d.journal(), first.Data.RenewalID), "renewal.detected", "deploy.superseded")
	wantKinds(t, of(d.journal(), verified.Data.RenewalID), "renewal.detected", "reload.done", "deploy.verified")
	reload.want(1)
	d.finish()
}

// local is a stage without certbot: one nginx with a pair of a CA of the
// test's own, on IPv4 and, where the machine has it, IPv6.
type local struct {
	t       *testing.T
	name    string
	ca      *authority
	lineage *lineage
	nginx   *nginx
	port    int
	v4, v6  string
	age     time.Duration
}

func newLocal(t *testing.T, name string) *local {
	t.Helper()
	s := &local{t: t, name: name, ca: newAuthority(t), port: freePort(t), age: 10 * time.Hour}
	s.lineage = newLineage(t, name, s.ca.aged(s.age, name))
	s.v4 = fmt.Sprintf("127.0.0.1:%d", s.port)
	listen := []string{s.v4}
	if haveIPv6() {
		s.v6 = fmt.Sprintf("[::1]:%d", s.port)
		listen = append(listen, s.v6)
	}
	s.nginx = newNginx(t, tlsServer(name, s.lineage.cert, s.lineage.key, listen...))
	awaitServed(t, s.v4, name, s.lineage.leaf())
	return s
}

// renew puts a leaf on disk that is an hour younger than the last one.
func (s *local) renew() *x509.Certificate {
	s.t.Helper()
	s.age -= time.Hour
	s.lineage.put(s.ca.aged(s.age, s.name))
	return s.lineage.leaf()
}

func (s *local) endpoint() string {
	addresses := s.v4
	if s.v6 != "" {
		addresses += "," + s.v6
	}
	return fmt.Sprintf("https://%s:%d?address=%s", s.name, s.port, addresses)
}

// each is the same code for every address.
func (s *local) each(code string) map[string]string {
	want := map[string]string{s.v4: code}
	if s.v6 != "" {
		want[s.v6] = code
	}
	return want
}

// wantVerdicts fails unless the event has exactly one verdict for each address,
// with the given code.
func wantVerdicts(t *testing.T, e event, want map[string]string) {
	t.Helper()
	got := map[string]string{}
	for _, v := range e.Data.Verdicts {
		if _, twice := got[v.Address]; twice {
			t.Errorf("%s has two verdicts of %s", e.kind(), v.Address)
		}
		got[v.Address] = v.Code
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s has the verdicts %v, want %v:\n%s", e.kind(), got, want, e.raw)
	}
}

// opensslLeaf is what a client that shares no code with renewatch is served.
func opensslLeaf(t *testing.T, addr, name string) *x509.Certificate {
	t.Helper()
	res := mustRun(t, exec.Command(program(t, "openssl"), "s_client", "-connect", addr, "-servername", name, "-showcerts"))
	block, _ := pem.Decode([]byte(res.stdout))
	if block == nil {
		t.Fatalf("openssl shows no certificate: %v", res)
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return leaf
}
