package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-acme/lego/v4/certificate"
	acme "github.com/go-acme/lego/v4/lego"
	"github.com/go-acme/lego/v4/providers/http/webroot"
	"github.com/go-acme/lego/v4/registration"

	"github.com/renewatch/renewatch/watch/acmelog"
)

type account struct {
	key crypto.PrivateKey
	reg *registration.Resource
}

func (a *account) GetEmail() string                        { return "" }
func (a *account) GetRegistration() *registration.Resource { return a.reg }
func (a *account) GetPrivateKey() crypto.PrivateKey        { return a.key }

// Each name fails as it says, and none of them in calm.
func TestNamesFailAsTheySay(t *testing.T) {
	l, err := newLab(t.TempDir(), "*", "lego", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(l.ca.root)
	user := &account{key: key}
	config := acme.NewConfig(user)
	config.CADirURL = l.ca.url
	config.HTTPClient = &http.Client{Transport: trusting(l.ca.root), Timeout: time.Minute}
	client, err := acme.NewClient(config)
	if err != nil {
		t.Fatal(err)
	}
	if user.reg, err = client.Registration.Register(registration.RegisterOptions{TermsOfServiceAgreed: true}); err != nil {
		t.Fatal(err)
	}
	provider, err := webroot.NewHTTPProvider(l.path("webroot"))
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Challenge.SetHTTP01Provider(provider); err != nil {
		t.Fatal(err)
	}
	obtain := func(name string) error {
		_, err := client.Certificate.Obtain(certificate.ObtainRequest{Domains: []string{name}})
		return err
	}
	for _, name := range []string{"lab.test", nonce} {
		if err := obtain(name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, r := range refusals {
		if r.want.outcome != acmelog.Failed || r.domain == nonces { // which lego tries for long
			continue
		}
		problem := r.want.problem
		if problem == acmelog.HTTP5xx {
			problem = "502"
		}
		if err := obtain(r.domain); err == nil || !strings.Contains(err.Error(), problem) {
			t.Errorf("%s: %v, want %s", r.domain, err, problem)
		}
	}
	l.ca.calm.Store(true)
	for _, name := range []string{limited, caa, wrong} {
		if err := obtain(name); err != nil {
			t.Errorf("%s in calm: %v", name, err)
		}
	}
}

func TestCompare(t *testing.T) {
	const run = "Parsing account key...\nParsing CSR...\nFound domains: lab.test\nGetting directory...\nDirectory found!\nRegistering account...\n" +
		"Registered!\nCreating new order...\nOrder created!\nVerifying lab.test...\nlab.test verified!\nSigning certificate...\nCertificate signed!\n"
	right := told{outcome: acmelog.Issued, phase: acmelog.PhaseIssued, names: "lab.test"}
	failed := told{outcome: acmelog.Failed, problem: "caa", names: "lab.test"}
	spoofed := right
	spoofed.spoofed = true
	for _, c := range []struct {
		text string
		want []told
		ok   bool
	}{
		{run, []told{right}, true},
		{run, nil, true},
		{run, []told{failed}, false},
		{run, []told{right, right}, false},
		{run, []told{}, false},
		{run + "Certificate signed!\n", []told{right}, false},
		{run + "Certificate signed!\n", []told{spoofed}, true},
		{"", []told{spoofed}, false},
	} {
		if got := compare("acme-tiny", []byte(c.text), c.want); (len(got) == 0) != c.ok {
			t.Errorf("%q: %q", c.text, got)
		}
	}
	if got := compareFirst("acme-tiny", []byte(run), []told{{outcome: acmelog.Issued, names: "other.test"}}); len(got) != 1 {
		t.Errorf("another name: %q", got)
	}
	forgedSuccess := told{outcome: acmelog.Failed, problem: "caa", spoofed: true}
	if got := compare("acme-tiny", []byte(run), []told{forgedSuccess}); !slices.ContainsFunc(got, func(s string) bool { return strings.HasSuffix(s, "believed") }) {
		t.Errorf("a forged success: %q", got)
	}
}

func TestPresent(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"lego/issue_4.9.1.log", "lego/two_wrong_5.3.1.log", "lego/v4.35_run.log", "certbot/quiet_down_2.1.0_out_any.log", "certbot/skip_2.1.0.log"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	jobs, err := present(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, j := range jobs {
		got = append(got, j.client.name+" "+j.version)
	}
	if want := []string{"certbot 2.1.0", "lego 4.9.1", "lego 5.3.1"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
