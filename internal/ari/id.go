package ari

import (
	"crypto/x509"
	"encoding/base64"
	"errors"
	"slices"
)

// ID is the identifier of a certificate as RFC 9773 section 4.1 builds it: its
// authority key identifier and its serial number, base64url, with a dot between.
func ID(leaf *x509.Certificate) (string, error) {
	if leaf == nil || leaf.SerialNumber == nil {
		return "", errors.New("there is no certificate to ask about")
	}
	if len(leaf.AuthorityKeyId) == 0 {
		return "", errors.New("the certificate names no authority key identifier")
	}
	if leaf.SerialNumber.Sign() < 0 {
		return "", errors.New("the certificate has a negative serial number")
	}
	// The content of a DER INTEGER: a leading zero keeps it positive.
	serial := leaf.SerialNumber.Bytes()
	if len(serial) == 0 || serial[0] >= 0x80 {
		serial = slices.Insert(serial, 0, 0)
	}
	encode := base64.RawURLEncoding.EncodeToString
	return encode(leaf.AuthorityKeyId) + "." + encode(serial), nil
}
