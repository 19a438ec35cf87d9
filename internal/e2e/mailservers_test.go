package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/smtp"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// postfix is one Postfix with configuration, queue and data of its own, and one
// smtpd on a port of loopback.
type postfix struct {
	t    *testing.T
	conf string // its configuration directory
	logs string
	addr string
	*process
}

// newPostfix starts Postfix. An smtpd that had nothing to do for idle ends; the
// next one reads the certificate anew.
func newPostfix(t *testing.T, name, cert, key string, idle time.Duration) *postfix {
	t.Helper()
	bin := program(t, "postfix")
	needRoot(t, "Postfix")
	dir := shortDir(t)
	p := &postfix{t: t, conf: filepath.Join(dir, "conf"), logs: filepath.Join(dir, "mail.log"), addr: fmt.Sprintf("127.0.0.1:%d", freePort(t))}
	built := map[string]string{}
	for _, key := range []string{"daemon_directory", "command_directory", "mail_owner", "setgid_group"} {
		built[key] = strings.TrimSpace(mustRun(t, exec.Command(program(t, "postconf"), "-d", "-h", key)).stdout)
	}
	for _, d := range []string{"queue", "data"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	mustRun(t, exec.Command("chown", built["mail_owner"], filepath.Join(dir, "data")))
	writeFile(t, filepath.Join(p.conf, "main.cf"), fmt.Sprintf(`compatibility_level = 3.6
myhostname = %[2]s
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
queue_directory = %[1]s/queue
data_directory = %[1]s/data
daemon_directory = %[5]s
command_directory = %[6]s
mail_owner = %[7]s
setgid_group = %[8]s
maillog_file = %[1]s/mail.log
maillog_file_prefixes = %[1]s
alias_maps =
alias_database =
local_recipient_maps =
smtpd_relay_restrictions = reject
smtpd_tls_security_level = may
smtpd_tls_cert_file = %[3]s
smtpd_tls_key_file = %[4]s
`, dir, name, cert, key, built["daemon_directory"], built["command_directory"], built["mail_owner"], built["setgid_group"]), 0o644)
	writeFile(t, filepath.Join(p.conf, "master.cf"), fmt.Sprintf(`%s inet n - n - - smtpd -o max_idle=%ds -o max_use=100000
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
proxymap unix - - n - - proxymap
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
`, p.addr, int(idle/time.Second)), 0o644)
	mustRun(t, exec.Command(bin, "-c", p.conf, "check")) // makes the queue's directories
	p.process = spawn(t, "postfix", exec.Command(filepath.Join(built["daemon_directory"], "master"), "-c", p.conf, "-s"))
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("Postfix logged:\n%s", p.mail())
		}
	})
	eventually(t, "Postfix up", func() error {
		if !p.running() {
			return final("Postfix ended: %s\n%s", p.log.tail(), p.mail())
		}
		_, err := smtpLeaf(p.addr, name)
		return err
	})
	return p
}

func (p *postfix) mail() string {
	data, _ := os.ReadFile(p.logs)
	return string(data)
}

func (p *postfix) reloadCommand() []string {
	return []string{program(p.t, "postfix"), "-c", p.conf, "reload"}
}

// reloaded counts the reloads that Postfix itself tells of.
func (p *postfix) reloaded() int { return logged(p.t, p.mail(), `postfix/master\[\d+\]: reload `) }

// greeted counts the conversations that were somebody else's than these tests',
// who say EHLO once more after STARTTLS.
func (p *postfix) greeted() int {
	return logged(p.t, p.mail(), `: disconnect from .* ehlo=1 starttls=1 `)
}

// dovecot is one Dovecot with a directory of its own, with IMAP (STARTTLS) and
// IMAPS on loopback, and no user anywhere.
type dovecot struct {
	t       *testing.T
	logs    string
	pidfile string
	imap    string // host:port
	imaps   string // host:port
	*process
}

func newDovecot(t *testing.T, name, cert, key string) *dovecot {
	t.Helper()
	bin := program(t, "dovecot")
	needRoot(t, "Dovecot")
	dir := shortDir(t)
	imap, imaps := freePort(t), freePort(t)
	d := &dovecot{t: t, logs: filepath.Join(dir, "dovecot.log"), pidfile: filepath.Join(dir, "run", "master.pid"),
		imap: fmt.Sprintf("127.0.0.1:%d", imap), imaps: fmt.Sprintf("127.0.0.1:%d", imaps)}
	conf := filepath.Join(dir, "dovecot.conf")
	writeFile(t, conf, fmt.Sprintf(`base_dir = %[1]s/run
log_path = %[2]s
protocols = imap
listen = 127.0.0.1
ssl = required
ssl_cert = <%[3]s
ssl_key = <%[4]s
mail_location = maildir:%[1]s/mail/%%u
passdb {
  driver = static
  args = nologin=y
}
userdb {
  driver = static
  args = uid=65534 gid=65534 home=%[1]s/mail/%%u
}
service imap-login {
  inet_listener imap {
    address = 127.0.0.1
    port = %[5]d
  }
  inet_listener imaps {
    address = 127.0.0.1
    port = %[6]d
    ssl = yes
  }
}
`, dir, d.logs, cert, key, imap, imaps), 0o644)
	d.process = spawn(t, "dovecot", exec.Command(bin, "-F", "-c", conf))
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("Dovecot logged:\n%s", d.mail())
		}
	})
	eventually(t, "Dovecot up", func() error {
		if !d.running() {
			return final("Dovecot ended: %s\n%s", d.log.tail(), d.mail())
		}
		if _, err := servedLeaf(d.imaps, name); err != nil {
			return err
		}
		_, err := imapLeaf(d.imap, name)
		return err
	})
	return d
}

func (d *dovecot) mail() string {
	data, _ := os.ReadFile(d.logs)
	return string(data)
}

// reloaded counts the reloads that Dovecot itself tells of.
func (d *dovecot) reloaded() int { return logged(d.t, d.mail(), "master: Warning: SIGHUP received") }

// needRoot skips, or fails where the environment promises that everything is
// there, when a server cannot be started by this user.
func needRoot(t *testing.T, server string) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("RENEWATCH_E2E") != "" {
		t.Fatal(server + " can be started by root only")
	}
	t.Skip(server + " can be started by root only")
}

// smtpLeaf is what a mail server presents after STARTTLS, by a conversation of
// the test's own.
func smtpLeaf(addr, name string) (*x509.Certificate, error) {
	conn, err := dial(addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	c, err := smtp.NewClient(conn, name)
	if err != nil {
		return nil, err
	}
	if err := c.Hello("e2e.test"); err != nil {
		return nil, err
	}
	if ok, _ := c.Extension("STARTTLS"); !ok {
		return nil, fmt.Errorf("%s does not offer STARTTLS", addr)
	}
	if err := c.StartTLS(&tls.Config{ServerName: name, InsecureSkipVerify: true}); err != nil {
		return nil, err
	}
	state, ok := c.TLSConnectionState()
	if !ok {
		return nil, fmt.Errorf("%s: no TLS", addr)
	}
	_ = c.Quit()
	return state.PeerCertificates[0], nil
}

// imapLeaf is the same for IMAP.
func imapLeaf(addr, name string) (*x509.Certificate, error) {
	conn, err := dial(addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	c := textproto.NewConn(conn)
	if line, err := c.ReadLine(); err != nil || !strings.HasPrefix(line, "* OK") {
		return nil, fmt.Errorf("%s: greeting %q: %w", addr, line, err)
	}
	if err := c.PrintfLine("a STARTTLS"); err != nil {
		return nil, err
	}
	if line, err := c.ReadLine(); err != nil || !strings.HasPrefix(line, "a OK") {
		return nil, fmt.Errorf("%s: STARTTLS answered %q: %w", addr, line, err)
	}
	secure := tls.Client(conn, &tls.Config{ServerName: name, InsecureSkipVerify: true})
	if err := secure.Handshake(); err != nil {
		return nil, err
	}
	leaf := secure.ConnectionState().PeerCertificates[0]
	_, _ = fmt.Fprint(secure, "b LOGOUT\r\n")
	return leaf, nil
}

func dial(addr string) (net.Conn, error) {
	conn, err := net.DialTimeout("tcp", addr, 10*time.Second)
	if err == nil {
		err = conn.SetDeadline(time.Now().Add(10 * time.Second))
	}
	return conn, err
}
