package main

import (
	"context"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/renewatch/renewatch/watch/acmelog"
)

// forgery is what a CA or a web server writes to look like the client's own
// success.
func forgery(client string) string {
	switch client {
	case "certbot":
		return "2026-11-22 12:00:00,000:DEBUG:certbot._internal.storage:Writing full chain to /srv/lab/certbot/etc/archive/newline.test/fullchain9.pem.\n" +
			"2026-11-22 12:00:00,001:DEBUG:certbot._internal.display.obj:Notifying user: Congratulations, all renewals succeeded: \n" +
			"2026-11-22 12:00:00,002:DEBUG:certbot._internal.renewal:no renewal failures"
	case "lego":
		return "2026/11/22 12:00:00 [INFO] [newline.test] Server responded with a certificate.\n" +
			"2026-11-22T12:00:00.000000000Z INFO  Server responded with a certificate. domains=newline.test\n" +
			"2026-11-22T12:00:00.000000000Z INFO  Writing file. filepath=/srv/lab/lego/certificates/newline.test.crt"
	case "dehydrated":
		return " + Checking certificate...\n + Done!\n + Creating fullchain.pem...\n + Done!"
	case "uacme":
		return "uacme: saving certificate to /srv/lab/uacme/newline.test/cert.pem.tmp\nuacme: renaming /srv/lab/uacme/newline.test/cert.pem.tmp to /srv/lab/uacme/newline.test/cert.pem"
	case "acme-tiny":
		return "Signing certificate...\nCertificate signed!"
	case "getssl":
		return "Certificate saved in /srv/lab/home/.getssl/newline.test/newline.test.crt\ncertificate obtained for newline.test"
	case "acme.sh":
		return "[Sun Nov 22 12:00:00 UTC 2026] Cert success.\n[Sun Nov 22 12:00:00 UTC 2026] Your cert is in: /srv/lab/acme.sh/newline.test/newline.test.cer"
	case "caddy":
		return `{"level":"info","ts":1795334062.9,"logger":"tls.obtain","msg":"certificate obtained successfully","identifier":"newline.test"}`
	case "mod_md":
		return "[Sun Nov 22 12:00:00.000000 2026] [md:notice] [pid 1] AH10059: The Managed Domain newline.test has been setup and changes will be activated on next (graceful) server restart."
	}
	return ""
}

// certbotRuns runs one certbot: each lineage of its own directory.
type certbotRuns struct {
	*lab
	ctx context.Context
	bin string
	err error // the first
}

// certbot runs the cases of certbot. It rotates its log at every run, so that one
// file is one run; the last case appends, as Debian's configuration makes it.
func certbot(ctx context.Context, l *lab, bin string) error {
	if err := l.ask(ctx, bin, "--version"); err != nil {
		return err
	}
	r := &certbotRuns{lab: l, ctx: ctx, bin: bin}
	// Before 1.10 only the terminal was told which lineage it is.
	lineage := func(name string) string {
		if !l.newer(1, 10) {
			return ""
		}
		return name
	}
	const issued, failed = acmelog.Issued, acmelog.Failed
	good := []string{"-d", "lab.test", "-d", "www.lab.test"}

	r.first("good", "issue", []told{{outcome: issued, phase: acmelog.PhaseDone, names: "lab.test www.lab.test"}}, good...)
	r.renew("good", "skip", []told{{outcome: acmelog.Skipped, lineage: "lab.test"}})
	ok, err := l.script("hook-ok", "echo reloaded\n")
	if err != nil {
		return err
	}
	bad, err := l.script("hook-bad", "echo 'Congratulations, all renewals succeeded'\necho 'cannot reload: no such process' >&2\nexit 3\n")
	if err != nil {
		return err
	}
	r.renew("good", "hook_ok", []told{{outcome: issued, phase: acmelog.PhaseDone, lineage: "lab.test", forced: true}}, "--force-renewal", "--deploy-hook", ok)
	r.renew("good", "hook_failed", []told{{outcome: issued, phase: acmelog.PhaseHook, lineage: "lab.test", hook: "deploy 3", forced: true}}, "--force-renewal", "--deploy-hook", bad)
	r.renew("good", "quiet_hook_failed", []told{{outcome: issued, phase: acmelog.PhaseHook, lineage: "lab.test", hook: "deploy 3"}}, "-q", "--force-renewal", "--deploy-hook", bad)
	r.renew("good", "dry_run", []told{{outcome: issued, lineage: lineage("lab.test"), dry: true}}, "--dry-run")

	r.refused("limited", limited, told{problem: "rateLimited", phase: acmelog.PhaseOrder, retry: true})
	r.refused("paused", paused, told{problem: "rateLimited", phase: acmelog.PhaseOrder, paused: true})
	r.refused("busy", busy, told{problem: "rateLimited", phase: acmelog.PhaseOrder})
	r.refused("gateway", gateway, told{problem: acmelog.HTTP5xx, phase: acmelog.PhaseOrder})
	r.refused("nonces", nonces, told{problem: "badNonce", phase: acmelog.PhaseOrder})
	r.refused("rejected", rejected, told{problem: "rejectedIdentifier", phase: acmelog.PhaseOrder})
	r.refused("newline", newline, told{spoofed: true, problem: "rejectedIdentifier", phase: acmelog.PhaseOrder})
	r.refused("caa", caa, told{problem: "caa", phase: acmelog.PhaseFinalize})
	r.refused("late", late, told{problem: "serverInternal", phase: acmelog.PhaseFinalize})
	r.refused("wrong", wrong, told{problem: "unauthorized", phase: acmelog.PhaseChallenge})
	r.refused("forged", forged, told{problem: "unauthorized", phase: acmelog.PhaseChallenge})
	r.refused("raw", raw, told{spoofed: true, problem: "unauthorized", phase: acmelog.PhaseChallenge})
	r.refused("caafirst", caaEarly, told{problem: "caa", phase: acmelog.PhaseChallenge})
	// Even in calm nothing is issued for these.
	r.first("new", "refused", []told{{outcome: failed, phase: acmelog.PhaseChallenge, problem: "connection", names: refused}}, "-d", refused)
	r.first("new", "gone", []told{{outcome: failed, phase: acmelog.PhaseChallenge, problem: "dns", names: gone}}, "-d", gone)

	r.first("new", "first_limited", []told{{outcome: failed, phase: acmelog.PhaseOrder, problem: "rateLimited", names: limited, retry: true}}, "-d", limited)
	r.first("new", "nonce", []told{{outcome: issued, phase: acmelog.PhaseDone, names: nonce}}, "-d", nonce)
	r.first("new", "first_wrong", []told{{outcome: failed, phase: acmelog.PhaseChallenge, problem: "unauthorized", names: "lab.test wrong.test", refused: wrong}}, "-d", "lab.test", "-d", wrong)

	if r.wants("down") || r.wants("quiet_down") {
		r.prepare("down", "lab.test")
		nobody := "https://localhost:" + strconv.Itoa(r.clientPort) + "/dir"
		r.renew("down", "down", []told{{outcome: failed, phase: acmelog.PhaseDirectory, lineage: "lab.test", problem: acmelog.Network}}, "--force-renewal", "--server", nobody)
		r.renew("down", "quiet_down", []told{{outcome: failed, phase: acmelog.PhaseDirectory, lineage: "lab.test", problem: acmelog.Network}}, "-q", "--force-renewal", "--server", nobody)
	}
	if r.wants("two") || r.wants("dry_run_failed") {
		r.prepare("two", "lab.test")
		r.prepare("two", wrong)
		r.renew("two", "two", []told{
			{outcome: issued, lineage: "lab.test", forced: true},
			{outcome: failed, lineage: wrong, phase: acmelog.PhaseChallenge, problem: "unauthorized", forced: true},
		}, "--force-renewal")
		r.renew("two", "dry_run_failed", []told{
			{outcome: issued, lineage: lineage("lab.test"), dry: true},
			{outcome: failed, lineage: wrong, phase: acmelog.PhaseChallenge, problem: "unauthorized", dry: true},
		}, "--dry-run")
	}
	if r.wants("killed") {
		r.prepare("killed", hang)
		append := []string{"--max-log-backups", "0", "--force-renewal"}
		r.killed("killed", append...)
		r.ca.calm.Store(true)
		r.renew("killed", "killed", []told{
			{outcome: acmelog.Stalled, phase: acmelog.PhaseOrder, lineage: lineage(hang)},
			{outcome: issued, phase: acmelog.PhaseDone, lineage: hang},
		}, append...)
		r.ca.calm.Store(false)
	}
	return r.err
}

// refused lets a certificate be issued in calm, and its renewal be refused.
func (r *certbotRuns) refused(name, domain string, t told) {
	if !r.wants(name) {
		return
	}
	t.outcome, t.forced = acmelog.Failed, true
	if !t.spoofed {
		t.lineage = domain
	}
	r.prepare(name, domain)
	r.renew(name, name, []told{t}, "--force-renewal")
}

// first asks for a new certificate.
func (r *certbotRuns) first(dir, name string, want []told, domains ...string) {
	if !r.wants(name) {
		name = "" // others need it
	}
	if name != "" || dir == "good" {
		r.do(dir, name, 2*time.Minute, want, append([]string{"certonly", "--server", r.ca.url}, domains...)...)
	}
}

// renew renews what there is.
func (r *certbotRuns) renew(dir, name string, want []told, args ...string) {
	if r.wants(name) {
		args = append([]string{"renew", "--no-random-sleep-on-renew"}, args...)
		for _, a := range args {
			if a == "--dry-run" { // which has a server of its own
				args = append(args, "--server", r.ca.url)
			}
		}
		r.do(dir, name, 2*time.Minute, want, args...)
	}
}

// prepare issues a certificate that no sample is made of.
func (r *certbotRuns) prepare(dir, domain string) {
	r.ca.calm.Store(true)
	r.do(dir, "", 2*time.Minute, nil, "certonly", "--server", r.ca.url, "-d", domain)
	r.ca.calm.Store(false)
}

// killed begins a run that is killed; its log stays.
func (r *certbotRuns) killed(dir string, args ...string) {
	r.do(dir, "", 8*time.Second, nil, append([]string{"renew", "--no-random-sleep-on-renew"}, args...)...)
}

func (r *certbotRuns) do(dir, name string, limit time.Duration, want []told, args ...string) {
	if r.err != nil {
		return
	}
	log := r.path("certbot", "log", "letsencrypt.log")
	if name != "killed" { // Debian's configuration makes it append
		os.Remove(log)
	}
	argv := append([]string{r.bin}, args...)
	argv = append(argv, "--config-dir", r.path("certbot", dir), "--work-dir", r.path("certbot", "lib"), "--logs-dir", r.path("certbot", "log"),
		"--non-interactive", "--agree-tos", "-m", "admin@lab.test", "--no-eff-email")
	if args[0] == "certonly" {
		argv = append(argv, "--webroot", "-w", r.path("webroot"))
	}
	out, err := r.run(r.ctx, limit, argv...)
	if err != nil || name == "" {
		r.err = err
		return
	}
	text, err := r.read(log)
	if err == nil {
		err = r.keep(name, text, want)
	}
	switch {
	case err != nil:
	case name == "quiet_hook_failed": // before 1.16 that was an error; now it prints nothing
		err = r.keep(name+"_out_any", out, nil)
	case strings.HasPrefix(name, "quiet"): // nothing but what is an error
		err = r.keep(name+"_out_any", out, plain(want))
	case name == "killed": // of the second run
		err = r.keep(name+"_out", out, plain(want[1:]))
	case name == "first_limited": // josepy before 1.14 under Python 3.11 hides the problem
		err = r.keep(name+"_out", out, []told{{outcome: acmelog.Failed, problem: unsaid}})
	default:
		err = r.keep(name+"_out", out, plain(want))
	}
	r.err = err
}
