package ari_test

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/go-acme/lego/v4/certcrypto"
	"github.com/go-acme/lego/v4/certificate"
	"github.com/go-acme/lego/v4/challenge/http01"
	"github.com/go-acme/lego/v4/lego"
	"github.com/go-acme/lego/v4/registration"

	"github.com/renewatch/renewatch/internal/ari"
	"github.com/renewatch/renewatch/internal/certtest"
)

type account struct {
	key crypto.PrivateKey
	reg *registration.Resource
}

func (a *account) GetEmail() string                        { return "" }
func (a *account) GetRegistration() *registration.Resource { return a.reg }
func (a *account) GetPrivateKey() crypto.PrivateKey        { return a.key }

// TestPebble asks a real ACME CA about a certificate that it issued, moved the
// window of, and revoked.
func TestPebble(t *testing.T) {
	p, err := certtest.NewPebble(certtest.PebbleOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(p.TLSRootPEM())
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	t.Cleanup(transport.CloseIdleConnections)

	user := &account{key: certtest.NewKey(certtest.ECDSA)}
	acme, err := lego.NewClient(&lego.Config{
		CADirURL: p.DirectoryURL(), User: user, HTTPClient: &http.Client{Transport: transport},
		Certificate: lego.CertificateConfig{KeyType: certcrypto.EC256, Timeout: 30 * time.Second},
	})
	if err != nil {
		t.Fatal(err)
	}
	if user.reg, err = acme.Registration.Register(registration.RegisterOptions{TermsOfServiceAgreed: true}); err != nil {
		t.Fatal(err)
	}
	if err := acme.Challenge.SetHTTP01Provider(http01.NewProviderServer("127.0.0.1", strconv.Itoa(p.HTTPPort()))); err != nil {
		t.Fatal(err)
	}
	got, err := acme.Certificate.Obtain(certificate.ObtainRequest{Domains: []string{"a.test"}, Bundle: true})
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(got.Certificate)
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if id, err := ari.ID(leaf); err != nil {
		t.Fatal(err)
	} else if other, err := certificate.MakeARICertID(leaf); err != nil || other != id {
		t.Errorf("lego calls %s %s, %v", id, other, err)
	}

	client := ari.New(ari.Options{Roots: roots})
	t.Cleanup(client.Close)
	ask := func() (ari.Answer, error) { return client.Ask(t.Context(), p.DirectoryURL(), leaf) }
	var seen ari.Seen
	judge := func(later time.Duration, want ari.Verdict) {
		t.Helper()
		a, err := ask()
		if err != nil {
			t.Fatal(err)
		}
		// As if the question were asked later: windows that pebble makes for the
		// moment of the question move along.
		a.Asked, a.RetryAfter, a.Date = a.Asked.Add(later), a.RetryAfter.Add(later), time.Time{}
		if v := seen.Judge(a, a.Asked); v != want {
			t.Errorf("%+v is %q, want %q", a, v, want)
		}
	}

	a, err := ask()
	if err != nil {
		t.Fatal(err)
	}
	ideal := leaf.NotBefore.Add(60 * 24 * time.Hour)
	if a.Window.Start.Sub(ideal.Add(-24*time.Hour)).Abs() > time.Minute || a.Window.End.Sub(ideal.Add(24*time.Hour)).Abs() > time.Minute {
		t.Errorf("%+v around %s", a.Window, ideal)
	}
	if wait := a.RetryAfter.Sub(a.Asked); wait != 6*time.Hour {
		t.Errorf("again after %s", wait)
	}
	if a.Date.Sub(a.Asked).Abs() > time.Minute {
		t.Errorf("the CA's clock says %s at %s", a.Date, a.Asked)
	}
	judge(0, ari.Calm)

	set := func(response string) {
		t.Helper()
		body, err := json.Marshal(map[string]string{"Certificate": string(pem.EncodeToMemory(block)), "ARIResponse": response})
		if err != nil {
			t.Fatal(err)
		}
		resp, err := (&http.Client{Transport: transport}).Post(p.ManagementURL()+"/set-renewal-info/", "application/json", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Fatal(resp.Status)
		}
	}
	window := func(start, end time.Time, more string) string {
		return fmt.Sprintf(`{"suggestedWindow":{"start":%q,"end":%q}%s}`, start.Format(time.RFC3339Nano), end.Format(time.RFC3339Nano), more)
	}
	now := time.Now()
	for name, c := range map[string]struct {
		response string
		kind     error
	}{
		"inverted":  {window(now, now.Add(-time.Hour), ""), ari.ErrNonsense},
		"a page":    {"<html>maintenance</html>", ari.ErrNonsense},
		"years off": {window(now.AddDate(-6, 0, 0), now.AddDate(-6, 0, 1), ""), ari.ErrNonsense},
		"a problem": {`{"type":"urn:ietf:params:acme:error:malformed","status":404}`, ari.ErrNonsense},
	} {
		set(c.response)
		if _, err := ask(); !errors.Is(err, c.kind) {
			t.Errorf("%s: %v", name, err)
		}
	}
	set(window(now.Add(-time.Hour), now.Add(-30*time.Minute), `,"explanationURL":"https://acme.example.com/incident"`))
	judge(time.Minute, ari.Suspected)
	if seen.Last.Explanation != "https://acme.example.com/incident" {
		t.Errorf("%+v", seen.Last)
	}
	judge(30*time.Minute, ari.Suspected)
	set("") // an incident that was none
	judge(40*time.Minute, ari.Calm)

	if err := acme.Certificate.Revoke(got.Certificate); err != nil {
		t.Fatal(err)
	}
	judge(6*time.Hour, ari.Suspected)
	judge(12*time.Hour, ari.Replace)

	neighbour := *leaf
	neighbour.SerialNumber = new(big.Int).Add(leaf.SerialNumber, big.NewInt(1))
	for status, unknown := range map[int]*x509.Certificate{
		http.StatusNotFound:   &neighbour,
		http.StatusBadRequest: certtest.NewCA(certtest.CAOptions{}).Issue(certtest.LeafOptions{Names: []string{"b.test"}}).Cert,
	} {
		_, err = client.Ask(t.Context(), p.DirectoryURL(), unknown)
		var e *ari.Error
		if !errors.Is(err, ari.ErrUnknown) || !errors.As(err, &e) || e.Status != status {
			t.Errorf("a certificate that the CA did not issue: %v", err)
		}
	}
}
