package acmelog

import (
	"bytes"
	"slices"
	"strings"
	"time"
)

// uacme reads what uacme prints to standard error. Without -v that is only what
// goes wrong: no name of a certificate, and nothing at all when it is issued or not
// due, which only the exit status tells: 0 issued, 1 not due, 2 failed. With -v the
// steps are told, but no end.
type uacme struct {
	cur      *attempt
	path     string // of the certificate
	verbose  bool   // its first line was seen
	told     bool   // of this process an attempt was told
	rotates  bool   // a new key comes with the certificate
	fetched  bool   // the certificate was fetched
	final    bool   // the run's last error was seen
	tried    string // the name that is proved
	refused  bool   // the error is that name's
	phase    Phase
	document []byte // that goes on over the next lines
	reading  bool
	curl     string // what curl said of a request that may be tried again
	status   int    // of the last response; only -v -v tells
}

var uacmeSigns = []struct {
	text  string
	worth int
}{
	{"version ", 2}, {"failed to create new order at ", 3}, {"the server reported the following error:", 3}, {"failed to authorize order at ", 3},
	{"checking existence and expiration of ", 3}, {"creating new order ", 2}, {"curl_get: ", 3}, {"curl_post: ", 3}, {"acme_get: ", 3}, {"acme_post: ", 3},
	{"challenge ", 2}, {"failed to fetch directory at ", 3}, {"fetching directory at ", 2}, {"no challenge completed", 3}, {"failed to ", 2}, {"unexpected ", 2},
	{"timeout while polling ", 3}, {"saving certificate to ", 2}, {"skipping ", 2}, {"loading key from ", 2}, {"forcing reissue of ", 2},
}

func signUacme(text []byte) int {
	rest, ok := bytes.CutPrefix(text, []byte("uacme: "))
	if !ok {
		return 0
	}
	for _, s := range uacmeSigns {
		if bytes.HasPrefix(rest, []byte(s.text)) {
			return s.worth
		}
	}
	return 1
}

func (d *uacme) line(l *line, g *ledger) {
	if d.reading {
		if !bytes.HasPrefix(l.text, []byte("uacme: ")) {
			if room := maxAnswer - len(d.document); room > 0 {
				d.document = append(append(d.document, l.text[:min(len(l.text), room)]...), '\n')
			}
			if len(l.text) > 0 && l.text[0] == '}' || len(d.document) >= maxAnswer {
				d.reported()
			}
			return
		}
		d.reported()
	}
	text, ok := bytes.CutPrefix(l.text, []byte("uacme: "))
	if !ok {
		return // a hook's
	}
	if d.cur != nil && !slices.Contains(g.open, d.cur) {
		d.forget()
	}
	if d.cur != nil {
		d.cur.hear(l.at)
	}
	d.says(string(text), l, g)
}

// forget forgets the attempt that is over.
func (d *uacme) forget() { *d = uacme{told: d.told} }

// says reads one of uacme's own lines.
func (d *uacme) says(text string, l *line, g *ledger) {
	if rest, ok := strings.CutPrefix(strings.TrimPrefix(text, "development "), "version "); ok {
		if _, stamp, ok := strings.Cut(rest, " starting on "); ok {
			at, _ := time.Parse(time.RFC1123Z, stamp)
			d.leave(l.at, g)
			d.cur, d.verbose, d.told = g.begin("", l, at), true, true
			d.cur.hear(l.at)
		}
		return
	}
	if d.trouble(text, l, g) {
		return
	}
	a := d.cur
	if a == nil {
		if strings.HasPrefix(text, "renaming ") && strings.HasSuffix(text, "cert.pem") { // of a run that never began
			a = g.begin("", l, time.Time{})
			a.Doubtful = true
			a.reach(PhaseIssued)
			g.finish(a, Issued, l.at)
			d.told = true
		}
		return
	}
	switch {
	case cutText(text, "checking existence and expiration of ") != "":
		d.certificate(cutText(text, "checking existence and expiration of "))
		a.reach(PhaseCheck)
	case cutText(text, "skipping ") != "" && text == "skipping "+d.path && a.Phase.rank() <= PhaseOrder.rank():
		g.finish(a, Skipped, l.at)
		d.forget()
	case d.path != "" && text == d.path+" is valid": // "uacme check"
		g.finish(a, Skipped, l.at)
		d.forget()
	case text == "forcing reissue of "+d.path:
		a.Forced = true
	case cutText(text, "loading key from ") != "" && strings.HasSuffix(text, "/newkey.pem"), cutText(text, "key saved to ") != "" && strings.HasSuffix(text, "/newkey.pem"):
		d.rotates = true
	case cutText(text, "fetching directory at ") != "":
		a.ca(cutText(text, "fetching directory at "))
		d.step(PhaseDirectory)
	case cutText(text, "retrieving account at ") != "":
		d.step(PhaseDirectory)
	case cutText(text, "creating new order for ") != "": // 1.2
		name, _, _ := strings.Cut(cutText(text, "creating new order for "), " at ")
		a.name(name)
		d.step(PhaseOrder)
	case cutText(text, "creating new order at ") != "", cutText(text, "order location: ") != "", cutText(text, "order URL: ") != "":
		d.step(PhaseOrder)
	case cutText(text, "retrieving authorization at ") != "":
		d.tried = ""
		d.step(PhaseChallenge)
	case cutText(text, "running ") != "":
		d.hook(text)
	case cutText(text, "starting challenge at ") != "", cutText(text, "polling challenge status at ") != "":
		d.step(PhaseChallenge)
	case cutText(text, "finalizing order at ") != "", cutText(text, "retrieving certificate at ") != "":
		d.fetched = strings.HasPrefix(text, "retrieving certificate")
		d.step(PhaseFinalize)
	case cutText(text, "saving certificate to ") != "":
		if path := strings.TrimSuffix(cutText(text, "saving certificate to "), ".tmp"); d.path == "" {
			d.certificate(path)
		} else if path != d.path {
			a.Doubtful = true
			return
		}
		if a.Doubtful = a.Doubtful || !d.fetched || d.failed(); !d.failed() {
			a.reach(PhaseIssued)
		}
	case cutText(text, "renaming ") != "":
		d.renames(cutText(text, "renaming "))
	}
}

// cutText returns what follows prefix, "" without it.
func cutText(text, prefix string) string {
	rest, ok := strings.CutPrefix(text, prefix)
	if !ok {
		return ""
	}
	return rest
}

// step: the attempt goes on.
func (d *uacme) step(p Phase) {
	d.phase, d.curl = p, ""
	d.cur.reach(p)
}

// certificate notes where the certificate is kept: CONFDIR/NAME/cert.pem, or
// FILE-cert.pem beside the request FILE.csr.
func (d *uacme) certificate(path string) {
	if d.path != "" {
		return
	}
	d.path = path
	dir, file := path[:strings.LastIndexByte(path, '/')+1], path[strings.LastIndexByte(path, '/')+1:]
	if file != "cert.pem" {
		d.cur.lineage(strings.TrimSuffix(file, "-cert.pem"))
		return
	}
	dir = strings.TrimSuffix(dir, "/")
	name := dir[strings.LastIndexByte(dir, '/')+1:]
	d.cur.lineage(name)
	d.cur.name(name)
}

// hook reads "running HOOK begin http-01 NAME TOKEN KEYAUTH"; the hook's path may
// have spaces.
func (d *uacme) hook(text string) {
	f := strings.Fields(text)
	if len(f) < 7 {
		return
	}
	f = f[len(f)-5:]
	switch f[0] {
	case "begin":
		d.tried = f[2]
		d.cur.name(f[2])
		d.step(PhaseChallenge)
	case "failed":
		d.tried = f[2]
	}
}

// renames: the files are put in their places.
func (d *uacme) renames(text string) {
	a := d.cur
	from, to, ok := strings.Cut(text, " to ")
	switch {
	case !ok:
	case d.failed():
		a.Doubtful = true
	case from == to+".tmp" && (to == d.path || d.path == ""):
		a.Doubtful = a.Doubtful || a.Phase != PhaseIssued
		a.saved(to)
		a.settles = lateLines
	case from == to+".tmp":
		a.Doubtful = true
	case strings.HasSuffix(from, "/newkey.pem") && strings.HasSuffix(to, "/key.pem") && a.Phase.rank() >= PhaseSaved.rank():
		a.saved(to)
	}
}

// failed reports whether uacme has said why it fails, and not only that a request
// has to be tried again.
func (d *uacme) failed() bool {
	return d.final || d.cur.ProblemDetail != "" && d.cur.ProblemType != Network
}

// leave ends the attempt that goes on, at the latest when the next begins.
func (d *uacme) leave(at time.Time, g *ledger) {
	if d.reading {
		d.reported()
	}
	if a := d.cur; a != nil && slices.Contains(g.open, a) {
		g.close(a, at)
	}
	d.forget()
}

func (d *uacme) exit(e Exit, g *ledger) {
	if d.reading {
		d.reported()
	}
	a := d.cur
	if a != nil && !slices.Contains(g.open, a) {
		a = nil
	}
	told, final := d.told, d.final
	*d = uacme{}
	switch {
	case a == nil && !told:
		d.silent(e, g)
	case a == nil:
	case e.Code < 0:
		g.close(a, e.At)
	case len(a.Saved) > 0:
		if e.Code == 0 {
			a.reach(PhaseDone)
		} else { // the key could not be put beside it
			a.hookFailed("install", e.Code)
			a.reach(PhaseHook)
		}
		g.finish(a, Issued, e.At)
	case e.Code == 0 && a.ProblemDetail == "" && a.ProblemType == "":
		a.reach(PhaseIssued)
		a.Doubtful = true
		g.finish(a, Issued, e.At)
	case e.Code == 1 && a.ProblemDetail == "" && a.ProblemType == "":
		g.finish(a, Skipped, e.At)
	case e.Code == 0 && !final: // what went wrong was got over
		a.ProblemType, a.ProblemDetail, a.Problems = "", "", nil
		a.reach(PhaseIssued)
		a.Doubtful = true
		g.finish(a, Issued, e.At)
	default:
		g.finish(a, Failed, e.At)
	}
}

// silent tells of a process that said nothing. A unit that counts 1 as success, as
// is usual for a timer, ends like one that has issued: that is only a guess.
func (d *uacme) silent(e Exit, g *ledger) {
	if e.Code < 0 {
		return
	}
	a := g.begin("", &line{at: e.At}, e.At)
	switch e.Code {
	case 0:
		a.Doubtful = true
		a.reach(PhaseIssued)
		g.finish(a, Issued, e.At)
	case 1:
		g.finish(a, Skipped, e.At)
	default:
		g.finish(a, Failed, e.At)
	}
}

func (d *uacme) end(g *ledger) {
	if d.reading {
		d.reported()
	}
	if a := d.cur; a != nil && slices.Contains(g.open, a) && (len(a.Saved) > 0 || a.Phase.rank() >= PhaseIssued.rank() || a.ProblemDetail != "" || a.ProblemType != "") {
		g.close(a, time.Time{})
		d.forget()
	}
}
