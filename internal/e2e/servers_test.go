package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// servedLeaf is what a server presents for name at addr, by a handshake of the
// test's own.
func servedLeaf(addr, name string) (*x509.Certificate, error) {
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", addr,
		&tls.Config{ServerName: name, InsecureSkipVerify: true})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0], nil
}

// awaitServed waits until addr serves leaf.
func awaitServed(t *testing.T, addr, name string, leaf *x509.Certificate) {
	t.Helper()
	eventually(t, addr+" serving "+fingerprint(leaf), func() error { return serves(addr, name, leaf) })
}

func serves(addr, name string, leaf *x509.Certificate) error {
	got, err := servedLeaf(addr, name)
	if err != nil {
		return err
	}
	if !got.Equal(leaf) {
		return fmt.Errorf("%s serves %s (notBefore %v), not %s (notBefore %v)",
			addr, fingerprint(got), got.NotBefore, fingerprint(leaf), leaf.NotBefore)
	}
	return nil
}

func mustServe(t *testing.T, addr, name string, leaf *x509.Certificate) {
	t.Helper()
	if err := serves(addr, name, leaf); err != nil {
		t.Fatal(err)
	}
}

// nginx is one nginx with a directory of its own.
type nginx struct {
	t    *testing.T
	dir  string
	conf string
	bin  string
	*process
}

// tlsServer is one server block: names, where it listens, which pair it serves.
func tlsServer(name, cert, key string, listen ...string) string {
	var b strings.Builder
	b.WriteString("server {\n")
	for _, l := range listen {
		fmt.Fprintf(&b, "  listen %s ssl;\n", l)
	}
	fmt.Fprintf(&b, "  server_name %s;\n  ssl_certificate %s;\n  ssl_certificate_key %s;\n", name, cert, key)
	b.WriteString("  location / { return 200 \"ok\\n\"; }\n}\n")
	return b.String()
}

// webServer is the plain HTTP block that answers http-01 challenges.
func webServer(webroot string, port int) string {
	return fmt.Sprintf("server {\n  listen 127.0.0.1:%d;\n  root %s;\n}\n", port, webroot)
}

// newNginx starts nginx with the given server blocks.
func newNginx(t *testing.T, blocks ...string) *nginx {
	t.Helper()
	n := &nginx{t: t, dir: tempDir(t), bin: program(t, "nginx")}
	n.conf = filepath.Join(n.dir, "nginx.conf")
	if err := os.Mkdir(filepath.Join(n.dir, "tmp"), 0o755); err != nil {
		t.Fatal(err)
	}
	n.configure(blocks...)
	n.start()
	return n
}

func (n *nginx) configure(blocks ...string) {
	n.t.Helper()
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;\n"
	}
	replaceFile(n.t, n.conf, user+`daemon off;
pid nginx.pid;
error_log error.log info;
worker_processes 2;
events { worker_connections 256; }
http {
access_log off;
client_body_temp_path tmp/body;
proxy_temp_path tmp/proxy;
fastcgi_temp_path tmp/fastcgi;
uwsgi_temp_path tmp/uwsgi;
scgi_temp_path tmp/scgi;
ssl_protocols TLSv1.2 TLSv1.3;
`+strings.Join(blocks, "")+"}\n", 0o644)
}

func (n *nginx) args(more ...string) []string {
	return append([]string{n.bin, "-p", n.dir + "/", "-e", "error.log", "-c", n.conf}, more...)
}

func (n *nginx) start() {
	n.t.Helper()
	argv := n.args()
	n.process = spawn(n.t, "nginx", exec.Command(argv[0], argv[1:]...))
	pidfile := filepath.Join(n.dir, "nginx.pid")
	eventually(n.t, "nginx up", func() error {
		if !n.running() {
			return final("nginx ended: %s\n%s", n.log.tail(), n.errors())
		}
		data, err := os.ReadFile(pidfile)
		if err == nil && strings.TrimSpace(string(data)) != strconv.Itoa(n.pid()) {
			err = fmt.Errorf("%s holds %q", pidfile, data)
		}
		return err
	})
}

// reloadCommand is what a person configures.
func (n *nginx) reloadCommand() []string { return n.args("-s", "reload") }

func (n *nginx) reload() {
	n.t.Helper()
	argv := n.reloadCommand()
	mustRun(n.t, exec.Command(argv[0], argv[1:]...))
}

// quit stops nginx and waits until it is gone.
func (n *nginx) quit() {
	n.t.Helper()
	n.stop(n.t, syscall.SIGTERM)
}

func (n *nginx) errors() string {
	data, _ := os.ReadFile(filepath.Join(n.dir, "error.log"))
	return string(data)
}

// reconfigured counts the reloads that nginx itself tells of.
func (n *nginx) reconfigured() int {
	return logged(n.t, n.errors(), `\[notice\] \d+#\d+: reconfiguring$`)
}

// apache is one Apache with a directory of its own.
type apache struct {
	t    *testing.T
	conf string
	bin  string
	dir  string
	*process
}

// vhost is one name that an Apache serves, with its pair.
type vhost struct{ name, cert, key string }

func newApache(t *testing.T, name, cert, key string, port int) *apache {
	t.Helper()
	return newApacheWith(t, port, vhost{name, cert, key})
}

// newApacheWith starts Apache with several names on one port.
func newApacheWith(t *testing.T, port int, vhosts ...vhost) *apache {
	t.Helper()
	var blocks strings.Builder
	for _, v := range vhosts {
		fmt.Fprintf(&blocks, `<VirtualHost 127.0.0.1:%d>
  ServerName %s
  SSLEngine on
  SSLCertificateFile %s
  SSLCertificateKeyFile %s
</VirtualHost>
`, port, v.name, v.cert, v.key)
	}
	a := &apache{t: t, dir: tempDir(t), bin: program(t, "apache2")}
	a.conf = filepath.Join(a.dir, "apache.conf")
	user := ""
	if os.Geteuid() == 0 {
		user = "User www-data\nGroup www-data\n"
	}
	writeFile(t, a.conf, user+fmt.Sprintf(`ServerRoot %[1]s
DefaultRuntimeDir %[1]s
PidFile %[1]s/apache.pid
Mutex file:%[1]s default
ErrorLog %[1]s/error.log
LogLevel info
ServerName %[2]s
Listen 127.0.0.1:%[3]d
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule ssl_module /usr/lib/apache2/modules/mod_ssl.so
StartServers 1
ThreadsPerChild 4
MinSpareThreads 1
MaxSpareThreads 8
MaxRequestWorkers 8
SSLSessionCache none
DocumentRoot %[1]s
%[4]s`, a.dir, vhosts[0].name, port, &blocks), 0o644)
	a.process = spawn(t, "apache", exec.Command(a.bin, "-d", a.dir, "-f", a.conf, "-DFOREGROUND"))
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	eventually(t, "Apache up", func() error {
		if !a.running() {
			return final("Apache ended: %s\n%s", a.log.tail(), a.errors())
		}
		_, err := servedLeaf(addr, vhosts[0].name)
		return err
	})
	return a
}

func (a *apache) reloadCommand() []string {
	return []string{a.bin, "-d", a.dir, "-f", a.conf, "-k", "graceful"}
}

func (a *apache) errors() string {
	data, _ := os.ReadFile(filepath.Join(a.dir, "error.log"))
	return string(data)
}

// reloaded counts the reloads that Apache itself tells of.
func (a *apache) reloaded() int {
	return logged(a.t, a.errors(), "Doing graceful restart")
}

// counted wraps a reload command in a script that leaves a line in a file for
// each time it is run.
type counted struct {
	t    *testing.T
	path string
	runs string
}

// countedReload returns a script that notes that it ran and then does what body
// says (shell text; it may use $n, the how-manieth run it is).
func countedReload(t *testing.T, body string) *counted {
	t.Helper()
	dir := tempDir(t)
	c := &counted{t: t, path: filepath.Join(dir, "reload"), runs: filepath.Join(dir, "runs")}
	writeFile(t, c.runs, "", 0o644)
	writeFile(t, c.path, fmt.Sprintf("#!/bin/sh\necho $$ >>'%[1]s'\nn=$(wc -l <'%[1]s')\n%[2]s\n", c.runs, body), 0o755)
	return c
}

func (c *counted) command() []string { return []string{c.path} }

// pids are the process ids of the runs so far, in order.
func (c *counted) pids() []int {
	c.t.Helper()
	var pids []int
	for _, line := range lines(readFile(c.t, c.runs)) {
		pid, err := strconv.Atoi(line)
		if err != nil {
			c.t.Fatalf("%s: %v", c.runs, err)
		}
		pids = append(pids, pid)
	}
	return pids
}

func (c *counted) want(n int) {
	c.t.Helper()
	if got := len(c.pids()); got != n {
		c.t.Errorf("the reload command was run %d times, want %d", got, n)
	}
}

// shellQuote makes argv one line of shell.
func shellQuote(argv []string) string {
	quoted := make([]string, len(argv))
	for i, arg := range argv {
		quoted[i] = "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
	}
	return strings.Join(quoted, " ")
}
