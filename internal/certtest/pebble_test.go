package certtest_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/go-acme/lego/v4/certcrypto"
	"github.com/go-acme/lego/v4/certificate"
	"github.com/go-acme/lego/v4/challenge/http01"
	"github.com/go-acme/lego/v4/lego"
	"github.com/go-acme/lego/v4/registration"

	"github.com/renewatch/renewatch/internal/certtest"
)

type account struct {
	key crypto.PrivateKey
	reg *registration.Resource
}

func (a *account) GetEmail() string                        { return "" }
func (a *account) GetRegistration() *registration.Resource { return a.reg }
func (a *account) GetPrivateKey() crypto.PrivateKey        { return a.key }

func pool(t *testing.T, root []byte) *x509.CertPool {
	t.Helper()
	p := x509.NewCertPool()
	if !p.AppendCertsFromPEM(root) {
		t.Fatal("not a PEM root")
	}
	return p
}

func TestPebbleIssuesWhatItHasValidated(t *testing.T) {
	before := os.Environ()
	var log lines
	p, err := certtest.NewPebble(certtest.PebbleOptions{
		Validity:      time.Hour,
		Intermediates: 2,
		Log:           &log,
		Hosts:         map[string][]netip.Addr{"a.test": {netip.MustParseAddr("127.0.0.1")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if !slices.Equal(before, os.Environ()) {
		t.Error("the environment is not what it was")
	}

	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool(t, p.TLSRootPEM())}}
	defer tr.CloseIdleConnections()
	user := &account{key: certtest.NewKey(certtest.ECDSA)}
	client, err := lego.NewClient(&lego.Config{
		CADirURL: p.DirectoryURL(), User: user, UserAgent: "certtest",
		HTTPClient:  &http.Client{Transport: tr},
		Certificate: lego.CertificateConfig{KeyType: certcrypto.EC256, Timeout: 30 * time.Second},
	})
	if err != nil {
		t.Fatal(err)
	}
	if user.reg, err = client.Registration.Register(registration.RegisterOptions{TermsOfServiceAgreed: true}); err != nil {
		t.Fatal(err)
	}
	provider := http01.NewProviderServer("127.0.0.1", strconv.Itoa(p.HTTPPort()))
	if err := client.Challenge.SetHTTP01Provider(provider); err != nil {
		t.Fatal(err)
	}
	got, err := client.Certificate.Obtain(certificate.ObtainRequest{Domains: []string{"a.test"}, Bundle: true})
	if err != nil {
		t.Fatalf("%v\n%s", err, log.String())
	}
	leaf, err := certtest.ParseLeaf(got.Certificate, got.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	if len(leaf.Chain) != 2 {
		t.Errorf("%d intermediates, want 2", len(leaf.Chain))
	}
	if d := leaf.Cert.NotAfter.Sub(leaf.Cert.NotBefore); d != time.Hour-time.Second {
		t.Errorf("valid for %v", d)
	}
	chain := x509.NewCertPool()
	for _, c := range leaf.Chain {
		chain.AddCert(c)
	}
	if _, err := leaf.Cert.Verify(x509.VerifyOptions{Roots: pool(t, p.RootPEM()), Intermediates: chain, DNSName: "a.test"}); err != nil {
		t.Error(err)
	}

	if _, err := client.Certificate.Obtain(certificate.ObtainRequest{Domains: []string{"unknown.test"}}); err == nil {
		t.Error("a name that does not exist is validated")
	}

	resp, err := (&http.Client{Transport: tr}).Get(p.ManagementURL() + "/roots/0")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	root, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(root, p.RootPEM()) {
		t.Errorf("management serves another root: %s", root)
	}
	if block, _ := pem.Decode(root); block == nil {
		t.Error("the root is no PEM")
	}
}

func TestDNSAnswersFromItsTable(t *testing.T) {
	v4, v6 := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1")
	d, err := certtest.NewDNS(map[string][]netip.Addr{"a.test": {v4, v6}})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	got, err := d.Resolver().LookupNetIP(ctx, "ip", "a.test.")
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(got, v6) || len(got) != 2 {
		t.Errorf("a.test has %v", got)
	}
	if got, err := d.Resolver().LookupNetIP(ctx, "ip", "b.test."); err == nil {
		t.Errorf("b.test has %v", got)
	}
	every, err := certtest.NewDNS(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer every.Close()
	got, err = every.Resolver().LookupNetIP(ctx, "ip4", "anything.test.")
	if err != nil || len(got) != 1 || got[0] != v4 {
		t.Errorf("anything.test has %v (%v)", got, err)
	}
}

// lines is a log that several goroutines write.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}
