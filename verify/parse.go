package verify

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/idna"
)

// No endpoint worth writing down is longer: sixteen IPv6 addresses with ports
// and two longest names fit.
const maxEndpoint = 2048

const endpointShape = "write SCHEME://HOST[:PORT], for example https://www.example.org or smtp://mx.example.org:25"

// ParseEndpoint reads
//
//	SCHEME://HOST[:PORT][?servername=NAME&address=IP[:PORT],IP&proxy_protocol=v2]
//
// International names become A-labels. An error is always an *EndpointError.
func ParseEndpoint(s string) (Endpoint, error) {
	e, err := parseEndpoint(s)
	if err != nil {
		return Endpoint{}, err
	}
	return e, nil
}

func parseEndpoint(s string) (Endpoint, *EndpointError) {
	if s == "" {
		return Endpoint{}, &EndpointError{"an endpoint is empty", endpointShape}
	}
	if len(s) > maxEndpoint {
		return Endpoint{}, &EndpointError{fmt.Sprintf("an endpoint has %d bytes, more than %d", len(s), maxEndpoint), endpointShape}
	}
	name, rest, ok := strings.Cut(s, "://")
	if !ok {
		return Endpoint{}, &EndpointError{fmt.Sprintf("endpoint %s has no scheme", quoted(s)), endpointShape}
	}
	sch, err := parseScheme(name)
	if err != nil {
		return Endpoint{}, err
	}

	// An unencoded "#", "?" or "/" ends the authority, whichever comes first.
	rest, fragment, hasFragment := strings.Cut(rest, "#")
	if hasFragment {
		return Endpoint{}, &EndpointError{
			fmt.Sprintf("endpoint %s has a fragment (#%s)", quoted(s), printable(fragment, 40)),
			"leave it out; only scheme, host and port say where a certificate is served"}
	}
	rest, query, _ := strings.Cut(rest, "?")
	authority, path, _ := strings.Cut(rest, "/")
	if path != "" {
		return Endpoint{}, &EndpointError{
			fmt.Sprintf("endpoint %s has a path (/%s)", quoted(s), printable(path, 40)),
			"leave it out; only scheme, host and port say where a certificate is served"}
	}
	if strings.Contains(authority, "@") {
		// Not quoted: what stands before the @ may be a password.
		return Endpoint{}, &EndpointError{"an endpoint holds user information before an @",
			"leave it out; nobody logs in to look at a certificate"}
	}

	e := Endpoint{scheme: sch.name, port: sch.port}
	host, port, hasPort, err := splitAuthority(authority)
	if err != nil {
		return Endpoint{}, err
	}
	if e.host, err = parseHost(host, "host"); err != nil {
		return Endpoint{}, err
	}
	if hasPort {
		if e.port, err = parsePort(port); err != nil {
			return Endpoint{}, err
		}
	}
	if e.port == 0 {
		return Endpoint{}, &EndpointError{
			fmt.Sprintf("endpoint %s needs a port: %s has no registered one", quoted(s), sch.name),
			fmt.Sprintf("write %s://HOST:PORT", sch.name)}
	}
	if err := e.parseQuery(query); err != nil {
		return Endpoint{}, err
	}
	return e, nil
}

func parseScheme(raw string) (scheme, *EndpointError) {
	name := strings.ToLower(raw)
	if s, ok := findScheme(name); ok {
		return s, nil
	}
	if isFuture(name) {
		return scheme{}, &EndpointError{fmt.Sprintf("scheme %s is not supported yet", name),
			"supported are " + strings.Join(Schemes(), " ")}
	}
	if name == "http" {
		return scheme{}, &EndpointError{"scheme http carries no certificate", "write https://"}
	}
	hint := "known are " + strings.Join(Schemes(), " ")
	if near := nearestScheme(name); near != "" {
		hint = fmt.Sprintf("did you mean %s?", near)
	}
	return scheme{}, &EndpointError{fmt.Sprintf("unknown scheme %s", quoted(raw)), hint}
}

// splitAuthority splits HOST, HOST:PORT, [IP] and [IP]:PORT; brackets are
// taken off.
func splitAuthority(s string) (host, port string, hasPort bool, err *EndpointError) {
	if inner, ok := strings.CutPrefix(s, "["); ok {
		host, rest, ok := strings.Cut(inner, "]")
		addr, perr := netip.ParseAddr(host)
		if !ok || perr != nil || !addr.Is6() || addr.Zone() != "" {
			return "", "", false, &EndpointError{
				fmt.Sprintf("%s is no IPv6 address in brackets", quoted(s)), "write [2001:db8::1] or [2001:db8::1]:8443, without a zone"}
		}
		if rest == "" {
			return host, "", false, nil
		}
		if port, ok = strings.CutPrefix(rest, ":"); !ok {
			return "", "", false, &EndpointError{
				fmt.Sprintf("%s follows the bracket in %s", quoted(rest), quoted(s)), "only :PORT may stand there"}
		}
		return host, port, true, nil
	}
	host, port, hasPort = strings.Cut(s, ":")
	if strings.Contains(port, ":") {
		return "", "", false, &EndpointError{
			fmt.Sprintf("%s holds more than one colon", quoted(s)), "put an IPv6 address in brackets: [2001:db8::1]"}
	}
	return host, port, hasPort, nil
}

func parsePort(s string) (uint16, *EndpointError) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 || s[0] == '0' {
		return 0, &EndpointError{fmt.Sprintf("%s is no port", quoted(s)), "a port is a number from 1 to 65535"}
	}
	return uint16(n), nil
}

// parseHost returns the canonical form of a DNS name or an IP address.
func parseHost(s, what string) (string, *EndpointError) {
	if s == "" {
		return "", &EndpointError{fmt.Sprintf("the %s is empty", what), endpointShape}
	}
	if addr, err := netip.ParseAddr(s); err == nil {
		if addr.Zone() != "" {
			return "", &EndpointError{fmt.Sprintf("%s %s has a zone", what, quoted(s)), "use an address that is valid everywhere on this host"}
		}
		return addr.Unmap().String(), nil
	}
	bad := func(why string) (string, *EndpointError) {
		return "", &EndpointError{fmt.Sprintf("%s %s is no DNS name: %s", what, quoted(s), why),
			"write a name like www.example.org, or an IP address"}
	}
	name, star := s, false
	if rest, ok := strings.CutPrefix(name, "*."); ok {
		name, star = rest, true
	}
	if !ascii(name) {
		a, err := idna.Lookup.ToASCII(name)
		if err != nil {
			return bad("it cannot be written in A-labels")
		}
		name = a
	}
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	full := name
	if star {
		full = "*." + name
	}
	if len(full) > 253 {
		return bad(fmt.Sprintf("%d bytes are more than 253", len(full)))
	}
	var last string
	for label := range strings.SplitSeq(name, ".") {
		switch {
		case label == "":
			return bad("a label is empty")
		case len(label) > 63:
			return bad("a label has more than 63 bytes")
		case label[0] == '-' || label[len(label)-1] == '-':
			return bad("a label starts or ends with a hyphen")
		}
		for i := range len(label) {
			if c := label[i]; !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
				return bad(fmt.Sprintf("it holds %q", string(printable(label[i:i+1], 4))))
			}
		}
		last = label
	}
	// "127.1" and "0x7f.1" are names to us and addresses to a C library.
	if numeric(last) {
		return bad("it ends in a number, like an address that is not complete")
	}
	return full, nil
}

func numeric(label string) bool {
	if hex, ok := strings.CutPrefix(label, "0x"); ok {
		return strings.Trim(hex, "0123456789abcdef") == ""
	}
	return strings.Trim(label, "0123456789") == ""
}

func ascii(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

func (e *Endpoint) parseQuery(query string) *EndpointError {
	if query == "" {
		return nil
	}
	seen := map[string]bool{}
	for pair := range strings.SplitSeq(query, "&") {
		rawKey, rawValue, _ := strings.Cut(pair, "=")
		key, kerr := url.QueryUnescape(rawKey)
		value, verr := url.QueryUnescape(rawValue)
		if kerr != nil || verr != nil {
			return &EndpointError{fmt.Sprintf("%s is not well encoded", quoted(pair)), "write % as %25"}
		}
		if seen[key] {
			return &EndpointError{fmt.Sprintf("%s is given twice", quoted(key)), "join addresses by commas: address=192.0.2.1,192.0.2.2"}
		}
		seen[key] = true
		var err *EndpointError
		switch key {
		case "servername":
			err = e.setServerName(value)
		case "address":
			err = e.setAddresses(value)
		case "proxy_protocol":
			if value != "v2" {
				err = &EndpointError{fmt.Sprintf("proxy_protocol=%s is not supported", printable(value, 20)), "write proxy_protocol=v2"}
			}
			e.proxy = value
		default:
			err = &EndpointError{fmt.Sprintf("unknown parameter %s in an endpoint", quoted(key)),
				"known are servername, address and proxy_protocol"}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (e *Endpoint) setServerName(value string) *EndpointError {
	name, err := parseHost(strings.TrimSuffix(strings.TrimPrefix(value, "["), "]"), "servername")
	if err != nil {
		return err
	}
	if name != e.host {
		e.serverName = name
	}
	return nil
}

func (e *Endpoint) setAddresses(value string) *EndpointError {
	var out []string
	for part := range strings.SplitSeq(value, ",") {
		ap, ok := parseAddress(part, e.port)
		if !ok {
			return &EndpointError{fmt.Sprintf("address %s is no IP address", quoted(part)),
				"write address=192.0.2.1, address=192.0.2.1:8443 or address=[2001:db8::1]:8443, several joined by commas"}
		}
		if c := canonicalAddress(ap, e.port); !slices.Contains(out, c) {
			out = append(out, c)
		}
	}
	if len(out) > MaxAddresses {
		return &EndpointError{fmt.Sprintf("%d addresses are more than %d", len(out), MaxAddresses), "make several endpoints of it"}
	}
	e.addresses = strings.Join(out, ",")
	return nil
}
