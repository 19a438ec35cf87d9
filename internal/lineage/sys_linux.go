package lineage

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// lockHeld reports whether another open file holds a POSIX or OFD lock on path.
// It only asks: F_OFD_GETLK takes nothing, and closing drops no lock of ours.
func lockHeld(path string) (bool, error) {
	fd, err := open(path)
	if err != nil {
		return false, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return false, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return false, errors.New("it is no regular file")
	}
	for _, ask := range []int{unix.F_OFD_GETLK, unix.F_GETLK} { // the first since Linux 3.15
		lock := unix.Flock_t{Type: unix.F_WRLCK}
		if err = unix.FcntlFlock(uintptr(fd), ask, &lock); err == nil {
			return lock.Type != unix.F_UNLCK, nil
		}
		if err != unix.EINVAL {
			break
		}
	}
	return false, err
}

// open waits for nobody, whatever lies there.
func open(path string) (int, error) {
	for {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

func devOf(st *syscall.Stat_t) string {
	return fmt.Sprintf("%d:%d", unix.Major(uint64(st.Dev)), unix.Minor(uint64(st.Dev)))
}

// statx fails where a seccomp filter does not know it.
func statx(path string, mask int) (unix.Statx_t, bool) {
	var st unix.Statx_t
	for {
		err := unix.Statx(unix.AT_FDCWD, path, unix.AT_NO_AUTOMOUNT, mask, &st)
		if err != unix.EINTR {
			return st, err == nil
		}
	}
}

// mountID is the id that mountinfo gives to the mount in which path lies.
func mountID(path string) (uint64, bool) {
	st, ok := statx(path, unix.STATX_MNT_ID)
	return st.Mnt_id, ok && st.Mask&unix.STATX_MNT_ID != 0
}

// mountRoot reports whether path is the root of a mount; sure is false where the
// kernel (before 5.8) does not say.
func mountRoot(path string) (root, sure bool) {
	st, ok := statx(path, 0)
	return st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, ok && st.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT != 0
}

// sameMount reports whether two directories exist in one mount.
func sameMount(a, b string) bool {
	ia, oka := mountID(a)
	ib, okb := mountID(b)
	if oka && okb {
		return ia == ib
	}
	fa, erra := os.Stat(a)
	fb, errb := os.Stat(b)
	if erra != nil || errb != nil {
		return false
	}
	sa, oka := fa.Sys().(*syscall.Stat_t)
	sb, okb := fb.Sys().(*syscall.Stat_t)
	return oka && okb && sa.Dev == sb.Dev
}
