package acmelog

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// parse gives a text to a Parser of that client and returns it.
func parse(t testing.TB, client Client, text string) *Parser {
	t.Helper()
	p := NewParser(Options{Client: client, Log: "LOG", Location: time.UTC})
	if p == nil {
		t.Fatalf("nobody speaks %q", client)
	}
	p.Arrived(changed)
	p.Write([]byte(text))
	return p
}

func TestDocument(t *testing.T) {
	for path, want := range map[string]bool{"/var/lib/md/staging/a.test/job.json": true, "/var/log/apache2/error.log": false, "job.json.1": false} {
		if got := Document(ModMD, path); got != want {
			t.Errorf("%s: %v", path, got)
		}
	}
	if Document(Certbot, "/x/job.json") {
		t.Error("certbot writes no documents")
	}
}

// What was issued comes again when a restart puts it into use, as the same attempt.
func TestModMDActivatedLater(t *testing.T) {
	p := parse(t, ModMD, "[Sun Nov 22 07:50:53.655359 2026] [md:notice] [pid 1946:tid 1947] AH10059: The Managed Domain i.test has been setup and changes will be activated on next (graceful) server restart.\n")
	first := p.Take()
	if len(first) != 1 || first[0].Outcome != Issued || first[0].Activated {
		t.Fatalf("staged: %+v", first)
	}
	p.Stall(later)
	if again := p.Take(); len(again) != 0 {
		t.Fatalf("nothing was said, and told is %+v", again)
	}
	p.Write([]byte("[Mon Nov 23 07:51:24.200000 2026] [md:info] [pid 1944:tid 1944] AH10068: i.test: staged set activated\n"))
	second := p.Take()
	if len(second) != 1 || !second[0].Activated || second[0].Phase != PhaseActivated || second[0].serial != first[0].serial || !second[0].Ended.Equal(first[0].Ended) {
		t.Fatalf("activated: %+v", second)
	}
	p.Write([]byte("[Mon Nov 23 07:51:24.300000 2026] [md:info] [pid 1944:tid 1944] AH10068: i.test: staged set activated\n"))
	if third := p.Take(); len(third) != 1 || third[0].serial == second[0].serial {
		t.Errorf("another activation is another attempt's: %+v", third)
	}
}

// A log of months, of more domains than can be remembered, is read in bounded memory.
func TestModMDBounded(t *testing.T) {
	p := parse(t, ModMD, "")
	for i := range 3000 {
		fmt.Fprintf(p, "[Sun Nov 22 07:50:53 2026] [md:warn] [pid 1:tid 1] acme problem urn:ietf:params:acme:error:dns: x%d\n", i)
		fmt.Fprintf(p, "[Sun Nov 22 07:50:53 2026] [md:notice] [pid 1:tid 1] AH10059: The Managed Domain d%d.test has been setup and changes will be activated on next (graceful) server restart.\n", i)
		fmt.Fprintf(p, "[Sun Nov 22 07:50:53 2026] [md:debug] [pid 1:tid 1] mod_md_drive.c(125): AH10512: md(e%d.test): need to renew now\n", i)
	}
	d := p.dialect.(*modMD)
	if len(d.staged) > maxOpen || len(d.remarks) > 16 || len(p.ledger.open) > maxOpen {
		t.Errorf("%d staged, %d remarks, %d open", len(d.staged), len(d.remarks), len(p.ledger.open))
	}
}

// An activation that belongs to another domain than the remarks before it.
func TestModMDRemarksAge(t *testing.T) {
	p := parse(t, ModMD, "[Sun Nov 22 07:50:00 2026] [md:error] [pid 1:tid 1] ACME server authz: challenge 'invalid' for a.test at https://ca/1. Exact response was: {\"challenges\":[{\"error\":{\"type\":\"urn:ietf:params:acme:error:dns\",\"detail\":\"old\"}}]}\n"+
		"[Sun Nov 22 07:52:00 2026] [md:error] [pid 1:tid 1] (22)Invalid argument: AH10056: processing b.test: Error waiting on domain names to be validated\n")
	got := p.Take()
	if len(got) != 1 || got[0].ProblemType != "" || len(got[0].Problems) != 0 || got[0].Phase != PhaseChallenge {
		t.Errorf("%+v", got)
	}
}

// Only what mod_md itself says counts: the tag of the module is Apache's.
func TestModMDOthers(t *testing.T) {
	for _, line := range []string{
		"[Sun Nov 22 07:50:53.655359 2026] [php:error] [pid 1:tid 1] [client 192.0.2.1:5] AH10059: The Managed Domain a.test has been setup and changes will be activated on next (graceful) server restart.",
		"[Sun Nov 22 07:50:53.655359 2026] [proxy_fcgi:error] [pid 1:tid 1] [client 192.0.2.1:5] AH01071: Got error '[md:notice] AH10059: The Managed Domain a.test has been setup and changes will be activated on next (graceful) server restart.'",
		"[Sun Nov 22 07:50:53.655359 2026] [md:info] [pid 1:tid 1] cmd(/usr/local/bin/m) stderr: AH10068: a.test: staged set activated",
		"AH10068: a.test: staged set activated",
		"07:50:52 said: it renewed a.test", "07:50:52 msg: removed a.test", "x 07:50:52 msg: renewed a.test",
	} {
		if got := parse(t, ModMD, line+"\n").Take(); len(got) != 0 {
			t.Errorf("%s\ntells %+v", line, got)
		}
	}
}

func TestModMDJob(t *testing.T) {
	text, err := os.ReadFile("testdata/mod_md/job_staged.log")
	if err != nil {
		t.Fatal(err)
	}
	// Its place says that it is in use.
	p := NewParser(Options{Client: ModMD, Log: "/var/lib/md/domains/i.test/job.json", Location: time.UTC})
	all, err := Explain(p, strings.NewReader(string(text)), changed, later)
	if err != nil || len(all) != 1 || !all[0].Activated {
		t.Errorf("%+v, %v", all, err)
	}
	// Half of it is nothing, and it is never read for ever.
	for _, part := range []string{string(text[:len(text)/2]), "{\n", "{\n}\n", "{\n  \"name\": 7\n}\n", "{\n" + strings.Repeat("  \"x\": \"yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\",\n", 40000) + "  \"name\": \"a.test\"\n}\n"} {
		p := parse(t, ModMD, part)
		p.Flush()
		if got := p.Take(); len(got) != 0 {
			t.Errorf("%.40q tells %+v", part, got)
		}
	}
	// One that was cut off does not swallow what follows for ever.
	d := parse(t, ModMD, "{\n"+strings.Repeat("  \"x\": \"yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\",\n", 40000)).dialect.(*modMD)
	if len(d.doc.text) > maxFile {
		t.Errorf("%d bytes are kept", len(d.doc.text))
	}
	// While it goes on, the last run has no end.
	var job map[string]any
	if err := json.Unmarshal(text, &job); err != nil {
		t.Fatal(err)
	}
	entries := job["log"].(map[string]any)["entries"].([]any)
	job["log"].(map[string]any)["entries"] = entries[20:]
	part, _ := json.MarshalIndent(job, "", "  ")
	p = parse(t, ModMD, string(part))
	p.Flush()
	if got := p.Take(); len(got) != 1 || got[0].Outcome != Running || got[0].CA != "https://localhost:37000/dir" {
		t.Errorf("%+v", got)
	}
}

func TestMDDuration(t *testing.T) {
	for s, want := range map[string]time.Duration{
		"43 seconds": 43 * time.Second, "1 days 2 hours 3 minutes 4 seconds": 26*time.Hour + 3*time.Minute + 4*time.Second,
		" 0:00:05 hours": 5 * time.Second, "500 ms": 500 * time.Millisecond, "~2 days": 48 * time.Hour,
		"": 0, "soon": 0, "5 parsecs": 0, "-5 seconds": 0, "99999999999999999999 days": 0, "400 days": 0,
	} {
		got, ok := mdDuration(s)
		if ok != (want > 0) || ok && got != want {
			t.Errorf("%q: %v, %v", s, got, ok)
		}
	}
}
