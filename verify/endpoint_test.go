package verify

import (
	"encoding/json"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestParseEndpoint(t *testing.T) {
	for _, tt := range []struct {
		in, canonical, host, name string
		port                      uint16
	}{
		{"https://www.example.org", "https://www.example.org", "www.example.org", "www.example.org", 443},
		{"HTTPS://WWW.Example.ORG.:443/", "https://www.example.org", "www.example.org", "www.example.org", 443},
		{"https://www.example.org:8443", "https://www.example.org:8443", "www.example.org", "www.example.org", 8443},
		{"tls://broker.example.org:9093", "tls://broker.example.org:9093", "broker.example.org", "broker.example.org", 9093},
		{"https://bücher.example", "https://xn--bcher-kva.example", "xn--bcher-kva.example", "xn--bcher-kva.example", 443},
		{"https://BÜCHER.example", "https://xn--bcher-kva.example", "xn--bcher-kva.example", "xn--bcher-kva.example", 443},
		{"https://[2001:DB8::1]", "https://[2001:db8::1]", "2001:db8::1", "2001:db8::1", 443},
		{"https://[::ffff:192.0.2.1]:444", "https://192.0.2.1:444", "192.0.2.1", "192.0.2.1", 444},
		{"https://192.0.2.1:8443?servername=www.example.org", "https://192.0.2.1:8443?servername=www.example.org", "192.0.2.1", "www.example.org", 8443},
		{"https://a.example?servername=A.example", "https://a.example", "a.example", "a.example", 443},
		{"https://*.example.org", "https://*.example.org", "*.example.org", "*.example.org", 443},
		{"https://a_b.example?proxy_protocol=v2", "https://a_b.example?proxy_protocol=v2", "a_b.example", "a_b.example", 443},
		{"https://a.example?address=[2001:db8::1]:8443,192.0.2.7:443,192.0.2.8,2001:db8::2,192.0.2.7",
			"https://a.example?address=[2001:db8::1]:8443,192.0.2.7,192.0.2.8,2001:db8::2", "a.example", "a.example", 443},
		{"https://a.example?proxy_protocol=v2&address=192.0.2.1%3A99&servername=b.example",
			"https://a.example?servername=b.example&address=192.0.2.1:99&proxy_protocol=v2", "a.example", "b.example", 443},
		{"smtp://mx.example.org:25", "smtp://mx.example.org", "mx.example.org", "mx.example.org", 25},
	} {
		e, err := ParseEndpoint(tt.in)
		if err != nil {
			t.Errorf("ParseEndpoint(%q): %v", tt.in, err)
			continue
		}
		if e.String() != tt.canonical || e.Host() != tt.host || e.Name() != tt.name || e.Port() != tt.port {
			t.Errorf("ParseEndpoint(%q) = %q, host %q, name %q, port %d; want %q, %q, %q, %d",
				tt.in, e, e.Host(), e.Name(), e.Port(), tt.canonical, tt.host, tt.name, tt.port)
		}
		if again, err := ParseEndpoint(e.String()); err != nil || again != e {
			t.Errorf("%q does not parse to itself: %v, %v", e, again, err)
		}
	}
}

func TestDefaultPorts(t *testing.T) {
	want := map[string]uint16{
		"https": 443, "smtps": 465, "imaps": 993, "pop3s": 995, "ldaps": 636, "ftps": 990, "nntps": 563, "ircs": 6697,
		"mqtts": 8883, "amqps": 5671, "rediss": 6379, "dot": 853, "sips": 5061, "xmpps-client": 5223, "xmpps-server": 5270,
		"smtp": 25, "submission": 587, "imap": 143, "pop3": 110,
	}
	for name, port := range want {
		e, err := ParseEndpoint(name + "://a.example")
		if err != nil || e.Port() != port || e.Scheme() != name {
			t.Errorf("%s: port %d, %v; want %d", name, e.Port(), err, port)
		}
		_, dialogue := findDialogue(name)
		if e.StartTLS() != dialogue || e.Mail() != dialogue {
			t.Errorf("%s: StartTLS %t, Mail %t, but a dialogue: %t", name, e.StartTLS(), e.Mail(), dialogue)
		}
	}
	if len(want)+1 != len(Schemes()) {
		t.Errorf("%d schemes, want tls and %d more", len(Schemes()), len(want))
	}
}

func TestParseEndpointErrors(t *testing.T) {
	for _, tt := range []struct{ in, sentence, hint string }{
		{"", "empty", "SCHEME://HOST"},
		{"www.example.org", "no scheme", "https://"},
		{"http://a.example", "no certificate", "https://"},
		{"htps://a.example", `unknown scheme "htps"`, "did you mean https?"},
		{"imasp://a.example", "unknown scheme", "did you mean imap?"},
		{"gopher://a.example", "unknown scheme", "known are https"},
		{"h3://a.example", "h3 is not supported yet", "supported are"},
		{"lmtp://a.example", "lmtp is not supported yet", ""},
		{"postgres://a.example", "postgres is not supported yet", ""},
		{"tls://a.example", "needs a port", "tls://HOST:PORT"},
		{"https://", "host is empty", ""},
		{"https://:443", "host is empty", ""},
		{"https://a.example:", "no port", "1 to 65535"},
		{"https://a.example:0", "no port", ""},
		{"https://a.example:65536", "no port", ""},
		{"https://a.example:0443", "no port", ""},
		{"https://a.example:+443", "no port", ""},
		{"https://a.example/login", "has a path", "leave it out"},
		{"https://a.example#top", "has a fragment", "leave it out"},
		{"https://a.example?x=1", `unknown parameter "x"`, "servername"},
		{"https://a.example?servername=a&servername=b", "given twice", ""},
		{"https://a.example?servername=", "servername is empty", ""},
		{"https://a.example?address=", "no IP address", "192.0.2.1"},
		{"https://a.example?address=b.example", "no IP address", ""},
		{"https://a.example?address=fe80::1%25eth0", "no IP address", ""},
		{"https://a.example?address=192.0.2.1:0", "no IP address", ""},
		{"https://a.example?proxy_protocol=v1", "proxy_protocol=v1 is not supported", "v2"},
		{"https://a.example?servername=%zz", "not well encoded", ""},
		{"https://user:hunter2@a.example", "user information", "leave it out"},
		{"https://2001:db8::1", "more than one colon", "brackets"},
		{"https://[2001:db8::1", "no IPv6 address", ""},
		{"https://[192.0.2.1]", "no IPv6 address", ""},
		{"https://[fe80::1%25eth0]", "no IPv6 address", ""},
		{"https://[::1]x", "follows the bracket", ""},
		{"https://127.1", "ends in a number", ""},
		{"https://1.2.3.4.5", "ends in a number", ""},
		{"https://a..example", "label is empty", ""},
		{"https://-a.example", "hyphen", ""},
		{"https://a b.example", "it holds", ""},
		{"https://a\x1b[31m.example", "it holds", ""},
		{"https://*.*.example", "it holds", ""},
		{"https://*", "it holds", ""},
		{"https://" + strings.Repeat("a", 64) + ".example", "63 bytes", ""},
		{"https://" + strings.Repeat("a.", 130) + "example", "253", ""},
		{"https://" + strings.Repeat("a", 3000), "bytes, more than", ""},
		{"https://a.example?address=" + strings.Repeat("192.0.2.1:1,", 1) + addressList(17), "more than 16", ""},
	} {
		_, err := ParseEndpoint(tt.in)
		var ee *EndpointError
		if !errors.As(err, &ee) {
			t.Errorf("ParseEndpoint(%q): %v, want an *EndpointError", tt.in, err)
			continue
		}
		if !strings.Contains(ee.Sentence, tt.sentence) || !strings.Contains(ee.Hint, tt.hint) {
			t.Errorf("ParseEndpoint(%q): %q, hint %q; want %q, %q", tt.in, ee.Sentence, ee.Hint, tt.sentence, tt.hint)
		}
		if strings.ContainsAny(ee.Sentence+ee.Hint, "\x1b\n") || strings.Contains(ee.Sentence, "hunter2") || strings.HasSuffix(ee.Sentence, ".") {
			t.Errorf("ParseEndpoint(%q): unfit sentence %q", tt.in, ee.Sentence)
		}
	}
}

func addressList(n int) string {
	var out []string
	for i := range n {
		out = append(out, netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}).String())
	}
	return strings.Join(out, ",")
}

func TestEndpointAddresses(t *testing.T) {
	e, err := ParseEndpoint("smtps://a.example?address=[2001:db8::1]:8443,192.0.2.7")
	if err != nil {
		t.Fatal(err)
	}
	want := []netip.AddrPort{netip.MustParseAddrPort("[2001:db8::1]:8443"), netip.MustParseAddrPort("192.0.2.7:465")}
	if got := e.Addresses(); !slices.Equal(got, want) {
		t.Errorf("Addresses() = %v, want %v", got, want)
	}
}

func TestAt(t *testing.T) {
	e, err := ParseEndpoint("https://a.example:8443?servername=b.example&address=192.0.2.7")
	if err != nil {
		t.Fatal(err)
	}
	for ap, want := range map[string]string{
		"127.0.0.1:8443": "127.0.0.1", "[::1]:9443": "[::1]:9443", "[::ffff:127.0.0.1]:8443": "127.0.0.1", "[::1%lo]:8443": "::1",
	} {
		here := e.At(netip.MustParseAddrPort(ap))
		if got := here.String(); got != "https://a.example:8443?servername=b.example&address="+want {
			t.Errorf("%s", got)
		}
		if again, err := ParseEndpoint(here.String()); err != nil || again != here || len(here.Addresses()) != 1 {
			t.Errorf("%s parses to %s, %v", here, again, err)
		}
	}
}

func TestEndpointText(t *testing.T) {
	var v struct{ E Endpoint }
	if err := json.Unmarshal([]byte(`{"E":"https://a.example:443"}`), &v); err != nil {
		t.Fatal(err)
	}
	out, err := json.Marshal(v)
	if err != nil || string(out) != `{"E":"https://a.example"}` {
		t.Errorf("%s, %v", out, err)
	}
	before := v.E
	if err := v.E.UnmarshalText([]byte("nonsense")); err == nil || v.E != before {
		t.Errorf("a bad text changed the endpoint to %q, %v", v.E, err)
	}
	if m := map[Endpoint]bool{v.E: true}; !m[before] {
		t.Error("equal endpoints are different keys")
	}
	if (Endpoint{}).String() != "" || !(Endpoint{}).IsZero() {
		t.Error("the zero endpoint is something")
	}
}

func FuzzParseEndpoint(f *testing.F) {
	for _, s := range []string{
		"https://www.example.org", "tls://[::1]:1?servername=x&address=[::2]:3,1.2.3.4&proxy_protocol=v2",
		"https://bücher.example:8443/", "https://*.a.example", "smtp://a%2fb", "https://xn--a", "https://faß.example", "https://a。b",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		e, err := ParseEndpoint(s)
		if err != nil {
			var ee *EndpointError
			if !errors.As(err, &ee) || ee.Sentence == "" || printable(ee.Sentence, 1<<20) != ee.Sentence || printable(ee.Hint, 1<<20) != ee.Hint {
				t.Fatalf("ParseEndpoint(%q): unfit error %#v", s, err)
			}
			if e != (Endpoint{}) {
				t.Fatalf("ParseEndpoint(%q) returned %v with an error", s, e)
			}
			return
		}
		again, err := ParseEndpoint(e.String())
		if err != nil || again != e {
			t.Fatalf("ParseEndpoint(%q) = %q, which parses to %#v, %v", s, e, again, err)
		}
		if e.Port() == 0 || e.Name() == "" || len(e.Addresses()) > MaxAddresses {
			t.Fatalf("ParseEndpoint(%q) = %#v", s, e)
		}
	})
}
