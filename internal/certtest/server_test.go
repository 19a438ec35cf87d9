package certtest_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/renewatch/renewatch/internal/certtest"
)

// shake returns the serial number served at addr for name.
func shake(addr netip.AddrPort, name string, roots *x509.CertPool) (string, error) {
	d := &net.Dialer{Timeout: 5 * time.Second}
	conn, err := tls.DialWithDialer(d, "tcp", addr.String(), &tls.Config{ServerName: name, RootCAs: roots})
	if err != nil {
		return "", err
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].SerialNumber.Text(16), nil
}

func TestServerKeepsItsCertificateUntilReload(t *testing.T) {
	ca := certtest.NewCA(certtest.CAOptions{})
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "a.pem"), filepath.Join(dir, "a.key")
	old := ca.Issue(certtest.LeafOptions{Names: []string{"a.test"}})
	other := ca.Issue(certtest.LeafOptions{Names: []string{"*.b.test"}})
	if err := certtest.WritePair(cert, key, old); err != nil {
		t.Fatal(err)
	}
	s, err := certtest.NewServer(certtest.ServerOptions{Sites: []certtest.Site{
		{Names: []string{"a.test"}, Load: certtest.FromFiles(cert, key)},
		{Names: []string{"*.b.test"}, Load: certtest.FromLeaves(other)},
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	expect := func(name string, want *certtest.Leaf) {
		t.Helper()
		got, err := shake(s.Addr(), name, ca.Pool())
		if err != nil || got != want.Serial() {
			t.Errorf("%s: serial %q, want %s (%v)", name, got, want.Serial(), err)
		}
	}
	expect("a.test", old)
	expect("x.b.test", other)

	fresh := ca.Issue(certtest.LeafOptions{Names: []string{"a.test"}})
	if err := certtest.WritePair(cert, key, fresh); err != nil {
		t.Fatal(err)
	}
	expect("a.test", old)

	if err := os.WriteFile(key, old.KeyPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Reload(); err == nil {
		t.Error("a mismatched pair is loaded")
	}
	expect("a.test", old)
	if err := certtest.WritePair(cert, key, fresh); err != nil {
		t.Fatal(err)
	}
	if err := s.Reload(); err != nil {
		t.Fatal(err)
	}
	expect("a.test", fresh)
	expect("x.b.test", other)
	if s.Handshakes() != 6 || s.HandshakesAt(s.Addr()) != 6 || s.Reloads() != 1 {
		t.Errorf("%d handshakes, %d reloads", s.Handshakes(), s.Reloads())
	}
}

func TestServerMixesUntilItSettles(t *testing.T) {
	ca := certtest.NewCA(certtest.CAOptions{})
	names := []string{"a.test"}
	old, fresh := ca.Issue(certtest.LeafOptions{Names: names}), ca.Issue(certtest.LeafOptions{Names: names})
	now := old
	s, err := certtest.NewServer(certtest.ServerOptions{Sites: []certtest.Site{{Names: names,
		Load: func() ([]tls.Certificate, error) { return []tls.Certificate{now.TLS()}, nil }}}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	now = fresh
	settle, err := s.ReloadMixing()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for range 6 {
		serial, err := shake(s.Addr(), "a.test", ca.Pool())
		if err != nil {
			t.Fatal(err)
		}
		seen[serial]++
	}
	if seen[old.Serial()] != 3 || seen[fresh.Serial()] != 3 {
		t.Errorf("while mixing: %v", seen)
	}
	settle()
	for range 3 {
		if serial, err := shake(s.Addr(), "a.test", ca.Pool()); err != nil || serial != fresh.Serial() {
			t.Errorf("after settling: %s (%v)", serial, err)
		}
	}
}

func TestServerServesBothKeyTypes(t *testing.T) {
	ca := certtest.NewCA(certtest.CAOptions{})
	names := []string{"a.test"}
	r := ca.Issue(certtest.LeafOptions{Names: names, KeyType: certtest.RSA})
	e := ca.Issue(certtest.LeafOptions{Names: names})
	s, err := certtest.NewServer(certtest.ServerOptions{
		Sites:  []certtest.Site{{Names: names, Load: certtest.FromLeaves(e, r)}},
		Config: &tls.Config{MaxVersion: tls.VersionTLS12},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for suite, want := range map[uint16]*certtest.Leaf{
		tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256:   r,
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256: e,
	} {
		conn, err := tls.Dial("tcp", s.Addr().String(), &tls.Config{
			ServerName: "a.test", RootCAs: ca.Pool(), MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{suite}})
		if err != nil {
			t.Fatal(err)
		}
		if got := conn.ConnectionState().PeerCertificates[0]; !got.Equal(want.Cert) {
			t.Errorf("%s: another certificate", tls.CipherSuiteName(suite))
		}
		conn.Close()
	}
}

func TestServerFaults(t *testing.T) {
	ca := certtest.NewCA(certtest.CAOptions{})
	s, err := certtest.NewServer(certtest.ServerOptions{Sites: []certtest.Site{
		{Load: certtest.FromLeaves(ca.Issue(certtest.LeafOptions{Names: []string{"a.test"}}))}}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, f := range []certtest.Fault{certtest.Hangup, certtest.Garbage, certtest.Alert} {
		s.SetFault(f)
		if _, err := shake(s.Addr(), "a.test", ca.Pool()); err == nil {
			t.Errorf("%s: the handshake succeeds", f)
		}
	}
	s.SetFault(certtest.Mute)
	ctx, cancel := context.WithCancel(context.Background())
	conn, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		done <- tls.Client(conn, &tls.Config{ServerName: "a.test", RootCAs: ca.Pool()}).HandshakeContext(ctx)
	}()
	cancel()
	if err := <-done; err == nil {
		t.Error("a mute server shakes hands")
	}
	conn.Close()

	s.SetFault(certtest.Healthy)
	if s.Handshakes() != 0 {
		t.Errorf("%d handshakes", s.Handshakes())
	}
	s.Stop()
	if _, err := shake(s.Addr(), "a.test", ca.Pool()); err == nil {
		t.Error("a stopped server answers")
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := shake(s.Addr(), "a.test", ca.Pool()); err != nil {
		t.Error(err)
	}
	if err := s.Start(); err == nil {
		t.Error("a running server starts")
	}
}

func TestServerListensOnBothFamilies(t *testing.T) {
	if ln, err := net.Listen("tcp", "[::1]:0"); err != nil {
		t.Skipf("no IPv6 here: %v", err)
	} else {
		ln.Close()
	}
	ca := certtest.NewCA(certtest.CAOptions{})
	leaf := ca.Issue(certtest.LeafOptions{Names: []string{"a.test"}})
	s, err := certtest.NewServer(certtest.ServerOptions{
		Listen: []string{"127.0.0.1:0", "[::1]:0"},
		Sites:  []certtest.Site{{Load: certtest.FromLeaves(leaf)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	addrs := s.Addrs()
	if len(addrs) != 2 || addrs[0].Port() != addrs[1].Port() || !addrs[1].Addr().Is6() {
		t.Fatalf("listens on %v", addrs)
	}
	for _, a := range addrs {
		if _, err := shake(a, "a.test", ca.Pool()); err != nil {
			t.Error(err)
		}
	}
}
