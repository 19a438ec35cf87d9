package notify

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"testing"
)

func TestToken(t *testing.T) {
	long := strings.Repeat("a", 101)
	hash := func(s string) string { sum := sha256.Sum256([]byte(s)); return hex.EncodeToString(sum[:4]) }
	// The 91st byte stands inside an escape: cut in front of it.
	split := strings.Repeat("a", 90) + "_" + strings.Repeat("b", 20)
	split2 := strings.Repeat("a", 89) + "_" + strings.Repeat("b", 20)
	whole := strings.Repeat("a", 88) + "_" + strings.Repeat("b", 20)
	for name, want := range map[string]string{
		"www.example.com":          "www_example_com",
		"WWW.Example.COM":          "www_example_com",
		"*.example.com":            "STAR_example_com",
		"a.*.com":                  "a_=2A_com",
		"star_example_com":         "star=5Fexample=5Fcom",
		"2001:db8::1":              "2001=3Adb8=3A=3A1",
		"a b\x00ü":                 "a=20b=00=C3=BC",
		"xn--bcher-kva.example":    "xn--bcher-kva_example",
		"*.":                       "STAR_",
		"":                         "=",
		"=":                        "=3D",
		"_agent":                   "_agent",
		"_ca":                      "_ca",
		"_Agent":                   "=5Fagent",
		".agent":                   "=2Eagent",
		".example":                 "_example",
		strings.Repeat("a", 100):   strings.Repeat("a", 100),
		long:                       strings.Repeat("a", 91) + "-" + hash(long),
		split:                      strings.Repeat("a", 90) + "-" + hash(split),
		split2:                     strings.Repeat("a", 89) + "-" + hash(split2),
		whole:                      strings.Repeat("a", 88) + "=5F-" + hash(whole),
		strings.Repeat("\xff", 34): strings.Repeat("=FF", 30) + "-" + hash(strings.Repeat("\xff", 34)),
	} {
		if got := Token(name); got != want {
			t.Errorf("Token(%q) = %q, want %q", name, got, want)
		}
	}
}

// untoken is the name that a token which was not cut stands for.
func untoken(t *testing.T, token string) string {
	switch token {
	case AgentCertificate, CACertificate:
		return token
	case "=":
		return ""
	}
	var b strings.Builder
	if rest, ok := strings.CutPrefix(token, "STAR_"); ok {
		b.WriteString("*.")
		token = rest
	}
	for i := 0; i < len(token); i++ {
		switch token[i] {
		case '_':
			b.WriteByte('.')
		case '=':
			n, err := strconv.ParseUint(token[i+1:i+3], 16, 8)
			if err != nil {
				t.Fatal(err)
			}
			b.WriteByte(byte(n))
			i += 2
		default:
			b.WriteByte(token[i])
		}
	}
	return b.String()
}

func asciiLower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

func FuzzToken(f *testing.F) {
	for _, s := range []string{"", "a.b", "*.a", "_agent", "_AGENT", ".ca", "=", "=5F", "STAR_a", "ü", "\xff", strings.Repeat("a_", 60), "*.*.a"} {
		f.Add(s, "renewatch")
	}
	f.Fuzz(func(t *testing.T, name, prefix string) {
		token := Token(name)
		if token == "" || len(token) > maxToken {
			t.Fatalf("token %q of %q", token, name)
		}
		if strings.Trim(token, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_=") != "" {
			t.Errorf("illegal byte in %q", token)
		}
		if !ValidPrefix(prefix) {
			prefix = DefaultPrefix
		}
		if n := strings.Count(Subject(prefix, name, name, DeployFailed), "."); n != 5 {
			t.Errorf("%d dots in the subject of %q", n, name)
		}
		var whole int
		for i := range len(name) {
			if c := asciiLower(name)[i]; c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '.' {
				whole++
			} else {
				whole += 3
			}
		}
		if whole > maxToken-4 { // may have been cut
			return
		}
		// What can be turned back cannot be the token of two names.
		want := asciiLower(name)
		if name == AgentCertificate || name == CACertificate {
			want = name
		}
		if got := untoken(t, token); got != want {
			t.Errorf("%q became %q, which stands for %q", name, token, got)
		}
		if strings.EqualFold(name, AgentCertificate) != (token == AgentCertificate) && name == AgentCertificate {
			t.Errorf("%q became %q", name, token)
		}
	})
}

func TestValidPrefix(t *testing.T) {
	for prefix, want := range map[string]bool{
		"renewatch": true, "Acme-1": true, "a": true,
		"": false, "a.b": false, "*": false, ">": false, "$JS": false, "a b": false, "a_b": false, "ü": false,
		strings.Repeat("a", 65): false,
	} {
		if ValidPrefix(prefix) != want {
			t.Errorf("ValidPrefix(%q) is not %v", prefix, want)
		}
	}
}

func ExampleSubject() {
	fmt.Println(Subject("renewatch", "web1.example.org", "*.example.com", DeployFailed))
	fmt.Println(Subject("renewatch", "web1.example.org", AgentCertificate, AgentStarted))
	// Output:
	// renewatch.evt.web1_example_org.STAR_example_com.deploy.failed
	// renewatch.evt.web1_example_org._agent.agent.started
}
