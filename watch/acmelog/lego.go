package acmelog

import (
	"bytes"
	"path"
	"strings"
	"time"
)

// legoHookTime is how long after its last line a run of lego counts as over: its
// hooks may take two minutes unless told otherwise, and nothing says that one went
// well.
const legoHookTime = 3 * time.Minute

// legoLastWords is how long the lines of lego 4's last message may take to arrive.
const legoLastWords = 2 * time.Second

// lego reads what lego's command line writes: version 4 to stderr with the times of
// Go's log package, version 5 to stdout in one of three formats. It handles one
// certificate after the other, and says neither when a run begins nor that it ended
// well. Hooks write into the same text.
type lego struct {
	fields fieldList
	v5     bool // the version of the present attempt
	stage  legoWhat
	check  string // which of the lines of legoCheck came last
	renews bool   // of version 4: the hook is --renew-hook
	// last is the attempt that has ended with a message which goes on over the next
	// lines; when list is true, they tell of single names.
	last *attempt
	list bool
	// soft: what the attempt's problem is now may be got over.
	soft bool
	// before is the phase in which a success was told that could not be one yet.
	before Phase
}

func signLego(text []byte) int {
	if _, rest, ok := legoClock(text, time.UTC); ok {
		switch l := legoV4(string(rest)); l.what {
		case legoNothing, legoTrouble, legoHook:
			return 0
		case legoFatal:
			for _, mark := range []string{"acme: error: ", "get directory at '", legoDomains, "Could not obtain certificates:", " is not registered. Use 'run' "} {
				if strings.Contains(l.text, mark) {
					return 2
				}
			}
			return 0
		case legoAccount, legoSleep, legoAuth, legoRetry:
			return 2
		}
		return sure
	}
	var fields fieldList
	_, level, message, behind, ok := legoRecord(text, &fields)
	if !ok || fields.has("lib", "lego") { // embedded
		return 0
	}
	switch l := legoV5(message, level, &fields, behind); l.what {
	case legoNothing, legoTrouble:
		return 0
	case legoFatal, legoHook, legoAuth, legoRetry:
		return 2
	}
	return sure
}

func (d *lego) line(l *line, g *ledger) {
	if at, rest, ok := legoClock(l.text, g.zone); ok {
		d.over(g)
		d.tell(legoV4(string(rest)), false, at, l, g)
		return
	}
	if at, level, message, behind, ok := legoRecord(l.text, &d.fields); ok {
		d.over(g)
		d.tell(legoV5(message, level, &d.fields, behind), true, at, l, g)
		return
	}
	if d.last != nil { // the message goes on
		d.more(string(l.text))
		return
	}
	// Until 4.22 the error of a hook comes without a time, among what hooks write.
	if a := g.last(); a != nil && !d.v5 && a.Phase == PhaseIssued && len(l.text) < 40 &&
		(bytes.HasPrefix(l.text, []byte("exit status ")) && legoHookCode(string(l.text)) > 0 || bytes.HasPrefix(l.text, []byte("signal: "))) {
		d.hookFailed(a, legoLine{what: legoHook, text: string(l.text)}, a.heard, g)
	}
}

// over ends the attempt whose last message has come to its end.
func (d *lego) over(g *ledger) {
	if d.last != nil {
		if d.last.ProblemDetail == "" {
			legoFault(d.last, d.last.Phase, legoDomains)
		}
		g.finish(d.last, Failed, time.Time{})
		d.last, d.list = nil, false
	}
}

// more reads a further line of lego 4's last message.
func (d *lego) more(text string) {
	a := d.last
	switch {
	case d.list:
		legoDomain(a, legoPhase(a, legoDomains), text)
	case strings.HasPrefix(text, "\t") && a.ProblemType == "":
		text = strings.TrimPrefix(text, "\t")
		if !strings.HasSuffix(a.ProblemDetail, ":") { // else it says nothing itself
			text = a.ProblemDetail + ": " + text
		}
		legoForgive(a)
		d.list = legoFailure(a, text)
	}
}

// tell reads what a line says.
func (d *lego) tell(w legoLine, v5 bool, at time.Time, l *line, g *ledger) {
	if w.what == legoNothing {
		if a := g.last(); a != nil {
			a.hear(at)
		}
		return
	}
	a := d.attempt(w, v5, at, l, g)
	if a == nil {
		return
	}
	a.hear(at)
	if d.soft && (w.what <= legoFinalize || w.what == legoFatal && a.Phase.rank() < PhaseIssued.rank()) {
		legoForgive(a)
		d.soft, a.settles = false, 0
	}
	d.note(a, w, at, g)
}

// note adds to an attempt what a line says of it.
func (d *lego) note(a *attempt, w legoLine, at time.Time, g *ledger) {
	if w.name != "" && a.Lineage == "" {
		a.lineage(w.name)
	}
	switch w.what {
	case legoAccount:
		a.reach(PhaseDirectory)
		legoStaging(a, w.value)
	case legoCheck:
		d.nameV4(a, w)
		a.reach(PhaseCheck)
	case legoSkip:
		d.nameV4(a, w)
		g.finish(a, Skipped, at)
	case legoTry:
		d.renews = true
		d.nameV4(a, w)
		a.reach(PhaseStart)
	case legoSleep:
		a.hear(at.Add(min(max(w.wait, 0), 30*24*time.Hour)))
	case legoObtain:
		if !d.v5 { // the order's names are all there is
			a.Names = nil
		}
		a.name(w.names...)
		if a.Lineage == "" && len(a.Names) > 0 {
			a.lineage(a.Names[0])
		}
		a.reach(PhaseOrder)
	case legoAuth:
		legoStaging(a, w.value)
		if a.ProblemDetail == "" {
			a.reach(PhaseOrder)
		}
	case legoChallenge, legoValid:
		a.reach(PhaseChallenge)
	case legoFinalize:
		a.reach(PhaseFinalize)
	case legoIssued:
		if a.Phase != PhaseFinalize || len(w.names) > 0 && len(a.Names) > 0 && !contains(a.Names, w.names[0]) {
			a.Doubtful = true
			if d.before == "" && a.Phase.rank() < PhaseFinalize.rank() {
				d.before = a.Phase
			}
			if a.Phase.rank() >= PhaseIssued.rank() {
				return
			}
		} else {
			legoForgive(a)
		}
		d.soft = false
		a.name(w.names...)
		a.reach(PhaseIssued)
		a.settles = legoHookTime
	case legoFile:
		d.file(a, w.value)
	case legoRetry, legoTrouble:
		if a.Phase.rank() >= PhaseIssued.rank() { // hooks write too
			return
		}
		legoForgive(a)
		legoFault(a, a.Phase, w.text)
		d.soft, a.settles = true, 0
		if w.what == legoTrouble { // if it is over, then with this; a retry may be slept over
			a.settles = StallAfter
		}
	case legoHook:
		d.hookFailed(a, w, at, g)
	case legoFatal:
		d.fatal(a, w, at, g)
	}
}

// nameV4 adds the name in front of a line of lego 4: the certificate's first.
func (d *lego) nameV4(a *attempt, w legoLine) {
	if !d.v5 {
		a.name(w.names...)
	}
}

// attempt returns the attempt that a line belongs to, a new one where that begins.
func (d *lego) attempt(w legoLine, v5 bool, at time.Time, l *line, g *ledger) *attempt {
	a := g.last()
	if a != nil && v5 != d.v5 && w.what > legoObtain { // a run speaks one of the two: somebody's words
		return nil
	}
	fresh := false
	switch w.what {
	case legoAccount, legoCheck, legoSkip, legoTry, legoSleep, legoObtain:
		fresh = a == nil || v5 != d.v5 || w.name != "" && a.Lineage != "" && a.Lineage != w.name ||
			d.stage > max(w.what, legoCheck) && w.what != legoSleep ||
			d.stage == w.what && (w.what >= legoSkip || w.what == legoCheck && d.check == w.value)
		if w.what == legoObtain && !fresh && a.Lineage != "" && !v5 && len(w.names) > 0 {
			fresh = !contains(w.names, strings.ToLower(a.Lineage))
		}
	case legoIssued:
		fresh = a == nil || d.stage >= legoIssued && len(w.names) > 0 && len(a.Names) > 0 && !contains(a.Names, w.names[0])
	case legoFatal:
		fresh = a == nil
	default:
		if a == nil {
			return nil
		}
	}
	if w.what == legoCheck {
		d.check = w.value
	}
	if a != nil && !fresh {
		if w.what != legoSleep && w.what <= legoFile {
			d.stage = max(d.stage, w.what)
		}
		return a
	}
	if a != nil {
		if a.heard.After(at) { // it had announced to sleep
			a.heard = at
		}
		g.close(a, time.Time{})
	}
	a = g.begin("", l, at)
	d.v5, d.stage, d.renews, d.soft, d.before = v5, w.what, false, false, ""
	return a
}

// file notes a file that lego 5 is about to write.
func (d *lego) file(a *attempt, name string) {
	if name == "" {
		return
	}
	base := strings.TrimSuffix(path.Base(strings.ReplaceAll(name, `\`, "/")), path.Ext(name))
	base = strings.TrimSuffix(base, ".issuer")
	switch {
	case a.Lineage == "":
		a.lineage(base)
	case base == legoFileName(a.Lineage):
	case len(a.Saved) == 0 && len(a.Names) > 0 && a.Lineage == a.Names[0]: // guessed: --cert-name says otherwise
		a.lineage(base)
	default:
		a.Doubtful = true
	}
	if a.Phase.rank() < PhaseIssued.rank() { // nothing was issued
		a.Doubtful = true
	}
	a.saved(name)
	a.settles = legoHookTime
}

// legoFileName is how lego names the files of a certificate.
func legoFileName(name string) string {
	return strings.NewReplacer(":", "-", "*", "_").Replace(name)
}

// legoStaging looks at the URL of an authorization, or at the path of an account's
// key, in which the host of the CA stands.
func legoStaging(a *attempt, where string) {
	if _, after, ok := strings.Cut(where, "accounts/"); ok {
		host, _, _ := strings.Cut(after, "/")
		where = "https://" + host
	}
	if strings.HasPrefix(where, "http") && IsStaging(where) {
		a.Staging = true
	}
}

// hookFailed notes the error of a hook. lego 4 ends with it.
func (d *lego) hookFailed(a *attempt, w legoLine, at time.Time, g *ledger) {
	kind := w.value
	if kind == "" {
		if kind = "deploy"; d.renews {
			kind = "renew"
		}
	}
	a.hookFailed(kind, legoHookCode(w.text))
	if a.Phase.rank() >= PhaseIssued.rank() {
		a.reach(PhaseHook)
		if !d.v5 {
			g.finish(a, Issued, at)
		}
	}
}

// fatal reads lego's last words.
func (d *lego) fatal(a *attempt, w legoLine, at time.Time, g *ledger) {
	if a.Doubtful && d.before != "" && a.Hook == nil && !strings.Contains(w.text, "hook") { // the success was forged
		a.Phase, a.Saved = d.before, nil
		legoForgive(a)
	}
	p := legoPhase(a, w.text)
	switch {
	case p == PhaseSaved:
		if n := len(a.Saved); n > 0 { // what could not be written was told before
			a.Saved = a.Saved[:n-1]
		}
		legoFault(a, p, w.text)
		g.finish(a, Failed, at)
		return
	case a.Phase.rank() >= PhaseIssued.rank():
		if !d.v5 { // nothing but the error of a hook ends a run after that
			return
		}
		if strings.Contains(w.text, "hook") {
			kind := "deploy"
			if strings.Contains(w.text, "post hook: ") {
				kind = "post"
			}
			a.hookFailed(kind, legoHookCode(w.text))
			a.reach(PhaseHook)
		}
		g.finish(a, Issued, at)
		return
	}
	if strings.Contains(w.text, "pre hook: ") {
		a.hookFailed("pre", legoHookCode(w.text))
	}
	d.list = legoFailure(a, w.text)
	if d.v5 {
		if a.Lineage == "" {
			if _, rest, ok := strings.Cut(w.text, `could not obtain the certificate for "`); ok {
				name, _, _ := strings.Cut(rest, `"`)
				a.lineage(name)
			}
		}
		g.finish(a, Failed, at)
		return
	}
	d.last = a
	a.settles = legoLastWords
}

func (d *lego) exit(e Exit, g *ledger) {
	d.over(g)
	for _, a := range g.open {
		if e.Code == 0 && a.Hook == nil && a.Phase.rank() >= PhaseIssued.rank() {
			a.reach(PhaseDone)
		}
	}
	d.stage = legoNothing
	g.exited(e)
}

func (d *lego) end(g *ledger) {
	d.over(g)
	if a := g.last(); a != nil && a.Phase.rank() >= PhaseIssued.rank() {
		g.close(a, time.Time{})
	}
}

// contains reports whether a list holds a name, whatever the case of its letters.
func contains(list []string, name string) bool {
	for _, n := range list {
		if strings.EqualFold(n, name) {
			return true
		}
	}
	return false
}
