package certtest_test

import (
	"crypto/tls"
	"crypto/x509"
	"testing"
	"time"

	"github.com/renewatch/renewatch/internal/certtest"
)

func TestIssuedLeafChainsToTheRoot(t *testing.T) {
	for _, key := range []certtest.KeyType{certtest.RSA, certtest.ECDSA, certtest.Ed25519} {
		for _, intermediates := range []int{-1, 1, 2} {
			ca := certtest.NewCA(certtest.CAOptions{Intermediates: intermediates})
			leaf := ca.Issue(certtest.LeafOptions{Names: []string{"a.test", "*.b.test", "192.0.2.7"}, KeyType: key})
			if got, want := len(leaf.Chain), max(intermediates, 0); got != want {
				t.Fatalf("%d intermediates, want %d", got, want)
			}
			pool := x509.NewCertPool()
			for _, c := range leaf.Chain {
				pool.AddCert(c)
			}
			for _, name := range []string{"a.test", "x.b.test", "192.0.2.7"} {
				if _, err := leaf.Cert.Verify(x509.VerifyOptions{Roots: ca.Pool(), Intermediates: pool, DNSName: name}); err != nil {
					t.Errorf("%s, %d intermediates, %s: %v", key, intermediates, name, err)
				}
			}
			other := certtest.NewCA(certtest.CAOptions{})
			if _, err := leaf.Cert.Verify(x509.VerifyOptions{Roots: other.Pool(), Intermediates: pool}); err == nil {
				t.Error("another CA's root accepts the leaf")
			}
			pool.AddCert(other.CrossSign(ca))
			if _, err := leaf.Cert.Verify(x509.VerifyOptions{Roots: other.Pool(), Intermediates: pool}); err != nil {
				t.Errorf("cross-signed: %v", err)
			}
		}
	}
}

func TestLeafOptions(t *testing.T) {
	ca := certtest.NewCA(certtest.CAOptions{})
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	first := ca.Issue(certtest.LeafOptions{
		Names: []string{"a.test"}, NotBefore: start, NotAfter: start.Add(time.Hour),
		Edit: func(c *x509.Certificate) { c.Subject.CommonName = "edited" },
	})
	if !first.Cert.NotBefore.Equal(start) || !first.Cert.NotAfter.Equal(start.Add(time.Hour)) {
		t.Errorf("valid from %v to %v", first.Cert.NotBefore, first.Cert.NotAfter)
	}
	if first.Cert.Subject.CommonName != "edited" {
		t.Errorf("common name %q", first.Cert.Subject.CommonName)
	}
	second := ca.Issue(certtest.LeafOptions{Names: []string{"a.test"}, Key: first.Key})
	if first.Serial() == second.Serial() || first.SHA256() == second.SHA256() {
		t.Error("two leaves are the same")
	}
	if _, err := tls.X509KeyPair(second.FullchainPEM(), first.KeyPEM()); err != nil {
		t.Errorf("the key was not reused: %v", err)
	}
	back, err := certtest.ParseLeaf(second.CombinedPEM(), second.CombinedPEM())
	if err != nil {
		t.Fatal(err)
	}
	if back.SHA256() != second.SHA256() || len(back.Chain) != 1 {
		t.Error("a parsed leaf is another one")
	}
	third := ca.Issue(certtest.LeafOptions{Names: []string{"a.test"}})
	if _, err := certtest.ParseLeaf(third.FullchainPEM(), first.KeyPEM()); err == nil {
		t.Error("a key of another certificate is accepted")
	}
}

func TestSelfSigned(t *testing.T) {
	leaf := certtest.SelfSigned(certtest.LeafOptions{Names: []string{"a.test"}})
	pool := x509.NewCertPool()
	pool.AddCert(leaf.Cert)
	if _, err := leaf.Cert.Verify(x509.VerifyOptions{Roots: pool, DNSName: "a.test"}); err != nil {
		t.Error(err)
	}
	if err := leaf.Cert.CheckSignature(leaf.Cert.SignatureAlgorithm, leaf.Cert.RawTBSCertificate, leaf.Cert.Signature); err != nil {
		t.Error(err)
	}
}
