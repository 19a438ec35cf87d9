package schematest

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/renewatch/renewatch/notify"
)

var noon = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

// full is a draft in which every field is set.
func full(k notify.Kind) notify.Draft {
	sha := strings.Repeat("ab", 32)
	lag, exit := 1.5, 1
	cert := notify.Certificate{
		Name: "www.example.com", SHA256: sha, Serial: "0a1", Names: []string{"www.example.com", "192.0.2.1"}, NamesOmitted: 1,
		Issuer: "CN=x", NotBefore: noon, NotAfter: noon.Add(time.Hour), KeyType: "ecdsa", Path: "/etc/x.pem",
	}
	took, tried, at := int64(3), true, noon
	return notify.Draft{Kind: k, Certificate: "www.example.com", Time: noon, Data: notify.Data{
		Severity: notify.Error, Certificate: &cert, Previous: &cert,
		Verdicts: []notify.Verdict{{
			Certificate: "www.example.com", Endpoint: "https://www.example.com", Server: "nginx", Address: "192.0.2.1:443", Transport: "tcp",
			KeyType: "ecdsa", Code: "stale", Faults: []string{"stale"}, Severity: notify.Warning,
			Served:         &notify.Served{SHA256: sha, Serial: "01", Names: []string{"a"}, NamesOmitted: 1, NotBefore: noon, NotAfter: noon, Issuer: "CN=x", Chain: []string{sha}},
			ExpectedSHA256: sha, Samples: 2, Matching: 1, TookMS: 12, Detail: "d", Hint: "h",
		}},
		VerdictsOmitted: 1, Excluded: []notify.Excluded{{Endpoint: "e", Address: "a", Code: "stale", Why: "not_required"}}, ExcludedOmitted: 1,
		Cause: "limit", Detail: "d", Hint: "h", LagSeconds: &lag,
		Attempt: &notify.Attempt{Client: "certbot", Log: "/l", Lineage: "a", Names: []string{"a.example"}, NamesOmitted: 1, CA: "https://ca.example/dir", Staging: true, DryRun: true, Forced: true,
			Started: at, Ended: at, Outcome: "failed", Phase: "challenge", ProblemType: "urn:ietf:params:acme:error:dns", ProblemDetail: "d",
			Problems: []notify.AttemptProblem{{Name: "a.example", Type: "t", Detail: "d"}}, RetryAfter: at, Paused: true, Saved: []string{"/f"},
			Hook: &notify.AttemptHook{Kind: "deploy", ExitCode: 3}, Activated: true, Doubtful: true},
		Tried:  &tried,
		Reload: &notify.Reload{Server: "nginx", How: "command", ExitCode: &exit, Output: "o\n", TookMS: &took},
		Next:   &notify.Next{Action: "reload", At: noon}, Alert: &notify.Alert{ID: strings.Repeat("0", 32), Since: noon, Reminder: true}, RenewalID: strings.Repeat("0", 32), Silenced: true,
	}}
}

func encode(t *testing.T, d notify.Draft) []byte {
	t.Helper()
	e, err := notify.Finish(d, "web1.example.org", "i", 7, noon)
	if err != nil {
		t.Fatal(err)
	}
	b, err := notify.Encode(e)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestEveryKindWithEveryFieldIsValid(t *testing.T) {
	for _, k := range notify.Kinds() {
		if err := Validate(encode(t, full(k))); err != nil {
			t.Errorf("%s: %v", k, err)
		}
	}
}

func TestLittleIsEnough(t *testing.T) {
	for _, k := range []notify.Kind{notify.AgentStarted, notify.AgentStopped, notify.AgentRecovered} {
		if err := Validate(encode(t, notify.Draft{Kind: k, Certificate: notify.AgentCertificate})); err != nil {
			t.Errorf("%s: %v", k, err)
		}
	}
}

// Each row breaks one thing of a good event.
func TestMistakesAreCaught(t *testing.T) {
	type object = map[string]any
	data := func(e object) object { return e["data"].(object) }
	verdict := func(e object) object { return data(e)["verdicts"].([]any)[0].(object) }
	for name, spoil := range map[string]func(e object){
		"unknown attribute":        func(e object) { e["more"] = 1 },
		"unknown key in data":      func(e object) { data(e)["more"] = 1 },
		"unknown key in a verdict": func(e object) { verdict(e)["more"] = 1 },
		"no data":                  func(e object) { delete(e, "data") },
		"no id":                    func(e object) { delete(e, "id") },
		"upper-case id":            func(e object) { e["id"] = strings.ToUpper(e["id"].(string)) + "A" },
		"local time":               func(e object) { e["time"] = "2026-06-01T12:00:00+02:00" },
		"no time":                  func(e object) { e["time"] = "yesterday" },
		"short sequence":           func(e object) { e["sequence"] = "7" },
		"sequence as a number":     func(e object) { e["sequence"] = 7 },
		"dataschema of another":    func(e object) { e["dataschema"] = "urn:renewatch:event:deploy.lost:v1" },
		"source of another":        func(e object) { e["source"] = "//other/renewatch" },
		"type of nobody":           func(e object) { e["type"] = "io.renewatch.deploy.maybe.v1" },
		"severity of nobody":       func(e object) { data(e)["severity"] = "bad" },
		"no cause":                 func(e object) { delete(data(e), "cause") },
		"no next":                  func(e object) { delete(data(e), "next") },
		"no renewal_id":            func(e object) { delete(data(e), "renewal_id") },
		"a sentence as cause":      func(e object) { data(e)["cause"] = "it did not work" },
		"colons in a fingerprint":  func(e object) { verdict(e)["expected_sha256"] = "AB:CD" },
		"faults null":              func(e object) { verdict(e)["faults"] = nil },
		"no code":                  func(e object) { delete(verdict(e), "code") },
		"lag before":               func(e object) { data(e)["lag_seconds"] = -1 },
		"text in place of number":  func(e object) { verdict(e)["samples"] = "2" },
	} {
		var e object
		if err := json.Unmarshal(encode(t, full(notify.DeployFailed)), &e); err != nil {
			t.Fatal(err)
		}
		spoil(e)
		b, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		if err := Validate(b); err == nil {
			t.Errorf("%s: not caught", name)
		}
	}
	if err := Validate(append(encode(t, full(notify.DeployFailed)), make([]byte, notify.MaxEvent)...)); err == nil {
		t.Error("too large: not caught")
	}
}

func TestReadersAcceptWhatMayComeLater(t *testing.T) {
	s := string(encode(t, full(notify.DeployFailed)))
	s = strings.Replace(s, `"cause":"limit"`, `"cause":"something_new","more":{"a":1}`, 1)
	s = strings.Replace(s, `"code":"stale"`, `"code":"revoked","more":1`, 1)
	s = strings.Replace(s, `"specversion"`, `"extension":"x","specversion"`, 1)
	if err := ValidateOpen([]byte(s)); err != nil {
		t.Error(err)
	}
	if err := Validate([]byte(s)); err == nil {
		t.Error("the strict check does not see new keys")
	}
}
