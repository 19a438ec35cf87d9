package watchdog

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/renewatch/renewatch/internal/durable"
	"github.com/renewatch/renewatch/notify"
)

// agent tells of the daemon itself: that it runs, and where it is blind or deaf.
type agent struct {
	k    *Keeper
	path string
	s    agentState

	start   time.Time
	settled bool
}

type agentState struct {
	Version  int                 `json:"version"`
	Events   uint64              `json:"events"`
	Troubles map[string]*Trouble `json:"troubles,omitempty"`
	Outbox   []notify.Draft      `json:"outbox,omitempty"`
}

// Trouble is one way in which the daemon is blind or deaf.
type Trouble struct {
	Detail string    `json:"detail"`
	Hint   string    `json:"hint,omitempty"`
	Since  time.Time `json:"since"`

	raised bool // in this run of the daemon
}

func loadAgent(k *Keeper) (*agent, error) {
	a := &agent{k: k, start: time.Now(), path: filepath.Join(k.o.StateDir, "agent.json")}
	err := readJSON(a.path, &a.s)
	for _, t := range a.s.Troubles {
		if t == nil {
			err = errors.New("a trouble without content")
		}
	}
	if err != nil {
		a.s = agentState{}
		if !errors.Is(err, fs.ErrNotExist) {
			k.log.Error().Err(err).Msg("what was remembered of the daemon cannot be read; it is put aside")
			if err := putAside(a.path); err != nil {
				return nil, err
			}
		}
	}
	if a.s.Events == 0 {
		a.s.Events = k.o.Journal.Last() // never to make an identifier twice
	}
	if a.s.Version > StateVersion {
		return nil, fmt.Errorf("%s: %w (version %d, this one knows %d)", a.path, ErrNewerState, a.s.Version, StateVersion)
	}
	a.s.Version = StateVersion
	if a.s.Troubles == nil {
		a.s.Troubles = map[string]*Trouble{}
	}
	return a, nil
}

func (a *agent) write() error {
	now := make(map[string]Trouble, len(a.s.Troubles))
	for key, t := range a.s.Troubles {
		now[key] = *t
	}
	a.k.troubles.Store(&now)
	data, err := json.Marshal(a.s)
	if err != nil {
		return err
	}
	return durable.WriteFile(a.path, data, 0o600)
}

func (a *agent) say(kind notify.Kind, sev notify.Severity, fill func(*notify.Data)) {
	a.s.Events++
	d := notify.Draft{Kind: kind, Certificate: notify.AgentCertificate, Time: time.Now(), Occurrence: a.s.Events}
	d.Data.Severity = sev
	fill(&d.Data)
	a.s.Outbox = append(a.s.Outbox, d)
	if err := a.write(); err != nil {
		a.k.log.Error().Err(err).Msg("the state directory cannot be written")
	}
	a.flush()
}

// flush brings what waits into the journal.
func (a *agent) flush() {
	if len(a.s.Outbox) == 0 || !a.k.tell(a.s.Outbox) {
		return
	}
	a.s.Outbox = nil
	if err := a.write(); err != nil {
		a.k.log.Error().Err(err).Msg("the state directory cannot be written")
	}
}

// started is the first thing said. It fails when nothing can be written.
func (a *agent) started() error {
	if err := a.write(); err != nil {
		return err
	}
	a.flush()
	a.say(notify.AgentStarted, notify.Info, func(d *notify.Data) {
		d.Detail = "renewatch " + a.k.o.Version + " watches"
	})
	return nil
}

func (a *agent) stopped() error {
	a.say(notify.AgentStopped, notify.Info, func(d *notify.Data) { d.Detail = "renewatch stopped; nothing is watched until it starts again" })
	if len(a.s.Outbox) > 0 {
		return errors.New("the last events could not be journaled; they are kept in the state directory")
	}
	return nil
}

// raise says that something is wrong, once until it is cleared. The part of key
// before a colon is told as the cause.
func (a *agent) raise(key, detail, hint string) {
	if t := a.s.Troubles[key]; t != nil {
		t.Detail, t.Hint, t.raised = detail, hint, true
		return
	}
	a.s.Troubles[key] = &Trouble{Detail: detail, Hint: hint, Since: time.Now(), raised: true}
	a.say(notify.AgentDegraded, notify.Error, func(d *notify.Data) {
		d.Cause, _, _ = strings.Cut(key, ":")
		d.Detail, d.Hint = detail, hint
	})
}

// settleAfter is how long after the start a trouble of the run before may take to
// show again.
const settleAfter = 2 * time.Minute

// settle clears what the run before this one was troubled by and this one is not.
func (a *agent) settle(now time.Time) {
	if a.settled || now.Sub(a.start) < settleAfter {
		return
	}
	a.settled = true
	for _, key := range sortedKeys(a.s.Troubles) {
		if !a.s.Troubles[key].raised {
			a.clear(key)
		}
	}
}

func (a *agent) has(key string) bool { return a.s.Troubles[key] != nil }

// clear says that a trouble is over; nothing when there was none.
func (a *agent) clear(key string) {
	t := a.s.Troubles[key]
	if t == nil {
		return
	}
	delete(a.s.Troubles, key)
	a.say(notify.AgentRecovered, notify.Info, func(d *notify.Data) {
		d.Cause, _, _ = strings.Cut(key, ":")
		d.Detail = "over: " + t.Detail
	})
}

// Raise tells of a trouble outside the keeper's sight (NATS refuses us, a port is
// taken). It returns at once where the keeper has ended.
func (k *Keeper) Raise(key, detail, hint string) {
	k.do(k.ended, func() { k.agent.raise(key, detail, hint) })
}

// Clear ends a trouble that Raise began.
func (k *Keeper) Clear(key string) {
	k.do(k.ended, func() { k.agent.clear(key) })
}

// Troubles returns what is wrong just now, also while the loop is busy.
func (k *Keeper) Troubles() map[string]Trouble {
	if t := k.troubles.Load(); t != nil {
		return *t
	}
	return nil
}
