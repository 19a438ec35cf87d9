package reload

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// DefaultTimeout is what a Runner allows for the test and the way together.
const DefaultTimeout = 60 * time.Second

// Runner reloads servers. It decides nothing: when a reload is due and whether
// it is allowed is the business of State and of the caller.
type Runner struct {
	// Units reloads systemd units; nil: a way that names a unit fails and says so.
	Units Units
	// Timeout is allowed for the test and the way together; 0 means
	// DefaultTimeout.
	Timeout time.Duration
	// Linger is how long a command that is over time may take to end after
	// SIGTERM before SIGKILL, and how long output is still read from processes
	// that a finished command left behind; 0 means 2 s.
	Linger time.Duration
}

// errTimeout is the cause of a context that ended because Timeout was over.
var errTimeout = errors.New("timeout")

// fault is a failure with a hint for a person.
type fault struct {
	detail, hint string
	interrupted  bool
}

// Run reloads s once: the test first, then the way that step asks for. With Touch
// the files in touch get the present time before. It returns when the way has
// ended, at the latest shortly after Timeout or the end of ctx.
func (r Runner) Run(ctx context.Context, s Server, step Step, touch []string) (res Result) {
	begin := time.Now()
	defer func() { res.Took = time.Since(begin) }()
	r.Timeout = cmp.Or(r.Timeout, DefaultTimeout)
	r.Linger = cmp.Or(r.Linger, 2*time.Second)
	ctx, cancel := context.WithTimeoutCause(ctx, r.Timeout, errTimeout)
	defer cancel()

	if len(s.Test) > 0 {
		test := r.command(ctx, s.Test)
		if !test.OK {
			test.How = "test"
			if !test.Interrupted {
				test.Detail = "the test before the reload failed: " + test.Detail
				test.Hint = cmp.Or(test.Hint, "the server was not reloaded; run the test by hand and repair what it names")
			}
			return test
		}
	}
	way := s.Way
	if step == Last && s.Then != nil {
		way = *s.Then
	}
	var notes []string
	if step == Touch {
		notes = touchFiles(touch)
	}
	switch {
	case way.Unit != "":
		res = r.unit(ctx, way.Unit)
	case len(way.Command) > 0:
		res = r.command(ctx, way.Command)
	case way.Signal != "":
		res = r.signal(ctx, way)
	default:
		res = Result{Detail: "server " + printable(s.Name) + " has no way to be reloaded",
			Hint: "give it a unit, a command, or a signal and a pidfile"}
	}
	if len(notes) > 0 {
		res.Detail = strings.Join(append(nonEmpty(res.Detail), notes...), "; ")
	}
	return res
}

func nonEmpty(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

// failed turns a fault into the result of a way.
func failed(how string, f *fault) Result {
	return Result{How: how, Detail: f.detail, Hint: f.hint, Interrupted: f.interrupted}
}

// ended says why ctx is over: the time allowed, or the caller's wish.
func (r Runner) ended(ctx context.Context, what string) *fault {
	if errors.Is(context.Cause(ctx), errTimeout) {
		return &fault{detail: fmt.Sprintf("%s was not done after %s", what, r.Timeout)}
	}
	return &fault{interrupted: true,
		detail: what + " was interrupted; whether the server was reloaded is not known"}
}

func (r Runner) unit(ctx context.Context, unit string) Result {
	const how = "unit"
	name := printable(unit)
	if r.Units == nil {
		return failed(how, &fault{detail: "cannot reload " + name + ": there is no systemd here",
			hint: "use a command or a signal for this server"})
	}
	result, err := r.Units.Reload(ctx, unit)
	switch {
	case err != nil && ctx.Err() != nil:
		f := r.ended(ctx, "the reload of "+name)
		if !f.interrupted {
			f.hint = cmp.Or(hintOf(err), "see what holds it: systemctl status "+name+"; systemctl list-jobs")
		}
		return failed(how, f)
	case err != nil:
		return failed(how, &fault{detail: "cannot reload " + name + ": " + printable(err.Error()), hint: hintOf(err)})
	case result == "done":
		return Result{OK: true, How: how}
	}
	return failed(how, unitFault(name, result))
}

func hintOf(err error) string {
	var h interface{ Hint() string }
	if errors.As(err, &h) {
		return h.Hint()
	}
	return ""
}

// unitFault explains the job results of systemd other than done.
func unitFault(name, result string) *fault {
	status := "see systemctl status " + name + " and journalctl -u " + name
	switch result {
	case "failed":
		return &fault{detail: "the reload of " + name + " failed", hint: status}
	case "invalid":
		return &fault{detail: name + " is not active, so it cannot be reloaded", hint: "start it: systemctl start " + name}
	case "skipped":
		return &fault{detail: "the reload of " + name + " was skipped: it does not apply to the unit's state", hint: status}
	case "timeout":
		return &fault{detail: "the reload of " + name + " ran into systemd's own time limit", hint: status}
	case "canceled":
		return &fault{detail: "the reload of " + name + " was cancelled by another job", hint: "somebody stopped or restarted the unit meanwhile; " + status}
	case "dependency":
		return &fault{detail: "the reload of " + name + " failed because a unit it depends on failed", hint: status}
	}
	return &fault{detail: fmt.Sprintf("the reload of %s ended as %q", name, printable(result)), hint: status}
}
