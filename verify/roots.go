package verify

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// ErrNoRoots says that a pool of roots is empty: every chain would look
// untrusted, and none would be.
var ErrNoRoots = errors.New("no trusted root certificates were found")

// maxBundle bounds one file of roots; a distribution's bundle has some 200 KiB.
const maxBundle = 16 << 20

// Where distributions keep their roots. The first file there is counts, and
// every directory.
var (
	rootFiles = [...]string{
		"/etc/ssl/certs/ca-certificates.crt",                // Debian, Alpine, Arch
		"/etc/pki/tls/certs/ca-bundle.crt",                  // Fedora, RHEL
		"/etc/ssl/ca-bundle.pem",                            // openSUSE
		"/etc/pki/tls/cacert.pem",                           // OpenELEC
		"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // RHEL 7
		"/etc/ssl/cert.pem",                                 // Alpine, BSD
		"/usr/local/share/certs/ca-root-nss.crt",            // FreeBSD
	}
	rootDirs = [...]string{"/etc/ssl/certs", "/etc/pki/tls/certs", "/usr/local/share/certs"}
)

// LoadRoots reads the system's trusted roots and those of the given PEM bundles
// afresh. x509.SystemCertPool reads them once in a process, so that a daemon
// would never see an update. An unreadable bundle, or one without a
// certificate, is an error; so is a pool without any root (ErrNoRoots).
func LoadRoots(bundles ...string) (*x509.CertPool, error) {
	pool, err := systemRoots()
	if err != nil {
		return nil, err
	}
	for _, name := range bundles {
		if name == "" {
			continue
		}
		n, err := addBundle(pool, name)
		if err != nil {
			return nil, fmt.Errorf("CA bundle: %w", err)
		}
		if n == 0 {
			return nil, fmt.Errorf("CA bundle %s holds no certificate", name)
		}
	}
	if NoRoots(pool) {
		return nil, ErrNoRoots
	}
	return pool, nil
}

// NoRoots reports whether pool, or with nil the system's pool, is empty.
func NoRoots(pool *x509.CertPool) bool {
	if pool == nil {
		system, err := x509.SystemCertPool()
		if err != nil {
			return true
		}
		pool = system
	}
	return pool.Equal(x509.NewCertPool())
}

func systemRoots() (*x509.CertPool, error) {
	switch runtime.GOOS {
	case "darwin", "ios", "windows":
		// These verify by asking the system, which is always up to date.
		return x509.SystemCertPool()
	}
	pool := x509.NewCertPool()
	files, dirs := rootFiles[:], rootDirs[:]
	if f := os.Getenv("SSL_CERT_FILE"); f != "" {
		files = []string{f}
	}
	if d := os.Getenv("SSL_CERT_DIR"); d != "" {
		dirs = strings.Split(d, ":")
	}
	for _, f := range files {
		if n, err := addBundle(pool, f); err == nil && n > 0 {
			break
		}
	}
	for _, d := range dirs {
		entries, err := os.ReadDir(d)
		if err != nil {
			continue
		}
		for _, e := range entries {
			name := filepath.Join(d, e.Name())
			// Names like 4042bcee.0 are links to certificates beside them.
			if e.Type()&fs.ModeSymlink != 0 {
				if target, err := os.Readlink(name); err == nil && !strings.Contains(target, "/") {
					continue
				}
			}
			if _, err := addBundle(pool, name); err != nil {
				continue
			}
		}
	}
	return pool, nil
}

// addBundle adds the certificates of one PEM file to pool and counts them.
func addBundle(pool *x509.CertPool, name string) (int, error) {
	// Asked before it is opened: opening a FIFO would wait for a writer.
	if info, err := os.Stat(name); err != nil {
		return 0, err
	} else if !info.Mode().IsRegular() {
		return 0, fmt.Errorf("%s is no regular file", name)
	}
	f, err := os.Open(name)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxBundle+1))
	if err != nil {
		return 0, err
	}
	if len(text) > maxBundle {
		return 0, fmt.Errorf("%s is larger than %d MiB", name, maxBundle>>20)
	}
	n := 0
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return n, nil
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		// One certificate that Go cannot read does not spoil the others.
		if c, err := x509.ParseCertificate(block.Bytes); err == nil {
			pool.AddCert(c)
			n++
		}
	}
}
