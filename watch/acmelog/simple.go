package acmelog

import (
	"bytes"
	"slices"
	"strings"
	"time"
)

// simpLE reads what simp_le writes to standard error: records with times in UTC,
// and for every failure a sentence, maybe behind a traceback, with a hint after it.
// Names are told with -v only. It ends with 0, 1 when nothing is due, or 2.
type simpLE struct {
	a       *attempt
	text    []byte // what stands between records: the sentence
	trace   bool
	raised  string // what the traceback ends with
	failed  bool   // the hint was seen
	invalid bool   // the CA refused a name
	timeout string
}

const simpLEHint = "Debugging tips: -v improves output verbosity."

// simpLERecord splits a record: "2026-11-22 07:46:17,123:INFO:simp_le:398: message".
func simpLERecord(b []byte) (at time.Time, logger, message string, ok bool) {
	if len(b) < 30 || b[4] != '-' || b[10] != ' ' || b[19] != ',' || b[23] != ':' {
		return time.Time{}, "", "", false
	}
	_, rest, ok := bytes.Cut(b[24:], []byte{':'}) // the level
	name, rest, ok2 := bytes.Cut(rest, []byte{':'})
	number, text, ok3 := bytes.Cut(rest, []byte(": "))
	if !ok || !ok2 || !ok3 || len(name) > 64 || len(number) > 6 || len(number) == 0 || number[0] < '0' || number[0] > '9' {
		return time.Time{}, "", "", false
	}
	if string(name) == "simp_le" || string(name) == "__main__" || bytes.HasPrefix(text, []byte("Sending GET request to ")) {
		var err error
		if at, err = time.Parse("2006-01-02 15:04:05.000", string(b[:19])+"."+string(b[20:23])); err != nil {
			return time.Time{}, "", "", false
		}
		return at, string(name), string(text), true
	}
	return time.Time{}, string(name), "", true
}

func signSimpLE(text []byte) int {
	if _, logger, _, ok := simpLERecord(text); ok && logger == "simp_le" {
		return 3
	}
	if bytes.HasPrefix(text, []byte(simpLEHint)) {
		return 3
	}
	return 0
}

func (d *simpLE) line(l *line, g *ledger) {
	if d.a != nil && !slices.Contains(g.open, d.a) {
		*d = simpLE{}
	}
	at, logger, message, ok := simpLERecord(l.text)
	if !ok {
		d.between(l, g)
		return
	}
	d.trace, d.raised, d.text = false, "", nil
	switch logger {
	case "simp_le", "__main__":
		d.record(message, at, l, g)
	case "acme.client":
		if url := cutText(message, "Sending GET request to "); url != "" && d.a != nil && d.a.CA == "" {
			d.a.ca(strings.TrimSuffix(url, "."))
			d.a.reach(PhaseDirectory)
		}
	}
}

// record reads one of simp_le's own records.
func (d *simpLE) record(text string, at time.Time, l *line, g *ledger) {
	begin := func() {
		if d.a == nil || d.failed {
			if d.a != nil {
				g.close(d.a, at)
			}
			*d = simpLE{a: g.begin("", l, at)}
		}
	}
	if d.a != nil {
		d.a.hear(at)
	}
	switch {
	case strings.HasPrefix(text, "Certificates already exist and renewal is not necessary"):
		begin()
		g.finish(d.a, Skipped, at)
		*d = simpLE{}
	case strings.HasPrefix(text, "Existing SANs: "):
		begin()
		if _, names, ok := strings.Cut(text, ", new: ["); ok {
			for n := range strings.SplitSeq(strings.TrimSuffix(names, "]"), ", ") {
				d.a.name(strings.TrimPrefix(strings.TrimPrefix(n, "u"), "b"))
			}
		}
	case strings.HasPrefix(text, "Generating new account key"):
		d.fresh(at, l, g)
		d.a.reach(PhaseDirectory)
	case strings.HasPrefix(text, "Generating new certificate private key"), strings.HasPrefix(text, "Reusing existing certificate private key"):
		if d.a != nil && d.a.Phase.rank() >= PhaseOrder.rank() {
			d.fresh(at, l, g)
		}
		begin()
		d.a.reach(PhaseOrder)
	case strings.HasPrefix(text, "Saving validation "):
		begin()
		d.a.reach(PhaseChallenge)
	case strings.HasPrefix(text, "CA marked some of the authorizations as invalid"):
		begin()
		d.invalid = true
	case strings.HasPrefix(text, "Timed out while waiting for CA to verify"):
		begin()
		d.invalid, d.timeout = true, text
	case strings.HasPrefix(text, "Saving "):
		d.saves(text[len("Saving "):], at, l, g)
	}
}

// fresh begins another attempt.
func (d *simpLE) fresh(at time.Time, l *line, g *ledger) {
	if d.a != nil {
		if d.a.Phase.rank() <= PhaseStart.rank() {
			return
		}
		g.close(d.a, at)
	}
	*d = simpLE{a: g.begin("", l, at)}
}

// saves reads that a file is written: after a failure that is the account.
func (d *simpLE) saves(path string, at time.Time, l *line, g *ledger) {
	file := path[strings.LastIndexByte(path, '/')+1:]
	if strings.HasPrefix(file, "account_") {
		return
	}
	if d.a == nil {
		d.a = g.begin("", l, at)
		d.a.Doubtful = true
	}
	if d.invalid || d.failed {
		d.a.Doubtful = true
		return
	}
	d.a.reach(PhaseIssued)
	d.a.saved(path)
	d.a.settles = lateLines
}

// between reads what is no record.
func (d *simpLE) between(l *line, g *ledger) {
	switch {
	case len(bytes.TrimSpace(l.text)) == 0:
	case bytes.HasPrefix(l.text, []byte("Traceback (most recent call last):")):
		d.trace, d.text = true, nil
	case bytes.HasPrefix(l.text, []byte(simpLEHint)):
		d.fails(l, g)
	case bytes.HasPrefix(l.text, []byte("Unhandled error has happened")):
	case d.trace:
		if l.text[0] != ' ' {
			d.raised = string(l.text[:min(len(l.text), maxAnswer)])
		}
	case len(d.text) < maxAnswer:
		d.text = append(append(d.text, l.text[:min(len(l.text), maxAnswer)]...), ' ')
	}
}

// fails: the hint says that the run has failed.
func (d *simpLE) fails(l *line, g *ledger) {
	if d.a == nil {
		d.a = g.begin("", l, time.Time{})
	}
	a := d.a
	a.hear(l.at)
	text := strings.TrimSpace(string(d.text))
	if d.raised != "" {
		text = d.raised
	}
	d.failed, d.trace, d.raised, d.text = true, false, "", nil
	if len(a.Saved) > 0 {
		if path := cutText(text, "Error when saving "); path != "" {
			a.Saved = slices.DeleteFunc(a.Saved, func(p string) bool { return p == clean(path) })
		}
		a.hookFailed("install", -1)
		a.reach(PhaseHook)
		g.finish(a, Issued, a.heard)
		return
	}
	phase := a.Phase
	switch {
	case d.invalid:
		phase = PhaseChallenge
		if d.timeout != "" {
			text = d.timeout
		}
	case strings.HasPrefix(text, "You must set"), strings.HasPrefix(text, "Selected IO plugins"), strings.HasPrefix(text, "Root for the following"):
		phase = PhaseClient
	case phase == PhaseStart && isNetwork(text):
		phase = PhaseDirectory
	}
	rest, ok := strings.CutPrefix(text, "ACME server returned an error: ")
	if parts := strings.SplitN(rest, " :: ", 3); ok && len(parts) > 1 {
		f := findProblem(parts[0])
		a.blame(phase, answer{kind: f.kind, detail: parts[len(parts)-1]}, text)
	} else {
		a.problem(phase, text)
	}
	g.finish(a, Failed, a.heard)
}

func (d *simpLE) exit(e Exit, g *ledger) {
	if a := d.a; a != nil && slices.Contains(g.open, a) {
		switch {
		case len(a.Saved) > 0 && e.Code == 0:
			a.reach(PhaseDone)
		case len(a.Saved) == 0 && e.Code == 1 && !d.invalid:
			g.finish(a, Skipped, e.At)
		case e.Code == 2 && len(a.Saved) == 0:
			g.finish(a, Failed, e.At)
		}
	}
	g.exited(e)
	*d = simpLE{}
}

func (d *simpLE) end(g *ledger) {
	if a := d.a; a != nil && slices.Contains(g.open, a) && len(a.Saved) > 0 {
		g.close(a, time.Time{})
		*d = simpLE{}
	}
}
