package watchdog

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/renewatch/renewatch/internal/ari"
	"github.com/renewatch/renewatch/notify"
	"github.com/renewatch/renewatch/notify/schematest"
	"github.com/renewatch/renewatch/verify"
)

var update = flag.Bool("update", false, "rewrite the expected output of testdata/step/*.txt")

// TestScripts runs testdata/step/*.txt: each is one behaviour, told by its first
// line. A line that is not indented is a command, the indented lines below it are
// what Step answered, with the time since the start of the script.
//
//	policy KEY=VALUE ...       changes the policy
//	leaf NAME KEY=VALUE ...    a certificate: from= (notBefore, relative), life=, names=, key=
//	seen LEAF KEY=VALUE ...    sound files: chain=incomplete|untrusted, pair=unknown
//	fault CODE [missing]       the files are at fault
//	removed, left, boot, gap, look   as the inputs are called
//	client running|ended       whether the ACME client's run goes on
//	told ID OUTCOME KEY=VALUE ...   what the client's log tells of an attempt: began=, ended= (relative to now), phase=, type=,
//	                           names=, saved=, hook=KIND/CODE, retry=; paused, old, doubtful, dry, staging; client=
//	ari FROM UNTIL [page]      what the CA answers, relative to the start; "ari down" when it does not
//	silence FROM UNTIL KEY=VALUE ...   from and until are relative to now; endpoint=, force
//	window SERVER FROM UNTIL   when the server may be reloaded, relative to now
//	impaired [REASON]          nothing can be judged from now on; without a reason it can again
//	round WHERE:CODE[=LEAF][,server=S][,local][,copy][,default][,optional] ...
//	                           answers the probe that runs; "down" is refused
//	facts LEAF [pair=...]      what the files are from now on when a round ends
//	reload ok|fail|interrupted|dropped|held=CAUSE [SERVER]   answers the reload that was asked for
//	running                    the reload that was asked for has begun: it cannot be dropped
//	wait DUR                   time passes
//	live DUR WHERE:CODE ...    time passes, and every probe is answered by this round; probes are not told
//	auto ok|fail|held=CAUSE    how reloads are answered from now on, a second after they were asked for
//	count                      tells how many rounds there were since the last count
//	watched true|false         whether there are endpoints, from now on
//	nowindow SERVER            it may always be reloaded, from now on
//	stop DUR                   the daemon is stopped for so long
//	clock DUR                  somebody turns the clock, forwards or (-DUR) backwards
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/step/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			got := runScript(t, string(text))
			if *update {
				if err := os.WriteFile(f, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != string(text) {
				t.Errorf("the story differs (rewrite with -update):\n%s", diff(string(text), got))
			}
		})
	}
}

type script struct {
	t          *testing.T
	start      time.Time
	now        time.Time
	policy     Policy
	state      State
	leaves     map[string]notify.Certificate
	facts      *Facts
	asked      map[string]Reload
	running    bool // the reload that was asked for runs: it cannot be dropped any more
	impaired   string
	questioned bool           // the CA was asked
	auto       string         // how reloads are answered
	rounds     int            // since the last count
	hidden     bool           // probes are not told
	alerts     map[string]int // ids of alerts, in the order of their appearance
	renewals   map[string]int // ids of renewals that were tried, likewise
	out        strings.Builder
}

func newScript(t *testing.T) *script {
	start := time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)
	return &script{t: t, start: start, now: start,
		policy: Policy{Name: "www", Host: "h", Instance: "i", Watched: true, Repair: true, Grace: 30 * time.Second,
			Deadline: 15 * time.Minute, Retries: []time.Duration{0, time.Minute, 10 * time.Minute},
			Recheck: []time.Duration{time.Minute, 10 * time.Minute, time.Hour}, Every: time.Hour, Samples: 12, Spread: 2 * time.Second},
		leaves: map[string]notify.Certificate{}, asked: map[string]Reload{}, alerts: map[string]int{}, renewals: map[string]int{}}
}

func runScript(t *testing.T, text string) string {
	s := newScript(t)
	for _, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		if strings.HasPrefix(line, "    ") {
			continue
		}
		s.out.WriteString(line + "\n")
		if cmd, _, _ := strings.Cut(line, "#"); strings.TrimSpace(cmd) != "" {
			s.run(strings.Fields(cmd))
		}
	}
	return s.out.String()
}

func (s *script) run(f []string) {
	args := map[string]string{}
	for _, a := range f[1:] {
		k, v, _ := strings.Cut(a, "=")
		args[k] = v
	}
	dur := func(v string) time.Duration {
		d, err := time.ParseDuration(v)
		if err != nil {
			s.t.Fatal(err)
		}
		return d
	}
	durs := func(v string) (out []time.Duration) {
		for _, d := range strings.FieldsFunc(v, func(r rune) bool { return r == ',' }) {
			out = append(out, dur(d))
		}
		return out
	}
	switch f[0] {
	case "policy":
		p := &s.policy
		for k, v := range args {
			switch k {
			case "grace":
				p.Grace = dur(v)
			case "deadline":
				p.Deadline = dur(v)
			case "every":
				p.Every = dur(v)
			case "retries":
				p.Retries = durs(v)
			case "recheck":
				p.Recheck = durs(v)
			case "repair":
				p.Repair = v == "true"
			case "watched":
				p.Watched = v == "true"
			case "ari":
				p.ARI = v == "true"
			case "logged":
				p.Logged = v == "true"
			case "expected":
				switch {
				case v == "manual":
					p.Expected.Manual = true
				case strings.HasPrefix(v, "0."):
					p.Expected.Fraction, _ = strconv.ParseFloat(v, 64)
				default:
					p.Expected.Before = dur(v)
				}
			default:
				s.t.Fatalf("unknown policy %q", k)
			}
		}
	case "leaf":
		life := 90 * 24 * time.Hour
		from := -time.Hour
		sum := sha256.Sum256([]byte(f[1]))
		c := notify.Certificate{SHA256: hex.EncodeToString(sum[:]), Serial: "01", Issuer: "CA", Names: []string{"www.example.org"}, KeyType: "ecdsa"}
		for k, v := range args {
			switch k {
			case "from":
				from = dur(v)
			case "life":
				life = dur(v)
			case "names":
				c.Names = strings.Split(v, ",")
			case "key":
				c.KeyType = v
			}
		}
		c.NotBefore = s.start.Add(from)
		c.NotAfter = c.NotBefore.Add(life)
		s.leaves[f[1]] = c
	case "seen":
		l := s.leaf(f[1])
		facts := Facts{SHA256: l.SHA256, Chain: ChainState(args["chain"])}
		if args["pair"] != "" {
			facts.Pair = "the key is " + args["pair"]
		}
		s.facts = &facts
		s.step(Input{Seen: &Seen{Leaf: l, Since: s.now.Add(-2 * time.Second), Facts: facts}})
	case "facts":
		s.facts = &Facts{SHA256: s.leaf(f[1]).SHA256, Chain: ChainState(args["chain"])}
		if args["pair"] != "" {
			s.facts = &Facts{Pair: args["pair"]} // they could not be read as a pair
		}
	case "fault":
		_, missing := args["missing"]
		s.step(Input{Fault: &Fault{Code: f[1], Sentence: "the files are " + f[1], Missing: missing}})
	case "removed":
		s.step(Input{Removed: true})
	case "left":
		s.step(Input{Left: true})
	case "client":
		s.step(Input{Client: &ClientRun{Running: f[1] == "running"}})
	case "ari":
		if !s.questioned {
			s.t.Fatalf("the CA was not asked\n%s", s.out.String())
		}
		s.questioned = false
		if f[1] == "down" {
			s.step(Input{Answered: &Answered{Err: &ari.Error{Kind: ari.ErrUnavailable, Temporary: true, RetryAfter: s.now.Add(time.Minute)}}})
			break
		}
		l := s.state.Disk.Leaf
		a := ari.Answer{ID: l.SHA256, NotBefore: l.NotBefore, NotAfter: l.NotAfter, Asked: s.now, RetryAfter: s.now.Add(6 * time.Hour),
			Window: ari.Window{Start: s.start.Add(dur(f[1])), End: s.start.Add(dur(f[2]))}}
		if len(f) > 3 {
			a.Window.Explanation = "https://ca.example/why"
		}
		s.step(Input{Answered: &Answered{Answer: a}})
	case "told":
		s.told(f[1], f[2], args, dur)
	case "silence":
		_, force := args["force"]
		endpoint := args["endpoint"]
		if endpoint != "" {
			endpoint = "https://" + endpoint
		}
		s.policy.Silences = append(s.policy.Silences, Silence{ID: "1", Endpoint: endpoint, Since: s.now.Add(dur(f[1])), Until: s.now.Add(dur(f[2])), Force: force})
		s.step(Input{})
	case "window":
		if s.policy.Windows == nil {
			s.policy.Windows = map[string]Window{}
		}
		s.policy.Windows[f[1]] = window{s.now.Add(dur(f[2])), s.now.Add(dur(f[3]))}
	case "impaired":
		s.impaired = strings.Join(f[1:], " ")
	case "boot":
		text, err := json.Marshal(s.state)
		if err != nil {
			s.t.Fatal(err)
		}
		var back State
		if err := json.Unmarshal(text, &back); err != nil {
			s.t.Fatal(err)
		}
		s.state = back
		s.step(Input{Boot: true})
	case "gap":
		s.step(Input{Gap: true})
	case "look":
		s.step(Input{Look: true})
	case "round":
		if s.state.Probe == nil {
			s.t.Fatalf("no probe runs: %v\n%s", f, s.out.String())
		}
		s.round(f[1:], args["impaired"])
	case "live":
		s.hidden = true
		end := s.now.Add(dur(f[1]))
		for {
			if len(s.asked) > 0 && s.auto != "" {
				for srv := range s.asked {
					s.now = s.now.Add(time.Second)
					s.run([]string{"reload", s.auto, srv})
				}
			}
			// A probe takes a while, and one that waits for what does not come takes
			// all its time.
			if p := s.state.Probe; p != nil {
				at := s.now.Add(5 * time.Second)
				if p.Purpose == Confirm && p.Until.After(at) && strings.Contains(strings.Join(f[2:], " "), "stale") {
					at = p.Until
				}
				if at.After(end) {
					break
				}
				s.now = at
				s.round(f[2:], "")
				continue
			}
			at := Wake(s.policy, s.state)
			if at.IsZero() || at.After(end) {
				break
			}
			if at.After(s.now) {
				s.now = at
			}
			s.step(Input{})
		}
		s.now, s.hidden = end, false
	case "reload":
		server := "nginx"
		if len(f) > 2 {
			server = f[2]
		}
		asked, ok := s.asked[server]
		if !ok {
			s.t.Fatalf("no reload of %s was asked for\n%s", server, s.out.String())
		}
		delete(s.asked, server)
		zero, three := 0, 3
		s.running = false
		rep := ReloadReport{ID: asked.ID, Server: server, RenewalID: asked.RenewalID, Run: "run-" + asked.Step, Reload: notify.Reload{Server: server, How: "command", ExitCode: &zero}}
		switch kind, v, _ := strings.Cut(f[1], "="); kind {
		case "ok":
			rep.OK = true
		case "fail":
			rep.Reload.ExitCode = &three
		case "interrupted":
			rep.Interrupted, rep.Reload.ExitCode = true, nil
		case "dropped":
			rep.Dropped = true
		case "held":
			rep.Held, rep.OpensAt = v, s.now.Add(time.Hour)
		}
		s.step(Input{Reload: &rep})
	case "running":
		s.running = true
	case "nowindow":
		delete(s.policy.Windows, f[1])
		s.step(Input{Look: true})
	case "stop":
		s.now = s.now.Add(dur(f[1]))
	case "watched":
		s.policy.Watched = f[1] == "true"
		s.step(Input{Look: true})
	case "auto":
		s.auto = f[1]
	case "count":
		s.line("rounds since: %d", s.rounds)
		s.rounds = 0
	case "clock":
		s.now = s.now.Add(dur(f[1]))
	case "wait":
		end := s.now.Add(dur(f[1]))
		for {
			at := Wake(s.policy, s.state)
			if at.IsZero() || at.After(end) {
				break
			}
			if at.After(s.now) {
				s.now = at
			}
			before := s.state
			s.step(Input{})
			if reflect.DeepEqual(before, s.state) {
				s.t.Fatalf("Step does nothing at its own wake-up time %v", at.Sub(s.start))
			}
		}
		s.now = end
	default:
		s.t.Fatalf("unknown command %q", f[0])
	}
}

// round answers the probe that runs.
func (s *script) round(what []string, impaired string) {
	s.rounds++
	r := Round{ID: s.state.Probe.ID, Facts: s.facts, Impaired: impaired}
	for _, a := range what {
		if strings.Contains(a, ":") {
			r.Findings = append(r.Findings, s.finding(a))
		}
	}
	s.step(Input{Round: &r})
}

// told is what a log tells.
func (s *script) told(id, outcome string, args map[string]string, dur func(string) time.Duration) {
	has := func(k string) bool { _, ok := args[k]; return ok }
	a := notify.Attempt{Client: "certbot", Log: "letsencrypt.log", Lineage: "www", Names: []string{"www.example.org"}, Saved: []string{}, Outcome: outcome, Phase: "challenge",
		Paused: has("paused"), Doubtful: has("doubtful"), DryRun: has("dry"), Staging: has("staging")}
	switch outcome {
	case "issued":
		a.Phase, a.Saved = "saved", []string{"/etc/letsencrypt/archive/www/fullchain2.pem"}
	case "failed":
		a.ProblemType, a.ProblemDetail = "urn:ietf:params:acme:error:unauthorized", "no"
	}
	for k, v := range args {
		switch k {
		case "client":
			a.Client = v
		case "began":
			a.Started = s.now.Add(dur(v))
		case "ended":
			a.Ended = s.now.Add(dur(v))
		case "phase":
			a.Phase = v
		case "type":
			a.ProblemType = v
			if strings.Contains(v, "/") {
				a.ProblemType = "urn:ietf:params:acme:error:" + strings.TrimPrefix(v, "acme/")
			}
		case "retry":
			a.RetryAfter = s.now.Add(dur(v))
		case "hook":
			kind, code, _ := strings.Cut(v, "/")
			n, err := strconv.Atoi(code)
			if err != nil {
				s.t.Fatal(err)
			}
			a.Hook = &notify.AttemptHook{Kind: kind, ExitCode: n}
		}
	}
	s.step(Input{Told: &Told{ID: id, Attempt: a, At: s.now, Old: has("old")}})
}

// window is open once.
type window struct{ from, until time.Time }

func (w window) Next(now time.Time) time.Time {
	switch {
	case now.Before(w.from):
		return w.from
	case now.Before(w.until):
		return now
	}
	return now.Add(365 * 24 * time.Hour)
}

func (s *script) leaf(name string) notify.Certificate {
	l, ok := s.leaves[name]
	if !ok {
		s.t.Fatalf("no leaf %q", name)
	}
	return l
}

func (s *script) finding(a string) Finding {
	parts := strings.Split(a, ",")
	where, code, _ := strings.Cut(parts[0], ":")
	code, leaf, _ := strings.Cut(code, "=")
	codes := strings.Split(code, "+")
	if code == "down" {
		codes = []string{"refused"}
	}
	f := Finding{Required: true}
	f.Certificate, f.Transport, f.KeyType = "www", "tcp", "ecdsa"
	f.Endpoint, f.Address, f.Server, f.Code, f.Faults, f.Samples = "https://"+where, where+":443", "nginx", codes[0], codes, 12
	f.Severity = notify.Error
	switch codes[0] {
	case "serving":
		f.Serving, f.Faults, f.Matching, f.Severity = true, []string{}, 12, notify.Info
		f.Since = s.now.Add(-2 * time.Second)
		if leaf == "" && s.state.Disk != nil {
			f.Served = &notify.Served{SHA256: s.state.Disk.Leaf.SHA256, Serial: "01", Issuer: "CA", Chain: []string{s.state.Disk.Leaf.SHA256}, Names: s.state.Disk.Leaf.Names, NotBefore: s.state.Disk.Leaf.NotBefore, NotAfter: s.state.Disk.Leaf.NotAfter}
			f.Lineage = true
		}
	case "stale", "ahead":
		f.Severity = notify.Warning
	case "expired":
		f.Severity = notify.Critical
	}
	if leaf != "" {
		l := s.leaf(leaf)
		f.Served = &notify.Served{SHA256: l.SHA256, Serial: "01", Issuer: "CA", Chain: []string{l.SHA256}, Names: l.Names, NotBefore: l.NotBefore, NotAfter: l.NotAfter}
		f.ServedKeyType = l.KeyType
		f.Lost = slices.DeleteFunc(slices.Clone(l.Names), func(n string) bool { return slices.Contains(s.state.Disk.Leaf.Names, n) })
		f.Lineage = !has(f, verify.Foreign)
		if l.SHA256 == s.state.Disk.Leaf.SHA256 {
			f.Matching = 12
		}
	}
	f.Known = f.Lineage
	for _, o := range parts[1:] {
		k, v, _ := strings.Cut(o, "=")
		switch k {
		case "server":
			f.Server = v
		case "local":
			f.Local = true
		case "copy":
			f.CopyStale = true
		case "default":
			f.Default = true
		case "sibling":
			f.Serving, f.Sibling, f.SiblingName = false, true, v
		case "listener":
			f.Listener = v
		case "warns": // serves, with a warning
			f.Serving, f.Matching, f.Severity = true, 12, notify.Warning
		case "severity":
			f.Severity = notify.Severity(v)
		case "optional":
			f.Required = false
		case "unheard":
			f.Unheard = true
		}
	}
	return f
}

func (s *script) step(in Input) {
	in.Draw, in.Impaired = 0.5, s.impaired
	before := mustJSON(s.t, s.state)
	next, cmds := Step(s.now, s.policy, s.state, in)
	if mustJSON(s.t, s.state) != before {
		s.t.Fatal("Step changed the state it was given")
	}
	again, _ := Step(s.now, s.policy, s.state, in)
	if mustJSON(s.t, again) != mustJSON(s.t, next) {
		s.t.Fatal("Step is not pure")
	}
	for _, d := range next.Outbox {
		s.line("%s", s.event(d))
		// Whatever Step says is fit to be told.
		e, err := notify.Finish(d, "h", "i", 1, s.now)
		if err != nil {
			s.t.Fatal(err)
		}
		line, err := notify.Encode(e)
		if err != nil {
			s.t.Fatal(err)
		}
		if err := schematest.Validate(line); err != nil {
			s.t.Errorf("%s: %v\n%s", d.Kind, err, line)
		}
	}
	next.Outbox = nil
	for _, c := range cmds {
		switch c := c.(type) {
		case Probe:
			if s.hidden {
				break
			}
			if c.Purpose == Confirm {
				s.line("probe confirm until %s", rel(c.Until.Sub(s.start)))
			} else {
				s.line("probe %s, %d samples", c.Purpose, c.Samples)
			}
		case Reload:
			s.asked[c.Server] = c
			s.line("reload %s: %s", c.Server, c.Step)
		case Drop:
			if s.running {
				break
			}
			delete(s.asked, c.Server)
			s.line("drop the reload of %s", c.Server)
		case Ask:
			if !s.questioned { // one that is not answered is asked again
				s.line("ask the CA")
			}
			s.questioned = true
		case Proved:
			s.line("proved %s %s", c.Server, c.Run)
		}
	}
	s.state = next
}

func (s *script) line(format string, args ...any) {
	fmt.Fprintf(&s.out, "    %-6s %s\n", rel(s.now.Sub(s.start)), fmt.Sprintf(format, args...))
}

// name returns what the script calls a leaf.
func (s *script) name(sha string) string {
	for n, l := range s.leaves {
		if l.SHA256 == sha {
			return strings.ToLower(n)
		}
	}
	return "?"
}

func (s *script) event(d notify.Draft) string {
	start := s.start
	var b strings.Builder
	fmt.Fprintf(&b, "%s (%s)", d.Kind, d.Data.Severity)
	if c := d.Data.Certificate; c != nil && c.SHA256 != "" {
		fmt.Fprintf(&b, " leaf=%s", s.name(c.SHA256))
	}
	if p := d.Data.Previous; p != nil {
		fmt.Fprintf(&b, " previous=%s", s.name(p.SHA256))
	}
	if d.Data.Cause != "" {
		b.WriteString(" cause=" + d.Data.Cause)
	}
	if a := d.Data.Alert; a != nil {
		if s.alerts[a.ID] == 0 {
			s.alerts[a.ID] = len(s.alerts) + 1
		}
		fmt.Fprintf(&b, " alert=%d since=%s", s.alerts[a.ID], rel(a.Since.Sub(start)))
		if a.Reminder {
			b.WriteString(" reminder")
		}
	}
	if strings.Contains(d.Data.Hint, "has listened there") {
		b.WriteString(" listener")
	}
	if d.Data.Silenced {
		b.WriteString(" silenced")
	}
	if d.Data.LagSeconds != nil {
		b.WriteString(" lag=" + strconv.FormatFloat(*d.Data.LagSeconds, 'f', -1, 64))
	}
	if a := d.Data.Attempt; a != nil {
		fmt.Fprintf(&b, " attempt=%s", a.Outcome)
		if a.Hook != nil {
			fmt.Fprintf(&b, "/%s=%d", a.Hook.Kind, a.Hook.ExitCode)
		}
	}
	if d.Data.Tried != nil {
		fmt.Fprintf(&b, " tried=%v", *d.Data.Tried)
	}
	if class, _, _ := strings.Cut(string(d.Kind), "."); class == "renewal" && d.Kind != notify.RenewalDetected {
		if s.renewals[d.Data.RenewalID] == 0 {
			s.renewals[d.Data.RenewalID] = len(s.renewals) + 1
		}
		fmt.Fprintf(&b, " renewal=%d %q", s.renewals[d.Data.RenewalID], d.Data.Detail)
	} else if n := s.renewals[d.Data.RenewalID]; n > 0 {
		fmt.Fprintf(&b, " renewal=%d", n)
	}
	for _, x := range d.Data.Excluded {
		fmt.Fprintf(&b, " excluded=%s/%s", strings.TrimPrefix(x.Endpoint, "https://"), x.Why)
	}
	if n := d.Data.Next; n != nil {
		b.WriteString(" next=" + n.Action)
		if !n.At.IsZero() {
			b.WriteString("@" + rel(n.At.Sub(start)))
		}
	}
	return b.String()
}

func rel(d time.Duration) string {
	s := "+" + d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func mustJSON(t *testing.T, v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func diff(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	var b strings.Builder
	for i := 0; i < max(len(w), len(g)); i++ {
		var a, c string
		if i < len(w) {
			a = w[i]
		}
		if i < len(g) {
			c = g[i]
		}
		if a == c {
			fmt.Fprintf(&b, "  %s\n", a)
		} else {
			fmt.Fprintf(&b, "- %s\n+ %s\n", a, c)
		}
	}
	return b.String()
}
