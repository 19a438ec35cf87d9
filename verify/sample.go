package verify

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
	"os"
	"time"
)

// A sample is what one fresh connection and handshake brought.
type sample struct {
	start time.Time
	took  time.Duration
	chain []*x509.Certificate // what was served; nil when none was seen
	code  Code                // why nothing can be judged, or why the handshake is broken all the same; else ""
	why   string              // for code; without one: something to add to what is judged
	// advice goes with code.
	advice      string
	classical   bool // worked without post-quantum shares only
	interrupted bool // the caller went away; nothing is known
}

// signature of a PROXY protocol v2 header, then version 2 and command LOCAL,
// family unspecified, and the length 0: "a health check, no client behind it".
const proxyLocal = "\r\n\r\n\x00\r\nQUIT\n" + "\x20\x00\x00\x00"

// byeTime is how long a mail server is given to answer our goodbye.
const byeTime = 2 * time.Second

// A sampler takes samples at one address. It remembers which hello the server
// answers; it is used by one goroutine at a time.
type sampler struct {
	endpoint Endpoint
	addr     netip.AddrPort
	keyType  string // wanted; "" takes what the server picks
	timeout  time.Duration
	ehlo     string
	enter    func(context.Context) bool // waits for a place among all work
	leave    func()
	nameless bool // send no SNI

	configs   [3]*tls.Config // by hello
	typed     bool           // the typed hello brought the wanted type last time
	classical int            // successive samples that worked with a classical hello only
}

// An attempt is one connection with one hello.
type attempt struct {
	chain []*x509.Certificate
	fault *fault
	note  string // how the handshake ended, where that is no fault
	alert string // that ended it
	took  time.Duration
	// hello says that the fault may be the size of the hello.
	hello bool
}

// take takes one sample in a place of its own.
func (s *sampler) take(ctx context.Context) sample {
	if !s.enter(ctx) {
		return sample{start: time.Now(), interrupted: true}
	}
	defer s.leave()
	return aside(func() sample { return s.sample(ctx) })
}

// sample takes one sample. All of it, retries included, ends before the timeout.
func (s *sampler) sample(ctx context.Context) sample {
	start := time.Now()
	until := start.Add(s.timeout)
	out := sample{start: start}

	var a attempt
	if s.typed {
		if a = s.attempt(ctx, until, typedHello); a.fault != nil || s.wrongType(a) {
			s.typed = false
		}
	}
	if !s.typed {
		a, out.classical = s.greet(ctx, until)
		if a.chain != nil && a.fault == nil && s.wrongType(a) {
			// The server may hold a second certificate, of the wanted type. One
			// that refuses TLS 1.2 cannot be asked for it.
			if b := s.attempt(ctx, until, typedHello); b.chain != nil && b.fault == nil && !s.wrongType(b) {
				a, s.typed, out.classical = b, true, false
			} else if a.note == "" {
				a.note = "no certificate with a key of type " + s.keyType + " is offered"
				if b.alert == "protocol version not supported" {
					a.note = "it speaks TLS 1.3 only and cannot be asked for a certificate with a key of type " + s.keyType
				}
			}
		}
	}
	out.chain, out.took, out.why = a.chain, a.took, a.note
	if a.fault != nil {
		out.code, out.why, out.advice = a.fault.code, a.fault.why, a.fault.advice
	}
	out.interrupted = over(ctx) && (a.fault != nil || a.chain == nil)
	return out
}

// over reports whether ctx has ended. A dialer that was given its deadline may be
// back with a timeout of its own before ctx says so.
func over(ctx context.Context) bool {
	if ctx.Err() != nil {
		return true
	}
	deadline, set := ctx.Deadline()
	return set && !time.Now().Before(deadline)
}

func (s *sampler) wrongType(a attempt) bool {
	if s.keyType == "" || len(a.chain) == 0 {
		return false
	}
	leaf, _ := leafOf(a.chain)
	return KeyType(leaf) != s.keyType
}

// greet sends the standard hello, and where that is met by silence or a cut
// connection the classical one.
func (s *sampler) greet(ctx context.Context, until time.Time) (a attempt, classical bool) {
	// Twice in a row is no accident: the standard hello would cost its time
	// again with every sample.
	if s.classical < 2 {
		if a = s.attempt(ctx, until, standardHello); !a.hello || over(ctx) {
			s.classical = 0
			return a, false
		}
	}
	b := s.attempt(ctx, until, classicalHello)
	if b.fault != nil || b.chain == nil {
		if s.classical >= 2 {
			a = b
		}
		s.classical = 0
		return a, false
	}
	s.classical++
	return b, true
}

func (s *sampler) attempt(ctx context.Context, until time.Time, h hello) (a attempt) {
	began := time.Now()
	defer func() {
		if a.took == 0 {
			a.took = time.Since(began)
		}
	}()
	dialer := net.Dialer{Deadline: until, KeepAlive: -1}
	conn, err := dialer.DialTCP(ctx, "tcp", netip.AddrPort{}, s.addr)
	if err != nil {
		a.fault = dialFault(err, s.addr, s.timeout, routed)
		return a
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()

	w := newWire(conn, until)
	if s.endpoint.proxy != "" {
		if _, err := w.Write([]byte(proxyLocal)); err != nil {
			a.fault = handshakeFault(err, w, s.endpoint, s.timeout)
			return a
		}
	}
	dialogue, ok := findDialogue(s.endpoint.scheme)
	if ok {
		host, _ := os.Hostname()
		local, _ := netip.ParseAddrPort(conn.LocalAddr().String())
		if a.fault = talk(w, dialogue, greetingName(s.ehlo, host, local.Addr())); a.fault != nil {
			return a
		}
	}

	early := time.Time{}
	if h == standardHello {
		// Leaves time for a smaller hello where this one is met by silence.
		now := time.Now()
		early = now.Add(until.Sub(now) * 2 / 3)
	}
	w.listen(early)
	asked := false
	config := s.config(h).Clone()
	config.VerifyConnection = func(cs tls.ConnectionState) error {
		if cs.DidResume {
			return errors.New("a session was resumed, which proves nothing of the certificate")
		}
		a.chain = cs.PeerCertificates
		return nil
	}
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		asked = true
		return &tls.Certificate{}, nil
	}
	client := tls.Client(w, config)
	err = client.Handshake()
	a.took = time.Since(began)
	if err == nil {
		if ok {
			w.SetDeadline(time.Now().Add(byeTime))
			sayBye(client, dialogue.bye)
		}
		client.Close()
		return a
	}
	var alerted bool
	a.alert, alerted = isAlert(err)
	if a.chain != nil && (alerted || asked && isCut(err)) {
		// The server showed its certificate and then refused us: it is judged. Most
		// refuse because they want a client's certificate, and some of those close
		// before their alert can be read.
		if asked {
			a.note = "the server then refused us for want of a client certificate"
		} else {
			a.note = "the handshake then ended in the alert \"" + printable(a.alert, 60) + "\""
		}
		return a
	}
	a.fault = handshakeFault(err, w, s.endpoint, s.timeout)
	a.hello = a.chain == nil && h == standardHello && (isCut(err) || isTimeout(err) && !w.heard)
	return a
}

func (s *sampler) config(h hello) *tls.Config {
	if s.configs[h] == nil {
		name := s.endpoint.Name()
		if s.nameless {
			name = ""
		}
		s.configs[h] = h.config(name, s.keyType)
	}
	return s.configs[h]
}
