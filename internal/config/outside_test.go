package config

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/renewatch/renewatch/watch"
)

func TestPrecedence(t *testing.T) {
	const inFile = "state_dir: /file\nlog: {level: debug, format: console}\n"
	all := []string{"RENEWATCH_STATE_DIR", "/env", "RENEWATCH_LOG_LEVEL", "trace", "RENEWATCH_LOG_FORMAT", "json",
		"STATE_DIRECTORY", "/systemd:/other", "XDG_STATE_HOME", "/xdg", "HOME", "/home/x"}
	flags := LoadOptions{StateDir: "/flag", LogLevel: "error", LogFormat: "journal"}
	for _, c := range []struct {
		name, file string
		opts       LoadOptions
		env        []string
		want       string // state_dir, its origin, level, format
	}{
		{"a flag wins over all", inFile, flags, all, "/flag flag --state-dir error journal"},
		{"the file wins over the environment", inFile, LoadOptions{}, all, "/file FILE:1:12 debug console"},
		{"RENEWATCH_* wins over systemd", "", LoadOptions{}, all, "/env env RENEWATCH_STATE_DIR trace json"},
		{"systemd's directory, the first of them", "", LoadOptions{UID: 5}, all[6:], "/systemd env STATE_DIRECTORY info auto"},
		{"root", "", LoadOptions{}, all[8:], "/var/lib/renewatch default info auto"},
		{"a user with XDG_STATE_HOME", "", LoadOptions{UID: 5}, all[8:], "/xdg/renewatch default info auto"},
		{"a user with a relative XDG_STATE_HOME", "", LoadOptions{UID: 5}, []string{"XDG_STATE_HOME", "x", "HOME", "/home/x"}, "/home/x/.local/state/renewatch default info auto"},
		{"a user", "", LoadOptions{UID: 5}, all[10:], "/home/x/.local/state/renewatch default info auto"},
		{"null is absent", "state_dir: null\nlog: {level: ~}\n", LoadOptions{}, all, "/env env RENEWATCH_STATE_DIR trace json"},
	} {
		path := write(t, c.file)
		c.opts.Getenv = env(c.env...)
		cfg, err := Load(path, c.opts)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		from := Origin{Kind: FromDefault}
		if o, ok := cfg.Origins["state_dir"]; ok {
			from = o
		}
		got := fmt.Sprint(cfg.StateDir, " ", strings.ReplaceAll(from.String(), path, "FILE"), " ", cfg.Log.Level, " ", cfg.Log.Format)
		if got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
	}
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := Load(write(t, ""), LoadOptions{Getenv: env(), StateDir: "state"})
	if err != nil || cfg.StateDir != filepath.Join(wd, "state") {
		t.Errorf("a relative flag: %v, %v", cfg, err)
	}
	for want, opts := range map[string]LoadOptions{
		`--log-level: log.level "x" is not one of trace, debug, info, warn, error`:        {Getenv: env(), LogLevel: "x"},
		`STATE_DIRECTORY: state_dir "x" must be an absolute path`:                         {Getenv: env("STATE_DIRECTORY", "x"), UID: 5},
		`FILE: state_dir is missing, and this user has no home directory to put it`:       {Getenv: env(), UID: 5},
		`RENEWATCH_LOG_FORMAT: log.format "x" is not one of auto, console, json, journal`: {Getenv: env("RENEWATCH_LOG_FORMAT", "x")},
	} {
		path := write(t, "")
		_, err := Load(path, opts)
		if err == nil || strings.ReplaceAll(err.Error(), path, "FILE") != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestNATSVariables(t *testing.T) {
	server := []string{"NATS_URL", "nats.example.org:4222, tls://b"}
	cfg := load(t, "", append(server, "NATS_USER", "bob", "NATS_PASSWORD", "hunter2", "NATS_CA", "/ca", "NATS_CERT", "/c", "NATS_KEY", "/k")...)
	n := cfg.NATS
	if !slices.Equal(n.URLs, []string{"nats://nats.example.org:4222", "tls://b"}) || n.User != "bob" || n.Password != "hunter2" || n.TLS != (TLS{CA: "/ca", Cert: "/c", Key: "/k"}) {
		t.Errorf("%+v", n)
	}
	if o := cfg.Origins["nats.url"].String(); o != "env NATS_URL" {
		t.Errorf("the URL is from %s", o)
	}
	if n := load(t, "", append(server, "NATS_TOKEN", "t")...).NATS; n.Token != "t" {
		t.Errorf("%+v", n)
	}
	if n := load(t, "", append(server, "NATS_CREDS", "/x.creds")...).NATS; n.Creds != "/x.creds" {
		t.Errorf("%+v", n)
	}
	if n := load(t, "", append(server, "NATS_NKEY", "/x.nk")...).NATS; n.NKey != "/x.nk" {
		t.Errorf("%+v", n)
	}
	// A URL or a credential in the file switches all of them off, also unsound ones.
	bad := []string{"NATS_URL", "http://x", "NATS_CREDS", "/a", "NATS_NKEY", "/b"}
	for _, file := range []string{"nats: {url: 'nats://f'}\n", "nats: {url: 'nats://f', token_file: /t}\n", "nats: {enabled: false}\n"} {
		n := load(t, file, bad...).NATS
		if n.Creds != "" || n.NKey != "" || len(n.URLs) > 0 && n.URLs[0] != "nats://f" {
			t.Errorf("%s: %+v", file, n)
		}
	}
	// A trusted CA is no credential, and the file's wins.
	if n := load(t, "nats: {tls: {ca: /f}}\n", append(server, "NATS_CA", "/e")...).NATS; len(n.URLs) != 2 || n.TLS.CA != "/f" {
		t.Errorf("%+v", n)
	}
	// Credentials alone do not switch the embedded server off.
	cfg = load(t, "", "NATS_CREDS", "/x.creds")
	if !cfg.NATS.UsesEmbedded() || cfg.NATS.Creds != "" || !warned(cfg, "NATS_CREDS is ignored") {
		t.Errorf("%+v, %v", cfg.NATS, Warnings(cfg))
	}
	for want, pairs := range map[string][]string{
		"NATS_NKEY: NATS_CREDS and NATS_NKEY are set, and only one of them can be": append(server, "NATS_CREDS", "/a", "NATS_NKEY", "/b"),
		"NATS_USER: NATS_USER is set but NATS_PASSWORD is not":                     append(server, "NATS_USER", "a"),
		"NATS_PASSWORD: NATS_PASSWORD is set but NATS_USER is not":                 append(server, "NATS_PASSWORD", "a"),
		"NATS_KEY: NATS_KEY is set but NATS_CERT is not":                           append(server, "NATS_KEY", "/a"),
		"NATS_URL: nats.url has an unknown scheme":                                 {"NATS_URL", "http://a"},
		"NATS_URL: nats.url holds a user, password or token":                       {"NATS_URL", "bob:hunter2@a"},
		"NATS_URL: NATS_URL holds the same URL twice, as entries 1 and 2":          {"NATS_URL", "a,a"},
		"NATS_URL: nats.url must not be empty":                                     {"NATS_URL", "a,"},
	} {
		if errs := faults(t, "", pairs...); len(errs) != 1 || errs[0].Error() != want {
			t.Errorf("got %v, want %s", errs, want)
		}
	}
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	system, user := filepath.Join(dir, "etc", "renewatch.yaml"), filepath.Join(dir, "home", ".config", "renewatch", "renewatch.yaml")
	xdg := filepath.Join(dir, "xdg", "renewatch", "renewatch.yaml")
	home := []string{"HOME", filepath.Join(dir, "home")}
	_, tried, err := Find(FindOptions{System: system, Env: env(home...)})
	var none *NotFoundError
	if !errors.As(err, &none) || !slices.Equal(tried, []string{system, user}) || !slices.Equal(none.Tried, tried) ||
		err.Error() != "no configuration file found; tried "+system+", "+user {
		t.Errorf("%v, %v", tried, err)
	}
	if _, tried, _ = Find(FindOptions{Env: env()}); len(tried) == 0 || tried[0] != "/etc/renewatch/renewatch.yaml" {
		t.Errorf("tried %v", tried)
	}
	writeFile(t, user, "")
	writeFile(t, xdg, "")
	found := func(want string, opts FindOptions) {
		t.Helper()
		if got, _, err := Find(opts); err != nil || got != want {
			t.Errorf("got %s, %v; want %s", got, err, want)
		}
	}
	found(user, FindOptions{System: system, Env: env(home...)})
	found(xdg, FindOptions{System: system, Env: env(append(home, "XDG_CONFIG_HOME", filepath.Join(dir, "xdg"))...)})
	found(user, FindOptions{System: system, Env: env(append(home, "XDG_CONFIG_HOME", "relative")...)})
	writeFile(t, system, "")
	found(system, FindOptions{System: system, Env: env(home...)})
	found("/no/such", FindOptions{System: system, Env: env(append(home, "RENEWATCH_CONFIG", "/no/such")...)})
	found("flag", FindOptions{Flag: "flag", System: system, Env: env(append(home, "RENEWATCH_CONFIG", "/no/such")...)})
	_, tried, err = Find(FindOptions{System: filepath.Join(system, "x"), Env: env()})
	if err == nil || !slices.Equal(tried, []string{filepath.Join(system, "x") + " (not a directory)"}) {
		t.Errorf("%v, %v", tried, err)
	}
}

func TestNameOf(t *testing.T) {
	for path, want := range map[string]string{
		"/etc/letsencrypt/live/www.example.org/fullchain.pem": "www.example.org",
		"/etc/letsencrypt/live/www.example.org/x/cert.pem":    "cert",
		"/srv/live/certs/live/a.b/fullchain.pem":              "a.b",
		"/live/cert.pem":                                      "cert",
		"/etc/ssl/www.example.org.crt":                        "www.example.org",
		"/etc/ssl/fullchain":                                  "fullchain",
		"/etc/ssl/../tls//a.tar.pem":                          "a.tar",
		"/.pem":                                               ".pem",
	} {
		if got := nameOf(path); got != want {
			t.Errorf("the name of %s is %q, want %q", path, got, want)
		}
		if got := watch.NameOf(path); got != want {
			t.Errorf("watch calls %s %q, want %q", path, got, want)
		}
		if glob := path + "[a]"; hasMeta(path) != watch.IsGlob(path) || hasMeta(glob) != watch.IsGlob(glob) {
			t.Errorf("watch sees another glob in %s", path)
		}
	}
}

func warned(cfg *Config, part string) bool {
	return slices.ContainsFunc(Warnings(cfg), func(w *Warning) bool { return strings.Contains(w.String(), part) && w.Hint != "" })
}

func TestWarnings(t *testing.T) {
	for text, want := range map[string]string{
		"{}\n":                                      ": no certificate is watched",
		"servers: {a: {unit: a.service}}\n":         ":1:11: no certificate names the server a: it is never reloaded",
		"nats: {embedded: {listen: ':4222'}}\n":     ":1:27: the embedded NATS server listens on more than this host",
		"nats: {embedded: {listen: '0.0.0.0:0'}}\n": ":1:27: the embedded NATS server listens on more than this host",
		"nats: {embedded: {enabled: false}}\n":      ":1:28: there is no NATS server to tell",
		"journal: {max_size: 64KiB}\n":              ":1:21: the journal has room for few events only",
		"certificates: [{cert: /x/*.pem, endpoints: ['https://a.example.org']}]\n": ":1:44: every match of the glob is expected at the same endpoints",
		"certificates: [{cert: /x/a.pem, endpoints: ['https://*.example.org']}]\n": ":1:45: a wildcard cannot be dialled",
	} {
		if cfg := load(t, text); !warned(cfg, want) {
			t.Errorf("%s%v, want %s", text, Warnings(cfg), want)
		}
	}
	path := write(t, "certificates: [{cert: /x/a.pem}]\n")
	writeFile(t, filepath.Join(filepath.Dir(path), "conf.d", "a.yml"), "x")
	cfg, err := Load(path, LoadOptions{Getenv: env()})
	if err != nil || len(Warnings(cfg)) != 1 || !warned(cfg, "a.yml: the file is not read") {
		t.Errorf("%v, %v", err, Warnings(cfg))
	}
}

// again loads what is shown and compares.
func again(t testing.TB, cfg *Config, pairs ...string) {
	t.Helper()
	shown := Show(cfg)
	d := &decoder{cfg: defaults(), failed: map[string]bool{}}
	d.readText("shown", shown, file())
	back, err := d.finish(LoadOptions{Getenv: env(pairs...), UID: 1})
	if err != nil {
		t.Fatalf("what is shown is refused: %v\n%s", err, shown)
	}
	if !reflect.DeepEqual(values(back), values(cfg)) {
		t.Fatalf("what is shown is another configuration\n%+v\n%+v\n%s", values(cfg), values(back), shown)
	}
}

func TestShow(t *testing.T) {
	path := write(t, full)
	writeFile(t, filepath.Join(filepath.Dir(path), "conf.d", "a.yaml"), "certificates: [{cert: '/x/y z.pem', server: nginx}]\n")
	cfg, err := Load(path, LoadOptions{Getenv: env("RENEWATCH_LOG_LEVEL", "trace"), LogFormat: "console"})
	if err != nil {
		t.Fatal(err)
	}
	again(t, cfg)
	got := regexp.MustCompile(` +# `).ReplaceAllString(strings.ReplaceAll(string(Show(cfg)), filepath.Dir(path)+"/", ""), " # ")
	for _, want := range []string{
		"# read from renewatch.yaml\n# and from conf.d/a.yaml\nstate_dir: /var/lib/rw # renewatch.yaml:2:12\n",
		"  level: debug # renewatch.yaml:4:14\n  format: console # flag --log-format\n",
		"  url: [\"nats://nats.example.org:4222\"] # renewatch.yaml:7:8\n",
		"  password_file: \"\" # default\n",
		"    max_store: 64MiB # renewatch.yaml:14:63\n",
		"  keep: 7d # renewatch.yaml:16:17\n",
		"    windows:\n      - days: [mon, tue, wed, sun] # renewatch.yaml:18:49\n        from: \"02:00\" # renewatch.yaml:18:71\n        to: \"05:30\" # renewatch.yaml:18:82\n        tz: Europe/Berlin # renewatch.yaml:18:95\n" +
			"      - days: null # default: every day\n        from: \"22:00\" # renewatch.yaml:18:118\n        to: \"00:00\" # renewatch.yaml:18:131\n        tz: null # default: the host's time zone\n",
		"  dovecot: # renewatch.yaml:22:3\n    signal: HUP # renewatch.yaml:22:21\n    pidfile: /run/dovecot/master.pid # renewatch.yaml:22:38\n    then: # renewatch.yaml:22:69\n      unit: dovecot.service # renewatch.yaml:22:76\n",
		"    deadline: 15m # default\n    retries: [0s, 1m30s] # renewatch.yaml:28:14\n",
		"  - cert: /etc/letsencrypt/live/www.example.org/fullchain.pem # renewatch.yaml:31:11\n    name: www.example.org # from the path of cert\n",
		"      samples: 3 # renewatch.yaml:26:14\n",
		"        required: false # renewatch.yaml:37:67\n",
		"    endpoints: [] # renewatch.yaml:40:16\n",
		"    endpoints: null # default: https:// for each DNS name of the leaf\n",
		"  - cert: \"/x/y z.pem\" # conf.d/a.yaml:1:23\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no\n%s\nin\n%s", want, got)
		}
	}
	again(t, load(t, ""))
}

// Secrets are not shown, and what is shown works again in the same environment.
func TestShowHidesSecrets(t *testing.T) {
	for _, pairs := range [][]string{
		{"NATS_URL", "nats://a", "NATS_USER", "bob", "NATS_PASSWORD", "hunter2", "NATS_CERT", "/c", "NATS_KEY", "/k"},
		{"NATS_URL", "nats://a", "NATS_TOKEN", "hunter2", "NATS_CA", "/ca"},
	} {
		cfg := load(t, "nats: {tls: {first: true}}\n", pairs...)
		shown := Show(cfg)
		if bytes.Contains(shown, []byte("hunter2")) || !bytes.Contains(shown, []byte("(not shown)")) || !bytes.Contains(shown, []byte("env NATS_URL")) {
			t.Errorf("%s", shown)
		}
		again(t, cfg, pairs...)
	}
	again(t, load(t, "", "NATS_URL", "nats://a", "NATS_CREDS", "/c"))
}

// No character that means something is swallowed: put anywhere into a
// configuration it is an error or changes a value.
func TestNothingIsIgnored(t *testing.T) {
	const text = "host: a.example.org\nservers: {a: {unit: a.service}}\nnats:\n  url: ['nats://a', \"nats://b\"]\n  mode: core\ncertificates:\n  - cert: /a.pem\n    endpoints: []\n"
	read := func(s string) *Config {
		d := &decoder{cfg: defaults(), failed: map[string]bool{}}
		d.readText("f", []byte(s), file())
		cfg, err := d.finish(LoadOptions{Getenv: env()})
		if err != nil {
			return nil
		}
		return cfg
	}
	want := values(read(text))
	for i := 0; i <= len(text); i++ {
		for _, s := range []string{"!", "&x ", "*", "?", "]", "}", "{", "[", "%", "|", ":", "=", "~", "<<"} {
			if cfg := read(text[:i] + s + text[i:]); cfg != nil && reflect.DeepEqual(values(cfg), want) {
				t.Errorf("%q is ignored in %q", s, text[:i]+s)
			}
		}
	}
}

func FuzzLoad(f *testing.F) {
	f.Add([]byte(full))
	for _, pattern := range []string{"testdata/bad/*.yaml", "../../examples/*/renewatch.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, path := range files {
			data, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		d := &decoder{cfg: defaults(), failed: map[string]bool{}}
		d.readText("f", data, file())
		cfg, err := d.finish(LoadOptions{Getenv: env()})
		if err == nil {
			Warnings(cfg)
			again(t, cfg)
			return
		}
		lines := bytes.Count(data, []byte("\n")) + bytes.Count(data, []byte("\r")) + 1
		for _, e := range err.(Errors) {
			if r := unprintable(e.Error() + e.Hint); r >= 0 {
				t.Errorf("%q holds %U", e, r)
			}
			if e.Sentence == "" || e.Line < 0 || e.Line > lines || e.Line > 0 && e.Column < 1 || len(e.Error()) > 1000 {
				t.Errorf("%d:%d %q in %d lines", e.Line, e.Column, e, lines)
			}
		}
	})
}
