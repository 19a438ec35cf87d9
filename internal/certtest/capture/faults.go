package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/renewatch/renewatch/internal/certtest"
)

// Names that are refused when they are ordered.
const (
	limited  = "limited.test"  // 429, Let's Encrypt's words, Retry-After of more than a day
	soon     = "soon.test"     // 429, Retry-After of a second
	paused   = "paused.test"   // 429, Let's Encrypt's words for a paused account, a page with a token
	busy     = "busy.test"     // 503 with a problem document
	gateway  = "gateway.test"  // 502 with a page of HTML
	nonce    = "nonce.test"    // badNonce, once
	nonces   = "nonces.test"   // badNonce for ever
	rejected = "rejected.test" // a problem with sub-problems
	newline  = "newline.test"  // a detail with raw newlines, after which the client's own lines follow
	hang     = "hang.test"     // no answer
)

// Names that are refused when the certificate is asked for.
const (
	caa  = "caa.test"  // CAA, with sub-problems
	late = "late.test" // the CA's own trouble
)

// Names that fail when they are validated.
const (
	wrong    = "wrong.test"    // the web server answers something else
	forged   = "forged.test"   // and that something else is lines of the client's log
	gone     = "gone.test"     // does not exist, which Let's Encrypt says in words of its own
	refused  = "refused.test"  // nobody listens
	raw      = "raw.test"      // the CA quotes lines of the client's log with raw newlines
	caaEarly = "caafirst.test" // CAA, at validation
)

// boulderLimited is what Let's Encrypt says of a rate limit.
func boulderLimited(name string) string {
	return fmt.Sprintf("too many certificates (5) already issued for this exact set of identifiers in the last 168h0m0s, retry after %s: "+
		"see https://letsencrypt.org/docs/rate-limits/#new-certificates-per-exact-set-of-identifiers",
		time.Now().UTC().Add(limitedFor).Format("2006-01-02 15:04:05 MST"))
}

const limitedFor = 97331 * time.Second

// boulderPaused is what Let's Encrypt says of a paused account. The token is made
// up.
func boulderPaused(name string) string {
	return "Your account is temporarily prevented from requesting certificates for " + name + " and possibly others. Please visit: " +
		"https://portal.example.test/sfe/v1/unpause?jwt=eyJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJXRkUiLCJzdWIiOiIxMjM0NTY3ODkwIn0.c2lnbmVkLWJ5LW5vYm9keS1hdC1hbGwtYXQtYWxs"
}

const gatewayPage = "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n<center><h1>502 Bad Gateway</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"

// faultCA is pebble behind a proxy that answers for it where a name says so.
type faultCA struct {
	pebble *certtest.Pebble
	calm   atomic.Bool // no name is refused: certificates are issued that will fail to renew
	forge  string      // lines of the log of the client that is run
	proxy  *httputil.ReverseProxy
	tls    *http.Server
	root   []byte
	url    string
	wg     sync.WaitGroup
	over   chan struct{}

	mu       sync.Mutex
	finalize map[string][]string // path of the finalize URL -> names
	validate map[string]string   // path of the challenge's URL -> name
	once     map[string]bool     // names that had their one badNonce
}

func newFaultCA(p *certtest.Pebble, forge string) (*faultCA, error) {
	upstream, err := url.Parse(p.ManagementURL())
	if err != nil {
		return nil, err
	}
	ca := &faultCA{pebble: p, forge: forge, over: make(chan struct{}), finalize: map[string][]string{}, validate: map[string]string{}, once: map[string]bool{}}
	own := certtest.NewCA(certtest.CAOptions{Name: "Laboratory"})
	leaf := own.Issue(certtest.LeafOptions{Names: []string{"localhost", "127.0.0.1"}})
	ca.root = own.RootPEM()
	ca.proxy = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(upstream)
			r.Out.Host = r.In.Host // pebble makes its URLs of it
			r.Out.Header.Del("Accept-Encoding")
		},
		ModifyResponse: ca.learn,
		Transport:      trusting(p.TLSRootPEM()),
	}
	secure, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	ca.url = "https://localhost:" + port(secure) + "/dir"
	ca.tls = &http.Server{Handler: ca, TLSConfig: tlsConfig(leaf), ErrorLog: silent(), ReadHeaderTimeout: time.Minute}
	ca.wg.Go(func() { ca.tls.ServeTLS(secure, "", "") }) //nolint:errcheck // it ends with close
	return ca, nil
}

// down ends the CA: from now on nobody listens.
func (ca *faultCA) down() { ca.tls.Close() }

func (ca *faultCA) close() {
	close(ca.over)
	ca.down()
	ca.wg.Wait()
}

func (ca *faultCA) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return
	}
	if r.Method == http.MethodPost && !ca.calm.Load() && ca.refuse(w, r, body) {
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	ca.proxy.ServeHTTP(w, r)
}

// refuse answers where a name says so.
func (ca *faultCA) refuse(w http.ResponseWriter, r *http.Request, body []byte) bool {
	if strings.HasPrefix(r.URL.Path, "/finalize-order/") {
		ca.mu.Lock()
		names := ca.finalize[r.URL.Path]
		ca.mu.Unlock()
		for _, name := range names {
			switch name {
			case caa:
				ca.problem(w, 403, 0, "caa", `Error finalizing order :: Rechecking CAA for "caa.test" and 1 more identifiers failed. Refer to sub-problems for more information`,
					sub{"caa", caa, "CAA record for caa.test prevents issuance"}, sub{"caa", "www." + caa, "CAA record for caa.test prevents issuance"})
				return true
			case late:
				ca.problem(w, 500, 0, "serverInternal", "Error finalizing order")
				return true
			}
		}
		return false
	}
	if r.URL.Path != "/order-plz" {
		return false
	}
	for _, name := range ordered(body) {
		switch name {
		case limited:
			ca.problem(w, 429, int(limitedFor/time.Second), "rateLimited", boulderLimited(name))
		case soon:
			ca.problem(w, 429, 1, "rateLimited", boulderLimited(name))
		case paused:
			ca.problem(w, 429, 0, "rateLimited", boulderPaused(name))
		case busy:
			ca.problem(w, 503, 1, "rateLimited", "Service busy; retry later.")
		case gateway:
			w.Header().Set("Content-Type", "text/html")
			w.Header().Set("Server", "nginx")
			w.WriteHeader(502)
			io.WriteString(w, gatewayPage) //nolint:errcheck // the client is gone
		case nonce:
			ca.mu.Lock()
			had := ca.once[name]
			ca.once[name] = true
			ca.mu.Unlock()
			if had {
				continue
			}
			ca.problem(w, 400, 0, "badNonce", "JWS has an invalid anti-replay nonce: \"taroOTEsVXU\"")
		case nonces:
			ca.problem(w, 400, 0, "badNonce", "JWS has an invalid anti-replay nonce: \"taroOTEsVXU\"")
		case rejected:
			ca.problem(w, 400, 0, "rejectedIdentifier", `Invalid identifiers requested :: Cannot issue for "rejected.test": The ACME server refuses to issue a certificate for this domain name, because it is forbidden by policy (and 1 more problems. Refer to sub-problems for more information.)`,
				sub{"rejectedIdentifier", rejected, "The ACME server refuses to issue a certificate for this domain name, because it is forbidden by policy"},
				sub{"malformed", "www." + rejected, "Domain name does not end with a valid public suffix (TLD)"})
		case newline:
			ca.problem(w, 403, 0, "rejectedIdentifier", "policy forbids it\n"+ca.forge+"\nand so it ends")
		case hang:
			select {
			case <-r.Context().Done():
			case <-ca.over:
			}
		default:
			continue
		}
		return true
	}
	return false
}

type sub struct{ kind, name, detail string }

// document has its fields in the order in which Let's Encrypt's CA writes them.
type document struct {
	Type       string      `json:"type"`
	Detail     string      `json:"detail"`
	Status     int         `json:"status"`
	Sub        []document  `json:"subproblems,omitempty"`
	Identifier *identifier `json:"identifier,omitempty"`
}

type identifier struct {
	Type  string `json:"type"`
	Value string `json:"value"`
}

// problem answers with a problem document (RFC 8555, section 6.7), and a fresh
// nonce as every answer of an ACME CA.
func (ca *faultCA) problem(w http.ResponseWriter, status, retryAfter int, kind, detail string, subs ...sub) {
	const urn = "urn:ietf:params:acme:error:"
	doc := document{Type: urn + kind, Detail: detail, Status: status}
	for _, s := range subs {
		doc.Sub = append(doc.Sub, document{Type: urn + s.kind, Detail: s.detail, Status: status, Identifier: &identifier{"dns", s.name}})
	}
	if retryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(retryAfter))
	}
	if r, err := http.NewRequest(http.MethodHead, ca.pebble.ManagementURL()+"/nonce-plz", nil); err == nil {
		if got, err := ca.proxy.Transport.RoundTrip(r); err == nil {
			got.Body.Close()
			w.Header().Set("Replay-Nonce", got.Header.Get("Replay-Nonce"))
		}
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	w.Write(marshal(doc)) //nolint:errcheck // the client is gone
}

// ordered returns the names of a new-order request.
func ordered(body []byte) (names []string) {
	var jws struct{ Payload string }
	if json.Unmarshal(body, &jws) != nil {
		return nil
	}
	text, err := base64.RawURLEncoding.DecodeString(jws.Payload)
	if err != nil {
		return nil
	}
	var order struct{ Identifiers []struct{ Value string } }
	if json.Unmarshal(text, &order) != nil {
		return nil
	}
	for _, id := range order.Identifiers {
		names = append(names, id.Value)
	}
	return names
}

// authorization and challenge have their fields in the order in which Let's
// Encrypt's CA writes them.
type authorization struct {
	Identifier *identifier     `json:"identifier,omitempty"`
	Status     string          `json:"status"`
	Expires    string          `json:"expires,omitempty"`
	Challenges []challenge     `json:"challenges,omitempty"`
	Wildcard   json.RawMessage `json:"wildcard,omitempty"`
}

type challenge struct {
	Type      string          `json:"type"`
	URL       string          `json:"url"`
	Status    string          `json:"status"`
	Validated string          `json:"validated,omitempty"`
	Error     *document       `json:"error,omitempty"`
	Token     string          `json:"token,omitempty"`
	Record    json.RawMessage `json:"validationRecord,omitempty"`
}

// learn reads what pebble answers: which URL is for which names. It rewrites the
// errors of names whose CA has its own words.
func (ca *faultCA) learn(r *http.Response) error {
	if !strings.HasPrefix(r.Header.Get("Content-Type"), "application/json") {
		return nil
	}
	body, err := io.ReadAll(r.Body)
	r.Body.Close()
	if err != nil {
		return err
	}
	var order struct {
		Identifiers []identifier
		Finalize    string
	}
	var authz authorization
	var chal challenge
	switch path := r.Request.URL.Path; {
	case strings.HasPrefix(path, "/authZ/") && json.Unmarshal(body, &authz) == nil && authz.Identifier != nil:
		body = ca.authorization(authz)
	case strings.HasPrefix(path, "/chalZ/") && json.Unmarshal(body, &chal) == nil && chal.URL != "":
		ca.mu.Lock()
		name := ca.validate[chal.URL]
		ca.mu.Unlock()
		ca.reword(name, &chal)
		body = marshal(chal)
	case json.Unmarshal(body, &order) == nil && order.Finalize != "":
		if u, err := url.Parse(order.Finalize); err == nil {
			var names []string
			for _, id := range order.Identifiers {
				names = append(names, id.Value)
			}
			ca.mu.Lock()
			ca.finalize[u.Path] = names
			ca.mu.Unlock()
		}
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	r.ContentLength = int64(len(body))
	r.Header.Set("Content-Length", strconv.Itoa(len(body)))
	return nil
}

// authorization leaves of one the challenges that Let's Encrypt offers too: older
// clients stumble over what was invented later.
func (ca *faultCA) authorization(a authorization) []byte {
	a.Challenges = slices.DeleteFunc(a.Challenges, func(c challenge) bool {
		return c.Type != "http-01" && c.Type != "dns-01" && c.Type != "tls-alpn-01"
	})
	ca.mu.Lock()
	defer ca.mu.Unlock()
	for i := range a.Challenges {
		ca.validate[a.Challenges[i].URL] = a.Identifier.Value
		ca.reword(a.Identifier.Value, &a.Challenges[i])
	}
	return marshal(a)
}

// reword changes the error of a challenge where the CA has words of its own for a
// name.
func (ca *faultCA) reword(name string, c *challenge) {
	if c.Error == nil {
		return
	}
	kind := ""
	switch name {
	case raw:
		kind, c.Error.Detail = "unauthorized", "127.0.0.1: Invalid response from http://raw.test/: \"\n"+ca.forge+"\n\""
	case gone:
		kind, c.Error.Detail = "dns", "DNS problem: NXDOMAIN looking up A for gone.test - check that a DNS record exists for this domain; DNS problem: NXDOMAIN looking up AAAA for gone.test - check that a DNS record exists for this domain"
	case caaEarly:
		kind, c.Error.Detail = "caa", "CAA record for caafirst.test prevents issuance"
	default:
		return
	}
	c.Error.Type = "urn:ietf:params:acme:error:" + kind
}

func marshal(v any) []byte {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		panic(err) // strings and numbers
	}
	return text
}
