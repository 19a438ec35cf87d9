package watchdog

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"slices"

	"github.com/renewatch/renewatch/notify"
	"github.com/renewatch/renewatch/verify"
)

// Describe tells of a leaf what events tell.
func Describe(c *x509.Certificate) notify.Certificate {
	return notify.Certificate{
		SHA256: fingerprint(c), Serial: serial(c), Names: namesOf(c), Issuer: issuer(c),
		NotBefore: c.NotBefore.UTC(), NotAfter: c.NotAfter.UTC(), KeyType: verify.KeyType(c),
	}
}

// WireVerdict turns a verdict of package verify into the one that events and
// `check --json` print.
func WireVerdict(certificate, server string, v verify.Verdict) notify.Verdict {
	out := notify.Verdict{
		Certificate: certificate, Endpoint: v.Endpoint.String(), Server: server, Transport: v.Transport, KeyType: v.KeyType,
		Code: string(v.Code), Faults: []string{}, Severity: notify.Severity(v.Severity), Samples: v.Samples, Matching: v.Matching,
		TookMS: v.Took.Milliseconds(), Detail: v.Detail, Hint: v.Hint,
	}
	if v.Address.IsValid() {
		out.Address = v.Address.String()
	}
	for _, f := range v.Faults {
		out.Faults = append(out.Faults, string(f))
	}
	if v.Expected != nil {
		out.ExpectedSHA256 = fingerprint(v.Expected)
	}
	if len(v.Served) > 0 {
		leaf := v.Served[0]
		out.Served = &notify.Served{SHA256: fingerprint(leaf), Serial: serial(leaf), Names: namesOf(leaf),
			NotBefore: leaf.NotBefore.UTC(), NotAfter: leaf.NotAfter.UTC(), Issuer: issuer(leaf), Chain: []string{}}
		for _, c := range v.Served {
			out.Served.Chain = append(out.Served.Chain, fingerprint(c))
		}
	}
	return out
}

func fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}

func serial(c *x509.Certificate) string {
	if c.SerialNumber == nil {
		return ""
	}
	if c.SerialNumber.Sign() == 0 {
		return "00"
	}
	return hex.EncodeToString(c.SerialNumber.Bytes())
}

// namesOf returns the names a leaf is for. Names are bounded: a certificate may
// hold thousands.
func namesOf(c *x509.Certificate) []string {
	names := slices.Clone(c.DNSNames)
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	if names == nil {
		names = []string{}
	}
	return names
}

func issuer(c *x509.Certificate) string {
	if c.Issuer.CommonName != "" {
		return c.Issuer.CommonName
	}
	return c.Issuer.String()
}
