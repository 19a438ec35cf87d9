package watchdog

import (
	"context"
	"crypto/x509"
	"net/netip"
	"time"

	"github.com/rs/zerolog"

	"github.com/renewatch/renewatch/internal/reload"
	"github.com/renewatch/renewatch/notify"
	"github.com/renewatch/renewatch/verify"
	"github.com/renewatch/renewatch/watch"
)

// Certificate is one configured certificate, or a glob of them.
type Certificate struct {
	Source watch.Source
	// Policy holds the times; Name, Host and Instance are filled in.
	Policy Policy
	// Server is reloaded for endpoints that name no other; "": none.
	Server string
	// Endpoints; nil: https:// for each DNS name of the leaf.
	Endpoints []Endpoint
	// Roots are trusted.
	Roots Roots
	// Logs are the ACME client's.
	Logs []watch.Log
	// CA is what Roots were read from, see Keeper.RefreshRoots.
	CA string
	// Timeout of one sample; 0: the Prober's.
	Timeout time.Duration
}

// Roots are the trusted root certificates.
type Roots struct {
	Pool *x509.CertPool // nil: the system's
	// Impaired says why nothing can be judged by them (there are none, say); ""
	// when it can.
	Impaired string
}

func (r Roots) equal(o Roots) bool {
	return r.Impaired == o.Impaired && (r.Pool == nil) == (o.Pool == nil) && (r.Pool == nil || r.Pool.Equal(o.Pool))
}

// Endpoint is one place where a certificate must be served.
type Endpoint struct {
	URL      verify.Endpoint
	Text     string // as it was written; told in verdicts; "": URL's canonical form
	Server   string // empty: the certificate's
	File     string // the copy this consumer loads; empty: none
	AnyValid bool
	Required bool
}

// Prober looks at endpoints; a *verify.Prober is one.
type Prober interface {
	Check(ctx context.Context, t verify.Target, samples int) []verify.Verdict
	Round(ctx context.Context, t verify.Target, samples int, patience verify.Patience) []verify.Verdict
	Confirm(ctx context.Context, t verify.Target, w verify.Window) []verify.Verdict
}

// Journal keeps events; a *notify.Journal is one.
type Journal interface {
	Append(...notify.Draft) ([]notify.Event, error)
	// Last is the sequence of the last event; no counter of ours is behind it.
	Last() uint64
}

// Reloader reloads a server once; a reload.Runner is one.
type Reloader interface {
	Run(ctx context.Context, s reload.Server, step reload.Step, touch []string) reload.Result
}

// Setup is what the keeper takes from a configuration.
type Setup struct {
	Certificates []Certificate
	Servers      map[string]reload.Server
	// Windows say when a server may be reloaded; one that is not in it: always.
	Windows map[string]Window
}

// Options is what a Keeper needs. Every field is required unless it says else.
type Options struct {
	StateDir string
	Host     string
	Instance string
	Version  string // told by agent.started
	Journal  Journal
	Watcher  Watcher
	Prober   Prober
	Reloader Reloader
	Limits   reload.Limits // zero: the defaults
	// Silences that hold from the start; see Keeper.SetSilences.
	Silences []Silenced
	// Pairs returns the certificates and keys that a server loads by its own
	// configuration; nil: only those that are watched are known.
	Pairs func(ctx context.Context, s reload.Server) []Pair
	// Client reports whether a run of the ACME client goes on that may have written
	// the certificate file at path; nil: none can be seen.
	Client func(ctx context.Context, path string) bool
	// Advise says what is unfortunate about where files lie (a mount of a single
	// file, say), for the log; may be nil.
	Advise func(paths []string) []Advice
	// Ask asks CAs when they want certificates renewed; nil: none is asked.
	Ask Asker
	// Logs follows the logs of ACME clients; nil: none is read. What it hears goes to
	// Keeper.Heard.
	Logs Logs
	// Scanned reports whether the files were looked at once since the start; nil:
	// they were. What logs tell waits for it.
	Scanned func() bool
	// Listener names the process that has listened at an address of this host since
	// before a time; "" when there is none or it may not be seen. May be nil.
	Listener func(ctx context.Context, at netip.AddrPort, before time.Time) string
	// Resolver, when not nil, is the one that the probers use.
	Resolver *Resolver
	// BuildTime is when this program was built; zero: unknown. A clock before it
	// is wrong.
	BuildTime time.Time
	// Clock; nil: the system's.
	Clock Clock
	// Draw returns a random number in [0, 1); nil: math/rand's.
	Draw func() float64
	// Newest is the time of the newest event in the journal; zero: none. A clock
	// over a minute before it is wrong.
	Newest time.Time
	Log    zerolog.Logger
	// Beat is called at least every BeatEvery while the loop runs; may be nil.
	Beat func()
}

// BeatEvery is how often the loop beats at least.
const BeatEvery = 10 * time.Second

// Advice is a sentence for the log and what to do.
type Advice struct{ Path, Sentence, Hint string }

// Watcher watches files; a *watch.Watcher is one.
type Watcher interface {
	Run(ctx context.Context, out chan<- watch.Observation) error
	Set([]watch.Source)
}
