// Package config turns configuration text into typed values, strictly: what is
// unknown, doubled, mistyped or out of range is an error with file, line, column
// and a hint, and all errors of a file are told at once.
package config

import (
	"time"

	"github.com/renewatch/renewatch/verify"
)

// Config is one whole configuration, every default filled in.
type Config struct {
	StateDir string
	Host     string // empty: the FQDN, found at start
	Log      Log
	NATS     NATS
	HTTP     HTTP
	Journal  Journal
	// Servers by name.
	Servers map[string]Server
	// Defaults hold for certificates that do not say otherwise; they are merged
	// into Certificates already.
	Defaults Defaults
	// Certificates in the order of the files, main file first.
	Certificates []Certificate
	// Files that were read, the main one first.
	Files []string
	// Origins says where values come from, by key, e.g. nats.url or
	// certificates[0].verify.samples (certificates counted over all files). A key
	// that is not in it has its default.
	Origins map[string]Origin

	notes []*Warning // found while loading
}

// Source is the kind of thing a value comes from.
type Source string

// The sources.
const (
	FromFile    Source = "file"
	FromFlag    Source = "flag"
	FromEnv     Source = "env"
	FromDefault Source = "default"
)

// Origin is where one value comes from.
type Origin struct {
	Kind         Source
	Name         string // the file, flag or variable
	Line, Column int    // in a file
}

// String returns file:line:column, "flag --state-dir", "env NATS_URL" or "default".
func (o Origin) String() string {
	switch o.Kind {
	case FromFile:
		return position(o.Name, o.Line, o.Column)
	case FromFlag, FromEnv:
		return string(o.Kind) + " " + o.Name
	}
	return string(FromDefault)
}

// Defaults hold for every certificate that does not say otherwise.
type Defaults struct {
	Server string
	Verify Verify
	Logs   []ClientLog // as Certificate.Logs
}

// UsesEmbedded reports whether events go to the embedded NATS server.
func (n NATS) UsesEmbedded() bool { return n.Enabled && len(n.URLs) == 0 && n.Embedded.Enabled }

// Log says how the program logs.
type Log struct {
	Level  string // trace, debug, info, warn, error
	Format string // auto, console, json, journal
}

// NATS says where events go.
type NATS struct {
	Enabled      bool
	URLs         []string // empty: the embedded server, when enabled
	Creds        string   // path of a credentials file
	NKey         string   // path of a seed file
	TokenFile    string
	Token        string // from NATS_TOKEN only; a secret
	User         string
	PasswordFile string
	Password     string // from NATS_PASSWORD only; a secret
	TLS          TLS
	Prefix       string
	Mode         string // jetstream or core
	Stream       string
	EnsureStream bool
	Embedded     Embedded
}

// TLS says how to speak TLS with NATS.
type TLS struct {
	CA    string
	Cert  string
	Key   string
	First bool // handshake before INFO
}

// Embedded says how the embedded NATS server runs.
type Embedded struct {
	Enabled  bool
	Listen   string // host:port; port 0 is any free one
	MaxStore int64  // bytes
}

// HTTP says where /healthz and /readyz are.
type HTTP struct {
	Enabled bool
	Listen  string
}

// Journal says how long events are kept.
type Journal struct {
	Keep    time.Duration
	MaxSize int64 // bytes
}

// Server is a program that serves certificates, and how it is reloaded.
type Server struct {
	Name string
	Way  Way
	Test []string // run before a reload; a failure holds it
	Then *Way     // another way, tried last
	// Windows in which it may be reloaded; nil: at any time.
	Windows []Window
}

// Window is a span of local time in which a server may be reloaded.
type Window struct {
	// Days on which it begins, Monday first, each once; nil: every day.
	Days []time.Weekday
	// From and To are what the clock shows, as time since midnight; never equal. A
	// To before From is on the next day; it can be 24 h.
	From, To time.Duration
	// Zone of that clock; nil: the host's.
	Zone *time.Location
}

// Way is one way to reload: exactly one of Unit, Command and Signal is set.
type Way struct {
	Unit    string
	Command []string // no shell
	Signal  string   // HUP, USR1, USR2 ...; with PIDFile
	PIDFile string
}

// None is the server name that means: never reloaded.
const None = "none"

// Certificate is one watched certificate, or a glob of them.
type Certificate struct {
	Name string // empty with a glob
	Cert string
	Key  string // empty: found beside Cert
	// ExpectedRenewal is auto (or ""), manual, a fraction of the lifetime or a
	// duration before the end.
	ExpectedRenewal string
	// Logs are the ACME client's; nil: those that are usual for where Cert lies, see
	// UsualLogs. Empty but not nil: none is read.
	Logs   []ClientLog
	Server string // the certificate's or the default server; "" or None: never reloaded
	Verify Verify
	// Endpoints; nil: the default ones (https:// for each DNS name of the leaf).
	// Empty but not nil: none, the files are watched only.
	Endpoints []Endpoint
	// Where the certificate was declared, file:line:column.
	At string
}

// Glob reports whether Cert is a pattern.
func (c Certificate) Glob() bool { return hasMeta(c.Cert) }

// ClientLog is a log that an ACME client writes: a file, or the journal of a unit.
type ClientLog struct {
	Client string
	File   string
	Unit   string
}

// Verify says how a certificate's endpoints are verified.
type Verify struct {
	CA       string // PEM bundle trusted besides the system roots
	Samples  int
	Spread   time.Duration
	Grace    time.Duration
	Deadline time.Duration
	Retries  []time.Duration
	Recheck  []time.Duration
	Every    time.Duration
	Timeout  time.Duration
}

// Endpoint is one place where the certificate must be served.
type Endpoint struct {
	URL      verify.Endpoint
	Text     string // the URL as it was written
	Server   string // empty: the certificate's
	File     string // the copy this consumer loads; empty: Cert itself
	AnyValid bool   // expect: any-valid
	Required bool
}
