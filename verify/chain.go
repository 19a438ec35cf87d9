package verify

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"
)

// maxChain is how many served certificates are looked at. Real chains have at
// most five.
const maxChain = 16

// ChainResult is what is wrong with a chain by itself: its leaf's dates, its
// path to a root, its order. It says nothing of names.
type ChainResult struct {
	// Faults, worst first: Expired, NotYetValid, Untrusted, ChainIncomplete,
	// ChainDisorder. Empty when the chain is sound.
	Faults []Code
	Detail string // one sentence for Faults[0]; empty when sound
	Hint   string
}

// OK reports whether the chain is sound, or merely out of order.
func (r *ChainResult) OK() bool {
	return len(r.Faults) == 0 || len(r.Faults) == 1 && r.Faults[0] == ChainDisorder
}

// Has reports whether c is among the faults.
func (r *ChainResult) Has(c Code) bool { return slices.Contains(r.Faults, c) }

// CheckChain judges a chain as a file or a server presents it, leaf first.
// extra holds CA certificates that may help to tell an incomplete chain from an
// untrusted one. roots nil means the system's.
func CheckChain(chain []*x509.Certificate, roots *x509.CertPool, extra []*x509.Certificate, now time.Time) ChainResult {
	if len(chain) == 0 {
		return ChainResult{Faults: []Code{Untrusted}, Detail: "there is no certificate", Hint: "give a file that holds one"}
	}
	leaf, _ := leafOf(chain)
	path := checkPath(chain, roots, extra, now)
	faults := append(checkDates(leaf, now), path.faults...)
	if len(faults) == 0 {
		return ChainResult{}
	}
	r := ChainResult{Faults: sortFaults(faults), Detail: path.detail, Hint: path.hint}
	switch r.Faults[0] {
	case Expired, NotYetValid:
		r.Detail, r.Hint = dateSentence(r.Faults[0], leaf)
	}
	return r
}

// leafOf finds the leaf of a chain and its place: the first certificate, unless
// that is a CA's and one that is none follows.
func leafOf(chain []*x509.Certificate) (*x509.Certificate, int) {
	if isCA(chain[0]) {
		for i, c := range chain[:min(len(chain), maxChain)] {
			if !isCA(c) {
				return c, i
			}
		}
	}
	return chain[0], 0
}

func isCA(c *x509.Certificate) bool { return c.BasicConstraintsValid && c.IsCA }

func checkDates(leaf *x509.Certificate, now time.Time) []Code {
	switch {
	case now.After(leaf.NotAfter):
		return []Code{Expired}
	case now.Before(leaf.NotBefore):
		return []Code{NotYetValid}
	}
	return nil
}

func dateSentence(code Code, leaf *x509.Certificate) (detail, hint string) {
	if code == Expired {
		return fmt.Sprintf("the certificate %s expired on %s", short(leaf), day(leaf.NotAfter)),
			"renew it; if a newer one is on disk, reload the server"
	}
	return fmt.Sprintf("the certificate %s is not valid before %s", short(leaf), day(leaf.NotBefore)),
		"compare this host's clock with the true time; else wait"
}

// pathResult is what checkPath found; it holds for every instant in [from, until).
type pathResult struct {
	faults      []Code // Untrusted or ChainIncomplete, and ChainDisorder
	detail      string
	hint        string
	from, until time.Time
}

// checkPath judges the path from the leaf to a root, at now or, where the leaf
// is not valid now, at the nearest instant where it is: its own dates are
// another fault. x509's Verify stops at the first failure, hence no name and no
// dates of the leaf in here.
func checkPath(chain []*x509.Certificate, roots *x509.CertPool, extra []*x509.Certificate, now time.Time) pathResult {
	res := pathResult{from: now.Add(-time.Minute), until: now.Add(time.Hour)}
	leaf, index := leafOf(chain)
	at := clamp(now, leaf)
	long := len(chain) > maxChain
	if long {
		chain = chain[:maxChain]
	}
	if len(extra) > 4*maxChain {
		extra = extra[:4*maxChain]
	}
	served := make([]*x509.Certificate, 0, len(chain))
	for i, c := range chain {
		if i != index {
			served = append(served, c)
		}
	}
	for _, c := range slices.Concat(chain, extra) {
		res.narrow(c, now)
	}

	paths, err := verifyPath(leaf, served, roots, at)
	if err == nil {
		for _, p := range paths {
			res.narrow(p[len(p)-1], now)
		}
		if why := disorder(chain, index, long, now); why != "" {
			res.faults = []Code{ChainDisorder}
			res.detail = why
			res.hint = "write the leaf first, then each issuer once in order, as fullchain.pem holds them"
		}
		return res
	}
	if index != 0 {
		res.faults = append(res.faults, ChainDisorder)
	}
	all := slices.Concat(served, extra)
	if _, err := verifyPath(leaf, all, roots, at); err == nil {
		res.faults = append(res.faults, ChainIncomplete)
		res.detail = incompleteSentence(leaf, served, at)
		res.hint = "serve the whole chain: fullchain.pem instead of cert.pem"
	} else if ca := expiredIssuer(leaf, all, roots, at); ca != nil {
		res.faults = append(res.faults, ChainIncomplete)
		res.detail = fmt.Sprintf("the intermediate %s is out of date (valid from %s until %s)", subjectOf(ca), day(ca.NotBefore), day(ca.NotAfter))
		res.hint = "serve the issuer's current intermediate; a renewal brings it along"
	} else {
		res.faults = append(res.faults, Untrusted)
		res.detail, res.hint = untrustedSentence(leaf, served, err)
	}
	res.faults = sortFaults(res.faults)
	return res
}

// narrow shrinks the interval in which the result holds to the dates of c.
func (r *pathResult) narrow(c *x509.Certificate, now time.Time) {
	// A certificate is still valid at its notAfter.
	for _, edge := range [...]time.Time{c.NotBefore, c.NotAfter.Add(1)} {
		if edge.After(now) {
			if edge.Before(r.until) {
				r.until = edge
			}
		} else if edge.After(r.from) {
			r.from = edge
		}
	}
}

func clamp(now time.Time, c *x509.Certificate) time.Time {
	if now.After(c.NotAfter) {
		now = c.NotAfter
	}
	if now.Before(c.NotBefore) {
		now = c.NotBefore
	}
	return now
}

func verifyPath(leaf *x509.Certificate, intermediates []*x509.Certificate, roots *x509.CertPool, at time.Time) ([][]*x509.Certificate, error) {
	pool := x509.NewCertPool()
	for _, c := range intermediates {
		pool.AddCert(c)
	}
	return leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: pool, CurrentTime: at})
}

// disorder says what is untidy about a chain that verifies: Go and browsers
// cope, other clients do not.
func disorder(chain []*x509.Certificate, leaf int, long bool, now time.Time) string {
	switch {
	case leaf != 0:
		return "the leaf is not the first certificate of the chain"
	case long:
		return fmt.Sprintf("the chain has more than %d certificates", maxChain)
	}
	for i, c := range chain {
		for _, earlier := range chain[:i] {
			if bytes.Equal(earlier.Raw, c.Raw) {
				return fmt.Sprintf("the chain holds the certificate %s twice", subjectOf(c))
			}
		}
		if i == 0 {
			continue
		}
		if !bytes.Equal(chain[i-1].RawIssuer, c.RawSubject) {
			return fmt.Sprintf("in the chain, %s is not followed by its issuer but by %s", subjectOf(chain[i-1]), subjectOf(c))
		}
		if now.After(c.NotAfter) {
			return fmt.Sprintf("the chain carries %s, which expired on %s", subjectOf(c), day(c.NotAfter))
		}
	}
	return ""
}

func incompleteSentence(leaf *x509.Certificate, served []*x509.Certificate, at time.Time) string {
	last := leaf
	for range served {
		i := slices.IndexFunc(served, func(c *x509.Certificate) bool {
			return bytes.Equal(c.RawSubject, last.RawIssuer) && !bytes.Equal(c.RawSubject, c.RawIssuer)
		})
		if i < 0 {
			break
		}
		last = served[i]
		if at.After(last.NotAfter) || at.Before(last.NotBefore) {
			return fmt.Sprintf("the intermediate %s is out of date (valid from %s until %s)", subjectOf(last), day(last.NotBefore), day(last.NotAfter))
		}
	}
	return fmt.Sprintf("the intermediate certificate %s is missing from the chain", issuerOf(last))
}

// expiredIssuer returns a CA certificate out of date at the instant at that
// would complete the path from leaf to a root were it in date. Such a chain is
// one certificate short; it is not distrusted.
func expiredIssuer(leaf *x509.Certificate, pool []*x509.Certificate, roots *x509.CertPool, at time.Time) *x509.Certificate {
	// Hostile chains can make every signature check count: few are enough.
	const maxChecks = 16
	checks := 0
	child := leaf
	for range maxChain {
		var issuer *x509.Certificate
		for _, c := range pool {
			if !bytes.Equal(c.RawSubject, child.RawIssuer) || bytes.Equal(c.Raw, child.Raw) || bytes.Equal(c.RawSubject, c.RawIssuer) {
				continue
			}
			if checks++; checks > maxChecks {
				return nil
			}
			if child.CheckSignatureFrom(c) == nil {
				issuer = c
				break
			}
		}
		if issuer == nil {
			return nil
		}
		if at.After(issuer.NotAfter) || at.Before(issuer.NotBefore) {
			if _, err := verifyPath(issuer, pool, roots, clamp(at, issuer)); err == nil {
				return issuer
			}
		}
		child = issuer
	}
	return nil
}

func untrustedSentence(leaf *x509.Certificate, served []*x509.Certificate, err error) (detail, hint string) {
	if bytes.Equal(leaf.RawIssuer, leaf.RawSubject) {
		return fmt.Sprintf("the certificate %s is self-signed", short(leaf)),
			"configure the server with a certificate of a public CA, or trust this one as a root"
	}
	top := leaf
	for range served {
		i := slices.IndexFunc(served, func(c *x509.Certificate) bool {
			return bytes.Equal(c.RawSubject, top.RawIssuer) && !bytes.Equal(c.RawSubject, c.RawIssuer)
		})
		if i < 0 {
			break
		}
		top = served[i]
	}
	hint = "if this CA is meant to be trusted (a private or a staging one), add its root to the trusted ones"
	var invalid x509.CertificateInvalidError
	var critical x509.UnhandledCriticalExtension
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.IncompatibleUsage:
		return fmt.Sprintf("the certificate %s is not made for servers (no serverAuth usage)", short(leaf)),
			"ask the CA for a server certificate; check the ACME profile"
	case errors.As(err, &invalid) && invalid.Reason != x509.Expired, errors.As(err, &critical):
		return fmt.Sprintf("the certificate %s does not verify: %s", short(leaf), printable(err.Error(), 160)),
			"ask the CA for another certificate"
	}
	return fmt.Sprintf("the certificate %s leads to the issuer %s, which no trusted root knows", short(leaf), issuerOf(top)), hint
}
