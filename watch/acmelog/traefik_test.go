package acmelog

import (
	"testing"
	"time"
)

// A certificate whose saving fails was not issued; one of which nothing more is heard
// was.
func TestTraefikSaves(t *testing.T) {
	const issued = `{"level":"info","providerName":"le.acme","time":"2026-11-22T07:00:01Z","message":"Renewing ACME certificate: {Main:a.test SANs:[]}"}
{"level":"info","lib":"lego","domains":"a.test","time":"2026-11-22T07:00:02Z","message":"Obtaining bundled SAN certificate."}
{"level":"info","lib":"lego","domains":"a.test","time":"2026-11-22T07:00:03Z","message":"Validations succeeded; requesting certificates."}
{"level":"info","lib":"lego","domains":"a.test","time":"2026-11-22T07:00:04Z","message":"Server responded with a certificate."}
`
	p, _ := legoFeed(Traefik, issued)
	p.Stall(time.Date(2026, 11, 22, 7, 0, 10, 0, time.UTC))
	if got := p.Take(); len(got) != 1 || got[0].Outcome != Issued || got[0].Doubtful {
		t.Errorf("saved: %s", jsonLines(t, got))
	}
	_, got := legoFeed(Traefik, issued+`{"level":"error","providerName":"le.acme","error":"no space","time":"2026-11-22T07:00:04Z","message":"Error adding certificate for domain"}`+"\n")
	if len(got) != 1 || got[0].Outcome != Failed || got[0].Phase != PhaseSaved || got[0].Names[0] != "a.test" {
		t.Errorf("not saved: %s", jsonLines(t, got))
	}
}

// What Traefik does not say about certificates is nobody's attempt.
func TestTraefikOthers(t *testing.T) {
	for _, line := range []string{
		`time="2026-11-22T07:00:00Z" level=info msg="Testing certificate renew..." providerName=le.acme`,
		`time="2026-11-22T07:00:00Z" level=debug msg="No ACME certificate generation required for domains [\"a.test\"]." providerName=le.acme`,
		`{"level":"error","entryPointName":"web","error":"Unable to obtain ACME certificate for domains","providerName":"x.acme","time":"2026-11-22T07:00:00Z","message":"Router defined with TLS error"}`,
		`2026-11-22T07:00:00Z ERR Router uses a nonexistent certificate resolver certificateResolver=le.acme`,
		`2026-11-22T07:00:00Z DBG Serving default certificate for request: "legolog: [a.test] Server responded with a certificate."`,
		`10.0.0.1 - - [22/Nov/2026:07:00:00 +0000] "GET /lego/.acme HTTP/1.1" 200 1`,
	} {
		if _, got := legoFeed(Traefik, line+"\n"); len(got) != 0 {
			t.Errorf("%s: %s", line, jsonLines(t, got))
		}
	}
}
