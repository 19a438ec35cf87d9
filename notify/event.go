// Package notify holds what renewatch tells the world: the event contract
// (CloudEvents 1.0, structured JSON), the journal every event is fsynced to
// before anything else happens with it, and the one ordered sender that brings
// the journal to NATS.
package notify

import "time"

// Severity is how bad a verdict or an event is.
type Severity string

// The severities, mildest first.
const (
	Info     Severity = "info"
	Warning  Severity = "warning"
	Error    Severity = "error"
	Critical Severity = "critical"
)

// Rank orders severities: 0 for info up to 3 for critical; an unknown one ranks
// as critical, because nobody may overlook it.
func (s Severity) Rank() int {
	switch s {
	case Info, "":
		return 0
	case Warning:
		return 1
	case Error:
		return 2
	}
	return 3
}

// Kind is the class and the outcome of an event, "class.outcome".
type Kind string

// Every kind of event. Readers must expect more.
const (
	AgentStarted   Kind = "agent.started"
	AgentStopped   Kind = "agent.stopped"
	AgentDegraded  Kind = "agent.degraded"
	AgentRecovered Kind = "agent.recovered"

	RenewalAttempted Kind = "renewal.attempted"
	RenewalFailed    Kind = "renewal.failed"
	RenewalDetected  Kind = "renewal.detected"
	RenewalOverdue   Kind = "renewal.overdue"

	FileBroken    Kind = "file.broken"
	FileRecovered Kind = "file.recovered"
	FileReverted  Kind = "file.reverted"
	FileRemoved   Kind = "file.removed"

	DeployVerified   Kind = "deploy.verified"
	DeployFailed     Kind = "deploy.failed"
	DeployRecovered  Kind = "deploy.recovered"
	DeployUnverified Kind = "deploy.unverified"
	DeploySuperseded Kind = "deploy.superseded"
	DeployLost       Kind = "deploy.lost"

	ReloadDone   Kind = "reload.done"
	ReloadFailed Kind = "reload.failed"
	ReloadHeld   Kind = "reload.held"

	ExpiryWarning  Kind = "expiry.warning"
	ExpiryError    Kind = "expiry.error"
	ExpiryCritical Kind = "expiry.critical"

	// What a person must know: one alert for each host and certificate.
	AlertWarning  Kind = "alert.warning"
	AlertError    Kind = "alert.error"
	AlertCritical Kind = "alert.critical"
	AlertCleared  Kind = "alert.cleared"
)

// AgentCertificate is the certificate name the daemon uses when it speaks of
// itself. Certificates cannot be named so: names starting with "_" are refused.
const AgentCertificate = "_agent"

// Draft is an event before the journal gives it its place. The id of the
// finished event is a hash of host, instance, Certificate, Transition, Leaf and
// Occurrence: the same draft handed in twice (after a kill, say) is one event.
type Draft struct {
	Kind        Kind      `json:"kind"`
	Certificate string    `json:"certificate"` // the certificate's real name, or AgentCertificate
	Time        time.Time `json:"time"`        // when it happened; told in UTC
	Transition  string    `json:"transition"`  // what happened, as a stable word; "" means Kind
	Leaf        string    `json:"leaf"`        // SHA-256 of the leaf it is about, lower-case hex; may be empty
	Occurrence  uint64    `json:"occurrence"`  // the how-manieth of its sort; persisted by the caller
	Data        Data      `json:"data"`        // Data.Host is filled in by the journal
}

// Event is one CloudEvent as it stands in the journal and on the wire.
type Event struct {
	SpecVersion     string    `json:"specversion"`     // "1.0"
	ID              string    `json:"id"`              // dedupe key; also the Nats-Msg-Id
	Source          string    `json:"source"`          // //<host>/renewatch
	Type            string    `json:"type"`            // io.renewatch.<class>.<outcome>.v1
	Subject         string    `json:"subject"`         // the certificate's name
	Time            time.Time `json:"time"`            // RFC 3339, UTC
	DataContentType string    `json:"datacontenttype"` // application/json
	DataSchema      string    `json:"dataschema"`      // URN of the JSON Schema of data
	Sequence        string    `json:"sequence"`        // 20 digits, zero-padded, from 1 per instance
	Data            Data      `json:"data"`
}

// Data is what an event says. What is unknown is absent.
type Data struct {
	Host            string       `json:"host"`
	Severity        Severity     `json:"severity"`
	Certificate     *Certificate `json:"certificate,omitempty"`
	Previous        *Certificate `json:"previous,omitempty"`
	Verdicts        []Verdict    `json:"verdicts,omitempty"`
	VerdictsOmitted int          `json:"verdicts_omitted,omitempty"`
	Excluded        []Excluded   `json:"excluded,omitempty"`
	ExcludedOmitted int          `json:"excluded_omitted,omitempty"`
	Cause           string       `json:"cause,omitempty"`
	Detail          string       `json:"detail,omitempty"`
	Hint            string       `json:"hint,omitempty"`
	LagSeconds      *float64     `json:"lag_seconds,omitempty"` // from the new files to the last address serving them
	Attempt         *Attempt     `json:"attempt,omitempty"`     // of the ACME client, as its log tells it
	Tried           *bool        `json:"tried,omitempty"`       // with renewal.overdue: whether the log knows of any attempt
	Reload          *Reload      `json:"reload,omitempty"`
	Next            *Next        `json:"next,omitempty"`
	Alert           *Alert       `json:"alert,omitempty"`
	RenewalID       string       `json:"renewal_id,omitempty"`
	Silenced        bool         `json:"silenced,omitempty"`
}

// Certificate describes a leaf.
type Certificate struct {
	Name         string    `json:"name,omitempty"`          // the certificate's name in renewatch
	SHA256       string    `json:"sha256,omitempty"`        // of the DER, lower-case hex
	Serial       string    `json:"serial,omitempty"`        // lower-case hex
	Names        []string  `json:"names,omitempty"`         // DNS names and IP addresses
	NamesOmitted int       `json:"names_omitted,omitempty"` // cut off where the event was too large
	Issuer       string    `json:"issuer,omitempty"`
	NotBefore    time.Time `json:"not_before,omitzero"`
	NotAfter     time.Time `json:"not_after,omitzero"`
	KeyType      string    `json:"key_type,omitempty"` // rsa, ecdsa, ed25519
	Path         string    `json:"path,omitempty"`
}

// Verdict is what one address of one endpoint was found to serve.
type Verdict struct {
	Certificate    string   `json:"certificate"`
	Endpoint       string   `json:"endpoint"`
	Server         string   `json:"server"`
	Address        string   `json:"address"` // ip:port; empty when nothing was resolved
	Transport      string   `json:"transport"`
	KeyType        string   `json:"key_type"`
	Code           string   `json:"code"`
	Faults         []string `json:"faults"` // worst first; [] when serving
	Severity       Severity `json:"severity"`
	Served         *Served  `json:"served,omitempty"`
	ExpectedSHA256 string   `json:"expected_sha256,omitempty"`
	Samples        int      `json:"samples"`
	Matching       int      `json:"matching"`
	TookMS         int64    `json:"took_ms"`
	Detail         string   `json:"detail"`
	Hint           string   `json:"hint"` // what to do; empty when nothing is
}

// Served is the chain a server presented.
type Served struct {
	SHA256       string    `json:"sha256"`
	Serial       string    `json:"serial"`
	Names        []string  `json:"names"`
	NamesOmitted int       `json:"names_omitted,omitempty"` // cut off where the event was too large
	NotBefore    time.Time `json:"not_before"`
	NotAfter     time.Time `json:"not_after"`
	Issuer       string    `json:"issuer"`
	Chain        []string  `json:"chain"` // SHA-256 of every certificate, as served, leaf first
}

// Excluded is an endpoint address that was tested but does not count.
type Excluded struct {
	Endpoint string `json:"endpoint"`
	Address  string `json:"address,omitempty"`
	Code     string `json:"code"`
	Why      string `json:"why"` // not_required, unconfirmed, silenced, sibling, not_testable, unverifiable
}

// Reload is one reload of one server.
type Reload struct {
	Server   string `json:"server"`
	How      string `json:"how,omitempty"` // unit, command, signal, test; empty when nothing was run
	ExitCode *int   `json:"exit_code,omitempty"`
	Output   string `json:"output,omitempty"` // at most 2 KiB, printable
	TookMS   *int64 `json:"took_ms,omitempty"`
}

// Attempt is one try of an ACME client to renew or obtain a certificate, as its
// log tells it: a hint at what happened, never a proof. `renewatch explain --json`
// prints the same.
type Attempt struct {
	Client       string    `json:"client"`                  // certbot, acme.sh, lego, caddy, ...
	Log          string    `json:"log"`                     // the file, or the unit, it was read from
	Lineage      string    `json:"lineage,omitempty"`       // the client's name for the certificate
	Names        []string  `json:"names"`                   // as far as the log spells them out
	NamesOmitted int       `json:"names_omitted,omitempty"` // how many it does not
	CA           string    `json:"ca,omitempty"`            // the directory's URL
	Staging      bool      `json:"staging"`                 // that is a test CA
	DryRun       bool      `json:"dry_run"`
	Forced       bool      `json:"forced"`
	Started      time.Time `json:"started,omitzero"`
	Ended        time.Time `json:"ended,omitzero"`
	Outcome      string    `json:"outcome"` // issued, failed, skipped, stalled, running
	Phase        string    `json:"phase"`   // how far it came
	// ProblemType is the CA's urn:ietf:params:acme:error:*, or network, or http_5xx.
	ProblemType   string           `json:"problem_type,omitempty"`
	ProblemDetail string           `json:"problem_detail,omitempty"`
	Problems      []AttemptProblem `json:"problems,omitempty"`   // of single names
	RetryAfter    time.Time        `json:"retry_after,omitzero"` // when the CA allows the next try
	Paused        bool             `json:"paused,omitempty"`     // the CA has paused the account; only a person can end that
	Saved         []string         `json:"saved"`                // files that were written
	Hook          *AttemptHook     `json:"hook,omitempty"`       // the first hook that failed
	Activated     bool             `json:"activated"`            // the client says that the certificate is in use
	Doubtful      bool             `json:"doubtful"`             // the log tells it in a way that this client does not
}

// AttemptProblem is what the CA found wrong with one name.
type AttemptProblem struct {
	Name   string `json:"name"`
	Type   string `json:"type,omitempty"`
	Detail string `json:"detail,omitempty"`
}

// AttemptHook is a hook that failed.
type AttemptHook struct {
	Kind     string `json:"kind"`      // pre, deploy, post, renew, reload, notify, install
	ExitCode int    `json:"exit_code"` // -1: unknown
}

// Alert is the one alert of a host and certificate that an alert.* event is about.
type Alert struct {
	ID       string    `json:"id"`                 // stable from the first alert until it is cleared, and for 24 h after
	Since    time.Time `json:"since"`              // when what it is about was first seen
	Reminder bool      `json:"reminder,omitempty"` // nothing has changed since it was said before
}

// Next is what happens next by itself, or that a person is needed.
type Next struct {
	Action string    `json:"action"` // wait, probe, reload, renew, person
	At     time.Time `json:"at,omitzero"`
}
