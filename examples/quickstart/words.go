package main

import (
	"fmt"
	"strings"

	"github.com/renewatch/renewatch/notify"
)

// words say an event in a sentence, and in which colour.
func words(e notify.Event) (colour, sentence string) {
	d := e.Data
	serial := "?"
	if d.Certificate != nil {
		serial = short(d.Certificate.Serial)
	}
	switch kind(e) {
	case notify.AgentStarted:
		return plain, "renewatch is watching"
	case notify.RenewalDetected:
		return yellow, fmt.Sprintf("a new certificate, serial %s, is on disk with its key", serial)
	case notify.ReloadDone:
		how := "reloaded"
		if r := d.Reload; r != nil {
			how = fmt.Sprintf("server %q was told to reload by %s", r.Server, r.How)
		}
		return cyan, how + "; whether it did, the next handshakes tell"
	case notify.DeployVerified:
		if d.LagSeconds == nil {
			return green, fmt.Sprintf("the starting point: %s serial %s", everywhere(d.Verdicts), serial)
		}
		return green, fmt.Sprintf("%s serial %s, %.1fs after the new files", everywhere(d.Verdicts), serial, *d.LagSeconds)
	}
	parts := []string{}
	for _, p := range []string{d.Cause, d.Detail, d.Hint} {
		if p != "" {
			parts = append(parts, p)
		}
	}
	colour = plain
	if d.Severity.Rank() >= notify.Error.Rank() {
		colour = red
	}
	return colour, strings.Join(parts, "; ")
}

// everywhere says how many addresses were found serving, in how many handshakes.
func everywhere(verdicts []notify.Verdict) string {
	serving, handshakes := 0, 0
	for _, v := range verdicts {
		if v.Samples > 0 && v.Matching == v.Samples {
			serving++
		}
		handshakes += v.Samples
	}
	switch {
	case serving == 0 || serving < len(verdicts):
		return "served now:"
	case serving == 1:
		return fmt.Sprintf("in all of %d handshakes the address serves", handshakes)
	}
	return fmt.Sprintf("in all of %d handshakes the %d addresses serve", handshakes, serving)
}

// kind is the class and the outcome of an event: what stands between
// "io.renewatch." and the version in its type.
func kind(e notify.Event) notify.Kind {
	k := strings.TrimPrefix(e.Type, "io.renewatch.")
	if i := strings.LastIndex(k, ".v"); i > 0 {
		k = k[:i]
	}
	return notify.Kind(k)
}
