package acmelog

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// Of a renewal Caddy says that it put the certificate into use; when it does not,
// the renewal counts all the same.
func TestCaddyNotReloaded(t *testing.T) {
	p, _ := legoFeed(Caddy, `{"level":"info","ts":1795334000,"logger":"tls.renew","msg":"renewing certificate","identifier":"a.test","remaining":100}
{"level":"info","ts":1795334005,"logger":"tls.renew","msg":"certificate renewed successfully","identifier":"a.test","issuer":"local"}
{"level":"info","ts":1795334006,"logger":"tls.renew","msg":"releasing lock","identifier":"a.test"}
`)
	p.Stall(time.Unix(1795334010, 0))
	if got := p.Take(); len(got) != 0 {
		t.Errorf("told early: %s", jsonLines(t, got))
	}
	p.Stall(time.Unix(1795334016, 0))
	if got := p.Take(); len(got) != 1 || got[0].Outcome != Issued || got[0].Phase != PhaseSaved || got[0].Activated {
		t.Errorf("told: %s", jsonLines(t, got))
	}
}

// More certificates at once than are kept: all are told of.
func TestCaddyMany(t *testing.T) {
	var text strings.Builder
	const n = maxOpen + 50
	for i := range n {
		fmt.Fprintf(&text, `{"level":"info","ts":%d,"logger":"tls.obtain","msg":"obtaining certificate","identifier":"h%d.test"}`+"\n", 1795334000+i, i)
	}
	for i := range n {
		fmt.Fprintf(&text, `{"level":"error","ts":%d,"logger":"tls.obtain","msg":"will retry","error":"[h%d.test] Obtain: x","attempt":1,"retrying_in":60}`+"\n", 1795335000+i, i)
	}
	seen := map[string]bool{}
	for _, a := range read(t, Caddy, []byte(text.String()), 1<<20) {
		if a.Outcome == Failed {
			seen[a.Names[0]] = true
		}
	}
	if len(seen) != n {
		t.Errorf("%d of %d failures", len(seen), n)
	}
}

// caddyAccess is a line of an access log with what a visitor may put into it.
const caddyAccess = `{"level":"info","ts":1795334000.1,"logger":"http.log.access.log0","msg":"handled request","request":{"remote_ip":"192.0.2.1","remote_port":"41234","client_ip":"192.0.2.1","proto":"HTTP/2.0","method":"GET","host":"a.test","uri":"/.well-known/acme-challenge/x?lego","headers":{"User-Agent":["Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"],"Accept":["text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"],"Accept-Language":["en-US,en;q=0.5"],"Accept-Encoding":["gzip, deflate, br, zstd"],"Cookie":["REDACTED"]},"tls":{"resumed":false,"version":772,"cipher_suite":4865,"proto":"h2","server_name":"a.test"}},"bytes_read":0,"user_id":"","duration":0.0012,"size":5120,"status":200,"resp_headers":{"Server":["Caddy"],"Alt-Svc":["h3=\":443\"; ma=2592000"],"Content-Type":["text/html; charset=utf-8"]}}` + "\n"

func BenchmarkAccessLog(b *testing.B) {
	text := []byte(strings.Repeat(caddyAccess, 1000))
	for _, c := range []Client{Caddy, Traefik} {
		b.Run(string(c), func(b *testing.B) {
			p := NewParser(Options{Client: c})
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				p.Write(text) //nolint:errcheck // never fails
			}
			if got := p.Take(); len(got) != 0 {
				b.Fatalf("%d attempts", len(got))
			}
		})
	}
}

// Reading what does not matter costs no memory.
func TestAccessLogAllocates(t *testing.T) {
	text := []byte(strings.Repeat(caddyAccess, 100))
	p := NewParser(Options{Client: Caddy})
	if n := testing.AllocsPerRun(10, func() { p.Write(text) }); n > 0 { //nolint:errcheck // never fails
		t.Errorf("%v allocations", n)
	}
}
