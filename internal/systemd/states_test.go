package systemd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestFullName(t *testing.T) {
	for in, want := range map[string]string{
		"certbot":                    "certbot.service",
		"certbot.service":            "certbot.service",
		"snap.certbot.renew.service": "snap.certbot.renew.service",
		"snap.certbot.renew":         "snap.certbot.renew.service",
		"certbot.timer":              "certbot.timer",
		"acme@example.org.service":   "acme@example.org.service",
		`acme@\x2a.example.org`:      `acme@\x2a.example.org.service`,
	} {
		if got, err := fullName(in); err != nil || got != want {
			t.Errorf("%q: %q %v, want %q", in, got, err, want)
		}
	}
	for _, in := range []string{"", ".service", "@x.service", "acme@.service", "a b", "../x.service", "a\nb.service", strings.Repeat("x", 300)} {
		_, err := fullName(in)
		var e *Error
		if !errors.As(err, &e) || !errors.Is(err, ErrNoUnit) || e.Hint() == "" || len(err.Error()) > 1200 {
			t.Errorf("%q is taken for a unit: %v", in, err)
		}
	}
}

func TestRunning(t *testing.T) {
	for state, want := range map[string]bool{
		"activating/start":        true,
		"activating/start-pre":    true,
		"activating/auto-restart": false, // nothing runs until RestartSec= is over
		"active/running":          true,
		"active/exited":           false, // RemainAfterExit=yes
		"reloading/reload":        true,
		"deactivating/stop-post":  true,
		"inactive/dead":           false,
		"failed/failed":           false,
	} {
		active, sub, _ := strings.Cut(state, "/")
		if got := (UnitState{ActiveState: active, SubState: sub}).Running(); got != want {
			t.Errorf("%s: running %v", state, got)
		}
	}
}

func TestStatesWithoutSystemd(t *testing.T) {
	stop := bus(t)
	states := NewStates(t.Context(), 0)
	var e *Error
	_, err := states.State(t.Context(), "certbot.service")
	if !errors.As(err, &e) || e.Hint() == "" || !errors.Is(err, ErrNoSystemd) || !strings.Contains(err.Error(), "not on the system bus") {
		t.Errorf("a bus without systemd: %v", err)
	}
	stop()
	if _, err := os.Stat("/run/systemd/private"); err == nil {
		t.Skip("systemd runs here and answers root without a bus")
	}
	_, err = states.State(t.Context(), "certbot.service")
	if !errors.Is(err, ErrNoSystemd) || !strings.Contains(err.Error(), "no system bus") {
		t.Errorf("a bus that is gone: %v", err)
	}
	// A new bus is found without a new States.
	bus(t)
	_, err = states.State(t.Context(), "certbot.service")
	if !errors.Is(err, ErrNoSystemd) || !strings.Contains(err.Error(), "not on the system bus") {
		t.Errorf("a bus that came back: %v", err)
	}
	if _, err := states.Running(t.Context(), "certbot.timer"); err == nil || !strings.Contains(err.Error(), "not a service") {
		t.Errorf("a timer was asked for: %v", err)
	}
}

// A bus that takes connections and never says a word.
func TestStatesOfAMuteBus(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "bus")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path="+socket)
	_, err = NewStates(t.Context(), 50*time.Millisecond).State(t.Context(), "certbot.service")
	if !errors.Is(err, ErrNoSystemd) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a mute bus: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = NewStates(t.Context(), time.Hour).State(ctx, "certbot.service")
	if !errors.Is(err, context.Canceled) {
		t.Errorf("an ended context: %v", err)
	}
}

func TestFollowWithoutSystemd(t *testing.T) {
	bus(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var said []StateChange
	err := NewStates(ctx, 0).Follow(ctx, []string{"certbot", "no unit"}, func(c StateChange) {
		if said = append(said, c); len(said) == 2 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) || len(said) != 2 ||
		!errors.Is(said[0].Err, ErrNoUnit) || said[0].Unit != "no unit" ||
		!errors.Is(said[1].Err, ErrNoSystemd) || said[1].Unit != "certbot.service" {
		t.Errorf("%v, said %v", err, said)
	}
}

// realSystemd skips where systemd does not run or gives no units to us.
func realSystemd(t *testing.T) {
	t.Helper()
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		t.Skip("this machine was not booted by systemd: the states of real units are not tested here")
	}
	if os.Geteuid() != 0 {
		t.Skip("only root may start units: the states of real units are not tested here")
	}
	if _, err := exec.LookPath("systemd-run"); err != nil {
		t.Skip("systemd-run is missing: the states of real units are not tested here")
	}
}

// transient starts a unit that runs until the returned pipe is closed, and waits
// for it to run.
func transient(t *testing.T, name string, options ...string) (end func()) {
	t.Helper()
	fifo := filepath.Join(t.TempDir(), "end")
	if out, err := exec.Command("mkfifo", fifo).CombinedOutput(); err != nil {
		t.Fatalf("mkfifo: %v %s", err, out)
	}
	args := append([]string{"--unit=" + name, "--no-block", "--service-type=oneshot"}, options...)
	args = append(args, "/bin/sh", "-c", "read line < '"+fifo+"'; exit $line")
	if out, err := exec.Command("systemd-run", args...).CombinedOutput(); err != nil {
		t.Fatalf("systemd-run: %v %s", err, out)
	}
	pipe, err := os.OpenFile(fifo, os.O_WRONLY, 0) // opens when the unit reads
	if err != nil {
		t.Fatal(err)
	}
	end = func() { fmt.Fprintln(pipe, "7"); pipe.Close() }
	t.Cleanup(func() {
		pipe.Close()
		exec.Command("systemctl", "reset-failed", name).Run()
	})
	return end
}

func TestStatesOfRealUnits(t *testing.T) {
	realSystemd(t)
	states := NewStates(t.Context(), 30*time.Second)
	name := fmt.Sprintf("renewatch-test-%d.service", os.Getpid())
	if _, err := states.State(t.Context(), name); !errors.Is(err, ErrNoUnit) {
		t.Errorf("a unit that there is not: %v", err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	changes, followed := make(chan StateChange, 64), make(chan struct{})
	go func() {
		defer close(followed)
		states.Follow(ctx, []string{name}, func(c StateChange) { changes <- c })
	}()
	defer func() { cancel(); <-followed }()
	if c := <-changes; !errors.Is(c.Err, ErrNoUnit) {
		t.Errorf("first told: %+v", c)
	}

	end := transient(t, name)
	running, err := states.State(t.Context(), name)
	if err != nil || running.ActiveState != "activating" || running.SubState != "start" || !running.Running() ||
		len(running.InvocationID) != 32 || running.Started.IsZero() || running.Unit != name {
		t.Errorf("while it runs: %+v %v", running, err)
	}
	if ok, err := states.Running(t.Context(), strings.TrimSuffix(name, ".service")); err != nil || !ok {
		t.Errorf("while it runs: %v %v", ok, err)
	}
	end()
	for c := range changes {
		if c.Err != nil {
			t.Fatalf("told: %v", c.Err)
		}
		if c.State.Running() {
			continue
		}
		s := c.State
		if s.ActiveState != "failed" || s.Result != "exit-code" || s.ExecMainCode != 1 || s.ExecMainStatus != 7 ||
			s.InvocationID != running.InvocationID || s.Ended.Before(s.Started) {
			t.Errorf("after its end: %+v", s)
		}
		break
	}
	if ok, err := states.Running(t.Context(), name); err != nil || ok {
		t.Errorf("after its end: running %v %v", ok, err)
	}
}

func BenchmarkStates(b *testing.B) {
	states := NewStates(b.Context(), 0)
	if _, err := states.State(b.Context(), "dbus.service"); err != nil {
		b.Skip(err)
	}
	b.Run("State", func(b *testing.B) {
		for b.Loop() {
			if _, err := states.State(b.Context(), "dbus.service"); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Running", func(b *testing.B) {
		for b.Loop() {
			if _, err := states.Running(b.Context(), "dbus.service"); err != nil {
				b.Fatal(err)
			}
		}
	})
}
