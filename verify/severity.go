package verify

import (
	"crypto/x509"
	"slices"
	"time"
)

// precedence, worst first.
var precedence = [...]Code{
	Unresolved, Refused, Unreachable, Timeout, NotTLS, StartTLSFailed, HandshakeFailed,
	Expired, NotYetValid, WrongName, Untrusted, Mixed, Foreign, Stale, Ahead,
	ChainIncomplete, ChainDisorder, PQIntolerant, Unverifiable, NotTestable, Serving,
}

// Codes lists every code in order of precedence, worst first.
func Codes() []Code { return slices.Clone(precedence[:]) }

// Rank is the place of c in the order of precedence: 0 is the worst. A code
// this version does not know ranks before all others.
func (c Code) Rank() int { return slices.Index(precedence[:], c) }

// Rank orders severities: 0 for info up to 3 for critical; an unknown one ranks
// as critical, because nobody may overlook it.
func (s Severity) Rank() int {
	switch s {
	case Info, "":
		return 0
	case Warning:
		return 1
	case Error:
		return 2
	}
	return 3
}

func worse(a, b Severity) Severity {
	if b.Rank() > a.Rank() {
		return b
	}
	return a
}

// down reports whether c means that no connection came about.
func (c Code) down() bool { return c == Refused || c == Unreachable || c == Timeout }

// severity is how bad c is by itself. Stale also depends on the leaf, and being
// down on the address and its neighbours: see staleSeverity and Grade.
func (c Code) severity() Severity {
	switch c {
	case Expired, NotYetValid, WrongName, Untrusted:
		return Critical
	case Unresolved, Refused, Unreachable, Timeout, NotTLS, StartTLSFailed, HandshakeFailed, Mixed, Foreign, ChainIncomplete:
		return Error
	case Stale, Ahead, ChainDisorder, PQIntolerant, Unverifiable:
		return Warning
	case NotTestable, Serving:
		return Info
	}
	return Critical
}

// staleSeverity grows as the stale leaf runs out.
func staleSeverity(served *x509.Certificate, now time.Time) Severity {
	return worse(Warning, ExpirySeverity(served, now))
}

// sortFaults orders faults by precedence and drops doubles.
func sortFaults(faults []Code) []Code {
	slices.SortFunc(faults, func(a, b Code) int { return a.Rank() - b.Rank() })
	return slices.Compact(faults)
}

// Has reports whether c is among the faults.
func (v *Verdict) Has(c Code) bool { return slices.Contains(v.Faults, c) }

// Down reports whether no connection came about: refused, unreachable or timeout.
func (v *Verdict) Down() bool { return v.Code.down() }

// DownFor reports whether the address has been down for at least tries tries
// over at least d: before that it may be a lost packet or a restart.
func (v *Verdict) DownFor(tries int, d time.Duration, now time.Time) bool {
	return v.Down() && v.Tries >= tries && now.Sub(v.DownSince) >= d
}

// Tested reports whether the address could be judged at all.
func (v *Verdict) Tested() bool { return v.Code != NotTestable && v.Code != Unverifiable }

// CountsAsServing reports whether every sample showed the expected leaf and
// nothing worse than a warning is wrong besides.
func (v *Verdict) CountsAsServing() bool {
	if v.Samples == 0 || v.Matching < v.Samples || v.Siblings > 0 {
		return false
	}
	return !slices.ContainsFunc(v.Faults, func(c Code) bool { return c.severity().Rank() > Warning.Rank() })
}

// Grade sets the severity of those verdicts that are down, given all verdicts
// of one endpoint: critical when every address that could be tested is down,
// else error for IPv4 and warning for IPv6. Whoever puts together verdicts from
// different calls grades them again.
func Grade(verdicts []Verdict) {
	down, up := 0, 0
	for i := range verdicts {
		switch v := &verdicts[i]; {
		case v.Down():
			down++
		case v.Tested():
			up++
		}
	}
	for i := range verdicts {
		v := &verdicts[i]
		if !v.Down() {
			continue
		}
		severity := Error
		switch {
		case up == 0:
			severity = Critical
		case v.Address.Addr().Is6():
			severity = Warning
		}
		// Some of its samples may have shown what is worse than being down.
		v.Severity = worse(severity, v.seen)
	}
}
