package main

import (
	"crypto/tls"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/renewatch/renewatch/internal/certtest"
	"github.com/renewatch/renewatch/notify"
)

func TestProofNeedsEveryStep(t *testing.T) {
	ca := certtest.NewCA(certtest.CAOptions{})
	old := ca.Issue(certtest.LeafOptions{Names: []string{site}})
	fresh := ca.Issue(certtest.LeafOptions{Names: []string{site}})
	lag := 5.5
	good := func() []told {
		event := func(kind, sequence string, since time.Duration) told {
			return told{since: since, Event: notify.Event{
				Type: "io.renewatch." + kind + ".v1", Sequence: sequence,
				Data: notify.Data{RenewalID: "r1", Certificate: &notify.Certificate{SHA256: fresh.SHA256()}},
			}}
		}
		reload := event("reload.done", "3", 5*time.Second)
		reload.Data.Reload = &notify.Reload{Server: "web", How: "signal"}
		verified := event("deploy.verified", "4", 6*time.Second)
		verified.Data.LagSeconds = &lag
		return []told{event("renewal.detected", "2", 2*time.Second), reload, verified}
	}
	for name, c := range map[string]struct {
		change func(p *play)
		want   string // of the error; empty: proven
	}{
		"everything":           {func(*play) {}, ""},
		"no detection":         {func(p *play) { p.told = p.told[1:] }, "renewal.detected was not told"},
		"no reload":            {func(p *play) { p.told = append(p.told[:1], p.told[2]) }, "reload.done was not told"},
		"verified twice":       {func(p *play) { p.told = append(p.told, p.told[2]) }, "told twice"},
		"another leaf":         {func(p *play) { p.new = old }, "renewal.detected was not told"},
		"out of order":         {func(p *play) { p.told[0].Sequence = "9" }, "out of order"},
		"two renewals":         {func(p *play) { p.told[1].Data.RenewalID = "r2" }, "renewal_id"},
		"no renewal_id":        {func(p *play) { clearRenewals(p.told) }, "renewal_id"},
		"another server":       {func(p *play) { p.told[1].Data.Reload.Server = "mail" }, "does not name the server"},
		"no lag":               {func(p *play) { p.told[2].Data.LagSeconds = nil }, "no lag"},
		"verified before true": {func(p *play) { p.told[2].since = time.Second }, "a visitor got the old certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			p := &play{story: newStory(io.Discard), old: old, new: fresh, told: good(), visitor: &visitor{}}
			p.story.renewed(start)
			s := p.visitor.at(netip.MustParseAddrPort("127.0.0.1:443"))
			s.counts[old.Serial()], s.last[old.Serial()] = 50, start.Add(5*time.Second)
			c.change(p)
			_, err := p.repaired()
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

func clearRenewals(events []told) {
	for i := range events {
		events[i].Data.RenewalID = ""
	}
}

func TestProofNeedsAnOldCertificate(t *testing.T) {
	ca := certtest.NewCA(certtest.CAOptions{})
	p := &play{story: newStory(io.Discard), old: ca.Issue(certtest.LeafOptions{Names: []string{site}}), visitor: &visitor{}}
	if proof, err := p.servedOld(); err == nil {
		t.Errorf("proven without a handshake: %s", proof)
	}
}

func TestVisitorTellsOldFromNew(t *testing.T) {
	ca := certtest.NewCA(certtest.CAOptions{})
	leaf := ca.Issue(certtest.LeafOptions{Names: []string{site}})
	next := ca.Issue(certtest.LeafOptions{Names: []string{site}})
	serve := leaf
	server, err := certtest.NewServer(certtest.ServerOptions{Sites: []certtest.Site{{
		Load: func() (c []tls.Certificate, err error) { return []tls.Certificate{serve.TLS()}, nil },
	}}})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	var changes []string
	v := &visitor{name: site, roots: ca.Pool(), addrs: server.Addrs(), tell: func(_ netip.AddrPort, from, to string) {
		changes = append(changes, from+">"+to)
	}}
	v.look(t.Context(), server.Addr())
	v.look(t.Context(), server.Addr())
	serve = next
	if err := server.Reload(); err != nil {
		t.Fatal(err)
	}
	v.look(t.Context(), server.Addr())
	want := []string{">" + leaf.Serial(), leaf.Serial() + ">" + next.Serial()}
	if strings.Join(changes, " ") != strings.Join(want, " ") {
		t.Errorf("changes %v, want %v", changes, want)
	}
	if _, n := v.lastSeen(leaf.Serial()); n != 2 {
		t.Errorf("the old one was seen %d times", n)
	}
	v.forget()
	if _, n := v.lastSeen(leaf.Serial()); n != 0 {
		t.Errorf("forgotten, it was seen %d times", n)
	}
	v.name = "other.test"
	if serial, err := v.shake(t.Context(), server.Addr()); err == nil {
		t.Errorf("a visitor accepts serial %s for another name", serial)
	}
}
