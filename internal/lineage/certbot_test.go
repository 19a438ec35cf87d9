package lineage

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/renewatch/renewatch/internal/certtest"
)

// certbotProgram finds certbot, and the Python that runs it.
func certbotProgram(t *testing.T) (certbot, python string) {
	t.Helper()
	if os.Getenv("RENEWATCH_E2E") == "0" {
		t.Skip("RENEWATCH_E2E=0: tests with real programs are switched off")
	}
	certbot, err := exec.LookPath("certbot")
	if err != nil {
		if os.Getenv("RENEWATCH_E2E") == "1" {
			t.Fatal("certbot is missing: install certbot")
		}
		t.Skip("certbot is missing")
	}
	f, err := os.Open(certbot)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	line, _ := bufio.NewReader(f).ReadString('\n')
	python, ok := strings.CutPrefix(strings.TrimSpace(line), "#!")
	if fields := strings.Fields(python); ok && len(fields) > 0 {
		python = fields[0]
	}
	return certbot, python
}

// process is a program under way.
type process struct {
	name  string
	out   strings.Builder // what it said, once it has ended
	ended chan struct{}
	err   error // of its end
}

// start starts a program, which ends with the test at the latest.
func start(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{name: cmd.Args[0], ended: make(chan struct{})}
	if cmd.Stdout == nil {
		cmd.Stdout = &p.out
	}
	cmd.Stderr = &p.out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		p.err = cmd.Wait()
	}()
	t.Cleanup(func() {
		select {
		case <-p.ended:
		default:
			syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			<-p.ended
		}
	})
	return p
}

// wait waits for its good end.
func (p *process) wait(t *testing.T) {
	t.Helper()
	if <-p.ended; p.err != nil {
		t.Fatalf("%s: %v\n%s", p.name, p.err, p.out.String())
	}
}

// A run of certbot is seen for as long as its hook lasts, by whoever may see it.
func TestCertbotRun(t *testing.T) {
	certbot, _ := certbotProgram(t)
	dir := tempDir(t)
	web, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	webroot := filepath.Join(dir, "webroot")
	server := &http.Server{Handler: http.FileServer(http.Dir(webroot))}
	served := make(chan struct{})
	go func() { defer close(served); server.Serve(web) }()
	t.Cleanup(func() { server.Close(); <-served })
	pebble, err := certtest.NewPebble(certtest.PebbleOptions{HTTPPort: web.Addr().(*net.TCPAddr).Port})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pebble.Close)
	root := write(t, filepath.Join(dir, "root.pem"), string(pebble.TLSRootPEM()))
	write(t, filepath.Join(webroot, "index.html"), "")
	fifo := filepath.Join(dir, "hook")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}

	le := filepath.Join(dir, "letsencrypt")
	cmd := exec.Command(certbot, "certonly", "--non-interactive", "--webroot", "-w", webroot, "-d", "www.lineage.test",
		"--agree-tos", "--register-unsafely-without-email", "--no-eff-email", "--server", pebble.DirectoryURL(),
		"--config-dir", le, "--work-dir", filepath.Join(dir, "work"), "--logs-dir", filepath.Join(dir, "logs"),
		"--deploy-hook", "head -n 1 '"+fifo+"'")
	cmd.Env = append(os.Environ(), "REQUESTS_CA_BUNDLE="+root, "HOME="+dir, "XDG_CONFIG_HOME="+dir, "TMPDIR="+dir)
	run := start(t, cmd)

	hook := make(chan *os.File)
	go func() {
		f, _ := os.OpenFile(fifo, os.O_WRONLY, 0) // opens when the hook runs
		hook <- f
	}()
	var pipe *os.File
	select {
	case pipe = <-hook:
	case <-run.ended:
		if f, err := os.OpenFile(fifo, os.O_RDONLY|syscall.O_NONBLOCK, 0); err == nil {
			defer f.Close() // lets go of the one that waits
		}
		run.wait(t)
		t.Fatal("certbot ran no hook")
	}
	defer pipe.Close()

	path := filepath.Join(le, "live/www.lineage.test/fullchain.pem")
	other := newLineage(t, filepath.Join(dir, "other"), "www.lineage.test")
	lock := filepath.Join(le, certbotLockName)
	running := Run{true, true, "certbot holds " + lock}
	idle := Run{true, false, "nobody holds " + lock}
	elsewhere := Run{true, false, "nobody holds " + filepath.Join(other.Dir, certbotLockName)}
	now := &clock{now: time.Now()}
	runs := NewRuns(Options{Now: now.Now})
	ask := func(what string, want Run, path string) {
		t.Helper()
		if got := runs.Of(t.Context(), path); got != want {
			t.Errorf("%s:\ngot  %+v\nwant %+v", what, got, want)
		}
	}
	ask("while the hook runs", running, path)
	ask("another directory", elsewhere, other.Fullchain())
	ask("through a link", running, link(t, path, filepath.Join(dir, "site.pem")))
	ask("the archive", running, link(t, filepath.Join(le, "archive/www.lineage.test/fullchain1.pem"), filepath.Join(dir, "archived.pem")))
	if os.Geteuid() == 0 {
		asked := func(name string, flags uintptr) []Run {
			t.Helper()
			return child[[]Run](t, name, flags, path, other.Fullchain())
		}
		if got := asked("run", 0); got[0] != running || got[1] != elsewhere {
			t.Errorf("nobody sees %+v", got)
		}
		hidden := Run{What: "whether " + lock + " is held is not known: no permission to open it, and /proc/locks is hidden"}
		if got := asked("hidepids", syscall.CLONE_NEWNS); got[0] != hidden || got[1] != elsewhere {
			t.Errorf("where /proc/locks is hidden nobody sees %+v", got)
		}
		unlisted := Run{What: "whether " + lock + " is held is not known: no permission to open it, and /proc/locks does not list it here"}
		if got := asked("pids", syscall.CLONE_NEWNS|syscall.CLONE_NEWPID); got[0] != running || got[2] != unlisted {
			t.Errorf("in another PID namespace root and nobody see %+v", got)
		}
	}
	if _, err := io.WriteString(pipe, "\n"); err != nil {
		t.Fatal(err)
	}
	run.wait(t)
	ask("remembered", running, path)
	now.add(defaultFresh)
	ask("after the run", idle, path)
	if _, err := os.Lstat(lock); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("there is a lock file after the run: %v", err)
	}
	if os.Geteuid() == 0 {
		if got := child[[]Run](t, "run", 0, path); got[0] != idle {
			t.Errorf("after the run nobody sees %+v", got)
		}
	}
}

// certbot takes and leaves its lock a thousand times while it is asked for all
// the time: it always gets it.
func TestLockIsNeverInTheWay(t *testing.T) {
	_, python := certbotProgram(t)
	dir := tempDir(t)
	newLineage(t, dir, "a.test")
	const script = `
import sys
from certbot._internal import lock
for i in range(1000):
    lock.lock_dir(sys.argv[1]).release()
`
	run := start(t, exec.Command(python, "-c", script, dir))
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if s := certbotLock(dir); !s.known && !strings.HasSuffix(s.what, "comes and goes") {
					t.Errorf("%+v", s)
					return
				}
			}
		})
	}
	run.wait(t)
	close(done)
	wg.Wait()
	if s := certbotLock(dir); !s.known || s.running {
		t.Errorf("afterwards: %+v", s)
	}
}

// holder is certbot's own code holding the lock until it is told to end.
func holder(t *testing.T, dir string) (end func()) {
	t.Helper()
	_, python := certbotProgram(t)
	const script = `
import sys
from certbot._internal import lock
held = lock.lock_dir(sys.argv[1])
print("held", flush=True)
sys.stdin.readline()
`
	cmd := exec.Command(python, "-c", script, dir)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd.Stdout = w
	run := start(t, cmd)
	w.Close()
	if line, err := bufio.NewReader(r).ReadString('\n'); line != "held\n" {
		t.Fatalf("the lock was not taken: %q %v", line, err)
	}
	return func() { in.Close(); run.wait(t) }
}

func TestLockFiles(t *testing.T) {
	dir := tempDir(t)
	newLineage(t, dir, "a.test")
	lock := filepath.Join(dir, certbotLockName)
	want := func(when string, want sight) {
		t.Helper()
		if got := certbotLock(dir); got != want {
			t.Errorf("%s:\ngot  %+v\nwant %+v", when, got, want)
		}
	}
	free, held := sight{true, false, "nobody holds " + lock}, sight{true, true, "certbot holds " + lock}
	want("no file", free)
	end := holder(t, dir)
	want("held", held)
	// Somebody cleans up below a run, and the next one makes a file of its own.
	if err := os.Remove(lock); err != nil {
		t.Fatal(err)
	}
	want("the file is gone", free)
	write(t, lock, "")
	want("another file that nobody holds", free)
	endSecond := holder(t, dir)
	want("another file that the second run holds", held)
	end() // leaves without release: the file is the second one's
	want("the second run goes on", held)
	endSecond()
	want("a file that a crash left", free)

	for what, make := range map[string]func() error{
		"fifo":      func() error { return syscall.Mkfifo(lock, 0o600) },
		"directory": func() error { return os.Mkdir(lock, 0o700) },
		"link":      func() error { return os.Symlink(filepath.Join(dir, "elsewhere"), lock) },
	} {
		if err := errors.Join(os.Remove(lock), make()); err != nil {
			t.Fatal(err)
		}
		want(what, sight{what: lock + " is no regular file"})
	}
	if _, err := os.Lstat(filepath.Join(dir, "elsewhere")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file was made: %v", err)
	}
}

// childPieces shows certbot's tree as a container gets it: piece by piece, and whole.
func childPieces(args []string) (any, error) {
	le, point := args[0], args[1]
	err := errors.Join(private(), syscall.Mount("tmpfs", point, "tmpfs", 0, ""))
	for _, sub := range []string{"live", "archive", "renewal"} {
		dir := filepath.Join(point, sub)
		err = errors.Join(err, os.Mkdir(dir, 0o755), syscall.Mount(filepath.Join(le, sub), dir, "", syscall.MS_BIND, ""))
	}
	if err != nil {
		return nil, err
	}
	pieces := certbotLock(point).known
	if err := syscall.Mount(le, point, "", syscall.MS_BIND, ""); err != nil {
		return nil, err
	}
	return []bool{pieces, certbotLock(point).known, certbotLock(point).running}, nil
}

func TestPiecesOfATreeHideTheLock(t *testing.T) {
	dir := tempDir(t)
	le, point := filepath.Join(dir, "letsencrypt"), filepath.Join(dir, "container")
	newLineage(t, le, "a.test")
	if err := os.Mkdir(point, 0o755); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		defer holder(t, le)()
	}
	got := child[[]bool](t, "pieces", syscall.CLONE_NEWNS, le, point)
	if got[0] || !got[1] || !got[2] {
		t.Errorf("mounted piece by piece: known %v; whole: known %v, running %v", got[0], got[1], got[2])
	}
}

func TestParseLocks(t *testing.T) {
	const text = `1: POSIX  ADVISORY  WRITE 1234 fe:00:787143 0 EOF
1: -> POSIX  ADVISORY  WRITE 1235 fe:00:55 0 EOF
2: FLOCK  ADVISORY  WRITE 1236 fe:00:56 0 EOF
3: OFDLCK ADVISORY  READ -1 00:1b:41 0 EOF
4: POSIX  ADVISORY  WRITE 7 <none>:0 0 EOF
5: LEASE  ACTIVE    WRITE 7 fe:00:57 0 EOF
x
6: POSIX ADVISORY WRITE 1 zz:00:58 0 EOF
`
	for _, c := range []struct {
		dev  string
		ino  uint64
		held bool
	}{
		{"254:0", 787143, true}, {"0:27", 41, true}, {"254:1", 787143, false}, {"254:0", 55, false},
		{"254:0", 56, false}, {"254:0", 57, false}, {"254:0", 58, false}, {"254:0", 41, false},
	} {
		held, complete := parseLocks(strings.NewReader(text), []string{"9:9", c.dev}, c.ino)
		if held != c.held || !complete {
			t.Errorf("%+v: held %v, complete %v", c, held, complete)
		}
	}
	if held, complete := parseLocks(strings.NewReader(strings.Repeat(strings.Repeat("x", 1023)+"\n", maxLocks>>10)), nil, 1); held || complete {
		t.Errorf("an endless list: held %v, complete %v", held, complete)
	}
}

func FuzzParseLocks(f *testing.F) {
	f.Add("1: POSIX  ADVISORY  WRITE 1234 fe:00:787143 0 EOF\n")
	f.Fuzz(func(t *testing.T, text string) {
		held, _ := parseLocks(strings.NewReader(text), []string{"254:0"}, 787143)
		if held && !strings.Contains(text, "787143") {
			t.Errorf("%q holds it", text)
		}
	})
}
