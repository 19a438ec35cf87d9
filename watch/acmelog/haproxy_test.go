package acmelog

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// While it waits for the CA an attempt goes on without a problem; an error is one
// until the next step succeeds.
func TestHAProxyGoesOn(t *testing.T) {
	p := parse(t, HAProxy, "acme: a.pem: Starting update of the certificate.\nacme: a.pem: challenge status: pending, retrying in 3s (1/5 retries)...\n")
	got := p.Take()
	if len(got) != 1 || got[0].Outcome != Running || got[0].ProblemDetail != "" || !got[0].RetryAfter.IsZero() {
		t.Fatalf("%+v", got)
	}
	p.Write([]byte("acme: a.pem: invalid HTTP status code 503 when getting Order URL, retrying in 3s (1/5 retries)...\n"))
	p.Stall(later)
	got = p.Take()
	if len(got) != 1 || got[0].Outcome != Stalled || got[0].ProblemType != HTTP5xx || got[0].Phase != PhaseFinalize {
		t.Fatalf("%+v", got)
	}
	p.Write([]byte("acme: a.pem: Successful update of the certificate.\n"))
	got = p.Take()
	if len(got) != 1 || got[0].Outcome != Issued || got[0].ProblemType != "" || !got[0].Activated || got[0].Doubtful {
		t.Fatalf("%+v", got)
	}
}

// The words of a CA, of a name, of a path, inside a line.
func TestHAProxyQuoted(t *testing.T) {
	p := parse(t, HAProxy, "acme: a.pem: Starting update of the certificate.\n"+
		`acme: a.pem: challenge error: "acme: a.pem: Successful update of the certificate." (urn:ietf:params:acme:error:dns) (HTTP status code 200), retrying in 3s (1/5 retries)...`+"\n"+
		` acme: a.pem: Successful update of the certificate.`+"\n"+`x acme: a.pem: Successful update of the certificate.`+"\n")
	got := p.Take()
	if len(got) != 1 || got[0].Outcome != Running || got[0].ProblemType != problemP+"dns" {
		t.Errorf("%+v", got)
	}
}

// boring are lines of the logs that the dialects stand in, which are not theirs.
var boring = map[Client]string{
	HAProxy:     `192.0.2.7:40114 [22/Nov/2026:07:00:00.001] fe_https~ be/s1 0/0/0/1/1 200 120 - - ---- 1/1/0/0/0 0/0 "GET / HTTP/1.1"`,
	NginxACME:   `2026/11/22 07:00:21 [error] 1201#1201: *77 open() "/var/www/html/favicon.ico" failed (2: No such file or directory), client: 192.0.2.7, server: a.test, request: "GET /favicon.ico HTTP/1.1", host: "a.test"`,
	ModMD:       `[Sun Nov 22 07:50:52.100000 2026] [authz_core:error] [pid 1945:tid 1945] [client 192.0.2.7:40114] AH01630: client denied by server configuration: /var/www/html/.git`,
	CertManager: `I1122 07:00:00.000001       1 controller.go:284] "syncing item" logger="cert-manager.controller.certificates-readiness" key="default/web-tls"`,
	Step:        `time="2026-11-22T07:00:00Z" level=info duration=1.2ms method=GET path=/health status=200`,
	Acmetool:    `20261122070000 [DEBUG] fdb: enforce permissions: tmp/symlink.070925942 0/0 0/0`,
}

// Lines that are somebody else's cost next to nothing: no memory but the Parser's
// own for a line.
func TestBoringLines(t *testing.T) {
	for client, text := range boring {
		p := parse(t, client, text+"\n")
		data := []byte(strings.Repeat(text+"\n", 100))
		if n := testing.AllocsPerRun(20, func() { p.Write(data) }); n > 250 {
			t.Errorf("%s: %v allocations for 100 lines", client, n)
		}
		if got := p.Take(); len(got) != 0 {
			t.Errorf("%s: %+v", client, got)
		}
	}
}

// Daemons' logs are read for years: what is remembered is bounded.
func TestDaemonsBounded(t *testing.T) {
	for client, lines := range map[Client]string{
		HAProxy:   "acme: %d.pem: Starting update of the certificate.\n",
		NginxACME: "2026/11/22 07:00:00 [info] 1#1: account \"https://ca/acct/1\" created, acme issuer: \"le\", order: \"a%d.test-1f\"\n2026/11/22 07:00:00 [warn] 1#1: urn:ietf:params:acme:error:dns: begins\n",
		CertManager: "I1122 07:00:01.100000       1 trigger_controller.go:238] \"Certificate must be re-issued\" logger=\"cert-manager.controller.certificates-trigger\" key=\"default/c%[1]d\" reason=\"Renewing\"\n" +
			"E1122 07:03:02.000000       1 controller.go:155] \"re-queuing item due to error processing\" err=\"EOF\" logger=\"cert-manager.controller.orders\" key=\"default/c%[1]d-7-55\"\n",
		Acmetool: "20261122070000 [DEBUG] acmetool.storageops: Target(b%d.test;https://ca.test/dir;0): ordering certificate\n",
		Step:     "Nov 22 07:00:00 host systemd[1]: Starting cert-renewer@i%d.service - x...\n",
	} {
		p := parse(t, client, "")
		for i := range 2000 {
			fmt.Fprintf(p, lines, i)
			if i%100 == 0 {
				p.Take()
			}
		}
		if n := len(p.ledger.open); n > maxOpen {
			t.Errorf("%s: %d attempts are open", client, n)
		}
		if d, ok := p.dialect.(*certManager); ok && (len(d.weak) > maxOpen+1 || len(d.recent) > maxRecent) {
			t.Errorf("%s: %d weak, %d recent", client, len(d.weak), len(d.recent))
		}
		p.Stall(changed.Add(400 * 24 * time.Hour))
		p.Take()
	}
}

func BenchmarkBoringLines(b *testing.B) {
	for client, text := range boring {
		b.Run(string(client), func(b *testing.B) {
			p := parse(b, client, "")
			data := []byte(strings.Repeat(text+"\n", 100))
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				p.Write(data)
			}
		})
	}
}
