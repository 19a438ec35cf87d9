// Package certtest holds the real counterparts that tests and examples need:
// throw-away certificate authorities, certificate files in the layouts of ACME
// clients, a TLS server that keeps its certificate until it is reloaded, and
// pebble, a whole ACME CA, in this process. Everything listens on loopback.
//
// What can only fail by a mistake in the calling test (an unknown key type, say)
// panics, as in net/http/httptest; what the system can refuse returns an error.
package certtest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net/netip"
	"sync/atomic"
	"time"
)

// KeyType is a kind of key.
type KeyType string

// The kinds of key: RSA 2048, ECDSA P-256, Ed25519.
const (
	RSA     KeyType = "rsa"
	ECDSA   KeyType = "ecdsa"
	Ed25519 KeyType = "ed25519"
)

// NewKey makes a key.
func NewKey(t KeyType) crypto.Signer {
	switch t {
	case RSA:
		return must(rsa.GenerateKey(rand.Reader, 2048))
	case ECDSA, "":
		return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	case Ed25519:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return must(key, err)
	}
	panic(fmt.Sprintf("certtest: unknown key type %q", t))
}

// CAOptions say what a CA looks like.
type CAOptions struct {
	// Name appears in the subjects. Empty: a name of its own for each CA.
	Name string
	// Intermediates between root and leaf. 0: one; negative: none.
	Intermediates int
	// KeyType of root and intermediates. Empty: ECDSA.
	KeyType KeyType
	// NotBefore of root and intermediates. Zero: 30 days ago.
	NotBefore time.Time
	// NotAfter of root and intermediates. Zero: in ten years.
	NotAfter time.Time
}

// CA is a root with its intermediates. Its methods may be called at the same
// time.
type CA struct {
	root    *x509.Certificate
	rootKey crypto.Signer
	chain   []*x509.Certificate // intermediates, the issuing one first
	issuer  *x509.Certificate
	key     crypto.Signer // of issuer
}

var caNumber atomic.Int64

// NewCA makes a CA.
func NewCA(o CAOptions) *CA {
	if o.Name == "" {
		o.Name = fmt.Sprintf("Certtest %d", caNumber.Add(1))
	}
	if o.NotBefore.IsZero() {
		o.NotBefore = time.Now().AddDate(0, 0, -30)
	}
	if o.NotAfter.IsZero() {
		o.NotAfter = time.Now().AddDate(10, 0, 0)
	}
	if o.Intermediates == 0 {
		o.Intermediates = 1
	}
	authority := func(cn string, parent *x509.Certificate, signer crypto.Signer) (*x509.Certificate, crypto.Signer) {
		key := NewKey(o.KeyType)
		t := &x509.Certificate{
			SerialNumber:          serial(),
			Subject:               pkix.Name{CommonName: cn, Organization: []string{o.Name}},
			NotBefore:             o.NotBefore,
			NotAfter:              o.NotAfter,
			KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
			BasicConstraintsValid: true,
			IsCA:                  true,
		}
		if parent == nil {
			parent, signer = t, key
		}
		return sign(t, parent, key.Public(), signer), key
	}
	ca := &CA{}
	ca.root, ca.rootKey = authority(o.Name+" Root", nil, nil)
	ca.issuer, ca.key = ca.root, ca.rootKey
	for i := range max(o.Intermediates, 0) {
		ca.issuer, ca.key = authority(fmt.Sprintf("%s Intermediate %d", o.Name, i+1), ca.issuer, ca.key)
		ca.chain = append([]*x509.Certificate{ca.issuer}, ca.chain...)
	}
	return ca
}

// Root returns the root.
func (ca *CA) Root() *x509.Certificate { return ca.root }

// RootPEM returns the root as PEM.
func (ca *CA) RootPEM() []byte { return CertificatesPEM(ca.root) }

// Intermediates returns the intermediates, the issuing one first.
func (ca *CA) Intermediates() []*x509.Certificate {
	return append([]*x509.Certificate(nil), ca.chain...)
}

// Pool returns a pool with nothing but the root.
func (ca *CA) Pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(ca.root)
	return p
}

// CrossSign returns the other CA's root key certified by this CA's root: an
// intermediate with which a leaf of other chains to this root too.
func (ca *CA) CrossSign(other *CA) *x509.Certificate {
	t := *other.root
	t.SerialNumber = serial()
	t.AuthorityKeyId = nil
	return sign(&t, ca.root, other.root.PublicKey, ca.rootKey)
}

// LeafOptions say what a leaf looks like.
type LeafOptions struct {
	// Names are DNS names, wildcards included, and IP addresses.
	Names []string
	// NotBefore. Zero: an hour ago.
	NotBefore time.Time
	// NotAfter. Zero: 90 days after NotBefore.
	NotAfter time.Time
	// KeyType of a new key. Empty: ECDSA.
	KeyType KeyType
	// Key to use instead of a new one, as certbot --reuse-key does.
	Key crypto.Signer
	// Edit changes the certificate just before it is signed.
	Edit func(*x509.Certificate)
}

// Issue makes a leaf.
func (ca *CA) Issue(o LeafOptions) *Leaf {
	key := o.Key
	if key == nil {
		key = NewKey(o.KeyType)
	}
	t := &x509.Certificate{
		SerialNumber:          serial(),
		NotBefore:             o.NotBefore,
		NotAfter:              o.NotAfter,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	if t.NotBefore.IsZero() {
		t.NotBefore = time.Now().Add(-time.Hour)
	}
	if t.NotAfter.IsZero() {
		t.NotAfter = t.NotBefore.AddDate(0, 0, 90)
	}
	for _, name := range o.Names {
		if ip, err := netip.ParseAddr(name); err == nil {
			t.IPAddresses = append(t.IPAddresses, ip.AsSlice())
		} else {
			t.DNSNames = append(t.DNSNames, name)
		}
	}
	if o.Edit != nil {
		o.Edit(t)
	}
	return &Leaf{Cert: sign(t, ca.issuer, key.Public(), ca.key), Key: key, Chain: ca.Intermediates()}
}

// SelfSigned makes a leaf that no CA has signed.
func SelfSigned(o LeafOptions) *Leaf {
	key := o.Key
	if key == nil {
		key = NewKey(o.KeyType)
	}
	o.Key = key
	self := &CA{key: key}
	edit := o.Edit
	o.Edit = func(t *x509.Certificate) {
		if edit != nil {
			edit(t)
		}
		self.issuer = t
	}
	return self.Issue(o)
}

func sign(t, parent *x509.Certificate, pub crypto.PublicKey, signer crypto.Signer) *x509.Certificate {
	return must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, t, parent, pub, signer))))
}

// serial draws a number of 127 bits: two leaves never share one, and as its first
// digit is never zero, there is only one way to write it in hex.
func serial() *big.Int {
	n := must(rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 126)))
	return n.SetBit(n, 126, 1)
}

func must[T any](v T, err error) T {
	if err != nil {
		panic("certtest: " + err.Error())
	}
	return v
}
