package acmelog

import (
	"bytes"
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// acmeSh reads what acme.sh prints, and its own log file, in which the same lines
// stand between those of its debugging. Most lines begin with [date], in the
// language of its environment; not with NO_TIMESTAMP=1. The wording changed as a
// whole in 3.0.8. What went wrong is told on standard error, the rest on standard
// output: either may be missing, or be late.
type acmeSh struct {
	words   map[byte][]acmeWord
	stamped bool   // dates were seen: what has none is not acme.sh's
	stamp   []byte // the last date
	stampAt time.Time
	value   bool // inside the value of a variable that goes on over several lines
	lines   int  // of it
	cron    bool
	ca      string     // told before the attempt began
	cur     *acmeRun   // that goes on
	runs    []*acmeRun // of this run of the program
	loose   acmeFault  // told of nobody yet
	answer  acmeAnswer
	cause   string // why requests failed lately
	again   time.Time
	status  string // of the last response; log files tell
	headers bool   // inside its header
	refusal string // the problem of the last challenge; log files tell
}

// acmeRun is the attempt of one certificate.
type acmeRun struct {
	a         *attempt
	main      string // the certificate's first name, which acme.sh calls it by
	dir       string // where it is kept
	fresh     bool   // nothing but its beginning was told
	issuing   bool   // every name is proved
	success   bool
	skip      bool
	failed    bool   // for good
	reloading bool   // the reload has not said how it went
	hook      string // that ran last
	done      bool
}

// acmeFault is a reason why an attempt failed.
type acmeFault struct {
	phase   Phase
	name    string
	text    string
	answer  answer
	hard    bool // nothing but the end can follow
	request bool // a request did not get through, for the cause that was told before
	again   time.Time
	hook    string // that failed
	said    bool   // acme.sh has said its last word about it
	at      time.Time
	line    line
}

// acmeAnswer is a CA's answer that goes on over the next lines.
type acmeAnswer struct {
	open  bool
	begun bool
	fault acmeFault
	run   *acmeRun
	text  []byte
}

// maxRuns is how many certificates of one run are remembered for what is late.
const maxRuns = 64

func newAcmeSh() *acmeSh {
	d := &acmeSh{words: map[byte][]acmeWord{}}
	for _, w := range acmeWords() {
		d.words[w.text[0]] = append(d.words[w.text[0]], w)
	}
	return d
}

// reset forgets all but how the log is written.
func (d *acmeSh) reset() {
	*d = acmeSh{words: d.words, stamped: d.stamped, stamp: d.stamp, stampAt: d.stampAt}
}

func (d *acmeSh) line(l *line, g *ledger) {
	if len(l.text) == 0 {
		return
	}
	stamp, text, dated := cutStamp(l.text)
	switch {
	case dated:
		d.stamped, d.headers = true, false
		w, ok := d.word(text)
		if d.answer.open && (d.answer.begun || len(text) == 0 || text[0] != '{' && text[0] != '<' && text[0] != '_') {
			d.conclude(g)
		}
		if d.answer.open && len(text) > 0 && (text[0] == '{' || text[0] == '<') {
			d.gather(text, g)
			return
		}
		if !ok && !d.naming(text) {
			return
		}
		d.say(w, string(text), d.when(stamp, l.at, g), l, g)
	case d.stamped:
		if d.cur == nil && bytes.HasPrefix(l.text, []byte("===Starting cron===")) { // dates were switched off
			d.stamped = false
			d.line(l, g)
			return
		}
		if d.headers {
			d.header(l.text)
		}
		if d.answer.open {
			d.gather(l.text, g)
		}
	default:
		d.undated(l, g)
	}
}

// undated reads a line of a log without dates, in which any line may be acme.sh's.
func (d *acmeSh) undated(l *line, g *ledger) {
	text := l.text
	if d.value {
		d.lines++
		if d.headers {
			d.header(text)
		}
		d.value = text[len(text)-1] != '\'' && d.lines < 4096
		return
	}
	if i := bytes.Index(text, []byte("='")); i > 0 && i < 40 && text[len(text)-1] != '\'' && isVariable(text[:i]) {
		d.value, d.lines = true, 0
	}
	w, ok := d.word(text)
	if !ok && d.answer.open {
		d.gather(text, g)
		return
	}
	if !ok && !d.naming(text) {
		return
	}
	if d.answer.open {
		d.conclude(g)
	}
	d.say(w, string(text), l.at, l, g)
}

func isVariable(b []byte) bool {
	for _, c := range b {
		if !tokenByte(c) || c == '-' {
			return false
		}
	}
	return true
}

// when is the time of a line with that date.
func (d *acmeSh) when(stamp []byte, otherwise time.Time, g *ledger) time.Time {
	if !bytes.Equal(stamp, d.stamp) {
		d.stamp, d.stampAt = append(d.stamp[:0], stamp...), parseStamp(stamp, g.zone)
	}
	if d.stampAt.IsZero() {
		return otherwise
	}
	return d.stampAt
}

// word finds what a line begins with.
func (d *acmeSh) word(text []byte) (acmeWord, bool) {
	if len(text) == 0 {
		return acmeWord{}, false
	}
	for _, w := range d.words[text[0]] {
		if len(text) >= len(w.text) && string(text[:len(w.text)]) == w.text {
			return w, true
		}
	}
	return acmeWord{}, false
}

// naming reports whether a line says that a name was refused, or is no
// certificate's.
func (d *acmeSh) naming(text []byte) bool {
	_, _, _, ok := refusedName(text)
	return ok || bytes.HasPrefix(text, []byte("'")) && bytes.Contains(text, []byte("' is not an issued domain, skip"))
}

// refusedName splits "NAME: Invalid status. Verification error details: REASON".
func refusedName(text []byte) (name string, word acmeWord, rest string, ok bool) {
	for _, w := range oldNameWords {
		if len(text) < len(w.text) || string(text[:len(w.text)]) != w.text {
			continue
		}
		text = text[len(w.text):]
		if w.status {
			_, text, _ = bytes.Cut(text, []byte(", "))
		}
		break
	}
	head := text[:min(len(text), maxNaming+64)]
	if bytes.IndexByte(head, ':') < 0 {
		return "", acmeWord{}, "", false
	}
	for _, w := range nameWords {
		i := bytes.Index(head, w.needle)
		if i <= 0 || i > maxNaming {
			continue
		}
		if name = cleanName(string(text[:i])); name == "" {
			continue
		}
		return name, w, strings.TrimLeft(string(text[i+len(w.needle):]), ": "), true
	}
	return "", acmeWord{}, "", false
}

// say reads one of acme.sh's own lines.
func (d *acmeSh) say(w acmeWord, text string, at time.Time, l *line, g *ledger) {
	if d.cur != nil {
		d.cur.a.hear(at)
		if d.cur.done || !slices.Contains(g.open, d.cur.a) {
			d.cur.done, d.cur = true, nil
		}
	}
	rest := strings.TrimSpace(text[len(w.text):])
	r := d.cur
	switch w.op {
	case acmeCronBegins:
		if r != nil {
			d.resolve(r, false, at, g)
		}
		d.flushLoose(g)
		d.reset()
		d.cron = true
		return
	case acmeCronEnds:
		if r != nil {
			d.resolve(r, true, at, g)
		}
		d.cur, d.cron = nil, false
		return
	case acmeRenews:
		main := strings.Trim(rest, "'")
		if r != nil && r.fresh && r.main == main {
			return
		}
		d.next(at, g)
		d.begin(main, l, at, g)
		return
	case acmeDirectory:
		if d.ca = rest; r != nil {
			r.a.ca(rest)
		}
		return
	case acmeUsesCA:
		if r == nil || r.issuing || r.skip || r.failed || r.a.Phase.rank() >= PhaseOrder.rank() {
			d.next(at, g)
			r = d.begin("", l, at, g)
		}
		r.a.ca(rest)
	case acmeNotRenewed:
		d.notRenewed(strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(rest, " stop now."), " stopping."), ","), at, l, g)
		return
	case acmeLastWord:
		d.lastWord(at, g)
		return
	case acmeHookFails:
		d.hookFails(w, text, rest, at, l)
		d.amendLast(g)
		return
	case acmeFails:
		d.fails(w, text, rest, at, l, g)
		return
	case acmeSkips:
		if r == nil {
			r = d.begin("", l, at, g)
		}
		if r.skip = true; !d.cron {
			d.resolve(r, true, at, g)
		}
		return
	case acmeSkipped:
		if r = d.find(strings.TrimSuffix(rest, "_ecc")); r != nil && !r.done {
			r.skip = true
			d.resolve(r, true, at, g)
		}
		return
	case acmeCause:
		d.cause = w.kind
		return
	case acmeTooLate:
		n, _, _ := strings.Cut(rest, " ")
		d.again = retryHeader(n, at)
		if r == nil || r.a.Phase != PhaseChallenge {
			d.cause = HTTP5xx
		}
		return
	case acmeStatus:
		d.status = strings.Trim(rest, "'")
		return
	case acmeHeader:
		d.headers, d.again = true, time.Time{}
		return
	case acmeRefusal:
		d.refusal = readAnswer("{" + rest).kind
		return
	case acmeNames, acmeName, acmeReaches:
		if r == nil && w.op != acmeNames && w.begins {
			r = d.begin("", l, at, g)
		}
	case "":
		if !d.refused(text, at, l, g) && r != nil { // is not an issued domain
			r.skip = true
			return
		}
		return
	}
	if r == nil {
		if w.op == acmeSucceeds {
			r = d.begin("", l, at, g)
			d.succeed(r)
		}
		return
	}
	r.fresh = false
	d.progress(r, w, rest)
}

// progress reads what brings an attempt further.
func (d *acmeSh) progress(r *acmeRun, w acmeWord, rest string) {
	switch w.op {
	case acmeNames:
		for n := range strings.SplitSeq(strings.Trim(rest, "'"), ",") {
			r.name(strings.TrimPrefix(strings.TrimPrefix(strings.TrimSpace(n), "DNS:"), "IP:"))
		}
	case acmeName:
		r.name(strings.Trim(strings.TrimPrefix(rest, "="), "'"))
		d.advance(r, w.phase)
	case acmeReaches:
		d.advance(r, w.phase)
	case acmeSucceeds:
		d.succeed(r)
	case acmeKept:
		d.kept(r, strings.Trim(rest, ": "), w.kind)
	case acmeInstalls:
		if r.success {
			r.hook = "install"
			r.a.saved(rest)
		}
	case acmeRunsHook:
		r.hook = w.kind
		r.reloading = w.kind == "reload"
	case acmeReloaded:
		r.reloading = false
	}
}

// name adds a name that is asked for; the first one is what the certificate is
// called.
func (r *acmeRun) name(n string) {
	r.a.name(n)
	if r.main == "" && n != "" {
		r.main = n
		r.a.lineage(n)
	}
}

// advance: the attempt goes on.
func (d *acmeSh) advance(r *acmeRun, p Phase) {
	d.cause = ""
	r.a.reach(p)
	r.issuing = r.issuing || p == PhaseFinalize && !r.failed
}

// succeed: the CA gave the certificate.
func (d *acmeSh) succeed(r *acmeRun) {
	if r.failed || !r.issuing {
		r.a.Doubtful = true
	}
	if r.failed {
		return
	}
	r.success = true
	r.a.ProblemType, r.a.ProblemDetail, r.a.Problems, r.a.RetryAfter = "", "", nil, time.Time{}
	r.a.reach(PhaseIssued)
}

// kept: a file of the certificate's own directory was written.
func (d *acmeSh) kept(r *acmeRun, path, kind string) {
	if !r.success {
		r.a.Doubtful = true
		return
	}
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return
	}
	if kind == "cert" {
		r.dir = path[:i]
		r.name(strings.TrimSuffix(path[i+1:], ".cer"))
		r.a.Doubtful = r.a.Doubtful || path[i+1:] != r.main+".cer"
	} else if r.dir != path[:i] {
		r.a.Doubtful = true
	}
	r.a.saved(path)
}

// begin opens the attempt of a certificate.
func (d *acmeSh) begin(main string, l *line, at time.Time, g *ledger) *acmeRun {
	a := g.begin("", l, at)
	r := &acmeRun{a: a, fresh: true}
	if main != "" {
		r.name(main)
	}
	a.ca(d.ca)
	if len(d.runs) == maxRuns {
		d.runs = slices.Delete(d.runs, 0, 1)
	}
	d.runs = append(d.runs, r)
	d.cur, d.cause, d.again, d.refusal = r, "", time.Time{}, ""
	return r
}

// find is the certificate of that name in this run.
func (d *acmeSh) find(name string) *acmeRun {
	for _, r := range slices.Backward(d.runs) {
		if r.main == name || r.main == "" && !r.done {
			return r
		}
	}
	return nil
}

// next: another certificate comes. Within one run of the program that is how a
// certificate ends, else somebody may have ended the program.
func (d *acmeSh) next(at time.Time, g *ledger) {
	if d.cur != nil {
		d.resolve(d.cur, d.cron, at, g)
	}
}

// resolve ends an attempt; whole tells whether acme.sh itself went on to what comes
// after it.
func (d *acmeSh) resolve(r *acmeRun, whole bool, at time.Time, g *ledger) {
	if d.cur == r {
		d.cur = nil
	}
	if r.done {
		return
	}
	r.done = true
	a := r.a
	switch {
	case r.success:
		if r.reloading && whole { // a reload that goes well says so
			a.hookFailed("reload", -1)
		}
		if a.Hook != nil {
			a.reach(PhaseHook)
		} else if whole {
			a.reach(PhaseDone)
		}
		g.finish(a, Issued, at)
	case r.skip:
		a.ProblemType, a.ProblemDetail, a.Problems, a.RetryAfter = "", "", nil, time.Time{}
		g.finish(a, Skipped, at)
	case r.failed || whole:
		g.finish(a, Failed, at)
	default:
		g.close(a, at)
	}
}

func (d *acmeSh) exit(e Exit, g *ledger) {
	d.conclude(g)
	d.flushLoose(g)
	if r := d.cur; r != nil && !r.done {
		switch {
		case e.Code > 0 && r.success && r.a.Hook == nil:
			r.a.hookFailed(cmp.Or(r.hook, "install"), -1)
		case e.Code == 2 && r.fresh: // not due
			r.skip = true
		case e.Code > 0 && !r.success && !r.skip:
			r.failed = true
		}
		d.resolve(r, e.Code == 0 && r.success, e.At, g)
	}
	g.exited(e)
	d.reset()
}

func (d *acmeSh) end(g *ledger) {
	d.conclude(g)
	d.flushLoose(g)
	if r := d.cur; r != nil && (r.success || r.skip || r.failed) {
		d.resolve(r, false, time.Time{}, g)
	}
}

// header reads a line of a response's header.
func (d *acmeSh) header(text []byte) {
	if name, value, ok := strings.Cut(string(text[:min(len(text), 128)]), ":"); ok && strings.EqualFold(name, "Retry-After") {
		d.again = retryHeader(value, d.stampAt)
	}
}

// statusAgain is when the CA allows the next try by the header of its answer.
func (d *acmeSh) statusAgain() time.Time {
	if n, err := strconv.Atoi(d.status); err == nil && n != 429 && n < 500 {
		return time.Time{}
	}
	return d.again
}
