package watchdog

import (
	"time"

	"github.com/renewatch/renewatch/notify"
)

// Input is one thing that happened; at most one field is set. An Input with
// none is a tick: time has passed.
type Input struct {
	Boot    bool // the daemon has started
	Gap     bool // nobody looked for more than two minutes (suspend)
	Seen    *Seen
	Fault   *Fault // Since and Said are ignored
	Removed bool
	Round   *Round
	Reload  *ReloadReport
	Look    bool // probe now (the configuration changed)
	Left    bool // it is not configured any more
	Client  *ClientRun
	Told    *Told
	// Answered is the CA's answer to an Ask.
	Answered *Answered

	// Impaired says why nothing can be judged just now (a wrong clock, say); ""
	// when it can. It goes with every input.
	Impaired string

	// Draw is a fresh random number in [0, 1): the only chance Step has.
	Draw float64
}

// Seen is a sound, settled sight of the files.
type Seen struct {
	Leaf    notify.Certificate
	Since   time.Time // first sign of the change
	Facts   Facts
	History []Known // known from elsewhere, such as certbot's archive
	Chain   []DER   // the file's certificates, leaf first
}

// ClientRun tells whether a run of the ACME client goes on that may have written
// the certificate.
type ClientRun struct{ Running bool }

// Round is the outcome of a Probe.
type Round struct {
	ID       uint64
	Findings []Finding
	Facts    *Facts // the files, read again when the round ended; nil: unreadable just now
	// Impaired says why the verifier cannot be trusted just now; "" when it can.
	Impaired string
}

// ReloadReport is the outcome of a Reload command: run, held or interrupted.
type ReloadReport struct {
	ID          string // of the Reload command
	Server      string
	Run         string // id of the run; several requests may share one
	OK          bool
	Reload      notify.Reload
	Detail      string
	Hint        string
	Shared      int    // how many requests the run served
	Held        string // a cause: not run
	OpensAt     time.Time
	Interrupted bool // a kill came in between; how it ended is unknown
	Dropped     bool // it was not run, and is forgotten
	RenewalID   string
}

// Command is what the shell must do next. Events are no commands: they stand in
// State.Outbox, so that they are persisted with the state that decided them.
type Command interface{ command() }

// Probe asks for verdicts. A newer Probe replaces one that still runs.
type Probe struct {
	ID      uint64    `json:"id"`
	Purpose Purpose   `json:"purpose"`
	Samples int       `json:"samples"`
	Until   time.Time `json:"until,omitzero"` // Confirm: the latest end
	// Fast is the change after which polling is fast for a while.
	Fast time.Time `json:"fast,omitzero"`
	At   time.Time `json:"at"` // when it was asked for
}

// Reload asks for one reload of a server.
type Reload struct {
	ID        string // unique: certificate, renewal and attempt
	Server    string
	Step      string // reload.First, Touch, Last
	RenewalID string
	Attempt   int
	Urgent    bool // it does not wait for the server's window
}

// Drop withdraws a Reload that has not started.
type Drop struct{ ID, Server string }

// Proved says that a reload was followed by serving.
type Proved struct{ Server, Run string }

func (Probe) command()  {}
func (Reload) command() {}
func (Drop) command()   {}
func (Proved) command() {}
