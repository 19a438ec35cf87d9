package watch

import (
	"bytes"
	"crypto/tls"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzLoad: whatever the files hold, Load ends in a pair or a fault; a pair's key
// is the leaf's, as crypto/tls sees it; and a file that is cut off never passes
// for a sound one with fewer certificates, unless it was cut between two blocks.
func FuzzLoad(f *testing.F) {
	a, b := leafA(), leafB()
	full, key := a.FullchainPEM(), a.KeyPEM()
	for _, cert := range [][]byte{full, a.CertPEM(), a.CombinedPEM(), joined(key, full), joined(a.ChainPEM(), a.CertPEM()), a.Cert.Raw, full[:len(full)-30],
		bytes.ReplaceAll(full, []byte("\n"), []byte("\r\n")), joined([]byte("Bag Attributes\n"), full), joined(utf8BOM, full), []byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n")} {
		for _, key := range [][]byte{key, b.KeyPEM(), leafRSA().KeyPEM(), nil, full, []byte("-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END RSA PRIVATE KEY-----\n")} {
			f.Add(cert, key, uint16(len(cert)/2))
		}
	}
	f.Fuzz(func(t *testing.T, cert, key []byte, cut uint16) {
		dir := t.TempDir()
		p := loadBytes(t, dir, cert, key)
		if p == nil {
			return
		}
		if p.Key == KeyMatches && !bytes.Contains(cert, []byte("X509 CERTIFICATE")) {
			keyText := cert
			if p.KeyPath != p.CertPath {
				keyText = key
			}
			pair, err := tls.X509KeyPair(cert, keyText)
			if err != nil {
				t.Fatalf("crypto/tls does not accept this pair: %v", err)
			}
			if !bytes.Equal(pair.Certificate[0], p.Leaf().Raw) || len(pair.Certificate) != len(p.Chain) {
				t.Fatal("crypto/tls sees another chain")
			}
		}
		if n := int(cut); n < len(cert) {
			shorter := loadBytes(t, dir, cert[:n], key)
			if shorter != nil && len(shorter.Chain) < len(p.Chain) && !endsWithBlock(cert[:n]) {
				t.Fatalf("cut off at %d, and sound with %d of %d certificates", n, len(shorter.Chain), len(p.Chain))
			}
		}
	})
}

func loadBytes(t *testing.T, dir string, cert, key []byte) *Pair {
	t.Helper()
	path := filepath.Join(dir, "c.pem")
	check(t, os.WriteFile(path, cert, 0o600))
	_ = os.Remove(dir + "/c.key")
	if len(key) > 0 {
		check(t, os.WriteFile(dir+"/c.key", key, 0o600))
	}
	p, f := Load(path, "")
	if (p == nil) == (f == nil) {
		t.Fatalf("pair %v and fault %v", p, f)
	}
	if f != nil {
		soundSentence(t, f)
		return nil
	}
	if len(p.Chain) == 0 || len(p.Touch) == 0 || p.Key == KeyMismatch || (p.Key == KeyMatches) != (p.KeyPath != "") {
		t.Fatalf("pair %+v", p)
	}
	return p
}

// endsWithBlock reports whether the last line of text ends a block: nothing in
// such a file tells that more was to come.
func endsWithBlock(text []byte) bool {
	s := strings.TrimSpace(string(text))
	last := s[strings.LastIndexByte(s, '\n')+1:]
	return strings.HasPrefix(last, "-----END ") && strings.HasSuffix(last, "-----") && len(last) > len("-----END -----")
}

// TestCutAnywhere: every prefix of sound files.
func TestCutAnywhere(t *testing.T) {
	t.Parallel()
	a := leafA()
	dir := t.TempDir()
	for _, file := range [][]byte{a.FullchainPEM(), a.CombinedPEM(), joined([]byte("Bag Attributes\n  x: y\n"), a.CertPEM(), []byte("Bag Attributes\n  x: y\n"), a.ChainPEM())} {
		for n := range file {
			p := loadBytes(t, dir, file[:n], nil)
			if p != nil && !endsWithBlock(file[:n]) {
				t.Fatalf("cut off at %d of %d it is sound:\n%s", n, len(file), file[max(0, n-40):n])
			}
		}
	}
	key := a.KeyPEM()
	for n := range key {
		if p := loadBytes(t, dir, a.FullchainPEM(), key[:n]); p != nil && n > 0 && n < len(key)-1 {
			t.Fatalf("the key cut off at %d of %d is sound", n, len(key))
		}
	}
}
