package acmelog

import (
	"os"
	"strings"
	"testing"
	"time"
)

// told is what a Parser tells, each attempt as it was told last.
func told(p *Parser) (all []Attempt) {
	place := map[uint64]int{}
	for _, a := range p.Take() {
		if i, ok := place[a.serial]; ok {
			all[i] = a
			continue
		}
		place[a.serial] = len(all)
		all = append(all, a)
	}
	return all
}

// brief writes attempts in one line.
func brief(all []Attempt) string {
	var b strings.Builder
	for i, a := range all {
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(string(a.Outcome) + " " + string(a.Phase))
		if a.Lineage != "" {
			b.WriteString(" " + a.Lineage)
		}
		if a.Hook != nil {
			b.WriteString(" hook:" + a.Hook.Kind)
		}
		if a.ProblemType != "" {
			b.WriteString(" " + strings.TrimPrefix(a.ProblemType, problemP))
		}
		if a.Doubtful {
			b.WriteString(" doubtful")
		}
	}
	return b.String()
}

func sampleText(t testing.TB, path string) string {
	b, err := os.ReadFile("testdata/" + path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// How the process ends tells what clients do not that are shell scripts, or say
// little.
func TestExit(t *testing.T) {
	acmeIssue := sampleText(t, "acme.sh/issue_stdout.log")
	acmeReloaded := strings.Replace(acmeIssue, "to stdout\n", "[Sun Nov 22 07:46:07 UTC 2026] Reload successful\n", 1)
	acmeEvil := strings.Replace(sampleText(t, "acme.sh/challenge_failed_stdout.log"), "===Starting cron===", "x", 1)
	acmeEvil, _, _ = strings.Cut(acmeEvil, "[Sun Nov 22 07:46:23 UTC 2026] ===End")
	dehydratedIssue := sampleText(t, "dehydrated/issue_0.7.0.log")
	dehydratedFails := sampleText(t, "dehydrated/rate_limited_stdout.log")
	uacmeIssue := sampleText(t, "uacme/issue_1.7.4.log")
	uacmeFails := sampleText(t, "uacme/rate_limited_quiet_1.7.4.log")
	for _, c := range []struct {
		client Client
		text   string
		code   int
		want   string
	}{
		{AcmeSh, acmeReloaded, 0, "issued done g.test"},
		{AcmeSh, acmeIssue, 1, "issued hook g.test hook:reload"},
		{AcmeSh, acmeEvil, 1, "failed challenge g.test"},
		{AcmeSh, acmeEvil, -1, "stalled challenge g.test"},
		{AcmeSh, "Renewing: 'x.test'\n", 2, "skipped check x.test"},
		{AcmeSh, "", 0, ""},
		{Dehydrated, dehydratedIssue, 0, "issued done b.test"},
		{Dehydrated, dehydratedIssue, 1, "issued saved b.test"},
		{Dehydrated, dehydratedFails, 1, "failed order b.test"},
		{Dehydrated, dehydratedFails, -1, "stalled order b.test"},
		{Dehydrated, "", 1, ""},
		{Uacme, "", 0, "issued issued doubtful"},
		{Uacme, "", 1, "skipped check"},
		{Uacme, "", 2, "failed start"},
		{Uacme, "", -1, ""},
		{Uacme, uacmeIssue, 0, "issued done d.test"},
		{Uacme, uacmeIssue, 2, "issued hook d.test hook:install"},
		{Uacme, sampleText(t, "uacme/skip_1.7.4.log"), 1, "skipped check d.test"},
		{Uacme, uacmeFails, 2, "failed order rateLimited"},
		{Uacme, uacmeFails, 0, "failed order rateLimited"},
		{Uacme, "uacme: curl_get: GET https://ca/dir failed: Timeout was reached\nuacme: curl_get: waiting 5 seconds before retrying\n", 0, "issued issued doubtful"},
		{Getssl, "Registering account\nVerify each domain\nVerifying a.test\n", 1, "failed order a.test"},
		{Getssl, sampleText(t, "getssl/reload_failed.log"), 1, "issued hook rl.example hook:reload"},
		{SimpLE, sampleText(t, "simp_le/issued.log"), 0, "issued done"},
		{SimpLE, "2026-11-22 03:00:01,123:INFO:simp_le:1468: Generating new certificate private key\n", 2, "failed order"},
	} {
		p := NewParser(Options{Client: c.client, Location: time.UTC})
		p.Arrived(changed)
		p.Write([]byte(c.text)) //nolint:errcheck // never fails
		p.Exit(Exit{At: changed, Code: c.code})
		if got := brief(told(p)); got != c.want {
			t.Errorf("%s, %.40q, exit %d: %s; want %s", c.client, c.text, c.code, got, c.want)
		}
		p.Flush()
		p.Exit(Exit{At: changed, Code: -1})
		if got := brief(told(p)); got != "" {
			t.Errorf("%s, %.40q, exit %d: then %s", c.client, c.text, c.code, got)
		}
	}
}

// What has no last line ends when nothing is heard any more, well before it would
// count as stalled.
func TestOverInSilence(t *testing.T) {
	for _, c := range []struct {
		client     Client
		path, want string
	}{
		{Dehydrated, "dehydrated/issue_0.7.0.log", "issued saved b.test"},
		{Dehydrated, "dehydrated/deploy_hook_failed.log", "issued hook d.example hook:deploy"},
		{Dehydrated, "dehydrated/rate_limited_out_then_err.log", "failed order b.test rateLimited"},
		{Uacme, "uacme/issue_1.7.4.log", "issued saved d.test"},
		{Uacme, "uacme/rate_limited_quiet_1.7.4.log", "failed order rateLimited"},
		{Getssl, "getssl/reload_failed.log", "issued hook rl.example hook:reload"},
		{Getssl, "getssl/rate_limited.log", "failed order rateLimited"},
		{SimpLE, "simp_le/issued.log", "issued saved"},
	} {
		p := NewParser(Options{Client: c.client, Location: time.UTC})
		p.Arrived(changed)
		p.Write([]byte(sampleText(t, c.path))) //nolint:errcheck // never fails
		p.Stall(changed.Add(2 * time.Minute))
		if got := brief(told(p)); got != c.want {
			t.Errorf("%s: %s, want %s", c.path, got, c.want)
		}
	}
}

// A unit of which nothing is told but its ends: uacme says nothing.
func TestSilentUnit(t *testing.T) {
	entry := func(at, fields string) string {
		return `{"__CURSOR":"s=1","__REALTIME_TIMESTAMP":"` + at + `000000","_PID":"1","UNIT":"uacme.service","_SYSTEMD_UNIT":"init.scope",` + fields + "}\n"
	}
	starts := `"MESSAGE_ID":"` + unitStarts + `","MESSAGE":"Starting uacme.service"`
	text := entry("1795302000", starts) +
		entry("1795302010", `"MESSAGE_ID":"`+processEnded+`","EXIT_CODE":"exited","EXIT_STATUS":"1","COMMAND":"ExecStart","MESSAGE":"uacme.service: Main process exited"`) +
		entry("1795302010", `"MESSAGE_ID":"`+unitFailure+`","MESSAGE":"uacme.service: Failed with result"`) +
		entry("1795388400", starts) +
		entry("1795388420", `"MESSAGE_ID":"`+unitSuccess+`","MESSAGE":"uacme.service: Deactivated successfully."`) +
		entry("1795388420", `"MESSAGE_ID":"`+unitFinished+`","MESSAGE":"Finished uacme.service."`)
	all := read(t, Uacme, []byte(text), 1<<20)
	if got, want := brief(all), "skipped check; issued issued doubtful"; got != want {
		t.Fatalf("%s, want %s", got, want)
	}
	if want := time.Unix(1795302010, 0); !all[0].Started.Equal(want) {
		t.Errorf("began at %v, want %v", all[0].Started, want)
	}
}

// Standard output and standard error go through two pipes: what was written last on
// one may come after what was written later on the other.
func TestTwoStreams(t *testing.T) {
	stdout := strings.SplitAfter(sampleText(t, "acme.sh/reload_failed_stdout.log"), "\n")
	stderr := sampleText(t, "acme.sh/reload_failed_stderr.log")
	for late := range 4 { // lines of standard output
		i := len(stdout) - 1 - late
		text := strings.Join(stdout[:i], "") + stderr + strings.Join(stdout[i:], "")
		if got, want := brief(read(t, AcmeSh, []byte(text), 1<<20)), "issued hook g.test hook:reload"; got != want {
			t.Errorf("%d lines late: %s, want %s", late, got, want)
		}
	}
}

// Of an answer that does not end no more is kept than its beginning.
func TestEndlessAnswers(t *testing.T) {
	long := []byte(strings.Repeat("x y z ", 200) + "\n")
	for client, head := range map[Client]string{
		AcmeSh:     "[Sun Nov 22 07:46:17 UTC 2026] Renewing: 'a.test'\n[Sun Nov 22 07:46:17 UTC 2026] Error creating new order. Le_OrderFinalize not found. {\n",
		Dehydrated: "# INFO: Using main config file x\nProcessing a.test\n  + ERROR: An error occurred while sending post-request to https://ca/new-order (Status 400)\nDetails:\n{\n",
		Uacme:      "uacme: failed to create new order at https://ca/new-order\nuacme: the server reported the following error:\n{\n",
		Getssl:     "Registering account\ngetssl: 500 error from ACME server: {\n",
		SimpLE:     "2026-11-22 03:00:01,123:INFO:simp_le:1468: Generating new certificate private key\nACME server returned an error: x\n",
	} {
		p := NewParser(Options{Client: client, Location: time.UTC})
		p.Arrived(changed)
		p.Write([]byte(head)) //nolint:errcheck // never fails
		for range 200 {
			p.Write(long) //nolint:errcheck // never fails
		}
		if n := testing.AllocsPerRun(100, func() { p.Write(long) }); n > 0 { //nolint:errcheck // never fails
			t.Errorf("%s: %v allocations for each line that is dropped", client, n)
		}
		checkTold(t, string(client), told(p))
	}
}

// Lines that do not matter are passed over without an allocation.
func TestPassedOver(t *testing.T) {
	for client, text := range map[Client]string{
		AcmeSh: "[Sun Nov 22 07:49:51 UTC 2026] _script_home='/srv/lab'\n[Sun Nov 22 07:49:51 UTC 2026] url='https://localhost:37000/dir'\n" +
			"\"newOrder\": \"https://localhost:37000/order-plz\",\nMIICVzCCAT+gAwIBAgIIXBnhhxmiNPgwDQYJKoZIhvcNAQELBQAwKDEmMCQGA1UE\n[Sun Nov 22 07:49:51 UTC 2026] ret='0'\n",
		Dehydrated: " + Handled by a hook\nnginx: reloaded\n",
		Uacme:      "a hook's line\nanother: one\n",
		Getssl:     "a hook's line\nVery: good\n",
	} {
		p := NewParser(Options{Client: client, Location: time.UTC})
		b := []byte(text)
		p.Write(b)                                                        //nolint:errcheck // never fails
		if n := testing.AllocsPerRun(100, func() { p.Write(b) }); n > 0 { //nolint:errcheck // never fails
			t.Errorf("%s: %v allocations", client, n)
		}
	}
}
