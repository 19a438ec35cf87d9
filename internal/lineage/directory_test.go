package lineage

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

const (
	leDirectory      = "https://acme-v02.api.letsencrypt.org/directory"
	stagingDirectory = "https://acme-staging-v02.api.letsencrypt.org/directory"
)

func TestCertbotDirectory(t *testing.T) {
	dir := tempDir(t)
	l := newLineage(t, dir, "a.test")
	for _, c := range []struct{ name, conf, want string }{
		{"as certbot writes it", "version = 2.1.0\ncert = /x\n\n# Options used in the renewal process\n[renewalparams]\naccount = 1\nserver = " + leDirectory + "\nkey_type = ecdsa\n", leDirectory},
		{"with sections behind", "[renewalparams]\nauthenticator = webroot\nserver = https://ca.internal/dir\n[[webroot_map]]\nserver = /var/www\n[acme_renewal_info]\nari_retry_after = 2026-05-01T00:00:00\n", "https://ca.internal/dir"},
		{"quoted, with a comment", "[renewalparams]\nserver = \"https://ca.internal/dir\" # ours\n", "https://ca.internal/dir"},
		{"in another section", "server = https://evil.example/\n[other]\nserver = https://evil.example/\n[[renewalparams]]\nserver = https://evil.example/\n", ""},
		{"not there", "[renewalparams]\nauthenticator = webroot\n", ""},
		{"not an address", "[renewalparams]\nserver = letsencrypt\n", ""},
		{"a password", "[renewalparams]\nserver = https://a:b@ca.internal/\n", ""},
		{"behind more than is read", "[renewalparams]\n" + strings.Repeat("x = y\n", maxConf) + "server = " + leDirectory + "\n", ""},
		{"behind a line without an end", "[renewalparams]\n" + strings.Repeat("x", maxConf) + "\nserver = " + leDirectory + "\n", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			write(t, l.Conf(), c.conf)
			if got := LayoutOf(l.Fullchain()).Directory(); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
	if err := os.Remove(l.Conf()); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(l.Conf(), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := (Layout{Certbot, "a.test", dir}).Directory(); got != "" {
		t.Errorf("a pipe says %q", got)
	}
}

func TestAcmeShDirectory(t *testing.T) {
	conf := func(url string) string {
		return "Le_Domain='a.test'\nLe_Alt='no'\nLe_API='" + url + "'\nLe_Keylength='ec-256'\n"
	}
	for _, c := range []struct{ name, rsa, ecc, want string }{
		{"RSA", conf(leDirectory), "", leDirectory},
		{"ECDSA", "", conf("https://acme.zerossl.com/v2/DV90"), "https://acme.zerossl.com/v2/DV90"},
		{"both, of one CA", conf(leDirectory), conf(leDirectory), leDirectory},
		{"both, of two CAs", conf(leDirectory), conf(stagingDirectory), ""},
		{"neither says", "Le_Domain='a.test'\n", "", ""},
		{"commented out", "#Le_API='" + leDirectory + "'\n", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			home := tempDir(t)
			cert := ""
			for dir, content := range map[string]string{"a.test": c.rsa, "a.test_ecc": c.ecc} {
				if content != "" {
					write(t, filepath.Join(home, dir, "a.test.conf"), content)
					cert = write(t, filepath.Join(home, dir, "fullchain.cer"), "")
				}
			}
			if got := LayoutOf(cert).Directory(); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

func TestDehydratedDirectory(t *testing.T) {
	account := func(url string) string { return base64.RawURLEncoding.EncodeToString([]byte(url + "\n")) }
	for _, c := range []struct {
		name  string
		files map[string]string // in BASEDIR, or below etc/
		want  string
	}{
		{"a preset", map[string]string{"config": "WELLKNOWN=/var/www\nCA=\"letsencrypt-test\"\n"}, stagingDirectory},
		{"an address", map[string]string{"config": "CA=https://ca.internal/dir # ours\n"}, "https://ca.internal/dir"},
		{"the default", map[string]string{"config": "#CA=\"letsencrypt-test\"\n"}, leDirectory},
		{"the last one counts", map[string]string{"config": "CA=letsencrypt-test\nexport CA='zerossl'\n"}, "https://acme.zerossl.com/v2/DV90"},
		{"Debian", map[string]string{"etc/config": "CONFIG_D=ETC/conf.d\nBASEDIR=BASE\n", "etc/conf.d/local.sh": "CA=google\n", "etc/conf.d/zz.bak": "CA=zerossl\n"}, "https://dv.acme-v02.api.pki.goog/directory"},
		{"a config of another BASEDIR", map[string]string{"etc/config": "BASEDIR=/elsewhere\nCA=zerossl\n"}, ""},
		{"what the shell works out", map[string]string{"config": "CA=\"$(cat /etc/ca)\"\n"}, ""},
		{"an unknown preset", map[string]string{"config": "CA=mine\n"}, ""},
		{"an open quote", map[string]string{"config": "CA=\"letsencrypt\n"}, ""},
		{"only an account", map[string]string{"accounts/" + account("https://ca.internal/dir") + "/account_id.json": "{}"}, "https://ca.internal/dir"},
		{"two accounts", map[string]string{"accounts/" + account(leDirectory) + "/x": "", "accounts/" + account(stagingDirectory) + "/x": ""}, ""},
		{"nothing", nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			base, etc := tempDir(t), tempDir(t)
			for name, content := range c.files {
				path := filepath.Join(base, name)
				if below, ok := strings.CutPrefix(name, "etc/"); ok {
					path = filepath.Join(etc, below)
				}
				write(t, path, strings.NewReplacer("ETC", etc, "BASE\n", base+"\n").Replace(content))
			}
			if got := dehydratedDirectory(base, filepath.Join(etc, "none"), filepath.Join(etc, "config")); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

func TestLegoDirectory(t *testing.T) {
	cert := func(url string) string { return `{"domain":"a.test","certUrl":"` + url + `","certStableUrl":""}` }
	for _, c := range []struct {
		name  string
		files map[string]string
		want  string
	}{
		{"lego 4 at a known CA", map[string]string{"certificates/a.test.json": cert("https://acme-v02.api.letsencrypt.org/acme/cert/1")}, leDirectory},
		{"lego 4 at a CA of one's own", map[string]string{
			"certificates/a.test.json":                         cert("https://ca.internal:9000/cert/1"),
			"accounts/ca.internal_9000/me@a.test/account.json": `{"email":"me@a.test","registration":{"uri":"https://ca.internal:9000/acct/1"}}`,
		}, ""},
		{"lego 5 at a CA of one's own", map[string]string{
			"certificates/a.test.json":                 cert("https://ca.internal:9000/cert/1"),
			"accounts/ca.internal_9000/1/account.json": `{"id":"1","server":"https://ca.internal:9000/acme/dir"}`,
			"accounts/other/2/account.json":            `{"id":"2","server":"https://other.internal/dir"}`,
			"accounts/broken/3/account.json":           `{`,
		}, "https://ca.internal:9000/acme/dir"},
		{"two directories of one host", map[string]string{
			"certificates/a.test.json":  cert("https://ca.internal/cert/1"),
			"accounts/x/1/account.json": `{"server":"https://ca.internal/rsa"}`,
			"accounts/x/2/account.json": `{"server":"https://ca.internal/ecc"}`,
		}, ""},
		{"no address", map[string]string{"certificates/a.test.json": `{}`}, ""},
		{"not JSON", map[string]string{"certificates/a.test.json": `<html>`}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := tempDir(t)
			for name, content := range c.files {
				write(t, filepath.Join(dir, name), content)
			}
			crt := write(t, filepath.Join(dir, "certificates", "a.test.crt"), "")
			if got := LayoutOf(crt).Directory(); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
	if got := LayoutOf(filepath.Join(tempDir(t), "a.pem")).Directory(); got != "" {
		t.Errorf("a plain file: %q", got)
	}
}

func TestUnquote(t *testing.T) {
	for s, want := range map[string]string{
		"":                     "",
		"a":                    "a",
		"a;b":                  "a",
		"'a b'":                "a b",
		"'$a'":                 "$a",
		`"a"`:                  "a",
		`"a`:                   "?",
		`"$a"`:                 "?",
		"$a":                   "?",
		"`a`":                  "?",
		`a"b"`:                 "?",
		`a\ b`:                 "?",
		"https://a.test/x?y=1": "https://a.test/x?y=1",
	} {
		if got := unquote(s); got != want {
			t.Errorf("%s becomes %q, want %q", s, got, want)
		}
	}
}
