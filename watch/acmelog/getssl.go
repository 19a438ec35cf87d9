package acmelog

import (
	"bytes"
	"slices"
	"strings"
	"time"
)

// getssl reads what getssl prints, without times: its progress on standard output,
// nothing of it with -q but the last line, and its errors on standard error. It
// looks for itself whether the server has the new certificate.
type getssl struct {
	a      *attempt
	loud   bool   // it tells its progress
	stage  Phase  // where it is
	saving bool   // the CA is asked for the certificate
	ended  bool   // getssl has said its last word
	cause  string // why requests failed lately
	answer acmeAnswer
}

// getsslSteps are the lines of its progress.
var getsslSteps = []struct {
	text   string
	phase  Phase
	begins bool
}{
	{"Registering account", PhaseDirectory, true},
	{"Registered", PhaseDirectory, false},
	{"Verify each domain", PhaseOrder, true},
	{"sending request to ACME server saying we're ready for challenge", PhaseChallenge, false},
	{"checking if challenge is complete", PhaseChallenge, false},
	{"Verification completed, obtaining certificate.", PhaseFinalize, false},
	{"obtaining EC certificate.", PhaseFinalize, false},
	{"Requesting Finalize Link", PhaseFinalize, false},
	{"Requesting certificate", PhaseFinalize, false},
	{"Checking Finalize status", PhaseFinalize, false},
	{"ACME server still Processing certificates", PhaseFinalize, false},
	{"creating domain csr - ", PhaseStart, false},
	{"Pending", PhaseChallenge, false},
}

func signGetssl(text []byte) int {
	switch {
	case bytes.HasPrefix(text, []byte("getssl: ")):
		return 3
	case bytes.HasPrefix(text, []byte("certificate obtained for ")), bytes.HasPrefix(text, []byte("sending request to ACME server saying we're ready")),
		bytes.Equal(text, []byte("Verify each domain")), bytes.Equal(text, []byte("Check all certificates")):
		return 2
	case bytes.Contains(text, []byte(": certificate is valid for more than ")), bytes.Contains(text, []byte(": certificate has not yet reached ARI renewal window")):
		return 3
	case bytes.Equal(text, []byte("Verification completed, obtaining certificate.")), bytes.Equal(text, []byte("Registering account")), bytes.Equal(text, []byte("reloading SSL services")):
		return 1
	}
	return 0
}

func (d *getssl) line(l *line, g *ledger) {
	text := l.text
	if len(text) == 0 {
		return
	}
	if d.a != nil && !slices.Contains(g.open, d.a) {
		d.forget()
	}
	if d.answer.open && !d.mine(text) {
		d.gather(text)
		return
	}
	if !d.mine(text) {
		return
	}
	d.conclude()
	if d.a != nil {
		d.a.hear(l.at)
	}
	if rest, ok := bytes.CutPrefix(text, []byte("getssl: ")); ok {
		d.fails(string(rest), l, g)
		return
	}
	d.says(string(text), l, g)
}

// forget forgets the attempt that is over.
func (d *getssl) forget() { *d = getssl{loud: d.loud} }

// mine reports whether a line is one of getssl's that matter.
func (d *getssl) mine(text []byte) bool {
	switch text[0] {
	case 'V', 'R', 'C', 'c', 's', 'o', 'A', 'P', 'r', 'g', '_', 'e', 'F':
		for _, s := range []string{"getssl: ", "Verifying ", "Verified ", "Certificate saved in ", "Full certificate saved in ", "copying ", "reloading SSL services", "certificate obtained for ",
			"_error on acme server - ", "error on acme server - ", "Check all certificates"} {
			if bytes.HasPrefix(text, []byte(s)) {
				return true
			}
		}
		for _, s := range getsslSteps {
			if bytes.HasPrefix(text, []byte(s.text)) {
				return true
			}
		}
	}
	return getsslNamed(text) != ""
}

// getsslNamed are the lines that begin with a name.
func getsslNamed(text []byte) string {
	i := bytes.IndexAny(text[:min(len(text), maxNaming+1)], ": ")
	if i <= 0 || i+2 >= len(text) {
		return ""
	}
	for _, s := range []string{": certificate is valid for more than ", ": certificate has not yet reached ARI renewal window", ": forcing renewal (due to", ":Verify error:", " is already validated",
		" certificate installed OK on server", " - certificate installed OK on server", ": exiting due to config errors"} {
		if bytes.HasPrefix(text[i:], []byte(s)) || s[0] == ' ' && bytes.HasPrefix(text[i:], []byte(" - ")) && bytes.HasSuffix(text, []byte(s)) {
			if cleanName(string(text[:i])) == "" {
				return ""
			}
			return s
		}
	}
	return ""
}

// begin opens the attempt that goes on from here.
func (d *getssl) begin(l *line, g *ledger) {
	d.leave(l.at, g)
	d.a, d.loud = g.begin("", l, time.Time{}), true
}

// leave ends the attempt that goes on.
func (d *getssl) leave(at time.Time, g *ledger) {
	d.conclude()
	if d.a != nil && slices.Contains(g.open, d.a) {
		g.close(d.a, at)
	}
	d.forget()
}

// says reads a line of standard output.
func (d *getssl) says(text string, l *line, g *ledger) {
	for _, s := range getsslSteps {
		if !strings.HasPrefix(text, s.text) {
			continue
		}
		if d.loud = true; d.a == nil && !s.begins {
			return
		}
		if s.begins && (d.a == nil || d.a.Phase.rank() > s.phase.rank() || d.ended) {
			d.begin(l, g)
		}
		d.stage, d.cause = s.phase, ""
		d.saving = d.saving || s.phase == PhaseFinalize && len(d.a.Problems) == 0
		d.a.reach(s.phase)
		return
	}
	if s := getsslNamed([]byte(text)); s != "" {
		d.named(text[:strings.IndexAny(text, ": ")], s, text, l, g)
		return
	}
	switch {
	case text == "Check all certificates":
		d.leave(l.at, g)
	case cutText(text, "certificate obtained for ") != "":
		d.obtained(strings.TrimSpace(cutText(text, "certificate obtained for ")), l, g)
	case d.a == nil && cutText(text, "Verifying ") != "" && !strings.Contains(cutText(text, "Verifying "), " "):
		d.begin(l, g)
		fallthrough
	case d.a != nil && cutText(text, "Verifying ") != "":
		name := cutText(text, "Verifying ")
		if d.a.name(name); d.a.Lineage == "" {
			d.a.lineage(name)
		}
		d.stage = PhaseChallenge
		d.a.reach(PhaseOrder)
	case d.a == nil:
	case cutText(text, "Verified ") != "":
		d.proved(cleanName(cutText(text, "Verified ")))
	case strings.Contains(text, "error on acme server - "):
		d.cause = HTTP5xx
	case cutText(text, "Certificate saved in ") != "":
		d.issued(cutText(text, "Certificate saved in "))
	case cutText(text, "Full certificate saved in ") != "":
		if d.saving {
			d.a.reach(PhaseIssued)
			d.a.saved(cutText(text, "Full certificate saved in "))
		}
	case cutText(text, "copying ") != "":
		// Elsewhere than here a password may stand in the place.
		if i := strings.Index(text, " to /"); i >= 0 && len(d.a.Saved) > 0 {
			d.a.saved(text[i+len(" to "):])
		}
	case text == "reloading SSL services":
		d.stage = PhaseHook
	}
}

// named reads the lines that begin with a name.
func (d *getssl) named(name, what, text string, l *line, g *ledger) {
	switch {
	case strings.Contains(what, "certificate is valid for more than"), strings.Contains(what, "has not yet reached ARI"):
		d.begin(l, g)
		d.a.name(name)
		d.a.lineage(name)
		g.finish(d.a, Skipped, l.at)
		d.forget()
	case strings.Contains(what, "forcing renewal"):
		d.begin(l, g)
		d.a.name(name)
		d.a.lineage(name)
		d.a.Forced = true
	case d.a == nil:
	case what == ":Verify error:":
		d.refused(name, text[strings.Index(text, what)+len(what):])
	case strings.Contains(what, "already validated"):
		d.a.name(name)
	case strings.Contains(what, "installed OK on server"):
		if len(d.a.Saved) > 0 {
			d.a.Activated = true
			d.a.reach(PhaseActivated)
		}
	}
}

// refused notes what the CA says of a name: getssl prints the line of the answer in
// which the detail stands.
func (d *getssl) refused(name, rest string) {
	r := answer{kind: problemKind(brokenField(rest, "type")), detail: brokenField(rest, "detail")}
	if r.detail == "" {
		r.detail = strings.TrimSpace(rest)
	}
	d.a.refused(name, r.kind, r.detail)
}

// proved forgets what was said of a name before: getssl tries three times.
func (d *getssl) proved(name string) {
	d.a.name(name)
	i := slices.IndexFunc(d.a.Problems, func(p Problem) bool { return p.Name == name })
	if i < 0 {
		return
	}
	d.a.Problems = slices.Delete(d.a.Problems, i, i+1)
	if len(d.a.Problems) == 0 {
		d.a.ProblemType, d.a.ProblemDetail, d.a.Problems = "", "", nil
	} else {
		d.a.ProblemType, d.a.ProblemDetail = d.a.Problems[0].Type, d.a.Problems[0].Detail
	}
}

// issued: a certificate was written.
func (d *getssl) issued(path string) {
	if !d.saving || d.ended {
		d.a.Doubtful = true
		return
	}
	name := path[strings.LastIndexByte(path, '/')+1:]
	for _, s := range []string{".crt", ".ec"} {
		name = strings.TrimSuffix(name, s)
	}
	if cleanName(name) != "" {
		d.a.Doubtful = d.a.Doubtful || len(d.a.Names) > 0 && !slices.Contains(d.a.Names, cleanName(name)) && d.a.Lineage != name && len(d.a.Saved) > 0
		d.a.lineage(name)
	}
	d.a.reach(PhaseIssued)
	d.a.saved(path)
}

// obtained reads getssl's last line, the only one with -q.
func (d *getssl) obtained(name string, l *line, g *ledger) {
	if cleanName(name) == "" {
		return
	}
	if d.a == nil {
		loud := d.loud
		d.begin(l, g)
		d.loud, d.a.Doubtful = loud, loud
	} else {
		d.a.Doubtful = d.a.Doubtful || len(d.a.Saved) == 0
		if d.ended || d.a.ProblemDetail != "" && len(d.a.Saved) == 0 {
			return
		}
	}
	d.a.name(name)
	d.a.lineage(name)
	d.a.ProblemType, d.a.ProblemDetail, d.a.Problems = "", "", nil
	d.a.reach(PhaseDone)
	g.finish(d.a, Issued, l.at)
	d.forget()
}

// fails reads an error, with which getssl ends.
func (d *getssl) fails(text string, l *line, g *ledger) {
	if d.a == nil || d.ended {
		loud := d.loud
		d.begin(l, g)
		d.loud = loud
	}
	a := d.a
	d.ended = true
	a.settles = lateLines
	first, rest, _ := strings.Cut(text, ":")
	switch {
	case len(a.Saved) > 0: // the certificate is there
		kind := "install"
		if strings.HasPrefix(text, "error running") {
			kind = "reload"
		}
		a.hookFailed(kind, -1)
		a.reach(PhaseHook)
	case strings.HasSuffix(text, "certificate obtained but not installed on server"), strings.HasSuffix(text, "obtained but certificate on server is different from the new certificate"):
		d.only(first, "install") // nothing but errors is told
	case strings.HasPrefix(text, "error running"):
		d.only("", "reload")
	case strings.HasPrefix(text, "ACME server returned error: "):
		d.returned(text, strings.TrimPrefix(text, "ACME server returned error: "))
	case strings.Contains(text, " error from ACME server: "):
		code, body, _ := strings.Cut(text, " error from ACME server: ")
		d.answer = acmeAnswer{open: true, fault: acmeFault{phase: d.now(), text: code + " error from ACME server"}}
		if strings.HasPrefix(code, "5") {
			d.answer.fault.hook = HTTP5xx
		}
		d.gather([]byte(body))
	case strings.HasPrefix(text, "ERROR curl "):
		p := d.now()
		if p == PhaseClient { // its first word to the CA
			p = PhaseDirectory
		}
		a.fault(p, Network, text)
	case strings.HasSuffix(text, ": fulfill_challenges failed 3 times"):
		a.fault(PhaseChallenge, "", text)
	case strings.HasPrefix(rest, "Verify error:"):
		d.name(first)
		d.refused(first, strings.TrimPrefix(rest, "Verify error:"))
	case strings.HasPrefix(rest, "Challenge error: "):
		d.name(first)
		_, detail, _ := strings.Cut(rest, ":Detail: ")
		if detail == "" {
			detail = rest
		}
		a.refused(first, findProblem(detail).kind, detail)
	case strings.Contains(text, " due for renewal, but not completed"):
		name, _, _ := strings.Cut(text, " ")
		d.name(name)
		a.fault(PhaseClient, "", text)
	default:
		a.problem(d.now(), text)
	}
}

// now is where the attempt is, as far as it was told.
func (d *getssl) now() Phase {
	if d.stage == "" || d.stage == PhaseHook {
		return PhaseClient
	}
	return d.stage
}

// name names the certificate of an attempt of which nothing but its error is told.
func (d *getssl) name(name string) {
	if cleanName(name) == "" {
		return
	}
	if d.a.name(name); d.a.Lineage == "" && d.stage == "" {
		d.a.lineage(name)
	}
}

// only: what runs after a new certificate was written failed.
func (d *getssl) only(name, kind string) {
	if name, _, ok := strings.Cut(name, " - "); ok {
		d.name(name)
	}
	d.a.Doubtful = d.a.Doubtful || d.loud
	d.a.hookFailed(kind, -1)
	d.a.reach(PhaseHook)
}

// returned reads "429:   "detail": "text"," or a whole answer in one line.
func (d *getssl) returned(text, rest string) {
	code, rest, _ := strings.Cut(rest, ":")
	r := answer{kind: problemKind(brokenField(rest, "type")), detail: brokenField(rest, "detail")}
	if r.kind == "" && code == "429" { // the line with the type is not printed
		r.kind = problemP + "rateLimited"
	}
	p := d.now()
	if p == PhaseClient {
		p = PhaseStart
	}
	d.a.blame(p, r, text)
}

// gather takes a line of an answer.
func (d *getssl) gather(text []byte) {
	x := &d.answer
	if room := maxAnswer - len(x.text); room > 0 {
		x.text = append(append(x.text, text[:min(len(text), room)]...), '\n')
	}
	if len(x.text) >= maxAnswer || jsonEnds(x.text) {
		d.conclude()
	}
}

// conclude: the answer has come to its end.
func (d *getssl) conclude() {
	x := d.answer
	if !x.open || d.a == nil {
		return
	}
	d.answer = acmeAnswer{}
	r := readAnswer(string(x.text))
	if r.kind == "" {
		r.kind = x.fault.hook
	}
	d.a.blame(x.fault.phase, r, x.fault.text)
}

func (d *getssl) exit(e Exit, g *ledger) {
	d.conclude()
	g.exited(e)
	*d = getssl{}
}

func (d *getssl) end(g *ledger) {
	d.conclude()
	if d.a != nil && slices.Contains(g.open, d.a) && (d.ended || len(d.a.Saved) > 0 || d.a.ProblemDetail != "") {
		g.close(d.a, time.Time{})
		d.forget()
	}
}
