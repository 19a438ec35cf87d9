package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// event is a CloudEvent as a subscriber reads it: only what these tests ask for,
// decoded from the bytes and not from the program's own types.
type event struct {
	SpecVersion     string `json:"specversion"`
	ID              string `json:"id"`
	Source          string `json:"source"`
	Type            string `json:"type"`
	Subject         string `json:"subject"`
	Time            string `json:"time"`
	DataContentType string `json:"datacontenttype"`
	DataSchema      string `json:"dataschema"`
	Sequence        string `json:"sequence"`
	Data            struct {
		Host        string       `json:"host"`
		Severity    string       `json:"severity"`
		Certificate *certificate `json:"certificate"`
		Previous    *certificate `json:"previous"`
		Verdicts    []verdict    `json:"verdicts"`
		Cause       string       `json:"cause"`
		Detail      string       `json:"detail"`
		Hint        string       `json:"hint"`
		LagSeconds  *float64     `json:"lag_seconds"`
		Reload      *struct {
			Server   string `json:"server"`
			How      string `json:"how"`
			ExitCode *int   `json:"exit_code"`
			Output   string `json:"output"`
		} `json:"reload"`
		Next *struct {
			Action string `json:"action"`
			At     string `json:"at"`
		} `json:"next"`
		Attempt   *attempt `json:"attempt"`
		RenewalID string   `json:"renewal_id"`
	} `json:"data"`

	raw []byte
}

type certificate struct {
	Name   string   `json:"name"`
	SHA256 string   `json:"sha256"`
	Serial string   `json:"serial"`
	Names  []string `json:"names"`
}

type verdict struct {
	Certificate string   `json:"certificate"`
	Endpoint    string   `json:"endpoint"`
	Server      string   `json:"server"`
	Address     string   `json:"address"`
	Transport   string   `json:"transport"`
	KeyType     string   `json:"key_type"`
	Code        string   `json:"code"`
	Faults      []string `json:"faults"`
	Severity    string   `json:"severity"`
	Served      *struct {
		SHA256 string   `json:"sha256"`
		Serial string   `json:"serial"`
		Names  []string `json:"names"`
		Chain  []string `json:"chain"`
	} `json:"served"`
	ExpectedSHA256 string `json:"expected_sha256"`
	Samples        int    `json:"samples"`
	Matching       int    `json:"matching"`
	Detail         string `json:"detail"`
	Hint           string `json:"hint"`
}

func parseEvent(raw []byte) (event, error) {
	e := event{raw: bytes.Clone(raw)}
	err := json.Unmarshal(raw, &e)
	return e, err
}

// kind is "class.outcome".
func (e event) kind() string {
	return strings.TrimSuffix(strings.TrimPrefix(e.Type, "io.renewatch."), ".v1")
}

func (e event) String() string {
	s := fmt.Sprintf("%s %s %-18s %s", strings.TrimLeft(e.Sequence, "0"), e.Time, e.kind(), e.Subject)
	if e.Data.Cause != "" {
		s += " cause=" + e.Data.Cause
	}
	for _, v := range e.Data.Verdicts {
		s += fmt.Sprintf(" [%s %s %d/%d]", v.Address, v.Code, v.Matching, v.Samples)
	}
	if r := e.Data.Reload; r != nil {
		s += " reload=" + r.Server + "/" + r.How
		if r.ExitCode != nil {
			s += fmt.Sprintf("(%d)", *r.ExitCode)
		}
	}
	if e.Data.Detail != "" {
		s += " " + e.Data.Detail
	}
	return s
}

func tell(events []event) string {
	var b strings.Builder
	for _, e := range events {
		fmt.Fprintln(&b, e)
	}
	return b.String()
}

var (
	hexID      = regexp.MustCompile(`^[0-9a-f]+$`)
	sha256Hex  = regexp.MustCompile(`^[0-9a-f]{64}$`)
	eventType  = regexp.MustCompile(`^io\.renewatch\.([a-z]+)\.([a-z]+)\.v1$`)
	sequence20 = regexp.MustCompile(`^[0-9]{20}$`)
	attribute  = regexp.MustCompile(`^[a-z0-9]+$`)
	severities = []string{"info", "warning", "error", "critical"}
	terminals  = []string{"deploy.verified", "deploy.failed", "deploy.unverified", "deploy.superseded"}
	codes      = []string{
		"unresolved", "refused", "unreachable", "timeout", "not_tls", "starttls_failed", "handshake_failed",
		"expired", "not_yet_valid", "wrong_name", "untrusted", "mixed", "foreign", "stale", "ahead",
		"chain_incomplete", "chain_disorder", "pq_intolerant", "unverifiable", "not_testable", "serving",
	}
)

// checkEnvelope holds one event against the contract: the CloudEvents envelope,
// the shape of what it says, its JSON Schema.
func checkEnvelope(e event, host string) error {
	var attributes map[string]json.RawMessage
	if err := json.Unmarshal(e.raw, &attributes); err != nil {
		return err
	}
	for name := range attributes {
		if !attribute.MatchString(name) {
			return fmt.Errorf("attribute name %q", name)
		}
	}
	at, err := time.Parse(time.RFC3339Nano, e.Time)
	switch {
	case e.SpecVersion != "1.0":
		return fmt.Errorf("specversion %q", e.SpecVersion)
	case e.ID == "":
		return fmt.Errorf("no id")
	case e.Source != "//"+host+"/renewatch":
		return fmt.Errorf("source %q", e.Source)
	case !eventType.MatchString(e.Type):
		return fmt.Errorf("type %q", e.Type)
	case e.Subject == "":
		return fmt.Errorf("no subject")
	case err != nil || !strings.HasSuffix(e.Time, "Z"):
		return fmt.Errorf("time %q is not RFC 3339 in UTC", e.Time)
	case time.Since(at) < -time.Minute || time.Since(at) > time.Hour:
		return fmt.Errorf("time %q is not of this test", e.Time)
	case e.DataContentType != "application/json":
		return fmt.Errorf("datacontenttype %q", e.DataContentType)
	case !strings.HasPrefix(e.DataSchema, "urn:"):
		return fmt.Errorf("dataschema %q is no URN", e.DataSchema)
	case !sequence20.MatchString(e.Sequence):
		return fmt.Errorf("sequence %q", e.Sequence)
	case len(e.raw) > 48<<10:
		return fmt.Errorf("%d bytes", len(e.raw))
	case e.Data.Host != host:
		return fmt.Errorf("data.host %q", e.Data.Host)
	case !slices.Contains(severities, e.Data.Severity):
		return fmt.Errorf("data.severity %q", e.Data.Severity)
	case bytes.Contains(e.raw, []byte("PRIVATE KEY")):
		return fmt.Errorf("a private key")
	}
	for _, c := range []*certificate{e.Data.Certificate, e.Data.Previous} {
		if c != nil && c.SHA256 != "" && (!sha256Hex.MatchString(c.SHA256) || !hexID.MatchString(c.Serial)) {
			return fmt.Errorf("certificate sha256 %q serial %q", c.SHA256, c.Serial)
		}
	}
	for _, v := range e.Data.Verdicts {
		if err := checkVerdict(v); err != nil {
			return fmt.Errorf("verdict of %s at %s: %w", v.Endpoint, v.Address, err)
		}
	}
	if c := eventType.FindStringSubmatch(e.Type); c[1] == "deploy" || c[1] == "reload" || e.kind() == "renewal.detected" {
		if !hexID.MatchString(e.Data.RenewalID) && e.kind() != "deploy.lost" {
			return fmt.Errorf("renewal_id %q", e.Data.RenewalID)
		}
	}
	return checkSchema(e.raw)
}

func checkVerdict(v verdict) error {
	switch {
	case !slices.Contains(codes, v.Code):
		return fmt.Errorf("code %q", v.Code)
	case !slices.Contains(severities, v.Severity):
		return fmt.Errorf("severity %q", v.Severity)
	case v.Faults == nil:
		return fmt.Errorf("faults is not a list")
	case v.Code == "serving" && len(v.Faults) != 0:
		return fmt.Errorf("serving with faults %q", v.Faults)
	case v.Code != "serving" && len(v.Faults) != 0 && v.Faults[0] != v.Code:
		return fmt.Errorf("code %q is not the worst of %q", v.Code, v.Faults)
	case !slices.IsSortedFunc(v.Faults, func(a, b string) int { return slices.Index(codes, a) - slices.Index(codes, b) }):
		return fmt.Errorf("faults %q are not worst first", v.Faults)
	case v.Transport != "tcp":
		return fmt.Errorf("transport %q", v.Transport)
	case v.Matching > v.Samples:
		return fmt.Errorf("%d of %d samples match", v.Matching, v.Samples)
	case v.ExpectedSHA256 != "" && !sha256Hex.MatchString(v.ExpectedSHA256):
		return fmt.Errorf("expected_sha256 %q", v.ExpectedSHA256)
	case v.Served != nil && (!sha256Hex.MatchString(v.Served.SHA256) || !hexID.MatchString(v.Served.Serial)):
		return fmt.Errorf("served sha256 %q serial %q", v.Served.SHA256, v.Served.Serial)
	case v.Served != nil && (len(v.Served.Chain) == 0 || v.Served.Chain[0] != v.Served.SHA256):
		return fmt.Errorf("served chain %q does not begin with the leaf", v.Served.Chain)
	}
	return nil
}

// checkStory holds everything one daemon ever said against the contract: each
// event, ids unique, the sequence without a hole from 1, and for one renewal_id
// at most one terminal event, with nothing said before its renewal.detected.
func checkStory(t *testing.T, host string, events []event) {
	t.Helper()
	ids := map[string]bool{}
	ended := map[string]string{}
	spoken := map[string]bool{}
	for i, e := range events {
		if err := checkEnvelope(e, host); err != nil {
			t.Errorf("event %d: %v\n%s", i+1, err, e.raw)
		}
		if want := fmt.Sprintf("%020d", i+1); e.Sequence != want {
			t.Errorf("event %d has sequence %s", i+1, e.Sequence)
		}
		if ids[e.ID] {
			t.Errorf("id %s twice", e.ID)
		}
		ids[e.ID] = true
		id := e.Data.RenewalID
		if id == "" {
			continue
		}
		if slices.Contains(terminals, e.kind()) {
			if before, twice := ended[id]; twice {
				t.Errorf("renewal %s ended as %s and as %s", id, before, e.kind())
			}
			ended[id] = e.kind()
		}
		switch e.kind() {
		case "renewal.attempted", "renewal.failed", "renewal.overdue": // what led to it comes before it
			continue
		}
		if e.kind() == "renewal.detected" && spoken[id] {
			t.Errorf("renewal %s: renewal.detected is not the first word", id)
		}
		spoken[id] = true
	}
}

// subjectToken is how a name becomes a token of a NATS subject.
func subjectToken(name string) string {
	name = strings.ToLower(name)
	var b strings.Builder
	if rest, ok := strings.CutPrefix(name, "*."); ok {
		b.WriteString("STAR_")
		name = rest
	}
	for _, c := range []byte(name) {
		switch {
		case c == '.':
			b.WriteByte('_')
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "=%02X", c)
		}
	}
	return b.String()
}

// kinds are the kinds of events, in order.
func kinds(events []event) []string {
	var out []string
	for _, e := range events {
		out = append(out, e.kind())
	}
	return out
}

// only keeps the events of the given kinds.
func only(events []event, kind ...string) []event {
	var out []event
	for _, e := range events {
		if slices.Contains(kind, e.kind()) {
			out = append(out, e)
		}
	}
	return out
}

// of keeps the events of one renewal, without the alerts about it.
func of(events []event, renewalID string) []event {
	var out []event
	for _, e := range events {
		if class, _, _ := strings.Cut(e.kind(), "."); e.Data.RenewalID == renewalID && class != "alert" && class != "expiry" {
			out = append(out, e)
		}
	}
	return out
}

// wantKinds fails unless exactly these kinds were said, in this order.
func wantKinds(t *testing.T, events []event, want ...string) {
	t.Helper()
	if got := kinds(events); !slices.Equal(got, want) {
		t.Errorf("said %q, want %q:\n%s", got, want, tell(events))
	}
}

// attempt is what an event tells of the ACME client's log.
type attempt struct {
	Client        string `json:"client"`
	Log           string `json:"log"`
	Lineage       string `json:"lineage"`
	DryRun        bool   `json:"dry_run"`
	Forced        bool   `json:"forced"`
	Outcome       string `json:"outcome"`
	Phase         string `json:"phase"`
	ProblemType   string `json:"problem_type"`
	ProblemDetail string `json:"problem_detail"`
	Problems      []struct {
		Name string `json:"name"`
	} `json:"problems"`
	Hook *struct {
		Kind     string `json:"kind"`
		ExitCode int    `json:"exit_code"`
	} `json:"hook"`
}
