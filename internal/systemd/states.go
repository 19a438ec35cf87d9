package systemd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"
)

// DefaultStateTimeout bounds one question to systemd.
const DefaultStateTimeout = 2 * time.Second

// UnitState is what systemd knows of a unit at one moment. Everybody who may
// talk to the bus may read it; polkit is not needed.
type UnitState struct {
	Unit         string // with its suffix
	ActiveState  string // active, inactive, failed, activating, deactivating, reloading; expect more
	SubState     string // finer, and of the unit's type: start, running, exited, dead, auto-restart
	InvocationID string // of the present or the last run, 32 hex digits; empty: not started since systemd loaded it

	Started time.Time // when the unit last left inactive; zero: never
	Ended   time.Time // when it last became inactive or failed; zero: never

	// Of services only.
	Result         string // success, exit-code, signal, timeout, watchdog; expect more
	ExecMainCode   int    // how the main process ended: 1 exited, 2 killed, 3 dumped core; 0: not yet, or never begun
	ExecMainStatus int    // its exit status, or the number of the signal
}

// Running reports whether the unit is at work: also while it starts, stops or
// runs what comes before and after its main process. A unit that waits to be
// restarted is not at work, and neither is one that counts as active although
// its process has ended (RemainAfterExit=).
func (s UnitState) Running() bool {
	switch s.ActiveState {
	case "active":
		return s.SubState != "exited"
	case "activating":
		return !strings.HasPrefix(s.SubState, "auto-restart")
	case "reloading", "refreshing", "deactivating":
		return true
	}
	return false
}

// States asks systemd for the states of units. It keeps one connection and makes
// a new one when that is lost; a question never takes longer than its timeout.
// It is safe for concurrent use.
type States struct {
	life    context.Context
	timeout time.Duration
	turn    chan struct{} // held while conn is used or replaced
	conn    *godbus.Conn  // nil: none yet, or lost
}

// NewStates returns States whose connection ends with ctx. timeout bounds one
// question; 0 means DefaultStateTimeout.
func NewStates(ctx context.Context, timeout time.Duration) *States {
	if timeout <= 0 {
		timeout = DefaultStateTimeout
	}
	return &States{life: ctx, timeout: timeout, turn: make(chan struct{}, 1)}
}

// State returns the state of a unit; "certbot" means certbot.service. Every
// error is an *Error; errors.Is tells ErrNoSystemd, ErrNoUnit and
// ErrNotPermitted apart.
func (s *States) State(ctx context.Context, unit string) (UnitState, error) {
	var state UnitState
	err := s.question(ctx, unit, func(ctx context.Context, conn *godbus.Conn, unit string) (err error) {
		state, err = unitState(ctx, conn, unit)
		return err
	})
	return state, err
}

// Running reports whether a service is at work; see UnitState.Running. For a unit
// of another type (a timer is active for ever) it is an error. It costs systemd
// less than State.
func (s *States) Running(ctx context.Context, unit string) (bool, error) {
	if name, err := fullName(unit); err == nil && !strings.HasSuffix(name, ".service") {
		return false, &Error{sentence: fmt.Sprintf("%s is not a service, its state tells of no run", name),
			hint: "name the service that it starts", kind: ErrNoUnit}
	}
	var state UnitState
	err := s.question(ctx, unit, func(ctx context.Context, conn *godbus.Conn, unit string) error {
		props, err := unitProperties(ctx, conn, unit, "LoadState", "ActiveState", "SubState")
		if err == nil {
			state, err = stateOf(unit, props)
		}
		return err
	})
	return state.Running(), err
}

// question asks about a unit over the connection that is kept, or a new one. Its
// errors are an *Error.
func (s *States) question(ctx context.Context, unit string, ask func(context.Context, *godbus.Conn, string) error) error {
	unit, err := fullName(unit)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	// A connection that was kept may have died unnoticed: then a new one is tried.
	for {
		conn, kept, err := s.connection(ctx)
		if err != nil {
			return connectError(ctx, err)
		}
		if err = ask(ctx, conn, unit); err == nil {
			return nil
		}
		if _, answered := answerOf(err); !answered {
			s.drop(conn)
			if kept && ctx.Err() == nil {
				continue
			}
		}
		return stateError(ctx, unit, err)
	}
}

// connection returns the connection; kept tells that it is not new.
func (s *States) connection(ctx context.Context) (conn *godbus.Conn, kept bool, err error) {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return nil, false, ctx.Err()
	}
	if s.conn != nil && s.conn.Connected() {
		return s.conn, true, nil
	}
	s.conn = nil
	conn, err = dial(ctx, s.life)
	if err != nil {
		return nil, false, err
	}
	s.conn = conn
	return conn, false, nil
}

// drop gives up a connection that failed.
func (s *States) drop(conn *godbus.Conn) {
	conn.Close()
	s.turn <- struct{}{}
	if s.conn == conn {
		s.conn = nil
	}
	<-s.turn
}

// dial connects to systemd as connect does, with one connection that ends with
// life and is up before the end of ctx.
func dial(ctx, life context.Context) (*godbus.Conn, error) {
	conn, err := dialBus(ctx, life, "")
	if err == nil || ctx.Err() != nil || os.Geteuid() != 0 || !noBus(err) {
		return conn, err
	}
	if private, perr := dialBus(ctx, life, privateSocket); perr == nil {
		return private, nil
	}
	return nil, err
}

// privateSocket is where systemd itself answers root.
const privateSocket = "unix:path=/run/systemd/private"

// dialBus connects to address, or to the system bus when it is empty.
func dialBus(ctx, life context.Context, address string) (*godbus.Conn, error) {
	if err := errors.Join(ctx.Err(), life.Err()); err != nil {
		return nil, err
	}
	bound, cancel := context.WithCancel(life)
	open := func() (*godbus.Conn, error) { return godbus.SystemBusPrivate(godbus.WithContext(bound)) }
	if address != "" {
		open = func() (*godbus.Conn, error) { return godbus.Dial(address, godbus.WithContext(bound)) }
	}
	conn, err := open()
	if err != nil {
		cancel()
		return nil, err
	}
	// Neither call knows a context, but the end of bound closes what they wait on.
	stop := context.AfterFunc(ctx, cancel)
	err = conn.Auth([]godbus.Auth{godbus.AuthExternal(strconv.Itoa(os.Getuid()))})
	switch {
	case err != nil:
	case address == "":
		err = conn.Hello()
	default:
		err = wake(ctx, conn)
	}
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		cancel()
		return nil, err
	}
	context.AfterFunc(conn.Context(), cancel)
	return conn, nil
}

// wake makes systemd read what we sent on its private socket. A message that comes
// along with the end of the authentication lies unread there until the next one
// comes (systemd 252).
func wake(ctx context.Context, conn *godbus.Conn) error {
	const most = 64
	answers := make(chan *godbus.Call, most)
	wait := 2 * time.Millisecond
	for range most {
		conn.Object(busName, managerObj).GoWithContext(ctx, "org.freedesktop.DBus.Peer.Ping", 0, answers)
		timer := time.NewTimer(wait)
		select {
		case call := <-answers:
			timer.Stop()
			return call.Err
		case <-timer.C:
		}
		wait = min(2*wait, time.Second)
	}
	return context.DeadlineExceeded
}

const (
	busName    = "org.freedesktop.systemd1"
	managerObj = godbus.ObjectPath("/org/freedesktop/systemd1")
	properties = "org.freedesktop.DBus.Properties"
)

func unitPath(unit string) godbus.ObjectPath {
	return managerObj + "/unit/" + godbus.ObjectPath(dbus.PathBusEscape(unit))
}

// unitState asks for all properties at once: systemd answers from one moment.
func unitState(ctx context.Context, conn *godbus.Conn, unit string) (UnitState, error) {
	var props map[string]godbus.Variant
	// The empty interface means those of all interfaces.
	err := conn.Object(busName, unitPath(unit)).
		CallWithContext(ctx, properties+".GetAll", godbus.FlagNoAutoStart, "").Store(&props)
	if err != nil {
		return UnitState{}, err
	}
	return stateOf(unit, props)
}

// unitProperties asks for a few properties of the unit, without waiting for one
// answer before the next question.
func unitProperties(ctx context.Context, conn *godbus.Conn, unit string, names ...string) (map[string]godbus.Variant, error) {
	var calls []*godbus.Call
	for _, name := range names {
		calls = append(calls, conn.Object(busName, unitPath(unit)).GoWithContext(ctx, properties+".Get",
			godbus.FlagNoAutoStart, make(chan *godbus.Call, 1), busName+".Unit", name))
	}
	props := make(map[string]godbus.Variant, len(names))
	for i, call := range calls {
		var v godbus.Variant
		if err := (<-call.Done).Store(&v); err != nil {
			return nil, err
		}
		props[names[i]] = v
	}
	return props, nil
}

// stateOf reads the properties that there are.
func stateOf(unit string, props map[string]godbus.Variant) (UnitState, error) {
	state := UnitState{
		Unit:           unit,
		ActiveState:    value[string](props, "ActiveState"),
		SubState:       value[string](props, "SubState"),
		Result:         value[string](props, "Result"),
		ExecMainCode:   int(value[int32](props, "ExecMainCode")),
		ExecMainStatus: int(value[int32](props, "ExecMainStatus")),
		Started:        moment(value[uint64](props, "InactiveExitTimestamp")),
		Ended:          moment(value[uint64](props, "InactiveEnterTimestamp")),
	}
	if id := value[[]byte](props, "InvocationID"); len(id) > 0 {
		state.InvocationID = fmt.Sprintf("%x", id)
	}
	// Asked for a name, systemd makes a unit of it, whether or not there is a file.
	if value[string](props, "LoadState") == "not-found" && !state.Running() {
		return UnitState{}, godbus.NewError(noSuchUnit, []any{"Unit " + unit + " not found."})
	}
	if state.ActiveState == "" {
		return UnitState{}, errors.New("its answer tells no state")
	}
	return state, nil
}

const noSuchUnit = busName + ".NoSuchUnit"

// value returns a property, or the zero value when it is missing or of another type.
func value[T any](props map[string]godbus.Variant, name string) T {
	v, _ := props[name].Value().(T)
	return v
}

// moment turns microseconds since the epoch into a time; 0 means never.
func moment(usec uint64) time.Time {
	if usec == 0 || usec > 1<<62 {
		return time.Time{}
	}
	return time.UnixMicro(int64(usec)).UTC()
}

// fullName adds the suffix that systemctl adds and refuses what systemd would.
func fullName(unit string) (string, error) {
	const suffixes = " service socket target timer path mount automount swap slice scope device "
	name := unit
	if i := strings.LastIndexByte(unit, '.'); i < 0 || !strings.Contains(suffixes, " "+unit[i+1:]+" ") {
		name += ".service"
	}
	bad := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune(`:-_.\@`, r)
	}
	prefix := name[:strings.LastIndexByte(name, '.')]
	if len(name) > 255 || prefix == "" || strings.ContainsFunc(name, bad) || prefix[0] == '@' || strings.HasSuffix(prefix, "@") {
		if len(unit) > 255 {
			unit = unit[:255]
		}
		return "", &Error{sentence: fmt.Sprintf("%q is not the name of a unit", unit), hint: "certbot.service, for example", kind: ErrNoUnit}
	}
	return name, nil
}

// stateError explains why the state of a unit is not known.
func stateError(ctx context.Context, unit string, err error) error {
	answer, ok := answerOf(err)
	switch {
	case ok:
	case ctx.Err() != nil:
		return &Error{sentence: "systemd did not answer in time when asked about " + unit, kind: ErrNoSystemd, err: ctx.Err()}
	default:
		return &Error{sentence: fmt.Sprintf("cannot ask systemd about %s: %v", unit, err), kind: ErrNoSystemd, err: err}
	}
	switch answer.Name {
	case noSuchUnit, "org.freedesktop.systemd1.LoadFailed", "org.freedesktop.DBus.Error.InvalidArgs", "org.freedesktop.DBus.Error.UnknownObject":
		return &Error{sentence: "systemd knows no unit " + unit, hint: "look it up: systemctl list-units --all --type=service", kind: ErrNoUnit, err: err}
	case "org.freedesktop.DBus.Error.AccessDenied", "org.freedesktop.DBus.Error.AuthFailed",
		"org.freedesktop.DBus.Error.InteractiveAuthorizationRequired":
		return &Error{sentence: "not permitted to ask systemd about " + unit,
			hint: "the policy of the bus, or a security module, keeps this user from it", kind: ErrNotPermitted, err: err}
	case "org.freedesktop.DBus.Error.ServiceUnknown", "org.freedesktop.DBus.Error.NameHasNoOwner":
		return &Error{sentence: "systemd is not on the system bus (D-Bus)",
			hint: "it does not run this machine or container", kind: ErrNoSystemd, err: err}
	case "org.freedesktop.DBus.Error.NoReply", "org.freedesktop.DBus.Error.Disconnected":
		return &Error{sentence: "systemd did not answer when asked about " + unit, kind: ErrNoSystemd, err: err}
	}
	return &Error{sentence: fmt.Sprintf("systemd does not tell of %s: %v", unit, answer), err: err}
}
