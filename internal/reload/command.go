package reload

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// defaultPath is searched when the daemon itself has no PATH.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// killWait is how long a process may take to vanish after SIGKILL: one that
// sleeps in the kernel (a dead NFS server, say) never does.
const killWait = 5 * time.Second

// inherited are the variables a child gets. Everything else stays here: NATS and
// DNS credentials, the notify socket, inherited listeners. A command that needs
// more is written as [env, NAME=value, ...].
var inherited = [...]string{
	"HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR",
	"XDG_RUNTIME_DIR", "DBUS_SYSTEM_BUS_ADDRESS", "DBUS_SESSION_BUS_ADDRESS",
	"DOCKER_HOST", "CONTAINER_HOST",
}

// environment builds the variables for a child out of those of the daemon.
func environment(all []string) []string {
	path := defaultPath
	var env []string
	for _, kv := range all {
		name, value, _ := strings.Cut(kv, "=")
		switch {
		case name == "PATH" && value != "":
			path = value
		case slices.Contains(inherited[:], name), strings.HasPrefix(name, "LC_"):
			env = append(env, kv)
		}
	}
	return append(env, "PATH="+path)
}

// command runs argv without a shell, in a session of its own, and ends it with
// all its descendants of that session when ctx is over.
func (r Runner) command(ctx context.Context, argv []string) Result {
	const how = "command"
	name := printable(argv[0])
	if ctx.Err() != nil {
		return failed(how, r.ended(ctx, name))
	}
	env := environment(os.Environ())
	file, f := find(argv[0], strings.TrimPrefix(env[len(env)-1], "PATH="))
	if f != nil {
		return failed(how, f)
	}
	var out output
	cmd := &exec.Cmd{
		Path: file, Args: argv, Env: env, Dir: "/",
		Stdout: &out, Stderr: &out,
		// A session, not only a group: a program that asks for a password must
		// fail at once, not wait at the terminal the daemon was started from.
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
		WaitDelay:   r.Linger,
	}
	closeOnExec()
	if err := cmd.Start(); err != nil {
		return failed(how, startFault(name, file, err))
	}
	exited, wait := reaper(cmd)
	over := false
	select {
	case <-exited:
	case <-ctx.Done():
		select {
		case <-exited: // it made it: both came at once
		default:
			over = true
		}
		if over && !end(cmd.Process.Pid, exited, r.Linger) {
			go wait()
			f := r.ended(ctx, name)
			f.detail += " and cannot be killed"
			f.hint = "it hangs inside the kernel, on a file system that does not answer for example"
			return failed(how, f)
		}
	}
	err := wait()
	res := Result{How: how, Output: out.String()}
	if over {
		f := r.ended(ctx, name)
		if !f.interrupted {
			f.detail += " and was killed"
			f.hint = "run it by hand and see what it waits for; a server must not be started by it in the foreground"
		}
		res.Detail, res.Hint, res.Interrupted = f.detail, f.hint, f.interrupted
		return res
	}
	state := cmd.ProcessState
	if state == nil {
		res.Detail = fmt.Sprintf("the outcome of %s is not known: %s", name, printable(err.Error()))
		return res
	}
	ws, _ := state.Sys().(syscall.WaitStatus)
	if ws.Signaled() {
		res.Detail = fmt.Sprintf("%s was killed by signal %d (%s)", name, ws.Signal(), ws.Signal())
		if ws.Signal() == syscall.SIGKILL {
			res.Hint = "somebody killed it, or the kernel ran out of memory: see journalctl -k"
		}
		return res
	}
	code := state.ExitCode()
	res.ExitCode = &code
	// Output still held open by a process left behind is no failure.
	if code == 0 && (err == nil || errors.Is(err, exec.ErrWaitDelay)) {
		res.OK = true
		return res
	}
	if code == 0 {
		res.Detail = fmt.Sprintf("the output of %s could not be read: %s", name, printable(err.Error()))
		return res
	}
	res.Detail = fmt.Sprintf("%s ended with exit code %d", name, code)
	switch {
	case code == 127:
		res.Hint = "127 usually means that a program it calls was not found"
	case res.Output == "":
		res.Hint = "it printed nothing; run it by hand as the user renewatch runs as"
	}
	return res
}

// end stops the session of pid: SIGTERM, and SIGKILL for whoever is left after
// linger. It reports whether the leader is gone.
func end(pid int, exited <-chan struct{}, linger time.Duration) bool {
	_ = syscall.Kill(-pid, syscall.SIGTERM)
	timer := time.NewTimer(linger)
	defer timer.Stop()
	select {
	case <-exited:
	case <-timer.C:
	}
	_ = syscall.Kill(-pid, syscall.SIGKILL)
	timer.Reset(killWait)
	select {
	case <-exited:
		return true
	case <-timer.C:
		return false
	}
}

// find returns the file to execute. Relative directories in path are skipped:
// the child starts in /.
func find(name, path string) (string, *fault) {
	shown := printable(name)
	if name == "" {
		return "", &fault{detail: "the command is empty", hint: "name a program"}
	}
	if strings.ContainsRune(name, '/') {
		if !filepath.IsAbs(name) {
			return "", &fault{detail: shown + " is a relative path", hint: "give the full path, or a name that is found in PATH"}
		}
		if err := executable(name); err != nil {
			return "", fileFault(shown, err)
		}
		return name, nil
	}
	var denied error
	for dir := range strings.SplitSeq(path, ":") {
		if !filepath.IsAbs(dir) {
			continue
		}
		file := filepath.Join(dir, name)
		err := executable(file)
		if err == nil {
			return file, nil
		}
		if !errors.Is(err, fs.ErrNotExist) && denied == nil {
			denied, shown = err, printable(file)
		}
	}
	if denied != nil {
		return "", fileFault(shown, denied)
	}
	return "", &fault{detail: shown + " was not found",
		hint: "install it or give its full path; searched in " + printable(path)}
}

var errNoProgram = errors.New("not a program")

func executable(file string) error {
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return errNoProgram
	}
	if info.Mode().Perm()&0o111 == 0 {
		return fs.ErrPermission
	}
	return nil
}

func fileFault(shown string, err error) *fault {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &fault{detail: shown + " was not found", hint: "install it or correct the path"}
	case errors.Is(err, fs.ErrPermission):
		return &fault{detail: shown + " may not be executed", hint: "chmod +x, and check who may enter its directories"}
	case errors.Is(err, errNoProgram):
		return &fault{detail: shown + " is not a program", hint: "name an executable file"}
	}
	return &fault{detail: fmt.Sprintf("%s cannot be executed: %v", shown, reason(err))}
}

// startFault explains why a file that is there and executable did not start.
func startFault(name, file string, err error) *fault {
	shown := printable(file)
	switch {
	case errors.Is(err, syscall.ENOEXEC):
		return &fault{detail: shown + " is not in a format that can be executed",
			hint: "a script needs #!/bin/sh as its first line; a program must be built for this machine"}
	case errors.Is(err, syscall.ENOENT):
		return &fault{detail: shown + " cannot start: its interpreter or loader is missing",
			hint: "check the #! line of the script; in a container without a shell, only static programs run"}
	case errors.Is(err, syscall.EACCES):
		return &fault{detail: shown + " may not be executed",
			hint: "check its mode and its interpreter's, and that the file system is not mounted noexec"}
	case errors.Is(err, syscall.E2BIG):
		return &fault{detail: name + " has arguments that are too long", hint: "put them into a script"}
	}
	return &fault{detail: fmt.Sprintf("%s cannot start: %s", name, printable(err.Error()))}
}
