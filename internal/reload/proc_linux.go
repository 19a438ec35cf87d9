package reload

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is a process held by a descriptor, so that its number cannot pass to
// another one unnoticed.
type process struct{ pid, fd int }

func openProcess(pid int) (*process, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	switch err {
	case nil:
		return &process{pid, fd}, nil
	case unix.ENOSYS, unix.EPERM: // kernels before 5.3, and sandboxes that do not know the call
		if err := unix.Kill(pid, 0); err != nil && err != unix.EPERM {
			return nil, err
		}
		return &process{pid, -1}, nil
	case unix.EINVAL: // the number is that of a thread
		return nil, unix.ESRCH
	}
	return nil, err
}

func (p *process) send(sig syscall.Signal) error {
	if p.fd >= 0 {
		err := unix.PidfdSendSignal(p.fd, sig, nil, 0)
		if err != unix.ENOSYS {
			return err
		}
	}
	return unix.Kill(p.pid, sig)
}

func (p *process) close() {
	if p.fd >= 0 {
		unix.Close(p.fd)
	}
}

// inspect reads /proc. It reports false when /proc is not there or hides the
// process (hidepid, ProtectProc=invisible).
func (p *process) inspect() (facts, bool) {
	dir := "/proc/" + strconv.Itoa(p.pid)
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return facts{}, false
	}
	status, err := os.ReadFile(dir + "/status")
	if err != nil {
		return facts{}, false
	}
	state, ticks, ok := parseStat(stat)
	if !ok {
		return facts{}, false
	}
	uid, ok := parseUID(string(status))
	if !ok {
		return facts{}, false
	}
	boot, ok := bootTime()
	if !ok {
		return facts{}, false
	}
	// Ticks in /proc are 1/100 s on every architecture.
	return facts{started: boot.Add(time.Duration(ticks) * 10 * time.Millisecond), state: state, uid: uid}, true
}

// parseStat finds the state and the start (ticks since boot) in /proc/PID/stat.
// The command in parentheses may hold blanks and parentheses itself.
func parseStat(stat []byte) (state byte, ticks int64, ok bool) {
	i := bytes.LastIndexByte(stat, ')')
	if i < 0 {
		return 0, 0, false
	}
	fields := strings.Fields(string(stat[i+1:]))
	if len(fields) < 20 || len(fields[0]) != 1 {
		return 0, 0, false
	}
	ticks, err := strconv.ParseInt(fields[19], 10, 64)
	if err != nil || ticks < 0 || ticks > 1<<40 {
		return 0, 0, false
	}
	return fields[0][0], ticks, true
}

func parseUID(status string) (int, bool) {
	for line := range strings.Lines(status) {
		if rest, ok := strings.CutPrefix(line, "Uid:"); ok {
			fields := strings.Fields(rest)
			if len(fields) < 2 {
				return 0, false
			}
			uid, err := strconv.Atoi(fields[1])
			return uid, err == nil
		}
	}
	return 0, false
}

// bootTime is the wall clock's present idea of when the machine was started.
func bootTime() (time.Time, bool) {
	var up unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &up); err != nil {
		return time.Time{}, false
	}
	return time.Now().Add(-time.Duration(up.Nano())), true
}

// predatesBoot reports whether the file at path is older than the boot, and
// whether it lies in memory nevertheless: then the clock was set since it was
// written (machines without a clock of their own start in the past), and its
// time can be compared with nothing.
func predatesBoot(path string, written time.Time) (old, inMemory bool) {
	boot, ok := bootTime()
	if !ok || !written.Before(boot.Add(-pidSlack)) {
		return false, false
	}
	var fs unix.Statfs_t
	if unix.Statfs(path, &fs) != nil {
		return true, false
	}
	return true, fs.Type == unix.TMPFS_MAGIC || fs.Type == unix.RAMFS_MAGIC
}
