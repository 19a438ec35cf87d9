// Package acmelog reads what ACME clients write into their logs: which renewals
// were tried, how far they came, and why they failed. Each client's log is a
// dialect; a Parser reads one of them from a plain file, from journalctl -o json,
// from Docker's json-file or from CRI logs.
//
// What a log says is a hint, never a proof. A failing hook makes a client call a
// renewal failed whose certificate is on disk; a run that ends with
// "Congratulations" may have deployed nothing; and whoever can put text into a
// log (a CA, a web server that is quoted, a hook) can forge lines. Parsers
// therefore keep the order of a run in mind, mark what does not fit as doubtful,
// and let nothing out but extracted, bounded fields.
package acmelog

import (
	"slices"
	"time"
)

// Client names the ACME client that writes a log, and so its dialect.
type Client string

// The dialects.
const (
	Certbot     Client = "certbot"
	AcmeSh      Client = "acme.sh"
	Lego        Client = "lego" // the command line of lego, versions 4 and 5
	Dehydrated  Client = "dehydrated"
	Uacme       Client = "uacme"
	AcmeTiny    Client = "acme-tiny"
	Getssl      Client = "getssl"
	Caddy       Client = "caddy" // and every other user of certmagic that logs through zap
	Traefik     Client = "traefik"
	ModMD       Client = "mod_md"
	NginxACME   Client = "nginx-acme"
	HAProxy     Client = "haproxy"
	CertManager Client = "cert-manager"
	Step        Client = "step"
	SimpLE      Client = "simp_le"
	Acmetool    Client = "acmetool"
)

// Outcome is how an attempt ended, or that it has not.
type Outcome string

// The outcomes.
const (
	Issued  Outcome = "issued"  // a new certificate was written or staged, whatever its hooks did after that
	Failed  Outcome = "failed"  // none was
	Skipped Outcome = "skipped" // it is not due
	Stalled Outcome = "stalled" // it began, and nothing was heard of it for StallAfter
	Running Outcome = "running" // it goes on
)

// Phase is how far an attempt came: for a failed one where it failed.
type Phase string

// The phases, in their order.
const (
	PhaseClient    Phase = "client"    // the client's own trouble before it asked anybody: a lock, its configuration
	PhaseCheck     Phase = "check"     // looking whether it is due
	PhaseStart     Phase = "start"     // begun, nothing more is known
	PhaseDirectory Phase = "directory" // asking the CA for its directory, an account or a nonce
	PhaseOrder     Phase = "order"     // ordering
	PhaseChallenge Phase = "challenge" // proving control of a name
	PhaseFinalize  Phase = "finalize"  // asking for the certificate
	PhaseIssued    Phase = "issued"    // the CA gave it
	PhaseSaved     Phase = "saved"     // it was written or staged
	PhaseHook      Phase = "hook"      // a hook, a reload or an installer ran and failed
	PhaseActivated Phase = "activated" // the client says that it is in use
	PhaseDone      Phase = "done"      // the run ended as it should
)

var phases = []Phase{PhaseClient, PhaseCheck, PhaseStart, PhaseDirectory, PhaseOrder, PhaseChallenge, PhaseFinalize, PhaseIssued, PhaseSaved, PhaseHook, PhaseActivated, PhaseDone}

// rank orders the phases.
func (p Phase) rank() int { return slices.Index(phases, p) }

// Problem types besides the CA's own urn:ietf:params:acme:error:*.
const (
	Network  = "network"  // the CA could not be reached: name, connection, TLS, time out
	HTTP5xx  = "http_5xx" // it answered 500 and above, without a problem document
	problemP = "urn:ietf:params:acme:error:"
)

// StallAfter is how long nothing is heard of a running attempt until it is
// called stalled. lego, for one, sleeps a whole Retry-After without a word.
const StallAfter = 15 * time.Minute

// Bounds of what is kept.
const (
	maxText   = 512 // bytes of any text field
	maxNames  = 100 // names of one attempt; more are counted
	maxSaved  = 16  // paths of one attempt
	maxOpen   = 256 // attempts that go on at once in one log
	maxNaming = 253 // bytes of a name
)

// Attempt is one try to renew or obtain one certificate, as its log tells it.
type Attempt struct {
	Client  Client `json:"client"`
	Log     string `json:"log"`               // where it was read
	Lineage string `json:"lineage,omitempty"` // the client's name for the certificate, where it has one
	// Names are the names asked for, as far as the log spells them out.
	Names []string `json:"names"`
	// NamesOmitted counts those it does not ("a.example and 4 more").
	NamesOmitted int    `json:"names_omitted,omitempty"`
	CA           string `json:"ca,omitempty"` // the directory's URL
	Staging      bool   `json:"staging"`      // that is a test CA
	DryRun       bool   `json:"dry_run"`
	Forced       bool   `json:"forced"`
	// Started and Ended are zero where the log has no times and its transport
	// neither.
	Started time.Time `json:"started,omitzero"`
	Ended   time.Time `json:"ended,omitzero"`
	Outcome Outcome   `json:"outcome"`
	Phase   Phase     `json:"phase"`
	// ProblemType is the CA's urn:ietf:params:acme:error:*, in full, or Network or
	// HTTP5xx; empty where the log does not say.
	ProblemType   string `json:"problem_type,omitempty"`
	ProblemDetail string `json:"problem_detail,omitempty"`
	// Problems are those of single names, where the log tells more than one.
	Problems []Problem `json:"problems,omitempty"`
	// RetryAfter is when the CA allows the next try.
	RetryAfter time.Time `json:"retry_after,omitzero"`
	// Paused: the CA has paused the account for these names; only a person can end
	// that, on the CA's page.
	Paused bool `json:"paused,omitempty"`
	// Saved are the files that were written.
	Saved []string `json:"saved"`
	// Hook is the first hook or reload that failed.
	Hook *Hook `json:"hook,omitempty"`
	// Activated: the client says that the certificate is in use.
	Activated bool `json:"activated"`
	// Doubtful: the log tells it in a way that this client does not; somebody may
	// have forged lines.
	Doubtful bool `json:"doubtful"`

	// Offset is where in the text its first line begins, in bytes from the first
	// that was given to the Parser.
	Offset int64 `json:"-"`
	// Nth tells those apart that begin on one line: 0, 1 and so on.
	Nth int `json:"-"`
	// Run is where the run that it belongs to begins, as far as its log tells; at
	// most Offset.
	Run int64 `json:"-"`

	serial uint64 // the how-manieth of its Parser
}

// Problem is what the CA found wrong with one name.
type Problem struct {
	Name   string `json:"name"`
	Type   string `json:"type,omitempty"`
	Detail string `json:"detail,omitempty"`
}

// Hook is a hook that failed.
type Hook struct {
	Kind     string `json:"kind"`      // pre, deploy, post, renew, reload, notify, install
	ExitCode int    `json:"exit_code"` // -1: unknown
}

// Exit is how a client's process ended.
type Exit struct {
	At   time.Time
	Code int // exit status; -1: it is only known that it ended
}
