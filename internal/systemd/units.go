package systemd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"
)

// DefaultTimeout bounds a reload whose context has no deadline.
const DefaultTimeout = time.Minute

// Why systemd could not be asked or would not obey, for errors.Is.
var (
	// ErrNoSystemd: systemd cannot be reached: it does not run here, there is no
	// bus, or the bus or systemd gave no answer.
	ErrNoSystemd = errors.New("systemd cannot be reached")
	// ErrNoUnit: systemd knows no such unit.
	ErrNoUnit = errors.New("no such unit")
	// ErrNotPermitted: systemd or the bus refused us.
	ErrNotPermitted = errors.New("not permitted")
)

// Error is a failure to have systemd do something, with a hint for a person.
type Error struct {
	sentence string
	hint     string
	kind     error // one of the Err values above, or nil
	err      error
}

func (e *Error) Error() string { return e.sentence }

// Unwrap returns the cause, if there is one.
func (e *Error) Unwrap() error { return e.err }

// Is reports whether target is the kind of this failure.
func (e *Error) Is(target error) bool { return e.kind != nil && e.kind == target }

// Hint says what a person can do; it may be empty.
func (e *Error) Hint() string { return e.hint }

// Units reloads systemd units over D-Bus. It opens a connection for each reload:
// reloads are rare, and a kept one would have to survive restarts of the bus.
// The zero value is ready to use.
type Units struct{}

// Reload asks systemd to reload a unit and waits for the end of the job. The
// result is done, failed, canceled, timeout, dependency, skipped or invalid (the
// unit is not active). It ends with ctx. Every error is an *Error.
func (Units) Reload(ctx context.Context, unit string) (string, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, DefaultTimeout)
		defer cancel()
	}
	// The end of this context closes the connection, whatever blocks on it.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	conn, err := connect(ctx)
	if err != nil {
		return "", connectError(ctx, err)
	}
	defer conn.Close()
	done := make(chan string, 1)
	if _, err := conn.ReloadUnitContext(ctx, unit, "replace", done); err != nil {
		return "", reloadError(ctx, unit, err)
	}
	// A bus that dies takes the answer with it; the library does not say so.
	alive := time.NewTicker(time.Second)
	defer alive.Stop()
	for {
		select {
		case result := <-done:
			return result, nil
		case <-ctx.Done():
			return "", &Error{sentence: "the reload job of " + unit + " did not end in time",
				hint: "see what holds it: systemctl status " + unit + "; systemctl list-jobs", err: ctx.Err()}
		case <-alive.C:
			if !conn.Connected() && ctx.Err() == nil {
				return "", &Error{sentence: "the connection to D-Bus was lost while " + unit + " was reloading; its outcome is not known"}
			}
		}
	}
}

// connect reaches systemd over the system bus. Where there is no bus, root can
// use systemd's private socket.
func connect(ctx context.Context) (*dbus.Conn, error) {
	conn, err := dbus.NewSystemConnectionContext(ctx)
	if err == nil || ctx.Err() != nil || os.Geteuid() != 0 || !noBus(err) {
		return conn, err
	}
	conn, private := dbus.NewSystemdConnectionContext(ctx)
	if private != nil {
		return nil, err
	}
	return conn, nil
}

func noBus(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)
}

func connectError(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return &Error{sentence: "the system bus (D-Bus) did not answer in time",
			hint: "is dbus.service healthy?", kind: ErrNoSystemd, err: ctx.Err()}
	case noBus(err):
		return &Error{sentence: "there is no system bus (D-Bus) here",
			hint: "in a container mount /run/dbus/system_bus_socket, or reload this server by a command or a signal", kind: ErrNoSystemd, err: err}
	case errors.Is(err, fs.ErrPermission):
		return &Error{sentence: "not allowed to connect to the system bus (D-Bus)", hint: "check the sandbox of the unit: AF_UNIX must be allowed",
			kind: ErrNotPermitted, err: err}
	case strings.Contains(err.Error(), "authentication failed"), errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ENOTCONN):
		return &Error{sentence: "the system bus (D-Bus) refused us",
			hint: "it knows no users of DynamicUser=yes and of foreign user namespaces: run as root or as a user of its own", kind: ErrNotPermitted, err: err}
	}
	return &Error{sentence: fmt.Sprintf("cannot connect to the system bus (D-Bus): %v", err), kind: ErrNoSystemd, err: err}
}

// reloadError explains a refused or unanswered call.
func reloadError(ctx context.Context, unit string, err error) error {
	if ctx.Err() != nil {
		e := &Error{sentence: "systemd did not answer in time when asked to reload " + unit, kind: ErrNoSystemd, err: ctx.Err()}
		if os.Geteuid() != 0 {
			e.hint = "without polkit nobody answers users other than root: install polkitd and its rule, or run as root"
		}
		return e
	}
	answer, ok := answerOf(err)
	if !ok {
		return &Error{sentence: fmt.Sprintf("cannot ask systemd to reload %s: %v", unit, err), err: err}
	}
	switch answer.Name {
	case "org.freedesktop.systemd1.NoSuchUnit", "org.freedesktop.systemd1.LoadFailed":
		return &Error{sentence: "systemd knows no unit " + unit, hint: "look it up: systemctl list-units --type=service", kind: ErrNoUnit, err: err}
	case "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired",
		"org.freedesktop.DBus.Error.AccessDenied", "org.freedesktop.DBus.Error.AuthFailed":
		return &Error{sentence: "not authorised to reload " + unit,
			hint: "run as root, or allow it by a polkit rule: action org.freedesktop.systemd1.manage-units, unit " + unit + ", verb reload",
			kind: ErrNotPermitted, err: err}
	case "org.freedesktop.systemd1.JobTypeNotApplicable":
		return &Error{sentence: unit + " cannot be reloaded: it has no ExecReload=",
			hint: "use a command or a signal for this server, or add ExecReload= to the unit", err: err}
	case "org.freedesktop.systemd1.UnitMasked":
		return &Error{sentence: unit + " is masked", hint: "systemctl unmask " + unit, err: err}
	case "org.freedesktop.DBus.Error.ServiceUnknown", "org.freedesktop.DBus.Error.NameHasNoOwner",
		"org.freedesktop.DBus.Error.Spawn.ServiceNotFound", "org.freedesktop.DBus.Error.Spawn.ChildExited":
		return &Error{sentence: "systemd is not on the system bus (D-Bus)",
			hint: "it does not run this machine or container: reload this server by a command or a signal",
			kind: ErrNoSystemd, err: err}
	case "org.freedesktop.DBus.Error.InvalidArgs":
		return &Error{sentence: fmt.Sprintf("%q is not the name of a unit", unit), hint: "nginx.service, for example", kind: ErrNoUnit, err: err}
	case "org.freedesktop.DBus.Error.NoReply":
		return &Error{sentence: "systemd did not answer when asked to reload " + unit, err: err}
	}
	return &Error{sentence: fmt.Sprintf("systemd refused to reload %s: %v", unit, answer), err: err}
}

// answerOf returns what was answered, when err is an answer and not a failure of
// the connection.
func answerOf(err error) (godbus.Error, bool) {
	if p := (*godbus.Error)(nil); errors.As(err, &p) && p != nil {
		return *p, true
	}
	var answer godbus.Error
	return answer, errors.As(err, &answer)
}
