package verify

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A testCA is a throw-away root with one intermediate.
type testCA struct {
	root, inter       *x509.Certificate
	rootKey, interKey crypto.Signer
}

var serial atomic.Int64

func newKey(t testing.TB, keyType string) crypto.Signer {
	t.Helper()
	var key crypto.Signer
	var err error
	switch keyType {
	case "rsa":
		key = rsaKey()
	case "ed25519":
		_, key, err = ed25519.GenerateKey(rand.Reader)
	default:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// One RSA key serves all tests: making one is slow.
var rsaKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

func signCert(t testing.TB, template, parent *x509.Certificate, pub crypto.PublicKey, signer crypto.Signer) *x509.Certificate {
	t.Helper()
	template.SerialNumber = big.NewInt(serial.Add(1))
	der, err := x509.CreateCertificate(rand.Reader, template, parent, pub, signer)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func caTemplate(name string, from, until time.Time) *x509.Certificate {
	return &x509.Certificate{
		Subject:   pkix.Name{CommonName: name},
		NotBefore: from, NotAfter: until,
		IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
}

func newCA(t testing.TB) *testCA {
	t.Helper()
	now := time.Now()
	ca := &testCA{rootKey: newKey(t, "ecdsa"), interKey: newKey(t, "ecdsa")}
	root := caTemplate("Test Root", now.AddDate(-10, 0, 0), now.AddDate(10, 0, 0))
	ca.root = signCert(t, root, root, ca.rootKey.Public(), ca.rootKey)
	ca.inter = ca.intermediate(t, now.AddDate(-5, 0, 0), now.AddDate(5, 0, 0))
	return ca
}

// intermediate signs the intermediate's key again, with other dates.
func (ca *testCA) intermediate(t testing.TB, from, until time.Time) *x509.Certificate {
	return signCert(t, caTemplate("Test Intermediate", from, until), ca.root, ca.interKey.Public(), ca.rootKey)
}

func (ca *testCA) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(ca.root)
	return p
}

// spec says what a leaf is like; zero fields have usable values.
type spec struct {
	names   []string // default: localhost and both loopback addresses
	keyType string   // default: ecdsa
	from    time.Time
	until   time.Time
	usage   []x509.ExtKeyUsage
}

var loopbackNames = []string{"localhost", "127.0.0.1", "::1"}

// pair is a leaf with its chain and key.
type pair struct {
	chain []*x509.Certificate
	key   crypto.Signer
}

func (p pair) leaf() *x509.Certificate { return p.chain[0] }

func (p pair) tls() tls.Certificate {
	c := tls.Certificate{PrivateKey: p.key, Leaf: p.chain[0]}
	for _, x := range p.chain {
		c.Certificate = append(c.Certificate, x.Raw)
	}
	return c
}

// serving returns the pair with another chain served.
func (p pair) serving(chain ...*x509.Certificate) pair { return pair{chain, p.key} }

func leafTemplate(s spec) *x509.Certificate {
	now := time.Now()
	if s.names == nil {
		s.names = loopbackNames
	}
	if s.from.IsZero() {
		s.from = now.Add(-24 * time.Hour)
	}
	if s.until.IsZero() {
		s.until = s.from.Add(90 * 24 * time.Hour)
	}
	if s.usage == nil {
		s.usage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	}
	template := &x509.Certificate{NotBefore: s.from, NotAfter: s.until, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: s.usage, BasicConstraintsValid: true}
	for _, n := range s.names {
		if ip, err := netip.ParseAddr(n); err == nil {
			template.IPAddresses = append(template.IPAddresses, ip.AsSlice())
		} else {
			template.DNSNames = append(template.DNSNames, n)
		}
	}
	return template
}

func (ca *testCA) issue(t testing.TB, s spec) pair {
	t.Helper()
	key := newKey(t, s.keyType)
	leaf := signCert(t, leafTemplate(s), ca.inter, key.Public(), ca.interKey)
	return pair{[]*x509.Certificate{leaf, ca.inter}, key}
}

func selfSigned(t testing.TB, s spec) pair {
	t.Helper()
	key := newKey(t, s.keyType)
	template := leafTemplate(s)
	template.Subject.CommonName = "self"
	return pair{[]*x509.Certificate{signCert(t, template, template, key.Public(), key)}, key}
}

func expecting(p pair, history ...pair) Expectation {
	e := Expectation{Chain: p.chain}
	for _, h := range history {
		e.History = append(e.History, FingerprintOf(h.leaf()))
	}
	return e
}

func writePEM(t testing.TB, name string, certs ...*x509.Certificate) {
	t.Helper()
	var out []byte
	for _, c := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	if err := os.WriteFile(name, out, 0o600); err != nil {
		t.Fatal(err)
	}
}

func days(n float64) time.Duration { return time.Duration(n * 24 * float64(time.Hour)) }
