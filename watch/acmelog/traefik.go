package acmelog

import (
	"bytes"
	"slices"
	"strings"
	"time"
)

// traefikSaves is how long after a certificate came Traefik may take to say that it
// could not store it.
const traefikSaves = 5 * time.Second

// traefik reads Traefik's own log: version 2 through logrus, version 3 through
// zerolog, each as text, with and without colours, or as JSON. What it says depends
// on the level: at ERROR, the default, only failures; never that a renewal went
// well. Below that, it passes on what lego says, which it embeds: up to 2.11.50,
// 3.6.21 and 3.7.5 version 4, all at DEBUG, then version 5 at its own levels.
type traefik struct {
	fields fieldList
}

// traefikLine is a line without its time and level. Where behind is true, the fields
// stand behind the message, and where the one ends and the others begin nobody says.
type traefikLine struct {
	at      time.Time
	level   byte // D, I, W, E
	message []byte
	behind  bool
}

func signTraefik(text []byte) int {
	if !traefikMatters(text) {
		return 0
	}
	var d traefik
	t, ok := d.take(text, time.UTC)
	if !ok {
		return 0
	}
	if l := d.lego(&t); l.what != legoNothing && l.what != legoTrouble {
		return sure
	}
	if what, _ := traefikMessage(t.message); what != traefikNothing {
		return sure
	}
	if bytes.Contains(text, []byte(`providerName`)) && bytes.Contains(text, []byte(`.acme`)) {
		return 2
	}
	return 0
}

// traefikMatters is the cheap look at a line: those that matter name a resolver,
// whose name ends in .acme, or lego; Traefik 1 has no resolvers.
func traefikMatters(b []byte) bool {
	return bytes.Contains(b, []byte(".acme")) || bytes.Contains(b, []byte("lego")) || bytes.Contains(b, []byte(" obtain ACME certificate"))
}

// traefikWhat is what a message of Traefik itself says.
type traefikWhat int

const (
	traefikNothing traefikWhat = iota
	traefikLoads
	traefikRenews
	traefikObtained
	traefikUnable   // domains in fields, or quoted
	traefikNotRenew // domains as Go prints them
	traefikNoValue
	traefikUnsaved
)

var traefikMessages = []struct {
	text string
	what traefikWhat
}{
	{"Unable to obtain ACME certificate for domain", traefikUnable},
	{"Error renewing ACME certificate: ", traefikNotRenew},
	{"Error renewing certificate from LE : ", traefikNotRenew},
	{"Error renewing certificate from LE: ", traefikNotRenew},
	{"Renewing ACME certificate: ", traefikRenews},
	{"Renewing certificate from LE : ", traefikRenews},
	{"Loading ACME certificates ", traefikLoads},
	{"Certificates obtained for domains ", traefikObtained},
	{"Default certificate obtained for domains ", traefikObtained},
	{"Error adding certificate for domain", traefikUnsaved},
	{"domains [", traefikNoValue},
}

// traefikMessage finds what a message says, and the names that it spells out.
func traefikMessage(message []byte) (what traefikWhat, rest []byte) {
	for _, m := range traefikMessages {
		if rest, ok := bytes.CutPrefix(message, []byte(m.text)); ok {
			if m.what == traefikNoValue && !bytes.Contains(rest, []byte("] renew certificate with no value")) {
				continue
			}
			return m.what, rest
		}
	}
	return traefikNothing, nil
}

func (d *traefik) line(l *line, g *ledger) {
	if !traefikMatters(l.text) {
		return
	}
	t, ok := d.take(l.text, g.zone)
	if !ok {
		return
	}
	if t.at.IsZero() {
		t.at = l.at
	}
	if what, rest := traefikMessage(t.message); what != traefikNothing {
		d.tell(what, rest, &t, l, g)
		return
	}
	if w := d.lego(&t); w.what != legoNothing {
		d.embedded(w, t.at, l, g)
	}
}

// take takes a line apart.
func (d *traefik) take(b []byte, zone *time.Location) (t traefikLine, ok bool) {
	d.fields.reset()
	switch {
	case len(b) < 20:
		return t, false
	case b[0] == '{':
		if !traefikSays(b, `"message":"`, `"msg":"`, `"lib":"lego"`) {
			return t, false
		}
		d.fields.json(b)
	case bytes.HasPrefix(b, []byte("time=")):
		if !traefikSays(b, ` msg="`, "", " lib=lego") {
			return t, false
		}
		d.fields.logfmt(b)
	default:
		return traefikConsole(b)
	}
	m, ok := d.fields.find("message")
	if !ok {
		m, ok = d.fields.find("msg")
	}
	level := d.fields.text("level")
	if !ok || level == "" || level[0] < 'a' { // that of Go's slog are upper case
		return t, false
	}
	t.message, t.level = []byte(m.text()), level[0]-'a'+'A'
	t.at = stamp(d.fields.text("time"), zone)
	return t, true
}

// traefikSays reports whether what follows one of two keys, or that there is a mark of
// lego, makes it worth taking a line apart: visitors can put the words that
// traefikMatters looks for into an access log.
func traefikSays(b []byte, key, other, lego string) bool {
	i := bytes.Index(b, []byte(key))
	if i < 0 && other != "" {
		i, key = bytes.Index(b, []byte(other)), other
	}
	if i < 0 {
		return false
	}
	message := b[i+len(key):]
	if bytes.HasPrefix(message, []byte("legolog: ")) {
		return true
	}
	what, _ := traefikMessage(message)
	return what != traefikNothing || bytes.Contains(b, []byte(lego))
}

// traefikConsole takes apart "2006-01-02T15:04:05Z ERR file.go:12 > message key=value",
// and what logrus prints on a terminal, "ERRO[2006-01-02T15:04:05Z] message key=value".
func traefikConsole(b []byte) (t traefikLine, ok bool) {
	t.behind = true
	if b[4] == '[' && b[0] >= 'A' && b[0] <= 'Z' {
		stamped, rest, ok := bytes.Cut(b[5:], []byte("] "))
		if !ok || len(stamped) > 40 {
			return t, false
		}
		at, err := time.Parse(time.RFC3339, string(stamped))
		t.at, t.level, t.message = at.UTC(), b[0], rest
		return t, err == nil
	}
	if b[4] != '-' || b[10] != 'T' {
		return t, false
	}
	i := bytes.IndexByte(b[:min(len(b), 40)], ' ')
	if i < 0 || len(b) < i+6 || b[i+4] != ' ' {
		return t, false
	}
	switch string(b[i+1 : i+4]) {
	case "DBG", "INF", "WRN", "ERR", "TRC", "FTL":
	default:
		return t, false
	}
	at, err := time.Parse(time.RFC3339Nano, string(b[:i]))
	t.at, t.level, t.message = at.UTC(), b[i+1], b[i+5:]
	if caller, rest, ok := bytes.Cut(t.message[:min(len(t.message), 300)], []byte(" > ")); ok && bytes.IndexByte(caller, ' ') < 0 && bytes.Contains(caller, []byte(".go:")) {
		t.message = t.message[len(t.message[:min(len(t.message), 300)])-len(rest):]
	}
	return t, err == nil
}

// lego reads a line of the embedded lego.
func (d *traefik) lego(t *traefikLine) legoLine {
	if rest, ok := bytes.CutPrefix(t.message, []byte("legolog: ")); ok { // Traefik 2
		if t.behind {
			rest = bytes.TrimRight(rest, " ")
		}
		return legoV4(string(rest))
	}
	if t.behind {
		if !bytes.Contains(t.message, []byte("lib=lego")) {
			return legoLine{}
		}
	} else if !d.fields.has("lib", "lego") {
		return legoLine{}
	}
	if bytes.HasPrefix(t.message, []byte("[INFO] ")) || bytes.HasPrefix(t.message, []byte("[WARN] ")) {
		return legoV4(string(bytes.TrimSuffix(t.message, []byte(" lib=lego"))))
	}
	return legoV5(t.message, t.level, &d.fields, t.behind)
}

// embedded reads what lego says. It does not say it all: why it failed, Traefik does.
func (d *traefik) embedded(w legoLine, at time.Time, l *line, g *ledger) {
	var a *attempt
	for _, n := range w.names {
		if a = traefikFind(n, g); a != nil {
			break
		}
	}
	switch w.what {
	case legoTry:
		if w.name != "" && a == nil {
			a = traefikFind(w.name, g)
		}
	case legoObtain:
		if a == nil || a.Phase.rank() > PhaseStart.rank() || a.settles > 0 {
			a = traefikBegin(w.names, l, at, g)
		}
		a.name(w.names...)
		a.reach(PhaseOrder)
	case legoChallenge, legoValid:
		if a != nil {
			a.reach(PhaseChallenge)
		}
	case legoFinalize:
		if a != nil {
			a.reach(PhaseFinalize)
		}
	case legoIssued:
		if len(w.names) == 0 {
			return
		}
		if a == nil {
			a = traefikBegin(w.names, l, at, g)
		}
		if a.Phase != PhaseFinalize {
			a.Doubtful = true
		}
		a.reach(PhaseIssued)
		a.settles = traefikSaves
	}
	if a != nil {
		a.hear(at)
	}
}

// traefikFind returns the open attempt for a name.
func traefikFind(name string, g *ledger) *attempt {
	name = cleanName(name)
	if name == "" {
		return nil
	}
	if a := g.find(name); a != nil {
		return a
	}
	for i := len(g.open) - 1; i >= 0; i-- {
		if slices.Contains(g.open[i].Names, name) {
			return g.open[i]
		}
	}
	return nil
}

// traefikBegin opens an attempt for a certificate, whose first name stands for it.
func traefikBegin(names []string, l *line, at time.Time, g *ledger) *attempt {
	key := ""
	if len(names) > 0 {
		key = cleanName(names[0])
	}
	if a := g.find(key); a != nil {
		g.close(a, time.Time{})
	}
	a := g.begin(key, l, at)
	a.name(names...)
	if len(a.Names) > 0 {
		a.lineage(a.Names[0])
	}
	return a
}

// tell reads a message of Traefik itself.
func (d *traefik) tell(what traefikWhat, rest []byte, t *traefikLine, l *line, g *ledger) {
	text := ""
	if what == traefikUnable && bytes.HasPrefix(rest, []byte(`s "`)) { // version 2 may say it in one sentence
		if _, text, _ = strings.Cut(string(rest), `": `); text == "" { // version 1
			_, text, _ = strings.Cut(string(rest), `" : `)
		}
		if t.behind {
			text, _, _ = strings.Cut(text, " providerName=")
		}
	}
	names, rest := traefikNames(what, rest)
	if t.behind {
		d.fields.reset()
		d.fields.logfmt(rest)
	}
	if list := d.fields.names("domains"); len(list) > 0 {
		names = list
	}
	if text == "" {
		text = d.fields.text("error")
	}
	var a *attempt
	if len(names) > 0 {
		a = traefikFind(names[0], g)
	}
	switch what {
	case traefikLoads, traefikRenews:
		if len(names) == 0 {
			return
		}
		a = traefikBegin(names, l, t.at, g)
		d.ca(a)
	case traefikObtained:
		if a != nil { // else lego has told it
			d.ca(a)
			a.reach(PhaseIssued)
			g.finish(a, Issued, t.at)
		}
	case traefikUnable, traefikNotRenew, traefikNoValue:
		if t.level != 'E' && text == "" {
			return
		}
		if a == nil {
			a = traefikBegin(names, l, t.at, g)
		}
		a.name(names...)
		a.hear(t.at)
		d.ca(a)
		if what == traefikNoValue {
			a.fault(PhaseFinalize, "", "renew certificate with no value")
		} else {
			legoFailure(a, text)
		}
		g.finish(a, Failed, t.at)
	case traefikUnsaved:
		if a == nil {
			if a = g.last(); a == nil || a.settles == 0 {
				a = traefikBegin(names, l, t.at, g)
			}
		}
		d.ca(a)
		a.fault(PhaseSaved, "", text)
		g.finish(a, Failed, t.at)
	}
}

// ca notes the CA; version 2 does not name it.
func (d *traefik) ca(a *attempt) {
	for _, key := range []string{"acmeCA", "ACME CA", "CA"} {
		if url := d.fields.text(key); url != "" {
			a.ca(url)
			return
		}
	}
}

// traefikNames reads the names in a message: "a,b" in quotes, [a b], {a [b]} or
// {Main:a SANs:[b]}; and what follows them.
func traefikNames(what traefikWhat, b []byte) (names []string, rest []byte) {
	b = bytes.TrimLeft(bytes.TrimPrefix(b, []byte("s")), " ")
	if len(b) == 0 {
		return nil, nil
	}
	var end int
	switch b[0] {
	case '"':
		raw, rest, ok := quoted(b[1:])
		if !ok {
			return nil, nil
		}
		return splitNames(string(raw)), rest
	case '{':
		end = bytes.IndexByte(b, '}')
	case '[':
		end = bytes.IndexByte(b, ']')
	default:
		if what == traefikNoValue {
			end = bytes.IndexByte(b, ']')
			break
		}
		return nil, b
	}
	if end < 0 {
		return nil, nil
	}
	list := strings.NewReplacer("Main:", " ", "SANs:", " ", "[", " ", "{", " ", ",", " ", `"`, " ").Replace(string(b[:end]))
	rest = b[end+1:]
	return strings.Fields(strings.ReplaceAll(list, "]", " ")), rest
}

func (d *traefik) exit(Exit, *ledger) {}

func (d *traefik) end(g *ledger) {
	for _, a := range slices.Clone(g.open) {
		if a.Phase.rank() >= PhaseIssued.rank() {
			g.close(a, time.Time{})
		}
	}
}
