package acmelog

import (
	"bytes"
	"strings"
	"time"
)

// recordKind is what is in a record of the DEBUG file that goes on over several lines.
type recordKind int

const (
	recordOther     recordKind = iota // nothing of interest
	recordDisplay                     // what the user was told
	recordReporter                    // notes for the end of the run
	recordError                       // an error's text
	recordResponse                    // an HTTP response of the CA
	recordPayload                     // a request to the CA
	recordTraceback                   // the exception that ends the run
)

// certbotRecord is the record of the DEBUG file that is being read, and what was seen
// of the traffic with the CA.
type certbotRecord struct {
	kind recordKind
	at   time.Time

	second []byte // the stamp whose time is known
	known  time.Time

	get      string // the address that is being fetched
	status   int    // of the response
	retry    time.Time
	answered bool  // the CA has sent a certificate
	listing  bool  // names in a request
	reached  Phase // how far a run came that has no attempt yet
	asked    string
	reason   string   // the exception that was told before what it is about
	broken   *attempt // an exception went through its challenges

	frames    bool // inside a traceback's frames
	exception []string
	cause     string // an exception before it
	verb      string
}

// certbotStamp cuts "2026-11-22 07:32:18,412:" off.
func certbotStamp(b []byte) (rest []byte, ok bool) {
	if len(b) < 25 || b[4] != '-' || b[7] != '-' || b[10] != ' ' || b[13] != ':' || b[16] != ':' || b[19] != ',' || b[23] != ':' {
		return nil, false
	}
	for _, i := range [...]int{0, 1, 2, 3, 5, 6, 8, 9, 11, 12, 14, 15, 17, 18, 20, 21, 22} {
		if b[i] < '0' || b[i] > '9' {
			return nil, false
		}
	}
	return b[24:], true
}

// certbotLogger cuts "DEBUG:certbot._internal.main:" off.
func certbotLogger(b []byte) (level, logger, message []byte, ok bool) {
	i := bytes.IndexByte(b[:min(len(b), 9)], ':')
	if i < 0 {
		return nil, nil, nil, false
	}
	level, b = b[:i], b[i+1:]
	switch string(level) {
	case "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL":
	default:
		return nil, nil, nil, false
	}
	i = bytes.IndexByte(b[:min(len(b), 96)], ':')
	if i <= 0 {
		return nil, nil, nil, false
	}
	return level, b[:i], b[i+1:], true
}

// time reads the stamp of a line.
func (r *certbotRecord) time(b []byte, zone *time.Location) time.Time {
	if !bytes.Equal(r.second, b[:19]) {
		t, err := time.ParseInLocation("2006-01-02 15:04:05", string(b[:19]), zone)
		if err != nil {
			t = time.Time{}
		}
		r.second, r.known = append(r.second[:0], b[:19]...), t
	}
	if r.known.IsZero() {
		return r.known
	}
	ms := int(b[20]-'0')*100 + int(b[21]-'0')*10 + int(b[22]-'0')
	return r.known.Add(time.Duration(ms) * time.Millisecond)
}

// certbotModule is the name of a logger; before 1.0 they were not yet internal.
func certbotModule(logger []byte) string {
	switch string(logger) {
	case "certbot.main", "certbot.renewal", "certbot.auth_handler", "certbot.hooks", "certbot.log", "certbot.plugins.selection", "certbot.client",
		"certbot.reporter", "certbot.storage", "certbot.error_handler", "certbot.cli":
		return "certbot._internal." + string(logger[len("certbot."):])
	}
	return string(logger)
}

// recordBegins reads the first line of a record.
func (d *certbot) recordBegins(l *line, g *ledger, level, logger, message []byte) {
	r := &d.file
	if r.kind != recordOther {
		r.ends(d, g)
	}
	at := r.time(l.text, g.zone)
	if d.cur != nil {
		d.cur.hear(at)
	}
	switch certbotModule(logger) {
	case "acme.client":
		d.traffic(at, message)
	case "urllib3.connectionpool", "acme.challenges", "certbot._internal.plugins.disco", "certbot._internal.plugins.webroot":
	case "certbot._internal.cli", "certbot.configuration":
		if bytes.HasPrefix(message, []byte("Var ")) {
			d.variable(message[4:])
		}
	case "certbot._internal.display.obj", "certbot.display.util", "certbot._internal.display.util":
		if rest, ok := bytes.CutPrefix(message, []byte("Notifying user: ")); ok {
			d.sayRecord(l, at, g, fromDisplay, rest, recordDisplay)
		}
	case "certbot._internal.reporter":
		if rest, ok := bytes.CutPrefix(message, []byte("Reporting to user: ")); ok {
			d.sayRecord(l, at, g, fromReporter, rest, recordReporter)
		}
	case "certbot._internal.main":
		switch {
		case bytes.HasPrefix(message, []byte("certbot version: ")):
			d.newRun(l, at, g)
		case bytes.HasPrefix(message, []byte("Arguments: [")):
			d.arguments(string(message))
		case bytes.HasPrefix(message, []byte("Picked account: ")):
			d.reach(PhaseStart)
		default:
			d.sayRecord(l, at, g, fromMain, message, recordOther)
		}
	case "certbot._internal.renewal":
		kind := recordOther
		if string(level) == "ERROR" || string(level) == "WARNING" {
			kind = recordError
		}
		d.sayRecord(l, at, g, fromRenewal, message, kind)
	case "certbot._internal.auth_handler":
		d.sayRecord(l, at, g, fromAuth, message, recordOther)
	case "certbot.display.ops", "certbot.compat.misc", "certbot._internal.hooks":
		d.sayRecord(l, at, g, fromHooks, message, recordOther)
	case "certbot._internal.plugins.selection":
		d.sayRecord(l, at, g, fromSelection, message, recordOther)
	case "certbot._internal.client":
		if bytes.HasPrefix(message, []byte("CSR: ")) || bytes.HasPrefix(message, []byte("Will poll for certificate issuance until ")) {
			if d.cur == nil && d.run.csr {
				d.orders(l, at, g, "", false)
				return
			}
			if a := d.cur; a != nil && (a.Phase == PhaseChallenge || message[0] == 'W') {
				a.reach(PhaseFinalize)
			}
			return
		}
		d.sayRecord(l, at, g, fromClient, message, recordOther)
	case "certbot._internal.storage":
		d.storage(l, at, g, message)
	case "certbot.ocsp":
		if i := bytes.Index(message, []byte(" /")); i >= 0 {
			path, _, _ := bytes.Cut(message[i+1:], []byte(" "))
			if _, name, ok := certbotLineage(string(path)); ok {
				r.asked = name
			}
		}
	case "certbot._internal.error_handler":
		if bytes.HasPrefix(message, []byte("Encountered exception:")) && d.cur != nil && d.cur.Phase.rank() < PhaseIssued.rank() {
			r.broken = d.cur
		}
	case "certbot._internal.log":
		if bytes.HasPrefix(message, []byte("Exiting abnormally:")) {
			d.flush(g)
			r.kind, r.at, d.run.dying = recordTraceback, at, true
			r.exception, r.cause, r.frames, r.verb = nil, "", false, ""
			return
		}
		d.sayRecord(l, at, g, fromLog, message, recordOther)
	}
}

// sayRecord hands the first line of a record to say; kind is what its further lines are.
func (d *certbot) sayRecord(l *line, at time.Time, g *ledger, src certbotSource, message []byte, kind recordKind) {
	if d.failing != nil && !bytes.HasPrefix(message, []byte("The error was: ")) {
		d.flush(g)
	}
	if len(message) > maxSentence {
		message = message[:maxSentence]
	}
	d.file.kind, d.file.at = kind, at
	d.say(l, at, g, src, strings.TrimRight(string(message), " "))
}

// ends closes a record.
func (r *certbotRecord) ends(d *certbot, g *ledger) {
	kind := r.kind
	r.kind = recordOther
	switch kind {
	case recordDisplay, recordReporter:
		d.block.flush(d, g)
		d.block = certbotBlock{}
		if kind == recordReporter {
			d.awaits = awaitNothing
		}
	case recordResponse:
		r.get = ""
	case recordPayload:
		r.listing = false
	case recordTraceback:
		d.crashed(g)
	}
}

// recordGoesOn reads a further line of a record.
func (d *certbot) recordGoesOn(l *line, g *ledger) {
	r, b := &d.file, l.text
	switch r.kind {
	case recordResponse:
		d.response(b)
	case recordPayload:
		if r.listing || bytes.Contains(b, []byte(`"identifiers"`)) {
			d.identifiers(b)
		}
	case recordTraceback:
		r.trace(b)
	case recordDisplay, recordReporter, recordError:
		if len(b) > maxSentence {
			b = b[:maxSentence]
		}
		text := strings.TrimRight(string(b), " ")
		switch r.kind {
		case recordDisplay:
			d.say(l, r.at, g, fromDisplay, text)
		case recordReporter:
			d.say(l, r.at, g, fromReporter, text)
		default:
			if d.list != listNone && d.listed(l, r.at, g, fromRenewal, text) {
				return
			}
			switch {
			case d.failing != nil:
				d.failureGoesOn(text)
			case text != "" && text[0] != ' ' && !strings.HasPrefix(text, "Traceback (most recent call last):"):
				_, r.reason = pythonError(text)
			}
		}
	}
}

// reach says how far the run came, for its attempt or for one that is to begin.
func (d *certbot) reach(p Phase) {
	if d.cur != nil && d.cur.Phase.rank() < PhaseIssued.rank() {
		d.cur.reach(p)
		return
	}
	if p.rank() > d.file.reached.rank() {
		d.file.reached = p
	}
}

// traffic reads what the ACME client says.
func (d *certbot) traffic(at time.Time, message []byte) {
	r := &d.file
	switch {
	case bytes.HasPrefix(message, []byte("Received response:")):
		r.kind, r.at, r.status = recordResponse, at, 0
	case bytes.HasPrefix(message, []byte("JWS payload:")):
		if d.cur != nil && d.cur.Phase == PhaseOrder {
			r.kind, r.listing = recordPayload, false
		}
	case bytes.HasPrefix(message, []byte("Sending GET request to ")):
		url := string(bytes.TrimSuffix(message[len("Sending GET request to "):], []byte{'.'}))
		r.get = bound(url, maxText)
		if strings.Contains(strings.ToLower(url), "renewal") { // ACME Renewal Information
			r.get = ""
			return
		}
		d.reach(PhaseDirectory)
		if d.cur == nil {
			if d.run.server == "" {
				d.run.server = r.get
			}
		} else if d.cur.CA == "" {
			d.cur.ca(r.get)
		}
	}
}

// response reads a line of an HTTP response.
func (d *certbot) response(b []byte) {
	if len(b) < 5 {
		return
	}
	r := &d.file
	switch b[0] {
	case 'H':
		if rest, ok := bytes.CutPrefix(b, []byte("HTTP ")); ok && r.status == 0 && len(rest) >= 3 {
			r.status = int(rest[0]-'0')*100 + int(rest[1]-'0')*10 + int(rest[2]-'0')
		}
	case 'R', 'r':
		if r.status >= 400 && len(b) > 12 && strings.EqualFold(string(b[:12]), "Retry-After:") {
			if t := retryHeader(string(b[12:min(len(b), 80)]), r.at); !t.IsZero() {
				r.retry = t
			}
		}
	case '-':
		if bytes.HasPrefix(b, []byte("-----BEGIN CERTIFICATE-----")) && r.status == 200 {
			r.answered = true
		}
	case ' ', '\t', '{':
		if r.get != "" && bytes.Contains(b, []byte(`"newOrder"`)) {
			d.run.server = r.get
			if d.cur != nil {
				d.cur.ca(r.get)
			}
			r.get = ""
		}
	}
}

// identifiers reads the names in an order: as Python prints bytes, on one line, or as
// they are.
func (d *certbot) identifiers(b []byte) {
	a := d.cur
	if a == nil {
		return
	}
	if !d.file.listing {
		d.file.listing = true
		a.Names, a.NamesOmitted = a.Names[:0], 0
	}
	const key = `"value": "`
	for {
		_, rest, ok := bytes.Cut(b, []byte(key))
		if !ok {
			return
		}
		name, rest, ok := bytes.Cut(rest, []byte{'"'})
		if !ok {
			return
		}
		a.name(string(name))
		b = rest
	}
}

// storage reads what is written: the only proof there is.
func (d *certbot) storage(l *line, at time.Time, g *ledger, message []byte) {
	rest, ok := bytes.CutPrefix(message, []byte("Writing "))
	if !ok {
		return
	}
	what, path, ok := strings.Cut(string(rest[:min(len(rest), maxSentence)]), " to ")
	if !ok {
		return
	}
	switch what {
	case "new private key", "private key", "certificate", "chain", "full chain", "symlink":
	default:
		return
	}
	path = strings.TrimSuffix(path, ".")
	d.flush(g)
	a := d.cur
	if a == nil {
		if len(d.run.lost) > 0 && !d.file.answered { // after the end of an attempt
			d.doubt(g, path)
			return
		}
		if _, _, ok := certbotLineage(path); !ok {
			return
		}
		a = d.begin(l, at, g)
		a.Doubtful = d.run.begun || !d.file.answered
	}
	if d.run.dying || a == d.file.broken || !d.file.answered || a.DryRun {
		a.Doubtful = true
		if d.run.dying || a == d.file.broken || a.DryRun {
			return
		}
	}
	d.wrote(a, path)
}

// doubt marks the failed attempt whose lineage is said to be written after its end.
func (d *certbot) doubt(g *ledger, path string) {
	_, name, _ := certbotLineage(path)
	name = clean(name)
	for _, a := range d.run.failures {
		if a.Lineage == name && !a.Doubtful {
			a.Doubtful = true
			g.amend(a)
		}
	}
}

// variable reads a setting: "server=https://... (set by user)."
func (d *certbot) variable(b []byte) {
	name, value, ok := bytes.Cut(b, []byte{'='})
	if !ok {
		return
	}
	switch string(name) {
	case "server":
		value, _, _ = bytes.Cut(value, []byte(" (set by user)"))
		if string(value) == d.run.server && d.cur != nil && d.cur.CA != "" {
			return
		}
		d.run.server = bound(string(value), maxText)
		if d.cur != nil && d.cur.Phase.rank() < PhaseIssued.rank() {
			d.cur.ca(d.run.server)
			d.cur.Staging = d.cur.Staging || d.run.staging
		}
	case "dry_run":
		if bytes.HasPrefix(value, []byte("True")) {
			d.run.dry = true
		}
	case "staging":
		if bytes.HasPrefix(value, []byte("True")) {
			d.run.staging = true
		}
	}
}

// arguments reads the command line, as Python prints a list.
func (d *certbot) arguments(text string) {
	var words []string
	for len(text) > 0 && len(words) < 512 {
		i := strings.IndexAny(text, `'"`)
		if i < 0 {
			break
		}
		quote := text[i]
		text = text[i+1:]
		end := 0
		for end < len(text) && text[end] != quote {
			if text[end] == '\\' {
				end++
			}
			end++
		}
		if end >= len(text) {
			break
		}
		words = append(words, text[:end])
		text = text[end+1:]
	}
	for i := 0; i < len(words); i++ {
		key, value, joined := strings.Cut(words[i], "=")
		take := func() string {
			if !joined && i+1 < len(words) {
				i++
				return words[i]
			}
			return value
		}
		switch key {
		case "--dry-run":
			d.run.dry = true
		case "--staging", "--test-cert":
			d.run.staging = true
		case "--force-renewal", "--renew-by-default":
			d.run.forced = true
		case "--csr":
			d.run.csr = true
			take()
		case "--cert-name":
			d.run.asked = take()
		case "--server":
			d.run.server = take()
		case "--config-dir":
			if dir := strings.TrimSuffix(take(), "/"); strings.HasPrefix(dir, "/") {
				d.run.base = dir
			}
		case "-d", "--domain", "--domains", "--ip-address":
			d.run.names = append(d.run.names, strings.Split(take(), ",")...)
		}
	}
	if len(d.run.names) > maxNames {
		d.run.names = d.run.names[:maxNames]
	}
}

// trace reads a line of the traceback that ends a run: in which of certbot's commands
// it was, and with what.
func (r *certbotRecord) trace(b []byte) {
	switch {
	case len(b) == 0:
	case bytes.HasPrefix(b, []byte("Traceback (most recent call last):")):
		if len(r.exception) > 0 && strings.Contains(r.exception[0], "urn:") {
			r.cause = r.exception[0]
		}
		r.frames, r.exception = true, nil
	case b[0] == ' ':
		if r.frames && bytes.Contains(b, []byte("/main.py\", line ")) {
			if i := bytes.LastIndex(b, []byte(", in ")); i >= 0 && r.verb == "" {
				switch verb := string(b[i+5 : min(len(b), i+69)]); verb {
				case "main", "<module>":
				default:
					r.verb = verb
				}
			}
		}
	case len(r.exception) < 64:
		r.frames = false
		r.exception = append(r.exception, bound(string(b[:min(len(b), maxSentence)]), maxSentence))
	}
}

// pythonError takes the class off an exception.
func pythonError(text string) (class, reason string) {
	class, reason, ok := strings.Cut(text, ": ")
	if !ok || strings.ContainsAny(class, " /'\"<(") {
		return "", text
	}
	return class, reason
}

// crashed: the traceback that ends a run is over.
func (d *certbot) crashed(g *ledger) {
	r := &d.file
	exception := r.exception
	r.kind, r.exception = recordOther, nil
	if len(exception) == 0 {
		return
	}
	class, reason := pythonError(exception[0])
	if kind, _, _ := certbotProblem(reason); kind == "" && r.cause != "" {
		_, reason = pythonError(r.cause)
	}
	if strings.HasSuffix(reason, ":") && len(exception) > 1 {
		reason += " " + exception[1]
	}
	l := line{at: r.at, offset: d.run.first.offset}
	if n, ok := renewFailures(reason); ok {
		d.failures(&l, r.at, g, n, reason, fromLog)
		return
	}
	switch r.verb {
	case "certonly", "run", "renew":
	default:
		if d.cur == nil && !strings.HasSuffix(class, ".LockError") && reason != "Another instance of Certbot is already running." {
			return
		}
	}
	d.fails(&l, r.at, g, "", reason, fromLog)
	for _, more := range exception[1:] {
		d.failureGoesOn(more)
	}
}
