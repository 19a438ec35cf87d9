package e2e

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// The parts themselves, without renewatch: what the scenarios rely on is proved
// here, so that a failure there is not a failure of the stage.

// Certbot renews against the ACME server, and nginx goes on serving the old
// certificate until it is reloaded.
func TestStageNginxKeepsTheOldCertificate(t *testing.T) {
	t.Parallel()
	s := newSite(t, "www.e2e.test")
	before := s.lineage.leaf()
	mustServe(t, s.v4, s.name, before)
	after := s.acme.renew(s.name)
	mustServe(t, s.v4, s.name, before)
	s.nginx.reload()
	awaitServed(t, s.v4, s.name, after)
	if s.v6 != "" {
		awaitServed(t, s.v6, s.name, after)
	}
}

// Apache says its configuration is fine and then dies of a key that does not
// belong to the certificate: why nothing may be reloaded onto a broken pair.
func TestStageApacheDiesOfAMismatchedPair(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	l := newLineage(t, "www.e2e.test", ca.aged(2*time.Hour, "www.e2e.test"))
	port := freePort(t)
	a := newApache(t, "www.e2e.test", l.cert, l.key, port)
	mustServe(t, fmt.Sprintf("127.0.0.1:%d", port), "www.e2e.test", l.leaf())

	replaceFile(t, l.cert, string(ca.aged(time.Hour, "www.e2e.test").FullchainPEM()), 0o644)
	argv := a.reloadCommand()
	run(t, exec.Command(argv[0], argv[1:]...))
	a.exitCode(t) // it ends: this is the outage
}

// site is the stage of most scenarios: one nginx that answers the ACME
// challenges and serves a certificate that certbot got, on IPv4 and, where the
// machine has it, IPv6.
type site struct {
	name    string
	acme    *acme
	nginx   *nginx
	lineage *lineage
	port    int
	v4, v6  string // host:port; v6 empty on a machine without it
}

func newSite(t *testing.T, name string) *site {
	t.Helper()
	a := newACME(t)
	s := &site{name: name, acme: a, port: freePort(t)}
	web := webServer(a.webroot, a.port)
	s.nginx = newNginx(t, web)
	awaitPort(t, fmt.Sprintf("127.0.0.1:%d", a.port))
	s.lineage = a.issue(name)
	s.v4 = fmt.Sprintf("127.0.0.1:%d", s.port)
	listen := []string{s.v4}
	if haveIPv6() {
		s.v6 = fmt.Sprintf("[::1]:%d", s.port)
		listen = append(listen, s.v6)
	}
	s.nginx.configure(web, tlsServer(name, s.lineage.cert, s.lineage.key, listen...))
	s.nginx.reload()
	awaitServed(t, s.v4, name, s.lineage.leaf())
	return s
}

// endpoint is the URL under which renewatch is to look at the site.
func (s *site) endpoint() string {
	addresses := s.v4
	if s.v6 != "" {
		addresses += "," + s.v6
	}
	return fmt.Sprintf("https://%s:%d?address=%s", s.name, s.port, addresses)
}

// nats-server keeps what it acknowledged over a kill, and the listener reads it
// from the stream, in order.
func TestStageNATSServerKeepsTheStream(t *testing.T) {
	t.Parallel()
	hub := newNATSServer(t)
	nc, err := nats.Connect(hub.url)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "RENEWATCH", Subjects: []string{"renewatch.evt.>"}}); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		body := fmt.Sprintf(`{"id":"%d","type":"io.renewatch.agent.started.v1"}`, i)
		if _, err := js.Publish(ctx, "renewatch.evt.h._agent.agent.started", []byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	hub.kill()
	hub.start()
	l := listen(t, hub.url, "")
	eventually(t, "the stream", func() error {
		if got := l.stream(); len(got) != 3 || got[0].ID != "0" || got[2].ID != "2" {
			return fmt.Errorf("%v", got)
		}
		return nil
	})
}

// The check that every event goes through finds what is wrong with one.
func TestStageEventCheckFindsFaults(t *testing.T) {
	t.Parallel()
	good := fmt.Sprintf(`{"specversion":"1.0","id":"00112233445566778899aabbccddeeff","source":"//%s/renewatch","type":"io.renewatch.agent.started.v1",`+
		`"subject":"_agent","time":"%s","datacontenttype":"application/json","dataschema":"urn:renewatch:event:agent.started:v1",`+
		`"sequence":"00000000000000000001","data":{"host":"%s","severity":"info","detail":"renewatch watches"}}`,
		host, time.Now().UTC().Format(time.RFC3339Nano), host)
	for _, swap := range [][2]string{
		{"", ""},
		{`"specversion":"1.0"`, `"specversion":"1"`},
		{`"id":"00112233445566778899aabbccddeeff"`, `"id":""`},
		{`//` + host, `//elsewhere`},
		{`agent.started.v1`, `agent.started`},
		{`Z","datac`, `+00:00","datac`},
		{`application/json`, `text/plain`},
		{`urn:renewatch:event:agent.started`, `urn:renewatch:event:agent.stopped`},
		{`"00000000000000000001"`, `"1"`},
		{`"host":"` + host, `"host":"elsewhere`},
		{`"severity":"info"`, `"severity":"bad"`},
		{`"detail":`, `"surprise":1,"detail":`},
		{`"detail":"`, `"detail":"-----BEGIN PRIVATE KEY-----`},
		{`"data":`, `"Data_Base64":"","data":`},
	} {
		e, err := parseEvent([]byte(strings.Replace(good, swap[0], swap[1], 1)))
		if err == nil {
			err = checkEnvelope(e, host)
		}
		if wrong := swap[0] != ""; wrong != (err != nil) {
			t.Errorf("%s in the place of %s: %v", swap[1], swap[0], err)
		}
	}
}
