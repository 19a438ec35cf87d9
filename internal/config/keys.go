package config

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
)

const day = 24 * time.Hour

// defaults returns what holds before anything is read.
func defaults() *Config {
	return &Config{
		Log: Log{Level: "info", Format: "auto"},
		NATS: NATS{
			Enabled: true, Prefix: "renewatch", Mode: "jetstream", Stream: "RENEWATCH",
			Embedded: Embedded{Enabled: true, Listen: "127.0.0.1:4222", MaxStore: 256 << 20},
		},
		HTTP:    HTTP{Enabled: true, Listen: "127.0.0.1:9877"},
		Journal: Journal{Keep: 400 * day, MaxSize: 1 << 30},
		Servers: map[string]Server{},
		Defaults: Defaults{Verify: Verify{
			Samples: 12, Spread: 2 * time.Second, Grace: 30 * time.Second, Deadline: 15 * time.Minute,
			Retries: []time.Duration{0, time.Minute, 10 * time.Minute},
			Recheck: []time.Duration{time.Minute, 10 * time.Minute, time.Hour},
			Every:   time.Hour, Timeout: 10 * time.Second,
		}},
		Origins: map[string]Origin{},
	}
}

// later are keys that other versions know.
var later = map[string]bool{
	"renew": true, "context": true,
	"service": true, "heartbeat": true, "discover": true,
}

// file returns the table of a main file's keys: the one description that the
// decoder, config show and config schema work from.
func file() *object {
	return &object{
		example: "start with certificates:, and see renewatch config schema",
		fields: []field{
			{key: "state_dir", name: "StateDir", shape: absolutePath(), about: "Directory for journal, state and lock, mode 0700. Default: $STATE_DIRECTORY, else /var/lib/renewatch as root, else $XDG_STATE_HOME/renewatch."},
			{key: "host", name: "Host", shape: text{check: checkHost, pattern: hostPattern}, absent: "the FQDN, found at start", about: "Name of this host in events. Default: the FQDN."},
			{key: "log", name: "Log", about: "How the program logs.", shape: &object{example: "write {level: info, format: auto}", fields: []field{
				{key: "level", name: "Level", shape: logLevel, about: "The least severe level that is logged."},
				{key: "format", name: "Format", shape: logFormat, about: "auto: console on a terminal, journal under systemd, else JSON."},
			}}},
			{key: "nats", name: "NATS", about: "Where events go.", shape: natsKeys()},
			{key: "http", name: "HTTP", about: "Where /healthz and /readyz are.", shape: &object{example: "write {enabled: true, listen: 127.0.0.1:9877}", fields: []field{
				{key: "enabled", name: "Enabled", shape: boolean{}, about: "Whether there is an HTTP listener."},
				{key: "listen", name: "Listen", shape: listenAddress, about: "HOST:PORT; port 0 is any free one."},
			}}},
			{key: "journal", name: "Journal", about: "How long events are kept on this host.", shape: &object{example: "write {keep: 400d, max_size: 1GiB}", fields: []field{
				{key: "keep", name: "Keep", shape: duration{time.Second, 36500 * day}, about: "How long sent events are kept."},
				{key: "max_size", name: "MaxSize", shape: size{1 << 10, 1 << 50}, about: "The journal's bound on disk."},
			}}},
			servers,
			{key: "defaults", name: "Defaults", about: "What holds for certificates that do not say otherwise, key by key; a list replaces the list.", shape: &object{
				example: "write {server: nginx, verify: {grace: 30s}}",
				fields: []field{
					{key: "server", name: "Server", shape: serverRef, absent: "none: endpoints without a server are never reloaded", about: "Server that is reloaded for endpoints that name no other; none: never reloaded."},
					{key: "verify", name: "Verify", shape: verifyKeys, about: "How endpoints are verified."},
					{key: "logs", name: "Logs", shape: logs, absent: usualLogs, about: "The ACME client's logs. An empty list: none is read."},
				},
			}},
			certificates,
		},
		other: map[string]string{"silence": silenceHint, "silences": silenceHint},
	}
}

const silenceHint = "a silence is no configuration: see renewatch silence --help"

// added returns the table of a conf.d file's keys.
func added() *object {
	o := &object{example: "a file in conf.d holds servers: and certificates:", fields: []field{servers, certificates}, other: file().other}
	for _, k := range file().keys() {
		if o.field(k) == nil {
			o.other[k] = "only the main file holds it; a file in conf.d holds servers and certificates"
		}
	}
	return o
}

func natsKeys() *object {
	const url = "a credential is for an external server; set nats.url, or remove it for the embedded server"
	credential := func() text {
		return text{empty: true, secret: true, check: checkAbsolute, pattern: "/.*"}
	}
	return &object{
		example: "write {url: nats://nats.example.org:4222}",
		fields: []field{
			{key: "enabled", name: "Enabled", shape: boolean{}, about: "false: events stay in the journal."},
			{key: "url", name: "URLs", shape: list{elem: natsURL, min: 1, max: 64, single: true, example: "write nats://nats.example.org:4222, or leave it out for the embedded server", check: checkURLs}, absent: "the embedded server", about: "URL of the NATS server, or a list of them: nats, tls, ws or wss. Absent: the embedded server."},
			{key: "creds", name: "Creds", shape: credential(), about: "Path of a credentials file."},
			{key: "nkey", name: "NKey", shape: credential(), about: "Path of an nkey seed file."},
			{key: "token_file", name: "TokenFile", shape: credential(), about: "Path of a file that holds a token."},
			{key: "user", name: "User", shape: text{empty: true}, about: "User name; with password_file."},
			{key: "password_file", name: "PasswordFile", shape: credential(), about: "Path of a file that holds the user's password."},
			{key: "tls", name: "TLS", about: "TLS with the NATS server.", shape: &object{
				example: "write {ca: /etc/ssl/nats-ca.pem}",
				fields: []field{
					{key: "ca", name: "CA", shape: optionalPath(), about: "PEM bundle trusted besides the system roots."},
					{key: "cert", name: "Cert", shape: optionalPath(), about: "Client certificate; with key."},
					{key: "key", name: "Key", shape: optionalPath(), about: "Key of the client certificate."},
					{key: "first", name: "First", shape: boolean{}, about: "Handshake before the server's INFO."},
				},
				rules: []rule{needs{"cert", "key", "give both, or none"}, needs{"key", "cert", "give both, or none"}},
			}},
			{key: "prefix", name: "Prefix", shape: text{check: checkPrefix, pattern: "[A-Za-z0-9-]{1,64}"}, about: "First token of every subject."},
			{key: "mode", name: "Mode", shape: text{enum: []string{"jetstream", "core"}}, about: "jetstream: delivered is acknowledged by the stream; core: delivered is flushed."},
			{key: "stream", name: "Stream", shape: text{check: checkStream, pattern: streamPattern}, about: "Name of the JetStream stream."},
			{key: "ensure_stream", name: "EnsureStream", shape: boolean{}, about: "Create the stream where it does not exist; it is never updated."},
			{key: "embedded", name: "Embedded", about: "The embedded NATS server, used when there is no url.", shape: &object{example: "write {enabled: true, listen: 127.0.0.1:4222}", fields: []field{
				{key: "enabled", name: "Enabled", shape: boolean{}, about: "false: there is no embedded server."},
				{key: "listen", name: "Listen", shape: listenAddress, about: "HOST:PORT; port 0 is any free one."},
				{key: "max_store", name: "MaxStore", shape: size{1 << 20, 1 << 50}, about: "The stream's bound on disk."},
			}}},
		},
		rules: []rule{
			atMostOne{[]string{"creds", "nkey", "token_file", "user"}, "keep the credential that the NATS server knows"},
			needs{"user", "password_file", "put the password into a file and name it as password_file"},
			needs{"password_file", "user", "name the user whose password it is"},
			needs{"creds", "url", url}, needs{"nkey", "url", url}, needs{"token_file", "url", url}, needs{"user", "url", url},
		},
		other: map[string]string{
			"password": "secrets do not stand in this file: put it into a file of its own and name that as password_file",
			"pass":     "secrets do not stand in this file: put it into a file of its own and name that as password_file",
			"token":    "secrets do not stand in this file: put it into a file of its own and name that as token_file",
			"seed":     "secrets do not stand in this file: put it into a file of its own and name that as nkey",
			"urls":     "write url; it takes a list too",
			"servers":  "write url; it takes a list too",
		},
	}
}

var (
	logLevel  = text{enum: []string{"trace", "debug", "info", "warn", "error"}}
	logFormat = text{enum: []string{"auto", "console", "json", "journal"}}

	natsURL       = text{secret: true, check: checkNATSURL, pattern: `(nats|tls|ws|wss)://[^/@?#\s]+/?`}
	listenAddress = text{example: "write HOST:PORT, e.g. 127.0.0.1:4222", check: checkListen, pattern: `.*:[0-9]{1,5}`}
	serverRef     = text{check: checkServerName, pattern: serverPattern}
)

func absolutePath() text { return text{check: checkAbsolute, pattern: "/.*"} }
func optionalPath() text { return text{empty: true, check: checkAbsolute, pattern: "/.*"} }

const way = "write unit: nginx.service, or command: [nginx, -s, reload], or signal: HUP with pidfile: /run/nginx.pid"

// commandLine is a program and its arguments.
func commandLine(min int) list {
	return list{elem: text{secret: true}, min: min, max: 256, none: true, first: `^(/.*[^/]|[^/\s]+)$`,
		example: "write a list, one element per word: [nginx, -s, reload]; there is no shell", check: checkCommand}
}

func wayFields(prefix string) []field {
	return []field{
		{key: "unit", name: prefix + "Unit", quiet: true, shape: text{check: checkUnit, pattern: unitPattern}, about: "systemd unit, reloaded over D-Bus."},
		{key: "command", name: prefix + "Command", quiet: true, shape: commandLine(1), about: "Program and arguments, run without a shell."},
		{key: "signal", name: prefix + "Signal", quiet: true, shape: text{example: "write a name: HUP, USR1 or USR2", check: checkSignal, normal: signalName, pattern: signalPattern}, about: "Signal sent to the process in pidfile."},
		{key: "pidfile", name: prefix + "PIDFile", quiet: true, shape: absolutePath(), about: "File that holds the process ID; with signal."},
	}
}

func wayRules() []rule {
	return []rule{
		exactlyOne{[]string{"unit", "command", "signal"}, way},
		needs{"signal", "pidfile", "name the file that holds the server's process ID"},
		needs{"pidfile", "signal", "name the signal that makes the server reload: HUP, USR1 or USR2"},
	}
}

var servers = field{key: "servers", name: "Servers", about: "The programs that serve certificates, by name, each with exactly one way to reload it.", shape: table{
	name: checkNewServer, pattern: "^(" + serverPattern + ")$", max: 10_000,
	example: "write nginx: {unit: nginx.service}",
	elem: &object{
		example: way,
		fields: append(wayFields("Way."),
			field{key: "test", name: "Test", quiet: true, shape: commandLine(0), about: "Command run before a reload; a failure holds the reload."},
			field{key: "then", name: "Then", quiet: true, shape: optional{&object{fields: wayFields(""), rules: wayRules(), example: way, other: map[string]string{"windows": "it belongs to the server itself, beside then"}}}, about: "Another way, tried last."},
			windows,
		),
		rules: wayRules(),
		other: map[string]string{
			"reload":  "write unit, command, or signal with pidfile",
			"service": "write unit",
			"cmd":     "write command",
			"exec":    "write command",
			"window":  "write windows, a list",
		},
	},
}}

// The longest values leave room for what a person means and none for what would
// switch the watchdog off.
var verifyKeys = &object{
	example: "write {samples: 12, grace: 30s}",
	fields: []field{
		{key: "ca", name: "CA", shape: optionalPath(), about: "PEM bundle trusted besides the system roots."},
		{key: "samples", name: "Samples", shape: integer{1, 1000}, about: "Fresh handshakes in a row that must all show the expected leaf after a change."},
		{key: "spread", name: "Spread", shape: duration{0, 10 * time.Minute}, about: "Time that these handshakes span at least."},
		{key: "grace", name: "Grace", shape: duration{0, time.Hour}, about: "Time the ACME client's own reload has before anything is repaired."},
		{key: "deadline", name: "Deadline", shape: duration{100 * time.Millisecond, 7 * day}, about: "Time after the grace until an unfinished renewal counts as failed; not before the last retry."},
		{key: "retries", name: "Retries", shape: list{elem: duration{0, day}, max: 3, example: "write [0s, 1m, 10m]", check: ascending}, about: "When the server is reloaded, counted from the end of the grace. An empty list: never."},
		{key: "recheck", name: "Recheck", shape: list{elem: duration{time.Millisecond, 7 * day}, max: 16, example: "write [60s, 10m, 1h]", check: ascending}, about: "When endpoints are checked again after a renewal was verified."},
		{key: "every", name: "Every", shape: duration{time.Second, 7 * day}, about: "Time between routine checks."},
		{key: "timeout", name: "Timeout", shape: duration{100 * time.Millisecond, 5 * time.Minute}, about: "Time that one handshake may take."},
	},
}

var certificates = field{key: "certificates", name: "Certificates", about: "The certificates that are watched.", shape: list{
	add: true, max: 100_000, example: "write - cert: /etc/letsencrypt/live/www.example.org/fullchain.pem",
	elem: &object{
		example: "write cert: /etc/letsencrypt/live/www.example.org/fullchain.pem",
		fields: []field{
			{key: "cert", name: "Cert", required: true, shape: text{check: checkCert, pattern: "/.*[^/]"}, about: "Certificate file, or a glob that makes one entry per match."},
			{key: "name", name: "Name", shape: text{check: checkName, pattern: namePattern}, absent: "one name per match of the glob", about: "Default: the directory's name under live/, else the file name without extension."},
			{key: "key", name: "Key", shape: optionalPath(), absent: "found beside cert", about: "Key file. Default: found beside cert."},
			{key: "expected_renewal", name: "ExpectedRenewal", shape: expected{}, absent: "auto", about: "When a renewal is expected: auto (when the last third of the lifetime begins, or the last half of one under 10 days), a fraction of the lifetime, a duration before the end, or manual. One that did not come is told as renewal.overdue."},
			{key: "logs", name: "Logs", shape: logs, absent: usualLogs, about: "The ACME client's logs, which tell why a renewal did not happen. An empty list: none is read."},
			{key: "server", name: "Server", shape: serverRef, absent: "observed only, never reloaded", about: "Server that is reloaded for endpoints that name no other; none: never reloaded."},
			{key: "verify", name: "Verify", shape: verifyKeys, about: "How endpoints are verified."},
			{key: "endpoints", name: "Endpoints", shape: endpoints, absent: "https:// for each DNS name of the leaf", about: "Where the certificate must be served. An empty list: only the files are watched."},
		},
		rules: []rule{
			never{"name", "cert", globPattern, hasMeta, "has a name together with a glob", "remove name: every match gets its own name"},
			never{"key", "cert", globPattern, hasMeta, "has a key together with a glob", "remove key: it is found beside every match"},
		},
		other: map[string]string{
			"path":      "write cert",
			"file":      "write cert",
			"fullchain": "write cert",
			"url":       "write endpoints: [https://www.example.org]",
			"urls":      "write endpoints: [https://www.example.org]",
			"domains":   "write endpoints: [https://www.example.org]",
			"windows":   "it belongs to a server: servers: {nginx: {unit: nginx.service, windows: [...]}}",
		},
		prepare: func(d *decoder, _ place, n *node, into reflect.Value) {
			into.Set(reflect.ValueOf(Certificate{
				Server: d.cfg.Defaults.Server, Verify: d.cfg.Defaults.Verify.clone(), Logs: slices.Clone(d.cfg.Defaults.Logs), At: position(d.file, n.line, n.column),
			}))
		},
	},
}}

const usualLogs = "certbot's own log for what lies under /etc/letsencrypt/live, else none"

var logs = list{max: 16, example: "write [{client: certbot, file: /var/log/letsencrypt/letsencrypt.log}]", elem: &object{
	example: "write {client: certbot, file: /var/log/letsencrypt/letsencrypt.log}, or {client: certbot, unit: certbot.service}",
	fields: []field{
		{key: "client", name: "Client", required: true, shape: text{enum: clients}, about: "The ACME client that writes it, which is the log's dialect."},
		{key: "file", name: "File", quiet: true, shape: absolutePath(), about: "The log file; its rotation is followed."},
		{key: "unit", name: "Unit", quiet: true, shape: text{check: checkUnit, pattern: unitPattern}, about: "systemd unit whose journal is read."},
	},
	rules: []rule{exactlyOne{[]string{"file", "unit"}, "write file: /var/log/letsencrypt/letsencrypt.log, or unit: certbot.service"}},
}}

// clients are the dialects; a test holds them against those that are spoken.
var clients = []string{"certbot", "acme.sh", "lego", "dehydrated", "uacme", "acme-tiny", "getssl", "caddy", "traefik", "mod_md",
	"nginx-acme", "haproxy", "cert-manager", "step", "simp_le", "acmetool"}

// UsualLogs are the logs of the ACME client that keeps a certificate file where it
// lies, as far as that is known: certbot's.
func UsualLogs(cert string) []ClientLog {
	if strings.HasPrefix(cert, "/etc/letsencrypt/live/") {
		return []ClientLog{{Client: "certbot", File: "/var/log/letsencrypt/letsencrypt.log"}}
	}
	return nil
}

var endpoints = list{max: 1000, example: "write [https://www.example.org]", elem: &object{
	alias: "url", example: "write https://www.example.org, or {url: https://www.example.org, server: nginx}",
	fields: []field{
		{key: "url", name: "URL", required: true, shape: address{}, about: "SCHEME://HOST[:PORT][?servername=NAME&address=IP[:PORT],IP&proxy_protocol=v2]"},
		{key: "server", name: "Server", shape: serverRef, absent: "the certificate's", about: "Server that is reloaded for this endpoint; none: never reloaded."},
		{key: "file", name: "File", shape: optionalPath(), absent: "cert itself", about: "The copy of the certificate that this server loads."},
		{key: "expect", name: "AnyValid", shape: expectation{}, about: "this: the certificate on disk; any-valid: any valid certificate for the name."},
		{key: "required", name: "Required", shape: boolean{}, about: "false: the verdict is told, but a renewal counts as verified without it. Default: true."},
	},
	prepare: func(_ *decoder, _ place, _ *node, into reflect.Value) {
		goField(into, "Required").SetBool(true)
	},
}}

// expectation is this or any-valid, kept as a bool.
type expectation struct{}

var expectations = text{enum: []string{"this", "any-valid"}}

func (expectation) decode(d *decoder, p place, n *node, into reflect.Value) {
	s := reflect.New(reflect.TypeFor[string]()).Elem()
	expectations.decode(d, p, n, s)
	into.SetBool(s.String() == "any-valid")
}

func (expectation) value(v reflect.Value) any {
	if v.Bool() {
		return "any-valid"
	}
	return "this"
}

func (expectation) schema(reflect.Value) map[string]any {
	m := expectations.schema(reflect.Value{})
	m["default"] = "this"
	return m
}

func (v Verify) clone() Verify {
	v.Retries, v.Recheck = slices.Clone(v.Retries), slices.Clone(v.Recheck)
	return v
}

func ascending(v reflect.Value) (wrong, hint string) {
	for i := 1; i < v.Len(); i++ {
		if cmp.Compare(v.Index(i-1).Int(), v.Index(i).Int()) >= 0 {
			return "must ascend", fmt.Sprintf("entry %d is not later than entry %d", i+1, i)
		}
	}
	return "", ""
}
