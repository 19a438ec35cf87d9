package watchdog

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/renewatch/renewatch/notify"
	"github.com/renewatch/renewatch/watch"
)

// TestFlat feeds a keeper a million ticks and rounds, good and bad ones by turns,
// and compares the memory it holds after a tenth of them and at the end.
func TestFlat(t *testing.T) {
	if testing.Short() {
		t.Skip("a million ticks take a while")
	}
	setup := Setup{}
	for i := range 5 {
		setup.Certificates = append(setup.Certificates, Certificate{Policy: somePolicy(), Endpoints: []Endpoint{{Text: "https://www.example.org", Required: true}},
			Source: watch.Source{Name: fmt.Sprintf("c%d", i), Cert: fmt.Sprintf("/live/c%d/fullchain.pem", i)}})
	}
	k, clock, journal := idleKeeper(t, shelf{}, setup)
	k.configure(setup)
	leaves, events := 0, 0
	look := func() {
		for name, c := range k.certs {
			if c.state.Disk == nil || leaves%5000 == 0 {
				l := numbered(1+leaves/5000, clock.now.Add(-time.Hour), clock.now.Add(90*24*time.Hour))
				k.apply(c, Input{Seen: &Seen{Leaf: l, Since: clock.now, Facts: Facts{SHA256: l.SHA256}}})
			}
			pr := c.state.Probe
			if pr == nil {
				continue
			}
			f := Finding{Required: true, Lineage: true, Known: true}
			f.Endpoint, f.Address, f.Samples, f.Code, f.Severity, f.Faults = "https://www.example.org", "192.0.2.1:443", 4, "serving", notify.Info, []string{}
			f.Serving, f.Matching = true, 4
			if leaves/700%3 == 0 {
				f.Serving, f.Matching, f.Code, f.Severity, f.Faults = false, 0, "refused", notify.Critical, []string{"refused"}
			}
			k.roundDone(roundDone{name, *pr, Round{ID: pr.ID, Findings: []Finding{f}, Facts: &c.state.Disk.Facts}})
		}
		leaves++
		events += len(journal.drafts)
		journal.drafts = nil
	}
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	const ticks = 1_000_000
	var early uint64
	for i := range ticks {
		clock.now = clock.now.Add(time.Minute)
		k.due()
		if i%10 == 0 {
			look()
		}
		if i == ticks/10 {
			early = heap()
		}
	}
	late := heap()
	t.Logf("%d ticks, %d events, %d KB after a tenth of them, %d KB at the end", ticks, events, early>>10, late>>10)
	if events < 1000 {
		t.Errorf("only %d events: nothing happened", events)
	}
	if late > early+early/4+256<<10 {
		t.Errorf("%d bytes after a tenth of the ticks, %d at the end", early, late)
	}
}
