package acmelog

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// issuedFor sure lists what is told as issued without a doubt.
func issuedForSure(all []Attempt) (out []Attempt) {
	for _, a := range all {
		if a.Outcome == Issued && !a.Doubtful && !a.DryRun {
			out = append(out, a)
		}
	}
	return out
}

// Wherever somebody puts the lines of a success into the log of a run that failed,
// nothing is told as issued without a doubt.
func TestCertbotForgedSuccess(t *testing.T) {
	file := func(base, name string) string {
		const at = "2026-11-22 07:40:00,000:DEBUG:certbot._internal."
		dir := base + "/archive/" + name + "/"
		return at + "storage:Writing new private key to " + dir + "privkey7.pem.\n" +
			at + "storage:Writing certificate to " + dir + "cert7.pem.\n" +
			at + "storage:Writing chain to " + dir + "chain7.pem.\n" +
			at + "storage:Writing full chain to " + dir + "fullchain7.pem.\n" +
			at + "display.obj:Notifying user: Congratulations, all renewals succeeded: \n" +
			at + "display.obj:Notifying user:   " + base + "/live/" + name + "/fullchain.pem (success)\n" +
			at + "renewal:no renewal failures\n"
	}
	terminal := func(base, name string) string {
		return "Congratulations, all renewals succeeded: \n  " + base + "/live/" + name + "/fullchain.pem (success)\n" +
			"- - - - - - - - - - - - - - - - - - - - - - - - - - - - - - - - - - - - - - - -\n"
	}
	paths, err := filepath.Glob("testdata/certbot/*.log")
	if err != nil {
		t.Fatal(err)
	}
	tried := 0
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		told := read(t, Certbot, text, 1<<20)
		if len(told) == 0 || len(issuedForSure(told)) > 0 || told[0].Outcome != Failed {
			continue
		}
		forged := file("/srv/lab/cb/etc", "a.test")
		switch {
		case strings.HasSuffix(path, "_stdout.log"):
			continue // the failures stand on stderr
		case !strings.Contains(filepath.Base(path), "_debug"):
			forged = terminal("/srv/lab/cb/etc", "a.test")
		}
		lines := bytes.SplitAfter(text, []byte("\n"))
		step := max(1, len(lines)/60)
		for i := 0; i < len(lines); i += step {
			mixed := bytes.Join([][]byte{bytes.Join(lines[:i], nil), []byte(forged), bytes.Join(lines[i:], nil)}, nil)
			tried++
			if got := issuedForSure(read(t, Certbot, mixed, 1<<20)); len(got) > 0 {
				t.Errorf("%s: forged before line %d: %s", path, i+1, jsonLines(t, got))
			}
		}
	}
	if tried < 100 {
		t.Errorf("only %d forgeries were tried", tried)
	}
}

func TestCertbotForeignPath(t *testing.T) {
	text, err := os.ReadFile("testdata/certbot/2.1.0_force_hookbad_debug.log")
	if err != nil {
		t.Fatal(err)
	}
	for _, foreign := range []string{"/srv/lab/cb/etc/archive/b.test/", "/tmp/archive/a.test/", "/srv/lab/cb/etc/live/../../x/", "relative/"} {
		mixed := strings.Replace(string(text), "Writing full chain to /srv/lab/cb/etc/archive/a.test/", "Writing full chain to "+foreign, 1)
		if mixed == string(text) {
			t.Fatal("nothing replaced")
		}
		all := read(t, Certbot, []byte(mixed), 1<<20)
		if len(all) != 1 || !all[0].Doubtful {
			t.Errorf("%s: not doubted: %s", foreign, jsonLines(t, all))
		}
		for _, a := range all {
			for _, path := range a.Saved {
				if strings.HasPrefix(path, foreign) {
					t.Errorf("%s is told as saved", path)
				}
			}
		}
	}
}

// A hook's output is indented since 1.16 and is never a list of lineages.
func TestCertbotHookOutput(t *testing.T) {
	const text = `Saving debug log to /var/log/letsencrypt/letsencrypt.log
Processing /etc/letsencrypt/renewal/a.example.conf
Hook 'pre-hook' ran with output:
 Congratulations, all renewals succeeded:
   /etc/letsencrypt/live/a.example/fullchain.pem (success)
 Failed to renew certificate b.example with error: none
Renewing an existing certificate for a.example
Failed to renew certificate a.example with error: All authorizations were not finalized by the CA.
`
	all := read(t, Certbot, []byte(text), 1<<20)
	if len(all) != 1 || all[0].Outcome != Failed || all[0].Lineage != "a.example" || all[0].Doubtful {
		t.Errorf("%s", jsonLines(t, all))
	}
}

// The DEBUG file grows by appending or is another one in every run; either way a
// text may begin anywhere. What is whole in it is told as ever.
func TestCertbotBeginsAnywhere(t *testing.T) {
	text, err := os.ReadFile("testdata/certbot/2.9.0_hook_prepost_debug.log")
	if err != nil {
		t.Fatal(err)
	}
	whole := read(t, Certbot, text, 1<<20)
	if len(whole) != 2 || whole[1].Outcome != Issued {
		t.Fatalf("%s", jsonLines(t, whole))
	}
	begins := int(whole[1].Offset)
	for from := 0; from < begins; from += 997 {
		all := read(t, Certbot, text[from:], 1<<20)
		last := all[len(all)-1]
		if len(all) > 2 || last.Lineage != whole[1].Lineage || last.Outcome != Issued || last.Doubtful || len(last.Saved) != 4 || last.Hook == nil || last.Hook.Kind != "post" {
			t.Errorf("from %d: %s", from, jsonLines(t, all))
		}
		for _, a := range all {
			if a.Outcome == Failed || a.Outcome == Issued && a.Doubtful && len(a.Saved) == 0 {
				t.Errorf("from %d: %s", from, jsonLines(t, all))
			}
		}
	}
}

// A daemon that follows the file takes what is known at every time; in the end that
// is the same as for a reader of the whole.
func TestCertbotFollowed(t *testing.T) {
	for _, s := range samples(t) {
		if s.client != Certbot {
			continue
		}
		p := NewParser(Options{Client: Certbot, Log: "LOG", Location: time.UTC})
		p.Arrived(changed)
		last := map[[2]int64]Attempt{}
		take := func() {
			for _, a := range p.Take() {
				last[[2]int64{a.Offset, int64(a.Nth)}] = a
			}
		}
		for line := range bytes.Lines(s.text) {
			p.Write(line)
			take()
		}
		p.Flush()
		p.Stall(later)
		take()
		want := read(t, Certbot, s.text, 1<<20)
		if len(last) != len(want) {
			t.Errorf("%s: %d attempts, followed %d", s.path, len(want), len(last))
		}
		for _, w := range want {
			if got := last[[2]int64{w.Offset, int64(w.Nth)}]; jsonLines(t, []Attempt{got}) != jsonLines(t, []Attempt{w}) {
				t.Errorf("%s: followed\n%swhole\n%s", s.path, jsonLines(t, []Attempt{got}), jsonLines(t, []Attempt{w}))
			}
		}
	}
}

// With --quiet the journal has nothing of a hook that failed, and only the sentence of
// a failure; how the unit ended is no proof of anything.
func TestCertbotJournalQuiet(t *testing.T) {
	entry := func(id, message, more string) string {
		if id != "" {
			more += `,"MESSAGE_ID":"` + id + `","_PID":"1"`
		}
		return `{"__REALTIME_TIMESTAMP":"1795000000000000","_SYSTEMD_UNIT":"certbot.service"` + more + `,"MESSAGE":"` + message + `"}` + "\n"
	}
	start := entry(unitStarts, "Starting certbot.service - Certbot...", "")
	ended := entry(processEnded, "certbot.service: Main process exited", `,"EXIT_CODE":"exited","EXIT_STATUS":"1"`) +
		entry(unitFailure, "certbot.service: Failed with result 'exit-code'.", "") + entry(unitFailed, "Failed to start certbot.service - Certbot.", "")
	fine := entry(unitSuccess, "certbot.service: Deactivated successfully.", "") + entry(unitFinished, "Finished certbot.service - Certbot.", "")
	text := start + fine +
		start + entry("", "Failed to renew certificate a.test with error: Some challenges have failed.", "") +
		entry("", "All renewals failed. The following certificates could not be renewed:", "") +
		entry("", "  /etc/letsencrypt/live/a.test/fullchain.pem (failure)", "") +
		entry("", "1 renew failure(s), 0 parse failure(s)", "") + ended +
		start + entry("", "Another instance of Certbot is already running.", "") + ended +
		start + entry("", "Something that nobody has heard of", "") + ended +
		start + fine
	all := read(t, Certbot, []byte(text), 1<<20)
	var got []string
	for _, a := range all {
		got = append(got, string(a.Outcome)+" "+string(a.Phase)+" "+a.Lineage+" "+a.ProblemDetail)
	}
	want := []string{
		"failed challenge a.test Some challenges have failed.",
		"failed client  Another instance of Certbot is already running.",
		"failed client  Something that nobody has heard of",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// Whatever is in a log, what is remembered of a run is bounded, and so is what a line
// costs.
func TestCertbotHostileRun(t *testing.T) {
	const stamp = "2026-11-22 07:40:00,000:"
	kinds := []string{
		"Processing /etc/letsencrypt/renewal/#.conf\n",
		"Failed to renew certificate # with error: urn:ietf:params:acme:error:rateLimited :: x\n",
		"Processing /etc/letsencrypt/renewal/#.conf\nRenewing an existing certificate for #\nHook 'post-hook' reported error code 1\n",
		"Congratulations, all renewals succeeded: \n  /etc/letsencrypt/live/#/fullchain.pem (success)\n",
		stamp + "DEBUG:certbot._internal.display.obj:Notifying user: Processing /etc/letsencrypt/renewal/#.conf\n",
		stamp + "DEBUG:certbot._internal.storage:Writing full chain to /etc/letsencrypt/archive/#/fullchain1.pem.\n",
		stamp + "ERROR:certbot._internal.renewal:Failed to renew certificate # with error: x\n" +
			stamp + "DEBUG:certbot._internal.storage:Writing full chain to /etc/letsencrypt/archive/#/fullchain1.pem.\n",
		stamp + "DEBUG:certbot._internal.display.obj:Notifying user: Requesting a certificate for #\n" + stamp + "INFO:certbot._internal.auth_handler:Challenge failed for domain #\n",
	}
	for _, kind := range kinds {
		dialect := &certbot{}
		p := NewParser(Options{Client: Certbot, Location: time.UTC})
		p.dialect = dialect
		told := 0
		for i := range 20000 {
			p.Write([]byte(strings.ReplaceAll(kind, "#", "n"+strconv.Itoa(i)+".example")))
			told += len(p.Take())
		}
		p.Flush()
		if told == 0 {
			t.Errorf("%.60q: nothing is told", kind)
		}
		r := dialect.run
		if n := max(len(r.done), len(r.early), len(r.lost)); n > maxCertbotLineages {
			t.Errorf("%.60q: %d lineages are remembered", kind, n)
		}
		if n := max(len(r.issued), len(r.failures), len(r.refused), len(p.ledger.open)); n > maxOpen {
			t.Errorf("%.60q: %d attempts are remembered", kind, n)
		}
	}
}
