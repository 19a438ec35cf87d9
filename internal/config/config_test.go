package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/renewatch/renewatch/verify"
)

// write puts text into a file of a new directory and returns its path.
func write(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "renewatch.yaml")
	writeFile(t, path, text)
	return path
}

func writeFile(t testing.TB, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// env makes a Getenv of name, value pairs.
func env(pairs ...string) func(string) string {
	return func(name string) string {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1]
			}
		}
		return ""
	}
}

func load(t testing.TB, text string, pairs ...string) *Config {
	t.Helper()
	cfg, err := Load(write(t, text), LoadOptions{Getenv: env(pairs...)})
	if err != nil {
		t.Fatalf("%v", err)
	}
	return cfg
}

// faults loads text and returns what is wrong with it.
func faults(t testing.TB, text string, pairs ...string) Errors {
	t.Helper()
	_, err := Load(write(t, text), LoadOptions{Getenv: env(pairs...)})
	if err == nil {
		return nil
	}
	return err.(Errors)
}

func endpoint(t testing.TB, s string) verify.Endpoint {
	t.Helper()
	e, err := verify.ParseEndpoint(s)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// values drops from a configuration what says where its values came from.
func values(cfg *Config) Config {
	c := *cfg
	c.Files, c.Origins, c.notes = nil, nil, nil
	c.Certificates = slices.Clone(c.Certificates)
	for i := range c.Certificates {
		c.Certificates[i].At = ""
		c.Certificates[i].Endpoints = slices.Clone(c.Certificates[i].Endpoints)
		for j := range c.Certificates[i].Endpoints {
			c.Certificates[i].Endpoints[j].Text = ""
		}
	}
	return c
}

const full = `
state_dir: /var/lib/rw
host: web1.example.org
log: {level: debug, format: json}
nats:
  enabled: true
  url: nats://nats.example.org:4222
  creds: /etc/renewatch/nats.creds
  tls: {ca: "", cert: "", key: "", first: true}
  prefix: renewatch
  mode: core
  stream: EVENTS
  ensure_stream: true
  embedded: {enabled: true, listen: "127.0.0.1:0", max_store: 64MiB}
http: {enabled: false, listen: ":9000"}
journal: {keep: 1w, max_size: 2GiB}
servers:
  nginx: {unit: nginx.service, windows: [{days: [mon-wed, sun], from: 02:00, to: "05:30", tz: Europe/Berlin}, {from: '22:00', to: 00:00}]}
  haproxy:
    command: [haproxy-reload]
    test: [haproxy, -c, -q, -f, /etc/haproxy/haproxy.cfg]
  dovecot: {signal: SIGHUP, pidfile: /run/dovecot/master.pid, then: {unit: dovecot.service}}
defaults:
  server: nginx
  verify:
    samples: 3
    grace: 0s
    retries: [0s, 1m30s]
    every: 1s
certificates:
  - cert: /etc/letsencrypt/live/www.example.org/fullchain.pem
    key: /etc/letsencrypt/live/www.example.org/privkey.pem
    server: none
    verify: {recheck: [], spread: 100ms}
    endpoints:
      - https://www.example.org
      - {url: "smtp://mx.example.org", server: dovecot, required: false}
      - {url: "https://www.example.org?address=192.0.2.7:8443", server: haproxy, file: /etc/haproxy/certs/www.pem, expect: any-valid}
  - cert: /etc/ssl/*.pem
    endpoints: []
  - cert: /etc/ssl/mail.pem
    server:
    endpoints: null
    verify: {retries: null, samples: ~}
`

func TestEveryKeyIsRead(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	cfg := load(t, full)
	want := Config{
		StateDir: "/var/lib/rw", Host: "web1.example.org", Log: Log{"debug", "json"},
		NATS: NATS{Enabled: true, URLs: []string{"nats://nats.example.org:4222"}, Creds: "/etc/renewatch/nats.creds",
			TLS: TLS{First: true}, Prefix: "renewatch", Mode: "core", Stream: "EVENTS", EnsureStream: true,
			Embedded: Embedded{Enabled: true, Listen: "127.0.0.1:0", MaxStore: 64 << 20}},
		HTTP:    HTTP{Listen: ":9000"},
		Journal: Journal{Keep: 7 * day, MaxSize: 2 << 30},
		Servers: map[string]Server{
			"nginx": {Name: "nginx", Way: Way{Unit: "nginx.service"}, Windows: []Window{
				{Days: []time.Weekday{time.Monday, time.Tuesday, time.Wednesday, time.Sunday}, From: 2 * time.Hour, To: 5*time.Hour + 30*time.Minute, Zone: berlin},
				{From: 22 * time.Hour},
			}},
			"haproxy": {Name: "haproxy", Way: Way{Command: []string{"haproxy-reload"}}, Test: []string{"haproxy", "-c", "-q", "-f", "/etc/haproxy/haproxy.cfg"}},
			"dovecot": {Name: "dovecot", Way: Way{Signal: "HUP", PIDFile: "/run/dovecot/master.pid"}, Then: &Way{Unit: "dovecot.service"}},
		},
	}
	v := Verify{Samples: 3, Spread: 2 * time.Second, Deadline: 15 * time.Minute, Retries: []time.Duration{0, 90 * time.Second},
		Recheck: []time.Duration{time.Minute, 10 * time.Minute, time.Hour}, Every: time.Second, Timeout: 10 * time.Second}
	want.Defaults = Defaults{Server: "nginx", Verify: v}
	own := v
	own.Recheck, own.Spread = []time.Duration{}, 100*time.Millisecond
	want.Certificates = []Certificate{
		{Name: "www.example.org", Cert: "/etc/letsencrypt/live/www.example.org/fullchain.pem", Key: "/etc/letsencrypt/live/www.example.org/privkey.pem",
			Server: "none", Verify: own, Endpoints: []Endpoint{
				{URL: endpoint(t, "https://www.example.org"), Required: true},
				{URL: endpoint(t, "smtp://mx.example.org"), Server: "dovecot"},
				{URL: endpoint(t, "https://www.example.org?address=192.0.2.7:8443"), Server: "haproxy", File: "/etc/haproxy/certs/www.pem", AnyValid: true, Required: true},
			}},
		{Cert: "/etc/ssl/*.pem", Server: "nginx", Verify: v, Endpoints: []Endpoint{}},
		{Name: "mail", Cert: "/etc/ssl/mail.pem", Server: "nginx", Verify: v},
	}
	if got := values(cfg); !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}
	if at := cfg.Certificates[1].At; at != cfg.Files[0]+":39:5" {
		t.Errorf("the second certificate stands at %s", at)
	}
}

func TestAnEmptyFileHasAllDefaults(t *testing.T) {
	for _, text := range []string{"", "\n", "# nothing\n", "---\n", "nats:\nservers:\ncertificates: null\ndefaults: {}\n"} {
		cfg := load(t, text)
		want := defaults()
		want.StateDir = "/var/lib/renewatch"
		if got := values(cfg); !reflect.DeepEqual(got, values(want)) {
			t.Errorf("%q: got\n%+v\nwant\n%+v", text, got, values(want))
		}
	}
}

// Every field of Config that a file can set is in the table of keys, and every
// name in the table is a field.
func TestTheTableCoversConfig(t *testing.T) {
	listed := map[string]bool{}
	var walk func(s shape, typ reflect.Type)
	walk = func(s shape, typ reflect.Type) {
		switch s := s.(type) {
		case *object:
			for _, f := range s.fields {
				in := typ
				for part := range strings.SplitSeq(f.name, ".") {
					field, ok := in.FieldByName(part)
					if !ok {
						t.Fatalf("%s has no field %s", in, part)
					}
					listed[in.Name()+"."+part] = true
					in = field.Type
				}
				if f.about == "" {
					t.Errorf("key %s is not explained", f.key)
				}
				walk(f.shape, in)
			}
		case list:
			walk(s.elem, typ.Elem())
		case table:
			walk(s.elem, typ.Elem())
		case optional:
			walk(s.shape, typ.Elem())
		}
	}
	walk(file(), reflect.TypeFor[Config]())
	elsewhere := []string{"Config.Files", "Config.Origins", "Config.notes", "NATS.Token", "NATS.Password", "Server.Name", "Certificate.At", "Endpoint.Text"}
	for _, typ := range []reflect.Type{reflect.TypeFor[Config](), reflect.TypeFor[Log](), reflect.TypeFor[NATS](), reflect.TypeFor[TLS](),
		reflect.TypeFor[Embedded](), reflect.TypeFor[HTTP](), reflect.TypeFor[Journal](), reflect.TypeFor[Server](), reflect.TypeFor[Window](), reflect.TypeFor[Way](),
		reflect.TypeFor[Defaults](), reflect.TypeFor[Certificate](), reflect.TypeFor[Verify](), reflect.TypeFor[Endpoint]()} {
		for i := range typ.NumField() {
			if name := typ.Name() + "." + typ.Field(i).Name; !listed[name] && !slices.Contains(elsewhere, name) {
				t.Errorf("no key sets %s", name)
			}
		}
	}
}

func TestNumbersDurationsAndSizes(t *testing.T) {
	for _, s := range []string{"12.0", "1e1", "0x0c", "0o14", "0b11", "012", "1_0", `"12"`, "'12'", "+12", "-0", "true", "twelve", "12s", "99999999999999999999", "[12]", "08", ".5", "-3", "0", "1001", ".inf"} {
		if errs := faults(t, "defaults: {verify: {samples: "+s+"}}\n"); len(errs) != 1 {
			t.Errorf("samples: %s gives %v", s, errs)
		}
	}
	for s, want := range map[string]time.Duration{"0s": 0, "1ns": 1, "1us": 1000, "5ms": 5e6, "30m30s": 1830 * time.Second, "60m": time.Hour,
		`"1m"`: time.Minute, "0d": 0, "1m30s5ms": 90*time.Second + 5*time.Millisecond} {
		if got := load(t, "defaults: {verify: {grace: "+s+"}}\n").Defaults.Verify.Grace; got != want {
			t.Errorf("grace: %s is %v, want %v", s, got, want)
		}
	}
	for _, s := range []string{"0", "30", "-1s", "-0s1", "1.5s", "30m1h", "1h1h", "1 h", "1H", "5min", "s", "h1", `"30"`, "1e3s", "0x1s", "61m", "true", "{}", "99999999999999w", "1_0s", "+1s", "1µs"} {
		if errs := faults(t, "defaults: {verify: {grace: "+s+"}}\n"); len(errs) != 1 {
			t.Errorf("grace: %s gives %v", s, errs)
		}
	}
	if d := load(t, "journal: {keep: 52w1d}\n").Journal.Keep; d != 365*day {
		t.Errorf("52w1d is %v", d)
	}
	for s, want := range map[string]int64{"1024B": 1024, "4KiB": 4096, "256MiB": 256 << 20, "1GiB": 1 << 30, "2TiB": 2 << 40} {
		if got := load(t, "journal: {max_size: "+s+"}\n").Journal.MaxSize; got != want {
			t.Errorf("max_size: %s is %d, want %d", s, got, want)
		}
	}
	for _, s := range []string{"1048576", "1GB", "1G", "1.5GiB", "-1MiB", "1 GiB", "01MiB", "0B", "1mib", "9999999999TiB", "[]"} {
		if errs := faults(t, "journal: {max_size: "+s+"}\n"); len(errs) != 1 {
			t.Errorf("max_size: %s gives %v", s, errs)
		}
	}
}

func TestParseDuration(t *testing.T) {
	if d, err := ParseDuration("1w1h"); err != nil || d != 7*day+time.Hour {
		t.Errorf("%v, %v", d, err)
	}
	if _, err := ParseDuration("30"); err == nil || err.Error() != "has no unit" {
		t.Errorf("%v", err)
	}
}

// A server's name may hold what paths are made of.
func TestWindowDays(t *testing.T) {
	const mon, tue, thu, fri, sat, sun = time.Monday, time.Tuesday, time.Thursday, time.Friday, time.Saturday, time.Sunday
	schema := compile(t)
	for days, want := range map[string][]time.Weekday{
		"null":             nil,
		"mon":              {mon},
		"[sun, tue]":       {tue, sun},
		"thu-sat":          {thu, fri, sat},
		"[fri-mon]":        {mon, fri, sat, sun},
		"[sat-sun, tue]":   {tue, sat, sun},
		"mon-mon":          {mon},
		"[tue-mon]":        {mon, tue, time.Wednesday, thu, fri, sat, sun},
		"['mon', \"tue\"]": {mon, tue},
	} {
		text := "servers: {a: {unit: a.service, windows: [{days: " + days + ", from: 02:00, to: 05:00}]}}\n"
		cfg := load(t, text)
		if got := cfg.Servers["a"].Windows[0].Days; !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", days, got, want)
		}
		again(t, cfg)
		if got := judge(schema, []byte(text)); got != "accepts, it cannot tell" {
			t.Errorf("%s: the schema %s", days, got)
		}
	}
}

// Every minute of the day is read and shown as it was written, quoted or plain.
func TestWindowTimes(t *testing.T) {
	var b strings.Builder
	b.WriteString("servers:\n")
	for h := range 24 {
		fmt.Fprintf(&b, "  s%d:\n    unit: a.service\n    windows:\n", h)
		for m := h * 60; m < h*60+60; m++ {
			fmt.Fprintf(&b, "      - {from: %02d:%02d, to: \"%02d:%02d\"}\n", h, m%60, (m+1)/60, (m+1)%60)
		}
	}
	cfg := load(t, b.String())
	for m := range 24 * 60 {
		w := cfg.Servers[fmt.Sprintf("s%d", m/60)].Windows[m%60]
		if at := time.Duration(m) * time.Minute; w.From != at || w.To != at+time.Minute {
			t.Errorf("minute %d: %s to %s", m, w.From, w.To)
		}
	}
	again(t, cfg)
}

func TestServerNames(t *testing.T) {
	cfg := load(t, "servers:\n  a: {unit: x.service}\n  a.unit: {unit: y.service}\n  php@8.2: {unit: z.service}\n")
	for name, unit := range map[string]string{"a": "x.service", "a.unit": "y.service", "php@8.2": "z.service"} {
		if s := cfg.Servers[name]; s.Name != name || s.Way.Unit != unit {
			t.Errorf("%s: %+v", name, s)
		}
	}
	again(t, cfg)
}

func TestStringsThatYAMLReadsAsSomethingElse(t *testing.T) {
	for _, s := range []string{"12", "1e1", "0x1", "true", "yes", "Off", "1.5", "012", "08", ".5", "99999999999999999999"} {
		errs := faults(t, "nats: {prefix: "+s+"}\n")
		if len(errs) != 1 || errs[0].Hint != "quote it" {
			t.Errorf("prefix: %s gives %v", s, errs)
		}
	}
	if got := load(t, `nats: {prefix: "12"}`+"\n").NATS.Prefix; got != "12" {
		t.Errorf("got %q", got)
	}
	if got := load(t, "servers: {a: {command: [sleep, '5', 1.5s, -x]}}\n").Servers["a"].Way.Command; !slices.Equal(got, []string{"sleep", "5", "1.5s", "-x"}) {
		t.Errorf("got %q", got)
	}
}

// Many faults are told at once, sorted, with the right places.
func TestAllFaultsAtOnce(t *testing.T) {
	dir := t.TempDir()
	main := filepath.Join(dir, "renewatch.yaml")
	writeFile(t, main, "log: {level: loud}\nservers:\n  a: {unit: a.service}\ncertificates:\n  - cert: /x/a.pem\n    colour: red\n  - name: b\nhost: localhost\n")
	writeFile(t, filepath.Join(dir, "conf.d", "20-b.yaml"), "servers: {a: {unit: a.service}, none: {unit: b.service}}\n")
	writeFile(t, filepath.Join(dir, "conf.d", "10-a.yaml"), "log: {}\ncertificates:\n  - cert: /y/c.pem\n  - cert: /y/a.pem\n    server: b\n")
	writeFile(t, filepath.Join(dir, "conf.d", "30-c.yaml"), "a: [\n")
	writeFile(t, filepath.Join(dir, "conf.d", ".hidden.yaml"), "x: y\n")
	_, err := Load(main, LoadOptions{Getenv: env("RENEWATCH_LOG_FORMAT", "xml")})
	got := strings.ReplaceAll(err.Error(), dir+"/", "")
	want := `renewatch.yaml:1:14: log.level "loud" is not one of trace, debug, info, warn, error
renewatch.yaml:6:5: unknown key certificates[0].colour
renewatch.yaml:7:5: certificates[1].cert is missing
renewatch.yaml:8:7: host "localhost" does not tell this host from others
conf.d/10-a.yaml:1:1: unknown key log
conf.d/10-a.yaml:4:11: certificates[1].cert: the name "a", made from the file's path, is given twice, first at renewatch.yaml:5:11
conf.d/10-a.yaml:5:13: certificates[1].server names the unknown server "b"
conf.d/20-b.yaml:1:11: servers.a is given twice, first at renewatch.yaml:3:3
conf.d/20-b.yaml:1:33: servers.none: the name none is reserved: it means never reloaded
conf.d/30-c.yaml:1:4: a [ is not closed
RENEWATCH_LOG_FORMAT: log.format "xml" is not one of auto, console, json, journal`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for _, e := range err.(Errors) {
		if e.Sentence != strings.TrimSuffix(e.Sentence, ".") {
			t.Errorf("full stop: %s", e.Sentence)
		}
	}
}

func TestManyFaultsAreBounded(t *testing.T) {
	errs := faults(t, "certificates:\n"+strings.Repeat("- {}\n", 20_000))
	if len(errs) != maxErrors+1 || !strings.HasSuffix(errs[maxErrors-1].Error(), ":201:3: certificates[199].cert is missing") {
		t.Errorf("%d errors, the last one %v", len(errs), errs[len(errs)-1])
	}
}

func TestSecretsAreNotQuoted(t *testing.T) {
	const secret = "hunter2"
	for _, text := range []string{
		"nats: nats://bob:hunter2@host\n",
		"nats: {url: nats://bob:hunter2@host}\n",
		"nats: {url: [nats://hunter2@host, x]}\n",
		"nats: {url: 'bob:hunter2'}\n",
		"nats: {creds: hunter2}\n",
		"nats: {token_file: hunter2, url: nats://a}\n",
		"nats: {password: hunter2}\n",
		"nats: {user: a, password_file: hunter2, url: nats://a}\n",
		"nats:\n  password: hunter2: x\n",
		"nats:\n  password: \"hunter2\n",
		"nats:\n  password: |hunter2\n",
		"nats:\n  password: 'hunter2' x\n",
		"nats:\n  password: \"\\qhunter2\"\n",
		"nats:\n  password: &hunter2 x\n",
		"nats:\n  password: !hunter2 x\n",
		"nats:\n  password: *hunter2\n",
		"nats: {password: hunter2\nx: y\n",
		"nats: {password: hunter2, enabled: maybe}\n",
		"servers: {a: {command: [./x, hunter2]}}\n",
		"servers: {a: {command: 'x hunter2'}}\n",
		"certificates: [{cert: /a.pem, endpoints: ['https://bob:hunter2@host']}]\n",
		"certificates: [{cert: /a.pem, endpoints: ['bob:hunter2@host']}]\n",
		"certificates: [{cert: /a.pem, endpoints: [hunter2: 1]}]\n",
		"password: hunter2\n",
	} {
		errs := faults(t, text)
		if len(errs) == 0 {
			t.Errorf("%q is accepted", text)
		}
		for _, e := range errs {
			if said := e.Error() + e.Hint; strings.Contains(said, secret) && !strings.Contains(text, "endpoints: [hunter2") {
				t.Errorf("%q: %s", text, said)
			}
		}
	}
	for _, url := range []string{"nats://bob:hunter2@host", "bob:hunter2@host", "hunter2 x", "nats://a,nats://b/hunter2"} {
		for _, e := range faults(t, "", "NATS_URL", url) {
			if strings.Contains(e.Error()+e.Hint, secret) {
				t.Errorf("%q: %s", url, e)
			}
		}
	}
}

func TestFilesThatCannotBeRead(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo.yaml")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	big := filepath.Join(dir, "big.yaml")
	writeFile(t, big, strings.Repeat("# x\n", maxFile/4+1))
	for path, want := range map[string]string{
		filepath.Join(dir, "none.yaml"): ": there is no such file",
		dir:                             ": cannot be read: it is no regular file",
		fifo:                            ": cannot be read: it is no regular file",
		big:                             ": the file is larger than 1 MiB",
	} {
		_, err := Load(path, LoadOptions{Getenv: env()})
		if err == nil || err.Error() != path+want {
			t.Errorf("%s: %v", path, err)
		}
	}
	_, err := Load(filepath.Join(dir, "none.yaml"), LoadOptions{Getenv: env()})
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v is not fs.ErrNotExist", err)
	}
	main := filepath.Join(dir, "sub", "renewatch.yaml")
	writeFile(t, main, "")
	if err := os.MkdirAll(filepath.Join(dir, "sub", "conf.d", "d.yaml"), 0o755); err != nil {
		t.Fatal(err)
	}
	stray := filepath.Join(dir, "stray", "renewatch.yaml")
	writeFile(t, stray, "")
	writeFile(t, filepath.Join(dir, "stray", "conf.d"), "")
	if _, err := Load(stray, LoadOptions{Getenv: env()}); err == nil || !strings.HasSuffix(err.Error(), "conf.d: cannot be read: not a directory") {
		t.Errorf("%v", err)
	}
	if _, err := Load(main, LoadOptions{Getenv: env()}); err == nil || !strings.HasSuffix(err.Error(), "d.yaml: cannot be read: it is no regular file") {
		t.Errorf("%v", err)
	}
}

// What would cost the parser dearly is refused before it is parsed.
func TestHostileText(t *testing.T) {
	for name, text := range map[string]string{
		"brackets":    strings.Repeat("[", 50_000),
		"braces":      strings.Repeat("{a: ", 20_000),
		"dashes":      strings.Repeat("- ", 20_000),
		"questions":   strings.Repeat("? ", 20_000),
		"keys":        strings.Repeat("a: b\n", 20_000),
		"nested keys": "certificates:\n" + strings.Repeat(" b: c\n", 20_000),
		"stairs": func() string {
			var b strings.Builder
			for i := range 1000 {
				b.WriteString(strings.Repeat(" ", i) + "a:\n")
			}
			return b.String()
		}(),
		"tags":     strings.Repeat("! ", 20_000),
		"aliases":  strings.Repeat("*a ", 20_000),
		"anchors":  strings.Repeat("- &a b\n", 20_000),
		"tokens":   "a: [" + strings.Repeat("1,", 101_000) + "]",
		"nul":      "a: b\x00c\n",
		"utf-8":    "a: \xff\n",
		"utf-16":   "\xff\xfea\x00",
		"bom":      "\xef\xbb\xbfstate_dir: /x\n",
		"tag only": "!x",
		"nel":      "host: a\u0085b\n",
	} {
		errs := faults(t, text)
		if len(errs) == 0 || errs[0].Sentence == "" || errs[0].Hint == "" {
			t.Errorf("%s: %v", name, errs)
		}
		if len(errs) > maxErrors+1 {
			t.Errorf("%s: %d errors", name, len(errs))
		}
	}
}
