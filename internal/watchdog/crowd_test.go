package watchdog

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/renewatch/renewatch/watch"
)

// crowd are hands that only note what is asked of them.
type crowd struct {
	idle
	asked map[string]job
}

func (c crowd) probe(_ context.Context, j job, _ func(Round)) { c.asked[j.name] = j }

// TestACrowdIsProbedInTurn: more certificates than may be probed at once wait, in
// their order, and one that waited long has time enough for its proof.
func TestACrowdIsProbedInTurn(t *testing.T) {
	const waiting = 20
	setup := Setup{}
	for i := range maxProbes + waiting {
		setup.Certificates = append(setup.Certificates, Certificate{Policy: somePolicy(), Endpoints: []Endpoint{{Text: "https://www.example.org", Required: true}},
			Source: watch.Source{Name: fmt.Sprintf("c%03d", i), Cert: fmt.Sprintf("/live/c%03d/fullchain.pem", i)}})
	}
	k, clock, _ := idleKeeper(t, shelf{}, setup)
	hands := crowd{asked: map[string]job{}}
	k.hands = hands
	k.configure(setup)
	for i, conf := range setup.Certificates {
		l := numbered(i+1, noon.Add(-time.Hour), noon.Add(90*24*time.Hour))
		k.apply(k.certs[conf.Source.Name], Input{Seen: &Seen{Leaf: l, Since: clock.now, Facts: Facts{SHA256: l.SHA256}}})
	}
	if len(hands.asked) != maxProbes {
		t.Fatalf("%d probes run at once, want %d", len(hands.asked), maxProbes)
	}
	clock.now = clock.now.Add(5 * time.Minute) // longer than their grace
	for i := range waiting {
		name := fmt.Sprintf("c%03d", i)
		j := hands.asked[name]
		k.roundDone(roundDone{name, j.probe, Round{ID: j.probe.ID, Impaired: "not judged"}})
		next := fmt.Sprintf("c%03d", maxProbes+i)
		late, started := hands.asked[next]
		if !started {
			t.Fatalf("%s was not started when a place was free", next)
		}
		if left := late.probe.Until.Sub(clock.now); left < 2*somePolicy().Spread {
			t.Fatalf("%s has %s left for its proof", next, left)
		}
	}
}
