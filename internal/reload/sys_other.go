//go:build unix && !linux

package reload

import (
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// reaper returns a channel that closes when cmd has ended and a function that
// returns how.
func reaper(cmd *exec.Cmd) (exited <-chan struct{}, wait func() error) {
	ch := make(chan struct{})
	var err error
	go func() {
		defer close(ch)
		err = cmd.Wait()
	}()
	return ch, func() error { <-ch; return err }
}

func closeOnExec() {}

// touchNow sets the present time on file, not following a link.
func touchNow(dirfd int, file string) error {
	now := unix.NsecToTimespec(time.Now().UnixNano())
	return unix.UtimesNanoAt(dirfd, file, []unix.Timespec{now, now}, unix.AT_SYMLINK_NOFOLLOW)
}

// process is a process held by its id.
type process struct{ pid int }

func openProcess(pid int) (*process, error) {
	if err := syscall.Kill(pid, 0); err != nil && err != syscall.EPERM {
		return nil, err
	}
	return &process{pid}, nil
}

func (p *process) send(sig syscall.Signal) error { return syscall.Kill(p.pid, sig) }

func (p *process) close() {}

// inspect knows nothing here.
func (p *process) inspect() (facts, bool) { return facts{}, false }

// predatesBoot knows nothing here.
func predatesBoot(string, time.Time) (old, inMemory bool) { return false, false }
