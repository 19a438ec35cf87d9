package lineage

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// certbotLockName is the file that certbot creates, locks with fcntl(2) for its
// whole run, removes and closes. It lies in each of its directories; the one in
// the configuration directory is of interest: whoever writes lineages holds it.
const certbotLockName = ".certbot.lock"

// sight is what one source says of a run.
type sight struct {
	known, running bool
	what           string
}

// certbotLock asks whether somebody holds the lock of a configuration directory.
// It neither takes the lock nor creates the file, so certbot never notices.
func certbotLock(dir string) sight {
	path := filepath.Join(dir, certbotLockName)
	for range 3 {
		before, err := os.Lstat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return absentLock(dir, path)
		case err != nil:
			return unknown("%s cannot be seen: %s", show(path), reason(err))
		case !before.Mode().IsRegular():
			return unknown("%s is no regular file", show(path))
		}
		held, err := lockHeld(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case errors.Is(err, fs.ErrPermission):
			held, err = listedLock(path, before)
		}
		if err != nil {
			return unknown("whether %s is held is not known: %s", show(path), reason(err))
		}
		// certbot removes the file before it lets go of the lock, and the next run
		// makes a new one: an answer counts for the file that lies there now.
		if after, err := os.Lstat(path); err != nil || !os.SameFile(before, after) {
			continue
		}
		if held {
			return sight{true, true, "certbot holds " + show(path)}
		}
		if kind := foreign(path); kind != "" {
			return unknown("%s lies on %s, where locks of others may not show", show(path), kind)
		}
		return sight{true, false, "nobody holds " + show(path)}
	}
	return unknown("%s comes and goes", show(path))
}

// absentLock judges a directory without a lock file. That proves something only
// where certbot would put it: mounted piece by piece into a container, live/ and
// archive/ come without it.
func absentLock(dir, path string) sight {
	if !sameMount(dir, filepath.Join(dir, "renewal")) {
		return unknown("there is no %s, but only a part of certbot's directory can be seen", show(path))
	}
	return sight{true, false, "nobody holds " + show(path)}
}

// foreign names the file system when a lock taken elsewhere may not be seen there.
func foreign(path string) string {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return ""
	}
	m := mountAt(real, readMounts())
	switch {
	case m == nil:
		return ""
	case m.fstype == "overlay":
		return "an overlay"
	}
	return m.remote()
}

const maxLocks = 8 << 20 // bytes read of /proc/locks

// listedLock looks a lock up in /proc/locks, which everybody may read.
func listedLock(path string, info fs.FileInfo) (bool, error) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return false, fs.ErrPermission
	}
	f, err := os.Open("/proc/locks")
	if err != nil {
		return false, errors.New("no permission to open it, and /proc/locks is hidden")
	}
	defer f.Close()
	devs := []string{devOf(st)}
	if real, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
		// On btrfs, stat tells another device than the superblock's.
		if m := mountAt(real, readMounts()); m != nil {
			devs = append(devs, m.dev)
		}
	}
	if held, complete := parseLocks(f, devs, st.Ino); held || complete && seesAllLocks() {
		return held, nil
	}
	return false, errors.New("no permission to open it, and /proc/locks does not list it here")
}

// parseLocks looks for a lock of the fcntl kind on an inode; complete reports
// that all was read. devs are major:minor in decimal.
func parseLocks(r io.Reader, devs []string, ino uint64) (held, complete bool) {
	limited := &io.LimitedReader{R: r, N: maxLocks}
	lines := bufio.NewScanner(limited)
	for lines.Scan() {
		// 1: POSIX  ADVISORY  WRITE 1234 fe:00:787143 0 EOF
		f := strings.Fields(lines.Text())
		if len(f) < 6 || f[1] != "POSIX" && f[1] != "OFDLCK" { // "->" marks who waits for it
			continue
		}
		id := strings.Split(f[5], ":")
		if len(id) != 3 {
			continue
		}
		major, err1 := strconv.ParseUint(id[0], 16, 32)
		minor, err2 := strconv.ParseUint(id[1], 16, 32)
		inode, err3 := strconv.ParseUint(id[2], 10, 64)
		if errors.Join(err1, err2, err3) != nil || inode != ino {
			continue
		}
		for _, dev := range devs {
			if dev == fmt.Sprintf("%d:%d", major, minor) {
				return true, true
			}
		}
	}
	return false, lines.Err() == nil && limited.N > 0
}

// seesAllLocks reports whether /proc/locks lists the locks of all processes:
// those of other PID namespaces are left out.
func seesAllLocks() bool {
	ns, err := os.Readlink("/proc/self/ns/pid")
	return err == nil && ns == "pid:[4026531836]" // PROC_PID_INIT_INO
}

// staleLock is the age from which a lock file tells of a crash, not of a run.
const staleLock = time.Hour

// dehydratedLock asks for dehydrated's lock, a file that is there or not. It
// holds a date and no process id, and outlives a crash.
func dehydratedLock(dir string, now time.Time) sight {
	path := filepath.Join(dir, "lock")
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && isDir(filepath.Join(dir, "accounts")):
		return sight{true, false, "there is no " + show(path)}
	case errors.Is(err, fs.ErrNotExist):
		return unknown("%s does not look like dehydrated's base directory", show(dir))
	case err != nil:
		return unknown("%s cannot be seen: %s", show(path), reason(err))
	case !info.Mode().IsRegular():
		return unknown("%s is no regular file", show(path))
	}
	if age := now.Sub(info.ModTime()); age > staleLock || age < -staleLock {
		return unknown("%s is left over from %s", show(path), info.ModTime().UTC().Format(time.RFC3339))
	}
	return sight{true, true, "dehydrated holds " + show(path)}
}

func unknown(format string, args ...any) sight {
	return sight{what: fmt.Sprintf(format, args...)}
}

// reason is an error without the path, which the sentence has already.
func reason(err error) string {
	var path *fs.PathError
	if errors.As(err, &path) {
		err = path.Err
	}
	return show(err.Error())
}
