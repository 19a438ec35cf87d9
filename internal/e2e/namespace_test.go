package e2e

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/renewatch/renewatch/internal/certtest"
)

const (
	// binaryEnv names a renewatch that is built already.
	binaryEnv = "RENEWATCH_E2E_BINARY"
	// apartEnv holds the name of the test for which this process was started.
	apartEnv = "RENEWATCH_E2E_APART"
)

// apart runs the calling test again in a process with a network and a mount
// namespace of its own: every interface, route, name server and mount made there
// is seen by nobody else and ends with the last process in it, however the test
// ends. It returns true in there, with loopback up and nothing else. To its
// caller outside it returns false once the test was run; the caller then returns.
func apart(t *testing.T) bool {
	t.Helper()
	unshare, ip := program(t, "unshare"), program(t, "ip")
	if os.Getenv(apartEnv) == t.Name() {
		mustRun(t, exec.Command(ip, "link", "set", "lo", "up"))
		return true
	}
	if os.Geteuid() != 0 {
		unavailable(t, "namespaces can be made by root only: run the tests as root")
	}
	namespaces := []string{"--net", "--mount", "--propagation", "private", "--"}
	if res := run(t, exec.Command(unshare, append(namespaces, "true")...)); res.code != 0 {
		unavailable(t, "no namespaces can be made here: "+strings.TrimSpace(res.stderr))
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var pattern []string
	for part := range strings.SplitSeq(t.Name(), "/") {
		pattern = append(pattern, "^"+regexp.QuoteMeta(part)+"$")
	}
	limit := 10 * time.Minute
	if deadline, ok := t.Deadline(); ok {
		limit = time.Until(deadline) - 10*time.Second // so that it tells what it waited for
	}
	cmd := exec.Command(unshare, append(namespaces, self, "-test.run", strings.Join(pattern, "/"),
		"-test.v", "-test.count", "1", "-test.timeout", limit.String())...)
	cmd.Env = append(os.Environ(), apartEnv+"="+t.Name(), binaryEnv+"="+binary(t))
	p := spawn(t, "the test in its namespaces", cmd)
	<-p.done
	said := p.log.String()
	p.log = &transcript{} // it is told below, whole
	outcome := func(word string) bool {
		return regexp.MustCompile(`(?m)^\s*--- ` + word + `: ` + regexp.QuoteMeta(t.Name()) + ` `).MatchString(said)
	}
	switch {
	case p.cmd.ProcessState.Success() && outcome("PASS"):
		if testing.Verbose() {
			t.Logf("in its namespaces:\n%s", said)
		}
	case p.cmd.ProcessState.Success() && outcome("SKIP"):
		t.Skipf("in its namespaces:\n%s", said)
	default:
		t.Fatalf("in its namespaces: %v\n%s", p.err, said)
	}
	return false
}

// unavailable skips a test for want of something that this machine does not give,
// or fails it where the environment promises that everything is there.
func unavailable(t *testing.T, sentence string) {
	t.Helper()
	if os.Getenv("RENEWATCH_E2E") != "" {
		t.Fatal(sentence)
	}
	t.Skip(sentence)
}

// iproute runs iproute2 in the namespace of a test that is apart.
func iproute(t *testing.T, args ...string) {
	t.Helper()
	mustApart(t)
	mustRun(t, exec.Command(program(t, "ip"), args...))
}

// mountAt runs mount in the namespace of a test that is apart. Its last argument is
// where; that is unmounted when the test ends, so that the directory can go.
func mountAt(t *testing.T, args ...string) {
	t.Helper()
	mustApart(t)
	mustRun(t, exec.Command(program(t, "mount"), args...))
	where := args[len(args)-1]
	t.Cleanup(func() {
		if err := syscall.Unmount(where, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmounting %s: %v", where, err)
		}
	})
}

// mustApart keeps a test from changing the machine's own interfaces and mounts.
func mustApart(t *testing.T) {
	t.Helper()
	if os.Getenv(apartEnv) == "" {
		t.Fatal("this is for a test that is apart")
	}
}

// nameServer answers for hosts at port 53 of the namespace's loopback, and makes
// everything in the namespace ask it.
func nameServer(t *testing.T, hosts map[string][]netip.Addr) {
	t.Helper()
	mustApart(t)
	dns, err := certtest.NewDNS(hosts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(dns.Close)
	l, err := net.Listen("tcp", "127.0.0.1:53")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				go relay(conn, dns.Addr())
			}
		}
	}()
	conf := filepath.Join(tempDir(t), "resolv.conf")
	writeFile(t, conf, "nameserver 127.0.0.1\noptions use-vc\n", 0o644)
	mountAt(t, "--bind", conf, "/etc/resolv.conf")
}

// relay carries one connection to addr; it ends when either side does, and the
// name server ends its side after 30 seconds at the latest.
func relay(conn net.Conn, addr string) {
	defer conn.Close()
	to, err := net.Dial("tcp", addr)
	if err != nil {
		return
	}
	defer to.Close()
	go func() {
		_, _ = io.Copy(to, conn)
		to.Close()
	}()
	_, _ = io.Copy(conn, to)
}
