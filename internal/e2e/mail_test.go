package e2e

import (
	"crypto/x509"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/renewatch/renewatch/internal/certtest"
)

// mailHost is the stage of the mail scenarios: one certificate and three servers
// that load it, each from the lineage itself and each reloaded in its own way.
type mailHost struct {
	t       *testing.T
	name    string
	ca      *authority
	age     time.Duration
	lineage *lineage
	web     string // host:port of nginx
	nginx   *nginx
	postfix *postfix
	dovecot *dovecot
}

// sticky is an smtpd that outlives every test: it goes on with the certificate
// with which it began until Postfix is reloaded.
const sticky = time.Hour

func newMailHost(t *testing.T, idle time.Duration) *mailHost {
	t.Helper()
	m := &mailHost{t: t, name: "mx.e2e.test", ca: newAuthority(t), age: 10 * time.Hour}
	m.lineage = newLineage(t, m.name, m.ca.aged(m.age, m.name))
	m.web = fmt.Sprintf("127.0.0.1:%d", freePort(t))
	m.nginx = newNginx(t, tlsServer(m.name, m.lineage.cert, m.lineage.key, m.web))
	m.postfix = newPostfix(t, m.name, m.lineage.cert, m.lineage.key, idle)
	m.dovecot = newDovecot(t, m.name, m.lineage.cert, m.lineage.key)
	awaitServed(t, m.web, m.name, m.lineage.leaf())
	return m
}

// daemon starts a renewatch that knows the four endpoints and the three servers.
// Mail servers are polled every ten seconds at most, so samples decides how long
// a proof takes.
func (m *mailHost) daemon(samples string, overrides ...string) *daemon {
	m.t.Helper()
	at := func(scheme, addr, server string) place {
		_, port, err := net.SplitHostPort(addr)
		if err != nil {
			m.t.Fatal(err)
		}
		return place{url: fmt.Sprintf("%s://%s:%s?address=%s", scheme, m.name, port, addr), server: server}
	}
	d := newDaemon(m.t, "", serverBlocks(
		way{name: "nginx", command: m.nginx.reloadCommand()},
		way{name: "postfix", command: m.postfix.reloadCommand()},
		way{name: "dovecot", signal: "HUP", pidfile: m.dovecot.pidfile},
	)+verifying("none", m.ca.root, append([]string{"samples", samples, "deadline", "5m", "recheck", "[1h]"}, overrides...)...)+
		certificateBlocks(entry{m.lineage.cert, []place{
			at("https", m.web, "nginx"),
			at("smtp", m.postfix.addr, "postfix"),
			at("imap", m.dovecot.imap, "dovecot"),
			at("imaps", m.dovecot.imaps, "dovecot"),
		}}))
	d.start()
	d.baseline(fingerprint(m.lineage.leaf()))
	return d
}

// next is a leaf that is an hour younger than the last one.
func (m *mailHost) next() *certtest.Leaf {
	m.age -= time.Hour
	return m.ca.aged(m.age, m.name)
}

// look returns what is wrong with what is served, by handshakes of the test's
// own: every server must present leaf.
func (m *mailHost) look(leaf *x509.Certificate) error {
	if err := m.lookSparing(leaf); err != nil {
		return err
	}
	return presents("Postfix", smtpLeaf, m.postfix.addr, m.name, leaf)
}

// lookSparing leaves out Postfix, where a look may have consequences: two
// connections at once begin a second smtpd, which loads what is on disk then.
func (m *mailHost) lookSparing(leaf *x509.Certificate) error {
	if err := presents("nginx", servedLeaf, m.web, m.name, leaf); err != nil {
		return err
	}
	if err := presents("Dovecot (STARTTLS)", imapLeaf, m.dovecot.imap, m.name, leaf); err != nil {
		return err
	}
	return presents("Dovecot", servedLeaf, m.dovecot.imaps, m.name, leaf)
}

func presents(what string, shown func(addr, name string) (*x509.Certificate, error), addr, name string, leaf *x509.Certificate) error {
	got, err := shown(addr, name)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if !got.Equal(leaf) {
		return fmt.Errorf("%s serves %s, not %s", what, fingerprint(got), fingerprint(leaf))
	}
	return nil
}

func (m *mailHost) mustServe(leaf *x509.Certificate) {
	m.t.Helper()
	if err := m.look(leaf); err != nil {
		m.t.Error(err)
	}
}

// reloaded is how often the servers themselves tell that they were reloaded.
func (m *mailHost) reloaded() map[string]int {
	m.t.Helper()
	n := map[string]int{}
	for server, times := range map[string]int{
		"nginx": m.nginx.reconfigured(), "postfix": m.postfix.reloaded(), "dovecot": m.dovecot.reloaded(),
	} {
		if times > 0 {
			n[server] = times
		}
	}
	return n
}

// each is the same code for every address.
func (m *mailHost) each(code string) map[string]string {
	return map[string]string{m.web: code, m.postfix.addr: code, m.dovecot.imap: code, m.dovecot.imaps: code}
}

// One certificate, three servers, and nobody reloads any: each is reloaded once,
// in its own way, and the certificate counts as deployed when all four endpoints
// serve it.
func TestThreeServersNotReloaded(t *testing.T) {
	t.Parallel()
	m := newMailHost(t, sticky)
	before := m.lineage.leaf()
	began := time.Now()
	d := m.daemon("2", "grace", "12s")

	next := m.next()
	m.lineage.put(next)
	m.mustServe(before)
	verified := d.await("deploy.verified", about(next.SHA256()))
	wantVerdicts(t, verified, m.each("serving"))
	for _, v := range verified.Data.Verdicts {
		if v.Samples < 2 || v.Matching != v.Samples {
			t.Errorf("the verdict proves little: %+v", v)
		}
	}
	m.mustServe(next.Cert)
	d.finish()
	// Polled every ten seconds at most; a proof that was long ago when the last
	// one came is looked at once more, twice.
	if n, most := m.postfix.greeted(), int(time.Since(began)/(10*time.Second))+1+2; n < 3 || n > most {
		t.Errorf("renewatch talked to Postfix %d times, of at most %d", n, most)
	}

	wantKinds(t, of(d.journal(), verified.Data.RenewalID),
		"renewal.detected", "reload.done", "reload.done", "reload.done", "deploy.verified")
	once := map[string]int{"nginx": 1, "postfix": 1, "dovecot": 1}
	wantReloads(t, d.journal(), once)
	if got := m.reloaded(); fmt.Sprint(got) != fmt.Sprint(once) {
		t.Errorf("the servers tell of the reloads %v", got)
	}
	for _, e := range only(d.journal(), "reload.done") {
		want := "command"
		if e.Data.Reload.Server == "dovecot" {
			want = "signal"
		}
		if e.Data.Reload.How != want {
			t.Errorf("%s was reloaded by %s: %s", e.Data.Reload.Server, e.Data.Reload.How, e.raw)
		}
	}
}

// Postfix takes up the new files by itself whenever an smtpd ends, so what comes
// first is open: it is reloaded once or not at all, and what is told agrees with
// what Postfix itself tells. Dovecot and nginx do no such thing.
func TestPostfixTakesUpTheFilesByItself(t *testing.T) {
	t.Parallel()
	m := newMailHost(t, time.Second)
	d := m.daemon("1")

	next := m.next()
	m.lineage.put(next)
	verified := d.await("deploy.verified", about(next.SHA256()))
	wantVerdicts(t, verified, m.each("serving"))
	m.mustServe(next.Cert)
	d.finish()

	own := m.reloaded()
	if own["nginx"] != 1 || own["dovecot"] != 1 || own["postfix"] > 1 {
		t.Errorf("the servers tell of the reloads %v", own)
	}
	wantReloads(t, d.journal(), own)
}

// The hook reloads the web server and forgets the mail servers: those are
// reloaded, and nginx is left alone.
func TestHookForgetsTheMailServers(t *testing.T) {
	t.Parallel()
	m := newMailHost(t, sticky)
	d := m.daemon("1")

	next := m.next()
	m.lineage.put(next)
	m.nginx.reload()
	verified := d.await("deploy.verified", about(next.SHA256()))
	wantVerdicts(t, verified, m.each("serving"))
	m.mustServe(next.Cert)
	d.finish()

	wantReloads(t, d.journal(), map[string]int{"postfix": 1, "dovecot": 1})
	if got, want := m.reloaded(), (map[string]int{"nginx": 1, "postfix": 1, "dovecot": 1}); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the servers tell of the reloads %v; nginx's is the hook's", got)
	}
}

// The key on disk is not the certificate's. After a reload Dovecot would refuse
// every TLS login and Postfix would no longer offer STARTTLS, without a word
// from either: nothing is reloaded until the pair is sound again.
func TestMailServersAndASwappedPair(t *testing.T) {
	t.Parallel()
	for name, swap := range map[string]func(d *daemon, l *lineage, next *certtest.Leaf){
		// The new certificate came without its key.
		"never-sound": func(_ *daemon, l *lineage, next *certtest.Leaf) {
			replaceFile(l.t, l.cert, string(next.FullchainPEM()), 0o644)
		},
		// The new pair was sound and its servers are due to be reloaded, when the
		// key is lost.
		"before-the-reload": func(d *daemon, l *lineage, next *certtest.Leaf) {
			old := readFile(l.t, l.key)
			l.put(next)
			d.await("renewal.detected", about(next.SHA256()))
			replaceFile(l.t, l.key, old, 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMailHost(t, sticky)
			before := m.lineage.leaf()
			d := m.daemon("1", "grace", "8s")
			watch := keepVigil(t, func() error { return m.lookSparing(before) })

			next := m.next()
			swap(d, m.lineage, next)
			broken := d.await("file.broken")
			if broken.Subject != m.name || broken.Data.Detail == "" {
				t.Errorf("file.broken does not say what is wrong: %s", broken.raw)
			}
			wantReloads(t, d.journal(), map[string]int{})
			for _, e := range only(d.journal(), "reload.held") {
				if e.Data.Cause != "pair" {
					t.Errorf("held for another cause than the pair: %s", e.raw)
				}
			}
			watch.end()
			if got := m.reloaded(); len(got) != 0 {
				t.Fatalf("servers were reloaded onto a swapped pair: %v\n%s", got, tell(d.journal()))
			}

			m.lineage.put(next)
			d.await("deploy.verified", about(next.SHA256()))
			m.mustServe(next.Cert)
			d.finish()
			once := map[string]int{"nginx": 1, "postfix": 1, "dovecot": 1}
			wantReloads(t, d.journal(), once)
			if got := m.reloaded(); fmt.Sprint(got) != fmt.Sprint(once) {
				t.Errorf("the servers tell of the reloads %v", got)
			}
		})
	}
}
