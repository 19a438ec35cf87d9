package main

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/renewatch/renewatch/watch/acmelog"
)

// lego runs the cases of lego's command line. Versions 4 and 5 take different
// arguments; version 5 has three formats.
func lego(ctx context.Context, l *lab, bin string) error {
	if err := l.ask(ctx, bin, "--version"); err != nil {
		return err
	}
	bad, err := l.script("hook-bad", "echo '2026/11/22 12:00:00 [INFO] [lab.test] Server responded with a certificate.'\necho 'cannot reload' >&2\nexit 3\n")
	if err != nil {
		return err
	}
	five := l.newer(5, 0)
	// do runs lego for names; a case that begins with renew renews.
	do := func(name string, limit time.Duration, server string, names string, want []told, more ...string) error {
		if name != "" && !l.wants(name) {
			if name != "issue" {
				return nil
			}
			name = "" // others need it
		}
		argv := []string{bin}
		domains := strings.Fields(names)
		renew := strings.HasPrefix(name, "renew")
		if five {
			argv = append(argv, "run", "--server", server, "--email", "admin@lab.test", "--accept-tos", "--path", l.path("lego"), "--http", "--http.address", "127.0.0.1:"+where(l))
			if renew {
				argv = append(argv, "--no-random-sleep")
			}
		} else {
			argv = append(argv, "--server", server, "--email", "admin@lab.test", "--accept-tos", "--path", l.path("lego"), "--http", "--http.port", "127.0.0.1:"+where(l))
		}
		for _, d := range domains {
			argv = append(argv, "--domains", d)
		}
		if !five && renew {
			argv = append(argv, "renew", "--no-random-sleep")
		} else if !five {
			argv = append(argv, "run")
		}
		out, err := l.run(ctx, limit, append(argv, more...)...)
		if err != nil || name == "" {
			return err
		}
		return l.keep(name, out, want)
	}
	const limit = 2 * time.Minute
	force, hook, hooked := []string{"--days", "1000"}, "--renew-hook", "renew 3"
	if five {
		force, hook, hooked = []string{"--renew-force"}, "--deploy-hook", "deploy 3"
	}
	const good = "lab.test www.lab.test"
	issuedPhase := acmelog.PhaseIssued
	if five {
		issuedPhase = acmelog.PhaseSaved
	}
	type step struct {
		name, names string
		want        told
		more        []string
	}
	steps := []step{
		{"issue", good, told{outcome: acmelog.Issued, phase: issuedPhase, names: good}, nil},
		{"renew_skip", good, told{outcome: acmelog.Skipped, lineage: "lab.test"}, nil},
		{"renew_forced", good, told{outcome: acmelog.Issued, phase: issuedPhase, names: good}, force},
		{"renew_hook_failed", good, told{outcome: acmelog.Issued, phase: acmelog.PhaseHook, hook: hooked, spoofed: true}, append(append([]string{}, force...), hook, bad)},
	}
	if five {
		for _, format := range []string{"text", "json"} {
			steps = append(steps,
				step{"renew_forced_" + format, good, told{outcome: acmelog.Issued, phase: issuedPhase, names: good}, append([]string{"--log.format", format}, force...)},
				step{"renew_skip_" + format, good, told{outcome: acmelog.Skipped, lineage: "lab.test"}, []string{"--log.format", format}},
				step{"renew_hook_failed_" + format, good, told{outcome: acmelog.Issued, phase: acmelog.PhaseHook, hook: hooked, spoofed: true}, append([]string{"--log.format", format, hook, bad}, force...)},
				step{"wrong_" + format, wrong, told{outcome: acmelog.Failed, phase: acmelog.PhaseChallenge, problem: "unauthorized", refused: wrong}, []string{"--log.format", format}},
				step{"newline_" + format, newline, told{outcome: acmelog.Failed, phase: acmelog.PhaseOrder, problem: "rejectedIdentifier"}, []string{"--log.format", format}},
			)
		}
	}
	failed := func(name, names, problem string, phase acmelog.Phase) {
		steps = append(steps, step{name, names, told{outcome: acmelog.Failed, phase: phase, problem: problem}, nil})
	}
	// From 4.21 on the client drops the body of an answer in the 500s.
	ofBusy, ofLate, ofGateway := acmelog.HTTP5xx, acmelog.HTTP5xx, acmelog.HTTP5xx
	if !l.newer(4, 21) {
		ofBusy, ofLate = "rateLimited", "serverInternal"
	}
	ofLimited, tells := "rateLimited", true
	if l.newer(4, 21) && !l.newer(4, 28) { // these told nothing but how often they had tried
		ofLimited, ofBusy, ofLate, ofGateway, tells = "", "", "", "", false
	}
	failed("soon", soon, ofLimited, acmelog.PhaseOrder)
	failed("paused", paused, ofLimited, acmelog.PhaseOrder)
	steps[len(steps)-1].want.paused = tells
	failed("busy", busy, ofBusy, acmelog.PhaseOrder)
	failed("gateway", gateway, ofGateway, acmelog.PhaseOrder)
	failed("nonces", nonces, "badNonce", acmelog.PhaseOrder)
	failed("rejected", rejected, "rejectedIdentifier", acmelog.PhaseOrder)
	failed("newline", newline, "rejectedIdentifier", acmelog.PhaseOrder)
	steps[len(steps)-1].want.spoofed = true
	failed("caa", caa, "caa", acmelog.PhaseFinalize)
	failed("late", late, ofLate, acmelog.PhaseFinalize)
	failed("wrong", "lab.test "+wrong, "unauthorized", acmelog.PhaseChallenge)
	failed("two_wrong", wrong+" "+gone, "dns", acmelog.PhaseChallenge) // it sorts them
	steps[len(steps)-1].want.refused = gone + " " + wrong
	failed("forged", forged, "unauthorized", acmelog.PhaseChallenge)
	failed("raw", raw, "unauthorized", acmelog.PhaseChallenge)
	steps[len(steps)-1].want.spoofed = true
	failed("caafirst", caaEarly, "caa", acmelog.PhaseChallenge)
	failed("refused", refused, "connection", acmelog.PhaseChallenge)
	failed("gone", gone, "dns", acmelog.PhaseChallenge)
	steps = append(steps, step{"nonce", nonce, told{outcome: acmelog.Issued, phase: issuedPhase, names: nonce}, nil})
	for _, s := range steps {
		if err := do(s.name, limit, l.ca.url, s.names, []told{s.want}, s.more...); err != nil {
			return err
		}
	}
	// A wait of more than a day, in which it is killed; older versions give up.
	slept := told{outcome: acmelog.Stalled, phase: acmelog.PhaseOrder, problem: ofLimited, retry: tells}
	if !l.newer(4, 21) {
		slept.outcome = acmelog.Failed
	}
	if err := do("limited", 15*time.Second, l.ca.url, limited, []told{slept}); err != nil {
		return err
	}
	for _, name := range []string{limited, wrong} {
		l.ca.calm.Store(true)
		if err := do("", limit, l.ca.url, name, nil); err != nil {
			return err
		}
		l.ca.calm.Store(false)
	}
	if err := do("renew_limited", 15*time.Second, l.ca.url, limited, []told{slept}, force...); err != nil {
		return err
	}
	if err := do("renew_wrong", limit, l.ca.url, wrong, []told{{outcome: acmelog.Failed, phase: acmelog.PhaseChallenge, problem: "unauthorized"}}, force...); err != nil {
		return err
	}
	l.ca.down() // an account is for one URL
	return do("renew_down", limit, l.ca.url, "lab.test", []told{{outcome: acmelog.Failed, phase: acmelog.PhaseDirectory, problem: acmelog.Network}}, force...)
}

func where(l *lab) string { return strconv.Itoa(l.clientPort) }
