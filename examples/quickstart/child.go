package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// child is a process of the show, in a process group of its own, so that Ctrl-C
// reaches only the quickstart, which then stops its children in order.
type child struct {
	name string
	cmd  *exec.Cmd
	log  string // path of its output
	done chan struct{}
	err  error // of its end, once done is closed
}

// newChild prepares a process whose output goes to a log file in dir.
func newChild(dir, name, program string, args ...string) *child {
	c := &child{name: name, cmd: exec.Command(program, args...), log: filepath.Join(dir, name+".log"), done: make(chan struct{})}
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.cmd.Env = environment()
	return c
}

// start starts the process.
func (c *child) start() error {
	f, err := os.OpenFile(c.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	c.cmd.Stderr = f
	if c.cmd.Stdout == nil {
		c.cmd.Stdout = f
	}
	if err := c.cmd.Start(); err != nil {
		return err
	}
	go func() {
		c.err = c.cmd.Wait()
		close(c.done)
	}()
	return nil
}

func (c *child) pid() int { return c.cmd.Process.Pid }

// ended says that the process is gone when it should not be.
func (c *child) ended() error {
	how := "by itself"
	if c.err != nil {
		how = "with " + c.err.Error()
	}
	return fmt.Errorf("%s ended %s", c.name, how)
}

// wait waits for the end of the process; it kills the process and all it has
// started when ctx ends first.
func (c *child) wait(ctx context.Context) error {
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
		c.kill()
		return ctx.Err()
	}
}

// stop asks the process to end, and kills it when it does not within patience.
func (c *child) stop(patience time.Duration) error {
	if c.cmd.Process == nil {
		return nil
	}
	select {
	case <-c.done:
		return c.err
	default:
	}
	c.cmd.Process.Signal(syscall.SIGTERM)
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-c.done:
		return c.err
	case <-timer.C:
		c.kill()
		return fmt.Errorf("%s had to be killed after %s", c.name, patience)
	}
}

func (c *child) kill() {
	if err := syscall.Kill(-c.pid(), syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		c.cmd.Process.Kill()
	}
	<-c.done
}

// lastWords are the last lines of the log.
func (c *child) lastWords() string {
	const most, lines = 16 << 10, 25
	data, err := os.ReadFile(c.log)
	if err != nil {
		return ""
	}
	data = bytes.TrimSpace(data[max(0, len(data)-most):])
	all := strings.Split(string(data), "\n")
	all = all[max(0, len(all)-lines):]
	return strings.Join(all, "\n")
}

// environment is ours without what would change renewatch's behaviour: its own
// variables, those of a NATS command line and those of a service manager.
func environment() []string {
	out := []string{"NO_COLOR=1"}
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		switch {
		case strings.HasPrefix(name, "RENEWATCH_"), strings.HasPrefix(name, "NATS_"), strings.HasPrefix(name, "LISTEN_"),
			name == "STATE_DIRECTORY", name == "NOTIFY_SOCKET", name == "WATCHDOG_USEC", name == "WATCHDOG_PID",
			name == "JOURNAL_STREAM", name == "INVOCATION_ID", name == "NO_COLOR":
		default:
			out = append(out, v)
		}
	}
	return out
}
