package discover

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestApacheReads(t *testing.T) {
	for _, c := range []struct {
		name  string
		files map[string]string
		args  []string
		want  []string
		gaps  []string
	}{
		{
			name: "a host, in any case, with quotes and continued lines",
			files: map[string]string{"httpd.conf": "<virtualhost *:8443>\n  sslENGINE \\\n on\n\tsslcertificatefile \"c \\\"1\\\"\"\r\nSSLCertificateKeyFile 'k'\n</VirtualHost>\n" +
				"# SSLCertificateFile no \\\nSSLCertificateFile no\n"},
			want: []string{`c "1" k`},
		},
		{
			name: "the key lies in the certificate's file when none is named",
			files: map[string]string{"httpd.conf": `<VirtualHost *:1>
SSLEngine on
SSLCertificateFile a
SSLCertificateFile b
SSLCertificateKeyFile k
</VirtualHost>`},
			want: []string{"a k", "b b"},
		},
		{
			name: "hosts without TLS do not count",
			files: map[string]string{"httpd.conf": `Listen 443
Listen 8443 https
<VirtualHost *:443>
SSLCertificateFile a
</VirtualHost>
<VirtualHost *:8443>
SSLCertificateFile b
</VirtualHost>
<VirtualHost *:443>
SSLEngine off
SSLCertificateFile c
</VirtualHost>
<VirtualHost *:443>
Protocol https
SSLCertificateFile d
</VirtualHost>
<VirtualHost *:9443>
SSLEngine optional
SSLCertificateFile e
</VirtualHost>
SSLCertificateFile main`},
			want: []string{"d d", "e e"},
		},
		{
			name: "the main server's certificates and engine are inherited, also from behind",
			files: map[string]string{"httpd.conf": `<VirtualHost *:1>
</VirtualHost>
<VirtualHost *:1>
SSLCertificateFile own
SSLCertificateKeyFile own.key
</VirtualHost>
<VirtualHost *:1>
SSLEngine off
</VirtualHost>
<VirtualHost *:1>
SSLCertificateFile 1
SSLCertificateFile 2
SSLCertificateFile 3
SSLCertificateFile 4
SSLCertificateKeyFile 1.key
</VirtualHost>
SSLEngine on
SSLCertificateFile main
SSLCertificateKeyFile main.key
SSLCertificateFile main2
SSLCertificateKeyFile main2.key`},
			want: []string{"main main.key", "main2 main2.key", "own own.key", "1 1.key", "2 main2.key", "3 3", "4 4"},
		},
		{
			name: "conditions are judged where that is possible, else they are said",
			files: map[string]string{"there": "", "httpd.conf": `Define YES
LoadModule one_module x.so
<VirtualHost *:1>
SSLEngine on
<IfModule mod_ssl.c>
SSLCertificateFile 1
</IfModule>
<IfModule !ssl_module>
SSLCertificateFile no
<IfModule x>
</IfModule>
SSLCertificateFile no
</IfModule>
<IfDefine YES>
SSLCertificateFile 2
</IfDefine>
<IfDefine !YES>
SSLCertificateFile no
</IfDefine>
<IfFile there>
SSLCertificateFile 3
</IfFile>
<IfFile "not there">
SSLCertificateFile no
</IfFile>
<IfModule mod_one.c>
SSLCertificateFile 4
</IfModule>
<IfDefine FLAG>
SSLCertificateFile 5
</IfDefine>
<IfDefine OTHER>
<IfVersion >= 2.4>
SSLCertificateFile 6
</IfVersion>
</IfDefine>
</VirtualHost>
<IfModule two_module>
<VirtualHost *:1>
SSLEngine on
SSLCertificateFile 7
</VirtualHost>
</IfModule>
<VirtualHost *:1>
SSLEngine on
SSLCertificateFile 7
</VirtualHost>`},
			args: []string{"-DFLAG"},
			want: []string{"1 1", "2 2", "3 3", "4 4", "5 5", "6 6 if <ifdefine OTHER> <ifversion >= 2.4>", "7 7"},
		},
		{
			name: "variables, ServerRoot, includes of files, directories and patterns",
			files: map[string]string{
				"httpd.conf": `Define base DIR/conf
Define empty
ServerRoot ${base}
Include all
IncludeOptional gone.conf
IncludeOptional gone/*.conf
Include hosts-*/*.conf
UnDefine base
Include ${base}/x`,
				"conf/all/b":             "Include DIR/conf/sub.inc",
				"conf/all/.hidden":       "<VirtualHost *:1>\nSSLEngine on\nSSLCertificateFile hidden\n</VirtualHost>",
				"conf/all/deeper/a":      "<VirtualHost *:1>\nSSLEngine on\nSSLCertificateFile deeper\n</VirtualHost>",
				"conf/sub.inc":           "<VirtualHost *:1>\nSSLEngine on\nSSLCertificateFile ${base}/sub\n</VirtualHost>\n<VirtualHost *:1>\nSSLEngine on\nSSLCertificateFile /x/${domain}\n</VirtualHost>",
				"conf/hosts-1/a.conf":    "<VirtualHost *:1>\nSSLEngine on\nSSLCertificateFile a\n</VirtualHost>",
				"conf/hosts-2/.b.conf":   "<VirtualHost *:1>\nSSLEngine on\nSSLCertificateFile b\n</VirtualHost>",
				"conf/hosts-2/c.conf.in": "<VirtualHost *:1>\nSSLEngine on\nSSLCertificateFile c\n</VirtualHost>",
			},
			want: []string{"conf/hidden conf/hidden", "conf/sub conf/sub", "conf/deeper conf/deeper", "conf/a conf/a"},
			gaps: []string{"includes ${base}/x, and ${base} is not known", "names /x/${domain}, and ${domain} is not known"},
		},
		{
			name: "macros",
			files: map[string]string{"httpd.conf": `<Macro Host $name $names>
<VirtualHost *:1>
SSLEngine on
SSLCertificateFile "live/$name/cert"
SSLCertificateKeyFile "live/$names/key"
Use Inner "$name"
</VirtualHost>
</Macro>
<Macro Inner @x>
SSLCertificateFile "more/@x"
</Macro>
Use host one two
Use HOST "th ree" 4
UndefMacro Host
Use Host five six
<Macro Loop>
Use Loop
</Macro>
Use Loop`},
			want: []string{"live/one/cert live/two/key", "more/one more/one", "live/th ree/cert live/4/key", "more/th ree more/th ree"},
			gaps: []string{"uses the macro Host, which is not defined", "more than 32 deep"},
		},
		{
			name: "directives on the command line",
			files: map[string]string{"httpd.conf": `<VirtualHost *:1>
SSLCertificateFile ${name}
</VirtualHost>`},
			args: []string{"-C", "Define name x", "-c", "SSLEngine on"},
			want: []string{"x x"},
		},
		{
			name: "passphrases, proxies, managed domains, tokens and OpenSSL commands",
			files: map[string]string{"httpd.conf": `SSLPassPhraseDialog exec:/bin/pw
MDCertificateFile md
MDCertificateKeyFile md.key
<VirtualHost *:1>
SSLEngine on
SSLCertificateFile "pkcs11:object=x"
SSLProxyMachineCertificateFile client
SSLOpenSSLConfCmd Certificate y
SSLOpenSSLConfCmd Options -SessionTicket
</VirtualHost>`},
			want: []string{"md md.key passphrase", "client client passphrase"},
			gaps: []string{"with SSLOpenSSLConfCmd"},
		},
		{
			name:  "an include in a circle, and one that is missing",
			files: map[string]string{"httpd.conf": "Include a\nInclude gone\n", "a": "Include DIR/b", "b": "Include a"},
			gaps:  []string{"/a includes itself", "gone does not exist"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, c.files)
			found := read(t, Reader{}, append([]string{"apachectl", "-d", dir, "-f", "httpd.conf"}, c.args...)...)
			if found.Kind != Apache || found.Config != dir+"/httpd.conf" {
				t.Errorf("found %s, %s", found.Kind, found.Config)
			}
			wantPairs(t, dir, found, c.want...)
			wantGaps(t, found, c.gaps...)
		})
	}
}

// apacheHead is what every configuration of a real Apache needs.
const apacheHead = `ServerRoot DIR
DefaultRuntimeDir DIR
PidFile DIR/gone/apache.pid
Mutex file:DIR default
ErrorLog /dev/stderr
ServerName x.example.test
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule ssl_module /usr/lib/apache2/modules/mod_ssl.so
LoadModule macro_module /usr/lib/apache2/modules/mod_macro.so
StartServers 1
ThreadsPerChild 2
MinSpareThreads 1
MaxSpareThreads 4
MaxRequestWorkers 4
SSLSessionCache none
`

// TestApacheAgrees compares with what Apache says it has configured, and then
// with what it dies of.
func TestApacheAgrees(t *testing.T) {
	bin := program(t, "apache2")
	if _, err := os.Stat("/usr/lib/apache2/modules/mod_ssl.so"); err != nil {
		t.Skip("Apache's modules are not where Debian has them")
	}
	dir := t.TempDir()
	names := []string{"one", "two", "three", "four", "five", "six", "seven", "eight", "a b", "main", "off", "plain", "hidden", "dot", "unused", "macro", "implied", "listen", "main2"}
	var pairs [][2]string
	for _, n := range names {
		pairs = append(pairs, [2]string{"tls/" + n + ".crt", "tls/" + n + ".key"})
	}
	pairs = append(pairs, [2]string{"tls/both.pem", "tls/both.pem"})
	fill(t, dir, pairs)
	var ports [2]int
	var held []net.Listener
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ports[i] = l.Addr().(*net.TCPAddr).Port
		held = append(held, l) // until all are known
	}
	host := func(port int, lines ...string) string {
		return fmt.Sprintf("<VirtualHost 127.0.0.1:%d>\n%s\n</VirtualHost>\n", port, strings.Join(lines, "\n"))
	}
	pair := func(n string) string {
		return fmt.Sprintf("SSLCertificateFile \"tls/%s.crt\"\nSSLCertificateKeyFile 'tls/%s.key'", n, n)
	}
	conf := apacheHead + fmt.Sprintf("Listen 127.0.0.1:%d\nListen 127.0.0.1:%d https\n", ports[0], ports[1]) +
		"Define here ${there}\nDefine there DIR/tls\nDefine one ${there}/one\n" +
		host(ports[0], "SSLEngine on", "SSLCertificateFile ${one}.crt", "SSLCertificateKeyFile ${one}.key") +
		host(ports[0], "sslengine ON", pair("two"), pair("three")) +
		host(ports[0], "SSLEngine off", pair("off")) +
		host(ports[0], pair("plain")) +
		host(ports[1], pair("listen")) + host(ports[0], "Protocol https", pair("implied")) +
		host(ports[0], "SSLEngine on", "SSLCertificateFile tls/both.pem", "SSLCertificateKeyFile tls/both.pem") +
		host(ports[0], "SSLEngine on", "<IfDefine GO>", pair("four"), "</IfDefine>", "<IfDefine !GO>", pair("unused"), "</IfDefine>") +
		host(ports[0], "SSLEngine on", "Include inc.d", "<IfModule mod_ssl.c>", pair("five"), "</IfModule>") +
		host(ports[0], "SSLEngine on", pair("six"), "# SSLCertificateFile tls/seven.crt \\", "SSLEngine off") +
		"Include sites/*.conf\n" +
		"<Macro H $n $nn>\n" + host(ports[0], "SSLEngine on", "SSLCertificateFile tls/$n.crt", "SSLCertificateKeyFile tls/$nn.key") + "</Macro>\nUse H macro macro\n"
	write(t, dir, map[string]string{
		"apache.conf":      conf,
		"inc.d/.dot":       "<IfFile DIR/tls/dot.crt>\n" + pair("dot") + "\n</IfFile>\n",
		"sites/a.conf":     host(ports[0], "SSLEngine on", pair("a b")),
		"sites/.h.conf":    host(ports[0], "SSLEngine on", pair("hidden")),
		"sites/later.conf": host(ports[0], "SSLEngine on", pair("eight")) + "SSLCertificateFile tls/main.crt\nSSLCertificateKeyFile tls/main.key\n" + pair("main2") + "\n",
	})
	command := []string{bin, "-d", dir, "-f", dir + "/apache.conf", "-DGO"}
	r := Reader{where: usual()}
	found, err := r.Pairs(context.Background(), Hint{Commands: [][]string{command}})
	if err != nil {
		t.Fatal(err)
	}

	out, err := exec.Command(bin, append(command[1:], "-t", "-D", "DUMP_CERTS")...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	all := string(out)
	for _, p := range found.Pairs {
		if p.If == "" && !strings.Contains(all, "  "+p.Cert+"\n") {
			t.Errorf("Apache does not know of %s", p.Cert)
		}
	}
	for text := range strings.Lines(all) {
		cert, ok := strings.CutPrefix(strings.TrimSpace(text), "/")
		without := []string{"main.crt", "off.crt", "plain.crt", "listen.crt"} // Apache lists them, but has no TLS there
		if ok && !slices.ContainsFunc(without, func(w string) bool { return strings.HasSuffix(cert, w) }) &&
			!slices.ContainsFunc(found.Pairs, func(p Pair) bool { return p.Cert == "/"+cert }) {
			t.Errorf("Apache knows of /%s, which was not found", cert)
		}
	}

	// Apache looks at its keys only when it is started. It cannot write its
	// pidfile, so it ends by itself when it has.
	for _, l := range held {
		l.Close()
	}
	asked := slices.DeleteFunc(pairs, func(p [2]string) bool {
		return !slices.Contains([]string{"three", "main", "main2", "off", "plain", "implied", "listen", "unused"}, strings.TrimSuffix(filepath.Base(p[0]), ".crt")) && p[0] != p[1]
	})
	suspects(t, dir, found, asked, func() (bool, string) {
		out, err := exec.Command(bin, append(command[1:], "-DFOREGROUND")...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "AH02565") && !strings.Contains(string(out), dir+"/gone/apache.pid") {
			t.Fatalf("%v\n%s", err, out)
		}
		return !strings.Contains(string(out), "AH02565"), string(out)
	})
}
