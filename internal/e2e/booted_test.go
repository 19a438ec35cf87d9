package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/renewatch/renewatch/internal/certtest"
)

// booted is a machine on which the unit is installed as it is shipped, beside
// Debian's nginx with certificates in certbot's layout.
type booted struct {
	*machine
	*daemon // for its journal only
	ca      *authority
	lineage *certtest.Lineage
	name    string
	age     time.Duration
	config  string // the configuration that holds
	boxed   bool   // the unit of the sandbox is there
	dropIn  string // what it has now
}

const (
	configPath  = "/etc/renewatch/renewatch.yaml"
	nginxUnit   = "nginx.service"
	unitDir     = "usr/lib/systemd/system"
	dropInPath  = "/etc/systemd/system/renewatch.service.d/test.conf"
	certbotTree = "/etc/letsencrypt"
)

// The unit under the systemd it was written for: what it promises is seen there,
// from the start of the service to the poweroff of the machine. The steps build
// on each other; the first one that fails ends it.
func TestBooted(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"systemd-nspawn", "nsenter", "dbus-daemon", "nginx", "certbot", "haproxy", "openssl"} {
		program(t, name)
	}
	if !apart(t) {
		return
	}
	b := newBooted(t)
	for _, step := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"start", b.testStart},
		{"sandbox", b.testSandbox},
		{"reload", b.testReload},
		{"priorities", b.testPriorities},
		{"renewal", b.testRenewal},
		{"watchdog", b.testWatchdog},
		{"stop", b.testStop},
		{"exit 78", b.testBadConfiguration},
		{"poweroff", b.testPoweroff},
	} {
		if !t.Run(step.name, func(t *testing.T) {
			b.machine.t, b.daemon.t = t, t
			step.run(t)
		}) {
			t.FailNow()
		}
	}
	checkStory(t, host, b.journal())
}

func newBooted(t *testing.T) *booted {
	t.Helper()
	b := &booted{name: "www.e2e.test", age: hours(10), ca: newAuthority(t)}
	unit := readFile(t, filepath.Join(repoRoot(t), "systemd", "renewatch.service"))
	start := regexp.MustCompile(`(?m)^ExecStart=/(\S+)`).FindStringSubmatch(unit)
	if start == nil {
		t.Fatal("the unit starts nothing")
	}
	program := readFile(t, release(t))
	leaf := b.ca.aged(b.age, b.name)
	b.machine = newMachine(t, func(root *os.Root) {
		putFile(t, root, start[1], program, 0o755)
		putFile(t, root, unitDir+"/renewatch.service", unit, 0o644)
		putFile(t, root, "etc/renewatch/root.pem", string(b.ca.RootPEM()), 0o644)
		putFile(t, root, "etc/nginx/nginx.conf", "user www-data;\npid /run/nginx.pid;\nerror_log /var/log/nginx/error.log;\nevents {}\nhttp {\naccess_log off;\n"+
			tlsServer(b.name, certbotTree+"/live/"+b.name+"/fullchain.pem", certbotTree+"/live/"+b.name+"/privkey.pem", "443")+"}\n", 0o644)
		// A run of certbot that does not end, as one that waits for the CA.
		putFile(t, root, "etc/systemd/system/certbot.service.d/test.conf", "[Service]\nExecStart=\nExecStart=/bin/sleep infinity\n", 0o644)
		putFile(t, root, "etc/haproxy.cfg", "defaults\n  mode http\n  timeout connect 1s\n  timeout client 1s\n  timeout server 1s\nfrontend f\n  bind 127.0.0.1:8080\n", 0o644)
		putFile(t, root, "root/secret", "below /root\n", 0o600)
		var err error
		if b.lineage, err = certtest.NewLineage(filepath.Join(root.Name(), certbotTree), b.name, leaf); err != nil {
			t.Fatal(err)
		}
	})
	b.lineage.Dir = b.path(certbotTree)
	b.daemon = &daemon{t: t, state: b.path("/var/lib/renewatch"), conf: b.path(configPath), process: b.machine.process}
	b.configure(verifying("nginx", "/etc/renewatch/root.pem"))
	b.must("systemctl", "start", nginxUnit)
	return b
}

// configure writes the configuration: what examples/nginx-certbot holds, with
// what is given in addition.
func (b *booted) configure(defaults string, more ...string) {
	b.machine.t.Helper()
	b.config = "servers:\n  nginx:\n    unit: nginx.service\n" + defaults + "certificates:\n" +
		"  - cert: " + certbotTree + "/live/*/fullchain.pem\n    endpoints:\n" +
		fmt.Sprintf("      - \"https://%s?address=127.0.0.1\"\n", b.name) + strings.Join(more, "")
	replaceFile(b.machine.t, b.conf, b.config, 0o644)
}

// renew is a run of certbot, all but the conversation with the CA.
func (b *booted) renew() string {
	b.machine.t.Helper()
	b.age -= time.Hour
	leaf := b.ca.aged(b.age, b.name)
	if err := b.lineage.Renew(leaf); err != nil {
		b.machine.t.Fatal(err)
	}
	return leaf.SHA256()
}

// served is the fingerprint of what nginx serves to a client that is not ours.
func (b *booted) served() string {
	b.machine.t.Helper()
	block, _ := pem.Decode([]byte(b.must("openssl", "s_client", "-connect", "127.0.0.1:443", "-servername", b.name)))
	if block == nil {
		b.machine.t.Fatal("openssl is shown no certificate")
	}
	sum := sha256.Sum256(block.Bytes)
	return hex.EncodeToString(sum[:])
}

// sandboxed runs a shell script under everything the unit says of its sandbox,
// and what the drop-in, a file of systemd/renewatch.service.d, says on top of it.
func (b *booted) sandboxed(dropIn, script string) result {
	b.machine.t.Helper()
	const unit, output = "renewatch-sandbox.service", "/run/sandbox.out"
	shipped := readFile(b.machine.t, filepath.Join(repoRoot(b.machine.t), "systemd", "renewatch.service"))
	writeFile(b.machine.t, b.path("/etc/renewatch/script"), script+"\n", 0o644)
	if !b.boxed || b.dropIn != dropIn {
		// A unit of its own, since a drop-in of the service would be in force there too.
		writeFile(b.machine.t, b.path("/etc/systemd/system/"+unit), shipped+`
[Service]
Type=oneshot
ExecStart=
ExecStart=/bin/sh -e /etc/renewatch/script
ExecReload=
WatchdogSec=0
Restart=no
StandardOutput=truncate:`+output+`
StandardError=inherit
`, 0o644)
		dir := b.path("/etc/systemd/system/" + unit + ".d")
		if err := os.RemoveAll(dir); err != nil {
			b.machine.t.Fatal(err)
		}
		if dropIn != "" {
			text := readFile(b.machine.t, filepath.Join(repoRoot(b.machine.t), "systemd", "renewatch.service.d", dropIn+".example"))
			writeFile(b.machine.t, filepath.Join(dir, dropIn), text, 0o644)
		}
		b.must("systemctl", "daemon-reload")
		b.boxed, b.dropIn = true, dropIn
	}
	res := b.run("systemctl", "start", unit)
	if res.code != 0 {
		// What failed stays loaded, and tells its status; what succeeded does not.
		code, err := strconv.Atoi(b.show(unit, "ExecMainStatus"))
		if err != nil || code == 0 || code >= 200 { // from 200 on it is systemd that failed
			b.machine.t.Fatalf("the sandbox does not work: %v", res)
		}
		res.code = code
		b.must("systemctl", "reset-failed", unit)
	}
	res.stdout = readFile(b.machine.t, b.path(output))
	return res
}

// Once systemctl returns, the daemon answers and is shut in.
func (b *booted) testStart(t *testing.T) {
	b.must("systemctl", "enable", "--now", "renewatch")
	// Nothing is waited for here: READY=1 says that the listeners stand.
	if got := b.must("renewatch", "health"); got != "alive" {
		t.Errorf("health of a started service says %q", got)
	}
	b.want("renewatch", "Type=notify", "ActiveState=active", "SubState=running", "StatusText=1 certificate, 1 server", "NRestarts=0")
	status := readFile(t, b.path("/proc/"+b.show("renewatch", "MainPID")+"/status"))
	for _, want := range []string{"CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "CapAmb:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"} {
		if !strings.Contains(status, "\n"+want+"\n") {
			t.Errorf("the daemon's process does not have %q:\n%s", want, status)
		}
	}
	info, err := os.Stat(b.state)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o700 {
		t.Errorf("the state directory has mode %v", info.Mode().Perm())
	}
	b.baseline(b.served())
}

// What the unit and its drop-ins say of the sandbox, one sentence each.
func (b *booted) testSandbox(t *testing.T) {
	const getState = "busctl --json=short get-property org.freedesktop.systemd1 /org/freedesktop/systemd1/unit/certbot_2eservice org.freedesktop.systemd1.Unit ActiveState"
	// A worker runs as www-data, the master as root.
	master := b.show(nginxUnit, "MainPID")
	worker := strings.Fields(b.must("cat", "/proc/"+master+"/task/"+master+"/children"))[0]
	b.must("systemctl", "start", "--no-block", "certbot.service")
	eventually(t, "certbot running", func() error {
		if got := b.show("certbot.service", "ActiveState"); got != "activating" {
			return errors.New(got)
		}
		return nil
	})
	for _, step := range []struct {
		sentence string
		dropIn   string
		script   string
		fails    bool
		says     string
	}{
		{"health is allowed to look", "", "renewatch health", false, "alive"},
		{"certbot's tree can be read", "", "cat /etc/letsencrypt/archive/" + b.name + "/privkey1.pem >/dev/null", false, ""},
		{"certbot's tree can be touched", "", "touch /etc/letsencrypt/archive/" + b.name + "/privkey1.pem", false, ""},
		{"nothing else can be written", "", "touch " + configPath, true, "Read-only file system"},
		{"/root cannot be read", "", "cat /root/secret", true, ""},
		{"the state of an ACME client's unit can be read over D-Bus", "", getState, false, `{"type":"s","data":"activating"}`},
		{"the journal of an ACME client's unit can be read", "", "journalctl -o json -a -q -u certbot.service", false, `"UNIT":"certbot.service"`},
		{"a signal reaches a process of root", "", "kill -0 " + master, false, ""},
		{"a signal reaches nobody else", "", "kill -0 " + worker, true, "not permitted"},
		{"it is seen when others started", "", "cat /proc/" + worker + "/stat", false, "(nginx)"},
		{"with signal.conf a signal reaches others", "signal.conf", "kill -0 " + worker, false, ""},
		{"with home.conf /root can be read", "home.conf", "cat /root/secret", false, "below /root"},
		{"with home.conf /root cannot be written", "home.conf", "touch /root/secret", true, "Read-only file system"},
		{"with command.conf nginx -t works", "command.conf", "nginx -t", false, "test is successful"},
		{"with command.conf nginx -s reload works", "command.conf", "nginx -s reload", false, ""},
		{"nginx -t does not work", "", "nginx -t", true, "test failed"},
		{"nginx -s reload works", "", "nginx -s reload", false, ""},
		{"systemctl reload works", "", "systemctl reload " + nginxUnit, false, ""},
		{"haproxy -c works", "", "haproxy -c -q -f /etc/haproxy.cfg", false, ""},
	} {
		res := b.sandboxed(step.dropIn, step.script)
		if (res.code != 0) != step.fails || !strings.Contains(res.stdout, step.says) {
			t.Errorf("%s: %s: exit %d: %s", step.sentence, step.script, res.code, res.stdout)
		}
	}
	b.must("systemctl", "stop", "certbot.service")
	if got := b.sandboxed("", getState).stdout; !strings.Contains(got, `"failed"`) && !strings.Contains(got, `"inactive"`) {
		t.Errorf("certbot was stopped, the sandbox sees %s", got)
	}
	b.want(nginxUnit, "ActiveState=active", "MainPID="+master)
}

// systemctl reload takes up a changed configuration; a bad one is refused with
// the reason, and the daemon goes on as it was.
func (b *booted) testReload(t *testing.T) {
	pid := b.show("renewatch", "MainPID")
	other := b.ca.aged(b.age, "other.e2e.test")
	lineageIn(t, b.path("/etc/ssl/other.e2e.test")).put(other)
	b.configure(verifying("nginx", "/etc/renewatch/root.pem"), "  - cert: /etc/ssl/other.e2e.test/fullchain.pem\n    endpoints: []\n")
	b.must("systemctl", "reload", "renewatch")
	b.await("deploy.unverified", about(other.SHA256()))
	b.awaitSyslog("renewatch", "2 certificates, 1 server")
	b.want("renewatch", "ActiveState=active", "MainPID="+pid, "StatusText=2 certificates, 1 server")

	replaceFile(t, b.conf, b.config+"surprise: true\n", 0o644)
	b.must("systemctl", "reload", "renewatch")
	refused := b.awaitSyslog("renewatch", "refused")
	place := fmt.Sprintf("renewatch.yaml:%d:1:", strings.Count(b.config, "\n")+1)
	if !strings.Contains(refused.Message, "surprise") || !strings.Contains(refused.Message, place) {
		t.Errorf("the journal does not tell what is wrong and where: %+v", refused)
	}
	b.must("renewatch", "health", "--state-dir", "/var/lib/renewatch")
	b.want("renewatch", "ActiveState=active", "MainPID="+pid, "StatusText=2 certificates, 1 server", "NRestarts=0")
	replaceFile(t, b.conf, b.config, 0o644)
	b.must("systemctl", "reload", "renewatch")
}

// Lines arrive in the journal by its own protocol: with their priority, and
// fields to search by.
func (b *booted) testPriorities(t *testing.T) {
	errs := b.syslog("renewatch", "--priority=err")
	for _, l := range errs {
		if l.Transport != "journal" || !strings.Contains(l.Message, "refused") {
			t.Errorf("among the errors is %+v", l)
		}
	}
	if len(errs) == 0 {
		t.Error("the refused configuration is not among the errors")
	}
	if l := b.awaitSyslog("renewatch", "watching: "); l.Priority != "6" || l.Transport != "journal" || l.Unit != "renewatch.service" {
		t.Errorf("an informational line: %+v", l)
	}
	started := b.syslog("renewatch", "EVENT=agent.started")
	if len(started) != 1 || started[0].Event != "agent.started" {
		t.Errorf("one start, EVENT=agent.started finds %+v", started)
	}
}

// certbot renews and nobody reloads nginx: renewatch does, over D-Bus, from its
// sandbox, and proves it.
func (b *booted) testRenewal(t *testing.T) {
	pid := b.show(nginxUnit, "MainPID")
	after := b.renew()
	verified := b.await("deploy.verified", about(after))
	wantKinds(t, of(b.journal(), verified.Data.RenewalID), "renewal.detected", "reload.done", "deploy.verified")
	done := b.await("reload.done")
	if r := done.Data.Reload; r == nil || r.Server != "nginx" || r.How != "unit" {
		t.Errorf("reload.done does not tell what was reloaded: %s", done.raw)
	}
	if got := b.served(); got != after {
		t.Errorf("nginx serves %s, not %s", got, after)
	}
	b.want(nginxUnit, "ActiveState=active", "MainPID="+pid)
	b.awaitSyslog(nginxUnit, "Reloaded")
	told := b.must("renewatch", "events", "--json", "--since", "1h", b.name)
	if !strings.Contains(told, string(verified.raw)) {
		t.Errorf("renewatch events does not tell of it:\n%s", told)
	}
}

// A daemon that hangs in the middle of a renewal is ended by systemd and started
// again: it goes on with the story where it was, and tells nothing twice.
func (b *booted) testWatchdog(t *testing.T) {
	// A grace that the hang lies within.
	b.configure(verifying("nginx", "/etc/renewatch/root.pem", "grace", "5m"))
	writeFile(t, b.path(dropInPath), "[Service]\nWatchdogSec=10\nRestartSec=100ms\n", 0o644)
	b.must("systemctl", "daemon-reload")
	b.must("systemctl", "restart", "renewatch")
	b.want("renewatch", "WatchdogUSec=10s", "NRestarts=0")
	starts := len(only(b.journal(), "agent.started"))
	stops := len(only(b.journal(), "agent.stopped"))

	after := b.renew()
	detected := b.await("renewal.detected", about(after))
	pid := b.show("renewatch", "MainPID")
	b.must("systemctl", "kill", "--signal=STOP", "--kill-whom=main", "renewatch")
	b.must("systemctl", "reload", nginxUnit) // a hook that comes late
	eventually(t, "systemd starting it again", func() error {
		if got := b.show("renewatch", "NRestarts"); got != "1" {
			return fmt.Errorf("NRestarts=%s", got)
		}
		if got := b.show("renewatch", "ActiveState"); got != "active" {
			return errors.New(got)
		}
		return nil
	})
	if b.show("renewatch", "MainPID") == pid {
		t.Error("it is the same process")
	}
	b.must("renewatch", "health")
	b.awaitSyslog("renewatch", "Watchdog timeout")
	b.awaitSyslog("renewatch", "SIGABRT: abort")
	b.awaitSyslog("renewatch", "goroutine ") // where it hung

	verified := b.await("deploy.verified", about(after))
	if verified.Data.RenewalID != detected.Data.RenewalID {
		t.Errorf("the renewal %s goes on as %s", detected.Data.RenewalID, verified.Data.RenewalID)
	}
	events := b.journal()
	wantKinds(t, of(events, detected.Data.RenewalID), "renewal.detected", "deploy.verified")
	if n := len(only(events, "agent.started")); n != starts+1 {
		t.Errorf("agent.started was said %d times, not %d:\n%s", n, starts+1, tell(events))
	}
	if n := len(only(events, "agent.stopped")); n != stops {
		t.Errorf("a daemon that was ended said agent.stopped:\n%s", tell(events))
	}
}

// systemctl stop ends it cleanly, in the time the contract gives.
func (b *booted) testStop(t *testing.T) {
	writeFile(t, b.path(dropInPath), "[Service]\nTimeoutStopSec=10\n", 0o644)
	b.must("systemctl", "daemon-reload")
	b.must("systemctl", "stop", "renewatch")
	b.want("renewatch", "ActiveState=inactive", "Result=success", "ExecMainCode=1", "ExecMainStatus=0")
	b.wantStopped(b.state)
	if res := b.run("renewatch", "health"); res.code != 1 {
		t.Errorf("health of a stopped service: %v", res)
	}
}

// wantStopped holds a state directory against what a clean stop leaves.
func (b *booted) wantStopped(state string) {
	t := b.machine.t
	t.Helper()
	b.state = state
	if _, err := os.Stat(b.runFile()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("run.json after a clean stop: %v", err)
	}
	if events := b.journal(); len(events) == 0 || events[len(events)-1].kind() != "agent.stopped" {
		t.Errorf("the last event is not agent.stopped:\n%s", tell(events))
	}
}

// A bad configuration ends the start with 78, which systemd does not try again.
func (b *booted) testBadConfiguration(t *testing.T) {
	if err := os.Remove(b.path(dropInPath)); err != nil {
		t.Fatal(err)
	}
	b.must("systemctl", "daemon-reload")
	said := len(b.journal())
	replaceFile(t, b.conf, b.config+"surprise: true\n", 0o644)
	if res := b.run("systemctl", "start", "renewatch"); res.code == 0 {
		t.Errorf("a bad configuration was started: %v", res)
	}
	// One that is to be started again would be "activating" by now.
	b.want("renewatch", "ActiveState=failed", "SubState=failed", "Result=exit-code", "ExecMainStatus=78", "NRestarts=0")
	b.awaitSyslog("renewatch", "unknown key surprise")
	if events := b.journal(); len(events) != said {
		t.Errorf("a daemon that did not start has told something:\n%s", tell(events[said:]))
	}
	replaceFile(t, b.conf, b.config, 0o644)
	b.must("systemctl", "reset-failed", "renewatch")
}

// The machine is powered off: that is a clean stop too.
func (b *booted) testPoweroff(t *testing.T) {
	b.must("systemctl", "start", "renewatch")
	b.run("systemctl", "poweroff")
	if code := b.machine.exitCode(t); code != 0 {
		t.Errorf("the machine ended with %d", code)
	}
	b.wantStopped(machineUpper + "/var/lib/renewatch")
}
