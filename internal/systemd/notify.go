// Package systemd speaks with the service manager: it says when the program is
// ready, reloading and alive, reloads other units over D-Bus, and knows whether
// the journal reads along.
package systemd

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/coreos/go-systemd/v22/journal"
	"golang.org/x/sys/unix"
)

const (
	// maxStatus bounds the text that systemctl status shows.
	maxStatus = 256
	// sendTimeout bounds how long a full socket of a stuck manager holds us up.
	sendTimeout = time.Second
)

// Notifier tells the service manager how the program does. A nil or zero
// Notifier, and one made where no manager listens, says nothing and returns nil.
// It is safe for concurrent use.
type Notifier struct {
	socket   string
	watchdog time.Duration
}

// NewNotifier takes NOTIFY_SOCKET and WATCHDOG_* out of the environment, so that
// no child process can speak for this one, and remembers them.
func NewNotifier() *Notifier {
	n := &Notifier{socket: os.Getenv("NOTIFY_SOCKET")}
	os.Unsetenv("NOTIFY_SOCKET")
	// Errors mean a malformed value, which nobody but a manager sets.
	if d, err := daemon.SdWatchdogEnabled(true); err == nil {
		n.watchdog = d
	}
	return n
}

// Enabled reports whether a manager listens.
func (n *Notifier) Enabled() bool { return n != nil && n.socket != "" }

// Ready says that the start, or the reload that Reloading began, is over.
func (n *Notifier) Ready(status string) error {
	return n.send(daemon.SdNotifyReady, statusLine(status))
}

// Reloading says that the configuration is being read again. Ready ends it.
func (n *Notifier) Reloading() error {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return fmt.Errorf("cannot read the monotonic clock: %w", err)
	}
	// Both in one datagram: Type=notify-reload waits for the second one for ever.
	return n.send(daemon.SdNotifyReloading, fmt.Sprintf("MONOTONIC_USEC=%d", now.Nano()/1000))
}

// Stopping says that the program is on its way out.
func (n *Notifier) Stopping() error { return n.send(daemon.SdNotifyStopping) }

// Status sets the line that systemctl status shows.
func (n *Notifier) Status(status string) error { return n.send(statusLine(status)) }

// Alive feeds the watchdog.
func (n *Notifier) Alive() error { return n.send(daemon.SdNotifyWatchdog) }

// WatchdogInterval is how often Alive is to be called, half of WatchdogSec=. It
// reports false when the manager does not watch.
func (n *Notifier) WatchdogInterval() (time.Duration, bool) {
	if !n.Enabled() || n.watchdog <= 0 {
		return 0, false
	}
	return n.watchdog / 2, true
}

// Feed calls Alive at the watchdog's interval as long as healthy says so, until
// ctx ends. When healthy stays false the manager ends the program with SIGABRT,
// which leaves the stacks of all goroutines in the journal. Without a watchdog
// it returns at once.
func (n *Notifier) Feed(ctx context.Context, healthy func(now time.Time) bool) error {
	every, ok := n.WatchdogInterval()
	if !ok {
		return nil
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		if healthy(time.Now()) {
			// One lost datagram is no reason to end: half an interval is left.
			_ = n.Alive()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// statusLine makes text one assignment: a line break in it would be the next one.
func statusLine(text string) string {
	if text == "" {
		return ""
	}
	var b strings.Builder
	for _, r := range text {
		if !unicode.IsPrint(r) {
			r = ' '
		}
		if b.Len()+utf8.RuneLen(r) > maxStatus {
			break
		}
		b.WriteRune(r)
	}
	return "STATUS=" + b.String()
}

func (n *Notifier) send(assignments ...string) error {
	if !n.Enabled() {
		return nil
	}
	var lines []string
	for _, a := range assignments {
		if a != "" {
			lines = append(lines, a)
		}
	}
	if len(lines) == 0 {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: n.socket, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("cannot reach the service manager: %w", err)
	}
	defer conn.Close()
	if err := conn.SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil {
		return fmt.Errorf("cannot notify the service manager: %w", err)
	}
	if _, err := conn.Write([]byte(strings.Join(lines, "\n"))); err != nil {
		return fmt.Errorf("cannot notify the service manager: %w", err)
	}
	return nil
}

// StderrIsJournal reports whether what is written to standard error goes to the
// journal of systemd.
func StderrIsJournal() bool {
	is, err := journal.StderrIsJournalStream()
	return err == nil && is
}
