package watchdog

import (
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/renewatch/renewatch/notify"
)

// stoppedClock stands until it is turned.
type stoppedClock struct{ now time.Time }

func (c *stoppedClock) Now() time.Time      { return c.now }
func (c *stoppedClock) Boot() time.Duration { return 0 }

// shelf holds files in memory.
type shelf map[string][]byte

func (s shelf) read(name string, v any) error {
	data, ok := s[name]
	if !ok {
		return fs.ErrNotExist
	}
	return json.Unmarshal(data, v)
}

func (s shelf) write(name string, data []byte) error { s[name] = data; return nil }

func (s shelf) writeAll(files []file) []error {
	for _, f := range files {
		s[f.name] = f.data
	}
	return make([]error, len(files))
}

func (s shelf) list(dir string) ([]string, error) {
	return slices.Sorted(func(yield func(string) bool) {
		for name := range maps.Keys(s) {
			if strings.HasPrefix(name, dir+"/") && !yield(name) {
				return
			}
		}
	}), nil
}

func (s shelf) putAside(name string) error {
	if _, ok := s[name]; !ok {
		return errors.New("there is no such file")
	}
	delete(s, name)
	return nil
}

// pages is a journal that keeps drafts.
type pages struct{ drafts []notify.Draft }

func (p *pages) Append(drafts ...notify.Draft) ([]notify.Event, error) {
	p.drafts = append(p.drafts, drafts...)
	return nil, nil
}

func (p *pages) Last() uint64 { return uint64(len(p.drafts)) }

// kinds returns what was said since the last call, info of the daemon's life
// left out.
func (p *pages) kinds() (out []string) {
	for _, d := range p.drafts {
		word := string(d.Kind)
		if d.Data.Alert != nil && d.Data.Alert.Reminder {
			word += " reminder"
		}
		out = append(out, word)
	}
	p.drafts = nil
	return out
}

func agentUnderTest(t *testing.T) (*Keeper, *stoppedClock, *pages, shelf) {
	t.Helper()
	clock, journal, files := &stoppedClock{time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)}, &pages{}, shelf{}
	k, err := newKeeper(Options{Host: "h", Instance: "i", Journal: journal, Clock: clock, Log: zerolog.Nop()}, Setup{}, files)
	if err != nil {
		t.Fatal(err)
	}
	return k, clock, journal, files
}

// pass lets time go by in steps of a beat.
func pass(k *Keeper, c *stoppedClock, d time.Duration) {
	for end := c.now.Add(d); c.now.Before(end); {
		c.now = c.now.Add(BeatEvery)
		k.agent.people(c.now)
	}
}

func wantSaid(t *testing.T, j *pages, want ...string) {
	t.Helper()
	if got := j.kinds(); !slices.Equal(got, want) {
		t.Fatalf("said %q, want %q", got, want)
	}
}

func TestTroubleThatLastsIsAnAlert(t *testing.T) {
	k, clock, journal, files := agentUnderTest(t)
	k.agent.raise("nats", "NATS refuses us", "look at the permissions")
	wantSaid(t, journal, "agent.degraded")
	pass(k, clock, 14*time.Minute)
	wantSaid(t, journal)
	pass(k, clock, 2*time.Minute)
	wantSaid(t, journal, "alert.error")
	pass(k, clock, 25*time.Hour)
	wantSaid(t, journal, "alert.error reminder")

	// A new daemon goes on with the same alert.
	id := k.agent.s.Alert.ID
	k, err := newKeeper(k.o, Setup{}, files)
	if err != nil {
		t.Fatal(err)
	}
	if k.agent.s.Alert == nil || k.agent.s.Alert.ID != id {
		t.Fatalf("alert %+v, want %s", k.agent.s.Alert, id)
	}
	k.agent.clear("nats")
	wantSaid(t, journal, "agent.recovered")
	pass(k, clock, 9*time.Minute)
	wantSaid(t, journal)
	pass(k, clock, 3*time.Minute)
	wantSaid(t, journal, "alert.cleared")
}

func TestTroubleThatPassesIsNone(t *testing.T) {
	k, clock, journal, _ := agentUnderTest(t)
	for range 3 {
		k.agent.raise("resolver", "names cannot be resolved", "")
		pass(k, clock, 10*time.Minute)
		k.agent.clear("resolver")
		pass(k, clock, 10*time.Minute)
	}
	if got := journal.kinds(); slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, "alert") }) {
		t.Fatalf("said %q", got)
	}
}

// A pair that nobody watches and a server loads is a danger by itself: the next
// reload, whoever makes it, may end the server.
func TestBadPairThatNobodyWatches(t *testing.T) {
	k, clock, journal, files := agentUnderTest(t)
	bad := func() []badPair {
		return []badPair{{Server: "apache", Path: "/etc/ssl/b.pem", Sentence: "apache also loads /etc/ssl/b.pem: the key is another's"}}
	}
	k.agent.pairs(bad())
	pass(k, clock, 6*time.Minute)
	k.agent.pairs(bad())
	wantSaid(t, journal)
	k, err := newKeeper(k.o, Setup{}, files)
	if err != nil {
		t.Fatal(err)
	}
	pass(k, clock, 5*time.Minute)
	wantSaid(t, journal) // it may have healed since it was seen
	k.agent.pairs(bad())
	pass(k, clock, BeatEvery)
	if len(journal.drafts) != 1 || journal.drafts[0].Kind != notify.AlertCritical || journal.drafts[0].Data.Cause != CauseOtherPair ||
		!strings.Contains(journal.drafts[0].Data.Detail, "/etc/ssl/b.pem") {
		t.Fatalf("said %+v", journal.drafts)
	}
	journal.kinds()
	k.agent.pairs(nil)
	pass(k, clock, 12*time.Minute)
	wantSaid(t, journal, "alert.cleared")
}

func TestSilenceOfAllHoldsTheDaemonsAlertBack(t *testing.T) {
	k, clock, journal, _ := agentUnderTest(t)
	k.setSilences([]Silenced{{All: true, Silence: Silence{ID: "1", Since: clock.now, Until: clock.now.Add(time.Hour)}}})
	k.agent.raise("nats", "NATS refuses us", "")
	pass(k, clock, 50*time.Minute)
	wantSaid(t, journal, "agent.degraded")
	pass(k, clock, 11*time.Minute)
	wantSaid(t, journal, "alert.error")
}
