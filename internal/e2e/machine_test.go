package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// release builds the program the way it is shipped, once: one static binary. The
// race detector's needs system calls that a sandbox has no reason to allow.
func release(t *testing.T) string {
	t.Helper()
	program(t, "go")
	path, err := releaseOnce()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

var releaseOnce = sync.OnceValues(func() (string, error) {
	out := filepath.Join(scratch, "renewatch-static")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", out, "github.com/renewatch/renewatch/cmd/renewatch")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if msg, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, msg)
	}
	return out, nil
})

// machine is a Debian with a booted systemd of its own: systemd-nspawn over an
// overlay of this machine's root. It has the programs of this machine, and
// nothing that is configured, enabled or running here. What it writes lies in
// memory and is gone with the namespace of the test.
type machine struct {
	t    *testing.T
	init int // pid of its systemd, as seen from here
	*process
}

// These directories are in the namespace of the test.
const (
	machineRoot  = "/run/machine/root"
	machineUpper = "/run/machine/upper" // what the machine wrote
)

// hidden is what the machine shall not have of this one.
var hidden = []string{
	"etc/systemd", "etc/fstab", "etc/rc0.d", "etc/rc1.d", "etc/rc2.d", "etc/rc3.d", "etc/rc4.d", "etc/rc5.d", "etc/rc6.d", "etc/rcS.d",
	"etc/letsencrypt", "etc/renewatch", "etc/nginx", "var/log/journal", "var/lib/renewatch",
}

// newMachine prepares a machine; more writes what it shall have before it boots.
// The test has to be apart.
func newMachine(t *testing.T, more func(root *os.Root)) *machine {
	t.Helper()
	mustApart(t)
	for _, name := range []string{"systemd-nspawn", "nsenter", "dbus-daemon"} {
		program(t, name)
	}
	attach := func(args ...string) {
		if res := run(t, exec.Command(program(t, "mount"), args...)); res.code != 0 {
			unavailable(t, "this machine does not mount an overlay of its root: "+strings.TrimSpace(res.stderr))
		}
	}
	// On /run, so that what systemd-nspawn notes there stays in here too.
	attach("-t", "tmpfs", "-o", "mode=0755", "tmpfs", "/run")
	const work = "/run/machine/work"
	for _, dir := range []string{machineRoot, machineUpper, work} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	attach("-t", "overlay", "-o", "lowerdir=/,upperdir="+machineUpper+",workdir="+work, "overlay", machineRoot)

	// An os.Root, because a link in there may lead to a file of this machine.
	root, err := os.OpenRoot(machineRoot)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for _, path := range hidden {
		if err := root.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
	}
	short, _, _ := strings.Cut(host, ".")
	for path, text := range map[string]string{
		"etc/hostname": short + "\n",
		"etc/hosts":    fmt.Sprintf("127.0.0.1 localhost\n127.0.1.1 %s %s\n", host, short),
		// Not empty: that would be a first boot, which enables every unit there is.
		"etc/machine-id": strings.Repeat("e2e0", 8) + "\n",
	} {
		putFile(t, root, path, text, 0o644)
	}
	more(root)
	return bootMachine(t)
}

func putFile(t *testing.T, root *os.Root, path, text string, perm os.FileMode) {
	t.Helper()
	if err := root.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	// Away with what is there: it may be a link.
	if err := root.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	if err := root.WriteFile(path, []byte(text), perm); err != nil {
		t.Fatal(err)
	}
	if err := root.Chmod(path, perm); err != nil {
		t.Fatal(err)
	}
}

// bootMachine boots what is prepared, and waits until all of it is started.
func bootMachine(t *testing.T) *machine {
	t.Helper()
	m := &machine{t: t}
	// systemd-nspawn makes the cgroups "supervisor" and "payload" where it is: two
	// of them in one place would fight over the same names.
	var join strings.Builder
	for _, dir := range ownCgroups(t) {
		fmt.Fprintf(&join, "echo $$ >%s/cgroup.procs\n", dir)
	}
	m.process = spawn(t, "systemd-nspawn", exec.Command("/bin/sh", "-e", "-c", join.String()+`exec "$@"`, "sh",
		program(t, "systemd-nspawn"), "--quiet", "--directory="+machineRoot, fmt.Sprintf("--machine=renewatch-e2e-%d", os.Getpid()),
		"--hostname="+strings.Split(host, ".")[0], "--register=no", "--keep-unit", "--private-network", "--resolv-conf=off",
		"--timezone=off", "--link-journal=no", "--console=pipe", "--boot"))
	err := within(patience, func() error {
		if !m.running() {
			return final("systemd-nspawn ended: %v", m.err)
		}
		m.init = initOf(m.pid())
		if m.init == 0 {
			return fmt.Errorf("its systemd does not run yet")
		}
		_, err := os.Stat(m.path("/run/systemd/private"))
		return err
	})
	if err != nil {
		unavailable(t, fmt.Sprintf("this machine boots no container: %v\n%s", err, m.log.tail()))
	}
	t.Cleanup(func() {
		if m.t = t; t.Failed() && m.running() {
			t.Logf("its journal:\n%s", m.run("journalctl", "--no-pager", "-n", "150").stdout)
		}
	})
	switch res := m.run("systemctl", "is-system-running", "--wait"); strings.TrimSpace(res.stdout) {
	case "running":
	case "degraded":
		t.Logf("some units of the machine failed:\n%s", m.run("systemctl", "--failed", "--no-pager", "--no-legend").stdout)
	default:
		t.Fatalf("the machine did not boot: %v", res)
	}
	return m
}

// ownCgroups makes a cgroup for the machine in every hierarchy that its systemd
// manages.
func ownCgroups(t *testing.T) []string {
	t.Helper()
	var dirs []string
	for _, top := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified"} {
		if _, err := os.Stat(filepath.Join(top, "cgroup.procs")); err != nil {
			continue
		}
		dir := filepath.Join(top, fmt.Sprintf("renewatch-e2e-%d", os.Getpid()))
		if err := os.Mkdir(dir, 0o755); err != nil {
			unavailable(t, fmt.Sprintf("this machine lets nobody make a cgroup: %v", err))
		}
		dirs = append(dirs, dir)
		t.Cleanup(func() {
			// The kernel lets go of what has just ended a moment later.
			eventually(t, "the machine's cgroups empty", func() error { return removeCgroup(dir) })
		})
	}
	if len(dirs) == 0 {
		unavailable(t, "this machine has no cgroup file system")
	}
	return dirs
}

func removeCgroup(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeCgroup(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return os.Remove(dir)
}

var innermostPID = regexp.MustCompile(`(?m)^PPid:\t(\d+)$[\s\S]*^NSpid:.*\t(\d+)$`)

// initOf finds the child of a process that is the first one in a pid namespace of
// its own; 0 when there is none yet.
func initOf(parent int) int {
	files, _ := filepath.Glob("/proc/[0-9]*/status")
	for _, file := range files {
		status, err := os.ReadFile(file)
		if err != nil {
			continue // it ended meanwhile
		}
		if got := innermostPID.FindSubmatch(status); got != nil && string(got[1]) == strconv.Itoa(parent) && string(got[2]) == "1" {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			return pid
		}
	}
	return 0
}

// path is where a file of the running machine can be reached from here.
func (m *machine) path(file string) string { return fmt.Sprintf("/proc/%d/root%s", m.init, file) }

// command runs a program in the machine, as root.
func (m *machine) command(args ...string) *exec.Cmd {
	m.t.Helper()
	cmd := exec.Command(program(m.t, "nsenter"), append([]string{"--target", strconv.Itoa(m.init),
		"--mount", "--uts", "--ipc", "--net", "--pid", "--root", "--wd", "--"}, args...)...)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8"}
	return cmd
}

func (m *machine) run(args ...string) result {
	m.t.Helper()
	return run(m.t, m.command(args...))
}

// must runs what has to succeed, and returns what it printed.
func (m *machine) must(args ...string) string {
	m.t.Helper()
	return strings.TrimSpace(mustRun(m.t, m.command(args...)).stdout)
}

// show is one property of a unit.
func (m *machine) show(unit, property string) string {
	m.t.Helper()
	return m.must("systemctl", "show", "--property="+property, "--value", unit)
}

// want holds properties of a unit, "Name=value", against what systemd says.
func (m *machine) want(unit string, properties ...string) {
	m.t.Helper()
	for _, p := range properties {
		name, want, _ := strings.Cut(p, "=")
		if got := m.show(unit, name); got != want {
			m.t.Errorf("%s of %s is %q, want %q:\n%s", name, unit, got, want, m.run("systemctl", "status", "--no-pager", unit).stdout)
		}
	}
}

// syslogLine is one line of the system's journal.
type syslogLine struct {
	Message    string `json:"MESSAGE"`
	Priority   string `json:"PRIORITY"`
	Transport  string `json:"_TRANSPORT"`
	Unit       string `json:"_SYSTEMD_UNIT"`
	Event      string `json:"EVENT"`
	Identifier string `json:"SYSLOG_IDENTIFIER"`
}

// syslog is what the system's journal holds about a unit, oldest first.
func (m *machine) syslog(unit string, args ...string) []syslogLine {
	m.t.Helper()
	out := m.must(append([]string{"journalctl", "--no-pager", "--all", "--output=json", "--unit=" + unit}, args...)...)
	var all []syslogLine
	for _, text := range lines(out) {
		var l syslogLine
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			m.t.Fatalf("%v: %s", err, text)
		}
		all = append(all, l)
	}
	return all
}

// awaitSyslog waits for a line about a unit that contains text.
func (m *machine) awaitSyslog(unit, text string, args ...string) syslogLine {
	m.t.Helper()
	var found syslogLine
	eventually(m.t, "the journal saying "+text, func() error {
		for _, l := range m.syslog(unit, args...) {
			if strings.Contains(l.Message, text) {
				found = l
				return nil
			}
		}
		return fmt.Errorf("it says only %+v", m.syslog(unit, args...))
	})
	return found
}
