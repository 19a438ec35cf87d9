package watch

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/renewatch/renewatch/internal/certtest"
	"golang.org/x/sys/unix"
)

// inNamespace runs the calling test again in a process with user and mount
// namespaces of its own, whose limits and mounts it may change. It reports
// whether this is that process.
func inNamespace(t *testing.T) bool {
	t.Helper()
	const env = "WATCH_TEST_IN_NAMESPACE"
	if os.Getenv(env) == t.Name() {
		return true
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=60s")
	cmd.Env = append(os.Environ(), env+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	if len(out) == 0 && err != nil {
		t.Skipf("this system gives no user namespaces: %v", err)
	}
	if err != nil {
		t.Errorf("in its namespace: %v\n%s", err, out)
	}
	return false
}

func limit(t *testing.T, name string, n int) {
	t.Helper()
	if err := os.WriteFile("/proc/sys/user/"+name, []byte(strconv.Itoa(n)), 0o644); err != nil {
		t.Skipf("this system has no limits for a user namespace: %v", err)
	}
}

// TestNoInotify: without events the scan does the work, and that is said.
func TestNoInotify(t *testing.T) {
	t.Parallel()
	if !inNamespace(t) {
		return
	}
	limit(t, "max_inotify_instances", 0)
	o := testOptions
	o.ScanEvery = testSettle / 4
	s := pairIn(t, t.TempDir(), "a.test", leafA())
	w := start(t, o, s)
	w.fails(Blind, "", NoInotify)
	w.has(Loaded, "a.test", leafA())
	check(t, certtest.WritePair(s.Cert, s.Key, leafB()))
	w.has(Changed, "a.test", leafB())
	limit(t, "max_inotify_instances", 100)
	w.fails(Sighted, "", NoInotify)
}

// TestWatchLimit: what cannot be watched is scanned, and that is said.
func TestWatchLimit(t *testing.T) {
	t.Parallel()
	if !inNamespace(t) {
		return
	}
	limit(t, "max_inotify_watches", 0)
	o := testOptions
	o.ScanEvery = testSettle / 4
	s := pairIn(t, t.TempDir(), "a.test", leafA())
	w := start(t, o, s)
	w.fails(Blind, "", WatchLimit)
	w.has(Loaded, "a.test", leafA())
	check(t, certtest.WritePair(s.Cert, s.Key, leafB()))
	w.has(Changed, "a.test", leafB())
	limit(t, "max_inotify_watches", 100)
	w.fails(Sighted, "", WatchLimit)
}

// TestUnmount: an unmounted directory takes its watch along without a word; the
// next scan sees that it is gone, and watches the one that comes in its place.
func TestUnmount(t *testing.T) {
	t.Parallel()
	if !inNamespace(t) {
		return
	}
	dir := t.TempDir()
	at := filepath.Join(dir, "certs")
	check(t, os.Mkdir(at, 0o755))
	mount := func() {
		if err := unix.Mount("tmpfs", at, "tmpfs", 0, ""); errors.Is(err, unix.EPERM) {
			t.Skip("this system lets a user namespace mount nothing")
		} else {
			check(t, err)
		}
	}
	mount()
	t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) })
	check(t, os.Mkdir(at+"/one", 0o755))
	s := pairIn(t, at+"/one", "a.test", leafA())
	w := start(t, testOptions, Source{Cert: at + "/*/a.test.crt"})
	w.has(Loaded, "a.test", leafA())
	check(t, unix.Unmount(at, 0))
	w.Scan()
	// The directory of the match is gone, but so is all that was mounted: this is
	// no removal.
	w.fails(Unreadable, "a.test", Missing)
	mount()
	check(t, os.Mkdir(at+"/one", 0o755))
	pairIn(t, at+"/one", "a.test", leafA())
	w.Scan()
	w.has(Changed, "a.test", leafA())
	// No scan now: the new directory is watched.
	check(t, certtest.WritePair(s.Cert, s.Key, leafB()))
	w.has(Changed, "a.test", leafB())
}

// TestOverflow: when the system's queue of events runs over, everything is
// looked at.
func TestOverflow(t *testing.T) {
	t.Parallel()
	queue, err := os.ReadFile("/proc/sys/fs/inotify/max_queued_events")
	if err != nil || string(queue) != "16384\n" {
		t.Skip("the queue of events has not the usual length here")
	}
	dir := t.TempDir()
	s := pairIn(t, dir, "a.test", leafA())
	pairIn(t, dir, "x", leafA())
	hold, held := make(chan struct{}), make(chan struct{})
	o := testOptions
	o.Beat = func() {
		select {
		case <-hold:
			// From here on the loop reads no events, until it is let go or the test
			// is over.
			select {
			case held <- struct{}{}:
			case <-t.Context().Done():
				return
			}
			select {
			case <-held:
			case <-t.Context().Done():
			}
		default:
		}
	}
	w := start(t, o, s)
	w.has(Loaded, "a.test", leafA())
	close(hold)
	check(t, os.Chmod(dir+"/x.crt", 0o600)) // wakes the loop, and is nothing to look at
	<-held
	for i := range 20000 {
		check(t, os.Chmod(dir+"/x"+[]string{".crt", ".key"}[i%2], os.FileMode(0o600|i%8)))
	}
	check(t, certtest.WritePair(s.Cert, s.Key, leafB()))
	go func() {
		for {
			select {
			case held <- struct{}{}: // lets the loop go on
			case <-held: // it asks again
			case <-t.Context().Done():
				return
			}
		}
	}()
	w.has(Changed, "a.test", leafB())
}

// TestDirectoryNotListable: a directory that may be entered but not listed cannot
// be watched; its files are scanned.
func TestDirectoryNotListable(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	s := pairIn(t, dir, "a.test", leafA())
	check(t, os.Chmod(s.Key, 0o644))
	check(t, os.Chmod(dir, 0o711))
	asNobody(t, func() {
		l := newLoop(New(testOptions))
		l.openInotify()
		defer l.dirs.lose()
		it := &item{name: "a.test", claim: claim{cert: s.Cert, key: s.Key}}
		_, seen := it.look(time.Now())
		if seen.pair == nil {
			t.Fatalf("%v, %v", seen.fault, seen.trouble)
		}
		l.dirs.follow(it, seen.steps)
		faults := l.dirs.troubles()
		if len(faults) != 1 || faults[0].Code != WatchRefused || faults[0].Path != dir {
			t.Errorf("got %v", faults)
		}
	})
}

// TestDirectoryExchange: the directory itself is swapped for another.
func TestDirectoryExchange(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	check(t, os.Mkdir(dir+"/now", 0o755))
	check(t, os.Mkdir(dir+"/next", 0o755))
	s := pairIn(t, dir+"/now", "a.test", leafA())
	pairIn(t, dir+"/next", "a.test", leafB())
	w := start(t, testOptions, s)
	w.has(Loaded, "a.test", leafA())
	exchange := func() {
		check(t, unix.Renameat2(unix.AT_FDCWD, dir+"/now", unix.AT_FDCWD, dir+"/next", unix.RENAME_EXCHANGE))
	}
	exchange()
	w.has(Changed, "a.test", leafB())
	// The watch must be on the new directory now.
	pairIn(t, dir+"/now", "a.test", leafRSA())
	w.has(Changed, "a.test", leafRSA())
	exchange()
	w.has(Changed, "a.test", leafA())
}

// TestLoadNoPermission: no permission is said as such, for files and directories.
func TestLoadNoPermission(t *testing.T) {
	dir := openDir(t)
	write(t, dir+"/c.pem", leafA().FullchainPEM(), 0o644)
	write(t, dir+"/k.pem", leafA().KeyPEM(), 0o600)
	asNobody(t, func() {
		if _, f := Load(dir+"/c.pem", dir+"/k.pem"); f == nil || f.Code != NoPermission || f.Path != dir+"/k.pem" {
			t.Errorf("key: %v", f)
		}
	})
	check(t, os.Chmod(dir, 0o700))
	asNobody(t, func() {
		if _, f := Load(dir+"/c.pem", dir+"/k.pem"); f == nil || f.Code != NoPermission || f.Path != dir+"/c.pem" || f.kind() != Unreadable {
			t.Errorf("directory: %v", f)
		} else {
			soundSentence(t, f)
		}
	})
}

// asNobody runs f with the file system rights of an unprivileged user.
func asNobody(t *testing.T, f func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can give up root's rights: run this test as root")
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	check(t, unix.Setfsuid(65534))
	defer func() { check(t, unix.Setfsuid(0)) }()
	f()
}
