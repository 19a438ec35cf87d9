package systemd

import (
	"context"
	"errors"
	"time"

	godbus "github.com/godbus/dbus/v5"
)

const (
	// followPoll is how often Follow asks although nothing was signalled.
	followPoll = time.Minute
	// followRetry is how long Follow waits, at first and at most, before it
	// connects again.
	followRetry, followRetryMost = time.Second, time.Minute
)

// StateChange is one thing that Follow has to tell of a unit: its state, or why
// that is not known.
type StateChange struct {
	Unit  string
	State UnitState // when Err is nil
	Err   error     // an *Error
}

// Follow tells the state of each unit at once and whenever it has changed, until
// ctx ends; it returns ctx's error. tell is called from this goroutine and must
// not block for long. Two changes in quick succession may be told as one, but a
// run is never missed: its InvocationID is another. While systemd cannot be
// asked, that is told once and Follow goes on trying.
func (s *States) Follow(ctx context.Context, units []string, tell func(StateChange)) error {
	f := &follower{timeout: s.timeout, tell: tell, last: make(map[string]told), units: make(map[godbus.ObjectPath]string)}
	for _, unit := range units {
		name, err := fullName(unit)
		if err != nil {
			tell(StateChange{Unit: unit, Err: err})
			continue
		}
		f.units[unitPath(name)] = name
	}
	for wait := followRetry; ; wait = min(2*wait, followRetryMost) {
		heard, err := f.listen(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		for _, unit := range f.units {
			f.say(StateChange{Unit: unit, Err: err})
		}
		if heard {
			wait = followRetry
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
	}
}

type follower struct {
	timeout time.Duration
	tell    func(StateChange)
	units   map[godbus.ObjectPath]string
	last    map[string]told
}

// told is what was last said of a unit.
type told struct {
	state UnitState
	err   string
}

func (f *follower) say(c StateChange) {
	now := told{state: c.State}
	if c.Err != nil {
		now.err = c.Err.Error()
	}
	if before, ok := f.last[c.Unit]; ok && before == now {
		return
	}
	f.last[c.Unit] = now
	f.tell(c)
}

// listen follows over one connection, until that is lost. heard reports whether
// systemd answered at all.
func (f *follower) listen(ctx context.Context) (heard bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	dialCtx, done := context.WithTimeout(ctx, f.timeout)
	conn, err := dial(dialCtx, ctx)
	if err != nil {
		err = connectError(dialCtx, err)
	}
	done()
	if err != nil {
		return false, err
	}
	defer conn.Close()

	signals := make(chan *godbus.Signal, 64)
	conn.Signal(signals)
	if err := f.subscribe(ctx, conn); err != nil {
		return false, err
	}
	poll := time.NewTicker(followPoll)
	defer poll.Stop()
	due := f.all()
	for {
		for path := range due {
			if err := f.ask(ctx, conn, f.units[path]); err != nil {
				return heard, err
			}
			heard = true
		}
		select {
		case <-ctx.Done():
			return heard, ctx.Err()
		case <-poll.C:
			due = f.all()
		case signal, ok := <-signals:
			if !ok {
				return heard, &Error{sentence: "the connection to D-Bus was lost", kind: ErrNoSystemd}
			}
			due = f.concerned(signal, signals)
		}
	}
}

// subscribe asks for the signals about our units. systemd sends none to those
// who have not subscribed, and the bus none that match nothing.
func (f *follower) subscribe(ctx context.Context, conn *godbus.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	for path, unit := range f.units {
		err := conn.AddMatchSignalContext(ctx, godbus.WithMatchSender(busName), godbus.WithMatchObjectPath(path),
			godbus.WithMatchInterface(properties), godbus.WithMatchMember("PropertiesChanged"))
		// On systemd's private socket there is no bus that would sort messages.
		if _, answered := answerOf(err); err != nil && !answered {
			return stateError(ctx, unit, err)
		}
	}
	// Running units may be other than they were after systemd was started anew.
	_ = conn.AddMatchSignalContext(ctx, godbus.WithMatchInterface("org.freedesktop.DBus"),
		godbus.WithMatchMember("NameOwnerChanged"), godbus.WithMatchArg(0, busName))
	err := conn.Object(busName, managerObj).
		CallWithContext(ctx, busName+".Manager.Subscribe", godbus.FlagNoAutoStart).Err
	if answer, ok := answerOf(err); ok && answer.Name == busName+".AlreadySubscribed" {
		return nil
	}
	if err != nil {
		return stateError(ctx, "units", err)
	}
	return nil
}

// ask asks for one state and says what is new. It fails only when the connection did.
func (f *follower) ask(ctx context.Context, conn *godbus.Conn, unit string) error {
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	state, err := unitState(ctx, conn, unit)
	if err != nil {
		_, answered := answerOf(err)
		err = stateError(ctx, unit, err)
		if !answered || errors.Is(err, ErrNoSystemd) {
			return err
		}
		f.say(StateChange{Unit: unit, Err: err})
		return nil
	}
	f.say(StateChange{Unit: unit, State: state})
	return nil
}

func (f *follower) all() map[godbus.ObjectPath]bool {
	due := make(map[godbus.ObjectPath]bool, len(f.units))
	for path := range f.units {
		due[path] = true
	}
	return due
}

// concerned returns the units that signal is about, and those of the signals
// that wait behind it: one question answers for all of them.
func (f *follower) concerned(signal *godbus.Signal, more <-chan *godbus.Signal) map[godbus.ObjectPath]bool {
	due := make(map[godbus.ObjectPath]bool)
	for {
		if signal != nil {
			if signal.Name == "org.freedesktop.DBus.NameOwnerChanged" {
				return f.all()
			}
			if f.units[signal.Path] != "" {
				due[signal.Path] = true
			}
		}
		select {
		case next, ok := <-more:
			if !ok {
				return due // the loop finds the channel closed
			}
			signal = next
		default:
			return due
		}
	}
}
