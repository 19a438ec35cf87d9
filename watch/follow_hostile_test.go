package watch

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestFollowNoFile: what is no file is never opened, which is said, and read
// once it is one.
func TestFollowNoFile(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		make func(path string) error
		code FaultCode
	}{
		{"a FIFO", func(p string) error { return unix.Mkfifo(p, 0o644) }, NotRegular},
		{"a directory", func(p string) error { return os.Mkdir(p, 0o755) }, IsDirectory},
		{"a socket", func(p string) error {
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			return unix.Bind(fd, &unix.SockaddrUnix{Name: p})
		}, NotRegular},
		{"a link to a device", func(p string) error { return os.Symlink("/dev/zero", p) }, NotRegular},
		{"links in a circle", func(p string) error { return os.Symlink(p, p) }, LinkLoop},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir, err := os.MkdirTemp("", "log") // a socket's path must be short
			check(t, err)
			t.Cleanup(func() { os.RemoveAll(dir) })
			path := filepath.Join(dir, "log")
			check(t, c.make(path))
			f := follow(t, LogOptions{}, lines, lineLog(path))
			h := f.faults(Blind, c.code)
			if h.Log.File != path || h.Fault.Path != path {
				t.Errorf("heard %+v of %s", h.Log, h.Fault.Path)
			}
			check(t, os.Remove(path))
			appendTo(t, path, "1\n")
			f.faults(Sighted, c.code)
			f.says("1")
			check(t, os.Rename(path, path+".1"))
			check(t, c.make(path))
			f.faults(Blind, c.code)
			appendTo(t, path+".1", "2\n")
			f.says("2")
		})
	}
}

// TestFollowDangling: a link to what is not there is an absent log.
func TestFollowDangling(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "containers", "x.log")
	real := filepath.Join(dir, "pods", "a", "0.log")
	check(t, os.MkdirAll(filepath.Dir(path), 0o755))
	check(t, os.Symlink(real, path))
	f := follow(t, LogOptions{}, lines, lineLog(path))
	f.looked()
	check(t, os.MkdirAll(filepath.Dir(real), 0o755))
	appendTo(t, real, "1\n")
	f.says("1")
	check(t, os.Rename(real, real+".20261122-070000"))
	appendTo(t, real, "2\n")
	f.says("2")
}

// againAsNobody runs the calling test again in a process that may not read
// everything. It reports whether this is such a process.
func againAsNobody(t *testing.T) bool {
	t.Helper()
	if os.Geteuid() != 0 {
		return true
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=60s")
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if len(out) == 0 && err != nil {
		t.Skipf("this system runs no test as nobody: %v", err)
	}
	if err != nil {
		t.Errorf("as nobody: %v\n%s", err, out)
	}
	return false
}

// TestFollowPermission: what may not be read is Blind, with a hint.
func TestFollowPermission(t *testing.T) {
	t.Parallel()
	if !againAsNobody(t) {
		return
	}
	path := filepath.Join(t.TempDir(), "log")
	appendTo(t, path, "1\n")
	check(t, os.Chmod(path, 0))
	f := follow(t, LogOptions{}, lines, lineLog(path))
	f.faults(Blind, NoPermission)
	check(t, os.Chmod(path, 0o644))
	f.faults(Sighted, NoPermission)
	f.said("1")
}

// TestFollowLongLines: a line without an end is bounded in memory, and what comes
// after it is read; also when the follower is restarted in the middle of it.
func TestFollowLongLines(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(t.TempDir(), "log")
	f := follow(t, LogOptions{Dir: dir}, lines, lineLog(path))
	f.looked()
	long := strings.Repeat("x", 3<<20)
	appendTo(t, path, "1\n"+long)
	f.says("1")
	if h := f.next(); len(h.Attempt.Names[0]) != maxTail {
		t.Errorf("a line of %d bytes", len(h.Attempt.Names[0]))
	}
	f.looked()
	f.stop()
	f = follow(t, LogOptions{Dir: dir}, lines, lineLog(path))
	appendTo(t, path, "2\n3\n")
	f.says("3")
	appendTo(t, path, "4\n")
	f.says("4")
}

// TestFollowSparse: a hole of a terabyte is not read.
func TestFollowSparse(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log")
	appendTo(t, path, "1\n")
	f := follow(t, LogOptions{}, lines, lineLog(path))
	f.said("1")
	check(t, os.Truncate(path, 0))
	w, err := os.OpenFile(path, os.O_WRONLY, 0)
	check(t, err)
	defer w.Close()
	_, err = w.WriteAt([]byte("2\n"), 1<<40)
	check(t, err)
	f.faults(Lost, LogTruncated)
	f.says("2")
}

// TestFollowFirstEnd: of a large log the end is read, from a whole line on.
func TestFollowFirstEnd(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log")
	check(t, os.WriteFile(path, bytes.Repeat([]byte("0123456789abcde\n"), firstBytes/16+100), 0o644))
	check(t, os.Truncate(path, firstBytes*3))
	appendTo(t, path, "\n7\n")
	f := follow(t, LogOptions{}, lines, lineLog(path))
	f.said("7")
	appendTo(t, path, "8\n")
	f.says("8")
}

// TestFollowReplaced: a file that takes the log's place by itself is read from
// its beginning.
func TestFollowReplaced(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log")
	appendTo(t, path, "1\n")
	f := follow(t, LogOptions{}, lines, lineLog(path))
	f.said("1")
	appendTo(t, path+".new", "2\n3\n")
	check(t, os.Rename(path+".new", path))
	f.says("2")
	f.says("3")
	check(t, os.Remove(path))
	appendTo(t, path, "4\n")
	f.says("4")
}

// TestFollowGone: where the follower was away, and the log was rotated to where it
// is not found, that is told.
func TestFollowGone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(t.TempDir(), "log")
	appendTo(t, path, "1\n")
	f := follow(t, LogOptions{Dir: dir}, lines, lineLog(path))
	f.said("1")
	f.looked()
	f.stop()
	appendTo(t, path, "2\n")
	check(t, os.Rename(path, filepath.Join(t.TempDir(), "elsewhere")))
	appendTo(t, path, "3\n")
	f = follow(t, LogOptions{Dir: dir}, lines, lineLog(path))
	f.faults(Lost, LogGone)
	f.says("3")
}

// TestFollowTruncatedAway: where the log was truncated while the follower was away,
// what was copied before is read on, and that something may be lost is told.
func TestFollowTruncatedAway(t *testing.T) {
	t.Parallel()
	for _, zipped := range []bool{false, true} {
		dir := t.TempDir()
		path := filepath.Join(t.TempDir(), "log")
		appendTo(t, path, "1\n")
		f := follow(t, LogOptions{Dir: dir}, lines, lineLog(path))
		f.said("1")
		f.looked()
		f.stop()
		appendTo(t, path, "2\n")
		w := &writer{t: t, path: path}
		w.copyTo(path + ".1")
		check(t, os.Truncate(path, 0))
		if zipped {
			w.zip(path + ".1")
		}
		appendTo(t, path, "3\n")
		f = follow(t, LogOptions{Dir: dir}, lines, lineLog(path))
		f.faults(Lost, LogTruncated)
		f.says("2")
		f.says("3")
		f.stop()
		if h := f.h.snapshot(); len(h) != 3 {
			t.Errorf("heard %d things", len(h))
		}
	}
}

// TestFollowQuietTruncation: a log that is cut off at the start of each run, long
// after the last one, has lost nothing.
func TestFollowQuietTruncation(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log")
	appendTo(t, path, "1\n")
	past := time.Now().Add(-time.Hour)
	check(t, os.Chtimes(path, past, past))
	f := follow(t, LogOptions{}, lines, lineLog(path))
	f.said("1")
	f.looked()
	check(t, os.Truncate(path, 0))
	appendTo(t, path, "2\n")
	f.says("2")
}

// TestFollowRefused: what cannot be followed is said.
func TestFollowRefused(t *testing.T) {
	t.Parallel()
	for _, l := range []Log{
		{Client: "nobody", File: "/var/log/x"},
		{Client: "acme-tiny", File: "relative"},
		{Client: "acme-tiny"},
		{Client: "acme-tiny", File: "/a", Unit: "b"},
		{Client: "acme-tiny", Unit: "-x"},
		{Client: "acme-tiny", Unit: "cert*"},
		{Client: "acme-tiny", Unit: "a b"},
	} {
		f := follow(t, LogOptions{}, nil, l)
		f.faults(Blind, NoDialect)
		f.Set(nil)
		f.faults(Sighted, NoDialect)
	}
}

// TestFollowNotKept: a position that cannot be written down is told.
func TestFollowNotKept(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "positions")
	path := filepath.Join(t.TempDir(), "log")
	appendTo(t, path, "1\n")
	f := follow(t, LogOptions{Dir: dir, Poll: 5 * time.Millisecond}, lines, lineLog(path))
	f.faults(Blind, NotKept)
	f.said("1")
	check(t, os.Mkdir(dir, 0o700))
	appendTo(t, path, "2\n")
	heard := map[Kind]int{}
	for heard[Sighted] == 0 || heard[Attempted] == 0 {
		heard[f.next().Kind]++
	}
}

// TestFollowPositionGarbage: a position that is not to be made out counts as none.
func TestFollowPositionGarbage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(t.TempDir(), "log")
	appendTo(t, path, "1\n")
	check(t, os.WriteFile(positionPath(dir, lineLog(path)), []byte(`{"offset":-7,"salt":"x"`), 0o600))
	f := follow(t, LogOptions{Dir: dir}, lines, lineLog(path))
	f.said("1")
}

// TestFollowPolls: without events the poll does the work, as on a network file
// system.
func TestFollowPolls(t *testing.T) {
	t.Parallel()
	if !inNamespace(t) {
		return
	}
	limit(t, "max_inotify_instances", 0)
	path := filepath.Join(t.TempDir(), "log")
	appendTo(t, path, "1\n")
	f := follow(t, LogOptions{Poll: 5 * time.Millisecond}, lines, lineLog(path))
	heard := map[Kind]int{}
	for heard[Blind] == 0 || heard[Attempted] == 0 {
		heard[f.next().Kind]++
	}
	appendTo(t, path, "2\n")
	f.says("2")
	check(t, os.Rename(path, path+".1"))
	appendTo(t, path, "3\n")
	f.says("3")
	limit(t, "max_inotify_instances", 100)
	f.faults(Sighted, NoInotify)
}

// TestFollowDescriptors: when this process can open no more files, nothing is
// taken for lost.
func TestFollowDescriptors(t *testing.T) {
	t.Parallel()
	if !inNamespace(t) {
		return
	}
	path := filepath.Join(t.TempDir(), "log")
	appendTo(t, path, "1\n")
	f := follow(t, LogOptions{Poll: 5 * time.Millisecond}, lines, lineLog(path))
	f.said("1")
	f.looked()
	appendTo(t, path+".1", "")
	appendTo(t, path+".2", "")
	var was syscall.Rlimit
	check(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &was))
	line := 2
	heard := func(want string) {
		t.Helper()
		for {
			switch h := f.next(); {
			case h.Kind == Lost:
				t.Fatalf("heard %s", tellHeard(h))
			case h.Kind == Attempted && h.Attempt.Names[0] == want:
				return
			}
		}
	}
	told := false
	for more := range 8 {
		for i := range 3 { // three rotations at once
			check(t, os.WriteFile(fmt.Sprintf("%s.next%d", path, i), numbered(line, line+1), 0o644))
			line++
		}
		fd, err := unix.Dup(1) // the lowest that is free
		check(t, err)
		check(t, unix.Close(fd))
		check(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: uint64(fd + more), Max: was.Max}))
		for i := range 3 {
			check(t, os.Rename(path+".2", path+".3"))
			check(t, os.Rename(path+".1", path+".2"))
			check(t, os.Rename(path, path+".1"))
			check(t, os.Rename(fmt.Sprintf("%s.next%d", path, i), path))
		}
		for more == 0 && !told {
			h := f.next()
			told = h.Kind == Blind && h.Fault.Code == OutOfDescriptors
		}
		f.looked()
		check(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &was))
		heard(strconv.Itoa(line - 1))
	}
	seen := make(map[string]int)
	for _, h := range f.h.snapshot() {
		if h.Kind == Attempted {
			seen[h.Attempt.Names[0]]++
		}
	}
	for n := 1; n < line; n++ {
		if seen[strconv.Itoa(n)] != 1 {
			t.Errorf("line %d was heard %d times", n, seen[strconv.Itoa(n)])
		}
	}
}
