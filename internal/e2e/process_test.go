package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// process is a program started by a test and ended by it, by its pid.
type process struct {
	name string
	cmd  *exec.Cmd
	log  *transcript
	done chan struct{} // closed when the process has ended and its output is read
	err  error         // how it ended; read after done
}

// transcript keeps what a program wrote.
type transcript struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *transcript) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *transcript) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// tail is the end of it, for a failure's message.
func (o *transcript) tail() string {
	s := strings.TrimSpace(o.String())
	if len(s) > 6000 {
		s = "..." + s[len(s)-6000:]
	}
	return s
}

// spawn starts a program. It is ended when the test ends, and by the kernel
// should the test binary die first.
func spawn(t *testing.T, name string, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{name: name, cmd: cmd, log: &transcript{}, done: make(chan struct{})}
	cmd.Stdout = p.log
	cmd.Stderr = p.log
	cmd.WaitDelay = 5 * time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	started := make(chan error)
	go func() {
		// The kernel sends Pdeathsig when the thread that started the child ends,
		// so that thread has to live as long as the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	t.Cleanup(func() {
		p.stop(t, syscall.SIGTERM)
		if t.Failed() {
			t.Logf("%s said:\n%s", name, p.log.tail())
		}
	})
	return p
}

func (p *process) pid() int { return p.cmd.Process.Pid }

func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// stop ends the process by its pid and waits until it is gone. A process that
// does not listen to sig within 30 seconds is killed, which fails the test.
func (p *process) stop(t *testing.T, sig syscall.Signal) {
	t.Helper()
	if !p.running() {
		return
	}
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("%s: %v", p.name, err)
	}
	timer := time.NewTimer(30 * time.Second)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
		t.Errorf("%s (pid %d) did not end on %v within 30 s; killed", p.name, p.pid(), sig)
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// exitCode waits for the end and returns the exit code, -1 after a signal.
func (p *process) exitCode(t *testing.T) int {
	t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
		t.Fatalf("%s (pid %d) goes on running:\n%s", p.name, p.pid(), p.log.tail())
	}
	return p.cmd.ProcessState.ExitCode()
}

// result is what a program that ran to its end left.
type result struct {
	code   int
	stdout string
	stderr string
}

func (r result) String() string {
	return fmt.Sprintf("exit %d\nstdout: %s\nstderr: %s", r.code, strings.TrimSpace(r.stdout), strings.TrimSpace(r.stderr))
}

// run runs a program to its end, without standard input.
func run(t *testing.T, cmd *exec.Cmd) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatalf("%s: %v", filepath.Base(cmd.Path), err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	defer stop()
	err := cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s: %v", filepath.Base(cmd.Path), err)
	}
	if ctx.Err() != nil {
		t.Fatalf("%s did not end within %v\n%s%s", filepath.Base(cmd.Path), patience, &stdout, &stderr)
	}
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// mustRun runs a program that has to succeed.
func mustRun(t *testing.T, cmd *exec.Cmd) result {
	t.Helper()
	res := run(t, cmd)
	if res.code != 0 {
		t.Fatalf("%s: %v", strings.Join(cmd.Args, " "), res)
	}
	return res
}

// alive reports whether pid is a running process (and no zombie).
func alive(pid int) bool {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, ok := strings.Cut(string(data), ") ")
	return ok && !strings.HasPrefix(rest, "Z")
}
