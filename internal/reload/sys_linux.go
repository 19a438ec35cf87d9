package reload

import (
	"os"
	"os/exec"
	"strconv"

	"golang.org/x/sys/unix"
)

// reaper returns a channel that closes when cmd has exited and a function that
// collects it. In between it stays a zombie, so its process group id cannot
// belong to anybody else and may be signalled.
func reaper(cmd *exec.Cmd) (exited <-chan struct{}, wait func() error) {
	ch := make(chan struct{})
	go func() {
		defer close(ch)
		for {
			err := unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
			if err != unix.EINTR {
				return
			}
		}
	}()
	return ch, cmd.Wait
}

// closeOnExec keeps descriptors this process inherited itself (listeners, a
// shell's) from its children; Go's own are closed anyway.
func closeOnExec() {
	if unix.CloseRange(3, ^uint(0)>>1&0x7fffffff, unix.CLOSE_RANGE_CLOEXEC) == nil {
		return
	}
	// Kernels before 5.11, and sandboxes that do not know the call.
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return
	}
	for _, e := range entries {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd > 2 {
			unix.CloseOnExec(fd)
		}
	}
}

// touchNow sets the present time on file, not following a link.
func touchNow(dirfd int, file string) error {
	now := unix.Timespec{Nsec: unix.UTIME_NOW}
	return unix.UtimesNanoAt(dirfd, file, []unix.Timespec{now, now}, unix.AT_SYMLINK_NOFOLLOW)
}
