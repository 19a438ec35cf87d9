package certtest

import (
	"crypto"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
)

// Leaf is a certificate with its key and its chain.
type Leaf struct {
	Cert  *x509.Certificate
	Key   crypto.Signer
	Chain []*x509.Certificate // intermediates, the issuing one first; no root
}

// ParseLeaf reads what an ACME client got: the chain, leaf first, and the key.
// They must belong together.
func ParseLeaf(fullchain, key []byte) (*Leaf, error) {
	pair, err := tls.X509KeyPair(fullchain, key)
	if err != nil {
		return nil, err
	}
	signer, ok := pair.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a key of type %T cannot sign", pair.PrivateKey)
	}
	leaf := &Leaf{Key: signer}
	for i, der := range pair.Certificate {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		if i == 0 {
			leaf.Cert = c
		} else {
			leaf.Chain = append(leaf.Chain, c)
		}
	}
	if leaf.Cert == nil {
		return nil, errors.New("no certificate")
	}
	return leaf, nil
}

// CertPEM returns the leaf alone: certbot's cert.pem.
func (l *Leaf) CertPEM() []byte { return CertificatesPEM(l.Cert) }

// ChainPEM returns the intermediates: certbot's chain.pem.
func (l *Leaf) ChainPEM() []byte { return CertificatesPEM(l.Chain...) }

// FullchainPEM returns leaf and intermediates: certbot's fullchain.pem.
func (l *Leaf) FullchainPEM() []byte { return append(l.CertPEM(), l.ChainPEM()...) }

// KeyPEM returns the key as PKCS #8: certbot's privkey.pem.
func (l *Leaf) KeyPEM() []byte {
	der := must(x509.MarshalPKCS8PrivateKey(l.Key))
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// CombinedPEM returns leaf, intermediates and key in one, as HAProxy wants it.
func (l *Leaf) CombinedPEM() []byte { return append(l.FullchainPEM(), l.KeyPEM()...) }

// TLS returns leaf, chain and key as crypto/tls serves them.
func (l *Leaf) TLS() tls.Certificate {
	t := tls.Certificate{Certificate: [][]byte{l.Cert.Raw}, PrivateKey: l.Key, Leaf: l.Cert}
	for _, c := range l.Chain {
		t.Certificate = append(t.Certificate, c.Raw)
	}
	return t
}

// SHA256 returns the fingerprint of the leaf in lower-case hex.
func (l *Leaf) SHA256() string {
	sum := sha256.Sum256(l.Cert.Raw)
	return hex.EncodeToString(sum[:])
}

// Serial returns the serial number in lower-case hex, two digits for each byte.
func (l *Leaf) Serial() string { return hex.EncodeToString(l.Cert.SerialNumber.Bytes()) }

// CertificatesPEM writes certificates as PEM, in the order given.
func CertificatesPEM(certs ...*x509.Certificate) []byte {
	var out []byte
	for _, c := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return out
}
