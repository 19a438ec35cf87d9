package certtest

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	pebbleca "github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
)

// PebbleOptions say how pebble behaves.
type PebbleOptions struct {
	// Listen is the address of the ACME directory. Empty: 127.0.0.1:0.
	Listen string
	// HTTPPort is the port on which http-01 challenges are validated. 0: one that
	// was free a moment ago; Pebble.HTTPPort tells which.
	HTTPPort int
	// Validity of the certificates issued, in whole seconds. 0: 90 days.
	Validity time.Duration
	// Intermediates between root and leaf. 0: one.
	Intermediates int
	// KeyType of root and intermediates: RSA or ECDSA. Empty: ECDSA.
	KeyType KeyType
	// Hosts are the names that exist for the validation. nil: every name exists
	// and has the address 127.0.0.1.
	Hosts map[string][]netip.Addr
	// Log gets what pebble has to say, one line at a time, from several
	// goroutines. nil: nobody.
	Log io.Writer
}

// Pebble is an ACME CA, Let's Encrypt's own test server, running in this
// process: a directory over HTTPS, really validated challenges, certificates
// from a root of its own. It validates without delay, rejects no good nonce and
// asks for a new validation nearly every time (one valid authorization in a
// hundred is reused). It keeps everything in memory.
//
// One goroutine per Pebble outlives Close: pebble's validation queue has no end.
type Pebble struct {
	httpPort int
	server   *http.Server
	addr     string
	tlsCA    *CA
	dns      *DNS
	ca       *pebbleca.CAImpl
	served   chan struct{}
}

// pebbleEnv is held while pebble's constructors read the environment: what is
// in it is the only way to tell them.
var pebbleEnv sync.Mutex

// NewPebble starts a CA.
func NewPebble(o PebbleOptions) (*Pebble, error) {
	if o.Listen == "" {
		o.Listen = "127.0.0.1:0"
	}
	if o.HTTPPort == 0 {
		port, err := FreePort()
		if err != nil {
			return nil, err
		}
		o.HTTPPort = port
	}
	if o.KeyType == "" {
		o.KeyType = ECDSA
	}
	if o.KeyType != ECDSA && o.KeyType != RSA {
		return nil, fmt.Errorf("pebble knows no %s CA", o.KeyType)
	}
	if o.Validity < 0 || o.Validity%time.Second != 0 {
		return nil, fmt.Errorf("pebble cannot issue for %s, only for whole seconds", o.Validity)
	}
	if o.Log == nil {
		o.Log = io.Discard
	}
	ln, err := net.Listen("tcp", o.Listen)
	if err != nil {
		return nil, err
	}
	dns, err := NewDNS(o.Hosts)
	if err != nil {
		ln.Close()
		return nil, err
	}
	p := &Pebble{
		httpPort: o.HTTPPort,
		addr:     ln.Addr().String(),
		tlsCA:    NewCA(CAOptions{Name: "Pebble's own HTTPS"}),
		dns:      dns,
		served:   make(chan struct{}),
	}
	front := p.front(o)
	leaf := p.tlsCA.Issue(LeafOptions{Names: []string{"localhost", "pebble", "127.0.0.1", "::1"}})
	p.server = &http.Server{
		Handler:           front,
		TLSConfig:         &tls.Config{Certificates: []tls.Certificate{leaf.TLS()}},
		ErrorLog:          log.New(o.Log, "", 0),
		ReadHeaderTimeout: 30 * time.Second,
	}
	go func() {
		defer close(p.served)
		p.server.ServeTLS(ln, "", "")
	}()
	return p, nil
}

// front makes pebble's parts as its own main function does.
func (p *Pebble) front(o PebbleOptions) http.Handler {
	logger := log.New(o.Log, "pebble: ", log.LstdFlags|log.Lmicroseconds)
	profiles := map[string]pebbleca.Profile{"default": {
		Description:    "the only profile",
		ValidityPeriod: uint64(o.Validity / time.Second), // 0 means 90 days there too
	}}
	store := db.NewMemoryStore()

	pebbleEnv.Lock()
	defer pebbleEnv.Unlock()
	for name, value := range map[string]string{
		"PEBBLE_VA_NOSLEEP":      "1",
		"PEBBLE_VA_SLEEPTIME":    "",
		"PEBBLE_VA_ALWAYS_VALID": "",
		"PEBBLE_WFE_NONCEREJECT": "0",
		// Pebble draws from 0 to 99 and makes a new authorization when the number
		// is greater than this one, which cannot be negative.
		"PEBBLE_AUTHZREUSE": "0",
	} {
		old, was := os.LookupEnv(name)
		os.Setenv(name, value)
		defer func() {
			if was {
				os.Setenv(name, old)
			} else {
				os.Unsetenv(name)
			}
		}()
	}
	p.ca = pebbleca.New(logger, store, "", string(o.KeyType), 0, max(o.Intermediates, 1), profiles)
	validator := va.New(logger, o.HTTPPort, 0, false, p.dns.Addr(), store)
	const retryAfter = 1 // seconds between two looks of a client at an order or an authorization
	frontend := wfe.New(logger, store, validator, p.ca, []string{"pebble.letsencrypt.org"}, false, false, retryAfter, retryAfter)

	acme, management := frontend.Handler(), frontend.ManagementHandler()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch path := r.URL.Path; {
		case strings.HasPrefix(path, "/chalZ/"):
			// Pebble forgets this header here; lego then waits five seconds.
			w.Header().Set("Retry-After", strconv.Itoa(retryAfter))
		case managed(path):
			management.ServeHTTP(w, r)
			return
		}
		acme.ServeHTTP(w, r)
	})
}

// managed tells the paths of pebble's management interface, which shares the
// address of the directory here.
func managed(path string) bool {
	for _, prefix := range []string{
		"/roots/", "/root-keys/", "/intermediates/", "/intermediate-keys/", "/cert-status-by-serial/", "/set-renewal-info/",
	} {
		if strings.HasPrefix(path, prefix) {
			return true
		}
	}
	return false
}

// DirectoryURL is where ACME clients start.
func (p *Pebble) DirectoryURL() string { return "https://" + p.addr + wfe.DirectoryPath }

// ManagementURL is the root of pebble's management interface (roots/0 and
// set-renewal-info/, say), without a slash at its end.
func (p *Pebble) ManagementURL() string { return "https://" + p.addr }

// HTTPPort is the port on which http-01 challenges are validated.
func (p *Pebble) HTTPPort() int { return p.httpPort }

// RootPEM is the root that issued certificates chain to.
func (p *Pebble) RootPEM() []byte { return p.ca.GetRootCert(0).PEM() }

// TLSRootPEM is the root of the directory's own HTTPS certificate: what an ACME
// client must be told to trust.
func (p *Pebble) TLSRootPEM() []byte { return p.tlsCA.RootPEM() }

// Close stops the directory and the name server.
func (p *Pebble) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if p.server.Shutdown(ctx) != nil {
		p.server.Close()
	}
	<-p.served
	p.dns.Close()
}

// FreePort returns a TCP port of 127.0.0.1 that was free a moment ago.
func FreePort() (int, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port, nil
}
