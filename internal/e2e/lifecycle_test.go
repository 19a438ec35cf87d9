package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A second daemon on the same state directory is refused; the first goes on.
// health tells whether one is alive.
func TestSecondDaemonIsRefused(t *testing.T) {
	t.Parallel()
	s := newLocal(t, "www.e2e.test")
	d := newDaemon(t, "", serverBlock("nginx", s.nginx.reloadCommand())+verifying("nginx", s.ca.root)+
		certificateBlock(s.lineage.cert, s.endpoint()))
	d.start()
	d.baseline(fingerprint(s.lineage.leaf()))

	second := run(t, command(t, "run", "--config", d.conf))
	if second.code != 1 || !strings.Contains(second.stderr, d.state) {
		t.Errorf("a second daemon on the same state directory: %v", second)
	}
	if health := run(t, command(t, "health", "--config", d.conf)); health.code != 0 {
		t.Errorf("health of a running daemon: %v", health)
	}
	after := s.renew()
	d.await("deploy.verified", about(fingerprint(after)))

	d.finish()
	if health := run(t, command(t, "health", "--config", d.conf)); health.code == 0 {
		t.Errorf("health of a stopped daemon: %v", health)
	}
}

// /healthz and /readyz answer; a clean stop says agent.stopped, the next start
// goes on counting where the last one ended, and events tells all of it.
func TestCleanStopAndStart(t *testing.T) {
	t.Parallel()
	s := newLocal(t, "www.e2e.test")
	d := newDaemon(t, "", serverBlock("nginx", s.nginx.reloadCommand())+verifying("nginx", s.ca.root)+
		certificateBlock(s.lineage.cert, s.endpoint()))
	for range 2 {
		d.start()
		d.baseline(fingerprint(s.lineage.leaf()))
		info := d.awaitReady()
		for _, path := range []string{"/healthz", "/readyz"} {
			if code, body, err := get(info.HTTP + path); err != nil || code != http.StatusOK {
				t.Errorf("%s: %d %s %v", path, code, body, err)
			}
		}
		d.finish()
	}
	events := d.journal()
	if n := len(only(events, "agent.started")); n != 2 {
		t.Errorf("two starts, %d agent.started:\n%s", n, tell(events))
	}
	if n := len(only(events, "deploy.verified")); n != 1 {
		t.Errorf("one first sight, %d deploy.verified:\n%s", n, tell(events))
	}
	told := run(t, command(t, "events", "--config", d.conf, "--json"))
	for i, line := range lines(told.stdout) {
		if i < len(events) && line != string(events[i].raw) {
			t.Errorf("events tells\n%s\nthe journal says\n%s", line, events[i].raw)
		}
	}
	if n := len(lines(told.stdout)); told.code != 0 || n != len(events) {
		t.Errorf("events tells %d of %d: %v", n, len(events), told)
	}
	one := run(t, command(t, "events", "--config", d.conf, s.name))
	if one.code != 0 || len(lines(one.stdout)) != 1 || !strings.Contains(one.stdout, "deploy.verified") {
		t.Errorf("events %s: %v", s.name, one)
	}
	info, err := os.Stat(d.state)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o700 {
		t.Errorf("the state directory has mode %v", info.Mode().Perm())
	}
}

// SIGHUP takes up a changed configuration. A bad one is refused with the reason
// and the place, and the old one stays in force.
func TestHangupReadsTheConfiguration(t *testing.T) {
	t.Parallel()
	s := newLocal(t, "www.e2e.test")
	reload := countedReload(t, shellQuote(s.nginx.reloadCommand()))
	good := serverBlock("nginx", reload.command()) + verifying("nginx", s.ca.root) +
		certificateBlock(s.lineage.cert, s.endpoint())
	d := newDaemon(t, "", good)
	d.start()
	d.baseline(fingerprint(s.lineage.leaf()))

	d.configure(good + "surprise: true\n")
	line := strings.Count(readFile(t, d.conf), "\n")
	if err := syscall.Kill(d.pid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	place := fmt.Sprintf("%s:%d:", filepath.Base(d.conf), line)
	eventually(t, "the refusal", func() error {
		said := d.log.String()
		if !strings.Contains(said, "surprise") || !strings.Contains(said, place) {
			return errors.New("the log does not name the key and " + place)
		}
		return nil
	})
	// The old configuration still holds.
	after := s.renew()
	d.await("deploy.verified", about(fingerprint(after)))
	reload.want(1)

	// A second certificate, configured while the daemon runs, is watched.
	second := newLineage(t, "second.e2e.test", s.ca.aged(s.age, "second.e2e.test"))
	d.configure(good + fmt.Sprintf("  - cert: %s\n    endpoints: []\n", second.cert))
	if err := syscall.Kill(d.pid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	unverified := d.await("deploy.unverified", named("second.e2e.test"))
	if c := unverified.Data.Certificate; c == nil || c.SHA256 != fingerprint(second.leaf()) {
		t.Errorf("deploy.unverified tells of another certificate: %s", unverified.raw)
	}
	d.finish()
}

// A glob makes one entry per match, also for a lineage that comes later.
func TestGlobFindsLaterLineages(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	live := filepath.Join(tempDir(t), "live")
	first := lineageIn(t, filepath.Join(live, "one.e2e.test"))
	first.put(ca.aged(hours(10), "one.e2e.test"))
	d := newDaemon(t, "", fmt.Sprintf("certificates:\n  - cert: %s\n    endpoints: []\n", filepath.Join(live, "*", "fullchain.pem")))
	d.start()
	d.await("deploy.unverified", named("one.e2e.test"))

	second := lineageIn(t, filepath.Join(live, "two.e2e.test"))
	second.put(ca.aged(hours(10), "two.e2e.test"))
	d.await("deploy.unverified", named("two.e2e.test"))
	if err := os.RemoveAll(second.dir); err != nil {
		t.Fatal(err)
	}
	d.await("file.removed", named("two.e2e.test"))
	wantKinds(t, only(d.journal(), "file.removed", "file.broken"), "file.removed")
	d.finish()
}

// Without a configuration run ends with 78 and names where it looked; with a bad
// one it ends with 78 and names the place.
func TestRunWithoutAGoodConfiguration(t *testing.T) {
	t.Parallel()
	program(t, "go")
	if _, err := os.Stat("/etc/renewatch/renewatch.yaml"); err == nil {
		t.Skip("this machine has /etc/renewatch/renewatch.yaml")
	}
	none := run(t, command(t, "run"))
	if none.code != 78 || !strings.Contains(none.stderr, "/etc/renewatch/renewatch.yaml") ||
		!strings.Contains(none.stderr, "renewatch/renewatch.yaml") || none.stdout != "" {
		t.Errorf("run without a configuration: %v", none)
	}
	bad := filepath.Join(tempDir(t), "bad.yaml")
	writeFile(t, bad, "certificates:\n  - cert: /nowhere/fullchain.pem\n    endpoint: []\n", 0o644)
	wrong := run(t, command(t, "run", "--config", bad))
	if wrong.code != 78 || !strings.Contains(wrong.stderr, "bad.yaml:3:") {
		t.Errorf("run with an unknown key: %v", wrong)
	}
	if checked := run(t, command(t, "config", "check", "--config", bad)); checked.code != 1 || !strings.Contains(checked.stderr+checked.stdout, "bad.yaml:3:") {
		t.Errorf("config check with an unknown key: %v", checked)
	}
}

// Somebody else holds the port of the embedded NATS server: he is never adopted,
// agent.degraded says it, and the events wait in the journal.
func TestNATSPortTaken(t *testing.T) {
	t.Parallel()
	s := newLocal(t, "www.e2e.test")
	stranger := newNATSServer(t)
	d := newDaemon(t, "", "")
	d.embedded = strings.TrimPrefix(stranger.url, "nats://")
	d.configure(serverBlock("nginx", s.nginx.reloadCommand()) + verifying("nginx", s.ca.root) +
		certificateBlock(s.lineage.cert, s.endpoint()))
	d.startDeaf()
	degraded := d.await("agent.degraded")
	if !strings.Contains(degraded.Data.Detail, d.embedded) {
		t.Errorf("agent.degraded does not name the port: %s", degraded.raw)
	}
	after := s.renew()
	d.await("deploy.verified", about(fingerprint(after)))
	stranger.kill()
	d.await("agent.recovered")
	d.listen()
	d.finish()
}
