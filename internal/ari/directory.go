package ari

import (
	"crypto/x509"
	"slices"
	"strings"
)

// Where the address of a directory comes from.
const (
	FromClient = "client" // the ACME client's files
	FromLog    = "log"    // what the ACME client logged
	FromIssuer = "issuer" // the issuer's name in the certificate
)

// publicCA is a CA whose directory the issuer's name tells for sure.
type publicCA struct {
	organization string
	directory    string
	host         string
}

var publicCAs = []publicCA{
	{"Let's Encrypt", "https://acme-v02.api.letsencrypt.org/directory", "acme-v02.api.letsencrypt.org"},
	{"(STAGING) Let's Encrypt", "https://acme-staging-v02.api.letsencrypt.org/directory", "acme-staging-v02.api.letsencrypt.org"},
	{"Google Trust Services", "https://dv.acme-v02.api.pki.goog/directory", "dv.acme-v02.api.pki.goog"},
	{"ZeroSSL", "https://acme.zerossl.com/v2/DV90", "acme.zerossl.com"},
}

// Directory chooses the ACME directory of the CA that issued a leaf. configured is
// what the ACME client's files name, logged what its log named; both may be empty.
//
// The CA that issued the leaf has to be asked, and the two may name another one: a
// client may have been configured anew since, or have had a dry run at a staging
// CA. So the address of a known CA is taken for leaves of that CA only. A log can
// be forged by whoever gets a line into it, and is not needed where the issuer
// tells the CA.
func Directory(configured, logged string, leaf *x509.Certificate) (directory, from string, ok bool) {
	issuer := issuerOf(leaf)
	if u, err := address(configured); err == nil {
		server := slices.IndexFunc(publicCAs, func(ca publicCA) bool { return strings.EqualFold(ca.host, u.Hostname()) })
		if server < 0 || issuer < 0 || server == issuer {
			return u.String(), FromClient, true
		}
	}
	if issuer >= 0 {
		return publicCAs[issuer].directory, FromIssuer, true
	}
	if u, err := address(logged); err == nil {
		return u.String(), FromLog, true
	}
	return "", "", false
}

// issuerOf finds the CA of a leaf, -1 when it is not a known one.
func issuerOf(leaf *x509.Certificate) int {
	if leaf == nil {
		return -1
	}
	const staging = "(STAGING) "
	for _, organization := range leaf.Issuer.Organization {
		if strings.HasPrefix(leaf.Issuer.CommonName, staging) && !strings.HasPrefix(organization, staging) {
			organization = staging + organization
		}
		organization = strings.TrimSuffix(organization, " LLC") // Google's until 2024
		if i := slices.IndexFunc(publicCAs, func(ca publicCA) bool { return ca.organization == organization }); i >= 0 {
			return i
		}
	}
	return -1
}
