package watchdog

import (
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"github.com/renewatch/renewatch/internal/reload"
	"github.com/renewatch/renewatch/notify"
	"github.com/renewatch/renewatch/verify"
)

// Causes: why a certificate is not served, or why a reload is held. Readers
// must expect more.
const (
	CauseNotReloaded = "not_reloaded"
	CauseElsewhere   = "elsewhere"
	CauseCopyStale   = "copy_stale"
	CausePair        = "pair"
	CauseChain       = "chain"
	CauseUntrusted   = "untrusted"
	CauseOlder       = "older"
	CauseDates       = "dates"
	CauseNames       = "names"
	CauseKeyType     = "key_type"
	CauseOtherPair   = "other_pair"
	CauseLimit       = "limit"
	CauseUnreachable = "unreachable"
	CauseSilenced    = "silenced"
	CauseWindow      = "window"
	CauseDuplicate   = "duplicate"
	CauseExpiry      = "expiry"
	CauseReverted    = "reverted"

	// Of renewal.failed.
	CauseStalled     = "stalled"
	CausePaused      = "paused" // the CA has paused the account
	CauseRateLimited = "rate_limited"
	CauseCA          = "ca" // it could not be reached, or had trouble of its own
	CauseChallenge   = "challenge"
	CauseOrder       = "order"
	CauseClient      = "client"      // the client's own trouble
	CauseRevoked     = "revoked"     // the CA asks for the certificate to be replaced
	CauseNotWritten  = "not_written" // the log tells of a certificate that is nowhere
)

// CauseMoving: the files changed right before a reload. It is never said: the
// watcher tells what became of them.
const CauseMoving = "moving"

// need is what one server needs according to the last round.
type need struct {
	server string
	stale  bool // an earlier leaf is served: reload as often as is allowed
	once   bool // another fault that one reload may cure
	ahead  bool // something newer than the disk is served
	bad    []Finding
}

// needs groups by server the findings that a reload of that server may cure.
func (k *step) needs() []need {
	var out []need
	for i := range k.s.Findings {
		f := &k.s.Findings[i]
		if f.Serving || f.Server == "" || f.Server == "none" || k.unconfirmed(*f) || k.hushed(*f) || f.Local || f.CopyStale {
			continue
		}
		stale := slices.Contains(f.Faults, string(verify.Stale))
		once := !stale && (has(*f, verify.Mixed) || has(*f, verify.ChainIncomplete) || has(*f, verify.WrongName))
		ahead := has(*f, verify.Ahead)
		if !stale && !once && !ahead {
			continue
		}
		i := slices.IndexFunc(out, func(n need) bool { return n.server == f.Server })
		if i < 0 {
			out = append(out, need{server: f.Server})
			i = len(out) - 1
		}
		n := &out[i]
		n.ahead = n.ahead || ahead
		if !stale && !once {
			continue
		}
		n.stale = n.stale || stale
		n.once = n.once || once
		n.bad = append(n.bad, *f)
	}
	return out
}

func has(f Finding, c verify.Code) bool { return slices.Contains(f.Faults, string(c)) }

// due returns when the next reload of a server is due; ok is false when none is
// left for this renewal.
func (k *step) due(n need) (at time.Time, ok bool) {
	t := k.s.Story
	var r Repair
	if t.Servers[n.server] != nil {
		r = *t.Servers[n.server]
	}
	if r.Pending != nil || r.Attempts >= min(maxAttempts, len(k.p.Retries)) || (!n.stale && r.Once) || len(n.bad) == 0 {
		return time.Time{}, false
	}
	base := r.Base
	if base.IsZero() {
		base = t.GraceEnd
	}
	at = base.Add(k.p.Retries[r.Attempts])
	if !r.Finished.IsZero() && at.Before(r.Finished.Add(reloadPause)) {
		at = r.Finished.Add(reloadPause)
	}
	if at.Before(r.LimitUntil) {
		at = r.LimitUntil
	}
	if k.now.Before(r.WindowUntil) && !k.urgent(n) {
		// The configuration may have another window by now, or none.
		at = k.opens(n.server)
	}
	if pause := min(reloadPause<<min(max(r.Holds-1, 0), 8), openLook); !r.LastHeld.IsZero() && at.Before(r.LastHeld.Add(pause)) {
		at = r.LastHeld.Add(pause)
	}
	return at, true
}

// nextRepair returns when a reload must be decided on next; zero: none is left.
func (k *step) nextRepair() time.Time {
	var next time.Time
	if !k.repairs() {
		return next
	}
	for _, n := range k.needs() {
		at, ok := k.due(n)
		if !ok {
			continue
		}
		if !at.After(k.now) {
			// It was due and is held back; or nobody has looked since the start.
			at = k.now
			if k.s.Fresh {
				at = k.now.Add(heldLook)
			}
		}
		if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	return next
}

// comingReload returns when the next reload comes by itself: one that was asked
// for and waits for its turn, or the next that is due. Zero: none.
func (k *step) comingReload() time.Time {
	for _, r := range k.s.Story.Servers {
		if r.Pending != nil {
			return k.now
		}
	}
	return k.nextRepair()
}

// repairs reports whether reloads may be asked for at all just now.
func (k *step) repairs() bool {
	t := k.s.Story
	switch {
	case !k.p.Repair || t == nil:
		return false
	case k.s.Standing == Open:
		return t.GraceOver
	}
	return k.s.Standing == Failed || k.s.Standing == Lost || k.s.Standing == Unverified
}

// repair asks for the reloads that are due and may be made.
func (k *step) repair(facts *Facts) {
	s, t := k.s, k.s.Story
	if !k.repairs() {
		return
	}
	for _, n := range k.needs() {
		if n.ahead {
			k.held(n.server, CauseOlder, "a newer certificate than the one on disk is served; a reload would put the older one live",
				"find where the newer certificate comes from and why it is not on disk", time.Time{})
			continue
		}
		if len(n.bad) == 0 {
			continue
		}
		at, ok := k.due(n)
		if !ok {
			r := t.Servers[n.server]
			if n.stale && r != nil && r.Pending == nil && r.Attempts >= maxAttempts && !k.now.Before(r.Finished.Add(reloadPause)) {
				k.held(n.server, CauseLimit, fmt.Sprintf("this renewal had its %d reloads of %s", maxAttempts, n.server), "look at the server by hand", time.Time{})
			}
			continue
		}
		if k.now.Before(at) {
			continue
		}
		if facts == nil || facts.SHA256 != s.Disk.Leaf.SHA256 || facts.Pair != "" {
			// Something is being written, or the files are at fault. A fault
			// that lasts is known from the watcher; what is short is waited for.
			switch {
			case s.Fault != nil:
				k.held(n.server, CausePair, s.Fault.Sentence, s.Fault.Hint, time.Time{})
			case facts != nil && facts.SHA256 == s.Disk.Leaf.SHA256:
				k.held(n.server, CausePair, facts.Pair, "name the key in the configuration, or make it readable", time.Time{})
			}
			continue
		}
		if cause, detail, hint := k.preflight(n); cause != "" {
			k.held(n.server, cause, detail, hint, time.Time{})
			continue
		}
		if k.silenced() {
			k.held(n.server, CauseSilenced, "repairs are silenced", "end the silence (renewatch silence --list), or reload the server by hand", k.silenceEnd())
			continue
		}
		r := t.repair(n.server)
		if w := k.p.Windows[n.server]; w != nil && !k.urgent(n) {
			if opens := w.Next(k.now); opens.After(k.now) {
				r.WindowUntil = opens
				if r.Attempts < len(k.p.Retries) {
					r.Base = opens.Add(-k.p.Retries[r.Attempts])
				}
				k.held(n.server, CauseWindow, fmt.Sprintf("%s may be reloaded again from %s", n.server, stamp(opens)), "", opens)
				continue
			}
		}
		step := reload.First
		switch r.Attempts {
		case 1:
			step = reload.Touch
		case 2:
			step = reload.Last
		}
		s.Events++ // also makes the id of a repeated attempt new
		id := fmt.Sprintf("%s/%s/%s/%d/%d", k.p.Name, t.RenewalID, n.server, r.Attempts+1, s.Events)
		r.Pending = &Attempt{ID: id, Step: string(step), At: k.now, Once: !n.stale}
		delete(t.Holding, n.server)
		k.cmds = append(k.cmds, Reload{ID: id, Server: n.server, Step: string(step), RenewalID: t.RenewalID, Attempt: r.Attempts + 1, Urgent: k.urgent(n)})
	}
}

// urgent reports whether a server's window is not waited for: what it serves has
// ended, or will soon.
func (k *step) urgent(n need) bool {
	return slices.ContainsFunc(n.bad, func(f Finding) bool {
		v := f.Served
		return v != nil && (!k.now.Before(v.NotAfter) || verify.MarginLeft(&x509.Certificate{NotBefore: v.NotBefore, NotAfter: v.NotAfter}, k.now) < 0.3)
	})
}

// opens returns when a server may be reloaded by its window; now when it may.
func (k *step) opens(server string) time.Time {
	if w := k.p.Windows[server]; w != nil {
		if at := w.Next(k.now); at.After(k.now) {
			return at
		}
	}
	return k.now
}

// window returns until when a server that needs a reload waits for its window;
// zero: none does.
func (k *step) window() time.Time {
	var until time.Time
	if !k.repairs() {
		return until
	}
	for _, n := range k.needs() {
		r := k.s.Story.Servers[n.server]
		if r != nil && r.Pending == nil && r.WindowUntil.After(k.now) && r.WindowUntil.After(until) && !k.urgent(n) {
			if _, left := k.due(n); left {
				until = k.opens(n.server)
			}
		}
	}
	return until
}

// preflight tells whether the leaf on disk may replace what a server serves.
func (k *step) preflight(n need) (cause, detail, hint string) {
	d := k.s.Disk.Leaf
	facts := k.s.Disk.Facts
	switch facts.Chain {
	case ChainIncomplete:
		return CauseChain, orSentence(facts.Detail, "the certificate file lacks an intermediate certificate: visitors could not build the chain"),
			"write the full chain (certbot: use fullchain.pem, not cert.pem)"
	case ChainUntrusted:
		return CauseUntrusted, orSentence(facts.Detail, "the certificate file does not chain to a trusted root"),
			"was it issued by a staging CA? a private CA is named by verify.ca"
	}
	if !k.now.Before(d.NotAfter) {
		return CauseDates, fmt.Sprintf("the certificate on disk expired at %s", stamp(d.NotAfter)), "renew it"
	}
	if k.now.Before(d.NotBefore) {
		return CauseDates, fmt.Sprintf("the certificate on disk is not valid before %s", stamp(d.NotBefore)), "is the clock right?"
	}
	for _, f := range n.bad {
		if f.Served == nil {
			continue
		}
		v := f.Served
		if k.now.After(v.NotAfter) {
			continue // nothing a visitor accepts can be lost
		}
		if !f.Lineage || v.SHA256 == d.SHA256 {
			continue // the leaf itself, or one that a reload does not replace
		}
		if d.NotBefore.Before(v.NotBefore) {
			return CauseOlder, fmt.Sprintf("the certificate on disk (from %s) is older than the one served (from %s)", stamp(d.NotBefore), stamp(v.NotBefore)),
				"find where the newer certificate comes from"
		}
		if verify.MarginLeft(&x509.Certificate{NotBefore: d.NotBefore, NotAfter: d.NotAfter}, k.now) <= 0.3 {
			return CauseOlder, fmt.Sprintf("the certificate on disk itself ends soon, at %s", stamp(d.NotAfter)), "renew it"
		}
		if len(f.Lost) > 0 {
			return CauseNames, "the certificate on disk lacks names that the one served covers: " + enumerate(f.Lost, 5),
				"if the names were dropped on purpose, reload the server by hand"
		}
		if f.ServedKeyType != "" && d.KeyType != "" && f.ServedKeyType != d.KeyType {
			return CauseKeyType, fmt.Sprintf("the certificate on disk has another key type (%s) than the one served (%s)", d.KeyType, f.ServedKeyType),
				"if the change is meant, reload the server by hand"
		}
	}
	return "", "", ""
}

// held says once a renewal, server and cause that a reload is held back.
func (k *step) held(server, cause, detail, hint string, opens time.Time) {
	t := k.s.Story
	if t.Holding == nil {
		t.Holding = map[string]string{}
	}
	t.Holding[server] = cause
	key := server + " " + cause
	if _, said := t.Held[key]; said {
		return
	}
	if t.Held == nil {
		t.Held = map[string]string{}
	}
	t.Held[key] = hint
	k.say(notify.ReloadHeld, notify.Warning, func(d *notify.Data) {
		d.Cause, d.Detail, d.Hint = cause, detail, hint
		d.Reload = &notify.Reload{Server: server}
		d.Verdicts = k.verdicts()
		d.Next = &notify.Next{Action: "person"}
		if !opens.IsZero() {
			d.Next = &notify.Next{Action: "reload", At: opens}
		}
	})
}

// dropPending withdraws what was asked for and has not started.
func (k *step) dropPending() {
	if k.s.Story == nil {
		return
	}
	for _, server := range sortedKeys(k.s.Story.Servers) {
		r := k.s.Story.Servers[server]
		if r.Pending != nil {
			k.cmds = append(k.cmds, Drop{ID: r.Pending.ID, Server: server})
			r.Pending = nil
		}
	}
}
