package watchdog

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/renewatch/renewatch/internal/certtest"
	"github.com/renewatch/renewatch/internal/reload"
	"github.com/renewatch/renewatch/notify"
	"github.com/renewatch/renewatch/verify"
	"github.com/renewatch/renewatch/watch"
)

// What cannot be is put aside, so that Step need not look for it.
var unsound = []string{
	`{"name":"www","standing":"verified","disk":{"leaf":{"sha256":"aa"}}}`,
	`{"name":"www","standing":"lost","disk":{"leaf":{"sha256":"aa"}}}`,
	`{"name":"www","standing":"open","story":{}}`,
	`{"name":"www","standing":"open","disk":{"leaf":{"sha256":"aa"}},"story":{"servers":{"nginx":null}}}`,
	`{"name":"www","standing":"open","disk":{"leaf":{"sha256":"aa"}},"story":{"servers":{"nginx":{"attempts":-5}}}}`,
	`{"name":"www","standing":"verified","disk":{"leaf":{"sha256":"aa"}},"story":{},"rechecks":-1}`,
	`{"name":"www","standing":"bogus","disk":{"leaf":{"sha256":"aa"}},"story":{}}`,
	`{"name":"other","standing":"","disk":null}`,
	`{"name":"www","standing":"ver`,
	`[]`,
}

// daemon is a Keeper in this process whose watcher is the test.
type daemon struct {
	t       *testing.T
	dir     string
	ca      *certtest.CA
	source  watch.Source
	say     chan watch.Observation
	journal *notify.Journal
	stop    context.CancelFunc
	done    chan error
}

func (d *daemon) Set([]watch.Source) {}

func (d *daemon) Run(ctx context.Context, out chan<- watch.Observation) error {
	for {
		select {
		case o := <-d.say:
			out <- o
		case <-ctx.Done():
			return nil
		}
	}
}

func startDaemon(t *testing.T, dir string) *daemon {
	t.Helper()
	d := &daemon{t: t, dir: dir, ca: certtest.NewCA(certtest.CAOptions{}), say: make(chan watch.Observation), done: make(chan error, 1),
		source: watch.Source{Name: "www", Cert: filepath.Join(dir, "www.crt")}}
	var err error
	if d.journal, err = notify.OpenJournal(filepath.Join(dir, "journal"), notify.JournalOptions{Host: "h", Instance: "i"}); err != nil {
		t.Fatal(err)
	}
	k, err := New(Options{StateDir: dir, Host: "h", Instance: "i", Version: "test", Journal: d.journal, Watcher: d, Prober: &verify.Prober{}, Log: zerolog.Nop()},
		Setup{Certificates: []Certificate{{Source: d.source, Endpoints: []Endpoint{}, Roots: Roots{Pool: d.ca.Pool()}, Policy: Policy{Grace: time.Second}}}})
	if err != nil {
		t.Fatal(err)
	}
	var ctx context.Context
	ctx, d.stop = context.WithCancel(context.Background())
	go func() { d.done <- k.Run(ctx) }()
	return d
}

func (d *daemon) end() {
	d.t.Helper()
	d.stop()
	if err := <-d.done; err != nil {
		d.t.Fatal(err)
	}
	if err := d.journal.Close(); err != nil {
		d.t.Fatal(err)
	}
}

// write puts a leaf of this age on disk and says so.
func (d *daemon) write(age time.Duration) {
	d.t.Helper()
	l := d.ca.Issue(certtest.LeafOptions{Names: []string{"www.example.org"}, NotBefore: time.Now().Add(-age)})
	if err := certtest.WritePair(d.source.Cert, filepath.Join(d.dir, "www.key"), l); err != nil {
		d.t.Fatal(err)
	}
	pair, fault := watch.Load(d.source.Cert, "")
	if fault != nil {
		d.t.Fatal(fault)
	}
	d.say <- watch.Observation{Kind: watch.Changed, Name: "www", Source: d.source, Path: d.source.Cert, Time: time.Now(), Since: time.Now(), Pair: pair}
}

// until waits until the journal tells these kinds in this order, whatever else
// stands in between, and returns all that it tells.
func (d *daemon) until(kinds ...notify.Kind) []string {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var told []string
	for r, err := range notify.Follow(ctx, filepath.Join(d.dir, "journal"), notify.Filter{}) {
		if err != nil {
			d.t.Fatal(err)
		}
		told = append(told, string(r.Event.Kind()))
		if len(kinds) > 0 && r.Event.Kind() == kinds[0] {
			if kinds = kinds[1:]; len(kinds) == 0 {
				return told
			}
		}
	}
	d.t.Fatalf("%s did not come; what came: %s", kinds[0], strings.Join(told, " "))
	return nil
}

// TestUnsoundStates starts with states that no keeper wrote: each is put aside,
// said, and the certificate starts anew, under identifiers never used before.
func TestUnsoundStates(t *testing.T) {
	for _, text := range unsound {
		dir := t.TempDir()
		d := startDaemon(t, dir)
		d.write(time.Hour)
		d.until(notify.DeployUnverified)
		d.end()
		path := filepath.Join(dir, "certificates", "www.json")
		for _, p := range []string{path, filepath.Join(dir, "agent.json")} {
			if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		d = startDaemon(t, dir)
		d.write(time.Hour)
		told := d.until(notify.AgentStopped, notify.AgentStarted, notify.AgentDegraded, notify.DeployUnverified)
		d.end()
		if n := len(slices.DeleteFunc(told, func(k string) bool { return k != "deploy.unverified" })); n != 2 {
			t.Errorf("%s: deploy.unverified was told %d times in all", text, n)
		}
		aside, err := filepath.Glob(path + ".unreadable-*")
		if err != nil || len(aside) != 1 {
			t.Errorf("%s: it was not put aside", text)
		}
	}
}

// TestNothingOvertakesWhatWaitsForTheDisk loses the state directory for a moment
// and sees two renewals: they are taken in in their order.
func TestNothingOvertakesWhatWaitsForTheDisk(t *testing.T) {
	dir := t.TempDir()
	d := startDaemon(t, dir)
	d.write(48 * time.Hour)
	d.until(notify.DeployUnverified)
	states := filepath.Join(dir, "certificates")
	if err := os.Rename(states, states+".away"); err != nil {
		t.Fatal(err)
	}
	d.write(24 * time.Hour)
	d.until(notify.AgentDegraded)
	if err := os.Rename(states+".away", states); err != nil {
		t.Fatal(err)
	}
	d.write(time.Hour)
	told := d.until(notify.RenewalDetected, notify.RenewalDetected, notify.DeployUnverified)
	d.end()
	if slices.Contains(told, string(notify.FileReverted)) {
		t.Errorf("an older renewal overtook a newer one: %s", strings.Join(told, " "))
	}
}

// FuzzState feeds Step whatever a state file may hold: what is sound never makes
// it panic, and it never asks for two probes at once.
func FuzzState(f *testing.F) {
	for _, text := range unsound {
		f.Add([]byte(text))
	}
	f.Add([]byte(`{"name":"www","standing":"open","disk":{"leaf":{"sha256":"aa"}},"story":{"servers":{"nginx":{"attempts":2,"pending":{"id":"x"}}}},"fault":{"since":"2027-01-01T00:00:00Z"}}`))
	p := Policy{Name: "www", Watched: true, Repair: true, Grace: 30 * time.Second, Deadline: 15 * time.Minute, Retries: []time.Duration{0, time.Minute},
		Recheck: []time.Duration{time.Minute}, Every: time.Hour, Samples: 12, Spread: 2 * time.Second}
	f.Fuzz(func(t *testing.T, text []byte) {
		var s State
		if json.Unmarshal(text, &s) != nil || s.sound() != nil {
			return
		}
		now := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
		s, cmds := Step(now, p, s, Input{Boot: true})
		for range 6 {
			probes := 0
			for _, c := range cmds {
				if _, is := c.(Probe); is {
					probes++
				}
			}
			if probes > 1 {
				t.Fatal("two probes at once")
			}
			if s.Probe != nil && s.Disk != nil {
				bad := Finding{Required: true}
				bad.Endpoint, bad.Server, bad.Code, bad.Faults = "https://x", "nginx", "stale", []string{"stale"}
				s, cmds = Step(now, p, s, Input{Round: &Round{ID: s.Probe.ID, Findings: []Finding{bad}, Facts: &Facts{SHA256: s.Disk.Leaf.SHA256}}})
			} else {
				s, cmds = Step(now, p, s, Input{})
			}
			now = now.Add(20 * time.Minute)
		}
	})
}

// TestSpreadIsKept: a proof spans the whole spread, also where the grace, and so
// the first probes, end before.
func TestSpreadIsKept(t *testing.T) {
	dir := t.TempDir()
	ca := certtest.NewCA(certtest.CAOptions{})
	cert, key := filepath.Join(dir, "www.crt"), filepath.Join(dir, "www.key")
	if err := certtest.WritePair(cert, key, ca.Issue(certtest.LeafOptions{Names: []string{"www.example.org"}})); err != nil {
		t.Fatal(err)
	}
	srv, err := certtest.NewServer(certtest.ServerOptions{Sites: []certtest.Site{{Load: certtest.FromFiles(cert, key)}}})
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	endpoint, err := verify.ParseEndpoint("https://www.example.org:443")
	if err != nil {
		t.Fatal(err)
	}
	journal, err := notify.OpenJournal(filepath.Join(dir, "journal"), notify.JournalOptions{Host: "h", Instance: "i"})
	if err != nil {
		t.Fatal(err)
	}
	defer journal.Close()
	const spread = 3 * time.Second
	k, err := New(Options{StateDir: dir, Host: "h", Instance: "i", Journal: journal, Watcher: watch.New(watch.Options{Settle: 50 * time.Millisecond}),
		Prober: &verify.Prober{}, Log: zerolog.Nop()},
		Setup{Certificates: []Certificate{{Source: watch.Source{Name: "www", Cert: cert}, Roots: Roots{Pool: ca.Pool()},
			Policy:    Policy{Grace: 100 * time.Millisecond, Deadline: time.Minute, Every: time.Hour, Samples: 2, Spread: spread},
			Endpoints: []Endpoint{{URL: endpoint.At(srv.Addr()), Required: true}}}}})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	d := &daemon{t: t, dir: dir}
	d.until(notify.DeployVerified)
	took := time.Since(began)
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if took < spread {
		t.Errorf("verified %s after the start, although a proof spans %s", took, spread)
	}
}

// TestWithdrawnFromTheConfiguration: a certificate that leaves the configuration
// takes what it asked for with it.
func TestWithdrawnFromTheConfiguration(t *testing.T) {
	dir := t.TempDir()
	journal, err := notify.OpenJournal(filepath.Join(dir, "journal"), notify.JournalOptions{Host: "h", Instance: "i"})
	if err != nil {
		t.Fatal(err)
	}
	defer journal.Close()
	web := map[string]reload.Server{"web": {Name: "web", Way: reload.Way{Command: []string{"true"}}}}
	both := Setup{Servers: web, Certificates: []Certificate{{Source: watch.Source{Name: "a", Cert: "/a.pem"}}, {Source: watch.Source{Name: "b", Cert: "/b.pem"}}}}
	k, err := New(Options{StateDir: dir, Host: "h", Instance: "i", Journal: journal, Log: zerolog.Nop()}, both)
	if err != nil {
		t.Fatal(err)
	}
	k.configure(both)
	s := k.servers["web"]
	for _, name := range []string{"a", "b"} {
		s.queue = s.queue.Add(reload.Request{ID: name, Certificate: name, Step: reload.First})
	}
	k.configure(Setup{Servers: web, Certificates: both.Certificates[:1]})
	if w := s.queue.Waiting; len(w) != 1 || w[0].Certificate != "a" {
		t.Errorf("waiting: %+v", w)
	}
}
