package acmelog

import (
	"bytes"
	"strconv"
	"strings"
	"time"
)

// certbot reads what certbot 1.0 to 5 writes: its DEBUG file letsencrypt.log, and
// what it prints to stdout and stderr, together or apart.
//
// Most sentences are the same in both, so both feed say. What only the file has (the
// storage's own lines, the ACME traffic, tracebacks) is in certbot_file.go and counts
// for more: there a certificate is issued when the storage wrote it after the CA had
// sent it, whatever is said about it later.
type certbot struct {
	form certbotForm
	n    int // attempts begun

	run certbotRun
	cur *attempt // the one that certbot works on
	// failing is the one that was just said to have failed, while that text may go on.
	failing *attempt
	failure certbotFailure

	file certbotRecord

	list     certbotList // which list of lineages the lines belong to
	block    certbotBlock
	awaits   certbotAwait // what the next line is
	raw      bool         // a hook's output up to the next empty line
	muted    bool         // the attempt's failure was told before it was begun
	late     *attempt     // that one
	framed   bool         // the line before was a frame
	tail     []string     // the last lines that nobody understood
	skipFree bool         // a skip without a lineage was just told
	wholly   bool         // the list of successes is of a run without failures
	notes    bool         // the notes at the end of a run have begun
}

// certbotForm is which of its two outputs a text is.
type certbotForm int

const (
	certbotUnknown  certbotForm = iota
	certbotLog                  // the DEBUG file
	certbotTerminal             // stdout and stderr
)

// certbotSource says where a sentence was read. A sentence counts only from where
// certbot says it.
type certbotSource uint16

const (
	fromDisplay   certbotSource = 1 << iota // certbot's display: what stdout gets
	fromMain                                // certbot._internal.main
	fromRenewal                             // certbot._internal.renewal
	fromAuth                                // certbot._internal.auth_handler
	fromHooks                               // certbot.display.ops, certbot.compat.misc, certbot._internal.hooks
	fromLog                                 // certbot._internal.log: the last words
	fromSelection                           // certbot._internal.plugins.selection
	fromClient                              // certbot._internal.client
	fromReporter                            // certbot._internal.reporter: notes for the end of a run, before 2.0
	fromTerminal
)

// certbotList is a list of lineages in the summary of a run.
type certbotList int

const (
	listNone certbotList = iota
	listSuccess
	listFailure
	listSkipped
	listBroken
)

// certbotAwait is what the next line is.
type certbotAwait int

const (
	awaitNothing certbotAwait = iota
	awaitError                // the text of an unexpected error
	awaitSaved                // the path of a file that was written
	awaitConf                 // the path of a lineage's configuration: long ones were wrapped
)

// certbotRun is what is known of the process that writes.
type certbotRun struct {
	begun    bool // its first line was seen
	first    line // that line, without its text
	at       time.Time
	base     string // the configuration directory
	server   string
	asked    string // the lineage that the command line names
	names    []string
	dry      bool
	staging  bool
	forced   bool
	csr      bool
	renewing bool // certbot renew
	ended    bool // the summary is over
	dying    bool // an exception ends it: nothing is written any more
	hook     string
	pre      *Hook // failed before there was an attempt
	orphan   *Hook // failed after an attempt of which nothing was told yet: stdout may follow stderr
	failed   int
	refused  []*attempt          // in which challenges failed
	failures []*attempt          // ended without a certificate
	lost     map[string]bool     // their lineages
	issued   []*attempt          // ended with a certificate: a hook at the end of the run is theirs too
	done     map[string]bool     // lineages that were dealt with
	early    map[string]*attempt // whose failure was told before they were begun, "" where no lineage was named
}

const maxCertbotLineages = 1024

func signCertbot(text []byte) int {
	if len(text) > 0 && text[0] >= '0' && text[0] <= '9' {
		rest, ok := certbotStamp(text)
		if !ok {
			return 0
		}
		_, logger, _, ok := certbotLogger(rest)
		switch {
		case !ok:
			return 0
		case bytes.HasPrefix(logger, []byte("certbot")):
			return 3
		case bytes.HasPrefix(logger, []byte("acme.")), bytes.HasPrefix(logger, []byte("urllib3.")):
			return 1
		}
		return 0
	}
	for _, s := range certbotSigns {
		if bytes.HasPrefix(text, s.prefix) && bytes.Contains(text[len(s.prefix):], s.rest) {
			return s.points
		}
	}
	return 0
}

var certbotSigns = []struct {
	prefix, rest []byte
	points       int
}{
	{[]byte("Saving debug log to "), nil, 3},
	{[]byte("Processing /"), []byte("/renewal/"), 2},
	{[]byte("Failed to renew certificate "), []byte(" with error: "), 3},
	{[]byte("Attempting to renew cert ("), []byte(" produced an unexpected error: "), 3},
	{[]byte("Ask for help or search for solutions at https://community.letsencrypt.org."), nil, 3},
	{[]byte("Another instance of Certbot is already running."), nil, 3},
	{[]byte("Congratulations, all renewals succeeded"), nil, 2},
	{[]byte("Congratulations, all simulated renewals succeeded"), nil, 3},
	{[]byte("All renewals failed. The following cert"), nil, 3},
	{[]byte("All renewal attempts failed. The following certs"), nil, 3},
	{[]byte("All simulated renewals failed. The following cert"), nil, 3},
	{[]byte("Renewal configuration file "), nil, 2},
	{[]byte("Renewing an existing certificate"), nil, 1},
	{[]byte("Requesting a certificate for "), nil, 2},
	{[]byte("Simulating renewal of an existing certificate for "), nil, 3},
	{[]byte("Simulating a certificate request for "), nil, 3},
	{[]byte("Certificate not yet due for renewal"), nil, 2},
	{[]byte("Cert not yet due for renewal"), nil, 2},
	{[]byte("Plugins selected: Authenticator "), nil, 2},
	{[]byte("Performing the following challenges:"), nil, 1},
	{[]byte("Challenge failed for domain "), nil, 2},
	{[]byte("Hook '"), []byte("-hook' r"), 2},
	{[]byte("Certbot failed to authenticate some domains"), nil, 3},
	{[]byte("Some challenges have failed."), nil, 2},
	{[]byte("IMPORTANT NOTES:"), nil, 1},
	{[]byte(" - Congratulations! Your certificate and chain have been saved at:"), nil, 2},
	{[]byte("- - - - - - - - - - - - - - - - - - - - - - - - - - -"), nil, 1},
}

func (d *certbot) line(l *line, g *ledger) {
	text := l.text
	if len(text) > 24 && text[4] == '-' && text[19] == ',' && text[0] >= '0' && text[0] <= '9' {
		if rest, ok := certbotStamp(text); ok && (d.form == certbotLog || d.n == 0) {
			if level, logger, message, ok := certbotLogger(rest); ok {
				if d.form != certbotLog { // what came before was the end of a record
					d.endRun(g)
					d.form = certbotLog
				}
				d.recordBegins(l, g, level, logger, message)
				return
			}
		}
	}
	if d.form == certbotLog {
		if d.file.kind != recordOther {
			d.recordGoesOn(l, g)
		}
		return
	}
	d.terminal(l, g)
}

// newRun forgets the run before: what it left open was killed, or had no last word.
func (d *certbot) newRun(l *line, at time.Time, g *ledger) {
	d.endRun(g)
	d.run = certbotRun{begun: true, first: line{at: l.at, offset: l.offset}, at: at}
}

// endRun closes what a run left open.
func (d *certbot) endRun(g *ledger) {
	d.flush(g)
	d.file.ends(d, g)
	for len(g.open) > 0 {
		d.settle(g, g.open[0], false, time.Time{})
	}
	d.widow(g)
	d.cur, d.list, d.awaits, d.raw, d.muted, d.framed, d.tail = nil, listNone, awaitNothing, false, false, false, nil
	d.skipFree, d.wholly, d.notes, d.late = false, false, false, nil
	d.run = certbotRun{}
	d.file = certbotRecord{second: d.file.second, known: d.file.known}
}

// widow tells of a certificate of which nothing is known but that a hook failed which
// runs when it is written.
func (d *certbot) widow(g *ledger) {
	if h := d.run.orphan; h != nil && (h.Kind == "deploy" || h.Kind == "renew") {
		a := d.begin(&line{at: d.run.first.at, offset: d.run.first.offset}, d.run.at, g)
		a.Doubtful = true
		a.reach(PhaseSaved)
		d.settle(g, a, false, time.Time{})
	}
	d.run.orphan = nil
}

// flush ends what may have gone on: a problem of a name, the text of a failure.
func (d *certbot) flush(g *ledger) {
	d.block.flush(d, g)
	d.block = certbotBlock{}
	d.finishFailing(g)
}

// begin opens an attempt. Those of one run go on side by side until the run is over:
// only then it is known how its hooks went.
func (d *certbot) begin(l *line, at time.Time, g *ledger) *attempt {
	if len(g.open) >= maxOpen-1 {
		d.settle(g, g.open[0], false, time.Time{})
	}
	d.n++
	a := g.begin(strconv.Itoa(d.n), l, at)
	a.DryRun, a.Forced = d.run.dry, d.run.forced
	if d.run.begun {
		a.run = min(a.run, d.run.first.offset)
	}
	if d.run.server != "" {
		a.ca(d.run.server)
	}
	a.Staging = a.Staging || d.run.staging
	if d.run.pre != nil {
		a.hookFailed(d.run.pre.Kind, d.run.pre.ExitCode)
		d.run.pre = nil
	}
	d.cur = a
	return a
}

// settle ends an attempt by what it came to; done: its run ended as it should.
func (d *certbot) settle(g *ledger, a *attempt, done bool, at time.Time) {
	if a == d.cur {
		d.cur = nil
	}
	if a == d.failing {
		d.failing = nil
	}
	if a.Phase.rank() >= PhaseIssued.rank() {
		if d.form == certbotLog && len(a.Saved) == 0 && !a.DryRun {
			a.Doubtful = true
		}
		if a.ProblemType != "" { // of a name that the certificate was issued without
			a.ProblemType, a.ProblemDetail = "", ""
		}
		if d.run.orphan != nil {
			a.hookFailed(d.run.orphan.Kind, d.run.orphan.ExitCode)
			d.run.orphan = nil
		}
		switch {
		case a.Hook != nil:
			a.reach(PhaseHook)
		case done && !a.DryRun:
			a.reach(PhaseDone)
		}
		if len(d.run.issued) < maxOpen {
			d.run.issued = append(d.run.issued, a)
		}
	}
	g.close(a, at)
}

// over ends all attempts of a run that said how it ended.
func (d *certbot) over(g *ledger, done bool, at time.Time) {
	d.flush(g)
	for len(g.open) > 0 {
		d.settle(g, g.open[0], done, at)
	}
	d.run.ended = true
}

func (d *certbot) exit(e Exit, g *ledger) {
	d.flush(g)
	if d.form != certbotLog && e.Code > 0 && len(d.tail) > 0 && d.run.failed == 0 {
		d.fails(&line{at: e.At, offset: d.run.first.offset}, e.At, g, "", strings.Join(d.tail, "\n"), fromTerminal)
		d.flush(g)
	}
	if e.Code >= 0 {
		d.widow(g)
	}
	if e.Code == 0 {
		d.over(g, true, e.At)
	} else if e.Code > 0 {
		g.exited(e)
	}
	d.endRun(g)
}

func (d *certbot) end(g *ledger) {
	d.flush(g)
	d.file.ends(d, g)
	for _, a := range append([]*attempt(nil), g.open...) {
		if a.ProblemDetail != "" || a.ProblemType != "" || a.Phase.rank() >= PhaseIssued.rank() {
			d.settle(g, a, false, time.Time{})
		}
	}
	d.widow(g)
}

// certbotLineage takes the path of a file of a lineage apart: BASE/live/NAME/FILE or
// BASE/archive/NAME/FILE.
func certbotLineage(path string) (base, name string, ok bool) {
	if !strings.HasPrefix(path, "/") || !strings.HasSuffix(path, ".pem") || strings.Contains(path, "/../") {
		return "", "", false
	}
	dir := path[:strings.LastIndexByte(path, '/')]
	i := strings.LastIndexByte(dir, '/')
	if i < 0 {
		return "", "", false
	}
	name, dir = dir[i+1:], dir[:i]
	for _, kind := range []string{"/live", "/archive"} {
		if b, found := strings.CutSuffix(dir, kind); found && name != "" {
			return b, name, true
		}
	}
	return "", "", false
}

// belongs reports whether a path is one of the attempt's own lineage.
func (d *certbot) belongs(a *attempt, path string) bool {
	base, name, ok := certbotLineage(path)
	if !ok || d.run.base != "" && base != d.run.base {
		return false
	}
	return a.Lineage == "" || a.Lineage == clean(name)
}

// wrote notes a file that was written; a path that is not the lineage's own is none.
func (d *certbot) wrote(a *attempt, path string) bool {
	if !d.run.csr && !d.belongs(a, path) {
		a.Doubtful = true
		return false
	}
	if base, name, ok := certbotLineage(path); ok && !d.run.csr {
		d.run.base = base
		a.lineage(name)
		d.dealt(name)
	}
	a.saved(path)
	return true
}

// dealt remembers that a lineage was dealt with in this run.
func (d *certbot) dealt(name string) {
	if d.run.done == nil {
		d.run.done = map[string]bool{}
	}
	if len(d.run.done) < maxCertbotLineages {
		d.run.done[name] = true
	}
}
