package e2e

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/renewatch/renewatch/internal/certtest"
)

// authority is a CA of the test's own, for certificates that no ACME server
// would issue.
type authority struct {
	*certtest.CA
	root string // path of its root certificate
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{CA: certtest.NewCA(certtest.CAOptions{NotBefore: time.Now().AddDate(-1, 0, 0)})}
	a.root = filepath.Join(tempDir(t), "root.pem")
	writeFile(t, a.root, string(a.RootPEM()), 0o644)
	return a
}

// aged issues a leaf whose notBefore lies age back; it lives for 90 days.
func (a *authority) aged(age time.Duration, names ...string) *certtest.Leaf {
	return a.Issue(certtest.LeafOptions{Names: names, NotBefore: time.Now().Add(-age)})
}

func hours(n int) time.Duration { return time.Duration(n) * time.Hour }

// lineage is a directory that holds fullchain.pem and privkey.pem.
type lineage struct {
	t    *testing.T
	dir  string
	cert string
	key  string
}

func lineageIn(t *testing.T, dir string) *lineage {
	return &lineage{t: t, dir: dir, cert: filepath.Join(dir, "fullchain.pem"), key: filepath.Join(dir, "privkey.pem")}
}

// newLineage is a plain pair of files in live/NAME, which names the certificate.
func newLineage(t *testing.T, name string, leaf *certtest.Leaf) *lineage {
	t.Helper()
	l := lineageIn(t, filepath.Join(tempDir(t), "live", name))
	l.put(leaf)
	return l
}

// put replaces both files.
func (l *lineage) put(leaf *certtest.Leaf) {
	l.t.Helper()
	replaceFile(l.t, l.key, string(leaf.KeyPEM()), 0o600)
	replaceFile(l.t, l.cert, string(leaf.FullchainPEM()), 0o644)
}

// leaf is what lies on disk now.
func (l *lineage) leaf() *x509.Certificate {
	l.t.Helper()
	data, err := os.ReadFile(l.cert)
	if err != nil {
		l.t.Fatal(err)
	}
	block, _ := pem.Decode(data)
	if block == nil {
		l.t.Fatalf("%s holds no PEM block", l.cert)
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		l.t.Fatalf("%s: %v", l.cert, err)
	}
	return leaf
}

// fingerprint is a certificate's SHA-256 the way the program writes it.
func fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}
