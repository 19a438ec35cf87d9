package watchdog

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/renewatch/renewatch/notify"
)

// agent tells of the daemon itself: that it runs, and where it is blind or deaf.
type agent struct {
	k *Keeper
	s agentState

	start   time.Time
	settled bool
}

// agentFile holds what is remembered of the daemon itself.
const agentFile = "agent.json"

type agentState struct {
	Version  int                 `json:"version"`
	Events   uint64              `json:"events"`
	Troubles map[string]*Trouble `json:"troubles,omitempty"`
	Outbox   []notify.Draft      `json:"outbox,omitempty"`
	// Pairs at fault that a server loads and nobody watches.
	Pairs  []badPair `json:"pairs,omitempty"`
	Alert  *Alert    `json:"alert,omitempty"`
	Alerts uint64    `json:"alerts,omitempty"`
}

// Trouble is one way in which the daemon is blind or deaf.
type Trouble struct {
	Detail string    `json:"detail"`
	Hint   string    `json:"hint,omitempty"`
	Since  time.Time `json:"since"`

	raised bool // in this run of the daemon
}

func loadAgent(k *Keeper) (*agent, error) {
	a := &agent{k: k, start: k.clock.Now()}
	err := k.files.read(agentFile, &a.s)
	for _, t := range a.s.Troubles {
		if t == nil {
			err = errors.New("a trouble without content")
		}
	}
	if err != nil {
		a.s = agentState{}
		if !errors.Is(err, fs.ErrNotExist) {
			k.log.Error().Err(err).Msg("what was remembered of the daemon cannot be read; it is put aside")
			if err := k.files.putAside(agentFile); err != nil {
				return nil, err
			}
		}
	}
	// Never to make an identifier twice: what was told while the state could not be
	// written is in the journal only.
	a.s.Events, a.s.Alerts = max(a.s.Events, k.o.Journal.Last()), max(a.s.Alerts, k.o.Journal.Last())
	if a.s.Version > StateVersion {
		return nil, fmt.Errorf("%s: %w (version %d, this one knows %d)", agentFile, ErrNewerState, a.s.Version, StateVersion)
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
	return a.k.files.write(agentFile, data)
}

func (a *agent) say(kind notify.Kind, sev notify.Severity, fill func(*notify.Data)) {
	a.s.Events++
	d := notify.Draft{Kind: kind, Certificate: notify.AgentCertificate, Time: a.k.clock.Now(), Occurrence: a.s.Events}
	d.Data.Severity, d.Data.Silenced = sev, a.k.quiet()
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
	a.s.Troubles[key] = &Trouble{Detail: detail, Hint: hint, Since: a.k.clock.Now().Round(0), raised: true}
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

// pairs takes in which pairs are at fault.
func (a *agent) pairs(bad []badPair) {
	now := a.k.clock.Now().Round(0)
	for i := range bad {
		bad[i].Since, bad[i].Seen = now, now
		for _, old := range a.s.Pairs {
			if old.Server == bad[i].Server && old.Path == bad[i].Path && old.Since.Before(now) {
				bad[i].Since = old.Since
			}
		}
	}
	if slices.Equal(a.s.Pairs, bad) {
		return
	}
	a.s.Pairs = bad
	if err := a.write(); err != nil {
		a.k.log.Error().Err(err).Msg("the state directory cannot be written")
	}
}

// degradedAlert is how long a trouble lasts before a person must know.
const degradedAlert = 15 * time.Minute

// people decides what a person must know of the daemon itself.
func (a *agent) people(now time.Time) {
	now = now.Round(0)
	f := affairs{checked: true, quiet: a.k.quiet()}
	certain := func(c condition) {
		if c.level.Rank() > f.certain.level.Rank() {
			f.certain = c
		}
	}
	for _, key := range sortedKeys(a.s.Troubles) {
		if t := a.s.Troubles[key]; !t.raised {
			f.blind = true
		} else if now.Sub(t.Since) >= degradedAlert {
			cause, _, _ := strings.Cut(key, ":")
			certain(condition{level: notify.Error, cause: cause, detail: t.Detail, hint: t.Hint, next: &notify.Next{Action: "person"}, since: t.Since})
		}
	}
	for _, p := range a.s.Pairs {
		if p.Seen.Sub(p.Since) >= pairBroken {
			certain(condition{level: notify.Critical, cause: CauseOtherPair,
				detail: fmt.Sprintf("%s; so it is for %s, and the next reload, whoever makes it, may end the server", p.Sentence, roughly(now.Sub(p.Since))),
				hint:   p.Hint, next: &notify.Next{Action: "person"}, since: p.Since})
		}
	}
	if a.s.Alert == nil {
		if f.certain.level.Rank() == 0 {
			return
		}
		a.s.Alert = &Alert{}
	}
	for _, t := range a.s.Alert.judge(now, f, func() string {
		a.s.Alerts++
		return alertID(a.k.o.Host, a.k.o.Instance, notify.AgentCertificate, a.s.Alerts)
	}) {
		severity := t.about.level
		if t.kind == notify.AlertCleared {
			severity = notify.Info
		}
		a.say(t.kind, severity, func(d *notify.Data) {
			d.Cause, d.Detail, d.Hint, d.Next = t.about.cause, t.about.detail, t.about.hint, t.about.next
			d.Alert = &notify.Alert{ID: a.s.Alert.ID, Since: a.s.Alert.Since.UTC(), Reminder: t.reminder}
		})
	}
	if x := a.s.Alert; x.Level == "" && now.Sub(x.Cleared) > alertKeepsID {
		a.s.Alert = nil
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
