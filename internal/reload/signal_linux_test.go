package reload

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// watchEnd takes hold of a process and returns a function that waits for its end.
func watchEnd(t *testing.T, pid int) func() {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		defer unix.Close(fd)
		for {
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 20_000)
			if err == unix.EINTR {
				continue
			}
			if n != 1 {
				t.Errorf("process %d lives on: %v", pid, err)
			}
			return
		}
	}
}

// server starts a process that reports the signals it gets.
func server(t *testing.T) (pid int, next func() string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), helperEnv+"=server")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	lines := bufio.NewScanner(out)
	next = func() string {
		lines.Scan()
		return lines.Text()
	}
	if got := next(); got != "ready" {
		t.Fatalf("the server said %q", got)
	}
	return cmd.Process.Pid, next
}

// fifo makes a FIFO for a script to say through that it is under way.
func fifo(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestCommandInterrupted(t *testing.T) {
	pipe := fifo(t)
	s := command(script(t, "sleep 600 & echo $! > "+pipe+"; wait"))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan Result, 1)
	go func() { done <- Runner{Linger: 5 * time.Second}.Run(ctx, s, First, nil) }()
	data, err := os.ReadFile(pipe) // until the script has closed it
	if err != nil {
		t.Fatal(err)
	}
	grandchild, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		t.Fatal(err)
	}
	gone := watchEnd(t, grandchild)
	cancel()
	res := <-done
	if res.OK || !res.Interrupted || strings.Contains(res.Detail, "killed") || !strings.Contains(res.Detail, "interrupted") {
		t.Errorf("result %+v: an interruption is not the command's fault", res)
	}
	gone()
}

func pidfile(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "server.pid")
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func signalled(name, pidfile string) Server { return Server{Way: Way{Signal: name, PIDFile: pidfile}} }

func TestSignal(t *testing.T) {
	pid, next := server(t)
	path := pidfile(t, fmt.Sprintf("%d\n", pid))
	for name, want := range map[string]string{"HUP": "hangup", "SIGUSR1": "user defined signal 1"} {
		if res := runOnce(t, signalled(name, path), First); !res.OK || res.How != "signal" {
			t.Fatalf("result %+v", res)
		}
		if got := next(); got != want {
			t.Errorf("the server got %q, want %q", got, want)
		}
	}
	// As PostgreSQL writes it.
	if res := runOnce(t, signalled("HUP", pidfile(t, fmt.Sprintf("%d\n/var/lib/x\n1700000000\n", pid))), First); !res.OK {
		t.Errorf("result %+v", res)
	} else {
		next()
	}
	// The number was given to this process long after the file was written.
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
	res := runOnce(t, signalled("HUP", path), First)
	if res.OK || !strings.Contains(res.Detail, "stale") {
		t.Errorf("result %+v", res)
	}
	// The next signal that arrives must be this one: the refused one was not sent.
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if got := next(); got != "terminated" {
		t.Errorf("a refused signal was sent: %q", got)
	}
}

func TestSignalToNobody(t *testing.T) {
	ended := exec.Command(os.Args[0], "-test.run=^$")
	if err := ended.Run(); err != nil {
		t.Fatal(err)
	}
	res := runOnce(t, signalled("HUP", pidfile(t, strconv.Itoa(ended.Process.Pid))), First)
	if res.OK || !strings.Contains(res.Detail, "does not exist") {
		t.Errorf("an ended process: %+v", res)
	}
	zombie := exec.Command(os.Args[0], "-test.run=^$")
	if err := zombie.Start(); err != nil {
		t.Fatal(err)
	}
	defer zombie.Wait()
	if err := unix.Waitid(unix.P_PID, zombie.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	res = runOnce(t, signalled("HUP", pidfile(t, strconv.Itoa(zombie.Process.Pid))), First)
	if res.OK || !strings.Contains(res.Detail, "has ended") {
		t.Errorf("a zombie: %+v", res)
	}
}

func TestSignalRefused(t *testing.T) {
	dir := t.TempDir()
	pipe := fifo(t)
	open := pidfile(t, "1234")
	if err := os.Chmod(open, 0o666); err != nil {
		t.Fatal(err)
	}
	self := strconv.Itoa(os.Getpid())
	tests := []struct{ name, signal, pidfile, detail string }{
		{"missing", "HUP", filepath.Join(dir, "none"), "no such file"},
		{"none named", "HUP", "", "needs a pidfile"},
		{"a directory", "HUP", dir, "not a regular file"},
		{"a FIFO", "HUP", pipe, "not a regular file"},
		{"writable by everyone", "HUP", open, "written by everyone"},
		{"empty", "HUP", pidfile(t, " \n"), "is empty"},
		{"words", "HUP", pidfile(t, "12x"), "does not begin with a process id"},
		{"negative", "HUP", pidfile(t, "-5"), "does not begin with a process id"},
		{"hexadecimal", "HUP", pidfile(t, "0x10"), "does not begin with a process id"},
		{"zero", "HUP", pidfile(t, "0"), "never signalled"},
		{"init", "HUP", pidfile(t, "1\n"), "never signalled"},
		{"too large a number", "HUP", pidfile(t, "99999999999999999999"), "no process id"},
		{"too large a file", "HUP", pidfile(t, strings.Repeat("1", maxPIDFile+1)), "too large"},
		{"ourselves", "HUP", pidfile(t, self), "renewatch or its parent"},
		{"an unknown signal", "HUPP", pidfile(t, self), "unknown signal"},
		{"an empty signal with a prefix", "SIG", pidfile(t, self), "unknown signal"},
		{"a deadly signal", "KILL", pidfile(t, self), "reloads nothing"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			res := runOnce(t, signalled(tt.signal, tt.pidfile), First)
			if res.OK || res.How != "signal" || !strings.Contains(res.Detail, tt.detail) {
				t.Errorf("result %+v", res)
			}
		})
	}
}

func TestSignalForeignPIDFile(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a file away, which this test needs")
	}
	pid, _ := server(t)
	path := pidfile(t, strconv.Itoa(pid))
	if err := os.Chown(path, 12345, 12345); err != nil {
		t.Fatal(err)
	}
	res := runOnce(t, signalled("HUP", path), First)
	if res.OK || !strings.Contains(res.Detail, "belongs to user 12345") {
		t.Errorf("result %+v", res)
	}
}

func TestSignalPIDFileOlderThanTheBoot(t *testing.T) {
	pid, next := server(t)
	old := time.Now().Add(-20 * 365 * 24 * time.Hour)
	onDisk := pidfile(t, strconv.Itoa(pid))
	if err := os.Chtimes(onDisk, old, old); err != nil {
		t.Fatal(err)
	}
	if isOld, inMemory := predatesBoot(onDisk, old); !isOld {
		t.Error("twenty years ago is not before the boot")
	} else if inMemory {
		t.Skip("the directory for temporary files lies in memory")
	}
	if res := runOnce(t, signalled("HUP", onDisk), First); res.OK || !strings.Contains(res.Detail, "stale") {
		t.Errorf("on disk: %+v", res)
	}
	dir, err := os.MkdirTemp("/dev/shm", "renewatch-test-")
	if err != nil {
		t.Skip("there is no /dev/shm here: a pidfile in memory is not tested")
	}
	defer os.RemoveAll(dir)
	inMemory := filepath.Join(dir, "server.pid")
	if err := os.WriteFile(inMemory, []byte(strconv.Itoa(pid)), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(inMemory, old, old); err != nil {
		t.Fatal(err)
	}
	if res := runOnce(t, signalled("HUP", inMemory), First); !res.OK {
		t.Errorf("in memory, after the clock was set: %+v", res)
	} else if got := next(); got != "hangup" {
		t.Errorf("the server got %q", got)
	}
}

func TestInspect(t *testing.T) {
	p, err := openProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	is, ok := p.inspect()
	if !ok || is.uid != os.Geteuid() || is.started.After(time.Now()) || time.Since(is.started) > time.Hour {
		t.Errorf("facts %+v %t", is, ok)
	}
	if _, ticks, ok := parseStat([]byte("7 (a) b (c)) S 1 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 1 1")); !ok || ticks != 4711 {
		t.Errorf("a command with parentheses: %d %t", ticks, ok)
	}
	for _, bad := range []string{"", "7 (x", "7 (x) S", "7 (x) S 1 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 -1 1 1"} {
		if _, _, ok := parseStat([]byte(bad)); ok {
			t.Errorf("%q was believed", bad)
		}
	}
}

func FuzzParsePID(f *testing.F) {
	for _, s := range []string{"12\n", "", "-1", "1", "4194304", " 77 \r\nx", "٣"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		pid, err := parsePID(data)
		if (err == nil) != (pid > 1) || pid > 1<<22 {
			t.Fatalf("%q gives %d, %v", data, pid, err)
		}
	})
}
