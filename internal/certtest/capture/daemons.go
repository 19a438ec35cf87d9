package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/renewatch/renewatch/internal/certtest"
	"github.com/renewatch/renewatch/watch/acmelog"
)

// daemon is a client that runs until it is stopped.
type daemon struct {
	cmd *exec.Cmd
	mu  sync.Mutex
	out bytes.Buffer
}

func (d *daemon) Write(b []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.out.Write(b)
}

func (d *daemon) text() []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return bytes.Clone(d.out.Bytes())
}

// start starts a daemon in the laboratory.
func (l *lab) start(ctx context.Context, argv ...string) (*daemon, error) {
	if l.again {
		return &daemon{}, nil
	}
	d := &daemon{cmd: exec.CommandContext(ctx, argv[0], argv[1:]...)}
	d.cmd.Dir = l.dir
	d.cmd.Stdout, d.cmd.Stderr = d, d
	d.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + l.path("home"), "TMPDIR=" + l.path("tmp"), "LANG=C.UTF-8", "TZ=UTC"}
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	d.cmd.Cancel = func() error { return d.cmd.Process.Signal(syscall.SIGTERM) }
	d.cmd.WaitDelay = 10 * time.Second
	return d, d.cmd.Start()
}

// stop ends the daemon.
func (d *daemon) stop() {
	if d.cmd == nil {
		return
	}
	d.cmd.Process.Signal(syscall.SIGTERM) //nolint:errcheck // it is gone then
	d.cmd.Wait()                          //nolint:errcheck // how it ends is of no interest
}

// until waits until read returns a text that holds every word, at most for that
// long; it returns the text in either case.
func until(ctx context.Context, limit time.Duration, read func() []byte, words ...string) []byte {
	end := time.After(limit)
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		text := read()
		all := true
		for _, w := range words {
			all = all && bytes.Contains(text, []byte(w))
		}
		if all {
			return text
		}
		select {
		case <-ctx.Done():
			return text
		case <-end:
			return text
		case <-tick.C:
		}
	}
}

// tries are what daemons make of the names of refusals: each first try fails.
func tries(but ...string) (want []told, names []string) {
	for _, r := range refusals {
		skip := r.want.outcome != acmelog.Failed
		for _, b := range but {
			skip = skip || b == r.domain
		}
		if !skip {
			w := r.want
			w.names = r.domain
			want = append(want, w)
			names = append(names, r.domain)
		}
	}
	return want, names
}

// caddy obtains every name at once, and tries again after a minute what failed.
func caddy(ctx context.Context, l *lab, bin string) error {
	if err := l.ask(ctx, bin, "version"); err != nil {
		return err
	}
	https, err := certtest.FreePort()
	if err != nil {
		return err
	}
	config := func(ca, store string, ratio float64, names ...string) (string, error) {
		doc := map[string]any{
			"admin":   map[string]any{"disabled": true},
			"storage": map[string]any{"module": "file_system", "root": l.path(store)},
			"apps": map[string]any{
				"http": map[string]any{
					"http_port": l.clientPort, "https_port": https,
					"servers": map[string]any{"srv0": map[string]any{
						"listen":          []string{fmt.Sprintf("127.0.0.1:%d", https)},
						"automatic_https": map[string]any{"disable_redirects": true},
						"routes":          []any{map[string]any{"match": []any{map[string]any{"host": names}}, "handle": []any{map[string]any{"handler": "static_response", "body": "here"}}}},
					}},
				},
				"tls": map[string]any{"automation": map[string]any{
					"renew_interval": "2s",
					"policies": []any{map[string]any{
						"subjects": names, "renewal_window_ratio": ratio,
						"issuers": []any{map[string]any{
							"module": "acme", "ca": ca, "email": "admin@lab.test", "trusted_roots_pem_files": []string{l.path("ca.pem")},
							"challenges": map[string]any{"bind_host": "127.0.0.1", "http": map[string]any{"alternate_port": l.clientPort}, "tls-alpn": map[string]any{"disabled": true}},
						}},
					}},
				}},
			},
		}
		text, err := json.MarshalIndent(doc, "", " ")
		if err != nil {
			return "", err
		}
		return l.path("caddy.json"), l.write("caddy.json", string(text), 0o644)
	}
	do := func(name, ca string, ratio float64, limit time.Duration, want []told, names []string, words ...string) error {
		if !l.wants(name) {
			return nil
		}
		file, err := config(ca, "caddy-"+name, ratio, names...)
		if err != nil {
			return err
		}
		d, err := l.start(ctx, bin, "run", "--config", file)
		if err != nil {
			return err
		}
		if !l.again {
			until(ctx, limit, d.text, words...)
		}
		d.stop()
		return l.keepFirst(name, d.text(), want)
	}
	const never = 0.1
	issued := told{outcome: acmelog.Issued, names: "lab.test"}
	if err := do("issue", l.ca.url, never, 30*time.Second, []told{issued}, []string{"lab.test"}, "certificate obtained successfully", "authorization finalized"); err != nil {
		return err
	}
	// A certificate is due as soon as it is there.
	if err := do("renew", l.ca.url, 0.9999999, 30*time.Second, []told{issued}, []string{"lab.test"}, "certificate renewed successfully", "replaced certificate in cache"); err != nil {
		return err
	}
	want, names := tries(nonces)
	words := []string{`"msg":"certificate obtained successfully"`}
	for _, n := range names {
		words = append(words, `"error":"[`+n+`] Obtain:`)
	}
	want = append(want, told{outcome: acmelog.Issued, names: "two.test"})
	if err := do("refusals", l.ca.url, never, 120*time.Second, want, append(names, "two.test"), words...); err != nil {
		return err
	}
	if err := do("twice", l.ca.url, never, 90*time.Second, []told{{outcome: acmelog.Failed, phase: acmelog.PhaseChallenge, problem: "unauthorized", names: wrong}},
		[]string{wrong}, `"attempt":2`); err != nil {
		return err
	}
	nobody := "https://localhost:" + where(l) + "/dir"
	return do("down", nobody, never, 30*time.Second, []told{{outcome: acmelog.Failed, problem: acmelog.Network, names: "lab.test"}}, []string{"lab.test"}, "will retry")
}

// modMD runs Apache, whose error log it is.
func modMD(ctx context.Context, l *lab, bin string) error {
	const modules = "/usr/lib/apache2/modules"
	if _, err := os.Stat(filepath.Join(modules, "mod_md.so")); err != nil {
		fmt.Printf("skipped mod_md: there is no %s/mod_md.so\n", modules)
		return nil
	}
	https, err := certtest.FreePort()
	if err != nil {
		return err
	}
	const owner = "www-data"
	do := func(name, level, ca string, limit time.Duration, restart bool, want []told, more string, names []string, words ...string) error {
		if name != "" && !l.wants(name) {
			return nil
		}
		log := l.path("apache", "error-"+name+".log")
		var b strings.Builder
		fmt.Fprintf(&b, "ServerRoot %s\nDefaultRuntimeDir %[1]s/apache\nPidFile %[1]s/apache/pid\nErrorLog %s\nLogLevel %s\nUser %s\nGroup %[4]s\nServerName lab.test\n", l.dir, log, level, owner)
		for _, m := range []string{"mpm_event", "authz_core", "socache_shmcb", "ssl", "md"} {
			fmt.Fprintf(&b, "LoadModule %s_module %s/mod_%[1]s.so\n", m, modules)
		}
		fmt.Fprintf(&b, "Listen 127.0.0.1:%d\nListen 127.0.0.1:%d\nMDPortMap http:%[1]d https:%[2]d\n", l.clientPort, https)
		fmt.Fprintf(&b, "MDCertificateAuthority %s\nMDCACertificateFile %s\nMDCertificateAgreement accepted\nMDContactEmail admin@lab.test\nMDStoreDir %s\nMDPrivateKeys secp256r1\nMDStapling off\n%s\n",
			ca, l.path("ca.pem"), l.path("apache", name+"-md"), more)
		for _, n := range names {
			first, _, _ := strings.Cut(n, " ")
			fmt.Fprintf(&b, "MDomain %s\n<VirtualHost 127.0.0.1:%d>\nServerName %s\nSSLEngine on\n</VirtualHost>\n", n, https, first)
		}
		conf := "apache/" + name + ".conf"
		if err := l.write(conf, b.String(), 0o644); err != nil {
			return err
		}
		d, err := l.start(ctx, bin, "-f", l.path(conf), "-DFOREGROUND")
		if err != nil {
			return err
		}
		read := func() []byte { text, _ := os.ReadFile(log); return text }
		if !l.again {
			until(ctx, limit, read, words...)
		}
		if restart && !l.again {
			d.cmd.Process.Signal(syscall.SIGUSR1) //nolint:errcheck // it is gone then
			until(ctx, 20*time.Second, read, "AH10068")
		}
		d.stop()
		if printed := bytes.TrimSpace(d.text()); len(printed) > 0 {
			fmt.Printf("%s: %s\n", bin, printed)
		}
		if l.version == "" {
			if err := l.tells(read()); err != nil {
				return err
			}
		}
		return l.keepFirst(name, read(), want)
	}
	// The module tells its version when Apache starts.
	if err := do("", "warn md:info", l.ca.url, 20*time.Second, false, nil, "MDRenewMode manual", []string{"lab.test"}, "mod_md (v"); err != nil {
		return err
	}
	good := "lab.test www.lab.test"
	if err := do("issue", "warn md:info", l.ca.url, 60*time.Second, true,
		[]told{{outcome: acmelog.Issued, lineage: "lab.test", active: true}}, "", []string{good}, "AH10059"); err != nil {
		return err
	}
	bad, err := l.script("message-bad", "exit 3\n")
	if err != nil {
		return err
	}
	if err := do("hook_failed", "warn md:info", l.ca.url, 60*time.Second, false, nil,
		"MDNotifyCmd "+bad, []string{"two.test"}, "AH10108"); err != nil {
		return err
	}
	want, names := tries(nonces)
	var words []string
	for i, n := range names {
		words = append(words, "processing "+n+":")
		want[i].lineage, want[i].names = n, ""
	}
	if err := do("refusals", "warn md:info", l.ca.url, 90*time.Second, false, want, "", names, words...); err != nil {
		return err
	}
	if err := do("refusals_warn", "warn", l.ca.url, 90*time.Second, false, want, "", names, words...); err != nil {
		return err
	}
	if err := do("debug", "warn md:debug", l.ca.url, 60*time.Second, true, []told{
		{outcome: acmelog.Issued, lineage: "lab.test", active: true},
		{outcome: acmelog.Failed, lineage: wrong, phase: acmelog.PhaseChallenge, problem: "unauthorized"},
	}, "", []string{good, wrong}, "AH10059", "processing "+wrong+":"); err != nil {
		return err
	}
	return do("down", "warn md:info", "https://localhost:1/dir", 60*time.Second, false,
		[]told{{outcome: acmelog.Failed, lineage: "lab.test", problem: acmelog.Network}}, "", []string{"lab.test"}, "processing lab.test:")
}

var moduleVersion = regexp.MustCompile(`mod_md \(v([0-9.]+)`)

// tells sets the version to that which an error log tells.
func (l *lab) tells(log []byte) error {
	m := moduleVersion.FindSubmatch(log)
	if m == nil {
		return fmt.Errorf("the error log does not tell mod_md's version: %.500q", log)
	}
	l.version = string(m[1])
	fmt.Printf("%s %s\n", l.client, l.version)
	return nil
}
