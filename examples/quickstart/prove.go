package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/renewatch/renewatch/notify"
)

// handshakesAtTheEnd are made at each address when the story is over.
const handshakesAtTheEnd = 10

// prove checks the story against what a visitor saw, and tells in sentences what
// is proven, or in one error everything that is missing.
func (p *play) prove(ctx context.Context) (proofs []string, err error) {
	var missing []error
	check := func(proof string, err error) {
		if err != nil {
			missing = append(missing, err)
		} else {
			proofs = append(proofs, proof)
		}
	}
	check(p.servedOld())
	check(p.repaired())
	check(p.servedNew(ctx))
	check(p.stored(ctx))
	if len(missing) > 0 {
		return nil, fmt.Errorf("not everything is proven: %w", errors.Join(missing...))
	}
	return proofs, nil
}

// servedOld: without renewatch the new certificate would not have been served.
func (p *play) servedOld() (string, error) {
	at, handshakes := p.visitor.lastSeen(p.old.Serial())
	if handshakes == 0 {
		return "", errors.New("no visitor saw the old certificate after the renewal, so nothing had to be repaired")
	}
	return fmt.Sprintf("the old certificate, serial %s, was served for %s after the renewal: %d visitors got it",
		short(p.old.Serial()), seconds(p.story.since(at)), handshakes), nil
}

// repaired: the renewal was detected, then the server was reloaded, then the new
// certificate was verified, all under one renewal_id.
func (p *play) repaired() (string, error) {
	var steps []told
	for _, want := range []notify.Kind{notify.RenewalDetected, notify.ReloadDone, notify.DeployVerified} {
		found := false
		for _, e := range p.told {
			if kind(e.Event) != want || !about(e.Event, p.new) {
				continue
			}
			if found {
				return "", fmt.Errorf("%s was told twice", want)
			}
			found = true
			steps = append(steps, e)
		}
		if !found {
			return "", fmt.Errorf("%s was not told", want)
		}
	}
	detected, reload, verified := steps[0], steps[1], steps[2]
	if !(detected.Sequence < reload.Sequence && reload.Sequence < verified.Sequence) {
		return "", errors.New("the events are out of order")
	}
	if id := detected.Data.RenewalID; id == "" || reload.Data.RenewalID != id || verified.Data.RenewalID != id {
		return "", errors.New("the events do not share one renewal_id")
	}
	if reload.Data.Reload == nil || reload.Data.Reload.Server != "web" {
		return "", errors.New("reload.done does not name the server")
	}
	at, _ := p.visitor.lastSeen(p.old.Serial())
	if old := p.story.since(at); old > verified.since {
		return "", fmt.Errorf("deploy.verified came at +%s, but a visitor got the old certificate at +%s", seconds(verified.since), seconds(old))
	}
	if verified.Data.LagSeconds == nil {
		return "", errors.New("deploy.verified tells no lag")
	}
	return fmt.Sprintf("renewatch saw the renewal at +%s, reloaded the server at +%s and had its proof at +%s (lag %.1fs)",
		seconds(detected.since), seconds(reload.since), seconds(verified.since), *verified.Data.LagSeconds), nil
}

// servedNew: every address serves the new certificate and nothing else.
func (p *play) servedNew(ctx context.Context) (string, error) {
	families := map[string]bool{}
	for _, addr := range p.server.addrs {
		families[family(addr)] = true
		for range handshakesAtTheEnd {
			serial, err := p.visitor.shake(ctx, addr)
			if err != nil {
				return "", fmt.Errorf("a visitor at %s at the end: %w", addr, err)
			}
			if serial != p.new.Serial() {
				return "", fmt.Errorf("a visitor at %s got serial %s at the end", addr, short(serial))
			}
		}
	}
	where := "IPv4 and IPv6"
	if !families["IPv6"] {
		where = "IPv4 (there is no IPv6 loopback here)"
	}
	return fmt.Sprintf("the new certificate, serial %s, is served on %s: %d of %d visitors at the end got it, its chain verified",
		short(p.new.Serial()), where, handshakesAtTheEnd*len(p.server.addrs), handshakesAtTheEnd*len(p.server.addrs)), nil
}

func family(a netip.AddrPort) string {
	if a.Addr().Is6() {
		return "IPv6"
	}
	return "IPv4"
}

// stored: what was told is in the stream too, each event once and in order.
func (p *play) stored(ctx context.Context) (string, error) {
	history, err := p.subscriber.history(ctx)
	if err != nil {
		return "", err
	}
	times := map[string]int{}
	last := ""
	var kinds []string
	for _, e := range history {
		times[e.ID]++
		if times[e.ID] > 1 {
			return "", fmt.Errorf("the stream holds %s twice", kind(e))
		}
		if e.Sequence <= last {
			return "", fmt.Errorf("%s is out of order in the stream", kind(e))
		}
		last = e.Sequence
		kinds = append(kinds, string(kind(e)))
	}
	for _, e := range p.told {
		if times[e.ID] == 0 {
			return "", fmt.Errorf("%s was told but is not in the stream", kind(e.Event))
		}
	}
	return fmt.Sprintf("a subscriber without credentials read the whole story, and the stream keeps it: %s", strings.Join(kinds, ", ")), nil
}
