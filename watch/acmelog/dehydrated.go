package acmelog

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
	"time"
)

// dehydrated reads what dehydrated prints, without times: its progress on standard
// output, its errors on standard error, which may be missing, late, or come as a
// whole before the other. It never says that all went well: "Done!" is printed
// first for the certificate that the CA gave, and then for the files.
type dehydrated struct {
	began bool   // a run's first line was seen
	cur   *dhRun // the certificate that goes on
	runs  []*dhRun
	early []*dhRun // failures told before any run began: whose they are comes later, if at all
	block dhBlock
}

// dhRun is the attempt of one certificate.
type dhRun struct {
	a       *attempt
	open    bool // with the ledger; one that is not waits for what it will be
	first   line
	dir     string
	pending string // the name that is proved
	stage   dhStage
	changed bool // other names than those of the present certificate
	failed  bool
	done    bool
}

// dhStage is how far a certificate came.
type dhStage int

const (
	dhBegins dhStage = iota
	dhRequests
	dhChecks
	dhIssued
	dhWrites
	dhWritten
)

// dhBlock is an error that goes on over the next lines.
type dhBlock struct {
	run    *dhRun
	result bool // a challenge, as JSON.sh prints it; else a response
	body   bool // of the response
	status int
	text   string // what dehydrated says
	lines  []byte
	date   time.Time
	again  string
	kind   string // of a challenge's problem
	detail string
}

func signDehydrated(text []byte) int {
	switch text[0] {
	case '#':
		if bytes.HasPrefix(text, []byte("# INFO: Using main config file ")) {
			return 3
		}
	case ' ':
		for _, s := range []string{" + Checking domain name(s) of existing cert...", " + Requesting new certificate order from CA...", "  + ERROR: An error occurred while sending ",
			" + Checking expire date of existing cert...", " + Creating fullchain.pem...", " + Challenge validation has failed :(", " ! Request failed (badNonce)"} {
			if bytes.HasPrefix(text, []byte(s)) {
				return 3
			}
		}
		for _, s := range []string{" + Signing domains...", " + Requesting certificate...", " + Deploying challenge tokens...", " + Cleaning challenge tokens...", " + Valid till "} {
			if bytes.HasPrefix(text, []byte(s)) {
				return 2
			}
		}
	case 'P':
		if bytes.HasPrefix(text, []byte("Processing ")) {
			return 1
		}
	case 'E':
		for _, s := range []string{"ERROR: Challenge is invalid! (returned: ", "ERROR: Problem connecting to server (", "ERROR: Lock file '"} {
			if bytes.HasPrefix(text, []byte(s)) {
				return 3
			}
		}
		if bytes.HasPrefix(text, []byte("ERROR: ")) && bytes.HasSuffix(text, []byte("hook returned with non-zero exit code")) {
			return 3
		}
	}
	return 0
}

func (d *dehydrated) line(l *line, g *ledger) {
	if len(l.text) == 0 {
		return
	}
	if d.block.run != nil && d.more(l, g) {
		return
	}
	switch l.text[0] {
	case '#':
		if bytes.HasPrefix(l.text, []byte("# INFO: Using main config file ")) || bytes.HasPrefix(l.text, []byte("# !! WARNING !! No main config file found")) {
			d.conclude(g)
			d.begins(l.at, g)
		}
	case 'P':
		if rest, ok := bytes.CutPrefix(l.text, []byte("Processing ")); ok {
			d.conclude(g)
			d.processing(string(rest), l, g)
		}
	case ' ':
		if bytes.HasPrefix(l.text, []byte("  + ERROR: ")) {
			d.conclude(g)
			d.fails(string(l.text[len("  + ERROR: "):]), l, g)
		} else if r := d.cur; r != nil && bytes.HasPrefix(l.text, []byte(" + ")) {
			r.a.hear(l.at)
			d.progress(r, string(l.text[3:]), l, g)
		}
	case 'E':
		if rest, ok := bytes.CutPrefix(l.text, []byte("ERROR: ")); ok {
			d.conclude(g)
			d.fails(string(rest), l, g)
		} else if bytes.HasPrefix(l.text, []byte("Error registering account key.")) {
			d.conclude(g)
			d.fails(string(l.text), l, g)
		}
	case 'e':
		if bytes.HasPrefix(l.text, []byte("exit_hook returned with non-zero exit code")) {
			d.conclude(g)
			if r := d.target(); r != nil {
				r.a.hookFailed("post", -1)
				if r.stage == dhWritten {
					r.a.reach(PhaseHook)
				}
				d.tell(r, g)
			}
		}
	}
}

// begins: a run begins; what goes on was killed.
func (d *dehydrated) begins(at time.Time, g *ledger) {
	early := d.early
	if d.began {
		early = nil
	}
	if d.cur != nil {
		d.resolve(d.cur, false, at, g)
	}
	*d = dehydrated{began: true, early: early}
}

// processing: the turn of the next certificate.
func (d *dehydrated) processing(text string, l *line, g *ledger) {
	first, others, _ := strings.Cut(text, " with alternative names: ")
	if strings.ContainsAny(first, " \t") || cleanName(strings.TrimPrefix(first, "ip:")) == "" {
		return
	}
	if d.cur != nil {
		d.resolve(d.cur, true, l.at, g)
	}
	r := d.open(l, g, len(d.early) == 0)
	r.a.lineage(first)
	r.names(append([]string{first}, strings.Fields(others)...))
	d.cur = r
}

// names sets the names that are asked for.
func (r *dhRun) names(names []string) {
	r.a.Names, r.a.NamesOmitted = nil, 0
	for _, n := range names {
		r.a.name(strings.TrimPrefix(n, "ip:"))
	}
}

// open begins an attempt; one that is not to be told yet is kept aside.
func (d *dehydrated) open(l *line, g *ledger, told bool) *dhRun {
	r := &dhRun{open: told, first: *l}
	r.first.text = nil
	if told {
		r.a = g.begin("", l, time.Time{})
	} else {
		r.a = &attempt{Attempt: Attempt{Started: l.at, Outcome: Running, Phase: PhaseStart}, heard: l.at}
	}
	if len(d.runs) == maxRuns {
		d.runs = slices.Delete(d.runs, 0, 1)
	}
	d.runs = append(d.runs, r)
	return r
}

// progress reads a line of a certificate's turn.
func (d *dehydrated) progress(r *dhRun, text string, l *line, g *ledger) {
	at := func(s dhStage, p Phase) {
		if r.stage >= dhIssued && s <= r.stage { // somebody had told more than there was
			r.a.Doubtful, r.a.Saved, r.a.Phase = true, nil, PhaseStart
		}
		r.stage = s
		r.a.reach(p)
		if r.open {
			r.a.settles = 0
		}
	}
	switch {
	case text == "Done!":
		switch {
		case r.failed:
			r.a.Doubtful = true
		case r.stage == dhChecks:
			at(dhIssued, PhaseIssued)
		case r.stage == dhWrites:
			r.stage = dhWritten
			r.written()
			r.a.settles = lateLines
		}
	case strings.HasPrefix(text, "Creating fullchain.pem"):
		if r.stage == dhIssued {
			r.stage = dhWrites
		}
	case strings.HasPrefix(text, "Checking certificate"):
		if r.stage == dhRequests {
			r.stage = dhChecks
		}
	case strings.HasPrefix(text, "Requesting certificate"):
		at(dhRequests, PhaseFinalize)
	case strings.HasPrefix(text, "Responding to challenge for "):
		name, _, _ := strings.Cut(text[len("Responding to challenge for "):], " ")
		r.pending = strings.TrimSuffix(name, "...")
		at(dhBegins, PhaseChallenge)
	case strings.HasPrefix(text, "Deploying challenge tokens"):
		at(dhBegins, PhaseChallenge)
	case strings.HasPrefix(text, "Challenge validation has failed"):
		r.failed = true
		r.a.reach(PhaseChallenge)
	case strings.HasPrefix(text, "Requesting new certificate order from CA"), strings.HasPrefix(text, "Requesting authorization for "), strings.HasPrefix(text, "Requesting challenge for "):
		at(dhBegins, PhaseOrder)
	case strings.HasPrefix(text, "Valid till "):
		d.validity(r, text, l, g)
	case strings.HasPrefix(text, "Domain name(s) are not matching!"), strings.HasPrefix(text, "Forcing renew."):
		r.changed = true
	case strings.HasPrefix(text, "Creating new directory "):
		if dir := strings.TrimSuffix(text[len("Creating new directory "):], " ..."); r.dir == "" && strings.HasPrefix(dir, "/") {
			r.dir = strings.TrimRight(dir, "/")
			r.a.lineage(r.dir[strings.LastIndexByte(r.dir, '/')+1:])
		}
	case strings.HasPrefix(text, "Using CSR from hook script (real names: "):
		r.names(strings.Fields(strings.TrimSuffix(text[len("Using CSR from hook script (real names: "):], ")")))
	case strings.HasPrefix(text, "Running automatic cleanup"):
		d.resolve(r, true, l.at, g)
		d.cur = nil
	}
}

// lateLines is how long lines of an attempt may come after its end.
const lateLines = time.Minute

// written: the files are in their places.
func (r *dhRun) written() {
	r.a.reach(PhaseSaved)
	if r.dir == "" {
		return
	}
	for _, name := range []string{"privkey.pem", "cert.pem", "chain.pem", "fullchain.pem"} {
		r.a.saved(r.dir + "/" + name)
	}
}

// validity reads whether the present certificate is due.
func (d *dehydrated) validity(r *dhRun, text string, l *line, g *ledger) {
	switch {
	case strings.HasSuffix(text, "Ignoring because renew was forced!"):
		r.a.Forced = !r.changed
	case strings.HasSuffix(text, "Skipping renew!") && r.stage == dhBegins && !r.failed:
		d.settle(r, g)
		r.done = true
		g.finish(r.a, Skipped, l.at)
		d.cur = nil
	}
}

// settle gives a certificate that was kept aside its attempt.
func (d *dehydrated) settle(r *dhRun, g *ledger) {
	if r.open {
		return
	}
	aside := r.a
	r.a = g.begin("", &r.first, time.Time{})
	serial, offset := r.a.serial, r.a.Offset
	client, log := r.a.Client, r.a.Log
	r.a.Attempt, r.a.heard = aside.Attempt, aside.heard
	r.a.serial, r.a.Offset, r.a.Client, r.a.Log = serial, offset, client, log
	r.open = true
}

// resolve ends a certificate's turn; whole tells whether dehydrated went on, or
// ended as it should.
func (d *dehydrated) resolve(r *dhRun, whole bool, at time.Time, g *ledger) {
	if d.cur == r {
		d.cur = nil
	}
	if r.done {
		return
	}
	r.done = true
	if !r.open && r.stage < dhWritten && r.a.ProblemDetail == "" && len(d.early) > 0 { // its error came before
		e := d.early[0]
		d.early = d.early[1:]
		e.adopt(r, g)
		return
	}
	d.settle(r, g)
	a := r.a
	if !slices.Contains(g.open, a) { // its time was over
		return
	}
	switch {
	case r.issued():
		if a.Hook != nil {
			a.reach(PhaseHook)
		} else if whole && r.stage == dhWritten {
			a.reach(PhaseDone)
		}
		g.finish(a, Issued, at)
	case r.failed || whole:
		g.finish(a, Failed, at)
	default:
		g.close(a, at)
	}
}

// issued reports whether there is a new certificate: with the hooks that run when
// it is written.
func (r *dhRun) issued() bool { return r.stage >= dhIssued && !r.failed }

// adopt: the failure that was told of nobody is that of r.
func (e *dhRun) adopt(r *dhRun, g *ledger) {
	a := e.a
	a.Lineage, a.Names, a.Forced, a.Saved = r.a.Lineage, r.a.Names, r.a.Forced, r.a.Saved
	if a.Phase.rank() < r.a.Phase.rank() {
		a.Phase = r.a.Phase
	}
	if r.pending != "" && a.ProblemType != "" && a.Phase == PhaseChallenge {
		a.refused(r.pending, a.ProblemType, a.ProblemDetail)
	}
	if a.Hook != nil && r.stage >= dhIssued {
		a.Doubtful = false
	}
	a.Doubtful = a.Doubtful || r.a.Doubtful
	g.amend(a)
}

func (d *dehydrated) exit(e Exit, g *ledger) {
	d.conclude(g)
	if r := d.cur; r != nil {
		r.failed = r.failed || e.Code > 0 && r.stage < dhIssued
		d.resolve(r, e.Code == 0 && r.stage == dhWritten, e.At, g)
	}
	g.exited(e)
	*d = dehydrated{}
}

func (d *dehydrated) end(g *ledger) {
	d.conclude(g)
	if r := d.cur; r != nil && (!r.open || r.failed || r.stage >= dhIssued) {
		d.resolve(r, false, time.Time{}, g)
	}
}

// tell tells an attempt once more that had ended.
func (d *dehydrated) tell(r *dhRun, g *ledger) {
	if r.open && !slices.Contains(g.open, r.a) {
		if r.a.Outcome == Stalled {
			r.a.Outcome = Failed
		}
		g.amend(r.a)
	}
}

// responseStatus finds "(Status 429)" at the end.
func responseStatus(text string) int {
	i := strings.LastIndex(text, " (Status ")
	if i < 0 || !strings.HasSuffix(text, ")") {
		return 0
	}
	n, _ := strconv.Atoi(text[i+len(" (Status ") : len(text)-1])
	return n
}
