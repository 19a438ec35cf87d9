package ari

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// Options say how CAs are asked.
type Options struct {
	// Roots are trusted for the CAs' HTTPS servers. nil: those of the system.
	Roots *x509.CertPool
	// Timeout of one request, the answer included. Zero: 20 s.
	Timeout time.Duration
	// UserAgent goes with every request: "renewatch/1.2.3". Empty: "renewatch".
	UserAgent string
	// DirectoryTTL is how long a CA's directory is kept at most; its
	// Cache-Control may shorten that to an hour. Zero: a day.
	DirectoryTTL time.Duration
}

// Client asks CAs. It asks one CA one thing at a time, knows no cookies, and no
// proxy but that of HTTPS_PROXY. What it remembers (directories, and which CA is in
// trouble) is lost with the process. Its methods may be called at the same time.
type Client struct {
	o         Options
	http      *http.Client
	transport *http.Transport

	mu    sync.Mutex
	hosts map[string]*host
}

// host is a CA's server. Whoever holds the slot may use the other fields.
type host struct {
	slot        chan struct{}
	directories map[string]directory
	trouble     *Error // until its RetryAfter
}

type directory struct {
	renewalInfo string // empty: there is none
	until       time.Time
}

const (
	mostBody      = 64 << 10 // bytes of a response
	mostHosts     = 64       // remembered at a time
	mostRedirects = 3
	troubled      = time.Minute // a CA that failed is left alone
)

// New makes a client.
func New(o Options) *Client {
	o.Timeout = cmp.Or(o.Timeout, 20*time.Second)
	o.UserAgent = cmp.Or(o.UserAgent, "renewatch")
	o.DirectoryTTL = cmp.Or(o.DirectoryTTL, 24*time.Hour)
	c := &Client{o: o, hosts: make(map[string]*host)}
	c.transport = &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		TLSClientConfig:        &tls.Config{RootCAs: o.Roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    o.Timeout,
		ResponseHeaderTimeout:  o.Timeout,
		IdleConnTimeout:        10 * time.Second,
		MaxIdleConns:           4,
		MaxIdleConnsPerHost:    1,
		MaxResponseHeaderBytes: mostBody,
		DisableCompression:     true,
	}
	c.http = &http.Client{Transport: c.transport, CheckRedirect: sameHost}
	return c
}

// Close ends the connections that are kept for the next question.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// Ask asks the CA whose ACME directory is given about a leaf. It sends nothing when
// the leaf has expired; whether the leaf was replaced, after which RFC 9773 forbids
// the question too, and whether the time to ask again has come, the caller knows.
// An error is an *Error, or that of ctx.
func (c *Client) Ask(ctx context.Context, directory string, leaf *x509.Certificate) (Answer, error) {
	now := time.Now()
	id, err := ID(leaf)
	if err != nil {
		return Answer{}, &Error{Kind: ErrUnsupported, Detail: err.Error(), RetryAfter: now.Add(latest)}
	}
	if !now.Before(leaf.NotAfter) {
		return Answer{}, &Error{Kind: ErrExpired, RetryAfter: now.Add(latest)}
	}
	at, err := address(directory)
	if err != nil {
		return Answer{}, &Error{Kind: ErrAddress, Detail: err.Error(), cause: err, RetryAfter: now.Add(usual),
			Hint: "ACME directories are asked over https, and over http only on this host"}
	}
	h := c.host(strings.ToLower(at.Host))
	select {
	case h.slot <- struct{}{}:
		defer func() { <-h.slot }()
	case <-ctx.Done():
		return Answer{}, ctx.Err()
	}
	answer, err := c.ask(ctx, h, at, id, leaf)
	if err == nil {
		h.trouble = nil
		return answer, nil
	}
	if ctx.Err() != nil {
		return Answer{}, ctx.Err()
	}
	return Answer{}, err
}

// ask asks for the directory when it is not known, then for the window.
func (c *Client) ask(ctx context.Context, h *host, at *url.URL, id string, leaf *x509.Certificate) (Answer, error) {
	if h.trouble != nil && time.Now().Before(h.trouble.RetryAfter) {
		return Answer{}, h.trouble
	}
	base, err := c.renewalInfo(ctx, h, at)
	if err != nil {
		return Answer{}, err
	}
	r, err := c.get(ctx, h, base+"/"+id)
	if err != nil {
		return Answer{}, err
	}
	if r.status != http.StatusOK {
		kind, detail, ok := problem(r.header.Get("Content-Type"), r.body)
		switch {
		case !ok:
			// What the directory said of the address may not hold any more.
			delete(h.directories, at.String())
			return Answer{}, r.nonsense(fmt.Sprintf("status %d without a problem document", r.status))
		case kind == "rateLimited" || kind == "serverInternal":
			return Answer{}, r.unavailable(h, kind+": "+detail)
		case r.status == http.StatusBadRequest || r.status == http.StatusNotFound || r.status == http.StatusGone:
			return Answer{}, &Error{Kind: ErrUnknown, Host: r.host, Status: r.status, RetryAfter: retryAfter(r.header, r.at, usual),
				Detail: clean(fmt.Sprintf("%d %s: %s", r.status, kind, detail))}
		}
		return Answer{}, r.unavailable(h, kind+": "+detail)
	}
	w, err := readWindow(r.body, leaf.NotBefore, leaf.NotAfter)
	if err != nil {
		return Answer{}, r.nonsense(err.Error())
	}
	answer := Answer{
		ID: id, NotBefore: leaf.NotBefore.UTC(), NotAfter: leaf.NotAfter.UTC(),
		Window: w, Asked: r.at, RetryAfter: retryAfter(r.header, r.at, usual),
	}
	if date, err := http.ParseTime(r.header.Get("Date")); err == nil {
		answer.Date = date.UTC()
	}
	return answer, nil
}

// renewalInfo is the address below which a CA answers.
func (c *Client) renewalInfo(ctx context.Context, h *host, at *url.URL) (string, error) {
	d, ok := h.directories[at.String()]
	if !ok || !time.Now().Before(d.until) {
		r, err := c.get(ctx, h, at.String())
		if err != nil {
			return "", err
		}
		var wrong *Error
		if d, wrong = c.readDirectory(r, at); wrong != nil {
			h.leave(wrong)
			return "", wrong
		}
		if len(h.directories) >= mostHosts {
			clear(h.directories)
		}
		h.directories[at.String()] = d
	}
	if d.renewalInfo == "" {
		return "", &Error{Kind: ErrUnsupported, Host: at.Host, RetryAfter: time.Now().Add(latest), Detail: "its directory has no renewalInfo"}
	}
	return d.renewalInfo, nil
}

func (c *Client) readDirectory(r reply, at *url.URL) (directory, *Error) {
	fail := func(detail string) (directory, *Error) {
		e := r.nonsense(detail)
		e.Hint = "is " + at.String() + " the directory of an ACME CA?"
		return directory{}, e
	}
	if r.status != http.StatusOK {
		return fail(fmt.Sprintf("status %d for its directory", r.status))
	}
	fields, err := object(r.body)
	if err != nil {
		return fail("its directory cannot be read: " + err.Error())
	}
	d := directory{until: r.at.Add(kept(r.header, c.o.DirectoryTTL))}
	if _, has := fields["renewalInfo"]; !has {
		if text(fields["newNonce"]) == "" && text(fields["newOrder"]) == "" {
			return fail("its directory is not one of ACME")
		}
		return d, nil
	}
	info, err := address(text(fields["renewalInfo"]))
	switch {
	case err != nil:
		return fail("the renewalInfo of its directory: " + err.Error())
	case info.Scheme == "http" && at.Scheme == "https":
		return fail("the renewalInfo of its directory is not https")
	case info.RawQuery != "" || info.ForceQuery:
		return fail("the renewalInfo of its directory has a query")
	}
	d.renewalInfo = strings.TrimSuffix(info.String(), "/")
	return d, nil
}

// host finds or remembers a server.
func (c *Client) host(name string) *host {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.hosts[name]
	if h == nil {
		if len(c.hosts) >= mostHosts {
			clear(c.hosts) // real hosts have a handful
		}
		h = &host{slot: make(chan struct{}, 1), directories: make(map[string]directory)}
		c.hosts[name] = h
	}
	return h
}

// leave keeps the CA from being asked for other certificates for a moment.
func (h *host) leave(e *Error) {
	moment := *e
	moment.RetryAfter = time.Now().Add(troubled)
	h.trouble = &moment
}

// reply is an HTTP response that was read to its end.
type reply struct {
	host   string
	status int
	header http.Header
	body   []byte
	at     time.Time
}

func (r reply) nonsense(detail string) *Error {
	return &Error{Kind: ErrNonsense, Host: r.host, Status: r.status, Detail: clean(detail), RetryAfter: r.at.Add(usual)}
}

// unavailable keeps the CA from being asked for other certificates either, until
// it wants to be asked again.
func (r reply) unavailable(h *host, detail string) *Error {
	e := &Error{Kind: ErrUnavailable, Host: r.host, Status: r.status, Detail: clean(detail), Temporary: r.status >= 500}
	fallback := usual
	if e.Temporary {
		fallback = troubled
	}
	e.RetryAfter = retryAfter(r.header, r.at, fallback)
	h.trouble = e
	return e
}

// get reads a response. One of the server's own errors, or of too many requests,
// is an error here already.
func (c *Client) get(parent context.Context, h *host, target string) (reply, error) {
	ctx, cancel := context.WithTimeout(parent, c.o.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return reply{}, &Error{Kind: ErrAddress, Detail: clean(err.Error()), cause: err, RetryAfter: time.Now().Add(usual)}
	}
	req.Header.Set("User-Agent", c.o.UserAgent)
	req.Header.Set("Accept", "application/json")
	resp, err := c.http.Do(req)
	var body []byte
	if err == nil {
		body, err = io.ReadAll(io.LimitReader(resp.Body, mostBody+1))
		resp.Body.Close()
	}
	if err != nil {
		if parent.Err() != nil {
			return reply{}, parent.Err() // nothing of it is the CA's
		}
		return reply{}, failure(h, req.URL.Host, err)
	}
	r := reply{host: req.URL.Host, status: resp.StatusCode, header: resp.Header, body: body, at: time.Now().UTC().Round(0)}
	if r.status >= 500 || r.status == http.StatusTooManyRequests {
		detail := fmt.Sprintf("status %d", r.status)
		if kind, text, ok := problem(r.header.Get("Content-Type"), body); ok {
			detail += ": " + kind + ": " + text
		}
		return reply{}, r.unavailable(h, detail)
	}
	if len(body) > mostBody {
		return reply{}, r.nonsense(fmt.Sprintf("more than %d bytes", mostBody))
	}
	return r, nil
}

// failure is what a request that got no response says of the CA.
func failure(h *host, name string, err error) *Error {
	now := time.Now()
	var redirect *redirectError
	if errors.As(err, &redirect) {
		return &Error{Kind: ErrNonsense, Host: name, Detail: clean(redirect.Error()), cause: err, RetryAfter: now.Add(usual)}
	}
	var wrapped *url.Error
	cause := err
	if errors.As(err, &wrapped) {
		cause = wrapped.Err // without the method and the whole address
	}
	e := &Error{Kind: ErrUnavailable, Host: name, Detail: clean(cause.Error()), cause: err, RetryAfter: now.Add(usual)}
	var timeout net.Error
	var reset *net.OpError
	switch {
	case errors.As(err, &timeout) && timeout.Timeout():
		e.Temporary, e.Detail = true, "the request took too long"
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		e.Temporary, e.Detail = true, "the connection was closed too early"
	case errors.As(err, &reset) && reset.Op == "read":
		e.Temporary = true
	}
	if e.Temporary {
		e.RetryAfter = now.Add(troubled)
	}
	var untrusted x509.UnknownAuthorityError
	if errors.As(err, &untrusted) {
		e.Hint = "a CA of your own must be trusted: name its root in verify.ca"
	}
	h.leave(e)
	return e
}

type redirectError struct{ to string }

func (e *redirectError) Error() string { return e.to }

// sameHost follows a redirect only to where the request went already.
func sameHost(req *http.Request, via []*http.Request) error {
	first := via[0].URL
	if req.URL.Scheme != first.Scheme || !strings.EqualFold(req.URL.Host, first.Host) {
		return &redirectError{"it redirects to " + req.URL.Scheme + "://" + req.URL.Host + ", which is not followed"}
	}
	if len(via) > mostRedirects {
		return &redirectError{"it redirects in a circle"}
	}
	return nil
}

// address reads the address of something of ACME.
func address(s string) (*url.URL, error) {
	if len(s) > mostURL {
		return nil, errors.New("it is too long for an address")
	}
	if cleanURL(s) == "" {
		return nil, errors.New("it is not an address of https")
	}
	u, err := url.Parse(s)
	if err != nil || u.Hostname() == "" || u.Opaque != "" {
		return nil, errors.New("it is not an address of https")
	}
	if u.Scheme == "http" && !loopback(u.Hostname()) {
		return nil, errors.New("it is http, not https")
	}
	u.Fragment, u.RawFragment = "", ""
	return u, nil
}

func loopback(name string) bool {
	ip := net.ParseIP(name)
	return strings.EqualFold(name, "localhost") || ip != nil && ip.IsLoopback()
}
