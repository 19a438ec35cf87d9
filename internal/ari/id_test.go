package ari

import (
	"crypto/x509"
	"encoding/hex"
	"math/big"
	"testing"

	"github.com/renewatch/renewatch/internal/certtest"
)

func TestID(t *testing.T) {
	// The example of RFC 9773 section 4.1.
	aki, _ := hex.DecodeString("69885B6B87464041E1B37B847BA0AE2CDE01C8D4")
	for _, c := range []struct {
		name   string
		leaf   *x509.Certificate
		want   string
		refuse bool
	}{
		{"the example", &x509.Certificate{AuthorityKeyId: aki, SerialNumber: big.NewInt(0x87654321)}, "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE", false},
		{"no leading zero", &x509.Certificate{AuthorityKeyId: []byte{0xff}, SerialNumber: big.NewInt(0x7f)}, "_w.fw", false},
		{"a leading zero", &x509.Certificate{AuthorityKeyId: []byte{0xff}, SerialNumber: big.NewInt(0x80)}, "_w.AIA", false},
		{"serial zero", &x509.Certificate{AuthorityKeyId: []byte{0}, SerialNumber: new(big.Int)}, "AA.AA", false},
		{"no AKI", &x509.Certificate{SerialNumber: big.NewInt(1)}, "", true},
		{"no serial", &x509.Certificate{AuthorityKeyId: aki}, "", true},
		{"a negative serial", &x509.Certificate{AuthorityKeyId: aki, SerialNumber: big.NewInt(-1)}, "", true},
		{"nothing", nil, "", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := ID(c.leaf)
			if got != c.want || (err != nil) != c.refuse {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
	if _, err := ID(certtest.SelfSigned(certtest.LeafOptions{Names: []string{"a.test"}}).Cert); err == nil {
		t.Error("a self-signed certificate has an identifier")
	}
}
