package e2e

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// check --cert compares what an endpoint serves with a file and says in one
// look, and with its exit code, whether it is served, stale, under a wrong name,
// of a CA nobody trusts, or not reachable at all.
func TestCheckTellsWhatIsServed(t *testing.T) {
	t.Parallel()
	s := newLocal(t, "www.e2e.test")
	renewed := newLineage(t, s.name, s.ca.aged(time.Hour, s.name))
	stranger := newLineage(t, s.name, s.ca.aged(time.Hour, s.name, "more.e2e.test"))
	down := freePort(t)
	at := func(name string) string { return fmt.Sprintf("https://%s:%d?address=%s", name, s.port, s.v4) }

	for _, c := range []struct {
		name     string
		args     []string
		code     string
		faults   []string // all of them; nil: not looked at
		severity string
		exit     int
	}{
		{"serving", []string{"--cert", s.lineage.cert, "--ca", s.ca.root, at(s.name)}, "serving", []string{}, "info", 0},
		{"stale", []string{"--cert", renewed.cert, "--ca", s.ca.root, at(s.name)}, "stale", []string{"stale"}, "error", 2},
		{"ahead", []string{"--cert", newLineage(t, s.name, s.ca.aged(hours(48), s.name)).cert, "--ca", s.ca.root, at(s.name)}, "ahead", []string{"ahead"}, "warning", 1},
		{"foreign", []string{"--cert", stranger.cert, "--ca", s.ca.root, at(s.name)}, "foreign", []string{"foreign"}, "error", 2},
		{"wrong name", []string{"--cert", s.lineage.cert, "--ca", s.ca.root, at("other.e2e.test")}, "wrong_name", []string{"wrong_name"}, "critical", 2},
		{"untrusted", []string{"--cert", s.lineage.cert, at(s.name)}, "untrusted", []string{"untrusted"}, "critical", 2},
		{"down", []string{"--cert", s.lineage.cert, "--ca", s.ca.root, fmt.Sprintf("https://%s:%d?address=127.0.0.1", s.name, down)}, "refused", []string{"refused"}, "", 2},
		{"by itself", []string{"--ca", s.ca.root, at(s.name)}, "serving", []string{}, "info", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			res := run(t, command(t, append([]string{"check", "--json"}, c.args...)...))
			if res.code != c.exit {
				t.Errorf("want exit %d, got %v", c.exit, res)
			}
			got := lines(res.stdout)
			if len(got) != 1 {
				t.Fatalf("want one verdict, got %v", res)
			}
			var v verdict
			if err := json.Unmarshal([]byte(got[0]), &v); err != nil {
				t.Fatalf("%v: %s", err, got[0])
			}
			if err := checkVerdict(v); err != nil {
				t.Errorf("%v: %s", err, got[0])
			}
			if v.Code != c.code || fmt.Sprint(v.Faults) != fmt.Sprint(c.faults) || c.severity != "" && v.Severity != c.severity {
				t.Errorf("want code %s, faults %q, severity %s: %s", c.code, c.faults, c.severity, got[0])
			}
			if c.exit == 2 && v.Hint == "" {
				t.Errorf("an error without a hint: %s", got[0])
			}
			text := run(t, command(t, append([]string{"check"}, c.args...)...))
			if text.code != c.exit || !strings.Contains(text.stdout, c.code) && !strings.Contains(text.stdout, strings.ReplaceAll(c.code, "_", " ")) {
				t.Errorf("the text for people does not say %s: %v", c.code, text)
			}
			if strings.Contains(text.stdout+text.stderr, "\x1b[") {
				t.Errorf("colours in a pipe: %v", text)
			}
		})
	}
}

// check without arguments goes through the configuration; a NAME picks one
// certificate; a file at fault is a line of its own and exit 2.
func TestCheckTheConfiguration(t *testing.T) {
	t.Parallel()
	s := newLocal(t, "www.e2e.test")
	broken := newLineage(t, "broken.e2e.test", s.ca.aged(time.Hour, "broken.e2e.test"))
	whole := readFile(t, broken.cert)
	writeFile(t, broken.cert, whole[:len(whole)-200], 0o644)
	d := newDaemon(t, "", verifying("none", s.ca.root)+certificateBlock(s.lineage.cert, s.endpoint())+
		fmt.Sprintf("  - cert: %s\n    endpoints: []\n", broken.cert))

	one := run(t, command(t, "check", "--config", d.conf, "--json", s.name))
	if one.code != 0 {
		t.Errorf("check of a served certificate: %v", one)
	}
	addresses := map[string]string{}
	for _, line := range lines(one.stdout) {
		var v verdict
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if err := checkVerdict(v); err != nil {
			t.Errorf("%v: %s", err, line)
		}
		if v.Certificate != s.name {
			t.Errorf("the verdict is not of %s: %s", s.name, line)
		}
		addresses[v.Address] = v.Code
	}
	if fmt.Sprint(addresses) != fmt.Sprint(s.each("serving")) {
		t.Errorf("want %v, got %v", s.each("serving"), addresses)
	}

	all := run(t, command(t, "check", "--config", d.conf, "--json"))
	if all.code != 2 {
		t.Errorf("check with a broken file: %v", all)
	}
	faults := 0
	for _, line := range lines(all.stdout) {
		var fault struct{ Certificate, Path, Code, Severity, Detail, Hint string }
		if err := json.Unmarshal([]byte(line), &fault); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if fault.Code != "file_broken" {
			continue
		}
		faults++
		if fault.Certificate != "broken.e2e.test" || fault.Path != broken.cert || fault.Severity == "" || fault.Detail == "" {
			t.Errorf("the fault of the file: %s", line)
		}
	}
	if faults != 1 {
		t.Errorf("want one file_broken line: %v", all)
	}
}

// Whatever is wrong with the call, check ends with 3 and one clear sentence, and
// writes nothing where a script reads results.
func TestCheckRefusesAWrongCall(t *testing.T) {
	t.Parallel()
	program(t, "go")
	ca := newAuthority(t)
	l := newLineage(t, "www.e2e.test", ca.aged(time.Hour, "www.e2e.test"))
	config := filepath.Join(tempDir(t), "renewatch.yaml")
	writeFile(t, config, "certificates:\n  - cert: "+l.cert+"\n    endpoints: []\n", 0o644)
	garbage := filepath.Join(tempDir(t), "garbage.pem")
	writeFile(t, garbage, "no certificate in here\n", 0o644)
	for name, args := range map[string][]string{
		"--cert without an endpoint": {"--cert", l.cert},
		"a file that is not there":   {"--cert", "/nowhere/fullchain.pem", "https://www.e2e.test"},
		"a file without certificate": {"--cert", garbage, "https://www.e2e.test"},
		"an unknown name":            {"--config", config, "nobody.e2e.test"},
		"an unknown flag":            {"--certificate", l.cert},
		"an unknown scheme":          {"--cert", l.cert, "gopher://www.e2e.test"},
		"an endpoint without a host": {"--cert", l.cert, "https://"},
		"a bad port":                 {"--cert", l.cert, "https://www.e2e.test:99999"},
		"a bad number of samples":    {"--cert", l.cert, "--samples", "0", "https://www.e2e.test"},
		"a duration without a unit":  {"--cert", l.cert, "--timeout", "5", "https://www.e2e.test"},
		"nothing to test":            {"--config", config},
		"a configuration not there":  {"--config", "/nowhere/renewatch.yaml"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			res := run(t, command(t, append([]string{"check"}, args...)...))
			if res.code != 3 {
				t.Errorf("want exit 3, got %v", res)
			}
			if !strings.Contains(res.stderr, "renewatch: ") && !strings.Contains(res.stdout, "nothing") {
				t.Errorf("no sentence: %v", res)
			}
			if strings.Contains(res.stderr, "goroutine") {
				t.Errorf("a panic: %v", res)
			}
		})
	}
}

// A wrong flag ends with 2 everywhere else.
func TestWrongFlag(t *testing.T) {
	t.Parallel()
	program(t, "go")
	for _, verb := range []string{"run", "events", "health", "version"} {
		if res := run(t, command(t, verb, "--no-such-flag")); res.code != 2 || !strings.Contains(res.stderr, "renewatch: error:") {
			t.Errorf("%s with an unknown flag: %v", verb, res)
		}
	}
}

// curl and renewatch see the same server the same way: an independent client
// that trusts the same CA agrees with the verdict.
func TestCurlAgrees(t *testing.T) {
	t.Parallel()
	curl := program(t, "curl")
	s := newLocal(t, "www.e2e.test")
	for name, want := range map[string]struct{ check, curl int }{s.name: {0, 0}, "other.e2e.test": {2, 60}} {
		checked := run(t, command(t, "check", "--cert", s.lineage.cert, "--ca", s.ca.root, fmt.Sprintf("https://%s:%d?address=%s", name, s.port, s.v4)))
		fetched := run(t, exec.Command(curl, "-sS", "--noproxy", "*", "--cacert", s.ca.root, "--resolve", fmt.Sprintf("%s:%d:127.0.0.1", name, s.port),
			fmt.Sprintf("https://%s:%d/", name, s.port)))
		if checked.code != want.check || fetched.code != want.curl {
			t.Errorf("%s: check %v\ncurl %v", name, checked, fetched)
		}
	}
}
