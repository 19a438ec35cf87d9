package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/renewatch/renewatch/watch/acmelog"
)

// attempts of one name that the CA refuses, for the clients that do one
// certificate a run; in every one of them a name is refused for good.
var refusals = []struct {
	name, domain string
	want         told
}{
	{"limited", limited, told{outcome: acmelog.Failed, phase: acmelog.PhaseOrder, problem: "rateLimited"}},
	{"paused", paused, told{outcome: acmelog.Failed, phase: acmelog.PhaseOrder, problem: "rateLimited", paused: true}},
	{"busy", busy, told{outcome: acmelog.Failed, phase: acmelog.PhaseOrder, problem: "rateLimited"}},
	{"gateway", gateway, told{outcome: acmelog.Failed, phase: acmelog.PhaseOrder, problem: acmelog.HTTP5xx}},
	{"nonces", nonces, told{outcome: acmelog.Failed, phase: acmelog.PhaseOrder, problem: "badNonce"}},
	{"rejected", rejected, told{outcome: acmelog.Failed, phase: acmelog.PhaseOrder, problem: "rejectedIdentifier"}},
	{"newline", newline, told{outcome: acmelog.Failed, phase: acmelog.PhaseOrder, problem: "rejectedIdentifier", spoofed: true}},
	{"caa", caa, told{outcome: acmelog.Failed, phase: acmelog.PhaseFinalize, problem: "caa"}},
	{"late", late, told{outcome: acmelog.Failed, phase: acmelog.PhaseFinalize, problem: "serverInternal"}},
	{"wrong", wrong, told{outcome: acmelog.Failed, phase: acmelog.PhaseChallenge, problem: "unauthorized"}},
	{"forged", forged, told{outcome: acmelog.Failed, phase: acmelog.PhaseChallenge, problem: "unauthorized"}},
	{"raw", raw, told{outcome: acmelog.Failed, phase: acmelog.PhaseChallenge, problem: "unauthorized", spoofed: true}},
	{"caafirst", caaEarly, told{outcome: acmelog.Failed, phase: acmelog.PhaseChallenge, problem: "caa"}},
	{"refused", refused, told{outcome: acmelog.Failed, phase: acmelog.PhaseChallenge, problem: "connection"}},
	{"gone", gone, told{outcome: acmelog.Failed, phase: acmelog.PhaseChallenge, problem: "dns"}},
	{"nonce", nonce, told{outcome: acmelog.Issued}},
}

const soonEnough = 90 * time.Second

func dehydrated(ctx context.Context, l *lab, bin string) error {
	if err := l.ask(ctx, "sh", "-c", "sed -n 's/^VERSION=//p' "+bin); err != nil {
		return err
	}
	hook, err := l.script("dehydrated-hook", `case "$1" in
deploy_cert) if [ "$2" = two.test ]; then echo cannot reload >&2; exit 3; fi ;;
esac
`)
	if err != nil {
		return err
	}
	config := func(name, ca string) (string, error) {
		err := l.write(name, fmt.Sprintf("CA=%q\nCA_INSECURE=\nBASEDIR=%q\nWELLKNOWN=%q\nHOOK=%q\nCONTACT_EMAIL=admin@lab.test\nCURL_OPTS=\"--cacert %s\"\nIP_VERSION=4\nOCSP_FETCH=no\n",
			ca, l.path("dehydrated"), l.path("webroot", ".well-known", "acme-challenge"), hook, l.path("ca.pem")), 0o644)
		return l.path(name), err
	}
	conf, err := config("dehydrated/config", l.ca.url)
	if err != nil {
		return err
	}
	do := func(name, conf string, want []told, args ...string) error {
		if name != "" && !l.wants(name) {
			if name != "issue" {
				return nil
			}
			name = "" // others need it
		}
		os.Remove(l.path("dehydrated", "lock")) // of a run that was killed
		out, err := l.run(ctx, soonEnough, append([]string{"bash", bin, "-f", conf}, args...)...)
		if err != nil || name == "" {
			return err
		}
		return l.keep(name, out, want)
	}
	if err := do("", conf, nil, "--register", "--accept-terms"); err != nil {
		return err
	}
	const good = "lab.test www.lab.test"
	hooked := told{outcome: acmelog.Issued, phase: acmelog.PhaseHook, names: "two.test", hook: "deploy -1"}
	if err := do("issue", conf, []told{{outcome: acmelog.Issued}}, "-c", "-d", "lab.test", "-d", "www.lab.test"); err != nil {
		return err
	}
	if err := do("skip", conf, []told{{outcome: acmelog.Skipped}}, "-c", "-d", "lab.test", "-d", "www.lab.test"); err != nil {
		return err
	}
	if err := do("forced", conf, []told{{outcome: acmelog.Issued, names: good, forced: true}}, "-c", "-x", "-d", "lab.test", "-d", "www.lab.test"); err != nil {
		return err
	}
	if err := do("hook_failed", conf, []told{hooked}, "-c", "-d", "two.test"); err != nil {
		return err
	}
	for _, r := range refusals {
		want := r.want
		switch {
		case r.domain == nonce && l.version < "0.7.1": // it did not try again
			want = told{outcome: acmelog.Failed, phase: acmelog.PhaseOrder, problem: "badNonce"}
		case r.domain == nonces && l.version >= "0.7.1": // it tries for ever, and is killed
			want = told{outcome: acmelog.Stalled, phase: acmelog.PhaseOrder}
		}
		if err := do(r.name, conf, []told{want}, "-c", "-d", r.domain); err != nil {
			return err
		}
	}
	// Several in one run, from its list: it ends at the first failure unless told
	// to go on.
	list := "lab.test www.lab.test\n" + wrong + "\n" + limited + "\n"
	if err := l.write("dehydrated/domains.txt", list, 0o644); err != nil {
		return err
	}
	wrongly := told{outcome: acmelog.Failed, phase: acmelog.PhaseChallenge, problem: "unauthorized", names: wrong}
	if err := do("list", conf, []told{{outcome: acmelog.Skipped}, wrongly}, "-c"); err != nil {
		return err
	}
	if err := do("list_keep_going", conf, []told{
		{outcome: acmelog.Issued, names: good}, wrongly,
		{outcome: acmelog.Failed, phase: acmelog.PhaseOrder, problem: "rateLimited", names: limited},
	}, "-c", "-x", "--keep-going"); err != nil {
		return err
	}
	if l.wants("locked") {
		if err := l.write("dehydrated/lock", "1\n", 0o644); err != nil {
			return err
		}
		out, err := l.run(ctx, soonEnough, "bash", bin, "-f", conf, "-c", "-d", "lab.test")
		if err == nil {
			err = l.keep("locked", out, nil)
		}
		if err != nil {
			return err
		}
	}
	down, err := config("dehydrated/down", "https://localhost:"+where(l)+"/dir")
	if err != nil {
		return err
	}
	return do("down", down, []told{{outcome: acmelog.Failed, phase: acmelog.PhaseDirectory, problem: acmelog.Network}}, "-c", "-x", "-d", "lab.test")
}

// uacme's libcurl trusts one file and takes no other, so that it is run where the
// laboratory's lies over that.
func uacme(ctx context.Context, l *lab, bin string) error {
	if err := l.ask(ctx, bin, "--version"); err != nil {
		return err
	}
	hook, err := l.script("uacme-hook", `[ "$2" = http-01 ] || exit 1
case "$1" in
begin) printf %s "$5" > `+l.path("webroot", ".well-known", "acme-challenge")+`/"$4" ;;
esac
`)
	if err != nil {
		return err
	}
	conf := l.path("uacme")
	trusting := []string{"unshare", "--mount", "sh", "-c", `mount --bind "$0" /etc/ssl/certs/ca-certificates.crt && exec "$@"`, l.path("ca.pem"), bin, "-c", conf}
	if os.Getuid() != 0 {
		trusting = append([]string{"unshare", "--map-root-user"}, trusting[1:]...)
	}
	with := func(args ...string) []string { return append(slices.Clone(trusting), args...) }
	if out, err := l.run(ctx, soonEnough, with("-a", l.ca.url, "-y", "new", "admin@lab.test")...); err != nil {
		return fmt.Errorf("%w: %.200q", err, out)
	}
	do := func(name, ca string, want []told, args ...string) error {
		if !l.wants(name) {
			if name != "issue" {
				return nil
			}
			name = "" // others need it
		}
		out, err := l.run(ctx, soonEnough, with(append([]string{"-a", ca, "-h", hook}, args...)...)...)
		if err != nil {
			return err
		}
		return l.keep(name, out, want)
	}
	good := []string{"issue", "lab.test", "www.lab.test"}
	saved := told{outcome: acmelog.Issued, phase: acmelog.PhaseSaved}
	if err := do("issue", l.ca.url, []told{saved}, append([]string{"-v"}, good...)...); err != nil {
		return err
	}
	if err := do("skip", l.ca.url, []told{{outcome: acmelog.Skipped}}, append([]string{"-v"}, good...)...); err != nil {
		return err
	}
	forcedly := saved
	forcedly.forced = true
	if err := do("forced", l.ca.url, []told{forcedly}, append([]string{"-v", "-f"}, good...)...); err != nil {
		return err
	}
	for _, r := range refusals {
		want := r.want
		if r.domain == gateway { // it does not say what the CA answered
			want.problem = ""
		}
		if err := do(r.name+"_verbose", l.ca.url, []told{want}, "-v", "issue", r.domain); err != nil {
			return err
		}
		if r.want.outcome == acmelog.Failed {
			want.phase = ""
			if err := do(r.name, l.ca.url, []told{want}, "issue", r.domain); err != nil {
				return err
			}
		}
	}
	nobody := "https://localhost:" + where(l) + "/dir"
	return do("down", nobody, []told{{outcome: acmelog.Failed, phase: acmelog.PhaseDirectory, problem: acmelog.Network}}, "-f", "issue", "lab.test")
}

func acmeTiny(ctx context.Context, l *lab, bin string) error {
	// It does not tell its version; dpkg may know it.
	if err := l.ask(ctx, "dpkg-query", "-W", "-f", "${Version}", "acme-tiny"); err != nil {
		return fmt.Errorf("%w (say acme-tiny@VERSION)", err)
	}
	for _, argv := range [][]string{
		{"openssl", "genrsa", "-out", l.path("account.key"), "2048"},
		{"openssl", "genrsa", "-out", l.path("lab.key"), "2048"},
	} {
		if out, err := l.run(ctx, time.Minute, argv...); err != nil {
			return fmt.Errorf("%w: %.200q", err, out)
		}
	}
	do := func(name, ca string, want []told, domains string) error {
		if !l.wants(name) {
			return nil
		}
		names := strings.Fields(domains)
		if out, err := l.run(ctx, time.Minute, "openssl", "req", "-new", "-key", l.path("lab.key"), "-subj", "/", "-addext", "subjectAltName=DNS:"+strings.Join(names, ",DNS:"), "-out", l.path("lab.csr")); err != nil {
			return fmt.Errorf("%w: %.200q", err, out)
		}
		file, err := os.Create(l.path("lab.crt"))
		if err != nil {
			return err
		}
		defer file.Close()
		out, err := l.runWith(ctx, soonEnough, nil, file, bin, "--account-key", l.path("account.key"), "--csr", l.path("lab.csr"),
			"--acme-dir", l.path("webroot", ".well-known", "acme-challenge"), "--directory-url", ca, "--disable-check")
		if err != nil {
			return err
		}
		return l.keep(name, out, want)
	}
	if err := do("issue", l.ca.url, []told{{outcome: acmelog.Issued, phase: acmelog.PhaseIssued}}, "lab.test www.lab.test"); err != nil {
		return err
	}
	for _, r := range refusals {
		if err := do(r.name, l.ca.url, []told{r.want}, r.domain); err != nil {
			return err
		}
	}
	return do("down", "https://localhost:"+where(l)+"/dir", []told{{outcome: acmelog.Failed, phase: acmelog.PhaseDirectory, problem: acmelog.Network}}, "lab.test")
}

// getssl reads a configuration a certificate.
func getssl(ctx context.Context, l *lab, bin string) error {
	if err := l.ask(ctx, "sh", "-c", "sed -n 's/^VERSION=//p' "+bin); err != nil {
		return err
	}
	base := "home/.getssl/"
	// It asks a program for DNS whether names exist.
	if _, err := l.script("bin/nslookup", "echo Name: here\n"); err != nil {
		return err
	}
	env := []string{"PATH=" + os.Getenv("PATH") + ":" + l.path("bin")}
	if err := l.write(base+"getssl.cfg", fmt.Sprintf("CA=%q\nACCOUNT_EMAIL=admin@lab.test\nACCOUNT_KEY_LENGTH=2048\nACCOUNT_KEY=%q\nPRIVATE_KEY_ALG=rsa\nRELOAD_CMD=\nCHECK_REMOTE=false\nSKIP_HTTP_TOKEN_CHECK=true\nCURL_USERAGENT=x\n",
		l.ca.url, l.path(base, "account.key")), 0o644); err != nil {
		return err
	}
	do := func(name, domain, sans string, want []told, more string, args ...string) error {
		if !l.wants(name) {
			if name != "issue" {
				return nil
			}
			name = "" // others need it
		}
		if err := l.write(base+domain+"/getssl.cfg", fmt.Sprintf("SANS=%q\nACL=('%s')\nUSE_SINGLE_ACL=true\nDOMAIN_CERT_LOCATION=%q\n%s\n",
			sans, l.path("webroot", ".well-known", "acme-challenge"), l.path("ssl", domain+".crt"), more), 0o644); err != nil {
			return err
		}
		if err := os.MkdirAll(l.path("ssl"), 0o755); err != nil {
			return err
		}
		out, err := l.runWith(ctx, 5*time.Minute, env, nil, append([]string{"bash", bin, "-U"}, append(args, domain)...)...)
		if err != nil {
			return err
		}
		return l.keep(name, out, want)
	}
	issued := told{outcome: acmelog.Issued}
	if err := do("issue", "lab.test", "www.lab.test", []told{issued}, ""); err != nil {
		return err
	}
	if err := do("skip", "lab.test", "www.lab.test", []told{{outcome: acmelog.Skipped}}, ""); err != nil {
		return err
	}
	if err := do("forced", "lab.test", "www.lab.test", []told{issued}, "RELOAD_CMD=true", "-f"); err != nil {
		return err
	}
	if err := do("hook_failed", "two.test", "", []told{{outcome: acmelog.Issued, hook: "reload -1"}}, "RELOAD_CMD=false"); err != nil {
		return err
	}
	for _, r := range refusals {
		want := r.want
		if want.problem != "rateLimited" && want.problem != acmelog.HTTP5xx && want.problem != "" {
			want.problem = unsaid
		}
		if err := do(r.name, r.domain, "", []told{want}, ""); err != nil {
			return err
		}
	}
	return do("down", "lab.test", "", []told{{outcome: acmelog.Failed, phase: acmelog.PhaseDirectory, problem: acmelog.Network}}, "CA=https://localhost:"+where(l), "-f")
}

// acmeSh keeps a file of its own only when it is told to.
func acmeSh(ctx context.Context, l *lab, bin string) error {
	if err := l.ask(ctx, bin, "--version"); err != nil {
		return err
	}
	home := l.path("acme.sh")
	if err := os.MkdirAll(home, 0o755); err != nil {
		return err
	}
	file := l.path("acme.sh.log")
	do := func(name string, want []told, args ...string) error {
		if name != "" && !l.wants(name) {
			if name != "issue" {
				return nil
			}
			name = "" // others need it
		}
		os.Remove(file)
		argv := append([]string{bin, "--home", home, "--ca-bundle", l.path("ca.pem"), "--log", file, "--log-level", "1"}, args...)
		out, err := l.run(ctx, soonEnough, argv...)
		if err != nil || name == "" {
			return err
		}
		text, err := l.read(file)
		if err == nil {
			err = l.keep(name, text, want)
		}
		if err != nil {
			return err
		}
		return l.keep(name+"_out", out, plain(want))
	}
	issue := func(domains ...string) []string {
		argv := []string{"--issue", "--server", l.ca.url, "-w", l.path("webroot")}
		for _, d := range domains {
			argv = append(argv, "-d", d)
		}
		return argv
	}
	issued := told{outcome: acmelog.Issued, names: "lab.test www.lab.test"}
	if err := do("issue", []told{issued}, issue("lab.test", "www.lab.test")...); err != nil {
		return err
	}
	if err := do("skip", []told{{outcome: acmelog.Skipped}}, issue("lab.test", "www.lab.test")...); err != nil {
		return err
	}
	bad, err := l.script("hook-bad", "echo cannot reload >&2; exit 3\n")
	if err != nil {
		return err
	}
	if err := do("hook_failed", []told{{outcome: acmelog.Issued, phase: acmelog.PhaseHook, hook: "reload -1"}}, append(issue("two.test"), "--reloadcmd", bad)...); err != nil {
		return err
	}
	for _, r := range refusals {
		want := r.want
		if want.phase == acmelog.PhaseChallenge {
			want.problem = "" // it prints the detail alone
		}
		if r.domain == busy { // it drops the body
			want.problem = acmelog.HTTP5xx
		}
		if err := do(r.name, []told{want}, issue(r.domain)...); err != nil {
			return err
		}
	}
	// What never was issued counts as one to skip.
	var skips []told
	for range 3 + len(refusals) - 1 { // three were issued, one of them of refusals
		skips = append(skips, told{outcome: acmelog.Skipped})
	}
	if err := do("cron_skip", skips, "--cron"); err != nil {
		return err
	}
	l.ca.calm.Store(true)
	err = do("", nil, issue(limited)...)
	l.ca.calm.Store(false)
	if err != nil {
		return err
	}
	return do("cron_forced", nil, "--cron", "--force")
}
