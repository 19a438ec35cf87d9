package acmelog

import (
	"bytes"
	"strconv"
	"strings"
	"time"
)

// nginxACME reads what nginx's own ACME module (ngx_http_acme_module) writes into
// error_log. It says nothing when it begins, one line when it has a certificate
// (level info, below the default), and one when it has none. What it gets is in
// use at once: nothing has to be reloaded.
//
// After an answer that blames the order (badCSR, caa, invalidProfile, malformed,
// rejectedIdentifier, unsupportedIdentifier) the module does not try again until
// nginx is reloaded; such lines have the level error.
type nginxACME struct {
	broken *nginxBroken
}

// nginxBroken is a message whose text goes on in the next line: nginx escapes
// nothing, and a CA may put a line end into what it says.
type nginxBroken struct {
	at     time.Time
	text   string
	offset int64
	lines  int
	forged bool // a line of another message stood inside
}

// nginxMax is how long a line of nginx's error log is at most
// (NGX_MAX_ERROR_STR); what is longer is cut off, with the certificate's name.
const nginxMax = 2048

func signNginxACME(text []byte) int {
	_, msg, ok := nginxLine(text, time.UTC)
	if !ok {
		return 0
	}
	switch {
	case bytes.Contains(msg, []byte(`, acme issuer`)), bytes.Contains(msg, []byte(` acme issuer "`)), bytes.HasPrefix(msg, []byte(`acme certificate "`)),
		bytes.HasPrefix(msg, []byte("acme: ")):
		return 3
	case bytes.Contains(msg, []byte(` while updating certificate "`)):
		return 3
	}
	return 0
}

// nginxLine takes the head off a line of error_log that belongs to no connection:
// "2026/11/22 07:00:00 [info] 12#13: message".
func nginxLine(text []byte, zone *time.Location) (at time.Time, msg []byte, ok bool) {
	if len(text) < 24 || text[4] != '/' || text[7] != '/' || text[10] != ' ' || text[13] != ':' || text[16] != ':' || text[19] != ' ' || text[20] != '[' {
		return time.Time{}, nil, false
	}
	i := bytes.IndexByte(text[:min(len(text), 80)], '#')
	if i < 0 {
		return time.Time{}, nil, false
	}
	j := bytes.Index(text[i:min(len(text), i+16)], []byte(": "))
	if j < 0 {
		return time.Time{}, nil, false
	}
	msg = text[i+j+2:]
	if len(msg) == 0 || msg[0] == '*' {
		return time.Time{}, nil, false
	}
	at, err := time.ParseInLocation("2006/01/02 15:04:05", string(text[:19]), zone)
	return at, msg, err == nil
}

func (d *nginxACME) line(l *line, g *ledger) {
	at, msg, ok := nginxLine(l.text, g.zone)
	if !ok {
		d.goesOn(l, g)
		return
	}
	if !bytes.Contains(msg, []byte("acme")) && !bytes.Contains(msg, []byte("while updating certificate")) && !bytes.HasPrefix(msg, []byte("urn:")) {
		return
	}
	s := string(msg)
	doubtful := false
	if d.broken != nil {
		// A new message, while the end of that one has not come: it may be its text.
		if doubtful = d.broken.lines < 16; doubtful {
			d.broken.lines++
			d.broken.forged = true
		} else {
			d.giveUp(g)
		}
	}
	if d.message(s, at, l, doubtful, g) {
		return
	}
	if strings.HasPrefix(s, "urn:") && !doubtful {
		d.broken = &nginxBroken{at: at, text: s, offset: l.offset}
		if len(l.text) >= nginxMax-64 {
			d.giveUp(g)
		}
	}
}

func (d *nginxACME) exit(Exit, *ledger) {}
func (d *nginxACME) end(g *ledger)      { d.giveUp(g) }

// goesOn reads a line without a head, which may be the rest of a message.
func (d *nginxACME) goesOn(l *line, g *ledger) {
	b := d.broken
	if b == nil {
		return
	}
	b.lines++
	if len(b.text) < 8<<10 {
		b.text += " " + string(l.text)
	}
	if bytes.Contains(l.text, []byte(" while ")) && bytes.Contains(l.text, []byte("acme issuer")) || bytes.Contains(l.text, []byte(` while updating certificate "`)) {
		d.broken = nil
		whole := *l
		whole.offset = b.offset
		d.message(b.text, b.at, &whole, b.forged, g)
		return
	}
	if b.lines >= 16 {
		d.giveUp(g)
	}
}

// giveUp tells of a message whose end, with the certificate's name, did not come.
func (d *nginxACME) giveUp(g *ledger) {
	if b := d.broken; b != nil {
		d.broken = nil
		a := g.begin("?", &line{at: b.at, offset: b.offset}, b.at)
		d.failed(a, b.text, b.at, g)
	}
}

// nginxSubject is what a message is about.
type nginxSubject struct {
	issuer, order string
}

// message reads one; false when it is not the module's.
func (d *nginxACME) message(s string, at time.Time, l *line, doubtful bool, g *ledger) bool {
	head, subject, ok := nginxContext(s)
	if !ok {
		return false
	}
	key := subject.issuer + "/" + subject.order
	open := func() *attempt {
		a := g.find(key)
		if a == nil {
			a = g.begin(key, l, at)
			a.lineage(subject.order)
			a.name(nginxOrderName(subject.order))
		}
		a.hear(at)
		a.Doubtful = a.Doubtful || doubtful
		return a
	}
	switch {
	case strings.HasPrefix(head, "certificate issued, renewal scheduled at "), strings.HasPrefix(head, "issued, next update in "):
		a := open()
		a.reach(PhaseActivated)
		a.Activated = true
		g.finish(a, Issued, at)
	case strings.HasPrefix(head, `account "`) && strings.HasSuffix(head, `" created`):
		if subject.order != "" {
			open().reach(PhaseDirectory)
		}
	case head == "acme: certificate is not due for renewal":
		if g.find(key) == nil {
			g.finish(open(), Skipped, at)
		}
	default:
		for _, what := range []string{" while updating certificate", " while creating account", " while processing renewals"} {
			if err, ok := strings.CutSuffix(head, what); ok {
				d.failed(open(), err, at, g)
				return true
			}
		}
	}
	return true
}

// nginxContext splits a message into what it says and what it says it of. The last
// mark counts: what stands before it may quote anybody.
func nginxContext(s string) (head string, subject nginxSubject, ok bool) {
	if i := strings.LastIndex(s, `, acme issuer: "`); i >= 0 { // since 0.4.0
		rest := s[i+len(`, acme issuer: "`):]
		subject.issuer, rest, ok = strings.Cut(rest, `"`)
		if after, found := strings.CutPrefix(rest, `, order: "`); found {
			subject.order, _, _ = strings.Cut(after, `"`)
		}
		return s[:i], subject, ok
	}
	if i := strings.LastIndex(s, `, acme issuer "`); i >= 0 {
		subject.issuer, _, ok = strings.Cut(s[i+len(`, acme issuer "`):], `"`)
		return s[:i], subject, ok
	}
	// Up to 0.3.
	if i := strings.LastIndex(s, ` while updating certificate "`); i >= 0 {
		head, s = s[:i+len(" while updating certificate")], s[i+len(` while updating certificate "`):]
		name, _, found := strings.Cut(s, `"`)
		subject.issuer, subject.order, _ = strings.Cut(name, "/")
		return head, subject, found
	}
	if i := strings.LastIndex(s, ` for acme issuer "`); i >= 0 && !strings.HasPrefix(s, "update failed") {
		subject.issuer, _, ok = strings.Cut(s[i+len(` for acme issuer "`):], `"`)
		return s[:i], subject, ok
	}
	if rest, found := strings.CutPrefix(s, `acme certificate "`); found {
		name, rest, found := strings.Cut(rest, `" `)
		subject.issuer, subject.order, _ = strings.Cut(name, "/")
		for _, what := range []string{"request failed: ", "request is not valid: "} { // 0.1
			if err, ok := strings.CutPrefix(rest, what); ok {
				return err + " while updating certificate", subject, true
			}
		}
		return rest, subject, found
	}
	for begin, mid := range map[string]string{`acme issuer "`: `" is not valid: `, `update failed for acme issuer "`: `": `} { // 0.1
		if rest, found := strings.CutPrefix(s, begin); found {
			if name, err, ok := strings.Cut(rest, mid); ok {
				return err + " while processing renewals", nginxSubject{issuer: name}, true
			}
		}
	}
	return "", subject, false
}

// nginxOrderName takes the first name of an order out of its key, "a.test-1f2e3d".
func nginxOrderName(order string) string {
	i := strings.LastIndexByte(order, '-')
	if i <= 0 {
		return order
	}
	if _, err := strconv.ParseUint(order[i+1:], 16, 64); err != nil {
		return order
	}
	return order[:i]
}

// nginxPhases says where an error of the module comes from.
var nginxPhases = []struct {
	phase Phase
	has   string
}{
	{PhaseDirectory, "directory update failed"},
	{PhaseDirectory, "account request failed"},
	{PhaseDirectory, "cannot obtain replay nonce"},
	{PhaseDirectory, "external account key required"},
	{PhaseDirectory, "unexpected account status"},
	{PhaseDirectory, "no account URL"},
	{PhaseChallenge, "unexpected challenge status"},
	{PhaseChallenge, "unexpected authorization status"},
	{PhaseChallenge, "no supported challenge"},
	{PhaseChallenge, "challenge registration failed"},
	{PhaseChallenge, "authorization failed"},
	{PhaseFinalize, "csr generation failed"},
	{PhaseFinalize, "PEM_read_bio_X509"},
	{PhaseFinalize, "no certificate in the completed order"},
	{PhaseFinalize, "certificate not ready"},
	{PhaseFinalize, "unexpected order status"},
}

// failed ends an attempt by one of the module's errors.
func (d *nginxACME) failed(a *attempt, err string, at time.Time, g *ledger) {
	f := findProblem(err)
	detail := err
	if kind, rest, ok := strings.Cut(err, ": "); ok && strings.HasPrefix(kind, "urn:") {
		detail = rest
		if findProblem(kind).kind == "" { // no type of ACME's
			f = found{}
			detail = err
		}
	} else if _, wait, ok := strings.Cut(err, "rate limit exceeded, next attempt in "); ok {
		f.kind = problemP + "rateLimited"
		wait = strings.TrimRight(wait, ")")
		if n, err := time.ParseDuration(wait); err == nil && n > 0 && n <= 366*24*time.Hour && !at.IsZero() {
			f.retry = at.Add(n)
		}
	} else if f.kind == "" || strings.HasPrefix(f.kind, problemP) && !strings.Contains(err, "("+problemP) {
		f.kind = ""
		for _, w := range []string{"connection error: ", "name resolution error: ", "request error: ", "response body read error: "} {
			if strings.Contains(err, w) {
				f.kind = Network
			}
		}
	}
	phase := PhaseStart
	for _, p := range nginxPhases {
		if strings.Contains(err[:min(len(err), 120)], p.has) {
			phase = p.phase
			break
		}
	}
	if phase == PhaseStart && f.kind != "" {
		phase = phaseOfProblem(f.kind)
	}
	if phase.rank() < a.Phase.rank() {
		phase = a.Phase
	}
	a.fault(phase, f.kind, detail)
	a.retryAfter(f.retry)
	a.Paused = a.Paused || f.paused
	g.finish(a, Failed, at)
}
