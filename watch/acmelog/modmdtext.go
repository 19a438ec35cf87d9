package acmelog

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"
)

// message reads a line that a script behind MDMessageCmd wrote.
func (d *modMD) message(reason, md string, at time.Time, l *line, g *ledger) {
	if name, ok := strings.CutPrefix(reason, "challenge-setup:"); ok {
		a := d.start(md, at, l, g)
		a.reach(PhaseChallenge)
		_, name, _ = strings.Cut(name, ":")
		a.name(name)
		return
	}
	switch reason {
	case "renewing":
		d.begin(md, at, l, g)
	case "renewed":
		d.issued(md, at, l, g)
	case "installed":
		d.installed(md, at, l, g)
	case "errored":
		g.finish(d.current(md, at, l, g), Failed, at)
	}
}

// mdMessage reads a line that ends with the two words MDMessageCmd adds to a
// command's arguments, the reason and the managed domain, behind a time and a
// mark at most ("07:50:52 msg: renewing a.test"). The reason is empty when it is
// no such line. read is when it was read: the date of a clock without one.
func mdMessage(text []byte, read time.Time, zone *time.Location) (reason, md string, at time.Time) {
	if len(text) > 640 {
		return "", "", time.Time{}
	}
	i := bytes.LastIndexByte(text, ' ')
	if i <= 0 {
		return "", "", time.Time{}
	}
	j := bytes.LastIndexByte(text[:i], ' ')
	word := text[j+1 : i]
	if len(word) < len("errored") || !isMDReason(word) {
		return "", "", time.Time{}
	}
	md = string(text[i+1:])
	if cleanName(md) != md {
		return "", "", time.Time{}
	}
	head := strings.Fields(string(text[:max(j, 0)]))
	if n := len(head); n > 0 && strings.HasSuffix(head[n-1], ":") && !isDigit(head[n-1][0]) {
		head = head[:n-1]
	}
	at, ok := mdTime(head, read, zone)
	if !ok {
		return "", "", time.Time{}
	}
	return string(word), md, at
}

func isMDReason(w []byte) bool {
	if bytes.HasPrefix(w, []byte("challenge-setup:")) {
		return true
	}
	return slices.Contains(mdReasons, string(w))
}

// mdTime reads what a script may write as the time: nothing, a clock's, an RFC
// 3339 one, date's. ok is false for anything else.
func mdTime(words []string, read time.Time, zone *time.Location) (at time.Time, ok bool) {
	if len(words) > 7 {
		return time.Time{}, false
	}
	s := strings.Trim(strings.Join(words, " "), "[]")
	if s == "" {
		return read, true
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05-0700", time.UnixDate, "Mon Jan _2 03:04:05 PM MST 2006", "Mon _2 Jan 2006 03:04:05 PM MST", time.RFC1123Z, time.RFC1123, "2006-01-02 15:04:05", "2006-01-02T15:04:05"} {
		if t, err := time.ParseInLocation(layout, s, zone); err == nil {
			return t, true
		}
	}
	if t, err := time.Parse("15:04:05", s); err == nil { // the last such time before it was read
		if read.IsZero() {
			return read, true
		}
		y, m, day := read.In(zone).Date()
		at = time.Date(y, m, day, t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), zone)
		if at.After(read.Add(time.Minute)) {
			at = at.AddDate(0, 0, -1)
		}
		return at, true
	}
	return time.Time{}, false
}

// mdDuration reads a duration as mod_md prints it: "1 days 2 hours 43 seconds",
// "500 ms"; before 2.0 "0:00:05 hours".
func mdDuration(s string) (time.Duration, bool) {
	words := strings.Fields(strings.TrimPrefix(strings.TrimSpace(s), "~"))
	if len(words) < 2 || len(words)%2 != 0 || len(words) > 8 {
		return 0, false
	}
	var sum time.Duration
	for i := 0; i < len(words); i += 2 {
		if parts := strings.Split(words[i], ":"); len(parts) == 3 && words[i+1] == "hours" {
			for j, unit := range []time.Duration{time.Hour, time.Minute, time.Second} {
				n, err := strconv.Atoi(parts[j])
				if err != nil || n < 0 || n > 10000 {
					return 0, false
				}
				sum += time.Duration(n) * unit
			}
			continue
		}
		n, err := strconv.Atoi(words[i])
		if err != nil || n < 0 || n > 1<<20 {
			return 0, false
		}
		unit := map[string]time.Duration{"days": 24 * time.Hour, "hours": time.Hour, "minutes": time.Minute, "seconds": time.Second, "ms": time.Millisecond}[words[i+1]]
		if unit == 0 {
			return 0, false
		}
		sum += time.Duration(n) * unit
	}
	return sum, sum <= 366*24*time.Hour
}

// mdPhases says how far mod_md is, by the beginnings of what it calls its
// activities and of the details of its errors.
var mdPhases = []struct {
	phase Phase
	begin string
}{
	{PhaseDirectory, "Contacting ACME server"},
	{PhaseDirectory, "Unsuccessful in contacting"},
	{PhaseDirectory, "The ACME server at <"},
	{PhaseDirectory, "Unable to understand ACME server"},
	{PhaseDirectory, "ACME server speaks version 1"},
	{PhaseDirectory, "Selecting account"},
	{PhaseDirectory, "Creating new ACME account"},
	{PhaseDirectory, "No contact information"},
	{PhaseDirectory, "the CA requires "},
	{PhaseOrder, "Creating new order"},
	{PhaseOrder, "Loaded order"},
	{PhaseOrder, "saving order"},
	{PhaseChallenge, "Starting challenges"},
	{PhaseChallenge, "Setting up challenge"},
	{PhaseChallenge, "Monitoring challenge"},
	{PhaseChallenge, "Error waiting on domain names"},
	{PhaseChallenge, "None of offered challenge"},
	{PhaseChallenge, "None of the offered challenge"},
	{PhaseChallenge, "error setting up challenge"},
	{PhaseChallenge, "domain authorization for"},
	{PhaseChallenge, "authorization retrieval failed"},
	{PhaseChallenge, "unexpected AUTHZ state"},
	{PhaseFinalize, "Waiting for order to become ready"},
	{PhaseFinalize, "Error waiting for order"},
	{PhaseFinalize, "Finalizing order"},
	{PhaseFinalize, "Creating rsa CSR"},
	{PhaseFinalize, "Submitting "},
	{PhaseFinalize, "Waiting for finalized order"},
	{PhaseFinalize, "Order valid, but"},
	{PhaseFinalize, "Retrieving "},
	{PhaseFinalize, "Unable to retrieve"},
	{PhaseFinalize, "Loading the private key"},
	{PhaseFinalize, "Certificate and private key do not match"},
	{PhaseIssued, "Saving new "},
	{PhaseClient, "the server seems neither reachable"},
	{PhaseClient, "None of the ACME challenge methods"},
	{PhaseClient, "CA protocol is not defined"},
	{PhaseClient, "Unknown CA protocol"},
	{PhaseClient, "in error state"},
}

// mdPhase is the phase of an activity or of an error's detail; PhaseStart when it
// says nothing.
func mdPhase(s string) Phase {
	for _, p := range mdPhases {
		if strings.HasPrefix(s, p.begin) {
			return p.phase
		}
	}
	if strings.HasPrefix(s, "Creating ") && strings.HasSuffix(s, " CSR") {
		return PhaseFinalize
	}
	if strings.HasPrefix(s, "The managed domain ") && strings.Contains(s, " is missing ") {
		return PhaseClient
	}
	return PhaseStart
}

// phaseOfProblem is where a CA's answer of that type usually comes, when nothing
// else says where it came.
func phaseOfProblem(kind string) Phase {
	switch strings.TrimPrefix(kind, problemP) {
	case "badCSR", "badPublicKey", "orderNotReady":
		return PhaseFinalize
	case "accountDoesNotExist", "externalAccountRequired", "unsupportedContact", "invalidContact", "userActionRequired", "badSignatureAlgorithm", Network:
		return PhaseDirectory
	case "connection", "dns", "dnssec", "tls", "incorrectResponse", "unauthorized":
		return PhaseChallenge
	}
	return PhaseOrder
}

// mdNames adds the names that an activity or a detail is about.
func mdNames(a *attempt, texts ...string) {
	for _, s := range texts {
		for _, mark := range []string{"' for domain ", "domain authorization for ", "Starting challenges for domains: "} {
			if _, rest, ok := strings.Cut(s, mark); ok {
				rest, _, _ = strings.Cut(rest, " ")
				a.name(strings.TrimRight(rest, ":,"))
			}
		}
	}
}

// mdCA takes the directory's URL out of "Contacting ACME server for a.test at
// https://...".
func mdCA(a *attempt, s string) {
	if i := strings.LastIndex(s, " at http"); i >= 0 && strings.HasPrefix(s, "Contacting ACME server ") {
		url, _, _ := strings.Cut(s[i+len(" at "):], " ")
		a.ca(strings.TrimRight(url, ":,"))
	}
}

// sameText reports whether two texts are one, of which one may have been cut off.
func sameText(a, b string) bool {
	n := min(len(a), len(b))
	return n > 0 && a[:n] == b[:n] && (len(a) == len(b) || n > 400)
}

// apacheText takes out the escapes that Apache writes into its error log.
func apacheText(s string) string {
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	var b strings.Builder
	b.Grow(len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		i++
		switch s[i] {
		case 'b', 'n', 'r', 't', 'v':
			b.WriteByte(' ')
		case 'x':
			if i+2 < len(s) {
				if c, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
					b.WriteByte(byte(c))
					i += 2
					continue
				}
			}
			b.WriteString(`\x`)
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

// authorizationError finds what a CA says of an authorization that it made
// invalid. The text may be cut off.
func authorizationError(answer string) (kind, detail string) {
	type problem struct {
		Type   string `json:"type"`
		Detail string `json:"detail"`
	}
	var authz struct {
		Challenges []struct {
			Error *problem `json:"error"`
		} `json:"challenges"`
	}
	if json.Unmarshal([]byte(answer), &authz) == nil {
		for _, c := range authz.Challenges {
			if c.Error != nil {
				return findProblem(c.Error.Type).kind, c.Error.Detail
			}
		}
		return "", ""
	}
	_, rest, ok := strings.Cut(answer, `"error":`)
	if !ok {
		return "", ""
	}
	for _, field := range []struct {
		name string
		into *string
	}{{`"type":"`, &kind}, {`"detail":"`, &detail}} {
		if _, value, ok := strings.Cut(rest, field.name); ok {
			raw, _, whole := quoted([]byte(value))
			if !whole {
				raw = []byte(value)
			}
			*field.into = string(unquote(raw))
		}
	}
	return findProblem(kind).kind, detail
}
