package verify

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

func TestCheckServingStaleMixed(t *testing.T) {
	ca := newCA(t)
	now := time.Now()
	old := ca.issue(t, spec{from: now.Add(-days(40))})
	current := ca.issue(t, spec{from: now.Add(-days(1))})
	p := &Prober{Roots: ca.pool()}

	port := start(t, tlsHandler(configOf(current)))
	v := check(t, p, Target{Endpoint: local(t, port), Expect: expecting(current)}, 2)
	if v.Code != Serving || v.Severity != Info || v.Samples != 2 || v.Matching != 2 || v.KeyType != "ecdsa" || v.Since.IsZero() || !v.CountsAsServing() ||
		v.Transport != "tcp" || v.Address != netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port) || len(v.Served) != 2 || v.Took <= 0 {
		t.Errorf("%+v", v)
	}

	port = start(t, tlsHandler(configOf(old)))
	v = check(t, p, Target{Endpoint: local(t, port), Expect: expecting(current, old)}, 2, Stale)
	if v.Severity != Warning || v.Matching != 0 || !v.Since.IsZero() || v.CountsAsServing() {
		t.Errorf("%+v", v)
	}
	says(t, v, short(old.leaf()), short(current.leaf()), "reload")

	var n atomic.Int64
	port = start(t, tlsHandler(&tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		c := []pair{old, current}[n.Add(1)%2].tls()
		return &c, nil
	}}))
	v = check(t, p, Target{Endpoint: local(t, port), Expect: expecting(current, old)}, 4, Mixed, Stale)
	if v.Samples != 4 || v.Matching != 2 || v.Severity != Error {
		t.Errorf("%+v", v)
	}
	says(t, v, "2 of 4 handshakes")
}

func TestEachAddressByItself(t *testing.T) {
	ca := newCA(t)
	now := time.Now()
	old := ca.issue(t, spec{from: now.Add(-days(40))})
	current := ca.issue(t, spec{from: now.Add(-days(1))})
	four := listen(t, "127.0.0.1", 0)
	six := listen(t, "[::1]", portOf(four))
	serve(t, four, tlsHandler(configOf(current)))
	serve(t, six, tlsHandler(configOf(old)))
	e := at(t, "https://localhost:%d?address=[::1],127.0.0.1,127.0.0.2:1", portOf(four))
	vs := (&Prober{Roots: ca.pool()}).Check(context.Background(), Target{Endpoint: e, Expect: expecting(current, old)}, 2)
	want := []Code{Stale, Serving, Refused}
	if len(vs) != 3 {
		t.Fatalf("%d verdicts", len(vs))
	}
	for i, v := range vs {
		if v.Code != want[i] || v.Address != e.Addresses()[i] {
			t.Errorf("%s: %s (%s), want %s", v.Address, v.Code, v.Detail, want[i])
		}
	}
	if vs[2].Severity != Error {
		t.Errorf("one IPv4 address down is %s", vs[2].Severity)
	}
}

func TestKeyTypes(t *testing.T) {
	ca := newCA(t)
	rsa, ec, ed := ca.issue(t, spec{keyType: "rsa"}), ca.issue(t, spec{}), ca.issue(t, spec{keyType: "ed25519"})
	p := &Prober{Roots: ca.pool()}
	both := start(t, tlsHandler(configOf(rsa, ec)))
	reversed := start(t, tlsHandler(configOf(ec, rsa)))
	for _, port := range []uint16{both, reversed} {
		for _, want := range []pair{rsa, ec} {
			v := check(t, p, Target{Endpoint: local(t, port), Expect: expecting(want)}, 3)
			if v.Matching != 3 || v.KeyType != KeyType(want.leaf()) {
				t.Errorf("%s: %d of %d", v.KeyType, v.Matching, v.Samples)
			}
		}
	}
	port := start(t, tlsHandler(configOf(ed, rsa)))
	if v := check(t, p, Target{Endpoint: local(t, port), Expect: expecting(ed)}, 2); v.KeyType != "ed25519" {
		t.Errorf("key type %s", v.KeyType)
	}

	// One certificate of another type is judged as it is.
	old := ca.issue(t, spec{keyType: "rsa", from: time.Now().Add(-days(30))})
	port = start(t, tlsHandler(configOf(old)))
	v := check(t, p, Target{Endpoint: local(t, port), Expect: expecting(ec, old)}, 2, Stale)
	says(t, v, "no certificate with a key of type ecdsa")

	// So is what a server shows that cannot be asked by TLS 1.2.
	c := configOf(rsa, ec)
	c.MinVersion = tls.VersionTLS13
	port = start(t, tlsHandler(c))
	seen := p.Check(context.Background(), Target{Endpoint: local(t, port)}, 1)[0].Served[0]
	want := rsa
	if KeyType(seen) == "rsa" {
		want = ec
	}
	v = check(t, p, Target{Endpoint: local(t, port), Expect: expecting(want)}, 2, Foreign)
	says(t, v, "TLS 1.3 only")
}

func TestOldServers(t *testing.T) {
	ca := newCA(t)
	for _, kt := range []string{"rsa", "ecdsa"} {
		current := ca.issue(t, spec{keyType: kt})
		c := configOf(current)
		c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS10
		check(t, &Prober{Roots: ca.pool()}, Target{Endpoint: local(t, start(t, tlsHandler(c))), Expect: expecting(current)}, 2)
	}
	current := ca.issue(t, spec{keyType: "rsa"})
	c := configOf(current)
	c.MaxVersion = tls.VersionTLS12
	c.CipherSuites = []uint16{tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA}
	check(t, &Prober{Roots: ca.pool()}, Target{Endpoint: local(t, start(t, tlsHandler(c))), Expect: expecting(current)}, 2)
}

func TestClientCertificateRequired(t *testing.T) {
	ca := newCA(t)
	current := ca.issue(t, spec{})
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		c := configOf(current)
		c.ClientAuth = tls.RequireAndVerifyClientCert
		c.MinVersion, c.MaxVersion = version, version
		v := check(t, &Prober{Roots: ca.pool()}, Target{Endpoint: local(t, start(t, tlsHandler(c))), Expect: expecting(current)}, 2)
		if v.Matching != 2 {
			t.Errorf("%x: %d of %d", version, v.Matching, v.Samples)
		}
		if version == tls.VersionTLS12 {
			says(t, v, "client certificate")
		}
	}
}

// Some servers that miss a client's certificate close without an alert, or
// their alert is lost in the reset that follows.
func TestClientCertificateRequiredWithoutAlert(t *testing.T) {
	ca := newCA(t)
	current := ca.issue(t, spec{})
	port := start(t, func(raw net.Conn) {
		c := configOf(current)
		c.MaxVersion = tls.VersionTLS12
		c.ClientAuth = tls.RequestClientCert
		c.VerifyConnection = func(tls.ConnectionState) error { raw.Close(); return errors.New("no") }
		tlsHandler(c)(raw)
	})
	v := check(t, &Prober{Roots: ca.pool()}, Target{Endpoint: local(t, port), Expect: expecting(current)}, 2)
	says(t, v, "client certificate")
}

// A mute server costs one timeout, however many samples are wanted: one
// connection with the standard hello, one with the classical.
func TestMuteServerIsNotAskedAgain(t *testing.T) {
	var n atomic.Int64
	port := start(t, func(c net.Conn) { n.Add(1); waits(c) })
	check(t, &Prober{Timeout: brief}, Target{Endpoint: local(t, port)}, 5, Timeout)
	if got := n.Load(); got != 2 {
		t.Errorf("%d connections, want 2", got)
	}
}

func TestReadingIsBounded(t *testing.T) {
	s := &script{text: strings.Repeat("x", 2*maxRead), chunk: 4096}
	n, err := io.Copy(io.Discard, struct{ io.Reader }{newWire(s, time.Time{})})
	if n != maxRead || !errors.Is(err, errFlood) {
		t.Errorf("read %d bytes, %v; want %d", n, err, maxRead)
	}
}

func TestWrongVirtualHost(t *testing.T) {
	ca := newCA(t)
	current, fallback := ca.issue(t, spec{names: []string{"www.example"}}), ca.issue(t, spec{names: []string{"default.example"}})
	port := start(t, tlsHandler(&tls.Config{GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		c := fallback.tls()
		if h.ServerName == "www.example" {
			c = current.tls()
		}
		return &c, nil
	}}))
	p := &Prober{Roots: ca.pool()}
	check(t, p, Target{Endpoint: at(t, "tls://127.0.0.1:%d?servername=www.example", port), Expect: expecting(current)}, 2)
	v := check(t, p, Target{Endpoint: at(t, "tls://other.example:%d?address=127.0.0.1", port), Expect: expecting(current)}, 2, WrongName, Foreign)
	says(t, v, "default.example", "other.example", "when no host is named")
}

func TestWrongKeyIsNotServing(t *testing.T) {
	ca := newCA(t)
	current := ca.issue(t, spec{})
	stolen := pair{current.chain, newKey(t, "ecdsa")}
	v := check(t, &Prober{Roots: ca.pool()}, Target{Endpoint: local(t, start(t, tlsHandler(configOf(stolen)))), Expect: expecting(current)}, 2, HandshakeFailed)
	if v.CountsAsServing() || len(v.Served) == 0 {
		t.Errorf("%+v", v)
	}
	says(t, v, "invalid signature")
}

func TestHostileServers(t *testing.T) {
	ca := newCA(t)
	current := ca.issue(t, spec{})
	record := func(kind byte, body string) string {
		return string(binary.BigEndian.AppendUint16([]byte{kind, 3, 3}, uint16(len(body)))) + body
	}
	drip := func(text string) func(net.Conn) {
		return func(c net.Conn) {
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			for i := 0; ; i++ {
				if _, err := c.Write([]byte{text[i%len(text)]}); err != nil {
					return
				}
				<-tick.C
			}
		}
	}
	endless := func(text string) func(net.Conn) {
		return func(c net.Conn) {
			for {
				if _, err := io.WriteString(c, text); err != nil {
					return
				}
			}
		}
	}
	for _, tt := range []struct {
		says    string
		handle  func(net.Conn)
		timeout time.Duration
		want    Code
		words   string
	}{
		{"plain HTTP", func(c net.Conn) {
			io.ReadFull(c, make([]byte, 100))
			io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n")
			waits(c)
		}, 0, NotTLS, "plain HTTP"},
		{"an SMTP greeting", func(c net.Conn) { io.WriteString(c, "220 mx ESMTP\r\n"); waits(c) }, 0, NotTLS, "smtp://"},
		{"garbage", endless("\x00\xff\x1b[31mgarbage\n"), 0, NotTLS, "does not speak TLS"},
		{"a mute server", waits, brief, Timeout, "did not answer the TLS hello"},
		{"a byte now and then", drip(record(22, strings.Repeat("\x02\x00\xff\xff", 16000/4))), brief, Timeout, "slowly"},
		{"endless records of a handshake without end", endless(record(22, "\x0b\xff\xff\xff"+strings.Repeat("x", 16000))), 0, HandshakeFailed, ""},
		{"endless warnings", endless(record(21, "\x01\x5a")), 0, HandshakeFailed, ""},
		{"closed at once", func(c net.Conn) {}, 0, HandshakeFailed, "closed the connection"},
		{"reset", func(c net.Conn) { c.(*net.TCPConn).SetLinger(0) }, 0, HandshakeFailed, "PROXY protocol"},
		{"no certificate for this name", tlsHandler(&tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, errors.New("no") }}),
			0, HandshakeFailed, "alert"},
		{"a certificate that is none", tlsHandler(&tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{[]byte("junk")}, PrivateKey: current.key}}}),
			0, HandshakeFailed, ""},
	} {
		t.Run(tt.says, func(t *testing.T) {
			t.Parallel()
			p := &Prober{Roots: ca.pool(), Timeout: tt.timeout}
			v := check(t, p, Target{Endpoint: local(t, start(t, tt.handle)), Expect: expecting(current)}, 2, tt.want)
			says(t, v, tt.words)
			if printable(v.Detail, 1<<20) != v.Detail {
				t.Errorf("unfit detail %q", v.Detail)
			}
			if v.Served != nil || v.Samples != 0 || v.KeyType != "ecdsa" {
				t.Errorf("%+v", v)
			}
		})
	}
}

// helloLimit hands on a TLS hello of at most limit bytes and does something
// else with a longer one.
func helloLimit(limit int, long, short func(net.Conn)) func(net.Conn) {
	return func(c net.Conn) {
		head := make([]byte, 5)
		if _, err := io.ReadFull(c, head); err != nil {
			return
		}
		if int(binary.BigEndian.Uint16(head[3:])) > limit {
			long(c)
			return
		}
		short(replayed(c, head))
	}
}

func TestPostQuantumIntolerance(t *testing.T) {
	ca := newCA(t)
	current := ca.issue(t, spec{})
	good := tlsHandler(configOf(current))
	for _, tt := range []struct {
		says    string
		long    func(net.Conn)
		timeout time.Duration
	}{
		{"closes", func(net.Conn) {}, 0},
		{"resets", func(c net.Conn) { c.(*net.TCPConn).SetLinger(0) }, 0},
		// Two thirds of the timeout pass with every standard hello.
		{"keeps silent", waits, 3 * time.Second},
	} {
		t.Run(tt.says, func(t *testing.T) {
			t.Parallel()
			p := &Prober{Roots: ca.pool(), Timeout: tt.timeout}
			v := check(t, p, Target{Endpoint: local(t, start(t, helloLimit(1400, tt.long, good))), Expect: expecting(current)}, 2, PQIntolerant)
			if v.Severity != Warning || v.Matching != 2 || !v.CountsAsServing() {
				t.Errorf("%+v", v)
			}
		})
	}
	// After two samples the standard hello is not tried any more.
	var n atomic.Int64
	port := start(t, helloLimit(1400, func(net.Conn) { n.Add(1) }, good))
	check(t, &Prober{Roots: ca.pool()}, Target{Endpoint: local(t, port), Expect: expecting(current)}, 5, PQIntolerant)
	if got := n.Load(); got != 2 {
		t.Errorf("the standard hello was sent %d times, want 2", got)
	}
	// A single cut connection does not make a server intolerant.
	n.Store(0)
	port = start(t, func(c net.Conn) {
		if n.Add(1) > 1 {
			good(c)
		}
	})
	check(t, &Prober{Roots: ca.pool()}, Target{Endpoint: local(t, port), Expect: expecting(current)}, 2)
}

func TestProxyProtocol(t *testing.T) {
	ca := newCA(t)
	current := ca.issue(t, spec{})
	good := tlsHandler(configOf(current))
	port := start(t, func(c net.Conn) {
		head := make([]byte, 16)
		if _, err := io.ReadFull(c, head); err == nil && bytes.Equal(head, []byte("\x0d\x0a\x0d\x0a\x00\x0d\x0aQUIT\x0a\x20\x00\x00\x00")) {
			good(c)
		}
	})
	p := &Prober{Roots: ca.pool()}
	check(t, p, Target{Endpoint: at(t, "https://localhost:%d?address=127.0.0.1&proxy_protocol=v2", port), Expect: expecting(current)}, 2)
	v := check(t, p, Target{Endpoint: local(t, port), Expect: expecting(current)}, 2, HandshakeFailed)
	says(t, v, "proxy_protocol=v2")
}

func TestOneLostSampleIsTakenAgain(t *testing.T) {
	ca := newCA(t)
	current := ca.issue(t, spec{})
	good := tlsHandler(configOf(current))
	var n atomic.Int64
	port := start(t, func(c net.Conn) {
		// The second sample is cut twice: its standard and its classical hello.
		if i := n.Add(1); i == 2 || i == 3 {
			return
		}
		good(c)
	})
	v := check(t, &Prober{Roots: ca.pool()}, Target{Endpoint: local(t, port), Expect: expecting(current)}, 4)
	if v.Samples != 4 || v.Matching != 4 || n.Load() != 6 {
		t.Errorf("%d of %d matching, %d connections", v.Matching, v.Samples, n.Load())
	}
}

func TestRoundTriesThreeTimes(t *testing.T) {
	ca := newCA(t)
	ln := listen(t, "127.0.0.1", 0)
	port := portOf(ln)
	ln.Close()
	p := &Prober{Roots: ca.pool()}
	vs := p.Round(context.Background(), Target{Endpoint: local(t, port)}, 2, Patience{Tries: 3, Over: 40 * time.Millisecond})
	v := vs[0]
	if v.Code != Refused || v.Tries != 3 || v.Severity != Critical || !v.DownFor(3, 30*time.Millisecond, time.Now()) || v.DownFor(4, 0, time.Now()) {
		t.Errorf("%+v", v)
	}
	says(t, v, "3 tries")
	if v = check(t, p, Target{Endpoint: local(t, port)}, 2, Refused); v.Tries != 1 {
		t.Errorf("check tried %d times", v.Tries)
	}
}

func TestRoundRecovers(t *testing.T) {
	ca := newCA(t)
	current := ca.issue(t, spec{})
	ln := listen(t, "127.0.0.1", 0)
	port := portOf(ln)
	ln.Close()
	p := &Prober{Roots: ca.pool()}
	done := make(chan []Verdict)
	go func() {
		done <- p.Round(context.Background(), Target{Endpoint: local(t, port), Expect: expecting(current)}, 2, Patience{Tries: 100, Over: 20 * time.Second})
	}()
	serve(t, listen(t, "127.0.0.1", port), tlsHandler(configOf(current)))
	if vs := <-done; vs[0].Code != Serving || vs[0].Tries != 0 {
		t.Errorf("%+v", vs[0])
	}
}

func TestCancelled(t *testing.T) {
	accepted := make(chan bool, 9)
	port := start(t, func(c net.Conn) { accepted <- true; waits(c) })
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan []Verdict)
	go func() { done <- (&Prober{Timeout: time.Hour}).Check(ctx, Target{Endpoint: local(t, port)}, 2) }()
	<-accepted
	cancel()
	vs := <-done
	if vs[0].Code != Unverifiable {
		t.Errorf("%+v", vs[0])
	}
	if vs := (&Prober{}).Check(ctx, Target{Endpoint: at(t, "https://a.example")}, 2); len(vs) != 1 {
		t.Errorf("%+v", vs)
	}
}

func TestConcurrencyIsBounded(t *testing.T) {
	var now, most atomic.Int64
	release := make(chan struct{})
	port := start(t, func(c net.Conn) {
		n := now.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		if n == 3 {
			close(release) // as many as may be are here
		}
		<-release
		now.Add(-1)
		io.WriteString(c, "no TLS")
	})
	p := &Prober{MaxConcurrent: 3}
	done := make(chan bool)
	for range 20 {
		go func() {
			p.Check(context.Background(), Target{Endpoint: local(t, port)}, 1)
			done <- true
		}()
	}
	for range 20 {
		<-done
	}
	// A connection the client has left may still be counted while the next begins.
	if m := most.Load(); m < 3 || m > 6 {
		t.Errorf("%d connections at once, want 3", m)
	}
}

func TestSmallTexts(t *testing.T) {
	if got := printable("a\x1b[0m\u202eb\xffc", 99); got != "a.[0m.b.c" {
		t.Errorf("%q", got)
	}
	if got := printable(strings.Repeat("é", 50), 3); got != "ééé..." {
		t.Errorf("%q", got)
	}
}

func TestDialFault(t *testing.T) {
	v4, v6 := netip.MustParseAddrPort("192.0.2.1:443"), netip.MustParseAddrPort("[2001:db8::1]:443")
	for _, tt := range []struct {
		err    error
		addr   netip.AddrPort
		routed bool
		want   Code
	}{
		{syscall.ECONNREFUSED, v4, true, Refused},
		{syscall.ENETUNREACH, v6, false, NotTestable},
		{syscall.EADDRNOTAVAIL, v6, false, NotTestable},
		{syscall.ENETUNREACH, v6, true, Unreachable},
		{syscall.EHOSTUNREACH, v6, false, Unreachable},
		{syscall.EHOSTUNREACH, v4, true, Unreachable},
		{syscall.EAFNOSUPPORT, v6, true, NotTestable},
		{syscall.ETIMEDOUT, v4, true, Timeout},
		{os.ErrDeadlineExceeded, v4, true, Timeout},
		{syscall.EACCES, v4, true, Unreachable},
		{syscall.EMFILE, v4, true, Unverifiable},
	} {
		err := &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", tt.err)}
		f := dialFault(err, tt.addr, time.Second, func(netip.Addr) bool { return tt.routed })
		if f.code != tt.want || f.why == "" || f.advice == "" {
			t.Errorf("%v, routed %t: %+v, want %s", tt.err, tt.routed, f, tt.want)
		}
	}
	if !routed(netip.MustParseAddr("127.0.0.1")) {
		t.Error("no way to 127.0.0.1")
	}
}

// names is a resolver with fixed answers.
type names map[string]func(context.Context) ([]netip.Addr, error)

func (n names) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	if f := n[host]; f != nil && network == "ip" {
		return f(ctx)
	}
	return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

func fixedAddrs(addrs ...string) func(context.Context) ([]netip.Addr, error) {
	return func(context.Context) (out []netip.Addr, err error) {
		for _, a := range addrs {
			out = append(out, netip.MustParseAddr(a))
		}
		return out, nil
	}
}

func TestResolving(t *testing.T) {
	many := make([]string, 20)
	for i := range many {
		many[i] = netip.AddrFrom4([4]byte{127, 0, 1, byte(20 - i)}).String()
	}
	p := &Prober{Timeout: 50 * time.Millisecond, Resolver: names{
		"servfail.example": func(context.Context) ([]netip.Addr, error) {
			return nil, &net.DNSError{Err: "server misbehaving", IsTemporary: true}
		},
		"silent.example":  func(ctx context.Context) ([]netip.Addr, error) { <-ctx.Done(); return nil, ctx.Err() },
		"empty.example":   fixedAddrs(),
		"debian.example":  fixedAddrs("127.0.1.1"),
		"zero.example":    fixedAddrs("0.0.0.0"),
		"many.localhost":  fixedAddrs(many...),
		"twice.localhost": fixedAddrs("::1", "127.0.0.9", "::ffff:127.0.0.9", "127.0.0.8"),
	}}
	ln := listen(t, "127.0.0.1", 0)
	port := portOf(ln)
	ln.Close()
	for _, tt := range []struct {
		url, words   string
		want         Code
		resolverDown bool
	}{
		{"https://gone.example", "NXDOMAIN", Unresolved, false},
		{"https://empty.example", "no A and AAAA", Unresolved, false},
		{"https://servfail.example", "SERVFAIL", Unresolved, true},
		{"https://silent.example", "in time", Unresolved, true},
		{"https://debian.example", "127.0.1.1", Unverifiable, false},
		{"https://zero.example", "0.0.0.0", Unverifiable, false},
		{"https://*.a.example", "wildcard", Unverifiable, false},
		{"https://a.example?servername=*.a.example", "wildcard", Unverifiable, false},
	} {
		v := check(t, p, Target{Endpoint: at(t, "%s", tt.url)}, 2, tt.want)
		says(t, v, tt.words)
		if v.ResolverDown != tt.resolverDown {
			t.Errorf("%s: ResolverDown %t", tt.url, v.ResolverDown)
		}
	}
	// A name under localhost is loopback even where DNS does not know it.
	check(t, p, Target{Endpoint: at(t, "https://x.localhost:%d", port)}, 1, Refused)

	vs := p.Check(context.Background(), Target{Endpoint: at(t, "https://many.localhost:%d", port)}, 1)
	if len(vs) != MaxAddresses || !strings.Contains(vs[0].Detail, "4 more addresses") {
		t.Errorf("%d verdicts, %q", len(vs), vs[0].Detail)
	}
	vs = p.Check(context.Background(), Target{Endpoint: at(t, "https://twice.localhost:%d", port)}, 1)
	var got []string
	for _, v := range vs {
		got = append(got, v.Address.Addr().String())
	}
	if !slices.Equal(got, []string{"127.0.0.8", "127.0.0.9", "::1"}) {
		t.Errorf("dialled %v", got)
	}
}

func TestLoadRoots(t *testing.T) {
	ca := newCA(t)
	dir := t.TempDir()
	bundle, empty := dir+"/ca.pem", dir+"/empty.pem"
	writePEM(t, bundle, ca.root)
	writePEM(t, empty)
	t.Setenv("SSL_CERT_FILE", dir+"/none")
	t.Setenv("SSL_CERT_DIR", dir+"/nowhere")
	if _, err := LoadRoots(); !errors.Is(err, ErrNoRoots) {
		t.Errorf("nothing there: %v", err)
	}
	pool, err := LoadRoots(bundle, "")
	if err != nil || NoRoots(pool) || !pool.Equal(ca.pool()) {
		t.Errorf("bundle: %v", err)
	}
	for _, bad := range []string{empty, dir + "/none", dir} {
		if _, err := LoadRoots(bundle, bad); err == nil || errors.Is(err, ErrNoRoots) {
			t.Errorf("%s: %v", bad, err)
		}
	}
	if err := syscall.Mkfifo(dir+"/fifo", 0o600); err == nil {
		if _, err := LoadRoots(dir + "/fifo"); err == nil {
			t.Error("a FIFO was read")
		}
	}
	// What is added to the system's store later is seen.
	t.Setenv("SSL_CERT_FILE", bundle)
	if pool, err := LoadRoots(); err != nil || !pool.Equal(ca.pool()) {
		t.Errorf("system: %v", err)
	}
}
