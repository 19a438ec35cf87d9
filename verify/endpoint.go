package verify

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// MaxAddresses is how many addresses of one endpoint are dialled.
const MaxAddresses = 16

// Endpoint is one place on the network where a certificate is served. It is
// comparable, and made by ParseEndpoint; the zero value is no endpoint.
type Endpoint struct {
	scheme     string
	host       string // lower-case A-labels, or an IP address without brackets; may start with "*."
	port       uint16
	serverName string // empty: host
	addresses  string // canonical, joined by commas; empty: ask the resolver
	proxy      string // "" or "v2"
}

// EndpointError says why a text is no endpoint.
type EndpointError struct {
	Sentence string // what is wrong, lower-case, without a full stop
	Hint     string // what to write instead; may be empty
}

// Error returns the sentence.
func (e *EndpointError) Error() string { return e.Sentence }

// IsZero reports whether e is the zero Endpoint.
func (e Endpoint) IsZero() bool { return e == Endpoint{} }

// Scheme returns the scheme, "https" say.
func (e Endpoint) Scheme() string { return e.scheme }

// Host returns the host of the URL: a name in lower-case A-labels or an IP
// address without brackets.
func (e Endpoint) Host() string { return e.host }

// Port returns the port of the URL or the scheme's registered one.
func (e Endpoint) Port() uint16 { return e.port }

// Name returns the name the certificate must cover and that is sent as SNI
// (unless it is an IP address): servername when given, else the host.
func (e Endpoint) Name() string {
	if e.serverName != "" {
		return e.serverName
	}
	return e.host
}

// ProxyProtocol returns "v2" when a PROXY protocol header is sent first, else "".
func (e Endpoint) ProxyProtocol() string { return e.proxy }

// StartTLS reports whether TLS begins after a dialogue in plain text.
func (e Endpoint) StartTLS() bool {
	s, ok := findScheme(e.scheme)
	return ok && s.starttls
}

// Mail reports whether the endpoint is a mail server reached by STARTTLS.
// These count and log every connection, so they are polled slowly and sampled
// at most three times.
func (e Endpoint) Mail() bool {
	switch e.scheme {
	case "smtp", "submission", "imap", "pop3":
		return true
	}
	return false
}

// What a mail server is asked to bear.
const (
	mailSamples  = 3
	mailInterval = 10 * time.Second
)

// Wildcard reports whether the endpoint cannot be dialled because it names a
// wildcard: no client can ask for one, and no resolver knows its address.
func (e Endpoint) Wildcard() bool {
	return strings.HasPrefix(e.Name(), "*.") || strings.HasPrefix(e.host, "*.") && e.addresses == ""
}

// Addresses returns the addresses the URL fixes; nil when the name is resolved.
func (e Endpoint) Addresses() []netip.AddrPort {
	if e.addresses == "" {
		return nil
	}
	var out []netip.AddrPort
	for part := range strings.SplitSeq(e.addresses, ",") {
		if ap, ok := parseAddress(part, e.port); ok {
			out = append(out, ap)
		}
	}
	return out
}

// String returns the canonical form, which parses to the same Endpoint: the
// scheme's own port is left out, and so is a servername equal to the host.
func (e Endpoint) String() string {
	if e.IsZero() {
		return ""
	}
	var b strings.Builder
	b.WriteString(e.scheme)
	b.WriteString("://")
	if strings.Contains(e.host, ":") {
		b.WriteString("[" + e.host + "]")
	} else {
		b.WriteString(e.host)
	}
	if s, ok := findScheme(e.scheme); !ok || s.port != e.port {
		b.WriteString(":" + strconv.Itoa(int(e.port)))
	}
	separator := byte('?')
	for _, q := range [...]struct{ key, value string }{
		{"servername", e.serverName}, {"address", e.addresses}, {"proxy_protocol", e.proxy},
	} {
		if q.value != "" {
			b.WriteByte(separator)
			b.WriteString(q.key + "=" + q.value)
			separator = '&'
		}
	}
	return b.String()
}

// MarshalText returns the canonical form.
func (e Endpoint) MarshalText() ([]byte, error) { return []byte(e.String()), nil }

// UnmarshalText parses text as ParseEndpoint does.
func (e *Endpoint) UnmarshalText(text []byte) error {
	parsed, err := ParseEndpoint(string(text))
	if err != nil {
		return err
	}
	*e = parsed
	return nil
}

// canonicalAddress writes ap without its port when that is the endpoint's.
func canonicalAddress(ap netip.AddrPort, port uint16) string {
	ap = netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
	if ap.Port() == port {
		return ap.Addr().String()
	}
	return net.JoinHostPort(ap.Addr().String(), strconv.Itoa(int(ap.Port())))
}

// parseAddress reads IP, [IP], IP:PORT or [IP]:PORT.
func parseAddress(s string, port uint16) (netip.AddrPort, bool) {
	if inner, ok := strings.CutPrefix(s, "["); ok {
		if inner, ok = strings.CutSuffix(inner, "]"); ok {
			s = inner
		}
	}
	if addr, err := netip.ParseAddr(s); err == nil {
		return netip.AddrPortFrom(addr.Unmap(), port), addr.Zone() == ""
	}
	ap, err := netip.ParseAddrPort(s)
	if err != nil || ap.Port() == 0 || ap.Addr().Zone() != "" {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), true
}
