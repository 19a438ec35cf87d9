package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// quickstart builds this program and returns a command that runs it in an empty
// temporary directory of its own.
func quickstart(t *testing.T, args ...string) (cmd *exec.Cmd, temp string) {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "quickstart")
	build := exec.Command("go", "build", "-o", binary, ".")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	temp = t.TempDir()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	t.Cleanup(cancel)
	cmd = exec.CommandContext(ctx, binary, args...)
	// What a developer's environment may hold must not change the show.
	cmd.Env = append(os.Environ(), "TMPDIR="+temp, "NATS_URL=nats://127.0.0.1:1", "RENEWATCH_CONFIG=/nowhere",
		"RENEWATCH_STATE_DIR=/nowhere", "LEGO_CA_CERTIFICATES=/nowhere", "HTTPS_PROXY=http://127.0.0.1:1")
	cmd.WaitDelay = 10 * time.Second
	return cmd, temp
}

// empty checks that nothing was left behind.
func empty(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	if err != nil {
		t.Error(err)
	}
	for _, e := range left {
		t.Errorf("left behind: %s", e.Name())
	}
}

func exitCode(err error) int {
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode()
	}
	if err != nil {
		return -1
	}
	return 0
}

func TestQuickstart(t *testing.T) {
	if testing.Short() {
		t.Skip("builds renewatch and runs a whole renewal, which takes half a minute and more")
	}
	cmd, temp := quickstart(t)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	out := stdout.String()
	t.Logf("%s%s", out, stderr.String())
	if code := exitCode(err); code != exitDone {
		t.Fatalf("exit code %d (%v)", code, err)
	}
	if strings.Contains(out, "\x1b") {
		t.Error("colours in a pipe")
	}
	last := 0
	for _, want := range []string{
		`\n +\+\S+s +ACME client +serial [0-9a-f]{8}… is on disk`,
		`\n +\+\S+s +a visitor +127\.0\.0\.1:\d+ still serves serial [0-9a-f]{8}…`,
		`\n +\+\S+s +renewal\.detected `,
		`\n +\+\S+s +reload\.done `,
		`\n +\+\S+s +deploy\.verified `,
		`\nWhat was proven, in [0-9.]+s\n`,
		`✓ the old certificate, serial [0-9a-f]{8}…, was served`,
		`✓ renewatch saw the renewal`,
		`✓ the new certificate, serial [0-9a-f]{8}…, is served on IPv4`,
		`✓ a subscriber without credentials read the whole story`,
	} {
		at := regexp.MustCompile(want).FindStringIndex(out[last:])
		if at == nil {
			t.Fatalf("nothing matches %s after byte %d", want, last)
		}
		last += at[1] - 1
	}
	// The old and the new serial number are those of the two certificates.
	serials := regexp.MustCompile(`lego got serial (\S+) for`).FindStringSubmatch(out)
	renewed := regexp.MustCompile(`ACME client +serial (\S+) is on disk`).FindStringSubmatch(out)
	if serials[1] == renewed[1] {
		t.Error("the renewal brought the old certificate")
	}
	if !strings.Contains(out, "the new certificate, serial "+renewed[1]) || !strings.Contains(out, "the old certificate, serial "+serials[1]) {
		t.Error("what was proven is about other certificates")
	}
	empty(t, temp)
}

func TestAFailingRenewatchIsReported(t *testing.T) {
	fake := filepath.Join(t.TempDir(), "renewatch")
	if err := os.WriteFile(fake, []byte("#!/bin/sh\necho I cannot do that >&2\nexit 78\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd, temp := quickstart(t, "-renewatch", fake)
	out, err := cmd.CombinedOutput()
	if code := exitCode(err); code != exitFailed {
		t.Errorf("exit code %d (%v)", code, err)
	}
	for _, want := range []string{"renewatch ended with exit status 78", "I cannot do that"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("%q is not in the output:\n%s", want, out)
		}
	}
	empty(t, temp)
}

func TestAMuteRenewatchMeetsTheDeadline(t *testing.T) {
	fake := filepath.Join(t.TempDir(), "renewatch")
	if err := os.WriteFile(fake, []byte("#!/bin/sh\necho waiting for nothing\nexec sleep 600\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd, temp := quickstart(t, "-timeout", "3s", "-renewatch", fake)
	out, err := cmd.CombinedOutput()
	if code := exitCode(err); code != exitFailed {
		t.Errorf("exit code %d (%v)", code, err)
	}
	for _, want := range []string{"the show is not over after 3s", "waiting for nothing"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("%q is not in the output:\n%s", want, out)
		}
	}
	empty(t, temp)
}

func TestInterruptLeavesNothingBehind(t *testing.T) {
	// Its own child shows that all of renewatch's process group ends.
	fake := filepath.Join(t.TempDir(), "renewatch")
	fifo := filepath.Join(t.TempDir(), "pids")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	pids, err := os.OpenFile(fifo, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer pids.Close()
	script := "#!/bin/sh\nsleep 600 &\ntrap 'kill $!; exit 0' TERM\necho $$ $! > " + fifo + "\nwait\n"
	if err := os.WriteFile(fake, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd, temp := quickstart(t, "-renewatch", fake)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	server := regexp.MustCompile(`TLS server .*, pid (\d+);`)
	var children []int
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		if m := server.FindStringSubmatch(lines.Text()); m != nil {
			pid, _ := strconv.Atoi(m[1])
			children = append(children, pid)
			break
		}
	}
	go io.Copy(io.Discard, stdout)
	pids.SetReadDeadline(time.Now().Add(time.Minute))
	line, err := bufio.NewReader(pids).ReadString('\n')
	if err != nil {
		t.Fatalf("renewatch was not started: %v: %s", err, stderr.String())
	}
	for _, f := range strings.Fields(line) {
		pid, _ := strconv.Atoi(f)
		children = append(children, pid)
	}
	if len(children) != 3 {
		t.Fatalf("children %v", children)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if code := exitCode(cmd.Wait()); code != exitInterrupted {
		t.Errorf("exit code %d, stderr: %s", code, stderr.String())
	}
	for _, pid := range children {
		if alive(pid) {
			t.Errorf("process %d is still there", pid)
		}
	}
	empty(t, temp)
}

// alive tells whether a process runs; a zombie, which waits for a parent that is
// not ours, does not.
func alive(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return true
	}
	_, state, _ := bytes.Cut(stat, []byte(") "))
	return !bytes.HasPrefix(state, []byte("Z"))
}

func TestUsage(t *testing.T) {
	for args, want := range map[string]int{"-no-such-flag": exitUsage, "stray": exitUsage, "-h": exitDone} {
		var stdout, stderr bytes.Buffer
		if code := run([]string{args}, &stdout, &stderr); code != want {
			t.Errorf("%s: exit code %d, want %d", args, code, want)
		}
		if stderr.Len() == 0 {
			t.Errorf("%s: nothing is said", args)
		}
	}
}
