package watch

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/renewatch/renewatch/watch/acmelog"
)

// Log is one log that an ACME client writes. Exactly one of File and Unit is set.
type Log struct {
	Client acmelog.Client
	File   string // absolute path
	Unit   string // systemd unit; read with journalctl
}

// String names the log as its attempts do.
func (l Log) String() string {
	if l.Unit != "" {
		return "journal:" + l.Unit
	}
	return l.File
}

// What is heard of logs, besides Blind and Sighted.
const (
	// Attempted: a log tells of an attempt that began, or that ended.
	Attempted Kind = "attempted"
	// Lost: something that was written to a log cannot be read any more, or may
	// have been; Fault says when that was.
	Lost Kind = "lost"
)

// The troubles of logs.
const (
	// LogTruncated: the file was cut off while it was followed.
	LogTruncated FaultCode = "log_truncated"
	// LogGone: the file that was followed is neither there nor among those that
	// were rotated.
	LogGone FaultCode = "log_gone"
	// NoDialect: nobody here speaks the client's dialect, or the log is not named
	// as it must be.
	NoDialect FaultCode = "no_dialect"
	// NoJournal: the journal cannot be read: there is none, or no journalctl.
	NoJournal FaultCode = "no_journal"
	// NotKept: how far a log was read cannot be written down.
	NotKept FaultCode = "position_not_kept"
)

// Heard is what a log told.
type Heard struct {
	// Log is where it was heard. Zero with Blind and Sighted of all logs.
	Log Log
	// Attempt is there with Attempted. One that is Running or Stalled comes again,
	// with the same ID.
	Attempt *acmelog.Attempt
	// ID is the attempt's: the same when it is told again, after a restart too.
	ID    string
	Kind  Kind   // Attempted, Blind, Sighted or Lost
	Fault *Fault // with Blind and Lost; with Sighted the one that is over
	Time  time.Time
	// Old: it was written before this log was first followed. Of that only the
	// last run is told.
	Old bool
}

// LogOptions are the options of Logs.
type LogOptions struct {
	// Dir is where it is kept how far each log was read: one small file a log. It
	// must be there. Required.
	Dir string
	// Deliver is told what was heard, and returns once that is kept: only then is
	// the log read on, and the position moves. After an error it is told the same
	// again, a second later at first and once a minute in the end. It is called by
	// one goroutine. Required.
	Deliver func(ctx context.Context, heard []Heard) error
	// Poll is how often every file is looked at whether or not there were events.
	// Default and zero: 1 min.
	Poll time.Duration
	// Now says what time it is. Nil: time.Now.
	Now func() time.Time
	// Location is the time zone of logs that print local times without one. Nil:
	// time.Local.
	Location *time.Location
	// Journalctl is the program that reads the journal, with its first arguments,
	// such as --directory=/host/journal. Nil: journalctl.
	Journalctl []string
	// Beat is called by the running loop, at least every 5 s, but for the time that
	// Deliver takes. It must not block. Nil: nothing is called, and while no log is
	// written to nothing wakes up but for Poll.
	Beat func()
}

const (
	defaultPoll = time.Minute
	// keepPosition is for how long the position of a log is kept that nobody
	// follows any more.
	keepPosition = 30 * 24 * time.Hour
)

// Logs follows the logs of ACME clients: through every way in which they are
// rotated, and from where it stopped after a restart. Its methods may be called
// at the same time.
type Logs struct {
	o       LogOptions
	running atomic.Bool
	wake    chan struct{} // Set or Ended was called

	mu    sync.Mutex
	logs  []Log
	ended []ending

	// listen makes what reads a log's text; nil when there is no such client.
	listen func(Log) ear
}

// ending is the end of a unit's run.
type ending struct {
	unit string
	exit acmelog.Exit
}

// maxEndings bounds the ends of runs that wait for the loop.
const maxEndings = 256

// NewLogs returns Logs that follow none yet; nothing is read before Run.
func NewLogs(o LogOptions) *Logs {
	if o.Poll <= 0 {
		o.Poll = defaultPoll
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if len(o.Journalctl) == 0 {
		o.Journalctl = []string{"journalctl"}
	}
	f := &Logs{o: o, wake: make(chan struct{}, 1)}
	f.listen = func(l Log) ear {
		p := acmelog.NewParser(acmelog.Options{Client: l.Client, Log: l.String(), Location: o.Location})
		if p == nil {
			return nil
		}
		return p
	}
	return f
}

// Set replaces the logs, before Run or while it runs. Those that are no longer
// followed are closed; how far they were read is kept for 30 days.
func (f *Logs) Set(logs []Log) {
	unique := make([]Log, 0, len(logs))
	for _, l := range logs {
		if l.File != "" {
			l.File = filepath.Clean(l.File)
		}
		if l.Unit != "" {
			l.Unit = unitName(l.Unit)
		}
		if !slices.Contains(unique, l) {
			unique = append(unique, l)
		}
	}
	f.mu.Lock()
	f.logs = unique
	f.mu.Unlock()
	signal(f.wake)
}

// Ended tells that a unit's run ended, as its manager says. What the unit wrote
// before that is read first.
func (f *Logs) Ended(unit string, e acmelog.Exit) {
	f.mu.Lock()
	if len(f.ended) < maxEndings {
		f.ended = append(f.ended, ending{unitName(unit), e})
	}
	f.mu.Unlock()
	signal(f.wake)
}

// Run follows the logs until ctx ends, and returns nil then; nothing of it is
// running any more. It reports an error only when it is running already or when
// options are missing.
func (f *Logs) Run(ctx context.Context) error {
	switch {
	case f.o.Deliver == nil:
		return errors.New("nobody takes what is heard of the logs: LogOptions.Deliver is missing")
	case f.o.Dir == "":
		return errors.New("there is no place to keep how far logs were read: LogOptions.Dir is missing")
	case !f.running.CompareAndSwap(false, true):
		return errors.New("these logs are followed already")
	}
	defer f.running.Store(false)
	newFollower(f).run(ctx)
	return nil
}

// current returns the logs, and the ends of runs that came since.
func (f *Logs) current() ([]Log, []ending) {
	f.mu.Lock()
	defer f.mu.Unlock()
	ended := f.ended
	f.ended = nil
	return f.logs, ended
}
