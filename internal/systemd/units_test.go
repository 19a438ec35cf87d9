package systemd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"
)

const busConfig = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path=%s</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/><allow own="*"/><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/>
  </policy>
</busconfig>
`

// bus starts a real dbus-daemon for the test alone and returns a way to stop it.
func bus(t *testing.T) (stop func()) {
	t.Helper()
	program, err := exec.LookPath("dbus-daemon")
	if err != nil {
		if os.Getenv("RENEWATCH_E2E") == "1" {
			t.Fatal("dbus-daemon is missing: install dbus")
		}
		t.Skip("dbus-daemon is missing: the D-Bus side is not tested")
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "bus.conf")
	socket := filepath.Join(dir, "bus")
	if err := os.WriteFile(config, fmt.Appendf(nil, busConfig, socket), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "--config-file="+config, "--nofork", "--nopidfile", "--print-address")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	t.Cleanup(stop)
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatalf("dbus-daemon said %q: %v", line, err)
	}
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path="+socket)
	return stop
}

// service answers in the name of systemd, in its words, on a real bus.
type service struct {
	conn  *godbus.Conn
	asked chan string
}

func (s *service) ReloadUnit(unit, mode string) (godbus.ObjectPath, *godbus.Error) {
	s.asked <- unit + " " + mode
	name, outcome, _ := strings.Cut(strings.TrimSuffix(unit, ".service"), "-")
	job := godbus.ObjectPath("/org/freedesktop/systemd1/job/77")
	switch name {
	case "result":
		const manager = "org.freedesktop.systemd1.Manager.JobRemoved"
		path := godbus.ObjectPath("/org/freedesktop/systemd1")
		// Another job that ends first must not be taken for this one.
		s.conn.Emit(path, manager, uint32(76), godbus.ObjectPath("/org/freedesktop/systemd1/job/76"), "other.service", "failed")
		s.conn.Emit(path, manager, uint32(77), job, unit, outcome)
	case "error":
		text := map[string]string{
			"org.freedesktop.systemd1.NoSuchUnit":                         "Unit " + unit + " not found.",
			"org.freedesktop.DBus.Error.InteractiveAuthorizationRequired": "Interactive authentication required.",
		}[outcome]
		return "", godbus.NewError(outcome, []any{text})
	case "silent": // the job never ends
	}
	return job, nil
}

func fakeSystemd(t *testing.T) *service {
	t.Helper()
	conn, err := godbus.ConnectSystemBus()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	s := &service{conn: conn, asked: make(chan string, 16)}
	if err := conn.Export(s, "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager"); err != nil {
		t.Fatal(err)
	}
	reply, err := conn.RequestName("org.freedesktop.systemd1", godbus.NameFlagDoNotQueue)
	if err != nil || reply != godbus.RequestNameReplyPrimaryOwner {
		t.Fatalf("no name on the bus: %v %v", reply, err)
	}
	return s
}

func TestUnitsReload(t *testing.T) {
	bus(t)
	s := fakeSystemd(t)
	for _, want := range []string{"done", "failed", "invalid", "timeout"} {
		got, err := Units{}.Reload(t.Context(), "result-"+want+".service")
		if err != nil || got != want {
			t.Errorf("got %q %v, want %q", got, err, want)
		}
		if asked := <-s.asked; asked != "result-"+want+".service replace" {
			t.Errorf("systemd was asked for %q", asked)
		}
	}
	for name, want := range map[string]string{
		"org.freedesktop.systemd1.NoSuchUnit":                         "knows no unit",
		"org.freedesktop.DBus.Error.InteractiveAuthorizationRequired": "not authorised",
		"org.freedesktop.systemd1.JobTypeNotApplicable":               "no ExecReload=",
		"org.freedesktop.systemd1.UnitMasked":                         "is masked",
		"org.freedesktop.DBus.Error.InvalidArgs":                      "not the name of a unit",
		"org.example.Unheard":                                         "refused to reload",
	} {
		_, err := Units{}.Reload(t.Context(), "error-"+name+".service")
		var e *Error
		if !errors.As(err, &e) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		} else if e.Hint() == "" && name != "org.example.Unheard" {
			t.Errorf("%s has no hint", name)
		}
		<-s.asked
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := Units{}.Reload(ctx, "silent.service")
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "in time") {
		t.Errorf("a job without end: %v", err)
	}
}

func TestUnitsLoseTheBus(t *testing.T) {
	stop := bus(t)
	s := fakeSystemd(t)
	go func() {
		<-s.asked
		stop()
	}()
	if _, err := (Units{}).Reload(t.Context(), "silent.service"); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the bus died while waiting: %v", err)
	}
}

func TestUnitsWithoutSystemd(t *testing.T) {
	stop := bus(t)
	_, err := Units{}.Reload(t.Context(), "nginx.service")
	var e *Error
	if !errors.As(err, &e) || e.Hint() == "" || !strings.Contains(err.Error(), "systemd is not on the system bus") {
		t.Errorf("a bus without systemd: %v", err)
	}
	stop()
	if _, err := os.Stat("/run/systemd/private"); err == nil {
		t.Skip("systemd runs here and answers without a bus")
	}
	if _, err := (Units{}).Reload(t.Context(), "nginx.service"); !errors.As(err, &e) || !strings.Contains(err.Error(), "no system bus") {
		t.Errorf("a bus that is gone: %v", err)
	}
}
