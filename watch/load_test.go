package watch

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/renewatch/renewatch/internal/certtest"
	"golang.org/x/sys/unix"
)

var (
	testCA = sync.OnceValue(func() *certtest.CA { return certtest.NewCA(certtest.CAOptions{}) })
	deepCA = sync.OnceValue(func() *certtest.CA { return certtest.NewCA(certtest.CAOptions{Intermediates: 2}) })
	// leaves are the same for all tests: keys are dear on a slow machine.
	leafA   = sync.OnceValue(func() *certtest.Leaf { return issue("a.test", certtest.ECDSA) })
	leafB   = sync.OnceValue(func() *certtest.Leaf { return issue("a.test", certtest.ECDSA) })
	leafRSA = sync.OnceValue(func() *certtest.Leaf { return issue("a.test", certtest.RSA) })
	leafEd  = sync.OnceValue(func() *certtest.Leaf { return issue("a.test", certtest.Ed25519) })
)

func issue(name string, t certtest.KeyType) *certtest.Leaf {
	return testCA().Issue(certtest.LeafOptions{Names: []string{name}, KeyType: t})
}

func write(t testing.TB, path string, data []byte, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, data, mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func block(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func joined(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// TestLoadFaults: each way in which files can be wrong has a code of its own.
// The functions write into dir what makes c.pem and k.pem wrong; both are sound
// before.
func TestLoadFaults(t *testing.T) {
	a, b := leafA(), leafB()
	full, key := a.FullchainPEM(), a.KeyPEM()
	cert := func(data ...[]byte) func(*testing.T, string) {
		return func(t *testing.T, dir string) { write(t, dir+"/c.pem", joined(data...), 0o644) }
	}
	keyFile := func(data ...[]byte) func(*testing.T, string) {
		return func(t *testing.T, dir string) { write(t, dir+"/k.pem", joined(data...), 0o600) }
	}
	replace := func(name string, with func(path string) error) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			check(t, os.Remove(dir+"/"+name))
			check(t, with(dir+"/"+name))
		}
	}
	encrypted := block("ENCRYPTED PRIVATE KEY", []byte("not decoded"))
	legacy := []byte("-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00112233445566778899AABBCCDDEEFF\n\nAAAA\n-----END RSA PRIVATE KEY-----\n")
	tests := []struct {
		name string
		make func(t *testing.T, dir string)
		want FaultCode
		path string // of the fault, in dir
		says string
	}{
		{"missing", replace("c.pem", func(string) error { return nil }), Missing, "c.pem", "does not exist"},
		{"link to nothing", replace("c.pem", func(p string) error { return os.Symlink("gone.pem", p) }), DanglingLink, "c.pem", "is a link to what does not exist"},
		{"link to a link to nothing", replace("c.pem", func(p string) error {
			return firstError(os.Symlink("x", p), os.Symlink("y/z", filepath.Dir(p)+"/x"))
		}), DanglingLink, "c.pem", "c.pem is a link"},
		{"link to itself", replace("c.pem", func(p string) error { return os.Symlink("c.pem", p) }), LinkLoop, "c.pem", "in a circle"},
		{"directory in the way", replace("c.pem", func(p string) error { return os.Mkdir(p, 0o755) }), IsDirectory, "c.pem", "is a directory"},
		{"FIFO", replace("c.pem", func(p string) error { return unix.Mkfifo(p, 0o644) }), NotRegular, "c.pem", "is a FIFO"},
		{"FIFO for a key", replace("k.pem", func(p string) error { return unix.Mkfifo(p, 0o644) }), NotRegular, "k.pem", "is a FIFO"},
		{"link to a device", replace("c.pem", func(p string) error { return os.Symlink("/dev/zero", p) }), NotRegular, "c.pem", "is a device"},
		{"socket", replace("c.pem", func(p string) error {
			// The name of a socket is short: at most 107 bytes.
			wd, err := os.Open(filepath.Dir(p))
			if err != nil {
				return err
			}
			defer wd.Close()
			l, err := net.ListenUnix("unix", &net.UnixAddr{Name: "/proc/self/fd/" + strconv.Itoa(int(wd.Fd())) + "/c.pem"})
			if err == nil {
				l.SetUnlinkOnClose(false)
				err = l.Close()
			}
			return err
		}), NotRegular, "c.pem", "is a socket"},
		{"one GiB", replace("c.pem", func(p string) error {
			return firstError(os.WriteFile(p, full, 0o644), os.Truncate(p, 1<<30))
		}), TooLarge, "c.pem", "1073741824 bytes"},
		{"one byte over 1 MiB", cert(full, bytes.Repeat([]byte("\n"), 1<<20-len(full)+1)), TooLarge, "c.pem", "more than the 1 MiB"},
		{"a file for a directory", replace("c.pem", func(p string) error { return os.Symlink("k.pem/c.pem", p) }), Missing, "c.pem", "is not a directory"},

		{"empty", cert(), Empty, "c.pem", "is empty"},
		{"white space", cert([]byte("\n \r\n")), Empty, "c.pem", "is empty"},
		{"text", cert([]byte("<html>502 Bad Gateway</html>")), NotPEM, "c.pem", "holds no PEM block"},
		{"base64 without armour", cert([]byte("MIIBszCCAVmgAwIBAgIUB")), NotPEM, "c.pem", "holds no PEM block"},
		{"DER", cert(a.Cert.Raw), BinaryForm, "c.pem", "DER form"},
		{"PKCS #12 or the like", cert([]byte{0x30, 0x82, 9, 9, 2, 1, 3}), BinaryForm, "c.pem", "binary form"},
		{"NUL bytes only", cert(make([]byte, 4096)), NULBytes, "c.pem", "NUL bytes"},
		{"NUL bytes at the end", cert(full, make([]byte, 512)), NULBytes, "c.pem", "NUL bytes"},
		{"byte order mark", cert(utf8BOM, full), ByteOrderMark, "c.pem", "byte order mark"},
		{"UTF-16", cert([]byte("\xff\xfe-\x00-\x00")), ByteOrderMark, "c.pem", "byte order mark"},
		{"byte order mark inside", cert(a.CertPEM(), utf8BOM, a.ChainPEM()), ByteOrderMark, "c.pem", "before block 2"},
		{"no line break between blocks", cert(bytes.TrimSpace(a.CertPEM()), a.ChainPEM()), JoinedBlocks, "c.pem", "between block 1 and the next"},
		{"indented block", cert(a.CertPEM(), []byte("  "), a.ChainPEM()), BadPEM, "c.pem", "block 2 not at the start of a line"},
		{"cut in the leaf", cert(a.CertPEM()[:300]), HalfWritten, "c.pem", "block 1 of 1 is cut off"},
		{"cut in the chain", cert(full[:len(full)-30]), HalfWritten, "c.pem", "block 2 of 2 is cut off"},
		{"cut in the first line", cert(full[:7]), HalfWritten, "c.pem", "cut off"},
		{"cut in the second block's first line", cert(a.CertPEM(), full[:7]), HalfWritten, "c.pem", "cut off"},
		{"text behind the last block", cert(full, []byte("subject=CN = x")), HalfWritten, "c.pem", "belongs to no PEM block"},
		{"damaged base64", cert(bytes.Replace(full, []byte("M"), []byte("*"), 1)), BadPEM, "c.pem", "block 1 of 2 is not valid base64"},
		{"wrong end line", cert(bytes.Replace(a.CertPEM(), []byte("END CERTIFICATE"), []byte("END CERTIFICATES"), 1)), HalfWritten, "c.pem", "half-written"},

		{"only a key", cert(b.KeyPEM()), NoCertificate, "c.pem", "holds no certificate, only a private key"},
		{"a request", cert(block("CERTIFICATE REQUEST", []byte("x"))), NoCertificate, "c.pem", "only a certificate request"},
		{"no certificate inside", cert(block("CERTIFICATE", []byte("nonsense"))), BadCertificate, "c.pem", "cannot be parsed (block 1)"},
		{"trusted form", cert(block("TRUSTED CERTIFICATE", a.Cert.Raw)), BadCertificate, "c.pem", "trusted form"},
		{"second certificate is none", cert(a.CertPEM(), block("CERTIFICATE", a.Cert.Raw[:200])), BadCertificate, "c.pem", "block 2"},
		{"intermediate first", cert(a.ChainPEM(), a.CertPEM()), LeafNotFirst, "c.pem", "belongs to certificate 2"},

		{"key missing", replace("k.pem", func(string) error { return nil }), KeyMissing, "k.pem", "the key "},
		{"key link to nothing", replace("k.pem", func(p string) error { return os.Symlink("gone", p) }), DanglingLink, "k.pem", "does not exist"},
		{"key empty", keyFile(), Empty, "k.pem", "is empty"},
		{"key half-written", keyFile(key[:len(key)/2]), HalfWritten, "k.pem", "half-written"},
		{"key in DER", keyFile(mustDER(x509.MarshalPKCS8PrivateKey(a.Key))), BinaryForm, "k.pem", "binary form"},
		{"key encrypted", keyFile(encrypted), EncryptedKey, "k.pem", "encrypted with a passphrase"},
		{"key encrypted, old form", keyFile(legacy), EncryptedKey, "k.pem", "encrypted with a passphrase"},
		{"key is nonsense", keyFile(block("PRIVATE KEY", []byte("nonsense"))), BadKey, "k.pem", "cannot be parsed"},
		{"key is huge", keyFile(block("RSA PRIVATE KEY", make([]byte, 20000))), BadKey, "k.pem", "larger than any"},
		{"key for SSH", keyFile(block("OPENSSH PRIVATE KEY", []byte("x"))), BadKey, "k.pem", "OpenSSH"},
		{"two keys", keyFile(key, key), SeveralKeys, "k.pem", "2 private keys"},
		{"certificate for a key", keyFile(full), NoKey, "k.pem", "holds no private key, only a certificate"},
		{"key of another type", keyFile(leafRSA().KeyPEM()), OtherKeyType, "k.pem", "nginx would accept this and then fail every handshake"},
		{"key of another leaf", keyFile(b.KeyPEM()), OtherKey, "k.pem", "does not belong to the leaf"},
		{"switched", func(t *testing.T, dir string) {
			write(t, dir+"/c.pem", key, 0o644)
			write(t, dir+"/k.pem", full, 0o600)
		}, Switched, "c.pem", "are switched"},
	}
	seen := make(map[FaultCode]bool)
	for _, tt := range tests {
		seen[tt.want] = true
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir+"/c.pem", full, 0o644)
			write(t, dir+"/k.pem", key, 0o600)
			if p, f := Load(dir+"/c.pem", dir+"/k.pem"); f != nil || p.Key != KeyMatches {
				t.Fatalf("sound before: %v, %v", p, f)
			}
			tt.make(t, dir)
			p, f := Load(dir+"/c.pem", dir+"/k.pem")
			if f == nil {
				t.Fatalf("no fault, but %+v", p)
			}
			if p != nil || f.Code != tt.want || f.Path != dir+"/"+tt.path || !strings.Contains(f.Sentence, tt.says) {
				t.Errorf("got %s for %s: %s\nwant %s for %s: ...%s...", f.Code, f.Path, f.Sentence, tt.want, tt.path, tt.says)
			}
			soundSentence(t, f)
		})
	}
	for _, code := range []FaultCode{Missing, DanglingLink, LinkLoop, IsDirectory, NotRegular, TooLarge, Empty, NotPEM, BinaryForm, NULBytes, ByteOrderMark,
		JoinedBlocks, HalfWritten, BadPEM, NoCertificate, BadCertificate, LeafNotFirst, KeyMissing, NoKey, SeveralKeys, EncryptedKey, BadKey, OtherKeyType, OtherKey, Switched} {
		if !seen[code] {
			t.Errorf("no case for %s", code)
		}
	}
}

func soundSentence(t *testing.T, f *Fault) {
	t.Helper()
	if f.Sentence == "" || f.Hint == "" || strings.HasSuffix(f.Sentence, ".") || strings.ContainsAny(f.Sentence, "\n\r\x00") || f.Error() != f.Sentence {
		t.Errorf("bad sentence %q or hint %q", f.Sentence, f.Hint)
	}
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func mustDER(der []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return der
}

// TestLoadSound: all forms in which sound files come.
func TestLoadSound(t *testing.T) {
	a := leafA()
	ec := a.Key.(*ecdsa.PrivateKey)
	params := block("EC PARAMETERS", mustDER(asn1.Marshal(asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7})))
	crlf := func(b []byte) []byte { return bytes.ReplaceAll(b, []byte("\n"), []byte("\r\n")) }
	bags := []byte("Bag Attributes\n    friendlyName: x\n    localKeyID: 01 02\nsubject=CN = a.test\n\n")
	p384 := issueWith(t, elliptic.P384())
	tests := []struct {
		name      string
		cert, key []byte
		chain     int
	}{
		{"PKCS #8", a.FullchainPEM(), a.KeyPEM(), 2},
		{"SEC 1 after parameters", a.FullchainPEM(), joined(params, block("EC PRIVATE KEY", mustDER(x509.MarshalECPrivateKey(ec)))), 2},
		{"PKCS #1", leafRSA().FullchainPEM(), block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(leafRSA().Key.(*rsa.PrivateKey))), 2},
		{"PKCS #8 labelled RSA", leafRSA().FullchainPEM(), block("RSA PRIVATE KEY", mustDER(x509.MarshalPKCS8PrivateKey(leafRSA().Key))), 2},
		{"Ed25519", leafEd().FullchainPEM(), leafEd().KeyPEM(), 2},
		{"P-384", p384.FullchainPEM(), p384.KeyPEM(), 2},
		{"CR LF", crlf(a.FullchainPEM()), crlf(a.KeyPEM()), 2},
		{"text of openssl pkcs12", joined(bags, a.CertPEM(), bags, a.ChainPEM()), joined(bags, a.KeyPEM()), 2},
		{"combined, given twice", a.CombinedPEM(), nil, 2},
		{"combined, key first", joined(a.KeyPEM(), a.FullchainPEM()), nil, 2},
		{"old label", bytes.ReplaceAll(a.FullchainPEM(), []byte("CERTIFICATE"), []byte("X509 CERTIFICATE")), a.KeyPEM(), 2},
		{"leaf alone", a.CertPEM(), a.KeyPEM(), 1},
		{"parameters beside certificates", joined(a.FullchainPEM(), params), a.KeyPEM(), 2},
		{"no line break at the end", bytes.TrimSpace(a.FullchainPEM()), bytes.TrimSpace(a.KeyPEM()), 2},
		{"exactly 1 MiB", joined(a.FullchainPEM(), bytes.Repeat([]byte("\n"), 1<<20-len(a.FullchainPEM()))), a.KeyPEM(), 2},
		{"self-signed CA as leaf", selfCA().CertPEM(), selfCA().KeyPEM(), 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir+"/c.pem", tt.cert, 0o600)
			key := dir + "/c.pem"
			if tt.key != nil {
				key = dir + "/k.pem"
				write(t, key, tt.key, 0o600)
			}
			p, f := Load(dir+"/c.pem", key)
			if f != nil {
				t.Fatal(f.Code, f)
			}
			if p.Key != KeyMatches || p.KeyPath != key || len(p.Chain) != tt.chain || len(p.Warnings) != 0 {
				t.Errorf("got %+v", p)
			}
			if want := compactPaths(dir+"/c.pem", key); !slices.Equal(p.Touch, want) {
				t.Errorf("touch %q, want %q", p.Touch, want)
			}
		})
	}
}

func compactPaths(paths ...string) []string { return slices.Compact(paths) }

func issueWith(t *testing.T, curve elliptic.Curve) *certtest.Leaf {
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	check(t, err)
	return testCA().Issue(certtest.LeafOptions{Names: []string{"a.test"}, Key: key})
}

var selfCA = sync.OnceValue(func() *certtest.Leaf {
	return certtest.SelfSigned(certtest.LeafOptions{Names: []string{"a.test"}, Edit: func(c *x509.Certificate) { c.IsCA = true }})
})

// TestLoadFindsKey: where the key is looked for when none is configured.
func TestLoadFindsKey(t *testing.T) {
	a, b := leafA(), leafB()
	tests := []struct {
		name  string
		files map[string][]byte
		cert  string
		key   string // "": unknown
		fault FaultCode
	}{
		{"certbot's name", map[string][]byte{"fullchain.pem": a.FullchainPEM(), "privkey.pem": a.KeyPEM()}, "fullchain.pem", "privkey.pem", ""},
		{"lego's name", map[string][]byte{"x.crt": a.FullchainPEM(), "x.key": a.KeyPEM()}, "x.crt", "x.key", ""},
		{"acme.sh's name", map[string][]byte{"x.cer": a.FullchainPEM(), "x.key": a.KeyPEM()}, "x.cer", "x.key", ""},
		{"X.pem", map[string][]byte{"x.pem": a.FullchainPEM(), "x.key": a.KeyPEM()}, "x.pem", "x.key", ""},
		{"combined", map[string][]byte{"x.pem": a.CombinedPEM()}, "x.pem", "x.pem", ""},
		{"combined with a name of no meaning", map[string][]byte{"haproxy": a.CombinedPEM()}, "haproxy", "haproxy", ""},
		{"certificate only", map[string][]byte{"x.pem": a.FullchainPEM()}, "x.pem", "", ""},
		{"privkey.pem belongs to fullchain.pem only", map[string][]byte{"cert.pem": a.CertPEM(), "privkey.pem": b.KeyPEM()}, "cert.pem", "", ""},
		{"the key beside counts first", map[string][]byte{"x.pem": a.CombinedPEM(), "x.key": b.KeyPEM()}, "x.pem", "", OtherKey},
		{"combined with a foreign key", map[string][]byte{"x.pem": joined(a.FullchainPEM(), b.KeyPEM())}, "x.pem", "", OtherKey},
		{"combined with two keys", map[string][]byte{"x.pem": joined(a.CombinedPEM(), b.KeyPEM())}, "x.pem", "", SeveralKeys},
		{"chain without key starts with a CA", map[string][]byte{"x.pem": joined(a.ChainPEM(), a.CertPEM())}, "x.pem", "", LeafNotFirst},
		{"CA alone", map[string][]byte{"x.pem": a.ChainPEM()}, "x.pem", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, data := range tt.files {
				write(t, filepath.Join(dir, name), data, 0o600)
			}
			p, f := Load(dir+"/"+tt.cert, "")
			switch {
			case tt.fault != "":
				if f == nil || f.Code != tt.fault {
					t.Errorf("got %v, %v, want %s", p, f, tt.fault)
				}
			case f != nil:
				t.Error(f.Code, f)
			case tt.key == "" && (p.Key != KeyUnknown || p.KeyPath != ""):
				t.Errorf("got %+v", p)
			case tt.key != "" && (p.Key != KeyMatches || p.KeyPath != dir+"/"+tt.key):
				t.Errorf("got %+v", p)
			}
		})
	}
	if _, f := Load("", ""); f == nil || f.Code != Missing {
		t.Errorf("no path: %v", f)
	}
}

// TestLoadWarnings: what is worth saying and not in the way.
func TestLoadWarnings(t *testing.T) {
	leaf := deepCA().Issue(certtest.LeafOptions{Names: []string{"a.test"}})
	i1, i2 := leaf.Chain[0], leaf.Chain[1]
	pems := certtest.CertificatesPEM
	tests := []struct {
		name string
		cert []byte
		mode os.FileMode
		dir  os.FileMode
		want []FaultCode
	}{
		{"in order", leaf.FullchainPEM(), 0o640, 0o755, nil},
		{"with the root", joined(leaf.FullchainPEM(), deepCA().RootPEM()), 0o640, 0o755, nil},
		{"intermediates exchanged", pems(leaf.Cert, i2, i1), 0o640, 0o755, []FaultCode{ChainDisorder}},
		{"leaf twice", pems(leaf.Cert, leaf.Cert, i1, i2), 0o640, 0o755, []FaultCode{ChainDisorder}},
		{"foreign intermediate", pems(leaf.Cert, testCA().Intermediates()[0]), 0o640, 0o755, []FaultCode{ChainDisorder}},
		{"key for everyone", leaf.FullchainPEM(), 0o644, 0o755, []FaultCode{KeyReadable}},
		{"key for everyone behind a closed door", leaf.FullchainPEM(), 0o644, 0o700, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := openDir(t)
			write(t, dir+"/c.pem", tt.cert, 0o644)
			write(t, dir+"/k.pem", leaf.KeyPEM(), tt.mode)
			check(t, os.Chmod(dir, tt.dir))
			p, f := Load(dir+"/c.pem", dir+"/k.pem")
			if f != nil {
				t.Fatal(f)
			}
			var got []FaultCode
			for _, w := range p.Warnings {
				got = append(got, w.Code)
				soundSentence(t, w)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("warnings %q, want %q", got, tt.want)
			}
		})
	}
}

// openDir returns a directory that everyone may enter.
func openDir(t *testing.T) string {
	dir := filepath.Join(t.TempDir(), "d")
	check(t, os.Mkdir(dir, 0o755))
	for up := filepath.Dir(dir); up != os.TempDir(); up = filepath.Dir(up) {
		check(t, os.Chmod(up, 0o755))
	}
	return dir
}

// TestLoadThroughLinks: directories, chains of links and ".." resolve as the
// system does it, and Touch names the real files.
func TestLoadThroughLinks(t *testing.T) {
	dir := t.TempDir()
	real, err := filepath.EvalSymlinks(dir)
	check(t, err)
	check(t, os.MkdirAll(dir+"/data/..v1", 0o755))
	write(t, dir+"/data/..v1/tls.crt", leafA().FullchainPEM(), 0o644)
	write(t, dir+"/data/..v1/tls.key", leafA().KeyPEM(), 0o600)
	check(t, os.Symlink("..v1", dir+"/data/..data"))
	check(t, os.Symlink("..data/tls.crt", dir+"/data/tls.crt"))
	check(t, os.Symlink("..data/tls.key", dir+"/data/tls.key"))
	check(t, os.Symlink(dir+"/data", dir+"/link"))
	want := []string{real + "/data/..v1/tls.crt", real + "/data/..v1/tls.key"}
	for _, path := range []string{dir + "/data/tls.crt", dir + "/link/tls.crt", dir + "/link/../data//./tls.crt", dir + "/link/..data/../tls.crt"} {
		p, f := Load(path, "")
		if f != nil {
			t.Errorf("%s: %v", path, f)
			continue
		}
		if p.CertPath != path || !slices.Equal(p.Touch, want) {
			t.Errorf("%s: touch %q, want %q", path, p.Touch, want)
		}
	}
}

// TestLoadKeepsSecrets: no byte of a key, and no control character of a path,
// gets into what is said.
func TestLoadKeepsSecrets(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a\n\x1b[31mb")
	check(t, os.Mkdir(dir, 0o755))
	secret := strings.Repeat("SECRET", 12)
	for _, key := range []string{
		"-----BEGIN PRIVATE KEY-----\n" + secret + "\n-----END PRIVATE KEY-----\n",
		"-----BEGIN " + secret + " PRIVATE KEY-----\nAAAA\n-----END " + secret + " PRIVATE KEY-----\n",
		"-----BEGIN " + secret + "-----\nAAAA\n-----END " + secret + "-----\n",
		"-----BEGIN PRIVATE KEY-----\n" + secret, secret, secret + "\x00", "-----BEGIN " + secret,
	} {
		write(t, dir+"/c.pem", leafA().FullchainPEM(), 0o644)
		write(t, dir+"/k.pem", []byte(key), 0o600)
		_, f := Load(dir+"/c.pem", dir+"/k.pem")
		if f == nil {
			t.Fatalf("%q is accepted", key)
		}
		if strings.Contains(f.Sentence+f.Hint, "SECRET") || strings.ContainsAny(f.Sentence, "\n\x1b") {
			t.Errorf("%q", f.Sentence)
		}
	}
}

// TestLoadWhileReplaced: a reader beside a writer never gets a pair of two
// generations.
func TestLoadWhileReplaced(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	pairs := []*certtest.Leaf{leafA(), leafB()}
	var stop atomic.Bool
	var wg sync.WaitGroup
	put := func(i int) {
		// tmp and rename, the certificate first.
		write(t, dir+"/t", pairs[i].FullchainPEM(), 0o644)
		check(t, os.Rename(dir+"/t", dir+"/x.crt"))
		write(t, dir+"/t", pairs[i].KeyPEM(), 0o600)
		check(t, os.Rename(dir+"/t", dir+"/x.key"))
	}
	put(0)
	wg.Go(func() {
		for i := 0; !stop.Load(); i++ {
			put(i % 2)
		}
	})
	sound := 0
	for range 500 {
		p, f := Load(dir+"/x.crt", "")
		switch {
		case f == nil && p.Key == KeyMatches:
			sound++
		case f == nil:
			t.Errorf("a pair without its key: %+v", p)
		case f.Code != OtherKey:
			t.Errorf("%s: %v", f.Code, f)
		}
	}
	stop.Store(true)
	wg.Wait()
	if p, f := Load(dir+"/x.crt", ""); f != nil || p.Key != KeyMatches {
		t.Errorf("at rest: %v, %v", p, f)
	}
	t.Logf("%d of 500 reads found a sound pair", sound)
}

// TestStamp: stat stands for the content only when the last change is old enough
// for another one to show.
func TestStamp(t *testing.T) {
	now := time.Now()
	for _, tt := range []struct {
		cert, key time.Duration // before now
		want      bool
	}{
		{time.Hour, time.Hour, true}, {time.Second, time.Hour, false}, {time.Hour, time.Second, false}, {-time.Hour, time.Hour, false}, {3 * time.Second, 0, false}, {3 * time.Second, 3 * time.Second, true},
	} {
		id := func(d time.Duration) ident {
			return ident{ctime: now.Add(-d).UnixNano(), mtime: now.Add(-d).UnixNano()}
		}
		s := sight{kept: kept{certID: id(tt.cert), keyID: id(tt.key)}}
		if s.stamp(now, s.certID, nil); (s.readAt != 0) != tt.want {
			t.Errorf("%v and %v old: trusted: %t", tt.cert, tt.key, !tt.want)
		}
		s.readAt = 0
		if s.stamp(now, ident{}, nil); s.readAt != 0 {
			t.Error("trusted although another file was read")
		}
	}
}

// TestReuse: files are read again only when stat shows a change, or after an hour.
func TestReuse(t *testing.T) {
	dir := t.TempDir()
	s := pairIn(t, dir, "a.test", leafA())
	look := func(last *kept) *sight { return examine(newResolver(), s.Cert, "", "", last) }
	first := &look(nil).kept
	if first.readAt != 0 {
		t.Error("trusted at once")
	}
	first.readAt = time.Now().UnixNano()
	if second := look(first); !second.reused || second.pair != nil || second.kept != *first || len(second.steps) == 0 {
		t.Error("read again, or nothing to watch")
	}
	old := *first
	old.readAt = time.Now().Add(-rereadAfter).UnixNano()
	if again := look(&old); again.reused || again.print != first.print {
		t.Error("not read again after an hour, or not the same")
	}
	write(t, s.Key, leafB().KeyPEM(), 0o600)
	if again := look(first); again.fault == nil || again.fault.Code != OtherKey {
		t.Errorf("another key: %v", again.fault)
	}
	write(t, s.Cert, leafB().FullchainPEM(), 0o600)
	if again := look(first); again.pair == nil || !again.pair.Leaf().Equal(leafB().Cert) {
		t.Errorf("another pair: %v", again.fault)
	}
}

// TestLoadCertificate: a key, sound or not, is left alone.
func TestLoadCertificate(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/x.crt", leafA().FullchainPEM(), 0o644)
	write(t, dir+"/x.key", leafB().KeyPEM(), 0o600)
	if p, f := LoadCertificate(dir + "/x.crt"); f != nil || p.Key != KeyUnknown || p.KeyPath != "" || len(p.Chain) != 2 || !slices.Equal(p.Touch, []string{dir + "/x.crt"}) {
		t.Errorf("got %+v, %v", p, f)
	}
	for path, want := range map[string]FaultCode{"": Missing, dir + "/gone": Missing, dir: IsDirectory, dir + "/x.key": NoCertificate} {
		if p, f := LoadCertificate(path); p != nil || f == nil || f.Code != want {
			t.Errorf("%s: got %v, %v, want %s", path, p, f, want)
		}
	}
	if h := History(dir + "/x.crt"); h != nil {
		t.Errorf("history of %d", len(h))
	}
}
