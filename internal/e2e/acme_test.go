package e2e

import (
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/renewatch/renewatch/internal/certtest"
)

// acme is a CA that speaks ACME (pebble) and a certbot with directories of its
// own.
type acme struct {
	t       *testing.T
	dir     string
	pebble  *certtest.Pebble
	webroot string
	port    int    // where the CA looks for http-01 answers
	root    string // path of the root certificate of what it issues
}

func newACME(t *testing.T) *acme {
	t.Helper()
	program(t, "certbot")
	dir := tempDir(t)
	a := &acme{t: t, dir: dir, port: freePort(t), webroot: filepath.Join(dir, "webroot"), root: filepath.Join(dir, "issuer.pem")}
	if err := os.MkdirAll(a.webroot, 0o755); err != nil {
		t.Fatal(err)
	}
	said := &transcript{}
	pebble, err := certtest.NewPebble(certtest.PebbleOptions{HTTPPort: a.port, Log: said})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		pebble.Close()
		if t.Failed() {
			t.Logf("pebble said:\n%s", said.tail())
		}
	})
	a.pebble = pebble
	writeFile(t, a.root, string(pebble.RootPEM()), 0o644)
	writeFile(t, a.transportRoot(), string(pebble.TLSRootPEM()), 0o644)
	return a
}

// transportRoot is the root certbot must trust to talk to the CA.
func (a *acme) transportRoot() string { return filepath.Join(a.dir, "transport.pem") }

// certbot returns the command; everything it keeps stays in the test's
// directory, and it asks nothing.
func (a *acme) certbot(verb string, args ...string) *exec.Cmd {
	cmd := exec.Command(program(a.t, "certbot"), append([]string{
		verb, "--non-interactive", "--server", a.pebble.DirectoryURL(),
		"--config-dir", a.config(),
		"--work-dir", filepath.Join(a.dir, "work"),
		"--logs-dir", filepath.Join(a.dir, "logs"),
	}, args...)...)
	cmd.Env = append(os.Environ(), "REQUESTS_CA_BUNDLE="+a.transportRoot(), "HOME="+a.dir, "XDG_CONFIG_HOME="+a.dir)
	return cmd
}

// config stands for /etc/letsencrypt.
func (a *acme) config() string { return filepath.Join(a.dir, "letsencrypt") }

func (a *acme) lineage(name string) *lineage {
	return lineageIn(a.t, filepath.Join(a.config(), "live", name))
}

// issue gets the first certificate; a web server must answer on a.port from the
// webroot.
func (a *acme) issue(name string) *lineage {
	a.t.Helper()
	mustRun(a.t, a.certbot("certonly", "--webroot", "-w", a.webroot, "--cert-name", name, "-d", name,
		"--agree-tos", "--register-unsafely-without-email", "--no-eff-email"))
	return a.lineage(name)
}

// renew forces a renewal and returns the new leaf.
func (a *acme) renew(name string, args ...string) *x509.Certificate {
	a.t.Helper()
	before := a.lineage(name).leaf()
	// A certificate's times have whole seconds: a renewal within the same one
	// would not be newer.
	eventually(a.t, "the next second", func() error {
		if time.Since(before.NotBefore) < time.Second {
			return fmt.Errorf("still within the second of %v", before.NotBefore)
		}
		return nil
	})
	mustRun(a.t, a.certbot("renew", append([]string{
		"--cert-name", name, "--force-renewal", "--no-random-sleep-on-renew",
	}, args...)...))
	leaf := a.lineage(name).leaf()
	if leaf.Equal(before) || !leaf.NotBefore.After(before.NotBefore) {
		a.t.Fatalf("certbot left no newer leaf: %v, before %v", leaf.NotBefore, before.NotBefore)
	}
	return leaf
}

// awaitPort waits until somebody accepts connections.
func awaitPort(t *testing.T, addr string) {
	t.Helper()
	eventually(t, "a listener on "+addr, func() error {
		conn, err := net.DialTimeout("tcp", addr, 5*time.Second)
		if err != nil {
			return err
		}
		return conn.Close()
	})
}
