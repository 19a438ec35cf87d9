package verify_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/renewatch/renewatch/verify"
)

func ExampleParseEndpoint() {
	e, err := verify.ParseEndpoint("HTTPS://WWW.Example.org:443/?address=192.0.2.7:8443,2001:db8::7")
	fmt.Println(e, err)
	fmt.Println(e.Name(), e.Port(), e.Addresses())

	_, err = verify.ParseEndpoint("htps://www.example.org")
	var bad *verify.EndpointError
	if errors.As(err, &bad) {
		fmt.Printf("%s; %s\n", bad.Sentence, bad.Hint)
	}
	// Output:
	// https://www.example.org?address=192.0.2.7:8443,2001:db8::7 <nil>
	// www.example.org 443 [192.0.2.7:8443 [2001:db8::7]:443]
	// unknown scheme "htps"; did you mean https?
}

// Does the server at this address serve the certificate that lies on disk?
func ExampleProber_Check() {
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	disk := []*x509.Certificate{server.Certificate()}
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())

	_, port, _ := strings.Cut(server.Listener.Addr().String(), ":")
	endpoint, err := verify.ParseEndpoint("https://example.com:" + port + "?address=127.0.0.1")
	if err != nil {
		fmt.Println(err)
		return
	}
	prober := &verify.Prober{Roots: roots}
	for _, v := range prober.Check(context.Background(), verify.Target{
		Endpoint: endpoint,
		Expect:   verify.Expectation{Chain: disk},
	}, 2) {
		fmt.Println(v.Address.Addr(), v.Code, v.Severity, v.Matching, "of", v.Samples)
	}
	// Output:
	// 127.0.0.1 serving info 2 of 2
}

// After a reload: poll until every address has served the new certificate for
// long enough, or the deadline comes.
func ExampleProber_Confirm() {
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	_, port, _ := strings.Cut(server.Listener.Addr().String(), ":")
	endpoint, err := verify.ParseEndpoint("https://example.com:" + port + "?address=127.0.0.1")
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	prober := &verify.Prober{Roots: roots}
	verdicts := prober.Confirm(ctx, verify.Target{
		Endpoint: endpoint,
		Expect:   verify.Expectation{Chain: []*x509.Certificate{server.Certificate()}},
	}, verify.Window{Samples: 5, Spread: 200 * time.Millisecond})
	for i := range verdicts {
		fmt.Println(verdicts[i].Code, verdicts[i].CountsAsServing())
	}
	// Output:
	// serving true
}

func ExampleCheckChain() {
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	chain := []*x509.Certificate{server.Certificate()}
	r := verify.CheckChain(chain, x509.NewCertPool(), nil, time.Now())
	fmt.Println(r.OK(), r.Faults)
	// Output:
	// false [untrusted]
}

func ExampleRenewalMargin() {
	day := 24 * time.Hour
	from := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	c := &x509.Certificate{NotBefore: from, NotAfter: from.Add(90 * day)}
	fmt.Println(verify.RenewalMargin(c))
	fmt.Println(verify.MarginLeft(c, from.Add(75*day)), verify.ExpirySeverity(c, from.Add(75*day)))
	// Output:
	// 720h0m0s
	// 0.5 error
}
