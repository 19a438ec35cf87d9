package watch

import (
	"crypto/x509"
	"path/filepath"
)

// LoadCertificate is Load for the certificate file alone: no key is looked for,
// and the pair's Key is KeyUnknown.
func LoadCertificate(cert string) (*Pair, *Fault) {
	if cert == "" {
		return Load(cert, "")
	}
	r := newResolver()
	t, _, fault := find(r, cert)
	if fault != nil {
		return nil, fault
	}
	text, _, fault, err := read(cert)
	switch {
	case err != nil:
		return nil, systemFault(cert, err)
	case fault != nil:
		return nil, fault
	}
	defer clear(text)
	blocks, fault := decode(cert, text)
	defer wipe(blocks)
	if fault != nil {
		return nil, fault
	}
	s := &sight{cert: t}
	s.judge(r, cert, "", blocks, nil, nil)
	return s.pair, s.fault
}

// History returns the leaves that certbot's archive holds besides the one in
// cert, oldest first, at most 64; none in every other layout.
func History(cert string) []*x509.Certificate {
	pair, fault := LoadCertificate(cert)
	if fault != nil {
		return nil
	}
	real, err := filepath.EvalSymlinks(cert)
	if err != nil {
		return nil
	}
	return history(cert, real, pair.Leaf())
}
