package discover

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/renewatch/renewatch/internal/certtest"
)

// start starts a server in the foreground and waits until its pidfile is written.
func start(t *testing.T, pidfile string, cmd *exec.Cmd) {
	t.Helper()
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	gone := make(chan error, 1)
	go func() { gone <- cmd.Wait() }()
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		<-gone
	})
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	late := time.NewTimer(time.Minute)
	defer late.Stop()
	for {
		if pid, ok := pidFrom(pidfile); ok && pid == cmd.Process.Pid {
			return
		}
		select {
		case err := <-gone:
			gone <- err
			t.Fatalf("%s ended: %v\n%s", cmd.Path, err, said.String())
		case <-late.C:
			t.Fatalf("%s has not written %s", cmd.Path, pidfile)
		case <-tick.C:
		}
	}
}

// TestRunningHAProxy: flags, directory and environment are those of the process.
func TestRunningHAProxy(t *testing.T) {
	dir := t.TempDir()
	fill(t, dir, [][2]string{{"tls/a.pem", "tls/a.pem"}, {"tls/b.pem", "tls/b.pem"}})
	write(t, dir, map[string]string{"sub/ha.cfg": `defaults
  timeout client 1s
frontend f
  bind unix@DIR/s1 ssl crt "${CERTS}/a.pem" crt ../tls/b.pem
`})
	cmd := exec.Command(program(t, "haproxy"), "-W", "-p", dir+"/ha.pid", "-C", dir+"/sub", "-f", "ha.cfg")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CERTS="+dir+"/tls")
	start(t, dir+"/ha.pid", cmd)
	found, err := Reader{}.Pairs(t.Context(), Hint{PIDFiles: []string{dir + "/ha.pid"}})
	if err != nil || found.Kind != HAProxy || found.Config != dir+"/sub/ha.cfg" {
		t.Fatalf("%+v, %v", found, err)
	}
	wantPairs(t, dir, found, "tls/a.pem tls/a.pem", "sub/../tls/b.pem sub/../tls/b.pem")
	wantGaps(t, found)
}

// TestRunningApache: its command line decides what is defined; and the master is
// named, not a child.
func TestRunningApache(t *testing.T) {
	bin := program(t, "apache2")
	dir := t.TempDir()
	fill(t, dir, [][2]string{{"a.crt", "a.key"}})
	port, err := certtest.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	conf := strings.Replace(apacheHead, "DIR/gone/apache.pid", "DIR/apache.pid", 1)
	if os.Geteuid() == 0 {
		conf += "User www-data\nGroup www-data\n"
	}
	write(t, dir, map[string]string{"conf/a.conf": conf + fmt.Sprintf(`Listen 127.0.0.1:%[1]d
<VirtualHost 127.0.0.1:%[1]d>
SSLEngine on
<IfDefine GO>
SSLCertificateFile a.crt
SSLCertificateKeyFile a.key
</IfDefine>
<IfDefine STOP>
SSLCertificateFile no
</IfDefine>
</VirtualHost>
`, port)})
	cmd := exec.Command(bin, "-d", dir, "-f", "conf/a.conf", "-DGO", "-DFOREGROUND")
	start(t, dir+"/apache.pid", cmd)
	found, err := Reader{}.Pairs(t.Context(), Hint{PIDFiles: []string{dir + "/apache.pid"}})
	if err != nil || found.Kind != Apache || found.Config != filepath.Join(dir, "conf/a.conf") {
		t.Fatalf("%+v, %v", found, err)
	}
	wantPairs(t, dir, found, "a.crt a.key")
	wantGaps(t, found)

	l := mustListeners(t, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(port)))
	if len(l) != 1 || l[0].PID != cmd.Process.Pid || l[0].Name != "apache2" {
		t.Errorf("%+v, want apache2, process %d", l, cmd.Process.Pid)
	}
}
