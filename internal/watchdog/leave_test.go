package watchdog

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/renewatch/renewatch/notify"
	"github.com/renewatch/renewatch/watch"
)

// idle hands do nothing.
type idle struct{}

func (idle) probe(context.Context, job, func(Round))                           {}
func (idle) reload(context.Context, order, func(runDone))                      {}
func (idle) clients(context.Context, map[string]string, func(map[string]bool)) {}
func (idle) pairs(context.Context, pairsQuestion, func([]badPair))             {}
func (idle) advise(context.Context, []string, func())                          {}
func (idle) ask(context.Context, Question, func(Answered))                     {}

// noon is when these tests begin.
var noon = time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)

// idleKeeper has files, and nothing is ever found out.
func idleKeeper(t *testing.T, files shelf, setup Setup) (*Keeper, *stoppedClock, *pages) {
	t.Helper()
	clock, j := &stoppedClock{noon}, &pages{}
	k, err := newKeeper(Options{Host: "h", Instance: "i", Journal: j, Clock: clock, Log: zerolog.Nop()}, setup, files)
	if err != nil {
		t.Fatal(err)
	}
	k.hands, k.ctx = idle{}, t.Context()
	return k, clock, j
}

func numbered(n int, from, to time.Time) notify.Certificate {
	return notify.Certificate{SHA256: fmt.Sprintf("%064x", n), Serial: "01", Names: []string{"www.example.org"}, NotBefore: from, NotAfter: to, KeyType: "ecdsa", Path: "/live/www/fullchain.pem"}
}

func shelve(t *testing.T, f shelf, s State) {
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	f["certificates/"+notify.Token(s.Name)+".json"] = b
}

func somePolicy() Policy {
	return Policy{Grace: 30 * time.Second, Deadline: 15 * time.Minute, Retries: []time.Duration{0}, Every: time.Hour, Samples: 12, Spread: 2 * time.Second}
}

// One that was renamed in the configuration must not count as watched under its
// old name.
func TestACertificateThatLeftIsNoSibling(t *testing.T) {
	f := shelf{}
	l := numbered(1, noon.Add(-time.Hour), noon.Add(90*24*time.Hour))
	shelve(t, f, State{Version: 1, Name: "old", Standing: Open, Disk: &Disk{Leaf: l}, Story: &Story{RenewalID: "x", Leaf: l, At: noon}})
	setup := Setup{Certificates: []Certificate{{Source: watch.Source{Name: "new", Cert: "/live/www/fullchain.pem"}, Policy: somePolicy()}}}
	k, _, _ := idleKeeper(t, f, setup)
	k.configure(setup)
	if got := k.names.others("new", "www.example.org"); len(got) > 0 {
		t.Errorf("a certificate that left is still a sibling: %+v", got)
	}
}

// It was never sound, its alert is open, and it is gone after a stop.
func TestTheAlertOfACertificateThatLeftEnds(t *testing.T) {
	for _, src := range []watch.Source{{Name: "new", Cert: "/new.pem"}, {Cert: "/live/*/fullchain.pem"}} {
		f := shelf{}
		shelve(t, f, State{Version: 1, Name: "old", Events: 5, Alerts: 1, Fault: &Fault{Code: "mismatch", Path: "/live/old/fullchain.pem", Since: noon.Add(-time.Hour), Said: true},
			Alert: &Alert{ID: "abc", Level: notify.Critical, Since: noon.Add(-time.Hour), Told: noon.Add(-time.Hour)}})
		setup := Setup{Certificates: []Certificate{{Source: src, Policy: somePolicy()}}}
		k, _, j := idleKeeper(t, f, setup)
		k.configure(setup)
		if got := j.kinds(); !slices.Contains(got, "alert.cleared") {
			t.Errorf("%v: the alert of a certificate that is not configured any more is never cleared: %v", src, got)
		}
	}
}

func TestCertificatesThatLeaveAreForgotten(t *testing.T) {
	f := shelf{}
	l := numbered(1, noon.Add(-time.Hour), noon.Add(90*24*time.Hour))
	shelve(t, f, State{Version: 1, Name: "www", Standing: Verified, Fresh: true, Disk: &Disk{Leaf: l}, Story: &Story{RenewalID: "x", Leaf: l, At: noon, Ended: notify.DeployVerified}})
	with := Setup{Certificates: []Certificate{{Source: watch.Source{Name: "www", Cert: "/live/www/fullchain.pem"}, Policy: somePolicy()}}}
	other := Certificate{Source: watch.Source{Name: "other", Cert: "/live/other/fullchain.pem"}, Policy: somePolicy()}
	o2 := numbered(2, noon.Add(-time.Hour), noon.Add(90*24*time.Hour))
	shelve(t, f, State{Version: 1, Name: "other", Standing: Verified, Fresh: true, Disk: &Disk{Leaf: o2}, Story: &Story{RenewalID: "x", Leaf: o2, At: noon, Ended: notify.DeployVerified}})
	with.Certificates = append(with.Certificates, other)
	k, c, _ := idleKeeper(t, f, with)
	for range 1000 {
		k.configure(with)
		k.configure(Setup{Certificates: []Certificate{other}})
		c.now = c.now.Add(time.Second)
		k.pause()
	}
	c.now = c.now.Add(2 * time.Hour)
	k.due()
	k.pause()
	if n := len(k.wakes); n > 10 {
		t.Errorf("%d wakes (each keeps a certificate's state) of certificates that left", n)
	}
}

func TestWhatTheRunBeforeKnewIsNotSaidAtTheStart(t *testing.T) {
	for _, what := range []string{"trouble", "pair"} {
		f := shelf{}
		s := agentState{Version: 1, Events: 3}
		if what == "trouble" {
			s.Troubles = map[string]*Trouble{"nats": {Detail: "x", Since: noon.Add(-time.Hour)}} // raised a minute before the stop
		} else {
			s.Pairs = []badPair{{Server: "nginx", Path: "/x", Sentence: "nginx also loads /x", Since: noon.Add(-time.Hour)}}
		}
		b, _ := json.Marshal(s)
		f[agentFile] = b
		k, _, j := idleKeeper(t, f, Setup{})
		k.agent.people(noon)
		if got := j.kinds(); len(got) > 0 {
			t.Errorf("%s: said at the start, before anybody looked: %v", what, got)
		}
	}
}
