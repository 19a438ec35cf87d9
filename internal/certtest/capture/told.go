package main

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/renewatch/renewatch/watch/acmelog"
)

// told is what must be understood of one attempt. What is empty is not compared,
// but for dry, paused and doubtful.
type told struct {
	outcome acmelog.Outcome
	phase   acmelog.Phase
	problem string // without urn:ietf:params:acme:error:; unsaid: whatever is found
	lineage string
	names   string // with spaces between
	hook    string // kind and exit code
	refused string // names of the problems of single names
	dry     bool
	paused  bool
	retry   bool // the CA says when
	forced  bool
	active  bool
	doubt   bool
	// spoofed: somebody wrote lines that look like the client's own. Then an attempt
	// may be doubtful, and doubtful ones may be told that never were.
	spoofed bool
}

// unsaid is the problem of clients that print the CA's sentence without its type.
const unsaid = "?"

// understood is what watch/acmelog makes of a sample.
func understood(client string, text []byte) ([]acmelog.Attempt, error) {
	p := acmelog.NewParser(acmelog.Options{Client: acmelog.Client(client), Location: time.UTC})
	if p == nil {
		return nil, fmt.Errorf("nobody reads %s", client)
	}
	now := time.Now()
	return acmelog.Explain(p, bytes.NewReader(text), now, now.Add(time.Hour))
}

// compare says where the attempts of a sample are understood otherwise than they
// were. nil: nothing is known that could be compared.
func compare(client string, text []byte, want []told) (differ []string) {
	got, err := understood(client, text)
	switch {
	case err != nil:
		return []string{err.Error()}
	case want == nil:
		return nil
	}
	if len(want) == 1 && want[0].spoofed {
		return want[0].among(got)
	}
	if len(got) != len(want) {
		return []string{fmt.Sprintf("%d attempts are told, there were %d", len(got), len(want))}
	}
	for i, w := range want {
		differ = append(differ, w.compare(fmt.Sprintf("attempt %d", i+1), got[i])...)
	}
	return differ
}

// among says why none of several attempts is the one that was, and which other
// success is believed.
func (w told) among(got []acmelog.Attempt) (differ []string) {
	found := false
	for i, g := range got {
		d := w.compare(fmt.Sprintf("attempt %d", i+1), g)
		switch {
		case len(d) == 0:
			found = true
		case g.Outcome == acmelog.Issued && !g.Doubtful:
			differ = append(differ, fmt.Sprintf("attempt %d: a forged success is believed", i+1))
		case !found && len(differ) == 0:
			differ = d
		}
	}
	if found {
		differ = slices.DeleteFunc(differ, func(s string) bool { return !strings.HasSuffix(s, "believed") })
	} else if len(differ) == 0 {
		differ = []string{"no attempt is told"}
	}
	return differ
}

// compareFirst compares the first attempt for each lineage or name.
func compareFirst(client string, text []byte, want []told) (differ []string) {
	got, err := understood(client, text)
	if err != nil {
		return []string{err.Error()}
	}
	for _, w := range want {
		i := slices.IndexFunc(got, func(a acmelog.Attempt) bool {
			return w.lineage != "" && a.Lineage == w.lineage || w.names != "" && strings.Join(a.Names, " ") == w.names
		})
		if i < 0 {
			differ = append(differ, fmt.Sprintf("no attempt for %s%s is told", w.lineage, w.names))
			continue
		}
		differ = append(differ, w.compare(w.lineage+w.names, got[i])...)
	}
	return differ
}

// compare says where an attempt is understood otherwise.
func (w told) compare(which string, g acmelog.Attempt) (differ []string) {
	say := func(what string, got, want any) {
		if got != want {
			differ = append(differ, fmt.Sprintf("%s: %s is told as %v, it was %v", which, what, got, want))
		}
	}
	say("outcome", g.Outcome, w.outcome)
	if w.phase != "" {
		say("phase", g.Phase, w.phase)
	}
	if w.problem != unsaid {
		say("problem", strings.TrimPrefix(g.ProblemType, "urn:ietf:params:acme:error:"), w.problem)
	}
	if w.lineage != "" {
		say("lineage", g.Lineage, w.lineage)
	}
	if w.names != "" { // some clients sort them
		names := slices.Sorted(slices.Values(g.Names))
		say("names", strings.Join(names, " "), w.names)
	}
	hook := ""
	if g.Hook != nil {
		hook = fmt.Sprint(g.Hook.Kind, " ", g.Hook.ExitCode)
	}
	say("hook", hook, w.hook)
	if w.refused != "" {
		var names []string
		for _, p := range g.Problems {
			names = append(names, p.Name)
		}
		slices.Sort(names)
		say("refused names", strings.Join(names, " "), w.refused)
	}
	say("dry run", g.DryRun, w.dry)
	say("paused", g.Paused, w.paused)
	if w.retry {
		say("time of the next try", !g.RetryAfter.IsZero(), true)
	}
	if w.forced {
		say("forced", g.Forced, true)
	}
	say("activated", g.Activated, w.active)
	if !w.spoofed {
		say("doubtful", g.Doubtful, w.doubt)
	}
	return differ
}

// plain leaves out of what was told that which a transcript on the terminal does
// not carry.
func plain(want []told) []told {
	if want == nil {
		return nil
	}
	out := slices.Clone(want)
	for i := range out {
		w := &out[i]
		w.names, w.phase, w.forced, w.lineage, w.refused = "", "", false, "", ""
	}
	return out
}
