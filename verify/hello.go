package verify

import (
	"crypto/tls"
	"strings"
)

// hello is a way to greet a TLS server.
type hello int

const (
	// standardHello is what a current client sends, post-quantum shares included.
	standardHello hello = iota
	// classicalHello leaves those out and fits one packet: some servers and
	// middleboxes cannot take a longer one.
	classicalHello
	// typedHello is limited to TLS 1.2, whose cipher suites name the type of the
	// certificate's key. TLS 1.3's do not, and a server with two certificates
	// then picks one by itself.
	typedHello
)

// classicalCurves leave out nothing but the post-quantum ones: they constrain
// the curve of an ECDSA certificate under TLS 1.2, too.
var classicalCurves = [...]tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384, tls.CurveP521}

// config returns the client configuration of h. It verifies nothing: the chain
// is judged afterwards. It has no session cache, so every handshake is a full
// one. It is broad where the server is old: what is served is the question.
func (h hello) config(name, keyType string) *tls.Config {
	c := &tls.Config{
		ServerName:         name,
		InsecureSkipVerify: true,
		MinVersion:         tls.VersionTLS10,
		CipherSuites:       allSuites(),
	}
	switch h {
	case classicalHello:
		c.CurvePreferences = classicalCurves[:]
	case typedHello:
		c.MaxVersion = tls.VersionTLS12
		c.CurvePreferences = classicalCurves[:]
		c.CipherSuites = suitesFor(keyType)
	}
	return c
}

func allSuites() []uint16 {
	var ids []uint16
	for _, s := range tls.CipherSuites() {
		ids = append(ids, s.ID)
	}
	for _, s := range tls.InsecureCipherSuites() {
		ids = append(ids, s.ID)
	}
	return ids
}

// suitesFor lists the TLS 1.2 suites that need a certificate of this key type.
// Those named after ECDSA are Ed25519's, too.
func suitesFor(keyType string) []uint16 {
	prefixes := []string{"TLS_ECDHE_ECDSA_"}
	if keyType == "rsa" {
		prefixes = []string{"TLS_ECDHE_RSA_", "TLS_RSA_"}
	}
	var ids []uint16
	for _, list := range [...][]*tls.CipherSuite{tls.CipherSuites(), tls.InsecureCipherSuites()} {
		for _, s := range list {
			for _, p := range prefixes {
				if strings.HasPrefix(s.Name, p) {
					ids = append(ids, s.ID)
				}
			}
		}
	}
	return ids
}
