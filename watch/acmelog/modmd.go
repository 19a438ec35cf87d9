package acmelog

import (
	"bytes"
	"strconv"
	"strings"
	"time"
)

// modMD reads Apache's mod_md, which speaks in three places: the error log, the
// lines a script behind MDMessageCmd writes, and job.json, the record it keeps of
// each managed domain.
//
// mod_md works in two halves, days apart. A renewal ends with a staged certificate
// (AH10059, "renewed"); a restart of the server puts it into use (AH10068,
// "installed"). The attempt is told at the first, and once more at the second.
type modMD struct {
	remarks []mdRemark // the latest lines that name no managed domain
	errno   string     // what the present line calls a failure of the system
	staged  []*attempt // issued, not activated
	failed  *attempt   // the last that failed: the next line may say when it is tried again
	hook    mdHook     // a command that failed, before it is known in which attempt
	doc     *mdFile
}

// mdRemark is what the log says of the CA without saying for which managed domain:
// one thread works on one after the other.
type mdRemark struct {
	at     time.Time
	phase  Phase  // of an activity, which detail names
	kind   string // of a problem
	name   string // of an authorization that is invalid
	detail string
}

// mdHook is a MDMessageCmd that failed.
type mdHook struct {
	md   string
	code int
}

// A remark that is older than this belongs to another attempt: what fails because
// of an answer fails at once.
const mdRemarkAge = time.Minute

// mdReasons are what MDMessageCmd is called with, besides "challenge-setup:...".
var mdReasons = []string{"renewing", "renewed", "installed", "expiring", "errored", "ocsp-renewed", "ocsp-errored"}

func signModMD(text []byte) int {
	switch {
	case bytes.HasPrefix(text, []byte("[md:")) && bytes.Contains(text, []byte("AH100")):
		return 3
	case text[0] == '[' && bytes.Contains(text, []byte(" [md:")):
		switch {
		case bytes.Contains(text, []byte("AH100")), bytes.Contains(text, []byte("AH105")):
			return 3
		}
		return 1
	case bytes.HasPrefix(text, []byte(`  "notified-renewed":`)):
		return 3
	case bytes.HasPrefix(text, []byte(`  "last-run": "`)), bytes.HasPrefix(text, []byte(`        "type": "message-`)):
		return 2
	}
	if reason, _, _ := mdMessage(text, time.Time{}, time.UTC); reason != "" {
		if strings.HasPrefix(reason, "challenge-setup:") {
			return 2
		}
		return 1
	}
	return 0
}

func (d *modMD) line(l *line, g *ledger) {
	text := l.text
	if d.doc != nil {
		d.doc.add(text, l)
		if len(text) > 0 && text[0] == '}' {
			d.end(g)
		}
		return
	}
	if len(text) == 0 {
		return
	}
	switch text[0] {
	case '[':
		if !bytes.Contains(text, []byte("[md:")) && !bytes.Contains(text, []byte("AH10")) {
			if reason, md, at := mdMessage(text, l.at, g.zone); reason != "" {
				d.message(reason, md, at, l, g)
			}
			return
		}
		if at, msg, ok := apacheLine(text, g.zone); ok {
			if at.IsZero() {
				at = l.at
			}
			d.errno = apacheErrno(text)
			d.apache(string(msg), at, l, g)
		} else if reason, md, at := mdMessage(text, l.at, g.zone); reason != "" {
			d.message(reason, md, at, l, g)
		}
	case '{':
		if len(text) == 1 {
			d.doc = &mdFile{at: l.at, offset: l.offset}
			d.doc.add(text, l)
		}
	default:
		if reason, md, at := mdMessage(text, l.at, g.zone); reason != "" {
			d.message(reason, md, at, l, g)
		}
	}
}

func (d *modMD) exit(Exit, *ledger) {}

func (d *modMD) end(g *ledger) {
	if d.doc != nil {
		d.doc.read(g)
		d.doc = nil
	}
}

// apacheLine takes the head off a line of Apache's error log that mod_md wrote:
// "[time] [md:level] [pid 1:tid 2] file.c(12): (22)errno's text: message". The
// errno is mod_md's way to carry a status; its text means nothing.
func apacheLine(text []byte, zone *time.Location) (at time.Time, msg []byte, ok bool) {
	ours, other := false, false
	for n := 0; n < 6 && len(text) > 0 && text[0] == '['; n++ {
		end := bytes.IndexByte(text, ']')
		if end < 0 {
			return time.Time{}, nil, false
		}
		group := text[1:end]
		text = bytes.TrimLeft(text[end+1:], " ")
		switch {
		case n == 0 && len(group) < 40:
			for _, layout := range []string{"Mon Jan _2 15:04:05 2006", "2006-01-02 15:04:05"} {
				if t, err := time.ParseInLocation(layout, string(group), zone); err == nil {
					at = t
				}
			}
		case bytes.HasPrefix(group, []byte("md:")):
			ours = true
		case bytes.HasPrefix(group, []byte("pid ")), bytes.HasPrefix(group, []byte("client ")), bytes.HasPrefix(group, []byte("remote ")):
		case bytes.IndexByte(group, ':') > 0:
			other = true
		}
	}
	if i := bytes.Index(text, []byte("): ")); i > 0 && i < 48 && bytes.IndexByte(text[:i], ' ') < 0 && bytes.Contains(text[:i], []byte(".c(")) {
		text = text[i+3:]
	}
	if len(text) > 2 && text[0] == '(' && (isDigit(text[1]) || text[1] == '-') {
		if i := bytes.Index(text, []byte(": ")); i > 0 && i < 200 {
			text = text[i+2:]
		}
	}
	if other || !ours && !bytes.HasPrefix(text, []byte("AH10")) {
		return time.Time{}, nil, false
	}
	return at, text, true
}

// apacheErrno is what stands between an errno and the message, "(13)Permission
// denied: AH10056: ...", where it is the system's or of time that ran out: others
// are mod_md's way to carry a status.
func apacheErrno(text []byte) string {
	before, _, ok := bytes.Cut(text, []byte(": AH10056: "))
	if !ok {
		return ""
	}
	i := bytes.LastIndex(before[max(0, len(before)-200):], []byte("] ("))
	if i < 0 {
		return ""
	}
	number, words, _ := bytes.Cut(before[max(0, len(before)-200)+i+3:], []byte(")"))
	switch string(number) {
	case "13", "28", "30", "70007":
		return string(words)
	}
	return ""
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// apache reads one message of the error log.
func (d *modMD) apache(msg string, at time.Time, l *line, g *ledger) {
	if !strings.HasPrefix(msg, "AH") {
		d.remark(msg, at, l, g)
		return
	}
	code, rest, ok := strings.Cut(msg, ": ")
	if !ok || len(code) != 7 {
		return
	}
	md, after := mdSubject(rest)
	if md == "" && code != "AH10056" && code != "AH10059" {
		return
	}
	switch code {
	case "AH10500", "AH10512", "AH10517", "AH10518": // due, since 2.6
		d.start(md, at, l, g)
	case "AH10053", "AH10514", "AH10515", "AH10516": // not yet
		if g.find(md) == nil {
			g.finish(d.begin(md, at, l, g), Skipped, at)
		}
	case "AH10060": // MDMessageCmd said no
		a := d.current(md, at, l, g)
		a.fault(PhaseClient, "", after)
		a.hookFailed("notify", d.hookCode(md))
		g.finish(a, Failed, at)
	case "AH10056":
		if rest, ok := strings.CutPrefix(rest, "processing "); ok {
			md, detail, _ := strings.Cut(rest, ": ")
			d.failure(md, detail, at, l, g)
		}
	case "AH10057":
		if i := strings.Index(after, "next run in "); i >= 0 && d.failed != nil && d.failed.key == md {
			if n, ok := mdDuration(after[i+len("next run in "):]); ok && !at.IsZero() && d.failed.RetryAfter.IsZero() {
				d.failed.retryAfter(at.Add(n))
				g.amend(d.failed)
			}
		}
	case "AH10059":
		if rest, ok := strings.CutPrefix(rest, "The Managed Domain "); ok {
			if md, _, ok := strings.Cut(rest, " has been setup and changes will be activated on next"); ok {
				d.issued(md, at, l, g)
			}
		}
	case "AH10068":
		if after == "staged set activated" {
			d.installed(md, at, l, g)
		}
	case "AH10069":
		d.purged(md, after, at, l, g)
	}
}

// mdSubject splits "md(NAME): rest" and "NAME: rest".
func mdSubject(s string) (md, rest string) {
	head, rest, ok := strings.Cut(s, ": ")
	if !ok {
		return "", s
	}
	if in, ok := strings.CutPrefix(head, "md("); ok {
		head = strings.TrimSuffix(in, ")")
	}
	return cleanName(head), rest
}

// begin opens the attempt of a managed domain, whose name is its first DNS name.
func (d *modMD) begin(md string, at time.Time, l *line, g *ledger) *attempt {
	a := g.begin(cleanName(md), l, at)
	a.lineage(md)
	a.name(md)
	return a
}

// start opens the attempt of a managed domain unless it goes on.
func (d *modMD) start(md string, at time.Time, l *line, g *ledger) *attempt {
	if a := g.find(cleanName(md)); a != nil {
		a.hear(at)
		return a
	}
	d.remarks, d.hook = nil, mdHook{}
	return d.begin(md, at, l, g)
}

// current is the attempt that goes on for a managed domain; at the usual log level
// nothing tells that one began.
func (d *modMD) current(md string, at time.Time, l *line, g *ledger) *attempt {
	if a := g.find(cleanName(md)); a != nil {
		a.hear(at)
		return a
	}
	if n := len(d.remarks); n > 0 && !at.IsZero() && at.Sub(d.remarks[0].at) <= mdRemarkAge {
		return d.begin(md, d.remarks[0].at, l, g)
	}
	return d.begin(md, at, l, g)
}

// remark reads a line that has no AH number.
func (d *modMD) remark(msg string, at time.Time, l *line, g *ledger) {
	if rest, ok := strings.CutPrefix(msg, "md["); ok {
		if md, rest, ok := strings.Cut(rest, "]"); ok {
			d.result(cleanName(md), rest, at, l, g)
		}
		return
	}
	r := mdRemark{at: at}
	switch {
	case strings.HasPrefix(msg, "acme problem unknown: http status "):
		r.detail = strings.TrimPrefix(msg, "acme problem unknown: ")
		if status := strings.TrimPrefix(r.detail, "http status "); len(status) == 3 && status[0] == '5' {
			r.kind = HTTP5xx
		}
	case strings.HasPrefix(msg, "acme problem "):
		kind, detail, _ := strings.Cut(strings.TrimPrefix(msg, "acme problem "), ": ")
		r.kind, r.detail = findProblem(kind).kind, apacheText(detail)
	case strings.HasPrefix(msg, "ACME server authz: challenge 'invalid' for "):
		rest := strings.TrimPrefix(msg, "ACME server authz: challenge 'invalid' for ")
		name, rest, _ := strings.Cut(rest, " at ")
		_, answer, _ := strings.Cut(rest, ". Exact response was: ")
		r.name = cleanName(name)
		r.kind, r.detail = authorizationError(apacheText(answer))
		if r.name == "" {
			return
		}
	default:
		if md, rest := mdSubject(msg); md != "" && rest == "run staging" {
			d.start(md, at, l, g)
		}
		return
	}
	d.keep(r)
}

// keep remembers a remark, and forgets those that are too old or too many.
func (d *modMD) keep(r mdRemark) {
	kept := d.remarks[:0]
	for i, old := range d.remarks {
		if r.at.Sub(old.at) <= mdRemarkAge && len(d.remarks)-i < 16 {
			kept = append(kept, old)
		}
	}
	d.remarks = append(kept, r)
}

// result reads "md[NAME] while[...] problem[...] detail[...] subproblems[...]".
func (d *modMD) result(md, rest string, at time.Time, l *line, g *ledger) {
	if md == "" {
		return
	}
	activity, rest := mdField(rest, " while[")
	kind, rest := mdField(rest, " problem[")
	detail, _ := strings.CutPrefix(rest, " detail[")
	if i := strings.Index(detail, "] subproblems["); i >= 0 {
		detail = detail[:i]
	}
	detail = apacheText(strings.TrimSuffix(detail, "]"))
	switch {
	case strings.Contains(kind, "AH10108"): // MDNotifyCmd, which runs for what was renewed
		d.notified(d.issued(md, at, l, g), detail, g)
	case strings.Contains(kind, "AH10109"): // MDMessageCmd, which runs for everything
		d.hook = mdHook{md, exitCode(detail)}
		if a := d.waiting(md); a != nil && (activity == "" || strings.HasPrefix(activity, "moving tmp")) {
			d.notified(a, detail, g)
		} else if a := g.find(md); a != nil {
			a.hookFailed("notify", d.hook.code)
		}
	case strings.HasPrefix(detail, "The certificate for the managed domain has been renewed successfully"):
		if g.find(md) != nil {
			d.issued(md, at, l, g)
		}
	default:
		if a := g.find(md); a != nil {
			a.hear(at)
			a.reach(mdPhase(activity))
			mdNames(a, activity, detail)
			mdCA(a, activity)
		} else if p := mdPhase(activity); p != PhaseStart {
			d.keep(mdRemark{at: at, phase: p, detail: activity})
		}
	}
}

// mdField takes a bracketed field off the front.
func mdField(s, name string) (value, rest string) {
	in, ok := strings.CutPrefix(s, name)
	if !ok {
		return "", s
	}
	value, rest, _ = strings.Cut(in, "]")
	return value, rest
}

// failure ends the attempt of a managed domain: AH10056.
func (d *modMD) failure(md, detail string, at time.Time, l *line, g *ledger) {
	if cleanName(md) == "" {
		return
	}
	a := d.current(md, at, l, g)
	detail = apacheText(detail)
	if detail == "(null)" {
		detail = ""
	}
	phase := mdPhase(detail)
	if phase == PhaseStart {
		phase = a.Phase
	}
	told := false
	for i := len(d.remarks) - 1; i >= 0; i-- {
		r := d.remarks[i]
		if !at.IsZero() && at.Sub(r.at) > mdRemarkAge {
			break
		}
		if r.phase != "" {
			if phase == PhaseStart {
				phase = r.phase
			}
			mdNames(a, r.detail)
			mdCA(a, r.detail)
			continue
		}
		switch {
		case r.name != "":
			a.name(r.name)
			a.refused(r.name, r.kind, r.detail)
			told = true
		case !told && r.kind != "" && (detail == "" || sameText(r.detail, detail) || r.kind == HTTP5xx && strings.Contains(detail, "http status")):
			// The CA's answer becomes the reason; another one was to something that
			// mod_md got over.
			if phase == PhaseStart {
				phase = phaseOfProblem(r.kind)
			}
			f := findProblem(r.kind + ": " + r.detail)
			a.fault(phase, r.kind, r.detail)
			a.retryAfter(f.retry)
			a.Paused = a.Paused || f.paused
			told = true
		}
	}
	if !told {
		if detail == "" { // mod_md 1 says nothing else
			detail = d.errno
		}
		kind := findProblem(detail).kind
		if strings.HasPrefix(detail, "Unsuccessful in contacting ACME server") {
			kind = Network
			detail, _, _ = strings.Cut(detail, ". If this problem persists")
		}
		a.fault(phase, kind, detail)
	}
	if d.hook.md == a.key && strings.Contains(detail, "MDMessageCmd") {
		a.hookFailed("notify", d.hook.code)
	}
	d.remarks, d.hook = nil, mdHook{}
	g.finish(a, Failed, at)
	d.failed = a
}

// issued ends the attempt of a managed domain: a certificate is staged. What tells
// it a second time tells nothing new.
func (d *modMD) issued(md string, at time.Time, l *line, g *ledger) *attempt {
	md = cleanName(md)
	if md == "" {
		return nil
	}
	a := g.find(md)
	if a == nil {
		if w := d.waiting(md); w != nil {
			return w
		}
		a = d.begin(md, at, l, g)
	}
	a.ProblemType, a.ProblemDetail, a.Problems = "", "", nil
	a.reach(PhaseSaved)
	g.finish(a, Issued, at)
	d.remarks, d.failed = nil, nil
	if len(d.staged) >= maxOpen {
		d.staged = append(d.staged[:0], d.staged[1:]...)
	}
	d.staged = append(d.staged, a)
	return a
}

// waiting is the attempt whose certificate waits for a restart, or nil.
func (d *modMD) waiting(md string) *attempt {
	for i := len(d.staged) - 1; i >= 0; i-- {
		if d.staged[i].key == md {
			return d.staged[i]
		}
	}
	return nil
}

// taken forgets the attempt whose certificate waited.
func (d *modMD) taken(md string) *attempt {
	a := d.waiting(md)
	for i := range d.staged {
		if d.staged[i] == a {
			d.staged = append(d.staged[:i], d.staged[i+1:]...)
			break
		}
	}
	return a
}

// installed: a restart put the staged certificate into use.
func (d *modMD) installed(md string, at time.Time, l *line, g *ledger) {
	md = cleanName(md)
	a := d.taken(md)
	if a == nil {
		if a = g.find(md); a == nil { // the log that told of its renewal was rotated
			a = d.begin(md, at, l, g)
		}
		a.ProblemType, a.ProblemDetail, a.Problems = "", "", nil
		a.reach(PhaseActivated)
		a.Activated = true
		g.finish(a, Issued, at)
		return
	}
	a.reach(PhaseActivated)
	a.Activated = true
	g.amend(a)
}

// purged: a restart found the staged certificate unusable and threw it away.
func (d *modMD) purged(md, detail string, at time.Time, l *line, g *ledger) {
	a := d.taken(md)
	if a == nil {
		a = d.begin(md, at, l, g)
		a.fault(PhaseSaved, "", detail)
		g.finish(a, Failed, at)
		return
	}
	a.hookFailed("install", -1)
	a.reach(PhaseHook)
	g.amend(a)
}

// notified: the command that should tell of an issued certificate failed.
func (d *modMD) notified(a *attempt, detail string, g *ledger) {
	if a != nil && a.Hook == nil {
		a.hookFailed("notify", exitCode(detail))
		a.reach(PhaseHook)
		g.amend(a)
	}
}

// hookCode is the exit code of the command that was seen to fail for md.
func (d *modMD) hookCode(md string) int {
	if d.hook.md == md {
		return d.hook.code
	}
	return -1
}

// exitCode reads "... failed with exit code 3."; -1 when it is not said.
func exitCode(s string) int {
	_, s, ok := strings.Cut(s, "exit code ")
	if !ok {
		return -1
	}
	n, err := strconv.Atoi(strings.TrimRight(s, ". "))
	if err != nil || n < 0 || n > 255 {
		return -1
	}
	return n
}
