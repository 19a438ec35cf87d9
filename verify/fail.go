package verify

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"
)

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &t) && t.Timeout()
}

// isCut reports whether the connection was closed or reset on us.
func isCut(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNABORTED)
}

// isAlert reports whether the peer ended the handshake by a TLS alert, and
// which. crypto/tls exports its type for QUIC only, so the words are compared.
func isAlert(err error) (string, bool) {
	var op *net.OpError
	if !errors.As(err, &op) || op.Op != "remote error" || op.Err == nil {
		return "", false
	}
	return strings.TrimPrefix(op.Err.Error(), "tls: "), true
}

// dialFault says why there is no connection to addr. routed reports whether
// this host has an address that could reach addr.
func dialFault(err error, addr netip.AddrPort, timeout time.Duration, routed func(netip.Addr) bool) *fault {
	family := "IPv4"
	if addr.Addr().Is6() {
		family = "IPv6"
	}
	is := func(codes ...syscall.Errno) bool {
		for _, c := range codes {
			if errors.Is(err, c) {
				return true
			}
		}
		return false
	}
	switch {
	case is(syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM):
		return &fault{Unverifiable, "this host could not open a connection: " + cause(err), "raise the limit of open files (LimitNOFILE=)"}
	case is(syscall.ECONNREFUSED):
		return &fault{Refused, "the connection was refused: nothing listens on " + addr.String(), "start the server, or correct its listen address or the endpoint's port"}
	case is(syscall.EAFNOSUPPORT), is(syscall.ENETUNREACH, syscall.EADDRNOTAVAIL) && !routed(addr.Addr()):
		return &fault{NotTestable, fmt.Sprintf("this host has no %s route to %s", family, addr.Addr()), "check this address from a host that has " + family}
	case isTimeout(err), is(syscall.ETIMEDOUT):
		return &fault{Timeout, fmt.Sprintf("no connection within %s: packets are dropped", timeout.Round(time.Millisecond)),
			"check the firewall and the address" + v6Hint(addr)}
	case is(syscall.ECONNRESET):
		// Reset so soon that connect itself was told of it.
		return &fault{HandshakeFailed, "the server reset the connection at once", "look into the server's log; a listener that expects the PROXY protocol does this, too (proxy_protocol=v2)"}
	case is(syscall.EACCES, syscall.EPERM):
		return &fault{Unreachable, "this host may not connect there: " + cause(err), "check this host's own firewall and the service's sandbox"}
	}
	return &fault{Unreachable, "no connection: " + cause(err), "check the address and the route to it" + v6Hint(addr)}
}

func v6Hint(addr netip.AddrPort) string {
	if addr.Addr().Is6() {
		return "; a dead AAAA record makes the next validation fail, because CAs ask IPv6 first: repair it or remove the record"
	}
	return ""
}

// cause is the operating system's word for err.
func cause(err error) string {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno.Error()
	}
	return printable(err.Error(), 120)
}

// routed reports whether this host has an address of addr's kind: without one
// it cannot tell whether addr works.
func routed(addr netip.Addr) bool {
	local, err := net.InterfaceAddrs()
	if err != nil {
		return true
	}
	for _, a := range local {
		p, err := netip.ParsePrefix(a.String())
		if err != nil {
			continue
		}
		own := p.Addr().Unmap()
		if own.Is4() != addr.Is4() {
			continue
		}
		switch {
		case addr.IsLoopback():
			if own.IsLoopback() {
				return true
			}
		case !own.IsGlobalUnicast():
		case own.Is4(), addr.IsPrivate(), !own.IsPrivate():
			return true
		}
	}
	return false
}

// handshakeFault says why a handshake that began failed before or, rarely,
// after the certificate was seen.
func handshakeFault(err error, w *wire, e Endpoint, timeout time.Duration) *fault {
	upgraded := e.StartTLS()
	if alert, ok := isAlert(err); ok {
		return &fault{HandshakeFailed, fmt.Sprintf("the server ended the handshake with the alert %q", printable(alert, 60)), alertHint(alert, e)}
	}
	var record tls.RecordHeaderError
	switch {
	case errors.As(err, &record):
		if upgraded {
			return &fault{StartTLSFailed, fmt.Sprintf("after agreeing to TLS the server went on in plain text: %s", quoted(string(w.head))), "look into the server's log"}
		}
		return plainFault(string(w.head))
	case isTimeout(err):
		f := &fault{code: Timeout, why: fmt.Sprintf("the server accepted the connection but did not answer the TLS hello within %s", timeout.Round(time.Millisecond)),
			advice: "look into the server's log; a port that speaks another protocol keeps silent, too"}
		if w.heard {
			f.why = fmt.Sprintf("the handshake was not over within %s: the server answers slowly", timeout.Round(time.Millisecond))
			f.advice = "look at the server's load"
		}
		return f
	case errors.Is(err, errFlood):
		return &fault{HandshakeFailed, "the server sent more bytes than a handshake can have", "find out what answers on this port"}
	case isCut(err):
		f := &fault{code: HandshakeFailed, why: "the server closed the connection during the handshake",
			advice: "look into the server's log; a listener that expects the PROXY protocol does this, too (proxy_protocol=v2)"}
		if e.ProxyProtocol() != "" {
			f.advice = "look into the server's log; a listener that does not expect the PROXY protocol does this, too"
		}
		return f
	}
	return &fault{HandshakeFailed, "the handshake failed: " + printable(strings.TrimPrefix(err.Error(), "tls: "), 160), "look into the server's log and check its key and certificate"}
}

func alertHint(alert string, e Endpoint) string {
	switch alert {
	case "handshake failure":
		return "the server may hold no usable key for its certificate: compare the types of key and certificate, and look into its log"
	case "unrecognized name":
		return fmt.Sprintf("the server knows no host %s: check its server names, or set servername", printable(e.Name(), 80))
	case "protocol version not supported":
		return "the server speaks no TLS version from 1.0 to 1.3 with us: check its protocol settings"
	case "internal error":
		return "the server found no certificate for this name, or cannot use it: look into its log"
	case "no application protocol":
		return "the server insists on an application protocol (ALPN): check its settings"
	}
	return "look into the server's log"
}

// plainFault says what a server that does not speak TLS seems to speak.
func plainFault(head string) *fault {
	f := &fault{code: NotTLS, why: "the server does not speak TLS; it answered " + quoted(head), advice: "check the port"}
	switch {
	case strings.HasPrefix(head, "HTTP/"):
		f.why = "the server answered in plain HTTP"
		f.advice = `switch TLS on for this port ("listen 443 ssl" in nginx), or correct the port`
	case strings.HasPrefix(head, "220 ") || strings.HasPrefix(head, "220-"):
		f.advice = "this looks like SMTP: write smtp:// or submission:// for STARTTLS"
	case strings.HasPrefix(head, "* OK"):
		f.advice = "this looks like IMAP: write imap:// for STARTTLS"
	case strings.HasPrefix(head, "+OK"):
		f.advice = "this looks like POP3: write pop3:// for STARTTLS"
	case strings.HasPrefix(head, "SSH-"):
		f.advice = "this is an SSH server: correct the port"
	}
	return f
}
