package verify

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// KeyType names the type of a certificate's key: rsa, ecdsa, ed25519, or "".
func KeyType(c *x509.Certificate) string {
	switch c.PublicKey.(type) {
	case *rsa.PublicKey:
		return "rsa"
	case *ecdsa.PublicKey:
		return "ecdsa"
	case ed25519.PublicKey:
		return "ed25519"
	}
	return ""
}

// Covers reports whether c is valid for every one of names: DNS names (a
// wildcard is covered by the same wildcard only) and IP addresses.
func Covers(c *x509.Certificate, names ...string) bool {
	for _, name := range names {
		if strings.HasPrefix(name, "*.") {
			if !slices.ContainsFunc(c.DNSNames, func(n string) bool { return strings.EqualFold(n, name) }) {
				return false
			}
		} else if c.VerifyHostname(name) != nil {
			return false
		}
	}
	return true
}

// SameNames reports whether a and b are for the same set of names: DNS names
// without regard to case and IP addresses. Certificates without any are never
// the same.
func SameNames(a, b *x509.Certificate) bool {
	names := nameSet(a)
	return len(names) > 0 && slices.Equal(names, nameSet(b))
}

func nameSet(c *x509.Certificate) []string {
	out := make([]string, 0, len(c.DNSNames)+len(c.IPAddresses))
	for _, n := range c.DNSNames {
		out = append(out, strings.ToLower(n))
	}
	for _, ip := range c.IPAddresses {
		out = append(out, "ip "+net.IP(ip).String())
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// A bench judges every sample of one target. It is read-only and may be shared.
type bench struct {
	name    string
	want    Expectation
	leaf    *x509.Certificate // expected; nil when nothing is
	print   Fingerprint       // of leaf
	roots   *x509.CertPool
	extra   []*x509.Certificate // the file's own chain, then Expectation.Extra
	key     chainKey            // of roots and extra
	cache   *chainCache         // may be nil
	now     func() time.Time
	keyType string // expected
}

func newBench(name string, want Expectation, roots *x509.CertPool, cache *chainCache, now func() time.Time) *bench {
	b := &bench{name: name, want: want, roots: roots, cache: cache, now: now}
	if len(want.Chain) > 0 {
		b.leaf, _ = leafOf(want.Chain)
		b.print = FingerprintOf(b.leaf)
		b.keyType = KeyType(b.leaf)
		for _, c := range want.Chain {
			if c != b.leaf {
				b.extra = append(b.extra, c)
			}
		}
	}
	b.extra = append(b.extra, want.Extra...)
	b.key = newChainKey(roots, b.extra)
	return b
}

// A finding is what one served chain was judged to be.
type finding struct {
	faults   []Code // worst first
	matching bool   // the leaf is an accepted one
	severity Severity
	detail   string // for faults[0], or of what is served
	hint     string
}

// judge judges one served chain. Time, name, chain and identity are judged
// each for itself: none hides another.
func (b *bench) judge(chain []*x509.Certificate) finding {
	now := b.now()
	leaf, _ := leafOf(chain)
	var faults []Code
	faults = append(faults, checkDates(leaf, now)...)
	if leaf.VerifyHostname(b.name) != nil {
		faults = append(faults, WrongName)
	}
	path := b.path(chain, now)
	faults = append(faults, path.faults...)
	identity := b.identify(leaf, len(faults) == 0 || !slices.ContainsFunc(faults, disqualifies))
	if identity != Serving {
		faults = append(faults, identity)
	}
	f := finding{faults: sortFaults(faults), matching: identity == Serving, severity: Info}
	for _, c := range f.faults {
		if c == Stale {
			f.severity = worse(f.severity, staleSeverity(leaf, now))
		} else {
			f.severity = worse(f.severity, c.severity())
		}
	}
	f.detail, f.hint = b.sentence(f, leaf, path)
	return f
}

// disqualifies reports whether a leaf with this fault is not "valid, trusted
// and for the name".
func disqualifies(c Code) bool {
	return c == Expired || c == NotYetValid || c == WrongName || c == Untrusted
}

// identify returns Serving, Stale, Ahead or Foreign. sound says that the leaf is
// valid, trusted and covers the name.
func (b *bench) identify(leaf *x509.Certificate, sound bool) Code {
	if b.leaf == nil {
		return Serving
	}
	print := FingerprintOf(leaf)
	if print == b.print || b.want.AnyValid && sound {
		return Serving
	}
	if slices.Contains(b.want.History, print) {
		if leaf.NotBefore.After(b.leaf.NotBefore) {
			return Ahead
		}
		return Stale
	}
	if slices.Contains(b.want.Siblings, print) && leaf.VerifyHostname(b.name) == nil {
		return Serving
	}
	if SameNames(leaf, b.leaf) {
		switch {
		case leaf.NotBefore.Before(b.leaf.NotBefore):
			return Stale
		case leaf.NotBefore.After(b.leaf.NotBefore):
			return Ahead
		}
	}
	return Foreign
}

func (b *bench) path(chain []*x509.Certificate, now time.Time) pathResult {
	if b.cache == nil {
		return checkPath(chain, b.roots, b.extra, now)
	}
	key := b.key.with(chain)
	if r, ok := b.cache.get(key, now); ok {
		return r
	}
	r := checkPath(chain, b.roots, b.extra, now)
	b.cache.put(key, r)
	return r
}

func (b *bench) sentence(f finding, leaf *x509.Certificate, path pathResult) (detail, hint string) {
	if len(f.faults) == 0 {
		detail = fmt.Sprintf("serves %s until %s", short(leaf), day(leaf.NotAfter))
		if b.leaf != nil && FingerprintOf(leaf) != b.print {
			detail = fmt.Sprintf("serves %s until %s, which is accepted here; the file holds %s", short(leaf), day(leaf.NotAfter), short(b.leaf))
		}
		return detail, ""
	}
	switch f.faults[0] {
	case Expired:
		detail, hint = fmt.Sprintf("serves %s, which expired on %s", short(leaf), day(leaf.NotAfter)), "renew the certificate"
		if b.leaf != nil && !f.matching {
			detail += "; the file holds " + dated(b.leaf)
			hint = "reload the server: the file holds another certificate"
		}
	case NotYetValid:
		detail, hint = dateSentence(NotYetValid, leaf)
	case WrongName:
		detail = fmt.Sprintf("serves %s for %s, not for %s", short(leaf), namesOf(leaf), printable(b.name, 80))
		hint = "check the server's name and listen settings for this address: another virtual host answers"
		if f.matching && b.leaf != nil {
			hint = "the certificate on disk does not cover this name: renew it with the name, or take the endpoint off the list"
		}
	case Untrusted:
		detail, hint = path.detail, path.hint
		if b.leaf != nil && !f.matching {
			detail += "; the file holds " + dated(b.leaf)
		}
	case Foreign:
		detail = fmt.Sprintf("serves %s by %s for %s, which is not of this lineage; the file holds %s", dated(leaf), issuerOf(leaf), namesOf(leaf), dated(b.leaf))
		hint = "find out who answers here (a CDN, a load balancer, another ACME client); if that is meant, accept any valid certificate for this endpoint"
	case Stale:
		detail = fmt.Sprintf("serves %s, the file holds %s", dated(leaf), dated(b.leaf))
		hint = "reload the server: it still uses the certificate it loaded before the renewal"
	case Ahead:
		detail = fmt.Sprintf("serves %s, which is newer than the file's %s", dated(leaf), dated(b.leaf))
		hint = "do not reload; find out why the file is older than what is served (restored from a backup, or the server loads another file)"
	case ChainIncomplete:
		detail, hint = path.detail, path.hint
		if b.leaf != nil && f.matching && len(b.want.Chain) == 1 {
			hint = "the certificate file holds the leaf alone: let the ACME client write the full chain"
		}
	default:
		detail, hint = path.detail, path.hint
	}
	if more := f.faults[1:]; len(more) > 0 {
		words := make([]string, len(more))
		for i, c := range more {
			words[i] = string(c)
		}
		detail += " (also " + strings.Join(words, ", ") + ")"
	}
	return detail, hint
}

// judged is one sample with its finding.
type judged struct {
	sample
	finding
}

// failed reports whether no leaf was seen, or the handshake broke on it.
func (j *judged) failed() bool { return j.code != "" }

func (j *judged) good() bool { return !j.failed() && j.matching }

// accepted reports whether the sample counts towards serving.
func (j *judged) accepted() bool {
	return j.good() && !slices.ContainsFunc(j.faults, func(c Code) bool { return c.severity().Rank() > Warning.Rank() })
}

// consider judges what a sample brought.
func (b *bench) consider(s sample) judged {
	j := judged{sample: s}
	if len(s.chain) > 0 {
		j.finding = b.judge(s.chain)
	}
	if s.code != "" {
		j.faults = sortFaults(append(slices.Clone(j.faults), s.code))
		j.severity = worse(j.severity, s.code.severity())
		if j.faults[0] == s.code {
			j.detail, j.hint = s.why, s.advice
		}
	} else if s.why != "" {
		j.detail += "; " + s.why
	}
	return j
}

// verdict sums up the samples of one address, oldest first; there is at least
// one. What it says follows from the samples alone, not from when it is asked.
func (b *bench) verdict(e Endpoint, addr netip.AddrPort, samples []judged) Verdict {
	v := Verdict{Endpoint: e, Address: addr, Transport: "tcp", KeyType: b.keyType, Expected: b.leaf, Severity: Info}
	classical := true // every handshake needed a hello without post-quantum shares
	other, broken := 0, 0
	var faults []Code
	var deciding *judged
	for i := range samples {
		j := &samples[i]
		v.Took = max(v.Took, j.took)
		v.Severity = worse(v.Severity, j.severity)
		faults = append(faults, j.faults...)
		classical = classical && j.classical
		if len(j.chain) > 0 {
			v.Samples++
			if j.matching {
				v.Matching++
				if b.sibling(j.chain) {
					v.Siblings++
				}
			} else {
				other++
			}
		}
		if j.failed() {
			broken++
		}
		if deciding == nil || rank(j.faults) <= rank(deciding.faults) {
			deciding = j
		}
		if j.good() {
			if v.Since.IsZero() {
				v.Since = j.start
			}
		} else {
			v.Since = time.Time{}
		}
	}
	v.Detail, v.Hint = deciding.detail, deciding.hint
	// The deciding sample may be one without an answer; then what others saw is
	// still what is served.
	for i := len(samples) - 1; i >= 0 && v.Served == nil; i-- {
		if len(deciding.chain) > 0 {
			v.Served = deciding.chain
		} else {
			v.Served = samples[i].chain
		}
	}
	v.Served = v.Served[:min(len(v.Served), maxChain)]
	if v.KeyType == "" && len(v.Served) > 0 {
		leaf, _ := leafOf(v.Served)
		v.KeyType = KeyType(leaf)
	}
	if other > 0 && v.Matching > 0 {
		faults = append(faults, Mixed)
		v.Severity = worse(v.Severity, Mixed.severity())
	}
	if classical {
		faults = append(faults, PQIntolerant)
		v.Severity = worse(v.Severity, PQIntolerant.severity())
	}
	v.Faults = sortFaults(faults)
	v.seen = Info
	for i := range samples {
		if len(samples[i].chain) > 0 {
			v.seen = worse(v.seen, samples[i].severity)
		}
	}
	v.Code = Serving
	if len(v.Faults) > 0 {
		v.Code = v.Faults[0]
	}
	switch {
	case v.Code == Mixed:
		v.Detail = fmt.Sprintf("%d of %d handshakes showed another leaf than the file's %s: %s", other, v.Samples, short(b.leaf), v.Detail)
		v.Hint = "a second process or another machine behind this address still holds the other certificate: find it (old workers, a second instance, a backend) and reload it"
	case v.Code == PQIntolerant:
		v.Detail += "; it answers only a TLS hello without post-quantum key shares"
		v.Hint = "something on the path cannot take a TLS hello larger than one packet: update the server or the middlebox"
	case broken > 0 && broken < len(samples):
		v.Detail = fmt.Sprintf("%d of %d tries failed: %s", broken, len(samples), v.Detail)
	}
	if v.Down() {
		v.Tries = 1
		for i := len(samples) - 1; i >= 0 && samples[i].failed(); i-- {
			v.DownSince = samples[i].start
		}
	}
	return v
}

// sibling reports whether an accepted chain is that of another watched lineage.
func (b *bench) sibling(chain []*x509.Certificate) bool {
	if b.leaf == nil || b.want.AnyValid || len(b.want.Siblings) == 0 {
		return false
	}
	leaf, _ := leafOf(chain)
	return FingerprintOf(leaf) != b.print
}

func rank(faults []Code) int {
	if len(faults) == 0 {
		return Serving.Rank()
	}
	return faults[0].Rank()
}
