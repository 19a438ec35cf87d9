package ari

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"testing"
)

func TestDirectory(t *testing.T) {
	const (
		production = "https://acme-v02.api.letsencrypt.org/directory"
		staging    = "https://acme-staging-v02.api.letsencrypt.org/directory"
		google     = "https://dv.acme-v02.api.pki.goog/directory"
		zerossl    = "https://acme.zerossl.com/v2/DV90"
		private    = "https://ca.internal:9000/acme/acme/directory"
	)
	by := func(organization, cn string) *x509.Certificate {
		return &x509.Certificate{Issuer: pkix.Name{Organization: []string{organization}, CommonName: cn}}
	}
	le, own := by("Let's Encrypt", "E7"), by("Example", "Example Issuing CA")
	for _, c := range []struct {
		name               string
		configured, logged string
		leaf               *x509.Certificate
		want, from         string
	}{
		{"the client says so", production, "", le, production, FromClient},
		{"a proxy before the CA is configured", "https://acme-proxy.internal/le", "", le, "https://acme-proxy.internal/le", FromClient},
		{"the client has another CA by now", zerossl, "", le, production, FromIssuer},
		{"the client was set to staging since", staging, "", le, production, FromIssuer},
		{"a staging leaf is still there", production, "", by("(STAGING) Let's Encrypt", "(STAGING) Ersatz Edamame E1"), staging, FromIssuer},
		{"staging by its common name", "", "", by("Let's Encrypt", "(STAGING) Puzzling Parsnip E7"), staging, FromIssuer},
		{"nobody says", "", "", le, production, FromIssuer},
		{"a dry run was logged", "", staging, le, production, FromIssuer},
		{"a forged line was logged", "", "https://evil.example/directory", le, production, FromIssuer},
		{"the log of a private CA's client", "", private, own, private, FromLog},
		{"the client of a private CA", private, staging, own, private, FromClient},
		{"a private CA nobody names", "", "", own, "", ""},
		{"Google", "", "", by("Google Trust Services", "WE1"), google, FromIssuer},
		{"Google before 2024", "", "", by("Google Trust Services LLC", "GTS CA 1P5"), google, FromIssuer},
		{"ZeroSSL", "", "", by("ZeroSSL", "ZeroSSL ECC Domain Secure Site CA"), zerossl, FromIssuer},
		{"one that pretends", "", "", by("Let's Encrypt Fanclub", "E7"), "", ""},
		{"a local test CA", "http://127.0.0.1:4001/directory", "", own, "http://127.0.0.1:4001/directory", FromClient},
		{"http", "http://ca.internal/directory", "", own, "", ""},
		{"http in the log", "", "http://ca.internal/directory", own, "", ""},
		{"not an address", "letsencrypt", "\x00", own, "", ""},
		{"a password in it", "https://me:secret@ca.internal/", "", own, "", ""},
		{"no leaf", private, "", nil, private, FromClient},
		{"no leaf, nothing", "", "", nil, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, from, ok := Directory(c.configured, c.logged, c.leaf)
			if got != c.want || from != c.from || ok != (c.want != "") {
				t.Errorf("%q from %q, %v; want %q from %q", got, from, ok, c.want, c.from)
			}
		})
	}
	for _, ca := range publicCAs {
		if u, err := address(ca.directory); err != nil || u.Hostname() != ca.host {
			t.Errorf("%+v: %v", ca, err)
		}
	}
}
