package watch

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/renewatch/renewatch/watch/acmelog"
	"golang.org/x/sys/unix"
)

// journald is a private systemd-journald, with journals that nobody else sees.
type journald struct {
	t   *testing.T
	cmd *exec.Cmd
}

const journaldSockets = "/run/systemd/journal.test/"

// privateJournal runs the calling test again as the first process of namespaces of
// its own, with a journald; what that process logs, journald takes for the
// system manager's word. It returns nil where this is not that process.
func privateJournal(t *testing.T) *journald {
	t.Helper()
	const env = "WATCH_TEST_IN_NAMESPACE"
	if os.Getenv(env) != t.Name() {
		cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=60s")
		cmd.Env = append(os.Environ(), env+"="+t.Name())
		cmd.SysProcAttr = &syscall.SysProcAttr{
			// Of a process outside the root control group journald believes that group,
			// not the unit that it names.
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWCGROUP,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
		}
		out, err := cmd.CombinedOutput()
		switch {
		case len(out) == 0 && err != nil:
			t.Skipf("this system gives no user namespaces: %v", err)
		case err != nil:
			t.Errorf("in its namespace: %v\n%s", err, out)
		case strings.Contains(string(out), "--- SKIP"):
			t.Skipf("in its namespace:\n%s", out)
		}
		return nil
	}
	program := ""
	for _, path := range []string{"/usr/lib/systemd/systemd-journald", "/lib/systemd/systemd-journald"} {
		if _, err := os.Stat(path); err == nil {
			program = path
			break
		}
	}
	if _, err := exec.LookPath("journalctl"); err != nil || program == "" {
		t.Skip("there is no systemd-journald or no journalctl here")
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Skipf("this system lets a user namespace mount nothing: %v", err)
	}
	for _, dir := range []string{"/run", "/var/log"} {
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
			t.Skipf("this system lets a user namespace mount nothing: %v", err)
		}
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		t.Skipf("this system lets a user namespace mount no /proc: %v", err)
	}
	check(t, os.MkdirAll(journaldSockets, 0o755))
	check(t, os.MkdirAll("/var/log/journal", 0o755))
	j := &journald{t: t, cmd: exec.Command(program, "test")}
	check(t, j.cmd.Start())
	t.Cleanup(func() {
		_ = j.cmd.Process.Signal(syscall.SIGTERM)
		_ = j.cmd.Wait()
	})
	waitFor(t, func() bool { _, err := os.Stat(journaldSockets + "stdout"); return err == nil })
	return j
}

// says writes what a unit writes to its stdout, in a process of its own: journald
// believes that one process has one unit.
func (j *journald) says(unit, text string) {
	j.t.Helper()
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestJournalWriter$")
	cmd.Env = append(os.Environ(), journalUnit+"="+unit)
	cmd.Stdin = strings.NewReader(text)
	out, err := cmd.CombinedOutput()
	if err != nil {
		j.t.Fatalf("%v\n%s", err, out)
	}
}

const journalUnit = "WATCH_TEST_JOURNAL_UNIT"

// TestJournalWriter is the process that says writes in.
func TestJournalWriter(t *testing.T) {
	unit := os.Getenv(journalUnit)
	if unit == "" {
		t.Skip("this is the process of a unit in other tests")
	}
	text, err := io.ReadAll(os.Stdin)
	check(t, err)
	c, err := net.Dial("unix", journaldSockets+"stdout")
	check(t, err)
	// What is sent before journald has accepted the connection comes without its
	// sender, unless he names himself.
	me := syscall.UnixCredentials(&syscall.Ucred{Pid: int32(os.Getpid())})
	for b := fmt.Appendf(nil, "acme-tiny\n%s\n6\n1\n0\n0\n0\n%s", unit, text); len(b) > 0; {
		n, _, err := c.(*net.UnixConn).WriteMsgUnix(b[:min(len(b), 16<<10)], me, nil)
		check(t, err)
		b = b[n:]
	}
	// Of a process that is gone journald knows nothing any more.
	check(t, c.(*net.UnixConn).CloseWrite())
	_, err = io.Copy(io.Discard, c)
	check(t, err)
	check(t, c.Close())
}

// manager writes what the system manager says of a unit.
func (j *journald) manager(unit, id string, fields ...string) {
	j.t.Helper()
	c, err := net.Dial("unixgram", journaldSockets+"socket")
	check(j.t, err)
	_, err = fmt.Fprintf(c, "MESSAGE=%s\nMESSAGE_ID=%s\nUNIT=%s\n%s\n", unit, id, unit, strings.Join(fields, "\n"))
	check(j.t, err)
	check(j.t, c.Close())
}

// settled returns when the journal has that many entries of the unit.
func (j *journald) settled(unit string, n int) {
	j.t.Helper()
	waitFor(j.t, func() bool {
		out, err := exec.Command("journalctl", "--namespace=test", "--output=cat", "--no-pager", "--unit="+unit).Output()
		return err == nil && strings.Count(string(out), "\n") >= n
	})
}

// ended waits for the end of an attempt.
func (f *following) ended(outcome acmelog.Outcome, name string, old bool) Heard {
	f.t.Helper()
	h := f.next()
	for h.Kind == Attempted && h.Attempt.Outcome == acmelog.Running {
		h = f.next()
	}
	if h.Kind != Attempted || h.Attempt.Outcome != outcome || h.Old != old || len(h.Attempt.Names) != 1 || h.Attempt.Names[0] != name {
		f.t.Fatalf("heard %s, want that %s %s, old=%v", tellHeard(h), name, outcome, old)
	}
	return h
}

// TestJournal follows a unit in the journal of a real journald: what was before,
// what comes, what came while the follower was away; and where the cursor is not
// known any more.
func TestJournal(t *testing.T) {
	t.Parallel()
	j := privateJournal(t)
	if j == nil {
		return
	}
	const unit = "acme.service"
	lines := strings.Count(runLog("a.test")+runEnd("a.test"), "\n")
	j.says(unit, runLog("old.test")+runEnd("old.test")+runLog("last.test")+runEnd("last.test"))
	j.says("other.service", runLog("x.test")+runEnd("x.test"))
	j.settled(unit, 2*lines)
	dir := t.TempDir()
	o := LogOptions{Dir: dir, Journalctl: []string{"journalctl", "--namespace=test"}}
	l := Log{Client: acmelog.AcmeTiny, Unit: "acme"}
	f := follow(t, o, nil, l)
	h := f.ended(acmelog.Issued, "last.test", true)
	if h.Log.Unit != unit || h.Attempt.Log != "journal:"+unit {
		t.Errorf("it was heard in %+v, %s", h.Log, h.Attempt.Log)
	}
	j.says(unit, runLog("b.test")+runEnd("b.test"))
	f.ended(acmelog.Issued, "b.test", false)

	// A run goes on while the follower is away.
	j.says(unit, runLog("c.test"))
	h = f.next()
	id := h.ID
	j.settled(unit, 4*lines-4)
	f.stop()
	j.says(unit, runEnd("c.test"))
	f = follow(t, o, nil, l)
	for h = f.next(); h.Attempt.Outcome == acmelog.Running; h = f.next() {
	}
	if h.ID != id || h.Attempt.Outcome != acmelog.Issued || h.Old {
		t.Errorf("heard %s as %s, want the end of %s", tellHeard(h), h.ID, id)
	}

	// The manager says how a run ended; so does whoever watches units.
	j.says(unit, runLog("d.test"))
	f.next()
	j.manager(unit, "98e322203f7a4ed290d09fe03c09fe15", "EXIT_CODE=exited", "EXIT_STATUS=1", "COMMAND=ExecStart", "CODE_FUNC=service_sigchld_event")
	f.ended(acmelog.Failed, "d.test", false)
	j.says(unit, runLog("e.test"))
	f.next()
	f.Ended("acme", acmelog.Exit{At: time.Now(), Code: 2})
	f.Ended("other", acmelog.Exit{At: time.Now(), Code: 2})
	j.says(unit, runLog("f.test")) // comes after that
	f.ended(acmelog.Failed, "e.test", false)
	f.next()
	j.says(unit, runEnd("f.test"))
	f.ended(acmelog.Issued, "f.test", false)
	f.stop()

	// The cursor is not known any more.
	p := loadPosition(positionPath(dir, Log{Client: acmelog.AcmeTiny, Unit: unit}))
	if p == nil || p.Cursor == "" || p.At.IsZero() {
		t.Fatalf("the position is %+v", p)
	}
	p.Cursor = "garbage"
	check(t, p.save(dir))
	j.says(unit, runLog("g.test")+runEnd("g.test"))
	f = follow(t, o, nil, l)
	f.ended(acmelog.Issued, "g.test", false)
}

// TestJournalHostile: lines of any length, with any bytes, and entries that look
// like the beginning of others.
func TestJournalHostile(t *testing.T) {
	t.Parallel()
	j := privateJournal(t)
	if j == nil {
		return
	}
	const unit = "acme.service"
	o := LogOptions{Journalctl: []string{"journalctl", "--namespace=test"}}
	f := follow(t, o, nil, Log{Client: acmelog.AcmeTiny, Unit: unit})
	j.says(unit, runLog("a.test"))
	id := f.next().ID
	j.says(unit, strings.Repeat("\x1b[31m\xff", 20<<10)+"\n"+
		`{"__CURSOR":"s=forged","__REALTIME_TIMESTAMP":"1"}`+"\n"+
		strings.Repeat("x", 3<<20)+"\n")
	j.manager(unit, "00000000000000000000000000000000", "BIG="+strings.Repeat("y", 100<<10), `X="__CURSOR":"s=forged"`)
	j.says(unit, runEnd("a.test"))
	if h := f.ended(acmelog.Issued, "a.test", false); h.ID != id {
		t.Errorf("it ended as %s, began as %s", h.ID, id)
	}
}

// TestJournalMissing: without journalctl there is a hint.
func TestJournalMissing(t *testing.T) {
	t.Parallel()
	l := Log{Client: acmelog.AcmeTiny, Unit: "acme.service"}
	f := follow(t, LogOptions{Journalctl: []string{"/nowhere/journalctl", "--namespace=test"}}, nil, l)
	if h := f.faults(Blind, NoJournal); h.Log != l {
		t.Errorf("heard of %+v", h.Log)
	}
	f.Set(nil)
	f.faults(Sighted, NoJournal)
}

// TestJournalPermission: journalctl tells nobody anything, and that is not silence.
func TestJournalPermission(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("journalctl"); err != nil {
		t.Skip("there is no journalctl here")
	}
	machine, err := os.ReadFile("/etc/machine-id")
	if err != nil {
		t.Skip("this machine has no /etc/machine-id")
	}
	if !againAsNobody(t) {
		return
	}
	top := t.TempDir()
	dir := filepath.Join(top, strings.TrimSpace(string(machine)))
	check(t, os.Mkdir(dir, 0o755))
	check(t, os.WriteFile(filepath.Join(dir, "system.journal"), make([]byte, 4096), 0))
	f := follow(t, LogOptions{Journalctl: []string{"journalctl", "--directory=" + top}}, nil, Log{Client: acmelog.AcmeTiny, Unit: "acme.service"})
	f.faults(Blind, NoPermission)
}

// TestCursorOf: what an entry quotes cannot move the cursor.
func TestCursorOf(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		`{"MESSAGE":"x","__CURSOR":"s=1;i=2","__REALTIME_TIMESTAMP":"1795364986328690"}`:                     "s=1;i=2",
		`{"MESSAGE":"\"__CURSOR\":\"s=forged\"","__REALTIME_TIMESTAMP":"1795364986328690","__CURSOR":"s=1"}`: "s=1",
		`{"MESSAGE":"\\\"__CURSOR\":\"forged\""}`:                                                            "",
		`{"__CURSOR":"` + strings.Repeat("x", 600):                                                           "",
		`{"__CURSOR":"unfinished`:                                                                            "",
		``:                                                                                                   "",
	} {
		if got, _ := cursorOf([]byte(line)); got != want {
			t.Errorf("%s: the cursor %q, want %q", line, got, want)
		}
	}
	if _, at := cursorOf([]byte(`{"__REALTIME_TIMESTAMP":"1795364986328690"}`)); at.UnixMicro() != 1795364986328690 {
		t.Errorf("the time %v", at)
	}
}
