package e2e

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// scratch outlives the single test: the programs built once for all of them.
var scratch string

func TestMain(m *testing.M) {
	flag.Parse()
	// These tests wait for other programs nearly all the time, so more of them
	// than there are cores can run side by side.
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		if err := flag.Set("test.parallel", "8"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	dir, err := os.MkdirTemp("", "renewatch-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	scratch = dir
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// packages names the Debian package of every program the tests run.
var packages = map[string]string{
	"nginx":           "nginx",
	"certbot":         "certbot",
	"apache2":         "apache2-bin",
	"nats-server":     "nats-server",
	"haproxy":         "haproxy",
	"postfix":         "postfix",
	"postconf":        "postfix",
	"dovecot":         "dovecot-imapd",
	"curl":            "curl",
	"openssl":         "openssl",
	"systemd-analyze": "systemd",
	"ip":              "iproute2",
	"unshare":         "util-linux",
	"mount":           "mount",
	"nsenter":         "util-linux",
	"systemd-nspawn":  "systemd-container",
	"dbus-daemon":     "dbus",
	"buildah":         "buildah",
	"crun":            "crun",
	"busybox":         "busybox-static",
	"go":              "golang",
	"kill":            "procps",
}

// program returns the path of an installed program; without it the test skips,
// or fails where the environment promises that everything is there.
func program(t *testing.T, name string) string {
	t.Helper()
	wanted := os.Getenv("RENEWATCH_E2E")
	if wanted == "0" {
		t.Skip("RENEWATCH_E2E=0: the end-to-end tests are switched off")
	}
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	for _, dir := range []string{"/usr/sbin", "/usr/local/sbin", "/sbin"} {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode()&0o111 != 0 && !info.IsDir() {
			return path
		}
	}
	sentence := fmt.Sprintf("%s is not installed: apt-get install %s", name, packages[name])
	if wanted != "" {
		t.Fatal(sentence)
	}
	t.Skip(sentence)
	return ""
}

// binary builds the program under test, once.
func binary(t *testing.T) string {
	t.Helper()
	program(t, "go")
	path, err := buildOnce()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

var buildOnce = sync.OnceValues(func() (string, error) {
	if built := os.Getenv(binaryEnv); built != "" {
		return built, nil
	}
	out := filepath.Join(scratch, "renewatch")
	args := []string{"build", "-o", out}
	if raceEnabled {
		args = append(args, "-race")
	}
	msg, err := exec.Command("go", append(args, "github.com/renewatch/renewatch/cmd/renewatch")...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, msg)
	}
	return out, nil
})

// tempDir is a temporary directory that server workers running as another user
// can pass through.
func tempDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{filepath.Dir(dir), dir} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

var ports struct {
	sync.Mutex
	taken map[int]bool
	next  int
}

// freePort returns a port that nobody listens on, on 127.0.0.1 nor on ::1, TCP
// nor UDP. It lies below the kernel's ephemeral range, so that no outgoing
// connection takes it before its server does, and it is handed out once.
func freePort(t *testing.T) int {
	t.Helper()
	ports.Lock()
	defer ports.Unlock()
	if ports.next == 0 {
		ports.next = 15000 + os.Getpid()%15000
	}
	for range 2000 {
		ports.next++
		if ports.next >= 32000 {
			ports.next = 15000
		}
		if free(ports.next) {
			return ports.next
		}
	}
	t.Fatal("no free port found")
	return 0
}

func free(port int) bool {
	hosts := []string{"127.0.0.1"}
	if haveIPv6() {
		hosts = append(hosts, "::1")
	}
	for _, host := range hosts {
		addr := net.JoinHostPort(host, fmt.Sprint(port))
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return false
		}
		l.Close()
		p, err := net.ListenPacket("udp", addr)
		if err != nil {
			return false
		}
		p.Close()
	}
	return true
}

// haveIPv6 reports whether this machine has ::1; containers often have not.
var haveIPv6 = sync.OnceValue(func() bool {
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		return false
	}
	l.Close()
	return true
})

// patience bounds every wait. It is not part of any claim: a wait that takes
// this long means that what was waited for does not come.
const patience = 2 * time.Minute

// eventually waits until ok says yes. It asks again and again because what it
// asks for (a served certificate, another program's file) sends no signal.
func eventually(t *testing.T, what string, ok func() error) {
	t.Helper()
	if err := within(patience, ok); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

func within(d time.Duration, ok func() error) error {
	deadline := time.NewTimer(d)
	defer deadline.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ok()
		var final *finalError
		if err == nil || errors.As(err, &final) {
			return err
		}
		select {
		case <-deadline.C:
			return fmt.Errorf("not within %v: %w", d, err)
		case <-tick.C:
		}
	}
}

// finalError ends a wait at once: waiting longer is useless.
type finalError struct{ error }

func final(format string, args ...any) error {
	return &finalError{fmt.Errorf(format, args...)}
}

func writeFile(t *testing.T, path, content string, perm os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), perm); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, perm); err != nil {
		t.Fatal(err)
	}
}

// replaceFile puts content in the place of path by a rename, the way careful
// programs do.
func replaceFile(t *testing.T, path, content string, perm os.FileMode) {
	t.Helper()
	tmp := path + ".new"
	writeFile(t, tmp, content, perm)
	if err := os.Rename(tmp, path); err != nil {
		t.Fatal(err)
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// repoRoot is the checkout, two directories above this package.
func repoRoot(t *testing.T) string {
	t.Helper()
	_, file, _, ok := runtime.Caller(0)
	if !ok || !filepath.IsAbs(file) {
		wd, err := os.Getwd()
		if err != nil {
			t.Fatal(err)
		}
		return filepath.Dir(filepath.Dir(wd))
	}
	return filepath.Dir(filepath.Dir(filepath.Dir(file)))
}

func lines(s string) []string {
	var out []string
	for line := range strings.Lines(s) {
		if line = strings.TrimSpace(line); line != "" {
			out = append(out, line)
		}
	}
	return out
}
