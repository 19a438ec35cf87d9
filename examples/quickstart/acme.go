package main

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"strconv"
	"time"

	"github.com/go-acme/lego/v4/certcrypto"
	"github.com/go-acme/lego/v4/certificate"
	"github.com/go-acme/lego/v4/challenge/http01"
	"github.com/go-acme/lego/v4/lego"
	legolog "github.com/go-acme/lego/v4/log"
	"github.com/go-acme/lego/v4/registration"

	"github.com/renewatch/renewatch/internal/certtest"
)

// acmeClient is an ACME client that gets certificates and reloads nobody.
type acmeClient struct {
	directory string         // the CA
	roots     *x509.CertPool // trusted for the CA's own HTTPS
	httpPort  int            // where the CA validates
	account   account
}

// newACMEClient makes a client without an account; the first certificate
// registers one. lego's log, which is one for the whole process, goes to w.
func newACMEClient(ca *certtest.Pebble, w io.Writer) (*acmeClient, error) {
	legolog.Logger = log.New(w, "lego: ", log.LstdFlags)
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca.TLSRootPEM()) {
		return nil, errors.New("the CA's root is no certificate")
	}
	key, err := certcrypto.GeneratePrivateKey(certcrypto.EC256)
	if err != nil {
		return nil, err
	}
	return &acmeClient{
		directory: ca.DirectoryURL(),
		roots:     roots,
		httpPort:  ca.HTTPPort(),
		account:   account{key: key},
	}, nil
}

// obtain gets a certificate for name with a new key. previous, if any, is named
// to the CA as the one that is being replaced.
func (a *acmeClient) obtain(ctx context.Context, name string, previous *certtest.Leaf) (leaf *certtest.Leaf, err error) {
	// Some answers of a CA make lego panic.
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("lego: panic: %v", p)
		}
	}()
	// lego changes the client it is given and takes no context, so each
	// certificate gets a client of its own whose transport carries the context.
	// lego.NewConfig is avoided: it reads the environment.
	base := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: a.roots},
		IdleConnTimeout: 10 * time.Second,
	}
	defer base.CloseIdleConnections()
	client, err := lego.NewClient(&lego.Config{
		CADirURL:    a.directory,
		User:        &a.account,
		UserAgent:   "renewatch-quickstart",
		HTTPClient:  &http.Client{Transport: &transport{ctx: ctx, base: base}, Timeout: 30 * time.Second},
		Certificate: lego.CertificateConfig{KeyType: certcrypto.EC256, Timeout: 30 * time.Second},
	})
	if err != nil {
		return nil, err
	}
	if a.account.registration == nil {
		a.account.registration, err = client.Registration.Register(registration.RegisterOptions{TermsOfServiceAgreed: true})
		if err != nil {
			return nil, err
		}
	}
	if err := client.Challenge.SetHTTP01Provider(http01.NewProviderServer("127.0.0.1", strconv.Itoa(a.httpPort))); err != nil {
		return nil, err
	}
	request := certificate.ObtainRequest{Domains: []string{name}, Bundle: true}
	if previous != nil {
		// Renew would not tell the CA that this is a renewal.
		if request.ReplacesCertID, err = certificate.MakeARICertID(previous.Cert); err != nil {
			return nil, err
		}
	}
	got, err := client.Certificate.Obtain(request)
	if err != nil {
		return nil, err
	}
	return certtest.ParseLeaf(got.Certificate, got.PrivateKey)
}

// transport ends every request with its context.
type transport struct {
	ctx  context.Context
	base http.RoundTripper
}

func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	return t.base.RoundTrip(r.WithContext(t.ctx))
}

// account is what lego wants to know of its user.
type account struct {
	key          crypto.PrivateKey
	registration *registration.Resource
}

func (a *account) GetEmail() string                        { return "" }
func (a *account) GetRegistration() *registration.Resource { return a.registration }
func (a *account) GetPrivateKey() crypto.PrivateKey        { return a.key }
