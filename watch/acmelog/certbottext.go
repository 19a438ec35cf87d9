package acmelog

import (
	"strconv"
	"strings"
	"time"
)

// say reads a sentence of certbot's, wherever it stood, and reports whether it is one.
func (d *certbot) say(l *line, at time.Time, g *ledger, src certbotSource, text string) bool {
	if d.failing != nil && src&fromTerminal != 0 {
		if d.failureGoesOn(text) {
			return true
		}
		d.finishFailing(g)
	}
	if d.awaits != awaitNothing && text != "" {
		if d.awaited(l, at, g, src, text) {
			return true
		}
	}
	if d.block.open {
		if d.block.line(d, g, text) {
			return true
		}
	}
	if text == "" {
		return true
	}
	if d.list != listNone {
		if d.listed(l, at, g, src, text) {
			return true
		}
		d.list = listNone
	}
	from := func(mask certbotSource) bool { return src&(mask|fromTerminal) != 0 }
	switch text[0] {
	case ' ':
		return strings.HasPrefix(text, "  ") && src&fromTerminal == 0
	case 'A':
		switch {
		case strings.HasPrefix(text, "Auto-renewal forced with --force-renewal") && from(fromRenewal):
			if d.cur == nil {
				d.run.forced = true
			} else {
				d.cur.Forced = true
			}
		case strings.HasPrefix(text, "All ") && from(fromRenewal|fromDisplay) && listHead(text) == listFailure:
			d.list = listFailure
		case strings.HasPrefix(text, "Attempting to renew cert (") && from(fromRenewal):
			name, rest, ok := strings.Cut(text[len("Attempting to renew cert ("):], ") from ")
			_, reason, found := strings.Cut(rest, " produced an unexpected error: ")
			if !ok || !found {
				return false
			}
			d.fails(l, at, g, name, strings.TrimSuffix(reason, ". Skipping."), src)
		case strings.HasPrefix(text, "An error occurred while parsing /") && from(fromRenewal):
			path, reason, _ := strings.Cut(strings.TrimPrefix(text, "An error occurred while parsing "), ". The error was ")
			d.broken(l, at, g, path, reason)
		case strings.HasPrefix(text, "Additionally, the following renewal configurations were invalid") && from(fromDisplay):
			d.list = listBroken
		case text == "An unexpected error occurred:" && from(fromLog):
			d.awaits = awaitError
		case text == "Another instance of Certbot is already running." && from(fromLog):
			d.fails(l, at, g, "", text, src)
		case strings.HasPrefix(text, "Ask for help or search for solutions at https://community.letsencrypt.org.") && from(0):
			d.advised(l, at, g)
		default:
			return d.sentence(l, at, g, src, text)
		}
	case 'C':
		switch {
		case strings.HasPrefix(text, "Cert"):
			return d.cert(l, at, g, src, text)
		case strings.HasPrefix(text, "Challenge failed for domain ") && from(fromAuth):
			if a := d.cur; a != nil {
				a.hear(at)
				a.reach(PhaseChallenge)
				a.refused(certbotName(text[len("Challenge failed for domain "):]), "", "")
				if n := len(d.run.refused); n < maxOpen && (n == 0 || d.run.refused[n-1] != a) {
					d.run.refused = append(d.run.refused, a)
				}
			}
		case text == "Cleaning up challenges" && from(fromAuth):
		case strings.HasPrefix(text, "Congratulations, ") && from(fromDisplay) && listHead(text) == listSuccess:
			d.list, d.wholly = listSuccess, true
			d.run.dry = d.run.dry || strings.Contains(text, "simulated")
		case strings.HasPrefix(text, "Congratulations! You have successfully enabled ") && from(fromDisplay|fromReporter):
			d.installed(g, at)
		case text == "Congratulations! Your certificate and chain have been saved at:" && from(fromReporter):
			d.awaits = awaitSaved
		default:
			return d.sentence(l, at, g, src, text)
		}
	case 'D':
		switch {
		case text == "Deploying certificate" && from(fromDisplay):
			d.run.hook = "install"
		case strings.HasPrefix(text, "Dry run: ") && from(fromRenewal|fromClient|fromMain):
			if a := d.cur; a != nil && src&fromTerminal == 0 {
				a.DryRun = true
				a.reach(PhaseIssued)
				if name, ok := strings.CutPrefix(text, "Dry run: Skipping creating new lineage for "); ok {
					a.lineage(name)
				} else if _, name, ok := cutLast(text, "/live/"); ok && a.Lineage == "" && !strings.Contains(name, "/") {
					a.lineage(name)
				}
			}
		default:
			return d.sentence(l, at, g, src, text)
		}
	case 'E':
		if text == "Exiting due to user request." && from(fromLog) {
			d.fails(l, at, g, "", text, src)
			d.over(g, false, at)
			return true
		}
		if from(0) && hookOutput(text) {
			d.raw = true
			return true
		}
		return d.sentence(l, at, g, src, text)
	case 'F':
		if name, reason, ok := strings.Cut(text, " with error: "); ok && strings.HasPrefix(name, "Failed to renew certificate ") && from(fromRenewal) {
			d.fails(l, at, g, name[len("Failed to renew certificate "):], reason, src)
			return true
		}
		if path, ok := strings.CutPrefix(text, "Full certificate chain is saved at:"); ok && from(fromDisplay) {
			d.keeps(strings.TrimSpace(path))
			return true
		}
		return d.sentence(l, at, g, src, text)
	case 'H':
		if kind, code, ok := hookFailure(text); ok && from(fromHooks) {
			if kind == "" {
				kind = d.ranHook()
			}
			d.hookFailed(g, at, kind, code, src&fromTerminal != 0)
			return true
		}
		return strings.HasPrefix(text, "Hook '") && from(fromHooks|fromDisplay)
	case 'I':
		switch {
		case text == "IMPORTANT NOTES:" && from(0):
			d.notes = true
		case strings.HasPrefix(text, "If you like Certbot, please consider supporting our work by:") && from(fromDisplay|fromReporter):
			d.thanks(g, at)
		case strings.HasPrefix(text, "Intermediate CA chain is saved at:") && from(fromDisplay):
			d.run.csr = true
			d.keeps(strings.TrimSpace(text[len("Intermediate CA chain is saved at:"):]))
		default:
			return d.sentence(l, at, g, src, text)
		}
	case 'K':
		switch {
		case text == "Keeping the existing certificate" && from(fromMain):
			d.skip(l, at, g, true)
		case strings.HasPrefix(text, "Key is saved at:") && from(fromDisplay):
			d.keeps(strings.TrimSpace(text[len("Key is saved at:"):]))
		default:
			return d.sentence(l, at, g, src, text)
		}
	case 'N':
		switch {
		case strings.HasPrefix(text, "Non-interactive renewal: random delay of ") && from(fromRenewal):
			d.due(at)
		case (text == "No renewals were attempted." || text == "No simulated renewals were attempted.") && from(fromDisplay):
		case text == "NEXT STEPS:" && from(fromDisplay):
		default:
			return d.sentence(l, at, g, src, text)
		}
	case 'O':
		if from(0) && hookOutput(text) {
			d.raw = true
			return true
		}
		if text == "Obtaining a new certificate" && from(fromMain) {
			d.orders(l, at, g, "", false)
			return true
		}
		return d.sentence(l, at, g, src, text)
	case 'P':
		switch {
		case text == "Processing" && from(fromDisplay):
			d.awaits = awaitConf
		case strings.HasPrefix(text, "Processing /") && strings.HasSuffix(text, ".conf") && from(fromDisplay):
			d.processing(l, at, g, text[len("Processing "):])
		case strings.HasPrefix(text, "Plugins selected: ") && from(fromSelection):
			if a := d.cur; a != nil {
				a.hear(at)
				if src&fromTerminal != 0 && a.Phase.rank() >= PhaseChallenge.rank() { // of the next one
					d.cur = nil
				}
			}
		case text == "Performing the following challenges:" && from(fromAuth):
			d.challenges(l, at, g, src)
		case strings.HasPrefix(text, "Please see the logfile") && from(0):
			d.advised(l, at, g)
		case strings.HasPrefix(text, "Pre-hook command already run, skipping: ") && from(fromHooks):
		default:
			return d.sentence(l, at, g, src, text)
		}
	case 'R':
		return d.re(l, at, g, src, text)
	case 'S':
		switch {
		case strings.HasPrefix(text, "Server issued certificate; certificate written to ") && from(fromClient): // for a CSR, before 1.16
			d.run.csr = true
			if d.cur != nil {
				d.cur.reach(PhaseIssued)
			}
			d.keeps(text[len("Server issued certificate; certificate written to "):])
		case strings.HasPrefix(text, "Saving debug log to ") && from(fromLog):
			if src&fromTerminal != 0 {
				d.newRun(l, at, g)
			}
		case strings.HasPrefix(text, "Simulating renewal of an existing certificate for ") && from(fromDisplay):
			d.orders(l, at, g, text[len("Simulating renewal of an existing certificate for "):], true)
		case strings.HasPrefix(text, "Simulating a certificate request for ") && from(fromDisplay):
			d.orders(l, at, g, text[len("Simulating a certificate request for "):], true)
		case text == "Successfully received certificate." && from(fromDisplay):
			d.received(l, at, g, src)
		case strings.HasPrefix(text, "Successfully deployed certificate for ") && from(fromDisplay):
		default:
			return d.sentence(l, at, g, src, text)
		}
	case 'T':
		switch {
		case strings.HasPrefix(text, "The following ") && listHead(text) != listNone && from(fromDisplay|fromRenewal):
			d.list, d.wholly = listHead(text), false
			d.run.dry = d.run.dry || strings.Contains(text, "simulated")
		case text == "The following errors were reported by the server:" && from(fromReporter):
			d.block.begin(d.cur, false)
		case text == "The dry run was successful." && from(fromDisplay|fromReporter):
			d.drySuccess(l, at, g)
		case strings.HasPrefix(text, "This certificate expires on ") && from(fromDisplay):
			d.thanks(g, at)
		default:
			return d.sentence(l, at, g, src, text)
		}
	case 'U':
		if strings.HasPrefix(text, "Unable to obtain a certificate with every requested domain. Retrying without: ") && from(fromDisplay) {
			if a := d.cur; a != nil {
				a.hear(at)
				a.Phase = PhaseOrder
			}
			return true
		}
		return d.sentence(l, at, g, src, text)
	case 'W':
		if text == "Waiting for verification..." && from(fromAuth) {
			if d.cur != nil {
				d.cur.hear(at)
				d.cur.reach(PhaseChallenge)
			}
			return true
		}
		return d.sentence(l, at, g, src, text)
	case 'Y':
		if strings.HasPrefix(text, "Your existing certificate has been successfully renewed, and the new certificate") && from(fromDisplay|fromReporter) {
			d.installed(g, at)
			return true
		}
		if text == "Your key file has been saved at:" && from(fromReporter) {
			d.awaits = awaitSaved
			return true
		}
		return d.sentence(l, at, g, src, text)
	case '*':
		if strings.HasPrefix(text, "** DRY RUN: simulating 'certbot renew' close to cert expiry") && from(fromDisplay) {
			d.rehearsed(g)
			return true
		}
		return strings.HasPrefix(text, "** ")
	case '-':
		return d.dash(l, at, g, text)
	case 'd', 'h', 't', 'p', 'n', 'm':
		switch {
		case strings.HasPrefix(text, "new certificate deployed with") && from(fromDisplay):
			if _, path, ok := strings.Cut(text, "fullchain is "); ok {
				d.keeps(path)
			} else {
				d.awaits = awaitSaved
			}
		case text == "no renewal failures" && src == fromRenewal:
			d.over(g, true, at)
		case challengeOf(text) != "" && from(fromAuth):
			if a := d.cur; a != nil {
				known := len(a.Names)
				a.name(challengeOf(text))
				if len(a.Names) > known && a.NamesOmitted > 0 {
					a.NamesOmitted--
				}
			}
		default:
			if kind, code, ok := hookFailure(text); ok && from(fromHooks) {
				d.hookFailed(g, at, kind, code, src&fromTerminal != 0)
				return true
			}
			return d.sentence(l, at, g, src, text)
		}
	default:
		if n, ok := renewFailures(text); ok && from(fromLog) {
			d.failures(l, at, g, n, text, src)
			return true
		}
		return d.sentence(l, at, g, src, text)
	}
	return true
}

// cert reads the sentences that begin with the word Cert: what they say of a
// certificate was "Cert" until 1.15.
func (d *certbot) cert(l *line, at time.Time, g *ledger, src certbotSource, text string) bool {
	from := func(mask certbotSource) bool { return src&(mask|fromTerminal) != 0 }
	rest, ok := strings.CutPrefix(text, "Certificate ")
	if !ok {
		rest, ok = strings.CutPrefix(text, "Cert ")
	}
	switch {
	case strings.HasPrefix(text, "Certbot failed to authenticate some domains (authenticator: ") && from(fromDisplay):
		if d.block.begin(d.cur, false); d.cur == nil {
			d.block.of = d.late
		}
		return true
	case !ok:
		return d.sentence(l, at, g, src, text)
	case rest == "not yet due for renewal" && from(fromDisplay|fromRenewal):
		d.skip(l, at, g, false)
	case strings.HasPrefix(rest, "not yet due for renewal; no action taken.") && from(fromDisplay):
		d.skip(l, at, g, true)
	case strings.HasPrefix(rest, "not due for renewal, but simulating renewal for dry run") && from(fromRenewal):
		if d.cur != nil {
			d.cur.DryRun = true
			d.due(at)
		} else {
			d.run.dry = true
		}
	case strings.HasPrefix(rest, "is due for renewal, auto-renewing...") && from(fromRenewal):
		d.due(at)
	case strings.HasPrefix(rest, "is saved at:") && from(fromDisplay):
		d.run.csr = d.run.csr || strings.HasPrefix(rest, "is saved at:  ") // a column that other paths stand in too
		d.keeps(strings.TrimSpace(rest[len("is saved at:"):]))
	default:
		return d.sentence(l, at, g, src, text)
	}
	return true
}

// re reads the sentences that begin with R.
func (d *certbot) re(l *line, at time.Time, g *ledger, src certbotSource, text string) bool {
	from := func(mask certbotSource) bool { return src&(mask|fromTerminal) != 0 }
	switch {
	case strings.HasPrefix(text, "Renewing an existing certificate for ") && from(fromDisplay):
		d.orders(l, at, g, text[len("Renewing an existing certificate for "):], false)
	case text == "Renewing an existing certificate" && from(fromMain):
		d.orders(l, at, g, "", false)
	case strings.HasPrefix(text, "Requesting a certificate for ") && from(fromDisplay):
		d.orders(l, at, g, text[len("Requesting a certificate for "):], false)
	case strings.HasPrefix(text, "Reloading ") && strings.Contains(text, " server after certificate ") && from(fromDisplay|fromMain):
		d.run.hook = "reload"
		if a := d.cur; a != nil && src&fromTerminal != 0 && a.Phase.rank() >= PhaseOrder.rank() && !a.DryRun {
			a.hear(at)
			a.reach(PhaseSaved) // it comes after that
		}
	case strings.HasPrefix(text, "Running ") && from(fromHooks):
		kind, _, ok := strings.Cut(text[len("Running "):], "-hook command: ")
		if !ok {
			return false
		}
		d.run.hook = kind
		if a := d.cur; a != nil {
			a.hear(at)
			if kind == "deploy" && src&fromTerminal != 0 && !a.DryRun { // it runs when the files are written
				a.reach(PhaseSaved)
			}
		}
	case strings.HasPrefix(text, "Renewal configuration file ") && from(fromRenewal):
		path, reason, ok := strings.Cut(text[len("Renewal configuration file "):], ".conf ")
		if !ok {
			return false
		}
		switch {
		case strings.HasPrefix(reason, "is broken."):
			reason = ""
		default:
			if _, r, found := strings.Cut(reason, "produced an unexpected error: "); found {
				reason = r
			}
		}
		d.broken(l, at, g, path+".conf", strings.TrimSuffix(strings.TrimSuffix(reason, "Skipping."), ". "))
	default:
		return d.sentence(l, at, g, src, text)
	}
	return true
}

// dash reads lines that begin with a dash: frames and the steps that are left to do.
func (d *certbot) dash(l *line, at time.Time, g *ledger, text string) bool {
	switch {
	case strings.HasPrefix(text, "- - - - - - - -"):
		return true
	case strings.HasPrefix(text, "- The certificate was saved, but was not successfully loaded by the installer"):
		d.hookFailed(g, at, "reload", -1, true)
	case strings.HasPrefix(text, "- The certificate was saved, but could not be installed"):
		d.hookFailed(g, at, "install", -1, true)
	}
	return true
}

// awaited reads the line after one that announced it.
func (d *certbot) awaited(l *line, at time.Time, g *ledger, src certbotSource, text string) bool {
	what := d.awaits
	switch what {
	case awaitError:
		if src&(fromLog|fromTerminal) == 0 {
			return false
		}
		d.awaits = awaitNothing
		class, reason := pythonError(text)
		if class == "" {
			d.file.reached = PhaseOrder // the CA's own words
		}
		text = reason
		d.fails(l, at, g, "", text, src)
	case awaitConf:
		d.awaits = awaitNothing
		if !strings.HasPrefix(text, "/") || !strings.HasSuffix(text, ".conf") {
			return false
		}
		d.processing(l, at, g, text)
	case awaitSaved:
		d.awaits = awaitNothing
		path := strings.TrimSpace(text)
		if !strings.HasPrefix(path, "/") {
			return false
		}
		d.keeps(path)
		if d.cur != nil && d.notes || src&fromReporter != 0 && d.cur != nil {
			d.cur.settles = time.Minute // nothing more may come
		}
	}
	return true
}

// listHead tells which list of lineages a sentence opens.
func listHead(text string) certbotList {
	switch {
	case strings.HasPrefix(text, "Congratulations, all renewals succeeded"),
		strings.HasPrefix(text, "Congratulations, all simulated renewals succeeded"),
		text == "The following renewals succeeded:", text == "The following simulated renewals succeeded:",
		text == "The following certs were successfully renewed:", text == "The following certificates were successfully renewed:":
		return listSuccess
	case strings.HasPrefix(text, "All renewals failed."), strings.HasPrefix(text, "All simulated renewals failed."),
		strings.HasPrefix(text, "All renewal attempts failed."),
		text == "The following renewals failed:", text == "The following simulated renewals failed:",
		text == "The following certs could not be renewed:", text == "The following certificates could not be renewed:":
		return listFailure
	case strings.HasPrefix(text, "The following certs are not due for renewal yet:"), strings.HasPrefix(text, "The following certificates are not due for renewal yet:"):
		return listSkipped
	}
	return listNone
}

// hookOutput reports whether, before 1.16, a hook's output follows, as it is.
func hookOutput(text string) bool {
	return (strings.HasPrefix(text, "Output from ") || strings.HasPrefix(text, "Error output from ")) &&
		strings.Contains(text, "-hook command ") && strings.HasSuffix(text, ":")
}

// hookFailure reads "Hook 'deploy-hook' reported error code 3" and, before 1.16,
// `deploy-hook command "..." returned error code 3`; before 0.37 that began with
// "Hook", of whatever kind it was.
func hookFailure(text string) (kind string, code int, ok bool) {
	name, number, found := "", "", false
	if rest, is := strings.CutPrefix(text, "Hook '"); is {
		name, number, found = strings.Cut(rest, "' reported error code ")
	} else if name, number, found = strings.Cut(text, ` command "`); found {
		const end = `" returned error code `
		i := strings.LastIndex(number, end)
		if i < 0 {
			return "", 0, false
		}
		number = number[i+len(end):]
	}
	code, err := strconv.Atoi(number)
	if !found || err != nil {
		return "", 0, false
	}
	if name == "Hook" {
		return "", code, true
	}
	kind, ok = strings.CutSuffix(name, "-hook")
	switch kind {
	case "pre", "post", "deploy", "renew":
		return kind, code, ok
	}
	return "", 0, false // those of the manual plugin are part of a challenge
}

// renewFailures reads "1 renew failure(s), 0 parse failure(s)".
func renewFailures(text string) (n int, ok bool) {
	renew, parse, found := strings.Cut(text, " renew failure(s), ")
	parse, is := strings.CutSuffix(parse, " parse failure(s)")
	a, err := strconv.Atoi(renew)
	b, err2 := strconv.Atoi(parse)
	return a + b, found && is && err == nil && err2 == nil
}

// challengeOf reads the name in "http-01 challenge for a.example".
func challengeOf(text string) string {
	kind, name, ok := strings.Cut(text, " challenge for ")
	if !ok || len(kind) > 32 || strings.ContainsAny(kind, " :/") || !strings.Contains(kind, "-") {
		return ""
	}
	return certbotName(name)
}

// certbotName reads a name as certbot prints it; 5.3 and later print some as
// Identifier(typ=IdentifierType(dns), value='a.example').
func certbotName(text string) string {
	if rest, ok := strings.CutPrefix(text, "Identifier("); ok {
		_, rest, _ = strings.Cut(rest, "value='")
		text, _, _ = strings.Cut(rest, "'")
	}
	return text
}

// summarised reads "a and b" and "a and 4 more domains".
func summarised(a *attempt, text string) {
	text = strings.TrimSpace(text)
	first, second, two := strings.Cut(text, " and ")
	a.name(certbotName(first))
	if !two {
		return
	}
	number, _, _ := strings.Cut(second, " more")
	if n, err := strconv.Atoi(number); err == nil && n >= 0 && n < 1<<16 && number != second {
		a.NamesOmitted = n
		return
	}
	a.name(certbotName(second))
}
