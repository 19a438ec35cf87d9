package reload

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxPIDFile bounds a pidfile; postmaster.pid has eight lines.
	maxPIDFile = 4096
	// pidSlack is how much later than its pidfile a process may seem to have
	// started: the clock may have been corrected in between.
	pidSlack = 10 * time.Second
)

// facts is what /proc says of a process.
type facts struct {
	started time.Time
	state   byte // R, S, D, T, Z ...
	uid     int  // effective
}

// signal sends way.Signal to the process that way.PIDFile names.
func (r Runner) signal(ctx context.Context, way Way) Result {
	const how = "signal"
	if ctx.Err() != nil {
		return failed(how, r.ended(ctx, "the signal"))
	}
	sig, f := signalNumber(way.Signal)
	if f != nil {
		return failed(how, f)
	}
	pf, f := readPIDFile(way.PIDFile)
	if f != nil {
		return failed(how, f)
	}
	if f := pf.signal(sig); f != nil {
		return failed(how, f)
	}
	return Result{OK: true, How: how}
}

// signalNumber understands HUP and SIGHUP. Signals that can only end or freeze a
// server are refused.
func signalNumber(name string) (syscall.Signal, *fault) {
	short := strings.TrimPrefix(name, "SIG")
	sig := unix.SignalNum("SIG" + short)
	switch sig {
	case 0:
		return 0, &fault{detail: "unknown signal " + printable(name), hint: "HUP, USR1 or USR2, for example"}
	case syscall.SIGKILL, syscall.SIGSTOP, syscall.SIGABRT, syscall.SIGSEGV:
		return 0, &fault{detail: "signal " + short + " reloads nothing", hint: "HUP, USR1 or USR2, for example"}
	}
	return sig, nil
}

// pidFile is the content of a pidfile and what is known of the file.
type pidFile struct {
	path    string // printable
	pid     int
	written time.Time
	owner   int
	old     bool // written before the boot
	clock   bool // and on a file system that lies in memory: the clock was set since
}

func readPIDFile(path string) (pidFile, *fault) {
	shown := printable(path)
	notRunning := "is the server running, and is this the pidfile it writes?"
	if path == "" {
		return pidFile{}, &fault{detail: "a signal needs a pidfile", hint: "set pidfile"}
	}
	// O_NONBLOCK: a FIFO must not hang the open.
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return pidFile{}, &fault{detail: fmt.Sprintf("cannot read pidfile %s: %v", shown, reason(err)), hint: notRunning}
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return pidFile{}, &fault{detail: fmt.Sprintf("cannot read pidfile %s: %v", shown, reason(err))}
	}
	if !info.Mode().IsRegular() {
		return pidFile{}, &fault{detail: "pidfile " + shown + " is not a regular file", hint: notRunning}
	}
	if info.Mode().Perm()&0o002 != 0 {
		return pidFile{}, &fault{detail: "pidfile " + shown + " can be written by everyone, so it is not believed",
			hint: "chmod o-w " + shown}
	}
	data, err := io.ReadAll(io.LimitReader(file, maxPIDFile+1))
	if err != nil {
		return pidFile{}, &fault{detail: fmt.Sprintf("cannot read pidfile %s: %v", shown, reason(err))}
	}
	pid, err := parsePID(data)
	if err != nil {
		return pidFile{}, &fault{detail: fmt.Sprintf("pidfile %s %v", shown, err), hint: notRunning}
	}
	pf := pidFile{path: shown, pid: pid, written: info.ModTime(), owner: -1}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		pf.owner = int(st.Uid)
	}
	pf.old, pf.clock = predatesBoot(path, pf.written)
	return pf, nil
}

// parsePID reads the process id in the first line of a pidfile: digits alone,
// blanks around them allowed. Some servers write more lines after it.
func parsePID(data []byte) (int, error) {
	if len(data) > maxPIDFile {
		return 0, errors.New("is too large to be one")
	}
	line, _, _ := strings.Cut(string(data), "\n")
	line = strings.Trim(line, " \t\r")
	if line == "" {
		return 0, errors.New("is empty")
	}
	for _, c := range []byte(line) {
		if c < '0' || c > '9' {
			return 0, errors.New("does not begin with a process id")
		}
	}
	pid, err := strconv.ParseInt(line, 10, 32)
	if err != nil || pid > 1<<22 { // the kernel's PID_MAX_LIMIT
		return 0, errors.New("holds a number that is no process id")
	}
	if pid <= 1 {
		return 0, fmt.Errorf("names process %d, which is never signalled", pid)
	}
	return int(pid), nil
}

// signal sends sig to the process, once it is certain enough that it is the one
// that wrote the pidfile.
func (pf pidFile) signal(sig syscall.Signal) *fault {
	stale := "the pidfile is a leftover; restart the server so that it writes a new one"
	if pf.pid == os.Getpid() || pf.pid == os.Getppid() {
		return &fault{detail: fmt.Sprintf("pidfile %s names process %d, which is renewatch or its parent", pf.path, pf.pid), hint: stale}
	}
	proc, err := openProcess(pf.pid)
	switch {
	case errors.Is(err, syscall.ESRCH):
		return &fault{detail: fmt.Sprintf("process %d of pidfile %s does not exist", pf.pid, pf.path),
			hint: "the server is not running, or the pidfile is a leftover; in a container it must share the server's pid namespace"}
	case err != nil:
		return &fault{detail: fmt.Sprintf("process %d of pidfile %s cannot be opened: %v", pf.pid, pf.path, err), hint: stale}
	}
	defer proc.close()
	// proc stays bound to the process that was there when it was opened: if
	// another one has taken the number since, the signal reaches nobody.
	if f := pf.doubt(proc); f != nil {
		return f
	}
	switch err := proc.send(sig); {
	case errors.Is(err, syscall.ESRCH):
		return &fault{detail: fmt.Sprintf("process %d of pidfile %s has just ended", pf.pid, pf.path)}
	case errors.Is(err, syscall.EPERM):
		return &fault{detail: fmt.Sprintf("not allowed to signal process %d of pidfile %s", pf.pid, pf.path),
			hint: "renewatch must run as the same user or as root, or have CAP_KILL; a unit reload needs neither"}
	case err != nil:
		return &fault{detail: fmt.Sprintf("cannot signal process %d of pidfile %s: %v", pf.pid, pf.path, err)}
	}
	return nil
}

// doubt compares the process with the pidfile as far as /proc is visible.
func (pf pidFile) doubt(proc *process) *fault {
	is, ok := proc.inspect()
	if !ok {
		if pf.old && !pf.clock {
			return &fault{detail: fmt.Sprintf("pidfile %s is stale: it was written before the machine was started", pf.path),
				hint: "restart the server so that it writes a new one (or touch it, if only the clock was set)"}
		}
		return nil
	}
	if is.state == 'Z' || is.state == 'X' {
		return &fault{detail: fmt.Sprintf("process %d of pidfile %s has ended and was not collected by its parent", pf.pid, pf.path),
			hint: "the server is not running"}
	}
	// Whoever may write the file could otherwise have any process signalled.
	if pf.owner > 0 && pf.owner != os.Geteuid() && is.uid != pf.owner {
		return &fault{detail: fmt.Sprintf("pidfile %s belongs to user %d, but process %d runs as user %d", pf.path, pf.owner, pf.pid, is.uid),
			hint: "it must belong to root, or to the user of the server"}
	}
	if late := is.started.Sub(pf.written); late > pidSlack && !pf.clock {
		return &fault{detail: fmt.Sprintf("pidfile %s is stale: process %d started %s after it was written",
			pf.path, pf.pid, late.Round(time.Second)),
			hint: "restart the server so that it writes a new one (or touch it, if only the clock was set)"}
	}
	return nil
}
