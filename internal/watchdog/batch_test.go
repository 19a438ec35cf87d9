package watchdog

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/renewatch/renewatch/notify"
	"github.com/renewatch/renewatch/watch"
)

// diary is a state directory and a journal that note in which order they were
// written, and refuse one file.
type diary struct {
	shelf
	refused string
	lines   []string
}

func (d *diary) write(name string, data []byte) error { return d.writeAll([]file{{name, data}})[0] }

func (d *diary) writeAll(files []file) []error {
	var line []string
	errs := make([]error, len(files))
	for i, f := range files {
		if f.name == d.refused {
			errs[i] = errors.New("no space left on device")
			continue
		}
		d.shelf[f.name] = f.data
		line = append(line, strings.TrimSuffix(strings.TrimPrefix(f.name, "certificates/"), ".json"))
	}
	if slices.Sort(line); len(line) > 0 {
		d.lines = append(d.lines, "wrote "+strings.Join(line, " "))
	}
	return errs
}

func (d *diary) Append(drafts ...notify.Draft) ([]notify.Event, error) {
	var line []string
	for _, x := range drafts {
		if x.Kind != notify.DeploySuperseded { // of a leaf that was never proven
			line = append(line, x.Certificate+" "+string(x.Kind))
		}
	}
	d.lines = append(d.lines, "told "+strings.Join(line, ", "))
	return nil, nil
}

func (d *diary) Last() uint64 { return 0 }

func (d *diary) want(t *testing.T, lines ...string) {
	t.Helper()
	if got := d.lines; !slices.Equal(got, lines) {
		t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(lines, "\n"))
	}
	d.lines = nil
}

// fleet is a keeper with certificates c0, c1, ... that have their first leaf.
func fleet(t *testing.T, n int) (*Keeper, *stoppedClock, *diary, crowd) {
	setup := Setup{}
	for i := range n {
		setup.Certificates = append(setup.Certificates, Certificate{Policy: somePolicy(), Endpoints: []Endpoint{{Text: "https://www.example.org", Required: true}},
			Source: watch.Source{Name: fmt.Sprintf("c%d", i), Cert: fmt.Sprintf("/live/c%d/fullchain.pem", i)}})
	}
	k, clock, _ := idleKeeper(t, shelf{}, setup)
	d, hands := &diary{shelf: shelf{}}, crowd{asked: map[string]job{}}
	k.files, k.o.Journal, k.hands = d, d, hands
	k.configure(setup)
	for i := range n {
		see(k, clock, i, 1)
	}
	k.writeDirty(time.Hour)
	d.lines = nil
	return k, clock, d, hands
}

// see has the files of a certificate hold its leaf of the given generation.
func see(k *Keeper, clock *stoppedClock, i, generation int) {
	l := numbered(generation<<16+i, clock.now.Add(-time.Hour), clock.now.Add(90*24*time.Hour))
	k.apply(k.certs[fmt.Sprintf("c%d", i)], Input{Seen: &Seen{Leaf: l, Since: clock.now, Facts: Facts{SHA256: l.SHA256}}})
}

// TestInputsAreTakenInTogether: what several inputs decide is written in one go,
// then told in one go, and only then anything is done.
func TestInputsAreTakenInTogether(t *testing.T) {
	k, clock, d, hands := fleet(t, 3)
	clear(hands.asked)
	k.together(func() {
		for i := range 3 {
			see(k, clock, i, 2)
		}
		if d.want(t); len(hands.asked) > 0 {
			t.Errorf("%d probes before the states are written", len(hands.asked))
		}
	})
	d.want(t, "wrote c0 c1 c2", "told c0 renewal.detected, c1 renewal.detected, c2 renewal.detected")
	if len(hands.asked) != 3 {
		t.Errorf("%d probes, want 3", len(hands.asked))
	}
	// The states without the events they told are written some time.
	clock.now = clock.now.Add(time.Second)
	k.due()
	d.want(t, "wrote c0 c1 c2")
}

// TestOneOfSeveralCannotBeWritten: it is neither told nor in force, the others
// are; it follows when it can be written.
func TestOneOfSeveralCannotBeWritten(t *testing.T) {
	k, clock, d, hands := fleet(t, 3)
	clear(hands.asked)
	d.refused = "certificates/c1.json"
	k.together(func() {
		for i := range 3 {
			see(k, clock, i, 2)
		}
	})
	lines := slices.Clone(d.lines)
	d.lines = slices.DeleteFunc(d.lines, func(l string) bool { return strings.Contains(l, "agent") })
	d.want(t, "wrote c0 c2", "told c0 renewal.detected, c2 renewal.detected")
	if !slices.Contains(lines, "told _agent agent.degraded") {
		t.Errorf("nobody was told that the disk is full: %q", lines)
	}
	if _, probed := hands.asked["c1"]; probed || len(hands.asked) != 2 || k.certs["c1"].state.Story.Leaf.SHA256 != numbered(1<<16+1, noon, noon).SHA256 {
		t.Error("what could not be written is in force")
	}
	see(k, clock, 1, 3) // comes after what waits
	d.refused = ""
	clock.now = clock.now.Add(retryAfter)
	k.due()
	var told []string
	for _, l := range d.lines {
		if strings.HasPrefix(l, "told c1") {
			told = append(told, l)
		}
	}
	if want := []string{"told c1 renewal.detected", "told c1 renewal.detected"}; !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
	if k.agent.has("state") {
		t.Error("the disk is said to be full still")
	}
}

// TestOneCertificateTwiceTogether: its second input is taken in when the first one
// is in force.
func TestOneCertificateTwiceTogether(t *testing.T) {
	k, clock, d, hands := fleet(t, 2)
	k.together(func() {
		see(k, clock, 0, 2)
		see(k, clock, 1, 2)
		see(k, clock, 0, 3)
	})
	d.want(t, "wrote c0 c1", "told c0 renewal.detected, c1 renewal.detected", "wrote c0", "told c0 renewal.detected")
	if got := hands.asked["c0"].leaf.SHA256; got != numbered(3<<16, noon, noon).SHA256 {
		t.Errorf("%s is probed", got)
	}
}

// TestFewProbesWhileFilesAreTold: at the start the watcher has the processors,
// until it has nothing more to tell, but not for ever.
func TestFewProbesWhileFilesAreTold(t *testing.T) {
	for _, hangs := range []bool{false, true} {
		k, clock, _, hands := fleet(t, 0)
		setup := Setup{}
		for i := range 3 * rushProbes {
			setup.Certificates = append(setup.Certificates, Certificate{Policy: somePolicy(), Endpoints: []Endpoint{{Text: "https://www.example.org", Required: true}},
				Source: watch.Source{Name: fmt.Sprintf("c%d", i), Cert: fmt.Sprintf("/live/c%d/fullchain.pem", i)}})
		}
		k.configure(setup)
		k.rush = rush{begun: clock.now, last: clock.now}
		for i := range 3 * rushProbes {
			see(k, clock, i, 1)
		}
		if len(hands.asked) != rushProbes {
			t.Fatalf("%d probes run, want %d", len(hands.asked), rushProbes)
		}
		trickle := watch.Observation{Kind: watch.Broken, Name: "c0", Source: setup.Certificates[0].Source, Fault: &watch.Fault{Code: watch.HalfWritten}}
		if hangs {
			for end := clock.now.Add(rushMost); clock.now.Before(end); clock.now = clock.now.Add(rushQuiet / 2) {
				k.observe(trickle)
				if k.due(); len(hands.asked) != rushProbes {
					t.Fatalf("%d probes run while files are told, want %d", len(hands.asked), rushProbes)
				}
			}
		} else {
			if d := k.pause(); d > rushQuiet {
				t.Errorf("the loop sleeps for %s", d)
			}
			clock.now = clock.now.Add(rushQuiet)
		}
		if k.due(); len(hands.asked) != 3*rushProbes {
			t.Errorf("%d probes run when all files are told, want %d", len(hands.asked), 3*rushProbes)
		}
		k.observe(trickle)
		if k.room() != maxProbes {
			t.Error("the start begins again")
		}
	}
}
