package ari

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/renewatch/renewatch/internal/certtest"
)

// fakeCA is an ACME server of which only the two resources exist that are asked
// for, and both say what a test wants.
type fakeCA struct {
	*httptest.Server
	leaf  *x509.Certificate
	roots *x509.CertPool

	mu          sync.Mutex
	directory   http.HandlerFunc
	info        http.HandlerFunc
	directories int
	infos       int
	last        *http.Request
}

func newFakeCA(t *testing.T) *fakeCA {
	ca := &fakeCA{leaf: certtest.NewCA(certtest.CAOptions{}).Issue(certtest.LeafOptions{Names: []string{"a.test"}}).Cert}
	ca.directory = func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"newNonce":"%[1]s/nonce","newOrder":"%[1]s/order","renewalInfo":"%[1]s/info/"}`, ca.URL)
	}
	ca.info = ca.window
	ca.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ca.mu.Lock()
		handler := ca.directory
		if strings.HasPrefix(r.URL.Path, "/info") {
			handler = ca.info
			ca.infos++
		} else {
			ca.directories++
		}
		ca.last = r
		ca.mu.Unlock()
		handler(w, r)
	}))
	ca.Config.ErrorLog = log.New(io.Discard, "", 0)
	ca.StartTLS()
	t.Cleanup(ca.Close)
	ca.roots = x509.NewCertPool()
	ca.roots.AddCert(ca.Certificate())
	return ca
}

// window is the answer of a CA in order.
func (ca *fakeCA) window(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Retry-After", "3600")
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, `{"suggestedWindow":{"start":%q,"end":%q},"explanationURL":"https://acme.example.com/why"}`,
		ca.leaf.NotBefore.Add(59*24*time.Hour).Format(time.RFC3339), ca.leaf.NotBefore.Add(61*24*time.Hour).Format(time.RFC3339))
}

// answers replaces what the CA says of its directory and of a certificate; nil
// leaves it as it is.
func (ca *fakeCA) answers(directory, info http.HandlerFunc) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	if directory != nil {
		ca.directory = directory
	}
	if info != nil {
		ca.info = info
	}
}

// request is the newest one.
func (ca *fakeCA) request() *http.Request {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	return ca.last
}

func (ca *fakeCA) counts() (directories, infos int) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	return ca.directories, ca.infos
}

func (ca *fakeCA) client(t *testing.T, o Options) *Client {
	o.Roots = ca.roots
	c := New(o)
	t.Cleanup(c.Close)
	return c
}

func (ca *fakeCA) ask(t *testing.T, c *Client) (Answer, error) {
	t.Helper()
	return c.Ask(t.Context(), ca.URL+"/directory", ca.leaf)
}

func body(status int, contentType, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		io.WriteString(w, text)
	}
}

const (
	html       = "text/html"
	jsonType   = "application/json"
	problemDoc = "application/problem+json"
)

func acmeProblem(kind, detail string) string {
	return fmt.Sprintf(`{"type":"urn:ietf:params:acme:error:%s","detail":%q}`, kind, detail)
}

func TestAsk(t *testing.T) {
	ca := newFakeCA(t)
	c := ca.client(t, Options{UserAgent: "renewatch/1.2.3"})
	before := time.Now()
	a, err := ca.ask(t, c)
	if err != nil {
		t.Fatal(err)
	}
	id, _ := ID(ca.leaf)
	want := Answer{
		ID: id, NotBefore: ca.leaf.NotBefore, NotAfter: ca.leaf.NotAfter,
		Window: Window{ca.leaf.NotBefore.Add(59 * 24 * time.Hour), ca.leaf.NotBefore.Add(61 * 24 * time.Hour), "https://acme.example.com/why"},
		Asked:  a.Asked, Date: a.Date, RetryAfter: a.Asked.Add(time.Hour),
	}
	if a != want {
		t.Errorf("%+v\nwant %+v", a, want)
	}
	if a.Asked.Before(before) || a.Asked.After(time.Now()) || a.Date.Before(before.Add(-time.Minute)) {
		t.Errorf("asked at %s, %s by the CA's clock", a.Asked, a.Date)
	}
	last := ca.request()
	if last.Method != http.MethodGet || last.URL.Path != "/info/"+id || last.URL.RawQuery != "" {
		t.Errorf("%s %s", last.Method, last.URL)
	}
	if got := last.Header; got.Get("User-Agent") != "renewatch/1.2.3" || got.Get("Accept") != "application/json" ||
		got.Get("Cookie") != "" || got.Get("Authorization") != "" {
		t.Errorf("%v", got)
	}
}

func TestEveryFault(t *testing.T) {
	elsewhere := newFakeCA(t)
	plain := httptest.NewServer(body(200, jsonType, `{}`))
	t.Cleanup(plain.Close)
	type faults struct{ directory, info http.HandlerFunc }
	for _, c := range []struct {
		name   string
		faults func(ca *fakeCA) faults
		kind   error
		detail string
		wait   time.Duration // until RetryAfter
		soon   bool          // Temporary
	}{
		{"no renewalInfo", func(ca *fakeCA) faults {
			return faults{directory: body(200, jsonType, `{"newNonce":"https://a.example/n","newOrder":"https://a.example/o"}`)}
		}, ErrUnsupported, "no renewalInfo", latest, false},
		{"an unknown certificate", func(*fakeCA) faults {
			return faults{info: body(404, problemDoc, acmeProblem("malformed", "Requested certificate was not found"))}
		}, ErrUnknown, "404 malformed: Requested certificate was not found", usual, false},
		{"an identifier the CA cannot read", func(*fakeCA) faults {
			return faults{info: body(400, problemDoc, acmeProblem("malformed", "Parsing ARI CertID failed"))}
		}, ErrUnknown, "400 malformed", usual, false},
		{"a certificate that is gone", func(*fakeCA) faults {
			return faults{info: body(410, jsonType, acmeProblem("malformed", ""))}
		}, ErrUnknown, "410", usual, false},
		{"a refusal", func(*fakeCA) faults {
			return faults{info: body(403, problemDoc, acmeProblem("unauthorized", "not you"))}
		}, ErrUnavailable, "unauthorized: not you", usual, false},
		{"404 of a web server", func(*fakeCA) faults { return faults{info: body(404, html, "<html>")} },
			ErrNonsense, "status 404 without a problem document", usual, false},
		{"204", func(*fakeCA) faults { return faults{info: body(204, "", "")} }, ErrNonsense, "status 204", usual, false},
		{"500", func(*fakeCA) faults { return faults{info: body(500, html, "<html>")} },
			ErrUnavailable, "status 500", time.Minute, true},
		{"503 with a time", func(*fakeCA) faults {
			return faults{info: func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Retry-After", "7200")
				body(503, problemDoc, acmeProblem("serverInternal", "maintenance"))(w, r)
			}}
		}, ErrUnavailable, "status 503: serverInternal: maintenance", 2 * time.Hour, true},
		{"503 for the directory", func(*fakeCA) faults { return faults{directory: body(503, html, "")} },
			ErrUnavailable, "status 503", time.Minute, true},
		{"too many requests", func(*fakeCA) faults {
			return faults{info: func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Date", "Tue, 01 Jul 2025 12:00:00 GMT")
				w.Header().Set("Retry-After", "Tue, 01 Jul 2025 15:00:00 GMT")
				body(429, problemDoc, acmeProblem("rateLimited", "slow down"))(w, r)
			}}
		}, ErrUnavailable, "rateLimited: slow down", 3 * time.Hour, false},
		{"rate limited with another status", func(*fakeCA) faults {
			return faults{info: body(400, problemDoc, acmeProblem("rateLimited", ""))}
		}, ErrUnavailable, "rateLimited", usual, false},
		{"a page instead of an answer", func(*fakeCA) faults { return faults{info: body(200, html, "<html>Welcome to the hotel</html>")} },
			ErrNonsense, "not a JSON object", usual, false},
		{"a problem with status 200", func(*fakeCA) faults { return faults{info: body(200, problemDoc, acmeProblem("malformed", ""))} },
			ErrNonsense, "no suggestedWindow", usual, false},
		{"an inverted window", func(*fakeCA) faults {
			return faults{info: body(200, jsonType, `{"suggestedWindow":{"start":"2026-01-02T00:00:00Z","end":"2026-01-01T00:00:00Z"}}`)}
		}, ErrNonsense, "ends before it starts", usual, false},
		{"a window years ago", func(*fakeCA) faults {
			return faults{info: body(200, jsonType, `{"suggestedWindow":{"start":"2016-01-01T00:00:00Z","end":"2016-01-02T00:00:00Z"}}`)}
		}, ErrNonsense, "long before", usual, false},
		{"more than is read", func(*fakeCA) faults {
			return faults{info: body(200, jsonType, `{"x":"`+strings.Repeat("x", mostBody)+`"}`)}
		}, ErrNonsense, "more than 65536 bytes", usual, false},
		{"without an end", func(*fakeCA) faults {
			return faults{info: func(w http.ResponseWriter, r *http.Request) {
				for r.Context().Err() == nil {
					if _, err := w.Write(make([]byte, 4096)); err != nil {
						return
					}
				}
			}}
		}, ErrNonsense, "more than 65536 bytes", usual, false},
		{"cut off", func(*fakeCA) faults {
			return faults{info: func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Length", "1000")
				io.WriteString(w, `{"suggested`)
			}}
		}, ErrUnavailable, "closed too early", time.Minute, true},
		{"no response", func(*fakeCA) faults {
			return faults{info: func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }}
		}, ErrUnavailable, "closed too early", time.Minute, true},
		{"headers without an end", func(*fakeCA) faults {
			return faults{info: func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("X", strings.Repeat("x", 1<<20))
				body(200, jsonType, "{}")(w, r)
			}}
		}, ErrUnavailable, "", usual, false},
		{"elsewhere", func(*fakeCA) faults {
			return faults{info: http.RedirectHandler(elsewhere.URL+"/info/x", http.StatusFound).ServeHTTP}
		}, ErrNonsense, "redirects to https://127.0.0.1:", usual, false},
		{"down to http", func(*fakeCA) faults {
			return faults{info: http.RedirectHandler(plain.URL+"/info/x", http.StatusMovedPermanently).ServeHTTP}
		}, ErrNonsense, "redirects to http://127.0.0.1:", usual, false},
		{"down to http on the same port", func(ca *fakeCA) faults {
			return faults{info: http.RedirectHandler("http"+strings.TrimPrefix(ca.URL, "https")+"/info/x", http.StatusFound).ServeHTTP}
		}, ErrNonsense, "redirects to http://127.0.0.1:", usual, false},
		{"the directory elsewhere", func(*fakeCA) faults {
			return faults{directory: http.RedirectHandler(elsewhere.URL+"/directory", http.StatusTemporaryRedirect).ServeHTTP}
		}, ErrNonsense, "not followed", usual, false},
		{"in a circle", func(ca *fakeCA) faults {
			return faults{info: func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/info/x", http.StatusFound) }}
		}, ErrNonsense, "in a circle", usual, false},
		{"not a directory", func(*fakeCA) faults { return faults{directory: body(200, html, "<html>It works!</html>")} },
			ErrNonsense, "directory cannot be read", usual, false},
		{"a directory of something else", func(*fakeCA) faults { return faults{directory: body(200, jsonType, `{"new-cert":"x"}`)} },
			ErrNonsense, "not one of ACME", usual, false},
		{"no directory", func(*fakeCA) faults { return faults{directory: body(404, html, "")} }, ErrNonsense, "status 404 for its directory", usual, false},
		{"renewalInfo is no address", func(*fakeCA) faults { return faults{directory: body(200, jsonType, `{"renewalInfo":7}`)} },
			ErrNonsense, "not an address of https", usual, false},
		{"renewalInfo over http", func(*fakeCA) faults {
			return faults{directory: body(200, jsonType, `{"renewalInfo":"http://acme.example.com/info"}`)}
		}, ErrNonsense, "it is http, not https", usual, false},
		{"renewalInfo over http to this host", func(*fakeCA) faults {
			return faults{directory: body(200, jsonType, fmt.Sprintf(`{"renewalInfo":"%s/info"}`, plain.URL))}
		}, ErrNonsense, "is not https", usual, false},
		{"renewalInfo with a query", func(ca *fakeCA) faults {
			return faults{directory: body(200, jsonType, fmt.Sprintf(`{"renewalInfo":"%s/info?id="}`, ca.URL))}
		}, ErrNonsense, "has a query", usual, false},
		{"hostile text", func(*fakeCA) faults {
			return faults{info: body(404, problemDoc, `{"detail":"a\nERROR forged\u001b[31m`+strings.Repeat("!", 5000)+`"}`)}
		}, ErrUnknown, "404 : a ERROR forged [31m!!!", usual, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			ca := newFakeCA(t)
			f := c.faults(ca)
			ca.answers(f.directory, f.info)
			client := ca.client(t, Options{})
			before := time.Now()
			a, err := ca.ask(t, client)
			var e *Error
			if !errors.As(err, &e) || a != (Answer{}) {
				t.Fatalf("%+v, %v", a, err)
			}
			if !errors.Is(err, c.kind) || !strings.Contains(e.Detail, c.detail) {
				t.Errorf("%v, want %v: %s", err, c.kind, c.detail)
			}
			if e.Temporary != c.soon {
				t.Errorf("temporary: %v", e.Temporary)
			}
			if wait := e.RetryAfter.Sub(before); wait < c.wait || wait > c.wait+time.Since(before)+2*time.Second {
				t.Errorf("again after %s, want %s", wait, c.wait)
			}
			if _, infos := ca.counts(); infos > 1+mostRedirects {
				t.Errorf("%d requests", infos)
			}
			if msg := err.Error(); strings.ContainsAny(msg, "\n\x1b") || len(msg) > 600 {
				t.Errorf("%q", msg)
			}
		})
	}
	if d, i := elsewhere.counts(); d+i > 0 {
		t.Errorf("%d requests followed a redirect to another host", d+i)
	}
}

func TestARedirectToTheSameHostIsFollowed(t *testing.T) {
	ca := newFakeCA(t)
	ca.answers(nil, func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, "/info/v2/") {
			http.Redirect(w, r, strings.Replace(r.URL.Path, "/info/", "/info/v2/", 1), http.StatusPermanentRedirect)
			return
		}
		ca.window(w, r)
	})
	if _, err := ca.ask(t, ca.client(t, Options{})); err != nil {
		t.Error(err)
	}
}

func TestRenewalInfoMayBeOnAnotherHost(t *testing.T) {
	ca, other := newFakeCA(t), newFakeCA(t)
	ca.answers(body(200, jsonType, fmt.Sprintf(`{"renewalInfo":"%s/info"}`, other.URL)), nil)
	other.leaf = ca.leaf
	ca.roots.AddCert(other.Certificate())
	if _, err := ca.ask(t, ca.client(t, Options{})); err != nil {
		t.Error(err)
	}
	if _, infos := other.counts(); infos != 1 {
		t.Errorf("%d requests", infos)
	}
}

func TestCookiesAreNotKept(t *testing.T) {
	ca := newFakeCA(t)
	directory := ca.directory
	ca.answers(func(w http.ResponseWriter, r *http.Request) {
		http.SetCookie(w, &http.Cookie{Name: "who", Value: "you", Path: "/"})
		directory(w, r)
	}, nil)
	if _, err := ca.ask(t, ca.client(t, Options{})); err != nil {
		t.Fatal(err)
	}
	if c := ca.request().Header.Get("Cookie"); c != "" {
		t.Errorf("the CA got its cookie back: %s", c)
	}
}

func TestASilentCAIsNotWaitedForWithoutEnd(t *testing.T) {
	ca := newFakeCA(t)
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	for name, silent := range map[string]http.HandlerFunc{
		"before the header": func(http.ResponseWriter, *http.Request) { <-release },
		"in the body": func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, `{"suggestedWindow":`)
			w.(http.Flusher).Flush()
			<-release
		},
	} {
		t.Run(name, func(t *testing.T) {
			ca.answers(nil, silent)
			_, err := ca.ask(t, ca.client(t, Options{Timeout: 200 * time.Millisecond}))
			var e *Error
			if !errors.As(err, &e) || e.Kind != ErrUnavailable || !e.Temporary || !strings.Contains(e.Detail, "took too long") {
				t.Error(err)
			}
		})
	}
	t.Run("a handshake", func(t *testing.T) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close() // accepts nothing; the kernel does
		c := ca.client(t, Options{Timeout: 200 * time.Millisecond})
		if _, err := c.Ask(t.Context(), "https://"+ln.Addr().String()+"/directory", ca.leaf); !errors.Is(err, ErrUnavailable) {
			t.Error(err)
		}
	})
}

func TestTheCallersContextEndsAQuestion(t *testing.T) {
	ca := newFakeCA(t)
	ctx, cancel := context.WithCancel(t.Context())
	ca.answers(nil, func(w http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
	})
	c := ca.client(t, Options{})
	_, err := c.Ask(ctx, ca.URL+"/directory", ca.leaf)
	var e *Error
	if !errors.Is(err, context.Canceled) || errors.As(err, &e) {
		t.Errorf("%v", err)
	}
	// The CA is not blamed for it.
	ca.answers(nil, ca.window)
	if _, err := ca.ask(t, c); err != nil {
		t.Error(err)
	}
	if _, err := c.Ask(ctx, ca.URL+"/directory", ca.leaf); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestWhatIsNotAsked(t *testing.T) {
	ca := newFakeCA(t)
	c := ca.client(t, Options{})
	issuer := certtest.NewCA(certtest.CAOptions{})
	expired := issuer.Issue(certtest.LeafOptions{NotBefore: time.Now().AddDate(0, -4, 0), NotAfter: time.Now().Add(-time.Second)}).Cert
	for _, q := range []struct {
		name, directory string
		leaf            *x509.Certificate
		kind            error
	}{
		{"an expired leaf", ca.URL + "/directory", expired, ErrExpired},
		{"a self-signed leaf", ca.URL + "/directory", certtest.SelfSigned(certtest.LeafOptions{}).Cert, ErrUnsupported},
		{"no leaf", ca.URL + "/directory", nil, ErrUnsupported},
		{"http", "http://acme.example.com/directory", ca.leaf, ErrAddress},
		{"http to a name that looks local", "http://localhost.example.com/directory", ca.leaf, ErrAddress},
		{"http to a network", "http://192.0.2.1/directory", ca.leaf, ErrAddress},
		{"nothing", "", ca.leaf, ErrAddress},
		{"a file", "file:///etc/passwd", ca.leaf, ErrAddress},
		{"a password", strings.Replace(ca.URL, "https://", "https://me:secret@", 1), ca.leaf, ErrAddress},
		{"a line", ca.URL + "/dir\r\nectory", ca.leaf, ErrAddress},
		{"too long", ca.URL + "/" + strings.Repeat("a", mostURL), ca.leaf, ErrAddress},
	} {
		t.Run(q.name, func(t *testing.T) {
			_, err := c.Ask(t.Context(), q.directory, q.leaf)
			var e *Error
			if !errors.As(err, &e) || !errors.Is(err, q.kind) || !e.RetryAfter.After(time.Now()) || strings.Contains(err.Error(), "secret") {
				t.Errorf("%v", err)
			}
		})
	}
	if d, i := ca.counts(); d+i > 0 {
		t.Errorf("%d requests", d+i)
	}
}

func TestHTTPOnLoopback(t *testing.T) {
	ca := newFakeCA(t)
	plain := httptest.NewServer(ca.Config.Handler)
	t.Cleanup(plain.Close)
	ca.answers(body(200, jsonType, fmt.Sprintf(`{"renewalInfo":"%s/info"}`, plain.URL)), nil)
	if _, err := New(Options{}).Ask(t.Context(), plain.URL+"/directory", ca.leaf); err != nil {
		t.Error(err)
	}
}

func TestAnUntrustedServer(t *testing.T) {
	ca := newFakeCA(t)
	c := New(Options{Roots: x509.NewCertPool()})
	t.Cleanup(c.Close)
	_, err := ca.ask(t, c)
	var e *Error
	if !errors.As(err, &e) || e.Kind != ErrUnavailable || e.Temporary || !strings.Contains(e.Hint, "verify.ca") {
		t.Errorf("%v", err)
	}
	var unknown x509.UnknownAuthorityError
	if !errors.As(err, &unknown) {
		t.Error("the cause is lost")
	}
}
