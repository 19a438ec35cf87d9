package systemd

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// manager listens where systemd would and returns what it is told.
func manager(t *testing.T, name string) (receive func() string) {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	t.Setenv("NOTIFY_SOCKET", name)
	return func() string {
		t.Helper()
		if err := conn.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 4096)
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		return string(buf[:n])
	}
}

func TestNotifier(t *testing.T) {
	receive := manager(t, filepath.Join(t.TempDir(), "notify"))
	n := NewNotifier()
	if _, leaks := os.LookupEnv("NOTIFY_SOCKET"); leaks {
		t.Error("children would inherit NOTIFY_SOCKET")
	}
	for _, step := range []struct {
		call func() error
		want string
	}{
		{func() error { return n.Ready("watching 3 certificates") }, "READY=1\nSTATUS=watching 3 certificates"},
		{func() error { return n.Ready("") }, "READY=1"},
		{n.Stopping, "STOPPING=1"},
		{n.Alive, "WATCHDOG=1"},
		{func() error { return n.Status("a\nMAINPID=1\x1b\tb") }, "STATUS=a MAINPID=1  b"},
		{func() error { return n.Status(strings.Repeat("ä", 500)) }, "STATUS=" + strings.Repeat("ä", maxStatus/2)},
	} {
		if err := step.call(); err != nil {
			t.Fatal(err)
		}
		if got := receive(); got != step.want {
			t.Errorf("the manager was told %q, want %q", got, step.want)
		}
	}
	var before unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &before); err != nil {
		t.Fatal(err)
	}
	if err := n.Reloading(); err != nil {
		t.Fatal(err)
	}
	got := receive()
	if !regexp.MustCompile(`^RELOADING=1\nMONOTONIC_USEC=\d+$`).MatchString(got) {
		t.Errorf("the manager was told %q", got)
	}
	var usec int64
	if fmt.Sscanf(got, "RELOADING=1\nMONOTONIC_USEC=%d", &usec); usec < before.Nano()/1000 {
		t.Errorf("%q is before the call", got)
	}
	if err := n.Status(""); err != nil { // nothing to say: no datagram
		t.Error(err)
	}
}

func TestNotifierAbstractSocket(t *testing.T) {
	receive := manager(t, fmt.Sprintf("@renewatch-test-%d", os.Getpid()))
	if err := NewNotifier().Ready(""); err != nil {
		t.Fatal(err)
	}
	if got := receive(); got != "READY=1" {
		t.Errorf("got %q", got)
	}
}

func TestNotifierWithoutManager(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	t.Setenv("WATCHDOG_USEC", "1000000")
	for _, n := range []*Notifier{nil, {}, NewNotifier()} {
		for _, call := range []func() error{
			func() error { return n.Ready("x") }, n.Reloading, n.Stopping, n.Alive,
			func() error { return n.Feed(t.Context(), func(time.Time) bool { t.Error("asked"); return true }) },
		} {
			if err := call(); err != nil {
				t.Errorf("without a manager: %v", err)
			}
		}
		if _, ok := n.WatchdogInterval(); ok || n.Enabled() {
			t.Error("something is enabled")
		}
	}
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "gone"))
	if err := NewNotifier().Ready(""); err == nil || !strings.Contains(err.Error(), "service manager") {
		t.Errorf("a manager that is gone: %v", err)
	}
}

func TestWatchdog(t *testing.T) {
	receive := manager(t, filepath.Join(t.TempDir(), "notify"))
	t.Setenv("WATCHDOG_USEC", "2000")
	t.Setenv("WATCHDOG_PID", fmt.Sprint(os.Getpid()))
	n := NewNotifier()
	if every, ok := n.WatchdogInterval(); !ok || every != time.Millisecond {
		t.Errorf("interval %s %t", every, ok)
	}
	for _, name := range []string{"WATCHDOG_USEC", "WATCHDOG_PID"} {
		if _, leaks := os.LookupEnv(name); leaks {
			t.Errorf("children would inherit %s", name)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	asked, ended := make(chan bool), make(chan error, 1)
	go func() { ended <- n.Feed(ctx, func(time.Time) bool { return <-asked }) }()
	asked <- false
	asked <- false
	if err := n.Status("still nothing"); err != nil {
		t.Fatal(err)
	}
	if got := receive(); got != "STATUS=still nothing" {
		t.Errorf("the watchdog was fed while the loops stood still: %q", got)
	}
	asked <- true
	if got := receive(); got != "WATCHDOG=1" {
		t.Errorf("got %q", got)
	}
	cancel()
	close(asked)
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestWatchdogOfAnotherProcess(t *testing.T) {
	manager(t, filepath.Join(t.TempDir(), "notify"))
	t.Setenv("WATCHDOG_USEC", "2000")
	t.Setenv("WATCHDOG_PID", "1")
	if every, ok := NewNotifier().WatchdogInterval(); ok {
		t.Errorf("took another process's watchdog of %s", every)
	}
}

func TestStderrIsJournal(t *testing.T) {
	t.Setenv("JOURNAL_STREAM", "")
	if StderrIsJournal() {
		t.Error("a journal was found where none is")
	}
	t.Setenv("JOURNAL_STREAM", "nonsense")
	if StderrIsJournal() {
		t.Error("nonsense was believed")
	}
	var st unix.Stat_t
	if err := unix.Fstat(2, &st); err != nil {
		t.Fatal(err)
	}
	t.Setenv("JOURNAL_STREAM", fmt.Sprintf("%d:%d", st.Dev, st.Ino))
	if !StderrIsJournal() {
		t.Error("the journal was not recognised")
	}
}
