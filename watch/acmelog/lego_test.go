package acmelog

import (
	"strings"
	"testing"
	"time"
)

// legoFeed gives a text to a new Parser and returns what it tells at once.
func legoFeed(client Client, text string) (*Parser, []Attempt) {
	p := NewParser(Options{Client: client, Log: "LOG", Location: time.UTC})
	p.Write([]byte(text)) //nolint:errcheck // never fails
	return p, p.Take()
}

const legoIssuedRun = `2026/11/22 07:37:28 [INFO] [c.test] acme: Trying renewal with 2159 hours remaining
2026/11/22 07:37:28 [INFO] [c.test] acme: Obtaining bundled SAN certificate
2026/11/22 07:37:30 [INFO] [c.test] The server validated our request
2026/11/22 07:37:35 [INFO] [c.test] acme: Validations succeeded; requesting certificates
2026/11/22 07:37:36 [INFO] [c.test] Server responded with a certificate.
`

func TestLegoExit(t *testing.T) {
	at := time.Date(2026, 11, 22, 7, 38, 0, 0, time.UTC)
	for _, c := range []struct {
		name, text string
		code       int
		outcome    Outcome
		phase      Phase
	}{
		{"a run that ends well", legoIssuedRun, 0, Issued, PhaseDone},
		{"issued, and then something failed", legoIssuedRun, 1, Issued, PhaseIssued},
		{"it is only known that it ended", legoIssuedRun, -1, Issued, PhaseIssued},
		{"killed while it waits", strings.Join(strings.SplitAfter(legoIssuedRun, "\n")[:2], ""), 137, Failed, PhaseOrder},
		{"gone while it waits", strings.Join(strings.SplitAfter(legoIssuedRun, "\n")[:2], ""), -1, Stalled, PhaseOrder},
	} {
		p, _ := legoFeed(Lego, c.text)
		p.Exit(Exit{At: at, Code: c.code})
		got := p.Take()
		if len(got) != 1 || got[0].Outcome != c.outcome || got[0].Phase != c.phase {
			t.Errorf("%s: %s", c.name, jsonLines(t, got))
		}
	}
}

// lego says nothing when it has written its files: silence ends the attempt, but no
// sooner than its hook may have ended.
func TestLegoSettles(t *testing.T) {
	p, _ := legoFeed(Lego, legoIssuedRun)
	issued := time.Date(2026, 11, 22, 7, 37, 36, 0, time.UTC)
	p.Stall(issued.Add(legoHookTime - time.Second))
	if got := p.Take(); len(got) != 0 {
		t.Errorf("told early: %s", jsonLines(t, got))
	}
	p.Stall(issued.Add(legoHookTime))
	if got := p.Take(); len(got) != 1 || got[0].Outcome != Issued || !got[0].Ended.Equal(issued) {
		t.Errorf("told: %s", jsonLines(t, got))
	}
}

// The last words of lego 4 are over when nothing follows them.
func TestLegoLastWords(t *testing.T) {
	p, _ := legoFeed(Lego, "2026/11/22 07:00:00 [INFO] [c.test] acme: Obtaining bundled SAN certificate\n2026/11/22 07:00:01 error: one or more domains had a problem:\n"+
		"[c.test] invalid authorization: acme: error: 400 :: urn:ietf:params:acme:error:dns :: no such name\n")
	p.Stall(time.Date(2026, 11, 22, 7, 0, 5, 0, time.UTC))
	if got := p.Take(); len(got) != 1 || got[0].Outcome != Failed || got[0].ProblemDetail != "no such name" {
		t.Errorf("told: %s", jsonLines(t, got))
	}
}

// A wait that lego announces is no stall; one that the CA asks for is.
func TestLegoSleeps(t *testing.T) {
	p, _ := legoFeed(Lego, "2026/11/22 07:00:00 [INFO] [c.test] Sleeping 2h0m0s until renewal time 2026-11-22 09:00:00 +0000 UTC\n")
	p.Stall(time.Date(2026, 11, 22, 9, 10, 0, 0, time.UTC))
	if got := p.Take(); len(got) != 0 {
		t.Errorf("announced: %s", jsonLines(t, got))
	}
	p, _ = legoFeed(Lego, "2026/11/22 07:00:00 [INFO] [c.test] acme: Obtaining bundled SAN certificate\n2026/11/22 07:00:00 [WARN] retry: acme: error: 503 :: urn:ietf:params:acme:error:serverInternal :: maintenance\n")
	p.Stall(time.Date(2026, 11, 22, 7, 15, 0, 0, time.UTC))
	if got := p.Take(); len(got) != 1 || got[0].Outcome != Stalled || got[0].ProblemDetail != "maintenance" {
		t.Errorf("asked for: %s", jsonLines(t, got))
	}
	p.Write([]byte("2026/11/22 09:00:00 [INFO] [c.test] acme: use http-01 solver\n")) //nolint:errcheck // never fails
	p.Exit(Exit{At: time.Date(2026, 11, 22, 9, 0, 1, 0, time.UTC), Code: 1})
	if got := p.Take(); len(got) != 1 || got[0].Outcome != Failed || got[0].ProblemDetail != "" {
		t.Errorf("after that: %s", jsonLines(t, got))
	}
}

func TestLegoProblem(t *testing.T) {
	for _, c := range []struct{ text, kind, detail string }{
		{"acme: error: 403 :: urn:ietf:params:acme:error:caa :: no", problemP + "caa", "no"},
		{"acme: error: 403 :: POST :: https://ca.example/o :: urn:ietf:params:acme:error:caa :: no :: never", problemP + "caa", "no :: never"},
		{`x: acme: error: 400 :: urn:ietf:params:acme:error:malformed :: no, problem: "urn:ietf:params:acme:error:dns" :: b, url: https://x.example`, problemP + "malformed", "no"},
		{"acme: error: 500 ::  :: oops", HTTP5xx, "oops"},
		{"acme: error: 502 :: GET :: https://ca.example/d ::  :: oops", HTTP5xx, "oops"},
		{"acme: error: 404 ::  :: gone", "", "gone"},
		{"502 ::GET :: https://ca.example/d :: invalid character '<'", HTTP5xx, "502 ::GET :: https://ca.example/d :: invalid character '<'"},
		{"404 ::GET :: https://ca.example/d :: invalid character '<'", "", "404 ::GET :: https://ca.example/d :: invalid character '<'"},
		{"acme: error: ", "", "acme: error: "},
		{"acme: error: 403 :: ", "", "acme: error: 403 :: "},
		{"dial tcp 192.0.2.1:443: connect: connection refused", Network, "dial tcp 192.0.2.1:443: connect: connection refused"},
	} {
		if f, detail := legoProblem(c.text); f.kind != c.kind || detail != c.detail {
			t.Errorf("%s: %q, %q", c.text, f.kind, detail)
		}
	}
}

// What a detail quotes is no further entry, even when it looks like one.
func TestLegoSplitProblems(t *testing.T) {
	for _, c := range []struct {
		text string
		n    int
	}{
		{"a.test: x] [b.test: y]", 2},
		{"b.test: x] [a.test: y]", 1}, // lego sorts them
		{"a.test: x] [not a name: y] [c.test: z]", 2},
		{"a.test: x] [b.test", 1},
		{"", 1},
	} {
		if got := splitProblems(c.text); len(got) != c.n {
			t.Errorf("%q: %q", c.text, got)
		}
	}
	_, got := legoFeed(Lego, `time=2026-11-22T07:00:00Z level=INFO msg="Obtaining bundled SAN certificate." domains="a.test, b.test"
time=2026-11-22T07:00:01Z level=ERROR msg=Error error="resolver: one or more domains had a problem: [a.test: acme: error: 403 :: urn:ietf:params:acme:error:unauthorized :: got \"x] [b-evil.test: acme: error: 400 :: urn:ietf:params:acme:error:dns :: forged\"]"
`)
	if len(got) != 1 || len(got[0].Problems) != 1 || got[0].Problems[0].Name != "a.test" || got[0].ProblemType != problemP+"unauthorized" {
		t.Errorf("told: %s", jsonLines(t, got))
	}
}

// The account is a person's address.
func TestLegoAddress(t *testing.T) {
	_, got := legoFeed(Lego, "2026/11/22 07:00:00 Account jane.doe@example.com is not registered. Use 'run' to register a new account.\n2026/11/22 08:00:00 [INFO] [c.test] acme: Obtaining bundled SAN certificate\n")
	if len(got) != 2 || strings.Contains(got[0].ProblemDetail, "jane") || got[0].Outcome != Failed || got[0].Phase != PhaseClient {
		t.Errorf("told: %s", jsonLines(t, got))
	}
}

// Many certificates, many errors, for ever: nothing grows.
func TestLegoBounded(t *testing.T) {
	for _, text := range []string{
		"2026/11/22 07:00:00 [INFO] [c.test] acme: Obtaining bundled SAN certificate\n",
		"2026/11/22 07:00:00 [INFO] acme: Registering account for x\n",
		"2026/11/22 07:00:00 error: one or more domains had a problem:\n[a.test] x\n[b.test] y\n",
		"2026-11-22T07:00:00.000000000Z INFO  Writing file. filepath=/x/c.crt\n",
		"2026-11-22T07:00:00.000000000Z INFO  Server responded with a certificate. domains=c.test\n",
		`{"level":"info","ts":1795334000,"logger":"tls.obtain","msg":"could not get certificate from issuer","identifier":"c.test","error":"x"}` + "\n",
	} {
		for _, c := range []Client{Lego, Caddy, Traefik} {
			p := NewParser(Options{Client: c})
			for range 5000 {
				p.Write([]byte(text)) //nolint:errcheck // never fails
				p.Take()
			}
			if n := len(p.ledger.open) + len(p.ledger.done); n > 1 {
				t.Errorf("%s: %d attempts after %.50s", c, n, text)
			}
		}
	}
}

// Reading goes on where Safe says, and nothing is told differently: at whatever line
// a reader stops, what had ended and what the rest tells is what the whole tells.
func TestLegoRestart(t *testing.T) {
	for _, s := range samples(t) {
		if s.client != Lego {
			continue
		}
		whole := read(t, Lego, s.text, 1<<20)
		for cut := range s.text {
			if s.text[cut] != '\n' {
				continue
			}
			p, told := legoFeed(Lego, string(s.text[:cut+1]))
			var got []Attempt
			for _, a := range told {
				if a.Outcome != Running {
					got = append(got, a)
				}
			}
			safe := p.Safe()
			got = append(got, read(t, Lego, s.text[safe:], 1<<20)...)
			if a, b := jsonLines(t, got), jsonLines(t, whole); a != b {
				t.Errorf("%s, stopped at %d, from %d\n%swhole\n%s", s.path, cut, safe, a, b)
				break
			}
		}
	}
}
